//! G17 and G18: whatever comes on any port harms only its sender. In every test a well-behaved pair
//! chats on; each of its messages must arrive.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::client::{Channel, Client, Login, Transport};
use crate::support::http;
use crate::support::node::Node;
use crate::support::{Dice, PATIENCE, alone, eventually, open_files};

/// Largest remaining length of a frame.
const FRAME_MAX: u32 = 1_048_576;

/// Two users who must not notice anything.
struct Pair {
    ann: Client,
    bob: Client,
    count: u32,
    slowest: Duration,
}

impl Pair {
    fn new(node: &Node) -> Self {
        Self {
            ann: Client::connect(node, "pair-ann", Transport::Tcp),
            bob: Client::connect(node, "pair-bob", Transport::Ws),
            count: 0,
            slowest: Duration::ZERO,
        }
    }

    /// A message there and one back.
    fn chat(&mut self) {
        self.count += 1;
        let (start, text) = (Instant::now(), format!("message {}", self.count));
        for (from, to) in [(true, "pair-bob"), (false, "pair-ann")] {
            let (sender, receiver) = match from {
                true => (&mut self.ann, &mut self.bob),
                false => (&mut self.bob, &mut self.ann),
            };
            sender.deliver(&Channel::person(to), &format!("{text} {from}"), text.as_bytes());
            assert_eq!(receiver.receive().payload, text.as_bytes());
        }
        self.slowest = self.slowest.max(start.elapsed());
    }

    /// They chat on, and the node is well.
    fn end(mut self, node: &mut Node) {
        for _ in 0..10 {
            self.chat();
        }
        assert!(node.is_alive());
        println!("{} messages both ways, the slowest took {:?}", self.count, self.slowest);
    }
}

/// Waits until the server has ended a connection; what it said before.
fn until_closed(socket: &mut TcpStream) -> Vec<u8> {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut said = Vec::new();
    match socket.read_to_end(&mut said) {
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
        Err(e) => panic!("not closed in {PATIENCE:?}: {e}"),
    }
    said
}

/// Of the doors that a single node need not have, those that it has.
fn optional_doors(node: &Node) -> Vec<String> {
    let doors = [node.demo(), node.cluster()];
    doors.into_iter().filter(|address| TcpStream::connect(address).is_ok()).collect()
}

/// The head of a frame of this type and remaining length.
fn head(kind: u8, mut size: u32) -> Vec<u8> {
    let mut out = vec![kind << 4];
    loop {
        let more = size > 0x7f;
        out.push((size & 0x7f) as u8 | if more { 0x80 } else { 0 });
        size >>= 7;
        if !more {
            return out;
        }
    }
}

#[test]
fn g17_garbage_on_every_port_harms_only_its_sender() {
    let mut dice = Dice::new("hostile::g17_garbage_on_every_port_harms_only_its_sender");
    let mut node = Node::start();
    let mut pair = Pair::new(&node);
    let mut addresses = vec![node.tcp(), node.ws(), node.api_address(), node.manager()];
    addresses.extend(optional_doors(&node));
    let openings: [&[u8]; 8] = [
        b"",
        b"{",
        b"{\"method\":\"connect\",\"params\":",
        b"PROXY TCP4 ",
        b"\r\n\r\n\0\r\nQUIT\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        b"POST /message/send HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST /message/send HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    ];
    for round in 0..40 {
        for address in &addresses {
            let mut socket = TcpStream::connect(address).unwrap();
            let size = dice.between(1, 3000) as usize;
            let garbage = [openings[round % openings.len()], &dice.bytes(size)].concat();
            // The server may have had enough before all is written.
            let _ = socket.write_all(&garbage);
            if dice.between(0, 2) == 0 {
                let _ = socket.shutdown(std::net::Shutdown::Write);
                until_closed(&mut socket);
            }
        }
        pair.chat();
    }
    pair.end(&mut node);
}

#[test]
fn g17_a_frame_that_was_cut_anywhere_only_ends_its_own_connection() {
    let mut node = Node::start();
    let mut pair = Pair::new(&node);
    let (connect, _) = Login::new("cut", Transport::Tcp).frame();
    let mut waiting = Vec::new();
    for size in 0..connect.len() {
        let mut socket = TcpStream::connect(node.tcp()).unwrap();
        socket.write_all(&connect[..size]).unwrap();
        waiting.push(socket);
        if size % 20 == 0 {
            pair.chat();
        }
    }
    // Each gives up within the deadline for CONNECT, without a word.
    for mut socket in waiting {
        assert_eq!(until_closed(&mut socket), b"");
    }
    pair.end(&mut node);
}

