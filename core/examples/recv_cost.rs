//! What one delivery costs: `cargo run --release -p jindou-core --example recv_cost`.
//!
//! Prints nanoseconds per operation for payloads of some sizes, best of five runs.
#![expect(clippy::unwrap_used, reason = "a measurement, not a service")]
#![expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "it measures time")]

use std::hint::black_box;
use std::time::Instant;

use jindou_core::wire::crypto::{Cipher, ClientKey, ServerKey};
use jindou_core::wire::frame::{Flags, Frame, RecvHead, Send, decode, encode, encode_recv};
use jindou_core::wire::inbound::{Inbound, Transport};
use jindou_core::wire::jsonrpc;
use jindou_core::wire::outbound::Framing;

const ROUNDS: u32 = 100_000;

fn measure(name: &str, rounds: u32, mut work: impl FnMut()) {
    let best = (0..5)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..rounds {
                work();
            }
            start.elapsed() / rounds
        })
        .min()
        .unwrap_or_default();
    println!("{name:<44} {:>8} ns", best.as_nanos());
}

fn main() {
    let cipher = Cipher::from_parts(*b"c230f91349d08277", *b"0123456789abcdef");
    let head = RecvHead {
        flags: Flags { red_dot: true, ..Flags::default() },
        from_uid: "user-000001",
        channel_id: "group-0000001",
        channel_type: 2,
        client_msg_no: "5d2c7f3e9b1a4c0d8e6f5d2c7f3e9b1a",
        message_id: 1_834_567_890_123_456_789,
        message_seq: 123_456,
        timestamp: 1_700_000_000,
        ..RecvHead::default()
    };
    let mut out = Vec::with_capacity(1 << 16);
    for size in [16, 128, 1_024] {
        let payload = vec![b'x'; size];
        measure(&format!("RECV, encrypted, {size} B"), ROUNDS, || {
            out.clear();
            encode_recv(&mut out, 5, &head, Some(&cipher), black_box(&payload)).unwrap();
            black_box(&out);
        });
        measure(&format!("RECV, encrypted, WebSocket, {size} B"), ROUNDS, || {
            out.clear();
            Framing::Binary
                .write(&mut out, |out| {
                    encode_recv(out, 5, &head, Some(&cipher), black_box(&payload))
                })
                .unwrap();
            black_box(&out);
        });
        measure(&format!("RECV, plain, {size} B"), ROUNDS, || {
            out.clear();
            encode_recv(&mut out, 5, &head, None, black_box(&payload)).unwrap();
            black_box(&out);
        });
        measure(&format!("recv, JSON-RPC, {size} B"), ROUNDS, || {
            out.clear();
            jsonrpc::encode_recv(&mut out, &head, black_box(&payload));
            black_box(&out);
        });
        let mut sealed = Vec::new();
        cipher.seal(&payload, &mut sealed);
        let mut send = Send {
            client_seq: 7,
            client_msg_no: head.client_msg_no,
            channel_id: head.channel_id,
            channel_type: 2,
            payload: &sealed,
            ..Send::default()
        };
        let key = cipher.send_key(&send);
        send.msg_key = std::str::from_utf8(&key).unwrap();
        let mut packet = Vec::new();
        encode(&Frame::Send(send), 5, &mut packet).unwrap();
        measure(&format!("SEND, read, verified, opened, {size} B"), ROUNDS, || {
            let Ok(Some((Frame::Send(send), _))) = decode(black_box(&packet), 5) else {
                return;
            };
            assert!(cipher.verify_send(&send));
            out.clear();
            cipher.open(send.payload, &mut out).unwrap();
            black_box(&out);
        });
        let mut inbound = Inbound::new(Transport::Tcp, true);
        measure(&format!("SEND, read only, through Inbound, {size} B"), ROUNDS, || {
            let mut feed = inbound.feed(black_box(&mut packet));
            let mut answers = Vec::new();
            while let Ok(Some(incoming)) = feed.next(&mut answers) {
                black_box(incoming);
            }
        });
    }
    measure("key schedule", ROUNDS, || {
        black_box(black_box(&cipher).prepare());
    });
    let client = ClientKey::from_seed([7; 32]);
    measure("server key pair and agreement", 2_000, || {
        let server = ServerKey::from_seed(black_box([9; 32]));
        black_box(server.agree(client.public_base64(), *b"0123456789abcdef").unwrap());
    });
    println!("Inbound {} B, Cipher {} B", size_of::<Inbound>(), size_of::<Cipher>());
}
