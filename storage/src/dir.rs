//! The data directory: whose it is, in which format, and that one process uses it.
//!
//! ```text
//! <root>/FORMAT     program, format version, node, slot count, time of creation: text, written once
//!        LOCK       held with flock while a process uses the directory
//!        log/       fjall database: Raft log and votes
//!        state/     fjall database: applied state
//!        install/   snapshots that are being received
//! ```
//!
//! A directory that holds anything but logs without our FORMAT file belongs to another program: it is
//! refused and nothing in it is touched or created. FORMAT is the first thing that is written, and
//! appears at once (temporary file, fsync, rename, fsync of the directory).

use std::{
    fmt::Write as _,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use jindou_core::id::NodeId;

/// The format that this build writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

const PROGRAM: &str = "jindou";
const FORMAT_FILE: &str = "FORMAT";
/// Written beside [`FORMAT_FILE`] and renamed. A crash before the rename leaves it behind.
const FORMAT_DRAFT: &str = "FORMAT.new";
const LOCK_FILE: &str = "LOCK";
const FORMAT_SIZE_MAX: u64 = 4096;

/// Why a data directory can't be used. It is unchanged in every case.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// The directory holds something that is not ours.
    #[error(
        "{path} holds another program's data ({found}) and was left untouched; \
         name an empty directory as data directory, or move what is there away"
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Some of the names found, and a guess whose they are.
        found: String,
    },
    /// A newer build wrote the directory.
    #[error(
        "{path} is in format {found} and this build reads up to {FORMAT_VERSION}; it was left \
         untouched; start the newer build again"
    )]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The FORMAT file is there but does not say what it must.
    #[error(
        "{path}/FORMAT is damaged ({reason}) and the directory was left untouched; restore the \
         file or the whole directory from a backup"
    )]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The directory is another node's.
    #[error(
        "{path} holds the data of node {found}, and node {configured} is configured; it was left \
         untouched; correct the node id or the data directory"
    )]
    OtherNode {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: u64,
        /// Who we are.
        configured: u64,
    },
    /// The directory was made for another number of slots, which can't change.
    #[error(
        "{path} was made for {found} slots, and {configured} are configured; it was left \
         untouched; configure {found}: the number of slots can't change"
    )]
    OtherSlotCount {
        /// The directory.
        path: PathBuf,
        /// Its slots.
        found: u16,
        /// Ours.
        configured: u16,
    },
    /// Another process uses the directory.
    #[error("{path} is in use by another process; stop that one first")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The file system says no.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What.
        source: io::Error,
    },
}

/// An open data directory. The lock is held as long as this lives, and goes with the process
/// whatever its end.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    created_ms: u64,
    _lock: File,
}

impl DataDir {
    /// Opens the directory for a node, and makes it if it is missing or empty.
    pub fn open(root: &Path, node: NodeId, slot_count: u16) -> Result<Self, DirError> {
        let format = match Format::find(root)? {
            Some(format) => format,
            None => {
                fs::create_dir_all(root).map_err(at(root))?;
                Format { version: FORMAT_VERSION, node: node.0, slot_count, created_ms: unix_ms() }
            }
        };
        format.check(root, node, slot_count)?;
        let lock = lock(root)?;
        // Between the look and the lock another process may have been here.
        match Format::find(root)? {
            Some(found) => found.check(root, node, slot_count)?,
            None => format.write(root)?,
        }
        Ok(Self { root: root.to_owned(), created_ms: format.created_ms, _lock: lock })
    }

