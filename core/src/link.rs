//! Envelopes as bytes, for the links between nodes.
//!
//! ```text
//!  batch  = record*
//!  record = version (1 byte) | size (4 bytes, little-endian) | archive (size bytes)
//! ```
//! An archive is the rkyv form of one [`Envelope`]. Whatever comes from a peer is validated before
//! anything is made of it; a batch with one bad record is refused whole.

use bytes::Bytes;
use rkyv::{
    rancor,
    ser::{Positional, Writer},
};

use crate::envelope::Envelope;

/// The version of the records that are written, and the only one that is read.
pub const VERSION: u8 = 1;

/// The largest archive that is written or read, in bytes. Everything that a node sends fits many
/// times over: requests are bounded by the API, messages by their frame.
pub const RECORD_SIZE_MAX: usize = 15 << 20;

const HEAD_SIZE: usize = 5;

/// Why envelopes cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// It does not fit.
    #[error("an envelope of {0} bytes is larger than links take")]
    TooLarge(usize),
    /// Another version.
    #[error("envelopes of version {0} are unknown here: both nodes must run the same release")]
    Version(u8),
    /// A record says that it is longer than what came.
    #[error("a record is cut short")]
    Cut,
    /// Not an envelope.
    #[error("not an envelope: {0}")]
    Malformed(rancor::Error),
}

/// The end of a buffer that others have written to.
struct Tail<'a> {
    bytes: &'a mut Vec<u8>,
    start: usize,
}

impl Positional for Tail<'_> {
    fn pos(&self) -> usize {
        self.bytes.len() - self.start
    }
}

impl Writer<rancor::Error> for Tail<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), rancor::Error> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

/// Adds the record of one envelope; on an error `out` is as before.
///
/// # Errors
/// It is larger than [`RECORD_SIZE_MAX`].
pub fn push(out: &mut Vec<u8>, envelope: &Envelope) -> Result<(), LinkError> {
    let before = out.len();
    out.extend_from_slice(&[VERSION, 0, 0, 0, 0]);
    let start = out.len();
    let written = rkyv::api::high::to_bytes_in(envelope, Tail { bytes: out, start });
    if let Err(error) = written {
        out.truncate(before);
        return Err(LinkError::Malformed(error));
    }
    let size = out.len() - start;
    match (u32::try_from(size), out.get_mut(before + 1..start)) {
        (Ok(size_32), Some(head)) if size <= RECORD_SIZE_MAX => {
            head.copy_from_slice(&size_32.to_le_bytes());
            Ok(())
        }
        _ => {
            out.truncate(before);
            Err(LinkError::TooLarge(size))
        }
    }
}

/// The records of these envelopes, in order.
///
/// # Errors
/// One is larger than [`RECORD_SIZE_MAX`].
pub fn encode(envelopes: &[Envelope]) -> Result<Vec<u8>, LinkError> {
    let mut out = Vec::new();
    envelopes.iter().try_for_each(|envelope| push(&mut out, envelope))?;
    Ok(out)
}

/// Reads a batch.
///
/// # Errors
/// The bytes are not what [`push`] of the same release writes.
pub fn decode(bytes: &Bytes) -> Result<Vec<Envelope>, LinkError> {
    let mut envelopes = Vec::new();
    let mut rest: &[u8] = bytes;
    while let Some((version, after)) = rest.split_first() {
        if *version != VERSION {
            return Err(LinkError::Version(*version));
        }
        let (size, after) = after.split_first_chunk::<{ HEAD_SIZE - 1 }>().ok_or(LinkError::Cut)?;
        let size = usize::try_from(u32::from_le_bytes(*size)).unwrap_or(usize::MAX);
        if size > RECORD_SIZE_MAX {
            return Err(LinkError::TooLarge(size));
        }
        let archive = after.get(..size).ok_or(LinkError::Cut)?;
        let envelope = rkyv::from_bytes::<Envelope, rancor::Error>(archive);
        envelopes.push(envelope.map_err(LinkError::Malformed)?);
        rest = after.get(size..).unwrap_or_default();
    }
    Ok(envelopes)
}
