//! What is sent arrives.

use std::collections::BTreeMap;

use bytes::Bytes;
use jindou_core::{
    effect::{PeerState, Place},
    id::{NodeId, ShardId, SlotId},
};
use jindou_net::{Counters, LinkError};

use crate::{
    cluster::{Node, Plan, Proxy, Seen, numbers, send},
    common::drivers,
};

fn two(driver: jindou_net::DriverKind) -> (Node, Node) {
    let (a, b) = (Plan::new(driver, 1, 2).start(), Plan::new(driver, 2, 3).start());
    a.dial(2, b.address);
    b.dial(1, a.address);
    (a, b)
}

#[test]
fn each_shard_reaches_each_shard_of_the_other_node_in_order() {
    for driver in drivers() {
        let (a, b) = two(driver);
        a.wait_for_peer(2, |s| s == PeerState::Up { incarnation: 200, shard_count: 3 });
        b.wait_for_peer(1, |s| s == PeerState::Up { incarnation: 100, shard_count: 2 });
        const COUNT: u64 = 30_000;
        for round in 0..30 {
            let range = round * COUNT / 30..(round + 1) * COUNT / 30;
            for from in 0..2 {
                let range = range.clone();
                a.post(from, move |links| {
                    for number in range {
                        for to in 0..3 {
                            assert!(send(links, 2, to, number..number + 1));
                        }
                    }
                });
            }
        }
        let mut got: BTreeMap<(u16, u16), u64> = BTreeMap::new();
        while got.values().sum::<u64>() < COUNT * 6 {
            b.wait_for(|seen| match seen {
                Seen::Envelopes { shard, from, body } => {
                    assert_eq!(from.node, NodeId(1));
                    let next = got.entry((from.shard.0, shard)).or_default();
                    for number in numbers(&body) {
                        assert_eq!(number, *next);
                        *next += 1;
                    }
                    Some(())
                }
                _ => None,
            });
        }
        assert_eq!(got.len(), 6);
    }
}

#[test]
fn an_ask_goes_to_the_shard_of_its_slot_and_its_answer_comes_back() {
    for driver in drivers() {
        let (a, b) = two(driver);
        a.wait_for_up(2);
        b.wait_for_up(1);
        for slot in 0..7 {
            let place = Place::Slot(SlotId(slot));
            let ask = move |links: &jindou_net::Links| {
                links.call(NodeId(2), slot, place, Bytes::from_static(b"body"))
            };
            let answer = a.wait_on(1, ask).unwrap();
            assert_eq!(answer, format!("1 {} {slot} body", slot % 3));
        }
        let big = Bytes::from(vec![7; 5 << 20]);
        let sent = big.clone();
        let place = Place::Shard(ShardId(1));
        let answer = b.wait_on(2, move |links| links.call(NodeId(1), 9, place, sent)).unwrap();
        assert_eq!(answer.slice(answer.len() - big.len()..), big);
        // Counted on links of either side: here a node asks on one that it was dialled on.
        let status = a.on(1, |links| links.status());
        let size = big.len() as u64;
        assert!(status[0].bytes_in > size && status[0].bytes_out > size, "{status:?}");
        let sum = |value: fn(&Counters) -> u64| a.counters().iter().map(|c| value(c)).sum::<u64>();
        assert_eq!(sum(|c| c.link_raft_frames_in.get()), 8);
        assert_eq!(sum(|c| c.link_raft_frames_out.get()), 8);
        assert!(sum(|c| c.link_raft_bytes_in.get()) > size);
        assert!(sum(|c| c.link_frames_in.get()) > 8);
        let huge = Bytes::from(vec![7; 16 << 20]);
        let outcome = b.wait_on(0, move |links| links.call(NodeId(1), 9, place, huge));
        assert!(matches!(outcome, Err(LinkError::TooLarge { .. })));
        let large = b.on(0, move |links| {
            links.send(NodeId(1), place, |out| out.resize(out.len() + (16 << 20), 1))
        });
        assert!(matches!(large, Err(LinkError::TooLarge { .. })));
        assert!(b.send(0, 1, 1, 0..1));
        let body = a.wait_for(|seen| match seen {
            Seen::Envelopes { body, .. } => Some(body),
            _ => None,
        });
        assert_eq!(numbers(&body), [0]);
        let outcome = a.wait_on(0, move |links| links.call(NodeId(3), 0, place, Bytes::new()));
        assert!(matches!(outcome, Err(LinkError::Unreachable(NodeId(3)))));
        assert!(!a.send(0, 3, 0, 0..1));
    }
}

