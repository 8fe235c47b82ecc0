//! The checker is itself checked: good histories, and bad ones of every rule made from them.

use super::*;

const CHANNEL: &str = "g";

fn stored(seq: u32) -> Stored {
    Stored {
        seq,
        id: 100 + i64::from(seq),
        from: "ann".to_owned(),
        client_msg_no: format!("no-{seq}"),
        payload: vec![u8::try_from(seq).unwrap()],
    }
}

/// Ann sends messages 1 to 4, one after the other on one connection; Bob reads all of them.
fn good() -> History {
    let attempts = (1..=4).map(|seq| {
        let message = stored(seq);
        Attempt {
            channel: CHANNEL.to_owned(),
            sender: message.from,
            client_msg_no: message.client_msg_no,
            payload: message.payload,
            connection: 1,
            place: seq.into(),
            wanted: u64::from(seq) * 10,
            sent: u64::from(seq) * 10,
            outcome: Outcome::Acked { at: u64::from(seq) * 10 + 5, id: message.id, seq: Some(seq) },
        }
    });
    let push = |seq| Push {
        uid: "bob".to_owned(),
        channel: CHANNEL.to_owned(),
        connection: 2,
        at: u64::from(seq) * 10 + 6,
        message: stored(seq),
    };
    History {
        attempts: attempts.collect(),
        reads: vec![read(22, 2), read(100, 4)],
        pushes: (1..=4).map(push).collect(),
        ..History::default()
    }
}

fn read(start: u64, count: u32) -> Read {
    Read {
        channel: CHANNEL.to_owned(),
        reader: "bob".to_owned(),
        start,
        end: start + 1,
        from: 1,
        settled: true,
        messages: (1..=count).map(stored).collect(),
    }
}

/// Rules that `change` makes a good history break.
fn broken(change: impl FnOnce(&mut History)) -> Vec<&'static str> {
    rules(good(), change)
}

fn rules(mut history: History, change: impl FnOnce(&mut History)) -> Vec<&'static str> {
    change(&mut history);
    let mut rules: Vec<_> = check(&history).into_iter().map(|v| v.rule).collect();
    rules.dedup();
    rules
}

#[test]
fn a_good_history_breaks_nothing() {
    assert_eq!(check(&good()), []);
}

#[test]
fn an_unknown_attempt_may_be_there_or_not() {
    assert!(broken(|h| h.attempts[3].outcome = Outcome::Unknown).is_empty());
    let lost = broken(|h| {
        h.attempts[3].outcome = Outcome::Unknown;
        h.reads[1].messages.pop();
        h.pushes.pop();
    });
    assert!(lost.is_empty());
}

#[test]
fn g1_an_acked_message_that_is_missing_is_found() {
    let lost = broken(|h| {
        h.reads[1].messages.pop();
    });
    assert!(lost.contains(&"G1"), "{lost:?}");
}

#[test]
fn g1_an_acked_message_under_another_seq_or_id_is_found() {
    let moved = broken(|h| {
        h.attempts[3].outcome = Outcome::Acked { at: 45, id: 104, seq: Some(5) };
    });
    assert!(moved.contains(&"G1"), "{moved:?}");
    let renamed = broken(|h| {
        h.attempts[3].outcome = Outcome::Acked { at: 45, id: 999, seq: Some(4) };
    });
    assert_eq!(renamed, ["G1"]);
}

#[test]
fn g2_a_hole_is_found() {
    let hole = broken(|h| {
        h.attempts[1].outcome = Outcome::Unknown;
        h.reads[0].messages.pop();
        h.reads[1].messages.remove(1);
    });
    assert!(hole.contains(&"G2"), "{hole:?}");
}

#[test]
fn g2_one_seq_with_two_payloads_is_found() {
    let two = broken(|h| h.pushes[2].message.payload = b"other".to_vec());
    assert!(two.contains(&"G2"), "{two:?}");
}

#[test]
fn g3_one_seq_with_two_ids_is_found() {
    assert_eq!(broken(|h| h.pushes[2].message.id = 7), ["G3"]);
}

#[test]
fn g4_a_message_that_stands_twice_is_found() {
    let twice = broken(|h| {
        let mut again = stored(5);
        again.client_msg_no = "no-4".to_owned();
        again.payload = vec![4];
        h.reads[1].messages.push(again);
    });
    assert_eq!(twice, ["G4"]);
}

#[test]
fn g4_a_repeat_that_gets_another_id_is_found() {
    let repeat = |id| {
        broken(move |h| {
            let mut again = h.attempts[3].clone();
            (again.connection, again.place, again.sent) = (3, 0, 60);
            again.outcome = Outcome::Acked { at: 65, id, seq: None };
            h.attempts.push(again);
        })
    };
    assert!(repeat(104).is_empty());
    assert!(repeat(105).contains(&"G4"));
}

