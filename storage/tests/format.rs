//! A data directory of every format that was ever released opens, with everything in it.
//!
//! `fixtures/format-1` was written by `JINDOU_MAKE_FIXTURE=1 cargo test -p jindou-storage --test
//! format` and is never written again: a change of format gets a fixture of its own beside it.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{fs, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use jindou_core::{
    channel_info::{ChannelInfo, List},
    id::{ChannelId, LogId, NodeId, ShardId, SlotId},
    message::Message,
    row::{Conversation, DedupeRecord, Device, Persist, Read, Row, Rows, Sought, Times},
};
use jindou_storage::{
    LogLane, LogOptions, LogState, LogStorage, Outcome, StateLane, StateOptions, StateStorage,
    Storage, StorageOptions, completions, dir::DataDir, wait,
};

const NODE: NodeId = NodeId(1);
const SLOT: SlotId = SlotId(21);
/// Of the slot's rows. Changes only if what is stored changes, never with how.
const HASH: u128 = 248_821_568_922_727_854_783_515_849_219_345_442_417;

fn fixture() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1")
}

fn group() -> ChannelId {
    ChannelId::new("群组", 2)
}

/// One of everything, some of it more than once.
fn rows(index: u64) -> Vec<Row> {
    let message = |seq: u64, size: usize| {
        Row::Message(Arc::new(Message {
            id: 1_000_000 + i64::try_from(seq).unwrap(),
            seq,
            channel: group(),
            from: "ann".into(),
            client_msg_no: format!("no-{seq}").into(),
            flags: 3,
            setting: 8,
            expire: 60,
            timestamp: 1_700_000_000,
            topic: "topic".into(),
            stream_no: "stream".into(),
            shown: None,
            payload: Bytes::from(vec![u8::try_from(seq).unwrap(); size]),
        }))
    };
    let uid = format!("user-{index}");
    vec![
        message(index * 2 - 1, 20),
        message(index * 2, 1000),
        Row::Sent { channel: group(), uid: "ann".into(), seq: index * 2 },
        Row::Info {
            channel: group(),
            info: ChannelInfo { large: true, send_ban: true, ..ChannelInfo::default() },
            times: Times::default(),
        },
        Row::ListItem {
            channel: group(),
            list: List::Members,
            uid: uid.as_str().into(),
            added_ms: Some(5),
        },
        Row::ListItem {
            channel: group(),
            list: List::Deny,
            uid: "eve".into(),
            added_ms: (index % 2 == 1).then_some(6),
        },
        Row::Device {
            uid: uid.as_str().into(),
            device_flag: 1,
            device: Device { level: 1, token: "token".into(), times: Times::default() },
        },
        Row::Conversation {
            uid: uid.as_str().into(),
            channel: group(),
            conversation: Some(Conversation {
                read_to: index,
                deleted_to: 1,
                created_ms: 2,
                updated_ms: 3,
                handed_to: 0,
            }),
        },
        Row::Dedupe {
            index,
            records: Some(vec![DedupeRecord { digest: 1 << 100, id: 7, seq: index, time_ms: 9 }]),
        },
        Row::Outbox { target: SlotId(3), index, changes: Some(Bytes::from_static(b"changes")) },
        Row::Received { source: SlotId(4), index },
        Row::ClusterKey { key: "jwt_secret".into(), value: Bytes::from_static(b"secret") },
        Row::Membership(Bytes::from_static(b"members")),
    ]
}

const LAST: u64 = 30;

fn entry(index: u64) -> (u64, Bytes) {
    (index, Bytes::from(vec![u8::try_from(index).unwrap(); 100]))
}

