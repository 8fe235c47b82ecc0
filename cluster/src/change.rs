//! Who belongs to a group, and who leads it: changes and what is known.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use futures::future::join_all;
use jindou_core::id::{NodeId, SlotId};
use openraft::{
    AsyncRuntime, ChangeMembers, Instant, ServerState,
    async_runtime::watch::WatchReceiver,
    errors::{ClientWriteError, RaftError},
    raft::VoteRequest,
};

use crate::{
    frame::{Answer, Ask},
    group::{Group, spawn},
    groups::Groups,
    network::Transport,
    types::{CLUSTER_SLOT, LeaderId, Node, TypeConfig, Vote, no_vote},
};

/// A new replica is made a voter when it lacks no more entries than this.
const LAG_MAX: u64 = 256;
/// A new replica that gets nothing for so long is given up.
const CATCH_UP_PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// Leadership is taken over within this time, or not at all.
const TRANSFER_TIMEOUT: Duration = Duration::from_millis(1_000);
/// Whoever is to take it over says within this time that it would.
const WILLING_TIMEOUT: Duration = Duration::from_millis(300);
/// A graceful stop looks for a voter that would lead for so long: all may be stopping.
const HEIR_TIMEOUT: Duration = Duration::from_millis(500);
/// A graceful stop hands over for no longer than this.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(3);

/// Why the members or the leader of a group were not changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MembershipError {
    /// The group is not open on this node.
    #[error("{0} has no replica here")]
    NoReplica(SlotId),
    /// Another node leads; ask there.
    #[error("this node does not lead the slot, {leader:?} does")]
    NotLeader {
        /// Who does, if that is known.
        leader: Option<NodeId>,
    },
    /// A change of this group is under way.
    #[error("the members of the slot are being changed already")]
    Busy,
    /// A group needs voters.
    #[error("no voters are wanted")]
    NoVoters,
    /// The new replica does not catch up: its node can't be reached, or is too slow.
    #[error("{0:?} does not catch up")]
    Behind(NodeId),
    /// Leadership had to go first, and has: ask the new leader.
    #[error("leadership went to {0:?} first")]
    Moved(NodeId),
    /// The other node would not take leadership over; this one leads on.
    #[error("{0:?} does not take leadership over: {1}")]
    Unwilling(NodeId, String),
    /// The other node did not take leadership over in time.
    #[error("{0:?} did not take leadership over")]
    NotTaken(NodeId),
    /// The node is no voter of the group.
    #[error("{0:?} is no voter of the slot")]
    NotAVoter(NodeId),
    /// Anything else; it may be tried again.
    #[error("{0}")]
    Failed(String),
}

/// What this node knows of one group. Only a leader knows how far the others are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupStatus {
    /// Voters, ascending; of both sets while a change is under way.
    pub voters: Vec<NodeId>,
    /// Those that only copy, ascending.
    pub learners: Vec<NodeId>,
    /// How the members are reached.
    pub members: BTreeMap<NodeId, Node>,
    /// Two sets of voters are in force at this moment.
    pub joint: bool,
    /// The leader, if known.
    pub leader: Option<NodeId>,
    /// The newest term that was seen.
    pub term: u64,
    /// The last entry's index.
    pub last_log: Option<u64>,
    /// The index up to which entries are committed, as far as this node knows.
    pub committed: Option<u64>,
    /// The index up to which entries are applied here.
    pub applied: Option<u64>,
    /// On the leader: up to which index the log of each other member is known to be the same.
    pub matched: BTreeMap<NodeId, Option<u64>>,
    /// This replica leads and serves.
    pub leading: bool,
    /// This replica may vote; otherwise it has lost its log and must be made a voter anew.
    pub may_vote: bool,
    /// Until when this leader serves reads; see [`jindou_core::effect::Event::Leases`].
    pub lease_ms: u64,
    /// This node stops, and takes no leadership over.
    pub retiring: bool,
}

impl<R: AsyncRuntime> Group<R> {
    pub(crate) fn has_member(&self, node: u64) -> bool {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.get_node(&node).is_some()
    }

