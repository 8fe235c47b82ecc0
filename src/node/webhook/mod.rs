//! The sender of webhooks (http-api.md §19, decision 0013): takes what the shards have to tell,
//! posts it on threads of its own, and tells the shards what the receiver has taken.
//!
//! ```text
//! shard ──Effect::Tell──► queue ──► thread ──POST──► receiver
//!   ◄──Event::Told── queue per shard ◄──┘
//! ```
//! A slot has a bounded window of notices under way, so the queues are bounded, too; a receiver that
//! is slow or away holds up nothing but its notices, which wait on disk. What ends with the process
//! is posted again by whoever leads the slot next.

mod batches;
mod call;
mod grpc;
mod http;
mod singles;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;
use jindou_api::WebhookFigures;
use jindou_core::{
    channel_info::kind,
    effect::Event,
    id::{NodeId, ShardId, SlotId},
    notice::{Telling, Told, tell},
};
use jindou_net::Handle;

pub(super) use self::call::Backoff;
use self::{batches::Batches, call::Way, http::HttpPost, singles::Singles};
use super::{Running, health::NodeHealth};
use crate::config::{Config, Outside};

/// Threads that post msg.offline; each has one call under way.
const OFFLINE_THREAD_COUNT: usize = 16;
/// What a thread needs: it calls no deep code.
const STACK_SIZE: usize = 512 << 10;
/// Events that were taken and are told a shard in one turn.
const TAKEN_PER_TURN_MAX: usize = 4_096;

/// The names of the events, as the receiver and `webhook.focusEvents` know them.
const NOTIFY: &str = "msg.notify";
const OFFLINE: &str = "msg.offline";
const STATUS: &str = "user.onlinestatus";

/// Which notice was taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    slot: SlotId,
    life: u64,
    number: u64,
}

impl From<&Telling> for Taken {
    fn from(telling: &Telling) -> Self {
        let Telling { slot, life, number, .. } = *telling;
        Self { slot, life, number }
    }
}

/// What the receiver wants to hear, by the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Bits of [`tell`].
    pub(super) tells: u8,
    pub(super) status: bool,
}

impl Wanted {
    /// Nothing without an address. Unknown names are left out; none left: everything.
    pub(super) fn new(outside: &Outside) -> Self {
        if outside.webhook_http.is_none() && outside.webhook_grpc.is_none() {
            return Self { tells: 0, status: false };
        }
        let known = |name: &&String| [NOTIFY, OFFLINE, STATUS].contains(&name.as_str());
        let focus: Vec<&String> = outside.webhook_focus.iter().filter(known).collect();
        let wants = |event: &str| focus.is_empty() || focus.iter().any(|name| *name == event);
        let bit = |event, bit| if wants(event) { bit } else { 0 };
        let tells = bit(NOTIFY, tell::STORED) | bit(OFFLINE, tell::OFFLINE);
        Self { tells, status: wants(STATUS) }
    }
}

/// What the threads have counted.
#[derive(Debug, Default)]
pub(super) struct Figures {
    taken: AtomicU64,
    failures: AtomicU64,
    given_up: AtomicU64,
}

impl Figures {
    pub(super) fn read(&self) -> WebhookFigures {
        WebhookFigures {
            taken: self.taken.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            given_up: self.given_up.load(Ordering::Relaxed),
        }
    }
}

/// The shards' way to the sender. Cheap to clone.
#[derive(Clone)]
pub(super) struct Webhooks {
    queues: Option<Arc<Queues>>,
    desk: Desk,
    /// By shard.
    taken: Arc<[flume::Receiver<Taken>]>,
}

struct Queues {
    notify: flume::Sender<Telling>,
    /// Messages of agent channels, if they have a receiver of their own.
    agents: Option<flume::Sender<Telling>>,
    offline: flume::Sender<Telling>,
    status: flume::Sender<Telling>,
}

/// What every thread shares: where to tell what was taken.
#[derive(Clone)]
struct Desk {
    shards: Arc<[flume::Sender<Taken>]>,
    running: Arc<OnceLock<Running>>,
    health: Arc<NodeHealth>,
    /// How long an event is tried.
    patience: Duration,
    /// How often a call that the receiver refuses is repeated before its events go one by one.
    tries_max: u32,
}

impl Desk {
    /// The receiver has taken these.
    fn took(&self, events: impl ExactSizeIterator<Item = Taken>) {
        let count = u64::try_from(events.len()).unwrap_or(0);
        self.health.webhooks.taken.fetch_add(count, Ordering::Relaxed);
        self.end(events);
    }

    /// These have been tried for too long.
    fn give_up(&self, event: &str, events: impl ExactSizeIterator<Item = Taken>) {
        let count = u64::try_from(events.len()).unwrap_or(0);
        self.health.webhooks.given_up.fetch_add(count, Ordering::Relaxed);
        tracing::warn!(
            "webhook {event}: {count} event(s) given up, not taken in {} s",
            self.patience.as_secs()
        );
        self.end(events);
    }

    fn count_failure(&self) {
        self.health.webhooks.failures.fetch_add(1, Ordering::Relaxed);
    }

    fn end(&self, events: impl Iterator<Item = Taken>) {
        let shard_count = u16::try_from(self.shards.len()).unwrap_or(1).max(1);
        let mut told = vec![false; self.shards.len()];
        for taken in events {
            let place = usize::from(ShardId::of(taken.slot, shard_count).0);
            if let (Some(shard), Some(told)) = (self.shards.get(place), told.get_mut(place)) {
                // A shard that has ended wants to know nothing.
                *told |= shard.send(taken).is_ok();
            }
        }
        let Some(running) = self.running.get() else { return };
        for (waker, _) in running.wakers.iter().zip(told).filter(|(_, told)| *told) {
            waker.wake();
        }
    }
}

