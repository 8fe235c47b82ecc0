//! What a node knows of itself and of its cluster, for hellos: shared by its shards.
//!
//! Nothing in here is on the path of a message: links begin seldom.

use std::{
    collections::BTreeMap,
    fmt,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use hmac::Mac;
use jindou_core::id::NodeId;

use super::{
    hello::{Purpose, Refusal, RefusalCode, keyed},
    tls::Session,
};
use crate::wake::ShardWaker;

/// What the members of a cluster share.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    bytes: Arc<[u8]>,
    is_required: bool,
}

impl Secret {
    /// From the configuration: who does not know it is refused.
    pub fn configured(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self { bytes: bytes.into(), is_required: true }
    }

    /// Drawn by the cluster: a node that knows none yet (fresh, joining or wiped) may say hello
    /// without.
    pub fn drawn(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self { bytes: bytes.into(), is_required: false }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether who does not know it is refused.
    pub(crate) fn is_required(&self) -> bool {
        self.is_required
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("is_required", &self.is_required).finish_non_exhaustive()
    }
}

/// The other end of a link, as its hello said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HelloInfo {
    /// The version that is spoken.
    pub version: u8,
    /// The node.
    pub node: NodeId,
    /// Drawn at its start.
    pub incarnation: u64,
    /// Its shard at that end.
    pub shard: u16,
    /// Its shards.
    pub shard_count: u16,
    /// The cluster it belongs to; 0 when it does not know (fresh, joining or wiped).
    pub cluster_id: u64,
    /// Whether both ends have proven that they know the secret.
    pub is_proven: bool,
    /// What for.
    pub purpose: Purpose,
    /// Whether this node dialled.
    pub is_dialled: bool,
    /// The other end's address.
    pub address: SocketAddr,
}

/// Who may have links. A node view, called on shard threads; must not block.
pub trait Gatekeeper: Send + Sync {
    /// Whether a node that has said hello may have the link. What the link layer decides by itself
    /// (version, cluster id, slot count, secret, a node id in use) has been decided.
    fn admit(&self, hello: &HelloInfo) -> Result<(), Refusal>;

    /// Somebody said who it is, in either direction, whether the link comes about or not.
    fn met(&self, _hello: &HelloInfo) {}
}

/// A socket on which a hello came.
pub(crate) struct Caller {
    pub(crate) stream: TcpStream,
    pub(crate) address: SocketAddr,
    /// The hello's body.
    pub(crate) hello: bytes::Bytes,
    /// With TLS, where that stands.
    pub(crate) session: Option<Session>,
}

/// Something for another thread's links.
pub(crate) enum Arrival {
    /// A socket whose hello wants that shard.
    Socket(Caller),
    /// The addresses of a host name.
    Resolved { ticket: u64, result: std::io::Result<Vec<SocketAddr>> },
}

/// How other threads reach a shard's links.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) sender: flume::Sender<Arrival>,
    pub(crate) waker: ShardWaker,
}

impl Door {
    /// Whether it has been taken.
    pub(crate) fn put(&self, arrival: Arrival) -> bool {
        let is_put = self.sender.try_send(arrival).is_ok();
        self.waker.wake();
        is_put
    }
}

/// A node that has links to this one.
struct Holder {
    incarnation: u64,
    address: SocketAddr,
    count: usize,
}

/// What a node knows of itself and its cluster. A node view, shared by its shards' links.
pub struct Identity {
    cluster_id: AtomicU64,
    secret: Mutex<Option<Secret>>,
    gatekeeper: Arc<dyn Gatekeeper>,
    doors: Vec<OnceLock<Door>>,
    holders: Mutex<BTreeMap<NodeId, Holder>>,
    seed: [u8; 32],
    nonce_count: AtomicU64,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("cluster_id", &self.cluster_id()).finish_non_exhaustive()
    }
}

/// A poisoned lock holds what it held: nothing in here panics half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Identity {
    /// An identity for the links of a node with `shard_count` shards. `cluster_id` is 0 when it is
    /// not known yet; `seed` are 32 bytes from the system's dice, for nonces.
    pub fn new(
        shard_count: u16,
        cluster_id: u64,
        secret: Option<Secret>,
        seed: [u8; 32],
        gatekeeper: Arc<dyn Gatekeeper>,
    ) -> Arc<Self> {
        Arc::new(Self {
            cluster_id: AtomicU64::new(cluster_id),
            secret: Mutex::new(secret),
            gatekeeper,
            doors: (0..shard_count).map(|_| OnceLock::new()).collect(),
            holders: Mutex::default(),
            seed,
            nonce_count: AtomicU64::new(0),
        })
    }

    /// The cluster; 0 when it is not known yet.
    pub fn cluster_id(&self) -> u64 {
        self.cluster_id.load(Ordering::Acquire)
    }

    /// Learns the cluster, for the links to come.
    pub fn set_cluster_id(&self, cluster_id: u64) {
        self.cluster_id.store(cluster_id, Ordering::Release);
    }

    /// Learns the secret, for the links to come.
    pub fn set_secret(&self, secret: Option<Secret>) {
        *lock(&self.secret) = secret;
    }

    pub(crate) fn secret(&self) -> Option<Secret> {
        lock(&self.secret).clone()
    }

    pub(crate) fn gatekeeper(&self) -> &dyn Gatekeeper {
        self.gatekeeper.as_ref()
    }

    /// 32 bytes that nobody can foresee and that never come again.
    pub(crate) fn nonce(&self) -> [u8; 32] {
        let mut mac = keyed(&self.seed);
        mac.update(&self.nonce_count.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        mac.finalize().into_bytes().into()
    }

    /// A number up to `max`, from the same dice.
    pub(crate) fn dice(&self, max: u64) -> u64 {
        let nonce = self.nonce();
        let number = nonce.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        number % (max + 1)
    }

    /// Opens a shard's door. `None`: there is no such shard, or it has been opened before.
    pub(crate) fn open_door(&self, shard: u16, door: Door) -> Option<()> {
        self.doors.get(usize::from(shard))?.set(door).ok()
    }

    pub(crate) fn door(&self, shard: u16) -> Option<&Door> {
        self.doors.get(usize::from(shard))?.get()
    }

    /// Takes a node id for one link of an incarnation, unless another incarnation has links.
    pub(crate) fn hold(self: &Arc<Self>, hello: &HelloInfo) -> Result<Held, Refusal> {
        let mut holders = lock(&self.holders);
        let holder = holders.entry(hello.node).or_insert(Holder {
            incarnation: hello.incarnation,
            address: hello.address,
            count: 0,
        });
        if holder.incarnation != hello.incarnation {
            return Err(in_use(hello.node, &holder.address.ip().to_string()));
        }
        holder.count += 1;
        Ok(Held { identity: Arc::clone(self), node: hello.node })
    }
}

/// The refusal of a node whose id belongs to another one.
pub(crate) fn in_use(node: NodeId, by: &str) -> Refusal {
    Refusal::new(
        RefusalCode::InUse,
        format!("node id {} is in use by {by}, each node needs its own WK_CLUSTER_NODEID", node.0),
    )
}

/// See [`Identity::hold`]; given back when it is dropped.
pub(crate) struct Held {
    identity: Arc<Identity>,
    node: NodeId,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut holders = lock(&self.identity.holders);
        if let Some(holder) = holders.get_mut(&self.node) {
            holder.count -= 1;
            if holder.count == 0 {
                holders.remove(&self.node);
            }
        }
    }
}
