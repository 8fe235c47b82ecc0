//! What a shard counts about its I/O.
//!
//! Each counter is written by one thread, so adding is a load, an add and a store without a lock
//! prefix: as cheap as a `Cell`, and readable from the shard that renders the metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number with one writer and any number of readers.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Adds. Only the thread of the shard may call this: additions of two threads may get lost.
    pub(crate) fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// Takes away, for gauges. As for [`Counter::add`].
    pub(crate) fn sub(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(count), Relaxed);
    }

    /// Sets, for gauges.
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Adds from any thread.
    pub(crate) fn add_shared(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }
}

/// Counters of one shard, since the start; those called gauges stand for now.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections refused at accept, because a bound was reached.
    pub refused: Counter,
    /// Accepts that failed (out of descriptors or memory).
    pub accept_errors: Counter,
    /// Gauge: client connections open.
    pub open: Counter,
    /// Connections closed because their output passed its bound.
    pub closed_slow: Counter,
    /// Connections whose output did not leave, or whose peer did not close, in the time allowed
    /// after a close.
    pub closed_late: Counter,
    /// TLS handshakes that took too long, or were too many.
    pub handshakes_cut: Counter,
    /// Bytes read from clients.
    pub bytes_in: Counter,
    /// Bytes sent to clients.
    pub bytes_out: Counter,
    /// Reads from clients that brought bytes.
    pub reads: Counter,
    /// Sends to clients: `Write` effects divided by this is what coalescing saves.
    pub sends: Counter,
    /// `Write` effects.
    pub writes: Counter,
    /// Gauge: bytes that wait for clients.
    pub output_size: Counter,
    /// Turns of the driver.
    pub turns: Counter,
    /// Steps of the machine.
    pub steps: Counter,
    /// Times that the shard was parked and another thread woke it.
    pub wakeups: Counter,
    /// Envelopes sent to other shards.
    pub envelopes_out: Counter,
    /// Envelopes taken from other shards.
    pub envelopes_in: Counter,
    /// Turns in which a ring was full, so that envelopes stayed with their sender.
    pub ring_full: Counter,
    /// HTTP connections accepted.
    pub http_accepted: Counter,
    /// Gauge: HTTP connections open.
    pub http_open: Counter,
    /// HTTP requests answered.
    pub http_requests: Counter,
    /// Gauge: links to shards of other nodes that are open, dialled by this shard.
    pub links_open: Counter,
    /// Gauge: links of other nodes' shards to this one.
    pub links_accepted: Counter,
    /// Bundles of links that were up and failed.
    pub link_resets: Counter,
    /// Links that this shard refused.
    pub link_refusals: Counter,
    /// Bytes read from links.
    pub link_bytes_in: Counter,
    /// Bytes sent on links.
    pub link_bytes_out: Counter,
    /// Frames read from links, of any kind.
    pub link_frames_in: Counter,
    /// Frames queued for links, of any kind.
    pub link_frames_out: Counter,
    /// Of the frames read, Raft's: asks and answers.
    pub link_raft_frames_in: Counter,
    /// Of the frames queued, Raft's.
    pub link_raft_frames_out: Counter,
    /// Bytes of the bodies of Raft's frames that were read.
    pub link_raft_bytes_in: Counter,
    /// Bytes of the bodies of Raft's frames that were queued.
    pub link_raft_bytes_out: Counter,
}
