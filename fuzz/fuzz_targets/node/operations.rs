//! What a fuzzer can do to a node.

use std::fmt::Write as _;

use jindou_core::{
    channel_info::{ChannelInfo, List, ListChange},
    effect::{Committed, Event, Port},
    entry::{DedupeWindow, Entry, EntryHead},
    id::{ConnId, ShardId, SlotId},
    request::{ApiSend, Request, Target},
    row::DigestQuery,
    wire::frame::{Connect, Flags, Frame, Recvack, Send, encode},
};

use super::{Client, Node, input::Input};

/// The base point: a key that every server can agree with.
const CLIENT_KEY: &str = "CQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// Carries out the next operation. Some leave their events for the next step.
pub fn next(node: &mut Node, input: &mut Input<'_>) {
    let operation = input.byte();
    let place = usize::from(input.byte()) % node.clients.len();
    match operation % 24 {
        0 => node.open(place, if input.bit() { Port::Ws } else { Port::Tcp }),
        1 => node.close(place),
        2 => {
            let bytes = input.bytes();
            if let Some(client) = node.clients[place] {
                node.garble(client.conn);
                node.say(client, bytes);
            }
        }
        3 | 4 => connect(node, place, input, operation % 24 == 3),
        5..=8 => send(node, place, input),
        9 => acknowledge(node, place, input),
        10 => packet(node, place, input.bit(), b"{\"method\":\"ping\",\"id\":\"p\"}", &Frame::Ping),
        11..=13 => {
            let (to, request) = request(node, input);
            node.ask(to, request);
        }
        14 => {
            let ms = u64::from(input.byte());
            node.run();
            node.advance(if ms & 1 == 0 { ms * 50 } else { ms * 1_000 });
        }
        15 => node.hold_commits = input.bit(),
        16 => node.hold_reads = input.bit(),
        17 => node.failing_reads = input.byte() % 4,
        18 => node.lose_proposals(None),
        19 => {
            let slot = slot(node, input);
            let leading = input.bit();
            if !leading {
                node.lead(slot, false);
                // What it had proposed may be lost, or be committed by its successor.
                if input.bit() {
                    node.lose_proposals(Some(slot));
                }
            } else {
                node.lead(slot, true);
            }
        }
        20 => {
            let slot = slot(node, input);
            foreign_entry(node, slot, input);
        }
        21 => match input.byte() % 4 {
            0 => {
                node.run();
                node.restart();
            }
            1 => {
                let slot = slot(node, input);
                node.install(slot);
            }
            2 => node.now.unix_ms = i64::try_from(input.number() % (1 << 43)).unwrap_or(0),
            _ => {
                let shard = place % node.shards.len();
                node.event(shard, Event::Drain);
            }
        },
        _ => node.run(),
    }
    if operation & 0x80 == 0 {
        node.run();
    }
}

fn slot(node: &Node, input: &mut Input<'_>) -> SlotId {
    SlotId(u16::from(input.byte()) % node.settings.slot_count)
}

/// Says one thing in text or frame, as the port wants it.
fn packet(node: &mut Node, place: usize, json: bool, text: &[u8], frame: &Frame<'_>) {
    let Some(client) = node.clients[place] else {
        return;
    };
    if !json || client.json == Some(false) || (client.port == Port::Ws && !client.upgraded) {
        node.garble(client.conn);
    }
    node.clients[place] = Some(Client { json: client.json.or(Some(json)), ..client });
    let mut bytes = Vec::new();
    if json {
        bytes.extend_from_slice(text);
    } else if encode(frame, 5, &mut bytes).is_err() {
        return;
    }
    speak(node, client, json, &bytes);
}

fn speak(node: &mut Node, client: Client, json: bool, bytes: &[u8]) {
    if client.port == Port::Tcp {
        return node.say(client, bytes);
    }
    let size = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    let mut message = vec![if json { 0x81 } else { 0x82 }, 0x80 | 126];
    message.extend_from_slice(&size.to_be_bytes());
    message.extend_from_slice(&[0; 4]);
    message.extend_from_slice(bytes);
    node.say(client, &message);
}

/// As the inside of a JSON string.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for char in text.chars() {
        if char < ' ' || char == '"' || char == '\\' {
            let _ = write!(out, "\\u{:04x}", u32::from(char));
        } else {
            out.push(char);
        }
    }
    out
}

