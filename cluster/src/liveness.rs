//! Which nodes are alive, as far as one shard has heard.
//!
//! Liveness is of nodes, not of groups: the links ping, and every group of the shard draws its
//! conclusions. Two directions, two uses:
//!
//! - A ping that came **in** is a promise: for a while this node helps nobody to replace the groups'
//!   leaders on the node that pinged.
//! - A ping that was **answered** proves that such a promise was made, and not before the ping was
//!   sent: it is what a leader's lease is made of.
//!
//! Promises are kept in this node's own time, leases in the leader's; only lengths are compared.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    time::Duration,
};

use openraft::{AsyncRuntime, Instant};

struct Peer<R: AsyncRuntime> {
    /// When the last ping of the node came in.
    heard: Option<R::Instant>,
    /// The links to the node are up.
    up: bool,
    /// When the last answered ping was sent (milliseconds of [`Liveness::now_ms`]).
    answered_ms: Option<u64>,
    /// Since when answers have come without a gap in which the node's promise may have lapsed.
    since: Option<R::Instant>,
}

impl<R: AsyncRuntime> Default for Peer<R> {
    fn default() -> Self {
        Self { heard: None, up: false, answered_ms: None, since: None }
    }
}

/// See the module.
pub(crate) struct Liveness<R: AsyncRuntime> {
    /// When the node started. What it promised before, it does not know.
    pub(crate) started: R::Instant,
    pub(crate) promise: Duration,
    pub(crate) lease: Duration,
    /// A moment of the owner's clock and of the runtime's.
    clock: Cell<(u64, R::Instant)>,
    peers: RefCell<BTreeMap<u64, Peer<R>>>,
    /// How often a replica of the shard stood for election since the start.
    pub(crate) elections: Cell<u64>,
    /// This node stops: it takes no leadership over.
    pub(crate) retiring: Cell<bool>,
}

impl<R: AsyncRuntime> Liveness<R> {
    pub(crate) fn new(promise: Duration, lease: Duration) -> Self {
        let started = R::Instant::now();
        Self {
            started,
            promise,
            lease,
            clock: Cell::new((0, started)),
            peers: RefCell::default(),
            elections: Cell::new(0),
            retiring: Cell::new(false),
        }
    }

    /// The owner's clock shows this.
    pub(crate) fn observe(&self, now_ms: u64) {
        self.clock.set((now_ms, R::Instant::now()));
    }

    /// What the owner's clock shows, about. Never ahead of it by more than the clocks drift.
    pub(crate) fn now_ms(&self) -> u64 {
        let (ms, at) = self.clock.get();
        ms.saturating_add(millis(at.elapsed()))
    }

    /// The owner's clock at a moment of the runtime's.
    pub(crate) fn ms_at(&self, at: R::Instant) -> u64 {
        let left = at.saturating_duration_since(R::Instant::now());
        self.now_ms().saturating_add(millis(left))
    }

    /// A ping of a node has come in.
    pub(crate) fn heard(&self, node: u64) {
        self.peers.borrow_mut().entry(node).or_default().heard = Some(R::Instant::now());
    }

    /// Until when nobody is helped to replace this node, if it was ever heard.
    pub(crate) fn promised_until(&self, node: u64) -> Option<R::Instant> {
        self.peers.borrow().get(&node)?.heard.map(|heard| heard + self.promise)
    }

    /// A ping that was sent at `sent_ms` was answered. Returns whether a new run of answers
    /// begins: what the groups knew of the node's votes is void.
    pub(crate) fn answered(&self, node: u64, sent_ms: u64) -> bool {
        let now_ms = self.now_ms();
        let mut peers = self.peers.borrow_mut();
        let peer = peers.entry(node).or_default();
        // The node had promised until `answered_ms` and the length of a promise, at least. If this
        // answer is here before, the promise has not lapsed in between. Half the difference to a
        // lease is kept for clocks that differ in speed, and for calls that come late.
        let margin = self.promise.saturating_sub(self.lease) / 2;
        let lapses_ms = peer.answered_ms.map(|ms| ms + millis(self.promise.saturating_sub(margin)));
        let goes_on = peer.since.is_some() && lapses_ms.is_some_and(|lapses| now_ms <= lapses);
        if !goes_on {
            peer.since = Some(R::Instant::now());
            peer.answered_ms = Some(sent_ms);
        } else if peer.answered_ms < Some(sent_ms) {
            peer.answered_ms = Some(sent_ms);
        }
        !goes_on
    }

    /// Since when the node has answered without a gap, and when the last answered ping was sent.
    pub(crate) fn run_of(&self, node: u64) -> Option<(R::Instant, u64)> {
        let peers = self.peers.borrow();
        let peer = peers.get(&node)?;
        Some((peer.since?, peer.answered_ms?))
    }

    /// The links to a node came up or went down.
    pub(crate) fn set_up(&self, node: u64, up: bool) {
        let mut peers = self.peers.borrow_mut();
        let peer = peers.entry(node).or_default();
        peer.up = up;
        peer.since = None;
    }

    /// Whether the node can be talked to: its links are up, or it was heard a moment ago.
    pub(crate) fn is_live(&self, node: u64) -> bool {
        let heard = self.promised_until(node).is_some_and(|until| R::Instant::now() < until);
        heard || self.peers.borrow().get(&node).is_some_and(|peer| peer.up)
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Dice of one group: elections must not be in step. Nothing secret; the same for the same seed.
pub(crate) struct Dice(Cell<u64>);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    /// A duration below `max`.
    pub(crate) fn below(&self, max: Duration) -> Duration {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let micros = u64::try_from(max.as_micros()).unwrap_or(u64::MAX).max(1);
        Duration::from_micros(z % micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Runtime;

    #[test]
    fn a_run_of_answers_ends_with_a_gap_and_with_the_links() {
        Runtime::new(1).block_on(async {
            let life =
                Liveness::<Runtime>::new(Duration::from_millis(600), Duration::from_millis(450));
            life.observe(1_000);
            assert!(life.answered(2, 990));
            life.observe(1_500);
            assert!(!life.answered(2, 1_490), "the promise of the ping at 990 still held");
            assert_eq!(life.run_of(2).map(|(_, sent)| sent), Some(1_490));
            life.observe(2_020);
            assert!(life.answered(2, 2_010), "after 525 ms it may have lapsed");
            life.observe(2_100);
            life.set_up(2, false);
            assert!(life.run_of(2).is_none());
            life.set_up(2, true);
            assert!(life.answered(2, 2_090));
        });
    }

    #[test]
    fn dice_stay_below_and_differ() {
        let (one, two) = (Dice::new(1), Dice::new(2));
        let max = Duration::from_millis(40);
        let rolls: Vec<_> = (0..100).map(|_| one.below(max)).collect();
        assert!(rolls.iter().all(|roll| *roll < max));
        assert_ne!(rolls, (0..100).map(|_| two.below(max)).collect::<Vec<_>>());
        assert_eq!(one.below(Duration::ZERO), Duration::ZERO);
    }
}
