//! openraft's network over a [`Transport`]: frames out, answers back. With one member it is never
//! called.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "every answer but those that belong to the question is a fault of the peer"
)]

use std::{
    cell::{Cell, RefCell},
    future::{Future, ready},
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt, future::LocalBoxFuture, stream};
use jindou_core::id::NodeId;
use jindou_storage::Outcome;
use openraft::{
    AsyncRuntime, OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2,
    base::{BoxFuture, BoxStream},
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
        TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};

use crate::{
    frame::{Answer, Ask, NUMBER_MAX, append_ask, transfer_ask, vote_ask},
    lanes::Lanes,
    log_store::LogCore,
    shared::Transfer,
    state_machine::SnapshotData,
    types::{GroupId, Node, RaftLogId, Snapshot, TypeConfig, Vote},
    wire::{WireError, WireVote},
};

/// AppendEntries of one group and target that may be under way at a time.
const PIPELINE_COUNT_MAX: usize = 16;
/// A chunk of a snapshot must be taken within this time.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(10);
/// The installation of a snapshot must end within this time.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(120);

/// Why a frame got no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TransportError {
    /// There is no link to the node; the group backs off.
    #[error("node {0:?} can't be reached")]
    Unreachable(NodeId),
    /// The link broke; it may be tried again at once.
    #[error("the link failed: {0}")]
    Broken(String),
}

/// Carries raft frames to other nodes. A shard view: called on the shard's thread.
///
/// Frames of one group to one node arrive in the order of the calls. So `call` queues the frame
/// when it is called, not when its future is first polled. A future that is dropped forgets the
/// answer.
pub trait Transport: Clone + 'static {
    /// Sends a frame to a group's replica on another node, whose [`crate::Groups::receive`] makes
    /// the answer. Timing out is the caller's business.
    fn call(
        &self,
        to: NodeId,
        node: &Node,
        group: GroupId,
        frame: Bytes,
    ) -> LocalBoxFuture<'static, Result<Bytes, TransportError>>;
}

/// The transport of a node without peers: nobody can be reached.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPeers;

impl Transport for NoPeers {
    fn call(
        &self,
        to: NodeId,
        _: &Node,
        _: GroupId,
        _: Bytes,
    ) -> LocalBoxFuture<'static, Result<Bytes, TransportError>> {
        ready(Err(TransportError::Unreachable(to))).boxed_local()
    }
}

/// Makes the peers of one group.
pub(crate) struct Peers<R: AsyncRuntime, T> {
    pub(crate) node: u64,
    pub(crate) group: GroupId,
    pub(crate) transport: T,
    pub(crate) lanes: Rc<Lanes<R>>,
    pub(crate) transfers: Rc<Cell<u64>>,
    pub(crate) log: Rc<RefCell<LogCore>>,
}

/// One replica of one group on another node.
pub(crate) struct Peer<R: AsyncRuntime, T> {
    node: u64,
    group: GroupId,
    target: u64,
    target_node: Node,
    transport: T,
    lanes: Rc<Lanes<R>>,
    transfers: Rc<Cell<u64>>,
    log: Rc<RefCell<LogCore>>,
}

impl<R: AsyncRuntime, T: Transport> RaftNetworkFactory<TypeConfig<R>> for Peers<R, T> {
    type Network = Peer<R, T>;

    async fn new_client(&mut self, target: u64, node: &Node) -> Peer<R, T> {
        Peer {
            node: self.node,
            group: self.group,
            target,
            target_node: node.clone(),
            transport: self.transport.clone(),
            lanes: self.lanes.clone(),
            transfers: self.transfers.clone(),
            log: self.log.clone(),
        }
    }
}

type RpcError<R> = RPCError<TypeConfig<R>>;

fn broken<R: AsyncRuntime>(error: impl ToString) -> RpcError<R> {
    RPCError::Network(NetworkError::from_string(error))
}

