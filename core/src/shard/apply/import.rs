//! What an import does to the state of a slot (see [`crate::import`]).

use std::sync::Arc;

use super::Gathered;
use crate::{
    channel_info::ListChange,
    entry::ChannelRef,
    id::ChannelId,
    import::{Import, ImportedMessage},
    message::{Message, SharedMessage},
    request::Reply,
    row::Row,
    shard::{Shard, channel::Channel, slot::Outcome, user::User},
};

impl Shard {
    /// Writes a piece of an import.
    pub(super) fn apply_import(
        &mut self,
        import: Import,
        time_ms: i64,
        gathered: &mut Gathered,
    ) -> Outcome {
        match import {
            Import::Messages { channel, messages } => {
                return self.import_messages(&channel, messages, gathered);
            }
            Import::Conversations { uid, rows } => {
                if let Some(user) = self.users.get(&uid) {
                    for row in &rows {
                        user.put_conversation(row, &mut gathered.rows);
                    }
                    self.users.resize(&uid, User::size);
                }
            }
            Import::List { channel, list, uids } => {
                let id = ChannelId::from(&channel);
                if let Some(channel) = self.channels.get(&id) {
                    let rows = &mut gathered.rows;
                    channel.change_list(list, ListChange::Add, &uids, time_ms, rows);
                    self.channels.resize(&id, Channel::size);
                }
            }
            Import::Device { uid, device_flag, device_level, token } => {
                if let Some(user) = self.users.get(&uid) {
                    let known = user.device(device_flag);
                    if known.is_none_or(|d| d.level != device_level || d.token != token) {
                        let rows = &mut gathered.rows;
                        user.set_device(device_flag, device_level, token, time_ms, rows);
                    }
                    self.users.resize(&uid, User::size);
                }
            }
        }
        Outcome::Done
    }

    /// Takes the messages that come next, and tells the channel's last seq (G2: none is skipped,
    /// none given twice).
    fn import_messages(
        &mut self,
        channel: &ChannelRef,
        messages: Vec<ImportedMessage>,
        gathered: &mut Gathered,
    ) -> Outcome {
        let id = ChannelId::from(channel);
        let Some(channel) = self.channels.get(&id) else {
            return Outcome::Done;
        };
        let mut streams: Vec<SharedMessage> = Vec::new();
        for new in messages {
            if channel.last_seq.checked_add(1) != Some(new.seq) {
                continue;
            }
            channel.last_seq = new.seq;
            let message: SharedMessage = Arc::new(Message {
                id: new.id,
                seq: new.seq,
                channel: id.clone(),
                from: new.from,
                client_msg_no: new.client_msg_no,
                flags: new.flags,
                setting: new.setting,
                expire: new.expire,
                timestamp: new.timestamp,
                topic: new.topic,
                stream_no: "".into(),
                shown: None,
                payload: new.payload,
            });
            if let Some(tail) = &mut channel.tail {
                tail.push(message.clone());
            }
            self.vars.stored += 1;
            let (uid, seq) = (message.from.clone(), message.seq);
            gathered.rows.push(Row::Message(message.clone()));
            gathered.rows.push(Row::Sent { channel: id.clone(), uid, seq });
            if message.is_stream() {
                streams.push(message);
            }
        }
        let last_seq = channel.last_seq;
        self.channels.resize(&id, Channel::size);
        for message in streams {
            self.anchor_stream(&message, gathered);
        }
        Outcome::Replied(Box::new(Reply::LastSeq(last_seq)))
    }
}
