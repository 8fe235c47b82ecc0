//! The checker: what clients did and saw, and what was done to the nodes, held against G1 to G14.
//!
//! A time-out or a lost connection makes an attempt *unknown*: its message may be there, once, or
//! not at all. Times are nanoseconds of one clock; an attempt counts as sent just before its bytes
//! are written, as answered just after they were read, so every rule errs on the safe side.
//!
//! A history that lacks a kind of record (no sessions, no faults) is not held against its rules.

mod cluster;
mod delivery;
mod file;
mod log;
mod presence;
mod tests;
mod unread;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::api::Stored;

pub use cluster::{Gaps, gaps};
pub use file::{base64, load, save};

/// One attempt to send a message. The same (sender, client_msg_no) may be attempted again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attempt {
    /// The channel, by one name for all its members.
    pub channel: String,
    pub sender: String,
    pub client_msg_no: String,
    #[serde(with = "base64")]
    pub payload: Vec<u8>,
    /// Which connection; every HTTP request is one of its own.
    pub connection: u64,
    /// Place among the writes of that connection.
    pub place: u64,
    /// When the user wanted it sent: earlier than it was, if there was no connection.
    pub wanted: u64,
    pub sent: u64,
    pub outcome: Outcome,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Success was answered. HTTP tells no seq.
    Acked {
        at: u64,
        id: i64,
        seq: Option<u32>,
    },
    /// A refusal was answered.
    Refused {
        reason: u8,
    },
    Unknown,
}

/// The refusal that asks for another try. What it answers may have been on its way already (a
/// leader that lost its majority cannot know), so it counts as unknown.
pub const TRY_AGAIN: u8 = 15;

impl Attempt {
    /// Whether the message was refused for good.
    fn is_refused(&self) -> bool {
        matches!(self.outcome, Outcome::Refused { reason } if reason != TRY_AGAIN)
    }

    fn acked(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Acked { at, .. } => Some(at),
            Outcome::Refused { .. } | Outcome::Unknown => None,
        }
    }
}

/// A channel from seq `from` to its end, as one reader got it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Read {
    pub channel: String,
    pub reader: String,
    pub start: u64,
    pub end: u64,
    pub from: u32,
    /// Made after all had settled: it says what the channel is.
    pub settled: bool,
    pub messages: Vec<Stored>,
}

impl Read {
    /// The last seq of the channel, as far as this read tells.
    fn last(&self) -> u32 {
        self.messages.last().map_or(self.from - 1, |stored| stored.seq)
    }
}

/// A RECV, in the order in which its connection got them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Push {
    pub uid: String,
    pub channel: String,
    pub connection: u64,
    pub at: u64,
    pub message: Stored,
}

/// A connection of a user, from CONNACK to when the client saw or made its end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Session {
    pub uid: String,
    pub connection: u64,
    pub node: u16,
    pub open: u64,
    /// None while it lives.
    pub closed: Option<u64>,
}

/// A change of who belongs to a channel. The members that a group begins with are added, too.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Membership {
    pub channel: String,
    pub uid: String,
    pub added: bool,
    pub sent: u64,
    /// When it was acknowledged; None: it may have happened, or still happen.
    pub answered: Option<u64>,
}

/// A user says to have read a channel to its end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Position {
    pub channel: String,
    pub uid: String,
    pub sent: u64,
    pub answered: Option<u64>,
}

/// A user's view of a channel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Conversation {
    pub channel: String,
    pub uid: String,
    pub start: u64,
    pub end: u64,
    /// Seen after all had settled.
    pub settled: bool,
    /// None: the channel is not among the user's conversations.
    pub state: Option<Counts>,
}

/// The numbers of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub last_seq: u32,
    pub read_seq: u32,
    pub unread: u32,
}

/// Who of these users is online, as a node tells it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Presence {
    pub node: u16,
    pub start: u64,
    pub end: u64,
    pub asked: Vec<String>,
    pub online: Vec<String>,
}

/// What was done to the cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fault {
    pub kind: Kind,
    /// To these nodes.
    pub nodes: Vec<u16>,
    pub start: u64,
    /// When it was over: healed, continued, or serving again.
    pub end: u64,
    /// Whether a majority could work together in between.
    pub quorum: bool,
}

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// SIGKILL.
    Kill,
    /// SIGSTOP.
    Pause,
    /// No packet from or to these hosts, then SIGKILL: nobody is told.
    Vanish,
    /// No packet between these nodes and the others, one way or both.
    Cut,
    /// The same, begun and ended again and again until the fault is over.
    Flap,
    /// Late and lost packets.
    Slow,
    /// SIGKILL, and the data directory emptied.
    Wipe,
    /// SIGTERM.
    Stop,
    /// A node joins.
    Join,
}

