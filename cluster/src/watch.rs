//! What the links tell the groups, and what time does to them.

use std::rc::Rc;

use jindou_core::{
    effect::Event,
    id::{NodeId, SlotId},
};
use openraft::AsyncRuntime;

use crate::{
    group::{Group, spawn},
    groups::Groups,
    network::Transport,
};

/// How often [`Groups::tick`] wants to be called when nothing is due.
const TICK_MS: u64 = 50;

impl<R: AsyncRuntime, T: Transport> Groups<R, T> {
    /// A ping of a node has come in to this shard, from whichever shard of that node. For
    /// [`crate::Options::promise_ms`] from now on nobody is helped to replace leaders on that
    /// node. `now_ms`: the owner's monotonic clock.
    pub fn heard(&self, from: NodeId, now_ms: u64) {
        self.0.life.observe(now_ms);
        self.0.life.heard(from.0);
    }

    /// All shards of a node have answered pings of this shard that were sent at `sent_ms` or later
    /// (by this node's monotonic clock): of the links to that node's shards, the one whose last
    /// answered ping is the oldest counts. A lease rests on this, so it must not be a newer one.
    pub fn peer_answered(&self, node: NodeId, sent_ms: u64) {
        if self.0.life.answered(node.0, sent_ms) {
            self.call_on(node);
        }
    }

    /// The links to a node came up or went down.
    pub fn peer(&self, node: NodeId, up: bool) {
        self.0.life.set_up(node.0, up);
        if up {
            self.call_on(node);
        }
    }

    /// A node has said hello in another incarnation than before; to be called before
    /// [`Groups::peer`]. Whatever it led, it does not lead any more, however alive it is: without
    /// this call its groups would go on waiting for it.
    pub fn restarted(&self, node: NodeId) {
        for group in self.0.groups.borrow().values() {
            group.restarted(node.0);
        }
    }

    /// The groups that lead speak to their replicas on a node.
    fn call_on(&self, node: NodeId) {
        for group in self.0.groups.borrow().values() {
            if group.is_leader() && group.has_member(node.0) {
                group.call_on(node.0);
            }
        }
    }

    /// Lets time pass: elections, leases ([`Event::Leases`], when they have changed), heartbeats
    /// after commits. Returns when it wants to be called again at the latest; `u64::MAX` when this
    /// node is the only voter of all its groups. Both are milliseconds of the owner's monotonic
    /// clock.
    pub fn tick(&self, now_ms: u64) -> u64 {
        let life = &self.0.life;
        life.observe(now_ms);
        let mut due_ms = u64::MAX;
        let mut leases: Vec<(SlotId, u64)> = Vec::new();
        let groups: Vec<Rc<Group<R>>> = self.0.groups.borrow().values().cloned().collect();
        for group in &groups {
            if group.removed.get() {
                self.leave(group);
                continue;
            }
            if group.is_alone() || !group.runs() {
                continue;
            }
            let due = group.pulse().map_or(u64::MAX, |at| life.ms_at(at));
            due_ms = due_ms.min(due.max(now_ms + 1)).min(now_ms + TICK_MS);
            let lease = group.compute_lease(life);
            if group.is_leading() && group.lease_ms.replace(lease) != lease {
                leases.push((group.shared.slot, lease));
            }
        }
        if !leases.is_empty() {
            (self.0.setup.sink)(Event::Leases(leases));
        }
        due_ms
    }

    /// Its leader says that this replica is none.
    fn leave(&self, group: &Rc<Group<R>>) {
        let (groups, slot) = (self.clone(), group.shared.slot);
        tracing::info!(%slot, "this node is no replica of the slot any more");
        spawn::<R>(async move { groups.close(slot).await });
    }
}

impl<R: AsyncRuntime> Group<R> {
    /// Speaks to the replicas without waiting for the end of a pause to one of them.
    fn call_on(self: &Rc<Self>, node: u64) {
        let group = self.clone();
        spawn::<R>(async move {
            let trigger = group.raft.trigger();
            let _ = trigger.reset_backoff([node]).await;
            let _ = trigger.heartbeat().await;
        });
    }
}
