#![expect(clippy::indexing_slicing, clippy::wildcard_enum_match_arm, reason = "tests")]

use jindou_core::{
    id::ConnId,
    request::{ConnectionInfo, Traffic},
};

use super::*;
use crate::{
    node::Process,
    testing::{Fixture, err},
};

fn node() -> Fixture {
    Fixture::configured(
        |target, request| match request {
            Request::Vars => Reply::Vars(Box::new(Vars {
                connections: 2,
                sessions: 1,
                online_users: 1,
                unacked: 4,
                traffic: Traffic { messages_in: 10, bytes_out: 5, ..Traffic::default() },
                ..Vars::default()
            })),
            Request::Connections => {
                let Target::Shard(shard) = target else { unreachable!("{target:?}") };
                let one = |place, live| ConnectionInfo {
                    conn: ConnId::new(*shard, place, 0),
                    uid: "a".into(),
                    device_id: "d".into(),
                    device_flag: 0,
                    device_level: 0,
                    version: 5,
                    live,
                    peer: ([127, 0, 0, 1], 9).into(),
                    last_activity_ms: 0,
                    opened_ms: 0,
                    traffic: Traffic { messages_in: u64::from(place), ..Traffic::default() },
                };
                Reply::Connections(vec![one(1, true), one(2, true), one(3, false)])
            }
            other => unreachable!("{other:?}"),
        },
        |node, settings| {
            node.process = Process {
                started_ms: node.now_ms - 93_784_000,
                resident_size: 1024,
                cpu_percent: 0.5,
                threads: 3,
                ..Process::default()
            };
            settings.addresses.tcp = "127.0.0.1:5100".to_owned();
            settings.addresses.api_url = "http://127.0.0.1:5001".to_owned();
            settings.version.commit = "c0ffee".to_owned();
        },
    )
}

#[test]
fn every_field_is_there_in_order() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        node().get("/varz?node_id=x"),
        (
            200,
            format!(
                r#"{{"server_id":"1001","server_name":"WuKongIM","version":"{version}","connections":4,"user_handler_count":2,"user_handler_conn_count":2,"uptime":"1d2h3m4s","goroutine":3,"mem":1024,"cpu":0.5,"in_msgs":20,"out_msgs":0,"in_bytes":0,"out_bytes":10,"slow_clients":0,"retry_queue":8,"tcp_addr":"127.0.0.1:5100","ws_addr":"","wss_addr":"","manager_addr":"","manager_on":1,"commit":"c0ffee","commit_date":"","tree_state":"","api_url":"http://127.0.0.1:5001","manager_uid":"____manager","manager_token_on":0,"conversation_cache_count":0}}"#
            )
        )
    );
}

#[test]
fn connections_are_added_when_asked_for() {
    let messages = |target: &str| -> Vec<u64> {
        let (_, text) = node().get(target);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let list = json["conns"].as_array().cloned().unwrap_or_default();
        list.iter().filter_map(|item| item["in_msgs"].as_u64()).collect()
    };
    assert_eq!(messages("/varz?show=conn"), [2, 2, 1, 1]);
    assert_eq!(messages("/varz?show=conn&conn_limit=1"), [2]);
    assert_eq!(messages("/varz?show=conn&conn_limit=x"), [2, 2, 1, 1]);
    assert!(messages("/varz?show=x").is_empty());
}

#[test]
fn another_node_is_not_found() {
    assert_eq!(node().get("/varz?node_id=77"), err("node not found"));
}

#[test]
fn settings_say_which_pages_have_data() {
    let body = r#"{"logger":{"trace_on":0,"loki_on":0},"prometheus_on":0,"stress_on":0}"#;
    assert_eq!(node().get("/varz/setting"), (200, body.to_owned()));
}
