//! Notices: what a business back end is to be told (http-api.md §19), as rows of a slot's state.
//!
//! A notice is written in the apply of what it tells of and stays until the receiver has taken it,
//! so that it survives whatever the slot survives (decision 0013). Each has a number, dense in its
//! slot from 1, and goes in that order.

use bytes::Bytes;
use rkyv::{Archive, Deserialize, Serialize, rancor};

use crate::{
    entry::{AsText, AsTexts, ChannelRef},
    id::{Name, SlotId},
    message::SharedMessage,
};

/// Bits of the flags of a message in an entry, beside those of [`crate::message::flag`]: whether it
/// is to be told. The leader's configuration decides when it proposes, so that all replicas do alike;
/// they are not stored with the message.
pub mod tell {
    /// msg.notify.
    pub const STORED: u8 = 0x40;
    /// msg.offline, for whoever of the recipients has no master session.
    pub const OFFLINE: u8 = 0x80;
    /// Both.
    pub const ALL: u8 = STORED | OFFLINE;
}

/// What is to be told.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Notice {
    /// A message was stored. Its content stands in the history.
    Stored {
        /// The channel.
        channel: ChannelRef,
        /// Its place.
        seq: u64,
        /// Bits of [`tell`].
        tells: u8,
        /// The recipients that came with the send; none: those of the channel.
        #[rkyv(with = AsTexts)]
        recipients: Vec<Name>,
    },
    /// A session began or ended: an item of user.onlinestatus.
    Status {
        /// The item (http-api.md §19.6).
        #[rkyv(with = AsText)]
        item: Name,
    },
}

/// A notice that does not decode.
#[derive(Debug, thiserror::Error)]
#[error("the notice does not decode: {0}")]
pub struct NoticeError(String);

impl Notice {
    /// The bytes for the row.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub fn encode(&self) -> Result<Bytes, NoticeError> {
        let bytes =
            rkyv::to_bytes::<rancor::Error>(self).map_err(|e| NoticeError(e.to_string()))?;
        Ok(Bytes::copy_from_slice(&bytes))
    }

    /// Reads a row. The bytes come from a disk: they are validated.
    ///
    /// # Errors
    /// When they hold no notice.
    pub fn decode(bytes: &[u8]) -> Result<Self, NoticeError> {
        rkyv::from_bytes::<Self, rancor::Error>(bytes).map_err(|e| NoticeError(e.to_string()))
    }
}

/// A notice as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoticeRow {
    /// The bytes of all notices that the slot has ever had, this one's included: what a range of
    /// them takes is a difference.
    pub total: u64,
    /// Unix ms of its entry.
    pub time_ms: i64,
    /// [`Notice::encode`].
    pub notice: Bytes,
}

impl NoticeRow {
    /// What a notice counts beside its own bytes.
    pub const OVERHEAD: u64 = 40;
}

/// Which notices a slot has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoticeHead {
    /// The number of the oldest one; [`NoticeHead::next`] when there is none.
    pub first: u64,
    /// The number of the next one.
    pub next: u64,
    /// [`NoticeRow::total`] of the last one there was.
    pub total: u64,
    /// The same of the last one that has gone.
    pub gone: u64,
}

impl Default for NoticeHead {
    fn default() -> Self {
        Self { first: 1, next: 1, total: 0, gone: 0 }
    }
}

impl NoticeHead {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.next.saturating_sub(self.first)
    }

    /// What they take, in bytes.
    pub fn size(&self) -> u64 {
        self.total.saturating_sub(self.gone)
    }
}

/// A notice as it is read back.
#[derive(Clone, Debug)]
pub struct StoredNotice {
    /// Its number.
    pub number: u64,
    /// [`NoticeRow::total`].
    pub total: u64,
    /// Unix ms of its entry.
    pub time_ms: i64,
    /// What it tells; `None` when it does not decode.
    pub notice: Option<Notice>,
    /// The message of a [`Notice::Stored`], if it was wanted and is there.
    pub message: Option<SharedMessage>,
}

/// Something to tell the receiver of webhooks, and who wants to hear that it was taken.
#[derive(Clone, Debug)]
pub struct Telling {
    /// The slot.
    pub slot: SlotId,
    /// Which time this shard leads it. Comes back in [`crate::effect::Event::Told`].
    pub life: u64,
    /// Comes back, too.
    pub number: u64,
    /// What.
    pub what: Told,
}

/// What a receiver is told, with everything that its body needs.
#[derive(Clone, Debug)]
pub enum Told {
    /// msg.notify.
    Stored(SharedMessage),
    /// msg.offline.
    Offline {
        /// The message.
        message: SharedMessage,
        /// The recipients without a master session.
        uids: Vec<Name>,
    },
    /// user.onlinestatus.
    Status(Name),
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_notice_comes_back_from_its_bytes() {
        let channel = ChannelRef { id: "g".into(), kind: 2 };
        let recipients = vec!["a".into(), "b".into()];
        let stored = Notice::Stored { channel, seq: 7, tells: tell::ALL, recipients };
        for notice in [stored, Notice::Status { item: "u-0-1-2-1-1".into() }] {
            assert_eq!(Notice::decode(&notice.encode().unwrap()).unwrap(), notice);
        }
        assert!(Notice::decode(b"none").is_err());
    }
}
