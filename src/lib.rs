//! What the `jindou` binary is made of besides its wiring: the command line, the settings, the log,
//! the node, and the commands that ask a running one.
//!
//! It is a library so that tests can reach it; nothing else depends on it.

pub mod admin;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod import;
pub mod log;
pub mod memory;
pub mod node;
