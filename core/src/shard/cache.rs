//! What a shard keeps of the state store in memory, bounded in bytes (design.md §2a).

use std::hash::Hash;

use crate::map::Map;

/// Loaded values, and what waits for those that are being loaded.
#[derive(Debug)]
pub(crate) struct Cache<K, V, W> {
    entries: Map<K, Slotted<V, W>>,
    size: usize,
    hand: usize,
}

#[derive(Debug)]
enum Slotted<V, W> {
    Loading { waiters: Vec<W>, pinned: bool },
    Ready { value: V, size: usize, used: bool, pinned: bool },
}

/// What a look-up found.
pub(crate) enum Found<'a, V> {
    /// It is here.
    Ready(&'a mut V),
    /// It is on its way; the waiter is called when it is here.
    Loading,
    /// It must be asked for now; the waiter is called when it is here.
    Missing,
}

impl<K: Hash + Eq + Clone, V, W> Default for Cache<K, V, W> {
    fn default() -> Self {
        Self { entries: Map::default(), size: 0, hand: 0 }
    }
}

impl<K: Hash + Eq + Clone, V, W> Cache<K, V, W> {
    /// The value if it is loaded.
    pub(crate) fn get(&mut self, key: &K) -> Option<&mut V> {
        match self.entries.get_mut(key)? {
            Slotted::Loading { .. } => None,
            Slotted::Ready { value, used, .. } => {
                *used = true;
                Some(value)
            }
        }
    }

