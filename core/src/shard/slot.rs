//! One slot on this shard: what is proposed, what is committed and not yet applied, what other
//! slots still have to take over. The state itself (channels, users) is in the caches.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::{
    dedupe::Dedupe,
    notices::Notices,
    undelivered::{Recent, Undelivered},
};
use crate::{
    code::Code,
    effect::Committed,
    entry::{Command, ConversationChange, EntryHead, NewMessage},
    envelope::Epoch,
    id::{ChannelId, LogId, Name, SessionAddr, ShardAddr, SlotId},
    map::Map,
    request::{Failure, Reply},
    row::SlotRows,
};

/// Who asks, and the number of the ask there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) from: ShardAddr,
    pub(crate) id: u64,
}

/// Whose send it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender {
    pub(crate) from: ShardAddr,
    pub(crate) number: u64,
    pub(crate) epoch: Epoch,
    pub(crate) session: Option<SessionAddr>,
}

/// Who waits for one command of an entry.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// Nobody here.
    Nobody,
    /// The sender of a message.
    Send(Sender),
    /// A caller of the API.
    Api(Caller),
    /// A caller that changes a token; then the sessions of the device end with this text.
    Token { caller: Option<Caller>, uid: Name, device_flag: u8, kick: Option<Name> },
    /// Another slot's outbox.
    Outbox { source: SlotId, target: SlotId, index: u64 },
    /// Commands of a base channel, until these recipients have a row for their position.
    Openings { base: ChannelId, uids: Vec<Name> },
}

/// What became of a command.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// Carried out.
    Done,
    /// A message's place (the first one's for a repeated client number).
    Sent { message_id: i64, seq: u64 },
    /// It will not be, or nobody knows.
    Failed(Failure),
    /// Carried out, or refused by a rule, with this answer.
    Replied(Box<Reply>),
}

impl Outcome {
    /// The answer for a caller of the API.
    pub(crate) fn into_reply(self) -> Reply {
        match self {
            Self::Done => Reply::Done,
            Self::Sent { message_id, seq } => Reply::Sent { message_id, seq, code: Code::Success },
            Self::Failed(failure) => Reply::Failed(failure),
            Self::Replied(reply) => *reply,
        }
    }
}

/// Commands that go into one entry.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) commands: Vec<Command>,
    pub(crate) waiters: Vec<Waiter>,
}

/// An entry that was offered to the group and is not applied yet.
#[derive(Debug)]
pub(crate) struct Proposal {
    pub(crate) number: u64,
    pub(crate) batch: Batch,
    /// When the callers are told that it is unknown, `Now::mono_ms`.
    pub(crate) deadline_ms: u64,
}

/// The entry that is being applied: decoded, maybe waiting for rows.
#[derive(Debug)]
pub(crate) struct Applying {
    pub(crate) log_id: LogId,
    pub(crate) head: EntryHead,
    pub(crate) batch: Batch,
    /// Rows that must come before it is worth looking again: one look per row would ask each of
    /// the others to wake the slot once more, and double with every row.
    pub(crate) missing: usize,
    /// Whether the rows that it needs are kept in memory until it is applied.
    pub(crate) pinned: bool,
}

/// Answers that wait until other slots have committed what an entry sent them, and sessions know of
/// it.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Channels whose first message is among the answers: later ones do not overtake it.
    pub(crate) channels: Vec<ChannelId>,
    pub(crate) targets: Vec<SlotId>,
    /// When the callers are told that it is unknown, `Now::mono_ms`.
    pub(crate) deadline_ms: u64,
    pub(crate) answers: Vec<(Waiter, Outcome)>,
}

/// One slot.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) leading: bool,
    /// Until when nobody else can lead, `Now::mono_ms`.
    pub(crate) lease_ms: u64,
    /// The index of the last applied entry.
    pub(crate) applied: u64,
    pub(crate) undelivered: Undelivered,
    pub(crate) recent: Recent,
    pub(crate) dedupe: Dedupe,
    /// By source slot: how far its outbox is taken over. State.
    pub(crate) received: Map<SlotId, u64>,
    /// By (target, index): what the target has not confirmed. State.
    pub(crate) outbox: BTreeMap<(SlotId, u64), Bytes>,
    /// By target: the row under way and when it is sent again. Leader only.
    pub(crate) sending: Map<SlotId, (u64, u64)>,
    /// By target: confirmed, row not yet deleted by an entry. Leader only.
    pub(crate) taken: Map<SlotId, u64>,
    /// By source: the row that has come before this replica led, though its node was to lead.
    pub(crate) early: Map<SlotId, (u64, Vec<ConversationChange>)>,
    pub(crate) notices: Notices,
    /// Cluster keys; group 0 only. State.
    pub(crate) cluster: BTreeMap<String, Bytes>,
    pub(crate) committed: VecDeque<(LogId, Committed)>,
    pub(crate) applying: Option<Applying>,
    pub(crate) accumulator: Batch,
    pub(crate) accumulated_size: usize,
    pub(crate) proposals: VecDeque<Proposal>,
    pub(crate) next_proposal: u64,
    pub(crate) held: BTreeMap<u64, Held>,
    /// How many sessions have yet to hear of an entry, by its index.
    pub(crate) untold: BTreeMap<u64, u32>,
}

