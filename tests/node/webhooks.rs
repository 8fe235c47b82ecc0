//! Webhooks reach their receiver whatever dies meanwhile: every acknowledged message is told at
//! least once (decision 0013).
//!
//! `JINDOU_ROUNDS` sets how often node and receiver are killed (4 in the everyday run).

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::grpc::{Answer, GrpcReceiver};
use crate::receiver::Receiver;
use crate::support::api::Api;
use crate::support::node::Node;
use crate::support::{Dice, alone, eventually, variable};

/// Writers, each of a group of its own.
const WRITERS: u64 = 4;
/// A receiver that was away is tried again after at most so long.
const BACKOFF_MAX: Duration = Duration::from_secs(15);

/// Nodes that make a cluster, or one alone.
struct Nodes(Vec<RwLock<Node>>);

impl Nodes {
    fn start(count: usize, environment: &[(&str, &str)]) -> Self {
        let mut nodes: Vec<Node> = (0..count).map(|_| Node::prepare(environment)).collect();
        let id = |place: usize| 1001 + place;
        let members = nodes.iter().enumerate();
        let members: Vec<String> =
            members.map(|(place, node)| format!("{}@{}", id(place), node.cluster())).collect();
        for (place, node) in nodes.iter_mut().enumerate() {
            node.set("WK_CLUSTER_NODEID", &id(place).to_string());
            node.set("WK_CLUSTER_APIURL", &format!("http://{}", node.api_address()));
            if count > 1 {
                node.set("WK_CLUSTER_INITNODES", &members.join(" "));
            }
            node.launch();
        }
        for node in &mut nodes {
            node.wait_ready();
        }
        Self(nodes.into_iter().map(RwLock::new).collect())
    }

    fn api(&self, place: usize) -> Api {
        let api = self.0[place % self.0.len()].read().unwrap().api();
        api.within(Duration::from_secs(3))
    }

    /// Whether it was acknowledged.
    fn send(&self, place: usize, group: &str, number: &str) -> bool {
        let body = json!({"header": {"red_dot": 1}, "from_uid": "ann", "channel_id": group,
            "channel_type": 2, "client_msg_no": number, "payload": "aGk="});
        self.api(place).ask("/message/send", &body).is_ok()
    }

    /// A metric over all shards of all nodes.
    fn sum(&self, name: &str) -> u64 {
        self.0.iter().map(|node| sum(&metrics(&node.read().unwrap()), name)).sum()
    }
}

fn numbers<'a>(messages: impl Iterator<Item = &'a Value>) -> BTreeSet<String> {
    messages.map(|message| message["client_msg_no"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_acknowledged_message_is_told_over_kills_of_node_and_receiver() {
    let dice =
        Dice::new("webhooks::every_acknowledged_message_is_told_over_kills_of_node_and_receiver");
    survive(dice, 1);
}

#[test]
fn every_acknowledged_message_is_told_over_kills_in_a_cluster() {
    let dice = Dice::new("webhooks::every_acknowledged_message_is_told_over_kills_in_a_cluster");
    survive(dice, 3);
}

fn survive(mut dice: Dice, node_count: usize) {
    let _alone = alone();
    let mut receiver = Receiver::start();
    let nodes = Nodes::start(
        node_count,
        &[
            ("WK_WEBHOOK_HTTPADDR", &receiver.url()),
            ("WK_WEBHOOK_MSGNOTIFYEVENTPUSHINTERVAL", "50ms"),
        ],
    );
    for writer in 0..WRITERS {
        nodes.0[0].read().unwrap().api().group(&format!("g-{writer}"), &["ann", "bob"]);
    }
    let acked = Mutex::new(BTreeSet::new());
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (nodes, acked, is_over) = (&nodes, &acked, &is_over);
            scope.spawn(move || {
                let mut place = 0;
                for n in 0.. {
                    if is_over.load(Ordering::SeqCst) {
                        return;
                    }
                    let number = format!("{writer}-{n}");
                    if nodes.send(place, &format!("g-{writer}"), &number) {
                        acked.lock().unwrap().insert(number);
                    } else {
                        place += 1;
                        thread::sleep(Duration::from_millis(20));
                    }
                }
            });
        }
        for round in 0..variable("JINDOU_ROUNDS").unwrap_or(4) {
            thread::sleep(Duration::from_millis(dice.between(200, 800)));
            if round % 2 == 1 {
                receiver.kill();
                thread::sleep(Duration::from_millis(dice.between(0, 700)));
            }
            {
                let victim = dice.between(0, node_count as u64) as usize;
                let mut node = nodes.0[victim].write().unwrap();
                node.kill();
                if node_count > 1 {
                    // The others take over.
                    thread::sleep(Duration::from_millis(dice.between(500, 2_000)));
                }
                node.restart();
            }
            if round % 2 == 1 {
                thread::sleep(Duration::from_millis(dice.between(0, 700)));
                receiver.restart();
            }
        }
        is_over.store(true, Ordering::SeqCst);
    });
    let acked = acked.into_inner().unwrap();
    assert!(acked.len() > 50, "{} messages only", acked.len());
    let missing = |receiver: &Receiver| -> (usize, usize) {
        let batches = receiver.taken("msg.notify");
        let told = numbers(batches.iter().flat_map(|batch| batch.as_array().unwrap()));
        let offline = receiver.taken("msg.offline");
        let pushed = numbers(offline.iter().filter(|event| event["to_uids"] == json!(["bob"])));
        (acked.difference(&told).count(), acked.difference(&pushed).count())
    };
    let end = Instant::now() + 4 * BACKOFF_MAX;
    while missing(&receiver) != (0, 0) {
        let left = missing(&receiver);
        assert!(
            Instant::now() < end,
            "never told: (notify, offline) = {left:?} of {}",
            acked.len()
        );
        thread::sleep(Duration::from_millis(100));
    }
    let batches = receiver.taken("msg.notify");
    let told: usize = batches.iter().map(|batch| batch.as_array().unwrap().len()).sum();
    println!("{} acknowledged, {told} told", acked.len());
    // What was taken leaves the outbox.
    eventually("an empty outbox", || (nodes.sum("jindou_notices{") == 0).then_some(()));
}

