//! Settings of single parts: logging, clients' admission, log-ins of the manager, redelivery,
//! conversations, and what leaves the node (webhook, data source, agent, plugins, Prometheus).

use std::path::{Path, PathBuf};
use std::time::Duration;

use jindou_core::networks::{Block, BlockError, Networks};

use super::keys;
use super::notice::Notice;
use super::reader::Reader;
use super::secret::Secret;

/// The run mode (operations.md §1.3): it decides the default log level and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Log level debug.
    Debug,
    /// Log level info.
    Release,
    /// Log level info.
    Bench,
    /// Log level info.
    Test,
}

impl Mode {
    pub(super) fn read(reader: &mut Reader<'_>) -> Mode {
        match reader.choice(&keys::MODE).as_str() {
            "release" => Mode::Release,
            "bench" => Mode::Bench,
            "test" => Mode::Test,
            _ => Mode::Debug,
        }
    }
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logging {
    /// Least severe level that is written. Default: debug in mode debug, else info.
    pub level: Level,
    /// Shape of a line.
    pub format: LogFormat,
    /// Whether lines name file and line of the code. Default no.
    pub line_numbers: bool,
    /// Whether the steps of each message are written. Default no.
    pub trace: bool,
    /// Folder of log files. Default `{rootDir}/logs`.
    pub dir: PathBuf,
}

/// Severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Everything but per-message detail.
    Debug,
    /// What happens.
    Info,
    /// What should not happen.
    Warn,
    /// What failed.
    Error,
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// One JSON object, as v2.2.5 writes it.
    Json,
    /// For human eyes.
    Text,
}

impl Logging {
    pub(super) fn read(reader: &mut Reader<'_>, mode: Mode, root: &Path) -> Logging {
        let level = match (reader.number(&keys::LOGGER_LEVEL), mode) {
            (1, _) | (0, Mode::Debug) => Level::Debug,
            (3, _) => Level::Warn,
            (4, _) => Level::Error,
            _ => Level::Info,
        };
        let format = match reader.choice(&keys::LOGGER_FORMAT).as_str() {
            "json" => LogFormat::Json,
            "text" => LogFormat::Text,
            _ => LogFormat::Auto,
        };
        let dir = root.join(reader.text(&keys::LOGGER_DIR));
        Logging {
            level,
            format,
            line_numbers: reader.flag(&keys::LOGGER_LINE),
            trace: reader.flag(&keys::LOGGER_TRACE),
            dir,
        }
    }
}

/// Who may connect, and how clients speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// CONNECT must carry the stored token. Default no. `stress` does not change it.
    pub token_auth: bool,
    /// Uid of the super user. Default `____manager`.
    pub manager_uid: String,
    /// Wanted in the header `token` of API requests and from the super user. `None`: the API is open.
    pub manager_token: Option<Secret>,
    /// Uids that end so need no token. Default `___vstr`.
    pub visitors_suffix: String,
    /// Payloads are encrypted on binary connections. Default yes.
    pub encryption: bool,
    /// JSON-RPC is spoken on the client ports. Default yes.
    pub json_rpc: bool,
    /// Person channels look at the receiver's allow list. Default no.
    pub person_allow_list: bool,
    /// `/message/sync` works; otherwise it answers empty successes. Default yes.
    pub cmd_message_sync: bool,
    /// A session that sends nothing for so long is closed. Default 3 min.
    pub idle_time: Duration,
    /// Networks whose PROXY header, X-Forwarded-For and X-Real-IP are believed.
    pub trusted_proxies: Networks,
    /// `/stress/*` is served. Default no.
    pub stress: bool,
    /// Profiling routes are served. Default no.
    pub profiling: bool,
}

