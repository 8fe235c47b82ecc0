//! The node's settings, in two stages: what was written ([`Written`]: file, then environment), and what
//! it means ([`Config`]: validated, derived, immutable).
//!
//! Rules and keys are v2.2.5's (operations.md §1), so its files and `WK_*` variables work unchanged.
//! What cannot be used is never dropped in silence: it comes back as a [`Notice`] to be logged. Only
//! what would make the node be another one than it was told to be is an error: its addresses, its
//! number, its peers, its manager users.
//!
//! ```no_run
//! let sources = jindou::config::Sources { file: Some("wk.yaml".into()), ..Default::default() };
//! let config = jindou::config::load(&sources)?;
//! for notice in &config.notices {
//!     eprintln!("{notice}");
//! }
//! # Ok::<(), jindou::config::ConfigError>(())
//! ```

mod cluster;
mod keys;
mod limits;
mod listen;
mod machine;
mod notice;
mod parts;
mod reader;
mod secret;
mod show;
mod tree;
mod users;
mod value;
mod written;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

pub use cluster::{Cluster, Member, Role, TlsFiles};
pub use limits::{Batching, Dedupe, Driver, Durability, Limits, Runtime, Storage};
pub use listen::{Listen, ListenAddr, Route, Wss};
pub use machine::Machine;
pub use notice::{Notice, Origin};
pub use parts::{Admission, Jwt, Level, LogFormat, Logging, Messaging, Mode, Outside};
pub use secret::Secret;
pub use show::example;
pub use users::ManagerUser;
pub use written::Written;

use reader::{InForce, Reader};

/// Why the node does not start.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file's name ends in nothing we know.
    #[error("configuration file {}: the name must end in .yaml, .yml, .json or .toml", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// The file is not well formed.
    #[error("configuration file {}: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// There is no home directory to put data below.
    #[error(
        "HOME is not set: set rootDir (WK_ROOTDIR) to the folder that shall hold this node's data"
    )]
    Home,
    /// A listener's address.
    #[error("{key} = {value:?}: {why}")]
    Address {
        /// The key.
        key: &'static str,
        /// What was written.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// `wssAddr` without both files.
    #[error("wssAddr is set: wssConfig.certFile and wssConfig.keyFile must both be, too")]
    HalfKeyPair,
    /// Some of the files of `cluster.tls`.
    #[error("cluster.tls: certFile, keyFile and caFile must all be set, or none; {missing} is not")]
    HalfClusterTls {
        /// A key without a value.
        missing: &'static str,
    },
    /// The node's own number.
    #[error(
        "cluster.nodeId = {written:?}: must be a number from 1 to 1023, different on every node"
    )]
    NodeId {
        /// What was written.
        written: String,
    },
    /// The node's role.
    #[error("cluster.role = {written:?}: must be replica or proxy")]
    Role {
        /// What was written.
        written: String,
    },
    /// A node in `cluster.initNodes` or `cluster.seed`.
    #[error("{key}: {item:?}: {why}")]
    Nodes {
        /// The key.
        key: &'static str,
        /// The item.
        item: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A manager user; the item itself is not repeated, it holds a password.
    #[error("auth.users: item {place}: {why}")]
    Users {
        /// Which item, from 1.
        place: usize,
        /// What is wrong with it.
        why: String,
    },
}

/// Where settings are to be read from, as the command line says.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// `--ignoreMissingConfig`: a file that cannot be used is told and left out.
    pub ignore_missing: bool,
    /// `--mode`: replaces the default of `mode`, and nothing else.
    pub mode: Option<String>,
}

/// What the settings mean. Plain values, fixed for the life of the process.
#[derive(Debug)]
pub struct Config {
    /// The run mode. Default debug.
    pub mode: Mode,
    /// Folder of everything this node keeps. Default `$HOME/wukongim`.
    pub root_dir: PathBuf,
    /// Folder of the databases. Default `{root_dir}/data`.
    pub data_dir: PathBuf,
    /// Listeners.
    pub listen: Listen,
    /// What clients are told about them.
    pub route: Route,
    /// Who may connect, and how clients speak.
    pub admission: Admission,
    /// Users of the manager pages; never empty: `guest` with the right to read, unless configured.
    pub manager_users: Vec<ManagerUser>,
    /// Their log-ins.
    pub jwt: Jwt,
    /// This node among the others.
    pub cluster: Cluster,
    /// Threads and driver.
    pub runtime: Runtime,
    /// Bounds.
    pub limits: Limits,
    /// The window for repeated sends.
    pub dedupe: Dedupe,
    /// When things leave together.
    pub batching: Batching,
    /// How the databases run.
    pub storage: Storage,
    /// Channels, conversations, redelivery.
    pub messaging: Messaging,
    /// What leaves the node.
    pub outside: Outside,
    /// What is logged.
    pub logging: Logging,
    /// What the operator must be told; log each as a warning.
    pub notices: Vec<Notice>,
    in_force: BTreeMap<&'static str, InForce>,
}

