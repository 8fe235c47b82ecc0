//! One shard's thread: groups, rules, sockets and API, wired together.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::TcpListener,
    rc::Rc,
    sync::{Arc, OnceLock},
};

use anyhow::Context as _;
use jindou_api::{Api, ApiSettings};
use jindou_cluster::{Groups, NoPeers, Node, Options, Router, Setup, Sink};
use jindou_core::{
    effect::{Event, Inbox, Now, Outbox, Port, Stepped},
    id::{LogId, NodeId, ShardId, SlotId},
    settings::Settings,
    shard::{CLUSTER_SLOT, Shard},
};
use jindou_net::{Admission, Driver, Handle, HttpSettings, Machine, ShardContext};
use jindou_storage::{LogStorage, StateStorage, completions};

use super::{
    Bells,
    executor::{NodeExecutor, ShardGroups, drain_completions},
    health::NodeHealth,
    http::{Door, Service, ShardNode},
    process,
};

/// Positions that have become durable in the state store.
pub(super) type Synced = Vec<(SlotId, LogId)>;

/// What every shard is made of; cloned for each thread.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) settings: Arc<Settings>,
    pub(super) api: ApiSettings,
    pub(super) http: HttpSettings,
    pub(super) log: Arc<dyn LogStorage>,
    pub(super) state: Arc<dyn StateStorage>,
    pub(super) router: Router,
    pub(super) health: Arc<NodeHealth>,
    pub(super) admission: Admission,
    pub(super) http_admission: Admission,
    /// By shard: what the state lane has synced.
    pub(super) synced: Arc<[flume::Receiver<Synced>]>,
    /// By listener, by shard.
    pub(super) listeners: Arc<Listeners>,
    pub(super) bells: Arc<OnceLock<Bells>>,
}

/// The sockets that were bound before the shards started, one of each per shard.
pub(super) struct Listeners {
    pub(super) tcp: Vec<TcpListener>,
    pub(super) ws: Vec<TcpListener>,
    pub(super) http: Vec<TcpListener>,
    pub(super) manager: Vec<TcpListener>,
}

/// The rules as the driver turns them.
struct Rules(Shard);

impl Machine for Rules {
    fn step(&mut self, now: Now, inbox: &mut Inbox, outbox: &mut Outbox) -> Stepped {
        self.0.step(now, inbox, outbox)
    }

    fn is_idle(&self) -> bool {
        self.0.is_idle()
    }
}

/// Runs a shard to its end. An error stops the node.
pub(super) async fn run(context: ShardContext, parts: Parts) {
    let (stop, health, shard) = (context.stop.clone(), parts.health.clone(), context.shard);
    if let Err(error) = run_to_end(context, parts).await {
        tracing::error!("shard {} stops the node: {error:#}", shard.0);
        health.set_fault(format!("{error:#}"));
        stop.drain();
    }
}

async fn run_to_end(context: ShardContext, parts: Parts) -> anyhow::Result<()> {
    let (handle, id) = (context.handle.clone(), context.shard);
    let seed = process::seed().context("the system gives no random bytes")?;
    let rules = Rules(Shard::new(id, parts.settings.clone(), seed));
    let waker = handle.waker();
    let (completions, completed) = completions(id, Arc::new(move || waker.wake()));
    let groups = Groups::new(Setup {
        node: parts.settings.node,
        log: parts.log.clone(),
        state: parts.state.clone(),
        completions: completions.clone(),
        sink: sink(&handle, &parts),
        transport: NoPeers,
        router: parts.router.clone(),
        options: Options::default(),
    })?;
    {
        let groups = groups.clone();
        handle.add_source(move |handle| drain_completions(&completed, &groups, handle));
    }
    if let Some(synced) = parts.synced.get(usize::from(id.0)).cloned() {
        let groups = groups.clone();
        handle.add_source(move |_| {
            for moved in synced.try_iter() {
                groups.synced(&moved);
            }
            false
        });
    }
    let state = parts.state.clone();
    let executor = NodeExecutor { groups: groups.clone(), state, completions };
    let driver = Driver::new(context, rules, executor)?;
    let opening = async {
        open_groups(&groups, id, &parts).await?;
        serve(&handle, id, &parts)
    };
    // Groups open through the driver, so both run.
    let (_, opened) = futures::join!(Box::pin(driver.run()), Box::pin(opening));
    Box::pin(groups.shutdown()).await;
    opened
}

