//! Some nodes that make a cluster, configured as the deployment guide does it, and what can be done
//! to them.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::net::{Host, Network, Wire};
use crate::support::api::Api;
use crate::support::eventually;
use crate::support::node::Node;

/// How long a node may take until it serves.
const START_MAX: Duration = Duration::from_secs(60);
/// How long a cluster may take to give a new node its share.
const SPREAD_MAX: Duration = Duration::from_secs(90);

/// Where clients reach a node.
#[derive(Clone)]
pub struct Door {
    pub node: u16,
    pub tcp: String,
    pub ws: String,
    pub http: String,
}

/// The doors of all nodes; a cluster that grows gets more.
pub type Doors = Arc<RwLock<Vec<Door>>>;

/// A cluster. Nodes are named by their place, from 0.
pub struct Cluster<'n> {
    network: &'n Network,
    nodes: Vec<Node>,
    doors: Doors,
}

impl<'n> Cluster<'n> {
    /// So many nodes that begin together and serve.
    pub fn start(network: &'n Network, count: usize, environment: &[(&str, &str)]) -> Self {
        let mut cluster = Self { network, nodes: Vec::new(), doors: Doors::default() };
        for _ in 0..count {
            cluster.prepare(environment);
        }
        if count > 1 {
            let list: Vec<_> = (0..count).map(|place| cluster.member(place)).collect();
            for node in &mut cluster.nodes {
                node.set("WK_CLUSTER_INITNODES", &list.join(" "));
            }
        }
        for node in &mut cluster.nodes {
            node.launch();
        }
        for place in 0..count {
            cluster.await_serving(place);
            cluster.open(place);
        }
        cluster
    }

    /// Adds a node that has not been started; its place.
    fn prepare(&mut self, environment: &[(&str, &str)]) -> usize {
        let place = self.nodes.len();
        let id = self.id(place).to_string();
        let host = Host::try_from(place + 1).unwrap();
        let mut node =
            Node::prepare_at(self.network.place(host).unwrap(), &format!("n{id}"), environment);
        let api = format!("http://{}", node.api_address());
        for (name, value) in [("WK_CLUSTER_NODEID", &id), ("WK_CLUSTER_APIURL", &api)] {
            node.set(name, value);
        }
        self.nodes.push(node);
        place
    }

    fn open(&self, place: usize) {
        let node = &self.nodes[place];
        let door =
            Door { node: self.id(place), tcp: node.tcp(), ws: node.ws(), http: node.api_address() };
        self.doors.write().unwrap().push(door);
    }

    /// Number of nodes.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// `WK_CLUSTER_NODEID`.
    pub fn id(&self, place: usize) -> u16 {
        1001 + u16::try_from(place).unwrap()
    }

    /// `ID@HOST:PORT`.
    fn member(&self, place: usize) -> String {
        format!("{}@{}", self.id(place), self.nodes[place].cluster())
    }

    /// Where clients reach the nodes.
    pub fn doors(&self) -> Doors {
        Arc::clone(&self.doors)
    }

