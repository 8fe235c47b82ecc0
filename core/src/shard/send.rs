//! The leader's side of a send: may it, and into which entry (protocol.md §2.7, semantics.md §4).

use std::sync::Arc;

use super::{
    Shard,
    asks::{Asker, To},
    cache::Found,
    channel::{Gated, passes_without_lists, person_peer},
    openings::{is_pair, keeps_positions},
    parcels::Parent,
    slot::{Caller, Outcome, Proposal, Sender, Waiter, command_size},
    waiting::Waiting,
};
use crate::{
    channel_info::kind,
    code::Code,
    effect::Effect,
    entry::{Command, EntryHead, NewMessage, encode_entry},
    envelope::{Answer, Ask, Envelope, Epoch, Question, SendOutcome, SendTask},
    id::{COMMAND_SUFFIX, ChannelId, SlotId},
    message::{SharedMessage, flag},
    notice::tell,
    request::Failure,
};

/// Entries of one slot that may be under way when another is full (design.md §2.3).
const FULL_PROPOSALS_MAX: usize = 4;
/// Sends that may wait for one channel to be loaded, or at its gate; more are refused (15).
const WAITING_SENDS_MAX: usize = 8_192;
/// Messages on their way to recipients of this home; with more, sends are refused (15).
const JOBS_MAX: usize = 65_536;

/// What has come from one shard for one slot.
#[derive(Debug)]
pub(crate) struct Inflow {
    epoch: Epoch,
    /// The number of the last send that was taken of this epoch.
    last: Option<u64>,
    /// Nothing is taken of epochs up to this one.
    refused: Option<Epoch>,
}

impl Inflow {
    fn refuses(&self, epoch: Epoch) -> bool {
        self.refused.is_some_and(|refused| epoch.is_until(refused))
    }
}

impl Sender {
    fn of(task: &SendTask, epoch: Epoch) -> Self {
        let SendTask { from, number, origin, .. } = task;
        Self { from: *from, number: *number, epoch, session: origin.session() }
    }
}

enum Verdict {
    Now(Code),
    Ask(Question),
}

impl Shard {
    /// A message has come to the slot of its channel.
    pub(super) fn on_send(&mut self, task: Arc<SendTask>, epoch: Epoch, after: u64) {
        let slot = task.message.channel.slot(self.settings.slot_count);
        let fresh = Inflow { epoch, last: None, refused: None };
        let inflow = self.inflows.entry((slot, task.from)).or_insert(fresh);
        if inflow.epoch != epoch {
            if epoch.is_until(inflow.epoch) {
                // Its sender has sent it again meanwhile.
                return;
            }
            *inflow = Inflow { epoch, last: None, refused: inflow.refused };
        }
        let follows = match inflow.last {
            Some(last) => after == last,
            None => after == task.number,
        };
        if !follows || inflow.refuses(epoch) {
            return self.send_again(slot, &task, epoch);
        }
        inflow.last = Some(task.number);
        self.take_send(task, epoch);
    }

