//! What can go wrong below the lanes.

use std::{io, path::PathBuf, sync::Arc};

use crate::dir::DirError;

/// Why a request was not performed. Cheap to clone: one failure may answer many requests.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StorageError {
    /// A write or an fsync failed. Nothing is known about what reached the disk, so the database
    /// takes nothing more until the process has been started again (guarantee G1): the process
    /// must stop acknowledging.
    #[error("the {database} database failed and takes nothing more: {reason}")]
    Poisoned {
        /// `log` or `state`.
        database: &'static str,
        /// What the first failure said.
        reason: Arc<str>,
    },
    /// Stored bytes do not hold what their keyspace says. Nothing was changed.
    #[error("keyspace {keyspace}: {reason}")]
    Corrupt {
        /// The keyspace.
        keyspace: &'static str,
        /// What is wrong.
        reason: Arc<str>,
    },
    /// A read failed. Nothing was changed; it may be tried again.
    #[error("read failed: {0}")]
    Read(Arc<str>),
    /// A chunk of a snapshot is not what its sender wrote, or not the next one. The install is
    /// given up and the slot's rows are what they were before.
    #[error("snapshot chunk refused: {0}")]
    Chunk(Arc<str>),
    /// The lane has stopped because the process is about to end.
    #[error("the storage is closed")]
    Closed,
}

impl StorageError {
    /// A value or key that does not decode.
    pub(crate) fn corrupt(keyspace: &'static str, reason: impl AsRef<str>) -> Self {
        Self::Corrupt { keyspace, reason: reason.as_ref().into() }
    }
}

/// Why the storage could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data directory can't be used; it is unchanged.
    #[error(transparent)]
    Dir(#[from] DirError),
    /// The database did not open.
    #[error("the database {path} does not open: {reason}")]
    Database {
        /// Its directory.
        path: PathBuf,
        /// What the engine says.
        reason: String,
    },
    /// What the database holds is not as it must be.
    #[error(transparent)]
    Storage(StorageError),
    /// A file beside the databases can't be used.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the file system says.
        source: io::Error,
    },
    /// A thread could not be started.
    #[error("starting a thread: {source}")]
    Thread {
        /// What the system says.
        source: io::Error,
    },
}
