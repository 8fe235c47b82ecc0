//! When a replica stands for election, and when it helps another: openraft's own clock never runs.
//!
//! A leader is followed as long as its node is heard. When it falls silent, the voters that live
//! stand one after the other, in the order in which they should lead the slot, each with a
//! pre-vote first; whoever is refused for a shorter log shows the refuser that it is the better
//! candidate, and that one stands at once.
//!
//! An idle group says nothing at all. What a leader has to say without being asked, how far it has
//! committed, it says in one heartbeat after the last commit.

use std::{cell::Cell, rc::Rc, time::Duration};

use jindou_core::id::NodeId;
use openraft::{
    AsyncRuntime, Instant, ServerState, async_runtime::watch::WatchReceiver,
    raft::TransferLeaderRequest,
};

use crate::{
    group::{Group, spawn},
    liveness::Dice,
    placement,
    types::{TypeConfig, Vote, no_vote},
};

/// The next voter in line stands so much later.
const STAGGER: Duration = Duration::from_millis(70);
/// And each up to so much later still.
const JITTER: Duration = Duration::from_millis(25);
/// Whoever stands has a majority's word already and is elected as soon as the votes are on disk. It
/// gets this much time before it, or another, tries again; then twice that, for disks that are slow.
const CANDIDATE: Duration = Duration::from_millis(400);
/// Whoever gets no majority's word asks again after this time, then after twice that.
const RETRY: Duration = Duration::from_millis(120);
/// At most doubled so often.
const SHIFT_MAX: u32 = 4;
/// A leader tells how far it has committed when nothing was committed for so long.
const COMMIT_QUIET: Duration = Duration::from_millis(50);
/// An endless lease, as far as one look at it is concerned.
const LEASE_MS_MAX: u64 = 3_600_000;
/// A pre-vote is answered when the promise to the leader ends, if it ends so soon.
pub(crate) const PATIENCE: Duration = Duration::from_millis(250);

/// What a group remembers of elections.
pub(crate) struct Election<R: AsyncRuntime> {
    pub(crate) dice: Dice,
    /// Before this the node does not know what it promised before it started.
    pub(crate) free_at: Option<R::Instant>,
    /// When this replica stands.
    stands_at: Cell<Option<R::Instant>>,
    attempts: Cell<u32>,
    /// Candidates since the last leader.
    rounds: Cell<u32>,
    /// The vote in whose presence `stands_at` was chosen.
    seen: Cell<Vote>,
    /// How far the leader has committed, and since when it stands there.
    committed: Cell<(Option<u64>, R::Instant)>,
    /// How far the followers were told that it has.
    announced: Cell<Option<u64>>,
}

impl<R: AsyncRuntime> Election<R> {
    pub(crate) fn new(seed: u64, free_at: Option<R::Instant>, vote: Option<Vote>) -> Self {
        Self {
            dice: Dice::new(seed),
            free_at,
            stands_at: Cell::new(None),
            attempts: Cell::new(0),
            rounds: Cell::new(0),
            seen: Cell::new(vote.unwrap_or_else(no_vote)),
            committed: Cell::new((None, R::Instant::now())),
            announced: Cell::new(None),
        }
    }

    fn forget(&self) {
        self.stands_at.set(None);
        self.attempts.set(0);
        self.rounds.set(0);
    }
}