    pub(crate) fn status(&self) -> GroupStatus {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let members = metrics.membership_config.membership();
        let mut voters: Vec<_> = members.voter_ids().map(NodeId).collect();
        voters.sort_unstable();
        voters.dedup();
        let matched = metrics.replication.iter().flatten();
        let matched = matched
            .filter(|(node, _)| **node != self.shared.node)
            .map(|(node, log_id)| (NodeId(*node), log_id.map(|log_id| log_id.index)));
        GroupStatus {
            voters,
            learners: members.learner_ids().map(NodeId).collect(),
            members: members.nodes().map(|(id, node)| (NodeId(*id), node.clone())).collect(),
            joint: members.get_joint_config().len() > 1,
            leader: metrics.current_leader.map(NodeId),
            term: metrics.current_term,
            last_log: metrics.last_log_index,
            committed: metrics.cluster_committed.map(|log_id| log_id.index),
            applied: self.shared.applied().map(|log_id| log_id.index),
            matched: matched.collect(),
            leading: self.is_leading(),
            may_vote: self.log.borrow().standing().may_vote(),
            lease_ms: self.lease_ms.get(),
            retiring: self.life.retiring.get(),
        }
    }

    fn ensure_leader(&self) -> Result<(), MembershipError> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state == ServerState::Leader && self.runs() {
            return Ok(());
        }
        Err(MembershipError::NotLeader { leader: metrics.current_leader.map(NodeId) })
    }

    async fn change(&self, changes: ChangeMembers<u64, Node>) -> Result<(), MembershipError> {
        let change = self.raft.change_membership(changes, false);
        match Box::pin(change).await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                Err(MembershipError::NotLeader { leader: forward.leader_id.map(NodeId) })
            }
            Err(error) => Err(MembershipError::Failed(error.to_string())),
        }
    }

    /// Finishes a change of voters that another leader, or another call, has left in the middle.
    async fn finish_joint(&self) -> Result<(), MembershipError> {
        if !self.status().joint {
            return Ok(());
        }
        self.change(ChangeMembers::AddVoterIds(BTreeSet::new())).await
    }

    /// Makes these nodes members, if they are not, with these addresses.
    async fn enroll(&self, desired: &[(NodeId, Node)]) -> Result<(), MembershipError> {
        let members = self.status().members;
        let known = |(id, _): &&(NodeId, Node)| members.contains_key(id);
        let moved: BTreeMap<u64, Node> = desired
            .iter()
            .filter(known)
            .filter(|(id, node)| members.get(id) != Some(node))
            .map(|(id, node)| (id.0, node.clone()))
            .collect();
        if !moved.is_empty() {
            self.change(ChangeMembers::SetNodes(moved)).await?;
        }
        let new: BTreeMap<u64, Node> = desired
            .iter()
            .filter(|member| !known(member))
            .map(|(id, node)| (id.0, node.clone()))
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        self.change(ChangeMembers::AddNodes(new)).await
    }

    /// Waits until a node's log is nearly as long as this leader's, and knows of its membership.
    async fn caught_up(&self, node: NodeId) -> Result<(), MembershipError> {
        let set_at = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.log_id().map_or(0, |log_id| log_id.index)
        };
        let (mut seen, mut moved_at) = (None, R::Instant::now());
        loop {
            self.ensure_leader()?;
            let status = self.status();
            let matched = status.matched.get(&node).copied().flatten();
            let wanted = status.last_log.unwrap_or(0).saturating_sub(LAG_MAX).max(set_at);
            if matched >= Some(wanted) {
                return Ok(());
            }
            // A snapshot on its way shows no progress, so a node that lives gets more time.
            if matched != seen || self.life.is_live(node.0) {
                (seen, moved_at) = (matched, R::Instant::now());
            }
            if moved_at.elapsed() > CATCH_UP_PAUSE_MAX {
                return Err(MembershipError::Behind(node));
            }
            R::sleep(LOOK).await;
        }
    }

    /// The voter that should lead next: lives, and lacks the least; of several such the one that
    /// `load` burdens least.
    fn heir(
        &self,
        among: impl Fn(NodeId) -> bool,
        load: impl Fn(NodeId) -> usize,
    ) -> Option<NodeId> {
        let status = self.status();
        let own = NodeId(self.shared.node);
        let live = |id: &NodeId| *id != own && among(*id) && self.life.is_live(id.0);
        let lag = |id: &NodeId| {
            let matched = status.matched.get(id).copied().flatten();
            status.last_log.unwrap_or(0).saturating_sub(matched.unwrap_or(0)) / LAG_MAX
        };
        status.voters.iter().copied().filter(live).min_by_key(|id| (lag(id), load(*id), *id))
    }

    /// Hands leadership to a voter that was asked whether it would take it. This replica does not
    /// serve from the moment of the call on; if the other does not take over, an election follows.
    async fn transfer(&self, to: NodeId) -> Result<(), MembershipError> {
        self.ensure_leader()?;
        if to.0 == self.shared.node {
            return Ok(());
        }
        if !self.status().voters.contains(&to) {
            return Err(MembershipError::NotAVoter(to));
        }
        if self.leaving.replace(true) {
            return Err(MembershipError::Busy);
        }
        self.review();
        let failed = |error: &dyn std::fmt::Display| MembershipError::Failed(error.to_string());
        self.raft.trigger().transfer_leader(to.0).await.map_err(|e| failed(&e))?;
        let deadline = R::Instant::now() + TRANSFER_TIMEOUT;
        let mut metrics = self.raft.server_metrics();
        loop {
            let (state, leader) = {
                let metrics = metrics.borrow_watched();
                (metrics.state, metrics.current_leader)
            };
            if state != ServerState::Leader && leader.is_some() {
                return Ok(());
            }
            if R::Instant::now() >= deadline {
                break;
            }
            let wait = R::timeout(
                deadline.saturating_duration_since(R::Instant::now()),
                metrics.changed(),
            );
            if let Ok(Err(error)) = wait.await {
                return Err(failed(&error));
            }
        }
        self.resign(to).await;
        Err(MembershipError::NotTaken(to))
    }

    /// A leader that has handed over takes no proposals any more, for good. It gives its vote to
    /// the one that was to follow it, and so is free to stand again.
    async fn resign(&self, heir: NodeId) {
        if !self.is_leader() {
            return;
        }
        let (term, last_log_id) = {
            let vote = self.log.borrow().vote().unwrap_or_else(no_vote);
            (vote.leader_id.term, self.log.borrow().last())
        };
        let leader_id = LeaderId { term: term + 1, node_id: heir.0 };
        let vote = Vote { leader_id, committed: false };
        let request = VoteRequest::<TypeConfig<R>> { vote, last_log_id, leadership_transfer: true };
        let _ = self.raft.vote(request).await;
    }
}

