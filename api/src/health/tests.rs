use jindou_core::id::NodeId;

use super::*;
use crate::{node::Fault, testing::Fixture};

fn peer(node: u64, is_up: bool) -> PeerFigures {
    PeerFigures {
        node: NodeId(node),
        address: format!("h{node}:11110"),
        is_up,
        down_ms: (!is_up).then_some(12_345),
        trouble: (!is_up).then(|| "no answer for 700 ms".to_owned()),
        refusal: None,
        rtt_us: None,
        bytes_in: 0,
        bytes_out: 0,
        frames_in: 0,
        frames_out: 0,
        queue_size: 0,
        asks: 0,
        resets: 0,
        lag: None,
    }
}

fn groups() -> GroupFigures {
    GroupFigures { leading: 22, voters_wanted: 3, ..GroupFigures::default() }
}

/// What /readyz says: the status, and the details of `peers` and `replicas`.
fn told(figures: Result<ClusterFigures, String>) -> (u16, String) {
    let fixture = Fixture::configured(
        |_, request| unreachable!("{request:?}"),
        |node, _| node.figures = figures,
    );
    // Whatever it is, this node serves what it leads.
    assert_eq!(fixture.get("/health"), (200, r#"{"status":"ok"}"#.to_owned()));
    fixture.get("/readyz")
}

#[track_caller]
fn is_told(figures: ClusterFigures, status: u16, texts: &[&str]) {
    let (got, body) = told(Ok(figures));
    assert_eq!(got, status, "{body}");
    for text in texts {
        assert!(body.contains(text), "{body}\ndoes not say {text:?}");
    }
}

#[test]
fn a_whole_cluster_is_ready() {
    let figures = ClusterFigures { peers: vec![peer(2, true), peer(3, true)], groups: groups() };
    is_told(
        figures,
        200,
        &[
            r#""name":"peers","ok":true,"detail":"2 of 2 other nodes are reached""#,
            r#""name":"replicas","ok":true,"detail":"each of 22 groups led here has the 3 live voters wanted""#,
        ],
    );
    is_told(ClusterFigures::default(), 200, &["there are no other nodes"]);
}

#[test]
fn a_node_that_is_down_or_refuses_is_named() {
    let mut refusing = peer(3, false);
    refusing.refusal = Some("not a member".to_owned());
    let peers = vec![peer(2, false), refusing, peer(4, true)];
    is_told(
        ClusterFigures { peers, groups: groups() },
        503,
        &[
            r#""name":"peers","ok":false,"detail":"1 of 3 other nodes are reached; "#,
            "node 2 at h2:11110 is not reached since 12 s (no answer for 700 ms); ",
            "node 3 at h3:11110 refuses this node: not a member",
        ],
    );
}

#[test]
fn groups_without_their_voters_are_named_up_to_a_bound() {
    let short = |slots: &[u16]| ClusterFigures {
        peers: Vec::new(),
        groups: GroupFigures { short: slots.iter().copied().map(SlotId).collect(), ..groups() },
    };
    is_told(
        short(&[4, u16::MAX]),
        503,
        &["2 of 22 groups led here have fewer live voters than the 3 wanted: slot 4, group 0\""],
    );
    is_told(short(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]), 503, &["slot 6, slot 7 and 2 more\""]);
}

#[test]
fn replicas_here_that_are_of_no_use_make_it_red_and_a_lag_does_not() {
    let with = |groups| ClusterFigures { peers: vec![peer(2, true)], groups };
    let muted = with(GroupFigures { muted: 2, ..groups() });
    is_told(muted, 503, &["; 2 replicas here began with nothing and may not vote yet\""]);
    let failed = with(GroupFigures { failed: 1, ..groups() });
    is_told(failed, 503, &["; 1 replicas here have stopped, the log says why\""]);
    let behind = PeerFigures { lag: Some(70), ..peer(2, true) };
    let groups = GroupFigures { lag_max: 70, ..groups() };
    let late = ClusterFigures { peers: vec![behind], groups };
    is_told(late, 200, &["; the follower furthest behind on node 2 lacks 70 entries\""]);
}

#[test]
fn a_shard_that_does_not_answer_makes_it_red() {
    let (status, body) = told(Err("shard 1 of this node does not answer".to_owned()));
    let check = r#"{"name":"peers","ok":false,"detail":"shard 1 of this node does not answer"}"#;
    assert_eq!((status, body), (503, format!(r#"{{"status":"error","checks":[{check}]}}"#)));
}

#[test]
fn checks_of_the_node_itself_come_first() {
    let fixture = Fixture::configured(
        |_, request| unreachable!("{request:?}"),
        |node, _| {
            node.health.fault = Some(Fault::NotReady);
            node.health.checks =
                vec![Check { name: "slots", ok: false, detail: "63 of 64".to_owned() }];
        },
    );
    let (status, body) = fixture.get("/readyz");
    let begin = r#"{"status":"error","message":"slot not ready","checks":[{"name":"slots","ok":false,"detail":"63 of 64"},{"name":"peers","#;
    assert!(status == 503 && body.starts_with(begin), "{body}");
}
