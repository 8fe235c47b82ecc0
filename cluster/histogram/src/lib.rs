//! Stands in for the histogram that openraft counts its batches with (`[patch.crates-io]` in the
//! workspace's manifest).
//!
//! openraft 0.10.0-alpha.37 keeps about ten histograms per group for statistics that are only
//! shown with its feature `runtime-stats`, which we don't use. The crate it takes them from fills
//! tables of 26 MB at the first use, for precisions nobody asks for, and 2 kB per histogram: almost
//! half of what an idle node may hold in memory. This one counts powers of two, 0.5 kB each, and has
//! the methods that openraft calls, no more.

use std::{fmt, marker::PhantomData};

const BUCKET_COUNT: usize = u64::BITS as usize + 1;

/// Counts values by their number of bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: [u64; BUCKET_COUNT],
    /// The original can carry data of a type.
    data: PhantomData<T>,
}

/// Where shares of the values lie: each figure is the least value of the power of two in question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PercentileStats {
    /// How many values.
    pub samples: u64,
    /// One in a thousand is not above.
    pub p0_1: u64,
    /// 1 % are not above.
    pub p1: u64,
    /// 5 % are not above.
    pub p5: u64,
    /// 10 % are not above.
    pub p10: u64,
    /// The median.
    pub p50: u64,
    /// 90 % are not above.
    pub p90: u64,
    /// 99 % are not above.
    pub p99: u64,
    /// 99.9 % are not above.
    pub p99_9: u64,
}

impl<T> Histogram<T> {
    /// Nothing counted.
    pub fn new() -> Self {
        Self { counts: [0; BUCKET_COUNT], data: PhantomData }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value so many times.
    pub fn record_n(&mut self, value: u64, times: u64) {
        let bits = (u64::BITS - value.leading_zeros()) as usize;
        if let Some(count) = self.counts.get_mut(bits) {
            *count = count.saturating_add(times);
        }
    }

    /// Where shares of the values lie.
    pub fn percentile_stats(&self) -> PercentileStats {
        let samples = self.counts.iter().sum();
        let at = |permille| self.at(permille, samples);
        PercentileStats {
            samples,
            p0_1: at(1),
            p1: at(10),
            p5: at(50),
            p10: at(100),
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p99_9: at(999),
        }
    }

    fn at(&self, permille: u64, samples: u64) -> u64 {
        let wanted = (u128::from(samples) * u128::from(permille)).div_ceil(1000);
        let mut seen = 0u128;
        let mut least = 0u64;
        for count in self.counts {
            seen += u128::from(count);
            if seen >= wanted {
                break;
            }
            least = if least == 0 { 1 } else { least << 1 };
        }
        least
    }
}

/// Histograms by name, to be shown below each other.
#[derive(Clone, Debug, Default)]
pub struct AsciiChart(Vec<(String, PercentileStats)>);

impl AsciiChart {
    /// Without histograms.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more.
    pub fn add(mut self, name: impl ToString, histogram: Histogram) -> Self {
        self.0.push((name.to_string(), histogram.percentile_stats()));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, stats)| writeln!(f, "{name}: {stats}"))
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p50, p99, p99_9, .. } = self;
        write!(f, "{samples} values, p50 {p50}, p99 {p99}, p99.9 {p99_9}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_lie_where_they_should() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats(), PercentileStats::default());
        for _ in 0..98 {
            histogram.record(5);
        }
        histogram.record(0);
        histogram.record(u64::MAX);
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p1, stats.p5), (100, 0, 4));
        assert_eq!((stats.p50, stats.p99, stats.p99_9), (4, 4, 1 << 63));
    }
}
