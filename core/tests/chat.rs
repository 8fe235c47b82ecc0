//! Stories of one node without sockets or disks: what a shard promises, on one shard and on three.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod world;

use jindou_core::{
    channel_info::{List, ListChange},
    id::ChannelId,
    networks::Block,
    request::{Failure, Reply, Request},
    settings::Settings,
};
use world::{Store, World};

fn on_one_and_three_shards(story: impl Fn(World)) {
    story(World::new(1));
    story(World::new(3));
}

#[test]
fn two_people_chat_and_the_seqs_are_dense() {
    on_one_and_three_shards(|mut world| {
        let (ann, bob) = (world.connect("ann"), world.connect("bob"));
        assert_eq!(world.send_wait(ann, "bob", 1, "1").1, 1);
        assert_eq!(world.send_wait(bob, "ann", 1, "1").1, 2);
        assert_eq!(world.send_wait(ann, "bob", 1, "2").1, 3);
        assert_eq!(world.received(bob), [1, 3]);
        assert_eq!(world.received(ann), [2]);
    });
}

#[test]
fn g1_nothing_is_acknowledged_before_it_is_committed() {
    on_one_and_three_shards(|mut world| {
        world.group("g", &["ann", "bob"]);
        let (ann, bob) = (world.connect("ann"), world.connect("bob"));
        world.hold_commits = true;
        world.send(ann, "g", 2, "1");
        let token = world.ask("h", Request::Disband { channel: ChannelId::new("h", 2) });
        world.run();
        assert!(world.heard(ann).is_empty() && world.heard(bob).is_empty());
        assert!(world.answer(token).is_none());
        world.release_commits();
        assert_eq!(world.received(bob), [1]);
        assert!(matches!(world.answer(token), Some(Reply::Done)));
    });
}

#[test]
fn g4_a_repeated_client_number_gets_the_first_place_and_no_second_push() {
    on_one_and_three_shards(|mut world| {
        let (ann, bob) = (world.connect("ann"), world.connect("bob"));
        let first = world.send_wait(ann, "bob", 1, "same");
        world.send_wait(ann, "bob", 1, "other");
        let again = world.connect("ann");
        assert_eq!(world.send_wait(again, "bob", 1, "same"), first);
        assert_eq!(world.received(bob), [1, 2]);
        world.restart();
        let after = world.connect("ann");
        assert_eq!(world.send_wait(after, "bob", 1, "same"), first);
        assert_eq!(
            world
                .store
                .last_seq(&ChannelId::new("bob@ann", 1))
                .max(world.store.last_seq(&ChannelId::new("ann@bob", 1))),
            2
        );
    });
}

