//! G1 in the narrow sense: nothing is acknowledged before it is fsynced. A preloaded library
//! (`shim/hold.c`) keeps every fsync of the node waiting for as long as a file exists.

use std::fs;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::shim;
use crate::support::api::Api;
use crate::support::client::{Channel, Client, Event, SUCCESS, Transport};
use crate::support::node::Node;
use crate::support::{PATIENCE, eventually};

/// For how long nothing may be acknowledged. An fsync here takes milliseconds.
const HELD: Duration = Duration::from_secs(2);

#[test]
fn g1_nothing_is_acknowledged_while_fsync_is_held_back() {
    let mut node = Node::prepare(&[]);
    let (hold, count) = (node.folder().join("hold"), node.folder().join("count"));
    node.set("LD_PRELOAD", shim::library("hold").to_str().unwrap());
    node.set("JINDOU_SHIM_HOLD", hold.to_str().unwrap());
    node.set("JINDOU_SHIM_COUNT", count.to_str().unwrap());
    node.launch();
    node.wait_ready();

    let mut clients: Vec<_> = (Transport::ALL.iter().enumerate())
        .map(|(i, transport)| Client::connect(&node, &format!("writer-{i}"), *transport))
        .collect();
    let mut reader = Client::connect(&node, "reader", Transport::Tcp);
    let to = Channel::person("reader");
    for client in &mut clients {
        client.deliver(&to, "before", b"fsync works");
        assert_eq!(reader.receive().payload, b"fsync works");
    }

    fs::write(&hold, "").unwrap();
    let calls = || fs::metadata(&count).unwrap().len();
    let before = calls();
    let sent: Vec<_> =
        (clients.iter()).map(|client| client.send(&to, "held", b"wait for me").unwrap()).collect();
    let (sender, answers) = mpsc::channel();
    let message = Api::message("back-end", &to, "held", b"wait for me");
    let changes = [
        ("/message/send", message),
        ("/channel", json!({"channel_id": "g", "channel_type": 2, "subscribers": ["a"]})),
        ("/user/token", json!({"uid": "a", "token": "t", "device_flag": 0, "device_level": 1})),
    ];
    for (path, body) in &changes {
        let (api, path, body, sender) = (node.api(), *path, body.clone(), sender.clone());
        thread::spawn(move || {
            let answer = api.try_post(path, &body).map(|reply| reply.status);
            let _ = sender.send((path, answer));
        });
    }
    eventually("an fsync", || (calls() > before).then_some(()));
    thread::sleep(HELD);

    for client in clients.iter_mut().chain([&mut reader]) {
        // Nobody waits for the disk but those who must (no shard thread blocks in it).
        client.ping();
        assert_eq!(client.rest(), [], "{} was told of what is not on the disk", client.uid());
    }
    assert!(answers.try_recv().is_err(), "an HTTP call was answered before the disk");

    fs::remove_file(&hold).unwrap();
    for (client, client_seq) in clients.iter_mut().zip(sent) {
        assert_eq!(client.ack(client_seq).reason, SUCCESS);
    }
    for _ in &changes {
        let (path, status) = answers.recv_timeout(PATIENCE).unwrap();
        assert_eq!(status.unwrap(), 200, "{path}");
    }
    let mut received = 0;
    while received < clients.len() + 1 {
        match reader.next(PATIENCE) {
            Some((_, Event::Recv(_))) => received += 1,
            other => panic!("{other:?} instead of RECV"),
        }
    }
}
