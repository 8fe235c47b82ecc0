//! One shard's thread: groups, rules, sockets and API, wired together.

use std::{
    cell::RefCell,
    net::TcpListener,
    rc::Rc,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::Context as _;
use futures::future::{Either, select};
use jindou_api::{Api, ApiSettings};
use jindou_cluster::{AsyncRuntime as _, Groups, Router, Runtime, Setup, Sink};
use jindou_core::{
    effect::{Event, Inbox, Now, Outbox, Port, Stepped},
    id::{LogId, ShardId, SlotId},
    settings::Settings,
    shard::{CLUSTER_SLOT, Shard},
};
use jindou_net::{Admission, ClientTls, Driver, Handle, HttpSettings, Machine, ShardContext};
use jindou_storage::{LogStorage, StateStorage, completions};

use super::{
    Running,
    cluster::{ClusterParts, Inbound, LinkTransport, Office},
    datasource::Datasource,
    executor::{NodeExecutor, ShardGroups, drain_completions},
    guard::{Cause, Guard},
    health::NodeHealth,
    http::{Door, Service, ShardNode},
    listeners::Listeners,
    process,
    webhook::Webhooks,
};
use crate::memory;

/// How often time passes for the groups, in milliseconds.
const TICK_MIN_MS: u64 = 5;
const TICK_MAX_MS: u64 = 500;

/// How long groups may take to stop, and how often they get their answers meanwhile.
const CLOSE_MAX: Duration = Duration::from_millis(1_000);
const ANSWER_PAUSE: Duration = Duration::from_millis(1);

/// How often a shard gives back memory that it has freed.
const GIVE_BACK_MS: u64 = 10_000;

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
    pub(super) running: Arc<OnceLock<Running>>,
    pub(super) guard: Guard,
    pub(super) cluster: ClusterParts,
    /// What is shown on the wss port.
    pub(super) tls: Option<ClientTls>,
    /// Told by each shard when it accepts clients.
    pub(super) serving: flume::Sender<()>,
    pub(super) webhooks: Webhooks,
    pub(super) datasource: Datasource,
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

    fn unfinished(&self) -> String {
        self.0.unfinished()
    }
}

/// Runs a shard to its end. An error stops the node.
pub(super) async fn run(context: ShardContext, parts: Parts) {
    let (stop, health, guard) = (context.stop.clone(), parts.health.clone(), parts.guard.clone());
    let shard = context.shard.0;
    let fail = move |error: &anyhow::Error| {
        tracing::error!("shard {shard} stops the node: {error:#}");
        health.set_fault(format!("shard {shard} failed: {error:#}"));
        guard.end(Cause::Fault);
        stop.drain();
    };
    if let Err(error) = run_to_end(context, parts, &fail).await {
        fail(&error);
    }
}

