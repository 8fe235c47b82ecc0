//! Client connections on real sockets, on both drivers.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

mod common;

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use common::{IDLE, Node, Plan, check_echo, drivers, echo, is_closed, read, wait_until, write};
use jindou_core::effect::{Effect, Event, Inbox, Now, Outbox, Stepped};
use jindou_net::Admission;

fn echo_nodes(shard_count: u16) -> Vec<Node> {
    drivers().into_iter().map(|driver| Plan::new(driver, shard_count).start(|_| echo)).collect()
}

#[test]
fn a_thousand_connections_get_their_own_bytes_back() {
    for node in echo_nodes(2) {
        let mut streams: Vec<TcpStream> = (0..1000).map(|_| node.connect()).collect();
        for round in 0..5_usize {
            let message = |place: usize| format!("{round}:{place};").repeat(1 + place % 50);
            for (place, stream) in streams.iter_mut().enumerate() {
                stream.write_all(message(place).as_bytes()).unwrap();
            }
            for (place, stream) in streams.iter_mut().enumerate() {
                let expected = message(place);
                assert_eq!(read(stream, expected.len()), expected.as_bytes());
            }
        }
        node.wait_for(1000, |counters| counters.open.get());
        drop(streams);
        node.wait_for(0, |counters| counters.open.get());
        assert_eq!(node.sum(|counters| counters.accepted.get()), 1000);
        let bytes_in = node.sum(|counters| counters.bytes_in.get());
        assert_eq!(bytes_in, node.sum(|counters| counters.bytes_out.get()));
        let shards = node.shards.as_ref().unwrap();
        for counters in shards.counters() {
            assert!(counters.accepted.get() > 0, "a shard got no connection");
        }
    }
}

#[test]
fn large_messages_come_back_whole() {
    for node in echo_nodes(1) {
        let mut stream = node.connect();
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 4]).collect();
        let mut writer = stream.try_clone().unwrap();
        let expected = bytes.clone();
        let thread = std::thread::spawn(move || writer.write_all(&bytes).unwrap());
        assert!(read(&mut stream, expected.len()) == expected);
        thread.join().unwrap();
    }
}

#[test]
fn bytes_may_come_one_by_one() {
    for node in echo_nodes(1) {
        let mut stream = node.connect();
        for byte in 0..=255_u8 {
            check_echo(&mut stream, &[byte]);
        }
        for byte in 0..=255_u8 {
            stream.write_all(&[byte]).unwrap();
        }
        assert_eq!(read(&mut stream, 256), (0..=255).collect::<Vec<u8>>());
    }
}

