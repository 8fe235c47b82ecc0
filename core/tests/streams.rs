//! Stories of streams over several nodes: what readers and online clients may rely on while leaders
//! move, die and come back (http-api.md §9, semantics.md §13).
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod nodes;

use jindou_core::{
    entry::StreamClaim,
    id::{ChannelId, Name, SlotId, person_channel},
    message::setting,
    request::{ApiSend, Reply, Request, RequestToken, Target},
    stream::{EventAction, LaneStatus, StreamEvent, StreamKey, StreamRefusal, StreamView},
};
use nodes::{Client, Nodes};
use serde_json::Value;

/// Three replicas of different size, and a node without any.
fn four() -> Nodes {
    Nodes::new(&[2, 1, 3, 2], 3, 8)
}

fn group() -> ChannelId {
    ChannelId::new("g", 2)
}

fn event(channel: &ChannelId, id: &str, action: EventAction) -> Request {
    let kind = if action.is_delta() { "stream.delta" } else { "stream.close" };
    let payload = match &action {
        EventAction::Append(text) => format!("{{\"delta\":\"{text}\"}}"),
        EventAction::Replace
        | EventAction::Snapshot
        | EventAction::End { .. }
        | EventAction::Note => "{}".to_owned(),
    };
    Request::StreamEvent(Box::new(StreamEvent {
        stream: StreamKey::new(channel.clone(), "c"),
        shown: "g".into(),
        from: "".into(),
        message_id: 0,
        event_id: id.into(),
        kind: kind.into(),
        lane: "main".into(),
        visibility: "".into(),
        occurred_ms: 0,
        payload: payload.into(),
        action,
        claimed: true,
    }))
}

fn delta(channel: &ChannelId, id: &str) -> Request {
    event(channel, id, EventAction::Append(format!("{id} ").into()))
}

fn close() -> EventAction {
    EventAction::End { status: LaneStatus::Closed, snapshot: None, end_reason: 0, error: "".into() }
}

/// Sends the message to which events are appended.
fn anchor(nodes: &mut Nodes, channel: &ChannelId) {
    let send = ApiSend {
        channel: channel.clone(),
        shown: None,
        from: "bot".into(),
        client_msg_no: "c".into(),
        flags: 0,
        setting: setting::STREAM,
        expire: 0,
        recipients: None,
        payload: "{}".into(),
    };
    let reply = nodes.ask_wait(3, &channel.id, Request::Send(Box::new(send)));
    assert!(matches!(reply, Reply::Sent { seq: 1, .. }), "{reply:?}");
}

/// What readers see of the stream.
fn view(nodes: &mut Nodes, channel: &ChannelId) -> StreamView {
    let streams = vec![StreamKey::new(channel.clone(), "c")];
    let slot = nodes.slot_of(&channel.id);
    let token = nodes.ask(3, Target::Slot(slot), Request::Streams { streams });
    nodes.run();
    let Some(Reply::Streams(views)) = nodes.answer(token) else { panic!("no streams") };
    views.into_iter().next().expect("one")
}

fn text(nodes: &mut Nodes, channel: &ChannelId) -> String {
    view(nodes, channel).lanes.first().map_or_else(String::new, |lane| lane.text.clone())
}

/// The deltas that a client was pushed, in order.
fn heard(nodes: &mut Nodes, client: Client) -> String {
    let mut text = String::new();
    for object in nodes.heard(client).into_iter().filter(|object| object["method"] == "event") {
        let params = &object["params"];
        let data: Value = serde_json::from_str(params["data"].as_str().unwrap()).unwrap();
        assert_eq!((&data["client_msg_no"], &data["from_uid"]), (&"c".into(), &"bot".into()));
        text.push_str(data["payload"]["delta"].as_str().unwrap_or(""));
    }
    text
}

fn leader(nodes: &Nodes, slot: SlotId) -> usize {
    *nodes.leaders.get(&slot).unwrap()
}

