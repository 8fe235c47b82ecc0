//! Links that break, peers that stall, strangers.

use std::{
    io::{Read, Write},
    net::TcpListener,
    time::{Duration, Instant},
};

use bytes::Bytes;
use jindou_core::{
    effect::{PeerState, Place},
    id::{NodeId, ShardId},
};
use jindou_net::{LinkError, link::frame::Frame};

use crate::{
    cluster::{Actor, Plan, Proxy, Seen, hello, numbers, pause, side},
    common::{connect, drivers, is_closed, wait_until},
};

const FIRST: Place = Place::Shard(ShardId(0));

#[test]
fn one_broken_link_takes_the_bundle_down_and_up_again() {
    for driver in drivers() {
        let (a, b) = (Plan::new(driver, 1, 1).start(), Plan::new(driver, 2, 3).start());
        let proxy = Proxy::new(b.address);
        a.dial(2, proxy.address);
        a.wait_for_up(2);
        let nothing = Bytes::from_static(b"nothing");
        let waiting = a.ask_on(0, move |links| links.call(NodeId(2), 0, FIRST, nothing));
        assert!(a.on(0, |links| links.status()[0].ask_count <= 1));
        proxy.cut(1);
        a.wait_for_peer(2, |state| state == PeerState::Down);
        assert!(matches!(waiting.recv().unwrap(), Err(LinkError::Broken(_))));
        a.wait_for_peer(2, |s| s == PeerState::Up { incarnation: 200, shard_count: 3 });
        let answer =
            a.wait_on(0, |links| links.call(NodeId(2), 0, FIRST, Bytes::from_static(b"x")));
        assert_eq!(answer.unwrap(), "1 0 0 x");
        assert_eq!(a.on(0, |links| links.status()[0].resets), 1);
        assert_eq!(a.counters()[0].links_open.get(), 3);
    }
}

#[test]
fn a_node_that_stays_away_is_dead_and_may_come_back() {
    for driver in drivers() {
        let (a, b) = (Plan::new(driver, 1, 2).start(), Plan::new(driver, 2, 1).start());
        let proxy = Proxy::new(b.address);
        a.dial(2, proxy.address);
        b.dial(1, a.address);
        a.wait_for_up(2);
        b.wait_for_up(1);
        proxy.set_open(false);
        proxy.cut(usize::MAX);
        let begin = Instant::now();
        a.wait_for_peer(2, |state| state == PeerState::Down);
        a.wait_for_peer(2, |state| state == PeerState::Dead);
        assert!(begin.elapsed() >= Duration::from_millis(1_400));
        // Its own way in was open all the time. It learns that it was given up.
        b.wait_for_peer(1, |state| state == PeerState::Down);
        b.wait_for_up(1);
        assert!(!a.on(0, |links| links.is_up(NodeId(2))));
        proxy.set_open(true);
        a.wait_for_up(2);
    }
}

#[test]
fn a_node_that_starts_anew_is_up_with_another_incarnation() {
    for driver in drivers() {
        let (a, b) = (Plan::new(driver, 1, 1).start(), Plan::new(driver, 2, 2).start());
        a.dial(2, b.address);
        b.dial(1, a.address);
        a.wait_for_up(2);
        b.wait_for_up(1);
        let address = b.address;
        drop(b);
        a.wait_for_peer(2, |state| state == PeerState::Down);
        let mut plan = Plan::new(driver, 2, 3);
        plan.settings.incarnation = 201;
        let b = plan.start_at(address);
        b.dial(1, a.address);
        a.wait_for_peer(2, |s| s == PeerState::Up { incarnation: 201, shard_count: 3 });
        b.wait_for_up(1);
        let answer = a.wait_on(0, |links| {
            links.call(NodeId(2), 0, Place::Shard(ShardId(2)), Bytes::from_static(b"x"))
        });
        assert_eq!(answer.unwrap(), "1 2 0 x");
    }
}

