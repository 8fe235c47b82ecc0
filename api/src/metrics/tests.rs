use http::header::CONTENT_TYPE;
use jindou_core::request::{Failure, Reply, Traffic};

use super::*;
use crate::testing::{Fixture, seen};

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
fn no_page_is_better_than_a_wrong_one() {
    let fixture = Fixture::answers(|_, _| Reply::Failed(Failure::Busy));
    assert_eq!(fixture.call_manager("GET", "/metrics").status, StatusCode::SERVICE_UNAVAILABLE);
}
