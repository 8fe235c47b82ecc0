//! Whatever links fail and leaders move in between: sends keep their order and are stored once
//! (G4, G6), and everybody who is online gets everything in order (G8, G11).
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod nodes;

use std::collections::BTreeMap;

use jindou_core::{
    id::{ChannelId, SlotId, person_channel},
    request::{Reply, Request},
};
use nodes::{Ack, Client, Nodes, Recv};
use proptest::prelude::*;

const NAMES: [&str; 4] = ["ann", "bob", "eve", "kim"];

#[derive(Clone, Debug)]
enum Op {
    /// Somebody writes so many messages to the group, or to somebody.
    Send {
        from: usize,
        to: usize,
        count: usize,
    },
    /// A slot gets another leader.
    Lead {
        slot: u16,
        node: usize,
    },
    Cut {
        a: usize,
        b: usize,
    },
    Heal {
        a: usize,
        b: usize,
    },
    /// Some turns, in which each link carries so many messages.
    Turns {
        count: usize,
        deliver: usize,
    },
    Time {
        ms: u64,
    },
    Hold,
    Release,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..4usize, 0..5usize, 1..6usize)
            .prop_map(|(from, to, count)| Op::Send { from, to, count }),
        3 => (0..4u16, 0..3usize).prop_map(|(slot, node)| Op::Lead { slot, node }),
        1 => (0..4usize, 0..4usize).prop_map(|(a, b)| Op::Cut { a, b }),
        2 => (0..4usize, 0..4usize).prop_map(|(a, b)| Op::Heal { a, b }),
        6 => (1..4usize, 1..4usize).prop_map(|(count, deliver)| Op::Turns { count, deliver }),
        1 => (1..200u64).prop_map(|ms| Op::Time { ms }),
        1 => Just(Op::Hold),
        2 => Just(Op::Release),
    ]
}

/// What each client wrote, and heard.
struct Story {
    nodes: Nodes,
    clients: Vec<Client>,
    /// By (sender, channel): numbers in the order of writing.
    written: BTreeMap<(usize, usize), Vec<String>>,
    acks: Vec<Vec<Ack>>,
    recvs: Vec<Vec<Recv>>,
    /// When each link was cut, in milliseconds since the start.
    cuts: BTreeMap<(usize, usize), u64>,
    elapsed_ms: u64,
}

impl Story {
    fn new() -> Self {
        let mut nodes = Nodes::new(&[2, 1, 2, 1], 3, 4);
        let clients: Vec<Client> = (0..4).map(|n| nodes.connect(n, NAMES[n])).collect();
        nodes.group("g", &NAMES);
        let lists = || vec![Vec::new(); 4];
        Self {
            nodes,
            clients,
            written: BTreeMap::new(),
            acks: lists(),
            recvs: vec![Vec::new(); 4],
            cuts: BTreeMap::new(),
            elapsed_ms: 0,
        }
    }

    fn listen(&mut self) {
        for (n, client) in self.clients.iter().enumerate() {
            let (acks, recvs) = self.nodes.listen(*client);
            self.acks[n].extend(acks);
            self.recvs[n].extend(recvs);
        }
    }

    fn carry_out(&mut self, op: &Op) {
        match *op {
            Op::Send { from, to, count } => {
                for _ in 0..count {
                    let numbers = self.written.entry((from, to)).or_default();
                    let number = format!("{from}-{to}-{}", numbers.len());
                    numbers.push(number.clone());
                    let (channel, kind) = NAMES.get(to).map_or(("g", 2), |name| (*name, 1));
                    self.nodes.send(self.clients[from], channel, kind, &number);
                }
            }
            Op::Lead { slot, node } => self.nodes.lead(SlotId(slot), node),
            Op::Cut { a, b } if a != b => {
                self.nodes.cut(a, b);
                self.cuts.insert((a.min(b), a.max(b)), self.elapsed_ms);
            }
            Op::Cut { .. } => {}
            Op::Heal { a, b } => self.nodes.heal(a, b),
            Op::Turns { count, deliver } => {
                for _ in 0..count {
                    self.nodes.turn(deliver);
                }
            }
            Op::Time { ms } => {
                self.nodes.tick(ms);
                self.elapsed_ms += ms;
            }
            Op::Hold => self.nodes.hold_commits = true,
            Op::Release => self.nodes.release_commits(),
        }
        // No link is down for so long that homes stop waiting for it.
        for ((a, b), since) in self.cuts.clone() {
            if since + 700 < self.elapsed_ms {
                self.nodes.heal(a, b);
                self.cuts.remove(&(a, b));
            }
        }
        self.listen();
    }

    fn check(&mut self) {
        self.nodes.release_commits();
        self.nodes.heal_all();
        for _ in 0..30 {
            self.nodes.advance(250);
            self.listen();
        }
        assert!(self.nodes.replicas_agree());
        for node in 0..4 {
            assert!(self.nodes.is_idle(node), "node {node} waits for something");
        }
        for (n, name) in NAMES.iter().enumerate() {
            let uids = vec![(*name).into()];
            let reply = self.nodes.ask_wait(n, name, Request::Online { uids });
            assert!(matches!(&reply, Reply::Online(items) if items.len() == 1), "G11: {reply:?}");
        }
        for ((from, to), numbers) in &self.written {
            let prefix = format!("{from}-{to}-");
            let acks: Vec<_> =
                self.acks[*from].iter().filter(|ack| ack.0.starts_with(&prefix)).collect();
            assert_eq!(acks.len(), numbers.len(), "each send has one answer: {acks:?}");
            assert!(acks.iter().all(|ack| ack.1 == 1 || ack.1 == 15), "{acks:?}");
            let done: Vec<_> = acks.iter().filter(|ack| ack.1 == 1).collect();
            let mut by_number = done.clone();
            by_number.sort_by_key(|ack| numbers.iter().position(|n| *n == ack.0));
            assert!(
                by_number.windows(2).all(|pair| pair[0].2 < pair[1].2),
                "G6: {prefix} {by_number:?}"
            );
        }
        let mut channels = vec![(ChannelId::new("g", 2), vec![0, 1, 2, 3])];
        for (a, name) in NAMES.iter().enumerate() {
            for (b, peer) in NAMES.iter().enumerate().skip(a) {
                let id = person_channel(name, peer);
                channels.push((ChannelId::new(id, 1), vec![a, b]));
            }
        }
        for (channel, members) in channels {
            let stored = self.nodes.stored(&channel);
            let mut once = stored.clone();
            once.sort();
            once.dedup();
            assert_eq!(once.len(), stored.len(), "G4: {stored:?}");
            for member in members {
                let shown: &str = if channel.kind == 2 {
                    "g"
                } else {
                    let id = channel.id.split('@').find(|part| *part != NAMES[member]);
                    id.unwrap_or(NAMES[member])
                };
                let mut seen = Vec::new();
                for (_, seq) in self.recvs[member].iter().filter(|recv| recv.0 == shown) {
                    if !seen.contains(seq) {
                        seen.push(*seq);
                    }
                }
                let own = format!("{member}-");
                let want: Vec<u64> = (1..)
                    .zip(&stored)
                    .filter(|(_, number)| !number.starts_with(&own))
                    .map(|(seq, _)| seq)
                    .collect();
                assert_eq!(seen, want, "G8: {shown} to {}", NAMES[member]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn sends_and_pushes_survive_whatever_happens(ops in prop::collection::vec(op(), 1..60)) {
        let mut story = Story::new();
        for op in &ops {
            story.carry_out(op);
        }
        story.check();
    }
}
