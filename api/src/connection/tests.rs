#![expect(clippy::indexing_slicing, clippy::wildcard_enum_match_arm, reason = "tests")]

use jindou_core::request::{Failure, Traffic};

use super::*;
use crate::testing::{Fixture, err, fine};

/// A connection on a shard, accepted `age` ms ago.
fn connection(shard: u16, place: u32, uid: &str, age: i64) -> ConnectionInfo {
    ConnectionInfo {
        conn: ConnId::new(ShardId(shard), place, 1),
        uid: uid.into(),
        device_id: format!("d-{uid}").into(),
        device_flag: 0,
        device_level: 0,
        version: 5,
        live: true,
        peer: ([10, 0, 0, 5], 51_234).into(),
        last_activity_ms: 1_735_689_600_000 - age / 2,
        opened_ms: 1_735_689_600_000 - age,
        traffic: Traffic { messages_in: u64::from(place), bytes_out: 7, ..Traffic::default() },
    }
}

/// Two shards: `b` came first, on the second one; then `a` and `a`'s second device; one socket has
/// not sent CONNECT.
fn node() -> Fixture {
    Fixture::answers(|target, request| match request {
        _ if matches!(target, Target::Node(NodeId(77), _)) => Reply::Failed(Failure::NoLeader),
        Request::Connections if *target == Target::Shard(ShardId(0)) => {
            let mut second = connection(0, 2, "a", 10_000);
            (second.device_flag, second.device_level) = (1, 1);
            let mut silent = connection(0, 3, "", 50);
            silent.live = false;
            Reply::Connections(vec![second, connection(0, 1, "a", 62_000), silent])
        }
        Request::Connections => Reply::Connections(vec![connection(1, 9, "b", 90_000)]),
        Request::EndConnection { .. } => Reply::Done,
        other => unreachable!("{other:?}"),
    })
}

fn places(target: &str) -> Vec<u64> {
    let (status, text) = node().get(target);
    assert_eq!(status, 200, "{text}");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let list = json["connections"].as_array().cloned().unwrap_or_default();
    list.iter().filter_map(|item| item["in_msgs"].as_u64()).collect()
}

#[test]
fn a_connection_has_every_field_in_order() {
    let id = ConnId::new(ShardId(0), 2, 1).0;
    assert_eq!(
        node().get("/connz?uid=a&sort=idDesc&limit=1"),
        (
            200,
            format!(
                r#"{{"connections":[{{"id":{id},"uid":"a","ip":"10.0.0.5","port":51234,"last_activity":"2024-12-31T23:59:55Z","uptime":"10s","idle":"5s","pending_bytes":0,"in_msgs":2,"out_msgs":0,"in_msg_bytes":0,"out_msg_bytes":0,"in_packets":0,"out_packets":0,"in_packet_bytes":0,"out_packet_bytes":7,"device":"Web(主)","device_id":"d-a","version":5,"proxy_type_format":"本地连接","leader_id":1001,"node_id":1001}}],"now":"2025-01-01T00:00:00Z","total":4,"offset":0,"limit":1}}"#
            )
        )
    );
}

#[test]
fn connections_are_sorted_filtered_and_cut() {
    assert_eq!(places("/connz"), [9, 1, 2], "in the order of their accept");
    assert_eq!(places("/connz?sort=idDesc"), [2, 1, 9]);
    assert_eq!(places("/connz?sort=nonsense"), [9, 1, 2]);
    assert_eq!(places("/connz?sort=inMsg"), [1, 2, 9]);
    assert_eq!(places("/connz?sort=inMsgDesc&limit=1"), [9]);
    assert_eq!(places("/connz?sort=uptime"), [2, 1, 9]);
    assert_eq!(places("/connz?sort=idleDesc"), [9, 1, 2]);
    assert_eq!(places("/connz?sort=pendingBytes"), [9, 1, 2]);
    assert_eq!(places("/connz?uid=a"), [1, 2]);
    assert_eq!(places("/connz?uid=a&offset=1"), [2]);
    assert!(places("/connz?uid=nobody").is_empty());
    assert!(places("/connz?offset=500").is_empty());
    assert_eq!(places("/connz?offset=-3&limit=x&node_id=x"), [9, 1, 2]);
    assert!(node().get("/connz?limit=0").1.contains(r#""offset":0,"limit":20}"#));
    assert!(node().get("/connz?limit=99999999").1.contains(r#""limit":10000}"#));
    assert_eq!(node().get("/connz?node_id=77"), err("节点不存在！"));
    assert_eq!(node().get("/connz?node_id=1001").0, 200);
    let busy = Fixture::answers(|_, _| Reply::Failed(Failure::Busy));
    assert_eq!(busy.get("/connz"), err("server is busy"));
}

#[test]
fn devices_have_names() {
    assert_eq!(
        [device(0, 0), device(1, 1), device(2, 0), device(99, 1)],
        ["App(从)", "Web(主)", "PC(从)", "未知(主)"]
    );
}

#[test]
fn connections_are_ended_where_they_are() {
    let fixture = node();
    let conn = ConnId::new(ShardId(1), 9, 1);
    for (route, kick) in [("/conn/kick", true), ("/conn/remove", false)] {
        let body =
            format!(r#"{{"uid":"b","conn_id":{},"node_id":1001,"op_node_id":1001}}"#, conn.0);
        assert_eq!(fixture.post(route, &body), fine());
        let asked = format!(r#"EndConnection {{ uid: "b", conn: {conn:?}, kick: {kick} }}"#);
        assert_eq!(fixture.last_asked(), (Target::Shard(ShardId(1)), asked.clone()));
        let body = format!(r#"{{"uid":"b","conn_id":{},"node_id":1002}}"#, conn.0);
        assert_eq!(fixture.post(route, &body), fine());
        assert_eq!(fixture.last_asked(), (Target::Node(NodeId(1002), ShardId(1)), asked));
    }
}

#[test]
fn unknown_connections_are_no_error() {
    let silent = Fixture::answers(|target, request| match target {
        Target::Node(NodeId(77), _) => Reply::Failed(Failure::NoLeader),
        other => unreachable!("{other:?} {request:?}"),
    });
    let elsewhere = ConnId::new(ShardId(7), 1, 1).0;
    for route in ["/conn/kick", "/conn/remove"] {
        let post = |body: &str| silent.post(route, body);
        assert_eq!(post(&format!(r#"{{"uid":"a","conn_id":{elsewhere}}}"#)), fine());
        assert_eq!(post(r#"{"uid":"a","conn_id":5,"node_id":77}"#), fine());
        assert_eq!(post(r#"{"uid":"a","conn_id":-5}"#), fine());
        assert_eq!(post("{}"), err("conn_id is 0"));
        assert_eq!(post(r#"{"uid":"a","conn_id":5,"op_node_id":77}"#), err("node not found"));
        assert_eq!(post("{"), err("unexpected EOF"));
        assert_eq!(post(r#"{"conn_id":"5"}"#).0, 400);
    }
}
