//! Members of an object, converted the way v2.2.5's decoder converts them.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::wire::frame::{Flags, setting};

/// A member name; names match in any letter case.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(TextVisitor).map(Name)
    }
}

/// A string. Lone surrogates become replacement characters, they do not fail.
struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }

    fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
        Ok(String::from_utf8_lossy(bytes))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(Cow::Owned(String::from_utf8_lossy(bytes).into_owned()))
    }
}

/// An object's members in order, values unread.
pub(super) struct Members<'a>(pub(super) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((Name(name), value)) = map.next_entry::<Name<'de>, &RawValue>()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

/// What a value is, by its first byte.
pub(super) fn kind(value: &str) -> &'static str {
    match value.as_bytes().first() {
        Some(b'"') => "string",
        Some(b'{') => "object",
        Some(b'[') => "array",
        Some(b't' | b'f') => "bool",
        _ => "number",
    }
}

/// One object being read into fields.
pub(super) struct Object<'a> {
    members: Vec<(Cow<'a, str>, &'a RawValue)>,
    /// Name of the Go type, for error texts.
    go: &'static str,
    /// Path to this object within the params, with a dot behind it.
    path: &'static str,
}

impl<'a> Object<'a> {
    /// Reads `value`, which parses; `null` counts as an empty object.
    pub(super) fn read(value: &'a str, go: &'static str) -> Result<Self, String> {
        Self::read_at(value, go, "", || format!("value of type jsonrpc.{go}"))
    }

    fn read_at(
        value: &'a str,
        go: &'static str,
        path: &'static str,
        target: impl FnOnce() -> String,
    ) -> Result<Self, String> {
        let members = match value.as_bytes().first() {
            Some(b'n') => Vec::new(),
            Some(b'{') => match serde_json::from_str(value) {
                Ok(Members(members)) => members,
                Err(error) => return Err(error.to_string()),
            },
            _ => {
                return Err(format!("json: cannot unmarshal {} into Go {}", kind(value), target()));
            }
        };
        Ok(Self { members, go, path })
    }

    /// The last member of that name, or of the other one that some SDKs write (§5.4 item 5);
    /// the first name wins. `null` counts as absent.
    pub(super) fn get(&self, name: &str, other: &str) -> Option<&'a str> {
        let find = |name: &str| {
            let mut named = self.members.iter().rev();
            named.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.get())
        };
        find(name).or_else(|| find(other)).filter(|value| *value != "null")
    }

    fn mismatch(&self, value: &str, name: &str, go: &str) -> String {
        let kind = kind(value);
        let (owner, path) = (self.go, self.path);
        format!(
            "json: cannot unmarshal {kind} into Go struct field {owner}.{path}{name} of type {go}"
        )
    }

    /// A string, empty when absent.
    pub(super) fn str(&self, name: &str, other: &str) -> Result<Cow<'a, str>, String> {
        let Some(value) = self.get(name, other) else {
            return Ok(Cow::Borrowed(""));
        };
        text(value).ok_or_else(|| self.mismatch(value, name, "string"))
    }

    /// A bool, false when absent.
    fn bool(&self, name: &str) -> Result<bool, String> {
        match self.get(name, name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(value) => Err(self.mismatch(value, name, "bool")),
        }
    }

    /// A whole number within `T`, its default when absent.
    pub(super) fn number<T: std::str::FromStr + Default>(
        &self,
        name: &str,
        other: &str,
        go: &str,
    ) -> Result<T, String> {
        let Some(value) = self.get(name, other) else {
            return Ok(T::default());
        };
        if kind(value) != "number" {
            return Err(self.mismatch(value, name, go));
        }
        value.parse().map_err(|_| {
            let (owner, path) = (self.go, self.path);
            format!(
                "json: cannot unmarshal number {value} into Go struct field {owner}.{path}{name} of type {go}"
            )
        })
    }

    /// The member `header` as flags.
    pub(super) fn header(&self) -> Result<Flags, String> {
        let Some(value) = self.get("header", "header") else {
            return Ok(Flags::default());
        };
        let owner = self.go;
        let header = Self::read_at(value, "Header", "header.", || {
            format!("struct field {owner}.header of type jsonrpc.Header")
        })?;
        Ok(Flags {
            no_persist: header.bool("noPersist")?,
            red_dot: header.bool("redDot")?,
            sync_once: header.bool("syncOnce")?,
            dup: header.bool("dup")?,
        })
    }

    /// The member `setting` as bits.
    pub(super) fn setting(&self) -> Result<u8, String> {
        let Some(value) = self.get("setting", "setting") else {
            return Ok(0);
        };
        let owner = self.go;
        let flags = Self::read_at(value, "SettingFlags", "setting.", || {
            format!("struct field {owner}.setting of type jsonrpc.SettingFlags")
        })?;
        let mut bits = 0;
        for (name, bit) in SETTING_NAMES {
            if flags.bool(name)? {
                bits |= bit;
            }
        }
        Ok(bits)
    }

    /// The member `payload`: base64, or the compact text of an object or array.
    pub(super) fn payload(&self) -> Result<Vec<u8>, String> {
        let Some(value) = self.get("payload", "payload") else {
            return Ok(Vec::new());
        };
        match kind(value) {
            "string" => {
                let text = text(value).unwrap_or_default();
                decode_base64(text.as_bytes())
                    .map_err(|place| format!("illegal base64 data at input byte {place}"))
            }
            "object" | "array" => Ok(compact(value)),
            _ => Err(self.mismatch(value, "payload", "[]uint8")),
        }
    }
}

