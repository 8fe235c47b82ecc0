//! Delivery: from a stored message to the connections of its recipients (design.md §4), and again
//! until each has acknowledged it (protocol.md §2.7).
//!
//! ```text
//! channel's shard ──Deliver──► homes of the recipients ──Push──► shards of their sessions
//! ```
//! Every hop keeps the order of a channel's messages, so that each connection gets them in seq
//! order (G6). How nothing is lost on the way: `parcels`.

use std::sync::Arc;

use super::{
    Shard,
    cache::Found,
    channel::{Channel, Plan, plan_of, shown_channel},
    connection::{Live, Order, order_of},
    events::{SharedEvent, write_event},
    parcels::{Parent, again},
    unacked::Unacked,
    waiting::Waiting,
};
use crate::{
    channel_info::kind,
    effect::Outbox,
    envelope::{Except, Part},
    id::{ChannelId, ConnId, Name, SYSTEM_UID, ShardAddr, SlotId},
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
    parts: Arc<[Part]>,
    /// The part that is worked on, and the place in it.
    part: usize,
    next: usize,
    except: Except,
    pub(crate) parent: Parent,
}

impl Job {
    /// Whether recipients of this slot are left.
    pub(crate) fn has_part(&self, slot: SlotId) -> bool {
        self.parts.iter().skip(self.part).any(|part| part.slot == slot)
    }

    pub(crate) fn is_done(&self) -> bool {
        self.part >= self.parts.len()
    }
}

impl Shard {
    /// A message was stored (or may go without): to its recipients.
    pub(super) fn deliver(
        &mut self,
        message: SharedMessage,
        recipients: Option<Vec<Name>>,
        except: Except,
        parent: Parent,
    ) {
        let slots = self.settings.slot_count;
        let plan = match recipients {
            Some(uids) => plan_of(uids, slots),
            None => match message.channel.command_base() {
                Some(base) => return self.deliver_to_base(message, base, except, parent),
                None => match self.channels.get(&message.channel) {
                    Some(channel) => channel.plan(slots),
                    None => plan_of(pair_of(&message.channel), slots),
                },
            },
        };
        self.deliver_plan(&message, &plan, except, parent);
    }

    /// A command message: to the recipients of its base channel.
    pub(super) fn on_fan_out(
        &mut self,
        message: SharedMessage,
        base: ChannelId,
        except: Except,
        parent: Parent,
    ) {
        let slots = self.settings.slot_count;
        if !self.is_home(base.slot(slots)) {
            return self.not_base(message, base, except, parent);
        }
        let plan = if matches!(base.kind, kind::PERSON | kind::AGENT) {
            plan_of(pair_of(&base), slots)
        } else {
            let again = || {
                let (message, base) = (message.clone(), base.clone());
                Waiting::FanOut(Box::new(FanOut { message, base, except, parent }))
            };
            match self.channels.get_or_wait(&base, again) {
                Found::Ready(channel) => channel.plan(slots),
                Found::Loading => return self.hold(parent),
                Found::Missing => {
                    self.hold(parent);
                    return self.load_channel(base);
                }
            }
        };
        self.deliver_plan(&message, &plan, except, parent);
        if message.is_stored() {
            self.open_rows_of_late(&base);
        }
    }

    /// The base channel is loaded.
    pub(super) fn on_fan_out_loaded(&mut self, fan_out: FanOut) {
        let FanOut { message, base, except, parent } = fan_out;
        self.on_fan_out(message, base, except, parent);
        self.release(parent);
    }

    /// Delivers to all of a plan; most often, on a node without peers, all homes are here.
    fn deliver_plan(
        &mut self,
        message: &SharedMessage,
        plan: &Plan,
        except: Except,
        parent: Parent,
    ) {
        let is_here =
            |part: &Part| self.is_home(part.slot) && !self.parcels.has_homeless(part.slot);
        if plan.iter().all(is_here) {
            self.add_job(message.clone(), plan.clone(), except, parent);
        } else {
            self.deliver_parts(message, plan, except, parent);
        }
    }

    /// A message for uids whose home should be here.
    pub(super) fn add_job(
        &mut self,
        message: SharedMessage,
        parts: Arc<[Part]>,
        except: Except,
        parent: Parent,
    ) {
        self.hold(parent);
        self.jobs.push_back(Job { message, parts, part: 0, next: 0, except, parent });
    }

