//! The HTTP API on a shard: requests of the net crate in the words of the api crate.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use jindou_api::{Api, Health, Node, Process};
use jindou_core::{
    effect::Now,
    id::{ShardId, SlotId},
    request::{Reply, Request, Target},
};
use jindou_net::{Handle, HttpRequest, HttpResponse, HttpService, LocalBoxFuture};

use super::{health::NodeHealth, process};

/// What the API asks of the shard that accepted its connection.
pub(super) struct ShardNode {
    pub(super) handle: Handle,
    pub(super) slot_count: u16,
    pub(super) shard_count: u16,
    pub(super) health: Arc<NodeHealth>,
    /// A generator of client numbers that the back end left out; seeded by the system.
    pub(super) random: RefCell<process::Random>,
}

impl Node for ShardNode {
    fn ask(&self, to: Target, request: Request) -> futures::future::LocalBoxFuture<'_, Reply> {
        Box::pin(self.handle.request(to, request))
    }

    fn shard_of(&self, id: &str) -> ShardId {
        ShardId::of(SlotId::of(id, self.slot_count), self.shard_count)
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
}

/// Which port a request came to.
#[derive(Clone, Copy)]
pub(super) enum Door {
    /// The business API.
    Api,
    /// The manager port, with `/metrics`.
    Manager,
}

/// Serves one listener.
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
            };
            HttpResponse { status: response.status, headers: response.headers, body: response.body }
        })
    }
}
