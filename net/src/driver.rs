//! The loop of a shard: gather, step, perform.
//!
//! ```text
//!   readers, accepts, HTTP handlers ─┐                       ┌─► Write, Close ─► conns ─► sends
//!   rings from other shards ─────────┼─► inbox ─► step ─► outbox ─► Send ─► rings, one wake-up each
//!   lanes and other threads ─────────┤                       ├─► Reply ─► Handle::request
//!   wake_at ─────────────────────────┘                       └─► the rest ─► Executor
//! ```
//!
//! Tasks put events into the inbox and notify the driver, which is one task among them: it runs
//! after all that were ready before it, so that a step sees what has gathered meanwhile. Every
//! source is bounded per turn, and after each turn the others run. When there is work left, the
//! driver comes back through a second task, and every few turns through an eventfd, which lets the
//! run queue run empty: only then does monoio serve timers and foreign wakers.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    rc::Rc,
    task::Poll,
};

use jindou_core::effect::{Effect, Event, Executor, Inbox, Now, Outbox, Stepped};
use monoio::time::Sleep;

use crate::{
    conns::Written,
    handle::Handle,
    mesh::Mesh,
    notify::Notify,
    rt::{self, EventStream},
    shard_thread::ShardContext,
    stop::Stop,
};

/// Turns after which the run queue is made to run empty.
const TURN_COUNT_MAX: u32 = 64;
/// How soon a full ring is tried again, and a drain looked at, in milliseconds.
const RETRY_MS: u64 = 1;
const DRAIN_CHECK_MS: u64 = 10;
/// Memory that the inbox and outbox keep when they are empty, in bytes.
const KEEP_SIZE_MAX: usize = 8 << 20;

/// The rules that a driver turns: for real the core's shard.
///
/// `step` takes every event of the inbox (the driver clears it afterwards) and does a bounded
/// amount of work; what is left over is announced by [`Stepped::more`].
pub trait Machine {
    /// One pure turn.
    fn step(&mut self, now: Now, inbox: &mut Inbox, outbox: &mut Outbox) -> Stepped;

    /// Whether nothing waits in the machine; a drain goes on until then.
    fn is_idle(&self) -> bool {
        true
    }

    /// What waits, in a line for the log, if a drain's time is over before it is idle.
    fn unfinished(&self) -> String {
        String::new()
    }
}

impl<F: FnMut(Now, &mut Inbox, &mut Outbox) -> Stepped> Machine for F {
    fn step(&mut self, now: Now, inbox: &mut Inbox, outbox: &mut Outbox) -> Stepped {
        self(now, inbox, outbox)
    }
}

/// Turns a machine on the thread of its shard.
pub struct Driver<M, E> {
    machine: M,
    executor: E,
    handle: Handle,
    mesh: Mesh,
    stop: Stop,
    /// The inbox of the step under way; the other one gathers meanwhile.
    inbox: Inbox,
    outbox: Outbox,
    stepped: Stepped,
    timer: Timer,
    yielder: Yielder,
    drain: Option<Drain>,
}

/// How far a drain is.
struct Drain {
    deadline_ms: u64,
    /// Since when nothing happens, if so.
    quiet_ms: Option<u64>,
}

impl<M: Machine, E: Executor> Driver<M, E> {
    /// A driver for the shard of this thread. Fails when the system is out of descriptors.
    pub fn new(context: ShardContext, machine: M, executor: E) -> io::Result<Self> {
        let ShardContext { handle, mesh, stop, .. } = context;
        Ok(Self {
            machine,
            executor,
            mesh,
            stop,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            stepped: Stepped { more: false, wake_at_ms: None },
            timer: Timer::default(),
            yielder: Yielder::new(&handle)?,
            drain: None,
            handle,
        })
    }

    /// Runs until a drain ([`Stop::drain`]) is finished or its time is over, then gives machine
    /// and executor back. When it returns, every client connection is closed.
    pub async fn run(mut self) -> (M, E) {
        loop {
            self.gather().await;
            let now = self.handle.now();
            self.turn(now);
            if self.is_drained(now) {
                break;
            }
        }
        self.end().await;
        (self.machine, self.executor)
    }

