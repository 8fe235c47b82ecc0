//! One group of a shard: its openraft handle and what watches over it.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Waker},
    time::Duration,
};

use bytes::Bytes;
use jindou_core::{
    effect::Event,
    id::{LogId, NodeId},
};
use openraft::{AsyncRuntime, Instant, ServerState, async_runtime::watch::WatchReceiver};

use crate::{
    election::Election,
    lanes::Lanes,
    liveness::Liveness,
    log_store::LogCore,
    proposal::responder,
    router::Router,
    shared::Shared,
    types::{EntryBytes, LeaderId, Raft, TypeConfig, Vote, to_raft},
};

/// How long proposals wait for a sleeping group to reach a quorum.
const WAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long one heartbeat gets to bring the quorum's answers.
const WAKE_PAUSE: Duration = Duration::from_millis(2);

/// One group of a shard.
pub(crate) struct Group<R: AsyncRuntime> {
    pub(crate) shared: Rc<Shared>,
    pub(crate) lanes: Rc<Lanes<R>>,
    pub(crate) raft: Raft<R>,
    pub(crate) log: Rc<RefCell<LogCore>>,
    pub(crate) router: Router,
    pub(crate) life: Rc<Liveness<R>>,
    pub(crate) election: Election<R>,
    /// The highest vote of an established leader that openraft was given, by a peer or from disk.
    pub(crate) named: Cell<Option<Vote>>,
    /// The leader that is none any more: its node has started again since.
    pub(crate) gone: Cell<Option<LeaderId>>,
    /// The lease that the shard was told.
    pub(crate) lease_ms: Cell<u64>,
    /// Leadership is being handed over: this replica does not serve any more.
    pub(crate) leaving: Cell<bool>,
    /// A leader says that this replica is not a member any more.
    pub(crate) removed: Cell<bool>,
    /// The members are being changed.
    pub(crate) changing: Cell<bool>,
    /// The term in which the shard was told that it leads.
    leading: Cell<Option<u64>>,
    /// The leader and the term that the shard was told.
    told: Cell<(Option<u64>, u64)>,
    /// The term of this node's own first entry, as of the last review.
    reviewed: Cell<Option<u64>>,
    /// Somebody wakes the group already.
    waking: Cell<bool>,
    /// The group has stopped by itself, for good.
    failed: Cell<bool>,
    /// This node is the only voter.
    alone: Cell<bool>,
    /// The log is being purged.
    compacting: Cell<bool>,
}

/// What a group is made of.
pub(crate) struct Parts<R: AsyncRuntime> {
    pub(crate) shared: Rc<Shared>,
    pub(crate) lanes: Rc<Lanes<R>>,
    pub(crate) raft: Raft<R>,
    pub(crate) log: Rc<RefCell<LogCore>>,
    pub(crate) router: Router,
    pub(crate) life: Rc<Liveness<R>>,
    pub(crate) election: Election<R>,
}

impl<R: AsyncRuntime> Group<R> {
    pub(crate) fn start(parts: Parts<R>) -> Rc<Self> {
        let Parts { shared, lanes, raft, log, router, life, election } = parts;
        let group = Rc::new(Self {
            shared,
            lanes,
            raft,
            log,
            router,
            life,
            election,
            named: Cell::new(None),
            gone: Cell::new(None),
            lease_ms: Cell::new(0),
            leaving: Cell::new(false),
            removed: Cell::new(false),
            changing: Cell::new(false),
            leading: Cell::new(None),
            told: Cell::new((None, 0)),
            reviewed: Cell::new(None),
            waking: Cell::new(false),
            failed: Cell::new(false),
            alone: Cell::new(false),
            compacting: Cell::new(false),
        });
        let weak = Rc::downgrade(&group);
        group.shared.on_asleep(Box::new(move || {
            if let Some(group) = weak.upgrade() {
                spawn::<R>(async move { group.wake().await });
            }
        }));
        let watched = group.clone();
        spawn::<R>(async move { watched.watch().await });
        group
    }

