//! What a conversation list shows of many channels: read slot by slot, answered together.

use super::{Shard, waiting::Purpose};
use crate::{
    id::{Name, ShardId, SlotId},
    map::Map,
    request::{Failure, Reply, RequestToken},
    row::{Digest, DigestQuery, Read, Rows},
};

/// Digests of which some slots have not answered.
#[derive(Debug)]
pub(crate) struct Gathering {
    shard: ShardId,
    token: RequestToken,
    missing: usize,
    digests: Vec<Digest>,
}

impl Shard {
    /// Asks the store for the digests of channels of this shard, a read per slot.
    pub(super) fn read_digests(
        &mut self,
        shard: ShardId,
        token: RequestToken,
        uid: &Name,
        items: Vec<DigestQuery>,
    ) {
        let digests = vec![Digest::default(); items.len()];
        let mut by_slot: Map<SlotId, (Vec<usize>, Vec<DigestQuery>)> = Map::default();
        for (place, item) in items.into_iter().enumerate() {
            let slot = item.channel.slot(self.settings.slot_count);
            let (places, queries) = by_slot.entry(slot).or_default();
            places.push(place);
            queries.push(item);
        }
        if by_slot.is_empty() {
            return self.reply(shard, token, Reply::Digests(digests));
        }
        self.next_gathering += 1;
        let gathering = self.next_gathering;
        let missing = by_slot.len();
        self.digests.insert(gathering, Gathering { shard, token, missing, digests });
        for (slot, (places, items)) in by_slot {
            let read = Read::Digests { uid: uid.clone(), items };
            self.read(slot, read, Purpose::Digests { gathering, places });
        }
    }

    /// A slot has answered.
    pub(super) fn on_digests(&mut self, gathering: u64, places: &[usize], rows: Rows) {
        let Some(state) = self.digests.get_mut(&gathering) else { return };
        let Rows::Digests(found) = rows else {
            let (shard, token) = (state.shard, state.token);
            self.digests.swap_remove(&gathering);
            return self.reply(shard, token, Reply::Failed(Failure::Storage));
        };
        for (place, digest) in places.iter().zip(found) {
            if let Some(slot) = state.digests.get_mut(*place) {
                *slot = digest;
            }
        }
        state.missing -= 1;
        if state.missing == 0
            && let Some(done) = self.digests.swap_remove(&gathering)
        {
            self.reply(done.shard, done.token, Reply::Digests(done.digests));
        }
    }
}
