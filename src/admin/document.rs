//! The cluster's document, as GET /cluster/info tells it (operations.md §3.4), and the figures that
//! an operator wants of it.

use std::fmt;
use std::io::{self, Write};

use serde::Deserialize;

/// The document. Fields that are zero are left out on the wire.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Document {
    slot_replica_count: usize,
    nodes: Vec<Node>,
    slots: Vec<Slot>,
}

/// A member.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Node {
    id: u64,
    cluster_addr: String,
    online: bool,
    allow_vote: bool,
    status: u8,
}

/// A slot.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Slot {
    id: u16,
    leader: u64,
    replicas: Vec<u64>,
    learners: Vec<u64>,
    changing: bool,
}

impl Node {
    /// Whether it is being removed.
    pub(super) fn is_leaving(&self) -> bool {
        self.status == 4
    }

    fn status(&self) -> &'static str {
        match self.status {
            1 | 2 => "joining",
            3 => "joined",
            4 => "leaving",
            _ => "unknown",
        }
    }
}

/// What a node holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// Slots of which it has a copy, one that is being made included.
    pub(super) copies: usize,
    /// Slots that it leads.
    pub(super) leads: usize,
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "holds {} slots, leads {}", self.copies, self.leads)
    }
}

impl Document {
    /// Whether nodes or slots are missing.
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty() || self.slots.is_empty()
    }

    pub(super) fn node(&self, id: u64) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }

    pub(super) fn share(&self, node: u64) -> Share {
        let holds = |slot: &&Slot| slot.replicas.contains(&node) || slot.learners.contains(&node);
        Share {
            copies: self.slots.iter().filter(holds).count(),
            leads: self.slots.iter().filter(|slot| slot.leader == node).count(),
        }
    }

    /// The slots that nobody leads.
    pub(super) fn without_leader(&self) -> Vec<u16> {
        self.slots.iter().filter(|slot| slot.leader == 0).map(|slot| slot.id).collect()
    }

    /// How many live copies a slot should have: as many as wanted, as far as there are nodes for
    /// it that are to stay, be they online or not.
    fn copies_wanted(&self) -> usize {
        let may_hold = |node: &&Node| node.allow_vote && !node.is_leaving();
        self.slot_replica_count.min(self.nodes.iter().filter(may_hold).count())
    }

    /// How many slots have too few copies on nodes that answer.
    fn under_replicated(&self) -> usize {
        let is_online = |id: &&u64| self.node(**id).is_some_and(|node| node.online);
        let copies = |slot: &Slot| slot.replicas.iter().filter(is_online).count();
        let wanted = self.copies_wanted();
        self.slots.iter().filter(|slot| copies(slot) < wanted).count()
    }

    /// How many slots change their copies or leader.
    fn moving(&self) -> usize {
        self.slots.iter().filter(|slot| slot.changing || !slot.learners.is_empty()).count()
    }

    /// Writes a table of nodes and a summary of slots.
    pub(super) fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut rows =
            vec![["NODE", "ADDRESS", "ONLINE", "STATUS", "SLOTS", "LEADS"].map(str::to_owned)];
        for node in &self.nodes {
            let share = self.share(node.id);
            let addr = if node.cluster_addr.is_empty() { "-" } else { &node.cluster_addr };
            rows.push([
                node.id.to_string(),
                // What another machine says must not reach the terminal as a command to it.
                addr.escape_debug().to_string(),
                if node.online { "yes" } else { "no" }.to_owned(),
                node.status().to_owned(),
                share.copies.to_string(),
                share.leads.to_string(),
            ]);
        }
        let addr_width = rows.iter().map(|[_, addr, ..]| addr.len()).max().unwrap_or(0);
        for [id, addr, online, status, slots, leads] in &rows {
            writeln!(
                out,
                "{id:<4}  {addr:<addr_width$}  {online:<6}  {status:<7}  {slots:>5}  {leads:>5}"
            )?;
        }
        let without = self.without_leader();
        let led = self.slots.len().saturating_sub(without.len());
        writeln!(
            out,
            "\n{} slots: {led} have a leader, {} under-replicated (fewer than {} copies on nodes \
             that answer), {} moving",
            self.slots.len(),
            self.under_replicated(),
            self.copies_wanted(),
            self.moving(),
        )
    }
}