impl Admission {
    pub(super) fn read(reader: &mut Reader<'_>) -> Admission {
        let stress = reader.flag(&keys::STRESS);
        Admission {
            token_auth: reader.flag(&keys::TOKEN_AUTH_ON),
            manager_uid: reader.text(&keys::MANAGER_UID),
            manager_token: reader.text_if_any(&keys::MANAGER_TOKEN).map(Secret::new),
            visitors_suffix: reader.text(&keys::VISITORS_SUFFIX),
            encryption: !reader.flag(&keys::DISABLE_ENCRYPTION),
            json_rpc: !reader.flag(&keys::DISABLE_JSON_RPC),
            person_allow_list: !reader.flag(&keys::ALLOW_LIST_OFF),
            cmd_message_sync: !reader.flag(&keys::DISABLE_CMD_SYNC),
            idle_time: reader.time(&keys::CONN_IDLE_TIME),
            trusted_proxies: trusted_proxies(reader),
            stress,
            profiling: reader.flag(&keys::PPROF_ON),
        }
    }
}

fn trusted_proxies(reader: &mut Reader<'_>) -> Networks {
    let items = reader.list(&keys::TRUSTED_PROXIES);
    let block = |item: String| match item.parse::<Block>() {
        Ok(block) => Some(block),
        Err(error @ BlockError) => {
            let (key, why) = (keys::TRUSTED_PROXIES.name, error.to_string());
            reader.notices.push(Notice::Skipped { key, item, why });
            None
        }
    };
    items.into_iter().filter_map(block).collect()
}

/// Log-ins of manager users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwt {
    /// Signing key. `None`: a random one that the cluster makes once and keeps (G19).
    pub secret: Option<Secret>,
    /// How long a log-in lasts. Default 30 days.
    pub expire: Duration,
    /// Issuer written into it. Default `wukongim`.
    pub issuer: String,
}

impl Jwt {
    pub(super) fn read(reader: &mut Reader<'_>) -> Jwt {
        Jwt {
            secret: reader.text_if_any(&keys::JWT_SECRET).map(Secret::new),
            expire: reader.time(&keys::JWT_EXPIRE),
            issuer: reader.text(&keys::JWT_ISSUER),
        }
    }
}

/// Channels, conversations and redelivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Messaging {
    /// Channel of command messages that are not stored. Default `systemcmdonline`.
    pub online_cmd_channel: String,
    /// Recent conversations are kept. Default yes.
    pub conversations: bool,
    /// Recent conversations of one user that a sync returns at most. Default 1000.
    pub conversation_max: usize,
    /// A RECV without RECVACK is sent again after so long. Default 60 s.
    pub retry_interval: Duration,
    /// How often that is looked at. Default 30 s.
    pub retry_scan_interval: Duration,
    /// How many times it is sent again. Default 5.
    pub retry_max: u32,
    /// An unused plan of a channel's receivers is dropped after so long. Default 20 min.
    pub plan_expire: Duration,
}

impl Messaging {
    pub(super) fn read(reader: &mut Reader<'_>) -> Messaging {
        Messaging {
            online_cmd_channel: reader.text(&keys::CHANNEL_ONLINE_CMD),
            conversations: reader.flag(&keys::CONVERSATION_ON),
            conversation_max: reader.count(&keys::CONVERSATION_MAX),
            retry_interval: reader.time(&keys::RETRY_INTERVAL),
            retry_scan_interval: reader.time(&keys::RETRY_SCAN),
            retry_max: reader.small(&keys::RETRY_MAX),
            plan_expire: reader.time(&keys::TAG_EXPIRE),
        }
    }
}

