//! System accounts: uids that pass the sender checks and that everybody may write to (semantics.md
//! §4.2, 5 and 6a). Group 0 keeps them; every shard of every node has a copy, because any of them
//! may have to judge a send.
//!
//! Each node's replica of group 0 tells the shards of its node when it applies a change; its leader
//! tells those of all nodes, and a change is answered when they know (G7: the next send goes by the
//! new list). Which list is newer is told by the index of the entry in group 0.

use super::{CLUSTER_SLOT, Shard, parcels::Parent, slot::Caller};
use crate::{
    effect::Effect,
    entry::Command,
    envelope::Content,
    id::{Name, NodeId, SYSTEM_UID, ShardAddr, ShardId},
    map::Set,
    request::{Failure, Reply},
};

/// What the keys of group 0 begin with that name a system account; the uid follows.
pub const SYSTEM_UID_PREFIX: &str = "system_uid/";

/// System accounts that a cluster may have: every shard keeps all of them in memory.
const COUNT_MAX: usize = 10_000;
/// A send waits so long for the datasource.
const SOURCE_MS: u64 = 500;
/// A datasource that has not answered is asked again after so long.
const SOURCE_AGAIN_MS: u64 = 15_000;

/// The list as this shard knows it.
#[derive(Debug, Default)]
pub(crate) struct Systems {
    /// The entry of group 0 whose list this is; `None`: nobody has told.
    version: Option<u64>,
    uids: Set<Name>,
    /// What this node's datasource says.
    sourced: Sourced,
}

/// System accounts of the datasource. Only a send that would be refused has to know them: it waits a
/// little for the answer.
#[derive(Debug, Default)]
struct Sourced {
    /// `None`: it has not answered yet.
    uids: Option<Set<Name>>,
    /// It is being asked for this shard; sends wait until then.
    asking: Option<u64>,
    /// It isn't asked again before.
    next_ms: u64,
    /// It took too long last time: nothing waits for it any more.
    is_slow: bool,
}

/// The key of group 0 of a system account.
pub(super) fn key_of(uid: &str) -> String {
    format!("{SYSTEM_UID_PREFIX}{uid}")
}

impl Shard {
    /// Whether a uid is `____system` or was made a system account.
    pub(super) fn is_system(&self, uid: &str) -> bool {
        uid == SYSTEM_UID
            || self.systems.uids.contains(uid)
            || self.systems.sourced.uids.as_ref().is_some_and(|uids| uids.contains(uid))
    }

    /// Adds or removes system accounts; group 0 is led here.
    pub(super) fn change_systems(&mut self, caller: Caller, add: bool, uids: Vec<Name>) {
        if !self.leads_or_fails(caller, CLUSTER_SLOT) {
            return;
        }
        if uids.is_empty() {
            return self.reply(caller, Reply::Done);
        }
        if add && self.systems_kept().len() + uids.len() > COUNT_MAX {
            return self.reply(caller, Reply::Failed(Failure::TooLarge));
        }
        self.propose_at(caller, CLUSTER_SLOT, vec![Command::ChangeSystems { add, uids }]);
    }

    /// The list as group 0 has it here, sorted.
    fn systems_kept(&self) -> Vec<Name> {
        let Some(state) = self.slots.get(&CLUSTER_SLOT) else {
            return Vec::new();
        };
        let keys = state.cluster.range(SYSTEM_UID_PREFIX.to_owned()..);
        keys.map_while(|(key, _)| key.strip_prefix(SYSTEM_UID_PREFIX).map(Name::from)).collect()
    }

    /// The list has changed, or this replica has just come to know it: all shards of this node are
    /// told, and by the leader those of all others.
    pub(super) fn tell_systems(&mut self, parent: Parent) {
        let targets = if self.leads(CLUSTER_SLOT) {
            self.shards_alive()
        } else {
            let node = self.settings.node;
            let shards = (0..self.settings.shard_count).map(ShardId);
            shards.map(|shard| ShardAddr { node, shard }).collect()
        };
        self.tell_systems_to(targets, parent);
    }

    /// A node has come up; what it was told meanwhile may be lost.
    pub(super) fn tell_systems_of(&mut self, node: NodeId, shard_count: u16) {
        if self.leads(CLUSTER_SLOT) {
            let shards = (0..shard_count).map(|n| ShardAddr { node, shard: ShardId(n) });
            self.tell_systems_to(shards.collect(), Parent::None);
        }
    }

    fn tell_systems_to(&mut self, targets: Vec<ShardAddr>, parent: Parent) {
        let Some(version) = self.slots.get(&CLUSTER_SLOT).map(|state| match parent {
            Parent::Word(_, index) => index,
            Parent::None | Parent::Entry(..) | Parent::Parcel(_) => state.applied,
        }) else {
            return;
        };
        let uids = self.systems_kept();
        for to in targets {
            let content = Content::Systems { version, uids: uids.clone() };
            self.send_parcel(to, content, parent);
        }
    }

    /// Somebody tells the list. The newest one stands.
    pub(super) fn on_systems(&mut self, version: u64, uids: Vec<Name>) {
        if self.systems.version.is_none_or(|known| known <= version) {
            self.systems.version = Some(version);
            self.systems.uids = uids.into_iter().collect();
        }
    }

    /// Whether what is to be refused waits for the datasource, which is asked if need be
    /// (http-api.md §20).
    pub(super) fn waits_for_systems(&mut self, sender: &str) -> bool {
        let now = self.now.mono_ms;
        if !self.settings.has_datasource || self.is_system(sender) {
            return false;
        }
        let sourced = &mut self.systems.sourced;
        match sourced.asking {
            _ if sourced.uids.is_some() => false,
            Some(until_ms) => now < until_ms,
            None if now < sourced.next_ms => false,
            None => {
                let is_slow = sourced.is_slow;
                sourced.asking = Some(if is_slow { now } else { now + SOURCE_MS });
                self.out.effects.push(Effect::AskSystems);
                !is_slow
            }
        }
    }

    /// The datasource has answered, or not.
    pub(super) fn on_systems_sourced(&mut self, uids: Option<&[Name]>) {
        let now = self.now.mono_ms;
        let sourced = &mut self.systems.sourced;
        let asking = sourced.asking.take();
        if let Some(uids) = uids {
            sourced.uids = Some(uids.iter().cloned().collect());
        } else if let Some(until_ms) = asking {
            sourced.is_slow |= now >= until_ms;
            sourced.next_ms = now + SOURCE_AGAIN_MS;
        }
    }
}
