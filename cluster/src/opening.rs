//! How groups come to be open: at a start, as a new cluster, or because a leader speaks to them.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use futures::future::try_join_all;
use jindou_core::{
    effect::Event,
    id::{NodeId, SlotId},
};
use jindou_storage::Outcome;
use openraft::{
    AsyncRuntime,
    errors::{InitializeError, RaftError},
};

use crate::{
    election::Election,
    group::{Group, Parts, run_now, spawn},
    groups::{Groups, GroupsError},
    inbound,
    lanes::unexpected,
    log_store::{Bounds, LogCore, LogStore},
    network::{Peers, Transport},
    placement,
    shared::Shared,
    standing::Standing,
    state_machine::{StateMachine, membership_of},
    types::{CLUSTER_SLOT, GroupId, Node, Raft},
};

/// The next replica in line makes a new group when the one before it has not, after so long.
const BOOTSTRAP_PAUSE: Duration = Duration::from_millis(1_500);
/// Frames that wait for a group to be opened. The asker tries again.
const WAITING_COUNT_MAX: usize = 64;

/// Who wants a group.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Opener {
    /// The owner, who knows what the node is.
    Owner,
    /// A peer's frame.
    Peer,
}

/// A group is being opened, until this is dropped.
struct Busy<'a>(&'a RefCell<BTreeSet<GroupId>>, GroupId);

impl<'a> Busy<'a> {
    fn start(busy: &'a RefCell<BTreeSet<GroupId>>, id: GroupId) -> Self {
        busy.borrow_mut().insert(id);
        Self(busy, id)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.borrow_mut().remove(&self.1);
    }
}

struct Loaded<R: AsyncRuntime> {
    core: Rc<RefCell<LogCore>>,
    state_machine: StateMachine<R>,
    shared: Rc<Shared>,
    /// There was nothing on disk.
    fresh: bool,
}

impl<R: AsyncRuntime, T: Transport> Groups<R, T> {
    /// Opens the groups of these slots, all at once: reads what the lanes hold, gives the shard
    /// [`Event::SlotOpened`], and replays what it has not applied but the log knows as committed.
    /// A group whose only voter is this node then elects itself; [`Event::Leading`] follows.
    pub async fn open(&self, slots: &[SlotId]) -> Result<(), GroupsError> {
        let open = |slot: &SlotId| self.open_one(GroupId::of(*slot), Opener::Owner);
        try_join_all(slots.iter().map(open)).await?;
        Ok(())
    }

    /// Opens those of these slots' groups of which there is something on disk. Returns them: none
    /// on a node that is new, or whose disk is.
    pub async fn open_stored(&self, slots: &[SlotId]) -> Result<Vec<SlotId>, GroupsError> {
        let stored = slots.iter().map(|slot| async {
            let id = GroupId::of(*slot);
            let log = self.0.lanes.ask(|lanes, done| lanes.log.load(id.0, 0, done)).await;
            match log {
                Ok(Outcome::Log(log)) => {
                    Ok((log.vote.is_some() || log.last.is_some()).then_some(*slot))
                }
                Ok(other) => Err(GroupsError::Storage { group: id, error: unexpected(&other) }),
                Err(error) => {
                    Err(GroupsError::Storage { group: id, error: io::Error::other(error) })
                }
            }
        });
        let stored: Vec<_> = try_join_all(stored).await?.into_iter().flatten().collect();
        self.open(&stored).await?;
        Ok(stored)
    }

    /// Opens a group, once: whoever comes second waits for the first.
    async fn open_one(&self, id: GroupId, opener: Opener) -> Result<(), GroupsError> {
        while self.0.busy.borrow().contains(&id) {
            R::sleep(Duration::from_millis(1)).await;
        }
        if self.0.groups.borrow().contains_key(&id) {
            return Ok(());
        }
        let _busy = Busy::start(&self.0.busy, id);
        self.open_now(id, opener).await
    }

