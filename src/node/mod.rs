//! A node: configuration → wiring → run → drain.

mod certificate;
mod cluster;
mod datasource;
mod executor;
mod guard;
mod health;
mod http;
mod listeners;
mod process;
mod settings;
mod shard;
mod webhook;

use std::{
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use jindou_cluster::Router;
use jindou_core::id::{LogId, NodeId, ShardId, SlotId};
use jindou_net::{
    Admission, Counters, DriverKind, ShardWaker, ShardsSettings, Stop, allowed_cpus, probe,
};
use jindou_storage::{OnIdle, Storage, StorageError, StorageOptions};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use self::{
    cluster::{ClusterParts, Post},
    datasource::Datasource,
    guard::{Cause, Guard},
    health::NodeHealth,
    listeners::Listeners,
    shard::{Parts, Synced},
    webhook::Webhooks,
};
use crate::config::{Config, Role};
use crate::log::FOCUS;
use crate::memory;

/// Runs a node until it is told to stop. Returns after a clean drain. `serving` is called once, when
/// all shards accept clients.
///
/// # Errors
/// What keeps the node from starting, or ended it. Nothing that was acknowledged is lost.
pub fn run(config: &Config, serving: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    anyhow::ensure!(
        config.cluster.role == Role::Replica,
        "cluster.role must be replica: nodes that hold connections only are not served yet"
    );
    let started_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
    let driver = probe(settings::driver(config))?;
    match &driver.reason {
        Some(reason) => {
            tracing::warn!("sockets by {}: io_uring is not used: {reason}", driver.kind)
        }
        None => tracing::info!("sockets by {}", driver.kind),
    }
    jindou_net::raise_open_files().context("the limit of open files cannot be raised")?;
    let shard_count = settings::shard_count(config);
    let tls = config.listen.wss.as_ref().map(certificate::read).transpose()?;
    // Bound before anything is opened: a port that is taken fails the start at once.
    let listeners = Arc::new(Listeners::bind(&config.listen, shard_count)?);
    let guard = Guard::start(config.limits.drain_time_max)?;

    let core = Arc::new(settings::core(config));
    let cluster = ClusterParts::new(config, shard_count)?;
    let io_uring = driver.kind == DriverKind::IoUring;
    let health = Arc::new(NodeHealth::new(core.slot_count, io_uring, started_ms));
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..shard_count).map(|_| flume::unbounded::<Synced>()).unzip();
    let running = Arc::new(OnceLock::new());
    let storage = open_storage(config, &health, &guard, senders, &running)?;
    process::count_disk(config.data_dir.clone(), health.clone())?;
    let webhooks = Webhooks::start(config, shard_count, &running, &health)?;
    let datasource = Datasource::start(&config.outside, shard_count, &running, &health)?;
    let parts = Parts {
        settings: core,
        api: settings::api(config),
        http: settings::http(config),
        log: storage.log(),
        state: storage.state(),
        router: Router::new(
            NodeId(config.cluster.node_id.into()),
            shard_count,
            config.cluster.slot_count,
        ),
        health: health.clone(),
        admission: Admission::new(
            config.limits.connection_max,
            config.limits.connection_per_ip_max.unwrap_or(0),
        ),
        http_admission: Admission::new(config.limits.connection_max, 0),
        synced: receivers.into(),
        listeners,
        running: running.clone(),
        guard: guard.clone(),
        cluster: cluster.clone(),
        serving: tell_serving(shard_count, serving)?,
        tls: tls.clone(),
        webhooks,
        datasource,
    };
    let shards = jindou_net::start(
        &ShardsSettings {
            shard_count,
            cpus: allowed_cpus().unwrap_or_default(),
            driver: driver.kind,
            net: settings::net(config),
        },
        async move |context| shard::run(context, parts).await,
    )?;
    let wakers: Vec<_> = (0..shard_count).filter_map(|n| shards.waker(ShardId(n))).collect();
    cluster.post.open(wakers.clone());
    let stop = shards.stop();
    let counters = shards.counters().to_vec();
    // A group may have begun to serve before there was anybody to wake.
    running.get_or_init(|| Running { wakers, stop: stop.clone(), counters }).wake();
    if health.fault().is_some() {
        // The storage failed before it could tell the shards.
        stop.drain();
    }
    tracing::info!(
        target: FOCUS,
        "node {} runs on {shard_count} shard(s), data in {}",
        config.cluster.node_id,
        config.data_dir.display()
    );
    let watched = config.listen.wss.clone().zip(tls);
    let certificate = watched.map(|(wss, tls)| certificate::watch(wss, tls)).transpose()?;
    heed_signals(stop, health.clone(), guard.clone(), cluster.post.clone(), certificate)?;
    let ended = shards.wait();
    if ended.is_err() {
        guard.end(Cause::Fault);
    }
    storage.close();
    if let Some(fault) = health.fault() {
        bail!("{fault}");
    }
    ended?;
    tracing::info!(target: FOCUS, "stopped");
    Ok(())
}

