//! Latencies: histograms that keep three digits, and what is read off them.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Longest latency told apart, in ns; longer ones count as this.
const LONGEST: u64 = 3_600_000_000_000;

/// Latencies in ns.
#[derive(Clone, Debug)]
pub(crate) struct Latency(Histogram<u64>);

/// What is read off a histogram, in ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) count: u64,
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) max: u64,
}

impl Latency {
    pub(crate) fn new() -> anyhow::Result<Latency> {
        Ok(Latency(Histogram::new_with_bounds(1, LONGEST, 3)?))
    }

    /// Counts one.
    pub(crate) fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns.clamp(1, LONGEST));
    }

    /// Adds those of another thread.
    pub(crate) fn merge(&mut self, other: &Latency) -> anyhow::Result<()> {
        Ok(self.0.add(&other.0)?)
    }

    pub(crate) fn summary(&self) -> Summary {
        let at = |quantile| self.0.value_at_quantile(quantile);
        match self.0.len() {
            0 => Summary::default(),
            count => Summary {
                count,
                p50: at(0.5),
                p90: at(0.9),
                p99: at(0.99),
                p999: at(0.999),
                max: self.0.max(),
            },
        }
    }
}

impl Summary {
    /// In µs, as the JSON report has it.
    pub(crate) fn json(&self) -> Value {
        let us = |ns: u64| ns as f64 / 1000.0;
        json!({
            "count": self.count,
            "p50_us": us(self.p50),
            "p90_us": us(self.p90),
            "p99_us": us(self.p99),
            "p999_us": us(self.p999),
            "max_us": us(self.max),
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn percentiles_keep_three_digits() {
        let mut latency = Latency::new().unwrap();
        for us in 1..=10_000 {
            latency.record(us * 1000);
        }
        let summary = latency.summary();
        assert_eq!(summary.count, 10_000);
        for (value, want) in [
            (summary.p50, 5_000_000u64),
            (summary.p90, 9_000_000),
            (summary.p99, 9_900_000),
            (summary.p999, 9_990_000),
            (summary.max, 10_000_000),
        ] {
            assert!(value.abs_diff(want) <= want / 1000, "{value} is not {want}");
        }
    }

    #[test]
    fn nothing_and_too_much_are_no_trouble() {
        let mut latency = Latency::new().unwrap();
        assert_eq!(latency.summary(), Summary::default());
        latency.record(0);
        latency.record(u64::MAX);
        let mut other = Latency::new().unwrap();
        other.record(5);
        other.merge(&latency).unwrap();
        assert_eq!(other.summary().count, 3);
        assert!(other.summary().max.abs_diff(LONGEST) <= LONGEST / 1000);
    }
}