fn connect(node: &mut Node, place: usize, input: &mut Input<'_>, json: bool) {
    if node.clients[place].is_none() {
        node.open(place, if input.bit() { Port::Ws } else { Port::Tcp });
    }
    if let Some(client) = node.clients[place].filter(|c| c.port == Port::Ws && !c.upgraded) {
        node.say(client, UPGRADE);
        node.clients[place] = Some(Client { upgraded: true, ..client });
    }
    let (uid, device_id, token) = (input.name(), input.name(), input.name());
    let (version, device_flag) = (input.byte() % 8, input.byte() % 4);
    let connect = Connect {
        version,
        device_flag,
        device_id: &device_id,
        uid: &uid,
        token: &token,
        client_timestamp: 0,
        client_key: CLIENT_KEY,
    };
    let (uid_text, device_text, token_text) = (escaped(&uid), escaped(&device_id), escaped(&token));
    let text = format!(
        "{{\"method\":\"connect\",\"id\":\"c\",\"params\":{{\"uid\":\"{uid_text}\",\"version\":{version},\
         \"deviceId\":\"{device_text}\",\"deviceFlag\":{device_flag},\"token\":\"{token_text}\"}}}}"
    );
    packet(node, place, json, text.as_bytes(), &Frame::Connect(connect));
}

fn send(node: &mut Node, place: usize, input: &mut Input<'_>) {
    let channel = input.channel();
    let (choice, setting, number) = (input.byte(), input.byte(), input.byte() % 8);
    let client_msg_no = if number == 0 { String::new() } else { number.to_string() };
    let flags = Flags::from_bits(choice & 0x0f);
    let topic = input.name();
    let payload = input.bytes();
    let frame = Send {
        flags,
        setting,
        client_seq: number.into(),
        client_msg_no: &client_msg_no,
        stream_no: None,
        channel_id: &channel.id,
        channel_type: channel.kind,
        expire: 0,
        msg_key: "",
        topic: &topic,
        payload,
    };
    node.next_send += 1;
    let id = node.next_send;
    let json = choice & 0x80 == 0;
    if json
        && let Some(client) = node.clients[place]
        && let Some(sends) = node.sends.get_mut(&client.conn)
    {
        sends.push(id);
    }
    let mut text = String::new();
    let _ = write!(
        text,
        "{{\"method\":\"send\",\"id\":\"s{id}\",\"params\":{{\"channelId\":\"{}\",\
         \"channelType\":{},\"clientMsgNo\":\"{client_msg_no}\",\"topic\":\"{}\",\
         \"header\":{{\"noPersist\":{},\"redDot\":{},\"syncOnce\":{},\"dup\":{}}},\
         \"setting\":{{\"receipt\":{},\"topic\":{}}},\"payload\":\"aGk=\"}}}}",
        escaped(&channel.id),
        channel.kind,
        escaped(&topic),
        flags.no_persist,
        flags.red_dot,
        flags.sync_once,
        flags.dup,
        setting & 0x80 != 0,
        setting & 0x08 != 0,
    );
    packet(node, place, json, text.as_bytes(), &Frame::Send(frame));
}

fn acknowledge(node: &mut Node, place: usize, input: &mut Input<'_>) {
    let back = usize::from(input.byte());
    let json = input.bit();
    let (message_id, message_seq) = match node.store.messages.values().rev().nth(back) {
        Some(message) => (message.id, u32::try_from(message.seq).unwrap_or(0)),
        None => (input.number().cast_signed(), 0),
    };
    let text = format!(
        "{{\"method\":\"recvack\",\"params\":{{\"messageId\":\"{message_id}\",\
         \"messageSeq\":{message_seq}}}}}"
    );
    let ack = Recvack { flags: Flags::from_bits(0), message_id, message_seq };
    packet(node, place, json, text.as_bytes(), &Frame::Recvack(ack));
}

