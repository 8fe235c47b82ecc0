//! RECVACK: what a client has got (protocol.md §2.7, semantics.md §6).

use super::Link;
use crate::{
    envelope::Ask,
    request::Request,
    shard::{
        Shard,
        asks::{Asker, To},
        home::MASTER,
    },
    wire::frame::Flags,
};

impl Shard {
    /// A client has a message. A command that a master device has got need not be fetched any more:
    /// the user's position moves. If that is lost, it comes again.
    pub(super) fn on_recvack(&mut self, link: &mut Link, flags: Flags, message_id: i64) {
        self.vars.recvacks += 1;
        let Some(live) = link.session.live_mut().filter(|_| !flags.no_persist) else {
            return;
        };
        let Some(message) = live.unacked.acknowledge(message_id) else {
            return;
        };
        if flags.sync_once && live.device_level == MASTER && !self.asks.is_full() {
            let uid = live.uid.clone();
            let to = To::Slot(self.slot_of(&uid));
            let (channel, seq) = (message.channel.clone(), message.seq);
            let request = Request::AckCommand { uid, channel, seq };
            self.ask(Ask::Request(request), to, Asker::Nobody);
        }
    }
}