    /// Waits until there is something to do, and lets every other task run at least once.
    async fn gather(&mut self) {
        let waker = self.handle.waker();
        let parking = &waker.0.parking;
        let is_due = self.yielder.is_due();
        parking.announce();
        let is_more = self.take_in()
            || is_due
            || self.stepped.more
            || !self.handle.0.inbox.borrow().is_empty()
            || self.stop.is_draining() != self.drain.is_some();
        let deadline_ms = self.deadline();
        let is_late = deadline_ms.is_some_and(|at| at <= self.handle.now().mono_ms);
        if is_more || is_late {
            parking.awake();
            self.yielder.let_others_run().await;
        } else {
            self.timer.arm(deadline_ms, &self.handle);
            self.timer.wait(&self.handle.0.notify).await;
            parking.awake();
        }
        self.take_in();
    }

    /// Takes a bounded amount from the rings and the sources. Whether something is left.
    fn take_in(&mut self) -> bool {
        let mut inbox = self.handle.0.inbox.borrow_mut();
        let taken = self.mesh.take(|envelope| inbox.events.push(Event::Envelope(envelope)));
        drop(inbox);
        self.handle.0.counters.envelopes_in.add(taken);
        self.handle.drain_sources()
    }

    /// When the driver must have a turn even if nothing happens.
    fn deadline(&self) -> Option<u64> {
        let now_ms = || self.handle.now().mono_ms;
        let closing = self.handle.0.conns.borrow().deadline();
        let ring = (self.mesh.kept_count() > 0).then(|| now_ms() + RETRY_MS);
        let drain = self.drain.as_ref().map(|_| now_ms() + DRAIN_CHECK_MS);
        [self.stepped.wake_at_ms, closing, ring, drain].into_iter().flatten().min()
    }

    fn turn(&mut self, now: Now) {
        let shared = Rc::clone(&self.handle.0);
        shared.counters.turns.add(1);
        shared.gate.next(self.mesh.is_over_bound());
        if self.stop.is_draining() && self.drain.is_none() {
            self.begin_drain(now);
        }
        let late = shared.conns.borrow_mut().sweep(now.mono_ms);
        shared.counters.closed_late.add(late);

        let is_due = self.stepped.wake_at_ms.is_some_and(|deadline| deadline <= now.mono_ms);
        if self.stepped.more || is_due || !shared.inbox.borrow().is_empty() {
            std::mem::swap(&mut self.inbox, &mut *shared.inbox.borrow_mut());
            shared.counters.steps.add(1);
            self.stepped = self.machine.step(now, &mut self.inbox, &mut self.outbox);
            self.inbox.clear();
            shrink(&mut self.inbox.bytes);
            self.perform(now);
        }
        self.publish();
        self.handle.flush();
    }