impl<R: AsyncRuntime, T: Transport> Peer<R, T> {
    /// Sends a frame now; the future brings the answer.
    fn send(
        &self,
        action: RPCTypes,
        ask: Result<Ask, WireError>,
        timeout: Duration,
    ) -> impl Future<Output = Result<Answer, RpcError<R>>> + use<R, T> {
        let (id, target) = (self.node, self.target);
        let call = ask
            .map_err(|error| error.to_string())
            .and_then(|ask| ask.encode().map_err(|error| error.to_string()))
            .map(|frame| self.transport.call(NodeId(target), &self.target_node, self.group, frame));
        async move {
            match R::timeout(timeout, call.map_err(broken)?).await {
                Ok(Ok(frame)) => match Answer::decode(&frame).map_err(broken)? {
                    Answer::Failed(reason) => Err(broken(reason)),
                    answer => Ok(answer),
                },
                Ok(Err(error @ TransportError::Unreachable(_))) => {
                    Err(RPCError::Unreachable(Unreachable::new(&error)))
                }
                Ok(Err(error)) => Err(broken(error)),
                Err(_) => Err(RPCError::Timeout(Timeout { action, id, target, timeout })),
            }
        }
    }

    /// The last index of this node's log.
    fn log_end(&self) -> u64 {
        self.log.borrow().last().map_or(0, |last| last.index)
    }

    fn append(
        &self,
        request: AppendEntriesRequest<TypeConfig<R>>,
        timeout: Duration,
    ) -> impl Future<Output = Result<AppendEntriesResponse<TypeConfig<R>>, RpcError<R>>> + use<R, T>
    {
        let prev = request.prev_log_id;
        let last = request.entries.last().map(|entry| entry.log_id).or(prev);
        let own = request.vote;
        let ask = append_ask(request, self.log_end());
        let answer = self.send(RPCTypes::AppendEntries, ask, timeout);
        async move {
            match answer.await? {
                Answer::Appended => Ok(AppendEntriesResponse::Success),
                // No more than was sent, and no less than was there.
                Answer::AppendedTo(to) if (prev..=last).contains(&to.map(Into::into)) => {
                    Ok(AppendEntriesResponse::PartialSuccess(to.map(Into::into)))
                }
                // Nothing can conflict with the beginning of the log.
                Answer::Conflict if prev.is_some() => Ok(AppendEntriesResponse::Conflict),
                Answer::HigherVote(vote) if is_higher(&vote, &own) => {
                    Ok(AppendEntriesResponse::HigherVote(vote.into()))
                }
                other => Err(broken(format!("another answer: {other:?}"))),
            }
        }
    }

    async fn ask_vote(
        &self,
        request: VoteRequest<TypeConfig<R>>,
        pre: bool,
        timeout: Duration,
    ) -> Result<VoteResponse<TypeConfig<R>>, RpcError<R>> {
        let ask = Ok(vote_ask(&request, pre));
        match self.send(RPCTypes::Vote, ask, timeout).await? {
            Answer::Voted { vote, granted, last } if vote.term < NUMBER_MAX => Ok(VoteResponse {
                vote: vote.into(),
                vote_granted: granted,
                last_log_id: last.map(Into::into),
            }),
            other => Err(broken(format!("another answer: {other:?}"))),
        }
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Result<SnapshotResponse<TypeConfig<R>>, RpcError<R>> {
        let SnapshotData::Reader(mut reader) = snapshot.snapshot else {
            return Err(broken("a snapshot without rows"));
        };
        self.transfers.set(self.transfers.get() + 1);
        let transfer =
            Transfer { node: self.node, term: vote.leader_id.term, count: self.transfers.get() };
        let part = |ask, timeout| async move {
            let ask = Ok(ask);
            self.send(RPCTypes::InstallSnapshot, ask, timeout).await
        };
        let begin = Ask::SnapshotBegin {
            vote: vote.into(),
            transfer: transfer.into(),
            last: snapshot.meta.last_log_id.map(Into::into),
            membership: (&snapshot.meta.last_membership).into(),
            log_end: self.log_end(),
        };
        match part(begin, CHUNK_TIMEOUT).await? {
            Answer::Taken => {}
            Answer::Installed(seen) if seen == vote.into() || is_higher(&seen, &vote) => {
                return Ok(SnapshotResponse::new(seen.into()));
            }
            other => return Err(broken(format!("another answer: {other:?}"))),
        }
        let mut number = 0;
        loop {
            let answer = self.lanes.ask(|_, done| reader.next(done)).await;
            match answer.map_err(broken)? {
                Outcome::Chunk(Some(chunk)) => {
                    let chunk = Ask::SnapshotChunk {
                        transfer: transfer.into(),
                        number,
                        chunk: chunk.to_vec(),
                    };
                    number += 1;
                    match part(chunk, CHUNK_TIMEOUT).await? {
                        Answer::Taken => {}
                        other => return Err(broken(format!("another answer: {other:?}"))),
                    }
                }
                Outcome::Chunk(None) => break,
                other => return Err(broken(format!("another outcome: {other:?}"))),
            }
        }
        let end = Ask::SnapshotEnd { transfer: transfer.into(), count: number };
        match part(end, INSTALL_TIMEOUT).await? {
            Answer::Installed(seen) if seen == vote.into() || is_higher(&seen, &vote) => {
                Ok(SnapshotResponse::new(seen.into()))
            }
            other => Err(broken(format!("another answer: {other:?}"))),
        }
    }
}

impl<R: AsyncRuntime, T: Transport> RaftNetworkV2<TypeConfig<R>> for Peer<R, T> {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig<R>>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig<R>>, RpcError<R>> {
        self.append(request, option.hard_ttl()).await
    }

