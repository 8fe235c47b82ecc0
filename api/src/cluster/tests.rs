#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]

use http::{HeaderMap, HeaderName, HeaderValue};

use super::*;
use crate::testing::{Fixture, err, fine, seen};

fn node_view(id: u64) -> NodeView {
    NodeView {
        id: NodeId(id),
        addr: format!("10.0.0.{}:11110", id % 1000),
        api_url: format!("http://10.0.0.{}:5001", id % 1000),
        online: true,
        status: NodeStatus::Joined,
        created_at: 1_735_689_600,
        slot_count: 3,
        leader_count: 1,
        uptime_s: Some(3_661),
        app_version: Some("0.1.0".to_owned()),
        votes: true,
    }
}

fn slot_view(slot: u16, leader: u64, voters: &[u64]) -> SlotView {
    SlotView {
        slot: SlotId(slot),
        leader: (leader != 0).then_some(NodeId(leader)),
        term: 7,
        voters: voters.iter().copied().map(NodeId).collect(),
        learners: Vec::new(),
        last: 40 + u64::from(slot),
        changing: false,
    }
}

/// Three nodes, three slots, told out of order.
fn three() -> ClusterView {
    ClusterView {
        node: NodeId(1001),
        version: 12,
        slot_count: 3,
        replica_count: 3,
        leader: Some(NodeId(1002)),
        term: 5,
        nodes: vec![node_view(1003), node_view(1001), node_view(1002)],
        slots: vec![
            slot_view(2, 1003, &[1003, 1001, 1002]),
            slot_view(0, 1001, &[1001, 1002, 1003]),
            slot_view(1, 1002, &[1002, 1003, 1001]),
        ],
    }
}

/// A node alone with one slot.
fn alone() -> ClusterView {
    let node = NodeView { slot_count: 1, ..node_view(1001) };
    let slots = vec![slot_view(0, 1001, &[1001])];
    let base = three();
    ClusterView { leader: Some(NodeId(1001)), nodes: vec![node], slots, slot_count: 1, ..base }
}

fn seeing(view: ClusterView) -> Fixture {
    Fixture::configured(|_, request| unreachable!("{request:?}"), |node, _| node.cluster = Ok(view))
}

fn changes(fixture: &Fixture) -> Vec<ClusterChange> {
    fixture.node.changes.borrow().clone()
}

