//! Commands on several nodes: every recipient of a stored one has a row for its position when the
//! command is acknowledged, and what was handed out on one node is acknowledged on another.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

mod nodes;

use jindou_core::{
    channel_info::{List, ListChange},
    code::Code,
    id::{ChannelId, Name, person_channel},
    message::flag,
    request::{ApiSend, Reply, Request, Target},
    row::Conversation,
};
use nodes::Nodes;

fn four() -> Nodes {
    Nodes::new(&[2, 1, 3, 2], 3, 8)
}

/// A back end's command to a channel, by its stored id.
fn send(channel: &ChannelId, from: &str, number: &str) -> Request {
    Request::Send(Box::new(ApiSend {
        channel: channel.clone(),
        shown: None,
        from: from.into(),
        client_msg_no: number.into(),
        flags: flag::SYNC_ONCE,
        setting: 0,
        expire: 0,
        recipients: None,
        payload: "x".into(),
    }))
}

fn command(nodes: &mut Nodes, node: usize, channel: &ChannelId, from: &str, number: &str) -> u64 {
    let request = send(channel, from, number);
    match nodes.ask_wait(node, &channel.id, request) {
        Reply::Sent { seq, code: Code::Success, .. } => seq,
        other => panic!("{other:?}"),
    }
}

fn rows(nodes: &mut Nodes, node: usize, uid: &str) -> Vec<(ChannelId, Conversation)> {
    let request = Request::CommandConversations { uid: uid.into() };
    match nodes.ask_wait(node, uid, request) {
        Reply::Conversations(rows) => rows,
        other => panic!("{other:?}"),
    }
}

fn positions(nodes: &mut Nodes, node: usize, uid: &str) -> Vec<u64> {
    rows(nodes, node, uid).iter().map(|(_, row)| row.read_to).collect()
}

fn members(nodes: &mut Nodes, change: ListChange, uids: &[&str]) {
    let uids: Vec<Name> = uids.iter().map(|uid| Name::from(*uid)).collect();
    let channel = ChannelId::new("g", 2);
    let request = Request::ChangeList { channel, list: List::Members, change, uids };
    assert_eq!(nodes.ask_wait(0, "g", request), Reply::Done);
}