    async fn open_now(&self, id: GroupId, opener: Opener) -> Result<(), GroupsError> {
        let storage = |error: io::Error| GroupsError::Storage { group: id, error };
        let inner = &self.0;
        let node = inner.setup.node.0;
        let options = &inner.setup.options;
        let Loaded { core, state_machine, shared, fresh } =
            self.load(id, opener).await.map_err(storage)?;
        let bounds =
            Bounds { tail_size_max: options.tail_size_max, read_size_max: options.read_size_max };
        let log = LogStore::new(id, inner.lanes.clone(), core.clone(), bounds);
        let peers = Peers {
            node,
            group: id,
            transport: inner.setup.transport.clone(),
            lanes: inner.lanes.clone(),
            transfers: inner.transfers.clone(),
            log: core.clone(),
        };
        inner.opening.borrow_mut().insert(id, shared.clone());
        let start = Raft::<R>::new(node, inner.config.clone(), peers, log, state_machine);
        let started = Box::pin(start).await;
        inner.opening.borrow_mut().remove(&id);
        let raft =
            started.map_err(|error| GroupsError::Raft { group: id, reason: error.to_string() })?;
        // What was promised before the node started has ended by then.
        let free_at = (!fresh).then(|| inner.life.started + inner.life.promise);
        let vote = core.borrow().vote();
        let seed = options.seed ^ (node << 20) ^ u64::from(id.0);
        let group = Group::start(Parts {
            shared,
            lanes: inner.lanes.clone(),
            raft,
            log: core,
            router: inner.setup.router.clone(),
            life: inner.life.clone(),
            election: Election::new(seed, free_at, vote),
        });
        if inner.closed.get() {
            group.shutdown().await;
            return Ok(());
        }
        inner.groups.borrow_mut().insert(id, group.clone());
        group.elect_if_alone().await;
        Ok(())
    }