#[test]
fn g5_a_message_that_nobody_sent_is_found() {
    let phantom = broken(|h| h.reads[1].messages.push(stored(5)));
    assert_eq!(phantom, ["G5"]);
}

#[test]
fn g5_a_message_that_was_refused_is_found() {
    let refused = broken(|h| h.attempts[3].outcome = Outcome::Refused { reason: 3 });
    assert_eq!(refused, ["G5"]);
}

#[test]
fn g6_an_acked_message_behind_one_sent_later_is_found() {
    let late = broken(|h| {
        // Message 3, from another connection, is sent after 4 was acknowledged.
        (h.attempts[2].connection, h.attempts[2].sent) = (9, 50);
        h.attempts[2].outcome = Outcome::Acked { at: 55, id: 103, seq: Some(3) };
    });
    assert_eq!(late, ["G6"]);
}

#[test]
fn g6_sends_of_one_connection_out_of_order_are_found() {
    let swapped = broken(|h| {
        // All in flight at once, so that only the written order tells.
        for attempt in &mut h.attempts {
            attempt.sent = 10;
        }
        (h.attempts[1].place, h.attempts[2].place) = (3, 2);
    });
    assert_eq!(swapped, ["G6"]);
}

#[test]
fn g6_a_push_out_of_order_is_found_and_a_repeated_push_is_fine() {
    assert_eq!(broken(|h| h.pushes.swap(1, 2)), ["G6"]);
    let repeated = broken(|h| {
        let again = h.pushes[1].clone();
        h.pushes.push(again);
    });
    assert!(repeated.is_empty());
}

#[test]
fn g7_a_read_without_what_was_acked_before_is_found() {
    let stale = broken(|h| {
        h.reads[0].start = 38;
        h.reads[0].end = 39;
    });
    assert_eq!(stale, ["G7"]);
}

#[test]
fn g7_a_read_behind_a_push_is_found() {
    let behind = broken(|h| {
        h.attempts[1].outcome = Outcome::Unknown;
        h.reads.insert(0, read(30, 1));
    });
    assert_eq!(behind, ["G7"]);
}

#[test]
fn g7_a_channel_that_goes_back_is_found() {
    let back = broken(|h| {
        h.attempts[3].outcome = Outcome::Unknown;
        h.reads.insert(1, read(50, 4));
        h.reads[2] = read(100, 3);
        h.reads[2].settled = false;
        h.pushes.pop();
    });
    assert_eq!(back, ["G7"]);
}

/// Seconds.
const S: u64 = 1_000_000_000;

fn member(uid: &str, added: bool, sent: u64) -> Membership {
    let answered = Some(sent + 1);
    Membership { channel: CHANNEL.to_owned(), uid: uid.to_owned(), added, sent, answered }
}

/// The good history with members, sessions, faults and a settled end: seen by Bob, who reads once.
fn clustered() -> History {
    let mut history = good();
    // Message 1 comes by the sync after his reconnect, the others by push.
    history.pushes.remove(0);
    history.reads[0] = read(15, 1);
    (history.reads[0].settled, history.reads[1].start) = (false, 60 * S);
    history.reads[1].end = 60 * S + 1;
    history.memberships = vec![member("ann", true, 0), member("bob", true, 0)];
    history.sessions =
        vec![Session { uid: "bob".to_owned(), connection: 2, node: 1, open: 14, closed: None }];
    let counts = Counts { last_seq: 4, read_seq: 0, unread: 4 };
    history.conversations = vec![Conversation {
        channel: CHANNEL.to_owned(),
        uid: "bob".to_owned(),
        start: 61 * S,
        end: 61 * S + 1,
        settled: true,
        state: Some(counts),
    }];
    history.presences = vec![Presence {
        node: 3,
        start: 55 * S,
        end: 55 * S + 1,
        asked: vec!["bob".to_owned(), "cid".to_owned()],
        online: vec!["bob".to_owned()],
    }];
    history.faults = vec![fault(Kind::Kill, S, 20 * S)];
    history.settled = 50 * S;
    history
}

fn fault(kind: Kind, start: u64, end: u64) -> Fault {
    Fault { kind, nodes: vec![2], start, end, quorum: true }
}

/// Message `place` waits for its acknowledgement from `sent` to `acked`, alone in the channel.
fn late(history: &mut History, place: usize, sent: u64, acked: u64) {
    let attempt = &mut history.attempts[place];
    (attempt.wanted, attempt.sent) = (sent, sent);
    if let Outcome::Acked { at, .. } = &mut attempt.outcome {
        *at = acked;
    }
}

#[test]
fn a_good_history_of_a_cluster_breaks_nothing() {
    assert_eq!(check(&clustered()), []);
}