fn is_done(reply: Option<Reply>) -> bool {
    matches!(reply, Some(Reply::Event(_)))
}

#[test]
fn members_on_all_nodes_hear_a_stream_and_readers_see_it() {
    let mut nodes = four();
    nodes.group("g", &["ann", "bob", "eve", "kim"]);
    let names = ["ann", "bob", "eve", "kim"];
    let clients: Vec<Client> =
        (0..).zip(names).map(|(node, name)| nodes.connect(node, name)).collect();
    anchor(&mut nodes, &group());
    for id in ["1", "2", "3"] {
        let reply = nodes.ask_wait(3, "g", delta(&group(), id));
        assert!(is_done(Some(reply)));
    }
    let end = nodes.ask_wait(2, "g", event(&group(), "end", close()));
    let Reply::Event(place) = end else { panic!("{end:?}") };
    assert_eq!((&*place.status, place.seq, &*place.from), ("closed", 1, "bot"));
    for client in clients {
        assert_eq!(heard(&mut nodes, client), "1 2 3 ");
    }
    assert_eq!(text(&mut nodes, &group()), "1 2 3 ");
    let late = nodes.ask_wait(1, "g", delta(&group(), "4"));
    assert!(matches!(late, Reply::StreamRefused(StreamRefusal::Closed)), "{late:?}");
    assert!(nodes.replicas_agree());
}

#[test]
fn a_stream_survives_every_change_of_its_leader() {
    for kill in [false, true] {
        let mut nodes = Nodes::new(&[2, 2, 2, 2], 3, 8);
        nodes.group("g", &["ann", "kim"]);
        let slot = nodes.slot_of("g");
        nodes.lead(slot, 0);
        nodes.run();
        let kim = nodes.connect(3, "kim");
        anchor(&mut nodes, &group());
        let mut asked: Vec<RequestToken> = Vec::new();
        for n in 0..300 {
            asked.push(nodes.ask(3, Target::Id("g".into()), delta(&group(), &n.to_string())));
            nodes.turn(2);
            if n == 100 {
                nodes.lead(slot, 1);
            }
            if n == 200 && kill {
                nodes.kill(1);
                nodes.turn(1);
                nodes.lead_elsewhere(1);
            } else if n == 200 {
                nodes.lead(slot, 2);
            }
        }
        nodes.advance(3_000);
        for token in asked {
            let reply = nodes.answer(token);
            assert!(is_done(reply.clone()), "{reply:?}");
        }
        let text = text(&mut nodes, &group());
        let mut words: Vec<u32> = text.split_whitespace().map(|n| n.parse().unwrap()).collect();
        words.sort_unstable();
        assert_eq!(words, (0..300).collect::<Vec<u32>>(), "each once, whatever was repeated");
        assert!(!nodes.closed.contains(&kim));
        assert_eq!(heard(&mut nodes, kim), text, "in the order in which it stands");
        assert!(nodes.replicas_agree());
    }
}

#[test]
fn what_a_dead_leader_has_committed_is_pushed_by_the_next() {
    let mut nodes = four();
    nodes.group("g", &["kim"]);
    let slot = nodes.slot_of("g");
    nodes.lead(slot, 1);
    nodes.lead(nodes.slot_of("kim"), 1);
    nodes.run();
    let kim = nodes.connect(3, "kim");
    anchor(&mut nodes, &group());
    nodes.ask_wait(3, "g", delta(&group(), "1"));
    let second = nodes.ask(3, Target::Id("g".into()), delta(&group(), "2"));
    let key = StreamKey::new(group(), "c");
    // Until it is stored everywhere, and not until its way out of the leader.
    while nodes.view_at(1, &key).lanes.first().is_none_or(|lane| lane.text != "1 2 ") {
        nodes.turn(1);
    }
    nodes.kill(1);
    nodes.lead_elsewhere(1);
    nodes.advance(3_000);
    assert!(is_done(nodes.answer(second)));
    assert_eq!(heard(&mut nodes, kim), "1 2 ");
    assert_eq!(text(&mut nodes, &group()), "1 2 ");
    // A back end that has lost its answer asks again: the same, and nothing is pushed.
    assert!(is_done(Some(nodes.ask_wait(0, "g", delta(&group(), "2")))));
    assert_eq!(heard(&mut nodes, kim), "");
    assert_eq!(text(&mut nodes, &group()), "1 2 ");
}

