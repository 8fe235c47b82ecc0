//! The pure rules of Jindou.

pub mod code;
pub mod wire;
