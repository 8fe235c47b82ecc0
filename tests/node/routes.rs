//! Every route of v2.2.5 is on its ports, and no body or query brings a node down.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::thread;

use serde_json::{Value, json};

use crate::support::PATIENCE;
use crate::support::client::{Channel, Client, Transport};
use crate::support::http::{self, Reply};
use crate::support::node::Node;

/// The API port's own.
const API: &[(&str, &str)] = &[
    ("GET", "/health"),
    ("GET", "/migrate/result"),
    ("GET", "/route"),
    ("POST", "/route/batch"),
    ("POST", "/user/token"),
    ("POST", "/user/device_quit"),
    ("POST", "/user/onlinestatus"),
    ("POST", "/user/systemuids_add"),
    ("POST", "/user/systemuids_remove"),
    ("GET", "/user/systemuids"),
    ("POST", "/user/systemuids_add_to_cache"),
    ("POST", "/user/systemuids_remove_from_cache"),
    ("POST", "/user/update_plugin_no"),
    ("POST", "/channel"),
    ("POST", "/channel/info"),
    ("POST", "/channel/delete"),
    ("POST", "/channel/subscriber_add"),
    ("POST", "/channel/subscriber_remove"),
    ("POST", "/channel/subscriber_remove_all"),
    ("POST", "/tmpchannel/subscriber_set"),
    ("POST", "/channel/blacklist_add"),
    ("POST", "/channel/blacklist_set"),
    ("POST", "/channel/blacklist_remove"),
    ("POST", "/channel/blacklist_remove_all"),
    ("POST", "/channel/whitelist_add"),
    ("POST", "/channel/whitelist_set"),
    ("POST", "/channel/whitelist_remove"),
    ("POST", "/channel/whitelist_remove_all"),
    ("GET", "/channel/whitelist"),
    ("POST", "/message/send"),
    ("POST", "/message/sendbatch"),
    ("POST", "/message/sync"),
    ("POST", "/message/syncack"),
    ("POST", "/messages"),
    ("POST", "/message"),
    ("GET", "/message/byclientmsgno"),
    ("POST", "/message/event"),
    ("POST", "/message/eventsync"),
    ("POST", "/channel/messagesync"),
    ("GET", "/channel/max_message_seq"),
    ("GET", "/channel/last_message"),
    ("POST", "/conversations/clearUnread"),
    ("POST", "/conversations/setUnread"),
    ("POST", "/conversations/delete"),
    ("POST", "/conversation/sync"),
    ("POST", "/conversation/syncMessages"),
    ("POST", "/conversation/channels"),
    ("POST", "/conversation/syncByChannels"),
    ("GET", "/docs"),
    ("GET", "/docs/"),
    ("GET", "/docs/openapi.json"),
    ("GET", "/docs/health"),
    ("GET", "/debug/pprof/"),
    ("GET", "/debug/pprof/heap"),
];

