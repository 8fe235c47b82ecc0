//! Doors that v2.2.5 leaves broken, each with its test.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use crate::support::client::{Channel, Client, Login, Refusal, SUCCESS, Transport};
use crate::support::http;
use crate::support::node::Node;
use crate::support::{alone, eventually, open_files};

const AUTH_FAIL: u8 = 2;
const PAYLOAD_DECODE_ERROR: u8 = 9;
const CONNECT_KICK: u8 = 12;
const BAN: u8 = 19;
const CLIENT_KEY_IS_EMPTY: u8 = 21;
/// Device flags and levels.
const APP: u8 = 0;
const WEB: u8 = 1;
const MASTER: u8 = 1;

fn refusal(node: &Node, login: &Login) -> Refusal {
    Client::login(node, login).err().expect("a refusal")
}

/// v2.2.5: silence for six seconds.
#[test]
fn a_refused_connect_is_told_why_and_then_closed() {
    let node = Node::start_with(&[("WK_TOKENAUTHON", "true")]);
    let api = node.api();
    for uid in ["ann", "banned"] {
        api.token(uid, "right", APP, MASTER);
    }
    let ban = json!({"channel_id": "banned", "channel_type": 1, "ban": 1});
    api.post("/channel/info", &ban);
    for transport in Transport::ALL {
        let login = |uid, token| Login::new(uid, transport).token(token);
        let cases = [("ann", "wrong", AUTH_FAIL), ("ann", "", AUTH_FAIL), ("banned", "right", BAN)];
        for (uid, token, reason) in cases {
            let refused = refusal(&node, &login(uid, token));
            assert_eq!(refused, Refusal::Reason(reason), "{uid} {token:?} over {transport:?}");
        }
        Client::login(&node, &login("ann", "right")).unwrap();
    }
}

/// Messages of the system have no sender that a client could be.
#[test]
fn nobody_connects_as_the_system() {
    for token_auth in ["true", "false"] {
        let node = Node::start_with(&[("WK_TOKENAUTHON", token_auth), ("WK_STRESS", "true")]);
        let token =
            json!({"uid": "____system", "token": "t", "device_flag": APP, "device_level": 1});
        let refused = node.api().try_post("/user/token", &token).unwrap();
        assert_eq!(refused.status, 400, "{}", refused.text());
        for transport in Transport::ALL {
            for token in ["", "t"] {
                let login = Login::new("____system", transport).token(token);
                assert_eq!(refusal(&node, &login), Refusal::Reason(AUTH_FAIL), "{transport:?}");
            }
        }
        // `stress` switches no check off.
        let ann = Login::new("ann", Transport::Tcp).token("none");
        assert_eq!(Client::login(&node, &ann).is_ok(), token_auth == "false");
    }
}

/// v2.2.5 forgets the connection and leaves its socket open.
#[test]
fn a_kicked_or_removed_connection_is_closed() {
    let node = Node::start();
    let api = node.api();
    for transport in Transport::ALL {
        let mut kicked = Client::connect(&node, &format!("kicked-{transport:?}"), transport);
        let mut removed = Client::connect(&node, &format!("removed-{transport:?}"), transport);
        for (path, client) in [("/conn/kick", &kicked), ("/conn/remove", &removed)] {
            let id = api.connections(client.uid())[0];
            api.post(path, &json!({"uid": client.uid(), "conn_id": id}));
        }
        assert_eq!(kicked.disconnected(), (CONNECT_KICK, "server kick".to_owned()));
        kicked.closed();
        removed.closed();
        assert_eq!(removed.rest(), []);
    }
}

#[test]
fn a_login_that_was_replaced_or_quit_is_told_and_closed() {
    let node = Node::start_with(&[("WK_TOKENAUTHON", "true")]);
    let api = node.api();
    let text = |text: &str| (CONNECT_KICK, text.to_owned());
    for transport in Transport::ALL {
        let uid = format!("ann-{transport:?}");
        api.token(&uid, "t", WEB, MASTER);
        let login = |device| Login::new(&uid, transport).token("t").device(device, WEB);
        let mut first = Client::login(&node, &login("first")).unwrap();
        let mut second = Client::login(&node, &login("second")).unwrap();
        assert_eq!(first.disconnected(), text("login in other device"));
        first.closed();
        api.token(&uid, "t", WEB, MASTER);
        assert_eq!(second.disconnected(), text("账号在其他设备上登录"));
        second.closed();
        let mut third = Client::login(&node, &login("third")).unwrap();
        api.post("/user/device_quit", &json!({"uid": uid, "device_flag": WEB}));
        assert_eq!(third.disconnected(), text(""));
        third.closed();
        assert_eq!(refusal(&node, &login("fourth")), Refusal::Reason(AUTH_FAIL));
    }
}

