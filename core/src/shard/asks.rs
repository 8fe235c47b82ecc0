//! What this shard asks others and repeats until it is answered: requests of the API, logins,
//! questions about rules.

use std::{collections::VecDeque, sync::Arc};

use super::{
    Shard,
    routes::{RETRY_MS, WHEN_TOLD},
};
use crate::{
    code::Code,
    envelope::{Answer, Ask, Envelope},
    id::{ChannelId, ConnId, NodeId, ShardAddr, SlotId},
    map::{Map, Set},
    request::{Failure, Reply, RequestToken},
};

/// Asks without answer that a shard keeps; more requests are refused.
const COUNT_MAX: usize = 65_536;

/// Whom an ask goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    /// Whoever leads the slot.
    Slot(SlotId),
    /// This shard and no other.
    Shard(ShardAddr),
}

/// Who waits here for the answer.
#[derive(Debug)]
pub(crate) enum Asker {
    /// A caller of the API.
    Api(RequestToken),
    /// A connection that wants in.
    Session(ConnId),
    /// The gate of a channel.
    Gate(ChannelId),
    /// Nobody.
    Nobody,
    /// A notice of a slot, in one time of leading it.
    Notice {
        /// The slot.
        slot: SlotId,
        /// Which time.
        life: u64,
        /// Its number.
        number: u64,
    },
}

#[derive(Debug)]
struct Open {
    ask: Arc<Ask>,
    to: To,
    asker: Asker,
    /// When it goes out again; `None`: it is under way.
    due_ms: Option<u64>,
    /// The last answer was that nobody leads there.
    refused: bool,
}

/// Everything that waits.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    open: Map<u64, Open>,
    deadlines: VecDeque<(u64, u64)>,
}

impl Asks {
    pub(crate) fn is_full(&self) -> bool {
        self.open.len() >= COUNT_MAX
    }

    pub(crate) fn next_deadline_ms(&self) -> Option<u64> {
        self.deadlines.front().map(|(due, _)| *due)
    }
}

impl Shard {
    /// Asks, and goes on asking until there is an answer or `request_ms` are over. Gives the
    /// number of the ask.
    pub(super) fn ask(&mut self, ask: Ask, to: To, asker: Asker) -> u64 {
        self.next_id = self.next_id.wrapping_add(1);
        let id = self.next_id;
        let open = Open { ask: Arc::new(ask), to, asker, due_ms: None, refused: false };
        self.asks.open.insert(id, open);
        self.asks.deadlines.push_back((self.now.mono_ms + self.settings.request_ms, id));
        self.send_ask(id);
        id
    }

    fn send_ask(&mut self, id: u64) {
        let from = self.me();
        let Some(open) = self.asks.open.get(&id) else {
            return;
        };
        let (to, ask) = (open.to, open.ask.clone());
        let reachable = match to {
            To::Slot(slot) => self.can_reach(slot),
            To::Shard(_) => true,
        };
        if let Some(open) = self.asks.open.get_mut(&id) {
            open.due_ms = (!reachable).then_some(WHEN_TOLD);
        }
        match to {
            To::Slot(slot) if reachable => {
                self.send_to_slot(slot, Envelope::Ask { from, id, ask });
            }
            To::Slot(_) => {}
            To::Shard(shard) => self.send_to(shard, Envelope::Ask { from, id, ask }),
        }
    }

    /// A connection is gone that waited to be let in.
    pub(super) fn forget_login(&mut self, id: u64) {
        self.asks.open.swap_remove(&id);
    }

    /// Somebody has answered. A late answer finds nobody; but a session that was let in and is
    /// gone must be forgotten by its home.
    pub(super) fn on_answer(&mut self, id: u64, answer: Answer) {
        let Some(open) = self.asks.open.get_mut(&id) else {
            if let Answer::Welcome { session, uid, .. } = answer
                && !self.has_session(session.conn)
            {
                self.send_to_slot(self.slot_of(&uid), Envelope::Left { session, uid });
            }
            return;
        };
        let refused = matches!(
            (&answer, open.to),
            (Answer::NotLeader | Answer::Reply(Reply::Failed(Failure::NoLeader)), To::Slot(_))
        );
        if refused {
            // One that is repeated already has its answer on the way.
            if open.due_ms.is_none() {
                let due_ms = self.now.mono_ms + RETRY_MS;
                (open.due_ms, open.refused) = (Some(due_ms), true);
                self.due_at(due_ms);
            }
            return;
        }
        if let Some(open) = self.asks.open.swap_remove(&id) {
            self.answered(id, open.asker, &open.ask, answer);
        }
    }

