//! Laying out and picking apart keys and values. Integers are big-endian, so that the order of
//! bytes is the order of numbers; lengths inside values are LEB128 of at most five bytes.

use jindou_core::id::{ChannelId, Name, SlotId};

use crate::error::StorageError;

/// The longest name (uid, channel id) that fits a key: keys end at 64 KiB, and hold two names.
pub(crate) const NAME_SIZE_MAX: usize = 16 << 10;

/// Appends parts of a key or value.
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn with_capacity(size: usize) -> Self {
        Self(Vec::with_capacity(size))
    }

    /// Goes on after what is there.
    pub(crate) fn over(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(crate) fn size(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(crate) fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn i64(self, value: i64) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn u128(self, value: u128) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn slot(self, slot: SlotId) -> Self {
        self.u16(slot.0)
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Length and text, in a value.
    pub(crate) fn text(mut self, text: &str) -> Self {
        let mut rest = text.len();
        loop {
            // The low seven bits, and the mark that more follow.
            let low = u8::try_from(rest & 0x7f).unwrap_or(0);
            rest >>= 7;
            self.0.push(if rest == 0 { low } else { low | 0x80 });
            if rest == 0 {
                break;
            }
        }
        self.bytes(text.as_bytes())
    }

    pub(crate) fn done(self) -> Vec<u8> {
        self.0
    }
}

/// A name at the end of a key.
pub(crate) fn name_bytes<'a>(
    keyspace: &'static str,
    name: &'a str,
) -> Result<&'a [u8], StorageError> {
    if name.len() > NAME_SIZE_MAX {
        let size = name.len();
        return Err(StorageError::corrupt(
            keyspace,
            format!("a name of {size} bytes does not fit a key"),
        ));
    }
    Ok(name.as_bytes())
}

/// `slot | length u16 | name`: how keys of a user begin.
pub(crate) fn name_prefix(
    keyspace: &'static str,
    slot: SlotId,
    name: &str,
) -> Result<Writer, StorageError> {
    let bytes = name_bytes(keyspace, name)?;
    let size = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    Ok(Writer::with_capacity(bytes.len() + 32).slot(slot).u16(size).bytes(bytes))
}

/// `slot | kind u8 | length u16 | id`: how keys of a channel begin.
pub(crate) fn channel_prefix(
    keyspace: &'static str,
    slot: SlotId,
    channel: &ChannelId,
) -> Result<Writer, StorageError> {
    let bytes = name_bytes(keyspace, &channel.id)?;
    let size = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    Ok(Writer::with_capacity(bytes.len() + 32).slot(slot).u8(channel.kind).u16(size).bytes(bytes))
}

/// Picks all of a key or value apart. What is too short, goes on after its end, or is of a version
/// that we do not know is corrupt.
pub(crate) fn whole<'a, T>(
    keyspace: &'static str,
    part: &'static str,
    bytes: &'a [u8],
    parse: impl FnOnce(&mut Cursor<'a>) -> Option<T>,
) -> Result<T, StorageError> {
    let mut cursor = Cursor::new(bytes);
    let parsed = parse(&mut cursor).filter(|_| cursor.end().is_some());
    parsed.ok_or_else(|| StorageError::corrupt(keyspace, part))
}

/// What is left of a key or value. Every method gives `None` when there is too little.
pub(crate) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn take(&mut self, size: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(size)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    pub(crate) fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_be_bytes)
    }

    pub(crate) fn slot(&mut self) -> Option<SlotId> {
        self.u16().map(SlotId)
    }

    /// Everything that is left, which stays.
    pub(crate) fn peek(&self) -> &'a [u8] {
        self.0
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// A text with its length before it, in a value.
    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let mut size = 0usize;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.u8()?;
            size |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return std::str::from_utf8(self.take(size)?).ok();
            }
        }
        None
    }

    /// A name with its u16 length before it, in a key.
    pub(crate) fn name(&mut self) -> Option<Name> {
        let size = self.u16()?;
        let bytes = self.take(size.into())?;
        std::str::from_utf8(bytes).ok().map(Name::from)
    }

    /// A name that ends with the key.
    pub(crate) fn last_name(&mut self) -> Option<Name> {
        std::str::from_utf8(self.rest()).ok().map(Name::from)
    }

    /// Kind and id of a channel, in a key.
    pub(crate) fn channel(&mut self) -> Option<ChannelId> {
        let kind = self.u8()?;
        let id = self.name()?;
        Some(ChannelId { id, kind })
    }

    /// `Some` when nothing is left.
    pub(crate) fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }

    /// A version byte that we know.
    pub(crate) fn version(&mut self, known: u8) -> Option<()> {
        (self.u8()? == known).then_some(())
    }
}
