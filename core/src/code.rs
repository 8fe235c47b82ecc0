//! Reason codes (protocol.md §1.6). Placeholder until the wire branch lands.
#![allow(missing_docs, reason = "replaced by the wire branch")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    Unknown = 0,
    Success = 1,
    AuthFail = 2,
}
