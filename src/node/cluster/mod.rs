//! This node as one of a cluster: who belongs to it, how a node begins, and who keeps it in shape.
//!
//! ```text
//!   begin ──► startup::decide ──► Found: every shard makes its groups
//!     │                      └──► Enter: a member writes this node into the document of group 0
//!     ▼
//!   document ◄── keys that group 0 applies      preside ──► look ──► plan ──► letters to leaders
//! ```
//! Messages and Raft frames do not come by here: they go from the executor and from the groups
//! through `mail` straight to the links.

mod begin;
mod document;
mod figures;
mod gate;
mod letters;
mod login_key;
mod logs;
mod mail;
mod observed;
mod office;
mod plan;
mod post;
mod preside;
mod settings;
mod startup;
mod view;

use std::{cell::Cell, net::TcpListener, rc::Rc, sync::Arc};

use anyhow::Context as _;
use jindou_cluster::Options;
use jindou_net::{
    Handle,
    link::{Identity, LinkSettings, Links, Secret},
};

pub(super) use self::{
    begin::Begun,
    document::SharedDocument,
    mail::{Inbound, LinkTransport},
    office::Office,
    post::Post,
};
use self::{gate::Gate, office::OfficeParts, settings::ClusterSettings};
use super::{executor::ShardGroups, process, shard::Parts};
use crate::config::Config;

/// What all shards share about the cluster. A node view.
#[derive(Clone)]
pub(super) struct ClusterParts {
    settings: Arc<ClusterSettings>,
    pub(super) document: Arc<SharedDocument>,
    gate: Arc<Gate>,
    identity: Arc<Identity>,
    pub(super) post: Post,
    pub(super) begun: Arc<Begun>,
    incarnation: u64,
    shard_count: u16,
    slot_count: u16,
}

impl ClusterParts {
    /// From the configuration.
    ///
    /// # Errors
    /// What can't work, with what to do about it.
    pub(super) fn new(config: &Config, shard_count: u16) -> anyhow::Result<Self> {
        let settings = Arc::new(ClusterSettings::of(config)?);
        let document = Arc::new(SharedDocument::default());
        let gate = Arc::new(Gate::new(settings.clone(), document.clone()));
        let dice = || process::seed().context("the system gives no random bytes");
        let secret = settings.secret.as_deref().map(Secret::configured);
        let incarnation = dice()?.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let identity = Identity::new(shard_count, 0, secret, dice()?, gate.clone());
        Ok(Self {
            settings,
            document,
            gate,
            identity,
            post: Post::new(shard_count),
            begun: Arc::default(),
            incarnation,
            shard_count,
            slot_count: config.cluster.slot_count,
        })
    }

    /// The links of one shard.
    pub(super) fn links(&self, handle: &Handle, inbound: Rc<Inbound>) -> Links {
        let settings = LinkSettings {
            tls: self.settings.tls.clone(),
            ..LinkSettings::new(
                self.settings.node,
                self.incarnation,
                self.shard_count,
                self.slot_count,
            )
        };
        Links::new(handle.clone(), settings, self.identity.clone(), inbound)
    }

    /// How its groups behave.
    pub(super) fn options(&self) -> Options {
        Options { seed: self.incarnation, ..Options::default() }
    }

    /// The office of one shard.
    pub(super) fn office(
        &self,
        handle: &Handle,
        parts: &Parts,
        links: &Links,
        groups: &ShardGroups,
        listener: Option<TcpListener>,
    ) -> Office {
        let office = Office::new(OfficeParts {
            handle: handle.clone(),
            shard_count: self.shard_count,
            slot_count: self.slot_count,
            settings: self.settings.clone(),
            document: self.document.clone(),
            gate: self.gate.clone(),
            identity: self.identity.clone(),
            post: self.post.clone(),
            links: links.clone(),
            listener: Cell::new(listener),
            groups: groups.clone(),
            router: parts.router.clone(),
        });
        let (source, mut seen) = (office.clone(), None);
        handle.add_source(move |_| {
            let version = source.document().version();
            if seen.replace(version) != Some(version) {
                source.follow_document();
            }
            source.take_letters()
        });
        office
    }
}