    /// Refuses a directory that belongs to another program, or whose FORMAT file does not read,
    /// before anything is written to it or beside it.
    pub fn look(root: &Path) -> Result<(), DirError> {
        Format::find(root).map(drop)
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// When it was made, Unix ms.
    pub fn created_ms(&self) -> u64 {
        self.created_ms
    }

    /// The log database.
    pub fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    /// The state database.
    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// Snapshots that are being received.
    pub fn install(&self) -> PathBuf {
        self.root.join("install")
    }
}

/// What the FORMAT file says.
#[derive(Debug, PartialEq, Eq)]
struct Format {
    version: u32,
    node: u64,
    slot_count: u16,
    created_ms: u64,
}

impl Format {
    /// `None`: the directory is missing or empty (but for what an interrupted first start leaves).
    fn find(root: &Path) -> Result<Option<Self>, DirError> {
        let path = root.join(FORMAT_FILE);
        let mut text = String::new();
        match File::open(&path) {
            Ok(file) => {
                file.take(FORMAT_SIZE_MAX).read_to_string(&mut text).map_err(at(&path))?;
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound) => {
                return match foreign(root)? {
                    Some(found) => Err(DirError::Foreign { path: root.to_owned(), found }),
                    None => Ok(None),
                };
            }
            Err(e) => return Err(at(&path)(e)),
        }
        Self::parse(&text)
            .map(Some)
            .map_err(|reason| DirError::Damaged { path: root.to_owned(), reason })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines();
        if lines.next() != Some(PROGRAM) {
            return Err(format!("it does not begin with `{PROGRAM}`"));
        }
        let fields: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(": ")).collect();
        let field = |name: &str| {
            fields
                .iter()
                .find(|(key, _)| *key == name)
                .and_then(|(_, value)| value.trim().parse::<u64>().ok())
                .ok_or_else(|| format!("no number for `{name}`"))
        };
        let version = u32::try_from(field("format")?).map_err(|e| e.to_string())?;
        if version > FORMAT_VERSION {
            // What else a newer file says is not ours to judge.
            return Ok(Self { version, node: 0, slot_count: 0, created_ms: 0 });
        }
        Ok(Self {
            version,
            node: field("node")?,
            slot_count: u16::try_from(field("slots")?).map_err(|e| e.to_string())?,
            created_ms: field("created_unix_ms")?,
        })
    }

    fn text(&self) -> String {
        let mut text = format!("{PROGRAM}\n");
        // Writing to a string can't fail.
        let _ = writeln!(text, "format: {}", self.version);
        let _ = writeln!(text, "node: {}", self.node);
        let _ = writeln!(text, "slots: {}", self.slot_count);
        let _ = writeln!(text, "created_unix_ms: {}", self.created_ms);
        text
    }

    fn check(&self, root: &Path, node: NodeId, slot_count: u16) -> Result<(), DirError> {
        let path = root.to_owned();
        if self.version > FORMAT_VERSION {
            let found = self.version;
            return Err(DirError::Newer { path, found });
        }
        if self.node != node.0 {
            let (found, configured) = (self.node, node.0);
            return Err(DirError::OtherNode { path, found, configured });
        }
        if self.slot_count != slot_count {
            let (found, configured) = (self.slot_count, slot_count);
            return Err(DirError::OtherSlotCount { path, found, configured });
        }
        Ok(())
    }

    fn write(&self, root: &Path) -> Result<(), DirError> {
        let draft = root.join(FORMAT_DRAFT);
        let mut file = File::create(&draft).map_err(at(&draft))?;
        file.write_all(self.text().as_bytes()).map_err(at(&draft))?;
        file.sync_all().map_err(at(&draft))?;
        let path = root.join(FORMAT_FILE);
        fs::rename(&draft, &path).map_err(at(&path))?;
        sync_dir(root).map_err(at(root))?;
        if let Some(parent) = root.parent().filter(|p| !p.as_os_str().is_empty()) {
            sync_dir(parent).map_err(at(parent))?;
        }
        Ok(())
    }
}

/// Fsyncs a directory, so that the names in it are durable.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Names what stands in a directory without FORMAT file; `None` when there is nothing.
fn foreign(root: &Path) -> Result<Option<String>, DirError> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(at(root)(e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(at(root))?.file_name();
        let name = name.to_string_lossy();
        // What a first start leaves when it dies before the rename, what mkfs leaves, and logs,
        // which deployments put beside the data.
        let is_ours = [LOCK_FILE, FORMAT_DRAFT, "lost+found", "logs"].contains(&&*name);
        if !is_ours && !name.ends_with(".log") {
            names.push(name.into_owned());
        }
    }
    names.sort();
    if names.is_empty() {
        return Ok(None);
    }
    let known = |name: &str| names.iter().any(|found| found == name);
    // v2's data directory holds `db` and `cluster`; its root directory `data` and `logs`.
    let guess = if (known("db") && known("cluster")) || known("data") {
        ", perhaps WuKongIM v2's"
    } else {
        ""
    };
    let more = names.len().saturating_sub(5);
    names.truncate(5);
    let mut found = names.join(", ");
    if more > 0 {
        let _ = write!(found, " and {more} more");
    }
    Ok(Some(format!("{found}{guess}")))
}

fn lock(root: &Path) -> Result<File, DirError> {
    let path = root.join(LOCK_FILE);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DirError::InUse { path: root.to_owned() }),
        Err(TryLockError::Error(e)) => Err(at(&path)(e)),
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> DirError {
    let path = path.to_owned();
    |source| DirError::Io { path, source }
}

fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
