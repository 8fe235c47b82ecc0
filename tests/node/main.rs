//! Black-box tests of the built node: every test starts processes of its own and speaks only the
//! public protocol to them. See `tests/README.md`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    unreachable_pub,
    reason = "a test stops at the first surprise"
)]

mod browser;
mod command_line;
mod conformance;
mod doors;
mod durability;
mod fsync;
mod grpc;
mod hostile;
mod import;
mod order;
mod programs;
mod receiver;
mod restart;
mod routes;
mod sdk;
mod shim;
mod streams;
#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the targets that share it use different parts")]
mod support;
mod webhooks;
mod workload;
mod wss;
