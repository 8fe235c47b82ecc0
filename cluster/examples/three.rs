//! What 65 groups of three replicas hold in memory under load, and how soon those of a dead node are
//! led again: three nodes in one thread, on the memory twins, over links that are function calls.
//!
//! ```text
//! cargo run --release -p jindou-cluster --example three -- [seconds] [entries per millisecond]
//! ```

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    clippy::cast_possible_truncation,
    reason = "a measurement, not a server"
)]

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, channel::mpsc, channel::oneshot, future::LocalBoxFuture};
use jindou_cluster::{
    AsyncRuntime, CLUSTER_SLOT, GroupId, Groups, Node, Options, Router, Runtime, Setup, Transport,
    TransportError,
};
use jindou_core::{
    effect::{Committed, Event},
    id::{NodeId, ShardId, SlotId},
    row::{Persist, Row},
};
use jindou_storage::{
    Completion, MemoryLog, MemoryState, Outcome, StateStorage, completions, wait,
};

const SLOT_COUNT: u16 = 64;
const ENTRY_SIZE: usize = 200;

#[derive(Clone, Default)]
struct Wire(Rc<RefCell<BTreeMap<NodeId, Groups<Runtime, Wire>>>>);

impl Transport for Wire {
    fn call(
        &self,
        to: NodeId,
        _: &Node,
        group: GroupId,
        frame: Bytes,
    ) -> LocalBoxFuture<'static, Result<Bytes, TransportError>> {
        let target = self.0.borrow().get(&to).cloned();
        let (sender, receiver) = oneshot::channel();
        if let Some(target) = target {
            target.receive(group, frame, |answer| drop(sender.send(answer)));
        }
        async move { receiver.await.map_err(|_| TransportError::Unreachable(to)) }.boxed_local()
    }
}

struct Shared {
    entry: Bytes,
    next: Cell<u64>,
    committed: Cell<u64>,
    start: Instant,
    led: RefCell<BTreeMap<SlotId, (NodeId, Instant)>>,
}

impl Shared {
    fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn propose(&self, groups: &Groups<Runtime, Wire>, slot: SlotId) {
        let proposal = self.next.replace(self.next.get() + 1);
        groups.propose(slot, proposal, self.entry.clone());
    }
}

fn main() {
    let mut args = std::env::args().skip(1).filter_map(|arg| arg.parse().ok());
    let seconds = args.next().unwrap_or(5);
    let rate = args.next().unwrap_or(4) as usize;
    let run = move || Runtime::new(1).block_on(run(seconds, rate));
    std::thread::spawn(run).join().unwrap();
}

async fn run(seconds: u64, rate: usize) {
    let wire = Wire::default();
    let shared = Rc::new(Shared {
        entry: vec![7; ENTRY_SIZE].into(),
        next: Cell::new(0),
        committed: Cell::new(0),
        start: Instant::now(),
        led: RefCell::default(),
    });
    let slots: Vec<_> = (0..SLOT_COUNT).map(SlotId).chain([CLUSTER_SLOT]).collect();
    let ids = [1, 2, 3].map(NodeId);
    let members: BTreeMap<_, _> = ids.iter().map(|id| (*id, Node::default())).collect();
    let before = resident();
    let states: Vec<_> = ids.iter().map(|id| start(*id, &wire, &shared)).collect();
    for groups in nodes(&wire) {
        groups.bootstrap_placed(&slots, &members, 3).await.unwrap();
    }
    while shared.led.borrow().len() < slots.len() {
        Runtime::sleep(Duration::from_millis(1)).await;
    }
    println!("65 groups: {:.1} MB a node before the load", (resident() - before) / 3.0);
    let (load, world, all) = (shared.clone(), wire.clone(), slots.clone());
    drop(Runtime::spawn(async move {
        let mut turn = all.iter().cycle();
        loop {
            // Timers, and not a closed loop: on the memory twins that would keep the run queue full,
            // and no timer would ever fire.
            Runtime::sleep(Duration::from_millis(1)).await;
            for slot in turn.by_ref().take(rate) {
                let leader = load.led.borrow().get(slot).map(|(leader, _)| *leader);
                let groups = leader.and_then(|leader| world.0.borrow().get(&leader).cloned());
                if let Some(groups) = groups {
                    load.propose(&groups, *slot);
                }
            }
        }
    }));
    let from = Instant::now();
    for second in 1..=seconds {
        Runtime::sleep(Duration::from_secs(1)).await;
        for (groups, state) in nodes(&wire).iter().zip(&states) {
            if let Ok(Outcome::Synced(moved)) = wait(|done| state.sync(done)) {
                groups.synced(&moved);
            }
        }
        println!(
            "after {second} s: {:.1} MB a node, {:.0} entries/s",
            (resident() - before) / 3.0,
            shared.committed.get() as f64 / from.elapsed().as_secs_f64(),
        );
    }
    let died = Instant::now();
    let dead = wire.0.borrow_mut().remove(&ids[1]).unwrap();
    let lost: Vec<SlotId> = {
        let led = shared.led.borrow();
        led.iter().filter(|(_, (leader, _))| *leader == ids[1]).map(|(slot, _)| *slot).collect()
    };
    drop(dead);
    Runtime::sleep(Duration::from_secs(3)).await;
    let led = shared.led.borrow();
    let gap = |slot| led[slot].1.checked_duration_since(died).map(|gap| gap.as_millis());
    let mut gaps: Vec<_> = lost.iter().map(gap).collect();
    gaps.sort_unstable();
    println!(
        "{} slots of the dead node, led again after: first {:?}, median {:?}, last {:?} ms",
        gaps.len(),
        gaps.first().copied().flatten(),
        gaps.get(gaps.len() / 2).copied().flatten(),
        gaps.last().copied().flatten(),
    );
}

