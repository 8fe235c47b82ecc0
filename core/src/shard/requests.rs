//! What the HTTP API asks (see [`crate::request`]).

use std::sync::Arc;

use super::{
    CLUSTER_SLOT, Shard,
    asks::{Asker, To},
    cache::Found,
    channel::Channel,
    home::Presence,
    slot::{Caller, Waiter},
    tail::{Tail, Window},
    user::User,
    waiting::Purpose,
};
use crate::{
    channel_info::{List, ListChange, kind},
    code::Code,
    effect::Effect,
    entry::{COMMAND_SIZE_MAX, Command, ConversationAction, ConversationChange},
    envelope::{Answer, Ask, Envelope, Origin},
    id::{ChannelId, Name, ShardAddr, SlotId},
    message::{Message, SharedMessage},
    request::{ApiSend, ClusterWrite, Failure, OnlineItem, Reply, Request, RequestToken, Target},
    row::Read,
};

/// What the client of a kicked device is told (protocol.md §2.5).
const LOGGED_IN_ELSEWHERE: &str = "账号在其他设备上登录";

/// Bytes of content in one answer to another node: what a link takes, with room for the rest.
const ANSWER_SIZE_MAX: usize = 8 << 20;

impl Shard {
    /// A request of this shard's API.
    pub(super) fn on_request(&mut self, token: RequestToken, to: Target, request: Request) {
        self.open_requests.insert(token);
        if self.asks.is_full() {
            self.vars.shed += 1;
            return self.give_reply(token, Reply::Failed(Failure::Busy));
        }
        if request.size() > COMMAND_SIZE_MAX {
            return self.give_reply(token, Reply::Failed(Failure::TooLarge));
        }
        if let Request::Send(send) = request {
            return self.send_for(token, *send);
        }
        let to = match to {
            Target::Id(id) => To::Slot(self.slot_of(&id)),
            Target::Slot(slot) => To::Slot(slot),
            Target::Shard(shard) => To::Shard(ShardAddr { node: self.settings.node, shard }),
            Target::Node(node, shard) => To::Shard(ShardAddr { node, shard }),
        };
        if let To::Shard(shard) = to
            && !self.is_up(shard.node)
        {
            return self.give_reply(token, Reply::Failed(Failure::NoLeader));
        }
        self.ask(Ask::Request(request), to, Asker::Api(token));
    }

    /// Answers whoever asked, wherever it waits.
    pub(super) fn reply(&mut self, caller: Caller, reply: Reply) {
        self.answer_ask(caller, Answer::Reply(reply));
    }

    pub(super) fn answer_ask(&mut self, caller: Caller, answer: Answer) {
        let (id, answer) = (caller.id, Box::new(answer));
        self.send_to(caller.from, Envelope::Answer { id, answer });
    }

    /// An answer for a caller of this shard. A late one finds nobody.
    pub(super) fn give_reply(&mut self, token: RequestToken, reply: Reply) {
        if self.open_requests.swap_remove(&token) {
            self.out.effects.push(Effect::Reply { token, reply });
        }
    }

    /// Messages for a caller; on another node no more than a link takes.
    pub(super) fn reply_messages(
        &mut self,
        caller: Caller,
        mut messages: Vec<SharedMessage>,
        from_start: bool,
    ) {
        let mut size: usize = messages.iter().map(|m| m.payload.len()).sum();
        if caller.from.node != self.settings.node && size > ANSWER_SIZE_MAX {
            while size > ANSWER_SIZE_MAX && messages.len() > 1 {
                let cut = if from_start { messages.pop() } else { Some(messages.remove(0)) };
                size -= cut.map_or(0, |m| m.payload.len());
            }
        }
        self.reply(caller, Reply::Messages(messages));
    }

