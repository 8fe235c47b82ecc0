//! Rows on their way from the state store, and what goes on when they are here.

use std::sync::Arc;

use super::{
    Local, Shard, channel::Channel, deliver::FanOut, slot::Caller, stream::Stream, user::User,
};
use crate::{
    effect::{Effect, ReadId},
    envelope::{Envelope, Epoch, SendTask},
    id::{ChannelId, Name, SlotId},
    request::{Failure, Reply},
    row::{Read, Rows},
    stream::StreamKey,
};

/// A channel or user that could not be read is asked for again after this time.
const RETRY_READ_MS: u64 = 500;

/// Who waits for a channel or user to be loaded.
#[derive(Debug)]
pub(crate) enum Waiting {
    /// The entry that a slot is applying.
    Apply(SlotId),
    /// An envelope, to be handled again.
    Envelope(Box<Envelope>),
    /// A send that has been taken.
    Send(Arc<SendTask>, Epoch),
    /// A command message.
    FanOut(Box<FanOut>),
}

/// What a read of the state store is for.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// A channel for the cache.
    Channel(ChannelId),
    /// A user for the cache.
    User(Name),
    /// A stream for the cache.
    Stream(StreamKey),
    /// An answer for a caller of the API.
    Api(Caller),
    /// Messages for a caller; which end may be cut; the channel whose end it is.
    Messages(Caller, bool, Option<ChannelId>),
    /// The next notices of a slot, for the time that this shard leads it.
    Notices(SlotId, u64),
    /// The oldest ones.
    OldNotices(SlotId, u64),
}

impl Shard {
    pub(super) fn load_channel(&mut self, channel: ChannelId) {
        let slot = channel.slot(self.settings.slot_count);
        self.read(slot, Read::Channel(channel.clone()), Purpose::Channel(channel));
    }

    pub(super) fn load_user(&mut self, uid: Name) {
        let slot = SlotId::of(&uid, self.settings.slot_count);
        self.read(slot, Read::User(uid.clone()), Purpose::User(uid));
    }

    pub(super) fn load_stream(&mut self, stream: StreamKey) {
        let slot = stream.slot(self.settings.slot_count);
        self.read(slot, Read::Stream(stream.clone()), Purpose::Stream(stream));
    }

    pub(super) fn read(&mut self, slot: SlotId, read: Read, purpose: Purpose) {
        self.next_read += 1;
        let id = ReadId(self.next_read);
        self.reads.insert(id, purpose);
        self.out.effects.push(Effect::Read { id, slot, read });
    }

    /// The rows of a slot are others now: what was asked before is asked again, an answer that is
    /// still on its way is not heeded.
    pub(super) fn read_again(&mut self, slot: SlotId) {
        let slot_count = self.settings.slot_count;
        let of_slot = |purpose: &Purpose| match purpose {
            Purpose::Channel(channel) => channel.slot(slot_count) == slot,
            Purpose::User(uid) => SlotId::of(uid, slot_count) == slot,
            Purpose::Stream(stream) => stream.slot(slot_count) == slot,
            Purpose::Api(_)
            | Purpose::Messages(..)
            | Purpose::Notices(..)
            | Purpose::OldNotices(..) => false,
        };
        let old = self.reads.iter().filter(|(_, purpose)| of_slot(purpose));
        let old: Vec<ReadId> = old.map(|(id, _)| *id).collect();
        for id in old {
            if let Some(purpose) = self.reads.swap_remove(&id) {
                self.load(purpose);
            }
        }
    }

    /// Asks for a channel or a user.
    fn load(&mut self, purpose: Purpose) {
        match purpose {
            Purpose::Channel(channel) => self.load_channel(channel),
            Purpose::User(uid) => self.load_user(uid),
            Purpose::Stream(stream) => self.load_stream(stream),
            // Each is read once: their callers are told what comes.
            Purpose::Api(_)
            | Purpose::Messages(..)
            | Purpose::Notices(..)
            | Purpose::OldNotices(..) => {}
        }
    }