#[test]
fn g17_an_oversized_frame_is_refused_as_soon_as_its_length_is_known() {
    let mut node = Node::start();
    let mut pair = Pair::new(&node);
    let sizes = [FRAME_MAX + 1, 2 * FRAME_MAX, (1 << 28) - 1];
    for size in sizes {
        let mut stranger = TcpStream::connect(node.tcp()).unwrap();
        stranger.write_all(&head(1, size)).unwrap();
        assert_eq!(until_closed(&mut stranger), b"");
        for transport in [Transport::Tcp, Transport::Ws] {
            let mut known = Client::connect(&node, "known", transport);
            known.write(&[head(3, size)]).unwrap();
            known.closed();
        }
        pair.chat();
    }
    // A length that does not end, and WebSocket frames of 2^63 bytes.
    let mut stranger = TcpStream::connect(node.tcp()).unwrap();
    stranger.write_all(&[0x10, 0xff, 0xff, 0xff, 0xff, 0xff]).unwrap();
    until_closed(&mut stranger);
    let mut known = Client::connect(&node, "known", Transport::Ws);
    known.raw(&[&[0x82, 0xff, 0x7f][..], &[0xff; 7], &[0; 4]].concat()).unwrap();
    known.closed();
    pair.end(&mut node);
}

#[test]
fn g17_a_session_written_byte_by_byte_is_a_session() {
    let mut node = Node::start();
    let mut pair = Pair::new(&node);
    for transport in Transport::ALL {
        let mut slow = Client::connect(&node, &format!("slow-{transport:?}"), transport);
        let mut peer = Client::connect(&node, "peer", Transport::Tcp);
        let (client_seq, frame) = slow.frame(&Channel::person("peer"), "no", b"one by one");
        // On WebSocket a message may hold any part of a packet; JSON-RPC is whole objects there.
        match transport {
            Transport::Tcp | Transport::JsonTcp => {
                for byte in &frame {
                    slow.raw(&[*byte]).unwrap();
                }
            }
            Transport::Ws => {
                let pieces: Vec<_> = frame.iter().map(|byte| vec![*byte]).collect();
                slow.write(&pieces).unwrap();
            }
            Transport::Json => slow.write(&[frame]).unwrap(),
        }
        assert_eq!(slow.ack(client_seq).reason, 1);
        assert_eq!(peer.receive().payload, b"one by one");
        pair.chat();
    }
    pair.end(&mut node);
}

#[test]
fn g17_whole_frames_before_a_bad_one_are_handled() {
    let mut node = Node::start();
    let mut pair = Pair::new(&node);
    let mut peer = Client::connect(&node, "peer", Transport::Tcp);
    for bad in [vec![0x00, 0x00], vec![0xd0, 0x00], vec![0xf0, 0x01, 0x00], vec![0x30, 0x02, 0, 0]]
    {
        let mut sender = Client::connect(&node, "sender", Transport::Tcp);
        let no = format!("{bad:?}");
        let (_, good) = sender.frame(&Channel::person("peer"), &no, b"kept");
        sender.raw(&[good, bad].concat()).unwrap();
        // The connection may end before the SENDACK: the sender would send again.
        sender.closed();
        assert_eq!(peer.receive().client_msg_no, no);
        pair.chat();
    }
    pair.end(&mut node);
}

#[test]
fn g11_a_half_open_connection_is_closed_and_its_user_offline() {
    let mut node = Node::start_with(&[("WK_CONNIDLETIME", "2s")]);
    let mut pair = Pair::new(&node);
    for transport in Transport::ALL {
        let uid = format!("half-{transport:?}");
        let mut half = Client::connect(&node, &uid, transport);
        half.close_half();
        half.closed();
        // And one that says nothing more is closed after the idle time.
        let mut silent = Client::connect(&node, &format!("silent-{transport:?}"), transport);
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end && silent.next(Duration::from_millis(100)).is_none() {
            pair.chat();
        }
        eventually("offline", || node.api().connections(&uid).is_empty().then_some(()));
    }
    pair.end(&mut node);
}

