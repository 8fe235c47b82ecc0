//! Stage one: what was written. The file's keys, then the environment over them (operations.md §1.1).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use super::keys::{self, Effect, Key, Kind};
use super::notice::{Notice, Origin, hint};
use super::tree::Raw;

/// What was written for each key, with the winner of file and environment, and what is to be said
/// about the rest. Nothing is interpreted yet.
#[derive(Debug, Default)]
pub struct Written {
    entries: BTreeMap<&'static str, Entry>,
    notices: Vec<Notice>,
}

/// One written value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) raw: Raw,
    pub(super) origin: Origin,
}

impl Written {
    /// Joins the sources. `file` is a parsed file with its path; `variables` the whole environment, of
    /// which only non-empty `WK_*` count; `mode` the `--mode` flag, which only replaces a default.
    pub(super) fn join(
        file: Option<(&Path, Vec<(String, Raw)>)>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        mode: Option<&str>,
    ) -> Written {
        let mut written = Written::default();
        if let Some(mode) = mode {
            let raw = Raw::Scalar { text: mode.to_owned(), bare: false };
            written.entries.insert(keys::MODE.name, Entry { raw, origin: Origin::Flag("--mode") });
        }
        let variables = written.wanted(variables);
        let hidden = written.hidden_groups(&variables);
        if let Some((path, pairs)) = file {
            let origin = Origin::File(path.to_owned());
            for (name, raw) in pairs {
                let lower = format!("{}.", name.to_lowercase());
                if !hidden.iter().any(|group| lower.starts_with(group.as_str())) {
                    written.file_key(name, raw, &origin);
                }
            }
        }
        for (name, text) in variables {
            written.variable(name, text);
        }
        written
    }

    /// The `WK_*` variables that count; empty ones are as good as unset.
    fn wanted(
        &mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> BTreeMap<String, String> {
        let mut wanted = BTreeMap::new();
        for (name, text) in variables {
            let Some(name) = name.to_str().filter(|name| name.starts_with("WK_")) else {
                continue;
            };
            match text.into_string() {
                Ok(text) if text.is_empty() => {}
                Ok(text) => {
                    wanted.insert(name.to_owned(), text);
                }
                Err(_) => self.notices.push(Notice::Conflict(format!(
                    "environment variable {name} is ignored: it is not UTF-8"
                ))),
            }
        }
        wanted
    }

    /// Groups (lower case, with the dot) that a variable of their own name hides.
    fn hidden_groups(&mut self, variables: &BTreeMap<String, String>) -> Vec<String> {
        let mut hidden = Vec::new();
        for group in groups() {
            let variable = keys::variable(&group);
            if variables.contains_key(&variable) {
                hidden.push(format!("{}.", group.to_lowercase()));
                self.notices.push(Notice::Hidden { variable, group });
            }
        }
        hidden
    }

    fn file_key(&mut self, name: String, raw: Raw, origin: &Origin) {
        if let Some(key) = keys::find(&name) {
            return self.enter(key, raw, origin.clone());
        }
        if below(&name, keys::DEAD_PREFIXES) {
            return;
        }
        if below(&name, keys::ELSEWHERE_PREFIXES) {
            return self.notices.push(no_effect(name, origin.clone(), Effect::Elsewhere));
        }
        let hint = hint(&name, keys::ALL.iter().map(|key| key.name));
        self.notices.push(Notice::UnknownKey { name, origin: origin.clone(), hint });
    }

    fn variable(&mut self, name: String, text: String) {
        if let Some(key) = keys::ALL.iter().find(|key| key.variable() == name) {
            let raw = Raw::Scalar { text, bare: false };
            return self.enter(key, raw, Origin::Variable(name));
        }
        let dotted = name.trim_start_matches("WK_").replace('_', ".");
        if below(&dotted, keys::DEAD_PREFIXES)
            || groups().iter().any(|group| keys::variable(group) == name)
        {
            return;
        }
        if below(&dotted, keys::ELSEWHERE_PREFIXES) {
            let origin = Origin::Variable(name.clone());
            return self.notices.push(no_effect(name, origin, Effect::Elsewhere));
        }
        let known: Vec<String> = keys::ALL.iter().map(|key| key.variable()).collect();
        let hint = hint(&name, known.iter().map(String::as_str));
        self.notices.push(Notice::UnknownVariable { name, hint });
    }

    fn enter(&mut self, key: &'static Key, raw: Raw, origin: Origin) {
        match key.effect {
            Effect::Live | Effect::Later => {
                self.entries.insert(key.name, Entry { raw, origin });
            }
            Effect::Dead => {}
            Effect::Engine | Effect::Elsewhere => {
                let default = matches!(&raw, Raw::Scalar { text, .. } if text == key.default);
                if !default {
                    self.notices.push(no_effect(key.name.to_owned(), origin, key.effect));
                }
            }
        }
    }

    /// What was written for `key`, if anything.
    pub(super) fn entry(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key.name)
    }

    /// What is to be told about keys that set nothing.
    pub(super) fn notices(&self) -> &[Notice] {
        &self.notices
    }
}

fn no_effect(key: String, origin: Origin, effect: Effect) -> Notice {
    let why = match effect {
        Effect::Engine => "it tunes a part of v2.2.5 that this server does not have",
        Effect::Live | Effect::Later | Effect::Dead | Effect::Elsewhere => {
            "v2.2.5 does not know it either"
        }
    };
    Notice::NoEffect { key, origin, why }
}

