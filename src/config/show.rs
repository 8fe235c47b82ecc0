//! Settings as YAML text: those in force, and the example file.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::keys::{self, Effect, Key};
use super::notice::Origin;
use super::reader::{InForce, Shown};

/// Every key that is read, with its value in force.
pub(super) fn in_force(values: &BTreeMap<&'static str, InForce>) -> String {
    let mut out = String::from("# Settings in force. A remark names where a value was written.\n");
    let mut groups = Groups::default();
    for key in read() {
        let Some(in_force) = values.get(key.name) else {
            continue;
        };
        let indent = groups.enter(&mut out, key);
        let value = shown(&in_force.value);
        let remark = match &in_force.origin {
            Origin::Default => String::new(),
            origin
            @ (Origin::Derived | Origin::File(_) | Origin::Variable(_) | Origin::Flag(_)) => {
                format!("  # {origin}")
            }
        };
        push(&mut out, format_args!("{indent}{}: {value}{remark}\n", leaf(key)));
    }
    out
}

/// The example file: every key commented out with its default, bounds and meaning. A copy of it
/// changes nothing until a line is uncommented.
pub fn example() -> String {
    let mut out = String::from(
        "# Settings of jindou, all with their defaults. Take the # off a line to change it.\n\
         #\n\
         # Every key can be set by an environment variable instead, which wins over this file: WK_ and\n\
         # the key in upper case with _ for each dot, cluster.nodeId = WK_CLUSTER_NODEID. Keys are read in\n\
         # any case. For text, numbers and durations an empty value or 0 means: not set. Durations: 500ms,\n\
         # 60s, 2h, 30d. Sizes: bytes, or 64KiB, 4MiB, 1GiB. Lists: YAML lists, or one text with blanks\n\
         # between the items. `jindou config` prints what is in force and where it came from.\n",
    );
    let mut groups = Groups::default();
    for key in read() {
        let indent = groups.enter(&mut out, key);
        let gap = if out.ends_with(":\n") { "" } else { "\n" };
        push(&mut out, format_args!("{gap}{indent}# {}\n", key.about));
        if key.effect == Effect::Later {
            push(&mut out, format_args!("{indent}# (not served by this version)\n"));
        }
        if let Some(bounds) = key.bounds() {
            push(&mut out, format_args!("{indent}# ({bounds})\n"));
        }
        let value = match key.kind {
            keys::Kind::List => {
                shown(&Shown::Many(key.default.split_whitespace().map(str::to_owned).collect()))
            }
            keys::Kind::Text
            | keys::Kind::Choice(_)
            | keys::Kind::Bool
            | keys::Kind::Int(..)
            | keys::Kind::Bytes(..)
            | keys::Kind::Time(..) => scalar(key.default),
        };
        push(&mut out, format_args!("{indent}#{}: {value}\n", leaf(key)));
    }
    out.push_str(
        "\n# Also accepted, so that files of v2.2.5 need no change, and without effect:\n#",
    );
    let mut width = 1;
    for name in keys::ALL
        .iter()
        .filter(|key| matches!(key.effect, Effect::Dead | Effect::Engine))
        .map(|key| key.name.to_owned())
        .chain(keys::DEAD_PREFIXES.iter().map(|prefix| format!("{prefix}*")))
    {
        if width + name.len() > 98 {
            out.push_str("\n#");
            width = 1;
        }
        width += name.len() + 1;
        push(&mut out, format_args!(" {name}"));
    }
    out.push('\n');
    out
}

fn read() -> impl Iterator<Item = &'static Key> {
    keys::ALL.iter().copied().filter(|key| matches!(key.effect, Effect::Live | Effect::Later))
}

fn leaf(key: &Key) -> &str {
    key.name.rsplit_once('.').map_or(key.name, |(_, leaf)| leaf)
}

/// Writes the headings of nested groups as keys come by.
#[derive(Default)]
struct Groups {
    open: Vec<String>,
}

impl Groups {
    /// Opens the groups of `key` that are not open yet and gives the indentation of its line.
    fn enter(&mut self, out: &mut String, key: &Key) -> String {
        let mut path: Vec<&str> = key.name.split('.').collect();
        path.pop();
        let same = self.open.iter().zip(&path).take_while(|(open, part)| open == *part).count();
        self.open.truncate(same);
        for part in path.iter().skip(same) {
            let indent = "  ".repeat(self.open.len());
            let gap = if self.open.is_empty() { "\n" } else { "" };
            push(out, format_args!("{gap}{indent}{part}:\n"));
            self.open.push((*part).to_owned());
        }
        "  ".repeat(self.open.len())
    }
}

fn shown(value: &Shown) -> String {
    match value {
        Shown::One(text) => scalar(text),
        Shown::Many(items) => {
            let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
            format!("[{}]", items.join(", "))
        }
    }
}

/// A YAML scalar: bare where that is unmistakable, else quoted.
fn scalar(text: &str) -> String {
    let bare = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/' || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./:".contains(c))
        && !text.ends_with(':');
    if bare { text.to_owned() } else { quoted(text) }
}

/// JSON's double quotes are YAML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn push(out: &mut String, args: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = out.write_fmt(args);
}