    /// Works through the jobs in order, a bounded part per step.
    pub(super) fn deliver_slice(&mut self) {
        let mut budget = RECIPIENTS_PER_STEP_MAX;
        while budget > 0 {
            let Some(mut job) = self.jobs.pop_front() else {
                break;
            };
            while budget > 0
                && let Some(part) = job.parts.get(job.part)
            {
                let done = self.deliver_part(&job, part, budget);
                budget -= done.min(budget);
                job.next += done;
                if job.next >= part.uids.len() {
                    (job.part, job.next) = (job.part + 1, 0);
                }
            }
            if job.is_done() {
                self.release(job.parent);
            } else {
                self.jobs.push_front(job);
            }
        }
    }

    /// The recipients of this slot have their home elsewhere: gives back the rest.
    pub(super) fn turn_away(&mut self, mut job: Job, slot: SlotId) -> Job {
        let left = job.parts.iter().skip(job.part);
        if left.clone().next().is_some_and(|part| part.slot == slot) {
            job.next = 0;
        }
        let (away, rest): (Vec<Part>, Vec<Part>) =
            left.cloned().partition(|part| part.slot == slot);
        (job.parts, job.part) = (rest.into(), 0);
        for part in away {
            self.not_home(job.message.clone(), part, job.except, job.parent);
        }
        job
    }

    /// Delivers to uids of one slot, or hands them to whoever can; returns how many are done.
    fn deliver_part(&mut self, job: &Job, part: &Part, budget: usize) -> usize {
        let Job { message, next, except, parent, .. } = job;
        let rest = part.uids.len() - next;
        if !self.is_home(part.slot) {
            self.not_home(message.clone(), part.clone(), *except, *parent);
            return rest;
        }
        let now = self.now.unix_ms;
        let held = self.hold_if_early(part.slot, || Job {
            message: message.clone(),
            parts: [part.clone()].into(),
            part: 0,
            next: *next,
            except: again(*except, now),
            parent: *parent,
        });
        if held {
            self.hold(*parent);
            return rest;
        }
        let Some(home) = self.homes.get(&part.slot) else {
            return rest;
        };
        let count = rest.min(budget);
        let mut targets = std::mem::take(&mut self.targets);
        let mut away: Map<ShardAddr, Vec<ConnId>> = Map::default();
        for uid in part.uids.iter().skip(*next).take(count) {
            for presence in home.users.get(uid).into_iter().flatten() {
                let session = presence.session;
                if except.leaves_out(session, presence.since_ms) {
                    continue;
                }
                let shard = Self::shard_of_session(session);
                if shard == self.me() {
                    targets.push(session.conn);
                } else {
                    away.entry(shard).or_default().push(session.conn);
                }
            }
        }
        self.push(message, &targets);
        targets.clear();
        self.targets = targets;
        for (shard, conns) in away {
            let push = (message.clone(), conns);
            self.send_push(shard, push, (part, *except), *parent);
        }
        count
    }

    /// Writes a RECV to connections of this shard.
    pub(super) fn push(&mut self, message: &SharedMessage, conns: &[ConnId]) {
        // What is the same for several receivers stands in the outbox once.
        let mut shared = Shared::default();
        let mut shared_event = SharedEvent::default();
        let has_peers = self.has_peers();
        let order = order_of(message);
        let mut late = Vec::new();
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
            // Another home, or another leader, may have sent it already, or newer ones.
            if has_peers {
                match live.order(message, &order, self.now.mono_ms) {
                    Order::Next => {}
                    Order::Again => continue,
                    Order::Late => {
                        late.push(*conn);
                        continue;
                    }
                }
            }
            if message.is_event() {
                let size = write_event(&mut self.out, *conn, live, message, &mut shared_event);
                let traffic = &mut entry.link.traffic;
                if let Some(size) = size {
                    traffic.count_event_out(size);
                    self.vars.traffic.count_event_out(size);
                    self.vars.events_pushed += 1;
                }
                continue;
            }
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
        // It comes again and reads what it has not got: out of order it gets nothing (G6, G8).
        for conn in late {
            self.vars.sessions_out_of_step += 1;
            self.on_kick(conn, None);
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
            live.forget_old(now);
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

/// A command message whose base channel is being loaded.
#[derive(Debug)]
pub(crate) struct FanOut {
    message: SharedMessage,
    base: ChannelId,
    except: Except,
    parent: Parent,
}

/// The two of a person or agent channel, without any row.
pub(crate) fn pair_of(channel: &ChannelId) -> Vec<Name> {
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
