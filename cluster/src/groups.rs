//! All groups of a shard.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    io,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use jindou_core::{
    effect::Event,
    id::{LogId, NodeId, SlotId},
};
use jindou_storage::{CompletionSender, LogStorage, Outcome, StateStorage, StorageError};
use openraft::{AsyncRuntime, Config, SnapshotPolicy};

use crate::{
    group::Group,
    lanes::{Lanes, TOKEN_BIT},
    liveness::Liveness,
    network::Transport,
    router::Router,
    shared::{Shared, Sink},
    types::GroupId,
};

/// A year.
const ENDLESS_MS: u64 = 365 * 24 * 3_600 * 1_000;
/// Pauses of a leader that can't reach a replica, until its links are up again.
const BACKOFF: &str = "50ms 100ms ...1s";

/// How groups behave. Times in milliseconds, sizes in bytes, counts in entries.
#[derive(Clone, Debug)]
pub struct Options {
    /// For so long after a ping of a leader's node this node helps nobody to replace that leader.
    pub promise_ms: u64,
    /// For so long after it sent a ping that was answered a leader relies on that promise. Less
    /// than `promise_ms` by what two clocks may differ in that time.
    pub lease_ms: u64,
    /// How long an answer to a frame may take.
    pub answer_ms: u64,
    /// How much of each group's log stays in memory. A group of one forgets what is applied.
    pub tail_size_max: usize,
    /// How much is read from the log lane, or sent to a follower, at a time.
    pub read_size_max: usize,
    /// Entries that stay in the log behind the durable position, for followers that are late.
    pub keep_count: u64,
    /// The same when there is no follower.
    pub keep_count_alone: u64,
    /// The log is purged when it can shrink by so many entries.
    pub purge_count_min: u64,
    /// Makes the dice of elections fall differently.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            promise_ms: 600,
            lease_ms: 450,
            answer_ms: 2_000,
            tail_size_max: 128 << 10,
            read_size_max: 1 << 20,
            keep_count: 10_000,
            keep_count_alone: 64,
            purge_count_min: 64,
            seed: 0,
        }
    }
}

/// What the groups of a shard are made of.
pub struct Setup<T> {
    /// This node.
    pub node: NodeId,
    /// The log lane.
    pub log: Arc<dyn LogStorage>,
    /// The state lane.
    pub state: Arc<dyn StateStorage>,
    /// This shard's completion queue. Answers whose token [`Groups::owns`] go to
    /// [`Groups::on_completion`].
    pub completions: CompletionSender,
    /// The shard's inbox.
    pub sink: Sink,
    /// The way to other nodes; [`crate::NoPeers`] when there are none.
    pub transport: T,
    /// Where leaders are noted for the whole node.
    pub router: Router,
    /// How groups behave.
    pub options: Options,
}

/// Why groups can't run.
#[derive(Debug, thiserror::Error)]
pub enum GroupsError {
    /// A fault in [`Options`].
    #[error("the settings of the groups contradict each other: {0}")]
    Options(#[from] openraft::ConfigError),
    /// The storage could not be read, or holds something else.
    #[error("{group} can't be read: {error}")]
    Storage {
        /// Which group.
        group: GroupId,
        /// Why.
        error: io::Error,
    },
    /// openraft would not start on what was read.
    #[error("{group} can't start: {reason}")]
    Raft {
        /// Which group.
        group: GroupId,
        /// Why.
        reason: String,
    },
}

pub(crate) struct Inner<R: AsyncRuntime, T> {
    pub(crate) setup: Setup<T>,
    pub(crate) config: Arc<Config>,
    pub(crate) lanes: Rc<Lanes<R>>,
    pub(crate) life: Rc<Liveness<R>>,
    pub(crate) groups: RefCell<BTreeMap<GroupId, Rc<Group<R>>>>,
    /// Groups that are being opened: openraft replays before it exists.
    pub(crate) opening: RefCell<BTreeMap<GroupId, Rc<Shared>>>,
    /// Groups that are being opened, from the first look at the disk on.
    pub(crate) busy: RefCell<BTreeSet<GroupId>>,
    /// Frames for groups that are being opened because of them.
    pub(crate) waiting: RefCell<BTreeMap<GroupId, Vec<Waiting>>>,
    pub(crate) transfers: Rc<Cell<u64>>,
    /// Nothing is opened any more.
    pub(crate) closed: Cell<bool>,
}

/// A frame, and who wants the answer.
pub(crate) type Waiting = (Bytes, Box<dyn FnOnce(Bytes)>);

/// The groups of one shard. A shard view: lives on the shard's thread, where its runtime `R`
/// runs; clones are handles to the same.
///
/// The owner must keep three things going for it: answers of the lanes come to
/// [`Groups::on_completion`], events of the sink reach the shard, and the shard's
/// [`Effect::Applied`](jindou_core::effect::Effect::Applied) comes to [`Groups::applied`] — also
/// while [`Groups::open`] is under way, which replays what the state store has not seen.
pub struct Groups<R: AsyncRuntime, T>(pub(crate) Rc<Inner<R, T>>);

impl<R: AsyncRuntime, T> Clone for Groups<R, T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<R: AsyncRuntime, T: Transport> Groups<R, T> {
    /// No groups yet.
    pub fn new(setup: Setup<T>) -> Result<Self, GroupsError> {
        let options = &setup.options;
        let config = Config {
            cluster_name: "jindou".into(),
            // To openraft it is the time in which appends are answered, and the next one that for
            // votes; the last is the length of its leases. Ours take the place of those, so
            // theirs must never end: a leader whose group slept takes a proposal at once.
            heartbeat_interval: options.answer_ms,
            election_timeout_min: options.answer_ms.saturating_add(1),
            election_timeout_max: ENDLESS_MS.max(options.answer_ms.saturating_add(2)),
            // A node that starts leads in a new term, or not at all: its first entry then shows
            // that everything before it is committed.
            enable_leader_restore: Some(false),
            // A follower that has lost its log gets it again. Otherwise openraft panics, and a
            // peer must not be able to stop us; whether such a peer may still vote is decided
            // where peers are let in.
            allow_log_reversion: Some(true),
            // Groups have no clocks: see `election`.
            enable_tick: false,
            backoff: BACKOFF.into(),
            snapshot_policy: SnapshotPolicy::Never,
            // Purged by `Groups::synced` only.
            max_in_snapshot_log_to_keep: u64::MAX,
            api_channel_size: Some(1_024),
            notification_channel_size: Some(1_024),
            state_machine_channel_size: Some(256),
            ..Config::default()
        }
        .validate()?;
        let (log, state) = (setup.log.clone(), setup.state.clone());
        let lanes = Lanes::new(setup.node.0, log, state, setup.completions.clone());
        let promise = Duration::from_millis(setup.options.promise_ms);
        let lease = Duration::from_millis(setup.options.lease_ms);
        Ok(Self(Rc::new(Inner {
            setup,
            config: Arc::new(config),
            lanes,
            life: Rc::new(Liveness::new(promise, lease)),
            groups: RefCell::default(),
            opening: RefCell::default(),
            busy: RefCell::default(),
            waiting: RefCell::default(),
            transfers: Rc::default(),
            closed: Cell::new(false),
        })))
    }

