//! What a shard makes of lost leadership and of entries that others have proposed. Found by the
//! fuzz target `shard`.
#![expect(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]

mod world;

use jindou_core::{
    entry::{Command, Entry, EntryHead},
    id::{ChannelId, ShardId, SlotId, person_channel},
    request::{Reply, Request},
};
use world::World;

/// A peer of ann's whose home is on another shard than their channel.
fn far_peer(world: &World) -> &'static str {
    let shard = |id: &str| {
        ShardId::of(SlotId::of(id, world.settings.slot_count), world.settings.shard_count)
    };
    ["bob", "eve", "kim", "lou", "max"]
        .into_iter()
        .find(|peer| shard(peer) != shard(&person_channel("ann", peer)))
        .expect("a peer")
}

#[test]
fn a_send_at_the_gate_goes_to_the_next_leader_when_its_slot_resigns() {
    let mut world = World::new(3);
    let peer = far_peer(&world);
    let ann = world.connect("ann");
    let channel = ChannelId::new(person_channel("ann", peer), 1);
    let slot = channel.slot(world.settings.slot_count);
    let id = channel.id.clone();
    assert!(matches!(world.ask_wait(&id, Request::LastSeq { channel }), Reply::LastSeq(0)));
    // The channel is loaded; the peer, who is asked about the sender, is not.
    world.hold_reads = true;
    world.send(ann, peer, 1, "gated");
    world.run();
    assert!(world.heard(ann).is_empty());
    world.lead(slot, false);
    world.run();
    assert!(world.heard(ann).is_empty());
    // The peer's answer comes too late and changes nothing.
    world.release_reads();
    assert!(world.heard(ann).is_empty());
    world.lead(slot, true);
    world.run();
    let heard = world.heard(ann);
    assert_eq!((&heard[0]["id"], &heard[0]["result"]["messageSeq"]), (&"gated".into(), &1.into()));
    assert_eq!(world.send_wait(ann, peer, 1, "gated").1, 1);
}

#[test]
fn a_first_message_is_answered_though_the_receivers_slot_has_no_leader() {
    let mut world = World::new(1);
    let slot_of = |id: &str| SlotId::of(id, 8);
    let others = ["bob", "eve", "kim", "lou", "max"];
    let peer = others
        .into_iter()
        .find(|peer| slot_of(peer) != slot_of(&person_channel("ann", peer)))
        .expect("a peer");
    let (ann, _) = (world.connect("ann"), world.connect(peer));
    world.hold_commits = true;
    world.send(ann, peer, 1, "first");
    world.run();
    world.lead(slot_of(peer), false);
    world.release_commits();
    assert!(world.heard(ann).is_empty(), "the peer's conversation is not open yet");
    world.advance(6_000);
    assert_eq!(world.heard(ann)[0]["result"]["reasonCode"], 15);
    world.lead(slot_of(peer), true);
    world.advance(6_000);
    assert!(world.heard(ann).is_empty());
    assert_eq!(world.send_wait(ann, peer, 1, "first").1, 1, "unknown, never twice");
}

#[test]
fn a_send_that_comes_during_the_login_waits_for_it() {
    for shards in [1, 3] {
        let mut world = World::new(shards);
        world.hold_reads = true;
        let (ann, answer) = world.try_connect("ann", "d", 0, "");
        assert!(answer.is_null());
        world.send(ann, "bob", 1, "early");
        world.run();
        world.send(ann, "bob", 1, "next");
        world.run();
        world.release_reads();
        let heard = world.heard(ann);
        let ids: Vec<&str> = heard.iter().filter_map(|answer| answer["id"].as_str()).collect();
        assert_eq!(ids, ["c", "early", "next"]);
    }
}

#[test]
fn a_flood_during_the_login_ends_the_connection() {
    let mut world = World::new(1);
    world.hold_reads = true;
    let (ann, _) = world.try_connect("ann", "d", 0, "");
    let padding = serde_json::Value::from("x".repeat(1 << 20));
    for _ in 0..5 {
        world.say(ann, &padding);
        world.run();
    }
    assert!(world.is_closed(ann));
}

#[test]
fn an_entry_that_needs_many_rows_looks_for_them_once() {
    let mut world = World::new(1);
    let uids: Vec<String> = (0..2_000).map(|n| format!("u{n}")).collect();
    let members: Vec<&str> = uids.iter().map(String::as_str).collect();
    // Opens a conversation for each, a few hundred in each slot, none of them in memory.
    world.group("g", &members);
    world.advance(1_000);
    assert_eq!(world.store.conversations.len(), members.len());
}

#[test]
fn who_left_during_the_login_is_not_online_afterwards() {
    for shards in [1, 3] {
        let mut world = World::new(shards);
        world.hold_reads = true;
        let (ann, answer) = world.try_connect("ann", "d", 0, "");
        assert!(answer.is_null());
        // Longer than a login may take: the connection ends while its home still reads.
        world.advance(5_000);
        assert!(world.is_closed(ann));
        world.release_reads();
        let reply = world.ask_wait("ann", Request::Online { uids: vec!["ann".into()] });
        assert!(matches!(&reply, Reply::Online(items) if items.is_empty()), "{reply:?}");
    }
}

#[test]
fn an_entry_that_names_the_last_index_of_all_breaks_nothing() {
    let mut world = World::new(1);
    let head = EntryHead { proposer: 1, proposal: 1, time_ms: 1 };
    for target in [0, 1, u16::MAX] {
        let commands = vec![
            Command::OutboxDone { target, index: u64::MAX },
            Command::FromOutbox { source: target, index: u64::MAX, changes: Vec::new() },
        ];
        world.commit_foreign(SlotId(1), Entry { head, commands }.encode().unwrap());
    }
    let ann = world.connect("ann");
    assert_eq!(world.send_wait(ann, "bob", 1, "1").1, 1);
}
