//! `jindou import` from a stand-in that answers as v2.2.5 does: away at times, with damaged answers,
//! and killed in the middle.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::support::PATIENCE;
use crate::support::client::{Channel, Client, Login, Transport};
use crate::support::node::Node;

/// Messages of each group, and groups.
const MESSAGES: u64 = 430;
const GROUPS: u64 = 3;
/// Rows of users: more than a page.
const USERS: u64 = 450;

/// What the stand-in does to an answer.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Whole,
    /// The second half is missing.
    Cut,
    /// The connection ends without a word.
    Dropped,
    /// No answer ever: whoever asks is killed meanwhile.
    Withheld,
}

/// Decides an answer's fate by its number among the histories, from 1, and the channel asked for.
type Fates = dyn Fn(u64, &str) -> Fate + Send + Sync;

struct StandIn {
    address: String,
    withheld: mpsc::Receiver<()>,
}

impl StandIn {
    fn start(fates: Arc<Fates>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (told, withheld) = mpsc::channel();
        thread::spawn(move || {
            let asked = Arc::new(AtomicU64::new(0));
            for socket in listener.incoming().map_while(Result::ok) {
                let (fates, asked, told) = (fates.clone(), asked.clone(), told.clone());
                thread::spawn(move || serve(socket, &*fates, &asked, &told));
            }
        });
        Self { address, withheld }
    }

