//! What the HTTP API asks (see [`crate::request`]).

use super::{
    Shard,
    cache::Found,
    channel::Channel,
    slot::Waiter,
    user::User,
    waiting::{Purpose, Waiting},
};
use crate::{
    channel_info::{List, ListChange, kind},
    code::Code,
    entry::{Command, ConversationAction, ConversationChange},
    envelope::{Envelope, Origin, SendTask},
    id::{ChannelId, Name, ShardId, SlotId},
    message::Message,
    request::{ApiSend, Failure, OnlineItem, Reply, Request, RequestToken, Target},
    row::Read,
};

/// What the client of a kicked device is told (protocol.md §2.5).
const LOGGED_IN_ELSEWHERE: &str = "账号在其他设备上登录";

impl Shard {
    /// A request of this shard's API.
    pub(super) fn on_request(&mut self, token: RequestToken, to: Target, request: Request) {
        let shard = match to {
            Target::Id(id) => self.shard_of(&id),
            Target::Shard(shard) => shard,
        };
        self.open_requests.insert(token);
        self.request_deadlines.push_back((self.now.mono_ms + self.settings.request_ms, token));
        let from = self.id;
        self.send(shard, Envelope::Request { from, token, request: Box::new(request) });
    }

    /// Answers whoever asked, wherever it waits.
    pub(super) fn reply(&mut self, shard: ShardId, token: RequestToken, reply: Reply) {
        if shard == self.id {
            self.on_reply(token, reply);
        } else {
            self.send(shard, Envelope::Reply { token, reply: Box::new(reply) });
        }
    }

    /// An answer for a caller of this shard. A late one finds nobody.
    pub(super) fn on_reply(&mut self, token: RequestToken, reply: Reply) {
        if self.open_requests.swap_remove(&token) {
            self.out.effects.push(crate::effect::Effect::Reply { token, reply });
        }
    }

    /// Callers that have waited too long are told that the outcome is unknown.
    pub(super) fn answer_overdue_requests(&mut self) {
        while let Some((due, token)) = self.request_deadlines.front().copied() {
            let open = self.open_requests.contains(&token);
            if open && due > self.now.mono_ms {
                break;
            }
            self.request_deadlines.pop_front();
            if open {
                self.on_reply(token, Reply::Failed(Failure::Timeout));
            }
        }
    }

