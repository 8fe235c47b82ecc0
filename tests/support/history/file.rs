//! Histories on disk: a JSON value a line, in the order of the kinds.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{
    Attempt, Conversation, Fault, History, Membership, Position, Presence, Push, Read, Session,
    Silence, Spread,
};

/// Bytes as base64 text.
pub mod base64 {
    use ::base64::Engine;
    use ::base64::prelude::BASE64_STANDARD;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        BASE64_STANDARD.decode(text).map_err(D::Error::custom)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Attempt(Attempt),
    Read(Read),
    Push(Push),
    Session(Session),
    Membership(Membership),
    Position(Position),
    Conversation(Conversation),
    Presence(Presence),
    Fault(Fault),
    Silence(Silence),
    Spread(Spread),
    Settled(u64),
}

/// Writes a history.
pub fn save(history: &History, path: &Path) -> io::Result<()> {
    let history = history.clone();
    let lines = (history.attempts.into_iter().map(Line::Attempt))
        .chain(history.reads.into_iter().map(Line::Read))
        .chain(history.pushes.into_iter().map(Line::Push))
        .chain(history.sessions.into_iter().map(Line::Session))
        .chain(history.memberships.into_iter().map(Line::Membership))
        .chain(history.positions.into_iter().map(Line::Position))
        .chain(history.conversations.into_iter().map(Line::Conversation))
        .chain(history.presences.into_iter().map(Line::Presence))
        .chain(history.faults.into_iter().map(Line::Fault))
        .chain(history.silences.into_iter().map(Line::Silence))
        .chain(history.spreads.into_iter().map(Line::Spread))
        .chain([Line::Settled(history.settled)]);
    let mut out = BufWriter::new(File::create(path)?);
    for line in lines {
        serde_json::to_writer(&mut out, &line)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// Reads a history back.
pub fn load(path: &Path) -> io::Result<History> {
    let mut history = History::default();
    for line in BufReader::new(File::open(path)?).lines() {
        match serde_json::from_str(&line?)? {
            Line::Attempt(one) => history.attempts.push(one),
            Line::Read(one) => history.reads.push(one),
            Line::Push(one) => history.pushes.push(one),
            Line::Session(one) => history.sessions.push(one),
            Line::Membership(one) => history.memberships.push(one),
            Line::Position(one) => history.positions.push(one),
            Line::Conversation(one) => history.conversations.push(one),
            Line::Presence(one) => history.presences.push(one),
            Line::Fault(one) => history.faults.push(one),
            Line::Silence(one) => history.silences.push(one),
            Line::Spread(one) => history.spreads.push(one),
            Line::Settled(at) => history.settled = at,
        }
    }
    Ok(history)
}