#[test]
fn every_member_has_a_row_when_a_command_is_answered() {
    let mut nodes = four();
    let names: Vec<String> = (0..40).map(|n| format!("u{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    nodes.group("g", &names);
    let channel = ChannelId::new("g____cmd", 2);
    assert_eq!(command(&mut nodes, 3, &channel, "u0", "1"), 1);
    for (n, name) in names.iter().enumerate() {
        let own = u64::from(n == 0);
        assert_eq!(positions(&mut nodes, n % 4, name), [own], "{name}");
    }
    assert_eq!(positions(&mut nodes, 0, "stranger"), [0; 0]);
    // One that came later has the whole history, when there is something new.
    members(&mut nodes, ListChange::Add, &["late"]);
    assert_eq!(positions(&mut nodes, 0, "late"), [0; 0]);
    assert_eq!(command(&mut nodes, 1, &channel, "____system", "2"), 2);
    assert_eq!(positions(&mut nodes, 0, "late"), [0]);
    nodes.advance(3_000);
    assert!(nodes.replicas_agree());
}

#[test]
fn rows_are_written_once_and_again_only_by_a_new_leader() {
    let mut nodes = four();
    nodes.group("g", &["ann", "bob", "eve"]);
    let (base, channel) = (ChannelId::new("g", 2), ChannelId::new("g____cmd", 2));
    let slot = nodes.slot_of(&base.id);
    assert_eq!(command(&mut nodes, 0, &channel, "ann", "a1"), 1);
    // The second of the sender looks after its row; from then on nothing is written.
    assert_eq!(command(&mut nodes, 0, &channel, "ann", "a2"), 2);
    nodes.advance(2_000);
    let written = nodes.log_len(slot);
    for n in 3..20 {
        assert_eq!(command(&mut nodes, 0, &channel, ["ann", "bob"][n % 2], &format!("{n}")), {
            u64::try_from(n).unwrap()
        });
    }
    if nodes.slot_of(&channel.id) != slot {
        nodes.advance(2_000);
        assert_eq!(nodes.log_len(slot), written, "no entry for the rows");
    }
    for next in [1, 2, 0] {
        nodes.lead(slot, next);
        nodes.run();
        members(&mut nodes, ListChange::Remove, &["eve"]);
        members(&mut nodes, ListChange::Add, &["eve", "kim"]);
        let seq = command(&mut nodes, next, &channel, "eve", &format!("e{next}"));
        assert!(seq > 19);
        assert_eq!(positions(&mut nodes, 3, "kim"), [0]);
        assert_eq!(positions(&mut nodes, 3, "ann"), [1], "the first command was its own");
    }
    nodes.advance(3_000);
    assert!(nodes.replicas_agree());
}

#[test]
fn commands_that_come_together_wait_for_the_rows_together() {
    let mut nodes = four();
    nodes.group("g", &["ann", "bob"]);
    let channel = ChannelId::new("g____cmd", 2);
    let tokens: Vec<_> = (0..20)
        .map(|n| {
            let request = send(&channel, "ann", &format!("{n}"));
            nodes.ask(n % 4, Target::Id(channel.id.clone()), request)
        })
        .collect();
    nodes.run();
    for token in tokens {
        let answer = nodes.answer(token);
        assert!(matches!(answer, Some(Reply::Sent { code: Code::Success, .. })), "{answer:?}");
    }
    assert_eq!(positions(&mut nodes, 1, "bob"), [0]);
}

#[test]
fn a_stranger_may_not_command_and_a_pair_needs_nobody() {
    let mut nodes = four();
    nodes.group("g", &["ann"]);
    let (ann, eve) = (nodes.connect(0, "ann"), nodes.connect(1, "eve"));
    assert_eq!(nodes.send_wait(eve, "g____cmd", 2, "1").0, 3);
    assert_eq!(nodes.send_wait(ann, "g____cmd", 2, "2"), (1, 1));
    let pair = ChannelId::new(format!("{}____cmd", person_channel("ann", "eve")), 1);
    assert_eq!(command(&mut nodes, 2, &pair, "eve", "3"), 1);
    assert_eq!(positions(&mut nodes, 0, "eve"), [1]);
    assert_eq!(rows(&mut nodes, 0, "ann").len(), 2);
    for kind in [7, 8, 9] {
        let channel = ChannelId::new("x____cmd", kind);
        assert_eq!(command(&mut nodes, 2, &channel, "eve", "4"), 1);
    }
    assert_eq!(rows(&mut nodes, 0, "eve").len(), 1);
}

#[test]
fn what_one_node_handed_out_is_acknowledged_on_another_through_changes_of_leader() {
    let mut nodes = four();
    nodes.group("g", &["ann", "bob"]);
    nodes.group("h", &["ann", "bob"]);
    let (g, h) = (ChannelId::new("g____cmd", 2), ChannelId::new("h____cmd", 2));
    for n in 1..=3 {
        command(&mut nodes, 0, &g, "ann", &format!("g{n}"));
        command(&mut nodes, 0, &h, "ann", &format!("h{n}"));
    }
    let uid: Name = "bob".into();
    let hand_out = |nodes: &mut Nodes, node, positions| {
        let request = Request::HandOut { uid: uid.clone(), positions };
        assert_eq!(nodes.ask_wait(node, &uid, request), Reply::Done);
    };
    let take = |nodes: &mut Nodes, node| {
        let request = Request::TakeHanded { uid: uid.clone() };
        assert_eq!(nodes.ask_wait(node, &uid, request), Reply::Done);
    };
    take(&mut nodes, 3);
    assert_eq!(positions(&mut nodes, 1, "bob"), [0, 0]);
    hand_out(&mut nodes, 0, vec![(g.clone(), 2), (h.clone(), 3)]);
    // Each answer replaces what was handed out before.
    hand_out(&mut nodes, 1, vec![(g.clone(), 1)]);
    let slot = nodes.slot_of("bob");
    let next = (nodes.leaders[&slot] + 1) % 3;
    nodes.lead(slot, next);
    nodes.run();
    take(&mut nodes, 2);
    assert_eq!(positions(&mut nodes, 3, "bob"), [1, 0]);
    take(&mut nodes, 0);
    assert_eq!(positions(&mut nodes, 3, "bob"), [1, 0]);
    // A RECVACK of a master device moves a row that is there, and never back.
    for (channel, seq, expected) in
        [(&h, 2, [1, 2]), (&h, 1, [1, 2]), (&ChannelId::new("x____cmd", 2), 5, [1, 2])]
    {
        let request = Request::AckCommand { uid: uid.clone(), channel: channel.clone(), seq };
        assert_eq!(nodes.ask_wait(1, &uid, request), Reply::Done);
        assert_eq!(positions(&mut nodes, 0, "bob"), expected);
    }
    nodes.advance(3_000);
    assert!(nodes.replicas_agree());
}

#[test]
fn a_command_is_not_answered_before_a_members_slot_has_its_row() {
    let mut nodes = four();
    nodes.group("g", &["ann", "bob"]);
    let channel = ChannelId::new("g____cmd", 2);
    nodes.hold_commits = true;
    let token = nodes.ask(0, Target::Id(channel.id.clone()), send(&channel, "ann", "1"));
    nodes.run();
    assert_eq!(nodes.answer(token), None);
    nodes.release_commits();
    nodes.run();
    assert!(matches!(nodes.answer(token), Some(Reply::Sent { seq: 1, .. })));
    assert_eq!(positions(&mut nodes, 2, "bob"), [0]);
}