#[test]
fn a_node_alone_is_written_as_v2_writes_it() {
    let fixture = seeing(alone());
    let simple = r#""id":1001,"is_leader":1,"role":0,"cluster_addr":"10.0.0.1:11110","api_server_addr":"http://10.0.0.1:5001","online":1,"allow_vote":1,"slot_count":1"#;
    let tail = r#""status":3,"status_format":"已加入""#;
    let full = format!(
        r#"{{{simple},"term":5,"slot_leader_count":1,"uptime":"1h1m1s","config_version":12,{tail}}}"#
    );
    assert_eq!(fixture.get("/cluster/nodes"), (200, format!(r#"{{"total":1,"data":[{full}]}}"#)));
    assert_eq!(fixture.get("/cluster/node"), (200, full));
    assert_eq!(
        fixture.get("/cluster/simpleNodes"),
        (200, format!(r#"{{"total":1,"data":[{{{simple},"slot_leader_count":1,{tail}}}]}}"#))
    );
    assert_eq!(
        fixture.get("/cluster/info"),
        (
            200,
            r#"{"version":12,"slotCount":1,"slotReplicaCount":3,"channelReplicaCount":3,"term":5,"nodes":[{"id":1001,"clusterAddr":"10.0.0.1:11110","apiServerAddr":"http://10.0.0.1:5001","online":true,"allowVote":true,"status":3,"createdAt":1735689600}],"slots":[{"leader":1001,"term":7,"replicas":[1001]}]}"#.to_owned()
        )
    );
    assert_eq!(fixture.get("/cluster/devtools/checkLogConflict"), (200, String::new()));
}

#[test]
fn nodes_stand_in_order_with_their_state() {
    let mut view = three();
    view.nodes[0].status = NodeStatus::Joining;
    view.nodes[0].app_version = Some("0.2.0".to_owned());
    view.nodes[1].status = NodeStatus::Leaving;
    view.nodes[2] = NodeView {
        online: false,
        votes: false,
        api_url: String::new(),
        slot_count: 0,
        leader_count: 0,
        uptime_s: None,
        app_version: None,
        ..node_view(1002)
    };
    view.slots[0].learners.push(NodeId(1003));
    let (status, text) = seeing(view).get("/cluster/nodes");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &json["total"]), (200, &3.into()));
    let ids: Vec<_> = json["data"].as_array().unwrap().iter().map(|node| &node["id"]).collect();
    assert_eq!(ids, [1001, 1002, 1003]);
    assert_eq!(json["data"][0]["status_format"], "离开中");
    assert_eq!(
        json["data"][1].to_string(),
        r#"{"allow_vote":0,"cluster_addr":"10.0.0.2:11110","config_version":12,"id":1002,"is_leader":1,"role":1,"status":3,"status_format":"已加入","term":5}"#
    );
    let third = &json["data"][2];
    assert_eq!((&third["status"], &third["status_format"]), (&2.into(), &"加入中".into()));
    assert_eq!(third["app_version"], "0.2.0");
    assert_eq!(third["import_count"], 1);
    assert_eq!(
        third["imports"],
        serde_json::json!([{"slot_id": 2, "from": 1003, "to": 1003, "status": 0}])
    );
}

#[test]
fn slots_are_shown_as_asked() {
    let mut view = three();
    view.slots[0].leader = None;
    view.slots[1].changing = true;
    view.slots[2].changing = true;
    view.slots[2].learners.push(NodeId(1004));
    let fixture = seeing(view);
    let zero = r#"{"id":0,"leader_id":1001,"term":7,"replicas":[1001,1002,1003],"channel_count":0,"log_index":40,"status":2,"status_format":"领导者转移中"}"#;
    let one = r#"{"id":1,"leader_id":1002,"term":7,"replicas":[1002,1003,1001],"channel_count":0,"log_index":41,"status":0,"status_format":"正常"}"#;
    let two = r#"{"id":2,"leader_id":0,"term":7,"replicas":[1003,1001,1002],"channel_count":0,"log_index":42,"status":1,"status_format":"候选中"}"#;
    assert_eq!(fixture.get("/cluster/slots"), (200, "[]".to_owned()));
    assert_eq!(fixture.get("/cluster/slots?ids="), (200, "[]".to_owned()));
    assert_eq!(fixture.get("/cluster/slots?ids=2,1"), (200, format!("[{two},{one}]")));
    assert_eq!(
        fixture.get("/cluster/allslot"),
        (200, format!(r#"{{"total":3,"data":[{zero},{one},{two}]}}"#))
    );
    for ids in ["3", "x", "1,", "-1", "65536", "1 ", "0x1"] {
        assert_eq!(fixture.get(&format!("/cluster/slots?ids={ids}")), err("slot not found"));
    }
    assert_eq!(fixture.get("/cluster/slots?ids=0,0,0,0"), err("more than 3 of ids in one request"));
    let (_, info) = fixture.get("/cluster/info");
    assert!(
        info.contains(r#"{"id":1,"leader":1002,"term":7,"replicas":[1002,1003,1001],"learners":[1004],"changing":true}"#),
        "{info}"
    );
    assert!(info.contains(r#"{"id":2,"term":7,"replicas":[1003,1001,1002],"status":1}"#), "{info}");
}

fn replica(node: u64, role: ReplicaRole) -> ReplicaView {
    ReplicaView {
        node: NodeId(node),
        leader: Some(NodeId(1002)),
        term: 7,
        last: node - 900,
        applied: node - 910,
        committed: node - 905,
        role,
        running: node != 1003,
    }
}

#[test]
fn replicas_tell_how_far_they_are() {
    let with = |replicas: Result<Vec<ReplicaView>, String>| {
        Fixture::configured(
            |_, request| unreachable!("{request:?}"),
            |node, _| (node.cluster, node.replicas) = (Ok(three()), replicas),
        )
    };
    let fixture = with(Ok(vec![
        replica(1003, ReplicaRole::Learner),
        replica(1001, ReplicaRole::Follower),
        replica(1002, ReplicaRole::Leader),
    ]));
    let head = r#"{"id":1,"leader_id":1002,"term":7,"replicas":[1002,1003,1001],"#;
    let rest = r#""log_max_index":101,"leader_log_max_index":102,"applied_index":91}"#;
    assert_eq!(fixture.get("/cluster/slots/1/config"), (200, format!("{head}{rest}")));
    let local = |id: u64, running: u8, last: u64| {
        format!(
            r#""replica_id":{id},"leader_id":1002,"running":{running},"last_log_seq":{last},"last_log_time":0,"term":7,"applied_index":{},"committed_index":{},"conf_version":12"#,
            last - 10,
            last - 5
        )
    };
    assert_eq!(
        fixture.get("/cluster/slots/1/replicas"),
        (
            200,
            format!(
                r#"[{{{},"role":1,"role_format":"follower","last_log_time_format":""}},{{{},"role":3,"role_format":"leader","last_log_time_format":""}},{{{},"role":4,"role_format":"learner","last_log_time_format":""}}]"#,
                local(1001, 1, 101),
                local(1002, 1, 102),
                local(1003, 0, 103)
            )
        )
    );
    assert_eq!(
        fixture.get("/cluster/slots/1/localReplica"),
        (200, format!("{{{}}}", local(1001, 1, 101)))
    );
    // Nobody answered: what is known without them.
    let fixture = with(Ok(Vec::new()));
    let rest = r#""log_max_index":0,"leader_log_max_index":41,"applied_index":0}"#;
    assert_eq!(fixture.get("/cluster/slots/1/config"), (200, format!("{head}{rest}")));
    assert_eq!(fixture.get("/cluster/slots/1/replicas"), (200, "[]".to_owned()));
    let none = err("this node has no replica of the slot");
    assert_eq!(fixture.get("/cluster/slots/1/localReplica"), none);
    let fixture = with(Err("links are down".to_owned()));
    for page in ["config", "replicas", "localReplica"] {
        let target = |slot: &str| format!("/cluster/slots/{slot}/{page}");
        assert_eq!(fixture.get(&target("1")), err("links are down"));
        for slot in ["3", "x", "-1", "99999999999999999999", "%20", "1%20"] {
            assert_eq!(fixture.get(&target(slot)), err("slot not found"), "{slot}");
        }
    }
}

#[test]
fn a_node_that_knows_nothing_says_so() {
    let fixture = Fixture::silent();
    for page in ["nodes", "node", "simpleNodes", "info", "allslot", "slots?ids=1", "slots/1/config"]
    {
        assert_eq!(fixture.get(&format!("/cluster/{page}")), err("no cluster"), "{page}");
    }
    for page in ["slots/1/election", "nodes/1001/remove", "nodes/1001/keep"] {
        assert_eq!(fixture.post(&format!("/cluster/{page}"), ""), err("no cluster"), "{page}");
    }
    let mut view = alone();
    view.nodes.clear();
    assert_eq!(seeing(view).get("/cluster/node"), err("node not found"));
}

#[test]
fn slots_move_to_nodes_that_can_take_them() {
    let mut view = three();
    view.nodes.extend([1004, 1005, 1006, 1007].map(node_view));
    for node in &mut view.nodes {
        match node.id.0 {
            1005 => node.online = false,
            1006 => node.votes = false,
            1007 => node.status = NodeStatus::Leaving,
            _ => (),
        }
    }
    view.slots[0].leader = None;
    let fixture = seeing(view);
    let migrate = |slot: &str, from: u64, to: u64| {
        let body = format!(r#"{{"migrate_from":{from},"migrate_to":{to}}}"#);
        fixture.post(&format!("/cluster/slots/{slot}/migrate"), &body)
    };
    for (slot, from, to, text) in [
        ("1", 0, 1004, "migrateFrom or migrateTo is 0"),
        ("1", 1002, 0, "migrateFrom or migrateTo is 0"),
        ("1", 1002, 1002, "migrateFrom is equal to migrateTo"),
        ("3", 1002, 1004, "slot not found"),
        ("x", 1002, 1004, "slot not found"),
        ("2", 1003, 1004, "leader not found"),
        ("1", 1004, 1002, "MigrateFrom not in replicas"),
        ("1", 1003, 1001, "transition between followers is not supported"),
        ("1", 1002, 77, "node not found"),
        ("1", 1002, 1005, "node offline"),
        ("1", 1002, 1006, "migrateTo is a node that holds no slots"),
        ("1", 1002, 1007, "migrateTo is a node that is being removed"),
    ] {
        assert_eq!(migrate(slot, from, to), err(text), "{slot} {from} {to}");
    }
    let post = |body: &str| fixture.post("/cluster/slots/1/migrate", body);
    assert_eq!(post(""), err("EOF"));
    assert_eq!(post("{}"), err("migrateFrom or migrateTo is 0"));
    assert_eq!(post(r#"{"migrate_from":"1"}"#).0, 400);
    assert_eq!(post(r#"{"migrate_from":-1,"migrate_to":2}"#).0, 400);
    assert_eq!(changes(&fixture), []);

    assert_eq!(migrate("1", 1003, 1004), fine());
    assert_eq!(migrate("1", 1002, 1001), fine());
    let change =
        |from, to| ClusterChange::Migrate { slot: SlotId(1), from: NodeId(from), to: NodeId(to) };
    assert_eq!(changes(&fixture), [change(1003, 1004), change(1002, 1001)]);
}

#[test]
fn an_election_needs_most_replicas() {
    let fixture = seeing(three());
    assert_eq!(fixture.post("/cluster/slots/1/election", ""), fine());
    assert_eq!(fixture.post("/cluster/slots/2/election", "{}"), fine());
    assert_eq!(fixture.post("/cluster/slots/3/election", ""), err("slot not found"));
    assert_eq!(fixture.post("/cluster/slots/one/election", ""), err("slot not found"));
    let elect = |slot| ClusterChange::Elect { slot: SlotId(slot) };
    assert_eq!(changes(&fixture), [elect(1), elect(2)]);

    let lonely = seeing(alone());
    let refused = err("the slot has one replica: no other can lead it");
    assert_eq!(lonely.post("/cluster/slots/0/election", ""), refused);
    let mut view = three();
    view.nodes[0].online = false;
    assert_eq!(seeing(view.clone()).post("/cluster/slots/1/election", ""), fine());
    view.nodes[1].online = false;
    let refused = err("most replicas of the slot are offline: none can be elected");
    let fixture = seeing(view);
    assert_eq!(fixture.post("/cluster/slots/1/election", ""), refused);
    assert_eq!(changes(&fixture), []);
}

#[test]
fn nodes_are_removed_kept_and_replaced() {
    let fixture = seeing(three());
    assert_eq!(fixture.post("/cluster/nodes/1002/remove", ""), fine());
    assert_eq!(fixture.post("/cluster/nodes/1002/keep", "ignored"), fine());
    assert_eq!(
        fixture.post("/cluster/nodes/1003/replace", r#"{"addr":" 10.0.0.7:11110 "}"#),
        fine()
    );
    // The same address again is no error.
    assert_eq!(fixture.post("/cluster/nodes/1003/replace", r#"{"addr":"10.0.0.3:11110"}"#), fine());
    let replace = |addr: &str| ClusterChange::Replace { node: NodeId(1003), addr: addr.to_owned() };
    assert_eq!(
        changes(&fixture),
        [
            ClusterChange::Remove { node: NodeId(1002) },
            ClusterChange::Keep { node: NodeId(1002) },
            replace("10.0.0.7:11110"),
            replace("10.0.0.3:11110"),
        ]
    );
    for id in ["1004", "0", "x", "-1", "99999999999999999999"] {
        for (what, body) in [("remove", ""), ("keep", ""), ("replace", r#"{"addr":"a:1"}"#)] {
            let target = format!("/cluster/nodes/{id}/{what}");
            assert_eq!(fixture.post(&target, body), err("node not found"), "{target}");
        }
    }
    let replace = |body: &str| fixture.post("/cluster/nodes/1003/replace", body);
    assert_eq!(replace(""), err("EOF"));
    for body in ["{}", r#"{"addr":"a"}"#, r#"{"addr":"a b:1"}"#] {
        assert_eq!(replace(body), err("addr: wanted HOST:PORT"), "{body}");
    }
    let taken = err("addr is in use by node 1002");
    assert_eq!(replace(r#"{"addr":"10.0.0.2:11110"}"#), taken);
    assert_eq!(changes(&fixture).len(), 4);
}

#[test]
fn the_last_node_stays() {
    let refused = err("no other node would be left to take its slots");
    assert_eq!(seeing(alone()).post("/cluster/nodes/1001/remove", ""), refused);
    let mut view = three();
    view.nodes[0].status = NodeStatus::Leaving;
    view.nodes[2].votes = false;
    let fixture = seeing(view);
    assert_eq!(fixture.post("/cluster/nodes/1001/remove", ""), refused);
    assert_eq!(fixture.post("/cluster/nodes/1003/remove", ""), fine(), "it is leaving already");
}

#[test]
fn why_a_change_is_not_carried_out_is_told() {
    let fixture = Fixture::configured(
        |_, request| unreachable!("{request:?}"),
        |node, _| {
            node.cluster = Ok(three());
            node.change = Err("slot 1 is being changed".to_owned());
        },
    );
    for (target, body) in [
        ("slots/1/migrate", r#"{"migrate_from":1002,"migrate_to":1001}"#),
        ("slots/1/election", ""),
        ("nodes/1001/remove", ""),
        ("nodes/1001/keep", ""),
        ("nodes/1001/replace", r#"{"addr":"a:1"}"#),
    ] {
        let target = format!("/cluster/{target}");
        assert_eq!(fixture.post(&target, body), err("slot 1 is being changed"), "{target}");
    }
}

#[test]
fn changes_need_the_token_or_the_machine_itself() {
    const CHANGES: [(&str, &str); 5] = [
        ("/cluster/slots/1/migrate", r#"{"migrate_from":1002,"migrate_to":1001}"#),
        ("/cluster/slots/1/election", ""),
        ("/cluster/nodes/1001/remove", ""),
        ("/cluster/nodes/1001/keep", ""),
        ("/cluster/nodes/1001/replace", r#"{"addr":"a:1"}"#),
    ];
    let no_right = (403, r#"{"msg":"没有权限","status":403}"#.to_owned());
    let header = |name, value| {
        HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))])
    };
    let fixture = seeing(three());
    for (target, body) in CHANGES {
        assert_eq!(seen(&fixture.call_from_afar("POST", target, body)), no_right, "{target}");
        for (name, value) in [
            ("origin", "https://evil.example"),
            ("x-forwarded-for", "10.0.0.9"),
            ("x-real-ip", "10.0.0.9"),
            ("forwarded", "for=10.0.0.9"),
        ] {
            let response = fixture.call_with("POST", target, body, header(name, value));
            assert_eq!(seen(&response), no_right, "{target} {name}");
        }
    }
    assert_eq!(changes(&fixture), []);
    assert_eq!(fixture.call_from_afar("GET", "/cluster/nodes", "").status, 200, "reads are open");

    let guarded = Fixture::configured(
        |_, request| unreachable!("{request:?}"),
        |node, settings| {
            node.cluster = Ok(three());
            settings.manager_token = "sec-ret".to_owned();
        },
    );
    for (target, body) in CHANGES {
        assert_eq!(guarded.call("POST", target, body).status, 401, "{target}");
        let response = guarded.call_with("POST", target, body, header("token", "sec-ret"));
        assert_eq!(seen(&response), fine(), "{target}");
    }
}

#[test]
fn logs_are_paged_from_the_newest_and_tell_no_content() {
    let fixture = Fixture::configured(
        |_, request| unreachable!("{request:?}"),
        |node, _| {
            node.cluster = Ok(three());
            node.logs = |query| {
                assert_eq!(query.node, NodeId(1002));
                let last = if query.slot == Some(SlotId(2)) { 42 } else { 3 };
                let range = match query.after {
                    Some(after) => after + 1..(after + 1 + query.limit).min(last + 1),
                    None => {
                        let end = query.before.unwrap_or(u64::MAX).min(last + 1);
                        end.saturating_sub(query.limit).max(1)..end
                    }
                };
                let entries = range.map(|index| LogEntryView {
                    index,
                    term: 7,
                    kind: "entry".to_owned(),
                    commands: 2,
                    size: 90,
                    time_ms: if index == 1 { 0 } else { 1_735_689_600_000 },
                });
                Ok(LogPage { entries: entries.collect(), applied: last - 1, last })
            };
        },
    );
    let (status, body) = fixture.get("/cluster/logs?node_id=1002&log_type=1&limit=2");
    let entry = |index: u64| {
        format!(
            r#"{{"id":{index},"index":{index},"term":7,"cmd":"entry","data":"2 commands, 90 bytes","time_format":"2025-01-01T00:00:00Z"}}"#
        )
    };
    let expected = format!(
        r#"{{"next":2,"pre":3,"applied":2,"last":3,"more":1,"logs":[{},{}]}}"#,
        entry(3),
        entry(2)
    );
    assert_eq!((status, body), (200, expected));
    let page = |query: &str| -> (u64, Vec<u64>) {
        let (_, body) = fixture.get(&format!("/cluster/logs?node_id=1002&{query}"));
        let json: serde_json::Value = serde_json::from_str(&body).unwrap();
        let logs = json["logs"].as_array().unwrap();
        let indexes = logs.iter().map(|log| log["index"].as_u64().unwrap()).collect();
        (json["more"].as_u64().unwrap(), indexes)
    };
    assert_eq!(page("log_type=1&limit=2&next=2"), (0, vec![1]));
    assert_eq!(page("log_type=2&slot=2&limit=3"), (1, vec![42, 41, 40]));
    assert_eq!(page("log_type=2&slot=2&limit=3&next=40"), (1, vec![39, 38, 37]));
    assert_eq!(page("log_type=2&slot=2&limit=3&pre=38"), (1, vec![41, 40, 39]));
    assert_eq!(page("log_type=2&slot=2&pre=40"), (0, vec![42, 41]));
    assert_eq!(page("log_type=2&slot=2").1.len(), 20);
    for (query, text) in [
        ("", "node not found"),
        ("?node_id=7", "node not found"),
        ("?node_id=1002&log_type=3", "log_type: wanted 1 or 2"),
        ("?node_id=1002&log_type=2", "slot not found"),
        ("?node_id=1002&log_type=2&slot=99", "slot not found"),
    ] {
        assert_eq!(fixture.get(&format!("/cluster/logs{query}")), err(text), "{query}");
    }
}
