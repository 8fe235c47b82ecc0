//! Telling every shard of a node to drain and stop.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use crate::wake::ShardWaker;

/// Tells every shard of a node to drain and stop. From any thread; cheap to clone.
#[derive(Clone, Debug)]
pub struct Stop(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    is_draining: AtomicBool,
    /// Shards that have nothing left to do.
    quiet_count: AtomicUsize,
    /// All of them had, at one moment. One may wait for another, so all stop together: whatever
    /// comes to one of them from then on.
    is_over: AtomicBool,
    wakers: Arc<[ShardWaker]>,
}

impl Stop {
    pub(crate) fn new(wakers: Arc<[ShardWaker]>) -> Self {
        Self(Arc::new(Inner {
            is_draining: AtomicBool::new(false),
            quiet_count: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
            wakers,
        }))
    }

    /// Starts the drain on every shard: nothing is accepted any more, the machines get
    /// [`jindou_core::effect::Event::Drain`], and when all shards are quiet, or after
    /// [`crate::NetSettings::drain_ms`], every driver returns. Further calls change nothing.
    pub fn drain(&self) {
        self.0.is_draining.store(true, Ordering::Release);
        for waker in self.0.wakers.iter() {
            waker.wake();
        }
    }

    /// Whether the drain has begun.
    pub fn is_draining(&self) -> bool {
        self.0.is_draining.load(Ordering::Acquire)
    }

    /// Notes that the calling shard has become quiet, or is not any more.
    pub(crate) fn set_quiet(&self, was: bool, is: bool) {
        match (was, is) {
            (false, true) => {
                self.0.quiet_count.fetch_add(1, Ordering::AcqRel);
            }
            (true, false) => {
                self.0.quiet_count.fetch_sub(1, Ordering::AcqRel);
            }
            (true, true) | (false, false) => {}
        }
    }

    /// A shard has rested, or its time is up: it ends if all are quiet, or at once. All others end
    /// with it.
    pub(crate) fn end(&self, at_once: bool) {
        let is_quiet = self.0.quiet_count.load(Ordering::Acquire) >= self.0.wakers.len();
        if (is_quiet || at_once) && !self.0.is_over.swap(true, Ordering::AcqRel) {
            for waker in self.0.wakers.iter() {
                waker.wake();
            }
        }
    }

    /// Whether the drain is over, for every shard.
    pub(crate) fn is_over(&self) -> bool {
        self.0.is_over.load(Ordering::Acquire)
    }
}