/// On both ports.
const BOTH: &[(&str, &str)] = &[
    ("GET", "/connz"),
    ("GET", "/varz"),
    ("GET", "/varz/setting"),
    ("POST", "/conn/remove"),
    ("POST", "/conn/kick"),
    ("POST", "/manager/login"),
    ("POST", "/stress/add"),
    ("POST", "/stress/remove"),
    ("POST", "/stress/start"),
    ("POST", "/stress/stop"),
    ("POST", "/stress/report"),
    ("GET", "/stress/infoList"),
    ("GET", "/stress/templates"),
    ("GET", "/tag"),
    ("POST", "/tag/remove"),
    ("GET", "/tags"),
    ("GET", "/cluster/nodes"),
    ("GET", "/cluster/node"),
    ("GET", "/cluster/simpleNodes"),
    ("GET", "/cluster/nodes/{node}/channels"),
    ("GET", "/cluster/slots"),
    ("GET", "/cluster/allslot"),
    ("GET", "/cluster/slots/{slot}/config"),
    ("POST", "/cluster/slots/{slot}/migrate"),
    ("GET", "/cluster/slots/{slot}/replicas"),
    ("GET", "/cluster/slots/{slot}/localReplica"),
    ("POST", "/cluster/slots/{slot}/election"),
    ("GET", "/cluster/messages"),
    ("POST", "/cluster/message/eventsync"),
    ("GET", "/cluster/channels"),
    ("GET", "/cluster/channels/{channel}/{kind}/subscribers"),
    ("GET", "/cluster/channels/{channel}/{kind}/denylist"),
    ("GET", "/cluster/channels/{channel}/{kind}/allowlist"),
    ("GET", "/cluster/users"),
    ("GET", "/cluster/devices"),
    ("GET", "/cluster/conversations"),
    ("GET", "/cluster/info"),
    ("GET", "/cluster/logs"),
    ("POST", "/cluster/channels/{channel}/{kind}/migrate"),
    ("GET", "/cluster/channels/{channel}/{kind}/config"),
    ("POST", "/cluster/channels/{channel}/{kind}/start"),
    ("POST", "/cluster/channels/{channel}/{kind}/stop"),
    ("POST", "/cluster/channel/status"),
    ("GET", "/cluster/channels/{channel}/{kind}/replicas"),
    ("GET", "/cluster/channels/{channel}/{kind}/localReplica"),
    ("GET", "/cluster/devtools/checkLogConflict"),
    ("POST", "/migrate/messages"),
    ("POST", "/migrate/conversations"),
    ("POST", "/migrate/conversations/read"),
    ("POST", "/migrate/devices"),
    ("POST", "/migrate/list"),
    ("GET", "/plugins/p/x"),
    ("POST", "/plugins/p/x/y"),
    ("PUT", "/plugins/p/x"),
    ("DELETE", "/plugins/p/x"),
    ("GET", "/plugins"),
    ("POST", "/pluginconfig/p"),
    ("POST", "/plugin/bind"),
    ("GET", "/plugin/bind"),
    ("POST", "/plugin/unbind"),
    ("POST", "/plugin/uninstall"),
    // Ours.
    ("POST", "/cluster/nodes/{node}/keep"),
    ("POST", "/cluster/nodes/{node}/remove"),
    ("POST", "/cluster/nodes/{node}/replace"),
];

/// The manager port's own.
const MANAGER: &[(&str, &str)] = &[
    ("GET", "/metrics"),
    ("GET", "/metrics/app"),
    ("GET", "/metrics/cluster"),
    ("GET", "/metrics/system"),
    ("GET", "/web"),
    ("GET", "/web/"),
    ("GET", "/web/cluster/nodes"),
];

/// What answers 501: load testers, Go's profiles.
const NOT_SERVED: &[&str] = &["/stress/", "/debug/pprof/"];

/// Not on the manager port of v2.2.5 either: pages of the API port, and v2's only path for a log-in.
const NOWHERE: &[(&str, &str)] =
    &[("GET", "/"), ("GET", "/nope"), ("GET", "/manager/login"), ("PUT", "/channel")];

/// A node with everything switched on.
fn node() -> Node {
    Node::start_with(&[
        ("WK_STRESS", "true"),
        ("WK_PPROFON", "true"),
        ("WK_AUTH_USERS", "admin:admin-pw:* guest:guest:[*:r]"),
    ])
}

/// One request with a log-in's token. An error: no whole answer came.
fn call(at: &str, token: &str, method: &str, path: &str, body: &[u8]) -> io::Result<Reply> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\
         Authorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    http::exchange(PATIENCE, at, &[head.as_bytes(), body].concat())
}

fn login(at: &str, name: &str, password: &str) -> String {
    let body = json!({"username": name, "password": password}).to_string();
    let reply = http::request(at, "POST", "/manager/login", body.as_bytes()).unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["token"].as_str().unwrap().to_owned()
}

/// A pattern with something at its names.
fn filled(pattern: &str, node: &str, slot: &str, channel: &str, kind: &str) -> String {
    pattern
        .replace("{node}", node)
        .replace("{slot}", slot)
        .replace("{channel}", channel)
        .replace("{kind}", kind)
}

fn is_of_router(reply: &Reply) -> bool {
    reply.status == 404 && reply.text() == "404 page not found"
}

#[test]
fn every_route_of_v2_is_on_its_ports() {
    let node = node();
    let (api, manager) = (node.api_address(), node.manager());
    let token = login(&manager, "admin", "admin-pw");
    let asked = |at: &str, (method, path): (&str, &str)| {
        let path = filled(path, "1001", "1", "g", "2");
        call(at, &token, method, &path, b"{}").unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    };
    for route in API.iter().chain(BOTH) {
        let reply = asked(&api, *route);
        assert!(!is_of_router(&reply), "{route:?} is not on the API port");
    }
    for route in MANAGER.iter().chain(BOTH) {
        let reply = asked(&manager, *route);
        assert!(!is_of_router(&reply), "{route:?} is not on the manager port");
    }
    for route in MANAGER.iter().chain(NOWHERE) {
        assert!(is_of_router(&asked(&api, *route)), "{route:?} is on the API port");
    }
    for route in API.iter().chain(NOWHERE) {
        assert!(is_of_router(&asked(&manager, *route)), "{route:?} is on the manager port");
    }
}

