//! What the rules alone cost for streams: deltas of many streams through `Shard::step`, each pushed
//! to two members who are online, commits at once, no sockets and no disks. Prints nanoseconds per
//! delta, its two EVENTs included, when the deltas of a stream come one by one and when they gather.
//!
//! `cargo run --release -p jindou-core --example delta_cost`
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "a measuring program"
)]

use std::{sync::Arc, time::Instant};

use jindou_core::{
    channel_info::ChannelInfo,
    effect::{Committed, Effect, Event, Inbox, Now, Outbox, Port},
    id::{ChannelId, ConnId, LogId, ShardId, SlotId},
    request::{Reply, Request, RequestToken, Target},
    row::{ChannelRows, Read, Rows, SlotRows, UserRows},
    settings::Settings,
    shard::Shard,
    stream::{EventAction, StreamEvent, StreamKey},
    wire::{
        crypto::ClientKey,
        frame::{Connect, Frame, encode},
    },
};

const STREAMS: usize = 64;
const ROUNDS: u64 = 2_000;

struct Bench {
    shard: Shard,
    inbox: Inbox,
    outbox: Outbox,
    index: Vec<u64>,
    token: u64,
    stepped_ns: u128,
    entries: u64,
    entry_bytes: usize,
    row_bytes: usize,
    events: u64,
}

impl Bench {
    fn run(&mut self) {
        while !self.inbox.is_empty() {
            let now = Now { unix_ms: 1_700_000_000_000, mono_ms: 1 };
            let start = Instant::now();
            self.shard.step(now, &mut self.inbox, &mut self.outbox);
            self.stepped_ns += start.elapsed().as_nanos();
            self.inbox.clear();
            for effect in std::mem::take(&mut self.outbox).effects {
                self.perform(effect);
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Propose { slot, entry, .. } => {
                self.entries += 1;
                self.entry_bytes += entry.len();
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
                    Read::Stream(_) => Rows::Stream(Vec::new()),
                    _ => Rows::Failed("nobody asks".to_owned()),
                };
                self.inbox.events.push(Event::Read { id, rows });
            }
            Effect::Persist(persist) => {
                let size = Outbox::persist_size(&persist);
                self.row_bytes += size;
                self.inbox.events.push(Event::Persisted { size });
            }
            Effect::Reply { reply: Reply::Event(_), .. } => self.events += 1,
            _ => {}
        }
    }

    fn ask(&mut self, id: &str, request: Request) {
        self.token += 1;
        let (token, to) = (RequestToken(self.token), Target::Id(id.into()));
        self.inbox.events.push(Event::Request { token, to, request });
    }

    fn deltas(&mut self, each: u64, name: &str) {
        let run = |bench: &mut Self, round: u64| {
            for n in 0..each {
                for stream in 0..STREAMS {
                    let id = format!("g{stream}");
                    let request =
                        delta(&id, &format!("{name}-{}", round / 1_000), round * each + n);
                    bench.ask(&id, request);
                }
            }
            bench.run();
        };
        run(self, 0);
        let before = (self.stepped_ns, self.events, self.entries, self.entry_bytes, self.row_bytes);
        for round in 1..=ROUNDS / each {
            run(self, round);
        }
        let events = self.events - before.1;
        println!(
            "{name}: {} ns per delta; {:.1} deltas, {} bytes of log and {} bytes of rows each",
            (self.stepped_ns - before.0) / u128::from(events),
            events as f64 / (self.entries - before.2) as f64,
            (self.entry_bytes - before.3) / events as usize,
            (self.row_bytes - before.4) / events as usize,
        );
    }
}

fn delta(group: &str, number: &str, n: u64) -> Request {
    Request::StreamEvent(Box::new(StreamEvent {
        stream: StreamKey::new(ChannelId::new(group, 2), number),
        shown: group.into(),
        from: "bot".into(),
        message_id: 1_895_423_981_234_176_000,
        event_id: format!("event-{n}").into(),
        kind: "stream.delta".into(),
        lane: "main".into(),
        visibility: "".into(),
        occurred_ms: 0,
        payload: br#"{"kind":"text","delta":" word"}"#.as_slice().into(),
        action: EventAction::Append(" word".into()),
        claimed: true,
    }))
}

fn main() {
    let settings = Arc::new(Settings::default());
    let mut bench = Bench {
        shard: Shard::new(ShardId(0), settings.clone(), [1; 32]),
        inbox: Inbox::default(),
        outbox: Outbox::default(),
        index: vec![0; usize::from(settings.slot_count)],
        token: 0,
        stepped_ns: 0,
        entries: 0,
        entry_bytes: 0,
        row_bytes: 0,
        events: 0,
    };
    for slot in (0..settings.slot_count).map(SlotId) {
        let rows = Box::new(SlotRows::default());
        bench.inbox.events.push(Event::SlotOpened { slot, rows });
        let leader = Some(settings.node);
        bench.inbox.events.push(Event::Leader { slot, leader, term: 1 });
        bench.inbox.events.push(Event::Leading { slot, leading: true });
        bench.inbox.events.push(Event::Leases(vec![(slot, u64::MAX)]));
    }
    for place in 0..2 * STREAMS {
        let conn = ConnId::new(ShardId(0), place as u32, 0);
        let peer = "127.0.0.1:1".parse().unwrap();
        bench.inbox.events.push(Event::Opened { conn, port: Port::Tcp, peer });
        let key = ClientKey::from_seed([place as u8 + 1; 32]);
        let connect = Frame::Connect(Connect {
            version: 5,
            device_flag: 0,
            device_id: "d",
            uid: &format!("user-{place}"),
            token: "",
            client_timestamp: 0,
            client_key: key.public_base64(),
        });
        let mut bytes = Vec::new();
        encode(&connect, 5, &mut bytes).unwrap();
        bench.inbox.push_bytes(conn, &bytes);
        bench.run();
    }
    for stream in 0..STREAMS {
        let members = [2 * stream, 2 * stream + 1].map(|n| format!("user-{n}").into());
        let (channel, info) = (ChannelId::new(format!("g{stream}"), 2), ChannelInfo::default());
        let members = members.to_vec();
        let request = Request::WriteChannel { channel, info: Some(info), reset: false, members };
        bench.ask(&format!("g{stream}"), request);
        bench.run();
    }
    bench.deltas(1, "one by one");
    bench.deltas(20, "20 at a time");
}
