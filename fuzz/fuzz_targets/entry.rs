//! Raft entries and outbox rows from a disk or a peer: any bytes, and ours with some of them
//! changed.
#![no_main]

use jindou_core::{
    channel_info::{ChannelInfo, List, ListChange},
    entry::{
        ChannelRef, Command, ConversationAction, ConversationChange, DedupeWindow, Entry, EntryHead, NewMessage,
        decode_changes, encode_changes,
    },
};
use libfuzzer_sys::fuzz_target;

#[path = "node/input.rs"]
mod input;

use input::Input;

fuzz_target!(|data: &[u8]| {
    let Some((&choice, rest)) = data.split_first() else {
        return;
    };
    if choice & 1 == 0 {
        return check(rest);
    }
    let mut input = Input(rest);
    let count = input.byte() % 4;
    let whole = if choice & 2 == 0 {
        let (proposer, proposal) = (input.number(), input.number());
        let window = DedupeWindow { count_max: input.number(), ms: input.number() };
        let head = EntryHead { proposer, proposal, time_ms: -1, window };
        let commands = (0..count).map(|_| command(&mut input)).collect();
        let entry = Entry { head, commands };
        let bytes = entry.encode().expect("an entry can be written");
        assert_eq!(Entry::decode(&bytes).expect("ours"), entry);
        bytes
    } else {
        let changes = (0..count).map(|_| change(&mut input)).collect();
        let bytes = encode_changes(&changes).expect("changes can be written");
        assert_eq!(decode_changes(&bytes).expect("ours"), changes);
        bytes
    };
    let mut bytes = whole.to_vec();
    while !input.is_empty() && !bytes.is_empty() {
        let place = usize::try_from(input.number()).unwrap_or(0) % bytes.len();
        match input.byte() {
            // Cut short.
            0 => bytes.truncate(place),
            value => {
                let place = bytes.len() - 1 - place;
                bytes[place] = bytes[place].wrapping_add(value);
            }
        }
    }
    check(&bytes);
});

/// Whatever the bytes: an error, or what is written and read again as it was.
fn check(bytes: &[u8]) {
    let entry = Entry::decode(bytes).ok();
    if let Some(entry) = &entry {
        assert_eq!(EntryHead::decode(bytes), Some(entry.head));
        let again = entry.encode().expect("what was read can be written");
        assert_eq!(&Entry::decode(&again).expect("ours"), entry);
    }
    let changes = decode_changes(bytes).ok();
    if let Some(changes) = &changes {
        let again = encode_changes(changes).expect("what was read can be written");
        assert_eq!(&decode_changes(&again).expect("ours"), changes);
    }
    // The same bytes at another alignment read alike.
    let shifted = [&[0], bytes].concat();
    let shifted = shifted.get(1..).expect("one more");
    assert_eq!(Entry::decode(shifted).ok(), entry);
    assert_eq!(decode_changes(shifted).ok(), changes);
}

fn channel(input: &mut Input<'_>) -> ChannelRef {
    (&input.channel()).into()
}

fn info(input: &mut Input<'_>) -> Option<ChannelInfo> {
    input.bit().then(|| ChannelInfo { ban: input.bit(), ..ChannelInfo::default() })
}

fn change(input: &mut Input<'_>) -> ConversationChange {
    let (uid, channel, seq) = (input.name(), channel(input), input.number());
    let action = match input.byte() % 5 {
        0 => ConversationAction::OpenIfAbsent { read_to: seq },
        1 => ConversationAction::Reopen { read_to: seq },
        2 => ConversationAction::ReadTo { read_to: seq },
        3 => ConversationAction::DeleteTo { seq },
        _ => ConversationAction::Remove,
    };
    ConversationChange { uid, channel, action }
}

fn command(input: &mut Input<'_>) -> Command {
    match input.byte() % 9 {
        0 => Command::Message(NewMessage {
            id: input.number().cast_signed(),
            channel: channel(input),
            from: input.name(),
            client_msg_no: input.name(),
            flags: input.byte(),
            setting: input.byte(),
            expire: u32::from(input.byte()),
            topic: input.name(),
            stream_no: input.name(),
            shown: input.bit().then(|| input.name()),
            opens_conversations: input.bit(),
            payload: input.bytes().to_vec().into(),
        }),
        1 => Command::SetInfo { channel: channel(input), info: info(input) },
        2 => Command::Disband { channel: channel(input) },
        3 => Command::ChangeList {
            channel: channel(input),
            list: if input.bit() { List::Deny } else { List::Members },
            change: if input.bit() { ListChange::Set } else { ListChange::Add },
            uids: input.names(),
        },
        4 => Command::SetToken {
            uid: input.name(),
            device_flag: input.byte(),
            device_level: input.byte(),
            token: input.name().to_string(),
            only_existing: input.bit(),
        },
        5 => Command::Conversation(change(input)),
        6 => Command::FromOutbox {
            source: u16::from(input.byte()),
            index: input.number(),
            changes: (0..input.byte() % 3).map(|_| change(input)).collect(),
        },
        7 => Command::OutboxDone { target: u16::from(input.byte()), index: input.number() },
        _ => {
            Command::SetClusterKey { key: input.name().to_string(), value: input.bytes().to_vec() }
        }
    }
}
