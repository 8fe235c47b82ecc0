//! The rows in which users' positions in a command channel stand (semantics.md §8.3): every
//! recipient of a stored command has one, so that it finds the command when it comes.
//!
//! ```text
//! command channel's slot ──Question::Commands──► base channel's slot ──outbox──► users' slots
//!        ◄──────────────────answer─────────────────────┘ ◄────────taken────────────┘
//! ```
//! The leader of the base channel remembers which recipients have theirs: most commands cost a
//! question and no write. The rows are there before the command is stored. The sender's own is made
//! by the command's entry, which knows the seq up to which the sender needs nothing.
//!
//! Between two people, or a user and an agent, nobody is asked: the entry of the first command makes
//! both rows.

use std::sync::Arc;

use super::{
    Local, Shard,
    cache::Found,
    channel::{Channel, passes_without_lists},
    slot::{Caller, Outcome, Waiter},
};
use crate::{
    channel_info::kind,
    code::Code,
    entry::{ChannelRef, Command, ConversationAction, ConversationChange},
    envelope::{Answer, Ask, Envelope},
    id::{COMMAND_SUFFIX, ChannelId, Name},
    map::Set,
    request::Failure,
};

/// Rows that one command makes, and bytes of their uids.
const OPENED_COUNT_MAX: usize = 10_000;
const OPENED_SIZE_MAX: usize = 512 << 10;

/// Which recipients of a channel have no row for its commands, as far as its leader knows.
#[derive(Debug, Default)]
pub(crate) struct Openings {
    missing: Set<Name>,
    /// Of them, those whose row was left to the entry of a command of theirs, once.
    left: Set<Name>,
}

impl Openings {
    /// A member was added.
    pub(crate) fn add(&mut self, uid: Name) {
        self.missing.insert(uid);
    }

    /// A member is gone: its row, if there is one, stays.
    pub(crate) fn remove(&mut self, uid: &Name) {
        self.missing.swap_remove(uid);
        self.left.swap_remove(uid);
    }

    /// About how many bytes it takes.
    pub(crate) fn size(&self) -> usize {
        64 + 48 * (self.missing.len() + self.left.len())
    }
}

/// What a command needs before it is stored.
struct Needed {
    /// Rows to be made now.
    uids: Vec<Name>,
    /// The sender's is made by the entry.
    opens_sender: bool,
}

/// Whether commands of a channel of this type are fetched by those who missed them.
pub(crate) fn keeps_positions(channel_kind: u8) -> bool {
    !matches!(channel_kind, kind::DATA | kind::TEMP | kind::LIVE)
}

/// Whether the recipients of a channel stand in its id.
pub(crate) fn is_pair(channel_kind: u8) -> bool {
    matches!(channel_kind, kind::PERSON | kind::AGENT)
}

/// The command channel of a base channel.
fn command_channel(base: &ChannelId) -> ChannelId {
    ChannelId::new(format!("{}{COMMAND_SUFFIX}", base.id), base.kind)
}

impl Channel {
    /// What a command of `sender` needs. Sorted, and no more than one entry takes.
    fn needed_openings(&mut self, sender: &Name) -> Needed {
        let openings = if let Some(openings) = &mut self.openings {
            openings
        } else {
            let missing = self.recipients().into_iter().collect();
            self.openings.insert(Box::new(Openings { missing, left: Set::default() }))
        };
        let opens_sender =
            openings.missing.contains(sender) && openings.left.insert(sender.clone());
        let missing = openings.missing.iter().filter(|uid| !(opens_sender && *uid == sender));
        let mut size = 0;
        let fitting = missing.take(OPENED_COUNT_MAX).take_while(|uid| {
            size += uid.len();
            size <= OPENED_SIZE_MAX.max(uid.len())
        });
        let mut uids: Vec<Name> = fitting.cloned().collect();
        uids.sort_unstable();
        Needed { uids, opens_sender }
    }

    /// These have their rows.
    fn opened(&mut self, uids: &[Name]) {
        if let Some(openings) = &mut self.openings {
            for uid in uids {
                openings.remove(uid);
            }
        }
    }
}

