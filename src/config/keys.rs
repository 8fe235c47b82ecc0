//! Every key there is: its spelling, kind, default, bounds and a line about it. The example file, the
//! environment names, `jindou config` and the defaults of [`super::Config`] all come from this table.
//!
//! Sources: operations.md §1.4 for v2.2.5's keys; design.md §5 for the limits, which are ours.

use std::time::Duration;

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    /// Dotted name in its usual spelling; read without regard to case.
    pub(super) name: &'static str,
    /// What may be written.
    pub(super) kind: Kind,
    /// What applies when nothing is written, as text of that kind; empty where it is derived.
    pub(super) default: &'static str,
    /// What writing it does.
    pub(super) effect: Effect,
    /// Never shown: tokens, secrets, passwords.
    pub(super) secret: bool,
    /// Unit, meaning, and what an empty default stands for.
    pub(super) about: &'static str,
}

/// What may be written for a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Any text.
    Text,
    /// One of these words, in any case.
    Choice(&'static [&'static str]),
    /// A Go boolean.
    Bool,
    /// A whole number within bounds.
    Int(i64, i64),
    /// A count of bytes within bounds.
    Bytes(i64, i64),
    /// A duration within bounds.
    Time(Duration, Duration),
    /// A list of texts; written as one text it is split at blanks.
    List,
}

/// What writing a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It is obeyed.
    Live,
    /// v2.2.5 obeys it; this version understands it and does not serve it yet; reported.
    Later,
    /// v2.2.5 reads it and does nothing with it; so do we, without a word.
    Dead,
    /// It tunes a part of v2.2.5 that this server does not have; reported.
    Engine,
    /// Published documents name it, v2.2.5 does not know it; reported.
    Elsewhere,
}

impl Key {
    /// The environment variable that sets it: `WK_`, dots as `_`, upper case, humps not split.
    pub(super) fn variable(&self) -> String {
        variable(self.name)
    }

    const fn secret(mut self) -> Key {
        self.secret = true;
        self
    }

    const fn later(self) -> Key {
        self.effect(Effect::Later)
    }

    const fn effect(mut self, effect: Effect) -> Key {
        self.effect = effect;
        self
    }

    /// The bounds in words, if the kind has any.
    pub(super) fn bounds(&self) -> Option<String> {
        use super::value::{duration_text, size_text};
        match self.kind {
            Kind::Choice(words) => Some(words.join(", ")),
            Kind::Int(min, max) if max == i64::MAX => Some(format!("{min} or more")),
            Kind::Int(min, max) => Some(format!("{min} to {max}")),
            Kind::Bytes(min, max) => Some(format!(
                "{} to {}",
                size_text(min.cast_unsigned()),
                size_text(max.cast_unsigned())
            )),
            Kind::Time(min, max) => {
                Some(format!("{} to {}", duration_text(min), duration_text(max)))
            }
            Kind::Text | Kind::Bool | Kind::List => None,
        }
    }
}

/// The environment variable of a dotted name.
pub(super) fn variable(name: &str) -> String {
    format!("WK_{}", name.replace('.', "_").to_ascii_uppercase())
}

const fn key(name: &'static str, kind: Kind, default: &'static str, about: &'static str) -> Key {
    Key { name, kind, default, effect: Effect::Live, secret: false, about }
}

const fn text(name: &'static str, default: &'static str, about: &'static str) -> Key {
    key(name, Kind::Text, default, about)
}

const fn flag(name: &'static str, default: &'static str, about: &'static str) -> Key {
    key(name, Kind::Bool, default, about)
}

const fn int(
    name: &'static str,
    default: &'static str,
    min: i64,
    max: i64,
    about: &'static str,
) -> Key {
    key(name, Kind::Int(min, max), default, about)
}

const fn bytes(
    name: &'static str,
    default: &'static str,
    min: i64,
    max: i64,
    about: &'static str,
) -> Key {
    key(name, Kind::Bytes(min, max), default, about)
}

