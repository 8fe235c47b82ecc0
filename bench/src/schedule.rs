//! The open loop's schedule: moments at which messages are due, fixed beforehand, so that a server that
//! stalls cannot make its own load lighter (coordinated omission).

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::args::Arrivals;

/// Moments in ns.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    start: u64,
    end: u64,
    gap: f64,
    /// Offset of the next one from `start`.
    offset: f64,
    /// Place of the next one, for uniform gaps: multiplied, so that errors do not add up.
    place: u64,
    dice: Option<Box<ChaCha8Rng>>,
}

impl Schedule {
    /// `rate` per second from `start` up to `end`.
    pub(crate) fn new(start: u64, end: u64, rate: f64, arrivals: Arrivals, seed: u64) -> Schedule {
        let dice =
            (arrivals == Arrivals::Poisson).then(|| Box::new(ChaCha8Rng::seed_from_u64(seed)));
        let mut schedule = Schedule { start, end, gap: 1e9 / rate, offset: 0.0, place: 0, dice };
        if schedule.dice.is_some() {
            schedule.advance();
        }
        schedule
    }

    /// When the next one is due; `None` after the last.
    pub(crate) fn next(&self) -> Option<u64> {
        let at = self.start.saturating_add(nanos(self.offset));
        (at < self.end).then_some(at)
    }

    /// Takes the next one if it is due.
    pub(crate) fn take(&mut self, now: u64) -> Option<u64> {
        let due = self.next().filter(|due| *due <= now)?;
        self.advance();
        Some(due)
    }

    fn advance(&mut self) {
        match &mut self.dice {
            None => {
                self.place += 1;
                self.offset = self.place as f64 * self.gap;
            }
            Some(dice) => {
                // Uniform in (0, 1], so that the logarithm is finite.
                let uniform = ((dice.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64;
                self.offset -= uniform.ln() * self.gap;
            }
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates; never negative"
)]
fn nanos(offset: f64) -> u64 {
    offset as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_moments_do_not_drift_and_wait_for_nobody() {
        let mut schedule = Schedule::new(1_000, 1_000 + 2_000_000_000, 3.0, Arrivals::Uniform, 1);
        assert_eq!(schedule.take(999), None);
        assert_eq!(schedule.take(1_000), Some(1_000));
        assert_eq!(schedule.take(1_000), None);
        // The taker was away for a second and a half: what became due is still due, at its moment.
        let late: Vec<u64> = std::iter::from_fn(|| schedule.take(1_500_001_000)).collect();
        assert_eq!(late, [333_334_333, 666_667_666, 1_000_001_000, 1_333_334_333]);
        let rest: Vec<u64> = std::iter::from_fn(|| schedule.take(u64::MAX)).collect();
        assert_eq!(rest, [1_666_667_666]);
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn poisson_moments_keep_the_rate_and_the_seed() {
        let count = |seed| {
            let mut schedule = Schedule::new(0, 10_000_000_000, 1000.0, Arrivals::Poisson, seed);
            std::iter::from_fn(|| schedule.take(u64::MAX)).collect::<Vec<_>>()
        };
        let moments = count(7);
        assert!(moments.len().abs_diff(10_000) < 400, "{}", moments.len());
        assert!(moments.is_sorted());
        assert_eq!(moments, count(7));
        assert_ne!(moments, count(8));
    }
}
