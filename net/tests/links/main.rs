//! Links between the shards of nodes: order, failures, refusals, bounds.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

#[path = "../common/mod.rs"]
mod common;

mod cluster;
mod failures;
mod hellos;
mod tls;
mod traffic;
