//! From written to typed, one key at a time: defaults, "zero means unset", bounds. What a value came
//! to is kept beside where it came from, for `jindou config`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::keys::{self, Effect, Key, Kind};
use super::notice::{Notice, Origin};
use super::tree::Raw;
use super::value;
use super::written::{Entry, Written, items, shown, wants_scalar};

/// A value in force, as text, and where it came from.
#[derive(Clone, Debug)]
pub(super) struct InForce {
    /// One text, or the items of a list.
    pub(super) value: Shown,
    pub(super) origin: Origin,
}

/// How a value in force is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    One(String),
    Many(Vec<String>),
}

/// Reads typed values out of [`Written`].
#[derive(Debug)]
pub(super) struct Reader<'a> {
    written: &'a Written,
    pub(super) notices: Vec<Notice>,
    pub(super) in_force: BTreeMap<&'static str, InForce>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(written: &'a Written) -> Reader<'a> {
        Reader { written, notices: written.notices().to_vec(), in_force: BTreeMap::new() }
    }

    /// Text; empty counts as unset.
    pub(super) fn text(&mut self, key: &'static Key) -> String {
        self.pick(key, |text, _| Ok((!text.is_empty()).then(|| text.to_owned())), str::to_owned)
    }

    /// Text, `None` when unset and without a default.
    pub(super) fn text_if_any(&mut self, key: &'static Key) -> Option<String> {
        Some(self.text(key)).filter(|text| !text.is_empty())
    }

    /// One of the words of a `Choice`, in lower case.
    pub(super) fn choice(&mut self, key: &'static Key) -> String {
        self.pick(
            key,
            |text, _| {
                let word = text.trim().to_lowercase();
                let Kind::Choice(words) = key.kind else {
                    return Ok(Some(word));
                };
                match words.contains(&word.as_str()) || word.is_empty() {
                    true => Ok((!word.is_empty()).then_some(word)),
                    false => Err(format!("one of {}", words.join(", "))),
                }
            },
            str::to_owned,
        )
    }

    /// A boolean; only an absent one is unset. Other text than Go's is false, as in v2.2.5, and told.
    pub(super) fn flag(&mut self, key: &'static Key) -> bool {
        let default = value::boolean(key.default).unwrap_or(false);
        let Some(Entry { raw, origin }) = self.written.entry(key) else {
            self.keep(key, default.to_string(), Origin::Default);
            return default;
        };
        let parsed = match raw {
            Raw::Scalar { text, bare } => value::boolean(text)
                .or_else(|| value::integer(text).filter(|_| *bare).map(|n| n != 0)),
            Raw::List(_) | Raw::Nested => None,
        };
        if parsed.is_none() {
            self.unusable(key, raw, origin, "true or false".to_owned(), "false".to_owned());
        }
        let value = parsed.unwrap_or(false);
        self.keep(key, value.to_string(), origin.clone());
        value
    }

    /// A whole number or a count of bytes within the key's bounds; zero counts as unset.
    pub(super) fn number(&mut self, key: &'static Key) -> u64 {
        let parse = |text: &str| match key.kind {
            Kind::Bytes(..) => value::size(text),
            Kind::Int(..)
            | Kind::Text
            | Kind::Choice(_)
            | Kind::Bool
            | Kind::Time(..)
            | Kind::List => value::integer(text),
        };
        let fits = |n: i64| match key.kind {
            Kind::Int(min, max) | Kind::Bytes(min, max) => (min..=max).contains(&n),
            Kind::Text | Kind::Choice(_) | Kind::Bool | Kind::Time(..) | Kind::List => true,
        };
        self.pick(
            key,
            |text, _| match parse(text) {
                None if text.trim().is_empty() => Ok(None),
                None => Err("a whole number".to_owned()),
                Some(0) if parse(key.default) == Some(0) => Ok(None),
                Some(0) => Err("0 stands for unset".to_owned()),
                Some(n) if fits(n) => Ok(u64::try_from(n).ok()),
                Some(_) => Err(bounds(key)),
            },
            |text| parse(text).and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
        )
    }

    /// As [`Reader::number`], for values that count things in memory.
    pub(super) fn count(&mut self, key: &'static Key) -> usize {
        usize::try_from(self.number(key)).unwrap_or(usize::MAX)
    }

    /// As [`Reader::number`], for values whose bounds keep them within 32 bits.
    pub(super) fn small(&mut self, key: &'static Key) -> u32 {
        u32::try_from(self.number(key)).unwrap_or(u32::MAX)
    }

    /// A duration within the key's bounds; zero counts as unset.
    pub(super) fn time(&mut self, key: &'static Key) -> Duration {
        self.pick(
            key,
            |text, _| {
                let Kind::Time(min, max) = key.kind else {
                    return Ok(value::duration(text));
                };
                match value::duration(text) {
                    None if text.trim().is_empty() => Ok(None),
                    None => Err("a duration such as 500ms, 60s, 2h, 30d".to_owned()),
                    Some(Duration::ZERO) => Err("0 stands for unset".to_owned()),
                    Some(d) if (min..=max).contains(&d) => Ok(Some(d)),
                    Some(_) if !text.contains(char::is_alphabetic) => Err(format!(
                        "a number without a unit is nanoseconds; wanted {}",
                        bounds(key)
                    )),
                    Some(_) => Err(bounds(key)),
                }
            },
            |text| value::duration(text).unwrap_or_default(),
        )
    }

    /// A list; an empty one counts as unset.
    pub(super) fn list(&mut self, key: &'static Key) -> Vec<String> {
        let default: Vec<String> = key.default.split_whitespace().map(str::to_owned).collect();
        let (list, origin) = match self.written.entry(key) {
            None => (default, Origin::Default),
            Some(Entry { raw, origin }) => match items(raw) {
                Some(list) if list.is_empty() => (default, Origin::Default),
                Some(list) => (list, origin.clone()),
                None => {
                    self.unusable(key, raw, origin, "a list".to_owned(), key.default.to_owned());
                    (default, Origin::Default)
                }
            },
        };
        // A list of secrets is shown by whoever can tell what in it is secret.
        let shown = if key.secret { vec!["***".to_owned()] } else { list.clone() };
        self.in_force.insert(key.name, InForce { value: Shown::Many(shown), origin });
        list
    }

    /// Whether anything was written for the key, and what, for keys with rules of their own.
    pub(super) fn raw(&self, key: &Key) -> Option<&'a Entry> {
        self.written.entry(key)
    }

    /// Replaces what is shown for a key by a derived value.
    pub(super) fn derive(&mut self, key: &'static Key, text: String) {
        self.keep(key, text, Origin::Derived);
    }

    /// Whether the value in force is the default.
    pub(super) fn is_default(&self, key: &Key) -> bool {
        self.in_force.get(key.name).is_none_or(|in_force| in_force.origin == Origin::Default)
    }

    /// Tells each key that was set to something and that this version does not serve.
    pub(super) fn tell_not_served(&mut self) {
        for key in keys::ALL.iter().filter(|key| key.effect == Effect::Later) {
            let Some(Entry { raw, origin }) = self.written.entry(key) else {
                continue;
            };
            if !self.is_default(key) && !says_default(key, raw) {
                self.notices.push(Notice::NotServed { key: key.name, origin: origin.clone() });
            }
        }
    }

    /// Notes what is in force for `key`; of a secret only that there is one.
    pub(super) fn keep(&mut self, key: &'static Key, text: String, origin: Origin) {
        let text = if key.secret && !text.is_empty() { "***".to_owned() } else { text };
        self.in_force.insert(key.name, InForce { value: Shown::One(text), origin });
    }

    pub(super) fn unusable(
        &mut self,
        key: &'static Key,
        raw: &Raw,
        origin: &Origin,
        why: String,
        used: String,
    ) {
        self.notices.push(Notice::Unusable {
            key: key.name,
            written: shown(key, raw),
            origin: origin.clone(),
            why,
            used,
        });
    }

    /// Parses what was written; unset and unusable fall back to the default.
    fn pick<T>(
        &mut self,
        key: &'static Key,
        parse: impl Fn(&str, bool) -> Result<Option<T>, String>,
        default: impl Fn(&str) -> T,
    ) -> T {
        let written: &'a Written = self.written;
        let Some(Entry { raw, origin }) = written.entry(key) else {
            self.keep(key, key.default.to_owned(), Origin::Default);
            return default(key.default);
        };
        let parsed = match raw {
            Raw::Scalar { text, bare } => parse(text, *bare),
            Raw::List(_) | Raw::Nested if wants_scalar(key.kind) => {
                Err("one value, not a list".to_owned())
            }
            Raw::List(_) | Raw::Nested => Ok(None),
        };
        match parsed {
            Ok(Some(value)) => {
                self.keep(key, shown_plain(raw), origin.clone());
                return value;
            }
            Ok(None) => {}
            Err(why) => self.unusable(key, raw, origin, why, key.default.to_owned()),
        }
        self.keep(key, key.default.to_owned(), Origin::Default);
        default(key.default)
    }
}

/// Whether what was written comes to the key's default.
fn says_default(key: &Key, raw: &Raw) -> bool {
    let default = key.default;
    let text = match raw {
        Raw::Scalar { text, .. } => text.trim(),
        Raw::List(written) => return written.join(" ") == default,
        Raw::Nested => return false,
    };
    match key.kind {
        Kind::Text | Kind::List => text == default,
        Kind::Choice(_) => text.eq_ignore_ascii_case(default),
        Kind::Bool => value::boolean(text) == value::boolean(default),
        Kind::Int(..) => value::integer(text) == value::integer(default),
        Kind::Bytes(..) => value::size(text) == value::size(default),
        Kind::Time(..) => value::duration(text) == value::duration(default),
    }
}

fn bounds(key: &Key) -> String {
    key.bounds().unwrap_or_default()
}

fn shown_plain(raw: &Raw) -> String {
    match raw {
        Raw::Scalar { text, .. } => text.clone(),
        Raw::List(items) => items.join(" "),
        Raw::Nested => String::new(),
    }
}
