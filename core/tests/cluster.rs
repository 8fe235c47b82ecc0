//! Stories of several nodes: what clients of different nodes may rely on while links fail and
//! leaders move.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod nodes;

use jindou_core::{
    channel_info::{List, ListChange},
    id::{ChannelId, ShardId, person_channel},
    request::{ApiSend, ClusterWrite, Failure, Reply, Request, Target},
    shard::CLUSTER_SLOT,
};
use nodes::Nodes;

/// Three replicas of different size, and a node without any.
fn four() -> Nodes {
    Nodes::new(&[2, 1, 3, 2], 3, 8)
}

fn seqs(recvs: &[(String, u64)]) -> Vec<u64> {
    recvs.iter().map(|(_, seq)| *seq).collect()
}

#[test]
fn people_on_four_nodes_chat() {
    let mut nodes = four();
    let names = ["ann", "bob", "eve", "kim"];
    let clients: Vec<_> = (0..4).map(|n| nodes.connect(n, names[n])).collect();
    nodes.group("g", &names);
    for (n, client) in clients.iter().enumerate() {
        nodes.send(*client, "g", 2, &format!("{n}"));
        nodes.send(*client, names[(n + 1) % 4], 1, &format!("p{n}"));
        nodes.run();
    }
    for (n, client) in (1..).zip(&clients) {
        let (acks, recvs) = nodes.listen(*client);
        let seqs: Vec<(u64, u64)> = acks.iter().map(|ack| (ack.1, ack.2)).collect();
        assert!(seqs.contains(&(1, n)) && seqs.contains(&(1, 1)), "{acks:?}");
        assert_eq!(recvs.len(), 3 + 1);
    }
    nodes.advance(2_000);
    assert!(nodes.replicas_agree());
}

#[test]
fn pipelined_sends_keep_their_order_through_changes_of_leader() {
    for kill in [false, true] {
        let mut nodes = Nodes::new(&[2, 2, 2, 2], 3, 8);
        let (ann, bob) = (nodes.connect(3, "ann"), nodes.connect(3, "bob"));
        let channel = ChannelId::new(person_channel("ann", "bob"), 1);
        let slot = nodes.slot_of(&channel.id);
        nodes.lead(slot, 0);
        nodes.run();
        let mut want = Vec::new();
        for n in 0..300u64 {
            nodes.send(ann, "bob", 1, &format!("n{n:03}"));
            want.push(format!("n{n:03}"));
            if n % 7 == 0 {
                nodes.turn(2);
            }
            if n == 100 {
                nodes.lead(slot, 1);
            }
            if n == 200 {
                if kill {
                    nodes.kill(1);
                    nodes.turn(1);
                    nodes.lead_elsewhere(1);
                } else {
                    nodes.lead(slot, 2);
                }
            }
        }
        nodes.advance(3_000);
        let (acks, _) = nodes.listen(ann);
        let got: Vec<(String, u64, u64)> =
            (1..).zip(&want).map(|(seq, id)| (id.clone(), 1, seq)).collect();
        assert_eq!(acks, got);
        assert_eq!(nodes.stored(&channel), want);
        let (_, recvs) = nodes.listen(bob);
        assert_eq!(seqs(&recvs), (1..=300).collect::<Vec<u64>>());
        assert!(nodes.replicas_agree());
    }
}

#[test]
fn a_cut_link_delays_and_loses_nothing() {
    let mut nodes = four();
    let (ann, kim) = (nodes.connect(0, "ann"), nodes.connect(3, "kim"));
    nodes.send_wait(ann, "kim", 1, "0");
    for other in 0..3 {
        nodes.cut(other, 3);
    }
    for n in 1..20 {
        nodes.send(ann, "kim", 1, &format!("a{n}"));
        nodes.send(kim, "ann", 1, &format!("k{n}"));
        nodes.turn(1);
    }
    nodes.advance(1_000);
    for other in 0..3 {
        nodes.heal(other, 3);
    }
    nodes.advance(1_000);
    for (client, name) in [(ann, "a"), (kim, "k")] {
        let (acks, recvs) = nodes.listen(client);
        let own: Vec<_> = acks.iter().filter(|ack| ack.0.starts_with(name)).collect();
        assert_eq!(own.len(), 19, "{acks:?}");
        assert!(own.iter().all(|ack| ack.1 == 1));
        assert!(own.windows(2).all(|pair| pair[0].2 < pair[1].2));
        assert_eq!(recvs.len(), if name == "a" { 19 } else { 20 });
        assert!(recvs.windows(2).all(|pair| pair[0].1 < pair[1].1), "{recvs:?}");
    }
}

