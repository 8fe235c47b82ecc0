//! G10 on several nodes: a reference model of conversations and unread counts beside the real shards,
//! after every operation, while leaders move and nodes die and come back.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

mod nodes;

use std::collections::{BTreeMap, BTreeSet};

use jindou_core::{
    channel_info::{List, ListChange},
    code::Code,
    id::{ChannelId, Name, SlotId, person_channel},
    request::{ApiSend, Reply, Request, Target},
    row::{Conversation, DigestQuery},
};
use nodes::Nodes;
use proptest::prelude::*;

const USERS: [&str; 4] = ["ann", "bob", "eve", "kim"];
/// Nodes with a replica of every slot; the last one has none.
const REPLICAS: usize = 3;

#[derive(Clone, Debug)]
enum Op {
    /// A user writes to the group.
    Group(usize),
    /// A user writes to another, or to itself.
    Person(usize, usize),
    /// Everything of a channel but so many messages is read (clearUnread, setUnread).
    Read(usize, usize, u64),
    /// A conversation is deleted.
    Delete(usize, usize),
    Remove(usize),
    Add(usize),
    /// The members become one user.
    Reset(usize),
    /// A user is put on the group's deny list, or taken off it.
    Deny(usize, bool),
    /// A slot gets another leader.
    Lead(u16, usize),
    /// A node dies, its slots go on elsewhere, and it comes back.
    Kill(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let user = || 0..USERS.len();
    prop_oneof![
        6 => user().prop_map(Op::Group),
        4 => (user(), user()).prop_map(|(a, b)| Op::Person(a, b)),
        4 => (user(), 0..=USERS.len(), 0..4u64).prop_map(|(u, c, n)| Op::Read(u, c, n)),
        2 => (user(), 0..=USERS.len()).prop_map(|(u, c)| Op::Delete(u, c)),
        1 => user().prop_map(Op::Remove),
        2 => user().prop_map(Op::Add),
        1 => user().prop_map(Op::Reset),
        1 => (user(), any::<bool>()).prop_map(|(u, add)| Op::Deny(u, add)),
        2 => (0..8u16, 0..REPLICAS).prop_map(|(slot, node)| Op::Lead(slot, node)),
        1 => (0..REPLICAS).prop_map(Op::Kill),
    ]
}

fn group() -> ChannelId {
    ChannelId::new("g", 2)
}

/// What a user calls its conversations: the group, or another user.
fn channel_of(user: usize, other: usize) -> ChannelId {
    match USERS.get(other) {
        Some(peer) => ChannelId::new(person_channel(USERS[user], peer), 1),
        None => group(),
    }
}

/// What the specification says, in a few lines (semantics.md §8).
#[derive(Default)]
struct Model {
    last: BTreeMap<ChannelId, u64>,
    own: BTreeMap<(usize, ChannelId), u64>,
    members: BTreeSet<usize>,
    denied: BTreeSet<usize>,
    /// (read_to, deleted_to)
    rows: BTreeMap<(usize, ChannelId), (u64, u64)>,
}

impl Model {
    fn last(&self, channel: &ChannelId) -> u64 {
        self.last.get(channel).copied().unwrap_or(0)
    }

    fn sent(&mut self, user: usize, channel: &ChannelId) -> u64 {
        let seq = self.last(channel) + 1;
        self.last.insert(channel.clone(), seq);
        self.own.insert((user, channel.clone()), seq);
        seq
    }

    fn add(&mut self, user: usize) {
        self.members.insert(user);
        let last = self.last(&group());
        self.rows.entry((user, group())).or_default().0 = last;
    }

