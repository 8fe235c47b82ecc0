//! A channel in memory: flags, lists, last seq — and the rules that need nothing else
//! (semantics.md §4).

use std::{collections::VecDeque, sync::Arc};

use super::{openings::Openings, tail::Tail};
use crate::{
    channel_info::{ChannelInfo, List, ListChange, kind},
    code::Code,
    envelope::{Epoch, Part, SendTask},
    id::{ChannelId, Name, SYSTEM_UID, SlotId},
    map::Map,
    message::SharedMessage,
    row::{ChannelRows, Dated, Row, Times},
};

/// What a slot's leader and its replicas know of a channel. Small while it has no lists: every
/// user who is online has a personal channel in memory.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) id: ChannelId,
    /// `None`: nobody made it; the default flags hold.
    pub(crate) info: Option<ChannelInfo>,
    /// When the flags were set.
    times: Times,
    pub(crate) last_seq: u64,
    lists: Option<Box<Lists>>,
    /// Recipients by slot; made on demand, dropped when members change.
    plan: Option<Plan>,
    /// Sends that wait for an answer from another slot, and those behind them: written order.
    gate: VecDeque<Gated>,
    /// Who lacks a row for the commands of this channel; `None`: nothing is known.
    pub(crate) openings: Option<Box<Openings>>,
    /// Its newest messages, once they were read.
    pub(crate) tail: Option<Box<Tail>>,
}

/// The lists of a channel, each with the Unix ms when a uid was added.
#[derive(Debug, Default)]
struct Lists {
    members: Map<Name, i64>,
    deny: Map<Name, i64>,
    allow: Map<Name, i64>,
    recipients: Map<Name, i64>,
}

/// Recipients grouped by slot.
pub(crate) type Plan = Arc<[Part]>;

/// A send at the gate.
#[derive(Debug)]
pub(crate) struct Gated {
    pub(crate) task: Arc<SendTask>,
    pub(crate) epoch: Epoch,
    /// The question that it waits for.
    pub(crate) question: Option<u64>,
    /// What was decided; `None` while it waits.
    pub(crate) verdict: Option<Code>,
    /// The sender's row for its position in these commands is to be made by the entry.
    pub(crate) opens_sender: bool,
}

impl Channel {
    pub(crate) fn new(id: ChannelId, rows: ChannelRows) -> Self {
        let has_lists = !(rows.members.is_empty()
            && rows.deny.is_empty()
            && rows.allow.is_empty()
            && rows.recipients.is_empty());
        let lists = has_lists.then(|| {
            Box::new(Lists {
                members: rows.members.into_iter().collect(),
                deny: rows.deny.into_iter().collect(),
                allow: rows.allow.into_iter().collect(),
                recipients: rows.recipients.into_iter().collect(),
            })
        });
        Self {
            id,
            info: rows.info,
            times: rows.times,
            last_seq: rows.last_seq,
            lists,
            plan: None,
            gate: VecDeque::new(),
            openings: None,
            tail: None,
        }
    }

    /// About how many bytes it takes.
    pub(crate) fn size(&self) -> usize {
        let listed = self.lists.as_ref().map_or(0, |lists| {
            let counts = [&lists.members, &lists.deny, &lists.allow, &lists.recipients];
            384 + 80 * counts.iter().map(|list| list.len()).sum::<usize>()
        });
        let openings = self.openings.as_ref().map_or(0, |openings| openings.size());
        let tail = self.tail.as_ref().map_or(0, |tail| tail.size());
        176 + self.id.id.len() + listed + openings + tail
    }

    /// Whether sends wait at the gate.
    pub(crate) fn has_gated(&self) -> bool {
        !self.gate.is_empty()
    }

    /// How many sends wait at the gate.
    pub(crate) fn gated_count(&self) -> usize {
        self.gate.len()
    }

    /// A send that must wait, or stands behind one that does.
    pub(crate) fn push_gated(&mut self, gated: Gated) {
        self.gate.push_back(gated);
    }

    /// Everything at the gate goes, undecided.
    pub(crate) fn take_gated(&mut self) -> VecDeque<Gated> {
        std::mem::take(&mut self.gate)
    }

    /// The answer to a question has come: gives what is decided now, in order.
    pub(crate) fn decide_gated(
        &mut self,
        question: u64,
        code: Code,
        opens_sender: bool,
    ) -> Vec<Gated> {
        let mut decided = Vec::new();
        if let Some(gated) = self.gate.iter_mut().find(|g| g.question == Some(question)) {
            gated.verdict = Some(code);
            gated.opens_sender = opens_sender;
        }
        while self.gate.front().is_some_and(|gated| gated.verdict.is_some()) {
            decided.extend(self.gate.pop_front());
        }
        if self.gate.is_empty() {
            self.gate = VecDeque::new();
        }
        decided
    }

