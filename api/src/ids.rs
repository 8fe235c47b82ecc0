//! Ids as requests give them, and the ids that channels are stored under (http-api.md §1.6).

use jindou_core::{
    channel_info::kind,
    id::{COMMAND_SUFFIX, ChannelId, Name, ONLINE_COMMAND_CHANNEL, person_channel},
};

use crate::{answer::Refusal, settings::ApiSettings};

/// Whether nothing but blanks is there.
pub(crate) fn is_blank(id: &str) -> bool {
    id.trim().is_empty()
}

/// The uids of a list without the blank ones, which must never reach a log (http-api.md §7.5).
pub(crate) fn without_blanks(uids: &[String]) -> Vec<Name> {
    uids.iter().filter(|uid| !is_blank(uid)).map(|uid| Name::from(uid.as_str())).collect()
}

/// The longest string of the wire, in bytes: tokens and client numbers must fit one.
const TEXT_SIZE_MAX: usize = 65_535;

/// Refuses a text that no frame can carry.
pub(crate) fn check_text(what: &'static str, text: &str) -> Result<(), Refusal> {
    check_size(what, text, TEXT_SIZE_MAX)
}

/// Refuses a text that is longer than its bound, in bytes.
pub(crate) fn check_size(what: &'static str, text: &str, max: usize) -> Result<(), Refusal> {
    if text.len() > max {
        return Err(Refusal::TooLong { what, max });
    }
    Ok(())
}

impl ApiSettings {
    /// Refuses a uid that is longer than the bound.
    pub(crate) fn check_uid(&self, what: &'static str, uid: &str) -> Result<(), Refusal> {
        check_size(what, uid, self.uid_size_max)
    }

    /// Refuses a list of more uids than one request may name.
    pub(crate) fn check_count(&self, what: &'static str, count: usize) -> Result<(), Refusal> {
        let max = self.uids_per_request_max;
        if count > max { Err(Refusal::TooMany { what, max }) } else { Ok(()) }
    }

    /// Refuses a list that is over its bound, or holds a uid that is.
    pub(crate) fn check_uids(&self, what: &'static str, uids: &[String]) -> Result<(), Refusal> {
        self.check_count(what, uids.len())?;
        uids.iter().try_for_each(|uid| self.check_uid(what, uid))
    }

    /// Refuses a channel id as given that is longer than the bound: a person's is a uid.
    pub(crate) fn check_channel(&self, id: &str, channel_kind: u8) -> Result<(), Refusal> {
        let max = if channel_kind == kind::PERSON { self.uid_size_max } else { self.id_size_max };
        check_size("channel_id", id, max)
    }
}

/// The stored channel that a user reads under `id`: a person by the peer's uid, everything else as
/// given (agents by `user@agent`).
pub(crate) fn read_channel(uid: &str, id: &str, channel_kind: u8) -> ChannelId {
    if channel_kind == kind::PERSON {
        ChannelId::new(person_channel(uid, id), channel_kind)
    } else {
        ChannelId::new(id, channel_kind)
    }
}

/// The stored channel that a send goes to (http-api.md §8.1, case A).
pub(crate) fn send_channel(from: &str, id: &str, channel_kind: u8, is_command: bool) -> ChannelId {
    let mut stored = match channel_kind {
        kind::PERSON => person_channel(from, id),
        kind::AGENT => format!("{from}@{id}"),
        _ => id.to_owned(),
    };
    if is_command && channel_kind != kind::TEMP && stored != ONLINE_COMMAND_CHANNEL {
        stored.push_str(COMMAND_SUFFIX);
    }
    ChannelId::new(stored, channel_kind)
}

/// The channel of a stored command to a list of uids (http-api.md §8.1, case B).
pub(crate) fn list_channel(uids: &[String]) -> ChannelId {
    let hash = fnv1a_64(uids.join(",").as_bytes());
    ChannelId::new(format!("{hash}{COMMAND_SUFFIX}"), kind::TEMP)
}

/// FNV-1a with 64 bits.
pub(crate) fn fnv1a_64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// How `uid` names a stored channel: a person channel by the peer, everything else as stored.
pub(crate) fn shown_to<'a>(uid: &str, channel: &'a ChannelId) -> &'a str {
    let id = &channel.id;
    if channel.kind != kind::PERSON {
        return id;
    }
    let after_own = id.strip_prefix(uid).and_then(|rest| rest.strip_prefix('@'));
    let before_own = id.strip_suffix(uid).and_then(|rest| rest.strip_suffix('@'));
    after_own.or(before_own).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_uids_have_the_documented_channel() {
        let uids = ["u1".to_owned(), "u2".to_owned()];
        assert_eq!(list_channel(&uids), ChannelId::new("17922244540036557902____cmd", 8));
    }

    #[test]
    fn sends_go_to_the_stored_channel() {
        let id = |from, id, kind, command| send_channel(from, id, kind, command).id.to_string();
        assert_eq!(id("u1", "u2", 1, false), "u2@u1");
        assert_eq!(id("u2", "u1", 1, true), "u2@u1____cmd");
        assert_eq!(id("u", "bot", 11, false), "u@bot");
        assert_eq!(id("u", "g", 2, true), "g____cmd");
        assert_eq!(id("u", "t", 8, true), "t");
        assert_eq!(id("u", "systemcmdonline", 2, true), "systemcmdonline");
        assert_eq!(id("u", "g", 0, false), "g");
    }

    #[test]
    fn a_user_sees_the_peer() {
        let shown = |uid, id: &str| shown_to(uid, &ChannelId::new(id, 1)).to_owned();
        assert_eq!(shown("u1", "u2@u1"), "u2");
        assert_eq!(shown("u2", "u2@u1"), "u1");
        assert_eq!(shown("u", "u@u"), "u");
        assert_eq!(shown("a@b", "a@b@c"), "c");
        assert_eq!(shown("x", "u2@u1"), "u2@u1");
        assert_eq!(shown_to("u1", &ChannelId::new("u2@u1", 11)), "u2@u1");
    }

    #[test]
    fn blank_uids_are_dropped() {
        let uids = ["a", "", " \t", "\u{3000}", "b "].map(str::to_owned);
        assert_eq!(without_blanks(&uids), ["a".into(), "b ".into()]);
    }
}
