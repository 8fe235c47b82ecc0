//! Envelopes survive their bytes, and no other bytes make envelopes.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;

use bytes::Bytes;
use jindou_core::{
    channel_info::{ChannelInfo, List, ListChange},
    code::Code,
    entry::{ChannelRef, ConversationAction, ConversationChange, StreamClaim},
    envelope::{
        Announced, Answer, Ask, Content, Envelope, Epoch, Except, Login, Origin, Part, Question,
        Receipt, SendOutcome, SendTask,
    },
    id::{ChannelId, ConnId, Name, NodeId, SessionAddr, ShardAddr, ShardId, SlotId},
    link,
    message::Message,
    request::{
        ApiSend, ClusterWrite, ConnectionInfo, Failure, OnlineItem, Reply, Request, RequestToken,
        Traffic, Vars,
    },
    row::{Conversation, Digest, DigestQuery},
    scan::{MessageFilter, Scan, ScanOf, ScanPage, ScanRows},
    stream::{
        EventAction, EventPlace, Head, Lane, LaneStatus, LaneView, Source, StreamEvent, StreamKey,
        StreamRefusal, StreamView,
    },
};
use proptest::prelude::*;

/// What the variants are filled with.
#[derive(Clone, Debug)]
struct Stuff {
    name: Name,
    names: Vec<Name>,
    payload: Bytes,
    number: u64,
    small: u16,
    flag: bool,
}

fn stuff() -> impl Strategy<Value = Stuff> {
    let names = prop::collection::vec(".{0,24}", 0..5);
    let payload = prop::collection::vec(any::<u8>(), 0..2_000);
    (".{0,40}", names, payload, any::<u64>(), any::<u16>(), any::<bool>()).prop_map(
        |(name, names, payload, number, small, flag)| Stuff {
            name: name.into(),
            names: names.into_iter().map(Name::from).collect(),
            payload: payload.into(),
            number,
            small,
            flag,
        },
    )
}

impl Stuff {
    fn channel(&self) -> ChannelId {
        ChannelId::new(self.name.clone(), self.small.to_le_bytes()[0])
    }

    fn slot(&self) -> SlotId {
        SlotId(self.small)
    }

    fn shard(&self) -> ShardAddr {
        ShardAddr { node: NodeId(self.number), shard: ShardId(self.small) }
    }

    fn session(&self) -> SessionAddr {
        SessionAddr { node: NodeId(self.number), conn: ConnId(self.number / 3) }
    }

    fn except(&self) -> Except {
        match self.small % 3 {
            0 => Except::None,
            1 => Except::Sender(self.session()),
            _ => Except::Since(self.time()),
        }
    }

    fn some<T>(&self, value: T) -> Option<T> {
        self.flag.then_some(value)
    }

    fn epoch(&self) -> Epoch {
        Epoch { life: self.number, count: u32::from(self.small) }
    }

    fn time(&self) -> i64 {
        i64::from_le_bytes(self.number.to_le_bytes())
    }

    fn message(&self) -> Message {
        Message {
            id: self.time(),
            seq: self.number,
            channel: self.channel(),
            from: self.name.clone(),
            client_msg_no: "n".into(),
            flags: 3,
            setting: 9,
            expire: 7,
            timestamp: self.time(),
            topic: self.name.clone(),
            stream_no: "".into(),
            shown: self.some(self.name.clone()),
            payload: self.payload.clone(),
        }
    }

    fn info(&self) -> ChannelInfo {
        ChannelInfo { large: self.flag, send_ban: !self.flag, ..ChannelInfo::default() }
    }

    fn traffic(&self) -> Traffic {
        Traffic { messages_in: self.number, bytes_out: 5, ..Traffic::default() }
    }

    fn parts(&self) -> Vec<Part> {
        vec![
            Part { slot: self.slot(), uids: self.names.clone().into() },
            Part { slot: SlotId(1), uids: Vec::new().into() },
        ]
    }

    fn contents(&self) -> Vec<Content> {
        let (message, except) = (Arc::new(self.message()), self.except());
        let (conn, text) = (ConnId(self.number), self.some(self.name.clone()));
        vec![
            Content::Deliver { message: message.clone(), parts: self.parts(), except },
            Content::FanOut { message: message.clone(), base: self.channel(), except },
            Content::Push { message, conns: vec![conn; usize::from(self.small % 9)] },
            Content::Kick { conn, text },
            Content::EndSessions { conns: vec![conn; 2], slots: vec![self.slot()] },
            Content::SendBan { conn, banned: self.flag },
        ]
    }

