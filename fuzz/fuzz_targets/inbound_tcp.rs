//! A TCP connection in any pieces.
#![no_main]

use jindou_core::wire::inbound::{Inbound, Transport};
use libfuzzer_sys::fuzz_target;

mod pieces;

fuzz_target!(|data: &[u8]| {
    let Some((&choice, bytes)) = data.split_first() else {
        return;
    };
    let mut inbound = Inbound::new(Transport::Tcp, choice & 1 == 0);
    inbound.set_version(choice >> 5);
    pieces::check(inbound, bytes, usize::from(choice >> 1 & 0x0f) + 2);
});
