//! What the tasks of a shard's thread share: the inbox, the connections, the callers that wait.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Instant, SystemTime},
};

use jindou_core::{
    effect::{Event, Inbox, Now},
    id::ShardId,
    request::{Reply, Request, RequestToken, Target},
};

use crate::{
    conns::Conns,
    counters::Counters,
    listener::Listening,
    notify::{Gate, Notify},
    pool::BufferPool,
    probe::DriverKind,
    rt::SharedBuffer,
    settings::NetSettings,
    wake::ShardWaker,
};

/// The size of the buffers into which connections read: what one read takes at most.
const READ_SIZE: usize = 16 << 10;
/// Buffers kept for reads to come.
const READ_BUFFER_COUNT_MAX: usize = 512;

/// Takes what another thread has put into a queue. Returns whether something is left.
type Source = Box<dyn FnMut(&Handle) -> bool>;
/// Starts the sends of what gathered outside of the table of connections.
type Flusher = Box<dyn Fn()>;

pub(crate) struct Shared {
    pub(crate) shard: ShardId,
    pub(crate) settings: NetSettings,
    pub(crate) counters: Arc<Counters>,
    pub(crate) waker: ShardWaker,
    pub(crate) inbox: RefCell<Inbox>,
    pub(crate) conns: RefCell<Conns>,
    pub(crate) notify: Notify,
    pub(crate) gate: Gate,
    pub(crate) sources: RefCell<Vec<Source>>,
    pub(crate) flushers: RefCell<Vec<Flusher>>,
    pub(crate) listening: RefCell<Vec<Rc<Listening>>>,
    pub(crate) driver: DriverKind,
    /// For reads on epoll.
    pub(crate) shared_buffer: Option<SharedBuffer>,
    /// For reads on io_uring.
    pub(crate) pool: RefCell<BufferPool>,
    /// Whether a listener with TLS is open.
    pub(crate) has_tls: Cell<bool>,
    /// Parts of handshakes: in which turn, and how many so far.
    pub(crate) handshakes: Cell<(u64, u32)>,
    draining: Draining,
    holds: Cell<usize>,
    callers: RefCell<Callers>,
    origin: Instant,
}

/// Whether the drain has begun, and who wants to know.
#[derive(Default)]
struct Draining {
    has_begun: Cell<bool>,
    number_next: Cell<u64>,
    waiting: RefCell<HashMap<u64, Waker>>,
}

#[derive(Default)]
struct Callers {
    token_next: u64,
    waiting: HashMap<u64, Caller>,
}

enum Caller {
    Waiting(Option<Waker>),
    Answered(Box<Reply>),
}

/// A shard, as seen by the tasks on its thread: the API, the wiring, timers, the state machine
/// adapter. Cheap to clone; never leaves the thread.
#[derive(Clone)]
pub struct Handle(pub(crate) Rc<Shared>);

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.0.shard).finish()
    }
}

impl Handle {
    pub(crate) fn new(
        shard: ShardId,
        driver: DriverKind,
        settings: NetSettings,
        counters: Arc<Counters>,
        waker: ShardWaker,
        origin: Instant,
    ) -> Self {
        Self(Rc::new(Shared {
            shard,
            settings,
            counters: Arc::clone(&counters),
            waker,
            inbox: RefCell::default(),
            conns: RefCell::new(Conns::new(shard, settings, counters)),
            notify: Notify::default(),
            gate: Gate::default(),
            sources: RefCell::default(),
            flushers: RefCell::default(),
            listening: RefCell::default(),
            driver,
            shared_buffer: SharedBuffer::new(driver, READ_SIZE),
            pool: RefCell::new(BufferPool::new(READ_SIZE, READ_BUFFER_COUNT_MAX)),
            has_tls: Cell::new(false),
            handshakes: Cell::default(),
            draining: Draining::default(),
            holds: Cell::new(0),
            callers: RefCell::default(),
            origin,
        }))
    }

    /// The shard.
    pub fn shard(&self) -> ShardId {
        self.0.shard
    }