impl Slot {
    pub(crate) fn new(rows: SlotRows) -> Self {
        Self {
            leading: false,
            lease_ms: 0,
            applied: rows.applied.map_or(0, |id| id.index),
            undelivered: Undelivered::default(),
            recent: Recent::default(),
            dedupe: Dedupe::new(rows.dedupe),
            received: rows.received.into_iter().collect(),
            outbox: rows
                .outbox
                .into_iter()
                .map(|(slot, index, row)| ((slot, index), row))
                .collect(),
            sending: Map::default(),
            taken: Map::default(),
            early: Map::default(),
            notices: Notices::new(rows.notices),
            cluster: rows.cluster.into_iter().filter(|(_, value)| !value.is_empty()).collect(),
            committed: VecDeque::new(),
            applying: None,
            accumulator: Batch::default(),
            accumulated_size: 0,
            proposals: VecDeque::new(),
            next_proposal: 0,
            held: BTreeMap::new(),
            untold: BTreeMap::new(),
        }
    }

    /// The next outbox row for `target` that is neither under way nor confirmed.
    pub(crate) fn next_outbox(&self, target: SlotId) -> Option<(u64, &Bytes)> {
        if self.sending.contains_key(&target) {
            return None;
        }
        let after = self.taken.get(&target).map_or(0, |index| index + 1);
        let ((found, index), row) = self.outbox.range((target, after)..).next()?;
        (*found == target).then_some((*index, row))
    }

    /// Targets that have outbox rows.
    pub(crate) fn outbox_targets(&self) -> Vec<SlotId> {
        let mut targets: Vec<SlotId> = self.outbox.keys().map(|(target, _)| *target).collect();
        targets.dedup();
        targets
    }

    /// Whether anybody waits for something here. Whoever waited for a proposal of before, when this
    /// replica led, was told; and what a follower has not applied it applies when it comes again.
    pub(crate) fn is_idle(&self) -> bool {
        let proposed = self.proposals.iter().all(|proposal| proposal.batch.waiters.is_empty());
        let applied = self.applying.is_none() && self.committed.is_empty();
        let idle = self.accumulator.commands.is_empty() && self.held.is_empty();
        idle && if self.leading { self.proposals.is_empty() && applied } else { proposed }
    }
}

impl Slot {
    /// What waits, in a line for the log.
    pub(crate) fn unfinished(&self) -> String {
        format!(
            "{} gathered, {} proposed, {} to apply, {} held{}",
            self.accumulator.commands.len(),
            self.proposals.len(),
            self.committed.len() + usize::from(self.applying.is_some()),
            self.held.len(),
            if self.leading { ", leads" } else { "" },
        )
    }
}

fn message_size(message: &NewMessage) -> usize {
    160 + message.payload.len() + message.channel.id.len() + message.from.len()
}

/// About how many bytes a command takes in an entry.
pub(crate) fn command_size(command: &Command) -> usize {
    let changes_size = |changes: &[ConversationChange]| {
        changes.iter().map(|c| 64 + c.uid.len() + c.channel.id.len()).sum::<usize>()
    };
    match command {
        Command::Message(m) => message_size(m),
        Command::MessageTo { message, recipients } => {
            message_size(message) + recipients.iter().map(|u| 12 + u.len()).sum::<usize>()
        }
        Command::ChangeList { uids, .. }
        | Command::ChangeSystems { uids, .. }
        | Command::OpenCommands { uids, .. } => {
            96 + uids.iter().map(|u| 12 + u.len()).sum::<usize>()
        }
        Command::FromOutbox { changes, .. } => 64 + changes_size(changes),
        Command::Conversation(change) => changes_size(std::slice::from_ref(change)),
        Command::SetToken { token, uid, .. } => 64 + token.len() + uid.len(),
        Command::SetClusterKey { key, value } | Command::WriteClusterKey { key, value } => {
            64 + key.len() + value.len()
        }
        Command::StreamEvent(event) => event.size(),
        Command::ClaimStream(claim) => {
            96 + claim.client_msg_no.len() + claim.channel.id.len() + claim.from.len()
        }
        Command::HandOut { positions, .. } => {
            96 + positions.iter().map(|(channel, _)| 32 + channel.id.len()).sum::<usize>()
        }
        Command::TellStatus { item } => 64 + item.len(),
        Command::Import(import) => import.size(),
        Command::TakeHanded { .. }
        | Command::SetInfo { .. }
        | Command::Disband { .. }
        | Command::NoticesDone { .. }
        | Command::OutboxDone { .. }
        | Command::Delivered { .. } => 96,
    }
}