    fn answered(&mut self, id: u64, asker: Asker, ask: &Ask, answer: Answer) {
        match (asker, answer) {
            (Asker::Api(token), Answer::Reply(reply)) => self.give_reply(token, reply),
            (Asker::Nobody, _) => {}
            (Asker::Notice { slot, life, number }, answer) => {
                self.on_notice_answer((slot, life, number), ask, answer);
            }
            (
                Asker::Api(token),
                Answer::Welcome { .. }
                | Answer::Code(_)
                | Answer::NotLeader
                | Answer::OpensSender
                | Answer::Uids(_),
            ) => {
                self.give_reply(token, Reply::Failed(Failure::NoLeader));
            }
            (Asker::Session(conn), Answer::Welcome { level, send_ban, .. }) => {
                self.on_logged_in(conn, Ok((level, send_ban)));
            }
            (Asker::Session(conn), Answer::Code(code)) => self.on_logged_in(conn, Err(code)),
            (
                Asker::Session(conn),
                Answer::Reply(_) | Answer::NotLeader | Answer::OpensSender | Answer::Uids(_),
            ) => {
                self.on_logged_in(conn, Err(Code::SystemError));
            }
            (Asker::Gate(channel), Answer::Code(code)) => {
                self.on_verdict(id, &channel, code, false)
            }
            (Asker::Gate(channel), Answer::OpensSender) => {
                self.on_verdict(id, &channel, Code::Success, true);
            }
            (
                Asker::Gate(channel),
                Answer::Reply(_) | Answer::Welcome { .. } | Answer::NotLeader | Answer::Uids(_),
            ) => self.on_verdict(id, &channel, Code::SystemError, false),
        }
    }

    /// Whoever has waited too long is told.
    pub(super) fn answer_overdue_asks(&mut self) {
        let now = self.overdue_ms();
        while let Some((due, id)) = self.asks.deadlines.front().copied() {
            let open = self.asks.open.contains_key(&id);
            if open && due > now {
                break;
            }
            self.asks.deadlines.pop_front();
            let Some(open) = self.asks.open.swap_remove(&id) else {
                continue;
            };
            let nobody = open.refused || open.due_ms == Some(WHEN_TOLD);
            let failure = if nobody { Failure::NoLeader } else { Failure::Timeout };
            let answer = match open.asker {
                Asker::Api(_) => Answer::Reply(Reply::Failed(failure)),
                Asker::Session(_) | Asker::Gate(_) | Asker::Nobody | Asker::Notice { .. } => {
                    Answer::Code(Code::SystemError)
                }
            };
            self.answered(id, open.asker, &open.ask, answer);
        }
    }

    /// These slots have a new leader, or its links came up.
    pub(super) fn resend_asks(&mut self, slots: &Set<SlotId>) {
        let concerned: Vec<u64> = self
            .asks
            .open
            .iter()
            .filter(|(_, open)| matches!(open.to, To::Slot(slot) if slots.contains(&slot)))
            .map(|(id, _)| *id)
            .collect();
        for id in concerned {
            self.send_ask(id);
        }
    }

    pub(super) fn send_due_asks(&mut self) {
        let now = self.now.mono_ms;
        let (mut due, mut next_ms) = (Vec::new(), WHEN_TOLD);
        for (id, open) in &self.asks.open {
            match open.due_ms {
                Some(due_ms) if due_ms <= now => due.push(*id),
                Some(due_ms) => next_ms = next_ms.min(due_ms),
                None => {}
            }
        }
        self.due_at(next_ms);
        for id in due {
            self.send_ask(id);
        }
    }

    /// A node went down: what was asked of one of its shards, and of no slot, has no answer.
    pub(super) fn fail_asks_of(&mut self, node: NodeId) {
        let failed: Vec<u64> = self
            .asks
            .open
            .iter()
            .filter(|(_, open)| matches!(open.to, To::Shard(shard) if shard.node == node))
            .map(|(id, _)| *id)
            .collect();
        for id in failed {
            self.on_answer(id, Answer::Reply(Reply::Failed(Failure::NoLeader)));
        }
    }
}
