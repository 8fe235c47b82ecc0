//! How far a user has fetched the commands that it missed (http-api.md §8.3, §8.4; semantics.md
//! §7.5): the positions that were handed out and the one that is acknowledged stand in the rows of
//! its command conversations, so that any node, and the next leader, goes on from them.

use std::sync::Arc;

use super::{Shard, cache::Found, slot::Caller, user::User};
use crate::{
    entry::{Command, ConversationAction, ConversationChange},
    envelope::Ask,
    id::{ChannelId, Name},
    request::Reply,
};

impl Shard {
    /// What was handed out last is acknowledged.
    pub(super) fn acknowledge_handed(&mut self, caller: Caller, ask: &Arc<Ask>, uid: Name) {
        let Some(is_owed) = self.look_at_user(caller, ask, &uid, User::has_handed) else {
            return;
        };
        if is_owed {
            let id = uid.clone();
            self.propose_for(caller, &id, vec![Command::TakeHanded { uid }]);
        } else {
            self.reply(caller, Reply::Done);
        }
    }

    /// A master device has acknowledged a command that was pushed to it (semantics.md §6): only a
    /// row that is there moves.
    pub(super) fn acknowledge_command(
        &mut self,
        caller: Caller,
        ask: &Arc<Ask>,
        uid: Name,
        (channel, seq): (ChannelId, u64),
    ) {
        let moves = |user: &User| user.reads_before(&channel, seq);
        let Some(moves) = self.look_at_user(caller, ask, &uid, moves) else {
            return;
        };
        if moves {
            let id = uid.clone();
            let action = ConversationAction::AckTo { read_to: seq };
            let change = ConversationChange { uid, channel: (&channel).into(), action };
            self.propose_for(caller, &id, vec![Command::Conversation(change)]);
        } else {
            self.reply(caller, Reply::Done);
        }
    }

    /// What a loaded user says; `None`: the caller was answered, or asks again when it is loaded.
    fn look_at_user<T>(
        &mut self,
        caller: Caller,
        ask: &Arc<Ask>,
        uid: &Name,
        look: impl FnOnce(&User) -> T,
    ) -> Option<T> {
        if !self.reads_or_fails(caller, self.slot_of(uid)) {
            return None;
        }
        match self.users.get_or_wait(uid, || caller.again(ask)) {
            Found::Ready(user) => Some(look(user)),
            Found::Loading => None,
            Found::Missing => {
                self.load_user(uid.clone());
                None
            }
        }
    }
}
