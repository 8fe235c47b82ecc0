//! What a shard makes of lost leadership and of entries that others have proposed. Found by the
//! fuzz target `shard`.
#![expect(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]

mod world;

use jindou_core::{
    channel_info::ChannelInfo,
    entry::{Command, DedupeWindow, Entry, EntryHead},
    id::{ChannelId, LogId, Name, ShardId, SlotId, person_channel},
    request::{Reply, Request},
    row::{Persist, Row, Times},
    settings::Settings,
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
fn an_entry_whose_rows_are_larger_than_the_cache_is_applied() {
    let settings = Settings { slot_count: 8, cache_size_max: 1_000, ..Settings::default() };
    let mut world = World::with(settings);
    let uids: Vec<String> = (0..200).map(|n| format!("u{n}")).collect();
    // The store answers one by one: the first rows must still be there when the last comes.
    world.hold_reads = true;
    let members = uids.iter().map(|uid| Name::from(uid.as_str())).collect();
    let request = Request::WriteChannel {
        channel: ChannelId::new("g", 2),
        info: Some(ChannelInfo::default()),
        reset: false,
        members,
    };
    let token = world.ask("g", request);
    world.run();
    let reads = (0..10_000).take_while(|_| world.release_read()).count();
    assert!(reads < 300, "{reads} reads");
    assert!(matches!(world.answer(token), Some(Reply::Done)));
    assert_eq!(world.store.conversations.len(), uids.len());
    world.release_reads();
    // What was kept for the entry is let go.
    let Reply::Vars(vars) = world.ask_wait("g", Request::Vars) else { panic!("no counts") };
    assert!(vars.users_cached + vars.channels_cached < 10, "{vars:?}");
}

#[test]
fn rows_that_were_read_before_a_snapshot_are_not_heeded_after_it() {
    let mut world = World::new(1);
    let channel = ChannelId::new("g", 2);
    let slot = channel.slot(world.settings.slot_count);
    world.hold_reads = true;
    let early = world.ask("g", Request::ReadInfo { channel: channel.clone() });
    world.run();
    let applied = LogId { term: 1, node: 1, index: 7 };
    let info = ChannelInfo { ban: true, ..ChannelInfo::default() };
    let rows = vec![Row::Info { channel: channel.clone(), info, times: Times::default() }];
    world.store.persist(Persist { slot, applied, rows });
    world.install(slot);
    world.release_reads();
    // The caller waited for a leader that resigned, or heard what the snapshot says.
    match world.answer(early) {
        Some(Reply::Failed(_)) | Some(Reply::Info(Some(ChannelInfo { ban: true, .. }))) => {}
        other => panic!("{other:?}"),
    }
    let reply = world.ask_wait("g", Request::ReadInfo { channel });
    assert!(matches!(reply, Reply::Info(Some(info)) if info.ban), "{reply:?}");
}

#[test]
fn an_entry_of_before_a_snapshot_is_not_taken_for_one_of_after_it() {
    let mut world = World::new(1);
    let channel = ChannelId::new("g", 2);
    let slot = channel.slot(world.settings.slot_count);
    let write = |ban| Request::WriteChannel {
        channel: channel.clone(),
        info: Some(ChannelInfo { ban, ..ChannelInfo::default() }),
        reset: false,
        members: Vec::new(),
    };
    world.hold_reads = true;
    // Two entries are committed: the first waits for its row, the second behind it; each time all
    // who wait are told that the slot has no leader.
    for _ in 0..2 {
        let early = world.ask("g", write(true));
        world.run();
        world.install(slot);
        assert!(matches!(world.answer(early), Some(Reply::Failed(_)) | None));
    }
    world.hold_commits = true;
    let second = world.ask("g", write(false));
    world.run();
    world.release_reads();
    assert!(world.answer(second).is_none(), "it is not committed");
    world.release_commits();
    assert!(matches!(world.answer(second), Some(Reply::Done)));
}

#[test]
fn a_store_that_fails_to_read_is_asked_again_after_a_while() {
    let mut world = World::new(1);
    let ann = world.connect("ann");
    let before = world.read_count;
    world.fail_reads = true;
    // Of an entry: the channel of the list.
    let members = vec!["bob".into()];
    let channel = ChannelId::new("g", 2);
    let request = Request::WriteChannel { channel, info: None, reset: false, members };
    let token = world.ask("g", request);
    // Of a send: its channel.
    world.send(ann, "bob", 1, "1");
    world.run();
    world.advance(2_000);
    let asked = world.read_count - before;
    assert!((4..=10).contains(&asked), "{asked} reads in two seconds");
    assert!(world.answer(token).is_none() && world.heard(ann).is_empty());
    world.fail_reads = false;
    world.advance(1_000);
    assert!(matches!(world.answer(token), Some(Reply::Done)));
    assert!(world.heard(ann).iter().any(|answer| answer["result"]["messageSeq"] == 1));
}

#[test]
fn a_login_whose_rows_are_larger_than_the_cache_is_answered() {
    let settings =
        Settings { slot_count: 8, cache_size_max: 2, token_auth: true, ..Settings::default() };
    let mut world = World::with(settings);
    let set_token = Request::SetToken {
        uid: "ann".into(),
        device_flag: 0,
        device_level: 1,
        token: "secret".to_owned(),
    };
    assert!(matches!(world.ask_wait("ann", set_token), Reply::Done));
    let (_, answer) = world.try_connect("ann", "d", 0, "secret");
    assert_eq!(answer["result"]["reasonCode"], 1, "{answer}");
    let (_, answer) = world.try_connect("ann", "d", 0, "wrong");
    assert_eq!(answer["error"]["code"], 2, "{answer}");
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
    let head = EntryHead { proposer: 1, proposal: 1, time_ms: 1, window: DedupeWindow::default() };
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

/// A shard without work gives memory back, and reads again what is asked for.
#[test]
fn a_shard_at_rest_keeps_little() {
    let mut world = World::new(1);
    let ann = world.connect("ann");
    let count = 5_000;
    for n in 0..count {
        world.send(ann, &format!("p{n}"), 1, &n.to_string());
        if n % 500 == 0 {
            world.run();
        }
    }
    world.run();
    let cached = |world: &mut World| {
        let Reply::Vars(vars) = world.ask_wait("g", Request::Vars) else { panic!("no counts") };
        vars.channels_cached + vars.users_cached
    };
    let before = cached(&mut world);
    assert!(before > count);
    world.advance(11_000);
    let after = cached(&mut world);
    assert!(2 * after < before, "{after} of {before}");
    assert_eq!(world.send_wait(ann, "p1", 1, "again").1, 2);
}
