//! Rings between the shards of a node: one SPSC ring per ordered pair, carrying envelopes.
//!
//! Envelopes are collected per target during a step and published once at its end, followed by one
//! wake-up per target. A full ring is no error: the sender keeps its envelopes, in order, and
//! tries again each turn. While more than [`MeshSettings::backlog_count_max`] are kept, the sender
//! takes no bytes from its clients and no new connections, so that what it keeps is bounded by the
//! work it has already begun. Rings are always drained, backlog or not: two shards that are full
//! towards each other both go on.

use std::collections::VecDeque;

use jindou_core::{envelope::Envelope, id::ShardId};
use rtrb::{Consumer, Producer, RingBuffer};

use crate::wake::ShardWaker;

/// Bounds of the mesh.
#[derive(Clone, Copy, Debug)]
pub struct MeshSettings {
    /// Cells per ring. N shards have N × (N - 1) rings.
    pub cell_count: usize,
    /// Envelopes that a shard keeps for full rings before it stops reading from its clients.
    pub backlog_count_max: usize,
    /// Envelopes taken from one ring per turn.
    pub take_count_max: usize,
}

impl Default for MeshSettings {
    fn default() -> Self {
        Self { cell_count: 4096, backlog_count_max: 16_384, take_count_max: 1024 }
    }
}

/// The sending end of one ring.
struct Outgoing {
    ring: Producer<Envelope>,
    kept: VecDeque<Envelope>,
    waker: ShardWaker,
}

/// One shard's ends of all rings. Lives on the shard's thread.
pub(crate) struct Mesh {
    shard: ShardId,
    /// By target; `None` for the shard itself.
    outgoing: Vec<Option<Outgoing>>,
    /// By source, without the shard itself.
    incoming: Vec<Consumer<Envelope>>,
    /// Targets with something in `kept`.
    dirty: Vec<u16>,
    settings: MeshSettings,
    kept_count: usize,
}

/// What [`Mesh::publish`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Published {
    /// Envelopes that are on their way.
    pub(crate) sent: u64,
    /// Rings that had no room for all.
    pub(crate) full: u64,
}

/// Makes the rings between `wakers.len()` shards. The first item goes to shard 0, and so on.
pub(crate) fn mesh(wakers: &[ShardWaker], settings: MeshSettings) -> Vec<Mesh> {
    let ids = || (0..wakers.len()).map(|place| u16::try_from(place).unwrap_or(u16::MAX));
    let mut meshes: Vec<Mesh> = ids()
        .map(|id| Mesh {
            shard: ShardId(id),
            outgoing: Vec::new(),
            incoming: Vec::new(),
            dirty: Vec::new(),
            settings,
            kept_count: 0,
        })
        .collect();
    for (target, waker) in ids().zip(wakers) {
        let mut consumers = Vec::new();
        for source in &mut meshes {
            if source.shard.0 == target {
                source.outgoing.push(None);
                continue;
            }
            let (producer, consumer) = RingBuffer::new(settings.cell_count.max(1));
            source.outgoing.push(Some(Outgoing {
                ring: producer,
                kept: VecDeque::new(),
                waker: waker.clone(),
            }));
            consumers.push(consumer);
        }
        if let Some(mesh) = meshes.get_mut(usize::from(target)) {
            mesh.incoming = consumers;
        }
    }
    meshes
}

impl Mesh {
    /// Keeps an envelope for the next [`Mesh::publish`]. Gives it back when the target is this
    /// shard or no shard of this node.
    pub(crate) fn send(&mut self, to: ShardId, envelope: Envelope) -> Result<(), Envelope> {
        let Some(Some(outgoing)) = self.outgoing.get_mut(usize::from(to.0)) else {
            return Err(envelope);
        };
        if outgoing.kept.is_empty() {
            self.dirty.push(to.0);
        }
        outgoing.kept.push_back(envelope);
        self.kept_count += 1;
        Ok(())
    }

    /// Moves what was kept into the rings, as far as there is room, and wakes the targets.
    pub(crate) fn publish(&mut self) -> Published {
        let mut published = Published::default();
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.retain(|&to| {
            let Some(Some(outgoing)) = self.outgoing.get_mut(usize::from(to)) else {
                return false;
            };
            if outgoing.ring.is_abandoned() {
                // The target has stopped: the node is going down.
                self.kept_count -= outgoing.kept.len();
                outgoing.kept.clear();
                return false;
            }
            let count = outgoing.kept.len().min(outgoing.ring.slots());
            if count > 0
                && let Ok(chunk) = outgoing.ring.write_chunk_uninit(count)
            {
                let sent = chunk.fill_from_iter(outgoing.kept.drain(..count));
                self.kept_count -= sent;
                published.sent += sent as u64;
                outgoing.waker.wake();
            }
            if outgoing.kept.is_empty() {
                if outgoing.kept.capacity() > 1024 {
                    outgoing.kept.shrink_to(1024);
                }
                return false;
            }
            published.full += 1;
            true
        });
        self.dirty = dirty;
        published
    }