#[test]
fn no_push_is_lost_when_a_home_moves() {
    let mut nodes = four();
    let (ann, kim) = (nodes.connect(0, "ann"), nodes.connect(3, "kim"));
    let home = nodes.slot_of("kim");
    let mut next = 0;
    for node in [1, 2, 0, 1, 0, 2] {
        for _ in 0..5 {
            next += 1;
            nodes.send(ann, "kim", 1, &format!("{next}"));
            nodes.turn(1);
        }
        nodes.lead(home, node);
    }
    nodes.advance(3_000);
    let (_, recvs) = nodes.listen(kim);
    assert_eq!(seqs(&recvs), (1..=next).collect::<Vec<u64>>());
    let online = nodes.ask_wait(1, "kim", Request::Online { uids: vec!["kim".into()] });
    assert!(matches!(&online, Reply::Online(items) if items.len() == 1), "{online:?}");
}

#[test]
fn what_a_dead_leader_has_stored_is_delivered_by_the_next() {
    let mut nodes = four();
    let (ann, kim) = (nodes.connect(3, "ann"), nodes.connect(3, "kim"));
    let channel = ChannelId::new(person_channel("ann", "kim"), 1);
    let slot = nodes.slot_of(&channel.id);
    nodes.lead(slot, 1);
    nodes.lead(nodes.slot_of("kim"), 1);
    nodes.run();
    nodes.send_wait(ann, "kim", 1, "0");
    nodes.send(ann, "kim", 1, "1");
    // Until it is stored everywhere, and not until its way out of the leader.
    while nodes.stored(&channel).len() < 2 {
        nodes.turn(1);
    }
    nodes.kill(1);
    nodes.lead_elsewhere(1);
    nodes.advance(3_000);
    let (acks, _) = nodes.listen(ann);
    assert_eq!(acks.iter().map(|ack| (ack.1, ack.2)).collect::<Vec<_>>(), [(1, 2)]);
    let (_, recvs) = nodes.listen(kim);
    assert_eq!(seqs(&recvs), [1, 2]);
}

#[test]
fn a_dead_node_takes_its_sessions_with_it_and_comes_back_empty() {
    let mut nodes = four();
    let ann = nodes.connect(0, "ann");
    nodes.connect(3, "kim");
    let online = |nodes: &mut Nodes| {
        let reply = nodes.ask_wait(0, "kim", Request::Online { uids: vec!["kim".into()] });
        let Reply::Online(items) = reply else { panic!("{reply:?}") };
        items.len()
    };
    assert_eq!(online(&mut nodes), 1);
    nodes.kill(3);
    nodes.advance(1_000);
    assert_eq!(online(&mut nodes), 1, "it may come back");
    nodes.advance(1_000);
    assert_eq!(online(&mut nodes), 0);
    nodes.start(3);
    nodes.run();
    assert_eq!(online(&mut nodes), 0);
    let kim = nodes.connect(3, "kim");
    nodes.send_wait(ann, "kim", 1, "1");
    assert_eq!(seqs(&nodes.listen(kim).1), [1]);
    nodes.kill(3);
    nodes.start(3);
    nodes.run();
    assert_eq!(online(&mut nodes), 0, "a quick restart has new sessions");
}