    fn requests(&self) -> Vec<Request> {
        let (uid, channel, uids) = (self.name.clone(), self.channel(), self.names.clone());
        let seq = self.number;
        let count_max = usize::from(self.small);
        let send = ApiSend {
            channel: channel.clone(),
            shown: self.some(uid.clone()),
            from: uid.clone(),
            client_msg_no: uid.clone(),
            flags: 1,
            setting: 2,
            expire: 3,
            recipients: self.some(uids.clone()),
            payload: self.payload.clone(),
        };
        let query = DigestQuery { channel: channel.clone(), after: seq, count_max: usize::MAX };
        let write =
            ClusterWrite { key: "k".into(), value: self.payload.to_vec(), if_absent: self.flag };
        vec![
            Request::WriteChannel {
                channel: channel.clone(),
                info: self.some(self.info()),
                reset: self.flag,
                members: uids.clone(),
            },
            Request::Disband { channel: channel.clone() },
            Request::ChangeList {
                channel: channel.clone(),
                list: List::Allow,
                change: ListChange::Set,
                uids: uids.clone(),
            },
            Request::ReadList { channel: channel.clone(), list: List::Deny },
            Request::ReadInfo { channel: channel.clone() },
            Request::Send(Box::new(send)),
            Request::LastSeq { channel: channel.clone() },
            Request::Messages {
                channel: channel.clone(),
                first: 1,
                last: seq,
                count_max,
                from_start: self.flag,
            },
            Request::Digests { uid: uid.clone(), items: vec![query] },
            Request::SetToken {
                uid: uid.clone(),
                device_flag: 1,
                device_level: 1,
                token: uid.to_string(),
            },
            Request::QuitDevices { uid: uid.clone(), device_flags: self.payload.to_vec() },
            Request::Online { uids },
            Request::ReadTo { uid: uid.clone(), channel: channel.clone(), seq },
            Request::DeleteConversation { uid: uid.clone(), channel, seq },
            Request::Conversations { uid: uid.clone() },
            Request::Connections,
            Request::EndConnection { uid, conn: ConnId(seq), kick: self.flag },
            Request::Vars,
            Request::WriteClusterKeys { entries: vec![write] },
            Request::ReadClusterKeys { prefix: "node/".into() },
            Request::Scan(Box::new(self.scan())),
        ]
        .into_iter()
        .chain(self.stream_requests())
        .collect()
    }

    fn stream_requests(&self) -> Vec<Request> {
        let (text, channel) = (self.name.clone(), self.channel());
        let stream = StreamKey::new(channel.clone(), text.clone());
        let end = EventAction::End {
            status: LaneStatus::Error,
            snapshot: self.some(self.payload.clone()),
            end_reason: 1,
            error: text.clone(),
        };
        let actions = [
            EventAction::Append(text.clone()),
            EventAction::Replace,
            EventAction::Snapshot,
            EventAction::Note,
            end,
        ];
        let event = |action| StreamEvent {
            stream: stream.clone(),
            shown: text.clone(),
            from: text.clone(),
            message_id: self.time(),
            event_id: text.clone(),
            kind: text.clone(),
            lane: text.clone(),
            visibility: text.clone(),
            occurred_ms: self.time(),
            payload: self.payload.clone(),
            action,
            claimed: self.flag,
        };
        let mut requests: Vec<Request> =
            actions.map(|action| Request::StreamEvent(Box::new(event(action)))).into();
        let (client_msg_no, from, replaces) = (text.clone(), text.clone(), self.flag);
        let claim = StreamClaim { client_msg_no, channel, from, replaces };
        requests.push(Request::ClaimStream(Box::new(claim)));
        requests.push(Request::ReadClaim { client_msg_no: text });
        requests.push(Request::Streams { streams: vec![stream] });
        requests
    }

    fn scan(&self) -> Scan {
        let filter = MessageFilter {
            from: self.some(self.name.clone()),
            client_msg_no: None,
            id: self.some(self.time()),
            payload: self.payload.clone(),
        };
        Scan {
            slot: SlotId(3),
            what: ScanOf::Messages {
                above: 1,
                below: self.time(),
                newest_first: self.flag,
                filter,
            },
            after: self.some(self.payload.clone()),
            count_max: 20,
        }
    }