    /// Processes of the nodes that run.
    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().map(Node::pid).collect()
    }

    /// Waits until a node says that it serves.
    pub fn await_serving(&mut self, place: usize) {
        let (start, id) = (Instant::now(), self.id(place));
        let node = &mut self.nodes[place];
        while !node.serves() {
            assert!(node.is_alive(), "node {id} ended instead of serving");
            assert!(start.elapsed() < START_MAX, "node {id} does not serve after {START_MAX:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self, place: usize) {
        self.nodes[place].kill();
    }

    /// Starts it again; it may take its time to serve.
    pub fn launch(&mut self, place: usize) {
        self.nodes[place].launch();
    }

    /// Empties its data directory.
    pub fn wipe(&mut self, place: usize) {
        self.nodes[place].wipe();
    }

    /// SIGSTOP.
    pub fn pause(&self, place: usize) {
        self.nodes[place].signal(Signal::SIGSTOP);
    }

    /// SIGCONT.
    pub fn resume(&self, place: usize) {
        self.nodes[place].signal(Signal::SIGCONT);
    }

    /// SIGTERM, and waits for the end, which must be a good one.
    pub fn stop(&mut self, place: usize) -> Duration {
        let id = self.id(place);
        let (status, took) = self.nodes[place].terminate();
        assert!(status.success(), "node {id} ended with {status} after SIGTERM");
        took
    }

    /// Starts a new node that joins through the first, and waits until it serves.
    pub fn join(&mut self, environment: &[(&str, &str)]) -> usize {
        let place = self.prepare(environment);
        let seed = self.member(0);
        self.nodes[place].set("WK_CLUSTER_SEED", &seed);
        self.nodes[place].launch();
        self.await_serving(place);
        self.open(place);
        place
    }

    /// Changes what happens to packets from one node to another.
    pub fn set_wire(&self, from: usize, to: usize, wire: Wire) {
        let host = |place: usize| Host::try_from(place + 1).unwrap();
        self.network.wire().unwrap().set(host(from), host(to), wire);
    }

    /// Cuts a node off from all others, or joins it to them again.
    pub fn set_isolated(&self, place: usize, cut: bool) {
        let wire = Wire { cut, ..Wire::default() };
        for other in (0..self.count()).filter(|other| *other != place) {
            self.set_wire(place, other, wire);
            self.set_wire(other, place, wire);
        }
    }

    /// Takes a node off the wire, for clients too, or puts it back.
    pub fn set_unplugged(&self, place: usize, cut: bool) {
        let host = |place: usize| Host::try_from(place + 1).unwrap();
        let others: Vec<_> = (0..self.count()).filter(|other| *other != place).map(host).collect();
        self.network.set_unplugged(host(place), &others, cut);
    }

    /// All packets arrive again.
    pub fn heal(&self) {
        self.network.wire().unwrap().heal();
    }

    /// Replicas and leaders per node, as this node sees them.
    pub fn spread(&self, place: usize) -> io::Result<BTreeMap<u16, (u32, u32)>> {
        let api = Api::new(self.nodes[place].api_address()).within(Duration::from_secs(5));
        let all = api.look("/cluster/allslot")?;
        let strange = || io::Error::other(format!("strange slots {all}"));
        let slots = all["data"].as_array().ok_or_else(strange)?;
        let id = |value: &serde_json::Value| value.as_u64().and_then(|id| u16::try_from(id).ok());
        let mut nodes = BTreeMap::<u16, (u32, u32)>::new();
        for slot in slots {
            for replica in slot["replicas"].as_array().ok_or_else(strange)? {
                nodes.entry(id(replica).ok_or_else(strange)?).or_default().0 += 1;
            }
            if let Some(leader) = id(&slot["leader_id"]).filter(|leader| *leader != 0) {
                nodes.entry(leader).or_default().1 += 1;
            }
        }
        Ok(nodes)
    }

    /// Waits until slots are as even as they will be: nothing changed for a while and every node has
    /// its share, or too long has passed.
    pub fn await_spread(&self) -> BTreeMap<u16, (u32, u32)> {
        let start = Instant::now();
        loop {
            let spread = eventually("a list of all slots", || self.spread(0).ok());
            let even = |of: fn(&(u32, u32)) -> u32| {
                let (low, high) = (spread.values().map(of).min(), spread.values().map(of).max());
                low.zip(high).is_some_and(|(low, high)| high - low <= 1)
            };
            let all = spread.len() == self.count();
            if all && even(|counts| counts.0) && even(|counts| counts.1) {
                return spread;
            }
            if start.elapsed() > SPREAD_MAX {
                return spread;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Leaves data and logs behind; where they are.
    pub fn keep(&mut self) -> Vec<String> {
        self.nodes.iter_mut().map(|node| node.keep().display().to_string()).collect()
    }
}
