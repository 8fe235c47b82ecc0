//! This node's place among the others (operations.md §1.6, §3).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::ConfigError;
use super::keys::{self, Key};
use super::notice::{Notice, Origin};
use super::reader::{Reader, Shown};
use super::secret::Secret;
use super::tree::Raw;
use super::written::{Entry, shown};

/// Port of a member written without one. The built-in default of `cluster.addr`, whatever that is set
/// to: all nodes read the same list.
const MEMBER_PORT: u16 = 11110;

/// Silence on all links after which a node is taken for dead, unless configured.
const PEER_TIMEOUT: Duration = Duration::from_millis(1500);

/// What the node knows of the cluster before it has met it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// This node's number, 1 to 1023, default 1001; ten bits of every message id.
    pub node_id: u16,
    /// `host:port` at which other nodes reach this one; `None`: it cannot be joined.
    pub server_addr: Option<String>,
    /// Base URL of this node's HTTP API for other nodes, without a slash at the end.
    pub api_url: Option<String>,
    /// Members at the first start, by id; empty: a single node.
    pub init_nodes: Vec<Member>,
    /// A member to join through.
    pub seed: Option<Member>,
    /// What all nodes know and prove to each other; `None`: the cluster draws one and keeps it.
    pub secret: Option<Secret>,
    /// Nodes speak TLS with each other; `None`: plain.
    pub tls: Option<TlsFiles>,
    /// Whether this node holds data or only connections.
    pub role: Role,
    /// Number of slots, 1 to 4096, default 64; counts at the first start of a cluster only.
    pub slot_count: u16,
    /// Copies of each slot if an operator fixed them; `None`: they follow the nodes (design.md §3).
    pub replica_count: Option<usize>,
    /// A node that is silent for so long is taken for dead. Default 1.5 s.
    pub peer_timeout: Duration,
    /// A request to another node ends after so long. Default 10 s.
    pub request_timeout: Duration,
    /// A channel unused for so long leaves memory. Default 6 min.
    pub channel_idle: Duration,
}

/// Where this node's certificate is, and whom it believes. PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Its certificate, with its chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The CA of all nodes.
    pub ca: PathBuf,
}

/// A node as written in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number, 1 to 1023.
    pub id: u16,
    /// `host:port`.
    pub addr: String,
}

/// Whether a node holds data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Holds slots.
    Replica,
    /// Holds connections only.
    Proxy,
}

impl Cluster {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Cluster, ConfigError> {
        let node_id = node_id(reader)?;
        let init_nodes = init_nodes(reader)?;
        let server_addr = reader.text_if_any(&keys::SERVER_ADDR).map(|text| bare(&text).to_owned());
        let seed = seed(reader)?;
        let slots = reader.number(&keys::SLOT_REPLICAS);
        let channels = reader.number(&keys::CHANNEL_REPLICAS);
        let replica_count = usize::try_from(slots.max(channels)).ok().filter(|n| *n > 0);
        let ticks = reader.small(&keys::PONG_MAX_TICK);
        let idle_ticks = reader.small(&keys::CHANNEL_IDLE);
        let cluster = Cluster {
            node_id,
            server_addr,
            api_url: reader
                .text_if_any(&keys::API_URL)
                .map(|url| url.trim().trim_end_matches('/').to_owned()),
            init_nodes,
            seed,
            secret: reader.text_if_any(&keys::CLUSTER_SECRET).map(Secret::new),
            tls: tls(reader)?,
            role: role(reader)?,
            slot_count: u16::try_from(reader.number(&keys::SLOT_COUNT)).unwrap_or(u16::MAX),
            replica_count,
            peer_timeout: match ticks {
                0 => PEER_TIMEOUT,
                ticks => Duration::from_millis(200).saturating_mul(ticks),
            },
            request_timeout: reader.time(&keys::REQ_TIMEOUT),
            channel_idle: Duration::from_millis(100).saturating_mul(idle_ticks),
        };
        cluster.contradictions(&mut reader.notices);
        Ok(cluster)
    }

    /// Only told: once a cluster is stored on disk these settings no longer count, and a node that had
    /// them wrong must still start.
    fn contradictions(&self, notices: &mut Vec<Notice>) {
        if self.init_nodes.is_empty() {
            return;
        }
        match self.init_nodes.iter().find(|member| member.id == self.node_id) {
            None => notices.push(Notice::Conflict(format!(
                "cluster.initNodes does not list this node ({}); a first start needs it there",
                self.node_id
            ))),
            Some(own) => {
                if let Some(addr) = self.server_addr.as_ref().filter(|addr| **addr != own.addr) {
                    notices.push(Notice::Conflict(format!(
                        "cluster.serverAddr {addr} differs from this node's entry {} in \
                         cluster.initNodes, by which the others know it",
                        own.addr
                    )));
                }
            }
        }
        if self.seed.is_some() {
            notices.push(Notice::Conflict(
                "cluster.seed and cluster.initNodes are both set: a new node joins through the \
                 seed and ignores initNodes"
                    .to_owned(),
            ));
        }
    }
}

/// A wrong number is fatal, an explicit 0 too: it is part of every message id, and two nodes that
/// fall back to the same default would make the same ids.
fn node_id(reader: &mut Reader<'_>) -> Result<u16, ConfigError> {
    let notices = reader.notices.len();
    let id = reader.number(&keys::NODE_ID);
    if reader.notices.len() > notices {
        reader.notices.truncate(notices);
        let written = reader.raw(&keys::NODE_ID).map(|e| shown(&keys::NODE_ID, &e.raw));
        return Err(ConfigError::NodeId { written: written.unwrap_or_default() });
    }
    u16::try_from(id).map_err(|_| ConfigError::NodeId { written: id.to_string() })
}