#[test]
fn one_device_has_one_session_in_the_cluster() {
    let mut nodes = four();
    let old = nodes.connect_as(0, "ann", "phone");
    let other = nodes.connect_as(1, "ann", "tablet");
    let new = nodes.connect_as(3, "ann", "phone");
    nodes.run();
    assert!(nodes.closed.contains(&old));
    assert!(!nodes.closed.contains(&other) && !nodes.closed.contains(&new));
    // The word that ends it is lost with the link, and comes again.
    let home = nodes.leaders[&nodes.slot_of("ann")];
    let away = (home + 1) % 3;
    let far = nodes.connect_as(away, "ann", "watch");
    nodes.cut(home, away);
    nodes.connect_as(home, "ann", "watch");
    nodes.advance(200);
    assert!(!nodes.closed.contains(&far));
    nodes.heal(home, away);
    nodes.advance(200);
    assert!(nodes.closed.contains(&far));
}

#[test]
fn a_request_is_repeated_until_the_slot_has_a_leader_again() {
    let mut nodes = four();
    nodes.group("g", &["ann"]);
    let slot = nodes.slot_of("g");
    nodes.lead(slot, 1);
    nodes.run();
    nodes.kill(1);
    let change = Request::ChangeList {
        channel: ChannelId::new("g", 2),
        list: List::Members,
        change: ListChange::Add,
        uids: vec!["bob".into()],
    };
    let writes = nodes.ask(3, Target::Id("g".into()), change);
    let channel = ChannelId::new("g", 2);
    let reads = nodes.ask(3, Target::Slot(slot), Request::LastSeq { channel });
    let lost = nodes.ask(3, Target::Node(Nodes::node_id(1), ShardId(0)), Request::Vars);
    let here = nodes.ask(3, Target::Node(Nodes::node_id(2), ShardId(2)), Request::Vars);
    nodes.advance(500);
    assert!(nodes.answer(writes).is_none() && nodes.answer(reads).is_none());
    assert!(matches!(nodes.answer(lost), Some(Reply::Failed(Failure::NoLeader))));
    assert!(matches!(nodes.answer(here), Some(Reply::Vars(_))));
    nodes.lead_elsewhere(1);
    nodes.advance(500);
    assert!(matches!(nodes.answer(writes), Some(Reply::Done)));
    assert!(matches!(nodes.answer(reads), Some(Reply::LastSeq(0))));
}

#[test]
fn the_clusters_keys_are_known_everywhere() {
    let mut nodes = four();
    let write = |key: &str, value: &str, if_absent| ClusterWrite {
        key: key.into(),
        value: value.into(),
        if_absent,
    };
    let entries = vec![write("a/1", "x", true), write("a/1", "y", true), write("a/2", "z", false)];
    let request = Request::WriteClusterKeys { entries };
    let token = nodes.ask(3, Target::Slot(CLUSTER_SLOT), request);
    nodes.run();
    assert!(matches!(nodes.answer(token), Some(Reply::Done)));
    let entries = vec![write("a/2", "", false), write("b", "w", false)];
    nodes.ask(2, Target::Slot(CLUSTER_SLOT), Request::WriteClusterKeys { entries });
    nodes.run();
    let prefix = "a/".to_owned();
    let token = nodes.ask(1, Target::Slot(CLUSTER_SLOT), Request::ReadClusterKeys { prefix });
    nodes.run();
    let Some(Reply::ClusterKeys(keys)) = nodes.answer(token) else { panic!("no keys") };
    assert_eq!(keys, [("a/1".to_owned(), "x".as_bytes().into())]);
    for node in 0..3 {
        assert_eq!(nodes.keys[&(node, "a/1".to_owned())], "x");
        assert_eq!(nodes.keys[&(node, "a/2".to_owned())], "");
    }
}

#[test]
fn a_login_waits_for_a_home() {
    let mut nodes = four();
    let home = nodes.leaders[&nodes.slot_of("ann")];
    nodes.kill(home);
    let ann = nodes.begin_connect(3, "ann", "d");
    nodes.advance(500);
    assert!(nodes.heard(ann).is_empty());
    nodes.lead_elsewhere(home);
    nodes.advance(500);
    assert_eq!(nodes.heard(ann)[0]["result"]["reasonCode"], 1);
}