    /// Rows have come.
    pub(super) fn on_rows(&mut self, id: ReadId, rows: Rows) {
        let Some(purpose) = self.reads.swap_remove(&id) else {
            return;
        };
        let waiting = match (purpose, rows) {
            (Purpose::Channel(id), Rows::Channel(rows)) => {
                let channel = Channel::new(id.clone(), rows);
                let size = channel.size();
                self.channels.put(&id, channel, size)
            }
            (Purpose::User(uid), Rows::User(rows)) => {
                let user = User::new(uid.clone(), rows);
                let size = user.size();
                self.users.put(&uid, user, size)
            }
            (Purpose::Stream(key), Rows::Stream(rows)) => {
                let stream = Stream::new(rows);
                let size = stream.size();
                self.streams.put(&key, stream, size)
            }
            (Purpose::Messages(caller, from_start, tail_of), Rows::Messages(messages)) => {
                if let Some(channel) = tail_of {
                    self.keep_tail(&channel, &messages);
                }
                return self.reply_messages(caller, messages, from_start);
            }
            (Purpose::Api(caller), Rows::Found(found)) => return self.reply_found(caller, found),
            (Purpose::Notices(slot, life), rows) => return self.on_notices(slot, life, rows),
            (Purpose::OldNotices(slot, life), rows) => {
                return self.on_old_notices(slot, life, &rows);
            }
            (Purpose::Api(caller) | Purpose::Messages(caller, ..), rows) => {
                let reply = match rows {
                    Rows::Messages(messages) => Reply::Messages(messages),
                    Rows::Digests(digests) => Reply::Digests(digests),
                    Rows::Scanned(page) => Reply::Scanned(Box::new(page)),
                    Rows::Streams(streams) => Reply::Streams(streams),
                    Rows::Channel(_)
                    | Rows::User(_)
                    | Rows::Found(_)
                    | Rows::Stream(_)
                    | Rows::Notices(_) => Reply::Failed(Failure::Storage),
                    Rows::Failed(error) => {
                        self.warn(format!("a read of the state store failed: {error}"));
                        Reply::Failed(Failure::Storage)
                    }
                };
                self.reply(caller, reply);
                return;
            }
            (Purpose::Channel(id), rows) => {
                self.warn(format!("channel {} cannot be read: {}", id.id, failure_of(&rows)));
                return self.read_later(Purpose::Channel(id));
            }
            (Purpose::User(uid), rows) => {
                self.warn(format!("user {uid} cannot be read: {}", failure_of(&rows)));
                return self.read_later(Purpose::User(uid));
            }
            (Purpose::Stream(key), rows) => {
                let channel = &key.channel.id;
                self.warn(format!("a stream of {channel} cannot be read: {}", failure_of(&rows)));
                return self.read_later(Purpose::Stream(key));
            }
        };
        self.wake(waiting);
    }

    /// What waits for the rows goes on waiting: asked at once, a store that fails would be asked
    /// as fast as it answers.
    fn read_later(&mut self, purpose: Purpose) {
        self.failed_reads.push_back((self.now.mono_ms + RETRY_READ_MS, purpose));
    }

    /// Asks again for rows that could not be read.
    pub(super) fn retry_reads(&mut self) {
        let now = self.now.mono_ms;
        while self.failed_reads.front().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, purpose)) = self.failed_reads.pop_front() {
                self.load(purpose);
            }
        }
    }

    /// Goes on with what waited. Envelopes are handled before the next event, so that nothing
    /// that comes later overtakes them.
    fn wake(&mut self, waiting: Vec<Waiting>) {
        for waiting in waiting {
            match waiting {
                Waiting::Apply(slot) => self.on_row_for_apply(slot),
                Waiting::Envelope(envelope) => self.local.push_back(Local::Envelope(*envelope)),
                Waiting::Send(task, epoch) => self.local.push_back(Local::Send(task, epoch)),
                Waiting::FanOut(fan_out) => self.local.push_back(Local::FanOut(fan_out)),
            }
        }
    }
}

fn failure_of(rows: &Rows) -> &str {
    match rows {
        Rows::Failed(error) => error,
        Rows::Channel(_)
        | Rows::User(_)
        | Rows::Messages(_)
        | Rows::Digests(_)
        | Rows::Found(_)
        | Rows::Stream(_)
        | Rows::Scanned(_)
        | Rows::Streams(_)
        | Rows::Notices(_) => "the store answered another question",
    }
}
