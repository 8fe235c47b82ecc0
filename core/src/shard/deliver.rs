//! Delivery: from a stored message to the connections of its recipients (design.md §4), and again
//! until each has acknowledged it (protocol.md §2.7).
//!
//! ```text
//! channel's shard ──Deliver──► homes of the recipients ──Push──► shards of their sessions
//! ```
//! Every hop keeps the order of a channel's messages, so that each connection gets them in seq
//! order (G6).

use std::sync::Arc;

use super::{
    Shard,
    cache::Found,
    channel::{Channel, Plan, plan_of, shown_channel},
    connection::Live,
    unacked::Unacked,
    waiting::Waiting,
};
use crate::{
    channel_info::kind,
    effect::Outbox,
    envelope::Envelope,
    id::{ChannelId, ConnId, Name, SYSTEM_UID, ShardId},
    map::Map,
    message::SharedMessage,
    row::ChannelRows,
    wire::{
        frame::{Flags, RecvHead, encode_recv},
        jsonrpc,
    },
};

/// Recipients looked up in one step, at most: a large channel never holds a shard.
const RECIPIENTS_PER_STEP_MAX: usize = 8_192;

/// A message on its way to recipients of this home.
#[derive(Debug)]
pub(crate) struct Job {
    message: SharedMessage,
    uids: Arc<[Name]>,
    next: usize,
    except: Option<ConnId>,
}

impl Shard {
    /// A message was stored (or may go without): to its recipients.
    pub(super) fn deliver(
        &mut self,
        message: SharedMessage,
        recipients: Option<Vec<Name>>,
        except: Option<ConnId>,
    ) {
        let (slots, shards) = (self.settings.slot_count, self.settings.shard_count);
        let plan = match recipients {
            Some(uids) => plan_of(uids, slots, shards),
            None => match message.channel.command_base() {
                Some(base) => {
                    let to = self.shard_of(&base.id);
                    return self.send(to, Envelope::FanOut { message, base, except });
                }
                None => match self.channels.get(&message.channel) {
                    Some(channel) => channel.plan(slots, shards),
                    None => plan_of(pair_of(&message.channel), slots, shards),
                },
            },
        };
        self.deliver_to(message, &plan, except);
    }

    /// A command message: to the recipients of its base channel.
    pub(super) fn on_fan_out(
        &mut self,
        message: SharedMessage,
        base: ChannelId,
        except: Option<ConnId>,
    ) {
        let (slots, shards) = (self.settings.slot_count, self.settings.shard_count);
        let plan = if matches!(base.kind, kind::PERSON | kind::AGENT) {
            plan_of(pair_of(&base), slots, shards)
        } else {
            let again = || {
                let (message, base) = (message.clone(), base.clone());
                Waiting::Envelope(Box::new(Envelope::FanOut { message, base, except }))
            };
            match self.channels.get_or_wait(&base, again) {
                Found::Ready(channel) => channel.plan(slots, shards),
                Found::Loading => return,
                Found::Missing => return self.load_channel(base),
            }
        };
        self.deliver_to(message, &plan, except);
    }

    fn deliver_to(&mut self, message: SharedMessage, plan: &Plan, except: Option<ConnId>) {
        for (home, uids) in plan.iter() {
            let (message, uids) = (message.clone(), uids.clone());
            self.send(*home, Envelope::Deliver { message, uids, except });
        }
    }

    /// A message for uids whose home is here.
    pub(super) fn on_deliver(
        &mut self,
        message: SharedMessage,
        uids: Arc<[Name]>,
        except: Option<ConnId>,
    ) {
        self.jobs.push_back(Job { message, uids, next: 0, except });
    }

    /// Works through the jobs in order, a bounded part per step.
    pub(super) fn deliver_slice(&mut self) {
        let mut budget = RECIPIENTS_PER_STEP_MAX;
        let mut remote: Map<ShardId, Vec<ConnId>> = Map::default();
        while budget > 0 {
            let Some(mut job) = self.jobs.pop_front() else {
                break;
            };
            let end = job.uids.len().min(job.next + budget);
            for place in job.next..end {
                let Some(uid) = job.uids.get(place) else {
                    break;
                };
                let Some(sessions) = self.directory.get(uid) else {
                    continue;
                };
                for session in sessions {
                    if Some(session.conn) == job.except {
                        continue;
                    }
                    let shard = session.conn.shard();
                    if shard == self.id {
                        self.targets.push(session.conn);
                    } else {
                        remote.entry(shard).or_default().push(session.conn);
                    }
                }
            }
            budget -= end - job.next;
            job.next = end;
            let targets = std::mem::take(&mut self.targets);
            self.push(&job.message, &targets);
            self.targets = targets;
            self.targets.clear();
            for (shard, conns) in remote.drain(..) {
                let message = job.message.clone();
                self.send(shard, Envelope::Push { message, conns });
            }
            if job.next < job.uids.len() {
                self.jobs.push_front(job);
            }
        }
    }