/// A request on an open connection to a node without a fault that got no answer in time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Silence {
    pub what: String,
    pub node: u16,
    pub from: u64,
    pub to: u64,
}

/// How slots are spread, as a node tells it: node to (replicas, leaders).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spread {
    pub at: u64,
    pub nodes: BTreeMap<u16, (u32, u32)>,
}

/// All that was done and seen.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub attempts: Vec<Attempt>,
    pub reads: Vec<Read>,
    pub pushes: Vec<Push>,
    pub sessions: Vec<Session>,
    pub memberships: Vec<Membership>,
    pub positions: Vec<Position>,
    pub conversations: Vec<Conversation>,
    pub presences: Vec<Presence>,
    pub faults: Vec<Fault>,
    pub silences: Vec<Silence>,
    pub spreads: Vec<Spread>,
    /// When everything had settled; 0: it was not waited for.
    pub settled: u64,
}

/// How long the promises leave.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// After a fault begins or ends, until presence and writes are right again (G11, G12).
    pub heal: Duration,
    /// Until a connection whose client has gone counts as dead (G11).
    pub idle: Duration,
    /// Without an acknowledgement on a channel when one node of several is killed (G13).
    pub failover: Duration,
    /// For an answer, whatever it says.
    pub answer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            heal: Duration::from_secs(10),
            idle: Duration::from_secs(20),
            failover: Duration::from_secs(3),
            answer: Duration::from_millis(6500),
        }
    }
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// `G1` to `G14`.
    pub rule: &'static str,
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.text)
    }
}

/// Everything in `history` that breaks G1 to G14; empty when all hold.
pub fn check(history: &History) -> Vec<Violation> {
    check_within(history, &Limits::default())
}

/// The same, with other limits.
pub fn check_within(history: &History, limits: &Limits) -> Vec<Violation> {
    let mut found = Findings::default();
    let facts = Facts::gather(history, &mut found);
    log::check(&facts, &mut found);
    delivery::check(&facts, &mut found);
    unread::check(&facts, &mut found);
    presence::check(history, limits, &mut found);
    cluster::check(&facts, limits, &mut found);
    found.0
}

/// Panics with the first violations, if there are any.
pub fn assert_holds(history: &History) {
    let found = check(history);
    assert!(found.is_empty(), "{}", summary(&found));
}

/// How often each rule was broken, and the first times.
pub fn summary(found: &[Violation]) -> String {
    let mut rules: BTreeMap<&str, Vec<&Violation>> = BTreeMap::new();
    for violation in found {
        rules.entry(violation.rule).or_default().push(violation);
    }
    let mut out = format!("{} violations", found.len());
    for (rule, all) in rules {
        out += &format!("\n  {rule}: {} times", all.len());
        for violation in all.iter().take(6) {
            out += &format!("\n    {}", violation.text);
        }
    }
    out
}

#[derive(Default)]
struct Findings(Vec<Violation>);

impl Findings {
    fn add(&mut self, rule: &'static str, text: String) {
        self.0.push(Violation { rule, text });
    }
}

/// Channel, sender, client_msg_no.
type Key<'a> = (&'a str, &'a str, &'a str);

/// What is known of a message over all its attempts.
#[derive(Default)]
struct Message<'a> {
    attempts: Vec<&'a Attempt>,
    wanted: u64,
    /// First moment at which it may have been taken.
    sent: u64,
    /// First moment at which it was acknowledged.
    acked: Option<u64>,
    /// Where it stands in the settled history.
    seq: Option<u32>,
}

/// A history, ordered for the rules.
struct Facts<'a> {
    history: &'a History,
    messages: HashMap<Key<'a>, Message<'a>>,
    /// The last settled read of each channel from its beginning.
    settled: BTreeMap<&'a str, &'a Read>,
}

impl<'a> Facts<'a> {
    fn gather(history: &'a History, found: &mut Findings) -> Self {
        let mut messages = log::gather(history, found);
        let whole = history.reads.iter().filter(|read| read.settled && read.from == 1);
        let settled: BTreeMap<_, _> = whole.map(|read| (read.channel.as_str(), read)).collect();
        for read in settled.values() {
            for stored in &read.messages {
                if let Some(message) = messages.get_mut(&key(&read.channel, stored)) {
                    message.seq.get_or_insert(stored.seq);
                }
            }
        }
        Self { history, messages, settled }
    }
}

fn key<'a>(channel: &'a str, stored: &'a Stored) -> Key<'a> {
    (channel, &stored.from, &stored.client_msg_no)
}
