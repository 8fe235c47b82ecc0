use http::header::CONTENT_TYPE;
use jindou_core::{
    id::{NodeId, SlotId},
    request::{Failure, Reply, Traffic},
};

use super::*;
use crate::{
    figures::{GroupFigures, PeerFigures},
    testing::{Fixture, seen},
};

fn page() -> String {
    let fixture = Fixture::answers(|_, _| {
        let traffic = Traffic { messages_in: 7, ..Traffic::default() };
        Reply::Vars(Box::new(Vars { connections: 3, traffic, ..Vars::default() }))
    });
    let response = fixture.call_manager("GET", "/metrics");
    assert_eq!(response.headers.get(CONTENT_TYPE), Some(&TEXT));
    seen(&response).1
}

#[test]
fn names_of_v2_have_sums_and_its_labels() {
    let page = page();
    for line in [
        "# TYPE app_conn_count_total gauge",
        r#"app_conn_count_total{otel_scope_name="metrics",otel_scope_version=""} 6"#,
        "# TYPE app_send_packet_count_total counter",
        r#"app_send_packet_count_total{otel_scope_name="metrics",otel_scope_version=""} 14"#,
        r#"cluster_msg_incoming_bytes_total{otel_scope_name="metrics",otel_scope_version=""} 201"#,
        r#"system_intranet_incoming_bytes_total{otel_scope_name="metrics",otel_scope_version=""} 201"#,
        r#"cluster_msg_incoming_count_total{otel_scope_name="metrics",otel_scope_version=""} 0"#,
    ] {
        assert!(page.lines().any(|found| found == line), "{line}\n{page}");
    }
    // The type stands right above the value, and no series has a label `id` of its own: the
    // scrape configuration adds it.
    assert!(page.contains("# TYPE app_conn_count_total gauge\napp_conn_count_total{"));
    assert!(!page.contains("{id=\"") && !page.contains(",id=\""));
}

#[test]
fn our_names_have_a_series_per_shard() {
    let page = page();
    assert!(
        page.contains("jindou_connections{shard=\"0\"} 3\njindou_connections{shard=\"1\"} 3\n")
    );
    assert!(
        page.contains("jindou_sends_total{shard=\"0\"} 10\njindou_sends_total{shard=\"1\"} 11\n")
    );
    assert!(page.contains("jindou_dedupe_cut_total{shard=\"0\"} 0\n"));
    assert!(page.contains("# TYPE jindou_driver gauge\njindou_driver{kind=\"epoll\"} 1\n"));
    for name in ["go_goroutines", "process_open_fds", "process_cpu_seconds_total"] {
        assert!(page.lines().any(|line| line == format!("{name} 0")), "{name}");
    }
}

#[test]
fn the_cluster_has_a_series_per_node_and_one_per_figure_of_the_groups() {
    let peer = |node: u64, is_up: bool| PeerFigures {
        node: NodeId(node),
        address: "h:1".to_owned(),
        is_up,
        down_ms: None,
        trouble: None,
        refusal: (!is_up).then(|| "no member".to_owned()),
        rtt_us: is_up.then_some(1_500),
        bytes_in: 10 * node,
        bytes_out: 20 * node,
        frames_in: node,
        frames_out: 2 * node,
        queue_size: 5,
        asks: 4,
        resets: 3,
        lag: is_up.then_some(70),
    };
    let groups = GroupFigures {
        held: 65,
        leading: 22,
        leaderless: 1,
        muted: 2,
        failed: 3,
        voters_wanted: 3,
        short: vec![SlotId(4), SlotId(9)],
        lag_max: 70,
        apply_lag_max: 6,
        leader_changes: 7,
        elections: 8,
    };
    let figures = ClusterFigures { peers: vec![peer(2, true), peer(3, false)], groups };
    let fixture = Fixture::configured(
        |_, _| Reply::Vars(Box::default()),
        |node, _| node.figures = Ok(figures),
    );
    let page = seen(&fixture.call_manager("GET", "/metrics")).1;
    for line in [
        "# TYPE jindou_peer_up gauge",
        r#"jindou_peer_up{node="2"} 1"#,
        r#"jindou_peer_up{node="3"} 0"#,
        r#"jindou_peer_refused{node="2"} 0"#,
        r#"jindou_peer_refused{node="3"} 1"#,
        r#"jindou_peer_round_trip_seconds{node="2"} 0.0015"#,
        "# TYPE jindou_peer_bytes_in_total counter",
        r#"jindou_peer_bytes_in_total{node="3"} 30"#,
        r#"jindou_peer_bytes_out_total{node="3"} 60"#,
        r#"jindou_peer_frames_in_total{node="2"} 2"#,
        r#"jindou_peer_frames_out_total{node="2"} 4"#,
        r#"jindou_peer_queued_bytes{node="2"} 5"#,
        r#"jindou_peer_asks{node="2"} 4"#,
        r#"jindou_peer_resets_total{node="2"} 3"#,
        r#"jindou_follower_lag_entries{node="2"} 70"#,
        "jindou_groups_held 65",
        "jindou_groups_leading 22",
        "jindou_groups_leaderless 1",
        "jindou_groups_muted 2",
        "jindou_groups_failed 3",
        "jindou_groups_short 2",
        "jindou_voters_wanted 3",
        "jindou_follower_lag_max_entries 70",
        "jindou_apply_lag_max_entries 6",
        "# TYPE jindou_leader_changes_total counter",
        "jindou_leader_changes_total 7",
        "jindou_elections_total 8",
    ] {
        assert!(page.lines().any(|found| found == line), "{line}\n{page}");
    }
    // What is not known has no value.
    assert!(!page.contains(r#"round_trip_seconds{node="3"}"#));
    assert!(!page.contains(r#"lag_entries{node="3"}"#));
}

#[test]
fn no_page_is_better_than_a_wrong_one() {
    let fixture = Fixture::answers(|_, _| Reply::Failed(Failure::Busy));
    assert_eq!(fixture.call_manager("GET", "/metrics").status, StatusCode::SERVICE_UNAVAILABLE);
    let fixture = Fixture::configured(
        |_, _| Reply::Vars(Box::default()),
        |node, _| node.figures = Err("shard 1 of this node does not answer".to_owned()),
    );
    assert_eq!(fixture.call_manager("GET", "/metrics").status, StatusCode::SERVICE_UNAVAILABLE);
}
