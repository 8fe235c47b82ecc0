//! Stories of what several nodes could lose, double or hold up, and do not.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod nodes;

use jindou_core::{
    channel_info::ChannelInfo,
    entry::DedupeWindow,
    id::{ChannelId, person_channel},
    request::{ApiSend, Failure, Reply, Request, Target},
};
use nodes::Nodes;

fn seqs(recvs: &[(String, u64)]) -> Vec<u64> {
    recvs.iter().map(|(_, seq)| *seq).collect()
}

/// What waits for the sessions of a node that is gone goes to the next home, and there to nobody
/// who logged in since and has newer ones.
#[test]
fn who_comes_back_elsewhere_gets_nothing_older_than_what_it_has() {
    for same in [false, true] {
        let mut nodes = Nodes::new(&[1, 1, 1, 1], 3, 8);
        let kim = nodes.connect(3, "kim");
        let group = (0..).map(|n| format!("g{n}"));
        let group = group.into_iter().find(|id| nodes.slot_of(id) != nodes.slot_of("kim")).unwrap();
        nodes.connect(0, "ann");
        let ann = nodes.connect(1, "bob");
        nodes.group(&group, &["kim", "ann", "bob"]);
        nodes.lead(nodes.slot_of(&group), 0);
        nodes.lead(nodes.slot_of("kim"), if same { 0 } else { 1 });
        nodes.advance(1_000);
        nodes.send_wait(ann, &group, 2, "1");
        assert_eq!(seqs(&nodes.listen(kim).1), [1]);
        nodes.kill(3);
        nodes.send_wait(ann, &group, 2, "2");
        // As far apart as clocks may be.
        nodes.tick(1_010);
        let kim = nodes.connect(2, "kim");
        nodes.send_wait(ann, &group, 2, "3");
        assert_eq!(seqs(&nodes.listen(kim).1), [3]);
        nodes.lead(nodes.slot_of("kim"), 2);
        nodes.advance(100);
        nodes.send_wait(ann, &group, 2, "4");
        nodes.advance(3_000);
        assert_eq!(seqs(&nodes.listen(kim).1), [4]);
    }
}

/// What an old leader brings after newer ones of the next leader is not pushed out of order: the
/// session ends, and its client comes again and reads (G6, G8).
#[test]
fn a_push_that_comes_too_late_ends_the_session() {
    let mut nodes = Nodes::new(&[1, 1, 1, 1], 3, 8);
    let (ann, kim) = (nodes.connect(2, "ann"), nodes.connect(3, "kim"));
    let group = (0..).map(|n| format!("g{n}"));
    let group = group.into_iter().find(|id| nodes.slot_of(id) != nodes.slot_of("kim")).unwrap();
    nodes.group(&group, &["ann", "kim"]);
    nodes.lead(nodes.slot_of(&group), 1);
    nodes.lead(nodes.slot_of("kim"), 0);
    nodes.advance(1_000);
    nodes.cut(1, 0);
    // More than the next leader keeps of what the old one could not deliver.
    for number in ["1", "2", "3"] {
        nodes.send_large(ann, &group, number, 100 << 10);
        nodes.run();
    }
    nodes.lead(nodes.slot_of(&group), 2);
    nodes.run();
    let (acks, recvs) = nodes.listen(kim);
    assert_eq!((acks.len(), seqs(&recvs)), (0, vec![2, 3]));
    assert!(!nodes.closed.contains(&kim));
    nodes.heal(1, 0);
    nodes.advance(100);
    assert_eq!(nodes.listen(kim).1, []);
    assert!(nodes.closed.contains(&kim));
    assert!(!nodes.closed.contains(&ann));
}

/// A node that others took for dead does not know it when it saw only short gaps itself. Homes that
/// were without it, and moved on, tell it: its sessions missed what was pushed (G8).
#[test]
fn who_was_dead_for_others_ends_the_sessions_that_missed_something() {
    for moves_on in [false, true] {
        let mut nodes = Nodes::new(&[1, 1, 1, 1], 3, 8);
        let (ann, kim) = (nodes.connect(2, "ann"), nodes.connect(3, "kim"));
        let home = nodes.slot_of("kim");
        nodes.lead(nodes.slot_of(&person_channel("ann", "kim")), 2);
        nodes.lead(home, 0);
        nodes.advance(1_000);
        for other in 0..3 {
            nodes.cut(other, 3);
            nodes.bury(other, 3);
        }
        nodes.run();
        // The home knows which sessions it had; the next one knows of none.
        nodes.send_wait(ann, "kim", 1, "1");
        if moves_on {
            nodes.lead(home, 1);
            nodes.advance(1_000);
            nodes.send_wait(ann, "kim", 1, "2");
            nodes.lead(home, 2);
        }
        nodes.heal_all();
        nodes.advance(2_000);
        assert_eq!(nodes.listen(kim).1, []);
        assert!(nodes.closed.contains(&kim), "moves_on: {moves_on}");
    }
}

