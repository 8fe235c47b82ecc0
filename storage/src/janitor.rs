//! Seals memtables, so that they are flushed and the journal stays short.
//!
//! fjall would do this by itself: every commit that finds a memtable too large sends its workers
//! a message. Under load that floods the bounded channel of which the workers are both readers and
//! writers, and with it they can block for good (measured with one worker; upstream says more
//! don't rule it out). So fjall's own limit is switched off (`max_memtable_size` is the largest
//! number) and the size is watched here. It is a thread of its own because sealing also deletes
//! journals that are no longer needed, and a lane must not wait for that.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread::{Builder, JoinHandle},
    time::Duration,
};

use fjall::{AbstractTree as _, Database, Keyspace};

/// A keyspace and the size at which its memtable is sealed.
#[derive(Clone)]
pub(crate) struct Watched {
    pub(crate) keyspace: Keyspace,
    pub(crate) memtable_size_max: u64,
}

/// Journals that a restart may have to replay stay below about this many bytes beyond the
/// memtable limits: when as much was written since a keyspace was sealed last, it is sealed
/// however little it holds, because it pins every journal since then.
const JOURNAL_SIZE_MAX: u64 = 96 << 20;
/// The janitor is woken once for this many bytes: a wake-up per commit would cost a small commit a
/// twentieth of its time.
const POKE_SIZE: u64 = 256 << 10;
/// When nothing is written any more, memtables of at least this size are sealed, too: a node at
/// rest needs neither their memory nor the time to replay them at its next start.
const REST_SIZE_MIN: u64 = 1 << 20;
/// fjall holds commits back at four sealed memtables.
const SEALED_COUNT_MAX: usize = 2;

/// The janitor of one database. Ends when dropped.
pub(crate) struct Janitor {
    pokes: Option<flume::Sender<u64>>,
    /// Bytes that the thread was not told of.
    unreported: AtomicU64,
    thread: Option<JoinHandle<()>>,
}

struct Room {
    database: Database,
    keyspaces: Vec<Watched>,
    /// By keyspace: what had been written in all when it was sealed last.
    sealed_at: Vec<u64>,
    written: u64,
    failed: bool,
}

impl Janitor {
    pub(crate) fn start(
        name: &str,
        database: Database,
        keyspaces: Vec<Watched>,
        rest: Duration,
    ) -> std::io::Result<Self> {
        let (pokes, inbox) = flume::unbounded();
        let mut room = Room {
            database,
            sealed_at: vec![0; keyspaces.len()],
            keyspaces,
            written: 0,
            failed: false,
        };
        let thread = Builder::new().name(format!("{name}-janitor")).spawn(move || {
            // What the journals hold that were replayed at this start.
            room.written = room.database.journal_disk_space().unwrap_or(0);
            let mut is_tidy = room.written == 0;
            loop {
                let next = if is_tidy {
                    inbox.recv().map_err(|_| flume::RecvTimeoutError::Disconnected)
                } else {
                    inbox.recv_timeout(rest)
                };
                match next {
                    Ok(size) => {
                        room.written += size + inbox.drain().sum::<u64>();
                        room.clean(Work::Busy);
                        is_tidy = false;
                    }
                    Err(flume::RecvTimeoutError::Timeout) => {
                        room.clean(Work::Rest);
                        is_tidy = true;
                    }
                    Err(flume::RecvTimeoutError::Disconnected) => break,
                }
            }
        })?;
        Ok(Self { pokes: Some(pokes), unreported: AtomicU64::new(0), thread: Some(thread) })
    }

    /// As many bytes were committed.
    pub(crate) fn wrote(&self, size: u64) {
        let unreported = self.unreported.fetch_add(size, Ordering::Relaxed) + size;
        if unreported >= POKE_SIZE
            && let Some(pokes) = &self.pokes
        {
            self.unreported.store(0, Ordering::Relaxed);
            let _ = pokes.send(unreported);
        }
    }
}

/// What the writers do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Busy,
    Rest,
}

impl Room {
    fn clean(&mut self, work: Work) {
        for (watched, sealed_at) in self.keyspaces.iter().zip(&mut self.sealed_at) {
            let keyspace = &watched.keyspace;
            let size = keyspace.tree.active_memtable().size();
            if size == 0 {
                *sealed_at = self.written;
                continue;
            }
            let due = size > watched.memtable_size_max
                || self.written - *sealed_at > JOURNAL_SIZE_MAX
                || (work == Work::Rest && size >= REST_SIZE_MIN);
            if !due || keyspace.sealed_memtable_count() >= SEALED_COUNT_MAX {
                continue;
            }
            match keyspace.rotate_memtable() {
                Ok(_) => *sealed_at = self.written,
                // A poisoned database; the lane finds out with its next commit.
                Err(e) if !self.failed => {
                    self.failed = true;
                    tracing::error!("sealing a memtable of {}: {e}", &**keyspace.name());
                }
                Err(_) => {}
            }
        }
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        self.pokes = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::time::Instant;

    use fjall::KeyspaceCreateOptions;

    use super::*;

    #[test]
    fn a_memtable_at_rest_is_sealed_and_a_small_one_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::builder(dir.path()).worker_threads(2).open().unwrap();
        let plain = || KeyspaceCreateOptions::default().max_memtable_size(u64::MAX);
        let large = database.keyspace("large", plain).unwrap();
        let small = database.keyspace("small", plain).unwrap();
        let watched = [&large, &small]
            .map(|keyspace| Watched { keyspace: keyspace.clone(), memtable_size_max: 64 << 20 });
        let rest = Duration::from_millis(50);
        let janitor = Janitor::start("test", database.clone(), watched.to_vec(), rest).unwrap();
        for number in 0u8..20 {
            large.insert([number], vec![number; 100_000]).unwrap();
        }
        small.insert([0], [0]).unwrap();
        janitor.wrote(2 << 20);
        let end = Instant::now() + Duration::from_secs(20);
        while large.tree.active_memtable().size() > 0 {
            assert!(Instant::now() < end, "it was not sealed");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(large.get([7]).unwrap().unwrap().len(), 100_000);
        assert!(small.tree.active_memtable().size() > 0);
    }
}
