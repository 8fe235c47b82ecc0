//! All groups of a shard.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    rc::Rc,
    sync::Arc,
};

use bytes::Bytes;
use futures::future::try_join_all;
use jindou_core::{
    effect::Event,
    id::{LogId, NodeId, SlotId},
};
use jindou_storage::{CompletionSender, LogStorage, Outcome, StateStorage, StorageError};
use openraft::{
    AsyncRuntime, Config, SnapshotPolicy,
    errors::{InitializeError, RaftError},
};

use crate::{
    group::{Group, run_now},
    inbound,
    lanes::{Lanes, TOKEN_BIT, unexpected},
    log_store::{Bounds, LogCore, LogStore},
    network::{Peers, Transport},
    router::Router,
    shared::{Shared, Sink},
    state_machine::{StateMachine, membership_of},
    types::{GroupId, Node, Raft},
};

/// How groups behave. Times in milliseconds, sizes in bytes, counts in entries.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often a leader says that it is there.
    pub heartbeat_ms: u64,
    /// The shortest silence after which a follower asks for votes.
    pub election_min_ms: u64,
    /// The longest. Followers refuse other candidates for as long after they heard the leader,
    /// so it bounds how soon a dead leader is replaced (design.md §3).
    pub election_max_ms: u64,
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
}

impl Default for Options {
    fn default() -> Self {
        Self {
            heartbeat_ms: 250,
            election_min_ms: 450,
            election_max_ms: 700,
            tail_size_max: 1 << 20,
            read_size_max: 1 << 20,
            keep_count: 10_000,
            keep_count_alone: 64,
            purge_count_min: 64,
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

struct Inner<R: AsyncRuntime, T> {
    setup: Setup<T>,
    config: Arc<Config>,
    lanes: Rc<Lanes<R>>,
    groups: RefCell<BTreeMap<GroupId, Rc<Group<R>>>>,
    /// Groups that are being opened: openraft replays before it exists.
    opening: RefCell<BTreeMap<GroupId, Rc<Shared>>>,
    transfers: Rc<Cell<u64>>,
}

/// The groups of one shard. A shard view: lives on the shard's thread, where its runtime `R`
/// runs; clones are handles to the same.
///
/// The owner must keep three things going for it: answers of the lanes come to
/// [`Groups::on_completion`], events of the sink reach the shard, and the shard's
/// [`Effect::Applied`](jindou_core::effect::Effect::Applied) comes to [`Groups::applied`] — also
/// while [`Groups::open`] is under way, which replays what the state store has not seen.
pub struct Groups<R: AsyncRuntime, T>(Rc<Inner<R, T>>);

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
            heartbeat_interval: options.heartbeat_ms,
            election_timeout_min: options.election_min_ms,
            election_timeout_max: options.election_max_ms,
            enable_pre_vote: Some(true),
            // A node that starts leads in a new term, or not at all: its first entry then shows
            // that everything before it is committed.
            enable_leader_restore: Some(false),
            // A follower that has lost its log gets it again. Otherwise openraft panics, and a
            // peer must not be able to stop us; whether such a peer may still vote is decided
            // where peers are let in.
            allow_log_reversion: Some(true),
            // A group's clock is started when it is known to have peers.
            enable_tick: false,
            snapshot_policy: SnapshotPolicy::Never,
            // Purged by `Groups::synced` only.
            max_in_snapshot_log_to_keep: u64::MAX,
            api_channel_size: Some(4_096),
            notification_channel_size: Some(4_096),
            state_machine_channel_size: Some(256),
            ..Config::default()
        }
        .validate()?;
        let lanes = Lanes::new(setup.log.clone(), setup.state.clone(), setup.completions.clone());
        Ok(Self(Rc::new(Inner {
            setup,
            config: Arc::new(config),
            lanes,
            groups: RefCell::default(),
            opening: RefCell::default(),
            transfers: Rc::default(),
        })))
    }

    /// Opens the groups of these slots, all at once: reads what the lanes hold, gives the shard
    /// [`Event::SlotOpened`], and replays what it has not applied but the log knows as committed.
    /// A group whose only voter is this node then elects itself; [`Event::Leading`] follows.
    pub async fn open(&self, slots: &[SlotId]) -> Result<(), GroupsError> {
        try_join_all(slots.iter().map(|slot| self.open_one(GroupId::of(*slot)))).await?;
        Ok(())
    }