#[test]
fn a_peer_that_does_not_answer_is_down() {
    for driver in drivers() {
        let a = Plan::new(driver, 1, 1).start();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        a.dial(2, listener.local_addr().unwrap());
        let actor = Actor::accept(&listener, side(2, 5));
        a.wait_for_peer(2, |s| s == PeerState::Up { incarnation: 5, shard_count: 1 });
        let begin = Instant::now();
        a.wait_for_peer(2, |state| state == PeerState::Down);
        let elapsed = begin.elapsed().as_millis();
        assert!((500..2_000).contains(&elapsed), "{elapsed}");
        drop(actor);
    }
}

#[test]
fn a_shard_that_stalls_is_down_for_others_and_does_not_blame_them() {
    for driver in drivers() {
        let (a, b) = (Plan::new(driver, 1, 1).start(), Plan::new(driver, 2, 1).start());
        a.dial(2, b.address);
        b.dial(1, a.address);
        a.wait_for_up(2);
        b.wait_for_up(1);
        b.post(0, |_| pause(1_200));
        a.wait_for_peer(2, |state| state == PeerState::Down);
        a.wait_for_up(2);
        // Pongs lay in its sockets all the time.
        let status = b.on(0, |links| links.status());
        assert_eq!(status[0].resets, 0, "{:?}", status[0].trouble);
    }
}

#[test]
fn a_dialler_that_falls_silent_loses_its_link() {
    for driver in drivers() {
        let mut plan = Plan::new(driver, 1, 1);
        plan.settings.silence_ms = 500;
        let a = plan.start();
        let mut actor = Actor::enter(a.address, &hello(2, 5));
        for time in 0..8 {
            actor.say(&Frame::Ping(time));
            assert_eq!(actor.hear(), Some(Frame::Pong(time)));
            pause(100);
        }
        let begin = Instant::now();
        assert_eq!(actor.hear(), None);
        assert!(begin.elapsed() >= Duration::from_millis(300));
        wait_until(|| a.counters()[0].links_accepted.get() == 0, || "still there".to_owned());
    }
}

#[test]
fn a_peer_that_does_not_read_costs_its_own_bundle() {
    for driver in drivers() {
        let mut plan = Plan::new(driver, 1, 1);
        plan.settings.timeout_ms = 60_000;
        plan.settings.output_size_max = 8 << 20;
        let a = plan.start();
        let b = Plan::new(driver, 3, 1).start();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        a.dial(2, listener.local_addr().unwrap());
        a.dial(3, b.address);
        let mut actor = Actor::accept(&listener, side(2, 5));
        a.wait_for_up(3);
        wait_until(|| a.on(0, |links| links.is_up(NodeId(2))), || "never up".to_owned());
        let mut sent = 0;
        while a.on(0, |links| {
            let fill = |out: &mut Vec<u8>| out.resize(out.len() + (1 << 20), 5);
            links.send(NodeId(2), FIRST, fill).is_ok()
        }) {
            sent += 1;
            assert!(sent < 100, "no bound");
            assert!(a.on(0, |links| links.status()[0].queue_size) <= 9 << 20);
        }
        assert!(sent >= 8);
        a.wait_for_peer(2, |state| state == PeerState::Down);
        assert!(a.on(0, |links| links.is_up(NodeId(3))));
        let answer =
            a.wait_on(0, |links| links.call(NodeId(3), 0, FIRST, Bytes::from_static(b"x")));
        assert_eq!(answer.unwrap(), "1 0 0 x");
        // What had left before comes in whole frames, then the end.
        while actor.hear().is_some() {}
    }
}

/// Pings wait behind a large frame on a slow network: what moves is alive.
#[test]
fn a_large_frame_that_leaves_slowly_is_no_silence() {
    for driver in drivers() {
        let a = Plan::new(driver, 1, 1).start();
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        // What the peer's kernel holds is not on its way any more.
        socket.set_recv_buffer_size(64 << 10).unwrap();
        let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(&any.into()).unwrap();
        socket.listen(1).unwrap();
        let listener = TcpListener::from(socket);
        a.dial(2, listener.local_addr().unwrap());
        let mut actor = Actor::accept(&listener, side(2, 5));
        a.wait_for_up(2);
        let size = 12 << 20;
        let fill = move |out: &mut Vec<u8>| out.resize(out.len() + size, 5);
        assert!(a.on(0, move |links| links.send(NodeId(2), FIRST, fill).is_ok()));
        let begin = Instant::now();
        let mut left = size;
        let mut buffer = vec![0; 256 << 10];
        while left > 0 {
            left = left.saturating_sub(actor.stream.read(&mut buffer).unwrap());
            let due = Duration::from_micros(2_000 * ((size - left) as u64 >> 13));
            std::thread::sleep(due.saturating_sub(begin.elapsed()));
        }
        assert!(begin.elapsed() > Duration::from_secs(2));
        assert!(a.on(0, |links| links.is_up(NodeId(2))));
        a.wait_for_peer(2, |state| state == PeerState::Down);
    }
}