#[test]
fn g5_a_message_refused_with_try_again_may_be_there() {
    let maybe = broken(|h| h.attempts[3].outcome = Outcome::Refused { reason: TRY_AGAIN });
    assert!(maybe.is_empty());
}

#[test]
fn g8_a_message_that_an_open_connection_never_got_is_found() {
    let lost = rules(clustered(), |h| {
        h.pushes.pop();
    });
    assert_eq!(lost, ["G8"]);
    // Known from a read, and yet not pushed.
    let read_only = rules(clustered(), |h| {
        h.pushes.pop();
        let mut all = read(48, 4);
        all.settled = false;
        h.reads.push(all);
    });
    assert_eq!(read_only, ["G8"]);
}

#[test]
fn g8_a_hole_in_what_a_closed_connection_got_is_found() {
    let hole = rules(clustered(), |h| {
        h.sessions[0].closed = Some(49);
        h.presences.clear();
        h.pushes.remove(1);
        let mut all = read(48, 4);
        all.settled = false;
        h.reads.push(all);
    });
    assert_eq!(hole, ["G8"]);
}

#[test]
fn g8_a_gap_between_connection_and_sync_is_found() {
    let gap = rules(clustered(), |h| {
        h.reads.remove(0);
    });
    assert_eq!(gap, ["G8"]);
}

#[test]
fn g8_who_is_no_member_need_not_get_it() {
    let removed = rules(clustered(), |h| {
        h.pushes.pop();
        h.memberships.push(member("bob", false, 38));
        h.conversations.clear();
    });
    assert!(removed.is_empty());
}

#[test]
fn g9_a_message_pushed_to_a_removed_member_is_found() {
    let after = |sent: u64| {
        rules(clustered(), move |h| {
            h.memberships.push(member("bob", false, sent));
            h.conversations.clear();
        })
    };
    assert_eq!(after(35), ["G9"]);
    // Sent before the removal was acknowledged: either is right.
    assert!(after(40).is_empty());
    let added_again = rules(clustered(), |h| {
        h.memberships.push(member("bob", false, 35));
        h.memberships.push(member("bob", true, 38));
        h.conversations.clear();
    });
    assert!(added_again.is_empty());
}

#[test]
fn g10_a_wrong_count_or_a_missing_conversation_is_found() {
    let counts = |last_seq, read_seq, unread| Some(Counts { last_seq, read_seq, unread });
    let with = |state| rules(clustered(), move |h| h.conversations[0].state = state);
    assert_eq!(with(counts(4, 0, 3)), ["G10"]);
    assert_eq!(with(counts(3, 0, 3)), ["G10"]);
    assert_eq!(with(None), ["G10"]);
}

#[test]
fn g10_what_was_read_for_certain_is_not_unread_and_the_rest_is() {
    let read_at = |sent: u64, answered, unread| {
        rules(clustered(), move |h| {
            let (channel, uid) = (CHANNEL.to_owned(), "bob".to_owned());
            h.positions.push(Position { channel, uid, sent, answered });
            let state = Counts { last_seq: 4, read_seq: 4 - unread, unread };
            h.conversations[0].state = Some(state);
        })
    };
    // Read after 2 was acknowledged and before 3 was sent.
    assert!(read_at(26, Some(27), 2).is_empty());
    assert_eq!(read_at(26, Some(27), 1), ["G10"]);
    assert_eq!(read_at(26, Some(27), 3), ["G10"]);
    // While 3 was on its way, and unanswered.
    assert!(read_at(32, Some(33), 1).is_empty() && read_at(32, Some(33), 2).is_empty());
    assert!(read_at(26, None, 4).is_empty() && read_at(26, None, 0).is_empty());
}

#[test]
fn g10_a_read_position_that_moves_back_is_found() {
    let back = rules(clustered(), |h| {
        let mut earlier = h.conversations[0].clone();
        (earlier.settled, earlier.start, earlier.end) = (false, 30, 31);
        earlier.state = Some(Counts { last_seq: 2, read_seq: 2, unread: 0 });
        h.conversations.push(earlier);
    });
    assert_eq!(back, ["G10"]);
}

#[test]
fn g11_wrong_presence_is_found_once_it_had_time_to_heal() {
    let seen = |start: u64, online: &[&str]| {
        let online = online.iter().map(|uid| (*uid).to_owned()).collect();
        rules(clustered(), move |h| {
            (h.presences[0].start, h.presences[0].end) = (start, start + 1);
            h.presences[0].online = online;
        })
    };
    assert_eq!(seen(55 * S, &[]), ["G11"]);
    assert_eq!(seen(55 * S, &["bob", "cid"]), ["G11"]);
    // The fault began, or was over, a moment before.
    assert!(seen(5 * S, &[]).is_empty() && seen(25 * S, &["cid"]).is_empty());
    // Long enough after its begin, though the node is still away.
    assert_eq!(seen(15 * S, &[]), ["G11"]);
    // Unless it goes and comes all the time.
    let flapping = rules(clustered(), |h| {
        h.faults[0].kind = Kind::Flap;
        (h.presences[0].start, h.presences[0].end) = (15 * S, 15 * S + 1);
        h.presences[0].online.clear();
    });
    assert!(flapping.is_empty(), "{flapping:?}");
}