fn nodes(wire: &Wire) -> Vec<Groups<Runtime, Wire>> {
    wire.0.borrow().values().cloned().collect()
}

fn start(id: NodeId, wire: &Wire, shared: &Rc<Shared>) -> Arc<dyn StateStorage> {
    let state: Arc<dyn StateStorage> = Arc::new(MemoryState::new());
    let (sender, receiver) = completions(ShardId(0), Arc::new(|| {}));
    let (inbox, events) = mpsc::unbounded();
    let groups = Groups::new(Setup {
        node: id,
        log: Arc::new(MemoryLog::new()),
        state: state.clone(),
        completions: sender.clone(),
        sink: Rc::new(move |event| drop(inbox.unbounded_send(event))),
        transport: wire.clone(),
        router: Router::new(id, 1, SLOT_COUNT),
        options: Options { keep_count: 200, ..Options::default() },
    })
    .unwrap();
    wire.0.borrow_mut().insert(id, groups.clone());
    let pumped = groups.clone();
    drop(Runtime::spawn(async move {
        while let Ok(completion) = receiver.recv_async().await {
            if let Completion::Answer { token, result } = completion {
                pumped.on_completion(token, result);
            }
        }
    }));
    let (handle, persisted) = (groups.clone(), state.clone());
    let (shard, world) = (shared.clone(), wire.clone());
    drop(Runtime::spawn(async move {
        serve(id, events, handle, persisted, sender, shard, world).await;
    }));
    let (shard, world) = (shared.clone(), wire.clone());
    drop(Runtime::spawn(async move {
        while world.0.borrow().contains_key(&id) {
            let now_ms = shard.now_ms();
            let due_ms = groups.tick(now_ms);
            if now_ms % 100 < 25 {
                let others: Vec<_> =
                    world.0.borrow().iter().map(|(id, groups)| (*id, groups.clone())).collect();
                for (other, theirs) in others.into_iter().filter(|(other, _)| *other != id) {
                    theirs.heard(id, now_ms);
                    groups.peer_answered(other, now_ms);
                }
            }
            let pause = due_ms.saturating_sub(now_ms).clamp(1, 25);
            Runtime::sleep(Duration::from_millis(pause)).await;
        }
    }));
    state
}

async fn serve(
    id: NodeId,
    mut events: mpsc::UnboundedReceiver<Event>,
    groups: Groups<Runtime, Wire>,
    state: Arc<dyn StateStorage>,
    sender: jindou_storage::CompletionSender,
    shared: Rc<Shared>,
    wire: Wire,
) {
    while let Some(event) = events.next().await {
        if !wire.0.borrow().contains_key(&id) {
            return;
        }
        match event {
            Event::Committed { slot, log_id, body } => {
                let rows = match body {
                    Committed::Membership(bytes) => vec![Row::Membership(bytes)],
                    Committed::Blank | Committed::Entry(_) => Vec::new(),
                };
                let counts = rows.is_empty() && groups.is_leading(slot);
                state.persist(Persist { slot, applied: log_id, rows }, &sender);
                groups.applied(slot, log_id);
                if counts {
                    shared.committed.set(shared.committed.get() + 1);
                }
            }
            Event::Leading { slot, leading: true } => {
                shared.led.borrow_mut().insert(slot, (id, Instant::now()));
            }
            _ => {}
        }
    }
}

/// What the process holds in memory, in MB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: f64 = status.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096.0 / 1e6
}