/// What this node calls or is told from outside. Empty addresses: off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outside {
    /// URL that events are posted to.
    pub webhook_http: Option<String>,
    /// `ip:port` of a gRPC receiver of events; wins over the URL.
    pub webhook_grpc: Option<String>,
    /// msg.notify events are collected for so long. Default 500 ms.
    pub webhook_interval: Duration,
    /// Messages in one msg.notify event. Default 100.
    pub webhook_batch_max: usize,
    /// Tries of one event before its messages are tried one by one. Default 5.
    pub webhook_retry_max: u32,
    /// Signs events over HTTP.
    pub webhook_secret: Option<Secret>,
    /// Bytes of events that wait on disk. Default 1 GiB.
    pub webhook_outbox_max: u64,
    /// How long they wait. Default 24 h.
    pub webhook_time_max: Duration,
    /// Events wanted; empty: all.
    pub webhook_focus: Vec<String>,
    /// Offline events gzip their uid list above so many uids; `None`, the default: never.
    pub webhook_compress_above: Option<usize>,
    /// URL of a back end that knows the system accounts.
    pub datasource: Option<String>,
    /// URL that messages of agent channels are posted to.
    pub agent_webhook: Option<String>,
    /// Messages in one such post. Default 50.
    pub agent_batch_max: usize,
    /// A plugin call ends after so long. Default 1 s.
    pub plugin_timeout: Duration,
    /// Unix socket for plugins. Default `$HOME/.wukong/run/wukongim.sock`.
    pub plugin_socket: PathBuf,
    /// URLs of plugins to install.
    pub plugin_install: Vec<String>,
    /// Base URL of the Prometheus that the manager's charts ask.
    pub prometheus: Option<String>,
    /// A log shipper's URL, only shown by `/varz/setting`.
    pub loki: Option<String>,
    /// URL of a v1 server to import from at start.
    pub import_v1: Option<String>,
    /// Where that import begins: message, user or channel.
    pub import_v1_step: String,
}

impl Outside {
    pub(super) fn read(reader: &mut Reader<'_>, home: Option<&Path>) -> Outside {
        for unused in
            [&keys::LOKI_USER, &keys::LOKI_PASSWORD, &keys::TRACE_SERVICE, &keys::TRACE_HOST]
        {
            reader.text(unused);
        }
        let plugin_socket = reader.text_if_any(&keys::PLUGIN_SOCKET).map_or_else(
            || {
                let socket = home.unwrap_or(Path::new("/")).join(".wukong/run/wukongim.sock");
                reader.derive(&keys::PLUGIN_SOCKET, socket.display().to_string());
                socket
            },
            PathBuf::from,
        );
        Outside {
            webhook_http: reader.text_if_any(&keys::WEBHOOK_HTTP),
            webhook_grpc: reader.text_if_any(&keys::WEBHOOK_GRPC),
            webhook_interval: reader.time(&keys::WEBHOOK_INTERVAL),
            webhook_batch_max: reader.count(&keys::WEBHOOK_BATCH),
            webhook_retry_max: reader.small(&keys::WEBHOOK_RETRY),
            webhook_secret: reader.text_if_any(&keys::WEBHOOK_SECRET).map(Secret::new),
            webhook_outbox_max: reader.number(&keys::WEBHOOK_OUTBOX),
            webhook_time_max: reader.time(&keys::WEBHOOK_OUTBOX_TIME),
            webhook_focus: reader.list(&keys::WEBHOOK_FOCUS),
            webhook_compress_above: Some(reader.count(&keys::CHANNEL_COMPRESS)).filter(|n| *n > 0),
            datasource: reader.text_if_any(&keys::DATASOURCE_ADDR),
            agent_webhook: reader.text_if_any(&keys::AGENT_HTTP),
            agent_batch_max: reader.count(&keys::AGENT_BATCH),
            plugin_timeout: reader.time(&keys::PLUGIN_TIMEOUT),
            plugin_socket,
            plugin_install: reader.list(&keys::PLUGIN_INSTALL),
            prometheus: reader
                .text_if_any(&keys::PROMETHEUS_URL)
                .map(|url| url.trim().trim_end_matches('/').to_owned()),
            loki: reader.text_if_any(&keys::LOKI_URL),
            import_v1: reader.text_if_any(&keys::OLD_V1_API),
            import_v1_step: reader.choice(&keys::MIGRATE_START_STEP),
        }
    }
}
