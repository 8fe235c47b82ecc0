//! Opens a node's data directory with both databases.

use std::{path::PathBuf, sync::Arc, thread, time::Duration};

use jindou_core::id::NodeId;

use crate::{
    dir::{DataDir, sync_dir},
    error::OpenError,
    idle::OnIdle,
    log::{LogLane, LogOptions, LogStorage, OnFatal},
    state::{OnSynced, StateLane, StateOptions, StateStorage},
};

/// What a node's storage needs to know.
#[derive(Clone)]
pub struct StorageOptions {
    /// The data directory: missing, empty or ours.
    pub path: PathBuf,
    /// Whose data it is.
    pub node: NodeId,
    /// How many slots the cluster has; fixed for good.
    pub slot_count: u16,
    /// Bytes of the state database's blocks kept in memory ([`StateOptions::cache_size`]).
    pub state_cache_size: u64,
    /// How long what was persisted may wait for its fsync ([`StateOptions::sync_interval`]).
    pub state_sync_interval: Duration,
    /// Called if a database fails, from its lane's thread. The process must stop acknowledging
    /// and end.
    pub on_fatal: OnFatal,
    /// Called when applied positions have become durable, from the state lane's thread.
    pub on_synced: OnSynced,
    /// Called by each lane's thread when it has had nothing to do for a while.
    pub on_idle: OnIdle,
}

/// The open storage of a node. Holds the directory's lock.
pub struct Storage {
    log: Arc<LogLane>,
    state: Arc<StateLane>,
    dir: DataDir,
}

impl Storage {
    /// Opens or makes the data directory, and starts the lanes. Databases recover side by side.
    pub fn open(options: &StorageOptions) -> Result<Self, OpenError> {
        let dir = DataDir::open(&options.path, options.node, options.slot_count)?;
        let log_options =
            LogOptions { on_idle: options.on_idle.clone(), ..LogOptions::new(dir.log()) };
        let state_options = StateOptions {
            cache_size: options.state_cache_size,
            sync_interval: options.state_sync_interval,
            on_idle: options.on_idle.clone(),
            ..StateOptions::new(dir.state(), dir.install())
        };
        let (log, state) = thread::scope(|scope| {
            let log = scope.spawn(|| LogLane::open(&log_options, options.on_fatal.clone()));
            let state = StateLane::open(
                &state_options,
                options.on_fatal.clone(),
                options.on_synced.clone(),
            );
            (log.join(), state)
        });
        let log = log.map_err(|_| OpenError::Database {
            path: dir.log(),
            reason: "recovery panicked".into(),
        })??;
        let state = state?;
        // The databases' own names are durable, too, before anything in them is.
        sync_dir(dir.root())
            .map_err(|source| OpenError::Io { path: dir.root().to_owned(), source })?;
        Ok(Self { log: Arc::new(log), state: Arc::new(state), dir })
    }

    /// A handle of the log.
    pub fn log(&self) -> Arc<dyn LogStorage> {
        self.log.clone()
    }

    /// A handle of the state.
    pub fn state(&self) -> Arc<dyn StateStorage> {
        self.state.clone()
    }

    /// The directory.
    pub fn dir(&self) -> &DataDir {
        &self.dir
    }

    /// Performs what was handed over, makes the state durable and closes both databases. Handles
    /// that are left answer [`StorageError::Closed`](crate::StorageError::Closed).
    pub fn close(&self) {
        self.state.stop();
        self.log.stop();
    }
}