impl<R: AsyncRuntime> Group<R> {
    /// Looks at the clock. Returns when to look again, if ever.
    pub(crate) fn pulse(self: &Rc<Self>) -> Option<R::Instant> {
        if !self.runs() || self.is_alone() {
            return None;
        }
        let (state, leader, vote) = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            (metrics.state, metrics.current_leader, metrics.vote)
        };
        if state == ServerState::Leader {
            self.election.forget();
            self.pulse_commit();
            return None;
        }
        self.election.announced.set(None);
        // A voter that is a learner by its newest membership may still be needed, openraft knows.
        let log = self.log.borrow();
        if log.last().is_none() || !log.standing().may_vote() {
            return None;
        }
        drop(log);
        self.pulse_election(leader, vote)
    }

    fn pulse_election(self: &Rc<Self>, leader: Option<u64>, vote: Vote) -> Option<R::Instant> {
        let now = R::Instant::now();
        let election = &self.election;
        let heard_of = leader.filter(|_| self.gone.get() != Some(vote.leader_id));
        // One that is known from the disk alone may be gone, though its node lives.
        let named = self.named.get().is_some_and(|named| named.leader_id >= vote.leader_id);
        let followed = heard_of.filter(|_| named);
        if let Some(until) = followed.and_then(|leader| self.life.promised_until(leader))
            && now < until
        {
            election.forget();
            return Some(until);
        }
        let rank = self.rank(leader)?;
        let delay = STAGGER * rank + election.dice.below(JITTER);
        let base = election.free_at.map_or(now, |free_at| free_at.max(now));
        // A leader that was never heard may have its first ping or word on the way.
        let unheard =
            heard_of.is_some_and(|leader| !named || self.life.promised_until(leader).is_none());
        let grace = if unheard { self.life.promise } else { Duration::ZERO };
        let stood = election.seen.replace(vote) != vote && leader.is_none();
        let at = if stood && vote.leader_id.term > 0 {
            let rounds = election.rounds.replace(election.rounds.get().saturating_add(1));
            base + CANDIDATE * (1 << rounds.min(SHIFT_MAX)) + delay
        } else {
            election.stands_at.get().unwrap_or(base + grace + delay)
        };
        if now < at {
            election.stands_at.set(Some(at));
            return Some(at);
        }
        let attempts = election.attempts.replace(election.attempts.get().saturating_add(1));
        let pause = RETRY * (1 << attempts.min(SHIFT_MAX));
        let next = now + pause + election.dice.below(pause / 2) + STAGGER * rank;
        election.stands_at.set(Some(next));
        self.stand();
        Some(next)
    }

    /// This replica's place among the voters that live and are not the leader that fell silent, in
    /// the order in which they should lead; none if it is no voter.
    fn rank(&self, silent: Option<u64>) -> Option<u32> {
        let node = self.shared.node;
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let both = [&metrics.membership_config, &metrics.committed_membership_config];
        if !both.iter().any(|members| members.voter_ids().any(|voter| voter == node)) {
            return None;
        }
        let mut voters: Vec<_> = metrics.membership_config.voter_ids().map(NodeId).collect();
        voters.sort_unstable();
        voters.dedup();
        let order = placement::replicas(self.shared.slot, &voters, voters.len());
        let before = order.iter().map(|voter| voter.0).take_while(|voter| *voter != node);
        let before = before.filter(|voter| Some(*voter) != silent && self.life.is_live(*voter));
        u32::try_from(before.count()).ok()
    }

    /// Asks the others whether they would vote for this replica, and stands if they would.
    fn stand(self: &Rc<Self>) {
        let elections = &self.life.elections;
        elections.set(elections.get().wrapping_add(1));
        let group = self.clone();
        spawn::<R>(async move {
            // openraft has a lease of its own, which we make endless so that a group that slept
            // takes proposals; what it protects, `may_help` does.
            let Ok(vote) = group.raft.with_raft_state(|state| *state.vote_ref()).await else {
                return;
            };
            if vote.committed {
                let nobody = TransferLeaderRequest::<TypeConfig<R>>::new(vote, u64::MAX, None);
                let _ = group.raft.handle_transfer_leader(nobody).await;
            }
            let _ = group.raft.trigger().elect(true).await;
        });
    }

    /// This replica has a longer log than one that stands.
    pub(crate) fn stand_soon(&self) {
        if self.election.stands_at.get().is_some() {
            self.election.stands_at.set(Some(R::Instant::now()));
        }
    }

    /// This replica will vote for one that stands as soon as its own vote is on disk.
    pub(crate) fn stand_later(&self) {
        if let Some(at) = self.election.stands_at.get() {
            self.election.stands_at.set(Some(at.max(R::Instant::now() + CANDIDATE)));
        }
    }

    /// Until when this replica may help nobody to be elected: it has promised that to the leader
    /// that it follows, or does not know what it promised, or leads by a lease of its own.
    ///
    /// The leader is the one of the highest vote that openraft was *given*, which at this moment
    /// it may not have looked at yet: frames of one group are given to it in the order in which
    /// they come. A vote from the disk binds nobody: what was promised before the start ends with
    /// `free_at`, and a leader that still leads says so before it counts on this node.
    /// To the leader itself, should it have to stand again, nothing was promised.
    pub(crate) fn bound_until(&self, candidate: u64) -> Option<R::Instant> {
        let now = R::Instant::now();
        let life = &self.life;
        let leased = life.now_ms() < self.lease_ms.get();
        let lease = leased.then(|| {
            let left = self.lease_ms.get().saturating_sub(life.now_ms());
            now + Duration::from_millis(left.min(LEASE_MS_MAX))
        });
        let promised = self.named.get().and_then(|named| {
            // If it was replaced, the promise was to a leader that is none.
            let vote = self.raft.server_metrics().borrow_watched().vote;
            let stands = named.leader_id >= vote.leader_id
                && named.leader_id.node_id != candidate
                && self.gone.get() != Some(named.leader_id);
            life.promised_until(named.leader_id.node_id).filter(|_| stands)
        });
        self.election.free_at.max(promised).max(lease).filter(|until| now < *until)
    }

    /// Openraft is given an established leader's vote.
    pub(crate) fn name(&self, vote: Vote) {
        if self.named.get().is_none_or(|named| named.leader_id < vote.leader_id) {
            self.named.set(Some(vote));
        }
    }

    /// A node runs anew: it leads nothing that it led before.
    pub(crate) fn restarted(&self, node: u64) {
        let vote = self.raft.server_metrics().borrow_watched().vote;
        let latest = self
            .named
            .get()
            .map_or(vote, |named| if named.leader_id > vote.leader_id { named } else { vote });
        if latest.leader_id.node_id == node {
            self.gone.set(Some(latest.leader_id));
        }
    }

    /// Says how far this leader has committed, when that has stood for a while. A tick sooner or
    /// later is as good.
    fn pulse_commit(self: &Rc<Self>) {
        let now = R::Instant::now();
        let election = &self.election;
        let index = {
            let data = self.raft.data_metrics();
            let data = data.borrow_watched();
            data.cluster_committed.map(|committed| committed.index)
        };
        let (before, since) = election.committed.get();
        if index != before {
            election.committed.set((index, now));
        } else if index != election.announced.get() && now >= since + COMMIT_QUIET {
            election.announced.set(index);
            self.heartbeat();
        }
    }

    /// Says to all replicas who leads, and how far it has committed.
    pub(crate) fn heartbeat(self: &Rc<Self>) {
        let group = self.clone();
        spawn::<R>(async move {
            let _ = group.raft.trigger().heartbeat().await;
        });
    }

    /// Whether this node's raft is the leader, serving or not.
    pub(crate) fn is_leader(&self) -> bool {
        self.raft.server_metrics().borrow_watched().state == ServerState::Leader
    }
}