/// The groups' way into the shard's inbox; leadership is noted for /health on the way, and the
/// last group that begins to serve opens the doors of all shards.
fn sink(handle: &Handle, parts: &Parts) -> Sink {
    let (handle, health, bells) = (handle.clone(), parts.health.clone(), parts.bells.clone());
    Rc::new(move |event| {
        let leading = match &event {
            Event::Leading { leading, .. } => Some(*leading),
            _ => None,
        };
        handle.push(event);
        if let Some(leading) = leading {
            health.set_serving(leading);
            if let Some(bells) = bells.get().filter(|_| health.is_ready()) {
                bells.wake();
            }
        }
    })
}

async fn open_groups(groups: &ShardGroups, id: ShardId, parts: &Parts) -> anyhow::Result<()> {
    let settings = &parts.settings;
    let mut slots: Vec<SlotId> = (0..settings.slot_count)
        .map(SlotId)
        .filter(|slot| ShardId::of(*slot, settings.shard_count) == id)
        .collect();
    if id == ShardId(0) {
        slots.push(CLUSTER_SLOT);
    }
    groups.open(&slots).await?;
    let alone: BTreeMap<NodeId, Node> = [(settings.node, Node::default())].into();
    groups.bootstrap(&alone).await?;
    Ok(())
}

/// Opens the doors of this shard: those of the API at once, so that /health can be asked, those of
/// the clients when every group serves. Until then clients wait in the kernel's queue. A CONNECT
/// that came to a slot without a leader would have to be refused, and there are SDKs that never
/// try again after a refusal.
fn serve(handle: &Handle, id: ShardId, parts: &Parts) -> anyhow::Result<()> {
    let place = usize::from(id.0);
    let own = |listeners: &[TcpListener]| {
        listeners.get(place).map(TcpListener::try_clone).transpose().context("no socket")
    };
    let node = ShardNode {
        handle: handle.clone(),
        slot_count: parts.settings.slot_count,
        shard_count: parts.settings.shard_count,
        health: parts.health.clone(),
        random: RefCell::new(process::Random::new()),
    };
    let api = Rc::new(Api::new(node, parts.api.clone()));
    let listeners = &parts.listeners;
    for (sockets, door) in [(&listeners.http, Door::Api), (&listeners.manager, Door::Manager)] {
        if let Some(socket) = own(sockets)? {
            let service = Rc::new(Service { api: api.clone(), door });
            handle.serve_http(socket, parts.http_admission.clone(), parts.http, service)?;
        }
    }
    let mut waiting = Vec::new();
    for (sockets, port) in [(&listeners.tcp, Port::Tcp), (&listeners.ws, Port::Ws)] {
        waiting.extend(own(sockets)?.map(|socket| (socket, port)));
    }
    let (admission, health, bells) =
        (parts.admission.clone(), parts.health.clone(), parts.bells.clone());
    handle.add_source(move |handle| {
        if !waiting.is_empty() && health.is_ready() {
            let open = |(socket, port)| handle.listen(socket, port, admission.clone());
            if let Err(error) = waiting.drain(..).try_for_each(open) {
                tracing::error!("shard {} cannot accept clients: {error}", id.0);
                health.set_fault(error.to_string());
                if let Some(bells) = bells.get() {
                    bells.stop.drain();
                }
            }
        }
        false
    });
    Ok(())
}
