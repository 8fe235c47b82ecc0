//! Stories of an import: what comes twice, out of order or after a restart changes nothing.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod world;

use jindou_core::{
    channel_info::List,
    entry::ChannelRef,
    id::ChannelId,
    import::{Import, ImportedConversation, ImportedMessage},
    message::SharedMessage,
    request::{Reply, Request},
    row::Sought,
};
use world::World;

fn messages(seqs: std::ops::RangeInclusive<u64>) -> Request {
    let message = |seq: u64| ImportedMessage {
        seq,
        id: 1_000 + i64::try_from(seq).unwrap(),
        timestamp: 1_600_000_000,
        from: "ann".into(),
        client_msg_no: format!("n{seq}").into(),
        flags: 2,
        setting: 8,
        expire: 9,
        topic: "news".into(),
        payload: format!("m{seq}").into(),
    };
    let channel = ChannelRef { id: "g".into(), kind: 2 };
    let messages = seqs.map(message).collect();
    Request::Import(Box::new(Import::Messages { channel, messages }))
}

fn history(world: &mut World) -> Vec<SharedMessage> {
    let channel = ChannelId::new("g", 2);
    let (first, last, count_max, from_start) = (1, u64::MAX, 100, true);
    let request = Request::Messages { channel, first, last, count_max, from_start };
    let Reply::Messages(messages) = world.ask_wait("g", request) else { panic!("no messages") };
    messages
}

#[test]
fn messages_keep_their_places_and_what_comes_again_is_passed_over() {
    for shards in [1, 3] {
        let mut world = World::new(shards);
        world.group("g", &["ann", "bob"]);
        let bob = world.connect("bob");
        let import = |world: &mut World, seqs, last| {
            assert_eq!(world.ask_wait("g", messages(seqs)), Reply::LastSeq(last));
        };
        import(&mut world, 1..=3, 3);
        import(&mut world, 2..=5, 5);
        import(&mut world, 7..=8, 5);
        world.restart();
        world.lead_all(true);
        import(&mut world, 1..=6, 6);
        let found = history(&mut world);
        let places: Vec<_> = found.iter().map(|m| (m.seq, m.id)).collect();
        assert_eq!(places, (1..=6).zip(1001..).collect::<Vec<_>>());
        let last = &found[5];
        assert_eq!(
            (last.timestamp, last.flags, last.setting, last.expire),
            (1_600_000_000, 2, 8, 9)
        );
        assert_eq!((&*last.topic, &*last.payload), ("news", b"m6".as_slice()));
        assert!(world.is_closed(bob) || world.received(bob).is_empty(), "nothing is pushed");

        let channel = ChannelId::new("g", 2);
        let sought = vec![Sought::Id(1004), Sought::Newest("n5".into())];
        let Reply::Found(found) = world.ask_wait("g", Request::Find { channel, sought }) else {
            panic!("not found");
        };
        assert_eq!(found.iter().flatten().map(|m| m.seq).collect::<Vec<_>>(), [4, 5]);

        let ann = world.connect("ann");
        assert_eq!(world.send_wait(ann, "g", 2, "new").1, 7, "sends go on after it");
    }
}

#[test]
fn conversations_stand_as_told_and_lists_open_none() {
    let mut world = World::new(2);
    let uids = vec!["ann".into(), "bob".into()];
    let channel = ChannelRef { id: "g".into(), kind: 2 };
    let list = Import::List { channel: channel.clone(), list: List::Members, uids };
    assert_eq!(world.ask_wait("g", Request::Import(Box::new(list))), Reply::Done);
    let channel_id = ChannelId::from(&channel);
    let request = Request::ReadList { channel: channel_id, list: List::Members };
    let Reply::List(members) = world.ask_wait("g", request) else { panic!("no list") };
    assert_eq!(members.len(), 2);

    let conversations = |world: &mut World| {
        let reply = world.ask_wait("ann", Request::Conversations { uid: "ann".into() });
        let Reply::Conversations(rows) = reply else { panic!("no rows") };
        rows
    };
    assert_eq!(conversations(&mut world), []);
    for read_to in [7, 7, 4] {
        let row = ImportedConversation {
            channel: channel.clone(),
            read_to,
            deleted_to: 2,
            created_ms: 1_000,
            updated_ms: 2_000,
        };
        let piece = Import::Conversations { uid: "ann".into(), rows: vec![row] };
        assert_eq!(world.ask_wait("ann", Request::Import(Box::new(piece))), Reply::Done);
        let rows = conversations(&mut world);
        assert_eq!((rows[0].1.read_to, rows[0].1.deleted_to), (read_to, 2));
        assert_eq!((rows[0].1.created_ms, rows[0].1.updated_ms), (1_000, 2_000));
    }
}