#[test]
fn without_a_lease_nothing_is_read() {
    let mut nodes = four();
    nodes.group("g", &["ann"]);
    let slot = nodes.slot_of("g");
    nodes.lease(slot, 0);
    let reads =
        nodes.ask(3, Target::Id("g".into()), Request::ReadInfo { channel: ChannelId::new("g", 2) });
    let writes =
        nodes.ask(3, Target::Id("g".into()), Request::Disband { channel: ChannelId::new("g", 2) });
    nodes.advance(300);
    assert!(nodes.answer(reads).is_none());
    assert!(matches!(nodes.answer(writes), Some(Reply::Done)), "the log says who leads");
    nodes.lease(slot, u64::MAX);
    nodes.advance(100);
    assert!(matches!(nodes.answer(reads), Some(Reply::Info(Some(info))) if info.disband));
}

#[test]
fn a_node_that_drains_serves_until_its_slots_are_elsewhere_and_longer() {
    let mut nodes = four();
    let (ann, kim) = (nodes.connect(1, "ann"), nodes.connect(3, "kim"));
    nodes.drain(1);
    for n in 0..30 {
        nodes.send(ann, "kim", 1, &format!("{n}"));
        nodes.turn(1);
        if n == 10 {
            nodes.lead_elsewhere(1);
        }
    }
    nodes.advance(1_000);
    let (acks, _) = nodes.listen(ann);
    assert_eq!(acks.iter().map(|ack| ack.2).collect::<Vec<_>>(), (1..=30).collect::<Vec<_>>());
    assert_eq!(seqs(&nodes.listen(kim).1), (1..=30).collect::<Vec<u64>>());
    nodes.advance(1_000);
    assert!(nodes.is_idle(1));
}

#[test]
fn clients_of_a_node_that_drains_go_when_they_wait_for_nothing() {
    let mut nodes = four();
    let (ann, kim) = (nodes.connect(1, "ann"), nodes.connect(1, "kim"));
    nodes.lead_elsewhere(1);
    nodes.run();
    nodes.hold_commits = true;
    nodes.send(ann, "kim", 1, "hi");
    nodes.run();
    nodes.drain(1);
    nodes.advance(40);
    assert!(nodes.closed.contains(&kim), "kim waits for nothing");
    assert!(!nodes.closed.contains(&ann) && !nodes.is_idle(1));
    nodes.release_commits();
    nodes.run();
    nodes.advance(40);
    assert_eq!(nodes.listen(ann).0.len(), 1, "ann has her answer");
    assert!(nodes.closed.contains(&ann));
    nodes.advance(1_000);
    assert!(nodes.is_idle(1));
}

/// The first message of two has its answer when both have their conversations, one of them in a slot
/// whose next leader is known before it leads.
#[test]
fn a_row_for_a_leader_that_does_not_lead_yet_is_taken_when_it_does() {
    let mut nodes = Nodes::new(&[1, 1, 1], 3, 64);
    let ann = nodes.connect(0, "ann");
    let _kim = nodes.connect(1, "kim");
    let slot = nodes.slot_of("ann");
    assert_ne!(slot, nodes.slot_of("kim"));
    let next = (nodes.leaders[&slot] + 1) % 3;
    nodes.elect(slot, next);
    nodes.run();
    nodes.send(ann, "kim", 1, "hi");
    nodes.advance(50);
    assert!(nodes.listen(ann).0.is_empty(), "nobody has taken the row");
    nodes.serve(slot);
    nodes.run();
    assert_eq!(nodes.listen(ann).0.len(), 1);
}