    pub(crate) fn info(&self) -> ChannelInfo {
        self.info.unwrap_or_default()
    }

    /// Sets the flags.
    pub(crate) fn set_info(&mut self, info: ChannelInfo, time_ms: i64, rows: &mut Vec<Row>) {
        let channel = self.id.clone();
        let times = self.times.write(&[&[channel.kind], channel.id.as_bytes()], time_ms);
        if self.times.created_ns == 0 {
            let what = Dated::Channel(channel.clone());
            rows.push(Row::Dated { what, created_ns: times.created_ns });
        }
        (self.info, self.times) = (Some(info), times);
        rows.push(Row::Info { channel, info, times });
    }

    /// A list; `None` when the channel has none at all.
    pub(crate) fn list(&self, list: List) -> Option<&Map<Name, i64>> {
        let lists = self.lists.as_ref()?;
        Some(match list {
            List::Members => &lists.members,
            List::Deny => &lists.deny,
            List::Allow => &lists.allow,
            List::Recipients => &lists.recipients,
        })
    }

    fn has(&self, list: List, uid: &str) -> bool {
        self.list(list).is_some_and(|list| list.contains_key(uid))
    }

    /// Whether the channel takes messages at all (semantics.md §4.1).
    pub(crate) fn check_open(&self) -> Code {
        match self.id.kind {
            kind::INFO | kind::CUSTOMER_SERVICE | kind::VISITORS | kind::AGENT => Code::Success,
            _ if self.info().ban => Code::Ban,
            _ if self.info().disband => Code::Disband,
            _ => Code::Success,
        }
    }

    /// Whether `sender` may write to a channel with lists (semantics.md §4.2, 7a–7c).
    pub(crate) fn check_member(&self, sender: &str) -> Code {
        if self.has(List::Deny, sender) {
            Code::InBlacklist
        } else if !self.has(List::Members, sender) {
            Code::SubscriberNotExist
        } else if self.list(List::Allow).is_some_and(|allow| !allow.is_empty())
            && !self.has(List::Allow, sender)
        {
            Code::NotInWhitelist
        } else {
            Code::Success
        }
    }

    /// Whether the owner of this personal channel takes messages of `sender` (6b, 6c).
    pub(crate) fn check_person(&self, sender: &str, allow_off: bool) -> Code {
        if self.has(List::Deny, sender) {
            Code::InBlacklist
        } else if !allow_off && !self.has(List::Allow, sender) {
            Code::NotInWhitelist
        } else {
            Code::Success
        }
    }

    /// Changes a list and tells which uids were concerned: the added, or the removed.
    pub(crate) fn change_list(
        &mut self,
        list: List,
        change: ListChange,
        uids: &[Name],
        time_ms: i64,
        rows: &mut Vec<Row>,
    ) {
        let channel = self.id.clone();
        if matches!(list, List::Members | List::Recipients) {
            self.plan = None;
        }
        let lists = self.lists.get_or_insert_default();
        let items = match list {
            List::Members => &mut lists.members,
            List::Deny => &mut lists.deny,
            List::Allow => &mut lists.allow,
            List::Recipients => &mut lists.recipients,
        };
        let mut openings = self.openings.as_mut().filter(|_| list == List::Members);
        let mut write = |uid: Name, added_ms: Option<i64>| {
            if let Some(openings) = &mut openings {
                match added_ms {
                    Some(_) => openings.add(uid.clone()),
                    None => openings.remove(&uid),
                }
            }
            rows.push(Row::ListItem { channel: channel.clone(), list, uid, added_ms });
        };
        if matches!(change, ListChange::Clear | ListChange::Set) {
            for (uid, _) in std::mem::take(items) {
                write(uid, None);
            }
        }
        match change {
            ListChange::Clear => {}
            ListChange::Add | ListChange::Set => {
                for uid in uids {
                    if !items.contains_key(uid) {
                        items.insert(uid.clone(), time_ms);
                        write(uid.clone(), Some(time_ms));
                    }
                }
            }
            ListChange::Remove => {
                for uid in uids {
                    if items.swap_remove(uid).is_some() {
                        write(uid.clone(), None);
                    }
                }
            }
        }
    }

    /// Who gets the messages of this channel (semantics.md §5.1), each uid once.
    pub(crate) fn recipients(&self) -> Vec<Name> {
        let mut uids: Vec<Name> = Vec::new();
        match self.id.kind {
            kind::PERSON | kind::AGENT => {
                for part in self.id.id.split('@') {
                    if !uids.iter().any(|uid| &**uid == part) {
                        uids.push(part.into());
                    }
                }
            }
            other => {
                uids.extend(self.list(List::Members).into_iter().flat_map(Map::keys).cloned());
                if other == kind::TEMP {
                    let given = self.list(List::Recipients).into_iter().flat_map(Map::keys);
                    let given = given.filter(|uid| !self.has(List::Members, uid));
                    uids.extend(given.cloned());
                }
                let visitor = match other {
                    kind::CUSTOMER_SERVICE => self.id.id.split('|').next(),
                    kind::VISITORS => Some(&*self.id.id),
                    _ => None,
                };
                if let Some(visitor) = visitor
                    && !self.has(List::Members, visitor)
                {
                    uids.push(visitor.into());
                }
            }
        }
        uids.retain(|uid| &**uid != SYSTEM_UID && !uid.is_empty());
        uids
    }

