//! Waking a parked shard from another thread.
//!
//! ```text
//!   producer                               consumer (the shard's driver)
//!   publish into a queue                   parked = true
//!   fence                                  fence
//!   parked? ── no ──► done                 look into every queue ── something ──► parked = false
//!      │ yes                                   │ nothing
//!   swap(false) was true? write eventfd        await the eventfd
//! ```
//!
//! Either the producer sees `parked`, or the consumer sees what was published: the two fences
//! leave no third case (tested with loom below). While the shard is awake a wake-up is one fence
//! and one load; waking a parked core costs 7–9 µs whatever the mechanism.

use std::{
    fmt,
    fs::File,
    io::{self, Read, Write},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering, fence},
    },
};

use crate::{counters::Counters, sys};

/// The flag of the protocol, so that loom can put its own atomics in.
pub(crate) trait Flag {
    fn load(&self) -> bool;
    fn store(&self, value: bool);
    fn swap(&self, value: bool) -> bool;
    fn fence();
}

impl Flag for AtomicBool {
    fn load(&self) -> bool {
        self.load(Ordering::Relaxed)
    }

    fn store(&self, value: bool) {
        self.store(value, Ordering::Relaxed);
    }

    fn swap(&self, value: bool) -> bool {
        self.swap(value, Ordering::AcqRel)
    }

    fn fence() {
        fence(Ordering::SeqCst);
    }
}

/// Whether the consumer sleeps or is about to.
#[derive(Debug, Default)]
pub(crate) struct Parking<F>(F);

impl<F: Flag> Parking<F> {
    /// Consumer: from here on producers write the eventfd. Queues must be looked at once more
    /// before waiting for it.
    pub(crate) fn announce(&self) {
        self.0.store(true);
        F::fence();
    }

    /// Consumer: awake, producers need not write.
    pub(crate) fn awake(&self) {
        self.0.store(false);
    }

    /// Producer, after publishing: whether to write the eventfd. Of many producers one does.
    pub(crate) fn must_wake(&self) -> bool {
        F::fence();
        self.0.load() && self.0.swap(false)
    }
}

/// An eventfd.
#[derive(Debug)]
pub(crate) struct EventFd(File);

impl EventFd {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(File::from(sys::event_fd()?)))
    }

    /// Makes it readable.
    pub(crate) fn write(&self) {
        // Fails only when the counter is at its end, and then it is readable anyway.
        let _ = (&self.0).write(&1_u64.to_ne_bytes());
    }

    /// Makes it not readable.
    pub(crate) fn clear(&self) {
        let _ = (&self.0).read(&mut [0; 8]);
    }

    /// A second descriptor of the same eventfd.
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        Ok(self.0.try_clone()?.into())
    }
}

pub(crate) struct WakerInner {
    pub(crate) parking: Parking<AtomicBool>,
    pub(crate) event: EventFd,
    counters: Arc<Counters>,
}

/// Wakes a shard from any thread, after something was put into a queue that one of its sources
/// drains ([`crate::Handle::add_source`]). Cheap to clone.
#[derive(Clone)]
pub struct ShardWaker(pub(crate) Arc<WakerInner>);

impl ShardWaker {
    pub(crate) fn new(counters: Arc<Counters>) -> io::Result<Self> {
        Ok(Self(Arc::new(WakerInner {
            parking: Parking::default(),
            event: EventFd::new()?,
            counters,
        })))
    }

    /// Wakes the shard if it is parked. Call once per batch, after publishing all of it.
    pub fn wake(&self) {
        if self.0.parking.must_wake() {
            self.0.counters.wakeups.add_shared(1);
            self.0.event.write();
        }
    }
}

impl fmt::Debug for ShardWaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardWaker").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use loom::sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering, fence},
    };

    use super::{Flag, Parking};

    impl Flag for AtomicBool {
        fn load(&self) -> bool {
            self.load(Ordering::Relaxed)
        }

        fn store(&self, value: bool) {
            self.store(value, Ordering::Relaxed);
        }

        fn swap(&self, value: bool) -> bool {
            self.swap(value, Ordering::AcqRel)
        }

        fn fence() {
            fence(Ordering::SeqCst);
        }
    }

    struct World {
        parking: Parking<AtomicBool>,
        published: AtomicUsize,
        event: AtomicBool,
    }

    fn a_consumer_that_parks_is_woken(producers: usize) {
        loom::model(move || {
            let world = Arc::new(World {
                parking: Parking(AtomicBool::new(false)),
                published: AtomicUsize::new(0),
                event: AtomicBool::new(false),
            });
            let threads: Vec<_> = (0..producers)
                .map(|_| {
                    let world = Arc::clone(&world);
                    loom::thread::spawn(move || {
                        world.published.fetch_add(1, Ordering::Release);
                        if world.parking.must_wake() {
                            world.event.store(true, Ordering::Release);
                        }
                    })
                })
                .collect();
            world.parking.announce();
            let seen = world.published.load(Ordering::Acquire);
            for thread in threads {
                assert!(thread.join().is_ok());
            }
            // Whatever the consumer missed before it went to sleep must have rung the bell.
            assert!(seen == producers || world.event.load(Ordering::Acquire));
        });
    }

    #[test]
    fn one_producer_never_loses_a_wake_up() {
        a_consumer_that_parks_is_woken(1);
    }

    #[test]
    fn two_producers_never_lose_a_wake_up() {
        a_consumer_that_parks_is_woken(2);
    }
}