    async fn open_one(&self, id: GroupId) -> Result<(), GroupsError> {
        let storage = |error: io::Error| GroupsError::Storage { group: id, error };
        let inner = &self.0;
        let node = inner.setup.node.0;
        let (core, state_machine, shared) = self.load(id).await.map_err(storage)?;
        let bounds = Bounds {
            tail_size_max: inner.setup.options.tail_size_max,
            read_size_max: inner.setup.options.read_size_max,
        };
        let log = LogStore::new(id, inner.lanes.clone(), core.clone(), bounds);
        let peers = Peers {
            node,
            group: id,
            transport: inner.setup.transport.clone(),
            lanes: inner.lanes.clone(),
            transfers: inner.transfers.clone(),
        };
        inner.opening.borrow_mut().insert(id, shared.clone());
        let start = Raft::<R>::new(node, inner.config.clone(), peers, log, state_machine);
        let started = Box::pin(start).await;
        inner.opening.borrow_mut().remove(&id);
        let raft =
            started.map_err(|error| GroupsError::Raft { group: id, reason: error.to_string() })?;
        let router = inner.setup.router.clone();
        let group = Group::start(shared, inner.lanes.clone(), raft, core, router);
        inner.groups.borrow_mut().insert(id, group.clone());
        group.elect_if_alone().await;
        Ok(())
    }

    /// Reads both lanes and opens the slot in the shard.
    async fn load(
        &self,
        id: GroupId,
    ) -> io::Result<(Rc<RefCell<LogCore>>, StateMachine<R>, Rc<Shared>)> {
        let inner = &self.0;
        let (slot, tail_size) = (id.slot(), inner.setup.options.tail_size_max / 16);
        let log = inner.lanes.ask(|lanes, done| lanes.log.load(id.0, tail_size, done));
        let opened = inner.lanes.ask(|lanes, done| lanes.state.open_slot(slot, done));
        let (log, opened) =
            (log.await.map_err(io::Error::other)?, opened.await.map_err(io::Error::other)?);
        let (Outcome::Log(stored), Outcome::Slot(opened)) = (&log, &opened) else {
            return Err(unexpected(&log));
        };
        let core = Rc::new(RefCell::new(LogCore::restore(stored)?));
        let membership = membership_of(opened.membership.as_deref())?;
        let rows = opened.rows.clone();
        let sink = inner.setup.sink.clone();
        let shared = Rc::new(Shared::new(id, inner.setup.node.0, sink, rows.applied));
        shared.emit(Event::SlotOpened { slot, rows: Box::new(rows) });
        let state_machine = StateMachine::new(shared.clone(), inner.lanes.clone(), membership);
        Ok((core, state_machine, shared))
    }

    /// Makes a cluster of these members out of groups that have never had any; others stay as
    /// they are. On several nodes it must be called with the same members.
    pub async fn bootstrap(&self, members: &BTreeMap<NodeId, Node>) -> Result<(), GroupsError> {
        let members: BTreeMap<u64, Node> =
            members.iter().map(|(id, node)| (id.0, node.clone())).collect();
        let fresh: Vec<_> = self
            .0
            .groups
            .borrow()
            .values()
            .filter(|group| group.log.borrow().is_fresh() && group.shared.applied().is_none())
            .cloned()
            .collect();
        try_join_all(fresh.iter().map(|group| async {
            match group.raft.initialize(members.clone()).await {
                // A peer was faster: the group has heard of a vote already.
                Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
                Err(error) => {
                    Err(GroupsError::Raft { group: group.shared.group, reason: error.to_string() })
                }
            }
        }))
        .await?;
        Ok(())
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

    /// Whether the shard was told that it leads a slot.
    pub fn is_leading(&self, slot: SlotId) -> bool {
        self.group(slot).is_some_and(|group| group.is_leading())
    }

    /// Stops a group's clock, or starts it again: it sends no heartbeats and asks for no votes,
    /// but answers. Proposals wake the leader's quorum by themselves. Whoever lets groups sleep
    /// must know by other means that the leader's node lives.
    pub fn hibernate(&self, slot: SlotId, on: bool) {
        if let Some(group) = self.group(slot) {
            group.hibernate(on);
        }
    }

    /// A frame of a peer ([`Transport::call`]) for a group of this shard. `answer` gets the
    /// frame that goes back. Frames of one group and peer are taken in the order of the calls.
    pub fn receive(&self, group: GroupId, frame: Bytes, answer: impl FnOnce(Bytes) + 'static) {
        let Some(group) = self.0.groups.borrow().get(&group).cloned() else {
            answer(inbound::no_such_group(group));
            return;
        };
        run_now::<R, _>(async move { answer(inbound::answer(group, frame).await) });
    }

    /// Stops all groups. Proposals under way fail; what is in the log stays.
    pub async fn shutdown(&self) {
        let groups = self.0.groups.take();
        futures::future::join_all(groups.values().map(|group| group.shutdown())).await;
    }

    fn group(&self, slot: SlotId) -> Option<Rc<Group<R>>> {
        self.0.groups.borrow().get(&GroupId::of(slot)).cloned()
    }
}
