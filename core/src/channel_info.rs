//! What a channel is, apart from its members: its flags.

use rkyv::{Archive, Deserialize, Serialize};

/// The flags of a channel (http-api.md §7). Every write overwrites all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ChannelInfo {
    /// Stored and shown only.
    pub large: bool,
    /// Nobody may send (19); on a personal channel: the user may not log in.
    pub ban: bool,
    /// Nobody may send (24).
    pub disband: bool,
    /// On a personal channel: that user may not send from a client (25).
    pub send_ban: bool,
    /// Stored and shown only.
    pub allow_stranger: bool,
}

/// Which list of a channel.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize,
)]
pub enum List {
    /// Who belongs to the channel and gets its messages.
    Members,
    /// Who may not send.
    Deny,
    /// When not empty: who alone may send.
    Allow,
    /// Of a temporary channel: who gets its messages without belonging to it.
    Recipients,
}

/// What happens to a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum ListChange {
    /// The uids are added.
    Add,
    /// The uids are removed.
    Remove,
    /// The list becomes the uids.
    Set,
    /// The list becomes empty.
    Clear,
}

/// Channel types with rules of their own (protocol.md §4.1).
pub mod kind {
    /// Two people; stored id `a@b`.
    pub const PERSON: u8 = 1;
    /// Subscribers.
    pub const GROUP: u8 = 2;
    /// Subscribers and a visitor (the part of the id before `|`); anyone may send.
    pub const CUSTOMER_SERVICE: u8 = 3;
    /// Anyone may send.
    pub const INFO: u8 = 6;
    /// No conversations by messages.
    pub const DATA: u8 = 7;
    /// Recipients come with the send.
    pub const TEMP: u8 = 8;
    /// No conversations at all.
    pub const LIVE: u8 = 9;
    /// Subscribers and the visitor whose uid is the channel id.
    pub const VISITORS: u8 = 10;
    /// Two: `user@agent`.
    pub const AGENT: u8 = 11;
}
