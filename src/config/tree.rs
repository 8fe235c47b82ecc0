//! A configuration file as a flat list of dotted keys, whatever its format.

use std::path::Path;

use saphyr::{LoadableYamlNode, ScalarStyle, Yaml, YamlLoader};

use super::ConfigError;

/// What was written for one key, before anyone asks what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Raw {
    /// One value as text. `bare`: it stood without quotes, so `2` is a number and not the text "2".
    Scalar {
        /// The text, escapes resolved.
        text: String,
        /// Whether the file had it without quotes.
        bare: bool,
    },
    /// A list of values, each as text.
    List(Vec<String>),
    /// A list with lists or mappings in it: no key takes one.
    Nested,
}

/// Reads `path`, in the format its extension names (yaml, yml, json, toml).
pub(super) fn read(path: &Path) -> Result<Vec<(String, Raw)>, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    let syntax = |reason: String| ConfigError::Syntax { path: path.to_owned(), reason };
    match extension.as_str() {
        "yaml" | "yml" => yaml(&text).map_err(syntax),
        "json" => json(&text).map_err(syntax),
        "toml" => toml(&text).map_err(syntax),
        _ => Err(ConfigError::Format { path: path.to_owned() }),
    }
}

/// A YAML document (the first one) into dotted keys, in the order written. Nulls are left out.
pub(super) fn yaml(text: &str) -> Result<Vec<(String, Raw)>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // This loader reports duplicate keys, the one below keeps scalars as they were written.
    Yaml::load_from_str(text).map_err(|e| e.to_string())?;
    let mut parser = saphyr_parser::Parser::new_from_str(text);
    let mut loader = YamlLoader::<Yaml>::default();
    loader.early_parse(false);
    parser.load(&mut loader, true).map_err(|e| e.to_string())?;
    let mut flat = Vec::new();
    match loader.into_documents().first() {
        None => {}
        Some(node) if is_null(node) => {}
        Some(node @ Yaml::Mapping(_)) => yaml_node("", node, &mut flat)?,
        Some(_) => return Err("the document is not a mapping".to_owned()),
    }
    Ok(flat)
}

fn is_null(node: &Yaml) -> bool {
    matches!(node, Yaml::Representation(text, ScalarStyle::Plain, _)
        if matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL"))
}

fn yaml_node(at: &str, node: &Yaml, flat: &mut Vec<(String, Raw)>) -> Result<(), String> {
    match node {
        node if is_null(node) => {}
        Yaml::Representation(text, style, _) => {
            let bare = *style == ScalarStyle::Plain;
            flat.push((at.to_owned(), Raw::Scalar { text: text.to_string(), bare }));
        }
        Yaml::Sequence(items) => {
            let list: Option<Vec<String>> = items.iter().map(yaml_text).collect();
            flat.push((at.to_owned(), list.map_or(Raw::Nested, Raw::List)));
        }
        Yaml::Mapping(pairs) => {
            for (key, value) in pairs {
                let key = yaml_text(key)
                    .ok_or_else(|| format!("a key below `{at}` is not plain text"))?;
                yaml_node(&join(at, &key), value, flat)?;
            }
        }
        Yaml::Tagged(_, inner) => yaml_node(at, inner, flat)?,
        Yaml::Value(_) | Yaml::Alias(_) | Yaml::BadValue => flat.push((at.to_owned(), Raw::Nested)),
    }
    Ok(())
}

fn yaml_text(node: &Yaml) -> Option<String> {
    match node {
        node if is_null(node) => Some(String::new()),
        Yaml::Representation(text, _, _) => Some(text.to_string()),
        Yaml::Value(_)
        | Yaml::Sequence(_)
        | Yaml::Mapping(_)
        | Yaml::Tagged(..)
        | Yaml::Alias(_)
        | Yaml::BadValue => None,
    }
}

fn json(text: &str) -> Result<Vec<(String, Raw)>, String> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let mut flat = Vec::new();
    if !value.is_object() {
        return Err("the document is not an object".to_owned());
    }
    json_node("", &value, &mut flat);
    Ok(flat)
}