    /// Reads both lanes and opens the slot in the shard.
    async fn load(&self, id: GroupId, opener: Opener) -> io::Result<Loaded<R>> {
        let inner = &self.0;
        let (slot, tail_size) = (id.slot(), inner.setup.options.tail_size_max / 16);
        let log = inner.lanes.ask(|lanes, done| lanes.log.load(id.0, tail_size, done));
        let opened = inner.lanes.ask(|lanes, done| lanes.state.open_slot(slot, done));
        let (log, opened) =
            (log.await.map_err(io::Error::other)?, opened.await.map_err(io::Error::other)?);
        let (Outcome::Log(stored), Outcome::Slot(opened)) = (&log, &opened) else {
            return Err(unexpected(&log));
        };
        let mut core = LogCore::restore(stored)?;
        let fresh = core.is_fresh() && opened.rows.applied.is_none();
        if fresh && opener == Opener::Peer {
            core.set_standing(Standing::BLANK);
        }
        let core = Rc::new(RefCell::new(core));
        let membership = membership_of(opened.membership.as_deref())?;
        // The first entry of every log is a membership.
        if opened.rows.applied.is_some() && membership.log_id().is_none() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "entries are applied, but the membership is missing",
            ));
        }
        let rows = opened.rows.clone();
        let sink = inner.setup.sink.clone();
        let shared = Rc::new(Shared::new(id, inner.setup.node.0, sink, rows.applied));
        shared.emit(Event::SlotOpened { slot, rows: Box::new(rows) });
        let state_machine = StateMachine::new(shared.clone(), inner.lanes.clone(), membership);
        Ok(Loaded { core, state_machine, shared, fresh })
    }

    /// Makes a cluster of these members out of groups that have never had any; others stay as
    /// they are. On several nodes it must be called with the same members.
    pub async fn bootstrap(&self, members: &BTreeMap<NodeId, Node>) -> Result<(), GroupsError> {
        let members: BTreeMap<u64, Node> =
            members.iter().map(|(id, node)| (id.0, node.clone())).collect();
        let groups: Vec<_> = self.0.groups.borrow().values().cloned().collect();
        try_join_all(groups.iter().map(|group| initialize(group, &members))).await?;
        Ok(())
    }

    /// Makes a new cluster: each of these slots' groups with the voters that
    /// [`placement::replicas`] gives it, the cluster's own group with the first five nodes. Opens
    /// those groups of which this node is a replica, and no others. Groups that have members
    /// already stay as they are.
    ///
    /// All nodes call it with the same nodes and count. It is for the caller to know that none of
    /// them was part of a cluster before: a replica that a peer's frame has opened meanwhile may
    /// vote from here on. The replica that should lead first makes the group; the others make it
    /// when that one does not. [`Groups::tick`] must run.
    pub async fn bootstrap_placed(
        &self,
        slots: &[SlotId],
        nodes: &BTreeMap<NodeId, Node>,
        replica_count: usize,
    ) -> Result<(), GroupsError> {
        let ids: Vec<NodeId> = nodes.keys().copied().collect();
        let place = |slot: &SlotId| {
            let voters = if *slot == CLUSTER_SLOT {
                ids.iter().take(placement::CLUSTER_VOTER_COUNT_MAX).copied().collect()
            } else {
                placement::replicas(*slot, &ids, replica_count)
            };
            let rank = voters.iter().position(|voter| *voter == self.0.setup.node)?;
            Some((GroupId::of(*slot), voters, rank))
        };
        let placed: Vec<_> = slots.iter().filter_map(place).collect();
        try_join_all(placed.iter().map(|(id, ..)| self.open_one(*id, Opener::Owner))).await?;
        let made = placed.into_iter().map(|(id, voters, rank)| async move {
            let Some(group) = self.0.groups.borrow().get(&id).cloned() else {
                return Ok(());
            };
            if !group.log.borrow().standing().may_vote() {
                group.set_standing(Standing::Full);
            }
            let members: BTreeMap<u64, Node> = nodes
                .iter()
                .filter(|(id, _)| voters.contains(id))
                .map(|(id, node)| (id.0, node.clone()))
                .collect();
            match u32::try_from(rank) {
                Ok(0) | Err(_) => initialize(&group, &members).await,
                Ok(rank) => {
                    spawn::<R>(async move {
                        R::sleep(BOOTSTRAP_PAUSE * rank).await;
                        if let Err(error) = initialize(&group, &members).await {
                            tracing::warn!(%error, "a new group was not made");
                        }
                    });
                    Ok(())
                }
            }
        });
        try_join_all(made).await?;
        Ok(())
    }

    /// A frame of a peer ([`Transport::call`]) for a group of this shard. `answer` gets the
    /// frame that goes back. Frames of one group and peer are taken in the order of the calls.
    ///
    /// A group that is not open is opened: from disk, or, if there is nothing, as a replica that
    /// does not vote or stand until its log shows that it was made a voter after this.
    pub fn receive(&self, group: GroupId, frame: Bytes, answer: impl FnOnce(Bytes) + 'static) {
        let inner = &self.0;
        let waits = inner.waiting.borrow().contains_key(&group);
        let open = inner.groups.borrow().get(&group).filter(|_| !waits).cloned();
        if let Some(group) = open {
            run_now::<R, _>(async move { answer(inbound::answer(group, frame).await) });
            return;
        }
        let known = usize::from(group.0) < inner.setup.router.count();
        if !known || inner.closed.get() {
            answer(inbound::no_such_group(group));
            return;
        }
        let first = {
            let mut waiting = inner.waiting.borrow_mut();
            let first = !waiting.contains_key(&group);
            let frames = waiting.entry(group).or_default();
            if frames.len() >= WAITING_COUNT_MAX {
                drop(waiting);
                answer(inbound::no_such_group(group));
                return;
            }
            frames.push((frame, Box::new(answer)));
            first
        };
        if first {
            let groups = self.clone();
            spawn::<R>(async move { groups.open_for_peer(group).await });
        }
    }

    async fn open_for_peer(&self, id: GroupId) {
        if let Err(error) = self.open_one(id, Opener::Peer).await {
            tracing::error!(%error, "a replica could not be opened for a peer");
        }
        let waiting = self.0.waiting.borrow_mut().remove(&id).unwrap_or_default();
        let open = self.0.groups.borrow().get(&id).cloned();
        for (frame, answer) in waiting {
            match open.clone() {
                Some(group) => {
                    run_now::<R, _>(async move { answer(inbound::answer(group, frame).await) });
                }
                None => answer(inbound::no_such_group(id)),
            }
        }
    }

    /// Closes a group of which this node is no replica any more. What it has on disk stays there
    /// and is as good as before should the node become a replica again.
    pub async fn close(&self, slot: SlotId) {
        let id = GroupId::of(slot);
        let group = self.0.groups.borrow_mut().remove(&id);
        if let Some(group) = group {
            // Nobody opens it anew while the old replica may still write.
            let _busy = Busy::start(&self.0.busy, id);
            group.shutdown().await;
        }
    }
}

async fn initialize<R: AsyncRuntime>(
    group: &Group<R>,
    members: &BTreeMap<u64, Node>,
) -> Result<(), GroupsError> {
    if !group.log.borrow().is_fresh() || group.shared.applied().is_some() {
        return Ok(());
    }
    match group.raft.initialize(members.clone()).await {
        // A peer was faster: the group has heard of a vote already.
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(error) => {
            Err(GroupsError::Raft { group: group.shared.group, reason: error.to_string() })
        }
    }
}
