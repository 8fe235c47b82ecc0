//! Load generator for any compatible server.

use std::ffi::OsString;

/// Runs the generator with the arguments that follow `jindou bench`.
///
/// # Errors
/// Bad arguments, an unreachable server, or a promise that was not kept.
pub fn run(_args: impl Iterator<Item = OsString>) -> anyhow::Result<()> {
    anyhow::bail!("no workload")
}