/// All files or none: half of them would leave links plain, or the node alone.
fn tls(reader: &mut Reader<'_>) -> Result<Option<TlsFiles>, ConfigError> {
    let keys = [&keys::CLUSTER_TLS_CERT, &keys::CLUSTER_TLS_KEY, &keys::CLUSTER_TLS_CA];
    match keys.map(|key| reader.text_if_any(key)) {
        [None, None, None] => Ok(None),
        [Some(cert), Some(key), Some(ca)] => {
            Ok(Some(TlsFiles { cert: cert.into(), key: key.into(), ca: ca.into() }))
        }
        files => {
            let missing = keys.iter().zip(&files).find(|(_, file)| file.is_none());
            Err(ConfigError::HalfClusterTls { missing: missing.map_or("", |(key, _)| key.name) })
        }
    }
}

/// An unknown role is fatal, as in v2.2.5.
fn role(reader: &mut Reader<'_>) -> Result<Role, ConfigError> {
    let notices = reader.notices.len();
    let role = reader.choice(&keys::ROLE);
    if reader.notices.len() > notices {
        let written = reader.raw(&keys::ROLE).map(|e| shown(&keys::ROLE, &e.raw));
        return Err(ConfigError::Role { written: written.unwrap_or_default() });
    }
    Ok(if role == "proxy" { Role::Proxy } else { Role::Replica })
}

/// Items without `@` or with a strange id are skipped and told; a comma is fatal, because it makes one
/// item of a whole list and the node would silently be alone.
fn init_nodes(reader: &mut Reader<'_>) -> Result<Vec<Member>, ConfigError> {
    let mut members = BTreeMap::new();
    for item in reader.list(&keys::INIT_NODES) {
        let fatal =
            |why| ConfigError::Nodes { key: keys::INIT_NODES.name, item: item.clone(), why };
        if item.contains(',') {
            return Err(fatal("items are separated by blanks, not commas"));
        }
        let mut skip = |why: &str| {
            reader.notices.push(Notice::Skipped {
                key: keys::INIT_NODES.name,
                item: item.clone(),
                why: why.to_owned(),
            });
        };
        let mut parts = item.split('@');
        let id = parts.next().unwrap_or("").trim();
        let Some(addr) = parts.next().map(str::trim).filter(|addr| !addr.is_empty()) else {
            skip("wanted ID@HOST or ID@HOST:PORT");
            continue;
        };
        let Ok(id) = id.parse::<u64>() else {
            skip("the id is not a number");
            continue;
        };
        let id = member_id(id).ok_or_else(|| fatal("the id is not within 1 to 1023"))?;
        let addr = with_port(bare(addr));
        if members.insert(id, Member { id, addr }).is_some() {
            skip("an earlier item with the same id; the last one counts");
        }
    }
    Ok(members.into_values().collect())
}

fn member_id(id: u64) -> Option<u16> {
    u16::try_from(id).ok().filter(|id| (1..=1023).contains(id))
}

/// One text, or a list whose first item counts (samples show it so; v2.2.5 ignores it then).
fn seed(reader: &mut Reader<'_>) -> Result<Option<Member>, ConfigError> {
    let key: &'static Key = &keys::SEED;
    let Some(Entry { raw, origin }) = reader.raw(key) else {
        reader.text(key);
        return Ok(None);
    };
    let text = match raw {
        Raw::Scalar { text, .. } => text.trim().to_owned(),
        Raw::List(items) => items.first().map(|item| item.trim().to_owned()).unwrap_or_default(),
        Raw::Nested => {
            let why = "wanted one ID@HOST:PORT";
            return Err(ConfigError::Nodes { key: key.name, item: shown(key, raw), why });
        }
    };
    if text.is_empty() {
        reader.keep(key, text, Origin::Default);
        return Ok(None);
    }
    let fatal = |why| ConfigError::Nodes { key: key.name, item: text.clone(), why };
    let (id, addr) = text.split_once('@').ok_or_else(|| fatal("wanted ID@HOST:PORT"))?;
    let id = id.trim().parse().ok().and_then(member_id);
    let id = id.ok_or_else(|| fatal("the id is not within 1 to 1023"))?;
    let addr = bare(addr.trim());
    let (host, port) = addr.rsplit_once(':').ok_or_else(|| fatal("the port is missing"))?;
    if host.is_empty() || host.contains(char::is_whitespace) || port.parse::<u16>().is_err() {
        return Err(fatal("wanted ID@HOST:PORT"));
    }
    let addr = addr.to_owned();
    reader.keep(key, text.clone(), origin.clone());
    Ok(Some(Member { id, addr }))
}

/// The address without `tcp://`.
fn bare(addr: &str) -> &str {
    let addr = addr.trim();
    addr.split_once("://").map_or(addr, |(_, rest)| rest)
}

fn with_port(addr: &str) -> String {
    let has_port = match addr.rsplit_once(']') {
        Some((_, tail)) => tail.starts_with(':'),
        None => addr.contains(':'),
    };
    if has_port { addr.to_owned() } else { format!("{addr}:{MEMBER_PORT}") }
}

/// Shows lists of members the way they are understood.
pub(super) fn show_members(reader: &mut Reader<'_>, members: &[Member]) {
    if let Some(in_force) = reader.in_force.get_mut(keys::INIT_NODES.name) {
        in_force.value =
            Shown::Many(members.iter().map(|m| format!("{}@{}", m.id, m.addr)).collect());
    }
}