    /// Hands an entry to openraft, in the order of the calls.
    pub(crate) fn propose(self: &Rc<Self>, proposal: u64, entry: Bytes) {
        if self.failed.get() {
            self.shared.propose_failed(proposal);
        } else if !self.shared.queue_behind_asleep(proposal, &entry) {
            self.submit(proposal, entry);
        }
    }

    fn submit(self: &Rc<Self>, proposal: u64, entry: Bytes) {
        let companion = responder::<TypeConfig<R>>(self.shared.clone(), proposal, entry.clone());
        let group = self.clone();
        // openraft's queue has room, so this is done at the first poll.
        run_now::<R, _>(async move {
            let written = group.raft.client_write_ff(EntryBytes(entry), Some(companion)).await;
            if let Err(error) = written {
                tracing::debug!(group = %group.shared.group, %error, "a proposal met a stopped group");
            }
        });
    }

    /// The shard has applied an entry.
    pub(crate) fn applied(&self, log_id: LogId) {
        self.shared.set_applied(log_id);
        if self.alone.get() {
            // Nobody will ask for it again.
            self.log.borrow_mut().forget_to(log_id.index);
        }
        if self.reviewed.get() != self.shared.led_term() {
            self.review();
        }
    }

    pub(crate) fn is_leading(&self) -> bool {
        self.leading.get().is_some()
    }

    pub(crate) fn is_alone(&self) -> bool {
        self.alone.get()
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.get()
    }

    pub(crate) fn runs(&self) -> bool {
        !self.failed.get() && !self.shared.is_closed()
    }

    /// This node leads and serves, or knows who leads.
    pub(crate) fn is_ready(&self) -> bool {
        let leader = self.raft.server_metrics().borrow_watched().current_leader;
        self.runs()
            && (self.is_leading() || leader.is_some_and(|leader| leader != self.shared.node))
    }