    fn perform(&mut self, now: Now) {
        let mut effects = std::mem::take(&mut self.outbox.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Write { conn, range } => {
                    let bytes = self.outbox.bytes.get(range).unwrap_or_default();
                    self.handle.0.counters.writes.add(1);
                    let written = self.handle.0.conns.borrow_mut().write(conn, bytes);
                    if written == Written::TooSlow {
                        self.handle.0.counters.closed_slow.add(1);
                        self.handle.push(Event::Closed { conn });
                    }
                }
                Effect::Close { conn } => {
                    self.handle.0.conns.borrow_mut().close(conn, now.mono_ms);
                }
                Effect::Send { to, envelope } => {
                    if let Err(envelope) = self.mesh.send(to, envelope) {
                        self.come_back(to, envelope);
                    }
                }
                Effect::Reply { token, reply } => {
                    if let Err(reply) = self.handle.answer(token, reply) {
                        self.executor.reply(token, reply);
                    }
                }
                Effect::Forward { to, place, envelope } => {
                    self.executor.forward(to, place, envelope);
                }
                Effect::LeaderKnown { slot, leader } => self.executor.leader_known(slot, leader),
                Effect::ClusterKey { key, value } => self.executor.cluster_key(key, value),
                Effect::Propose { slot, proposal, entry } => {
                    self.executor.propose(slot, proposal, entry)
                }
                Effect::Persist(persist) => self.executor.persist(persist),
                Effect::Applied { slot, log_id } => self.executor.applied(slot, log_id),
                Effect::Read { id, slot, read } => self.executor.read(id, slot, read),
                Effect::Warn(text) => self.executor.warn(&text),
                Effect::Tell(telling) => self.executor.tell(telling),
                Effect::AskSystems => self.executor.ask_systems(),
            }
        }
        self.outbox.clear();
        self.outbox.effects = effects;
        shrink(&mut self.outbox.bytes);
    }

    /// An envelope that no ring takes: for this shard itself, or a mistake of ours.
    fn come_back(
        &mut self,
        to: jindou_core::id::ShardId,
        envelope: jindou_core::envelope::Envelope,
    ) {
        if to == self.handle.shard() {
            self.handle.push(Event::Envelope(envelope));
        } else {
            self.executor.warn(&format!("an envelope for shard {}, which is not there", to.0));
        }
    }

    fn publish(&mut self) {
        let published = self.mesh.publish();
        let counters = &self.handle.0.counters;
        counters.envelopes_out.add(published.sent);
        counters.ring_full.add(u64::from(published.full > 0));
    }

    fn begin_drain(&mut self, now: Now) {
        for listening in self.handle.0.listening.borrow_mut().drain(..) {
            listening.stop();
        }
        self.handle.begin_drain();
        self.handle.push(Event::Drain);
        self.drain = Some(Drain {
            deadline_ms: now.mono_ms + self.handle.0.settings.drain_ms,
            quiet_ms: None,
        });
    }

    /// Whether the drain is over: every shard of the node has been quiet, one of them for a while,
    /// or the time is up.
    fn is_drained(&mut self, now: Now) -> bool {
        let Some(drain) = &mut self.drain else {
            return false;
        };
        let shared = &self.handle.0;
        let is_quiet = shared.conns.borrow().output_size() == 0
            && shared.inbox.borrow().is_empty()
            && self.handle.is_idle()
            && self.machine.is_idle()
            && self.mesh.kept_count() == 0
            && !self.stepped.more;
        let was_quiet = drain.quiet_ms.is_some();
        if is_quiet {
            drain.quiet_ms.get_or_insert(now.mono_ms);
        } else {
            drain.quiet_ms = None;
        }
        self.stop.set_quiet(was_quiet, is_quiet);
        let has_rested =
            drain.quiet_ms.is_some_and(|since| now.mono_ms >= since + shared.settings.quiet_ms);
        let is_late = now.mono_ms >= drain.deadline_ms;
        if is_late && !is_quiet && !self.stop.is_over() {
            let shard = self.handle.shard().0;
            let (callers, machine) = (self.handle.waiting(), self.machine.unfinished());
            tracing::warn!(shard, %callers, %machine, "the time of the drain is over");
        }
        if has_rested || is_late {
            self.stop.end(is_late);
        }
        self.stop.is_over()
    }

    /// Closes what is still open: what was written leaves, then FIN, and a moment for the peers to
    /// close first.
    async fn end(&mut self) {
        let shared = &self.handle.0;
        let begin_ms = self.handle.now().mono_ms;
        let ids = shared.conns.borrow().ids();
        for &id in &ids {
            shared.conns.borrow_mut().close(id, begin_ms);
        }
        loop {
            self.handle.flush();
            let now_ms = self.handle.now().mono_ms;
            let is_over = shared.conns.borrow().count() == 0 || now_ms >= begin_ms + END_MS;
            if is_over {
                break;
            }
            self.timer.arm(Some(now_ms + DRAIN_CHECK_MS), &self.handle);
            self.timer.wait(&shared.notify).await;
        }
        let ids = shared.conns.borrow().ids();
        for id in ids {
            shared.conns.borrow_mut().kill(id);
        }
        // Let the tasks of the dead notice.
        self.yielder.run_empty().await;
        self.handle.flush();
        shared.inbox.borrow_mut().clear();
        // They hold ends of queues, and whoever is at the other end must notice.
        shared.sources.borrow_mut().clear();
        shared.flushers.borrow_mut().clear();
    }
}