    fn scan_page(&self) -> ScanPage {
        let list = self.names.iter().map(|name| (name.clone(), self.time())).collect();
        ScanPage { rows: ScanRows::List(list), next: self.some(self.payload.clone()) }
    }

    fn replies(&self) -> Vec<Reply> {
        let message = Arc::new(self.message());
        let digest = Digest { last_seq: 1, own_seq: 2, recents: vec![message.clone()] };
        let connection = ConnectionInfo {
            conn: ConnId(self.number),
            uid: self.name.clone(),
            device_id: self.name.clone(),
            device_flag: 1,
            device_level: 0,
            version: 5,
            live: self.flag,
            peer: if self.flag { "[::1]:9" } else { "1.2.3.4:5" }.parse().unwrap(),
            last_activity_ms: self.time(),
            opened_ms: 1,
            traffic: self.traffic(),
        };
        let vars = Vars { connections: self.number, traffic: self.traffic(), ..Vars::default() };
        let row = Conversation { read_to: self.number, ..Conversation::default() };
        let online = OnlineItem { uid: self.name.clone(), device_flag: 2 };
        vec![
            Reply::Done,
            Reply::Refused(Code::Ban),
            Reply::Sent { message_id: self.time(), seq: self.number, code: Code::Success },
            Reply::LastSeq(self.number),
            Reply::Messages(vec![message]),
            Reply::Digests(vec![digest]),
            Reply::List(self.names.iter().map(|name| (name.clone(), self.time())).collect()),
            Reply::Info(self.some(self.info())),
            Reply::Online(vec![online]),
            Reply::Conversations(vec![(self.channel(), row)]),
            Reply::Connections(vec![connection]),
            Reply::Vars(Box::new(vars)),
            Reply::ClusterKeys(vec![(self.name.to_string(), self.payload.clone())]),
            Reply::Failed(Failure::NoLeader),
            Reply::Failed(Failure::TooLarge),
            Reply::Scanned(Box::new(self.scan_page())),
        ]
        .into_iter()
        .chain(self.stream_replies())
        .collect()
    }

    fn stream_replies(&self) -> Vec<Reply> {
        let text = self.name.clone();
        let place = EventPlace { seq: self.number, status: text.clone(), from: text.clone() };
        let head = Head { from: text.clone(), owner: self.channel(), ..Head::default() };
        let lane = LaneView {
            key: text.to_string(),
            lane: Lane { event_id: text.clone(), snapshot: Source::Live, ..Lane::default() },
            text: text.to_string(),
            live: self.payload.clone(),
            stored: self.payload.clone(),
        };
        vec![
            Reply::Event(Box::new(place)),
            Reply::StreamRefused(StreamRefusal::Closed),
            Reply::StreamClaim(Box::new(head.clone())),
            Reply::Streams(vec![StreamView { head, lanes: vec![lane] }]),
        ]
    }

    fn asks(&self) -> Vec<Ask> {
        let (sender, receiver) = (self.name.clone(), self.name.clone());
        let login = Login {
            session: self.session(),
            uid: self.name.clone(),
            device_flag: 3,
            device_id: self.name.clone(),
            token: self.name.clone(),
            since_ms: self.time(),
        };
        let mut asks: Vec<Ask> = self.requests().into_iter().map(Ask::Request).collect();
        asks.push(Ask::Login(login));
        asks.push(Ask::Question(Question::Person { sender: sender.clone(), receiver }));
        asks.push(Ask::Question(Question::Member { sender, channel: self.channel() }));
        asks
    }

    fn answers(&self) -> Vec<Answer> {
        let (session, uid) = (self.session(), self.name.clone());
        let mut answers: Vec<Answer> = self.replies().into_iter().map(Answer::Reply).collect();
        answers.push(Answer::Welcome { session, uid, level: 1, send_ban: self.flag });
        answers.push(Answer::Code(Code::AuthFail));
        answers.push(Answer::NotLeader);
        answers
    }

