//! The leader's side of a send: may it, and into which entry (protocol.md §2.7, semantics.md §4).

use super::{
    Shard,
    cache::Found,
    channel::{Gated, passes_without_lists, person_peer},
    slot::{Outcome, Proposal, Waiter, command_size},
    waiting::Waiting,
};
use crate::{
    channel_info::kind,
    code::Code,
    effect::Effect,
    entry::{Command, EntryHead, NewMessage, encode_entry},
    envelope::{Envelope, Origin, Question, SendTask},
    id::{COMMAND_SUFFIX, ChannelId, SYSTEM_UID, ShardId, SlotId},
    message::flag,
    request::{Failure, Reply},
};

/// Entries of one slot that may be under way when another is full (design.md §2.3).
const FULL_PROPOSALS_MAX: usize = 4;
/// Sends that may wait for one channel to be loaded, or at its gate; more are refused (15).
const WAITING_SENDS_MAX: usize = 8_192;
/// Messages on their way to recipients of this home; with more, sends are refused (15).
const JOBS_MAX: usize = 65_536;

enum Verdict {
    Now(Code),
    Ask(Question),
}

impl Shard {
    /// A message has come to the slot of its channel.
    pub(super) fn on_send(&mut self, task: Box<SendTask>) {
        let channel_id = task.message.channel.clone();
        let slot = channel_id.slot(self.settings.slot_count);
        if !self.leads(slot) || self.draining {
            self.refuse_send(&task, Code::SystemError);
            return;
        }
        let gated = self.channels.get(&channel_id).map_or(0, |channel| channel.gated_count());
        if gated.max(self.channels.waiting_count(&channel_id)) >= WAITING_SENDS_MAX {
            self.vars.shed += 1;
            return self.refuse_send(&task, Code::SystemError);
        }
        let mut task = Some(task);
        let waiter = || {
            let envelope = task.take().map(Envelope::Send);
            envelope.map_or(Waiting::Apply(slot), |e| Waiting::Envelope(Box::new(e)))
        };
        match self.channels.get_or_wait(&channel_id, waiter) {
            Found::Ready(_) => {}
            Found::Loading => return,
            Found::Missing => return self.load_channel(channel_id),
        }
        let Some(task) = task else { return };
        match self.judge(&task) {
            Verdict::Now(code) => {
                let Some(channel) = self.channels.get(&channel_id) else {
                    return;
                };
                if channel.has_gated() {
                    channel.push_gated(Gated { task, question: None, verdict: Some(code) });
                } else {
                    self.decided(task, code);
                }
            }
            Verdict::Ask(question) => self.ask(&channel_id, task, question),
        }
    }

    /// Decides from memory, or says what must be asked elsewhere.
    fn judge(&mut self, task: &SendTask) -> Verdict {
        let message = &task.message;
        let (channel_id, sender) = (&message.channel, &*message.from);
        let Some(channel) = self.channels.get(channel_id) else {
            return Verdict::Now(Code::SystemError);
        };
        let open = channel.check_open();
        if open != Code::Success {
            return Verdict::Now(open);
        }
        if passes_without_lists(channel_id, sender, task.trusted) {
            return Verdict::Now(Code::Success);
        }
        if channel_id.kind == kind::PERSON {
            let base = channel_id.id.strip_suffix(COMMAND_SUFFIX).unwrap_or(&channel_id.id);
            let receiver = person_peer(base, sender);
            if receiver == SYSTEM_UID {
                return Verdict::Now(Code::Success);
            }
            // Asked of memory first: most receivers live on this shard when there are few.
            let personal = ChannelId::new(receiver, kind::PERSON);
            if self.leads(personal.slot(self.settings.slot_count))
                && let Some(personal) = self.channels.get(&personal)
            {
                return Verdict::Now(personal.check_person(sender, self.settings.person_allow_off));
            }
            return Verdict::Ask(Question::Person {
                sender: message.from.clone(),
                receiver: personal.id,
            });
        }
        match channel_id.command_base() {
            Some(base) if passes_without_lists(&base, sender, false) => Verdict::Now(Code::Success),
            Some(base) => {
                Verdict::Ask(Question::Member { sender: message.from.clone(), channel: base })
            }
            None => Verdict::Now(channel.check_member(sender)),
        }
    }

    fn ask(&mut self, channel_id: &ChannelId, task: Box<SendTask>, question: Question) {
        self.next_question += 1;
        let id = self.next_question;
        let to = match &question {
            Question::Person { receiver, .. } => self.shard_of(receiver),
            Question::Member { channel, .. } => self.shard_of(&channel.id),
        };
        let Some(channel) = self.channels.get(channel_id) else {
            return;
        };
        channel.push_gated(Gated { task, question: Some(id), verdict: None });
        self.questions.insert(id, channel_id.clone());
        let from = self.id;
        self.send(to, Envelope::Ask { from, id, question });
    }