fn metrics(node: &Node) -> String {
    let reply = crate::support::http::request(&node.manager(), "GET", "/metrics", b"").unwrap();
    reply.text()
}

/// The same over the shards of one.
fn sum(metrics: &str, name: &str) -> u64 {
    let lines = metrics.lines().filter(|line| line.starts_with(name));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn a_receiver_that_is_away_slows_nobody_and_gets_everything_when_it_is_back() {
    let mut receiver = Receiver::start();
    let url = receiver.url();
    let environment = [
        ("WK_WEBHOOK_HTTPADDR", url.as_str()),
        ("WK_WEBHOOK_FOCUSEVENTS", "msg.notify"),
        ("WK_WEBHOOK_MSGNOTIFYEVENTPUSHINTERVAL", "10ms"),
        ("WK_WEBHOOK_SECRET", "hush"),
    ];
    let nodes = Nodes::start(1, &environment);
    nodes.api(0).group("g", &["ann", "bob"]);
    receiver.kill();
    // Far more than are under way at once.
    let mut slowest = Duration::ZERO;
    for n in 0..700 {
        let begun = Instant::now();
        assert!(nodes.send(0, "g", &format!("n-{n}")));
        slowest = slowest.max(begun.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "a send took {slowest:?}");
    assert!(nodes.sum("jindou_notices{") >= 700);
    receiver.answer(503);
    receiver.restart();
    thread::sleep(Duration::from_millis(300));
    receiver.answer(200);
    let order = eventually("all that was kept", || {
        let batches = receiver.taken("msg.notify");
        let messages = batches.iter().flat_map(|batch| batch.as_array().unwrap());
        let seqs: Vec<u64> =
            messages.map(|message| message["message_seq"].as_u64().unwrap()).collect();
        (seqs.len() >= 700).then_some(seqs)
    });
    assert_eq!(order, (1..=700).collect::<Vec<u64>>());
    let headers = receiver.headers();
    let call = headers.last().unwrap();
    assert_eq!(call["content-type"], "application/json");
    assert_eq!(call["x-jindou-signature"], signature("hush", call));
    assert!(!nodes.0[0].read().unwrap().log().contains("hush"));
}

#[test]
fn a_receiver_of_grpc_is_told_instead_and_again_what_it_has_not_taken() {
    let troubles = [Answer::Error, Answer::Code("14"), Answer::Reset, Answer::Code("13")];
    let (grpc, http) = (GrpcReceiver::start(&troubles), Receiver::start());
    let environment = [
        ("WK_WEBHOOK_GRPCADDR", grpc.address()),
        ("WK_WEBHOOK_HTTPADDR", &http.url()),
        ("WK_WEBHOOK_MSGNOTIFYEVENTPUSHINTERVAL", "10ms"),
    ];
    let nodes = Nodes::start(1, &environment);
    nodes.api(0).group("g", &["ann", "bob"]);
    // Larger than a window of HTTP/2.
    let payload = "aGkh".repeat(50_000);
    let body = json!({"from_uid": "ann", "channel_id": "g", "channel_type": 2,
        "client_msg_no": "large", "payload": payload});
    nodes.api(0).post("/message/send", &body);
    for n in 0..50 {
        assert!(nodes.send(0, "g", &format!("n-{n}")));
    }
    eventually("everything told", || {
        let batches = grpc.taken("msg.notify");
        let messages = batches.iter().flat_map(|batch| batch.as_array().unwrap());
        let seqs: BTreeSet<u64> =
            messages.map(|message| message["message_seq"].as_u64().unwrap()).collect();
        let offline = grpc.taken("msg.offline");
        let offline = numbers(offline.iter().filter(|event| event["to_uids"] == json!(["bob"])));
        (seqs.len() == 51 && offline.len() == 51).then_some(())
    });
    let batches = grpc.taken("msg.notify");
    let mut messages = batches.iter().flat_map(|batch| batch.as_array().unwrap());
    let large = messages.find(|message| message["client_msg_no"] == "large").unwrap();
    assert_eq!(large["payload"], payload);
    assert_eq!(grpc.answers_left(), 0);
    assert_eq!(nodes.sum("jindou_webhook_failures_total"), 4);
    eventually("an empty outbox", || (nodes.sum("jindou_notices{") == 0).then_some(()));
    assert!(http.headers().is_empty(), "HTTP was called, too");
}

/// As a receiver checks it.
fn signature(secret: &str, call: &HashMap<String, String>) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{}.{}", call["x-jindou-timestamp"], call["body"]).as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}
