//! What the parts of one group share on their shard: the shard's inbox, how far the shard has
//! applied, proposals that wait for a sleeping group, and a snapshot that is coming in.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    io,
    rc::Rc,
    task::{Poll, Waker},
};

use bytes::Bytes;
use jindou_core::{
    effect::Event,
    id::{LogId, SlotId},
};

use crate::{
    proposal::{Proposals, Verdict},
    types::{GroupId, SnapshotMeta, Vote},
};

/// Puts an event into the shard's inbox. Called from inside any method of [`crate::Groups`] and
/// from tasks, so it only queues: it must not step the shard.
pub type Sink = Rc<dyn Fn(Event)>;

/// Names one transfer of a snapshot: the sender, its term, and its count of transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) node: u64,
    pub(crate) term: u64,
    pub(crate) count: u64,
}

/// A snapshot that is coming in, or has come and is being installed.
pub(crate) struct Incoming {
    pub(crate) transfer: Transfer,
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
    /// The number of the next chunk.
    pub(crate) next: u64,
    /// openraft has it; nothing may disturb it.
    pub(crate) installing: bool,
}

/// See the module.
pub(crate) struct Shared {
    pub(crate) group: GroupId,
    pub(crate) slot: SlotId,
    pub(crate) node: u64,
    sink: Sink,
    /// The last entry that the shard has applied.
    applied: Cell<Option<LogId>>,
    /// The index that the state machine waits for, and its waker.
    awaited: RefCell<Option<(u64, Waker)>>,
    /// The group is being shut down.
    closed: Cell<bool>,
    /// The last entry whose effects are durable in the state store.
    pub(crate) durable: Cell<Option<LogId>>,
    /// The last blank entry that this node proposed, i.e. the first of its term.
    blank: Cell<Option<LogId>>,
    /// Proposals that a sleeping group refused, in order.
    asleep: RefCell<VecDeque<(u64, Bytes)>>,
    /// Starts to wake the group.
    on_asleep: RefCell<Option<Box<dyn Fn()>>>,
    pub(crate) incoming: RefCell<Option<Incoming>>,
}

impl Shared {
    pub(crate) fn new(group: GroupId, node: u64, sink: Sink, applied: Option<LogId>) -> Self {
        Self {
            group,
            slot: group.slot(),
            node,
            sink,
            applied: Cell::new(applied),
            awaited: RefCell::default(),
            closed: Cell::new(false),
            durable: Cell::new(None),
            blank: Cell::new(None),
            asleep: RefCell::default(),
            on_asleep: RefCell::default(),
            incoming: RefCell::default(),
        }
    }

    pub(crate) fn emit(&self, event: Event) {
        (self.sink)(event);
    }

    pub(crate) fn propose_failed(&self, proposal: u64) {
        self.emit(Event::ProposeFailed { slot: self.slot, proposal });
    }

    pub(crate) fn applied(&self) -> Option<LogId> {
        self.applied.get()
    }

    /// The shard has applied an entry.
    pub(crate) fn set_applied(&self, log_id: LogId) {
        if self.applied.get().is_some_and(|old| old.index >= log_id.index) {
            return;
        }
        self.applied.set(Some(log_id));
        let reached = self.awaited.borrow_mut().take_if(|(index, _)| *index <= log_id.index);
        if let Some((_, waker)) = reached {
            waker.wake();
        }
    }

    /// A snapshot replaced everything.
    pub(crate) fn reset_applied(&self, log_id: Option<LogId>) {
        self.applied.set(log_id);
    }

    /// Waits until the shard has applied the entry at `index`.
    pub(crate) async fn wait_applied(&self, index: u64) -> io::Result<()> {
        poll_fn(|cx| {
            if self.applied.get().is_some_and(|applied| applied.index >= index) {
                Poll::Ready(Ok(()))
            } else if self.closed.get() {
                Poll::Ready(Err(io::Error::other("the group is shut down")))
            } else {
                *self.awaited.borrow_mut() = Some((index, cx.waker().clone()));
                Poll::Pending
            }
        })
        .await
    }

    /// Nobody will apply any more.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        if let Some((_, waker)) = self.awaited.take() {
            waker.wake();
        }
        *self.on_asleep.borrow_mut() = None;
        self.fail_asleep();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    pub(crate) fn note_blank(&self, log_id: LogId) {
        if log_id.node == self.node {
            self.blank.set(Some(log_id));
        }
    }

    /// The term of this node's latest blank entry, once the shard has applied it.
    pub(crate) fn led_term(&self) -> Option<u64> {
        let applied = self.applied.get()?.index;
        self.blank.get().filter(|blank| blank.index <= applied).map(|blank| blank.term)
    }

    pub(crate) fn on_asleep(&self, wake: Box<dyn Fn()>) {
        *self.on_asleep.borrow_mut() = Some(wake);
    }

    /// Whether a proposal must wait behind others. If so, it is taken.
    pub(crate) fn queue_behind_asleep(&self, proposal: u64, entry: &Bytes) -> bool {
        let mut asleep = self.asleep.borrow_mut();
        if asleep.is_empty() {
            return false;
        }
        asleep.push_back((proposal, entry.clone()));
        true
    }

    pub(crate) fn is_asleep(&self) -> bool {
        !self.asleep.borrow().is_empty()
    }

    pub(crate) fn take_asleep(&self) -> VecDeque<(u64, Bytes)> {
        self.asleep.take()
    }

    pub(crate) fn fail_asleep(&self) {
        for (proposal, _) in self.take_asleep() {
            self.propose_failed(proposal);
        }
    }
}

impl Proposals for Shared {
    fn refused(&self, proposal: u64, entry: Bytes, verdict: Verdict) {
        if verdict != Verdict::LeaseExpired || self.on_asleep.borrow().is_none() {
            self.propose_failed(proposal);
            return;
        }
        let first = !self.is_asleep();
        self.asleep.borrow_mut().push_back((proposal, entry));
        if first && let Some(wake) = self.on_asleep.borrow().as_ref() {
            wake();
        }
    }
}
