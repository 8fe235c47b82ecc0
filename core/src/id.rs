//! Ids and positions: one newtype each, so that none is taken for another.

use std::{fmt, net::SocketAddr, sync::Arc};

/// A uid, channel id or client number. Cheap to clone and to send to another shard.
pub type Name = Arc<str>;

/// The uid of messages without a sender (protocol.md §0). Never a client, never a recipient.
pub const SYSTEM_UID: &str = "____system";
/// The device id of API sends (protocol.md §0). Refused from clients.
pub const SYSTEM_DEVICE: &str = "____device";
/// What the id of a command channel ends with (protocol.md §4.2).
pub const COMMAND_SUFFIX: &str = "____cmd";
/// The id of the channel for commands that are pushed and not stored (protocol.md §4.2).
pub const ONLINE_COMMAND_CHANNEL: &str = "systemcmdonline";

/// A hash bucket of ids: the unit of placement, and a Raft group (operations.md §3.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SlotId(pub u16);

impl SlotId {
    /// The slot of a channel id or uid: CRC-32 (IEEE) of its UTF-8 bytes modulo the slot count.
    pub fn of(id: &str, slot_count: u16) -> Self {
        let slot = crc32fast::hash(id.as_bytes()) % u32::from(slot_count.max(1));
        Self(u16::try_from(slot).unwrap_or(0))
    }
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}", self.0)
    }
}

/// One core's share of a node. Zero-based.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShardId(pub u16);

impl ShardId {
    /// The shard that holds `slot` on a node of `shard_count` shards (design.md §1).
    pub fn of(slot: SlotId, shard_count: u16) -> Self {
        Self(slot.0 % shard_count.max(1))
    }
}

/// A server process, 1..=1023: its ten bits stand in every message id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub u64);

/// A shard of the cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShardAddr {
    /// Its node.
    pub node: NodeId,
    /// Which of that node's shards.
    pub shard: ShardId,
}

/// A session of the cluster: connection ids are unique on one node only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionAddr {
    /// The node that accepted it.
    pub node: NodeId,
    /// Its connection there.
    pub conn: ConnId,
}

/// A client connection of this node: the shard (10 bits), its place in the shard's table
/// (22 bits) and a generation (20 bits), so that a late event never meets a successor in the same
/// place. Positive and below 2^53, hence safe in JSON.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

impl ConnId {
    const PLACE_BITS: u32 = 22;
    const SHARD_BITS: u32 = 10;
    const GENERATION_MASK: u64 = (1 << 20) - 1;

    /// Puts the parts together. `generation` is cut to its low 20 bits.
    pub fn new(shard: ShardId, place: u32, generation: u32) -> Self {
        let place = u64::from(place) & ((1 << Self::PLACE_BITS) - 1);
        let shard = u64::from(shard.0) & ((1 << Self::SHARD_BITS) - 1);
        let generation = u64::from(generation) & Self::GENERATION_MASK;
        Self(
            generation << (Self::PLACE_BITS + Self::SHARD_BITS) | place << Self::SHARD_BITS | shard,
        )
    }

    /// The shard that accepted the connection.
    pub fn shard(self) -> ShardId {
        ShardId((self.0 & ((1 << Self::SHARD_BITS) - 1)) as u16)
    }

    /// The place in that shard's table.
    pub fn place(self) -> usize {
        ((self.0 >> Self::SHARD_BITS) & ((1 << Self::PLACE_BITS) - 1)) as usize
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The position of an entry in a slot's Raft log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LogId {
    /// The term of the leader that proposed it.
    pub term: u64,
    /// That leader's node id.
    pub node: u64,
    /// The index, from 0.
    pub index: u64,
}

/// A channel by its *stored* id and type (protocol.md §4.2).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ChannelId {
    /// The stored id; for a person channel both uids joined by `@`.
    pub id: Name,
    /// The channel type, 0..=255 (protocol.md §4.1).
    pub kind: u8,
}

impl ChannelId {
    /// A channel by its stored id.
    pub fn new(id: impl Into<Name>, kind: u8) -> Self {
        Self { id: id.into(), kind }
    }

    /// The slot that holds the channel.
    pub fn slot(&self, slot_count: u16) -> SlotId {
        SlotId::of(&self.id, slot_count)
    }

    /// The base channel of a command channel, `None` for any other.
    pub fn command_base(&self) -> Option<ChannelId> {
        let base = self.id.strip_suffix(COMMAND_SUFFIX)?;
        Some(ChannelId::new(base, self.kind))
    }
}

/// The stored id of the person channel of two uids: the one with the larger CRC-32 first. When
/// both hashes are equal the larger string is first (protocol.md §9: v2 gives two ids then).
pub fn person_channel(a: &str, b: &str) -> String {
    let (ha, hb) = (crc32fast::hash(a.as_bytes()), crc32fast::hash(b.as_bytes()));
    if (ha, a) > (hb, b) { format!("{a}@{b}") } else { format!("{b}@{a}") }
}

/// Whether an id holds a character that joins ids (`@`, `#`, `&`; http-api.md §1.6).
pub fn has_special_char(id: &str) -> bool {
    id.contains(['@', '#', '&'])
}

/// Where a connection came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// The address of the client, or what a trusted proxy header said.
    pub addr: SocketAddr,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_id_gives_its_parts_back() {
        let id = ConnId::new(ShardId(3), 4_000_000, 77);
        assert_eq!((id.shard(), id.place()), (ShardId(3), 4_000_000));
        assert!(id.0 < 1 << 53);
    }

    #[test]
    fn person_ids_follow_the_hashes() {
        assert_eq!(person_channel("u1", "u2"), "u2@u1");
        assert_eq!(person_channel("u2", "u1"), "u2@u1");
        assert_eq!(person_channel("alice", "bob"), "bob@alice");
        assert_eq!(person_channel("u1", "u1"), "u1@u1");
    }

    #[test]
    fn one_pair_has_one_channel_even_when_the_hashes_collide() {
        assert_eq!(person_channel("plumless", "buckeroo"), person_channel("buckeroo", "plumless"));
    }
}