#[test]
fn a_frame_over_the_bound_closes_that_link_only() {
    for driver in drivers() {
        let mut plan = Plan::new(driver, 1, 1);
        plan.settings.frame_size_max = 1 << 20;
        let a = plan.start();
        let b = Plan::new(driver, 3, 1).start();
        b.dial(1, a.address);
        b.wait_for_up(1);
        let mut actor = Actor::enter(a.address, &hello(2, 5));
        actor.say(&Frame::Envelopes(Bytes::from(vec![0; 16])));
        let body = a.wait_for(|seen| match seen {
            Seen::Envelopes { body, .. } => Some(body),
            _ => None,
        });
        assert_eq!(numbers(&body), [0, 0]);
        actor.stream.write_all(&((1 << 20) + 1_u32).to_le_bytes()).unwrap();
        assert_eq!(actor.hear(), None);
        // Nor is anything taken that has no place there.
        for wrong in [Frame::Welcome, Frame::Pong(1), Frame::Hello(Bytes::from_static(b"x"))] {
            let mut actor = Actor::enter(a.address, &hello(2, 5));
            actor.say(&wrong);
            assert_eq!(actor.hear(), None);
        }
        assert_eq!(b.on(0, |links| links.status()[0].resets), 0);
        assert!(b.on(0, |links| links.is_up(NodeId(1))));
    }
}

#[test]
fn garbage_and_silence_on_the_port_harm_nobody() {
    for driver in drivers() {
        let mut plan = Plan::new(driver, 1, 2);
        plan.settings.greeting_count_max = 20;
        plan.settings.handshake_ms = 400;
        let a = plan.start();
        let b = Plan::new(driver, 2, 2).start();
        b.dial(1, a.address);
        b.wait_for_up(1);
        let mut dice = 12_345_u64;
        for size in 0..60 {
            let mut stream = connect(a.address);
            let garbage: Vec<u8> = (0..size * 7)
                .map(|_| {
                    dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    dice.to_le_bytes()[7]
                })
                .collect();
            let _ = stream.write_all(&garbage);
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            drop(stream);
        }
        // Silent ones: bounded in number, then in time.
        let mut silent: Vec<_> = (0..60).map(|_| connect(a.address)).collect();
        for stream in &mut silent {
            assert!(is_closed(stream));
        }
        assert_eq!(b.on(0, |links| links.status()[0].resets), 0);
        let c = Plan::new(driver, 3, 1).start();
        c.dial(1, a.address);
        c.wait_for_up(1);
    }
}

/// A node that says something before this one knows that it is there is heard after that.
#[test]
fn what_a_new_incarnation_sends_comes_after_the_word_that_it_is_up() {
    for driver in drivers() {
        let a = Plan::new(driver, 1, 1).start();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        a.dial(2, listener.local_addr().unwrap());
        let mut sender = Actor::enter(a.address, &hello(2, 5));
        sender.say(&Frame::Envelopes(Bytes::from(vec![0; 8])));
        sender.say(&Frame::Ping(1));
        assert_eq!(sender.hear(), Some(Frame::Pong(1)));
        sender.say(&Frame::Envelopes(Bytes::from(vec![0; 16])));
        let _actor = Actor::accept(&listener, side(2, 5));
        let mut story = Vec::new();
        while story.len() < 3 {
            story.push(a.wait_for(|seen| match seen {
                Seen::Peer { state: PeerState::Up { .. }, .. } => Some("up".to_owned()),
                Seen::Envelopes { body, .. } => Some(body.len().to_string()),
                _ => None,
            }));
        }
        assert_eq!(story, ["up", "8", "16"]);
    }
}
