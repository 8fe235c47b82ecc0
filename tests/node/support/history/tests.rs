//! The checker is itself checked: one good history, and one bad one per rule made from it.

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
            sent: u64::from(seq) * 10,
            outcome: Outcome::Acked { at: u64::from(seq) * 10 + 5, id: message.id, seq: Some(seq) },
        }
    });
    let push = |seq| Push { channel: CHANNEL.to_owned(), connection: 2, message: stored(seq) };
    History {
        attempts: attempts.collect(),
        reads: vec![read(22, 2), read(100, 4)],
        pushes: (1..=4).map(push).collect(),
    }
}

fn read(start: u64, count: u32) -> Read {
    Read {
        channel: CHANNEL.to_owned(),
        reader: "bob".to_owned(),
        start,
        end: start + 1,
        messages: (1..=count).map(stored).collect(),
    }
}

/// Rules that `change` makes a good history break.
fn broken(change: impl FnOnce(&mut History)) -> Vec<&'static str> {
    let mut history = good();
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
    assert_eq!(moved, ["G1"]);
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
    assert_eq!(broken(|h| h.pushes[2].message.payload = b"other".to_vec()), ["G2"]);
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
fn g7_a_channel_that_goes_back_is_found() {
    let back = broken(|h| {
        h.attempts[3].outcome = Outcome::Unknown;
        h.reads.insert(1, read(50, 4));
        h.reads[2] = read(100, 3);
        h.pushes.pop();
    });
    assert_eq!(back, ["G7"]);
}