#[test]
fn recipients_that_came_with_a_send_are_known_to_the_next_leader() {
    let mut nodes = four();
    let kim = nodes.connect(3, "kim");
    let channel = ChannelId::new("temp", 8);
    let slot = nodes.slot_of("temp");
    nodes.lead(slot, 1);
    nodes.run();
    let send = |number: &str| {
        Request::Send(Box::new(ApiSend {
            channel: channel.clone(),
            shown: None,
            from: "ann".into(),
            client_msg_no: number.into(),
            flags: 0,
            setting: 0,
            expire: 0,
            recipients: Some(vec!["kim".into()]),
            payload: b"hi".as_slice().into(),
        }))
    };
    assert!(matches!(nodes.ask_wait(3, "temp", send("0")), Reply::Sent { seq: 1, .. }));
    let token = nodes.ask(3, Target::Id("temp".into()), send(""));
    while nodes.stored(&channel).len() < 2 {
        nodes.turn(1);
    }
    nodes.kill(1);
    nodes.lead_elsewhere(1);
    nodes.advance(3_000);
    let answer = nodes.answer(token);
    assert!(
        matches!(answer, Some(Reply::Sent { seq: 2, .. })),
        "once without a number: {answer:?}"
    );
    assert_eq!(seqs(&nodes.listen(kim).1), [1, 2]);
}

/// Each node leads a channel, and is the home of a user whose session is on the other: the pushes
/// stand behind the parcels of the other channel, which wait for pushes.
#[test]
fn two_homes_do_not_wait_for_each_other() {
    let mut nodes = Nodes::new(&[1, 1], 2, 8);
    let names = ["ann", "bob"];
    let clients = [nodes.connect(0, "ann"), nodes.connect(1, "bob")];
    let groups: Vec<String> = (0..2)
        .map(|n| {
            let mut ids = (0..).map(|k| format!("g{n}-{k}"));
            ids.find(|id| !names.iter().any(|uid| nodes.slot_of(uid) == nodes.slot_of(id))).unwrap()
        })
        .collect();
    nodes.group(&groups[0], &["ann"]);
    nodes.group(&groups[1], &["bob"]);
    for n in 0..2 {
        nodes.lead(nodes.slot_of(&groups[n]), n);
        nodes.lead(nodes.slot_of(names[n]), 1 - n);
    }
    nodes.advance(1_000);
    let send = |nodes: &mut Nodes, n: usize, number: &str| {
        let send = Request::Send(Box::new(ApiSend {
            channel: ChannelId::new(&*groups[n], 2),
            shown: None,
            from: "api".into(),
            client_msg_no: number.into(),
            flags: 0,
            setting: 0,
            expire: 0,
            recipients: None,
            payload: b"hi".as_slice().into(),
        }));
        nodes.ask(n, Target::Id(groups[n].as_str().into()), send)
    };
    for number in 0..20 {
        for n in 0..2 {
            send(&mut nodes, n, &format!("{number}"));
        }
        nodes.turn(1);
    }
    nodes.advance(1_000);
    assert!(nodes.is_idle(0) && nodes.is_idle(1), "parcels wait for each other");
    for client in clients {
        assert_eq!(seqs(&nodes.listen(client).1), (1..=20).collect::<Vec<u64>>());
    }
}

/// What has reached everybody is not delivered again by the next leader; and if it is, its sender
/// does not hear of it, however much it has sent and got since.
#[test]
fn a_sender_never_gets_its_own_messages() {
    let mut nodes = Nodes::new(&[2, 2, 2, 2], 3, 8);
    let (ann, bob) = (nodes.connect(3, "ann"), nodes.connect(2, "bob"));
    nodes.group("g", &["ann", "bob"]);
    let slot = nodes.slot_of("g");
    nodes.lead(slot, 1);
    nodes.run();
    for n in 0..400 {
        nodes.send(ann, "g", 2, &format!("a{n}"));
        nodes.send(bob, "g", 2, &format!("b{n}"));
        nodes.turn(2);
    }
    // Nobody hears what was delivered.
    for other in [0, 2, 3] {
        nodes.cut(1, other);
    }
    nodes.lead_elsewhere(1);
    nodes.advance(5_000);
    nodes.heal_all();
    nodes.advance(2_000);
    let stored = nodes.stored(&ChannelId::new("g", 2));
    assert_eq!(stored.len(), 800);
    for (client, own) in [(ann, "a"), (bob, "b")] {
        let numbered = (1..).zip(&stored);
        let want: Vec<u64> =
            numbered.filter(|(_, n)| !n.starts_with(own)).map(|(s, _)| s).collect();
        let mut got = seqs(&nodes.listen(client).1);
        let mut seen = std::collections::BTreeSet::new();
        got.retain(|seq| seen.insert(*seq));
        assert_eq!(got, want, "{own}");
    }
    for node in 0..4 {
        assert!(nodes.is_idle(node), "node {node} waits for something");
    }
}

