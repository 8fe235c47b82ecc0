//! Clusters of real nodes under faults; what clients saw is held against G1 to G14. See
//! `tests/README.md`.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    unreachable_pub,
    reason = "a test stops at the first surprise"
)]

mod campaign;
mod cluster;
mod figures;
mod net;
mod play;
mod replay;
mod scenarios;
mod short;
#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the targets that share it use different parts")]
mod support;
mod workload;
