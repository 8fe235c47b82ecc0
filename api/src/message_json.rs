//! The message object of history and conversations (http-api.md §1.7).

use jindou_core::{
    channel_info::kind,
    id::{COMMAND_SUFFIX, SYSTEM_UID},
    message::{Message, flag},
};
use serde::Serialize;

use crate::{
    json::Base64,
    stream_json::{EventMeta, SyncHint},
};

/// A message as back ends see it.
#[derive(Serialize)]
pub(crate) struct MessageJson<'a> {
    header: Header,
    setting: u8,
    message_id: i64,
    message_idstr: String,
    client_msg_no: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) end: u8,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) end_reason: u8,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) error: &'a str,
    /// Base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) stream_data: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) event_meta: Option<EventMeta<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) event_sync_hint: Option<SyncHint<'a>>,
    message_seq: u64,
    from_uid: &'a str,
    channel_id: &'a str,
    channel_type: u8,
    #[serde(skip_serializing_if = "str::is_empty")]
    topic: &'a str,
    expire: u32,
    timestamp: i64,
    payload: Base64<'a>,
}

#[derive(Serialize)]
struct Header {
    no_persist: u8,
    red_dot: u8,
    sync_once: u8,
}

impl<'a> MessageJson<'a> {
    /// The message as back ends see it, whoever asks.
    pub(crate) fn new(message: &'a Message) -> Self {
        let from_uid = if &*message.from == SYSTEM_UID { "" } else { &message.from };
        Self::shown(message, from_uid, channel_id(message, from_uid))
    }

    /// The message as it was sent: to the base channel of a command, from the system by its name
    /// (http-api.md §19.5).
    pub(crate) fn as_sent(message: &'a Message) -> Self {
        let stored = &*message.channel.id;
        let base = stored.strip_suffix(COMMAND_SUFFIX).unwrap_or(stored);
        let sent_to = match (&message.shown, message.channel.kind) {
            (Some(shown), _) => shown,
            (None, kind::PERSON) => receiver(base, &message.from),
            (None, kind::TEMP) => stored,
            (None, _) => base,
        };
        Self::shown(message, &message.from, sent_to)
    }

    fn shown(message: &'a Message, from_uid: &'a str, channel_id: &'a str) -> Self {
        let has = |flag: u8| u8::from(message.flags & flag != 0);
        Self {
            header: Header {
                no_persist: has(flag::NO_PERSIST),
                red_dot: has(flag::RED_DOT),
                sync_once: has(flag::SYNC_ONCE),
            },
            setting: message.setting,
            message_id: message.id,
            message_idstr: message.id.to_string(),
            client_msg_no: &message.client_msg_no,
            end: 0,
            end_reason: 0,
            error: "",
            stream_data: String::new(),
            event_meta: None,
            event_sync_hint: None,
            message_seq: message.seq,
            from_uid,
            channel_id,
            channel_type: message.channel.kind,
            topic: &message.topic,
            expire: message.expire,
            timestamp: message.timestamp,
            payload: Base64(&message.payload),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_zero(number: &u8) -> bool {
    *number == 0
}

/// A person channel by the receiver: the last part of its stored id that isn't the sender. Every
/// other channel by its stored id.
fn channel_id<'a>(message: &'a Message, from_uid: &str) -> &'a str {
    let stored = &*message.channel.id;
    if message.channel.kind != kind::PERSON {
        return stored;
    }
    receiver(stored, from_uid)
}

fn receiver<'a>(stored: &'a str, from_uid: &str) -> &'a str {
    match stored.rsplit('@').find(|part| *part != from_uid) {
        Some(other) => other,
        // A message to oneself.
        None => stored.split('@').next().unwrap_or(stored),
    }
}

#[cfg(test)]
mod tests {
    use jindou_core::id::ChannelId;

    use super::*;
    use crate::{json::to_json, testing::message};

    fn check(from: &str, stored: &str, kind: u8, shown: &str) {
        let mut message = message(1, stored, kind);
        message.from = from.into();
        let json = MessageJson::new(&message);
        assert_eq!(json.channel_id, shown, "{from} in {stored}");
    }

    #[test]
    fn person_channels_show_the_receiver() {
        check("u1", "u2@u1", 1, "u2");
        check("u2", "u2@u1", 1, "u1");
        check("u", "u@u", 1, "u");
        check("____system", "u1@____system", 1, "____system");
        check("u1", "u1@u2____cmd", 1, "u2____cmd");
        check("u2", "u1@u2____cmd", 1, "u2____cmd");
    }

    #[test]
    fn other_channels_show_their_stored_id() {
        check("u1", "g1____cmd", 2, "g1____cmd");
        check("u", "u@bot", 11, "u@bot");
    }

    #[test]
    fn the_documented_example() {
        let message = Message {
            id: 1_895_423_981_234_176_000,
            seq: 12,
            channel: ChannelId::new("u2@u1", 1),
            from: "u1".into(),
            client_msg_no: "4d1c8c4bd9c1417f9ed5ddf6f2a7be0b0".into(),
            flags: flag::RED_DOT,
            setting: 0,
            expire: 0,
            timestamp: 1_735_689_600,
            topic: "".into(),
            stream_no: "".into(),
            shown: None,
            payload: (&br#"{"type":1,"content":"hello"}"#[..]).into(),
        };
        assert_eq!(
            to_json(&MessageJson::new(&message)),
            r#"{"header":{"no_persist":0,"red_dot":1,"sync_once":0},"setting":0,"message_id":1895423981234176000,"message_idstr":"1895423981234176000","client_msg_no":"4d1c8c4bd9c1417f9ed5ddf6f2a7be0b0","message_seq":12,"from_uid":"u1","channel_id":"u2","channel_type":1,"expire":0,"timestamp":1735689600,"payload":"eyJ0eXBlIjoxLCJjb250ZW50IjoiaGVsbG8ifQ=="}"#
        );
    }

    #[test]
    fn topics_are_shown_when_there_are_some() {
        let mut message = message(1, "g", 2);
        message.topic = "<news>".into();
        message.flags = flag::SYNC_ONCE | flag::NO_PERSIST;
        let json = String::from_utf8(to_json(&MessageJson::new(&message)).to_vec());
        let json = json.unwrap_or_default();
        assert!(json.contains(r#""topic":"\u003cnews\u003e","expire""#), "{json}");
        assert!(json.contains(r#"{"no_persist":1,"red_dot":0,"sync_once":1}"#), "{json}");
    }
}
