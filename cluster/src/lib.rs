//! openraft groups.