/// Ends a change also when its caller goes away.
struct Changing<R: AsyncRuntime>(Rc<Group<R>>);

impl<R: AsyncRuntime> Changing<R> {
    fn start(group: &Rc<Group<R>>) -> Result<Self, MembershipError> {
        if group.changing.replace(true) {
            return Err(MembershipError::Busy);
        }
        Ok(Self(group.clone()))
    }
}

impl<R: AsyncRuntime> Drop for Changing<R> {
    fn drop(&mut self) {
        self.0.changing.set(false);
    }
}

impl<R: AsyncRuntime, T: Transport> Groups<R, T> {
    fn led(&self, slot: SlotId) -> Result<Rc<Group<R>>, MembershipError> {
        let group = self.group(slot).ok_or(MembershipError::NoReplica(slot))?;
        group.ensure_leader()?;
        Ok(group)
    }

    /// What this node knows of a slot's group; none if it has no replica.
    pub fn status(&self, slot: SlotId) -> Option<GroupStatus> {
        Some(self.group(slot)?.status())
    }

    /// The slots whose groups are open.
    pub fn slots(&self) -> Vec<SlotId> {
        self.0.groups.borrow().keys().map(|id| id.slot()).collect()
    }

    /// Makes exactly these nodes the voters of a slot that this node leads, and gives each the
    /// address that stands with it. New ones copy the log first (from a snapshot if it does not
    /// begin early enough) and become voters when they have nearly all of it; whoever is not
    /// wanted leaves. Returns when the change is committed. May be called again after any error,
    /// also on the next leader, and goes on where it stood.
    ///
    /// A leader that is not wanted hands leadership over and answers [`MembershipError::Moved`].
    pub async fn change_voters(
        &self,
        slot: SlotId,
        desired: &[(NodeId, Node)],
    ) -> Result<(), MembershipError> {
        let group = self.led(slot)?;
        if desired.is_empty() {
            return Err(MembershipError::NoVoters);
        }
        let _changing = Changing::start(&group)?;
        group.finish_joint().await?;
        group.enroll(desired).await?;
        let before = group.status();
        for (id, _) in desired.iter().filter(|(id, _)| !before.voters.contains(id)) {
            group.caught_up(*id).await?;
        }
        let mut wanted: BTreeSet<u64> = desired.iter().map(|(id, _)| id.0).collect();
        let own = self.0.setup.node;
        let leaves = !wanted.contains(&own.0);
        if leaves {
            // Not in one step: until the heir leads, this node does, and leads as a voter.
            let stays = before.voters.iter().any(|id| wanted.contains(&id.0));
            if !stays {
                wanted.insert(own.0);
                group.change(ChangeMembers::ReplaceAllVoters(wanted.clone())).await?;
                wanted.remove(&own.0);
            }
            let wanted = |id: NodeId| wanted.contains(&id.0);
            let heir = group
                .heir(wanted, |_| 0)
                .ok_or_else(|| MembershipError::Failed("no wanted voter lives".into()))?;
            self.transfer_group(&group, heir).await?;
            return Err(MembershipError::Moved(heir));
        }
        let same = before.voters.iter().map(|id| id.0).eq(wanted.iter().copied());
        if !same {
            group.change(ChangeMembers::ReplaceAllVoters(wanted.clone())).await?;
        }
        // The cluster's own group has learners on purpose.
        let mut gone: Vec<NodeId> = before.members.keys().copied().collect();
        gone.retain(|id| !wanted.contains(&id.0));
        if slot == CLUSTER_SLOT {
            gone.retain(|id| !before.learners.contains(id));
        } else {
            self.drop_learners(&group, &wanted).await?;
        }
        self.tell_removed(&group, &gone, &before);
        Ok(())
    }

