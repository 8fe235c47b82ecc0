//! The bounds of everything that can fill up, and how the node spreads over the machine (design.md §5).
//!
//! Units and bounds stand beside each key in the example configuration; defaults suit 2 cores and 4 GB.

use std::time::Duration;

use super::keys;
use super::machine::Machine;
use super::reader::Reader;

/// What may grow how far. Every field is the bound of one queue, cache, buffer or input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Unsent bytes of one connection; above it the connection is closed. Default 4 MiB.
    pub connection_output_max: usize,
    /// Unsent bytes of all connections of the node; above it the slowest readers are closed. Default 512 MiB.
    pub output_total_max: usize,
    /// Bytes of one HTTP request body. Default 32 MiB.
    pub http_body_max: usize,
    /// Client connections of the node. Default 200,000.
    pub connection_max: usize,
    /// Client connections of one address; `None`, the default: no bound, because a gateway hides addresses.
    pub connection_per_ip_max: Option<usize>,
    /// Connections of one uid on this node. Default 1024.
    pub connection_per_user_max: usize,
    /// From accept to the first bytes of CONNECT. Default 2 s.
    pub connect_deadline: Duration,
    /// From CONNECT to CONNACK. Default 4 s.
    pub auth_deadline: Duration,
    /// SENDs per second of one connection; `None`, the default: no bound.
    pub send_rate_max: Option<u32>,
    /// Bytes of one slot's messages that wait for the log; above it SENDACK says "try again". Default 4 MiB.
    pub accumulator_max: usize,
    /// Bytes of rows that wait for the state store; above it nothing is proposed. Default 64 MiB.
    pub state_queue_max: usize,
    /// Bytes of channels, members and conversations that one shard keeps in memory. Default 128 MiB.
    pub cache_max: usize,
    /// Bytes of one uid. Default 4 KiB: a thousand characters of any script fit.
    pub uid_max: usize,
    /// Bytes of one channel id as a client writes it. Default 8 KiB.
    pub channel_id_max: usize,
    /// Uids in one HTTP request. Default 100,000.
    pub members_per_request_max: usize,
    /// How long a drain after SIGTERM may take. Default 8 s, within docker's 10 s.
    pub drain_time_max: Duration,
}

impl Limits {
    pub(super) fn read(reader: &mut Reader<'_>) -> Limits {
        Limits {
            connection_output_max: reader.count(&keys::OUTPUT_MAX),
            output_total_max: reader.count(&keys::OUTPUT_TOTAL_MAX),
            http_body_max: reader.count(&keys::BODY_MAX),
            connection_max: reader.count(&keys::CONNECTION_MAX),
            connection_per_ip_max: Some(reader.count(&keys::CONNECTION_IP_MAX)).filter(|n| *n > 0),
            connection_per_user_max: reader.count(&keys::CONNECTION_USER_MAX),
            connect_deadline: reader.time(&keys::CONNECT_DEADLINE),
            auth_deadline: reader.time(&keys::AUTH_DEADLINE),
            send_rate_max: Some(reader.small(&keys::SEND_RATE_MAX)).filter(|n| *n > 0),
            accumulator_max: reader.count(&keys::ACCUMULATOR_MAX),
            state_queue_max: reader.count(&keys::STATE_QUEUE_MAX),
            cache_max: reader.count(&keys::CACHE_MAX),
            uid_max: reader.count(&keys::UID_MAX),
            channel_id_max: reader.count(&keys::CHANNEL_ID_MAX),
            members_per_request_max: reader.count(&keys::MEMBERS_MAX),
            drain_time_max: reader.time(&keys::DRAIN_MAX),
        }
    }
}

/// The window in which a repeated (sender, client_msg_no) gets the first message's answer (G4). Apply
/// is a function of it, so it must be equal on all nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dedupe {
    /// Messages remembered per slot. Default 16,384.
    pub count_max: usize,
    /// Age up to which they are remembered. Default 15 min.
    pub time_max: Duration,
}

impl Dedupe {
    pub(super) fn read(reader: &mut Reader<'_>) -> Dedupe {
        Dedupe {
            count_max: reader.count(&keys::DEDUPE_COUNT),
            time_max: reader.time(&keys::DEDUPE_TIME),
        }
    }
}

/// How the shards run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// How shards wait for sockets.
    pub driver: Driver,
    /// Number of shards, at least 1; "one per core" is already resolved.
    pub shards: usize,
    /// What an acknowledgement waits for.
    pub durability: Durability,
}

/// How shards wait for sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// io_uring where a probe succeeds, else epoll.
    Auto,
    /// io_uring, or the start fails.
    IoUring,
    /// epoll.
    Epoll,
}

/// What an acknowledgement waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The message is fsynced at a majority of its slot's replicas (G1).
    Fsync,
}

impl Runtime {
    pub(super) fn read(reader: &mut Reader<'_>, machine: &Machine) -> Runtime {
        let driver = match reader.choice(&keys::DRIVER).as_str() {
            "io_uring" => Driver::IoUring,
            "epoll" => Driver::Epoll,
            _ => Driver::Auto,
        };
        let shards = match reader.count(&keys::SHARDS) {
            0 => {
                let shards = if machine.cores >= 4 { machine.cores - 1 } else { machine.cores };
                let shards = shards.clamp(1, 1024);
                reader.derive(&keys::SHARDS, shards.to_string());
                shards
            }
            shards => shards,
        };
        reader.choice(&keys::DURABILITY);
        Runtime { driver, shards, durability: Durability::Fsync }
    }
}

/// When messages that wait together leave together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batching {
    /// A slot's waiting messages become a log entry at this many bytes. Default 64 KiB.
    pub size_max: usize,
}

/// How the databases run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Bytes of the state store's blocks kept in memory. Default 32 MiB.
    pub cache_max: u64,
    /// How often the state store is made durable. Default 5 s.
    pub persist_interval: Duration,
}

impl Batching {
    pub(super) fn read(reader: &mut Reader<'_>) -> Batching {
        Batching { size_max: reader.count(&keys::BATCH_SIZE) }
    }
}

impl Storage {
    pub(super) fn read(reader: &mut Reader<'_>) -> Storage {
        Storage {
            cache_max: reader.number(&keys::STORE_CACHE),
            persist_interval: reader.time(&keys::STORE_PERSIST),
        }
    }
}