#[test]
fn g12_a_channel_that_takes_no_writes_is_found() {
    let slow = |quorum| {
        rules(clustered(), move |h| {
            h.faults[0].kind = Kind::Cut;
            h.faults[0].quorum = quorum;
            late(h, 3, 3 * S, 25 * S);
            h.pushes[2].at = 25 * S;
        })
    };
    assert_eq!(slow(true), ["G12"]);
    assert!(slow(false).is_empty());
    let never_again = rules(clustered(), |h| {
        h.attempts[3].outcome = Outcome::Unknown;
        h.faults[0].quorum = false;
    });
    assert_eq!(never_again, ["G12"]);
}

#[test]
fn g12_silence_is_found_except_of_a_node_that_is_away() {
    let silence = |node, from, to| {
        rules(clustered(), move |h| {
            h.silences.push(Silence { what: "SEND".to_owned(), node, from, to });
        })
    };
    assert_eq!(silence(1, 2 * S, 9 * S), ["G12"]);
    assert!(silence(1, 2 * S, 7 * S).is_empty());
    assert!(silence(2, 2 * S, 9 * S).is_empty());
}

#[test]
fn g12_a_member_that_is_refused_for_good_is_found() {
    let refused = |sender: &str, reason| {
        let sender = sender.to_owned();
        rules(clustered(), move |h| {
            let mut fifth = h.attempts[3].clone();
            (fifth.client_msg_no, fifth.sender) = ("no-5".to_owned(), sender);
            fifth.outcome = Outcome::Refused { reason };
            h.attempts.push(fifth);
        })
    };
    assert_eq!(refused("ann", 3), ["G12"]);
    assert!(refused("eve", 3).is_empty());
}

#[test]
fn g13_a_slow_failover_is_found() {
    let failover = |acked| {
        rules(clustered(), move |h| {
            late(h, 3, 2 * S, acked);
            h.pushes[2].at = acked;
        })
    };
    assert_eq!(failover(6 * S), ["G13"]);
    assert!(failover(4 * S).is_empty());
}

/// Message 4 fails so often within a fault of this kind before it is acknowledged.
fn fails(kind: Kind, times: u64) -> Vec<&'static str> {
    rules(clustered(), move |h| {
        h.faults = vec![fault(kind, 39, 30 * S)];
        h.presences.clear();
        for n in 0..times {
            let mut failed = h.attempts[3].clone();
            (failed.sent, failed.connection) = (40 + n, 9 + n);
            failed.outcome = Outcome::Unknown;
            h.attempts.push(failed);
        }
    })
}

#[test]
fn g13_a_graceful_stop_that_fails_a_send_twice_is_found() {
    assert_eq!(fails(Kind::Stop, 2), ["G13"]);
    assert!(fails(Kind::Stop, 1).is_empty());
}

#[test]
fn g14_a_join_that_fails_a_send_or_leaves_slots_uneven_is_found() {
    assert_eq!(fails(Kind::Join, 2), ["G14"]);
    let spread = |counts: [(u32, u32); 3]| {
        rules(clustered(), move |h| {
            h.faults = vec![fault(Kind::Join, 39, 30 * S)];
            h.presences.clear();
            let nodes = (1..).zip(counts).collect();
            h.spreads.push(Spread { at: 31 * S, nodes });
        })
    };
    assert!(spread([(64, 21), (64, 21), (64, 22)]).is_empty());
    assert_eq!(spread([(64, 21), (62, 21), (64, 22)]), ["G14"]);
    assert_eq!(spread([(64, 20), (64, 22), (64, 22)]), ["G14"]);
}

#[test]
fn a_history_comes_back_from_disk_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("history.jsonl");
    let mut history = clustered();
    history.positions.push(Position {
        channel: CHANNEL.to_owned(),
        uid: "bob".to_owned(),
        sent: 1,
        answered: None,
    });
    history.silences.push(Silence { what: "SEND".to_owned(), node: 1, from: 0, to: 1 });
    history.spreads.push(Spread { at: 1, nodes: BTreeMap::from([(1, (64, 64))]) });
    save(&history, &file).unwrap();
    assert_eq!(format!("{:?}", load(&file).unwrap()), format!("{history:?}"));
}