#[test]
fn control_messages_go_to_peers_and_to_addresses() {
    for driver in drivers() {
        let (a, b) = two(driver);
        a.wait_for_up(2);
        let answer = a.wait_on(0, |links| {
            links.control(NodeId(2), Place::Shard(ShardId(0)), Bytes::from_static(b"who leads?"))
        });
        assert_eq!(answer.unwrap(), "1 who leads?");
        // An answer may take longer than a member may be silent.
        let at = b.address.to_string();
        let slow = Bytes::from_static(b"slow");
        let answer = a.wait_on(1, move |links| links.control_at(at, slow));
        assert_eq!(answer.unwrap().1, "1 slow");
        // Not a member anywhere, and told an address only.
        let mut plan = Plan::new(driver, 10, 1);
        plan.cluster_id = 0;
        let fresh = plan.start();
        let at = format!("localhost:{}", b.address.port());
        let answer =
            fresh.wait_on(0, move |links| links.control_at(at, Bytes::from_static(b"let me in")));
        assert_eq!(answer.unwrap(), (NodeId(2), Bytes::from_static(b"10 let me in")));
        let nobody = "127.0.0.1:1".to_owned();
        let answer = fresh.wait_on(0, move |links| links.control_at(nobody, Bytes::new()));
        assert!(matches!(answer, Err(LinkError::Broken(_))));
        let at = "no.such.host.invalid:5".to_owned();
        let answer = fresh.wait_on(0, move |links| links.control_at(at, Bytes::new()));
        assert!(matches!(answer, Err(LinkError::Broken(_))));
    }
}

#[test]
fn pings_tell_both_sides_that_the_other_is_there() {
    for driver in drivers() {
        let (a, b) = two(driver);
        let mut sent: Vec<u64> = Vec::new();
        while sent.len() < 5 {
            let time = a.wait_for(|seen| match seen {
                Seen::Answered { shard: 0, node: 2, sent_ms } => Some(sent_ms),
                _ => None,
            });
            sent.push(time);
        }
        assert!(sent.is_sorted_by(|a, b| a < b), "{sent:?}");
        // From both shards of the other node, on each.
        let mut count = 0;
        while count < 20 {
            count += b.wait_for(|seen| match seen {
                Seen::Heard { node: 1, shard } => {
                    assert!(shard < 3);
                    Some(1)
                }
                _ => None,
            });
        }
        let status = a.on(0, |links| links.status());
        let status = &status[0];
        assert!(status.is_up && status.node == NodeId(2) && status.rtt_us.is_some());
        assert!(status.bytes_in > 0 && status.bytes_out > 0 && status.frames_out > 0);
        assert!(status.silent_ms.unwrap() < 600);
    }
}

/// Between up and down everything arrives, and after a loss nothing does.
#[test]
fn what_arrives_of_a_bundle_that_fails_is_a_beginning_of_what_was_sent() {
    for driver in drivers() {
        let (a, b) = (Plan::new(driver, 1, 1).start(), Plan::new(driver, 2, 2).start());
        let proxy = Proxy::new(b.address);
        a.dial(2, proxy.address);
        const EPOCH: u64 = 1_000_000;
        let mut next = [0; 2];
        for epoch in 0..5 {
            a.wait_for_up(2);
            for step in 0..50 {
                let first = epoch * EPOCH + step * 100;
                a.post(0, move |links| {
                    send(links, 2, 0, first..first + 100);
                    send(links, 2, 1, first..first + 100);
                });
                if step == 25 {
                    proxy.cut(1 + usize::try_from(epoch % 2).unwrap());
                }
            }
            a.wait_for_peer(2, |state| state == PeerState::Down);
        }
        a.wait_for_up(2);
        assert!(a.send(0, 2, 0, EPOCH * 99..EPOCH * 99 + 1));
        loop {
            let (shard, body) = b.wait_for(|seen| match seen {
                Seen::Envelopes { shard, body, .. } => Some((usize::from(shard), body)),
                _ => None,
            });
            let numbers = numbers(&body);
            if numbers[0] == EPOCH * 99 {
                break;
            }
            for number in numbers {
                let is_new_epoch = number % EPOCH == 0 && number > next[shard];
                assert!(number == next[shard] || is_new_epoch, "{number} {next:?}");
                next[shard] = number + 1;
            }
        }
    }
}