/// How long the end of a driver waits for output and for peers.
const END_MS: u64 = 500;

/// Gives memory back after a burst.
fn shrink(bytes: &mut Vec<u8>) {
    if bytes.capacity() > KEEP_SIZE_MAX {
        bytes.shrink_to(KEEP_SIZE_MAX / 2);
    }
}

/// One timer, set to the earliest deadline. A later one does not move it: coming early is cheaper
/// than moving it every turn.
#[derive(Default)]
struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    armed_ms: Option<u64>,
}

impl Timer {
    fn arm(&mut self, deadline_ms: Option<u64>, handle: &Handle) {
        let Some(deadline_ms) = deadline_ms else {
            return;
        };
        if self.armed_ms.is_some_and(|armed| armed <= deadline_ms) {
            return;
        }
        self.armed_ms = Some(deadline_ms);
        let instant = handle.instant(deadline_ms).into();
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(instant),
            None => self.sleep = Some(Box::pin(monoio::time::sleep_until(instant))),
        }
    }

    /// Waits for a notification or the timer.
    async fn wait(&mut self, notify: &Notify) {
        poll_fn(|context| {
            let mut poll = notify.poll(context);
            if self.armed_ms.is_some()
                && let Some(sleep) = &mut self.sleep
                && sleep.as_mut().poll(context).is_ready()
            {
                self.armed_ms = None;
                poll = Poll::Ready(());
            }
            poll
        })
        .await;
    }
}

/// Lets other tasks run without waking the own one.
struct Yielder {
    handle: Handle,
    /// Rung by the task that reads the eventfd.
    rung: Rc<Notify>,
    /// Asks the second task to notify the driver.
    relay: Rc<Notify>,
    count: u32,
}

impl Yielder {
    fn new(handle: &Handle) -> io::Result<Self> {
        let rung = Rc::new(Notify::default());
        let relay = Rc::new(Notify::default());
        let event = EventStream::new(handle.waker().0.event.duplicate()?)?;
        rt::spawn(listen_for_bell(handle.clone(), event, Rc::clone(&rung)));
        rt::spawn(send_back(handle.clone(), Rc::clone(&relay)));
        Ok(Self { handle: handle.clone(), rung, relay, count: 0 })
    }

    /// Whether the run queue should run empty now. Counts a turn.
    fn is_due(&mut self) -> bool {
        self.count += 1;
        self.count >= TURN_COUNT_MAX
    }

    async fn let_others_run(&mut self) {
        if self.count >= TURN_COUNT_MAX {
            self.run_empty().await;
        } else {
            self.relay.notify();
            self.handle.0.notify.clear();
            self.handle.0.notify.wait().await;
        }
    }

    /// Waits until the run queue was empty once.
    async fn run_empty(&mut self) {
        self.count = 0;
        self.rung.clear();
        self.handle.waker().0.event.write();
        self.rung.wait().await;
        self.handle.0.notify.clear();
    }
}

/// Turns wake-ups of other threads into notifications of the driver.
async fn listen_for_bell(handle: Handle, event: EventStream, rung: Rc<Notify>) {
    while event.readable().await.is_ok() {
        handle.0.waker.0.event.clear();
        rung.notify();
        handle.0.notify.notify();
    }
    // The driver would sleep for ever: an eventfd of ours cannot fail.
    panic!("the wake-up descriptor failed");
}

/// The way back to the driver from behind all tasks that are ready.
async fn send_back(handle: Handle, relay: Rc<Notify>) {
    loop {
        relay.wait().await;
        handle.0.notify.notify();
    }
}