    /// Writes a RECV to connections of this shard.
    pub(super) fn push(&mut self, message: &SharedMessage, conns: &[ConnId]) {
        // What is the same for several receivers stands in the outbox once.
        let mut shared = Shared::default();
        for conn in conns {
            let Some(Some(entry)) = self.conns.get_mut(conn.place()) else {
                continue;
            };
            if entry.link.conn != *conn {
                continue;
            }
            let Some(live) = entry.link.session.live_mut() else {
                continue;
            };
            let size = write_recv(&mut self.out, *conn, live, message, &mut shared);
            let Some(size) = size else { continue };
            entry.link.traffic.count_message_out(size);
            self.vars.traffic.count_message_out(size);
            if message.is_stored() {
                let message = message.clone();
                live.unacked.push(Unacked { message, pushed_ms: self.now.mono_ms, tries: 0 });
                let (count_max, size_max) =
                    (self.settings.unacked_count_max, self.settings.unacked_size_max);
                self.vars.retries_dropped += live.unacked.shrink(count_max, size_max);
            }
        }
    }

    /// Repeats what was not acknowledged in time, and gives up what was repeated enough.
    pub(super) fn repeat_unacked(&mut self) {
        let now = self.now.mono_ms;
        let retry_ms = self.settings.retry_ms;
        let conns = self.conns.iter_mut().flatten();
        for entry in conns {
            let conn = entry.link.conn;
            let Some(live) = entry.link.session.live_mut() else {
                continue;
            };
            for mut unacked in live.unacked.take_due(now, retry_ms) {
                if unacked.tries >= self.settings.retry_count_max {
                    self.vars.retries_dropped += 1;
                    continue;
                }
                unacked.tries += 1;
                unacked.pushed_ms = now;
                let mut alone = Shared::default();
                if let Some(size) =
                    write_recv(&mut self.out, conn, live, &unacked.message, &mut alone)
                {
                    entry.link.traffic.count_message_out(size);
                    self.vars.traffic.count_message_out(size);
                }
                live.unacked.push(unacked);
            }
        }
    }
}

/// The two of a person or agent channel, without any row.
fn pair_of(channel: &ChannelId) -> Vec<Name> {
    Channel::new(channel.clone(), ChannelRows::default()).recipients()
}

/// The last RECV that did not depend on its receiver, for the next one that looks alike.
#[derive(Default)]
struct Shared {
    last: Option<(SharedForm, std::ops::Range<usize>)>,
}

/// What two receivers must have in common to get the same bytes.
#[derive(PartialEq, Eq, Clone, Copy)]
struct SharedForm {
    json: bool,
    version: u8,
    framing: crate::wire::outbound::Framing,
    own: bool,
}

/// Writes one RECV; `None` if it cannot be encoded for this receiver. Returns its bytes.
fn write_recv(
    out: &mut Outbox,
    conn: ConnId,
    live: &Live,
    message: &SharedMessage,
    shared: &mut Shared,
) -> Option<usize> {
    let own = live.uid == message.from;
    let form = SharedForm { json: live.json, version: live.version, framing: live.framing, own };
    let sharable = live.cipher.is_none() && message.channel.kind != kind::PERSON;
    if sharable
        && let Some((last, range)) = &shared.last
        && *last == form
    {
        out.effects.push(crate::effect::Effect::Write { conn, range: range.clone() });
        return Some(range.len());
    }
    let mut flags = Flags::from_bits(message.flags);
    flags.dup = false;
    if own {
        flags.red_dot = false;
    }
    let head = RecvHead {
        flags,
        setting: message.setting,
        from_uid: if &*message.from == SYSTEM_UID { "" } else { &message.from },
        channel_id: shown_channel(message, &live.uid),
        channel_type: message.channel.kind,
        expire: message.expire,
        client_msg_no: &message.client_msg_no,
        message_id: message.id,
        message_seq: u32::try_from(message.seq).unwrap_or(u32::MAX),
        timestamp: i32::try_from(message.timestamp).unwrap_or(i32::MAX),
        topic: &message.topic,
    };
    let start = out.bytes.len();
    let packet = live.framing.start(&mut out.bytes);
    if live.json {
        jsonrpc::encode_recv(&mut out.bytes, &head, &message.payload);
    } else if encode_recv(
        &mut out.bytes,
        live.version,
        &head,
        live.cipher.as_ref(),
        &message.payload,
    )
    .is_err()
    {
        out.bytes.truncate(start);
        return None;
    }
    live.framing.end(&mut out.bytes, packet);
    let range = start..out.bytes.len();
    if sharable {
        shared.last = Some((form, range.clone()));
    }
    let size = range.len();
    out.push_write(conn, range);
    Some(size)
}