/// Reads the sources and this process's environment and machine.
///
/// # Errors
/// [`ConfigError`]: the node must not start.
pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
    let mut unread = None;
    let file = match sources.file.as_deref() {
        None => None,
        Some(path) => match tree::read(path) {
            Ok(pairs) => Some((path, pairs)),
            Err(error) if sources.ignore_missing => {
                unread = Some(Notice::NoFile(with_source(&error)));
                None
            }
            Err(error) => return Err(error),
        },
    };
    let written = Written::join(file, std::env::vars_os(), sources.mode.as_deref());
    let mut config = Config::new(&written, &Machine::read())?;
    config.notices.splice(0..0, unread);
    Ok(config)
}

fn with_source(error: &ConfigError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl Config {
    /// What the written settings mean on that machine. A function of its arguments.
    ///
    /// # Errors
    /// [`ConfigError`]: the node must not start.
    pub fn new(written: &Written, machine: &Machine) -> Result<Config, ConfigError> {
        let mut reader = Reader::new(written);
        let r = &mut reader;
        let mode = Mode::read(r);
        let home = machine.home.as_deref();
        let root_dir = match r.text_if_any(&keys::ROOT_DIR) {
            Some(dir) => PathBuf::from(dir),
            None => {
                let dir = home.ok_or(ConfigError::Home)?.join("wukongim");
                r.derive(&keys::ROOT_DIR, dir.display().to_string());
                dir
            }
        };
        let data_dir = match r.text_if_any(&keys::DATA_DIR) {
            Some(dir) => PathBuf::from(dir),
            None => {
                let dir = root_dir.join("data");
                r.derive(&keys::DATA_DIR, dir.display().to_string());
                dir
            }
        };
        let listen = Listen::read(r)?;
        let route = Route::read(r, &listen, machine);
        let admission = Admission::read(r);
        let manager_users = users::read(r, &admission.manager_uid)?;
        let cluster = Cluster::read(r)?;
        cluster::show_members(r, &cluster.init_nodes);
        let logging = Logging::read(r, mode, &root_dir);
        let config = Config {
            mode,
            listen,
            route,
            admission,
            manager_users,
            jwt: Jwt::read(r),
            cluster,
            runtime: Runtime::read(r, machine),
            limits: Limits::read(r),
            dedupe: Dedupe::read(r),
            batching: Batching::read(r),
            storage: Storage::read(r),
            messaging: Messaging::read(r),
            outside: Outside::read(r, home),
            logging,
            root_dir,
            data_dir,
            notices: Vec::new(),
            in_force: BTreeMap::new(),
        };
        if !r.is_default(&keys::ROOT_DIR) && is_relative(&config.root_dir) {
            r.notices.push(Notice::Conflict(format!(
                "rootDir {} is relative to the working directory; in a container that is not the volume",
                config.root_dir.display()
            )));
        }
        r.tell_not_served();
        Ok(Config { notices: reader.notices, in_force: reader.in_force, ..config })
    }

    /// What stands open by these settings, in plain words, for the log at start (G19).
    pub fn open_doors(&self) -> Vec<String> {
        let mut doors = Vec::new();
        let mut door = |open: bool, words: &str| {
            if open {
                doors.push(words.to_owned());
            }
        };
        let admission = &self.admission;
        door(
            admission.manager_token.is_none(),
            "managerToken is not set: whoever reaches the HTTP API may use all of it",
        );
        let is_guest = |user: &ManagerUser| user.name == "guest" && user.password.is("guest");
        let manager_on = self.listen.manager.is_some();
        door(
            manager_on && self.manager_users.iter().any(is_guest),
            "auth.users has guest with the password guest: whoever reaches the manager port may \
             log in so and read",
        );
        door(
            self.jwt.secret.as_ref().is_some_and(|secret| secret.is(PUBLIC_JWT_SECRET)),
            "jwt.secret is v2.2.5's published default: anybody can make a log-in of any manager \
             user; leave it empty for a random one",
        );
        door(
            !admission.token_auth,
            "tokenAuthOn is false: whoever reaches the client ports may connect as any user",
        );
        door(
            admission.token_auth && !admission.visitors_suffix.is_empty(),
            &format!(
                "users whose uid ends in {} connect without a token",
                admission.visitors_suffix
            ),
        );
        door(
            !admission.encryption,
            "disableEncryption is true: payloads travel readable unless TLS is in front",
        );
        let cluster = &self.cluster;
        door(
            cluster.secret.is_none()
                && cluster.tls.is_none()
                && (cluster.server_addr.is_some() || cluster.seed.is_some()),
            "cluster.secret is not set: whoever reaches cluster.addr can join as a new node",
        );
        doors
    }

    /// A number over the settings that all nodes of a cluster must agree on, compared when a node
    /// joins. FNV-1a over their text.
    pub fn fingerprint(&self) -> u64 {
        let text = format!(
            "slots {} uid {} channel {}",
            self.cluster.slot_count, self.limits.uid_max, self.limits.channel_id_max,
        );
        text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    /// Every setting in force as YAML; where a value is not the default, its origin stands beside it.
    /// Secrets are masked.
    pub fn show(&self) -> String {
        show::in_force(&self.in_force)
    }
}

/// What v2.2.5 signs log-ins with when nothing is configured.
const PUBLIC_JWT_SECRET: &str = "secret_wukongim";

fn is_relative(path: &Path) -> bool {
    !path.is_absolute()
}

#[cfg(test)]
pub(crate) mod tests;
