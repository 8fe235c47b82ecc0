//! Waking tasks of the same thread: the driver, and readers that wait for its next turn.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    task::{Context, Poll, Waker},
};

/// One task waits, any task of the thread wakes it. A wake-up that comes before the wait counts.
#[derive(Debug, Default)]
pub(crate) struct Notify {
    set: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl Notify {
    /// Wakes the waiting task, now or when it waits next.
    pub(crate) fn notify(&self) {
        if !self.set.replace(true) {
            let waker = self.waiting.borrow_mut().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Ready once for any number of notifications.
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.set.replace(false) {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        match waiting.as_ref() {
            Some(waker) if waker.will_wake(context.waker()) => {}
            _ => *waiting = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Waits for a notification.
    pub(crate) async fn wait(&self) {
        poll_fn(|context| self.poll(context)).await;
    }

    /// Forgets a notification that came already.
    pub(crate) fn clear(&self) {
        self.set.set(false);
    }
}

/// Holds tasks back until the driver has had a turn, or while the shard must not take new work.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    turn: Cell<u64>,
    shut: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
    /// Those whom `shut` does not concern.
    yielding: RefCell<Vec<Waker>>,
}

impl Gate {
    /// The number of the turn that gathers now.
    pub(crate) fn turn(&self) -> u64 {
        self.turn.get()
    }

    /// Starts the next turn. While `shut`, those who wait stay.
    pub(crate) fn next(&self, shut: bool) {
        self.turn.set(self.turn.get() + 1);
        self.shut.set(shut);
        for waker in std::mem::take(&mut *self.yielding.borrow_mut()) {
            waker.wake();
        }
        if !shut {
            let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
            for waker in waiting {
                waker.wake();
            }
        }
    }

    /// Whether no new work is taken.
    pub(crate) fn is_shut(&self) -> bool {
        self.shut.get()
    }

    /// Waits until the turn after `turn` has begun and the gate is open.
    pub(crate) async fn pass(&self, turn: u64) {
        poll_fn(|context| {
            if self.turn.get() != turn && !self.shut.get() {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Waits until the turn after `turn` has begun, whether the gate is open or not.
    pub(crate) async fn begin(&self, turn: u64) {
        poll_fn(|context| {
            if self.turn.get() != turn {
                return Poll::Ready(());
            }
            self.yielding.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
