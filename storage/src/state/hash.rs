//! One number for all rows of a slot.

use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128 as _, SipHasher24};

use crate::keyspace::Table;

/// SipHash-2-4 of 128 bits, with the key zero, over tables, keys and values with their sizes.
#[derive(Default)]
pub(crate) struct StateHash(SipHasher24);

impl StateHash {
    pub(crate) fn add(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.0.write(&[table.code()]);
        for part in [key, value] {
            self.0.write(&(part.len() as u64).to_le_bytes());
            self.0.write(part);
        }
    }

    pub(crate) fn finish(&self) -> u128 {
        self.0.finish128().as_u128()
    }
}