impl Webhooks {
    /// Starts the threads, if there is a receiver.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub(super) fn start(
        config: &Config,
        shard_count: u16,
        running: &Arc<OnceLock<Running>>,
        health: &Arc<NodeHealth>,
    ) -> anyhow::Result<Self> {
        let outside = &config.outside;
        let (shards, taken): (Vec<_>, Vec<_>) =
            (0..shard_count).map(|_| flume::unbounded()).unzip();
        let desk = Desk {
            shards: shards.into(),
            running: running.clone(),
            health: health.clone(),
            patience: outside.webhook_time_max,
            tries_max: outside.webhook_retry_max,
        };
        let wanted = Wanted::new(outside);
        let is_on = wanted.tells != 0 || wanted.status;
        let queues = match is_on.then(|| general(outside)).flatten() {
            Some(way) => Some(Arc::new(start_threads(config, &desk, &way)?)),
            None => None,
        };
        Ok(Self { queues, desk, taken: taken.into() })
    }

    /// [`jindou_core::effect::Effect::Tell`].
    pub(super) fn tell(&self, telling: Telling) {
        let Some(queues) = &self.queues else {
            // Nobody wants to hear it.
            return self.desk.end(std::iter::once((&telling).into()));
        };
        let queue = match (&telling.what, &queues.agents) {
            (Told::Stored(message), Some(agents)) if message.channel.kind == kind::AGENT => agents,
            (Told::Stored(_), _) => &queues.notify,
            (Told::Offline { .. }, _) => &queues.offline,
            (Told::Status(_), _) => &queues.status,
        };
        // Its threads live as long as the process.
        let _ = queue.send(telling);
    }

    /// Has a shard hear what was taken of its slots.
    pub(super) fn listen(&self, handle: &Handle, shard: ShardId) {
        let Some(taken) = self.taken.get(usize::from(shard.0)).cloned() else {
            return;
        };
        handle.add_source(move |handle| {
            for Taken { slot, life, number } in taken.try_iter().take(TAKEN_PER_TURN_MAX) {
                handle.push(Event::Told { slot, life, number });
            }
            !taken.is_empty()
        });
    }
}

/// The receiver of everything but the messages of agents. gRPC wins over HTTP.
fn general(outside: &Outside) -> Option<Way> {
    if let Some(addr) = &outside.webhook_grpc {
        return Some(Way::Grpc(addr.clone()));
    }
    let url = outside.webhook_http.as_deref()?;
    Some(Way::Http(HttpPost::new(url, outside.webhook_secret.clone())))
}

fn start_threads(config: &Config, desk: &Desk, way: &Way) -> anyhow::Result<Queues> {
    let outside = &config.outside;
    let (notify, notify_queue) = flume::unbounded();
    let (offline, offline_queue) = flume::unbounded();
    let (status, status_queue) = flume::unbounded();
    let node = NodeId(config.cluster.node_id.into());
    for n in 0..OFFLINE_THREAD_COUNT {
        let (queue, way, desk) = (offline_queue.clone(), way.clone(), desk.clone());
        let compress_above = outside.webhook_compress_above;
        spawn(format!("offline-{n}"), move || {
            Singles { queue, post: way.open(), desk, compress_above, node }.run();
        })?;
    }
    let batches = |event, queue, way: Way, count_max, interval| {
        let desk = desk.clone();
        move || Batches { event, queue, post: way.open(), desk, count_max, interval }.run()
    };
    let interval = outside.webhook_interval;
    let agents = match outside.agent_webhook.as_deref() {
        Some(url) => {
            let (agents, queue) = flume::unbounded();
            // Always HTTP.
            let way = Way::Http(HttpPost::new(url, outside.webhook_secret.clone()));
            let run = batches(NOTIFY, queue, way, outside.agent_batch_max, interval);
            spawn("notify-agents".to_owned(), run)?;
            Some(agents)
        }
        None => None,
    };
    let run = batches(STATUS, status_queue, way.clone(), STATUS_COUNT_MAX, STATUS_INTERVAL);
    spawn("status".to_owned(), run)?;
    let run = batches(NOTIFY, notify_queue, way.clone(), outside.webhook_batch_max, interval);
    spawn("notify".to_owned(), run)?;
    Ok(Queues { notify, agents, offline, status })
}

/// Changes of status in one call, and how long they gather.
const STATUS_COUNT_MAX: usize = 1_000;
const STATUS_INTERVAL: Duration = Duration::from_millis(100);

fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    let thread = thread::Builder::new().name(name).stack_size(STACK_SIZE);
    thread.spawn(run).context("no thread for webhooks")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::config;

    #[test]
    fn only_what_is_in_focus_is_told_and_nothing_without_an_address() {
        let wanted = |file: &str| {
            let Wanted { tells, status } = Wanted::new(&config(file, &[]).outside);
            (tells, status)
        };
        assert_eq!(wanted(""), (0, false));
        assert_eq!(wanted("agent: {webhook: {httpAddr: 'http://a'}}"), (0, false));
        assert_eq!(wanted("webhook: {httpAddr: 'http://a'}"), (tell::ALL, true));
        assert_eq!(wanted("webhook: {grpcAddr: 'a:1'}"), (tell::ALL, true));
        let focus = "webhook: {httpAddr: 'http://a', focusEvents: [msg.offline, no.such]}";
        assert_eq!(wanted(focus), (tell::OFFLINE, false));
        let focus = "webhook: {httpAddr: 'http://a', focusEvents: [no.such]}";
        assert_eq!(wanted(focus), (tell::ALL, true));
    }
}