    /// Messages from memory, or else from the store.
    fn read_messages(&mut self, caller: Caller, slot: SlotId, channel: ChannelId, window: Window) {
        let Window { first, last, count_max, from_start } = window;
        let mut tail_of = None;
        if let Some(known) = self.channels.get(&channel) {
            let found = match (window.ends(known.last_seq), &known.tail) {
                (None, _) => Some(Vec::new()),
                (Some(ends), Some(tail)) => tail.range(ends),
                (Some(_), None) => None,
            };
            if let Some(messages) = found {
                return self.reply_messages(caller, messages, from_start);
            }
            let ends = window.ends(known.last_seq);
            tail_of = ends.filter(|(_, high)| *high == known.last_seq).map(|_| channel.clone());
        }
        let read = Read::Messages { channel, first, last, count_max, from_start };
        self.read(slot, read, Purpose::Messages(caller, from_start, tail_of));
    }

    /// What was read up to a channel's last message is kept, if it still is the last.
    pub(super) fn keep_tail(&mut self, channel: &ChannelId, messages: &[SharedMessage]) {
        if let Some(known) = self.channels.get(channel)
            && messages.last().is_some_and(|newest| newest.seq == known.last_seq)
        {
            known.tail = Some(Box::new(Tail::of(messages)));
            self.channels.resize(channel, Channel::size);
        }
    }

    /// Single messages for a caller; on another node no more than a link takes, but the first.
    pub(super) fn reply_found(&mut self, caller: Caller, mut found: Vec<Option<SharedMessage>>) {
        if caller.from.node != self.settings.node {
            let mut size = 0;
            let beyond = found.iter().flatten().position(|message| {
                size += message.payload.len();
                size > ANSWER_SIZE_MAX
            });
            if let Some(beyond) = beyond {
                let mut seen = 0;
                let place = found.iter().position(|message| {
                    seen += usize::from(message.is_some());
                    seen > beyond.max(1)
                });
                found.truncate(place.unwrap_or(found.len()));
            }
        }
        self.reply(caller, Reply::Found(found));
    }

    /// Something is asked of this shard.
    pub(super) fn on_ask(&mut self, from: ShardAddr, id: u64, ask: Arc<Ask>) {
        let caller = Caller { from, id };
        match &*ask {
            Ask::Login(login) => self.on_login(caller, &ask, login),
            Ask::Question(question) => self.on_question(caller, &ask, question),
            Ask::Absent { uids } => self.on_ask_absent(caller, uids),
            Ask::Recipients { channel } => self.on_ask_recipients(caller, &ask, channel),
            Ask::Request(request) => self.on_shard_request(caller, &ask, request.clone()),
        }
    }

