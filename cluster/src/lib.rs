//! Replication: a Raft group per slot, and one for the cluster's own state.
//!
//! This crate owns openraft; no other names it. It turns the shard's proposals into committed
//! entries and gives them back to the shard in order. It will never know a socket (a
//! [`Transport`] carries frames), a file (the lanes of `jindou-storage` keep log and state), a
//! rule of messaging (entries are bytes here), or which async runtime runs it.
//!
//! ```text
//!   shard ── Propose ──► Groups ──► openraft ──► log_store ──► log lane ─┐ fsync
//!     ▲                     ▲           │  │                             │
//!     │                     │           │  └──► network ──► peers        │
//!     │                  Applied        │ commit                         │
//!     │                     │           ▼                                │
//!     └── Committed ◄───────┴──── state_machine     on_completion ◄──────┘
//! ```
//!
//! Groups have no clocks. The links tell which nodes live (`liveness`); from that follow elections
//! (`election`), whom a replica may help (`inbound`), and how long a leader may answer from memory
//! (`lease`). An idle group says nothing.
//!
//! A group lives on its shard: nothing here is `Send`, and one thread runs all of it.

mod change;
mod election;
mod frame;
mod group;
mod groups;
mod inbound;
mod lanes;
mod lease;
mod liveness;
mod log_page;
mod log_store;
mod network;
mod opening;
pub mod placement;
mod proposal;
mod record;
mod router;
mod shared;
mod standing;
mod state_machine;
#[cfg(test)]
mod suite;
mod types;
mod watch;
mod wire;

pub use change::{GroupStatus, MembershipError};
pub use groups::{Groups, GroupsError, Options, Setup};
pub use log_page::{LogContent, LogItem};
pub use network::{NoPeers, Transport, TransportError};
pub use openraft::AsyncRuntime;
pub use openraft_rt_monoio::MonoioRuntime as Runtime;
pub use router::{Route, Router};
pub use shared::Sink;
pub use types::{CLUSTER_SLOT, GroupId, Node};
