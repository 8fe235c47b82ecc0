//! The part of the configuration that the rules depend on. Immutable for a process.

use crate::{
    entry::DedupeWindow,
    id::{Name, NodeId},
    networks::Networks,
};

/// What the shard's rules need to know. Times in milliseconds, sizes in bytes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This node, 1..=1023.
    pub node: NodeId,
    /// Shards of this node.
    pub shard_count: u16,
    /// Slots of the cluster.
    pub slot_count: u16,
    /// CONNECT must carry the registered token (protocol.md §2.2).
    pub token_auth: bool,
    /// The super user's uid.
    pub manager_uid: Name,
    /// Its token; empty: nobody may log in as the super user.
    pub manager_token: Name,
    /// Uids with this ending need no token.
    pub visitor_suffix: Name,
    /// Payloads go in the clear.
    pub encryption_off: bool,
    /// JSON-RPC is refused.
    pub json_off: bool,
    /// No allow-list check for person channels.
    pub person_allow_off: bool,
    /// Peers whose word about a client's address is believed (PROXY header, X-Forwarded-For,
    /// X-Real-IP).
    pub trusted_proxies: Networks,
    /// Silence after which an authenticated connection is closed.
    pub idle_ms: u64,
    /// Silence allowed before CONNECT.
    pub connect_ms: u64,
    /// Time allowed from CONNECT to CONNACK.
    pub auth_ms: u64,
    /// RECV is repeated after this time.
    pub retry_ms: u64,
    /// How often the unacknowledged are looked through.
    pub retry_scan_ms: u64,
    /// How often a RECV is repeated at most.
    pub retry_count_max: u8,
    /// RECVs of one connection that may wait for their RECVACK; older ones are not repeated.
    pub unacked_count_max: usize,
    /// The same in bytes of content.
    pub unacked_size_max: usize,
    /// A send or change that has no answer after this time is answered with an error.
    pub request_ms: u64,
    /// Remembered sends of each slot that this node leads (G4).
    pub dedupe_window: DedupeWindow,
    /// Bytes that may wait in a slot's accumulator.
    pub accumulator_size_max: usize,
    /// An entry is proposed when this many bytes have gathered.
    pub entry_size_target: usize,
    /// Bytes of channels and users that a shard keeps in memory, about.
    pub cache_size_max: usize,
    /// Bytes that may wait for the state lane before the shard stops proposing.
    pub state_queue_size_max: usize,
    /// Sends per second of one connection; 0: no bound.
    pub sends_per_second_max: u32,
    /// Sessions of one uid on this node; a CONNECT beyond it is refused.
    pub sessions_per_user_max: usize,
    /// The longest uid or device id, in bytes.
    pub uid_size_max: usize,
    /// The longest channel id as a client writes it, in bytes.
    pub channel_id_size_max: usize,
    /// Which messages the receiver of webhooks is told of: bits of [`crate::notice::tell`].
    pub tells: u8,
    /// It is told of sessions, too.
    pub tells_status: bool,
    /// Bytes of notices that a slot keeps for it; beyond them the oldest go.
    pub notices_size_max: u64,
    /// How long they are kept.
    pub notice_ms_max: i64,
    /// A datasource knows system accounts (http-api.md §20).
    pub has_datasource: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            node: NodeId(1001),
            shard_count: 1,
            slot_count: 64,
            token_auth: false,
            manager_uid: "____manager".into(),
            manager_token: "".into(),
            visitor_suffix: "___vstr".into(),
            encryption_off: false,
            json_off: false,
            person_allow_off: true,
            trusted_proxies: Networks::default(),
            idle_ms: 180_000,
            connect_ms: 2_000,
            auth_ms: 4_000,
            retry_ms: 60_000,
            retry_scan_ms: 30_000,
            retry_count_max: 5,
            unacked_count_max: 4_096,
            unacked_size_max: 4 << 20,
            request_ms: 5_000,
            dedupe_window: DedupeWindow { count_max: 16_384, ms: 15 * 60_000 },
            accumulator_size_max: 8 << 20,
            entry_size_target: 64 << 10,
            cache_size_max: 256 << 20,
            state_queue_size_max: 64 << 20,
            sends_per_second_max: 0,
            sessions_per_user_max: 1_024,
            uid_size_max: 4_096,
            channel_id_size_max: 8_192,
            tells: 0,
            tells_status: false,
            notices_size_max: 16 << 20,
            notice_ms_max: 24 * 3_600_000,
            has_datasource: false,
        }
    }
}