    fn on_shard_request(&mut self, caller: Caller, ask: &Arc<Ask>, request: Request) {
        match request {
            Request::WriteChannel { channel, info, reset, members } => {
                let list = List::Members;
                let mut commands = vec![Command::SetInfo { channel: (&channel).into(), info }];
                if reset {
                    let change = ListChange::Clear;
                    let uids = Vec::new();
                    let channel = (&channel).into();
                    commands.push(Command::ChangeList { channel, list, change, uids });
                }
                if !members.is_empty() {
                    let change = ListChange::Add;
                    let channel = (&channel).into();
                    commands.push(Command::ChangeList { channel, list, change, uids: members });
                }
                self.propose_for(caller, &channel.id, commands);
            }
            Request::Disband { channel } => {
                let command = Command::Disband { channel: (&channel).into() };
                self.propose_for(caller, &channel.id, vec![command]);
            }
            Request::ChangeList { channel, list, change, uids } => {
                let id = channel.id.clone();
                let channel = (&channel).into();
                let command = Command::ChangeList { channel, list, change, uids };
                self.propose_for(caller, &id, vec![command]);
            }
            Request::ReadList { channel, list } => {
                let reply = |c: &Channel| {
                    let list = c.list(list).into_iter().flatten();
                    Reply::List(list.map(|(uid, ms)| (uid.clone(), *ms)).collect())
                };
                self.answer_from_channel(caller, ask, channel, reply);
            }
            Request::ReadRecipients { channel } => {
                let reply = |c: &Channel| {
                    Reply::List(c.recipients().into_iter().map(|uid| (uid, 0)).collect())
                };
                self.answer_from_channel(caller, ask, channel, reply);
            }
            Request::ReadInfo { channel } => {
                self.answer_from_channel(caller, ask, channel, |c| Reply::Info(c.info));
            }
            Request::LastSeq { channel } => {
                self.answer_from_channel(caller, ask, channel, |c| Reply::LastSeq(c.last_seq));
            }
            // The shard that is asked by the API keeps it as a send.
            Request::Send(_) => self.reply(caller, Reply::Failed(Failure::Busy)),
            Request::Messages { channel, first, last, count_max, from_start } => {
                let slot = channel.slot(self.settings.slot_count);
                if self.reads_or_fails(caller, slot) {
                    let window = Window { first, last, count_max, from_start };
                    self.read_messages(caller, slot, channel, window);
                }
            }
            Request::Find { channel, sought } => {
                let slot = channel.slot(self.settings.slot_count);
                if self.reads_or_fails(caller, slot) {
                    self.read(slot, Read::Find { channel, sought }, Purpose::Api(caller));
                }
            }
            Request::CommandConversations { uid } => {
                let reply = |user: &mut User| Reply::Conversations(user.command_conversations());
                self.answer_from_user(caller, ask, uid, reply);
            }
            Request::HandOut { uid, positions } => {
                let id = uid.clone();
                let positions = positions.iter().map(|(channel, seq)| (channel.into(), *seq));
                let positions = positions.collect();
                self.propose_for(caller, &id, vec![Command::HandOut { uid, positions }]);
            }
            Request::TakeHanded { uid } => self.acknowledge_handed(caller, ask, uid),
            Request::AckCommand { uid, channel, seq } => {
                self.acknowledge_command(caller, ask, uid, (channel, seq));
            }
            Request::Digests { uid, items } => {
                let Some(first) = items.first() else {
                    return self.reply(caller, Reply::Digests(Vec::new()));
                };
                let slot = first.channel.slot(self.settings.slot_count);
                if self.reads_or_fails(caller, slot) {
                    self.read(slot, Read::Digests { uid, items }, Purpose::Api(caller));
                }
            }
            Request::SetToken { uid, device_flag, device_level, token: secret } => {
                self.set_token(caller, ask, uid, device_flag, device_level, secret);
            }
            Request::QuitDevices { uid, device_flags } => {
                self.quit_devices(caller, ask, uid, device_flags);
            }
            Request::Online { uids } => {
                let mut items = Vec::new();
                for uid in uids {
                    let Some(sessions) = self.sessions_of(&uid) else {
                        return self.reply(caller, Reply::Failed(Failure::NoLeader));
                    };
                    for Presence { device_flag, .. } in sessions {
                        items.push(OnlineItem { uid: uid.clone(), device_flag: *device_flag });
                    }
                }
                self.reply(caller, Reply::Online(items));
            }
            Request::ReadTo { uid, channel, seq } => {
                let action = ConversationAction::ReadTo { read_to: seq };
                self.change_conversation(caller, uid, &channel, action);
            }
            Request::DeleteConversation { uid, channel, seq } => {
                let action = ConversationAction::DeleteTo { seq };
                self.change_conversation(caller, uid, &channel, action);
            }
            Request::Conversations { uid } => {
                let reply = |user: &mut User| Reply::Conversations(user.conversations());
                self.answer_from_user(caller, ask, uid, reply);
            }
            Request::Connections => {
                let list = self.connection_infos();
                self.reply(caller, Reply::Connections(list));
            }
            Request::EndConnection { uid, conn, kick } => {
                self.end_connection(&uid, conn, kick);
                self.reply(caller, Reply::Done);
            }
            Request::Vars => {
                let vars = Box::new(self.vars());
                self.reply(caller, Reply::Vars(vars));
            }
            Request::ChangeSystems { add, uids } => self.change_systems(caller, add, uids),
            Request::StreamEvent(event) => self.on_stream_event(caller, ask, event),
            Request::ClaimStream(claim) => self.on_claim(caller, claim),
            Request::ReadClaim { client_msg_no } => self.read_claim(caller, ask, client_msg_no),
            Request::Streams { streams } => self.read_streams(caller, streams),
            Request::Scan(scan) => {
                let slot = scan.slot;
                if self.reads_or_fails(caller, slot) {
                    self.read(slot, Read::Scan(scan), Purpose::Api(caller));
                }
            }
            Request::Import(import) => {
                let id = import.id().clone();
                self.propose_for(caller, &id, vec![Command::Import(import)]);
            }
            Request::WriteClusterKeys { entries } => self.write_cluster_keys(caller, entries),
            Request::ReadClusterKeys { prefix } => {
                if self.reads_or_fails(caller, CLUSTER_SLOT)
                    && let Some(state) = self.slots.get(&CLUSTER_SLOT)
                {
                    let keys = state.cluster.range(prefix.clone()..);
                    let keys = keys.take_while(|(key, _)| key.starts_with(&prefix));
                    let keys = keys.map(|(key, value)| (key.clone(), value.clone())).collect();
                    self.reply(caller, Reply::ClusterKeys(keys));
                }
            }
        }
    }

