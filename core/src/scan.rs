//! Searches over the rows of one slot, page by page: what the manager's data pages read (http-api.md
//! §17.3–17.5). A page is bounded in rows, in bytes and in rows looked at, so that no search holds
//! much memory or keeps a reader for long, however large the slot is.

use bytes::Bytes;
use rkyv::{Archive, Deserialize, Serialize, with};

use crate::{
    channel_info::{ChannelInfo, List},
    entry::{AsCount, AsText, NamedTimes, Shared},
    id::{ChannelId, Name, SlotId},
    message::{Message, SharedMessage},
    row::{Conversation, Times},
};

/// One page of a search.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Scan {
    /// The slot.
    pub slot: SlotId,
    /// What is wanted.
    pub what: ScanOf,
    /// Where the page before ended ([`ScanPage::next`]); `None`: from the beginning.
    pub after: Option<Bytes>,
    /// How many rows at most. A page may have fewer, or none, and not be the last.
    #[rkyv(with = AsCount)]
    pub count_max: usize,
}

/// What a search looks for, and in which order it comes.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum ScanOf {
    /// Who stands on a list of a channel of the slot, by uid → [`ScanRows::List`].
    List {
        /// The channel.
        channel: ChannelId,
        /// Which list.
        list: List,
    },
    /// Channels that have flags, by [`Times::created_ns`] → [`ScanRows::Channels`].
    Channels {
        /// When they were made.
        made: Made,
        /// Which of them.
        filter: ChannelFilter,
    },
    /// The channels of one id that have flags, by type → [`ScanRows::Channels`].
    ChannelsOf {
        /// The stored id.
        #[rkyv(with = AsText)]
        id: Name,
        /// Which of them.
        filter: ChannelFilter,
    },
    /// Users with a device, by when the first one came → [`ScanRows::Users`].
    Users {
        /// When.
        made: Made,
    },
    /// One user → [`ScanRows::Users`].
    User {
        /// The user.
        #[rkyv(with = AsText)]
        uid: Name,
    },
    /// Devices, by [`Times::created_ns`] → [`ScanRows::Devices`].
    Devices {
        /// When they were registered.
        made: Made,
        /// Of this flag only.
        device_flag: Option<u8>,
    },
    /// The devices of one user, by flag → [`ScanRows::Devices`].
    DevicesOf {
        /// The user.
        #[rkyv(with = AsText)]
        uid: Name,
        /// Of this flag only.
        device_flag: Option<u8>,
    },
    /// Conversations, by user and channel → [`ScanRows::Conversations`].
    Conversations {
        /// How many are passed over before the first that is wanted.
        #[rkyv(with = AsCount)]
        skip: usize,
    },
    /// Messages of one channel of the slot, by seq → [`ScanRows::Messages`].
    ChannelMessages {
        /// The channel.
        channel: ChannelId,
        /// The lowest seq.
        first: u64,
        /// The highest seq.
        last: u64,
        /// The highest seq first.
        newest_first: bool,
        /// Which of them.
        filter: MessageFilter,
    },
    /// Messages of all channels → [`ScanRows::Messages`]: those of each page by id, the pages
    /// channel by channel. The caller keeps the best and moves the bounds, so that what can't be
    /// among them is passed over.
    Messages {
        /// Only ids above this one.
        above: i64,
        /// Only ids below this one.
        below: i64,
        /// The highest ids are wanted, else the lowest.
        newest_first: bool,
        /// Which of them.
        filter: MessageFilter,
    },
}

/// A span of [`Times::created_ns`], and its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Made {
    /// Only what was made after this time.
    pub after_ns: i64,
    /// Only what was made before this time.
    pub before_ns: i64,
    /// The newest first, else the oldest.
    pub newest_first: bool,
}

/// Bounds of a number, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Bounds {
    /// The least.
    pub min: u64,
    /// The most.
    pub max: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { min: 0, max: u64::MAX }
    }
}

impl Bounds {
    /// Whether a number is within.
    pub fn holds(&self, number: u64) -> bool {
        (self.min..=self.max).contains(&number)
    }
}

/// Which channels; the default takes all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ChannelFilter {
    /// Of this type only.
    pub kind: Option<u8>,
    /// With this flag or without it.
    pub ban: Option<bool>,
    /// With this flag or without it.
    pub disband: Option<bool>,
    /// How many members.
    pub members: Bounds,
    /// How many on the deny list.
    pub deny: Bounds,
    /// How many on the allow list.
    pub allow: Bounds,
}

/// Which messages; the default takes all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct MessageFilter {
    /// Of this sender only.
    #[rkyv(with = with::Map<AsText>)]
    pub from: Option<Name>,
    /// With this client number only.
    #[rkyv(with = with::Map<AsText>)]
    pub client_msg_no: Option<Name>,
    /// With this id only.
    pub id: Option<i64>,
    /// Only with these bytes somewhere in the content.
    pub payload: Bytes,
}

