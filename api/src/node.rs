//! The seam to the node: what the API needs of the shard that accepted the HTTP connection.

use futures::future::LocalBoxFuture;
use jindou_core::{
    effect::Now,
    id::SlotId,
    request::{Reply, Request, Target},
};

use crate::{
    cluster::{ClusterChange, ClusterView, LogPage, LogQuery, ReplicaView},
    figures::ClusterFigures,
    secret::Secret,
};

/// A handle of the shard that serves an HTTP connection. Not `Send`: it lives and is used on that
/// shard's thread. Implemented by the wiring in `src/`, in tests by a scripted one.
pub trait Node {
    /// Asks the shard, which passes the question on where it belongs. Always resolves: with
    /// [`Reply::Failed`] when there was no answer in time.
    fn ask(&self, to: Target, request: Request) -> LocalBoxFuture<'_, Reply>;
    /// The slot of an id (a uid or a stored channel id).
    fn slot_of(&self, id: &str) -> SlotId;
    /// How many slots the cluster has.
    fn slot_count(&self) -> u16;
    /// How many shards this node has.
    fn shards(&self) -> u16;
    /// The time.
    fn now(&self) -> Now;
    /// Fresh random bits, for client numbers that the back end left out.
    fn random(&self) -> u128;
    /// Whether this node serves (operations.md §2.1).
    fn health(&self) -> Health;
    /// Figures of the process, for /varz and /metrics.
    fn process(&self) -> Process;
    /// What each shard counts about its sockets and rings, by shard, for /metrics.
    fn io(&self) -> Vec<Io>;
    /// This node's links and groups, for /metrics and /readyz; asks no other node. An error is a
    /// text for the operator: a shard does not answer.
    fn figures(&self) -> LocalBoxFuture<'_, Result<ClusterFigures, String>>;
    /// The cluster as this node can find out now: nodes that don't answer in time are marked
    /// offline, what they lead is as the others know it. An error is a text for the operator:
    /// this node knows nothing that it could show.
    fn cluster(&self) -> LocalBoxFuture<'_, Result<ClusterView, String>>;
    /// What the replicas of one slot say, those that answered in time, in any order.
    fn replicas(&self, slot: SlotId) -> LocalBoxFuture<'_, Result<Vec<ReplicaView>, String>>;
    /// Changes the cluster. `Ok` when the change is committed; repeating one that is under way is
    /// no error. An error is a text for the operator: why it is refused, or that it is not known
    /// whether it took effect.
    fn change_cluster(&self, change: ClusterChange) -> LocalBoxFuture<'_, Result<(), String>>;
    /// A page of a replica's log, of any node.
    fn logs(&self, query: LogQuery) -> LocalBoxFuture<'_, Result<LogPage, String>>;
    /// The key that signs log-ins of managers: drawn once by the cluster and the same at all its
    /// nodes. An error is a text for the operator: no majority has answered yet.
    fn login_key(&self) -> LocalBoxFuture<'_, Result<Secret, String>>;
}

/// Why /health is red. The first four texts are v2's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// This node knows of no slot yet.
    #[error("no slots")]
    NoSlots,
    /// The cluster's slot count is not this node's.
    #[error("slot count not match")]
    SlotCount,
    /// A slot has no leader that this node knows.
    #[error("slot leader not found")]
    NoLeader,
    /// A slot that this node leads, or must route to, does not take requests yet.
    #[error("slot not ready")]
    NotReady,
    /// The node is told to stop.
    #[error("draining")]
    Draining,
    /// The disk reported an error; this node cannot store.
    #[error("storage error")]
    Storage,
}

/// One line of /readyz.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at, such as `slots` or `storage`.
    pub name: &'static str,
    /// Whether it is as it should be.
    pub ok: bool,
    /// Figures for the operator, such as `64 of 64 slots have a leader`.
    pub detail: String,
}

/// The state of this node as /health, /healthz and /readyz tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// What this node itself cannot do; `None`: it serves or routes every slot.
    pub fault: Option<Fault>,
    /// What a node that starts waits for; told by /health beside the fault.
    pub waiting: Option<String>,
    /// Details for /readyz. One that is not `ok` makes /readyz red without touching /health.
    pub checks: Vec<Check>,
}

/// Figures of the process. Sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// Unix ms when the process started.
    pub started_ms: i64,
    /// Resident memory.
    pub resident_size: u64,
    /// Virtual memory.
    pub virtual_size: u64,
    /// Memory handed out by the allocator; the resident size when it isn't known.
    pub allocated_size: u64,
    /// User and system time since the start, in seconds.
    pub cpu_seconds: f64,
    /// Per cent of one CPU, lately.
    pub cpu_percent: f64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// How many may be open.
    pub fds_max: u64,
    /// Threads.
    pub threads: u64,
    /// Bytes of the data directory.
    pub disk_size: u64,
    /// Whether sockets are served by io_uring (else epoll).
    pub io_uring: bool,
    /// Log lines that were dropped, because a disk or a pipe was too slow or failed.
    pub log_dropped: u64,
    /// The sender of webhooks.
    pub webhooks: WebhookFigures,
    /// Questions that the datasource has not answered; each is repeated.
    pub datasource_failures: u64,
}

/// What the sender of webhooks has counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WebhookFigures {
    /// Events that the receiver has taken: a message, a recipient list or a change of status each.
    pub taken: u64,
    /// Calls that the receiver has not taken; each is repeated.
    pub failures: u64,
    /// Events given up after having been tried for too long.
    pub given_up: u64,
}

/// What a shard has counted about its sockets and rings since the start. Gauges stand for now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Io {
    /// Client connections accepted.
    pub accepted: u64,
    /// Connections refused at accept, because a bound was reached.
    pub refused: u64,
    /// Accepts that failed: no descriptors, no memory.
    pub accept_errors: u64,
    /// Connections closed because their unsent output passed its bound.
    pub closed_slow: u64,
    /// Connections cut because they did not close in time.
    pub closed_late: u64,
    /// TLS handshakes of clients that took too long, or were too many.
    pub handshakes_cut: u64,
    /// Reads from clients.
    pub reads: u64,
    /// Send system calls (or ring entries) to clients.
    pub sends: u64,
    /// Writes that the rules asked for; many leave in one send.
    pub writes: u64,
    /// Gauge: bytes that wait for clients.
    pub output_size: u64,
    /// Turns of the loop.
    pub turns: u64,
    /// Times that another thread woke the parked shard.
    pub wakeups: u64,
    /// Envelopes sent to other shards.
    pub envelopes: u64,
    /// Turns in which a ring to another shard was full.
    pub ring_full: u64,
    /// HTTP connections accepted.
    pub http_accepted: u64,
    /// Gauge: HTTP connections open.
    pub http_open: u64,
    /// HTTP requests answered.
    pub http_requests: u64,
    /// Bytes from other nodes.
    pub link_bytes_in: u64,
    /// Bytes to other nodes.
    pub link_bytes_out: u64,
    /// Frames from other nodes, of any kind.
    pub link_frames_in: u64,
    /// Frames to other nodes, of any kind.
    pub link_frames_out: u64,
    /// Of the frames from other nodes, Raft's.
    pub raft_frames_in: u64,
    /// Of the frames to other nodes, Raft's.
    pub raft_frames_out: u64,
    /// Bytes of the bodies of Raft's frames from other nodes.
    pub raft_bytes_in: u64,
    /// Bytes of the bodies of Raft's frames to other nodes.
    pub raft_bytes_out: u64,
    /// Links of other nodes that were refused.
    pub link_refusals: u64,
}