fn json_node(at: &str, value: &serde_json::Value, flat: &mut Vec<(String, Raw)>) {
    use serde_json::Value;
    match value {
        Value::Null => {}
        Value::Bool(_) | Value::Number(_) => {
            flat.push((at.to_owned(), Raw::Scalar { text: value.to_string(), bare: true }));
        }
        Value::String(text) => {
            flat.push((at.to_owned(), Raw::Scalar { text: text.clone(), bare: false }));
        }
        Value::Array(items) => {
            let list: Option<Vec<String>> = items
                .iter()
                .map(|item| match item {
                    Value::String(text) => Some(text.clone()),
                    Value::Bool(_) | Value::Number(_) => Some(item.to_string()),
                    Value::Null => Some(String::new()),
                    Value::Array(_) | Value::Object(_) => None,
                })
                .collect();
            flat.push((at.to_owned(), list.map_or(Raw::Nested, Raw::List)));
        }
        Value::Object(members) => {
            for (key, value) in members {
                json_node(&join(at, key), value, flat);
            }
        }
    }
}

fn toml(text: &str) -> Result<Vec<(String, Raw)>, String> {
    // Dates become strings on the way, which is all that any key could want of one.
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| e.to_string())?;
    let value = serde_json::to_value(table).map_err(|e| e.to_string())?;
    let mut flat = Vec::new();
    json_node("", &value, &mut flat);
    Ok(flat)
}

fn join(at: &str, key: &str) -> String {
    if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bare(text: &str) -> Raw {
        Raw::Scalar { text: text.to_owned(), bare: true }
    }

    fn quoted(text: &str) -> Raw {
        Raw::Scalar { text: text.to_owned(), bare: false }
    }

    #[test]
    fn the_three_formats_say_the_same() {
        let want = vec![
            ("mode".to_owned(), quoted("release")),
            ("cluster.nodeId".to_owned(), bare("7")),
            ("cluster.initNodes".to_owned(), Raw::List(vec!["1@a".to_owned(), "2@b".to_owned()])),
            ("logger.loki.url".to_owned(), quoted("x")),
        ];
        let got = yaml(
            "mode: 'release'\ncluster:\n  nodeId: 7\n  seed:\n  initNodes:\n    - 1@a\n    - \"2@b\"\nlogger: {loki: {url: 'x'}}\n",
        );
        assert_eq!(got.as_ref(), Ok(&want));
        let mut sorted = want.clone();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        for got in [
            json(
                r#"{"mode":"release","cluster":{"nodeId":7,"seed":null,"initNodes":["1@a","2@b"]},"logger":{"loki":{"url":"x"}}}"#,
            ),
            toml(
                "mode = 'release'\n[cluster]\nnodeId = 7\ninitNodes = ['1@a','2@b']\n[logger.loki]\nurl='x'",
            ),
        ] {
            let got = got.map(|mut list| {
                list.sort_by(|a, b| a.0.cmp(&b.0));
                list
            });
            assert_eq!(got.as_ref(), Ok(&sorted));
        }
    }

    #[test]
    fn dotted_keys_and_anchors_work_and_empty_files_are_empty() {
        assert_eq!(
            yaml("manager.addr: :5300"),
            Ok(vec![("manager.addr".to_owned(), bare(":5300"))])
        );
        assert_eq!(
            yaml("a: &x 1\nb: *x"),
            Ok(vec![("a".to_owned(), bare("1")), ("b".to_owned(), bare("1"))])
        );
        assert_eq!(yaml(""), Ok(Vec::new()));
        assert_eq!(yaml("# nothing\n"), Ok(Vec::new()));
        assert_eq!(yaml("\u{feff}a: ~"), Ok(Vec::new()));
        assert_eq!(yaml("a: [{b: 1}]"), Ok(vec![("a".to_owned(), Raw::Nested)]));
    }

    #[test]
    fn broken_files_are_errors() {
        for text in ["a: [1", "a: 1\na: 2", "- 1", "just text", "a: {\n", "\t- x: y: z"] {
            assert!(yaml(text).is_err(), "{text:?} was accepted");
        }
        assert!(json("{").is_err());
        assert!(json("[]").is_err());
        assert!(toml("a = ").is_err());
    }
}
