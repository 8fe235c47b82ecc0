//! Base64 as Go reads it: standard alphabet, padded, line breaks skipped, loose bits ignored; what
//! is wrong is told by its place.

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{GeneralPurpose, GeneralPurposeConfig},
};

use super::ReadError;

/// Reads text without line breaks and faults, the usual case.
const PLAIN: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// The bytes that the text stands for.
pub(crate) fn decode(text: &[u8]) -> Result<Vec<u8>, ReadError> {
    if let Ok(bytes) = PLAIN.decode(text) {
        return Ok(bytes);
    }
    let mut reader = Reader { text, place: 0, bytes: Vec::with_capacity(text.len() / 4 * 3) };
    while reader.group()? {}
    Ok(reader.bytes)
}

struct Reader<'a> {
    text: &'a [u8],
    place: usize,
    bytes: Vec<u8>,
}

impl Reader<'_> {
    /// The next byte that is no line break.
    fn next(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.get(self.place)?;
            self.place += 1;
            if !matches!(byte, b'\n' | b'\r') {
                return Some(byte);
            }
        }
    }

    /// Reads four characters. False at the end of the text.
    fn group(&mut self) -> Result<bool, ReadError> {
        let mut bits = 0_u32;
        for count in 0..4 {
            let Some(byte) = self.next() else {
                return if count == 0 {
                    Ok(false)
                } else {
                    // The place of the group's start, if no line break stands in it: Go's rule.
                    Err(ReadError::Base64(self.place - count))
                };
            };
            let Some(six) = six_bits(byte) else {
                if byte != b'=' || count < 2 {
                    return Err(ReadError::Base64(self.place - 1));
                }
                return self.padding(bits, count).map(|()| false);
            };
            bits = bits << 6 | u32::from(six);
        }
        self.push(bits, 3);
        Ok(true)
    }

    /// The end of the text, after a first `=` that follows two or three characters.
    fn padding(&mut self, bits: u32, count: usize) -> Result<(), ReadError> {
        if count == 2 {
            let before = self.place;
            match self.next() {
                Some(b'=') => {}
                // Go tells the place before the foreign character.
                Some(_) => return Err(ReadError::Base64(self.place - 2)),
                None => return Err(ReadError::Base64(self.text.len().max(before))),
            }
            self.push(bits << 12, 1);
        } else {
            self.push(bits << 6, 2);
        }
        match self.next() {
            Some(_) => Err(ReadError::Base64(self.place - 1)),
            None => Ok(()),
        }
    }

    /// Appends the first `count` bytes of 24 bits.
    fn push(&mut self, bits: u32, count: usize) {
        let [_, bytes @ ..] = bits.to_be_bytes();
        self.bytes.extend(bytes.iter().take(count));
    }
}

fn six_bits(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}