    /// [`Effect::Propose`](jindou_core::effect::Effect::Propose). If it does not go through,
    /// [`Event::ProposeFailed`] comes, once.
    pub fn propose(&self, slot: SlotId, proposal: u64, entry: Bytes) {
        match self.group(slot) {
            Some(group) => group.propose(proposal, entry),
            None => (self.0.setup.sink)(Event::ProposeFailed { slot, proposal }),
        }
    }

    /// [`Effect::Applied`](jindou_core::effect::Effect::Applied).
    pub fn applied(&self, slot: SlotId, log_id: LogId) {
        if let Some(group) = self.group(slot) {
            group.applied(log_id);
        } else if let Some(opening) = self.0.opening.borrow().get(&GroupId::of(slot)) {
            opening.set_applied(log_id);
        }
    }

    /// Whether the answer with this token is for [`Groups::on_completion`]. Other users of the
    /// completion queue choose tokens below 2^63.
    pub fn owns(token: u64) -> bool {
        token & TOKEN_BIT != 0
    }

    /// An answer of a lane has come. Runs callbacks and wakes tasks, no more: call it for all
    /// that has come, then let the tasks have a turn.
    pub fn on_completion(&self, token: u64, result: Result<Outcome, StorageError>) {
        self.0.lanes.on_completion(token, result);
    }

    /// These slots' states are durable up to these entries ([`jindou_storage::OnSynced`]): their
    /// logs may shrink. Slots of other shards are ignored.
    pub fn synced(&self, moved: &[(SlotId, LogId)]) {
        let options = &self.0.setup.options;
        for (slot, durable) in moved {
            if let Some(group) = self.group(*slot) {
                let keep =
                    if group.is_alone() { options.keep_count_alone } else { options.keep_count };
                group.compact(*durable, keep, options.purge_count_min);
            }
        }
    }

    /// Groups that are open.
    pub fn count(&self) -> usize {
        self.0.groups.borrow().len()
    }

    /// Groups that this node leads and serves, or whose leader on another node it knows.
    pub fn ready(&self) -> usize {
        let groups = self.0.groups.borrow();
        groups.values().filter(|group| group.is_ready()).count()
    }

    /// Groups that have stopped by themselves: their log or state can't be trusted.
    pub fn failed(&self) -> usize {
        let groups = self.0.groups.borrow();
        groups.values().filter(|group| group.has_failed()).count()
    }

    /// How often a replica of this shard stood for election since the start, because it heard of
    /// no leader; elections that were lost or given up count too.
    pub fn elections(&self) -> u64 {
        self.0.life.elections.get()
    }

    /// Whether the shard was told that it leads a slot.
    pub fn is_leading(&self, slot: SlotId) -> bool {
        self.group(slot).is_some_and(|group| group.is_leading())
    }

    /// Stops all groups. Proposals under way fail; what is in the log stays.
    pub async fn shutdown(&self) {
        self.0.closed.set(true);
        self.0.waiting.take();
        let groups = self.0.groups.take();
        futures::future::join_all(groups.values().map(|group| group.shutdown())).await;
    }

    pub(crate) fn group(&self, slot: SlotId) -> Option<Rc<Group<R>>> {
        self.0.groups.borrow().get(&GroupId::of(slot)).cloned()
    }
}
