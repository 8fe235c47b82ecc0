//! A node: configuration → wiring → run → drain.

mod executor;
mod health;
mod http;
mod process;
mod settings;
mod shard;

use std::{
    net::TcpListener,
    sync::{Arc, OnceLock},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use jindou_cluster::Router;
use jindou_core::id::{LogId, NodeId, ShardId, SlotId};
use jindou_net::{
    Admission, DriverKind, ShardWaker, Shards, ShardsSettings, Stop, allowed_cpus, bind, probe,
};
use jindou_storage::{Storage, StorageError, StorageOptions};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

use self::{
    health::NodeHealth,
    shard::{Listeners, Parts, Synced},
};
use crate::config::{Config, ListenAddr};

/// Runs a node until it is told to stop. Returns after a clean drain.
///
/// # Errors
/// What keeps the node from starting, or ended it. Nothing that was acknowledged is lost.
pub fn run(config: &Config) -> anyhow::Result<()> {
    refuse_what_is_to_come(config)?;
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
    // Bound before anything is opened: a port that is taken fails the start at once.
    let listeners = Arc::new(bind_all(config, shard_count)?);

    let core = Arc::new(settings::core(config));
    let io_uring = driver.kind == DriverKind::IoUring;
    let health = Arc::new(NodeHealth::new(core.slot_count, io_uring, started_ms));
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..shard_count).map(|_| flume::unbounded::<Synced>()).unzip();
    let bells = Arc::new(OnceLock::new());
    let storage = open_storage(config, &health, senders, &bells)?;
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
        bells: bells.clone(),
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
    let wakers = (0..shard_count).filter_map(|n| shards.waker(ShardId(n))).collect();
    // A group may have begun to serve before there was a bell to ring.
    bells.get_or_init(|| Bells { wakers, stop: shards.stop() }).wake();
    tracing::info!(
        "node {} runs on {shard_count} shard(s), data in {}",
        config.cluster.node_id,
        config.data_dir.display()
    );
    stop_on_signal(shards.stop(), health.clone())?;
    let ended = wait(shards, &health);
    storage.close();
    ended?;
    tracing::info!("stopped");
    Ok(())
}

/// How the lanes reach shards that start after them.
struct Bells {
    wakers: Vec<ShardWaker>,
    stop: Stop,
}

impl Bells {
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
    senders: Vec<flume::Sender<Synced>>,
    bells: &Arc<OnceLock<Bells>>,
) -> anyhow::Result<Storage> {
    let on_fatal = {
        let (health, bells) = (health.clone(), bells.clone());
        move |error: &StorageError| {
            tracing::error!("the storage failed, the node stops: {error}");
            health.set_fault(error.to_string());
            if let Some(bells) = bells.get() {
                bells.stop.drain();
            }
        }
    };
    let on_synced = {
        let bells = bells.clone();
        move |moved: &[(SlotId, LogId)]| {
            for sender in &senders {
                // A shard that has ended wants to know nothing.
                let _ = sender.send(moved.to_vec());
            }
            if let Some(bells) = bells.get() {
                bells.wake();
            }
        }
    };
    let storage = Storage::open(&StorageOptions {
        path: config.data_dir.clone(),
        node: NodeId(config.cluster.node_id.into()),
        slot_count: config.cluster.slot_count,
        on_fatal: Arc::new(on_fatal),
        on_synced: Arc::new(on_synced),
    })?;
    Ok(storage)
}

fn wait(shards: Shards, health: &NodeHealth) -> anyhow::Result<()> {
    shards.wait()?;
    match health.report().checks.into_iter().find(|check| check.name == "storage" && !check.ok) {
        Some(fault) => bail!("{}", fault.detail),
        None => Ok(()),
    }
}

fn refuse_what_is_to_come(config: &Config) -> anyhow::Result<()> {
    if config.cluster.init_nodes.len() > 1 || config.cluster.seed.is_some() {
        bail!(
            "this version runs a single node: remove cluster.initNodes and cluster.seed \
             (WK_CLUSTER_INITNODES, WK_CLUSTER_SEED)"
        );
    }
    if config.listen.wss.is_some() {
        tracing::warn!("wssAddr is not served by this version: put a TLS proxy before wsAddr");
    }
    Ok(())
}

fn bind_all(config: &Config, shard_count: u16) -> anyhow::Result<Listeners> {
    let bind = |name: &str, address: &ListenAddr| -> anyhow::Result<Vec<TcpListener>> {
        let resolved = address.resolve().with_context(|| format!("{name} {address}"))?;
        let sockets = bind(resolved, shard_count)
            .with_context(|| format!("cannot listen on {name} {address}"))?;
        tracing::info!("{name} listens on {resolved}");
        Ok(sockets)
    };
    let listen = &config.listen;
    Ok(Listeners {
        tcp: bind("addr", &listen.tcp)?,
        ws: bind("wsAddr", &listen.ws)?,
        http: bind("httpAddr", &listen.http)?,
        manager: match &listen.manager {
            Some(address) => bind("manager.addr", address)?,
            None => Vec::new(),
        },
    })
}

/// SIGTERM and SIGINT drain the node; a second one changes nothing.
fn stop_on_signal(stop: Stop, health: Arc<NodeHealth>) -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT]).context("signals cannot be caught")?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            tracing::info!("signal {signal}: draining");
            health.set_draining();
            stop.drain();
        }
    })?;
    Ok(())
}
