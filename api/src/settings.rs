//! The part of the configuration that the API depends on. Immutable for a process.

use jindou_core::id::NodeId;

use crate::manager::LoginSettings;

/// Where clients find this node (operations.md §1.4, external).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// `external.tcpAddr`: `host:port`.
    pub tcp: String,
    /// `external.wsAddr`: `ws://host:port`.
    pub ws: String,
    /// `external.wssAddr`: `wss://host:port`, empty when there is none.
    pub wss: String,
    /// `external.managerAddr`: `host:port`.
    pub manager: String,
    /// `external.apiUrl`: `http://host:port`.
    pub api_url: String,
    /// `intranet.tcpAddr`: `host:port`, may be empty.
    pub intranet_tcp: String,
}

/// What the build knows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The version, as `/varz` shows it.
    pub version: String,
    /// The commit.
    pub commit: String,
    /// Its date.
    pub commit_date: String,
    /// `clean` or `dirty`.
    pub tree_state: String,
}

impl Default for Version {
    fn default() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: String::new(),
            commit_date: String::new(),
            tree_state: String::new(),
        }
    }
}

/// Settings of the API. Counts and sizes are bounds.
#[derive(Clone, Debug)]
pub struct ApiSettings {
    /// This node.
    pub node: NodeId,
    /// `managerToken`. When not blank every call must carry it in the header `token`.
    pub manager_token: String,
    /// `managerUID`.
    pub manager_uid: String,
    /// `manager.on`.
    pub manager_on: bool,
    /// Where clients find this node.
    pub addresses: Addresses,
    /// What the build knows of itself.
    pub version: Version,
    /// `conversation.userMaxCount`: how many conversations a sync looks at.
    pub conversation_count_max: usize,
    /// `disableCMDMessageSync`: /message/sync and its acknowledgement answer an empty success.
    pub command_sync_off: bool,
    /// The longest uid, in bytes (the same as the core's).
    pub uid_size_max: usize,
    /// The longest channel id, in bytes (the same as the core's).
    pub id_size_max: usize,
    /// How many uids one request may name (members, lists, receivers).
    pub uids_per_request_max: usize,
    /// Seconds east of UTC in which times are written.
    pub utc_offset_seconds: i32,
    /// `trace.prometheusApiUrl` is set.
    pub prometheus_on: bool,
    /// `stress`.
    pub stress_on: bool,
    /// `logger.traceOn`.
    pub trace_on: bool,
    /// `logger.loki.url` is set.
    pub loki_on: bool,
    /// `pprofOn`.
    pub profiling_on: bool,
    /// `mode` is `release`: the documentation is shut.
    pub release: bool,
    /// Log-ins of manager users.
    pub login: LoginSettings,
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            node: NodeId(1001),
            manager_token: String::new(),
            manager_uid: "____manager".to_owned(),
            manager_on: true,
            addresses: Addresses::default(),
            version: Version::default(),
            conversation_count_max: 1000,
            command_sync_off: false,
            uid_size_max: 4096,
            id_size_max: 8192,
            uids_per_request_max: 100_000,
            utc_offset_seconds: 0,
            prometheus_on: false,
            stress_on: false,
            trace_on: false,
            loki_on: false,
            profiling_on: false,
            release: false,
            login: LoginSettings::default(),
        }
    }
}
