//! A WebSocket connection in any pieces, mostly behind a good upgrade.
#![no_main]

use jindou_core::wire::inbound::{Inbound, Transport};
use libfuzzer_sys::fuzz_target;

mod pieces;

const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

fuzz_target!(|data: &[u8]| {
    let Some((&choice, rest)) = data.split_first() else {
        return;
    };
    let mut inbound = Inbound::new(Transport::Ws, choice & 1 == 0);
    inbound.set_version(choice >> 5);
    let piece = usize::from(choice >> 2 & 0x07) + 2;
    if choice & 2 == 0 {
        pieces::check(inbound, &[UPGRADE, rest].concat(), piece);
    } else {
        pieces::check(inbound, rest, piece);
    }
});