    fn import(&self, node: &Node, patience: u64) -> Command {
        let mut command = node.command();
        command.env_remove("WK_MANAGERTOKEN");
        let to = format!("http://{}", node.api_address());
        command.args(["import", "--from", &self.address, "--to", &to]);
        command.args(["--patience", &patience.to_string()]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

fn serve(socket: TcpStream, fates: &Fates, asked: &AtomicU64, told: &mpsc::Sender<()>) {
    let mut reader = BufReader::new(&socket);
    let (mut first, mut line, mut size) = (String::new(), String::new(), 0);
    reader.read_line(&mut first).unwrap();
    while reader.read_line(&mut line).unwrap() > 2 {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            size = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; size];
    reader.read_exact(&mut body).unwrap();
    let target = first.split_whitespace().nth(1).unwrap().to_owned();
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let answer = answer(&target, &body).to_string();
    let mut fate = Fate::Whole;
    if target == "/channel/messagesync" {
        let number = asked.fetch_add(1, Ordering::Relaxed) + 1;
        fate = fates(number, body["channel_id"].as_str().unwrap());
    }
    let sent = match fate {
        Fate::Whole => &*answer,
        Fate::Cut => answer.split_at(answer.len() / 2).0,
        Fate::Dropped => return,
        Fate::Withheld => {
            let _ = told.send(());
            let _ = (&socket).read_to_end(&mut Vec::new());
            return;
        }
    };
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
    let _ = (&socket).write_all(format!("{head}{sent}").as_bytes());
}

fn query<'a>(target: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = target.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// A page of rows made at `1..=count`, the youngest first.
fn page(target: &str, count: u64, row: impl Fn(u64) -> Value) -> Value {
    let limit: u64 = query(target, "limit").unwrap().parse().unwrap();
    let before = query(target, "offset_created_at").map_or(count + 1, |at| at.parse().unwrap());
    let last = before.saturating_sub(limit).max(1);
    let rows: Vec<Value> = (last..before).rev().map(row).collect();
    json!({"total": 0, "more": u8::from(last > 1), "data": rows})
}

fn answer(target: &str, body: &Value) -> Value {
    match target.split('?').next().unwrap() {
        "/user/systemuids" => json!(["robot"]),
        "/cluster/nodes" => json!({"total": 1, "data": [{"id": 7, "online": 1}]}),
        "/cluster/users" => {
            page(target, USERS, |n| json!({"uid": format!("u{n}"), "created_at": n}))
        }
        "/cluster/devices" => page(target, USERS, |n| {
            json!({"uid": format!("u{n}"), "device_flag": n % 2, "device_level": 1,
                   "token": if n == 1 { String::new() } else { format!("t{n}") }, "created_at": n})
        }),
        "/cluster/channels" => page(target, GROUPS, |n| {
            json!({"channel_id": format!("g {n}"), "channel_type": 2, "ban": u8::from(n == 2),
                   "disband": 0, "created_at": n})
        }),
        "/cluster/nodes/7/channels" => page(target, GROUPS, |n| {
            json!({"channel_id": format!("g {n}"), "channel_type": 2,
                   "last_message_seq": MESSAGES, "created_at": n})
        }),
        "/cluster/conversations" => match query(target, "current_page").unwrap() {
            "1" => json!({"total": 2, "data": [
                {"uid": "u2", "channel_id": "g 1", "channel_type": 2, "readed_to_msg_seq": 5,
                 "created_at": 1_600_000_000, "updated_at": 1_600_000_009},
                {"uid": "u3", "channel_id": "g 1", "channel_type": 2, "readed_to_msg_seq": 0,
                 "created_at": 0, "updated_at": 0}]}),
            _ => json!({"total": 2, "data": null}),
        },
        "/channel/messagesync" => history(body),
        list if list.ends_with("/subscribers") && list.contains("g%20") => json!(["u2", "u3"]),
        list if list.ends_with("/denylist") && list.contains("u4/1") => json!(["u5"]),
        list if list.starts_with("/cluster/channels/") => Value::Null,
        other => panic!("nobody asks v2 for {other}"),
    }
}

fn history(body: &Value) -> Value {
    let start = body["start_message_seq"].as_u64().unwrap();
    let limit = body["limit"].as_u64().unwrap();
    let last = MESSAGES.min(start + limit - 1);
    let group = body["channel_id"].as_str().unwrap();
    let messages = (start..=last).map(|seq| {
        json!({
            "header": {"no_persist": 0, "red_dot": 1, "sync_once": 0}, "setting": 0,
            "message_id": 1_000_000 + seq, "message_idstr": (1_000_000 + seq).to_string(),
            "client_msg_no": format!("{group}-{seq}"), "message_seq": seq,
            "from_uid": if seq % 50 == 0 { "" } else { "u2" }, "channel_id": group,
            "channel_type": 2, "expire": 60, "timestamp": 1_600_000_000 + seq,
            "payload": BASE64_STANDARD.encode(format!("{group} says {seq}")),
        })
    });
    json!({"start_message_seq": start, "end_message_seq": 0, "more": 0,
           "messages": messages.collect::<Vec<_>>()})
}

#[test]
fn an_import_that_was_killed_goes_on_and_ends_with_the_same_on_both_sides() {
    let mut node = Node::start_with(&[("WK_TOKENAUTHON", "true")]);
    // Some answers are cut off, some never come; the sixth stands until the import is killed.
    let source = StandIn::start(Arc::new(|number, _| match number {
        2 => Fate::Cut,
        4 => Fate::Dropped,
        6 => Fate::Withheld,
        9 => Fate::Dropped,
        _ => Fate::Whole,
    }));
    let mut killed = source.import(&node, 30).spawn().unwrap();
    source.withheld.recv_timeout(PATIENCE).unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    node.kill();
    node.restart();

    for round in ["goes on", "changes nothing"] {
        let done = source.import(&node, 30).output().unwrap();
        let told = String::from_utf8(done.stdout).unwrap();
        let errors = String::from_utf8(done.stderr).unwrap();
        assert!(done.status.success(), "{round}: {told}{errors}");
        assert_eq!(told.matches(" same\n").count(), 9, "{told}");
        let messages = told.lines().find(|line| line.starts_with("messages")).unwrap();
        let counts: Vec<&str> = messages.split_whitespace().skip(1).take(2).collect();
        let count = (MESSAGES * GROUPS).to_string();
        assert_eq!(counts, [&count, &count]);
        assert!(told.contains("no way to read"), "{told}");
    }

    let api = node.api();
    let group = Channel::group("g 1");
    let history = api.history("u2", &group);
    assert_eq!(history.len() as u64, MESSAGES);
    let place = "/channel/last_message?channel_id=g%201&channel_type=2&login_uid=u2";
    let last = api.get(place);
    assert_eq!(last["message_id"], 1_000_000 + MESSAGES);
    assert_eq!(last["timestamp"], 1_600_000_000 + MESSAGES);
    assert_eq!((&last["expire"], &last["header"]["red_dot"]), (&json!(60), &json!(1)));
    let found = api.post(
        "/message",
        &json!({"login_uid": "u2", "channel_id": "g 1", "channel_type": 2, "message_id": 1_000_007}),
    );
    assert_eq!(found["message_seq"], 7);
    let info = api.get("/cluster/channels?channel_id=g%202&channel_type=2");
    assert_eq!(info["data"][0]["ban"], 1);
    let rows = api.post("/migrate/conversations/read", &json!({"uids": ["u2", "u3", "u4"]}));
    assert_eq!(rows.as_array().unwrap().len(), 2, "members get no conversation by themselves");

    // Tokens log in, and sends go on after what was there.
    let login = Login::new("u2", Transport::Tcp).token("t2").device("d", 0);
    let mut client = Client::login(&node, &login).unwrap();
    let ack = client.deliver(&group, "new", b"hello");
    assert_eq!(u64::from(ack.seq), MESSAGES + 1);
    let wrong = Login::new("u3", Transport::Tcp).token("other").device("d", 1);
    assert!(Client::login(&node, &wrong).is_err());
}

#[test]
fn a_channel_with_damaged_answers_is_named_and_the_rest_is_copied() {
    let node = Node::start();
    let source = StandIn::start(Arc::new(
        |_, channel| {
            if channel == "g 2" { Fate::Cut } else { Fate::Whole }
        },
    ));
    let done = source.import(&node, 30).output().unwrap();
    let told = String::from_utf8(done.stdout).unwrap();
    assert!(!done.status.success(), "{told}");
    assert!(told.contains("/channel/messagesync") && told.contains("g 2"), "{told}");
    let api = node.api();
    for (group, count) in [("g 1", MESSAGES), ("g 2", 0), ("g 3", MESSAGES)] {
        assert_eq!(api.history("u2", &Channel::group(group)).len() as u64, count, "{group}");
    }
}

#[test]
fn a_side_that_is_not_there_is_named_when_patience_ends() {
    let node = Node::start();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let nobody = StandIn { address: address.clone(), withheld: mpsc::channel().1 };
    let done = nobody.import(&node, 1).output().unwrap();
    let told = String::from_utf8(done.stderr).unwrap();
    assert!(!done.status.success() && told.contains(&address), "{told}");
}

#[test]
fn writing_an_import_takes_the_right_of_a_manager() {
    let node = Node::start_with(&[("WK_MANAGERTOKEN", "secret")]);
    let body = json!({"channel_id": "g", "channel_type": 2, "messages": []});
    let reply = node.api().try_post("/migrate/messages", &body).unwrap();
    assert_eq!(reply.status, 401);
    let source = StandIn::start(Arc::new(|_, _| Fate::Whole));
    let refused = source.import(&node, 30).output().unwrap();
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && told.contains("401"), "{told}");
    let taken = source.import(&node, 30).args(["--token", "secret"]).output().unwrap();
    assert!(taken.status.success(), "{taken:?}");
}
