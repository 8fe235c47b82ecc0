//! What clients and servers say to each other, without a socket: bytes in, frames out.
//!
//! ```text
//!  socket bytes ─► inbound ─┬─ proxy      (PROXY header, TCP)
//!                           ├─ websocket  (upgrade, frames)
//!                           ├─ frame      (binary packets)
//!                           └─ jsonrpc    (JSON-RPC objects)
//!  packets ─► frame / jsonrpc ─► outbound (one WebSocket message each, or bare on TCP)
//! ```
//!
//! Nothing here knows sessions or channels: what a frame means is decided elsewhere. The law is
//! the protocol reference (sections are named as §n at the items that follow them).

pub mod crypto;
pub mod event;
pub mod frame;
pub mod inbound;
pub mod jsonrpc;
pub mod outbound;
pub mod proxy;
pub mod websocket;
