//! Who is refused, and with what words.

use bytes::Bytes;
use jindou_core::id::NodeId;
use jindou_net::{
    DriverKind, LinkError, Purpose, RefusalCode, Secret,
    link::{
        frame::Frame,
        hello::{Challenge, Hello},
    },
};

use crate::{
    cluster::{Actor, Node, Plan, Seen, hello},
    common::drivers,
};

/// What `a` says to a dialler with this hello.
fn answer(a: &Node, hello: &Hello) -> (RefusalCode, String) {
    let mut actor = Actor::dial(a.address, hello);
    let frame = match actor.hear() {
        Some(Frame::Challenge(_)) => {
            actor.say(&Frame::Proof(Bytes::new()));
            actor.hear()
        }
        other => other,
    };
    let Some(Frame::Refusal(refusal)) = frame else {
        panic!("{frame:?}");
    };
    assert_eq!(actor.hear(), None);
    (refusal.code, refusal.text)
}

#[test]
fn each_refusal_says_what_to_do() {
    for driver in drivers() {
        let a = Plan::new(driver, 1, 2).start();
        let check = |hello: &Hello, code, words: &str| {
            let (got, text) = answer(&a, hello);
            assert_eq!(got, code, "{text}");
            assert!(text.contains(words), "{text}");
        };
        let with = |change: &dyn Fn(&mut Hello)| {
            let mut hello = hello(2, 5);
            change(&mut hello);
            hello
        };
        let newer = with(&|h| (h.version_min, h.version_max) = (2, 3));
        check(&newer, RefusalCode::Version, "link versions 2 to 3");
        let itself = with(&|h| (h.side.node, h.side.incarnation) = (NodeId(1), 100));
        check(&itself, RefusalCode::Itself, "this is node 1 itself");
        let twin = with(&|h| h.side.node = NodeId(1));
        check(&twin, RefusalCode::InUse, "each node needs its own WK_CLUSTER_NODEID");
        let stranger = with(&|h| h.side.cluster_id = 8);
        check(&stranger, RefusalCode::Cluster, "belongs to cluster 0000000000000008");
        let slots = with(&|h| h.side.slot_count = 256);
        check(&slots, RefusalCode::SlotCount, "node 2 has 256 slots, node 1 has 64");
        let far = with(&|h| h.wanted = 2);
        check(&far, RefusalCode::NoSuchShard, "node 1 has 2 shards, there is no shard 2");
        let outsider = with(&|h| h.side.node = NodeId(20));
        check(&outsider, RefusalCode::NotMember, "node 20 is not a member");
        // Handed over to the other shard, which says the same.
        let outsider = with(&|h| (h.side.node, h.wanted) = (NodeId(20), 1));
        check(&outsider, RefusalCode::NotMember, "node 20 is not a member");
        // A range that holds our version is spoken; a fresh node has no cluster yet.
        let rolling = with(&|h| h.version_max = 9);
        drop(Actor::enter(a.address, &rolling));
        let fresh = with(&|h| h.side.cluster_id = 0);
        drop(Actor::enter(a.address, &fresh));
        let outsider = with(&|h| (h.side.node, h.purpose) = (NodeId(20), Purpose::Control));
        let mut actor = Actor::enter(a.address, &outsider);
        actor.say(&Frame::RaftAsk { id: 1, group: 1, body: Bytes::new() });
        assert_eq!(actor.hear(), None);
    }
}

#[test]
fn a_node_id_belongs_to_one_incarnation_at_a_time() {
    for driver in drivers() {
        let a = Plan::new(driver, 1, 2).start();
        let first = Actor::enter(a.address, &hello(2, 5));
        let mut other = hello(2, 6);
        other.wanted = 1;
        let (code, text) = answer(&a, &other);
        assert_eq!(code, RefusalCode::InUse);
        assert!(text.starts_with("node id 2 is in use by 127.0.0.1"), "{text}");
        // Control messages of a second node with that id are not taken either.
        other.purpose = Purpose::Control;
        assert_eq!(answer(&a, &other).0, RefusalCode::InUse);
        drop(first);
        let mut tries = 0;
        loop {
            let mut actor = Actor::dial(a.address, &hello(2, 6));
            assert!(matches!(actor.hear(), Some(Frame::Challenge(_))));
            actor.say(&Frame::Proof(Bytes::new()));
            if actor.hear() == Some(Frame::Welcome) {
                break;
            }
            tries += 1;
            assert!(tries < 100);
        }
    }
}

#[test]
fn the_refused_learn_it_once_and_come_in_when_they_may() {
    for driver in drivers() {
        let mut plan = Plan::new(driver, 1, 1);
        plan.members = Vec::new();
        let a = plan.start();
        let b = Plan::new(driver, 2, 2).start();
        b.dial(1, a.address);
        let refusal = b.wait_for_refusal();
        assert_eq!(refusal.code, RefusalCode::NotMember);
        assert_eq!(refusal.text, "node 2 is not a member: let it join first");
        crate::cluster::pause(500);
        let again = b.events.try_iter().filter(|seen| matches!(seen, Seen::Refused { .. })).count();
        // The other shard's, at most.
        assert!(again <= 1);
        assert_eq!(b.on(0, |links| links.status()[0].refusal.clone()), Some(refusal));
        a.gate.0.lock().unwrap().push(2);
        b.wait_for_up(1);
        assert!(b.on(0, |links| links.status()[0].refusal.is_none()));
    }
}

