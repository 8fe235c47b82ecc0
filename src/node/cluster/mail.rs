//! Between the links and the shard: frames of groups, envelopes, letters, and word of the peers.

use std::{
    cell::{OnceCell, RefCell},
    collections::BTreeMap,
    sync::Arc,
};

use bytes::Bytes;
use futures::{FutureExt as _, future::LocalBoxFuture};
use jindou_cluster::{AsyncRuntime as _, GroupId, Node, Runtime, Transport, TransportError};
use jindou_core::{
    effect::{Event, PeerState, Place},
    id::{NodeId, ShardAddr, ShardId},
    link::decode,
};
use jindou_net::{
    Handle,
    link::{Answerer, HelloInfo, LinkError, LinkInbound, Links, Refusal, RefusalCode},
};

use super::{
    letters::{Answer, read_ask, to_bytes},
    office::Office,
};
use crate::node::{executor::ShardGroups, health::NodeHealth};

/// What comes in on the links of a shard.
pub(in crate::node) struct Inbound {
    handle: Handle,
    health: Arc<NodeHealth>,
    /// By node: drawn at its start, as it was last seen.
    incarnations: RefCell<BTreeMap<NodeId, u64>>,
    /// Made after the links, which they use.
    inner: OnceCell<(ShardGroups, Office)>,
}

impl Inbound {
    pub(in crate::node) fn new(handle: &Handle, health: &Arc<NodeHealth>) -> Self {
        let (handle, health) = (handle.clone(), health.clone());
        Self { handle, health, incarnations: RefCell::default(), inner: OnceCell::new() }
    }

    /// The groups and the office are there.
    pub(in crate::node) fn open(&self, groups: &ShardGroups, office: &Office) {
        // Once per shard.
        let _ = self.inner.set((groups.clone(), office.clone()));
    }

    fn groups(&self) -> Option<&ShardGroups> {
        self.inner.get().map(|(groups, _)| groups)
    }
}

impl LinkInbound for Inbound {
    fn raft(&self, _: NodeId, group: u16, frame: Bytes, answer: Answerer) {
        if let Some(groups) = self.groups() {
            groups.receive(GroupId(group), frame, answer);
        }
    }

    fn envelopes(&self, from: ShardAddr, body: Bytes) {
        match decode(&body) {
            Ok(envelopes) => {
                for envelope in envelopes {
                    self.handle.push(Event::Remote { from: from.node, envelope });
                }
            }
            Err(error) => tracing::error!(
                "envelopes of node {} are not understood and dropped: {error}",
                from.node.0
            ),
        }
    }

    fn control(&self, from: HelloInfo, body: Bytes, answer: Answerer) {
        let Some((_, office)) = self.inner.get() else { return };
        let office = office.clone();
        drop(Runtime::spawn(async move {
            let told = match read_ask(&body) {
                Ok(ask) => office.answer_node(from.node, ask).await,
                Err(error) => Answer::refuse(error),
            };
            answer(to_bytes(&told));
        }));
    }

    fn peer(&self, node: NodeId, state: PeerState) {
        self.health.set_reached(node, matches!(state, PeerState::Up { .. }));
        // Each shard has links of its own; one line is enough.
        if self.handle.shard() == ShardId(0) {
            match state {
                PeerState::Up { .. } => tracing::info!("node {} is reached", node.0),
                PeerState::Down => tracing::warn!("node {} is not reached any more", node.0),
                PeerState::Dead => tracing::warn!("node {} counts as dead", node.0),
            }
        }
        if let Some(groups) = self.groups() {
            let mut incarnations = self.incarnations.borrow_mut();
            if let PeerState::Up { incarnation, .. } = state
                && incarnations.insert(node, incarnation).is_some_and(|old| old != incarnation)
            {
                groups.restarted(node);
            }
            groups.peer(node, matches!(state, PeerState::Up { .. }));
        }
        self.handle.push(Event::Peer { node, state });
    }

    fn heard(&self, from: NodeId, mono_ms: u64) {
        if let Some(groups) = self.groups() {
            groups.heard(from, mono_ms);
        }
    }

    fn answered(&self, node: NodeId, sent_mono_ms: u64) {
        if let Some(groups) = self.groups() {
            groups.peer_answered(node, sent_mono_ms);
        }
    }

    fn refused(&self, node: NodeId, refusal: &Refusal) {
        if self.handle.shard() != ShardId(0) {
            return;
        }
        tracing::error!("node {} refuses this node: {refusal}", node.0);
        let is_member = self.inner.get().is_some_and(|(_, office)| office.is_member());
        if is_member && refusal.code == RefusalCode::NotMember {
            // It has no links any more, and so nothing to serve: /health turns red by that.
            self.health.set_waiting(Some(format!("node {} says: {refusal}", node.0)));
        }
    }
}

/// Carries the frames of the groups.
#[derive(Clone)]
pub(in crate::node) struct LinkTransport(pub(in crate::node) Links);

impl Transport for LinkTransport {
    fn call(
        &self,
        to: NodeId,
        _: &Node,
        group: GroupId,
        frame: Bytes,
    ) -> LocalBoxFuture<'static, Result<Bytes, TransportError>> {
        let called = self.0.call(to, group.0, Place::Slot(group.slot()), frame);
        called
            .map(move |answer| {
                answer.map_err(|error| match error {
                    LinkError::Unreachable(_) => TransportError::Unreachable(to),
                    LinkError::Broken(_) | LinkError::TooLarge { .. } | LinkError::Refused(_) => {
                        TransportError::Broken(error.to_string())
                    }
                })
            })
            .boxed_local()
    }
}