#[test]
fn a_slow_reader_costs_only_itself() {
    for driver in drivers() {
        let mut plan = Plan::new(driver, 1);
        plan.net.output_size_max = 1 << 20;
        let node = plan.start(|_| echo);
        let mut slow = node.connect();
        let mut other = node.connect();
        slow.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        let chunk = vec![7; 64 << 10];
        let begin = Instant::now();
        // Writes until the server cuts the connection off.
        loop {
            assert!(begin.elapsed() < common::PATIENCE, "the slow reader was not cut off");
            check_echo(&mut other, b"still here");
            match slow.write(&chunk) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
        check_echo(&mut other, b"and after");
        node.wait_for(1, |counters| counters.closed_slow.get());
        node.wait_for(1, |counters| counters.open.get());
        node.wait_for(0, |counters| counters.output_size.get());
    }
}

#[test]
fn a_half_closed_socket_gets_its_answers_and_the_end() {
    for node in echo_nodes(1) {
        for size in [1, 1000, 300_000] {
            let mut stream = node.connect();
            let bytes = vec![b'h'; size];
            let mut reader = stream.try_clone().unwrap();
            let thread = std::thread::spawn(move || {
                let mut got = Vec::new();
                reader.read_to_end(&mut got).unwrap();
                got
            });
            stream.write_all(&bytes).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(thread.join().unwrap().len(), size);
        }
        node.wait_for(0, |counters| counters.open.get());
    }
}

/// Answers `n` bytes of anything with `n` kibibytes, then closes.
fn answer_and_close(_: Now, inbox: &mut Inbox, outbox: &mut Outbox) -> Stepped {
    for event in inbox.events.drain(..) {
        if let Event::Bytes { conn, range } = event {
            for _ in range {
                write(outbox, conn, &[b'a'; 1024]);
            }
            outbox.effects.push(Effect::Close { conn });
            write(outbox, conn, b"too late");
        }
    }
    IDLE
}

#[test]
fn a_close_sends_what_was_written_before() {
    for driver in drivers() {
        let node = Plan::new(driver, 1).start(|_| answer_and_close);
        for count in [1, 100, 3000] {
            let mut stream = node.connect();
            stream.write_all(&vec![b'q'; count]).unwrap();
            let mut got = Vec::new();
            // Slow enough that most of it is still in the server when the close comes.
            std::thread::sleep(Duration::from_millis(20));
            stream.read_to_end(&mut got).unwrap();
            assert_eq!(got.len(), 1024 * count);
            assert!(got.iter().all(|&byte| byte == b'a'));
            assert!(is_closed(&mut stream));
        }
        node.wait_for(0, |counters| counters.open.get());
        assert_eq!(node.sum(|counters| counters.closed_late.get()), 0);
    }
}

#[test]
fn a_peer_that_never_closes_is_cut_off() {
    for driver in drivers() {
        let mut plan = Plan::new(driver, 1);
        plan.net.close_ms = 100;
        let node = plan.start(|_| answer_and_close);
        // One that reads its answer and stays, and one that does not even read.
        let mut polite = node.connect();
        polite.write_all(b"q").unwrap();
        let mut got = Vec::new();
        polite.read_to_end(&mut got).unwrap();
        let mut deaf = node.connect();
        deaf.write_all(&[b'q'; 3500]).unwrap();
        node.wait_for(2, |counters| counters.closed_late.get());
        node.wait_for(0, |counters| counters.open.get());
        node.wait_for(0, |counters| counters.output_size.get());
    }
}

#[test]
fn bytes_after_a_close_reach_nobody() {
    for driver in drivers() {
        let node = Plan::new(driver, 1).start(|_| {
            let mut is_closed = false;
            move |_: Now, inbox: &mut Inbox, outbox: &mut Outbox| {
                for event in inbox.events.drain(..) {
                    match event {
                        Event::Bytes { conn, .. } => {
                            assert!(!is_closed, "bytes after the close");
                            is_closed = true;
                            outbox.effects.push(Effect::Close { conn });
                        }
                        Event::Closed { .. } => panic!("told of its own close"),
                        _ => {}
                    }
                }
                IDLE
            }
        });
        let mut stream = node.connect();
        stream.write_all(b"first").unwrap();
        assert!(is_closed(&mut stream));
        for _ in 0..100 {
            if stream.write_all(b"more").is_err() {
                break;
            }
        }
        drop(stream);
        node.wait_for(0, |counters| counters.open.get());
    }
}

#[test]
fn a_refused_connection_is_closed_and_its_place_comes_back() {
    for driver in drivers() {
        let mut plan = Plan::new(driver, 2);
        plan.admission = Admission::new(0, 3);
        let node = plan.start(|_| echo);
        let mut held: Vec<TcpStream> = (0..3).map(|_| node.connect()).collect();
        for stream in &mut held {
            check_echo(stream, b"in");
        }
        assert!(is_closed(&mut node.connect()));
        node.wait_for(1, |counters| counters.refused.get());
        drop(held.pop());
        node.wait_for(2, |counters| counters.open.get());
        wait_until(
            || {
                let mut stream = node.connect();
                stream.write_all(b"x").is_ok() && stream.read(&mut [0]).is_ok_and(|n| n == 1)
            },
            || "the place did not come back".to_owned(),
        );
        check_echo(&mut held[0], b"still in");
    }
}

#[test]
fn places_are_used_again_with_another_id() {
    for driver in drivers() {
        let node = Plan::new(driver, 1).start(|_| {
            |_: Now, inbox: &mut Inbox, outbox: &mut Outbox| {
                for event in inbox.events.drain(..) {
                    if let Event::Opened { conn, .. } = event {
                        write(outbox, conn, &conn.0.to_be_bytes());
                    }
                }
                IDLE
            }
        });
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..50 {
            let mut stream = node.connect();
            let id = u64::from_be_bytes(read(&mut stream, 8).try_into().unwrap());
            assert!(id > 0 && seen.insert(id), "{id} came twice");
            drop(stream);
            node.wait_for(0, |counters| counters.open.get());
        }
    }
}
