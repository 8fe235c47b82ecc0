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
            while let Ok(size) = inbox.recv() {
                room.written += size + inbox.drain().sum::<u64>();
                room.clean();
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

impl Room {
    fn clean(&mut self) {
        for (watched, sealed_at) in self.keyspaces.iter().zip(&mut self.sealed_at) {
            let keyspace = &watched.keyspace;
            let size = keyspace.tree.active_memtable().size();
            if size == 0 {
                *sealed_at = self.written;
                continue;
            }
            let due =
                size > watched.memtable_size_max || self.written - *sealed_at > JOURNAL_SIZE_MAX;
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
