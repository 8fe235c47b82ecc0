//! What the rules alone cost: encrypted person sends through `Shard::step`, commits at once, no
//! sockets and no disks. Prints nanoseconds per send, its delivery and RECVACK included.
//!
//! `cargo run --release -p jindou-core --example step_cost`
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a measuring program"
)]

use std::{sync::Arc, time::Instant};

use jindou_core::{
    effect::{Committed, Effect, Event, Inbox, Now, Outbox, Port},
    id::{ConnId, LogId, ShardId, SlotId},
    row::{ChannelRows, Digest, Read, Rows, SlotRows, UserRows},
    settings::Settings,
    shard::Shard,
    wire::{
        crypto::{Cipher, ClientKey},
        frame::{self, Connect, Flags, Frame, Recvack, Send, encode},
    },
};

const PAIRS: usize = 50;
const ROUNDS: u32 = 2_000;

struct Bench {
    shard: Shard,
    inbox: Inbox,
    outbox: Outbox,
    index: Vec<u64>,
    outputs: Vec<Vec<u8>>,
    stepped_ns: u128,
    effects: usize,
}

impl Bench {
    fn run(&mut self) {
        while !self.inbox.is_empty() {
            let now = Now { unix_ms: 1_700_000_000_000, mono_ms: 1 };
            let start = Instant::now();
            self.shard.step(now, &mut self.inbox, &mut self.outbox);
            self.stepped_ns += start.elapsed().as_nanos();
            self.inbox.clear();
            let outbox = std::mem::take(&mut self.outbox);
            self.effects += outbox.effects.len();
            for effect in outbox.effects {
                match effect {
                    Effect::Write { conn, range } => {
                        self.outputs[conn.place()].extend_from_slice(&outbox.bytes[range]);
                    }
                    Effect::Propose { slot, entry, .. } => {
                        let index = &mut self.index[usize::from(slot.0)];
                        *index += 1;
                        let log_id = LogId { term: 1, node: 1, index: *index };
                        let body = Committed::Entry(entry);
                        self.inbox.events.push(Event::Committed { slot, log_id, body });
                    }
                    Effect::Read { id, read, .. } => {
                        let rows = match read {
                            Read::Channel(_) => Rows::Channel(ChannelRows::default()),
                            Read::User(_) => Rows::User(UserRows::default()),
                            Read::Find { sought, .. } => {
                                Rows::Found(sought.iter().map(|_| None).collect())
                            }
                            Read::Stream(_) => Rows::Stream(Vec::new()),
                            Read::Streams(_) => Rows::Streams(Vec::new()),
                            Read::Messages { .. } => Rows::Messages(Vec::new()),
                            Read::Scan(_) => Rows::Failed("no searches".into()),
                            Read::Notices { .. } => Rows::Notices(Vec::new()),
                            Read::Digests { items, .. } => {
                                Rows::Digests(items.iter().map(|_| Digest::default()).collect())
                            }
                        };
                        self.inbox.events.push(Event::Read { id, rows });
                    }
                    Effect::Persist(persist) => {
                        let size = Outbox::persist_size(&persist);
                        self.inbox.events.push(Event::Persisted { size });
                    }
                    Effect::Close { .. }
                    | Effect::Send { .. }
                    | Effect::Applied { .. }
                    | Effect::Reply { .. }
                    | Effect::Forward { .. }
                    | Effect::LeaderKnown { .. }
                    | Effect::ClusterKey { .. }
                    | Effect::Warn(_)
                    | Effect::Tell(_)
                    | Effect::AskSystems => {}
                }
            }
        }
    }
}

fn main() {
    let settings = Arc::new(Settings::default());
    let mut bench = Bench {
        shard: Shard::new(ShardId(0), settings.clone(), [1; 32]),
        inbox: Inbox::default(),
        outbox: Outbox::default(),
        index: vec![0; usize::from(settings.slot_count)],
        outputs: vec![Vec::new(); 2 * PAIRS],
        stepped_ns: 0,
        effects: 0,
    };
    for slot in (0..settings.slot_count).map(SlotId) {
        let rows = Box::new(SlotRows::default());
        bench.inbox.events.push(Event::SlotOpened { slot, rows });
        let leader = Some(settings.node);
        bench.inbox.events.push(Event::Leader { slot, leader, term: 1 });
        bench.inbox.events.push(Event::Leading { slot, leading: true });
        bench.inbox.events.push(Event::Leases(vec![(slot, u64::MAX)]));
    }
    let conn = |place: usize| ConnId::new(ShardId(0), place as u32, 0);
    let mut ciphers: Vec<Cipher> = Vec::new();
    for place in 0..2 * PAIRS {
        let peer = "127.0.0.1:1".parse().unwrap();
        bench.inbox.events.push(Event::Opened { conn: conn(place), port: Port::Tcp, peer });
        let key = ClientKey::from_seed([place as u8 + 1; 32]);
        let uid = format!("user-{place}");
        let mut bytes = Vec::new();
        let connect = Frame::Connect(Connect {
            version: 5,
            device_flag: 0,
            device_id: "d",
            uid: &uid,
            token: "",
            client_timestamp: 0,
            client_key: key.public_base64(),
        });
        encode(&connect, 5, &mut bytes).unwrap();
        bench.inbox.push_bytes(conn(place), &bytes);
        bench.run();
        let output = std::mem::take(&mut bench.outputs[place]);
        let Some((Frame::Connack(ack), _)) = frame::decode(&output, 5).unwrap() else {
            panic!("no CONNACK")
        };
        ciphers.push(key.agree(ack.server_key, ack.salt).unwrap());
    }
    let payload = [b'x'; 128];
    let (mut sends, mut warm) = (0u64, 0u128);
    for round in 0..ROUNDS {
        if round == ROUNDS / 10 {
            (sends, warm, bench.effects) = (0, bench.stepped_ns, 0);
        }
        for (place, cipher) in ciphers.iter().enumerate() {
            let mut sealed = Vec::new();
            cipher.seal(&payload, &mut sealed);
            let (peer, number) = (format!("user-{}", place ^ 1), format!("{place}-{round}-no"));
            let mut send = Send {
                flags: Flags { red_dot: true, ..Flags::default() },
                setting: 0,
                client_seq: round,
                client_msg_no: &number,
                stream_no: None,
                channel_id: &peer,
                channel_type: 1,
                expire: 0,
                msg_key: "",
                topic: "",
                payload: &sealed,
            };
            let key = cipher.send_key(&send);
            send.msg_key = std::str::from_utf8(&key).unwrap();
            let mut bytes = Vec::new();
            encode(&Frame::Send(send), 5, &mut bytes).unwrap();
            bench.inbox.push_bytes(conn(place), &bytes);
            sends += 1;
        }
        bench.run();
        for place in 0..2 * PAIRS {
            let output = std::mem::take(&mut bench.outputs[place]);
            let (mut at, mut acks) = (0, Vec::new());
            while let Some((frame, size)) = frame::decode(&output[at..], 5).unwrap() {
                at += size;
                if let Frame::Recv(recv) = frame {
                    let (message_id, message_seq) = (recv.message_id, recv.message_seq);
                    let flags = recv.flags;
                    let ack = Recvack { flags, message_id, message_seq };
                    encode(&Frame::Recvack(ack), 5, &mut acks).unwrap();
                }
            }
            bench.inbox.push_bytes(conn(place), &acks);
        }
        bench.run();
    }
    let ns = (bench.stepped_ns - warm) / u128::from(sends);
    println!("{ns} ns per send, {:.2} effects", bench.effects as f64 / sends as f64);
}
