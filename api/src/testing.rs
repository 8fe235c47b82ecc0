//! A node that answers from a script, and short ways to call the API and look at its answers.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::type_complexity,
    reason = "tests"
)]

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use futures::{FutureExt as _, executor::block_on, future::LocalBoxFuture};
use http::{HeaderMap, Method};
use jindou_core::{
    effect::Now,
    id::{ChannelId, SlotId},
    message::{Message, SharedMessage},
    request::{Reply, Request, Target},
};

use crate::{
    Api, ApiSettings, ClusterChange, ClusterFigures, ClusterView, Health, HttpRequest,
    HttpResponse, Io, LogPage, LogQuery, Node, Process, ReplicaView, Secret,
};

/// Answers each question by a function, or from a queue, and remembers what was asked.
pub(crate) struct FakeNode {
    pub(crate) shards: u16,
    pub(crate) health: Health,
    pub(crate) process: Process,
    pub(crate) now_ms: i64,
    /// Its links and groups.
    pub(crate) figures: Result<ClusterFigures, String>,
    /// What the node sees of its cluster.
    pub(crate) cluster: Result<ClusterView, String>,
    /// What the replicas of each slot say.
    pub(crate) replicas: Result<Vec<ReplicaView>, String>,
    /// What becomes of a change of the cluster.
    pub(crate) change: Result<(), String>,
    /// The changes of the cluster that it was asked for.
    pub(crate) changes: RefCell<Vec<ClusterChange>>,
    /// Its logs, and those of the others.
    pub(crate) logs: fn(LogQuery) -> Result<LogPage, String>,
    /// The key of log-ins.
    pub(crate) login_key: Result<Secret, String>,
    script: Script,
    asked: RefCell<Vec<(Target, String)>>,
}

enum Script {
    Queue(RefCell<VecDeque<Reply>>),
    Answers(Box<dyn Fn(&Target, &Request) -> Reply>),
}

impl Node for Rc<FakeNode> {
    fn ask(&self, to: Target, request: Request) -> LocalBoxFuture<'_, Reply> {
        let reply = match &self.script {
            Script::Queue(queue) => queue.borrow_mut().pop_front(),
            Script::Answers(answer) => Some(answer(&to, &request)),
        };
        let Some(reply) = reply else { panic!("nobody expected {to:?} {request:?}") };
        self.asked.borrow_mut().push((to, format!("{request:?}")));
        async move { reply }.boxed_local()
    }

    fn slot_of(&self, id: &str) -> SlotId {
        SlotId::of(id, 64)
    }

    fn slot_count(&self) -> u16 {
        64
    }

    fn shards(&self) -> u16 {
        self.shards
    }

    fn now(&self) -> Now {
        Now { unix_ms: self.now_ms, mono_ms: 0 }
    }

    fn random(&self) -> u128 {
        0xabc
    }

    fn health(&self) -> Health {
        self.health.clone()
    }

    fn process(&self) -> Process {
        self.process
    }

    fn io(&self) -> Vec<Io> {
        let io = |n| Io { sends: 10 + n, link_bytes_in: 100 + n, ..Io::default() };
        (0..u64::from(self.shards)).map(io).collect()
    }

    fn figures(&self) -> LocalBoxFuture<'_, Result<ClusterFigures, String>> {
        async { self.figures.clone() }.boxed_local()
    }

    fn cluster(&self) -> LocalBoxFuture<'_, Result<ClusterView, String>> {
        async { self.cluster.clone() }.boxed_local()
    }

    fn replicas(&self, _: SlotId) -> LocalBoxFuture<'_, Result<Vec<ReplicaView>, String>> {
        async { self.replicas.clone() }.boxed_local()
    }

    fn change_cluster(&self, change: ClusterChange) -> LocalBoxFuture<'_, Result<(), String>> {
        self.changes.borrow_mut().push(change);
        async { self.change.clone() }.boxed_local()
    }

    fn logs(&self, query: LogQuery) -> LocalBoxFuture<'_, Result<LogPage, String>> {
        async move { (self.logs)(query) }.boxed_local()
    }

    fn login_key(&self) -> LocalBoxFuture<'_, Result<Secret, String>> {
        async { self.login_key.clone() }.boxed_local()
    }
}

/// An API over a scripted node.
pub(crate) struct Fixture {
    pub(crate) node: Rc<FakeNode>,
    pub(crate) api: Api<Rc<FakeNode>>,
}

impl Fixture {
    /// Replies come in this order.
    pub(crate) fn replies(replies: impl IntoIterator<Item = Reply>) -> Self {
        let queue = RefCell::new(replies.into_iter().collect());
        Self::with(Script::Queue(queue), |_, _| ())
    }

    /// Every change succeeds.
    pub(crate) fn agreeable() -> Self {
        Self::answers(|_, _| Reply::Done)
    }

    /// Nobody may be asked.
    pub(crate) fn silent() -> Self {
        Self::replies([])
    }

    /// Replies are computed.
    pub(crate) fn answers(answer: impl Fn(&Target, &Request) -> Reply + 'static) -> Self {
        Self::with(Script::Answers(Box::new(answer)), |_, _| ())
    }

