//! The `jindou` binary.
fn main() {}