    /// The value, or a place in the queue for it. `waiter` is only made if it has to wait.
    pub(crate) fn get_or_wait(&mut self, key: &K, waiter: impl FnOnce() -> W) -> Found<'_, V> {
        if !self.entries.contains_key(key) {
            let waiters = vec![waiter()];
            self.entries.insert(key.clone(), Slotted::Loading { waiters, pinned: false });
            return Found::Missing;
        }
        match self.entries.get_mut(key) {
            Some(Slotted::Ready { value, used, .. }) => {
                *used = true;
                Found::Ready(value)
            }
            Some(Slotted::Loading { waiters, .. }) => {
                waiters.push(waiter());
                Found::Loading
            }
            None => Found::Missing,
        }
    }

    /// How many wait for the value.
    pub(crate) fn waiting_count(&self, key: &K) -> usize {
        match self.entries.get(key) {
            Some(Slotted::Loading { waiters, .. }) => waiters.len(),
            Some(Slotted::Ready { .. }) | None => 0,
        }
    }

    /// Whether the value is on its way.
    pub(crate) fn is_loading(&self, key: &K) -> bool {
        matches!(self.entries.get(key), Some(Slotted::Loading { .. }))
    }

    /// Keeps a value, loaded or on its way, whatever the bound says, until it is let go.
    pub(crate) fn pin(&mut self, key: &K, pin: bool) {
        match self.entries.get_mut(key) {
            Some(Slotted::Loading { pinned, .. } | Slotted::Ready { pinned, .. }) => *pinned = pin,
            None => {}
        }
    }

    /// Puts a loaded value in and gives back who waited for it.
    pub(crate) fn put(&mut self, key: &K, value: V, size: usize) -> Vec<W> {
        self.size += size;
        let ready = Slotted::Ready { value, size, used: false, pinned: false };
        let (waiters, keep) = match self.entries.insert(key.clone(), ready) {
            Some(Slotted::Loading { waiters, pinned }) => (waiters, pinned),
            Some(Slotted::Ready { size, pinned, .. }) => {
                self.size -= size;
                (Vec::new(), pinned)
            }
            None => (Vec::new(), false),
        };
        if keep {
            self.pin(key, true);
        }
        waiters
    }

    /// Tells that a value has grown or shrunk.
    pub(crate) fn resize(&mut self, key: &K, size_of: impl Fn(&V) -> usize) {
        if let Some(Slotted::Ready { value, size, .. }) = self.entries.get_mut(key) {
            let new = size_of(value);
            self.size = self.size + new - *size;
            *size = new;
        }
    }

    /// Everything that is loaded.
    pub(crate) fn loaded_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.entries.iter_mut().filter_map(|(key, entry)| match entry {
            Slotted::Ready { value, .. } => Some((key, value)),
            Slotted::Loading { .. } => None,
        })
    }

    /// Forgets loaded values that match; of those on their way, the waiters that are `stale`.
    pub(crate) fn forget(&mut self, matches: impl Fn(&K) -> bool, stale: impl Fn(&W) -> bool) {
        let mut freed = 0;
        self.entries.retain(|key, entry| match entry {
            Slotted::Ready { size, .. } if matches(key) => {
                freed += *size;
                false
            }
            Slotted::Loading { waiters, pinned } if matches(key) => {
                waiters.retain(|waiter| !stale(waiter));
                *pinned = false;
                true
            }
            Slotted::Ready { .. } | Slotted::Loading { .. } => true,
        });
        self.size -= freed;
    }

    /// Forgets values that were not used lately until the rest is within the bound (the clock
    /// algorithm). Pinned ones stay, and those that `needed` names.
    pub(crate) fn shrink(&mut self, size_max: usize, needed: impl Fn(&K, &V) -> bool) {
        let mut looked_at = 0;
        // Once to forgive, once to forget, and once more for those that moved past the hand.
        let looks_max = 3 * self.entries.len();
        while self.size > size_max && looked_at < looks_max {
            looked_at += 1;
            if self.hand >= self.entries.len() {
                self.hand = 0;
            }
            let evicted = match self.entries.get_index_mut(self.hand) {
                Some((key, Slotted::Ready { value, size, used, pinned: false }))
                    if !needed(key, value) =>
                {
                    if std::mem::take(used) {
                        None
                    } else {
                        Some(*size)
                    }
                }
                Some((_, Slotted::Ready { .. } | Slotted::Loading { .. })) | None => None,
            };
            if let Some(size) = evicted {
                // The youngest moves into the hole: the hand passes it.
                self.entries.swap_remove_index(self.hand);
                self.size -= size;
            }
            self.hand += 1;
        }
    }

    /// Bytes of loaded values, about.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// [`Cache::shrink`] for longer: the room for what went is given back too.
    pub(crate) fn rest(&mut self, size_max: usize, needed: impl Fn(&K, &V) -> bool) {
        self.shrink(size_max, needed);
        self.entries.shrink_to_fit();
    }

    /// How many values are loaded or being loaded.
    pub(crate) fn count(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_wait_are_called_once_and_in_order() {
        let mut cache: Cache<u8, u8, u8> = Cache::default();
        assert!(matches!(cache.get_or_wait(&1, || 10), Found::Missing));
        assert!(matches!(cache.get_or_wait(&1, || 11), Found::Loading));
        assert_eq!(cache.put(&1, 7, 1), vec![10, 11]);
        assert!(matches!(cache.get_or_wait(&1, || 12), Found::Ready(7)));
    }

    #[test]
    fn the_bound_holds_and_what_is_used_stays() {
        let mut cache: Cache<u32, u32, ()> = Cache::default();
        for n in 0..100 {
            cache.put(&n, n, 10);
            cache.get(&0);
            cache.shrink(500, |_, _| false);
            assert!(cache.size <= 500);
        }
        assert!(cache.get(&0).is_some());
        let young = (90..100).filter(|n| cache.get(n).is_some()).count();
        assert!(young >= 8, "{young} of the ten youngest stay");
    }

    #[test]
    fn pinned_and_needed_values_stay_over_the_bound() {
        let mut cache: Cache<u32, u32, ()> = Cache::default();
        cache.get_or_wait(&3, || ());
        cache.pin(&3, true);
        for n in 1..=3 {
            cache.put(&n, n, 10);
        }
        cache.shrink(0, |_, value| *value == 1);
        assert!(cache.get(&1).is_some() && cache.get(&2).is_none() && cache.get(&3).is_some());
        cache.pin(&3, false);
        cache.shrink(0, |_, _| false);
        cache.shrink(0, |_, _| false);
        assert!(cache.get(&3).is_none());
    }

    #[test]
    fn what_is_forgotten_on_its_way_keeps_only_waiters_that_are_not_stale() {
        let mut cache: Cache<u8, u8, u8> = Cache::default();
        cache.get_or_wait(&1, || 10);
        cache.get_or_wait(&1, || 11);
        cache.pin(&1, true);
        cache.forget(|_| true, |waiter| *waiter == 10);
        assert_eq!(cache.put(&1, 7, 1), vec![11]);
        cache.shrink(0, |_, _| false);
        assert!(cache.get(&1).is_none(), "no longer pinned");
    }
}
