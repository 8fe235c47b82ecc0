//! Counts and hashes of what a side holds, and the table of both.

use std::fmt;
use std::hash::Hasher;

use serde::Serialize;
use siphasher::sip128::{Hasher128, SipHasher13};

/// What is counted. The order is the table's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Systems,
    Users,
    Devices,
    Channels,
    Subscribers,
    Denylist,
    Allowlist,
    Messages,
    Conversations,
}

const KINDS: [(Kind, &str); 9] = [
    (Kind::Systems, "system accounts"),
    (Kind::Users, "users"),
    (Kind::Devices, "devices"),
    (Kind::Channels, "channels"),
    (Kind::Subscribers, "members"),
    (Kind::Denylist, "denied"),
    (Kind::Allowlist, "allowed"),
    (Kind::Messages, "messages"),
    (Kind::Conversations, "conversations"),
];

/// How many items of a kind, and the sum of their hashes: the order does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    count: u64,
    hash: u128,
}

/// What one side holds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally([Sum; KINDS.len()]);

/// A hash of anything that has a JSON form.
pub(super) fn hash_of(item: &impl Serialize) -> u128 {
    let mut hasher = SipHasher13::new();
    // Rows have strings for keys and no floats: there is nothing that JSON can't say.
    hasher.write(&serde_json::to_vec(item).unwrap_or_default());
    hasher.finish128().as_u128()
}

impl Tally {
    /// Counts an item of a kind.
    pub(super) fn add(&mut self, kind: Kind, item: &impl Serialize) {
        if let Some(sum) = self.0.get_mut(kind as usize) {
            sum.count += 1;
            sum.hash = sum.hash.wrapping_add(hash_of(item));
        }
    }
}

/// Both sides.
pub(super) struct Table {
    pub(super) source: Tally,
    pub(super) target: Tally,
}

impl Table {
    /// The names of the kinds in which the sides differ.
    pub(super) fn differing(&self) -> Vec<&'static str> {
        self.rows().filter(|(_, a, b)| a != b).map(|(name, _, _)| name).collect()
    }

    fn rows(&self) -> impl Iterator<Item = (&'static str, Sum, Sum)> {
        let sums = self.source.0.iter().zip(&self.target.0);
        KINDS.iter().zip(sums).map(|((_, name), (a, b))| (*name, *a, *b))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<16} {:>10} {:>10}  {:<16} {:<16}",
            "", "source", "target", "hash of source", "hash of target"
        )?;
        for (name, a, b) in self.rows() {
            let verdict = if a == b { "same" } else { "DIFFERS" };
            writeln!(
                f,
                "{name:<16} {:>10} {:>10}  {:016x} {:016x} {verdict}",
                a.count,
                b.count,
                a.hash >> 64,
                b.hash >> 64
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_and_content_does() {
        let of = |items: &[&str]| {
            let mut tally = Tally::default();
            items.iter().for_each(|item| tally.add(Kind::Users, item));
            tally
        };
        let table = |source, target| Table { source, target };
        let (some, turned) = (of(&["a", "b"]), of(&["b", "a"]));
        assert!(table(some, turned).differing().is_empty());
        for other in [of(&["a", "c"]), of(&["a"]), of(&["a", "b", "b"])] {
            assert_eq!(table(some, other).differing(), ["users"]);
            assert!(table(some, other).to_string().contains("DIFFERS"));
        }
        for (place, (kind, _)) in KINDS.iter().enumerate() {
            assert_eq!(*kind as usize, place);
        }
    }
}