    /// A request for this shard.
    pub(super) fn on_shard_request(
        &mut self,
        from: ShardId,
        token: RequestToken,
        request: Request,
    ) {
        let caller = Caller { from, token };
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
                let again = Request::ReadList { channel: channel.clone(), list };
                self.answer_from_channel(caller, channel, again, reply);
            }
            Request::ReadInfo { channel } => {
                let again = Request::ReadInfo { channel: channel.clone() };
                self.answer_from_channel(caller, channel, again, |c| Reply::Info(c.info));
            }
            Request::LastSeq { channel } => {
                let again = Request::LastSeq { channel: channel.clone() };
                self.answer_from_channel(caller, channel, again, |c| Reply::LastSeq(c.last_seq));
            }
            Request::Send(send) => self.send_for(caller, *send),
            Request::Messages { channel, first, last, count_max, from_start } => {
                let slot = channel.slot(self.settings.slot_count);
                if self.leads_or_fails(caller, slot) {
                    let read = Read::Messages { channel, first, last, count_max, from_start };
                    self.read(slot, read, Purpose::Api { shard: from, token });
                }
            }
            Request::Digests { uid, items } => {
                let slot_count = self.settings.slot_count;
                if items.iter().all(|item| self.leads(item.channel.slot(slot_count))) {
                    self.read_digests(from, token, &uid, items);
                } else {
                    self.reply(from, token, Reply::Failed(Failure::NoLeader));
                }
            }
            Request::SetToken { uid, device_flag, device_level, token: secret } => {
                self.set_token(caller, uid, device_flag, device_level, secret);
            }
            Request::QuitDevices { uid, device_flags } => {
                self.quit_devices(caller, uid, device_flags);
            }
            Request::Online { uids } => {
                let mut items = Vec::new();
                for uid in uids {
                    for session in self.directory.get(&uid).into_iter().flatten() {
                        let device_flag = session.device_flag;
                        items.push(OnlineItem { uid: uid.clone(), device_flag });
                    }
                }
                self.reply(from, token, Reply::Online(items));
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
                let again = Request::Conversations { uid: uid.clone() };
                let reply = |user: &mut User| Reply::Conversations(user.conversations());
                self.answer_from_user(caller, uid, again, reply);
            }
            Request::Connections => {
                let list = self.connection_infos();
                self.reply(from, token, Reply::Connections(list));
            }
            Request::EndConnection { uid, conn, kick } => {
                self.end_connection(&uid, conn, kick);
                self.reply(from, token, Reply::Done);
            }
            Request::Vars => {
                let vars = Box::new(self.vars());
                self.reply(from, token, Reply::Vars(vars));
            }
        }
    }

    fn leads_or_fails(&mut self, caller: Caller, slot: SlotId) -> bool {
        let leads = self.leads(slot);
        if !leads {
            self.reply(caller.from, caller.token, Reply::Failed(Failure::NoLeader));
        }
        leads
    }

    /// Proposes commands of one caller; the last one's outcome is the answer.
    fn propose_for(&mut self, caller: Caller, id: &str, mut commands: Vec<Command>) {
        let slot = SlotId::of(id, self.settings.slot_count);
        let Some(last) = commands.pop() else { return };
        if !self.leads_or_fails(caller, slot) {
            return;
        }
        let waiter = Waiter::Api { shard: caller.from, token: caller.token };
        let mut offered: Vec<(Command, Waiter)> =
            commands.into_iter().map(|command| (command, Waiter::Nobody)).collect();
        offered.push((last, waiter));
        if self.offer(slot, offered).is_err() {
            self.reply(caller.from, caller.token, Reply::Failed(Failure::Busy));
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
        channel: ChannelId,
        again: Request,
        reply: impl FnOnce(&Channel) -> Reply,
    ) {
        if !self.leads_or_fails(caller, channel.slot(self.settings.slot_count)) {
            return;
        }
        let reply = match self.channels.get_or_wait(&channel, || caller.again(again)) {
            Found::Ready(channel) => reply(channel),
            Found::Loading => return,
            Found::Missing => return self.load_channel(channel),
        };
        self.reply(caller.from, caller.token, reply);
    }

    fn answer_from_user(
        &mut self,
        caller: Caller,
        uid: Name,
        again: Request,
        reply: impl FnOnce(&mut User) -> Reply,
    ) {
        if !self.leads_or_fails(caller, SlotId::of(&uid, self.settings.slot_count)) {
            return;
        }
        let reply = match self.users.get_or_wait(&uid, || caller.again(again)) {
            Found::Ready(user) => reply(user),
            Found::Loading => return,
            Found::Missing => return self.load_user(uid),
        };
        self.reply(caller.from, caller.token, reply);
    }

    fn send_for(&mut self, caller: Caller, send: ApiSend) {
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
            topic: "".into(),
            stream_no: "".into(),
            shown: send.shown,
            payload: send.payload,
        };
        let origin = Origin::Api { shard: caller.from, token: caller.token };
        let task = SendTask { message, recipients: send.recipients, trusted: true, origin };
        self.on_send(Box::new(task));
    }

    fn set_token(&mut self, caller: Caller, uid: Name, flag: u8, level: u8, token: String) {
        let slot = SlotId::of(&uid, self.settings.slot_count);
        if !self.leads_or_fails(caller, slot) {
            return;
        }
        let personal = ChannelId::new(uid.clone(), kind::PERSON);
        let again = Request::SetToken {
            uid: uid.clone(),
            device_flag: flag,
            device_level: level,
            token: token.clone(),
        };
        let info = match self.channels.get_or_wait(&personal, || caller.again(again)) {
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
            return self.reply(caller.from, caller.token, Reply::Refused(code));
        }
        let command = Command::SetToken {
            uid: uid.clone(),
            device_flag: flag,
            device_level: level,
            token,
            only_existing: false,
        };
        let waiter = Waiter::Token {
            caller: Some((caller.from, caller.token)),
            uid,
            device_flag: flag,
            kick: (level == 1).then(|| LOGGED_IN_ELSEWHERE.into()),
        };
        if self.offer(slot, vec![(command, waiter)]).is_err() {
            self.reply(caller.from, caller.token, Reply::Failed(Failure::Busy));
        }
    }

    fn quit_devices(&mut self, caller: Caller, uid: Name, flags: Vec<u8>) {
        let slot = SlotId::of(&uid, self.settings.slot_count);
        if !self.leads_or_fails(caller, slot) {
            return;
        }
        let again = Request::QuitDevices { uid: uid.clone(), device_flags: flags.clone() };
        let registered: Vec<u8> = match self.users.get_or_wait(&uid, || caller.again(again)) {
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
                let caller = (place == count).then_some((caller.from, caller.token));
                let kick = Some("".into());
                (command, Waiter::Token { caller, uid: uid.clone(), device_flag, kick })
            })
            .collect();
        if commands.is_empty() {
            self.reply(caller.from, caller.token, Reply::Done);
        } else if self.offer(slot, commands).is_err() {
            self.reply(caller.from, caller.token, Reply::Failed(Failure::Busy));
        }
    }
}

/// Who asked.
#[derive(Clone, Copy)]
struct Caller {
    from: ShardId,
    token: RequestToken,
}

impl Caller {
    /// The request, to be handled again when what it needs is loaded.
    fn again(self, request: Request) -> Waiting {
        let Self { from, token } = self;
        Waiting::Envelope(Box::new(Envelope::Request { from, token, request: Box::new(request) }))
    }
}