/// Something that another leader has proposed, or no leader at all.
fn foreign_entry(node: &mut Node, slot: SlotId, input: &mut Input<'_>) {
    let body = match input.byte() % 4 {
        0 => Committed::Blank,
        1 => Committed::Membership(input.bytes().to_vec().into()),
        2 => Committed::Entry(input.bytes().to_vec().into()),
        // What is in another slot's log: whole, at the wrong place in time.
        _ => {
            let log = node.logs.get(&slot).into_iter().flatten();
            let entries: Vec<_> = log
                .filter_map(|body| match body {
                    Committed::Entry(bytes) => Entry::decode(bytes).ok(),
                    Committed::Blank | Committed::Membership(_) => None,
                })
                .collect();
            let Some(old) = entries.get(usize::from(input.byte()) % entries.len().max(1)) else {
                return;
            };
            let time_ms = old.head.time_ms + i64::from(input.byte());
            let head = EntryHead { proposer: 1, proposal: 1, time_ms, window: DedupeWindow { count_max: 2, ms: 1_000 } };
            match (Entry { head, commands: old.commands.clone() }).encode() {
                Ok(bytes) => Committed::Entry(bytes),
                Err(_) => return,
            }
        }
    };
    node.append(slot, body);
}

fn request(node: &Node, input: &mut Input<'_>) -> (Target, Request) {
    let channel = input.channel();
    let uid = input.name();
    let by_channel = Target::Id(channel.id.clone());
    let by_uid = Target::Id(uid.clone());
    let shard = ShardId(u16::from(input.byte()) % node.settings.shard_count);
    let by_shard = Target::Shard(shard);
    let list = [List::Members, List::Deny, List::Allow][usize::from(input.byte()) % 3];
    match input.byte() % 18 {
        0 | 1 => {
            let info = input.bit().then(|| info(input.byte()));
            let (reset, members) = (input.bit(), input.names());
            (by_channel, Request::WriteChannel { channel, info, reset, members })
        }
        2 => (by_channel, Request::Disband { channel }),
        3 | 4 => {
            let change = [ListChange::Add, ListChange::Remove, ListChange::Set, ListChange::Clear]
                [usize::from(input.byte()) % 4];
            let uids = input.names();
            (by_channel, Request::ChangeList { channel, list, change, uids })
        }
        5 => (by_channel, Request::ReadList { channel, list }),
        6 => (by_channel, Request::ReadInfo { channel }),
        7 | 8 => {
            let send = ApiSend {
                channel,
                shown: input.bit().then(|| input.name()),
                from: uid,
                client_msg_no: input.name(),
                flags: input.byte() & 0x0f,
                setting: input.byte(),
                expire: 0,
                recipients: input.bit().then(|| input.names()),
                payload: input.bytes().to_vec().into(),
            };
            (by_channel, Request::Send(Box::new(send)))
        }
        9 => (by_channel, Request::LastSeq { channel }),
        10 => {
            let (first, last) = (input.number(), input.number());
            let (count_max, from_start) = (usize::from(input.byte()), input.bit());
            (by_channel, Request::Messages { channel, first, last, count_max, from_start })
        }
        11 => {
            let (after, count_max) = (input.number() >> 1, usize::from(input.byte()));
            let mut items = vec![DigestQuery { channel, after, count_max }];
            if input.bit() {
                items.push(DigestQuery { channel: input.channel(), after: 0, count_max: 1 });
            }
            (by_shard, Request::Digests { uid, items })
        }
        12 => {
            let (device_flag, device_level) = (input.byte() % 4, input.byte() % 2);
            let token = input.name().to_string();
            (by_uid, Request::SetToken { uid, device_flag, device_level, token })
        }
        13 => {
            let device_flags = input.bytes().iter().map(|flag| flag % 4).take(4).collect();
            (by_uid, Request::QuitDevices { uid, device_flags })
        }
        14 => (by_shard, Request::Online { uids: input.names() }),
        15 => {
            let seq = input.number();
            let request = if input.bit() {
                Request::ReadTo { uid, channel, seq }
            } else {
                Request::DeleteConversation { uid, channel, seq }
            };
            (by_uid, request)
        }
        16 => (by_uid, Request::Conversations { uid }),
        _ => match input.byte() % 4 {
            0 => (by_shard, Request::Connections),
            1 => (by_shard, Request::Vars),
            _ => {
                let known = node.clients[usize::from(input.byte()) % 3].map(|client| client.conn);
                let conn = known.unwrap_or_else(|| ConnId(input.number()));
                let kick = input.bit();
                let on = ShardId(conn.shard().0 % node.settings.shard_count);
                (Target::Shard(on), Request::EndConnection { uid, conn, kick })
            }
        },
    }
}

fn info(bits: u8) -> ChannelInfo {
    ChannelInfo {
        large: bits & 1 != 0,
        ban: bits & 2 != 0,
        disband: bits & 4 != 0,
        send_ban: bits & 8 != 0,
        allow_stranger: bits & 16 != 0,
    }
}