/// Names of all fields of all bodies, and of all parameters.
const FIELDS: &str = "uid uids token device_flag device_level plugin_no channel_id channel_type large ban \
    disband send_ban allow_stranger subscribers reset temp_subscriber header no_persist red_dot sync_once \
    from_uid payload client_msg_no expire stream_no tag_key login_uid start_message_seq end_message_seq limit \
    pull_mode message_ids message_id message_seqs message_seq event_summary_mode include_event_meta \
    last_message_seq version last_msg_seqs msg_count only_unread exclude_channel_types channels unread conn_id \
    node_id op_node_id username password addr no task migrate_from migrate_to config event_id event_type \
    event_key visibility occurred_at from_msg_event_seq stream setting topic \
    messages conversations devices list readed_to_msg_seq deleted_to_msg_seq created_at updated_at timestamp";

/// Values of every kind, as JSON text.
fn values() -> Vec<String> {
    let mut values: Vec<String> = [
        "null",
        "true",
        "0",
        "1",
        "2",
        "-1",
        "1.5",
        "1e400",
        "-1e400",
        "255",
        "256",
        "4294967296",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        r#""""#,
        r#""x""#,
        r#"" ""#,
        r#""\u0000""#,
        r#""\ud800""#,
        r#""a@b#c&d""#,
        r#""____system""#,
        r#""____manager""#,
        r#""a____cmd""#,
        r#""aGk=""#,
        r#""aGk""#,
        r#""9223372036854775807:2:9223372036854775807|::|""#,
        "[]",
        "[null]",
        "[1]",
        "[-1]",
        "[18446744073709551615]",
        r#"[""]"#,
        r#"["x"]"#,
        r#"["x","x","____system"]"#,
        "[[]]",
        "[{}]",
        r#"[{"channel_id":"x","channel_type":255}]"#,
        r#"[{"channel_id":"x","channel_type":-1}]"#,
        "{}",
        r#"{"a":{}}"#,
        r#"{"no_persist":1,"red_dot":1,"sync_once":1}"#,
    ]
    .map(str::to_owned)
    .to_vec();
    values.push(format!("\"{}\"", "x".repeat(9_000)));
    values
}

/// Bodies that no caller of good will sends, and some that one might.
fn bodies() -> Vec<Vec<u8>> {
    let mut bodies: Vec<Vec<u8>> = [
        &b""[..],
        b" ",
        b"{",
        b"[",
        b"\"",
        b"nul",
        b"{}}",
        b"{\"uid\"",
        b"{\"uid\":}",
        b"{'uid':1}",
        b"\xff\xfe\x00",
        b"{\"uid\":\"\xff\xfe\"}",
        b"\xef\xbb\xbf{}",
        b"<xml/>",
        b"a=b&c=d",
        b"-",
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    bodies.push("[".repeat(200_000).into_bytes());
    bodies.push("{\"a\":".repeat(100_000).into_bytes());
    let long = "é".repeat(40_000);
    let names = ["token", "uid", "channel_id", "client_msg_no", "plugin_no", "event_key", "topic"];
    for name in names {
        let body = json!({"uid": "hu", "channel_id": "hg", "channel_type": 2, name: long});
        bodies.push(body.to_string().into_bytes());
    }
    for value in values() {
        bodies.push(value.clone().into_bytes());
        let mut body = String::from("{");
        for (place, field) in FIELDS.split_whitespace().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(body, "{comma}\"{field}\":{value}").unwrap();
        }
        body.push('}');
        bodies.push(body.into_bytes());
    }
    // Sound ids, so that what comes after the checks of ids is met too.
    for value in values() {
        let sound = r#""uid":"hu","login_uid":"hu","from_uid":"hu","channel_id":"hg""#;
        let mut body = format!("{{{sound},\"channel_type\":2,\"client_msg_no\":\"h\"");
        let known = ["uid", "login_uid", "from_uid", "channel_id", "channel_type", "client_msg_no"];
        for field in FIELDS.split_whitespace().filter(|field| !known.contains(field)) {
            write!(body, ",\"{field}\":{value}").unwrap();
        }
        body.push('}');
        bodies.push(body.into_bytes());
    }
    bodies
}