/// Writes the fixture: rows in tables and in the journal, a log of several generations.
fn make(path: &Path) {
    let dir = DataDir::open(path, NODE, 64).unwrap();
    let (sender, receiver) = completions(ShardId(0), Arc::new(|| {}));
    for part in [1..=LAST / 2, LAST / 2 + 1..=LAST] {
        let options = StateOptions {
            memtable_size_max: 8_000,
            ..StateOptions::new(dir.state(), dir.install())
        };
        let state =
            StateLane::open(&options, Arc::new(|e| panic!("{e}")), Arc::new(|_| {})).unwrap();
        let options = LogOptions {
            generation_size_max: 2_000,
            memory_size_max: 4_000,
            ..LogOptions::new(dir.log())
        };
        let log = LogLane::open(&options, Arc::new(|e| panic!("{e}"))).unwrap();
        for index in part {
            let persist = Persist {
                slot: SLOT,
                applied: LogId { term: 2, node: 1, index },
                rows: rows(index),
            };
            state.persist(persist, &sender);
            wait(|done| log.append(SLOT.0, vec![entry(index)], done).unwrap()).unwrap();
            log.save_committed(SLOT.0, Bytes::from_static(b"committed"));
            wait(|done| log.save_vote(SLOT.0, Bytes::from_static(b"vote"), done)).unwrap();
            if index > 20 {
                let mark = Bytes::from_static(b"mark");
                wait(|done| log.purge_to(SLOT.0, index - 20, mark, done)).unwrap();
            }
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    drop((dir, receiver));
    // Once more, so that journals are cut to what they hold.
    open(path).close();
}

fn open(path: &Path) -> Storage {
    Storage::open(&StorageOptions {
        path: path.to_owned(),
        node: NODE,
        slot_count: 64,
        state_cache_size: 32 << 20,
        state_sync_interval: Duration::from_secs(5),
        on_fatal: Arc::new(|e| panic!("{e}")),
        on_idle: jindou_storage::OnIdle::default(),
        on_synced: Arc::new(|_| {}),
    })
    .unwrap()
}

/// Copies the fixture. Version control keeps no empty directories: a keyspace without tables gets
/// its own back.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    if from.join("current").exists() {
        fs::create_dir_all(to.join("tables")).unwrap();
    }
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn format_1_opens_with_everything_in_it() {
    if std::env::var("JINDOU_MAKE_FIXTURE").is_ok() {
        make(&fixture());
    }
    let dir = tempfile::tempdir().unwrap();
    copy(&fixture(), dir.path());
    let storage = open(dir.path());
    let (log, state) = (storage.log(), storage.state());
    let Outcome::Log(found) = wait(|done| log.load(SLOT.0, usize::MAX, done)).unwrap() else {
        panic!("no log");
    };
    let expected = LogState {
        vote: Some(Bytes::from_static(b"vote")),
        committed: Some(Bytes::from_static(b"committed")),
        purged: Some((10, Bytes::from_static(b"mark"))),
        first: Some(11),
        last: Some(LAST),
        tail: (11..=LAST).map(entry).collect(),
    };
    assert_eq!(*found, expected);
    let Outcome::Slot(slot) = wait(|done| state.open_slot(SLOT, done)).unwrap() else {
        panic!("no slot");
    };
    assert_eq!(slot.rows.applied.unwrap().index, LAST);
    assert_eq!(slot.membership, Some(Bytes::from_static(b"members")));
    assert_eq!(slot.rows.dedupe.len(), 30);
    assert_eq!(slot.rows.outbox.len(), 30);
    assert_eq!(slot.rows.received, [(SlotId(4), LAST)]);
    assert_eq!(slot.rows.cluster, [("jwt_secret".into(), Bytes::from_static(b"secret"))]);
    let Outcome::Rows(Rows::Channel(channel)) =
        wait(|done| state.read(SLOT, Read::Channel(group()), done)).unwrap()
    else {
        panic!("no channel");
    };
    assert_eq!(channel.last_seq, 2 * LAST);
    assert_eq!((channel.members.len(), channel.deny.len()), (30, 0));
    // Written before messages could be looked up.
    let sought = vec![Sought::Id(1_000_007), Sought::Newest("no-60".into())];
    let Outcome::Rows(Rows::Found(found)) =
        wait(|done| state.read(SLOT, Read::Find { channel: group(), sought }, done)).unwrap()
    else {
        panic!("nothing found");
    };
    let seqs: Vec<u64> = found.iter().flatten().map(|message| message.seq).collect();
    assert_eq!(seqs, [7, 60]);
    let Outcome::Hash(hash) = wait(|done| state.hash(SLOT, done)).unwrap() else {
        panic!("no hash");
    };
    assert_eq!(hash, HASH);
}
