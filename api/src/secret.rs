//! Bytes that must not be shown.

use std::fmt;

use bytes::Bytes;

/// A token, key or password. `Debug` shows `***`.
#[derive(Clone, Default)]
pub struct Secret(Bytes);

impl Secret {
    /// Wraps the bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// The bytes themselves, for the one place that needs them.
    pub(crate) fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Compares without telling by its duration how much was right.
pub(crate) fn same(given: &[u8], wanted: &[u8]) -> bool {
    given.len() == wanted.len()
        && given.iter().zip(wanted).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_compared_and_never_shown() {
        let secret = Secret::new("abc");
        let is = |given: &[u8]| same(given, secret.reveal());
        assert!(is(b"abc") && !is(b"abd") && !is(b"ab") && !is(b""));
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(secret.reveal(), b"abc");
    }
}