/// What may stand in a path or a query, escaped.
const PIECES: [&str; 14] = [
    "",
    "0",
    "1",
    "-1",
    "x",
    "256",
    "65536",
    "18446744073709551616",
    "1e9",
    "%00",
    "%ff%fe",
    "a%40b",
    "..%2f..",
    "%F0%9F%90%92",
];

/// The paths of a route, with every piece at each of its names and in each parameter.
fn paths(pattern: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for piece in PIECES.into_iter().chain([&*"9".repeat(6_000)]) {
        if pattern.contains('{') {
            paths.push(filled(pattern, piece, piece, piece, piece));
            paths.push(filled(pattern, "1001", "1", piece, "2"));
            paths.push(filled(pattern, "1001", "1", "hg", piece));
        }
        let path = filled(pattern, "1001", "1", "hg", "2");
        let short = piece.len() < 100;
        let names = FIELDS.split_whitespace().filter(|_| short);
        let more = "ids sort offset offset_created_at offset_message_id offset_message_seq pre next slot log_type \
            current_page conn_limit show latest type intranet";
        let pairs: Vec<String> =
            names.chain(more.split_whitespace()).map(|name| format!("{name}={piece}")).collect();
        paths.push(format!("{path}?{}", if short { pairs.join("&") } else { pairs[0].clone() }));
        // A sound channel with a strange range.
        paths.push(format!(
            "{path}?channel_id=hg&channel_type=2&uid=hu&login_uid=hu&limit={piece}&node_id={piece}"
        ));
    }
    paths
}

/// Strange answers by route and answer, each with how often and the first question.
type Faults = BTreeMap<String, (usize, String)>;

/// Notes an answer that a route must not give, or that there was none.
fn judge(route: &str, asked: &str, answer: io::Result<Reply>, faults: &mut Faults) {
    let may_be_501 = NOT_SERVED.iter().any(|prefix| route.contains(prefix));
    let answer = match answer {
        Ok(reply) if reply.status < 500 || reply.status == 501 && may_be_501 => return,
        Ok(reply) => format!("{} {}", reply.status, reply.text()),
        Err(error) => error.to_string(),
    };
    let first = || (0, asked.chars().take(300).collect());
    faults.entry(format!("{route}: {answer}")).or_insert_with(first).0 += 1;
}

/// Every POST route with every body, every GET route with every query, on a port.
fn harass(at: &str, token: &str, routes: &[(&str, &str)]) -> Faults {
    let mut faults = Faults::new();
    let bodies = bodies();
    for (method, pattern) in routes {
        let route = format!("{method} {pattern}");
        for path in paths(pattern) {
            let answer = call(at, token, method, &path, b"{}");
            judge(&route, &path, answer, &mut faults);
        }
        if *method == "GET" {
            continue;
        }
        let path = filled(pattern, "1001", "1", "hg", "2");
        for body in &bodies {
            let answer = call(at, token, method, &path, body);
            judge(&route, &String::from_utf8_lossy(body), answer, &mut faults);
        }
    }
    faults
}

