//! Clears and flushes old generations of the log, beside the lane.

use std::thread::{Builder, JoinHandle};

use fjall::Keyspace;

use crate::keyspace::log_generation;

/// What is to be done.
pub(super) enum Job {
    /// Nothing in it is needed: make it empty. The keyspace comes back.
    Clear(Keyspace),
    /// It has been in memory for too long.
    Flush(Keyspace),
}

/// The thread. Ends when dropped, after what it was given.
pub(super) struct Recycler {
    jobs: Option<flume::Sender<Job>>,
    cleared: flume::Receiver<fjall::Result<Keyspace>>,
    /// Keyspaces that are being cleared.
    pending: usize,
    thread: Option<JoinHandle<()>>,
}

impl Recycler {
    pub(super) fn start() -> std::io::Result<Self> {
        let (jobs, inbox) = flume::unbounded();
        let (outbox, cleared) = flume::unbounded();
        let thread = Builder::new().name("log-recycler".into()).spawn(move || {
            for job in inbox {
                let result = match job {
                    Job::Clear(keyspace) => clear(&keyspace).map(|()| keyspace),
                    Job::Flush(keyspace) => match keyspace.rotate_memtable() {
                        Ok(_) => continue,
                        Err(e) => Err(e),
                    },
                };
                let _ = outbox.send(result);
            }
        })?;
        Ok(Self { jobs: Some(jobs), cleared, pending: 0, thread: Some(thread) })
    }

    pub(super) fn give(&mut self, job: Job) {
        self.pending += usize::from(matches!(job, Job::Clear(_)));
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(job);
        }
    }

    /// How many keyspaces are being cleared.
    pub(super) fn pending(&self) -> usize {
        self.pending
    }

    /// A keyspace that has become empty since the last call. An error is final.
    pub(super) fn take(&mut self) -> fjall::Result<Option<Keyspace>> {
        let cleared = self.cleared.try_recv().ok().transpose()?;
        self.pending -= usize::from(cleared.is_some());
        Ok(cleared)
    }

    /// Waits for the next keyspace to become empty.
    pub(super) fn wait(&mut self) -> fjall::Result<Option<Keyspace>> {
        let cleared = self.cleared.recv().ok().transpose()?;
        self.pending -= usize::from(cleared.is_some());
        Ok(cleared)
    }
}

/// fjall removes a journal when every keyspace with rows in it has a table that is younger. A
/// cleared keyspace has none, so it gets one row, and that is flushed. The flush is also where
/// fjall looks whether the journal is long enough for a new one.
fn clear(keyspace: &Keyspace) -> fjall::Result<()> {
    keyspace.clear()?;
    keyspace.insert(log_generation::CLEARED_KEY, [])?;
    keyspace.rotate_memtable()?;
    Ok(())
}

impl Drop for Recycler {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