/// Each node is killed and comes back with nothing but its replicas, while all send.
#[test]
fn killed_nodes_leave_nothing_undone() {
    let mut nodes = Nodes::new(&[2, 2, 2], 3, 16);
    let names: Vec<String> = (0..9).map(|n| format!("w{n}")).collect();
    let mut clients: Vec<_> =
        names.iter().enumerate().map(|(n, name)| nodes.connect(n % 3, name)).collect();
    let members: Vec<&str> = names.iter().map(String::as_str).collect();
    let groups: Vec<String> = (0..8).map(|n| format!("g{n}")).collect();
    for group in &groups {
        nodes.group(group, &members);
    }
    let mut number = 0;
    let mut send = |nodes: &mut Nodes, clients: &[nodes::Client], rounds: usize| {
        for _ in 0..rounds {
            for (n, client) in clients.iter().enumerate() {
                if !nodes.closed.contains(client) {
                    number += 1;
                    nodes.send(
                        *client,
                        &groups[(number + n) % groups.len()],
                        2,
                        &format!("{number}"),
                    );
                }
            }
            nodes.turn(2);
            nodes.tick(20);
        }
    };
    for victim in 0..3 {
        send(&mut nodes, &clients, 20);
        nodes.kill(victim);
        send(&mut nodes, &clients, 10);
        nodes.lead_elsewhere(victim);
        // Once before it counts as dead.
        if victim == 1 {
            send(&mut nodes, &clients, 10);
        } else {
            send(&mut nodes, &clients, 100);
            // Less than the time after which everything is repeated.
            nodes.advance(2_000);
            for node in (0..3).filter(|node| *node != victim) {
                assert!(nodes.is_idle(node), "node {node} waits for something");
            }
        }
        nodes.start(victim);
        for (n, name) in names.iter().enumerate().filter(|(n, _)| n % 3 == victim) {
            clients[n] = nodes.connect(victim, name);
        }
        send(&mut nodes, &clients, 20);
        for slot in 0..16 {
            if slot % 3 == u16::try_from(victim).unwrap() {
                nodes.lead(jindou_core::id::SlotId(slot), victim);
            }
        }
    }
    nodes.advance(3_000);
    assert!(nodes.replicas_agree());
    for node in 0..3 {
        assert!(nodes.is_idle(node), "node {node} waits for something");
    }
    // Everybody has everything that is new, once, and each next leader has nothing to repeat.
    for (n, client) in clients.iter_mut().enumerate() {
        nodes.listen(*client);
        // Its home did not hear of it for so long that pushes passed it by.
        if nodes.closed.contains(client) {
            *client = nodes.connect(n % 3, &names[n]);
        }
    }
    for (n, client) in clients.iter().enumerate() {
        nodes.send(*client, &groups[n % 8], 2, &format!("last{n}"));
    }
    nodes.advance(4_000);
    for slot in 0..16 {
        let slot = jindou_core::id::SlotId(slot);
        nodes.lead(slot, (nodes.leaders[&slot] + 1) % 3);
    }
    nodes.advance(4_000);
    for client in &clients {
        let (acks, recvs) = nodes.listen(*client);
        assert_eq!((acks.len(), recvs.len()), (1, 8), "{acks:?} {recvs:?}");
    }
}