    /// What the shard has counted.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.0.counters
    }

    /// Wakes this shard from other threads.
    pub fn waker(&self) -> ShardWaker {
        self.0.waker.clone()
    }

    /// The time, on the clock that steps are given.
    pub fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Now {
            unix_ms: i64::try_from(unix.as_millis()).unwrap_or(i64::MAX),
            mono_ms: u64::try_from(self.0.origin.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// The instant of a `Now::mono_ms`.
    pub(crate) fn instant(&self, mono_ms: u64) -> Instant {
        self.0.origin + std::time::Duration::from_millis(mono_ms)
    }

    /// Puts an event into the inbox. The next step sees it, together with all that has gathered.
    /// May be called at any time, from an executor or a source too.
    pub fn push(&self, event: Event) {
        self.0.inbox.borrow_mut().events.push(event);
        self.0.notify.notify();
    }

    /// Asks the shard, or through it any shard. The reply comes when the shard gives one
    /// ([`jindou_core::effect::Effect::Reply`]): `Settings::request_ms` is its time-out. Dropping
    /// the future forgets the reply; the request may still take effect.
    pub fn request(&self, to: Target, request: Request) -> impl Future<Output = Reply> + use<> {
        let token = {
            let mut callers = self.0.callers.borrow_mut();
            callers.token_next += 1;
            let token = callers.token_next;
            callers.waiting.insert(token, Caller::Waiting(None));
            token
        };
        self.push(Event::Request { token: RequestToken(token), to, request });
        Answer { handle: self.clone(), token }
    }

    /// Gives a caller of [`Handle::request`] its reply; gives the reply back when there is no such
    /// caller, or none any more.
    pub(crate) fn answer(&self, token: RequestToken, reply: Reply) -> Result<(), Reply> {
        let mut callers = self.0.callers.borrow_mut();
        let Some(caller) = callers.waiting.get_mut(&token.0) else {
            return Err(reply);
        };
        let before = std::mem::replace(caller, Caller::Answered(Box::new(reply)));
        drop(callers);
        if let Caller::Waiting(Some(waker)) = before {
            waker.wake();
        }
        Ok(())
    }

    /// Adds a queue that other threads fill and this one drains: `drain` is called each turn and
    /// once more before the shard parks, takes a bounded amount, and returns whether something is
    /// left. Whoever fills the queue calls [`ShardWaker::wake`] afterwards, once per batch.
    pub fn add_source(&self, drain: impl FnMut(&Handle) -> bool + 'static) {
        self.0.sources.borrow_mut().push(Box::new(drain));
        self.0.notify.notify();
    }

    /// Keeps a drain from finishing while it lives: work is under way that ends by itself.
    pub fn hold(&self) -> Hold {
        self.0.holds.set(self.0.holds.get() + 1);
        Hold(self.clone())
    }

    /// The drain begins.
    pub(crate) fn begin_drain(&self) {
        self.0.draining.has_begun.set(true);
        for (_, waker) in self.0.draining.waiting.take() {
            waker.wake();
        }
    }

    /// Whether the drain has begun.
    pub(crate) fn is_draining(&self) -> bool {
        self.0.draining.has_begun.get()
    }

    /// Ends when the drain begins.
    pub(crate) fn drain_begun(&self) -> DrainBegun {
        let number = &self.0.draining.number_next;
        number.set(number.get() + 1);
        DrainBegun { handle: self.clone(), number: number.get(), waker: None }
    }

    /// Whether nothing waits: no caller, no hold.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.holds.get() == 0 && self.0.callers.borrow().waiting.is_empty()
    }

    /// How many wait, for the log.
    pub(crate) fn waiting(&self) -> String {
        let callers = self.0.callers.borrow().waiting.len();
        format!("{} holds, {callers} callers", self.0.holds.get())
    }

    /// Drains every source once. Returns whether something is left.
    pub(crate) fn drain_sources(&self) -> bool {
        // Out of the cell while they run, so that a source may add another.
        let mut sources = std::mem::take(&mut *self.0.sources.borrow_mut());
        let mut is_more = false;
        for source in &mut sources {
            is_more |= source(self);
        }
        let mut added = self.0.sources.borrow_mut();
        sources.append(&mut added);
        *added = sources;
        is_more
    }
}

/// See [`Handle::hold`].
#[derive(Debug)]
pub struct Hold(Handle);

impl Drop for Hold {
    fn drop(&mut self) {
        let holds = &self.0.0.holds;
        holds.set(holds.get().saturating_sub(1));
        self.0.0.notify.notify();
    }
}

/// See [`Handle::drain_begun`].
pub(crate) struct DrainBegun {
    handle: Handle,
    number: u64,
    /// Whom it has told to wake.
    waker: Option<Waker>,
}

impl Future for DrainBegun {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.handle.is_draining() {
            return Poll::Ready(());
        }
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            let waker = context.waker().clone();
            self.handle.0.draining.waiting.borrow_mut().insert(self.number, waker.clone());
            self.waker = Some(waker);
        }
        Poll::Pending
    }
}

impl Drop for DrainBegun {
    fn drop(&mut self) {
        self.handle.0.draining.waiting.borrow_mut().remove(&self.number);
    }
}

struct Answer {
    handle: Handle,
    token: u64,
}

impl Future for Answer {
    type Output = Reply;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reply> {
        let mut callers = self.handle.0.callers.borrow_mut();
        match callers.waiting.remove(&self.token) {
            Some(Caller::Answered(reply)) => Poll::Ready(*reply),
            _ => {
                let waker = Some(context.waker().clone());
                callers.waiting.insert(self.token, Caller::Waiting(waker));
                Poll::Pending
            }
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.handle.0.callers.borrow_mut().waiting.remove(&self.token);
    }
}
