//! Black-box tests of the built node: every test starts processes of its own and speaks only the
//! public protocol to them. `JINDOU_TEST_DRIVER=epoll` runs all of them on the other I/O driver.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    unreachable_pub,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

mod support;