#[test]
fn an_address_where_another_node_lives_is_not_taken_for_the_peer() {
    for driver in drivers() {
        let (a, b) = (Plan::new(driver, 1, 1).start(), Plan::new(driver, 2, 1).start());
        a.dial(3, b.address);
        let refusal = a.wait_for_refusal();
        assert_eq!(refusal.code, RefusalCode::OtherNode);
        assert!(refusal.text.contains("answers as node 2, not as node 3"), "{refusal}");
    }
}

fn with_secrets(driver: DriverKind, a: Option<Secret>, b: Option<Secret>) -> (Node, Node) {
    let (mut first, mut second) = (Plan::new(driver, 1, 2), Plan::new(driver, 2, 1));
    (first.secret, second.secret) = (a, b);
    let (a, b) = (first.start(), second.start());
    b.dial(1, a.address);
    (a, b)
}

#[test]
fn a_secret_that_both_know_must_be_the_same() {
    let configured = |secret: &'static [u8]| Some(Secret::configured(secret));
    let drawn = |secret: &'static [u8]| Some(Secret::drawn(secret));
    for driver in drivers() {
        for (ours, theirs) in [
            (configured(b"one"), configured(b"one")),
            (drawn(b"one"), drawn(b"one")),
            (drawn(b"one"), None),
            (None, drawn(b"one")),
            (None, None),
        ] {
            let (a, b) = with_secrets(driver, ours, theirs);
            b.wait_for_up(1);
            drop((a, b));
        }
        for (ours, theirs, words) in [
            (configured(b"one"), configured(b"two"), "nodes 1 and 2 have different secrets"),
            (drawn(b"one"), drawn(b"two"), "nodes 1 and 2 have different secrets"),
            (configured(b"one"), None, "node 2 has no secret: set the WK_CLUSTER_SECRET"),
            (None, configured(b"one"), "node 1 has no secret: set the WK_CLUSTER_SECRET"),
        ] {
            let (a, b) = with_secrets(driver, ours, theirs);
            let refusal = b.wait_for_refusal();
            assert_eq!(refusal.code, RefusalCode::Secret);
            assert!(refusal.text.contains(words), "{refusal}");
            let at = a.address.to_string();
            let outcome = b.wait_on(0, |links| links.control_at(at, Bytes::new()));
            assert!(matches!(outcome, Err(LinkError::Refused(_))));
            // Learned later: the same secret lets it in.
            if words.contains("node 2 has no") {
                b.identity.set_secret(configured(b"one"));
                b.wait_for_up(1);
            }
        }
    }
}

/// The acceptor proves too: who only claims to know the secret is not believed, in neither role.
#[test]
fn a_proof_is_checked_on_both_sides() {
    for driver in drivers() {
        let mut plan = Plan::new(driver, 1, 1);
        plan.secret = Some(Secret::configured(&b"one"[..]));
        let a = plan.start();
        let mut claim = hello(2, 5);
        claim.side.has_secret = true;
        for proof in [vec![], vec![0; 32], vec![0; 64]] {
            let mut actor = Actor::dial(a.address, &claim);
            let Some(Frame::Challenge(body)) = actor.hear() else {
                panic!();
            };
            let challenge = Challenge::decode(&body).unwrap();
            assert!(challenge.proof.is_some());
            actor.say(&Frame::Proof(proof.into()));
            let Some(Frame::Refusal(refusal)) = actor.hear() else {
                panic!();
            };
            assert_eq!(refusal.code, RefusalCode::Secret);
        }
        // The acceptor's proof sent back is none of the dialler's.
        let mut actor = Actor::dial(a.address, &claim);
        let Some(Frame::Challenge(body)) = actor.hear() else {
            panic!();
        };
        let proof = Challenge::decode(&body).unwrap().proof.unwrap();
        actor.say(&Frame::Proof(Bytes::copy_from_slice(&proof)));
        assert!(matches!(actor.hear(), Some(Frame::Refusal(_))));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        a.dial(2, listener.local_addr().unwrap());
        let mut actor = Actor::new(listener.accept().unwrap().0);
        assert!(matches!(actor.hear(), Some(Frame::Hello(_))));
        let mut side = crate::cluster::side(2, 5);
        side.has_secret = true;
        let challenge = Challenge { version: 1, side, proof: Some([3; 32]) };
        actor.say(&Frame::Challenge(challenge.encode().into()));
        assert!(matches!(actor.hear(), Some(Frame::Refusal(_))));
        assert_eq!(a.wait_for_refusal().code, RefusalCode::Secret);
    }
}