#[test]
fn a_stream_goes_on_after_all_nodes_have_died() {
    let mut nodes = four();
    nodes.group("g", &["kim"]);
    anchor(&mut nodes, &group());
    let mut want = String::new();
    for n in 0..500 {
        if n % 200 == 150 {
            for node in 0..3 {
                nodes.kill(node);
            }
            for node in 0..3 {
                nodes.start(node);
                nodes.run();
            }
            for slot in (0..8).map(SlotId) {
                let node = leader(&nodes, slot);
                nodes.lead(slot, node);
            }
            nodes.advance(2_000);
        }
        want.push_str(&format!("{n} "));
        assert!(is_done(Some(nodes.ask_wait(3, "g", delta(&group(), &n.to_string())))), "{n}");
    }
    assert_eq!(text(&mut nodes, &group()), want);
    let again = nodes.ask_wait(3, "g", delta(&group(), "499"));
    assert!(is_done(Some(again)));
    assert_eq!(text(&mut nodes, &group()), want);
    assert!(nodes.replicas_agree());
}

#[test]
fn a_client_number_is_claimed_once_in_the_cluster() {
    let mut nodes = four();
    let channel = ChannelId::new(person_channel("bot", "kim"), 1);
    let claim = |nodes: &mut Nodes, node, channel: &ChannelId, from: &str, replaces| {
        let (client_msg_no, channel): (Name, _) = ("c".into(), channel.clone());
        let from = from.into();
        let claim = StreamClaim { client_msg_no, channel, from, replaces };
        let reply = nodes.ask_wait(node, "c", Request::ClaimStream(Box::new(claim)));
        let Reply::StreamClaim(head) = reply else { panic!("{reply:?}") };
        (head.owner, head.from.to_string())
    };
    let mine = (channel.clone(), "bot".to_owned());
    assert_eq!(claim(&mut nodes, 0, &channel, "bot", true), mine);
    assert_eq!(claim(&mut nodes, 3, &group(), "eve", false), mine);
    let home = leader(&nodes, nodes.slot_of("c"));
    nodes.kill(home);
    nodes.lead_elsewhere(home);
    nodes.advance(500);
    let reply = nodes.ask_wait(3, "c", Request::ReadClaim { client_msg_no: "c".into() });
    let Reply::StreamClaim(head) = reply else { panic!("{reply:?}") };
    assert_eq!((head.owner, &*head.from), (channel, "bot"));
}

#[test]
fn the_first_event_of_a_stream_must_be_claimed_for() {
    let mut nodes = four();
    let first = |claimed| {
        let Request::StreamEvent(mut event) = delta(&group(), if claimed { "1" } else { "2" })
        else {
            panic!("another request")
        };
        event.claimed = claimed;
        Request::StreamEvent(event)
    };
    let reply = nodes.ask_wait(3, "g", first(false));
    assert!(matches!(reply, Reply::StreamRefused(StreamRefusal::Unclaimed)), "{reply:?}");
    assert!(is_done(Some(nodes.ask_wait(3, "g", first(true)))));
    assert!(is_done(Some(nodes.ask_wait(3, "g", first(false)))));
    let Reply::Event(place) = nodes.ask_wait(3, "g", delta(&group(), "3")) else {
        panic!("refused")
    };
    assert_eq!(&*place.from, "____system", "nobody said whose it is");
}
