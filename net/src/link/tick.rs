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
        let is_late = now_ms > before_ms + LATE_COUNT * period_ms;
        before_ms = now_ms;
        inner.fuses.sweep(now_ms);
        inner.ping_all(now_ms, is_late);
        inner.bury(now_ms);
        if !is_late {
            inner.end_silent(now_ms);
        }
    }
}

impl Inner {
    fn ping_all(self: &Rc<Self>, now_ms: u64, is_late: bool) {
        let bundles: Vec<Rc<Bundle>> =
            self.peers.borrow().values().filter_map(|peer| peer.bundle.clone()).collect();
        for bundle in bundles {
            let silent_ms = now_ms.saturating_sub(bundle.alive_ms());
            if silent_ms > self.settings.timeout_ms && !is_late {
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
