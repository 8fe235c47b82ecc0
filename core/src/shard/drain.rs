//! The end of a node's work: whoever waits gets an answer, and in a cluster its clients go on
//! elsewhere.

use super::{Shard, slot::Slot};
use crate::{id::ConnId, map::Set};

/// How long a draining node of a cluster goes on taking what its clients send. Those that send without
/// a pause would keep it from ever being idle.
const SERVE_MS: u64 = 500;
/// How often it looks for clients that wait for nothing.
const LOOK_MS: u64 = 20;
/// So many of them go at each look, or their share of the time if they are more: they all come to the
/// other nodes.
const LEAVE_COUNT: u64 = 64;

/// Clients go, one by one as they wait for nothing.
#[derive(Debug)]
pub(super) struct Leaving {
    /// Whoever still is there goes then.
    end_ms: u64,
    look_ms: u64,
    /// How many go at one look.
    share: u64,
}

impl Leaving {
    pub(super) fn due_ms(&self) -> u64 {
        self.look_ms
    }
}

impl Shard {
    /// [`Event::Drain`](crate::effect::Event::Drain). A node of a cluster goes on serving its clients
    /// through the next leaders, for a moment.
    pub(super) fn begin_drain(&mut self) {
        self.draining = true;
        if !self.has_peers() {
            return;
        }
        let now = self.now.mono_ms;
        let looks = SERVE_MS / LOOK_MS;
        let share = LEAVE_COUNT.max(self.connection_count.div_ceil(looks - looks / 5));
        self.leaving = Some(Leaving { end_ms: now + SERVE_MS, look_ms: now, share });
    }

    /// Ends connections that wait for no answer, when it is time for it all of them.
    pub(super) fn end_clients(&mut self) {
        let now = self.now.mono_ms;
        let Some(leaving) = self.leaving.as_mut().filter(|leaving| leaving.look_ms <= now) else {
            return;
        };
        leaving.look_ms = now + LOOK_MS;
        let (is_over, share) = (leaving.end_ms <= now, leaving.share);
        if is_over {
            self.end_all_connections();
        } else {
            let waiting: Set<ConnId> = self.sends.sessions().collect();
            let share = usize::try_from(share).unwrap_or(usize::MAX);
            let conns = self.conns.iter().flatten().map(|entry| entry.link.conn);
            let free = conns.filter(|conn| !waiting.contains(conn)).take(share);
            for conn in free.collect::<Vec<ConnId>>() {
                self.on_kick(conn, None);
            }
        }
        if is_over || self.connection_count == 0 {
            self.leaving = None;
        }
    }

    /// Until when whoever waits has waited long enough. For a node that drains and that most others
    /// have left, nobody's time is worth waiting for: nothing is committed any more.
    pub(super) fn overdue_ms(&self) -> u64 {
        self.now.mono_ms + if self.is_hopeless() { self.settings.request_ms } else { 0 }
    }

    fn is_hopeless(&self) -> bool {
        self.draining && self.is_cut_off()
    }

    /// Whether nothing waits here: no send or change without its answer, no push on its way, no
    /// client that is to go.
    pub fn is_idle(&self) -> bool {
        let is_done = || self.parcels.moving_count() == 0 && self.slots.values().all(Slot::is_idle);
        self.jobs.is_empty()
            && self.open_requests.is_empty()
            && self.sends.is_empty()
            && self.leaving.is_none()
            && (self.is_hopeless() || is_done())
    }

    /// What keeps it from being idle, in a line for the log.
    pub fn unfinished(&self) -> String {
        let busy = self.slots.iter().filter(|(_, slot)| !slot.is_idle());
        let busy: Vec<String> =
            busy.map(|(slot, state)| format!("{slot}: {}", state.unfinished())).collect();
        format!(
            "{} deliveries, {} parcels, {} requests, {} sends; {}",
            self.jobs.len(),
            self.parcels.count(),
            self.open_requests.len(),
            self.sends.count(),
            busy.join("; "),
        )
    }
}