    /// A send in its turn.
    pub(super) fn take_send(&mut self, task: Arc<SendTask>, epoch: Epoch) {
        let channel_id = task.message.channel.clone();
        let slot = channel_id.slot(self.settings.slot_count);
        if !self.leads(slot) {
            return self.send_again(slot, &task, epoch);
        }
        let loaded = self.channels.get(&channel_id).map(|channel| channel.gated_count());
        let waiting = loaded.unwrap_or_else(|| self.channels.waiting_count(&channel_id));
        if waiting >= WAITING_SENDS_MAX {
            self.vars.shed += 1;
            return self.send_again(slot, &task, epoch);
        }
        if loaded.is_none() {
            match self.channels.get_or_wait(&channel_id, || Waiting::Send(task.clone(), epoch)) {
                Found::Ready(_) => {}
                Found::Loading => return,
                Found::Missing => return self.load_channel(channel_id),
            }
        }
        match self.judge(&task) {
            Verdict::Now(code) => {
                let Some(channel) = self.channels.get(&channel_id) else {
                    return;
                };
                if channel.has_gated() {
                    let verdict = Some(code);
                    let gated = Gated { task, epoch, question: None, verdict, opens_sender: false };
                    channel.push_gated(gated);
                } else {
                    self.decided(&task, epoch, code, false);
                }
            }
            Verdict::Ask(question) => {
                let gate = &channel_id;
                let to = match &question {
                    Question::Person { receiver, .. } => self.slot_of(receiver),
                    Question::Member { channel, .. } | Question::Commands { base: channel, .. } => {
                        self.slot_of(&channel.id)
                    }
                };
                let asker = Asker::Gate(gate.clone());
                let id = self.ask(Ask::Question(question), To::Slot(to), asker);
                if let Some(channel) = self.channels.get(gate) {
                    let question = Some(id);
                    let gated = Gated { task, epoch, question, verdict: None, opens_sender: false };
                    channel.push_gated(gated);
                }
            }
        }
    }

