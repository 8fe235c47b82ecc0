//! Bounds and times of a shard's I/O. Immutable for a process.

use crate::mesh::MeshSettings;

/// Sizes in bytes, times in milliseconds. The defaults are safe for 2 cores and 4 GB.
#[derive(Clone, Copy, Debug)]
pub struct NetSettings {
    /// Output that may wait for one connection; with more it is closed (a slow reader costs only
    /// itself).
    pub output_size_max: usize,
    /// Output that may wait for all connections of a shard. Above it, connections that hold more
    /// than [`NetSettings::output_fair_size`] are closed as they are written to.
    pub output_total_size_max: usize,
    /// What a connection may hold even when the shard's total is used up.
    pub output_fair_size: usize,
    /// Bytes that one turn takes from all connections; those that come later wait for the next.
    pub inbox_size_max: usize,
    /// How long a closing connection may take to send what was written to it, and its peer to
    /// close.
    pub close_ms: u64,
    /// How long the TLS handshake of a client may take.
    pub handshake_ms: u64,
    /// TLS handshakes of a shard under way; with more the oldest is cut off. One holds up to about
    /// 100 KiB if its client wants.
    pub handshake_count_max: usize,
    /// How long a drain may take before everything that is open is cut off.
    pub drain_ms: u64,
    /// How long nothing may happen before a drain counts as finished.
    pub quiet_ms: u64,
    /// The rings between shards.
    pub mesh: MeshSettings,
}

impl Default for NetSettings {
    fn default() -> Self {
        Self {
            output_size_max: 4 << 20,
            output_total_size_max: 256 << 20,
            output_fair_size: 64 << 10,
            inbox_size_max: 4 << 20,
            close_ms: 3_000,
            handshake_ms: 10_000,
            handshake_count_max: 1024,
            drain_ms: 7_000,
            quiet_ms: 100,
            mesh: MeshSettings::default(),
        }
    }
}