    /// Tells the shard whether it leads, and who does. It leads when openraft says so and the shard
    /// has applied the first entry of that term, before which reads could miss what an earlier
    /// leader committed; and not any more once it hands leadership over.
    pub(crate) fn review(&self) {
        let (leader, term, leads) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let leads = metrics.state == ServerState::Leader;
            (metrics.current_leader, metrics.current_term, leads)
        };
        let runs = self.runs();
        let slot = self.shared.slot;
        if !leads {
            self.leaving.set(false);
        }
        self.reviewed.set(self.shared.led_term());
        let serves = runs && leads && !self.leaving.get() && self.reviewed.get() == Some(term);
        let led = serves.then_some(term);
        let was = self.leading.replace(led);
        if was != led {
            self.lease_ms.set(0);
            if was.is_some() {
                self.shared.emit(Event::Leading { slot, leading: false });
            }
            if led.is_some() {
                self.shared.emit(Event::Leading { slot, leading: true });
            }
        }
        self.review_lone_lease();
        let leader = leader.filter(|_| runs);
        if self.told.replace((leader, term)) != (leader, term) {
            let leader = leader.map(NodeId);
            self.shared.emit(Event::Leader { slot, leader, term });
        }
        self.router.set(self.shared.group, leader, self.is_ready());
    }

    /// Whoever is the only voter needs to hear from nobody.
    fn review_lone_lease(&self) {
        if self.alone.get() && self.is_leading() && self.lease_ms.replace(u64::MAX) != u64::MAX {
            self.shared.emit(Event::Leases(vec![(self.shared.slot, u64::MAX)]));
        }
    }

    fn review_members(&self) {
        let alone = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            let mut voters = metrics.membership_config.voter_ids();
            match voters.next() {
                None => return,
                Some(voter) => voter == self.shared.node && voters.next().is_none(),
            }
        };
        self.alone.set(alone);
        // It was for ever, and is no longer.
        if !alone && self.lease_ms.get() == u64::MAX {
            self.lease_ms.set(0);
            self.shared.emit(Event::Leases(vec![(self.shared.slot, 0)]));
        }
    }

    /// Follows openraft's state until the group stops.
    async fn watch(self: Rc<Self>) {
        let mut changes = self.raft.server_metrics();
        loop {
            self.review_members();
            self.review();
            if changes.changed().await.is_err() {
                break;
            }
        }
        if !self.shared.is_closed() {
            let state = self.raft.metrics().borrow_watched().running_state.clone();
            tracing::error!(group = %self.shared.group, ?state, "a group has stopped");
            self.fail();
        }
    }

    fn fail(&self) {
        self.failed.set(true);
        self.review();
        self.shared.fail_asleep();
    }

    /// Starts an election at once if this node is the only voter.
    pub(crate) async fn elect_if_alone(&self) {
        let node = self.shared.node;
        let alone = self
            .raft
            .with_raft_state(move |state| {
                let mut voters = state.membership_state.effective().voter_ids();
                voters.next() == Some(node) && voters.next().is_none()
            })
            .await;
        if let Ok(true) = alone {
            let _ = self.raft.trigger().elect(false).await;
        }
    }

    /// Wakes a group that has not heard from its quorum for longer than its lease, and proposes
    /// again what it refused.
    async fn wake(self: Rc<Self>) {
        if self.waking.replace(true) {
            return;
        }
        self.bring_quorum().await;
        self.waking.set(false);
    }

    async fn bring_quorum(self: &Rc<Self>) {
        let deadline = R::Instant::now() + WAKE_TIMEOUT;
        while self.shared.is_asleep() {
            if R::Instant::now() >= deadline || self.raft.trigger().heartbeat().await.is_err() {
                self.shared.fail_asleep();
                return;
            }
            R::sleep(WAKE_PAUSE).await;
            for (proposal, entry) in self.shared.take_asleep() {
                self.submit(proposal, entry);
            }
            // Those that are refused again are back before this ends.
            R::sleep(WAKE_PAUSE).await;
        }
    }

    /// The effects of the entries up to `durable` are safe without the log: forgets all but the
    /// last `keep` of them.
    pub(crate) fn compact(self: &Rc<Self>, durable: LogId, keep: u64, batch: u64) {
        self.shared.durable.set(Some(durable));
        let upto = durable.index.saturating_sub(keep);
        let purged = self.log.borrow().purged_index();
        let next = purged.map_or(0, |index| index + 1);
        if upto < next.saturating_add(batch) || self.compacting.replace(true) {
            return;
        }
        let group = self.clone();
        spawn::<R>(async move {
            if let Err(error) = group.purge(durable, upto).await {
                tracing::debug!(group = %group.shared.group, %error, "a purge was given up");
            }
            group.compacting.set(false);
        });
    }

    async fn purge(&self, durable: LogId, upto: u64) -> Result<(), String> {
        // openraft purges what a snapshot covers; ours is the durable position.
        self.raft.trigger().snapshot().await.map_err(|error| error.to_string())?;
        let covered = Some(to_raft(durable));
        let mut snapshots = self.raft.watch_snapshot_progress();
        let wait = snapshots.wait_until(|at| at.map(|id| id.index) >= covered.map(|id| id.index));
        R::timeout(Duration::from_secs(5), wait)
            .await
            .map_err(|error| error.to_string())?
            .map_err(|_| "the group has stopped".to_owned())?;
        self.raft.trigger().purge_log(upto).await.map_err(|error| error.to_string())
    }

    /// Stops the group. What it has not committed is lost to its callers, not to the log.
    pub(crate) async fn shutdown(&self) {
        self.shared.close();
        let _ = self.raft.shutdown().await;
        self.review();
    }
}

/// Starts a task of its own.
pub(crate) fn spawn<R: AsyncRuntime>(task: impl Future<Output = ()> + 'static) {
    drop(R::spawn(task));
}

/// Polls a future once, at once, and leaves the rest, if any, to a task. So what the future does
/// before it first waits happens in the order of the calls.
pub(crate) fn run_now<R, F>(future: F)
where
    R: AsyncRuntime,
    F: Future<Output = ()> + 'static,
{
    let mut future: Pin<Box<F>> = Box::pin(future);
    let mut context = Context::from_waker(Waker::noop());
    if future.as_mut().poll(&mut context).is_pending() {
        spawn::<R>(future);
    }
}