async fn run_to_end(
    context: ShardContext,
    parts: Parts,
    fail: &(impl Fn(&anyhow::Error) + Clone + 'static),
) -> anyhow::Result<()> {
    let (handle, id) = (context.handle.clone(), context.shard);
    let seed = process::seed().context("the system gives no random bytes")?;
    let rules = Rules(Shard::new(id, parts.settings.clone(), seed));
    let waker = handle.waker();
    let (completions, completed) = completions(id, Arc::new(move || waker.wake()));
    let inbound = Rc::new(Inbound::new(&handle, &parts.health));
    let links = parts.cluster.links(&handle, inbound.clone());
    let groups = Groups::new(Setup {
        node: parts.settings.node,
        log: parts.log.clone(),
        state: parts.state.clone(),
        completions: completions.clone(),
        sink: sink(&handle, &parts.cluster),
        transport: LinkTransport(links.clone()),
        router: parts.router.clone(),
        options: parts.cluster.options(),
    })?;
    let listener = parts.listeners.cluster.get(usize::from(id.0)).map(TcpListener::try_clone);
    let office = parts.cluster.office(&handle, &parts, &links, &groups, listener.transpose()?);
    inbound.open(&groups, &office);
    {
        let (groups, completed) = (groups.clone(), completed.clone());
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
    let executor = NodeExecutor {
        groups: groups.clone(),
        state,
        completions,
        links: links.clone(),
        router: parts.router.clone(),
        health: parts.health.clone(),
        running: parts.running.clone(),
        document: parts.cluster.document.clone(),
        post: parts.cluster.post.clone(),
        webhooks: parts.webhooks.clone(),
        datasource: parts.datasource.clone(),
    };
    parts.webhooks.listen(&handle, id);
    parts.datasource.listen(&handle, id.0.into());
    let driver = Driver::new(context, rules, executor)?;
    keep_time(&handle, &groups);
    let opening = async {
        serve(&handle, id, &parts, &office, fail)?;
        office.begin(&parts.slots_of(id), &parts.cluster.begun, &parts.health).await?;
        if id == ShardId(0) {
            let office = office.clone();
            drop(Runtime::spawn(async move { office.preside().await }));
        }
        Ok(())
    };
    // Groups open through the driver, so both run. Told to stop meanwhile, it opens no more.
    let driving = Box::pin(driver.run());
    if let Either::Left((opened, driving)) = select(Box::pin(opening), driving).await {
        if let Err(error) = &opened {
            fail(error);
        }
        driving.await;
    }
    close(&groups, || drain_completions(&completed, &groups, &handle)).await;
    Ok(())
}

/// Stops the groups. The driver has ended, and a group that saves a vote or appends at this moment
/// still waits for the answer of its lane.
async fn close(groups: &ShardGroups, answers: impl Fn() -> bool) {
    let answering = async {
        loop {
            while answers() {}
            Runtime::sleep(ANSWER_PAUSE).await;
        }
    };
    let closing = Runtime::timeout(CLOSE_MAX, groups.shutdown());
    if let Either::Left((Err(_), _)) = select(Box::pin(closing), Box::pin(answering)).await {
        tracing::warn!("groups did not stop within {} ms", CLOSE_MAX.as_millis());
    }
}

/// The groups' way into the shard's inbox. What the cluster's group has on disk is known before
/// anybody says hello.
fn sink(handle: &Handle, cluster: &ClusterParts) -> Sink {
    let (handle, document) = (handle.clone(), cluster.document.clone());
    Rc::new(move |event| {
        if let Event::SlotOpened { slot: CLUSTER_SLOT, rows } = &event {
            for (key, value) in &rows.cluster {
                document.apply(key, value);
            }
        }
        handle.push(event);
    })
}

/// Lets time pass for the groups.
fn keep_time(handle: &Handle, groups: &ShardGroups) {
    let (handle, groups) = (handle.clone(), groups.clone());
    let mut gave_ms = 0;
    drop(Runtime::spawn(async move {
        loop {
            let now_ms = handle.now().mono_ms;
            if now_ms >= gave_ms + GIVE_BACK_MS {
                gave_ms = now_ms;
                memory::give_back();
            }
            let next_ms = groups.tick(now_ms);
            let pause_ms = next_ms.saturating_sub(now_ms).clamp(TICK_MIN_MS, TICK_MAX_MS);
            Runtime::sleep(Duration::from_millis(pause_ms)).await;
        }
    }));
}

impl Parts {
    /// The groups of a shard.
    fn slots_of(&self, id: ShardId) -> Vec<SlotId> {
        let settings = &self.settings;
        let mut slots: Vec<SlotId> = (0..settings.slot_count)
            .map(SlotId)
            .filter(|slot| ShardId::of(*slot, settings.shard_count) == id)
            .collect();
        if id == ShardId(0) {
            slots.push(CLUSTER_SLOT);
        }
        slots
    }
}

/// Opens the doors of this shard: those of the API at once, so that /health can be asked, those of
/// the clients when every group serves. Until then clients wait in the kernel's queue. A CONNECT
/// that came to a slot without a leader would have to be refused, and there are SDKs that never
/// try again after a refusal.
fn serve(
    handle: &Handle,
    id: ShardId,
    parts: &Parts,
    office: &Office,
    fail: &(impl Fn(&anyhow::Error) + Clone + 'static),
) -> anyhow::Result<()> {
    let place = usize::from(id.0);
    let own = |listeners: &[TcpListener]| {
        listeners.get(place).map(TcpListener::try_clone).transpose().context("no socket")
    };
    let node = ShardNode {
        handle: handle.clone(),
        slot_count: parts.settings.slot_count,
        shard_count: parts.settings.shard_count,
        health: parts.health.clone(),
        running: parts.running.clone(),
        office: office.clone(),
        random: RefCell::new(process::Random::new()),
    };
    let api = Rc::new(Api::new(node, parts.api.clone()));
    let listeners = &parts.listeners;
    let doors = [
        (&listeners.http, Door::Api),
        (&listeners.manager, Door::Manager),
        (&listeners.demo, Door::Demo),
    ];
    for (sockets, door) in doors {
        if let Some(socket) = own(sockets)? {
            let service = Rc::new(Service { api: api.clone(), door });
            handle.serve_http(socket, parts.http_admission.clone(), parts.http, service)?;
        }
    }
    let mut waiting = Vec::new();
    let tls = parts.tls.as_ref();
    for (sockets, port, tls) in [
        (&listeners.tcp, Port::Tcp, None),
        (&listeners.ws, Port::Ws, None),
        (&listeners.wss, Port::Ws, tls),
    ] {
        waiting.extend(own(sockets)?.map(|socket| (socket, port, tls.cloned())));
    }
    let (admission, health) = (parts.admission.clone(), parts.health.clone());
    let (serving, fail) = (parts.serving.clone(), fail.clone());
    handle.add_source(move |handle| {
        if !waiting.is_empty() && health.is_ready() {
            let open = |(socket, port, tls)| match tls {
                None => handle.listen(socket, port, admission.clone()),
                Some(tls) => handle.listen_tls(socket, port, admission.clone(), tls),
            };
            if let Err(error) = waiting.drain(..).try_for_each(open) {
                fail(&anyhow::Error::new(error).context("clients can't be accepted"));
            }
            // Nobody listens any more when the node ends already.
            let _ = serving.send(());
        }
        false
    });
    Ok(())
}
