//! A user in memory: devices and conversations (semantics.md §8).

use crate::{
    entry::ConversationAction,
    id::{COMMAND_SUFFIX, ChannelId, Name},
    import::ImportedConversation,
    map::Map,
    row::{Conversation, Dated, Device, Row, Times, UserRows},
};

/// What the home of a uid keeps of it.
#[derive(Debug)]
pub(crate) struct User {
    uid: Name,
    devices: Map<u8, Device>,
    conversations: Map<ChannelId, Conversation>,
}

impl User {
    pub(crate) fn new(uid: Name, rows: UserRows) -> Self {
        Self {
            uid,
            devices: rows.devices.into_iter().collect(),
            conversations: rows.conversations.into_iter().collect(),
        }
    }

    /// About how many bytes it takes.
    pub(crate) fn size(&self) -> usize {
        192 + self.uid.len() + 160 * self.conversations.len() + 96 * self.devices.len()
    }

    pub(crate) fn device(&self, flag: u8) -> Option<&Device> {
        self.devices.get(&flag)
    }

    /// Registers a device, or changes it.
    pub(crate) fn set_device(
        &mut self,
        flag: u8,
        level: u8,
        token: String,
        time_ms: i64,
        rows: &mut Vec<Row>,
    ) {
        let uid = self.uid.clone();
        let mut date = |what, created_ns| rows.push(Row::Dated { what, created_ns });
        if self.devices.values().all(|device| device.times.created_ns == 0) {
            let first = Times::default().write(&[uid.as_bytes()], time_ms);
            date(Dated::User(uid.clone()), first.created_ns);
        }
        let old = self.devices.get(&flag).map_or_else(Times::default, |device| device.times);
        let times = old.write(&[&[flag], uid.as_bytes()], time_ms);
        if old.created_ns == 0 {
            date(Dated::Device(uid.clone(), flag), times.created_ns);
        }
        let device = Device { level, token, times };
        self.devices.insert(flag, device.clone());
        rows.push(Row::Device { uid, device_flag: flag, device });
    }

    /// Every conversation, the one touched last first; of those touched in the same millisecond,
    /// the younger first.
    pub(crate) fn conversations(&self) -> Vec<(ChannelId, Conversation)> {
        let mut list: Vec<_> =
            self.conversations.iter().map(|(c, row)| (c.clone(), *row)).collect();
        list.sort_by(|(a_id, a), (b_id, b)| {
            (b.updated_ms, b.created_ms, b_id).cmp(&(a.updated_ms, a.created_ms, a_id))
        });
        list
    }

    /// Conversations of command channels, by channel.
    pub(crate) fn command_conversations(&self) -> Vec<(ChannelId, Conversation)> {
        let commands = self.conversations.iter().filter(|(id, _)| id.id.ends_with(COMMAND_SUFFIX));
        let mut list: Vec<_> = commands.map(|(c, row)| (c.clone(), *row)).collect();
        list.sort_by(|(a, _), (b, _)| a.cmp(b));
        list
    }

    /// Whether commands were handed out that are not acknowledged.
    pub(crate) fn has_handed(&self) -> bool {
        self.conversations.values().any(|row| row.handed_to > 0)
    }

    /// Whether there is a row whose read position is below `seq`.
    pub(crate) fn reads_before(&self, channel: &ChannelId, seq: u64) -> bool {
        self.conversations.get(channel).is_some_and(|row| row.read_to < seq)
    }

    /// Commands were handed out up to these positions; all others are void.
    pub(crate) fn hand_out(&mut self, positions: &[(ChannelId, u64)], rows: &mut Vec<Row>) {
        let positions: Map<&ChannelId, u64> =
            positions.iter().map(|(id, seq)| (id, *seq)).collect();
        for (channel, row) in self.command_conversations() {
            let handed_to = positions.get(&channel).copied().unwrap_or(0);
            if handed_to != row.handed_to {
                self.write(channel, Conversation { handed_to, ..row }, rows);
            }
        }
    }

    /// What was handed out is read.
    pub(crate) fn take_handed(&mut self, rows: &mut Vec<Row>) {
        for (channel, row) in self.command_conversations() {
            if row.handed_to > 0 {
                let read_to = row.read_to.max(row.handed_to);
                self.write(channel, Conversation { read_to, handed_to: 0, ..row }, rows);
            }
        }
    }

