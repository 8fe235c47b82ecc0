//! How often an address may guess a password. Who guesses waits; nobody else does.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Wrong guesses that an address has at once.
const BURST: i64 = 20;
/// Milliseconds until it has one more.
const PAUSE_MS: i64 = 5_000;
/// Addresses that are remembered. One that is forgotten too early has its guesses anew.
const ADDRESSES_MAX: usize = 10_000;

/// The wrong guesses of late, shared by the shards of a node.
#[derive(Debug, Default)]
pub struct Attempts {
    /// By address: the unix ms at which all its guesses are back.
    back_ms: Mutex<HashMap<IpAddr, i64>>,
    failed: AtomicU64,
    limited: AtomicU64,
}

/// An address has used up its guesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limited {
    /// Seconds until it may guess again.
    pub(super) wait_s: i64,
}

/// Whose guesses count together: of IPv6 a /64, which is one subscriber's.
fn guesser(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
    }
}

impl Attempts {
    /// Whether an address may try now.
    pub(super) fn check(&self, ip: IpAddr, now_ms: i64) -> Result<(), Limited> {
        let known = self.back_ms.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(back_ms) = known.get(&guesser(ip)) else { return Ok(()) };
        // A clock that was set back must not lock anybody out for longer than a full wait.
        let used_ms = back_ms.saturating_sub(now_ms).min(BURST * PAUSE_MS);
        let wait_ms = used_ms - (BURST - 1) * PAUSE_MS;
        if wait_ms <= 0 {
            return Ok(());
        }
        self.limited.fetch_add(1, Ordering::Relaxed);
        Err(Limited { wait_s: (wait_ms + 999) / 1000 })
    }

    /// An address guessed wrong.
    pub(super) fn failed(&self, ip: IpAddr, now_ms: i64) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let ip = guesser(ip);
        let mut known = self.back_ms.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= ADDRESSES_MAX && !known.contains_key(&ip) {
            known.retain(|_, back_ms| *back_ms > now_ms);
            // All of them are guessing: the one that did so least is forgotten.
            let least = known.iter().min_by_key(|(_, back_ms)| **back_ms).map(|(ip, _)| *ip);
            if let Some(least) = least.filter(|_| known.len() >= ADDRESSES_MAX) {
                known.remove(&least);
            }
        }
        let back_ms = known.entry(ip).or_insert(now_ms);
        let used_ms = back_ms.saturating_sub(now_ms).clamp(0, (BURST - 1) * PAUSE_MS);
        *back_ms = now_ms.saturating_add(used_ms + PAUSE_MS);
    }

    /// Log-ins with a wrong name or password, and those that were not looked at.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.failed.load(Ordering::Relaxed), self.limited.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED))
    }

    #[test]
    fn who_guesses_waits_and_nobody_else() {
        let attempts = Attempts::default();
        let bad = ip("10.0.0.1");
        for _ in 0..BURST {
            assert_eq!(attempts.check(bad, 1_000), Ok(()));
            attempts.failed(bad, 1_000);
        }
        assert_eq!(attempts.check(bad, 1_000), Err(Limited { wait_s: 5 }));
        assert_eq!(attempts.check(ip("::ffff:10.0.0.1"), 1_000), Err(Limited { wait_s: 5 }));
        assert_eq!(attempts.check(ip("10.0.0.2"), 1_000), Ok(()));
        assert_eq!(attempts.check(bad, 1_000 + PAUSE_MS), Ok(()), "one guess is back");
        attempts.failed(bad, 1_000 + PAUSE_MS);
        assert!(attempts.check(bad, 1_000 + PAUSE_MS).is_err());
        assert_eq!(attempts.counts(), (21, 3));
        assert_eq!(attempts.check(bad, 1_000 + PAUSE_MS + BURST * PAUSE_MS), Ok(()));
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out_for_long() {
        let attempts = Attempts::default();
        let bad = ip("10.0.0.1");
        for _ in 0..2 * BURST {
            attempts.failed(bad, i64::MAX / 2);
        }
        assert_eq!(attempts.check(bad, 0), Err(Limited { wait_s: 5 }));
        attempts.failed(bad, 0);
        assert_eq!(attempts.check(bad, PAUSE_MS), Ok(()));
    }

    #[test]
    fn a_subscribers_addresses_count_together() {
        let attempts = Attempts::default();
        for n in 0..BURST {
            attempts.failed(ip(&format!("2001:db8::{n:x}")), 0);
        }
        assert!(attempts.check(ip("2001:db8::ffff"), 0).is_err());
        assert_eq!(attempts.check(ip("2001:db8:0:1::"), 0), Ok(()));
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_the_worst() {
        let attempts = Attempts::default();
        let bad = ip("10.0.0.1");
        for _ in 0..BURST {
            attempts.failed(bad, 0);
        }
        for n in 0..ADDRESSES_MAX + 100 {
            let bits = 0x0b00_0000 + u32::try_from(n).unwrap_or(0);
            attempts.failed(IpAddr::V4(bits.into()), 0);
        }
        let known = attempts.back_ms.lock().map_or(0, |known| known.len());
        assert_eq!(known, ADDRESSES_MAX);
        assert!(attempts.check(bad, 0).is_err());
    }
}