    /// Pipelined: a request leaves before the one before it is answered. The first one that does
    /// not succeed whole ends the stream.
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig<R>>, RpcError<R>>>, RpcError<R>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig<R>>> + OptionalSend + Unpin + 'static,
    {
        let timeout = option.hard_ttl();
        let answers = input
            .map(move |request| {
                let prev = request.prev_log_id;
                let last = request.entries.last().map(|entry| entry.log_id).or(prev);
                let answer = self.append(request, timeout);
                async move {
                    let response = answer.await?;
                    let whole = is_whole::<R>(&response, last);
                    Ok((response.into_stream_result(prev, last), whole))
                }
            })
            .buffered(PIPELINE_COUNT_MAX);
        let until_failure = stream::unfold(Some(Box::pin(answers)), |answers| async move {
            let mut answers = answers?;
            match answers.next().await? {
                Ok((result, true)) => Some((Ok(result), Some(answers))),
                Ok((result, false)) => Some((Ok(result), None)),
                Err(error) => Some((Err(error), None)),
            }
        });
        let stream: BoxStream<'s, _> = Box::pin(until_failure);
        Box::pin(ready(Ok(stream)))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig<R>>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig<R>>, RpcError<R>> {
        self.ask_vote(request, false, option.hard_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig<R>>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig<R>>, RpcError<R>> {
        self.ask_vote(request, true, option.hard_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig<R>>, StreamingError<TypeConfig<R>>> {
        let sent = self.send_snapshot(vote, snapshot);
        match R::select2(cancel, sent).await {
            openraft_rt::Select2::First(closed) => Err(closed.into()),
            openraft_rt::Select2::Second(sent) => sent.map_err(Into::into),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig<R>>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig<R>>, RpcError<R>> {
        let ask = Ok(transfer_ask(&request));
        match self.send(RPCTypes::TransferLeader, ask, option.hard_ttl()).await? {
            Answer::Taken => Ok(Ok(())),
            other => Err(broken(format!("another answer: {other:?}"))),
        }
    }
}

/// Whether a vote is a reason to step down: another leader's, and a later one.
fn is_higher(vote: &WireVote, own: &Vote) -> bool {
    vote.term < NUMBER_MAX && vote.node != own.leader_id.node_id && Vote::from(*vote) > *own
}

fn is_whole<R: AsyncRuntime>(
    response: &AppendEntriesResponse<TypeConfig<R>>,
    last: Option<RaftLogId>,
) -> bool {
    match response {
        AppendEntriesResponse::Success => true,
        AppendEntriesResponse::PartialSuccess(to) => *to == last,
        AppendEntriesResponse::Conflict | AppendEntriesResponse::HigherVote(_) => false,
    }
}