    /// Decides from memory, or says what must be asked elsewhere.
    fn judge(&mut self, task: &SendTask) -> Verdict {
        let message = &task.message;
        let (channel_id, sender) = (&message.channel, &*message.from);
        let trusted = task.trusted || self.is_system(sender);
        let Some(channel) = self.channels.get(channel_id) else {
            return Verdict::Now(Code::SystemError);
        };
        let open = channel.check_open();
        if open != Code::Success {
            return Verdict::Now(open);
        }
        if message.is_stored()
            && let Some(base) = channel_id.command_base()
            && keeps_positions(base.kind)
            && !is_pair(base.kind)
        {
            let sender = message.from.clone();
            return Verdict::Ask(Question::Commands { sender, trusted, base });
        }
        if passes_without_lists(channel_id, sender, trusted) {
            return Verdict::Now(Code::Success);
        }
        if channel_id.kind == kind::PERSON {
            let base = channel_id.id.strip_suffix(COMMAND_SUFFIX).unwrap_or(&channel_id.id);
            let receiver = person_peer(base, sender);
            if self.is_system(receiver) {
                return Verdict::Now(Code::Success);
            }
            // Asked of memory first: most receivers live on this shard when there are few.
            let personal = ChannelId::new(receiver, kind::PERSON);
            if self.leads_now(personal.slot(self.settings.slot_count))
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

    /// Another slot asks whether somebody may write.
    pub(super) fn on_question(&mut self, caller: Caller, ask: &Arc<Ask>, question: &Question) {
        let channel_id = match question {
            Question::Person { receiver, .. } => ChannelId::new(receiver.clone(), kind::PERSON),
            Question::Member { channel, .. } => channel.clone(),
            Question::Commands { sender, trusted, base } => {
                return self.on_command_question(caller, ask, (sender, *trusted), base);
            }
        };
        if !self.leads_now(channel_id.slot(self.settings.slot_count)) {
            return self.answer_ask(caller, Answer::NotLeader);
        }
        let code = match self.channels.get_or_wait(&channel_id, || caller.again(ask)) {
            Found::Loading => return,
            Found::Missing => return self.load_channel(channel_id),
            Found::Ready(channel) => match question {
                Question::Person { sender, .. } => {
                    channel.check_person(sender, self.settings.person_allow_off)
                }
                Question::Member { sender, .. } | Question::Commands { sender, .. } => {
                    channel.check_member(sender)
                }
            },
        };
        self.answer_ask(caller, Answer::Code(code));
    }

    /// The answer: what stands at the gate goes on as far as it is decided, in order.
    pub(super) fn on_verdict(
        &mut self,
        id: u64,
        channel_id: &ChannelId,
        code: Code,
        opens_sender: bool,
    ) {
        let decided = match self.channels.get(channel_id) {
            Some(channel) => channel.decide_gated(id, code, opens_sender),
            None => Vec::new(),
        };
        for Gated { task, epoch, verdict, opens_sender, .. } in decided {
            let code = verdict.unwrap_or(Code::SystemError);
            self.decided(&task, epoch, code, opens_sender);
        }
    }

    /// A send is allowed or refused.
    fn decided(&mut self, task: &Arc<SendTask>, epoch: Epoch, code: Code, opens_sender: bool) {
        let slot = task.message.channel.slot(self.settings.slot_count);
        let sender = Sender::of(task, epoch);
        let refused = self.inflows.get(&(slot, task.from)).is_some_and(|i| i.refuses(epoch));
        if code == Code::SystemError || refused {
            return self.send_again(slot, task, epoch);
        }
        let message = &task.message;
        if code != Code::Success && !task.trusted && self.waits_for_systems(&message.from) {
            return self.send_again(slot, task, epoch);
        }
        if code == Code::Success && !message.is_stored() && self.is_delivering_too_much() {
            self.vars.shed += 1;
            return self.send_again(slot, task, epoch);
        }
        if code != Code::Success || !message.is_stored() {
            let done = SendOutcome::Done { message_id: message.id, seq: 0, code };
            self.answer_send(slot, sender, done);
            if code == Code::Success {
                let mut message = message.clone();
                message.timestamp = self.now.unix_ms.div_euclid(1000);
                let recipients = task.recipients.clone();
                let message: SharedMessage = message.into();
                if self.tells_of(&message.channel) & tell::OFFLINE != 0 {
                    self.tell_offline_once(slot, message.clone(), recipients.clone());
                }
                self.deliver(message, recipients, sender.session.into(), Parent::None);
            }
            return;
        }
        let opens_conversations = match (message.channel.command_base(), message.channel.kind) {
            (Some(base), _) => is_pair(base.kind) || opens_sender,
            (None, kind::PERSON) => self.settings.person_allow_off,
            (None, kind::CUSTOMER_SERVICE) => true,
            (None, _) => false,
        };
        let new = NewMessage {
            id: message.id,
            channel: (&message.channel).into(),
            from: message.from.clone(),
            client_msg_no: message.client_msg_no.clone(),
            flags: message.flags & !flag::DUP & !tell::ALL | self.tells_of(&message.channel),
            setting: message.setting,
            expire: message.expire,
            topic: message.topic.clone(),
            stream_no: message.stream_no.clone(),
            shown: message.shown.clone(),
            opens_conversations,
            payload: message.payload.clone(),
        };
        let command = match &task.recipients {
            Some(recipients) => {
                let recipients = recipients.clone();
                Command::MessageTo { message: Box::new(new), recipients }
            }
            None => Command::Message(new),
        };
        if self.offer(slot, vec![(command, Waiter::Send(sender))]).is_err() {
            self.send_again(slot, task, epoch);
        }
    }

    fn send_again(&mut self, slot: SlotId, task: &SendTask, epoch: Epoch) {
        self.answer_send(slot, Sender::of(task, epoch), SendOutcome::Again);
    }

    /// Tells a sender. After a refusal nothing more of its epoch is taken.
    pub(super) fn answer_send(&mut self, slot: SlotId, sender: Sender, outcome: SendOutcome) {
        let Sender { from, number, epoch, .. } = sender;
        if outcome == SendOutcome::Again
            && let Some(inflow) = self.inflows.get_mut(&(slot, from))
            && !inflow.refuses(epoch)
        {
            inflow.refused = Some(epoch);
            self.tell_leader(slot, from);
        }
        self.send_to(from, Envelope::Sent { slot, number, epoch, outcome });
    }

    fn is_delivering_too_much(&self) -> bool {
        self.jobs.len() + self.parcels.moving_count() > JOBS_MAX
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
        let delivers_too_much = self.is_delivering_too_much();
        let Some(state) = self.slots.get_mut(&slot).filter(|state| state.leading) else {
            return Err(last_waiter(commands));
        };
        let size: usize = commands.iter().map(|(command, _)| command_size(command)).sum();
        let full = state.accumulated_size + size > size_max && state.accumulated_size > 0;
        if full || store_is_behind || delivers_too_much {
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
        let has_peers = self.has_peers();
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
        if has_peers && let Some(index) = state.undelivered.news(state.applied) {
            batch.commands.push(Command::Delivered { index });
            batch.waiters.push(Waiter::Nobody);
        }
        if let Some(command) = state.notices.take_done() {
            batch.commands.push(command);
            batch.waiters.push(Waiter::Nobody);
        }
        for (target, index) in std::mem::take(&mut state.taken) {
            batch.commands.push(Command::OutboxDone { target: target.0, index });
            batch.waiters.push(Waiter::Nobody);
        }
        state.next_proposal += 1;
        let number = state.next_proposal;
        let head = EntryHead {
            proposer: self.proposer,
            proposal: number,
            time_ms: self.now.unix_ms,
            window: self.settings.dedupe_window,
        };
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
                    self.answer(slot, waiter, Outcome::Failed(Failure::Storage));
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
            self.answer(slot, waiter, Outcome::Failed(Failure::NoLeader));
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
        state.lease_ms = 0;
        state.sending.clear();
        state.taken.clear();
        state.early.clear();
        state.accumulated_size = 0;
        state.notices.end_feed();
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
        for Gated { task, epoch, .. } in gated {
            self.send_again(slot, &task, epoch);
        }
        for waiter in waiters {
            self.answer(slot, waiter, Outcome::Failed(Failure::NoLeader));
        }
        for (waiter, outcome) in held.into_values().flat_map(|held| held.answers) {
            self.answer(slot, waiter, outcome);
        }
        self.close_home(slot);
    }

    /// Tells whoever waits for a command what became of it.
    pub(super) fn answer(&mut self, slot: SlotId, waiter: Waiter, outcome: Outcome) {
        match (waiter, outcome) {
            (Waiter::Nobody, _) => {}
            (Waiter::Send(sender), Outcome::Sent { message_id, seq }) => {
                let done = SendOutcome::Done { message_id, seq, code: Code::Success };
                self.answer_send(slot, sender, done);
            }
            (
                Waiter::Send(sender),
                Outcome::Done | Outcome::Replied(_) | Outcome::Failed(Failure::Storage),
            ) => {
                let code = Code::SystemError;
                self.answer_send(slot, sender, SendOutcome::Done { message_id: 0, seq: 0, code });
            }
            (Waiter::Send(sender), Outcome::Failed(_)) => {
                self.answer_send(slot, sender, SendOutcome::Again);
            }
            (Waiter::Api(caller), outcome) => self.reply(caller, outcome.into_reply()),
            (Waiter::Token { caller, uid, device_flag, kick }, outcome) => {
                if let (Outcome::Done, Some(text)) = (&outcome, kick) {
                    self.kick_device(&uid, device_flag, &text);
                }
                if let Some(caller) = caller {
                    self.reply(caller, outcome.into_reply());
                }
            }
            (
                Waiter::Outbox { source, target, index },
                Outcome::Done | Outcome::Sent { .. } | Outcome::Replied(_),
            ) => {
                self.outbox_committed(source, target, index);
            }
            (Waiter::Openings { base, uids }, outcome) => {
                let is_done = matches!(outcome, Outcome::Done | Outcome::Sent { .. });
                self.rows_opened(&base, &uids, is_done);
            }
            // The source sends the row again.
            (Waiter::Outbox { .. }, Outcome::Failed(_)) => {}
        }
    }
}

fn last_waiter(commands: Vec<(Command, Waiter)>) -> Waiter {
    commands.into_iter().next_back().map_or(Waiter::Nobody, |(_, waiter)| waiter)
}
