//! What an operator must be told about the configuration: nothing written is dropped in silence (G20).

use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody wrote it.
    Default,
    /// Computed from other values because it was left empty.
    Derived,
    /// The configuration file.
    File(PathBuf),
    /// This environment variable.
    Variable(String),
    /// This command-line flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Derived => f.write_str("derived"),
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Variable(name) => f.write_str(name),
            Origin::Flag(name) => f.write_str(name),
        }
    }
}

/// One thing to be logged as a warning at start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Notice {
    /// A key of the file that does not exist.
    #[error("{origin}: unknown key `{name}` is ignored{hint}")]
    UnknownKey {
        /// As written, dotted.
        name: String,
        /// The file.
        origin: Origin,
        /// A key of similar name, as `, did you mean …?`, or empty.
        hint: String,
    },
    /// A `WK_` variable that sets no key.
    #[error("unknown environment variable {name} is ignored{hint}")]
    UnknownVariable {
        /// Its name.
        name: String,
        /// A variable of similar name, as `, did you mean …?`, or empty.
        hint: String,
    },
    /// A value that cannot be used.
    #[error("{key} = {written:?} from {origin} cannot be used ({why}); {used:?} is used instead")]
    Unusable {
        /// The key.
        key: &'static str,
        /// The text, masked for secrets.
        written: String,
        /// Where it was written.
        origin: Origin,
        /// What is wrong with it.
        why: String,
        /// What applies now.
        used: String,
    },
    /// One item of a list that cannot be used; the others are.
    #[error("{key}: item {item:?} is skipped ({why})")]
    Skipped {
        /// The key.
        key: &'static str,
        /// The item, masked for secrets.
        item: String,
        /// What is wrong with it.
        why: String,
    },
    /// A variable with the name of a group hides that group of the file, as in v2.2.5.
    #[error(
        "{variable} hides all of `{group}` in the file (only its single keys' own variables count); remove it"
    )]
    Hidden {
        /// The variable.
        variable: String,
        /// The group of keys.
        group: String,
    },
    /// A key that is known and changes nothing.
    #[error("{key} from {origin} has no effect ({why})")]
    NoEffect {
        /// The key as its documents spell it.
        key: String,
        /// Where it was written.
        origin: Origin,
        /// Why not.
        why: &'static str,
    },
    /// A key of a part of v2.2.5 that comes later.
    #[error("{key} from {origin} is not served by this version: it has no effect")]
    NotServed {
        /// The key.
        key: &'static str,
        /// Where it was written.
        origin: Origin,
    },
    /// The file could not be used and `--ignoreMissingConfig` said to go on.
    #[error("{0}; going on without it")]
    NoFile(String),
    /// Settings that contradict each other.
    #[error("{0}")]
    Conflict(String),
}

/// `, did you mean NAME?` for the candidate nearest to `name`, if one is near enough.
pub(super) fn hint<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    let name = name.to_lowercase();
    candidates
        .map(|candidate| (distance(&name, &candidate.to_lowercase()), candidate))
        .filter(|(d, candidate)| *d <= 3 && d * 4 <= candidate.len())
        .min_by_key(|(d, _)| *d)
        .map_or_else(String::new, |(_, candidate)| format!(", did you mean {candidate}?"))
}

/// Edits (insert, remove, replace) between two words, by bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let best = (diagonal + usize::from(x != y)).min(left + 1).min(*cell + 1);
            diagonal = *cell;
            *cell = best;
            left = best;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_gets_a_hint_and_a_stranger_does_not() {
        assert_eq!(distance("kitten", "sitting"), 3);
        let keys = ["tokenAuthOn", "addr", "wsAddr"];
        assert_eq!(hint("tokenAuthOm", keys.into_iter()), ", did you mean tokenAuthOn?");
        assert_eq!(hint("somethingElse", keys.into_iter()), "");
        assert_eq!(hint("abcd", keys.into_iter()), "");
    }
}