/// G9 at the door: what is sent after a kick does not reach the kicked connection.
#[test]
fn nothing_is_pushed_after_a_kick() {
    let node = Node::start();
    let mut bob = Client::connect(&node, "bob", Transport::Tcp);
    let mut ann = Client::connect(&node, "ann", Transport::Tcp);
    let id = node.api().connections("bob")[0];
    node.api().post("/conn/kick", &json!({"uid": "bob", "conn_id": id}));
    bob.disconnected();
    ann.deliver(&Channel::person("bob"), "late", b"too late for this connection");
    bob.closed();
    assert_eq!(bob.rest(), []);
}

/// v2.2.5 never answers one to three of a hundred CONNECTs.
#[test]
fn each_of_10_000_good_connects_is_answered() {
    const COUNT: u32 = 10_000;
    const DIALS: usize = 64;
    let _alone = alone();
    open_files(4096);
    let node = Node::start();
    let (next, lost) = (AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        for _ in 0..DIALS {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= COUNT {
                        return;
                    }
                    let transport = Transport::ALL[n as usize % 4];
                    let login = Login::new(&format!("u{n}"), transport);
                    if let Err(refusal) = Client::login(&node, &login) {
                        println!("{n} over {transport:?}: {refusal:?}");
                        lost.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(lost.load(Ordering::Relaxed), 0, "CONNECTs of {COUNT} were not answered");
}

/// v2.2.5 says so before its slots take writes.
#[test]
fn health_says_ok_only_once_every_slot_takes_writes() {
    let mut node = Node::start();
    for round in 0..3 {
        // Channels and users of many slots, at the first moment, without a second try.
        let mut ann = Client::connect(&node, "ann", Transport::Tcp);
        for n in 0..64 {
            let no = format!("{round}-{n}");
            ann.deliver(&Channel::person(&format!("peer-{n}")), &no, b"at once");
            node.api().send("back-end", &Channel::person(&format!("peer-{n}")), &no, b"at once");
        }
        let health = http::request(&node.api_address(), "GET", "/health", b"").unwrap();
        assert_eq!((health.status, health.json()), (200, json!({"status": "ok"})));
        let ready = http::request(&node.api_address(), "GET", "/readyz", b"").unwrap();
        assert_eq!(ready.status, 200, "{}", ready.text());
        match round {
            0 => node.kill(),
            _ => assert!(node.terminate().0.success()),
        }
        node.restart();
    }
}

/// v2.2.5's process ends at one blank uid in a list, and again at each restart.
#[test]
fn blank_uids_in_a_list_are_dropped() {
    let mut node = Node::start();
    let api = node.api();
    let group = api.group("g", &["ann", "", "bob"]);
    let list = |key: &str, uids: &[&str]| json!({"channel_id": "g", "channel_type": 2, key: uids});
    for path in ["/channel/subscriber_add", "/channel/subscriber_remove"] {
        api.post(path, &list("subscribers", &["cat", ""]));
    }
    for what in ["blacklist_add", "blacklist_set", "blacklist_remove"] {
        api.post(&format!("/channel/{what}"), &list("uids", &["dan", ""]));
    }
    let white = json!({"channel_id": "ann", "channel_type": 1, "uids": ["bob", ""]});
    api.post("/channel/whitelist_add", &white);
    for _ in 0..2 {
        let mut ann = Client::connect(&node, "ann", Transport::Tcp);
        let mut bob = Client::connect(&node, "bob", Transport::Ws);
        ann.deliver(&group, &format!("pid-{}", node.pid()), b"still here");
        assert_eq!(bob.receive().payload, b"still here");
        node.kill();
        node.restart();
    }
}

/// v2.2.5's process ends.
#[test]
fn a_manager_with_a_wrong_token_is_refused_and_nobody_else_notices() {
    let node = Node::start_with(&[("WK_MANAGERTOKEN", "secret")]);
    let mut bob = Client::connect(&node, "bob", Transport::Tcp);
    for transport in Transport::ALL {
        let login = |token| Login::new("____manager", transport).token(token);
        for token in ["wrong", "", "secre", "secrets"] {
            assert_eq!(refusal(&node, &login(token)), Refusal::Reason(AUTH_FAIL));
        }
        Client::login(&node, &login("secret")).unwrap();
    }
    bob.ping();
}

#[test]
fn a_client_key_that_everybody_knows_is_refused() {
    let node = Node::start();
    let zeros = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let one = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    for transport in [Transport::Tcp, Transport::Ws] {
        for key in [zeros, one, "", "AAAA", "no base64"] {
            let mut login = Login::new("ann", transport);
            login.client_key = Some(key.to_owned());
            let refused = refusal(&node, &login);
            assert_eq!(refused, Refusal::Reason(CLIENT_KEY_IS_EMPTY), "{key:?}");
        }
    }
}

/// v2.2.5 loses the rest of the batch, a PING in it too.
#[test]
fn a_frame_that_does_not_decrypt_harms_no_other_frame_of_its_batch() {
    let node = Node::start();
    for transport in [Transport::Tcp, Transport::Ws] {
        let mut ann = Client::connect(&node, &format!("ann-{transport:?}"), transport);
        let mut bob = Client::connect(&node, "bob", Transport::Tcp);
        let to = Channel::person("bob");
        let (first, good) = ann.frame(&to, "first", b"before");
        let mut batch = vec![good];
        // The first of two blocks ends in a letter, which is no padding.
        let two = BASE64_STANDARD.decode(ann.seal(&[b'a'; 16])).unwrap();
        let unpadded = BASE64_STANDARD.encode(&two[..16]);
        // Each under a right key: not base64, empty, no whole block, and not padded.
        let bad: [&[u8]; 4] = [b"***", b"", b"AAAA", unpadded.as_bytes()];
        for (n, wire) in (1000..).zip(bad) {
            batch.push(ann.frame_of_wire(n, &to, "bad", wire));
        }
        batch.push(vec![0x70]);
        let (last, good) = ann.frame(&to, "last", b"after");
        batch.push(good);
        ann.write(&batch).unwrap();
        assert_eq!(ann.ack(first).reason, SUCCESS);
        for n in 1000..1004 {
            let ack = ann.ack(n);
            assert_eq!((ack.reason, ack.seq), (PAYLOAD_DECODE_ERROR, 0));
        }
        ann.ping();
        let last = ann.ack(last);
        assert_eq!((last.reason, last.seq), (SUCCESS, 2));
        assert_eq!(
            (bob.receive().payload, bob.receive().payload),
            (b"before".to_vec(), b"after".to_vec())
        );
    }
}

/// G5, G10: what was sent while a user was away is counted, found, and read away.
#[test]
fn an_offline_user_finds_what_was_sent_with_its_true_unread_count() {
    let node = Node::start();
    let api = node.api();
    let group = api.group("g", &["ann", "bob"]);
    let mut ann = Client::connect(&node, "ann", Transport::Tcp);
    for n in 1..=7 {
        ann.deliver(&group, &format!("g{n}"), b"to all");
        ann.deliver(&Channel::person("bob"), &format!("p{n}"), b"to Bob");
    }
    for channel in ["g", "ann"] {
        let seen = api.conversation("bob", channel).unwrap();
        assert_eq!((&seen["unread"], &seen["last_msg_seq"]), (&json!(7), &json!(7)), "{channel}");
        let kind = if channel == "g" { 2 } else { 1 };
        let body = json!({"uid": "bob", "channel_id": channel, "channel_type": kind, "unread": 3});
        api.post("/conversations/setUnread", &body);
        assert_eq!(api.conversation("bob", channel).unwrap()["unread"], 3);
        api.post("/conversations/clearUnread", &body);
        assert_eq!(api.conversation("bob", channel).unwrap()["unread"], 0);
    }
    let own = eventually("Ann's own conversation", || api.conversation("ann", "bob"));
    assert_eq!(own["unread"], 0);
}