    /// As [`Self::answers`], with another node or other settings.
    pub(crate) fn configured(
        answer: impl Fn(&Target, &Request) -> Reply + 'static,
        configure: impl FnOnce(&mut FakeNode, &mut ApiSettings),
    ) -> Self {
        Self::with(Script::Answers(Box::new(answer)), configure)
    }

    fn with(script: Script, configure: impl FnOnce(&mut FakeNode, &mut ApiSettings)) -> Self {
        let mut node = FakeNode {
            shards: 2,
            health: Health::default(),
            process: Process::default(),
            now_ms: 1_735_689_600_000,
            figures: Ok(ClusterFigures::default()),
            cluster: Err("no cluster".to_owned()),
            replicas: Ok(Vec::new()),
            change: Ok(()),
            changes: RefCell::default(),
            logs: |_| Err("no log".to_owned()),
            login_key: Ok(Secret::new("drawn")),
            script,
            asked: RefCell::default(),
        };
        let mut settings = ApiSettings::default();
        configure(&mut node, &mut settings);
        let node = Rc::new(node);
        Self { api: Api::new(node.clone(), settings), node }
    }

    /// Calls the API port.
    pub(crate) fn call(&self, method: &str, target: &str, body: &str) -> HttpResponse {
        self.call_with(method, target, body, HeaderMap::new())
    }

    /// As [`Self::call`], with headers.
    pub(crate) fn call_with(
        &self,
        method: &str,
        target: &str,
        body: &str,
        headers: HeaderMap,
    ) -> HttpResponse {
        block_on(self.api.handle(request(method, target, body, headers)))
    }

    /// As [`Self::call`], from another machine.
    pub(crate) fn call_from_afar(&self, method: &str, target: &str, body: &str) -> HttpResponse {
        let mut request = request(method, target, body, HeaderMap::new());
        request.peer = ([10, 0, 0, 9], 4711).into();
        block_on(self.api.handle(request))
    }

    /// Calls the manager port.
    pub(crate) fn call_manager(&self, method: &str, target: &str) -> HttpResponse {
        self.call_manager_with(method, target, "", HeaderMap::new())
    }

    /// As [`Self::call_manager`], with a body and headers.
    pub(crate) fn call_manager_with(
        &self,
        method: &str,
        target: &str,
        body: &str,
        headers: HeaderMap,
    ) -> HttpResponse {
        block_on(self.api.handle_manager(request(method, target, body, headers)))
    }

    /// What a GET answers: status and body.
    pub(crate) fn get(&self, target: &str) -> (u16, String) {
        seen(&self.call("GET", target, ""))
    }

    /// What a POST answers: status and body.
    pub(crate) fn post(&self, target: &str, body: &str) -> (u16, String) {
        seen(&self.call("POST", target, body))
    }

    /// The last question, as text.
    pub(crate) fn last_asked(&self) -> (Target, String) {
        self.node.asked.borrow().last().unwrap().clone()
    }

    /// Every question so far, as text.
    pub(crate) fn asked(&self) -> Vec<(Target, String)> {
        self.node.asked.borrow().clone()
    }
}

fn request(method: &str, target: &str, body: &str, headers: HeaderMap) -> HttpRequest {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    HttpRequest {
        method: Method::from_bytes(method.as_bytes()).unwrap(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body: body.to_owned().into(),
        peer: ([127, 0, 0, 1], 4711).into(),
    }
}

/// Status and body.
pub(crate) fn seen(response: &HttpResponse) -> (u16, String) {
    let body = String::from_utf8(response.body.to_vec()).unwrap();
    (response.status.as_u16(), body)
}

/// `ERR(text)`.
pub(crate) fn err(text: &str) -> (u16, String) {
    (400, format!(r#"{{"msg":"{text}","status":400}}"#))
}

/// `OK`.
pub(crate) fn fine() -> (u16, String) {
    (200, r#"{"status":200}"#.to_owned())
}

/// A message of `a` with this seq.
pub(crate) fn message(seq: u64, channel: &str, kind: u8) -> Message {
    Message {
        id: 1_000_000 + i64::try_from(seq).unwrap(),
        seq,
        channel: ChannelId::new(channel, kind),
        from: "a".into(),
        client_msg_no: format!("n{seq}").into(),
        flags: 0,
        setting: 0,
        expire: 0,
        timestamp: 1_735_689_600,
        topic: "".into(),
        stream_no: "".into(),
        shown: None,
        payload: format!("m{seq}").into(),
    }
}

/// What [`Request::Messages`] gives of a channel with the seqs `1..=last`.
pub(crate) fn read_log(
    channel: &ChannelId,
    log_last: u64,
    (first, last): (u64, u64),
    count_max: usize,
    from_start: bool,
) -> Vec<SharedMessage> {
    let all: Vec<SharedMessage> = (first.max(1)..=last.min(log_last))
        .map(|seq| SharedMessage::new(message(seq, &channel.id, channel.kind)))
        .collect();
    let cut = all.len().saturating_sub(count_max);
    if from_start { all[..all.len() - cut].to_vec() } else { all[cut..].to_vec() }
}