/// Replicas with different windows forget the same sends: the leader's window counts (G3, G16).
#[test]
fn replicas_with_different_dedupe_windows_stay_equal() {
    let mut nodes = Nodes::new(&[1, 1, 1, 1], 3, 8);
    nodes.remember(1, DedupeWindow { count_max: 2, ms: 1_000 });
    let ann = nodes.connect(3, "ann");
    let channel = ChannelId::new(person_channel("ann", "kim"), 1);
    let slot = nodes.slot_of(&channel.id);
    for leader in [0, 1, 2] {
        nodes.lead(slot, leader);
        nodes.advance(1_000);
        for number in ["1", "2", "3", "1"] {
            nodes.send_wait(ann, "kim", 1, number);
            nodes.advance(2_000);
        }
    }
    nodes.advance(1_000);
    assert!(nodes.replicas_agree());
    // The second leader has forgotten all three, the first and the third nothing.
    assert!(nodes.stored(&channel).len() > 3);
}

/// What no frame can carry is refused, and harms no other message of its slot (G17).
#[test]
fn a_request_too_large_for_the_log_is_refused() {
    let mut nodes = Nodes::new(&[2, 1, 3, 2], 3, 8);
    let send = |size: usize| {
        Request::Send(Box::new(ApiSend {
            channel: ChannelId::new("g", 2),
            shown: None,
            from: "ann".into(),
            client_msg_no: "".into(),
            flags: 0,
            setting: 0,
            expire: 0,
            recipients: None,
            payload: vec![0; size].into(),
        }))
    };
    nodes.group("g", &["ann"]);
    let reply = nodes.ask_wait(3, "g", send(17 << 20));
    assert_eq!(reply, Reply::Failed(Failure::TooLarge));
    let reply = nodes.ask_wait(3, "g", send(7 << 20));
    assert!(matches!(reply, Reply::Sent { seq: 1, .. }), "{reply:?}");
}

/// A slot that nobody leads bounds what waits for it, and holds up no other (G12, G18).
#[test]
fn a_slot_without_a_leader_holds_up_no_other() {
    let mut nodes = Nodes::new(&[1, 1, 1, 1], 3, 8);
    let group = (0..).map(|n| format!("g{n}"));
    let group = group.into_iter().find(|id| nodes.slot_of(id) != nodes.slot_of("kim")).unwrap();
    let (ann, kim) = (nodes.connect(2, "ann"), nodes.connect(3, "kim"));
    nodes.group(&group, &["ann", "kim"]);
    nodes.lead(nodes.slot_of(&group), 0);
    nodes.lead(nodes.slot_of("ann"), 0);
    nodes.lead(nodes.slot_of("kim"), 1);
    nodes.advance(1_000);
    nodes.kill(1);
    nodes.advance(2_000);
    for number in 0..70_000_u64 {
        nodes.send(ann, &group, 2, &number.to_string());
        if number % 1_000 == 0 {
            nodes.run();
            nodes.listen(ann);
        }
    }
    assert_eq!(nodes.send_wait(ann, &group, 2, "last"), (1, 70_001));
    nodes.lead(nodes.slot_of("kim"), 2);
    nodes.advance(2_000);
    // It could not have all: it comes again and reads.
    assert!(nodes.closed.contains(&kim));
}

/// The last nodes of a cluster that stops have no majority: what waits for one is answered, and they
/// end with the others.
#[test]
fn a_node_that_drains_alone_waits_for_nobody() {
    let mut nodes = Nodes::new(&[2, 1, 1], 3, 8);
    let ann = nodes.connect(0, "ann");
    nodes.group("g", &["ann", "kim"]);
    nodes.lead(nodes.slot_of("g"), 0);
    nodes.advance(1_000);
    nodes.hold_commits = true;
    nodes.send(ann, "g", 2, "1");
    nodes.run();
    nodes.drain(0);
    nodes.advance(500);
    assert!(!nodes.is_idle(0));
    nodes.kill(1);
    nodes.kill(2);
    nodes.advance(2_500);
    assert!(nodes.is_idle(0));
}

/// A change of a user's flags is answered when the user's sessions know of it, on whatever node they
/// are: the next SEND goes by the new flags (G7).
#[test]
fn a_send_ban_is_answered_when_the_sessions_know_of_it() {
    let mut nodes = Nodes::new(&[1, 1, 1, 1], 3, 8);
    let ann = nodes.connect(3, "ann");
    nodes.lead(nodes.slot_of("ann"), 0);
    nodes.advance(1_000);
    for (send_ban, reason) in [(true, 25), (false, 1)] {
        nodes.cut(0, 3);
        let info = ChannelInfo { send_ban, ..ChannelInfo::default() };
        let channel = ChannelId::new("ann", 1);
        let request =
            Request::WriteChannel { channel, info: Some(info), reset: false, members: Vec::new() };
        let token = nodes.ask(1, Target::Id("ann".into()), request);
        nodes.advance(500);
        assert_eq!(nodes.answer(token), None);
        nodes.heal(0, 3);
        nodes.advance(500);
        assert_eq!(nodes.answer(token), Some(Reply::Done));
        assert_eq!(nodes.send_wait(ann, "kim", 1, &reason.to_string()).0, reason);
    }
}