impl MessageFilter {
    /// Whether a message is wanted.
    pub fn takes(&self, message: &Message) -> bool {
        let is_equal = |wanted: &Option<Name>, is: &Name| wanted.as_ref().is_none_or(|w| w == is);
        is_equal(&self.from, &message.from)
            && is_equal(&self.client_msg_no, &message.client_msg_no)
            && self.id.is_none_or(|id| id == message.id)
            && contains(&message.payload, &self.payload)
    }

    /// Whether it takes every message.
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether `part` stands somewhere in `bytes`.
fn contains(bytes: &[u8], part: &[u8]) -> bool {
    part.is_empty() || bytes.windows(part.len()).any(|window| window == part)
}

/// A channel as a search shows it.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ChannelSummary {
    /// The channel.
    pub channel: ChannelId,
    /// Its flags.
    pub info: ChannelInfo,
    /// When they were set.
    pub times: Times,
    /// How many members.
    pub members: u64,
    /// How many on the deny list.
    pub deny: u64,
    /// How many on the allow list.
    pub allow: u64,
    /// The last seq; 0 when it has no messages.
    pub last_seq: u64,
    /// Unix seconds of the last message; 0 when there is none.
    pub last_timestamp: i64,
}

/// A user as a search shows it.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct UserSummary {
    /// The user.
    #[rkyv(with = AsText)]
    pub uid: Name,
    /// When the first device was registered, and when one changed last.
    pub times: Times,
    /// How many devices.
    pub device_count: u64,
}

/// A device as a search shows it: never its token.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct DeviceSummary {
    /// Whose.
    #[rkyv(with = AsText)]
    pub uid: Name,
    /// The device flag.
    pub device_flag: u8,
    /// 0 slave, 1 master.
    pub level: u8,
    /// Whether it has a token to log in with.
    pub has_token: bool,
    /// When it was registered.
    pub times: Times,
}

/// A conversation as a search shows it.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ConversationSummary {
    /// Whose.
    #[rkyv(with = AsText)]
    pub uid: Name,
    /// The stored channel.
    pub channel: ChannelId,
    /// The row.
    pub conversation: Conversation,
}

/// What a page holds.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum ScanRows {
    /// Uids with the Unix ms when each was added.
    List(#[rkyv(with = NamedTimes)] Vec<(Name, i64)>),
    /// Channels.
    Channels(Vec<ChannelSummary>),
    /// Users.
    Users(Vec<UserSummary>),
    /// Devices.
    Devices(Vec<DeviceSummary>),
    /// Conversations, and how many were passed over before them.
    Conversations {
        /// Of those that were to be passed over.
        #[rkyv(with = AsCount)]
        skipped: usize,
        /// Those that are wanted.
        list: Vec<ConversationSummary>,
    },
    /// Messages.
    Messages(#[rkyv(with = with::Map<Shared>)] Vec<SharedMessage>),
}

/// A page.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ScanPage {
    /// The rows, in the order of the search.
    pub rows: ScanRows,
    /// Where the next page begins ([`Scan::after`]); `None`: there is none.
    pub next: Option<Bytes>,
}

impl Scan {
    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        let after = self.after.as_ref().map_or(0, Bytes::len);
        after
            + match &self.what {
                ScanOf::List { channel, .. } => channel.id.len(),
                ScanOf::ChannelsOf { id, .. } => id.len(),
                ScanOf::User { uid } | ScanOf::DevicesOf { uid, .. } => uid.len(),
                ScanOf::ChannelMessages { channel, filter, .. } => channel.id.len() + filter.size(),
                ScanOf::Messages { filter, .. } => filter.size(),
                ScanOf::Channels { .. }
                | ScanOf::Users { .. }
                | ScanOf::Devices { .. }
                | ScanOf::Conversations { .. } => 0,
            }
    }
}

impl MessageFilter {
    fn size(&self) -> usize {
        let text = |name: &Option<Name>| name.as_ref().map_or(0, |name| name.len());
        text(&self.from) + text(&self.client_msg_no) + self.payload.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_found_wherever_it_stands() {
        assert!(contains(b"abc", b""));
        assert!(contains(b"abc", b"abc"));
        assert!(contains(b"abc", b"bc"));
        assert!(!contains(b"abc", b"ac"));
        assert!(!contains(b"ab", b"abc"));
        assert!(!contains(b"", b"a"));
    }

    #[test]
    fn bounds_include_their_ends() {
        let bounds = Bounds { min: 2, max: 3 };
        assert_eq!([1, 2, 3, 4].map(|n| bounds.holds(n)), [false, true, true, false]);
        assert!(Bounds::default().holds(u64::MAX));
    }
}
