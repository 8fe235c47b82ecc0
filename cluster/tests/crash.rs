//! kill -9 while entries are being written, over and over on one data directory.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use jindou_cluster::{NoPeers, Options};
use jindou_core::id::{NodeId, SlotId};
use jindou_storage::{Outcome, Storage, StorageOptions, wait};
use support::{TestNode, Toy, entry, life, no_meddling, until};

const SLOTS: [SlotId; 4] = [SlotId(0), SlotId(1), SlotId(17), SlotId(63)];
const DIR: &str = "JINDOU_CRASH_TEST_DIR";
const SIZE: usize = 300;

fn open(path: &Path) -> Storage {
    Storage::open(&StorageOptions {
        path: path.to_owned(),
        node: NodeId(1),
        slot_count: 64,
        state_cache_size: 32 << 20,
        state_sync_interval: Duration::from_secs(5),
        on_fatal: Arc::new(|error| panic!("{error}")),
        on_idle: jindou_storage::OnIdle::default(),
        on_synced: Arc::new(|_| {}),
    })
    .unwrap()
}

async fn boot(storage: &Storage) -> TestNode<NoPeers> {
    let node = TestNode::start(
        1,
        storage.log(),
        storage.state(),
        NoPeers,
        Options::default(),
        no_meddling(),
    );
    node.open_alone(&SLOTS).await;
    until("all lead", || node.leading_count() == SLOTS.len()).await;
    node
}

/// Not a test of its own: the process that is killed. Writes to all slots and says on standard
/// output how many entries of which slot are confirmed; every other moment the log is purged.
#[test]
fn victim() {
    let Some(path) = std::env::var_os(DIR).map(PathBuf::from) else {
        return;
    };
    life(async move || {
        let storage = open(&path);
        let node = boot(&storage).await;
        println!("ready");
        for round in 0.. {
            let counts = SLOTS.map(|slot| node.count(slot));
            for (slot, count) in SLOTS.into_iter().zip(counts) {
                for proposal in count..count + 5 {
                    node.groups.propose(slot, proposal, entry(proposal, SIZE));
                }
            }
            let all = || {
                let now = SLOTS.map(|slot| node.count(slot));
                now.iter().zip(counts).all(|(now, then)| *now == then + 5)
            };
            until("committed", all).await;
            let mut out = std::io::stdout().lock();
            for slot in SLOTS {
                writeln!(out, "{} {}", slot.0, node.count(slot)).unwrap();
            }
            out.flush().unwrap();
            if round % 16 == 15 {
                let Ok(Outcome::Synced(moved)) = wait(|done| node.state.sync(done)) else {
                    panic!("no sync");
                };
                node.groups.synced(&moved);
            }
        }
    });
}

#[test]
fn what_was_confirmed_before_a_kill_is_there_after_it() {
    let rounds = std::env::var("JINDOU_CRASH_TEST_ROUNDS").map_or(5, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let mut confirmed: BTreeMap<u16, u64> = BTreeMap::new();
    for round in 0..rounds {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "victim", "--nocapture"])
            .env(DIR, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(victim.stdout.take().unwrap());
        let reader = std::thread::spawn(move || {
            let mut confirmed = BTreeMap::new();
            for line in lines.lines().map_while(Result::ok) {
                let mut words = line.split(' ').map(str::parse::<u64>);
                if let (Some(Ok(slot)), Some(Ok(count))) = (words.next(), words.next()) {
                    confirmed.insert(u16::try_from(slot).unwrap(), count);
                }
            }
            confirmed
        });
        std::thread::sleep(Duration::from_millis(700 + 237 * (round % 4)));
        victim.kill().unwrap();
        victim.wait().unwrap();
        confirmed.extend(reader.join().unwrap());
        let (path, confirmed) = (path.clone(), confirmed.clone());
        life(async move || {
            let storage = open(&path);
            let node = boot(&storage).await;
            for slot in SLOTS {
                let toy = node.toy(slot);
                let least = confirmed.get(&slot.0).copied().unwrap_or_default();
                assert!(toy.count >= least, "{slot}: {} of {least}", toy.count);
                assert!(toy.count <= least + 5, "{slot}: {} of {least}", toy.count);
                let mut expected = Toy::default();
                for proposal in 0..toy.count {
                    expected.step(&entry(proposal, SIZE));
                }
                assert_eq!(toy.hash, expected.hash, "{slot}");
            }
            node.groups.shutdown().await;
            storage.close();
        });
    }
    let total: u64 = confirmed.values().sum();
    assert!(total > 100, "{total} entries in {rounds} rounds");
    eprintln!("{total} confirmed entries survived {rounds} kills");
}
