//! G6, 500 in flight: v2.2.5 reorders both what a connection sends and what it gets.

use std::thread;

use crate::support::client::{Client, Event, SUCCESS, Transport};
use crate::support::node::Node;
use crate::support::{PATIENCE, alone};

const IN_FLIGHT: u32 = 500;

#[test]
fn g6_sends_of_one_connection_keep_their_written_order() {
    let node = Node::start();
    for transport in Transport::ALL {
        let uid = format!("ann-{transport:?}");
        let to = node.api().group(&format!("order-{transport:?}"), &[&uid, "bob"]);
        let mut ann = Client::connect(&node, &uid, transport);
        let frames: Vec<_> = (1..=IN_FLIGHT)
            .map(|n| ann.frame(&to, &format!("no-{n}"), n.to_string().as_bytes()).1)
            .collect();
        ann.write(&frames).unwrap();
        for n in 1..=IN_FLIGHT {
            let (_, event) = ann.next(PATIENCE).unwrap();
            let Event::Ack(ack) = event else {
                panic!("{event:?} instead of SENDACK {n}");
            };
            assert_eq!((ack.client_seq, ack.seq, ack.reason), (n, n, SUCCESS), "{transport:?}");
        }
        let history = node.api().history("bob", &to);
        let texts: Vec<_> = history.iter().map(|m| String::from_utf8_lossy(&m.payload)).collect();
        let written: Vec<_> = (1..=IN_FLIGHT).map(|n| n.to_string()).collect();
        assert_eq!(texts, written, "{transport:?}");
    }
}

#[test]
fn g6_every_connection_gets_the_recvs_of_a_channel_in_seq_order() {
    let _alone = alone();
    let node = Node::start();
    let (senders, receivers) = (["s0", "s1", "s2"], ["r0", "r1", "r2", "r3"]);
    let to = node.api().group("busy", &[&senders[..], &receivers[..]].concat());
    let total = IN_FLIGHT * senders.len() as u32;
    let listening: Vec<_> = (receivers.iter().zip(Transport::ALL))
        .map(|(uid, transport)| {
            let mut client = Client::connect(&node, uid, transport);
            thread::spawn(move || {
                for n in 1..=total {
                    let received = client.receive();
                    assert_eq!(received.seq, n, "RECV of {} over {transport:?}", client.uid());
                }
                client.ping();
                assert_eq!(client.rest(), []);
            })
        })
        .collect();
    let sending: Vec<_> = (senders.iter().zip(Transport::ALL))
        .map(|(uid, transport)| {
            let (mut client, to) = (Client::connect(&node, uid, transport), to.clone());
            thread::spawn(move || {
                let frames: Vec<_> = (0..IN_FLIGHT)
                    .map(|n| client.frame(&to, &format!("no-{n}"), &n.to_be_bytes()).1)
                    .collect();
                client.write(&frames).unwrap();
                let seqs: Vec<_> = (1..=IN_FLIGHT).map(|n| client.ack(n).seq).collect();
                assert!(seqs.is_sorted(), "{} got seqs {seqs:?}", client.uid());
            })
        })
        .collect();
    for thread in sending.into_iter().chain(listening) {
        thread.join().unwrap();
    }
    let history = node.api().history("r0", &to);
    let seqs: Vec<_> = history.iter().map(|message| message.seq).collect();
    assert_eq!(seqs, (1..=total).collect::<Vec<_>>());
}
