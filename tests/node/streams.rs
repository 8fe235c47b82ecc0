//! A stream through the whole node: a back end appends a text word by word while the node is killed;
//! what was answered is there, each word once, and whoever comes late reads what was so far.

use std::sync::mpsc;
use std::thread;

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::client::{Client, Event, Transport};
use crate::support::node::Node;
use crate::support::{alone, eventually};

/// Words of one life of the node, and how many of them are not answered when it is killed.
const WORDS: usize = 100;
const IN_FLIGHT: usize = 10;
const TRANSPORTS: [Transport; 3] = [Transport::Tcp, Transport::Json, Transport::Ws];
const NUMBER: &str = "answer";

fn word(n: usize) -> String {
    format!("{n} ")
}

fn text(words: impl Iterator<Item = usize>) -> String {
    words.map(word).collect()
}

/// Appends to the stream of `bot` and `ann`; who appends is not said, as by back ends that rely on the
/// node to know it. Asked again until it is answered.
fn append(api: &Api, id: &str, kind: &str, payload: &Value) -> Value {
    let body = json!({
        "channel_id": "ann", "channel_type": 1, "client_msg_no": NUMBER,
        "event_id": id, "event_type": kind, "payload": payload,
    });
    eventually("an answer to an event", || {
        api.try_post("/message/event", &body).ok().filter(|reply| reply.status == 200)
    })
    .json()
}

/// The message as `ann` reads it.
fn read(api: &Api) -> Value {
    let body = json!({"login_uid": "ann", "channel_id": "bot", "channel_type": 1, "limit": 10});
    let page = api.post("/channel/messagesync", &body);
    page["messages"][0].clone()
}

fn stream_text(message: &Value) -> String {
    use base64::Engine as _;
    let data = message["stream_data"].as_str().unwrap_or_default();
    let data = base64::prelude::BASE64_STANDARD.decode(data).unwrap();
    String::from_utf8(data).unwrap()
}

/// The next delta that comes to a client.
fn delta(client: &mut Client) -> String {
    client.find("EVENT", |event| match event {
        Event::Stream { kind, data, .. } if kind == "stream.delta" => {
            Some(data["payload"]["delta"].as_str().unwrap().to_owned())
        }
        _ => None,
    })
}

#[test]
fn a_stream_goes_on_where_a_killed_node_has_left_it() {
    let _alone = alone();
    let mut node = Node::start();
    let api = node.api();
    let send = json!({
        "header": {"red_dot": 1}, "is_stream": 1, "client_msg_no": NUMBER, "from_uid": "bot",
        "channel_id": "ann", "channel_type": 1, "payload": "e30=",
    });
    api.post("/message/send", &send);
    let ((allow, allowed), (tell, answered)) = (mpsc::channel(), mpsc::channel());
    let back_end = thread::spawn({
        let api = api.clone();
        move || {
            for n in allowed {
                let payload = json!({"kind": "text", "delta": word(n)});
                let answer = append(&api, &format!("e{n}"), "stream.delta", &payload);
                assert_eq!(answer["data"]["from_uid"], "bot", "{answer}");
                tell.send(n).unwrap();
            }
        }
    });
    for (round, transport) in (0..).zip(TRANSPORTS) {
        let words = round * WORDS..(round + 1) * WORDS;
        let so_far = stream_text(&read(&api));
        assert_eq!(so_far, text(0..words.start), "who comes late reads what was so far");
        let mut ann = Client::connect(&node, "ann", transport);
        for n in words.clone() {
            allow.send(n).unwrap();
        }
        for n in words.clone().take(WORDS - IN_FLIGHT) {
            assert_eq!(answered.recv().unwrap(), n);
            assert_eq!(delta(&mut ann), word(n), "{transport:?}");
        }
        node.kill();
        node.restart();
        for n in words.clone().skip(WORDS - IN_FLIGHT) {
            assert_eq!(answered.recv().unwrap(), n);
        }
    }
    drop(allow);
    back_end.join().unwrap();
    let all = text(0..TRANSPORTS.len() * WORDS);
    let open = read(&api);
    assert_eq!(stream_text(&open), all);
    assert!(open["end"].is_null() && open["event_meta"]["completed"] == false, "{open}");
    let end = append(&api, "end", "stream.close", &json!({"end_reason": 5}));
    assert_eq!(end["data"]["stream_status"], "closed");
    append(&api, "finish", "stream.finish", &json!({}));
    node.kill();
    node.restart();
    let closed = read(&api);
    assert_eq!(stream_text(&closed), all);
    let (end, reason, meta) = (&closed["end"], &closed["end_reason"], &closed["event_meta"]);
    assert_eq!((end, reason, &meta["completed"]), (&json!(1), &json!(5), &json!(true)));
    assert_eq!(closed["from_uid"], "bot");
    let late = json!({
        "channel_id": "ann", "channel_type": 1, "client_msg_no": NUMBER, "event_id": "late",
        "event_type": "stream.delta", "payload": {"kind": "text", "delta": "!"},
    });
    let late = api.try_post("/message/event", &late).unwrap();
    assert_eq!((late.status, late.json()["msg"].as_str()), (400, Some("stream closed")));
}
