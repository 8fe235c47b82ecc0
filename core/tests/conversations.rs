//! G10: a reference model of conversations beside the real shards, after every operation.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::expect_used, reason = "tests")]

mod world;

use std::collections::BTreeMap;

use jindou_core::{
    channel_info::{List, ListChange},
    id::{ChannelId, Name},
    request::{Reply, Request},
};
use proptest::prelude::*;
use world::{Client, World};

const USERS: [&str; 3] = ["ann", "bob", "eve"];

#[derive(Clone, Debug)]
enum Op {
    /// A user writes to the group.
    Group(usize),
    /// A user writes to another.
    Person(usize, usize),
    /// A user has read the group up to `last - n`.
    Read(usize, u64),
    /// A user deletes the group's conversation.
    Delete(usize),
    Remove(usize),
    Add(usize),
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let user = 0..USERS.len();
    prop_oneof![
        6 => user.clone().prop_map(Op::Group),
        3 => (user.clone(), user.clone()).prop_map(|(a, b)| Op::Person(a, b)),
        4 => (user.clone(), 0..4u64).prop_map(|(u, n)| Op::Read(u, n)),
        1 => user.clone().prop_map(Op::Delete),
        1 => user.clone().prop_map(Op::Remove),
        1 => user.prop_map(Op::Add),
        1 => Just(Op::Restart),
    ]
}

/// What the specification says, in a few lines.
#[derive(Default)]
struct Model {
    last: BTreeMap<ChannelId, u64>,
    members: BTreeMap<usize, ()>,
    /// (read_to, deleted_to)
    rows: BTreeMap<(Name, ChannelId), (u64, u64)>,
}

impl Model {
    fn sent(&mut self, channel: &ChannelId) -> u64 {
        let last = self.last.entry(channel.clone()).or_default();
        *last += 1;
        *last
    }
}

fn clients(world: &mut World) -> Vec<Client> {
    USERS.iter().map(|uid| world.connect(uid)).collect()
}

fn check(shards: u16, ops: &[Op]) {
    let mut world = World::new(shards);
    let mut clients_now = clients(&mut world);
    let mut model = Model::default();
    let group = ChannelId::new("g", 2);
    world.group("g", &USERS);
    for (place, uid) in USERS.iter().enumerate() {
        model.members.insert(place, ());
        model.rows.insert(((*uid).into(), group.clone()), (0, 0));
    }
    for (number, op) in ops.iter().enumerate() {
        let number = number.to_string();
        match op {
            Op::Group(user) => {
                let allowed = model.members.contains_key(user);
                let (code, seq, _) = world.send_wait(clients_now[*user], "g", 2, &number);
                assert_eq!(code == 1, allowed);
                if allowed {
                    assert_eq!(seq, model.sent(&group));
                }
            }
            Op::Person(from, to) => {
                let (from_uid, to_uid) = (USERS[*from], USERS[*to]);
                let id = jindou_core::id::person_channel(from_uid, to_uid);
                let channel = ChannelId::new(id, 1);
                let seq = model.sent(&channel);
                assert_eq!(world.send_wait(clients_now[*from], to_uid, 1, &number).1, seq);
                if seq == 1 {
                    model.rows.insert((to_uid.into(), channel.clone()), (0, 0));
                    model.rows.insert((from_uid.into(), channel), (1, 0));
                }
            }
            Op::Read(user, back) => {
                let uid: Name = USERS[*user].into();
                let last = model.last.get(&group).copied().unwrap_or(0);
                let seq = last.saturating_sub(*back);
                let request = Request::ReadTo { uid: uid.clone(), channel: group.clone(), seq };
                assert!(matches!(world.ask_wait(&uid, request), Reply::Done));
                let row = model.rows.get(&(uid.clone(), group.clone())).copied();
                if seq > row.map_or(0, |row| row.0) {
                    model.rows.insert((uid, group.clone()), (seq, row.map_or(0, |row| row.1)));
                }
            }
            Op::Delete(user) => {
                let uid: Name = USERS[*user].into();
                let seq = model.last.get(&group).copied().unwrap_or(0);
                let request =
                    Request::DeleteConversation { uid: uid.clone(), channel: group.clone(), seq };
                assert!(matches!(world.ask_wait(&uid, request), Reply::Done));
                if let Some(row) = model.rows.get_mut(&(uid, group.clone())) {
                    row.1 = seq;
                }
            }
            Op::Remove(user) | Op::Add(user) => {
                let uid: Name = USERS[*user].into();
                let add = matches!(op, Op::Add(_));
                let change = if add { ListChange::Add } else { ListChange::Remove };
                let uids = vec![uid.clone()];
                let channel = group.clone();
                let request = Request::ChangeList { channel, list: List::Members, change, uids };
                assert!(matches!(world.ask_wait("g", request), Reply::Done));
                let key = (uid, group.clone());
                if add {
                    model.members.insert(*user, ());
                    let last = model.last.get(&group).copied().unwrap_or(0);
                    let deleted = model.rows.get(&key).map_or(0, |row| row.1);
                    model.rows.insert(key, (last, deleted));
                } else {
                    model.members.remove(user);
                    model.rows.remove(&key);
                }
            }
            Op::Restart => {
                world.restart();
                clients_now = clients(&mut world);
            }
        }
        let real: BTreeMap<(Name, ChannelId), (u64, u64)> = world
            .store
            .conversations
            .iter()
            .map(|(key, row)| (key.clone(), (row.read_to, row.deleted_to)))
            .collect();
        assert_eq!(real, model.rows, "after {op:?}");
        for (channel, last) in &model.last {
            assert_eq!(world.store.last_seq(channel), *last);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn conversations_follow_the_model(
        shards in 1..4u16,
        ops in prop::collection::vec(op(), 1..60),
    ) {
        check(shards, &ops);
    }
}