#[test]
fn g4_the_same_number_twice_in_one_entry_is_stored_once() {
    let mut world = World::new(1);
    let ann = world.connect("ann");
    world.hold_commits = true;
    world.send(ann, "bob", 1, "first");
    world.run();
    world.send(ann, "bob", 1, "same");
    world.send(ann, "bob", 1, "same");
    world.run();
    world.release_commits();
    let seqs: Vec<u64> =
        world.heard(ann).iter().map(|o| o["result"]["messageSeq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, [1, 2, 2]);
}

#[test]
fn g6_five_hundred_in_flight_keep_their_order_through_a_cold_gate() {
    on_one_and_three_shards(|mut world| {
        let (ann, bob) = (world.connect("ann"), world.connect("bob"));
        for n in 0..500 {
            world.send(ann, "bob", 1, &format!("n{n:03}"));
        }
        world.run();
        let acks: Vec<(String, u64)> = world
            .heard(ann)
            .iter()
            .map(|o| {
                let seq = o["result"]["messageSeq"].as_u64().unwrap();
                (o["id"].as_str().unwrap().to_owned(), seq)
            })
            .collect();
        let want: Vec<(String, u64)> = (0..500).map(|n| (format!("n{n:03}"), n + 1)).collect();
        assert_eq!(acks, want);
        assert_eq!(world.received(bob), (1..=500).collect::<Vec<u64>>());
    });
}

#[test]
fn g9_a_removed_member_gets_nothing_that_comes_after_the_answer() {
    on_one_and_three_shards(|mut world| {
        world.group("g", &["ann", "bob"]);
        let (ann, bob) = (world.connect("ann"), world.connect("bob"));
        world.send_wait(ann, "g", 2, "1");
        let request = Request::ChangeList {
            channel: ChannelId::new("g", 2),
            list: List::Members,
            change: ListChange::Remove,
            uids: vec!["bob".into()],
        };
        assert!(matches!(world.ask_wait("g", request), Reply::Done));
        world.send_wait(ann, "g", 2, "2");
        assert_eq!(world.received(bob), [1]);
        assert_eq!(world.send_wait(bob, "g", 2, "3").0, 3);
        let row = (("bob").into(), ChannelId::new("g", 2));
        assert!(!world.store.conversations.contains_key(&row));
    });
}

#[test]
fn a_deny_list_of_the_receiver_acts_on_the_next_message() {
    on_one_and_three_shards(|mut world| {
        let (ann, bob) = (world.connect("ann"), world.connect("bob"));
        assert_eq!(world.send_wait(ann, "bob", 1, "1").0, 1);
        let change = |change| Request::ChangeList {
            channel: ChannelId::new("bob", 1),
            list: List::Deny,
            change,
            uids: vec!["ann".into()],
        };
        world.ask_wait("bob", change(ListChange::Add));
        assert_eq!(world.send_wait(ann, "bob", 1, "2").0, 4);
        assert_eq!(world.send_wait(bob, "ann", 1, "3").0, 1, "one direction only");
        world.ask_wait("bob", change(ListChange::Remove));
        assert_eq!(world.send_wait(ann, "bob", 1, "4").0, 1);
        assert_eq!(world.received(bob), [1, 3]);
    });
}

#[test]
fn an_answer_about_members_waits_for_their_conversations() {
    on_one_and_three_shards(|mut world| {
        world.hold_commits = true;
        let members: Vec<_> = (0..20).map(|n| format!("m{n}").as_str().into()).collect();
        let channel = ChannelId::new("g", 2);
        let request =
            Request::WriteChannel { channel: channel.clone(), info: None, reset: false, members };
        let token = world.ask("g", request);
        world.run();
        assert!(world.answer(token).is_none());
        world.release_commits();
        assert!(matches!(world.answer(token), Some(Reply::Done)));
        assert_eq!(world.store.conversations.len(), 20);
        world.advance(2_000);
        assert!(world.store.outbox.is_empty(), "confirmed rows are forgotten");
    });
}

#[test]
fn an_outbox_survives_a_restart_and_takes_effect_once() {
    on_one_and_three_shards(|mut world| {
        world.group("warm", &["ann"]);
        world.hold_commits = true;
        let ann = world.connect("ann");
        world.send(ann, "bob", 1, "1");
        world.run();
        // Only the message itself is committed; then the process dies.
        let (settings, mut logs) = ((*world.settings).clone(), world.logs.clone());
        world.release_commits();
        for (slot, log) in &world.logs {
            let known = logs.entry(*slot).or_default();
            if known.len() < log.len() && *slot == SLOT_OF_PAIR.slot(8) {
                known.push(log[known.len()].clone());
            }
        }
        let mut world = World::on_store(settings, Store::default(), logs);
        world.advance(5_000);
        let uids: Vec<&str> = world
            .store
            .conversations
            .keys()
            .filter(|(_, c)| c.kind == 1)
            .map(|(u, _)| &**u)
            .collect();
        assert_eq!(uids, ["ann", "bob"]);
        assert!(world.store.outbox.is_empty());
    });
}

static SLOT_OF_PAIR: std::sync::LazyLock<ChannelId> =
    std::sync::LazyLock::new(|| ChannelId::new(jindou_core::id::person_channel("ann", "bob"), 1));

#[test]
fn replay_from_nothing_and_from_a_snapshot_give_the_same_state() {
    on_one_and_three_shards(|mut world| {
        let ann = world.connect("ann");
        world.group("g", &["ann", "bob", "eve"]);
        let mut half = Store::default();
        for n in 0..60 {
            world.send_wait(
                ann,
                if n % 3 == 0 { "g" } else { "bob" },
                if n % 3 == 0 { 2 } else { 1 },
                &format!("{}", n % 40),
            );
            if n == 30 {
                half = world.store.clone();
            }
        }
        world.advance(2_000);
        let settings = (*world.settings).clone();
        let cold = World::replica(settings.clone(), Store::default(), world.logs.clone(), false);
        let warm = World::replica(settings, half, world.logs.clone(), false);
        assert_eq!(cold.store, world.store);
        assert_eq!(warm.store, world.store);
    });
}

#[test]
fn the_same_device_replaces_its_older_session() {
    on_one_and_three_shards(|mut world| {
        let (old, _) = world.try_connect("ann", "phone", 0, "");
        let (other, _) = world.try_connect("ann", "tablet", 0, "");
        let (new, _) = world.try_connect("ann", "phone", 0, "");
        assert!(world.is_closed(old) && !world.is_closed(other) && !world.is_closed(new));
        let bob = world.connect("bob");
        world.send_wait(bob, "ann", 1, "1");
        assert_eq!((world.received(other), world.received(new)), (vec![1], vec![1]));
    });
}

#[test]
fn a_master_ends_other_devices_with_a_word() {
    let settings =
        Settings { token_auth: true, slot_count: 8, shard_count: 2, ..Settings::default() };
    let mut world = World::with(settings);
    let token = |token: &str| Request::SetToken {
        uid: "ann".into(),
        device_flag: 0,
        device_level: 1,
        token: token.into(),
    };
    world.ask_wait("ann", token("t"));
    let (refused, answer) = world.try_connect("ann", "phone", 0, "wrong");
    assert_eq!(answer["error"]["code"], 2);
    assert!(world.is_closed(refused));
    let (old, _) = world.try_connect("ann", "phone", 0, "t");
    let (new, _) = world.try_connect("ann", "tablet", 0, "t");
    assert_eq!(world.heard(old)[0]["params"]["reason"], "login in other device");
    assert!(world.is_closed(old));
    world.ask_wait("ann", token("t2"));
    assert_eq!(world.heard(new)[0]["params"]["reasonCode"], 12);
    assert!(world.is_closed(new));
}

#[test]
fn an_unacknowledged_recv_comes_five_times_more_and_then_no_more() {
    let mut world = World::new(1);
    let (ann, bob) = (world.connect("ann"), world.connect("bob"));
    world.send_wait(ann, "bob", 1, "1");
    for _ in 0..10 {
        world.advance(60_000);
        for client in [ann, bob] {
            world.say(client, &serde_json::json!({"method": "ping", "id": "p"}));
        }
        world.run();
    }
    assert_eq!(world.received(bob), [1; 6]);
}

#[test]
fn silence_ends_a_connection_before_and_after_connect() {
    let mut world = World::new(1);
    let (mute, ann) = (world.open(), world.connect("ann"));
    world.advance(2_500);
    assert!(world.is_closed(mute) && !world.is_closed(ann));
    world.advance(181_000);
    assert!(world.is_closed(ann));
}

#[test]
fn a_caller_that_waits_too_long_is_told_so() {
    let mut world = World::new(1);
    let ann = world.connect("ann");
    world.hold_commits = true;
    world.send(ann, "bob", 1, "1");
    let token = world.ask(
        "g",
        Request::WriteChannel {
            channel: ChannelId::new("g", 2),
            info: None,
            reset: false,
            members: Vec::new(),
        },
    );
    world.advance(6_500);
    assert!(matches!(world.answer(token), Some(Reply::Failed(_))));
    assert_eq!(world.heard(ann)[0]["result"]["reasonCode"], 15);
    world.release_commits();
    assert_eq!(world.send_wait(ann, "bob", 1, "1").1, 1, "unknown, never twice");
}

#[test]
fn only_a_trusted_peer_may_name_the_client_and_only_once() {
    let peer_of = |trusted: &str, socket: &str| {
        let trusted_proxies = trusted.split_whitespace().map(|b| b.parse::<Block>().unwrap());
        let mut world = World::with(Settings {
            slot_count: 8,
            trusted_proxies: trusted_proxies.collect(),
            ..Settings::default()
        });
        let client = world.open_from(socket);
        world.say_bytes(client, b"PROXY TCP4 9.8.7.6 10.0.0.1 4711 5100\r\n");
        world.run();
        let Reply::Connections(infos) = world.ask_wait("x", Request::Connections) else {
            panic!("no connections");
        };
        assert!(!world.is_closed(client), "the header is skipped either way");
        infos[0].peer.to_string()
    };
    assert_eq!(peer_of("", "127.0.0.1:9"), "9.8.7.6:4711");
    assert_eq!(peer_of("", "8.8.8.8:9"), "8.8.8.8:9");
    assert_eq!(peer_of("8.8.8.0/24", "8.8.8.8:9"), "9.8.7.6:4711");
    assert_eq!(peer_of("8.8.8.0/24", "127.0.0.1:9"), "127.0.0.1:9");
}

#[test]
fn whoever_waits_is_answered_by_the_next_leader() {
    let mut world = World::new(1);
    let ann = world.connect("ann");
    world.send_wait(ann, "bob", 1, "0");
    world.hold_commits = true;
    world.send(ann, "bob", 1, "1");
    world.run();
    world.send(ann, "bob", 1, "2");
    world.run();
    world.lead_all(false);
    assert!(world.heard(ann).is_empty());
    world.release_commits();
    world.lead_all(true);
    let answers: Vec<(String, u64)> = world
        .heard(ann)
        .iter()
        .map(|o| (o["id"].as_str().unwrap().into(), o["result"]["messageSeq"].as_u64().unwrap()))
        .collect();
    assert_eq!(answers, [("1".into(), 2), ("2".into(), 3)]);
}

#[test]
fn without_a_leader_senders_are_told_in_the_end() {
    let mut world = World::new(1);
    let ann = world.connect("ann");
    world.send_wait(ann, "bob", 1, "0");
    world.lead_all(false);
    world.send(ann, "bob", 1, "1");
    let token = world.ask("bob", Request::Conversations { uid: "bob".into() });
    world.advance(4_000);
    assert!(world.heard(ann).is_empty());
    world.advance(2_000);
    assert_eq!(world.heard(ann)[0]["result"]["reasonCode"], 15);
    let answer = world.answer(token);
    assert!(matches!(answer, Some(Reply::Failed(Failure::NoLeader))), "{answer:?}");
}

#[test]
fn g18_one_user_opens_so_many_sessions_and_no_more() {
    let settings = Settings { sessions_per_user_max: 2, slot_count: 8, ..Settings::default() };
    let mut world = World::with(settings);
    let (first, _) = world.try_connect("ann", "a", 0, "");
    world.try_connect("ann", "b", 0, "");
    let (third, answer) = world.try_connect("ann", "c", 0, "");
    assert_eq!(answer["error"]["code"], 22);
    assert!(world.is_closed(third) && !world.is_closed(first));
    world.connect("bob");
}
