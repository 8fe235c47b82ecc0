//! What happens by the clock: pings, time-outs, the dead.

use std::{
    rc::{Rc, Weak},
    time::Duration,
};

use jindou_core::{effect::PeerState, id::NodeId};

use super::{Inner, peer::Bundle};

/// Ticks that fall behind by so many periods say nothing of the peers: their answers may wait to
/// be read.
const LATE_COUNT: u64 = 3;
/// A node that came back as it was had not died: for so long its silence may last twice as long.
/// Else nodes that are short of processor time go on resetting each other, and each reset costs
/// more of it.
const STRAINED_MS: u64 = 30_000;

/// How long a peer may be silent, given that this shard itself was late by `late_ms` and the peer
/// came back last at `returned_ms`.
fn silence_max_ms(timeout_ms: u64, late_ms: u64, returned_ms: Option<u64>, now_ms: u64) -> u64 {
    let is_strained = returned_ms.is_some_and(|at| now_ms <= at + STRAINED_MS);
    timeout_ms * if is_strained { 2 } else { 1 } + late_ms
}

/// Ticks for as long as the links live.
pub(crate) async fn tick(links: Weak<Inner>) {
    let start = links.upgrade().map(|inner| (inner.settings.ping_ms.max(1), inner.now_ms()));
    let Some((period_ms, mut before_ms)) = start else {
        return;
    };
    loop {
        monoio::time::sleep(Duration::from_millis(period_ms)).await;
        let Some(inner) = links.upgrade() else {
            return;
        };
        if inner.is_stopped.get() {
            return;
        }
        let now_ms = inner.now_ms();
        let late_ms = now_ms.saturating_sub(before_ms + period_ms);
        let is_late = late_ms >= (LATE_COUNT - 1) * period_ms;
        before_ms = now_ms;
        inner.fuses.sweep(now_ms);
        inner.ping_all(now_ms, late_ms, is_late);
        inner.bury(now_ms);
        if !is_late {
            inner.end_silent(now_ms);
        }
    }
}

impl Inner {
    fn ping_all(self: &Rc<Self>, now_ms: u64, late_ms: u64, is_late: bool) {
        let timeout_ms = self.settings.timeout_ms;
        let peers = self.peers.borrow();
        let bundles = peers.values().filter_map(|peer| {
            let silence_max_ms = silence_max_ms(timeout_ms, late_ms, peer.returned_ms, now_ms);
            Some((peer.bundle.clone()?, silence_max_ms))
        });
        let bundles: Vec<(Rc<Bundle>, u64)> = bundles.collect();
        drop(peers);
        for (bundle, silence_max_ms) in bundles {
            let silent_ms = now_ms.saturating_sub(bundle.alive_ms());
            if silent_ms > silence_max_ms && !is_late {
                self.reset(&bundle, &format!("no answer for {silent_ms} ms"));
            } else {
                self.ping(&bundle);
            }
        }
    }

    /// Tells who has been down for so long that it counts as dead. Its own links here go too, so
    /// that it learns that it was away, even when only one direction failed.
    fn bury(&self, now_ms: u64) {
        let mut dead: Vec<NodeId> = Vec::new();
        for (&node, peer) in self.peers.borrow_mut().iter_mut() {
            let is_down = peer.bundle.is_none() && !peer.is_dead;
            if is_down && now_ms >= peer.down_ms + self.settings.dead_ms {
                peer.is_dead = true;
                dead.push(node);
            }
        }
        for node in dead {
            self.end_accepted(node, |_| true);
            self.inbound.peer(node, PeerState::Dead);
        }
    }

    fn end_silent(&self, now_ms: u64) {
        for accepted in self.accepted.borrow().iter() {
            if accepted.is_silent(now_ms, self.settings.silence_ms) {
                accepted.end();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_late_or_has_come_back_is_patient() {
        assert_eq!(silence_max_ms(600, 0, None, 100_000), 600);
        assert_eq!(silence_max_ms(600, 140, None, 100_000), 740);
        assert_eq!(silence_max_ms(600, 0, Some(80_000), 100_000), 1_200);
        assert_eq!(silence_max_ms(600, 0, Some(60_000), 100_000), 600);
    }
}
