//! What nodes ask each other about the cluster itself, beside Raft and messaging: rare, small, JSON.
//! Unknown fields are skipped, so that nodes of two versions understand each other.

use serde::{Deserialize, Serialize};

use super::{document::Member, logs::LogLine};

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(super) enum Ask {
    /// To the leader of group 0 (any node passes it on): take this node in, or note its addresses.
    Enter {
        /// Its id.
        node: u64,
        /// Where its links are accepted.
        addr: String,
        /// The base URL of its HTTP API.
        api_url: String,
        /// Of the settings that all nodes must share.
        fingerprint: u64,
        /// It has nothing on disk.
        blank: bool,
        /// How often this was passed on.
        #[serde(default)]
        hops: u8,
    },
    /// To a shard: what do your groups look like?
    Groups,
    /// To the leader of a slot: these are to be its voters.
    SetVoters {
        /// The slot.
        slot: u16,
        /// All of them.
        voters: Vec<u64>,
    },
    /// To the leader of a slot: let this voter lead.
    Transfer {
        /// The slot.
        slot: u16,
        /// Who.
        to: u64,
    },
    /// To a shard of the own node, which stops: hand over what it leads.
    HandOver,
    /// To the leader of group 0: change a node's status, or remove its entry.
    Node {
        /// Which.
        node: u64,
        /// What.
        change: NodeChange,
        /// How often this was passed on.
        #[serde(default)]
        hops: u8,
    },
    /// To the shard of a slot: what does your log hold?
    Logs {
        /// The slot; 65535: group 0.
        slot: u16,
        /// Only what is newer.
        after: Option<u64>,
        /// Only what is older.
        before: Option<u64>,
        /// How many entries at most.
        limit: u64,
    },
}

/// What an operator wants of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum NodeChange {
    /// Give up its share and go.
    Leave,
    /// Stay after all.
    Stay,
    /// It will come again from this address, with an empty directory or its own.
    Replace {
        /// `host:port`.
        addr: String,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(super) enum Answer {
    /// Carried out.
    Done,
    /// To [`Ask::Enter`]: what the new node must know.
    Entered {
        /// The cluster's number.
        cluster_id: u64,
        /// The secret.
        secret: Vec<u8>,
        /// All nodes.
        nodes: Vec<(u64, Member)>,
    },
    /// To [`Ask::Groups`].
    Groups {
        /// One item per group of the shard.
        groups: Vec<GroupStatus>,
        /// The shards of the node.
        shard_count: u16,
        /// Seconds since the node started.
        #[serde(default)]
        uptime_s: u64,
        /// What it runs.
        #[serde(default)]
        version: String,
    },
    /// To [`Ask::Logs`].
    Logs {
        /// The entries, ascending.
        lines: Vec<LogLine>,
        /// Up to which index the replica has applied.
        applied: u64,
        /// The last index of its log.
        last: u64,
    },
    /// Not carried out; the text says why and, if anything can be done, what.
    Failed {
        /// Why.
        reason: String,
        /// It may work later.
        retry: bool,
    },
}

/// A group on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct GroupStatus {
    /// The slot; 65535: group 0.
    pub(super) slot: u16,
    /// Who leads, as far as the replica knows.
    pub(super) leader: Option<u64>,
    /// The replica leads and serves.
    pub(super) leads: bool,
    /// The term.
    pub(super) term: u64,
    /// The voters.
    pub(super) voters: Vec<u64>,
    /// The learners.
    pub(super) learners: Vec<u64>,
    /// Index of the last entry in its log.
    pub(super) last: u64,
    /// Index of the last entry that is applied.
    pub(super) applied: u64,
    /// The last entry known to be committed.
    pub(super) committed: u64,
    /// A change of members is under way.
    pub(super) changing: bool,
    /// The replica began with nothing and may not vote before it was taken in anew.
    pub(super) muted: bool,
    /// Its node stops, and leads nothing any more.
    pub(super) retiring: bool,
}

impl Answer {
    /// A failure that may pass.
    pub(super) fn later(reason: impl Into<String>) -> Self {
        Self::Failed { reason: reason.into(), retry: true }
    }

    /// A refusal.
    pub(super) fn refuse(reason: impl Into<String>) -> Self {
        Self::Failed { reason: reason.into(), retry: false }
    }
}

/// The bytes of a letter.
pub(super) fn to_bytes<T: Serialize>(letter: &T) -> bytes::Bytes {
    // Nothing in a letter has no form in JSON.
    serde_json::to_vec(letter).unwrap_or_default().into()
}

/// Reads what another node asks.
pub(super) fn read_ask(bytes: &[u8]) -> Result<Ask, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

/// Reads an answer.
pub(super) fn read_answer(bytes: &[u8]) -> Answer {
    serde_json::from_slice(bytes).unwrap_or_else(|error| Answer::later(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_come_back_and_unknown_fields_are_skipped() {
        let ask = Ask::SetVoters { slot: 3, voters: vec![1, 2] };
        assert_eq!(read_ask(&to_bytes(&ask)), Ok(ask));
        let newer = br#"{"ask":"transfer","slot":1,"to":2,"gently":true}"#;
        assert_eq!(read_ask(newer), Ok(Ask::Transfer { slot: 1, to: 2 }));
        assert!(read_ask(b"{}").is_err());
        assert!(matches!(read_answer(b"?"), Answer::Failed { retry: true, .. }));
    }
}