impl Shard {
    /// A command of `sender` wants to be stored: may it, and has everybody a row?
    pub(super) fn on_command_question(
        &mut self,
        caller: Caller,
        ask: &Arc<Ask>,
        (sender, trusted): (&Name, bool),
        base: &ChannelId,
    ) {
        let slot = base.slot(self.settings.slot_count);
        if !self.leads_now(slot) {
            return self.answer_ask(caller, Answer::NotLeader);
        }
        let channel = match self.channels.get_or_wait(base, || caller.again(ask)) {
            Found::Ready(channel) => channel,
            Found::Loading => return,
            Found::Missing => return self.load_channel(base.clone()),
        };
        if !passes_without_lists(base, sender, trusted) {
            let code = channel.check_member(sender);
            if code != Code::Success {
                return self.answer_ask(caller, Answer::Code(code));
            }
        }
        // Others may have asked before, and the rows are on their way.
        if let Some(waiting) = self.openings.get_mut(base) {
            waiting.push((caller, ask.clone()));
            return;
        }
        let Needed { uids, opens_sender } = channel.needed_openings(sender);
        self.channels.resize(base, Channel::size);
        if uids.is_empty() {
            let answer =
                if opens_sender { Answer::OpensSender } else { Answer::Code(Code::Success) };
            return self.answer_ask(caller, answer);
        }
        // Asked again when the rows are there, it must be left to the entry once more.
        if opens_sender
            && let Some(channel) = self.channels.get(base)
            && let Some(openings) = &mut channel.openings
        {
            openings.left.swap_remove(sender);
        }
        self.open_rows(base, uids, vec![(caller, ask.clone())]);
    }

    /// A command is delivered: whoever became a recipient while it was on its way gets a row too.
    pub(super) fn open_rows_of_late(&mut self, base: &ChannelId) {
        if !keeps_positions(base.kind) || self.openings.contains_key(base) {
            return;
        }
        let Some(channel) = self.channels.get(base) else {
            return;
        };
        // Nothing is known of a channel that was never asked about here: the next command asks.
        let Some(openings) = channel.openings.as_ref().filter(|o| o.missing.len() > o.left.len())
        else {
            return;
        };
        let late = openings.missing.iter().filter(|uid| !openings.left.contains(*uid));
        let mut uids: Vec<Name> = late.take(OPENED_COUNT_MAX).cloned().collect();
        uids.sort_unstable();
        self.open_rows(base, uids, Vec::new());
    }

    fn open_rows(&mut self, base: &ChannelId, uids: Vec<Name>, waiting: Vec<(Caller, Arc<Ask>)>) {
        let slot = base.slot(self.settings.slot_count);
        let command = Command::OpenCommands { base: base.into(), uids: uids.clone() };
        let waiter = Waiter::Openings { base: base.clone(), uids };
        self.openings.insert(base.clone(), waiting);
        if let Err(waiter) = self.offer(slot, vec![(command, waiter)]) {
            self.answer(slot, waiter, Outcome::Failed(Failure::Busy));
        }
    }

    /// The rows are there, or will not be: whoever waited goes on, or asks again.
    pub(super) fn rows_opened(&mut self, base: &ChannelId, uids: &[Name], is_done: bool) {
        if is_done && let Some(channel) = self.channels.get(base) {
            channel.opened(uids);
            self.channels.resize(base, Channel::size);
        }
        for (caller, ask) in self.openings.swap_remove(base).unwrap_or_default() {
            if is_done {
                let Caller { from, id } = caller;
                self.local.push_back(Local::Envelope(Envelope::Ask { from, id, ask }));
            } else {
                self.answer_ask(caller, Answer::NotLeader);
            }
        }
    }

    /// The positions of recipients in the commands of a base channel, as changes of other slots.
    pub(super) fn changes_of_openings(
        base: &ChannelId,
        uids: Vec<Name>,
    ) -> impl Iterator<Item = ConversationChange> {
        let channel = ChannelRef::from(&command_channel(base));
        uids.into_iter().map(move |uid| ConversationChange {
            uid,
            channel: channel.clone(),
            action: ConversationAction::OpenIfAbsent { read_to: 0 },
        })
    }
}
