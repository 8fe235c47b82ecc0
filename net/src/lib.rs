//! Shard threads, rings, sockets and HTTP serving on monoio.
//!
//! This crate owns the thread of a shard and everything that blocks or waits on it: the runtime,
//! the sockets of clients and back ends, the rings between shards, the wake-up by other threads,
//! and the one loop ([`Driver`]) that turns the machine. It knows no rule: bytes go in as
//! [`jindou_core::effect::Event`]s and come out as [`jindou_core::effect::Effect`]s, and what is
//! not about connections or rings goes to an [`jindou_core::effect::Executor`].
//!
//! ```text
//!   start ─► shard-0 ─► ShardContext ─► Driver::run: gather ─► Machine::step ─► perform
//!            shard-1 ─► …                 │ Handle: push, request, listen, serve_http, add_source
//!            pinned, one runtime each     │ rings to every other shard; ShardWaker for lanes
//! ```
//!
//! - Nothing but rings, wake-ups, counters and the places of [`Admission`] is shared by threads.
//! - Every queue has a bound, and an answer when it is full: output (the connection is closed),
//!   inbox and rings (reading stops), connections (refused at accept).
//! - The crate works on io_uring and on epoll; [`probe`] says which.

mod admission;
mod client_tls;
mod conn;
mod conns;
mod counters;
mod driver;
mod handle;
mod http;
pub mod link;
mod listener;
mod mesh;
mod notify;
mod pin;
mod pool;
mod probe;
mod rt;
mod settings;
mod shard_thread;
mod stop;
mod sys;
mod wake;

pub use crate::{
    admission::Admission,
    client_tls::ClientTls,
    counters::{Counter, Counters},
    driver::{Driver, Machine},
    handle::{Handle, Hold},
    http::{HttpRequest, HttpResponse, HttpService, HttpSettings, LocalBoxFuture},
    link::{
        Answerer, Gatekeeper, HelloInfo, Identity, LinkError, LinkInbound, LinkSettings,
        LinkStatus, LinkTls, Links, PemFile, Purpose, Refusal, RefusalCode, Secret, TlsError,
    },
    listener::{bind, raise_open_files},
    mesh::MeshSettings,
    pin::{allowed_cpus, shard_count_default},
    probe::{DriverChoice, DriverKind, Probe, ProbeError, probe},
    settings::NetSettings,
    shard_thread::{ShardContext, ShardError, Shards, ShardsSettings, start},
    stop::Stop,
    wake::ShardWaker,
};
