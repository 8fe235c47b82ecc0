//! The HTTP API on a shard: requests of the net crate in the words of the api crate.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{Arc, OnceLock},
};

use jindou_api::{
    Api, ClusterChange, ClusterFigures, ClusterView, Health, Io, LogPage, LogQuery, Node, Process,
    ReplicaView, Secret,
};
use jindou_core::{
    effect::Now,
    id::SlotId,
    request::{Reply, Request, Target},
};
use jindou_net::{Counters, Handle, HttpRequest, HttpResponse, HttpService, LocalBoxFuture};

use super::{Running, cluster::Office, health::NodeHealth, process};

/// What the API asks of the shard that accepted its connection.
pub(super) struct ShardNode {
    pub(super) handle: Handle,
    pub(super) slot_count: u16,
    pub(super) shard_count: u16,
    pub(super) health: Arc<NodeHealth>,
    pub(super) running: Arc<OnceLock<Running>>,
    pub(super) office: Office,
    /// A generator of client numbers that the back end left out; seeded by the system.
    pub(super) random: RefCell<process::Random>,
}

impl Node for ShardNode {
    fn ask(&self, to: Target, request: Request) -> futures::future::LocalBoxFuture<'_, Reply> {
        Box::pin(self.handle.request(to, request))
    }

    fn slot_of(&self, id: &str) -> SlotId {
        SlotId::of(id, self.slot_count)
    }

    fn slot_count(&self) -> u16 {
        self.slot_count
    }

    fn shards(&self) -> u16 {
        self.shard_count
    }

    fn now(&self) -> Now {
        self.handle.now()
    }

    fn random(&self) -> u128 {
        self.random.borrow_mut().next()
    }

    fn health(&self) -> Health {
        self.health.report()
    }

    fn process(&self) -> Process {
        process::read(&self.health)
    }

    fn io(&self) -> Vec<Io> {
        let counters = self.running.get().map_or(&[][..], |running| &running.counters);
        counters.iter().map(|counters| io(counters)).collect()
    }

    fn figures(&self) -> LocalBoxFuture<Result<ClusterFigures, String>> {
        let (office, health) = (self.office.clone(), self.health.clone());
        Box::pin(async move {
            let mut figures = office.figures().await?;
            figures.groups.leader_changes = health.leader_changes();
            Ok(figures)
        })
    }

    fn cluster(&self) -> LocalBoxFuture<Result<ClusterView, String>> {
        let office = self.office.clone();
        Box::pin(async move { office.view().await })
    }

    fn replicas(&self, slot: SlotId) -> LocalBoxFuture<Result<Vec<ReplicaView>, String>> {
        let office = self.office.clone();
        Box::pin(async move { office.replicas(slot).await })
    }

    fn change_cluster(&self, change: ClusterChange) -> LocalBoxFuture<Result<(), String>> {
        let office = self.office.clone();
        Box::pin(async move { office.change(change).await })
    }

    fn logs(&self, query: LogQuery) -> LocalBoxFuture<Result<LogPage, String>> {
        let office = self.office.clone();
        Box::pin(async move { office.logs(query).await })
    }

    fn login_key(&self) -> LocalBoxFuture<Result<Secret, String>> {
        let office = self.office.clone();
        Box::pin(async move { office.login_key().await })
    }
}

fn io(counters: &Counters) -> Io {
    Io {
        accepted: counters.accepted.get(),
        refused: counters.refused.get(),
        accept_errors: counters.accept_errors.get(),
        closed_slow: counters.closed_slow.get(),
        closed_late: counters.closed_late.get(),
        handshakes_cut: counters.handshakes_cut.get(),
        reads: counters.reads.get(),
        sends: counters.sends.get(),
        writes: counters.writes.get(),
        output_size: counters.output_size.get(),
        turns: counters.turns.get(),
        wakeups: counters.wakeups.get(),
        envelopes: counters.envelopes_out.get(),
        ring_full: counters.ring_full.get(),
        http_accepted: counters.http_accepted.get(),
        http_open: counters.http_open.get(),
        http_requests: counters.http_requests.get(),
        link_bytes_in: counters.link_bytes_in.get(),
        link_bytes_out: counters.link_bytes_out.get(),
        link_frames_in: counters.link_frames_in.get(),
        link_frames_out: counters.link_frames_out.get(),
        raft_frames_in: counters.link_raft_frames_in.get(),
        raft_frames_out: counters.link_raft_frames_out.get(),
        raft_bytes_in: counters.link_raft_bytes_in.get(),
        raft_bytes_out: counters.link_raft_bytes_out.get(),
        link_refusals: counters.link_refusals.get(),
    }
}

/// Which port a request came to.
#[derive(Clone, Copy)]
pub(super) enum Door {
    /// The business API.
    Api,
    /// The manager port, with `/metrics`.
    Manager,
    /// The chat demo.
    Demo,
}

/// Serves the API on one listener.
pub(super) struct Service {
    pub(super) api: Rc<Api<ShardNode>>,
    pub(super) door: Door,
}

impl HttpService for Service {
    fn call(&self, request: HttpRequest) -> LocalBoxFuture<HttpResponse> {
        let (api, door) = (self.api.clone(), self.door);
        Box::pin(async move {
            let request = jindou_api::HttpRequest {
                method: request.method,
                path: request.path,
                query: request.query,
                headers: request.headers,
                body: request.body,
                peer: request.peer,
            };
            let response = match door {
                Door::Api => api.handle(request).await,
                Door::Manager => api.handle_manager(request).await,
                Door::Demo => api.handle_demo(&request),
            };
            HttpResponse { status: response.status, headers: response.headers, body: response.body }
        })
    }
}