    /// Another slot asks whether somebody may write.
    pub(super) fn on_ask(&mut self, from: ShardId, id: u64, question: Question) {
        let channel_id = match &question {
            Question::Person { receiver, .. } => ChannelId::new(receiver.clone(), kind::PERSON),
            Question::Member { channel, .. } => channel.clone(),
        };
        let slot = channel_id.slot(self.settings.slot_count);
        if !self.leads(slot) {
            self.send(from, Envelope::Answer { id, code: Code::SystemError });
            return;
        }
        let again = || Envelope::Ask { from, id, question: question.clone() };
        let code =
            match self.channels.get_or_wait(&channel_id, || Waiting::Envelope(Box::new(again()))) {
                Found::Loading => return,
                Found::Missing => return self.load_channel(channel_id),
                Found::Ready(channel) => match &question {
                    Question::Person { sender, .. } => {
                        channel.check_person(sender, self.settings.person_allow_off)
                    }
                    Question::Member { sender, .. } => channel.check_member(sender),
                },
            };
        self.send(from, Envelope::Answer { id, code });
    }

    /// The answer: what stands at the gate goes on as far as it is decided, in order.
    pub(super) fn on_answer(&mut self, id: u64, code: Code) {
        let Some(channel_id) = self.questions.swap_remove(&id) else {
            return;
        };
        let decided = match self.channels.get(&channel_id) {
            Some(channel) => channel.decide_gated(id, code),
            None => Vec::new(),
        };
        for gated in decided {
            self.decided(gated.task, gated.verdict.unwrap_or(Code::SystemError));
        }
    }

    /// A send is allowed or refused.
    fn decided(&mut self, task: Box<SendTask>, code: Code) {
        if code != Code::Success {
            self.refuse_send(&task, code);
            return;
        }
        let SendTask { mut message, recipients, origin, .. } = *task;
        if !message.is_stored() {
            message.timestamp = self.now.unix_ms.div_euclid(1000);
            let id = message.id;
            self.answer_send(origin, id, 0, Code::Success);
            let except = match origin {
                Origin::Session { conn, .. } => Some(conn),
                Origin::Api { .. } => None,
            };
            self.deliver(message.into(), recipients, except);
            return;
        }
        let slot = message.channel.slot(self.settings.slot_count);
        let opens_conversations = message.channel.command_base().is_none()
            && match message.channel.kind {
                kind::PERSON => self.settings.person_allow_off,
                kind::CUSTOMER_SERVICE => true,
                _ => false,
            };
        let command = Command::Message(NewMessage {
            id: message.id,
            channel: (&message.channel).into(),
            from: message.from,
            client_msg_no: message.client_msg_no,
            flags: message.flags & !flag::DUP,
            setting: message.setting,
            expire: message.expire,
            topic: message.topic,
            stream_no: message.stream_no,
            shown: message.shown,
            opens_conversations,
            payload: message.payload,
        });
        let waiter = Waiter::Send { origin, recipients };
        if let Err(Waiter::Send { origin, .. }) = self.offer(slot, vec![(command, waiter)]) {
            self.answer_send(origin, message.id, 0, Code::SystemError);
        }
    }

    fn refuse_send(&mut self, task: &SendTask, code: Code) {
        self.answer_send(task.origin, task.message.id, 0, code);
    }

    pub(super) fn answer_send(&mut self, origin: Origin, message_id: i64, seq: u64, code: Code) {
        match origin {
            Origin::Session { conn, .. } => {
                self.send(conn.shard(), Envelope::Sent { origin, message_id, seq, code });
            }
            Origin::Api { shard, token } => {
                self.reply(shard, token, Reply::Sent { message_id, seq, code });
            }
        }
    }

    /// Puts commands into the slot's accumulator; all or, when it is full or does not lead, none:
    /// then the last waiter comes back.
    pub(super) fn offer(
        &mut self,
        slot: SlotId,
        commands: Vec<(Command, Waiter)>,
    ) -> Result<(), Waiter> {
        let size_max = self.settings.accumulator_size_max;
        let store_is_behind = self.state_queue_size > self.settings.state_queue_size_max;
        let Some(state) = self.slots.get_mut(&slot).filter(|state| state.leading) else {
            return Err(last_waiter(commands));
        };
        let size: usize = commands.iter().map(|(command, _)| command_size(command)).sum();
        let full = state.accumulated_size + size > size_max && state.accumulated_size > 0;
        if full || store_is_behind || self.jobs.len() > JOBS_MAX {
            self.vars.shed += 1;
            return Err(last_waiter(commands));
        }
        state.accumulated_size += size;
        for (command, waiter) in commands {
            state.accumulator.commands.push(command);
            state.accumulator.waiters.push(waiter);
        }
        self.mark_dirty(slot);
        Ok(())
    }

    /// Ends a step: accumulators whose slot has no entry under way, or that are full, become
    /// entries.
    pub(super) fn flush_slots(&mut self) {
        for slot in std::mem::take(&mut self.dirty) {
            self.flush_slot(slot);
        }
    }