/// The settings that JSON-RPC has names for, in the order they are written.
pub(super) const SETTING_NAMES: [(&str, u8); 4] = [
    ("receipt", setting::RECEIPT),
    ("signal", setting::SIGNAL),
    ("stream", setting::STREAM),
    ("topic", setting::TOPIC),
];

/// The content of a JSON string; `None` if the value is something else.
pub(super) fn text(value: &str) -> Option<Cow<'_, str>> {
    if !value.starts_with('"') {
        return None;
    }
    serde_json::Deserializer::from_str(value).deserialize_bytes(TextVisitor).ok()
}

/// The text of a valid value without the white space between its parts.
fn compact(value: &str) -> Vec<u8> {
    let (mut string, mut escape) = (false, false);
    value
        .bytes()
        .filter(|&byte| {
            if string {
                match byte {
                    _ if escape => escape = false,
                    b'\\' => escape = true,
                    b'"' => string = false,
                    _ => {}
                }
                return true;
            }
            string = byte == b'"';
            !matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
        })
        .collect()
}

/// Decodes padded base64 as Go's standard encoding does: line breaks are skipped, stray bits
/// ignored. On failure gives the place that Go names.
fn decode_base64(text: &[u8]) -> Result<Vec<u8>, usize> {
    if let Ok(bytes) = STANDARD.decode(text) {
        return Ok(bytes);
    }
    let mut bytes = Vec::new();
    let mut quantum = 0_u32;
    let mut count = 0;
    let mut chars = text
        .iter()
        .enumerate()
        .filter(|(_, byte)| !matches!(byte, b'\r' | b'\n'))
        .map(|(place, &byte)| (place, byte));
    while let Some((place, byte)) = chars.next() {
        if byte == b'=' {
            match count {
                2 => match chars.next() {
                    Some((_, b'=')) => {}
                    Some((other, _)) => return Err(other),
                    None => return Err(text.len()),
                },
                3 => {}
                _ => return Err(place),
            }
            if let Some((behind, _)) = chars.next() {
                return Err(behind);
            }
            quantum <<= 6 * (4 - count);
            let [_, a, b, _] = quantum.to_be_bytes();
            bytes.push(a);
            if count == 3 {
                bytes.push(b);
            }
            return Ok(bytes);
        }
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return Err(place),
        };
        quantum = quantum << 6 | u32::from(value);
        count += 1;
        if count == 4 {
            let [_, a, b, c] = quantum.to_be_bytes();
            bytes.extend([a, b, c]);
            (quantum, count) = (0, 0);
        }
    }
    if count == 0 { Ok(bytes) } else { Err(text.len() - count) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_as_go_reads_it() {
        let check = |text: &str, expected: Result<&str, usize>| {
            let expected = expected.map(|text| text.as_bytes().to_vec());
            assert_eq!(decode_base64(text.as_bytes()), expected, "{text:?}");
        };
        check("", Ok(""));
        check("aGk=", Ok("hi"));
        check("aG\nk=\r\n", Ok("hi"));
        check("aGl=", Ok("hi"));
        check("YR==", Ok("a"));
        check("aGlh", Ok("hia"));
        check("hello", Err(4));
        check("aGk", Err(0));
        check("a===", Err(1));
        check("aG=k", Err(3));
        check("aG=", Err(3));
        check("aGk=x", Err(4));
        check("aG?k", Err(2));
    }

    #[test]
    fn compact_text_keeps_strings_as_they_are() {
        let text = compact("{ \"a b\" : [ 1 , \"\\\" x\" ] }");
        assert_eq!(text, b"{\"a b\":[1,\"\\\" x\"]}");
    }
}
