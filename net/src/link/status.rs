//! How the links are, for `/health` and the metrics.

use jindou_core::id::NodeId;

use super::{Inner, Refusal};

/// The links of one shard to one node.
#[derive(Clone, Debug)]
pub struct LinkStatus {
    /// The node.
    pub node: NodeId,
    /// Where it is dialled.
    pub address: String,
    /// Whether everything sent arrives.
    pub is_up: bool,
    /// Drawn by the node at its start; of the last time that it was up.
    pub incarnation: Option<u64>,
    /// Its shards, while it is up.
    pub shard_count: Option<u16>,
    /// Since when it is down.
    pub down_ms: Option<u64>,
    /// How long its most silent shard has been so, while it is up.
    pub silent_ms: Option<u64>,
    /// The newest round trip of a ping, in microseconds.
    pub rtt_us: Option<u64>,
    /// Since it is a peer, on links of either side: those dialled here, and those that it dialled.
    pub bytes_in: u64,
    /// See [`LinkStatus::bytes_in`].
    pub bytes_out: u64,
    /// See [`LinkStatus::bytes_in`].
    pub frames_in: u64,
    /// See [`LinkStatus::bytes_in`].
    pub frames_out: u64,
    /// Bytes that wait to leave.
    pub queue_size: usize,
    /// Asks that wait for answers.
    pub ask_count: usize,
    /// Times that the links failed.
    pub resets: u64,
    /// Why the links are down, or were last, in words.
    pub trouble: Option<String>,
    /// Whether and why the node refuses this one.
    pub refusal: Option<Refusal>,
}

pub(crate) fn status(inner: &Inner) -> Vec<LinkStatus> {
    let now_ms = inner.now_ms();
    let peers = inner.peers.borrow();
    let status = peers.iter().map(|(&node, peer)| {
        let bundle = peer.bundle.as_ref();
        let links = bundle.map(|bundle| bundle.links.as_slice()).unwrap_or_default();
        let traffic = &peer.traffic;
        LinkStatus {
            node,
            address: peer.address.clone(),
            is_up: bundle.is_some(),
            incarnation: peer.incarnation,
            shard_count: bundle.map(|bundle| bundle.shard_count),
            down_ms: bundle.is_none().then(|| now_ms.saturating_sub(peer.down_ms)),
            silent_ms: bundle.map(|bundle| now_ms.saturating_sub(bundle.heard_ms())),
            rtt_us: bundle.and_then(|bundle| bundle.rtt_us.get()),
            bytes_in: traffic.bytes_in.get(),
            bytes_out: traffic.bytes_out.get(),
            frames_in: traffic.frames_in.get(),
            frames_out: traffic.frames_out.get(),
            queue_size: links.iter().map(|link| link.wire.size()).sum(),
            ask_count: links.iter().map(|link| link.calls.count()).sum(),
            resets: peer.resets,
            trouble: peer.trouble.clone(),
            refusal: peer.refusal.clone(),
        }
    });
    status.collect()
}