/// Waits on a thread until every shard has said that it accepts clients.
fn tell_serving(
    shard_count: u16,
    serving: impl FnOnce() + Send + 'static,
) -> anyhow::Result<flume::Sender<()>> {
    let (sender, opened) = flume::unbounded();
    thread::Builder::new().name("serving".into()).spawn(move || {
        if (0..shard_count).all(|_| opened.recv().is_ok()) {
            tracing::info!(target: FOCUS, "clients are accepted");
            serving();
        }
    })?;
    Ok(sender)
}

/// What lanes and routes need of the shards, which start after them.
pub(crate) struct Running {
    wakers: Vec<ShardWaker>,
    stop: Stop,
    /// By shard.
    counters: Vec<Arc<Counters>>,
}

impl Running {
    fn wake(&self) {
        for waker in &self.wakers {
            waker.wake();
        }
    }
}

/// Opens the data directory. What becomes durable is told to every shard; a database that fails
/// stops the node, and nothing is acknowledged any more.
fn open_storage(
    config: &Config,
    health: &Arc<NodeHealth>,
    guard: &Guard,
    senders: Vec<flume::Sender<Synced>>,
    running: &Arc<OnceLock<Running>>,
) -> anyhow::Result<Storage> {
    let on_fatal = {
        let (health, guard, running) = (health.clone(), guard.clone(), running.clone());
        move |error: &StorageError| {
            tracing::error!("the storage failed, the node stops: {error}");
            health.set_fault(format!("the storage failed: {error}"));
            guard.end(Cause::Fault);
            if let Some(running) = running.get() {
                running.stop.drain();
            }
        }
    };
    let on_synced = {
        let running = running.clone();
        move |moved: &[(SlotId, LogId)]| {
            for sender in &senders {
                // A shard that has ended wants to know nothing.
                let _ = sender.send(moved.to_vec());
            }
            if let Some(running) = running.get() {
                running.wake();
            }
        }
    };
    let storage = Storage::open(&StorageOptions {
        path: config.data_dir.clone(),
        node: NodeId(config.cluster.node_id.into()),
        slot_count: config.cluster.slot_count,
        state_cache_size: config.storage.cache_max,
        state_sync_interval: config.storage.persist_interval,
        on_fatal: Arc::new(on_fatal),
        on_synced: Arc::new(on_synced),
        on_idle: OnIdle::new(memory::give_back),
    })?;
    Ok(storage)
}

/// How long a node that stops gives others to take over what it leads.
const HAND_OVER_MAX: Duration = Duration::from_secs(3);

/// SIGTERM and SIGINT drain the node: others take over what it leads first. A second signal changes
/// nothing. SIGHUP has the certificate read again, if there is one.
fn heed_signals(
    stop: Stop,
    health: Arc<NodeHealth>,
    guard: Guard,
    post: Post,
    certificate: Option<flume::Sender<()>>,
) -> anyhow::Result<()> {
    let reload = certificate.is_some().then_some(SIGHUP);
    let mut signals = Signals::new([SIGTERM, SIGINT].into_iter().chain(reload))
        .context("signals cannot be caught")?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            if signal == SIGHUP {
                // The thread that hears it lives as long as this one.
                let _ = certificate.as_ref().map(|certificate| certificate.send(()));
                continue;
            }
            tracing::info!(target: FOCUS, "signal {signal}: draining");
            health.set_draining();
            post.hand_over(HAND_OVER_MAX);
            guard.end(Cause::Told);
            stop.drain();
        }
    })?;
    Ok(())
}
