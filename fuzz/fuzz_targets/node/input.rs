//! The bytes of the fuzzer, read as choices. At the end every choice is zero.

use jindou_core::id::{ChannelId, Name};

/// Ids that meet each other: users, groups, ids with a rule of their own.
const NAMES: [&str; 16] = [
    "ann",
    "bob",
    "eve",
    "g",
    "h",
    "bob@ann",
    "ann@bob",
    "eve@ann",
    "g____cmd",
    "bob@ann____cmd",
    "ann|g",
    "systemcmdonline",
    "____system",
    "____manager",
    "x___vstr",
    "",
];

/// What is left of the input.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        byte
    }

    pub fn bit(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Mostly a small number, sometimes any.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            0xff => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
            small => u64::from(small),
        }
    }

    /// Up to 255 bytes.
    pub fn bytes(&mut self) -> &'a [u8] {
        let size = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(size);
        self.0 = rest;
        bytes
    }

    /// Mostly an id of the table, sometimes any text.
    pub fn name(&mut self) -> Name {
        let choice = self.byte();
        if choice >= 0xf0 {
            return String::from_utf8_lossy(self.bytes()).into();
        }
        NAMES.get(usize::from(choice) % NAMES.len()).copied().unwrap_or_default().into()
    }

    /// A few of them.
    pub fn names(&mut self) -> Vec<Name> {
        let count = self.byte() % 4;
        (0..count).map(|_| self.name()).collect()
    }

    pub fn channel(&mut self) -> ChannelId {
        let id = self.name();
        ChannelId::new(id, self.kind())
    }

    pub fn kind(&mut self) -> u8 {
        let kind = self.byte();
        if kind < 0xf0 { kind % 12 } else { kind }
    }
}