    pub(super) fn leads_or_fails(&mut self, caller: Caller, slot: SlotId) -> bool {
        let leads = self.leads(slot);
        if !leads {
            self.not_leader(caller, slot);
        }
        leads
    }

    /// Whether what is in memory is the newest there is (G7).
    pub(super) fn reads_or_fails(&mut self, caller: Caller, slot: SlotId) -> bool {
        let leads = self.leads_now(slot);
        if !leads {
            self.not_leader(caller, slot);
        }
        leads
    }

    fn not_leader(&mut self, caller: Caller, slot: SlotId) {
        self.tell_leader(slot, caller.from);
        self.reply(caller, Reply::Failed(Failure::NoLeader));
    }

    fn write_cluster_keys(&mut self, caller: Caller, entries: Vec<ClusterWrite>) {
        let commands: Vec<Command> = entries
            .into_iter()
            .map(|ClusterWrite { key, value, if_absent }| {
                if if_absent {
                    Command::SetClusterKey { key, value }
                } else {
                    Command::WriteClusterKey { key, value }
                }
            })
            .collect();
        if commands.is_empty() {
            return self.reply(caller, Reply::Done);
        }
        self.propose_at(caller, CLUSTER_SLOT, commands);
    }

    /// Proposes commands of one caller; the last one's outcome is the answer.
    pub(super) fn propose_for(&mut self, caller: Caller, id: &str, commands: Vec<Command>) {
        self.propose_at(caller, self.slot_of(id), commands);
    }

    pub(super) fn propose_at(&mut self, caller: Caller, slot: SlotId, mut commands: Vec<Command>) {
        let Some(last) = commands.pop() else { return };
        if !self.leads_or_fails(caller, slot) {
            return;
        }
        let waiter = Waiter::Api(caller);
        let mut offered: Vec<(Command, Waiter)> =
            commands.into_iter().map(|command| (command, Waiter::Nobody)).collect();
        offered.push((last, waiter));
        if self.offer(slot, offered).is_err() {
            self.reply(caller, Reply::Failed(Failure::Busy));
        }
    }

    fn change_conversation(
        &mut self,
        caller: Caller,
        uid: Name,
        channel: &ChannelId,
        action: ConversationAction,
    ) {
        let id = uid.clone();
        let change = ConversationChange { uid, channel: channel.into(), action };
        self.propose_for(caller, &id, vec![Command::Conversation(change)]);
    }

    fn answer_from_channel(
        &mut self,
        caller: Caller,
        ask: &Arc<Ask>,
        channel: ChannelId,
        reply: impl FnOnce(&Channel) -> Reply,
    ) {
        if !self.reads_or_fails(caller, channel.slot(self.settings.slot_count)) {
            return;
        }
        let reply = match self.channels.get_or_wait(&channel, || caller.again(ask)) {
            Found::Ready(channel) => reply(channel),
            Found::Loading => return,
            Found::Missing => return self.load_channel(channel),
        };
        self.reply(caller, reply);
    }

