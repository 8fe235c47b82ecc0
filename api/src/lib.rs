//! The HTTP API: what business back ends, operators and Prometheus ask of a node.
//!
//! This crate owns the routes, the JSON that goes in and out, and the composition of requests that
//! concern several slots. It will never know a socket, a runtime, a store or another node: an HTTP
//! request comes in as data ([`HttpRequest`]), the shard is asked through [`Node`], and the answer
//! leaves as data ([`HttpResponse`]).
//!
//! ```text
//!   HttpRequest ─► caller ─► route ─► body ─► Request(s) ─► Node::ask ─► Reply ─► HttpResponse
//!                  manager/  routes.rs json/   a file per resource                 answer.rs
//! ```
//!
//! A change is answered after its entry is committed and applied (G1, G7); a time-out is answered
//! as such, because the change may still take effect.

mod answer;
mod api;
mod channel;
mod cluster;
mod command_sync;
mod connection;
mod conversation;
mod data;
mod demo;
mod docs;
mod figures;
mod health;
mod history;
mod http;
mod ids;
mod json;
mod list;
mod lookup;
mod manager;
mod message;
mod message_json;
mod metrics;
mod migrate;
mod node;
mod plugin;
mod query;
mod route;
mod routes;
mod secret;
mod settings;
mod static_file;
mod stream;
mod stream_json;
mod sync_messages;
mod system_accounts;
mod tag;
mod time;
mod user;
mod varz;
mod webhook;

#[cfg(test)]
mod testing;

pub use self::{
    api::Api,
    cluster::{
        ClusterChange, ClusterView, LogEntryView, LogPage, LogQuery, NodeStatus, NodeView,
        ReplicaRole, ReplicaView, SlotView,
    },
    figures::{ClusterFigures, GroupFigures, PeerFigures},
    http::{HttpRequest, HttpResponse},
    json::fuzz_body,
    manager::{Attempts, LoginSettings, ManagerUser, Right},
    node::{Check, Fault, Health, Io, Node, Process, WebhookFigures},
    secret::Secret,
    settings::{Addresses, ApiSettings, Version},
    webhook::{notify_body, offline_body, status_body},
};