    fn flush_slot(&mut self, slot: SlotId) {
        let Some(state) = self.slots.get_mut(&slot) else {
            return;
        };
        if state.accumulator.commands.is_empty() || !state.leading {
            return;
        }
        let full = state.accumulated_size >= self.settings.entry_size_target;
        let under_way = state.proposals.len();
        if under_way > 0 && !(full && under_way < FULL_PROPOSALS_MAX) {
            return;
        }
        let mut batch = std::mem::take(&mut state.accumulator);
        state.accumulated_size = 0;
        for (target, index) in std::mem::take(&mut state.taken) {
            batch.commands.push(Command::OutboxDone { target: target.0, index });
            batch.waiters.push(Waiter::Nobody);
        }
        state.next_proposal += 1;
        let number = state.next_proposal;
        let head =
            EntryHead { proposer: self.proposer, proposal: number, time_ms: self.now.unix_ms };
        match encode_entry(head, &batch.commands) {
            Ok(entry) => {
                self.vars.proposals += 1;
                let deadline_ms = self.now.mono_ms + self.settings.request_ms;
                state.proposals.push_back(Proposal { number, batch, deadline_ms });
                self.out.effects.push(Effect::Propose { slot, proposal: number, entry });
            }
            Err(error) => {
                self.warn(format!("{slot}: an entry cannot be encoded: {error}"));
                for waiter in batch.waiters {
                    self.answer(waiter, Outcome::Failed(Failure::Storage));
                }
            }
        }
    }

    /// A proposal failed, or nobody knows: its callers are told, once.
    pub(super) fn on_propose_failed(&mut self, slot: SlotId, proposal: u64) {
        let Some(state) = self.slots.get_mut(&slot) else {
            return;
        };
        let Some(at) = state.proposals.iter().position(|p| p.number == proposal) else {
            return;
        };
        let Some(proposal) = state.proposals.remove(at) else {
            return;
        };
        self.vars.proposals_failed += 1;
        for waiter in proposal.batch.waiters {
            self.answer(waiter, Outcome::Failed(Failure::NoLeader));
        }
        self.mark_dirty(slot);
    }

    /// This shard does not lead the slot any more: whoever waits is told, and may try again. What
    /// is committed already is answered as such; proposals under way are unknown.
    pub(super) fn resign(&mut self, slot: SlotId) {
        let Some(state) = self.slots.get_mut(&slot) else {
            return;
        };
        state.leading = false;
        state.sending.clear();
        state.taken.clear();
        state.accumulated_size = 0;
        let mut waiters = std::mem::take(&mut state.accumulator).waiters;
        for proposal in &mut state.proposals {
            waiters.append(&mut proposal.batch.waiters);
        }
        let held = std::mem::take(&mut state.held);
        let slot_count = self.settings.slot_count;
        let channels = self.channels.loaded_mut();
        let gated: Vec<Gated> = channels
            .filter(|(id, channel)| channel.has_gated() && id.slot(slot_count) == slot)
            .flat_map(|(_, channel)| channel.take_gated())
            .collect();
        for Gated { task, .. } in gated {
            self.refuse_send(&task, Code::SystemError);
        }
        for waiter in waiters {
            self.answer(waiter, Outcome::Failed(Failure::NoLeader));
        }
        for (waiter, outcome) in held.into_values().flat_map(|held| held.answers) {
            self.answer(waiter, outcome);
        }
    }

    /// Tells whoever waits for a command what became of it.
    pub(super) fn answer(&mut self, waiter: Waiter, outcome: Outcome) {
        match (waiter, outcome) {
            (Waiter::Nobody, _) => {}
            (Waiter::Send { origin, .. }, Outcome::Sent { message_id, seq }) => {
                self.answer_send(origin, message_id, seq, Code::Success);
            }
            (
                Waiter::Send { origin: Origin::Api { shard, token }, .. },
                Outcome::Failed(failure),
            ) => {
                self.reply(shard, token, Reply::Failed(failure));
            }
            (Waiter::Send { origin, .. }, Outcome::Done | Outcome::Failed(_)) => {
                self.answer_send(origin, 0, 0, Code::SystemError);
            }
            (Waiter::Api { shard, token }, outcome) => {
                self.reply(shard, token, outcome.into_reply());
            }
            (Waiter::Token { caller, uid, device_flag, kick }, outcome) => {
                if let (Outcome::Done, Some(text)) = (&outcome, kick) {
                    self.kick_device(&uid, device_flag, &text);
                }
                if let Some((shard, token)) = caller {
                    self.reply(shard, token, outcome.into_reply());
                }
            }
            (Waiter::Outbox { source, target, index }, Outcome::Done | Outcome::Sent { .. }) => {
                self.outbox_committed(source, target, index);
            }
            // The source sends the row again.
            (Waiter::Outbox { .. }, Outcome::Failed(_)) => {}
        }
    }
}

fn last_waiter(commands: Vec<(Command, Waiter)>) -> Waiter {
    commands.into_iter().next_back().map_or(Waiter::Nobody, |(_, waiter)| waiter)
}
