//! The pure rules of Jindou.
//!
//! This crate owns what the node *decides*: the wire formats, sessions, channels, presence,
//! delivery, conversations, and [`effect`] — the seam at which decisions leave as data. It will
//! never know a socket, a file, a clock, a thread or dice: time and seeds are passed in, effects
//! are handed out (see `clippy.toml` beside this crate's manifest for how that is enforced).
//!
//! ```text
//!   events ──► Shard::step(now, inbox, outbox) ──► effects
//!   bytes, envelopes, requests,                    writes, envelopes, proposals,
//!   committed entries, rows                        rows to persist, replies
//! ```

pub mod channel_info;
pub mod code;
pub mod effect;
#[expect(missing_docs, reason = "rkyv derives twins of the enums without docs")]
pub mod entry;
#[expect(missing_docs, reason = "rkyv derives twins of the enums without docs")]
pub mod envelope;
pub mod id;
#[expect(missing_docs, reason = "rkyv derives twins of the enums without docs")]
pub mod import;
pub mod link;
pub mod map;
pub mod message;
pub mod networks;
#[expect(missing_docs, reason = "rkyv derives twins of the enums without docs")]
pub mod notice;
#[expect(missing_docs, reason = "rkyv derives twins of the enums without docs")]
pub mod request;
pub mod row;
#[expect(missing_docs, reason = "rkyv derives twins of the enums without docs")]
pub mod scan;
pub mod settings;
pub mod shard;
#[expect(missing_docs, reason = "rkyv derives twins of the enums without docs")]
pub mod stream;
pub mod wire;