    /// Makes these nodes copy a slot that this node leads, beside its voters, and no others: for
    /// the cluster's own group, which every node reads. Does not wait until they have the log.
    pub async fn set_learners(
        &self,
        slot: SlotId,
        learners: &[(NodeId, Node)],
    ) -> Result<(), MembershipError> {
        let group = self.led(slot)?;
        let _changing = Changing::start(&group)?;
        group.finish_joint().await?;
        group.enroll(learners).await?;
        let before = group.status();
        let mut stay: BTreeSet<u64> = before.voters.iter().map(|id| id.0).collect();
        stay.extend(learners.iter().map(|(id, _)| id.0));
        self.drop_learners(&group, &stay).await?;
        let mut gone = before.learners.clone();
        gone.retain(|id| !stay.contains(&id.0));
        self.tell_removed(&group, &gone, &before);
        Ok(())
    }

    async fn drop_learners(
        &self,
        group: &Rc<Group<R>>,
        stay: &BTreeSet<u64>,
    ) -> Result<(), MembershipError> {
        let learners = group.status().learners;
        let gone: BTreeSet<u64> =
            learners.iter().map(|id| id.0).filter(|id| !stay.contains(id)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        group.change(ChangeMembers::RemoveNodes(gone)).await
    }

    /// Replication to a node ends with the entry that removes it, before that node could learn of
    /// it. It is told, once; if that is lost, the replica there is idle until its owner closes it.
    fn tell_removed(&self, group: &Rc<Group<R>>, gone: &[NodeId], before: &GroupStatus) {
        let (vote, set_at) = {
            let metrics = group.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            (metrics.vote, *metrics.membership_config.log_id())
        };
        let Some(set_at) = set_at.filter(|_| vote.committed) else {
            return;
        };
        let ask = Ask::Removed { vote: vote.into(), set_at: set_at.into() };
        let Ok(frame) = ask.encode() else {
            return;
        };
        for (id, node) in before.members.iter().filter(|(id, _)| gone.contains(id)) {
            let told = self.0.setup.transport.call(*id, node, group.shared.group, frame.clone());
            spawn::<R>(async move {
                let _ = told.await;
            });
        }
    }

    /// Hands the leadership of a slot to another voter, if that one would take it. The shard hears
    /// that it does not lead any more before anything else happens; proposals fail from then on. If
    /// the other node does not take over within a second, whoever can is elected.
    pub async fn transfer(&self, slot: SlotId, to: NodeId) -> Result<(), MembershipError> {
        self.transfer_group(&self.led(slot)?, to).await
    }

    async fn transfer_group(
        &self,
        group: &Rc<Group<R>>,
        to: NodeId,
    ) -> Result<(), MembershipError> {
        if to != self.0.setup.node {
            self.ask_willing(group, to).await?;
        }
        group.transfer(to).await
    }

    /// Asks a voter whether it would take leadership over: one that stops, or can't be reached, would
    /// leave the slot without a leader until the next election.
    async fn ask_willing(&self, group: &Rc<Group<R>>, to: NodeId) -> Result<(), MembershipError> {
        let status = group.status();
        let node = status.members.get(&to).filter(|_| status.voters.contains(&to));
        let node = node.ok_or(MembershipError::NotAVoter(to))?;
        let unwilling = |reason: String| MembershipError::Unwilling(to, reason);
        let frame = Ask::Willing.encode().map_err(|error| unwilling(error.to_string()))?;
        let asked = self.0.setup.transport.call(to, node, group.shared.group, frame);
        let answer = R::timeout(WILLING_TIMEOUT, asked)
            .await
            .map_err(|_| unwilling("it does not answer".into()))?
            .map_err(|error| unwilling(error.to_string()))?;
        match Answer::decode(&answer) {
            Ok(Answer::Taken) => Ok(()),
            Ok(Answer::Failed(reason)) => Err(unwilling(reason)),
            Ok(other) => Err(unwilling(format!("another answer: {other:?}"))),
            Err(error) => Err(unwilling(error.to_string())),
        }
    }

    /// Whether this node hands over what it leads and takes nothing over: it stops.
    pub fn is_retiring(&self) -> bool {
        self.0.life.retiring.get()
    }

    /// For a graceful stop: hands over all groups that this node leads, at once, each to a voter
    /// that lives, has the log and would take it, evenly. From then on this node takes no leadership
    /// over. Returns how many have gone to another leader, after three seconds at most. Groups
    /// without such a voter stay.
    pub async fn hand_over(&self) -> usize {
        self.0.life.retiring.set(true);
        let groups: Vec<_> = self.0.groups.borrow().values().cloned().collect();
        let led = groups.into_iter().filter(|group| group.is_leader() && !group.is_alone());
        let load = RefCell::new(BTreeMap::new());
        let gone = Cell::new(0);
        let all = join_all(led.map(|group| {
            let (load, gone) = (&load, &gone);
            async move {
                self.hand_over_group(&group, load).await;
                gone.set(gone.get() + usize::from(!group.is_leader()));
            }
        }));
        let _ = R::timeout(HAND_OVER_TIMEOUT, all).await;
        gone.get()
    }

    /// Tries voter after voter until one leads.
    async fn hand_over_group(&self, group: &Rc<Group<R>>, load: &RefCell<BTreeMap<NodeId, usize>>) {
        let (mut unwilling, begin) = (BTreeSet::new(), R::Instant::now());
        while group.is_leader() && group.runs() {
            let burden = |id| load.borrow().get(&id).copied().unwrap_or(0);
            let heir = group.heir(|id| !unwilling.contains(&id), burden);
            // One that is being handed over already is waited for.
            let Some(heir) = heir.filter(|_| !group.leaving.get()) else {
                if !group.leaving.get() && begin.elapsed() > HEIR_TIMEOUT {
                    return;
                }
                unwilling.clear();
                R::sleep(LOOK).await;
                continue;
            };
            *load.borrow_mut().entry(heir).or_default() += 1;
            let Err(error) = self.transfer_group(group, heir).await else {
                return;
            };
            tracing::info!(group = %group.shared.group, %error, "leadership was not handed over");
            if let Some(count) = load.borrow_mut().get_mut(&heir) {
                *count = count.saturating_sub(1);
            }
            unwilling.insert(heir);
            R::sleep(LOOK).await;
        }
    }
}