/// G17: a bad body or parameter gets a refusal, and the node goes on.
#[test]
fn g17_hostile_bodies_and_queries_on_every_route() {
    let node = node();
    let (api, manager) = (node.api_address(), node.manager());
    let token = login(&manager, "admin", "admin-pw");
    let mut ann = Client::connect(&node, "ann", Transport::Tcp);
    ann.deliver(&Channel::person("bob"), "before", b"before");
    let pid = node.pid();
    let own = API.iter().chain(BOTH).copied().collect::<Vec<_>>();
    let managers = MANAGER.iter().chain(BOTH).copied().collect::<Vec<_>>();
    let faults: Vec<Faults> = thread::scope(|scope| {
        let halves = [(&api, &own), (&manager, &managers)].into_iter().flat_map(|(at, routes)| {
            routes.chunks(routes.len().div_ceil(2)).map(move |routes| (at, routes))
        });
        let token = &token;
        let runs: Vec<_> =
            halves.map(|(at, routes)| scope.spawn(move || harass(at, token, routes))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert!(faults.iter().all(BTreeMap::is_empty), "{faults:#?}");
    assert_eq!(node.pid(), pid);
    assert!(!node.log().contains("panicked"), "a thread panicked");
    assert!(node.serves(), "the node serves no more");
    ann.deliver(&Channel::person("bob"), "after", b"after");
    let seqs: Vec<u32> =
        node.api().history("ann", &Channel::person("bob")).iter().map(|m| m.seq).collect();
    assert_eq!(seqs, [1, 2]);
}

/// The log names what stands open (G19), and no password, token or key.
#[test]
fn g19_the_log_names_open_doors_and_no_secret() {
    let secrets = ["hush-password", "hush-manager-token", "hush-jwt-secret"];
    let node = Node::start();
    let log = node.log();
    for door in [
        "managerToken is not set",
        "tokenAuthOn is false",
        "auth.users has guest with the password guest",
    ] {
        assert!(log.contains(door), "{door}: {log}");
    }
    drop(node);
    let node = Node::start_with(&[
        ("WK_AUTH_USERS", "admin:hush-password:*"),
        ("WK_MANAGERTOKEN", secrets[1]),
        ("WK_JWT_SECRET", secrets[2]),
        ("WK_LOGGER_LEVEL", "1"),
    ]);
    let manager = node.manager();
    let token = login(&manager, "admin", secrets[0]);
    let wrong = json!({"username": "admin", "password": "hush-wrong"}).to_string();
    let refused = http::request(&manager, "POST", "/manager/login", wrong.as_bytes()).unwrap();
    assert_eq!(refused.status, 400);
    for path in ["/varz", "/varz/setting", "/connz", "/cluster/info", "/cluster/nodes", "/metrics"]
    {
        let shown = call(&manager, &token, "GET", path, b"").unwrap();
        assert_eq!(shown.status, 200, "{path}");
        assert!(!shown.text().contains("hush"), "{path}: {}", shown.text());
        let path = format!("{path}?Authorization={token}");
        assert_eq!(http::request(&manager, "GET", &path, b"").unwrap().status, 200);
    }
    let log = node.log();
    assert!(!log.contains("managerToken is not set"), "{log}");
    assert!(!log.contains("hush") && !log.contains(&token), "{log}");
}

/// What one life of a node has signed, the next one takes; a forger's token it does not.
#[test]
fn a_login_outlives_the_process_that_gave_it() {
    let mut node = Node::start();
    let token = login(&node.manager(), "guest", "guest");
    let get = |node: &Node, token: &str| {
        call(&node.manager(), token, "GET", "/cluster/nodes", b"").unwrap().status
    };
    assert_eq!(get(&node, &token), 200);
    node.kill();
    node.launch();
    node.wait_ready();
    assert_eq!(get(&node, &token), 200);
    let other = Node::start();
    assert_eq!(get(&other, &token), 401, "another cluster has drawn another key");
    let reply: Value = call(&other.manager(), &token, "GET", "/varz", b"").unwrap().json();
    assert_eq!(reply["error"], "Invalid token: the token's signature is invalid");
}

/// The log of a slot tells what kind of entries there are, and nothing that stands in them.
#[test]
fn a_log_is_shown_without_its_contents() {
    let node = Node::start();
    let api = node.api();
    for n in 0..30 {
        api.token(&format!("hush-{n}"), "hush-token", 0, 1);
    }
    let mut ann = Client::connect(&node, "ann", Transport::Tcp);
    let group = api.group("hush-group", &["ann"]);
    ann.deliver(&group, "hush-no", b"hush-content");
    let mut entries = 0;
    for slot in 0..64 {
        let path = format!("/cluster/logs?node_id=1001&log_type=2&slot={slot}&limit=200");
        let page = api.get(&path);
        let logs = page["logs"].as_array().unwrap();
        let indexes: Vec<u64> = logs.iter().map(|log| log["index"].as_u64().unwrap()).collect();
        let last = page["last"].as_u64().unwrap();
        let expected: Vec<u64> = (0..indexes.len() as u64).map(|n| last - n).collect();
        assert_eq!(indexes, expected, "slot {slot}: from the newest on, without a hole");
        entries += logs.iter().filter(|log| log["cmd"] == "entry").count();
        assert!(!page.to_string().contains("hush"), "{page}");
    }
    assert!(entries > 10, "{entries} entries");
    let group_0 = api.get("/cluster/logs?node_id=1001&log_type=1");
    assert!(group_0["last"].as_u64().unwrap() > 0, "{group_0}");
}