    fn write(&mut self, channel: ChannelId, row: Conversation, rows: &mut Vec<Row>) {
        self.conversations.insert(channel.clone(), row);
        let uid = self.uid.clone();
        rows.push(Row::Conversation { uid, channel, conversation: Some(row) });
    }

    /// A conversation becomes what an import says.
    pub(crate) fn put_conversation(&mut self, new: &ImportedConversation, rows: &mut Vec<Row>) {
        let channel = ChannelId::from(&new.channel);
        let old = self.conversations.get(&channel).copied();
        let row = Conversation {
            read_to: new.read_to,
            deleted_to: new.deleted_to,
            created_ms: new.created_ms,
            updated_ms: new.updated_ms,
            handed_to: old.map_or(0, |row| row.handed_to),
        };
        if old != Some(row) {
            self.write(channel, row, rows);
        }
    }

    /// Carries out one change; a read position never moves back but by `Reopen` (G10).
    pub(crate) fn change(
        &mut self,
        channel: &ChannelId,
        action: ConversationAction,
        time_ms: i64,
        rows: &mut Vec<Row>,
    ) {
        let old = self.conversations.get(channel).copied();
        let fresh = Conversation { created_ms: time_ms, ..Conversation::default() };
        let new = match (action, old) {
            (ConversationAction::OpenIfAbsent { .. }, Some(_)) => return,
            (ConversationAction::OpenIfAbsent { read_to }, None) => {
                Some(Conversation { read_to, ..fresh })
            }
            (ConversationAction::Reopen { read_to }, old) => {
                Some(Conversation { read_to, ..old.unwrap_or(fresh) })
            }
            (ConversationAction::ReadTo { read_to }, old) => {
                let old = old.unwrap_or(fresh);
                if read_to <= old.read_to {
                    return;
                }
                Some(Conversation { read_to, ..old })
            }
            (ConversationAction::DeleteTo { seq }, Some(old)) => {
                Some(Conversation { deleted_to: seq.max(old.deleted_to), ..old })
            }
            (ConversationAction::AckTo { read_to }, Some(old)) => {
                if read_to <= old.read_to {
                    return;
                }
                Some(Conversation { read_to, ..old })
            }
            (
                ConversationAction::DeleteTo { .. }
                | ConversationAction::Remove
                | ConversationAction::AckTo { .. },
                None,
            ) => return,
            (ConversationAction::Remove, Some(_)) => None,
        };
        let new = new.map(|row| Conversation { updated_ms: time_ms, ..row });
        match new {
            Some(row) => {
                self.conversations.insert(channel.clone(), row);
            }
            None => {
                self.conversations.swap_remove(channel);
            }
        }
        rows.push(Row::Conversation {
            uid: self.uid.clone(),
            channel: channel.clone(),
            conversation: new,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(actions: &[ConversationAction]) -> Option<Conversation> {
        let mut user = User::new("u".into(), UserRows::default());
        let channel = ChannelId::new("g", 2);
        for (time_ms, action) in (1..).zip(actions) {
            user.change(&channel, *action, time_ms, &mut Vec::new());
        }
        user.conversations.get(&channel).copied()
    }

    #[test]
    fn a_read_position_never_moves_back() {
        use ConversationAction::{OpenIfAbsent, ReadTo, Reopen};
        let row =
            after(&[OpenIfAbsent { read_to: 0 }, ReadTo { read_to: 7 }, ReadTo { read_to: 3 }]);
        assert_eq!(row.map(|r| (r.read_to, r.updated_ms)), Some((7, 2)));
        assert_eq!(after(&[ReadTo { read_to: 0 }]), None);
        assert_eq!(
            after(&[ReadTo { read_to: 9 }, Reopen { read_to: 4 }]).map(|r| r.read_to),
            Some(4)
        );
    }

    #[test]
    fn deleting_needs_a_row_and_survives_reopening() {
        use ConversationAction::{DeleteTo, Reopen};
        assert_eq!(after(&[DeleteTo { seq: 3 }]), None);
        let row = after(&[Reopen { read_to: 1 }, DeleteTo { seq: 3 }, Reopen { read_to: 5 }]);
        assert_eq!(row.map(|r| (r.deleted_to, r.read_to)), Some((3, 5)));
    }
}