    fn remove(&mut self, user: usize) {
        self.members.remove(&user);
        self.rows.remove(&(user, group()));
    }
}

fn number(place: usize, what: &str) -> Name {
    format!("{what}{place}").into()
}

fn write(nodes: &mut Nodes, node: usize, from: usize, channel: &ChannelId, place: usize) -> u64 {
    let request = Request::Send(Box::new(ApiSend {
        channel: channel.clone(),
        shown: None,
        from: USERS[from].into(),
        client_msg_no: number(place, "n"),
        flags: 0,
        setting: 0,
        expire: 0,
        recipients: None,
        payload: "x".into(),
    }));
    match nodes.ask_wait(node, &channel.id, request) {
        Reply::Sent { seq, code: Code::Success, .. } => seq,
        other => panic!("{other:?}"),
    }
}

fn change_list(nodes: &mut Nodes, node: usize, list: List, change: ListChange, user: usize) {
    let uids = vec![Name::from(USERS[user])];
    let request = Request::ChangeList { channel: group(), list, change, uids };
    assert_eq!(nodes.ask_wait(node, "g", request), Reply::Done);
}

/// What a user sees of its conversations: read_to, deleted_to and the unread count.
fn seen(nodes: &mut Nodes, node: usize, user: usize) -> BTreeMap<ChannelId, (u64, u64, u64)> {
    let uid: Name = USERS[user].into();
    let request = Request::Conversations { uid: uid.clone() };
    let rows: Vec<(ChannelId, Conversation)> = match nodes.ask_wait(node, &uid, request) {
        Reply::Conversations(rows) => rows,
        other => panic!("{other:?}"),
    };
    let mut found = BTreeMap::new();
    for (channel, row) in rows {
        let slot = nodes.slot_of(&channel.id);
        let items = vec![DigestQuery { channel: channel.clone(), after: 0, count_max: 1 }];
        let request = Request::Digests { uid: uid.clone(), items };
        let token = nodes.ask(node, Target::Slot(slot), request);
        nodes.run();
        let Some(Reply::Digests(digests)) = nodes.answer(token) else { panic!("no digest") };
        let [digest] = &digests[..] else { panic!("{digests:?}") };
        let newest = digest.recents.first().map_or(0, |message| message.seq);
        assert_eq!(newest, digest.last_seq);
        let unread = digest.last_seq - row.read_to.max(digest.own_seq).min(digest.last_seq);
        found.insert(channel, (row.read_to, row.deleted_to, unread));
    }
    found
}

fn check(ops: &[Op]) {
    let mut nodes = Nodes::new(&[2, 1, 2, 1], REPLICAS, 8);
    let mut model = Model::default();
    nodes.group("g", &USERS);
    (0..USERS.len()).for_each(|user| model.add(user));
    for (place, op) in ops.iter().enumerate() {
        let node = place % 4;
        match *op {
            Op::Group(user) => {
                let seq = model.sent(user, &group());
                assert_eq!(write(&mut nodes, node, user, &group(), place), seq);
            }
            Op::Person(from, to) => {
                let channel = channel_of(from, to);
                let seq = model.sent(from, &channel);
                assert_eq!(write(&mut nodes, node, from, &channel, place), seq);
                if seq == 1 {
                    model.rows.insert((to, channel.clone()), (0, 0));
                    model.rows.insert((from, channel), (1, 0));
                }
            }
            Op::Read(user, other, back) => {
                let channel = channel_of(user, other);
                let seq = model.last(&channel).saturating_sub(back);
                let uid = Name::from(USERS[user]);
                let request = Request::ReadTo { uid: uid.clone(), channel: channel.clone(), seq };
                assert_eq!(nodes.ask_wait(node, &uid, request), Reply::Done);
                let read = model.rows.get(&(user, channel.clone())).map_or(0, |row| row.0);
                if seq > read {
                    model.rows.entry((user, channel)).or_default().0 = seq;
                }
            }
            Op::Delete(user, other) => {
                let channel = channel_of(user, other);
                let seq = model.last(&channel);
                let uid = Name::from(USERS[user]);
                let request =
                    Request::DeleteConversation { uid: uid.clone(), channel: channel.clone(), seq };
                assert_eq!(nodes.ask_wait(node, &uid, request), Reply::Done);
                if let Some(row) = model.rows.get_mut(&(user, channel)) {
                    row.1 = row.1.max(seq);
                }
            }
            Op::Remove(user) => {
                change_list(&mut nodes, node, List::Members, ListChange::Remove, user);
                model.remove(user);
            }
            Op::Add(user) => {
                change_list(&mut nodes, node, List::Members, ListChange::Add, user);
                model.add(user);
            }
            Op::Reset(user) => {
                change_list(&mut nodes, node, List::Members, ListChange::Set, user);
                model.members = BTreeSet::from([user]);
                model.add(user);
            }
            Op::Deny(user, add) => {
                let change = if add { ListChange::Add } else { ListChange::Remove };
                change_list(&mut nodes, node, List::Deny, change, user);
                if add {
                    model.denied.insert(user);
                    model.rows.remove(&(user, group()));
                } else {
                    model.denied.remove(&user);
                    model.rows.entry((user, group())).or_default();
                }
            }
            Op::Lead(slot, leader) => {
                nodes.lead(SlotId(slot), leader);
                nodes.run();
            }
            Op::Kill(node) => {
                nodes.kill(node);
                nodes.lead_elsewhere(node);
                nodes.run();
                nodes.start(node);
                nodes.advance(1_100);
            }
        }
        for (user, uid) in USERS.iter().enumerate() {
            let expected: BTreeMap<ChannelId, (u64, u64, u64)> = model
                .rows
                .iter()
                .filter(|((of, _), _)| *of == user)
                .map(|((_, channel), (read_to, deleted_to))| {
                    let own = model.own.get(&(user, channel.clone())).copied().unwrap_or(0);
                    let last = model.last(channel);
                    (channel.clone(), (*read_to, *deleted_to, last - own.max(*read_to).min(last)))
                })
                .collect();
            let found = seen(&mut nodes, (place + user) % 4, user);
            assert_eq!(found, expected, "{uid} after {place}: {op:?}");
        }
    }
    nodes.advance(3_000);
    assert!(nodes.replicas_agree());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn conversations_and_unread_follow_the_model_through_failures(
        ops in prop::collection::vec(op(), 1..40),
    ) {
        check(&ops);
    }
}
