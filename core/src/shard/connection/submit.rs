//! SEND and SENDACK: from a frame to a message for the channel's slot, and back
//! (protocol.md §2.7).

use rand_core::RngCore as _;

use super::{Link, Live};
use crate::{
    channel_info::kind,
    code::Code,
    envelope::Origin,
    id::{ChannelId, Name, person_channel},
    message::Message,
    shard::Shard,
    wire::{
        frame::{Flags, Frame, Send, Sendack},
        jsonrpc::{self, RpcSend},
    },
};

impl Shard {
    pub(super) fn on_send_frame(&mut self, link: &mut Link, send: &Send<'_>) {
        let id = self.ids.next(self.now.unix_ms);
        let size = u64::try_from(send.payload.len()).unwrap_or(u64::MAX);
        self.count_message_in(link, size);
        let session = self.session(link.conn);
        let has_peers = self.has_peers();
        let Some(live) = link.session.live_mut() else {
            return;
        };
        let flags = send.flags.to_bits();
        let origin = Origin::Session { session, client_seq: send.client_seq, flags, rpc: 0 };
        if has_peers {
            live.memory().sent(id, self.now.mono_ms);
        }
        let mut code = live.may_send(self.now.mono_ms, self.settings.sends_per_second_max);
        let mut payload = Vec::new();
        match &live.cipher {
            Some(cipher) if code == Code::Success => {
                if !cipher.verify_send(send) || cipher.open(send.payload, &mut payload).is_err() {
                    code = Code::PayloadDecodeError;
                }
            }
            Some(_) => {}
            None => payload.extend_from_slice(send.payload),
        }
        let uid = live.uid.clone();
        let draft = Draft {
            id,
            channel_id: send.channel_id,
            channel_type: send.channel_type,
            client_msg_no: send.client_msg_no,
            flags,
            setting: send.setting,
            expire: send.expire,
            topic: send.topic,
            stream_no: send.stream_no.unwrap_or_default(),
        };
        self.submit(uid, draft, payload, origin, code);
    }

    pub(super) fn on_rpc_send(&mut self, link: &mut Link, send: RpcSend<'_>, id: String) {
        let message_id = self.ids.next(self.now.unix_ms);
        self.count_message_in(link, u64::try_from(send.payload.len()).unwrap_or(u64::MAX));
        let session = self.session(link.conn);
        let has_peers = self.has_peers();
        let made_up;
        let client_msg_no = if send.client_msg_no.is_empty() {
            let mut bytes = [0; 16];
            self.rng.fill_bytes(&mut bytes);
            made_up = format!("{:032x}", u128::from_be_bytes(bytes));
            &*made_up
        } else {
            &*send.client_msg_no
        };
        let Some(live) = link.session.live_mut() else {
            return;
        };
        live.next_rpc += 1;
        let rpc = live.next_rpc;
        live.rpc_ids.push_back((rpc, id));
        let flags = send.flags.to_bits();
        let origin = Origin::Session { session, client_seq: 0, flags, rpc };
        if has_peers {
            live.memory().sent(message_id, self.now.mono_ms);
        }
        let code = live.may_send(self.now.mono_ms, self.settings.sends_per_second_max);
        let uid = live.uid.clone();
        let draft = Draft {
            id: message_id,
            channel_id: &send.channel_id,
            channel_type: send.channel_type,
            client_msg_no,
            flags,
            setting: send.setting,
            expire: send.expire,
            topic: &send.topic,
            stream_no: "",
        };
        self.submit(uid, draft, send.payload, origin, code);
    }

    fn count_message_in(&mut self, link: &mut Link, size: u64) {
        for traffic in [&mut link.traffic, &mut self.vars.traffic] {
            traffic.messages_in += 1;
            traffic.message_bytes_in += size;
        }
    }

    /// Sends a message to the slot of its channel, or answers why not.
    fn submit(
        &mut self,
        uid: Name,
        draft: Draft<'_>,
        payload: Vec<u8>,
        origin: Origin,
        mut code: Code,
    ) {
        let stored: Name = match draft.channel_type {
            kind::PERSON => person_channel(&uid, draft.channel_id).into(),
            kind::AGENT => format!("{uid}@{}", draft.channel_id).into(),
            _ => draft.channel_id.into(),
        };
        if draft.channel_id.len() > self.settings.channel_id_size_max {
            code = Code::ChannelIDError;
        }
        if code != Code::Success {
            return self.answer_origin(origin, draft.id, 0, code);
        }
        let message = Message {
            id: draft.id,
            seq: 0,
            channel: ChannelId { id: stored, kind: draft.channel_type },
            from: uid,
            client_msg_no: draft.client_msg_no.into(),
            flags: draft.flags,
            setting: draft.setting,
            expire: draft.expire,
            timestamp: 0,
            topic: self.short_name(draft.topic),
            stream_no: self.short_name(draft.stream_no),
            shown: None,
            payload: payload.into(),
        };
        self.keep_send(message, None, false, origin);
    }

    /// The outcome of a SEND.
    pub(in crate::shard) fn acknowledge(
        &mut self,
        origin: Origin,
        message_id: i64,
        seq: u64,
        code: Code,
    ) {
        let Origin::Session { session, client_seq, flags, rpc } = origin else {
            return;
        };
        let Some(mut entry) = self.take_conn(session.conn) else {
            return;
        };
        let ack = Sendack {
            flags: Flags::from_bits(flags),
            message_id,
            client_seq,
            message_seq: u32::try_from(seq).unwrap_or(u32::MAX),
            reason: code.into(),
        };
        self.vars.sendacks += 1;
        let mut rpc_id = None;
        // A send of another connection may have been repeated here: then the message is known.
        if self.has_peers()
            && seq > 0
            && let Some(live) = entry.link.session.live_mut()
            && !live.memory().has_sent(message_id)
        {
            live.memory().know(message_id, self.now.mono_ms);
        }
        if let Some(live) = entry.link.session.live_mut()
            && let Some(place) = live.rpc_ids.iter().position(|(number, _)| *number == rpc)
        {
            rpc_id = live.rpc_ids.remove(place).map(|(_, id)| id);
        }
        match rpc_id {
            Some(id) => self.write(&mut entry.link, true, |out| {
                jsonrpc::encode_send_result(out, &id, &ack);
            }),
            None => self.write_frame(&mut entry.link, &Frame::Sendack(ack)),
        }
        self.put_conn(entry);
    }
}

struct Draft<'a> {
    id: i64,
    channel_id: &'a str,
    channel_type: u8,
    client_msg_no: &'a str,
    flags: u8,
    setting: u8,
    expire: u32,
    topic: &'a str,
    stream_no: &'a str,
}

impl Live {
    /// Whether this session may send now, apart from any channel.
    fn may_send(&mut self, now_ms: u64, per_second_max: u32) -> Code {
        if self.send_ban {
            return Code::SendBan;
        }
        if per_second_max > 0 {
            let second = now_ms / 1000;
            if second != self.send_second {
                (self.send_second, self.sends) = (second, 0);
            }
            self.sends = self.sends.saturating_add(1);
            if self.sends > per_second_max {
                return Code::RateLimit;
            }
        }
        Code::Success
    }
}
