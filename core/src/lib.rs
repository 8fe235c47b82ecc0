//! The pure rules of Jindou.
