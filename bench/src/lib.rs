//! The load generator: `jindou bench send|fanout|idle|requests`.
//!
//! It speaks the public protocol only (binary frames or JSON-RPC, TCP or WebSocket, and HTTP to set
//! things up), so it drives any compatible server. It knows nothing of what is inside one, and owns no
//! figure but those it has measured from outside.
//!
//! ```text
//!  args ─► run ─► engine (epoll, sockets) ─► client (protocol, no socket)
//!            │        ▲ what came in                │
//!            │        └── chat ◄────────────────────┘   per message: sent, answered, delivered
//!            │              ├─ schedule  open loop: moments fixed beforehand
//!            │              ├─ ledger    what is still owed
//!            │              └─ latency   histograms
//!            └─► report (text, JSON, verdict)     process: CPU and memory of the server
//! ```
//!
//! Closed loop: a fixed number of messages in flight; what it measures is capacity. Open loop
//! (`--rate`): messages leave at moments fixed beforehand and latency counts from those, so that a
//! server that stalls does not make its own load lighter (coordinated omission); what it measures is
//! latency. Each run ends with a verdict: a message that was acknowledged and did not reach a receiver
//! who was online makes it fail.

mod args;
mod chat;
mod client;
mod counts;
mod engine;
pub mod http;
mod latency;
mod ledger;
mod process;
mod report;
mod requests;
mod run;
mod schedule;
mod setup;

use std::ffi::OsString;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;

use args::Workload;

/// Runs the generator with the arguments that follow `jindou bench`, and prints the result.
///
/// # Errors
/// An unreachable server, or a promise that it did not keep. Bad arguments and `--help` end the process.
pub fn run(args: impl Iterator<Item = OsString>) -> anyhow::Result<()> {
    let bench = args::parse(args);
    let (common, report) = match &bench.workload {
        Workload::Send(args) => (&args.common, run::send(args)?),
        Workload::Fanout(args) => (&args.common, run::fanout(args)?),
        Workload::Idle(args) => (&args.common, run::idle(args)?),
        Workload::Requests(args) => (&args.common, requests::requests(args)?),
    };
    print!("{report}");
    if let Some(path) = &common.json {
        let mut json = report.json.clone();
        if let Some(members) = json.as_object_mut() {
            members.insert("failures".to_owned(), report.failures.clone().into());
        }
        let text = serde_json::to_string_pretty(&json)?;
        std::fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))?;
    }
    match report.failures.first() {
        None => Ok(()),
        Some(failure) => anyhow::bail!("{failure}"),
    }
}

/// ms since 1970.
fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