    fn answer_from_user(
        &mut self,
        caller: Caller,
        ask: &Arc<Ask>,
        uid: Name,
        reply: impl FnOnce(&mut User) -> Reply,
    ) {
        if !self.reads_or_fails(caller, self.slot_of(&uid)) {
            return;
        }
        let reply = match self.users.get_or_wait(&uid, || caller.again(ask)) {
            Found::Ready(user) => reply(user),
            Found::Loading => return,
            Found::Missing => return self.load_user(uid),
        };
        self.reply(caller, reply);
    }

    /// The message id is drawn here, so that a send that goes out again is the same message.
    fn send_for(&mut self, token: RequestToken, send: ApiSend) {
        let message = Message {
            id: self.ids.next(self.now.unix_ms),
            seq: 0,
            channel: send.channel,
            from: send.from,
            client_msg_no: send.client_msg_no,
            flags: send.flags,
            setting: send.setting,
            expire: send.expire,
            timestamp: 0,
            topic: self.empty.clone(),
            stream_no: self.empty.clone(),
            shown: send.shown,
            payload: send.payload,
        };
        self.keep_send(message, send.recipients, true, Origin::Api { token });
    }

    fn set_token(
        &mut self,
        caller: Caller,
        ask: &Arc<Ask>,
        uid: Name,
        flag: u8,
        level: u8,
        token: String,
    ) {
        let slot = self.slot_of(&uid);
        if !self.reads_or_fails(caller, slot) {
            return;
        }
        let personal = ChannelId::new(uid.clone(), kind::PERSON);
        let info = match self.channels.get_or_wait(&personal, || caller.again(ask)) {
            Found::Ready(channel) => channel.info(),
            Found::Loading => return,
            Found::Missing => return self.load_channel(personal),
        };
        let refusal = match info {
            info if info.ban => Some(Code::Ban),
            info if info.disband => Some(Code::Disband),
            _ => None,
        };
        if let Some(code) = refusal {
            return self.reply(caller, Reply::Refused(code));
        }
        let command = Command::SetToken {
            uid: uid.clone(),
            device_flag: flag,
            device_level: level,
            token,
            only_existing: false,
        };
        let waiter = Waiter::Token {
            caller: Some(caller),
            uid,
            device_flag: flag,
            kick: (level == 1).then(|| LOGGED_IN_ELSEWHERE.into()),
        };
        if self.offer(slot, vec![(command, waiter)]).is_err() {
            self.reply(caller, Reply::Failed(Failure::Busy));
        }
    }

    fn quit_devices(&mut self, caller: Caller, ask: &Arc<Ask>, uid: Name, flags: Vec<u8>) {
        let slot = self.slot_of(&uid);
        if !self.reads_or_fails(caller, slot) {
            return;
        }
        let registered: Vec<u8> = match self.users.get_or_wait(&uid, || caller.again(ask)) {
            Found::Ready(user) => {
                flags.into_iter().filter(|flag| user.device(*flag).is_some()).collect()
            }
            Found::Loading => return,
            Found::Missing => return self.load_user(uid),
        };
        let count = registered.len();
        let commands: Vec<(Command, Waiter)> = (1..)
            .zip(registered)
            .map(|(place, device_flag)| {
                let command = Command::SetToken {
                    uid: uid.clone(),
                    device_flag,
                    device_level: 1,
                    token: String::new(),
                    only_existing: true,
                };
                let caller = (place == count).then_some(caller);
                let kick = Some("".into());
                (command, Waiter::Token { caller, uid: uid.clone(), device_flag, kick })
            })
            .collect();
        if commands.is_empty() {
            self.reply(caller, Reply::Done);
        } else if self.offer(slot, commands).is_err() {
            self.reply(caller, Reply::Failed(Failure::Busy));
        }
    }
}
