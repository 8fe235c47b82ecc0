//! Message ids: 63-bit snowflakes (protocol.md §1.8), unique in the cluster without asking anybody.

use crate::id::{NodeId, ShardId};

/// Unix ms at which the ids begin.
const EPOCH_MS: i64 = 1_288_834_974_657;
const NODE_BITS: u32 = 10;
const COUNTER_BITS: u32 = 12;

/// Makes ids: milliseconds, node, counter. The shards of a node share the counter's values by
/// their low bits. A clock that stands or goes back is outrun, never followed.
#[derive(Debug)]
pub(crate) struct MessageIds {
    node: i64,
    first: i64,
    stride: i64,
    last_ms: i64,
    counter: i64,
}

impl MessageIds {
    pub(crate) fn new(node: NodeId, shard: ShardId, shard_count: u16) -> Self {
        let node = i64::try_from(node.0).unwrap_or(0) & ((1 << NODE_BITS) - 1);
        let first = i64::from(shard.0);
        let stride = i64::from(shard_count.max(1));
        Self { node, first, stride, last_ms: 0, counter: first }
    }

    pub(crate) fn next(&mut self, unix_ms: i64) -> i64 {
        if unix_ms > self.last_ms {
            self.last_ms = unix_ms;
            self.counter = self.first;
        } else if self.counter + self.stride >= 1 << COUNTER_BITS {
            self.last_ms += 1;
            self.counter = self.first;
        } else {
            self.counter += self.stride;
        }
        let time = (self.last_ms - EPOCH_MS).max(0);
        time << (NODE_BITS + COUNTER_BITS) | self.node << COUNTER_BITS | self.counter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_a_node_are_unique_and_rise_on_each_shard() {
        let mut seen = std::collections::BTreeSet::new();
        for shard in 0..3 {
            let mut ids = MessageIds::new(NodeId(1001), ShardId(shard), 3);
            let mut last = 0;
            for n in 0..10_000 {
                // The clock stands, then goes back.
                let id = ids.next(1_700_000_000_000 - n / 100);
                assert!(id > last);
                last = id;
                assert!(seen.insert(id));
            }
        }
    }
}
