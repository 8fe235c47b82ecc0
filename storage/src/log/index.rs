//! Where the entries of each group lie: in which generation of the log which indexes.

use std::ops::Range;

/// Consecutive entries of a group in one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) first: u64,
    pub(super) last: u64,
    /// The order of the generation.
    pub(super) generation: u64,
}

/// One group's entries, oldest first. What is purged is not in here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GroupIndex {
    segments: Vec<Segment>,
    /// The last purged index.
    mark: Option<u64>,
}

impl GroupIndex {
    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The last purged index.
    pub(super) fn mark(&self) -> Option<u64> {
        self.mark
    }

    pub(super) fn first(&self) -> Option<u64> {
        self.segments.first().map(|segment| segment.first)
    }

    pub(super) fn last(&self) -> Option<u64> {
        self.segments.last().map(|segment| segment.last)
    }

    /// Entries `first..=last` stand in a generation, and what was known from `first` on does not
    /// count any more.
    pub(super) fn add(&mut self, first: u64, last: u64, generation: u64) {
        let first = first.max(self.mark.map_or(0, |mark| mark.saturating_add(1)));
        if first > last {
            return;
        }
        self.truncate(first.checked_sub(1));
        match self.segments.last_mut() {
            Some(tail)
                if tail.generation == generation && tail.last.checked_add(1) == Some(first) =>
            {
                tail.last = last;
            }
            _ => self.segments.push(Segment { first, last, generation }),
        }
    }

    /// Nothing is left of `first..=last`; what is before and behind stays.
    pub(super) fn forget(&mut self, first: u64, last: u64) {
        let before = |s: &Segment| first.checked_sub(1).map(|end| (s.first, s.last.min(end)));
        let behind = |s: &Segment| last.checked_add(1).map(|start| (s.first.max(start), s.last));
        self.segments =
            self.segments
                .iter()
                .flat_map(|segment| {
                    let parts = [before(segment), behind(segment)];
                    parts.into_iter().flatten().filter(|(first, last)| first <= last).map(
                        |(first, last)| Segment { first, last, generation: segment.generation },
                    )
                })
                .collect();
    }

    /// Entries `first..=last` stand in a generation, and nowhere else; what is behind them stays.
    pub(super) fn insert(&mut self, first: u64, last: u64, generation: u64) {
        self.forget(first, last);
        let first = first.max(self.mark.map_or(0, |mark| mark.saturating_add(1)));
        if first <= last {
            let place = self.segments.partition_point(|segment| segment.first < first);
            self.segments.insert(place, Segment { first, last, generation });
        }
    }

    /// Nothing after `index` is left.
    pub(super) fn truncate(&mut self, index: Option<u64>) {
        let Some(index) = index else {
            self.segments.clear();
            return;
        };
        while let Some(tail) = self.segments.last_mut() {
            if tail.last <= index {
                break;
            }
            if tail.first <= index {
                tail.last = index;
                break;
            }
            self.segments.pop();
        }
    }

    /// Nothing up to `index` is left, and never will be.
    pub(super) fn purge(&mut self, index: u64) {
        self.mark = Some(self.mark.map_or(index, |mark| mark.max(index)));
        self.segments.retain_mut(|segment| {
            segment.first = segment.first.max(index.saturating_add(1));
            segment.first <= segment.last
        });
    }

    /// The parts of `range` that exist, ascending.
    pub(super) fn parts(&self, range: &Range<u64>) -> Vec<Segment> {
        let Some(last) = range.end.checked_sub(1) else {
            return Vec::new();
        };
        self.segments
            .iter()
            .map(|segment| Segment {
                first: segment.first.max(range.start),
                last: segment.last.min(last),
                generation: segment.generation,
            })
            .filter(|part| part.first <= part.last)
            .collect()
    }

    /// How many entries a generation holds that are still needed.
    #[cfg(test)]
    fn live_count(&self, generation: u64) -> u64 {
        let segments = self.segments.iter();
        segments.filter(|s| s.generation == generation).map(Segment::count).sum()
    }
}

impl Segment {
    /// How many entries it is.
    pub(super) fn count(&self) -> u64 {
        self.last - self.first + 1
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::indexing_slicing, reason = "tests")]
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Op {
        Add(u64, u64),
        /// Everything of the generation that is so far from the youngest goes to a new one.
        Carry(u64),
        Truncate(u64),
        Purge(u64),
    }

    fn any_op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (1u64..6, 0u64..3).prop_map(|(count, step)| Op::Add(count, step)),
            2 => (1u64..5).prop_map(Op::Carry),
            1 => (0u64..40).prop_map(Op::Truncate),
            2 => (0u64..40).prop_map(Op::Purge),
        ]
    }

    proptest! {
        /// Appends grow at the end, truncation cuts the end, purge the beginning, carrying moves
        /// parts; the model is a map from index to generation.
        #[test]
        fn the_index_is_what_a_map_says(ops in prop::collection::vec(any_op(), 0..40)) {
            let mut index = GroupIndex::default();
            let mut model = BTreeMap::new();
            let (mut generation, mut next, mut mark) = (0, 0, None);
            for op in ops {
                match op {
                    Op::Add(count, step) => {
                        generation += step;
                        index.add(next, next + count - 1, generation);
                        model.extend((next..next + count).map(|index| (index, generation)));
                        next += count;
                    }
                    Op::Carry(back) => {
                        let old = generation.saturating_sub(back);
                        generation += 1;
                        for segment in index.segments().to_vec() {
                            if segment.generation == old {
                                index.insert(segment.first, segment.last, generation);
                            }
                        }
                        let moved = model.values_mut().filter(|known| **known == old);
                        moved.for_each(|known| *known = generation);
                    }
                    Op::Truncate(after) => {
                        let after = after.max(mark.unwrap_or(0));
                        index.truncate(Some(after));
                        model.retain(|index, _| *index <= after);
                        next = next.min(after + 1);
                    }
                    Op::Purge(to) => {
                        index.purge(to);
                        model.retain(|index, _| *index > to);
                        mark = mark.max(Some(to));
                        next = next.max(to + 1);
                    }
                }
                let flat: BTreeMap<u64, u64> = index
                    .segments()
                    .iter()
                    .flat_map(|s| (s.first..=s.last).map(|index| (index, s.generation)))
                    .collect();
                prop_assert_eq!(&flat, &model);
                prop_assert_eq!(index.first(), model.keys().next().copied());
                prop_assert_eq!(index.last(), model.keys().next_back().copied());
                let counted: u64 = (0..=generation).map(|g| index.live_count(g)).sum();
                prop_assert_eq!(counted, model.len() as u64);
            }
            let parts = index.parts(&(3..9));
            let inside: u64 = parts.iter().map(|part| part.last - part.first + 1).sum();
            prop_assert_eq!(inside, model.range(3..9).count() as u64);
            prop_assert!(parts.windows(2).all(|pair| pair[0].last < pair[1].first));
        }
    }
}