/// Whether `name` stands below one of the prefixes (each ends in a dot), in any case.
fn below(name: &str, prefixes: &[&str]) -> bool {
    let name = name.to_lowercase();
    prefixes.iter().any(|prefix| name.starts_with(&prefix.to_lowercase()))
}

/// All groups of keys: `manager`, `logger`, `logger.loki`, …
fn groups() -> Vec<String> {
    let mut groups: Vec<String> = keys::ALL
        .iter()
        .flat_map(|key| key.name.match_indices('.').map(|(at, _)| key.name.split_at(at).0))
        .map(str::to_owned)
        .collect();
    groups.sort();
    groups.dedup();
    groups
}

/// The text to show for what was written: lists joined by blanks, secrets masked.
pub(super) fn shown(key: &Key, raw: &Raw) -> String {
    if key.secret {
        return "***".to_owned();
    }
    match raw {
        Raw::Scalar { text, .. } => text.clone(),
        Raw::List(items) => items.join(" "),
        Raw::Nested => "a nested structure".to_owned(),
    }
}

/// Items of a list key: a list as it is, one text split at any run of blanks.
pub(super) fn items(raw: &Raw) -> Option<Vec<String>> {
    match raw {
        Raw::Scalar { text, .. } => Some(text.split_whitespace().map(str::to_owned).collect()),
        Raw::List(items) => {
            Some(items.iter().map(|i| i.trim().to_owned()).filter(|i| !i.is_empty()).collect())
        }
        Raw::Nested => None,
    }
}

/// Whether the kind is one that a list cannot be written for.
pub(super) fn wants_scalar(kind: Kind) -> bool {
    !matches!(kind, Kind::List)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::config::tree;

    fn join(file: &str, env: &[(&str, &str)], mode: Option<&str>) -> Written {
        let pairs = tree::yaml(file).unwrap();
        let env = env.iter().map(|(n, t)| (OsString::from(n), OsString::from(t)));
        Written::join(Some((Path::new("wk.yaml"), pairs)), env, mode)
    }

    fn text(written: &Written, key: &Key) -> Option<String> {
        written.entry(key).map(|entry| shown(key, &entry.raw))
    }

    fn said(written: &Written) -> Vec<String> {
        written.notices().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_environment_wins_over_the_file_and_the_flag_is_only_a_default() {
        let w = join("mode: test\naddr: tcp://1.1.1.1:1", &[("WK_ADDR", ":2")], Some("bench"));
        assert_eq!(text(&w, &keys::ADDR).as_deref(), Some(":2"));
        assert_eq!(text(&w, &keys::MODE).as_deref(), Some("test"));
        let w = join("", &[], Some("bench"));
        assert_eq!(text(&w, &keys::MODE).as_deref(), Some("bench"));
        let w = join("", &[("WK_MODE", "release")], Some("bench"));
        assert_eq!(text(&w, &keys::MODE).as_deref(), Some("release"));
    }

    #[test]
    fn keys_are_read_in_any_case_and_an_empty_variable_is_unset() {
        let w = join("CLUSTER:\n  NODEID: 5\nWSADDR: x", &[("WK_CLUSTER_NODEID", "")], None);
        assert_eq!(text(&w, &keys::NODE_ID).as_deref(), Some("5"));
        assert_eq!(text(&w, &keys::WS_ADDR).as_deref(), Some("x"));
        assert_eq!(said(&w), Vec::<String>::new());
    }

    #[test]
    fn a_variable_with_a_groups_name_hides_the_files_group() {
        let file = "manager:\n  on: false\n  addr: :1\ndemo:\n  on: false";
        let w = join(file, &[("WK_MANAGER", "x"), ("WK_MANAGER_ADDR", ":2")], None);
        assert_eq!(text(&w, &keys::MANAGER_ON), None);
        assert_eq!(text(&w, &keys::MANAGER_ADDR).as_deref(), Some(":2"));
        assert_eq!(text(&w, &keys::DEMO_ON).as_deref(), Some("false"));
        assert!(said(&w).iter().any(|s| s.starts_with("WK_MANAGER hides")), "{:?}", said(&w));
        assert_eq!(said(&w).len(), 1);
    }

    #[test]
    fn unknown_names_are_told_with_a_hint() {
        let w = join(
            "tokenAuthOm: true\nmanager:\n  colour: 1",
            &[("WK_TRACE_PROMETHEUS_API_URL", "u")],
            None,
        );
        assert_eq!(
            said(&w),
            [
                "wk.yaml: unknown key `tokenAuthOm` is ignored, did you mean tokenAuthOn?",
                "wk.yaml: unknown key `manager.colour` is ignored",
                "unknown environment variable WK_TRACE_PROMETHEUS_API_URL is ignored, did you mean WK_TRACE_PROMETHEUSAPIURL?",
            ]
        );
    }

    #[test]
    fn dead_keys_are_silent_and_those_that_only_documents_know_are_told() {
        let w = join(
            "goPool:\n  userProcess: 1\nreactor:\n  channel:\n    x: 1\nconversation:\n  cacheExpire: 1d\ncluster:\n  on: true\nmonitor:\n  on: true\ndb:\n  shardNum: 8\nginMode: debug",
            &[("WK_DELIVER_MAXRETRY", "3"), ("WK_TRACE_ENDPOINT", "x"), ("WK_VIOLENT", "1")],
            None,
        );
        let told: Vec<String> = said(&w)
            .iter()
            .map(|line| line.split_whitespace().next().unwrap_or("").to_owned())
            .collect();
        assert_eq!(told, ["cluster.on", "monitor.on", "ginMode", "trace.endpoint"]);
    }
}