    /// Hands what came to `take`, a bounded amount per ring. Returns how many there were.
    pub(crate) fn take(&mut self, mut take: impl FnMut(Envelope)) -> u64 {
        let mut taken = 0;
        for ring in &mut self.incoming {
            let count = ring.slots().min(self.settings.take_count_max);
            if count == 0 {
                continue;
            }
            if let Ok(chunk) = ring.read_chunk(count) {
                for envelope in chunk {
                    take(envelope);
                    taken += 1;
                }
            }
        }
        taken
    }

    /// Envelopes that wait for room.
    pub(crate) fn kept_count(&self) -> usize {
        self.kept_count
    }

    /// Whether so many wait that the shard must not take on new work.
    pub(crate) fn is_over_bound(&self) -> bool {
        self.kept_count > self.settings.backlog_count_max
    }
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mesh")
            .field("shard", &self.shard)
            .field("kept_count", &self.kept_count)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use std::sync::Arc;

    use jindou_core::id::{ConnId, NodeId, SessionAddr};

    use super::*;
    use crate::counters::Counters;

    fn envelope(number: u64) -> Envelope {
        Envelope::Left {
            session: SessionAddr { node: NodeId(1), conn: ConnId(number) },
            uid: "".into(),
        }
    }

    fn number(envelope: &Envelope) -> u64 {
        if let Envelope::Left { session, .. } = envelope { session.conn.0 } else { u64::MAX }
    }

    fn meshes(count: usize, cell_count: usize) -> Vec<Mesh> {
        let wakers: Vec<ShardWaker> =
            (0..count).map(|_| ShardWaker::new(Arc::new(Counters::default())).unwrap()).collect();
        mesh(&wakers, MeshSettings { cell_count, backlog_count_max: 10, take_count_max: 3 })
    }

    fn taken(mesh: &mut Mesh) -> Vec<u64> {
        let mut numbers = Vec::new();
        mesh.take(|envelope| numbers.push(number(&envelope)));
        numbers
    }

    #[test]
    fn a_full_ring_keeps_order_and_loses_nothing() {
        let mut meshes = meshes(2, 4);
        let mut got = Vec::new();
        for n in 0..20 {
            assert!(meshes[0].send(ShardId(1), envelope(n)).is_ok());
        }
        assert!(meshes[0].is_over_bound());
        assert_eq!(meshes[0].publish(), Published { sent: 4, full: 1 });
        assert!(meshes[0].send(ShardId(1), envelope(20)).is_ok());
        while got.len() < 21 {
            let batch = taken(&mut meshes[1]);
            assert!(batch.len() <= 3);
            got.extend(batch);
            meshes[0].publish();
        }
        assert_eq!(got, (0..21).collect::<Vec<_>>());
        assert_eq!(meshes[0].kept_count(), 0);
        assert_eq!(meshes[0].publish(), Published::default());
    }

    #[test]
    fn an_envelope_for_nobody_comes_back() {
        let mut meshes = meshes(2, 4);
        assert_eq!(number(&meshes[0].send(ShardId(0), envelope(1)).unwrap_err()), 1);
        assert_eq!(number(&meshes[0].send(ShardId(7), envelope(2)).unwrap_err()), 2);
    }

    #[test]
    fn every_pair_has_its_own_ring() {
        let mut meshes = meshes(3, 4);
        for from in 0..3_u16 {
            for to in 0..3_u16 {
                if from != to {
                    let n = u64::from(from * 10 + to);
                    assert!(meshes[usize::from(from)].send(ShardId(to), envelope(n)).is_ok());
                }
            }
            meshes[usize::from(from)].publish();
        }
        assert_eq!(taken(&mut meshes[0]), [10, 20]);
        assert_eq!(taken(&mut meshes[1]), [1, 21]);
        assert_eq!(taken(&mut meshes[2]), [2, 12]);
    }

    #[test]
    fn what_is_for_a_stopped_shard_is_dropped() {
        let mut meshes = meshes(2, 1);
        meshes.pop();
        assert!(meshes[0].send(ShardId(1), envelope(1)).is_ok());
        assert_eq!(meshes[0].publish(), Published::default());
        assert_eq!(meshes[0].kept_count(), 0);
    }
}
