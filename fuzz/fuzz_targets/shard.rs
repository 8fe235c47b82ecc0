//! A node under any order of events: bytes of clients, requests, commits, losses, time.
#![no_main]

use jindou_core::{entry::DedupeWindow, settings::Settings};
use libfuzzer_sys::fuzz_target;

mod node;

use node::{Leads, Node, input::Input, operations};

/// Operations of one run.
const OPERATIONS_MAX: usize = 300;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let (choice, bounds) = (input.byte(), input.byte());
    let mut settings = Settings {
        shard_count: u16::from(choice & 1) + 1,
        slot_count: 4,
        token_auth: choice & 2 != 0,
        encryption_off: choice & 4 == 0,
        json_off: choice & 0xf8 == 0xf8,
        person_allow_off: choice & 8 == 0,
        manager_token: if choice & 16 == 0 { "" } else { "ann" }.into(),
        ..Settings::default()
    };
    if bounds & 1 != 0 {
        settings.cache_size_max = 1_000;
    }
    if bounds & 2 != 0 {
        (settings.unacked_count_max, settings.retry_count_max) = (2, 1);
    }
    if bounds & 4 != 0 {
        settings.dedupe_window = DedupeWindow { count_max: 2, ms: 1_000 };
    }
    if bounds & 8 != 0 {
        (settings.accumulator_size_max, settings.entry_size_target) = (600, 200);
    }
    if bounds & 16 != 0 {
        settings.state_queue_size_max = 300;
    }
    if bounds & 32 != 0 {
        settings.sends_per_second_max = 2;
    }
    if bounds & 64 != 0 {
        (settings.uid_size_max, settings.channel_id_size_max) = (3, 8);
    }
    let mut node = Node::new(settings);
    for _ in 0..OPERATIONS_MAX {
        if input.is_empty() {
            break;
        }
        operations::next(&mut node, &mut input);
    }
    node.finish([Leads::All, Leads::None, Leads::Some, Leads::All][usize::from(choice >> 5 & 3)]);
});