    /// The recipients grouped by slot, cached while the members stay.
    pub(crate) fn plan(&mut self, slot_count: u16) -> Plan {
        if let Some(plan) = &self.plan {
            return plan.clone();
        }
        let plan = plan_of(self.recipients(), slot_count);
        self.plan = Some(plan.clone());
        plan
    }
}

/// Groups uids by slot.
pub(crate) fn plan_of(uids: Vec<Name>, slot_count: u16) -> Plan {
    let mut groups: Map<SlotId, Vec<Name>> = Map::default();
    for uid in uids {
        groups.entry(SlotId::of(&uid, slot_count)).or_default().push(uid);
    }
    groups.into_iter().map(|(slot, uids)| Part { slot, uids: uids.into() }).collect()
}

/// Whether a sender passes without any list (semantics.md §4.2, 1–5 and 6a).
pub(crate) fn passes_without_lists(channel: &ChannelId, sender: &str, trusted: bool) -> bool {
    let id = &*channel.id;
    trusted
        || sender == SYSTEM_UID
        || match channel.kind {
            kind::INFO | kind::CUSTOMER_SERVICE => true,
            kind::AGENT => id.split('@').any(|part| part == sender),
            kind::VISITORS => id == sender,
            _ => false,
        }
}

/// The other end of a person channel as `sender` sees it; oneself in a note to oneself.
pub(crate) fn person_peer<'a>(stored: &'a str, sender: &str) -> &'a str {
    if let Some(peer) = stored.strip_prefix(sender).and_then(|rest| rest.strip_prefix('@')) {
        return peer;
    }
    if let Some(peer) = stored.strip_suffix(sender).and_then(|rest| rest.strip_suffix('@')) {
        return peer;
    }
    stored.split('@').next_back().unwrap_or(stored)
}

/// The channel id that `receiver` sees in a RECV (semantics.md §5.4).
pub(crate) fn shown_channel<'a>(message: &'a SharedMessage, receiver: &str) -> &'a str {
    let stored = &*message.channel.id;
    let addressed = match (&message.shown, message.channel.kind) {
        (Some(shown), _) => &**shown,
        (None, kind::PERSON) => person_peer(stored, &message.from),
        (None, kind::AGENT) => stored.split_once('@').map_or(stored, |(_, agent)| agent),
        (None, _) => stored,
    };
    if message.channel.kind == kind::PERSON && addressed == receiver {
        if &*message.from == SYSTEM_UID { "" } else { &message.from }
    } else {
        addressed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(members: &[&str]) -> Channel {
        Channel::new(
            ChannelId::new("g", kind::GROUP),
            ChannelRows {
                members: members.iter().map(|m| ((*m).into(), 0)).collect(),
                ..ChannelRows::default()
            },
        )
    }

    #[test]
    fn lists_decide_in_the_documented_order() {
        let mut channel = group(&["a", "b"]);
        let mut rows = Vec::new();
        assert_eq!(channel.check_member("a"), Code::Success);
        assert_eq!(channel.check_member("x"), Code::SubscriberNotExist);
        channel.change_list(List::Allow, ListChange::Add, &["b".into()], 1, &mut rows);
        assert_eq!(channel.check_member("a"), Code::NotInWhitelist);
        channel.change_list(List::Deny, ListChange::Add, &["x".into()], 1, &mut rows);
        assert_eq!(channel.check_member("x"), Code::InBlacklist);
        channel.change_list(List::Allow, ListChange::Remove, &["b".into()], 1, &mut rows);
        assert_eq!(channel.check_member("a"), Code::Success, "an emptied allow list is no list");
        assert_eq!(rows.len(), 3);
    }

    #[test]
    fn a_note_to_oneself_has_one_recipient() {
        let channel = Channel::new(ChannelId::new("u@u", kind::PERSON), ChannelRows::default());
        assert_eq!(channel.recipients(), vec![Name::from("u")]);
    }

    #[test]
    fn the_peer_is_found_from_either_side() {
        assert_eq!(person_peer("u2@u1", "u1"), "u2");
        assert_eq!(person_peer("u2@u1", "u2"), "u1");
        assert_eq!(person_peer("u1@u1", "u1"), "u1");
    }
}