    /// Every variant.
    fn envelopes(&self) -> Vec<Envelope> {
        let (from, slot, epoch, number) = (self.shard(), self.slot(), self.epoch(), self.number);
        let origins = [
            Origin::Api { token: RequestToken(number) },
            Origin::Session { session: self.session(), client_seq: 1, flags: 2, rpc: 3 },
        ];
        let mut all: Vec<Envelope> = Vec::new();
        for origin in origins {
            let (message, recipients) = (self.message(), self.some(self.names.clone()));
            let trusted = self.flag;
            let task = Arc::new(SendTask { message, recipients, trusted, origin, from, number });
            all.push(Envelope::Send { task, epoch, after: number });
        }
        let done = SendOutcome::Done { message_id: self.time(), seq: 1, code: Code::Success };
        for outcome in [done, SendOutcome::Again] {
            all.push(Envelope::Sent { slot, number, epoch, outcome });
        }
        for ask in self.asks() {
            all.push(Envelope::Ask { from, id: number, ask: Arc::new(ask) });
        }
        for answer in self.answers() {
            all.push(Envelope::Answer { id: number, answer: Box::new(answer) });
        }
        for content in self.contents() {
            let receipt = self.some(Receipt { from, epoch, begin: number, number });
            all.push(Envelope::Parcel { receipt, content });
        }
        let change = ConversationChange {
            uid: self.name.clone(),
            channel: ChannelRef::from(&self.channel()),
            action: ConversationAction::ReadTo { read_to: number },
        };
        let (source, target, index) = (slot, SlotId(3), number);
        let announced = Announced {
            uid: self.name.clone(),
            conn: ConnId(number),
            device_flag: 1,
            level: 1,
            device_id: self.name.clone(),
            since_ms: self.time(),
        };
        all.extend([
            Envelope::Left { session: self.session(), uid: self.name.clone() },
            Envelope::Delivered { by: from, number, later: vec![number; 2] },
            Envelope::NotHome { by: from, epoch, number, slots: vec![slot; 3] },
            Envelope::Outbox { source, target, index, changes: vec![change] },
            Envelope::OutboxTaken { source, target, index },
            Envelope::Leader { slot, leader: self.some(NodeId(number)), term: number },
            Envelope::Resumed { from },
            Envelope::Announce {
                from,
                slot,
                term: number,
                first: self.flag,
                last: !self.flag,
                sessions: vec![announced],
            },
        ]);
        all
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_envelope_comes_back(stuff in stuff()) {
        let envelopes = stuff.envelopes();
        let bytes = Bytes::from(link::encode(&envelopes).unwrap());
        prop_assert_eq!(link::decode(&bytes).unwrap(), envelopes);
    }

    #[test]
    fn a_batch_that_is_cut_is_refused(stuff in stuff(), place: prop::sample::Index) {
        let envelopes = stuff.envelopes();
        let bytes = Bytes::from(link::encode(&envelopes).unwrap());
        let cut = bytes.slice(..place.index(bytes.len()));
        if let Ok(read) = link::decode(&cut) {
            // Between two records.
            prop_assert_eq!(&read[..], &envelopes[..read.len()]);
            prop_assert!(read.len() < envelopes.len());
        }
    }

    #[test]
    fn changed_bytes_break_nothing(
        stuff in stuff(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = link::encode(&stuff.envelopes()).unwrap();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let _ = link::decode(&bytes.into());
    }

    #[test]
    fn garbage_is_no_envelope(garbage in prop::collection::vec(any::<u8>(), 1..400)) {
        let mut bytes = vec![link::VERSION];
        bytes.extend_from_slice(&u32::try_from(garbage.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(&garbage);
        let _ = link::decode(&bytes.into());
        let mut other = garbage.clone();
        other[0] = link::VERSION + 1;
        prop_assert!(link::decode(&other.into()).is_err());
    }
}

#[test]
fn a_record_that_claims_more_than_there_is_takes_no_memory() {
    let bytes = vec![link::VERSION, 0xff, 0xff, 0xff, 0xff, 0, 0];
    assert!(matches!(link::decode(&bytes.into()), Err(link::LinkError::TooLarge(_))));
    let stuff = Stuff {
        name: "n".into(),
        names: Vec::new(),
        payload: vec![0; link::RECORD_SIZE_MAX].into(),
        number: 0,
        small: 0,
        flag: false,
    };
    let mut out = b"before".to_vec();
    let envelope = Envelope::Parcel { receipt: None, content: stuff.contents().remove(0) };
    assert!(matches!(link::push(&mut out, &envelope), Err(link::LinkError::TooLarge(_))));
    assert_eq!(out, b"before");
}
