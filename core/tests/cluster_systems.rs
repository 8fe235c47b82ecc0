//! System accounts on several nodes: a change that is answered is in effect everywhere.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod nodes;

use jindou_core::{
    channel_info::{List, ListChange},
    id::{ChannelId, Name},
    request::{Failure, Reply, Request, Target},
    shard::{CLUSTER_SLOT, SYSTEM_UID_PREFIX},
};
use nodes::Nodes;

fn four() -> Nodes {
    Nodes::new(&[2, 1, 3, 2], 3, 8)
}

fn change(nodes: &mut Nodes, node: usize, add: bool, uids: &[&str]) -> Option<Reply> {
    let uids: Vec<Name> = uids.iter().map(|uid| Name::from(*uid)).collect();
    let request = Request::ChangeSystems { add, uids };
    let token = nodes.ask(node, Target::Slot(CLUSTER_SLOT), request);
    nodes.run();
    nodes.answer(token)
}

fn listed(nodes: &mut Nodes, node: usize) -> Vec<String> {
    let request = Request::ReadClusterKeys { prefix: SYSTEM_UID_PREFIX.to_owned() };
    let token = nodes.ask(node, Target::Slot(CLUSTER_SLOT), request);
    nodes.run();
    let Some(Reply::ClusterKeys(keys)) = nodes.answer(token) else { panic!("no list") };
    keys.into_iter().map(|(key, _)| key[SYSTEM_UID_PREFIX.len()..].to_owned()).collect()
}

#[test]
fn an_answered_change_holds_for_the_next_send_wherever_the_channel_is_led() {
    let mut nodes = four();
    let boss = nodes.connect(3, "boss");
    let groups: Vec<String> = (0..16).map(|n| format!("g{n}")).collect();
    for group in &groups {
        nodes.group(group, &["ann"]);
        assert_eq!(nodes.send_wait(boss, group, 2, "a").0, 3);
    }
    for (add, reason) in [(true, 1), (false, 3), (true, 1)] {
        assert_eq!(change(&mut nodes, 1, add, &["boss"]), Some(Reply::Done));
        for group in &groups {
            let number = format!("{add}");
            let number = if reason == 3 { format!("{number} refused") } else { number };
            assert_eq!(nodes.send_wait(boss, group, 2, &number).0, reason, "{group}");
        }
    }
    assert_eq!(listed(&mut nodes, 2), ["boss"]);
}

#[test]
fn everybody_may_write_to_a_system_account_that_refuses_them() {
    let mut nodes = four();
    let ann = nodes.connect(0, "ann");
    let deny = Request::ChangeList {
        channel: ChannelId::new("boss", 1),
        list: List::Deny,
        change: ListChange::Add,
        uids: vec!["ann".into()],
    };
    assert_eq!(nodes.ask_wait(0, "boss", deny), Reply::Done);
    assert_eq!(nodes.send_wait(ann, "boss", 1, "1").0, 4);
    assert_eq!(change(&mut nodes, 2, true, &["boss", "other"]), Some(Reply::Done));
    assert_eq!(nodes.send_wait(ann, "boss", 1, "2").0, 1);
    assert_eq!(change(&mut nodes, 2, false, &["boss"]), Some(Reply::Done));
    assert_eq!(nodes.send_wait(ann, "boss", 1, "3").0, 4);
}

#[test]
fn a_node_that_does_not_hear_of_a_change_keeps_it_from_being_answered_until_it_is_dead() {
    let mut nodes = four();
    nodes.lead(CLUSTER_SLOT, 0);
    nodes.run();
    nodes.cut(0, 3);
    assert_eq!(change(&mut nodes, 0, true, &["boss"]), None, "node 3 may not know");
    nodes.advance(1_600);
    // It is dead to the leader; when it is back it hears of it at once.
    nodes.heal_all();
    nodes.run();
    assert_eq!(change(&mut nodes, 0, true, &["boss"]), Some(Reply::Done));
    let boss = nodes.connect(3, "boss");
    nodes.group("g", &["ann"]);
    assert_eq!(nodes.send_wait(boss, "g", 2, "a").0, 1);
}

#[test]
fn the_list_outlives_restarts_and_changes_of_leader() {
    let mut nodes = four();
    assert_eq!(change(&mut nodes, 0, true, &["boss"]), Some(Reply::Done));
    for node in 0..3 {
        nodes.kill(node);
        nodes.lead_elsewhere(node);
        nodes.run();
        nodes.start(node);
        nodes.heal_all();
        nodes.advance(3_000);
        let boss = nodes.connect(node, "boss");
        for n in 0..8 {
            let group = format!("g{n}");
            nodes.group(&group, &["ann"]);
            assert_eq!(nodes.send_wait(boss, &group, 2, &format!("{node} {n}")).0, 1);
        }
    }
    assert!(nodes.replicas_agree());
}

#[test]
fn there_is_a_bound() {
    let mut nodes = four();
    let uids: Vec<String> = (0..10_000).map(|n| format!("u{n:05}")).collect();
    let uids: Vec<&str> = uids.iter().map(String::as_str).collect();
    assert_eq!(change(&mut nodes, 0, true, &uids), Some(Reply::Done));
    let reply = change(&mut nodes, 0, true, &["one more"]);
    assert_eq!(reply, Some(Reply::Failed(Failure::TooLarge)));
    assert_eq!(change(&mut nodes, 0, false, &uids), Some(Reply::Done));
    assert_eq!(change(&mut nodes, 0, true, &["one more"]), Some(Reply::Done));
}