#[test]
fn g17_10_000_connections_that_say_nothing_are_closed_and_nobody_waits_for_them() {
    const COUNT: usize = 10_000;
    let _alone = alone();
    open_files(COUNT as u64 + 1000);
    let mut node = Node::start();
    let mut pair = Pair::new(&node);
    let mut silent = Vec::new();
    for n in 0..COUNT {
        // Tenths of TCP and WebSocket, and of those that begin an upgrade.
        let address = if n % 10 < 5 { node.tcp() } else { node.ws() };
        let mut socket = TcpStream::connect(address).unwrap();
        if n % 10 > 7 {
            socket.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").unwrap();
        }
        silent.push(socket);
        if n % 500 == 0 {
            pair.chat();
        }
    }
    for (n, mut socket) in silent.into_iter().enumerate() {
        until_closed(&mut socket);
        if n % 500 == 0 {
            pair.chat();
        }
    }
    pair.end(&mut node);
}

#[test]
fn g18_a_slow_reader_costs_only_its_own_connection() {
    const BYTES_MAX: usize = 200 << 20;
    let _alone = alone();
    let mut node = Node::start();
    let mut pair = Pair::new(&node);
    // A session that is granted and never reads again: its CONNACK stays in the kernel.
    let mut slow = TcpStream::connect(node.tcp()).unwrap();
    slow.write_all(&Login::new("slow", Transport::Tcp).frame().0).unwrap();
    eventually("the slow session", || (!node.api().connections("slow").is_empty()).then_some(()));
    let group = node.api().group("stream", &["slow", "quick", "writer"]);
    let mut writer = Client::connect(&node, "writer", Transport::Tcp);
    let mut quick = Client::connect(&node, "quick", Transport::Tcp);
    let (payload, mut sent, mut n) = (vec![b'x'; 16_000], 0, 0);
    while !node.api().connections("slow").is_empty() {
        let seqs: Vec<_> = (0..64)
            .map(|_| {
                n += 1;
                writer.send(&group, &format!("no-{n}"), &payload).unwrap()
            })
            .collect();
        for client_seq in seqs {
            assert_eq!(writer.ack(client_seq).reason, 1);
            assert_eq!(quick.receive().payload.len(), payload.len());
        }
        sent += 64 * payload.len();
        pair.chat();
        assert!(sent < BYTES_MAX, "{sent} bytes wait for a reader that does not read");
    }
    println!("closed after {} MiB", sent >> 20);
    pair.end(&mut node);
}

#[test]
fn g17_strange_http_is_refused_and_harms_nobody() {
    let mut node = Node::start();
    let mut pair = Pair::new(&node);
    let post = |body: &str| {
        let size = body.len();
        format!(
            "POST /message/send HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n{body}"
        )
    };
    let deep = post(&("[".repeat(200_000)));
    let nested = post(&format!("{}1{}", "{\"header\":".repeat(5000), "}".repeat(5000)));
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(1 << 20));
    let many = format!("GET /health HTTP/1.1\r\n{}\r\n", "X-Y: z\r\n".repeat(20_000));
    let huge = "POST /message/send HTTP/1.1\r\nHost: x\r\nContent-Length: 1099511627776\r\n\r\n{}";
    let cases = [
        deep.as_str(),
        &nested,
        &long,
        &many,
        huge,
        &post("{\"payload\": \"\\ud800\"}"),
        &post("\u{0}\u{1}\u{2}"),
        "NONSENSE\r\n\r\n",
        "GET http://[::1 HTTP/9.9\r\n\r\n",
        "POST /channel HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "POST /channel HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    ];
    let mut addresses = vec![node.api_address(), node.manager()];
    addresses.extend(optional_doors(&node).into_iter().filter(|address| *address == node.demo()));
    for address in addresses {
        for case in cases {
            let mut socket = TcpStream::connect(&address).unwrap();
            let _ = socket.write_all(case.as_bytes());
            let _ = socket.shutdown(std::net::Shutdown::Write);
            let said = until_closed(&mut socket);
            let start = case.get(..40).unwrap_or(case);
            let refused = said.is_empty()
                || said.starts_with(b"HTTP/1.1 4")
                || said.starts_with(b"HTTP/1.1 5");
            assert!(refused, "{start:?}: {}", String::from_utf8_lossy(&said));
            pair.chat();
        }
    }
    let health = http::request(&node.api_address(), "GET", "/health", b"").unwrap();
    assert_eq!(health.status, 200);
    pair.end(&mut node);
}