const fn time(
    name: &'static str,
    default: &'static str,
    min: Duration,
    max: Duration,
    about: &'static str,
) -> Key {
    key(name, Kind::Time(min, max), default, about)
}

const fn list(name: &'static str, default: &'static str, about: &'static str) -> Key {
    key(name, Kind::List, default, about)
}

const fn dead(name: &'static str) -> Key {
    key(name, Kind::Text, "", "no effect, in v2.2.5 neither").effect(Effect::Dead)
}

const fn elsewhere(name: &'static str) -> Key {
    key(name, Kind::Text, "", "documented in places, no effect").effect(Effect::Elsewhere)
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const fn s(n: u64) -> Duration {
    Duration::from_secs(n)
}

const DAY: u64 = 86_400;
const KIB: i64 = 1 << 10;
const MIB: i64 = 1 << 20;
const GIB: i64 = 1 << 30;
const ANY: i64 = i64::MAX;

/// Names below these prefixes are dead in v2.2.5, whatever follows.
pub(super) const DEAD_PREFIXES: &[&str] =
    &["goPool.", "deliver.", "reactor.", "coreReactor.", "streamCache.", "poller."];

/// Names below these prefixes are documented in places and unknown to v2.2.5.
pub(super) const ELSEWHERE_PREFIXES: &[&str] = &["monitor."];

macro_rules! keys {
    ($($name:ident = $key:expr;)*) => {
        $(pub(super) static $name: Key = $key;)*
        /// All keys, in the order of the example file; keys of one group stand together.
        pub(super) static ALL: &[&Key] = &[$(&$name),*];
    };
}

keys! {
    MODE = key("mode", Kind::Choice(&["debug", "release", "bench", "test"]), "debug",
        "release: log level info; debug: log level debug. It does not turn on token checks");
    ROOT_DIR = text("rootDir", "", "folder of everything this node keeps; empty: $HOME/wukongim");
    DATA_DIR = text("dataDir", "", "folder of the databases; empty: {rootDir}/data");
    ADDR = text("addr", "tcp://0.0.0.0:5100", "client TCP listener");
    WS_ADDR = text("wsAddr", "ws://0.0.0.0:5200", "client WebSocket listener");
    WSS_ADDR = text("wssAddr", "", "client WebSocket listener with TLS, by custom wss://0.0.0.0:5210; empty: off");
    WSS_CERT = text("wssConfig.certFile", "", "PEM file of the certificate chain for wssAddr; read again when it changes, and on SIGHUP");
    WSS_KEY = text("wssConfig.keyFile", "", "PEM file of its private key");
    HTTP_ADDR = text("httpAddr", "0.0.0.0:5001", "HTTP API listener");
    TOKEN_AUTH_ON = flag("tokenAuthOn", "false", "CONNECT must carry the token that /user/token stored");
    MANAGER_UID = text("managerUID", "____manager", "uid of the super user");
    MANAGER_TOKEN = text("managerToken", "", "when set, every API request needs the header `token` with it; empty: the API is open").secret();
    DISABLE_ENCRYPTION = flag("disableEncryption", "false", "payloads travel unencrypted; most SDKs do not work with that");
    DISABLE_JSON_RPC = flag("disableJSONRPC", "false", "refuse JSON-RPC on the client ports");
    DISABLE_CMD_SYNC = flag("disableCMDMessageSync", "false", "/message/sync and its ack answer an empty success");
    ALLOW_LIST_OFF = flag("whitelistOffOfPerson", "true", "true: person channels do not look at allow lists");
    CONN_IDLE_TIME = time("connIdleTime", "3m", s(1), s(30 * DAY), "a session that sends nothing for so long is closed");
    STRESS = flag("stress", "false", "/stress/* routes; unlike v2.2.5 it never switches token checks off").later();
    PPROF_ON = flag("pprofOn", "false", "profiling routes below /debug/ on the API port").later();
    OLD_V1_API = text("oldV1Api", "", "URL of a v1 server to import from at start").later();
    MIGRATE_START_STEP = key("migrateStartStep", Kind::Choice(&["message", "user", "channel"]), "message", "where that import begins").later();
    TRUSTED_PROXIES = list("trustedProxies", "", "addresses or CIDR blocks whose PROXY header, X-Forwarded-For and X-Real-IP are believed; empty: loopback and private ones");

    DRIVER = key("driver", Kind::Choice(&["auto", "io_uring", "epoll"]), "auto", "how shards wait for sockets; auto: io_uring where the kernel allows it");
    SHARDS = int("shards", "0", 0, 1024, "threads that own connections and channels; 0: one per core, of 4 and more one is left to the storage lanes");
    DURABILITY = key("durability", Kind::Choice(&["fsync"]), "fsync", "what an acknowledgement waits for; fsync: on disk at a majority of replicas");

    EXTERNAL_IP = text("external.ip", "", "address that /route names where the ones below are empty; empty: the first private IPv4 of this machine");
    EXTERNAL_AUTO = flag("external.autoGetExternalIP", "false", "take external.ip from ./external_ip.txt when it is empty");
    EXTERNAL_TCP = text("external.tcpAddr", "", "tcp_addr of /route, without scheme; empty: {ip}:{port of addr}");
    EXTERNAL_WS = text("external.wsAddr", "", "ws_addr of /route; empty: ws://{ip}:{port of wsAddr}");
    EXTERNAL_WSS = text("external.wssAddr", "", "wss_addr of /route; empty: wss://{ip}:{port of wssAddr} when that is on");
    EXTERNAL_MANAGER = text("external.managerAddr", "", "manager address shown by /varz; empty: {ip}:{port of manager.addr}");
    EXTERNAL_API = text("external.apiUrl", "", "API URL given to the demo; empty: http://{ip}:{port of httpAddr}");
    INTRANET_TCP = text("intranet.tcpAddr", "", "tcp_addr of /route?intranet=1");

    LOGGER_LEVEL = int("logger.level", "0", 0, 4, "0: by mode, 1 debug, 2 info, 3 warn, 4 error");
    LOGGER_FORMAT = key("logger.format", Kind::Choice(&["auto", "json", "text"]), "auto", "lines on stdout; auto: text on a terminal, else JSON");
    LOGGER_DIR = text("logger.dir", "logs", "folder of log files, relative to rootDir");
    LOGGER_LINE = flag("logger.lineNum", "false", "add file and line of the code");
    LOGGER_TRACE = flag("logger.traceOn", "false", "one line for each step of a message").later();
    LOGGER_TRACE_MAX = dead("logger.traceMaxMsgCount");
    LOKI_URL = text("logger.loki.url", "", "only shown by /varz/setting");
    LOKI_USER = text("logger.loki.username", "", "not used");
    LOKI_PASSWORD = text("logger.loki.password", "", "not used").secret();

    MANAGER_ON = flag("manager.on", "true", "serve the manager's API and /metrics; its pages are not in this version");
    MANAGER_ADDR = text("manager.addr", "0.0.0.0:5300", "their listener");
    DEMO_ON = flag("demo.on", "true", "listen for the chat demo; its page is not in this version");
    DEMO_ADDR = text("demo.addr", "0.0.0.0:5172", "its listener");

    AUTH_ON = dead("auth.on");
    AUTH_KIND = dead("auth.kind");
    AUTH_SUPER_TOKEN = dead("auth.superToken").secret();
    AUTH_USERS = list("auth.users", "guest:guest:[*:r]", "manager users, USER:PASSWORD:* or USER:PASSWORD:[RESOURCE:ACTIONS,…]").secret();
    JWT_SECRET = text("jwt.secret", "", "key of manager log-ins, equal on all nodes; empty: a random one, made once and kept by the cluster").secret();
    JWT_EXPIRE = time("jwt.expire", "30d", s(60), s(3650 * DAY), "how long a manager log-in lasts");
    JWT_ISSUER = text("jwt.issuer", "wukongim", "issuer named in it");

    CHANNEL_COMPRESS = int("channel.subscriberCompressOfCount", "0", 0, ANY, "offline webhooks gzip their uid list above so many uids; 0: never");
    CHANNEL_ONLINE_CMD = text("channel.onlineCmdChannelId", "systemcmdonline", "channel of command messages that are not stored").later();
    CHANNEL_CACHE = dead("channel.cacheCount");
    CHANNEL_CREATE = dead("channel.createIfNoExist");
    TMP_SUFFIX = dead("tmpChannel.suffix");
    TMP_CACHE = dead("tmpChannel.cacheCount");
    CONVERSATION_ON = flag("conversation.on", "true", "keep recent conversations").later();
    CONVERSATION_INTERVAL = time("conversation.syncInterval", "1m", s(1), s(DAY), "v2.2.5 writes pending changes at this pace; here they are written at once").effect(Effect::Engine);
    CONVERSATION_ONCE = int("conversation.syncOnce", "100", 1, ANY, "v2.2.5 writes so many at a time").effect(Effect::Engine);
    CONVERSATION_MAX = int("conversation.userMaxCount", "1000", 1, 1_000_000, "recent conversations that a sync returns at most");
    CONVERSATION_EXPIRE = dead("conversation.cacheExpire");
    CONVERSATION_BYTES = dead("conversation.bytesPerSave");
    CONVERSATION_POOL = dead("conversation.savePoolSize");
    CONVERSATION_WORKERS = dead("conversation.workerNum");
    CONVERSATION_SCAN = dead("conversation.workerScanInterval");
    RETRY_INTERVAL = time("messageRetry.interval", "60s", s(1), s(DAY), "a RECV without RECVACK is sent again after so long");
    RETRY_SCAN = time("messageRetry.scanInterval", "30s", ms(100), s(DAY), "how often that is looked at");
    RETRY_MAX = int("messageRetry.maxCount", "5", 1, 255, "and how many times it is sent again");
    RETRY_WORKERS = int("messageRetry.workerCount", "128", 1, ANY, "threads of v2.2.5").effect(Effect::Engine);
    TAG_EXPIRE = time("tag.expire", "20m", s(1), s(30 * DAY), "an unused plan of a channel's receivers is dropped after so long").later();
    VISITORS_SUFFIX = text("customerService.visitorsSuffix", "___vstr", "uids that end so need no token");
    VISITORS_ON = dead("customerService.visitorsOn");

    WEBHOOK_HTTP = text("webhook.httpAddr", "", "URL that events are posted to");
    WEBHOOK_GRPC = text("webhook.grpcAddr", "", "ip:port of a gRPC receiver; wins over httpAddr");
    WEBHOOK_INTERVAL = time("webhook.msgNotifyEventPushInterval", "500ms", ms(1), s(3600), "msg.notify events are collected for so long");
    WEBHOOK_BATCH = int("webhook.msgNotifyEventCountPerPush", "100", 1, 100_000, "messages in one msg.notify event");
    WEBHOOK_RETRY = int("webhook.msgNotifyEventRetryMaxCount", "5", 1, ANY, "tries of one event that the receiver refuses, before its messages are tried one by one; what is not taken is tried on, up to outboxTimeMax");
    WEBHOOK_FOCUS = list("webhook.focusEvents", "", "events wanted: msg.offline, msg.notify, user.onlinestatus; empty: all");
    WEBHOOK_SECRET = text("webhook.secret", "", "signs events over HTTP: X-Jindou-Signature is the hexadecimal HMAC-SHA256 of X-Jindou-Timestamp (Unix seconds), a dot and the body; empty: unsigned").secret();
    WEBHOOK_OUTBOX = bytes("webhook.outboxMax", "1GiB", MIB, 1 << 40, "events that wait on disk for the receiver, in bytes, an equal share for each slot; beyond it the oldest are given up; equal on all nodes");
    WEBHOOK_OUTBOX_TIME = time("webhook.outboxTimeMax", "24h", s(1), s(30 * DAY), "and for how long they wait");
    DATASOURCE_ADDR = text("datasource.addr", "", "URL of a back end that is asked once for the system accounts; those of the API count, too");
    DATASOURCE_CHANNEL = dead("datasource.channelInfoOn");
    AGENT_HTTP = text("agent.webhook.httpAddr", "", "URL that messages of agent channels are posted to");
    AGENT_BATCH = int("agent.webhook.maxPushCount", "50", 1, 100_000, "messages in one such post");
    PLUGIN_TIMEOUT = time("plugin.timeout", "1s", ms(1), s(3600), "a plugin call ends after so long").later();
    PLUGIN_SOCKET = text("plugin.socketPath", "", "unix socket for plugins; empty: $HOME/.wukong/run/wukongim.sock").later();
    PLUGIN_INSTALL = list("plugin.install", "", "URLs of plugins to install; ${os} and ${arch} are replaced").later();

    NODE_ID = int("cluster.nodeId", "1001", 1, 1023, "this node's number, different on every node");
    CLUSTER_ADDR = text("cluster.addr", "tcp://0.0.0.0:11110", "listener for other nodes");
    SERVER_ADDR = text("cluster.serverAddr", "", "host:port at which other nodes reach this one; without it a single node cannot grow");
    API_URL = text("cluster.apiUrl", "", "base URL of this node's HTTP API for other nodes");
    INIT_NODES = list("cluster.initNodes", "", "members at the first start, ID@HOST or ID@HOST:PORT (11110 when left out), this node included; empty: a single node");
    SEED = text("cluster.seed", "", "a member to join through, ID@HOST:PORT");
    ROLE = key("cluster.role", Kind::Choice(&["replica", "proxy"]), "replica", "proxy: holds connections, no data; refused by this version");
    CLUSTER_SECRET = text("cluster.secret", "", "shared by all nodes, which prove to each other that they know it; empty: drawn at the first start and kept by the cluster, and whoever reaches cluster.addr can join").secret();
    SLOT_COUNT = int("cluster.slotCount", "64", 1, 4096, "hash buckets; fixed once a cluster has started");
    SLOT_REPLICAS = int("cluster.slotReplicaCount", "0", 0, 7, "copies of each slot; 0: follows the number of nodes (1, 2, 3, 3, then 5)");
    CHANNEL_REPLICAS = int("cluster.channelReplicaCount", "0", 0, 7, "copies of a channel; a channel lives in its slot, so the larger of the two counts");
    PONG_MAX_TICK = int("cluster.pongMaxTick", "0", 0, 3000, "a node that is silent for so many 200 ms is taken for dead; 0: 1.5 s");
    REQ_TIMEOUT = time("cluster.reqTimeout", "10s", ms(100), s(3600), "a request to another node ends after so long");
    CHANNEL_IDLE = int("cluster.channelDestoryAfterIdleTick", "3600", 1, ANY, "an idle channel leaves memory after so many 100 ms").later();
    CLUSTER_TICK = dead("cluster.tickInterval");
    CLUSTER_HEARTBEAT = dead("cluster.heartbeatIntervalTick");
    CLUSTER_ELECTION = dead("cluster.electionIntervalTick");
    CLUSTER_CHANNEL_SUB = dead("cluster.channelReactorSubCount");
    CLUSTER_SLOT_SUB = dead("cluster.slotReactorSubCount");
    CLUSTER_GRPC = elsewhere("cluster.grpcAddr");
    CLUSTER_ON = elsewhere("cluster.on");
    CLUSTER_HEARTBEAT_TICK = elsewhere("cluster.heartbeatTick");
    CLUSTER_ELECTION_TICK = elsewhere("cluster.electionTick");
    CLUSTER_TLS_CERT = text("cluster.tls.certFile", "", "PEM file of this node's certificate chain, which names the host of cluster.serverAddr and serves for servers and clients; with keyFile and caFile nodes speak TLS, on all nodes or none");
    CLUSTER_TLS_KEY = text("cluster.tls.keyFile", "", "PEM file of its private key");
    CLUSTER_TLS_CA = text("cluster.tls.caFile", "", "PEM file of the CA that every node's certificate must come from");

    PROMETHEUS_URL = text("trace.prometheusApiUrl", "", "base URL of the Prometheus that the manager's charts ask").later();
    TRACE_SERVICE = text("trace.serviceName", "wukongim", "kept, no effect");
    TRACE_HOST = text("trace.serviceHostName", "", "kept, no effect");
    TRACE_ENDPOINT = elsewhere("trace.endpoint");
    EXTERNAL_MONITOR = elsewhere("external.monitorAddr");

    OUTPUT_MAX = bytes("limits.connectionOutputMax", "4MiB", 64 * KIB, GIB, "unsent bytes of one connection; a slower reader is disconnected");
    OUTPUT_TOTAL_MAX = bytes("limits.outputTotalMax", "512MiB", MIB, 1 << 40, "unsent bytes of all connections; above it the slowest readers go first");
    BODY_MAX = bytes("limits.httpBodyMax", "32MiB", 64 * KIB, GIB, "one HTTP request body");
    CONNECTION_MAX = int("limits.connectionMax", "200000", 1, ANY, "client connections of this node");
    CONNECTION_IP_MAX = int("limits.connectionPerIpMax", "0", 0, ANY, "client connections of one address; 0: no limit, for a gateway hides addresses");
    CONNECTION_USER_MAX = int("limits.connectionPerUserMax", "1024", 1, ANY, "connections of one uid on this node");
    CONNECT_DEADLINE = time("limits.connectDeadline", "2s", ms(100), s(600), "a new connection must begin its CONNECT in this time");
    AUTH_DEADLINE = time("limits.authDeadline", "4s", ms(100), s(600), "and be authenticated in this time after it");
    SEND_RATE_MAX = int("limits.sendRateMax", "0", 0, ANY, "SENDs per second of one connection; 0: no limit");
    ACCUMULATOR_MAX = bytes("limits.accumulatorMax", "4MiB", 64 * KIB, 8 * MIB, "messages of one slot that wait for the log; above it SENDs are refused and may be retried");
    STATE_QUEUE_MAX = bytes("limits.stateQueueMax", "64MiB", MIB, 1 << 36, "rows that wait for the state store; above it the log takes no more");
    CACHE_MAX = bytes("limits.cacheMax", "128MiB", MIB, 1 << 40, "channels, members and conversations that one shard keeps in memory");
    DEDUPE_COUNT = int("limits.dedupeCountMax", "16384", 1, 16_777_216, "messages per slot whose client_msg_no is remembered, by the slot's leader");
    DEDUPE_TIME = time("limits.dedupeTimeMax", "15m", s(1), s(7 * DAY), "and for how long");
    UID_MAX = bytes("limits.uidMax", "4KiB", 64, 16 * KIB, "one uid; equal on all nodes");
    CHANNEL_ID_MAX = bytes("limits.channelIdMax", "8KiB", 64, 32 * KIB, "one channel id as a client writes it; equal on all nodes");
    MEMBERS_MAX = int("limits.membersPerRequestMax", "100000", 1, ANY, "uids in one HTTP request");
    DRAIN_MAX = time("limits.drainTimeMax", "8s", ms(100), s(3600), "SIGTERM: what is under way may take so long, then the process ends");

    BATCH_SIZE = bytes("batch.sizeMax", "64KiB", KIB, 16 * MIB, "a slot's waiting messages become a log entry at this size");
    STORE_CACHE = bytes("storage.cacheMax", "32MiB", MIB, 1 << 40, "blocks of the state store kept in memory");
    STORE_PERSIST = time("storage.persistInterval", "5s", ms(100), s(3600), "the state store is made durable so often; until then the log has what it lacks");

    GIN_MODE = key("ginMode", Kind::Choice(&["debug", "release", "test"]), "release", "log mode of v2.2.5's HTTP library").effect(Effect::Engine);
    EVENT_POOL = int("eventPoolSize", "1024", 1, ANY, "webhook workers of v2.2.5").effect(Effect::Engine);
    WHEEL_TICK = time("timingWheelTick", "10ms", ms(1), s(60), "timer of v2.2.5").effect(Effect::Engine);
    WHEEL_SIZE = int("timingWheelSize", "100", 1, ANY, "timer of v2.2.5").effect(Effect::Engine);
    DEADLOCK_CHECK = flag("deadlockCheck", "false", "lock debugging of v2.2.5").effect(Effect::Engine);
    DB_SHARDS = int("db.shardNum", "8", 1, ANY, "storage of v2.2.5").effect(Effect::Engine);
    DB_MEMTABLE = int("db.memTableSize", "16777216", 1, ANY, "storage of v2.2.5").effect(Effect::Engine);
    DB_SLOT_SHARDS = dead("db.slotShardNum");
    VIOLENT = dead("violent");
    UNIT_TEST = dead("unitTest");
    HANDLE_POOL = dead("handlePoolSize");
    DELIVERY_POOL = dead("deliveryMsgPoolSize");
    USER_QUEUE = dead("userMsgQueueMaxSize");
}

/// The key of that name, in any case.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    ALL.iter().copied().find(|key| key.name.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::value;

    #[test]
    fn names_and_variables_are_unique() {
        let names: BTreeSet<String> = ALL.iter().map(|k| k.name.to_lowercase()).collect();
        let variables: BTreeSet<String> = ALL.iter().map(|k| k.variable()).collect();
        assert_eq!((names.len(), variables.len()), (ALL.len(), ALL.len()));
    }

    #[test]
    fn humps_are_not_split_in_variables() {
        assert_eq!(PROMETHEUS_URL.variable(), "WK_TRACE_PROMETHEUSAPIURL");
        assert_eq!(NODE_ID.variable(), "WK_CLUSTER_NODEID");
        assert_eq!(LOKI_URL.variable(), "WK_LOGGER_LOKI_URL");
    }

    #[test]
    fn every_default_is_of_its_kind_and_within_bounds() {
        for key in ALL.iter().filter(|k| k.effect == Effect::Live || k.effect == Effect::Engine) {
            let fits = match key.kind {
                Kind::Text | Kind::List => true,
                Kind::Choice(words) => words.contains(&key.default),
                Kind::Bool => value::boolean(key.default).is_some(),
                Kind::Int(min, max) => {
                    value::integer(key.default).is_some_and(|n| (min..=max).contains(&n))
                }
                Kind::Bytes(min, max) => {
                    value::size(key.default).is_some_and(|n| (min..=max).contains(&n))
                }
                Kind::Time(min, max) => {
                    value::duration(key.default).is_some_and(|d| (min..=max).contains(&d))
                }
            };
            assert!(fits, "{}: {}", key.name, key.default);
        }
    }

    #[test]
    fn groups_stand_together() {
        let mut seen = BTreeSet::new();
        let mut last = "";
        for key in ALL.iter().filter(|k| k.effect == Effect::Live) {
            let group = key.name.rsplit_once('.').map_or("", |(group, _)| group);
            if group != last && !group.is_empty() {
                assert!(seen.insert(group), "{group} is split");
            }
            last = group;
        }
    }
}
