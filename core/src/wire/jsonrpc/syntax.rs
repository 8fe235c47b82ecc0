//! Texts for JSON that does not parse, as the Go decoder of v2.2.5 words them. Only looked for
//! once parsing has failed.

/// The error for `byte` at a place where it cannot stand.
pub(super) fn unexpected(byte: u8, context: &str) -> String {
    let shown = match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b'\\' => r"'\\'".to_owned(),
        0x07 => r"'\a'".to_owned(),
        0x08 => r"'\b'".to_owned(),
        0x0b => r"'\v'".to_owned(),
        0x0c => r"'\f'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        0x20..0x7f | 0xa1..=0xac | 0xae..=0xff => format!("'{}'", char::from(byte)),
        0x00..0x20 | 0x7f => format!("'\\x{byte:02x}'"),
        0x80..=0xa0 | 0xad => format!("'\\u{byte:04x}'"),
    };
    format!(
        "jsonrpc: invalid message structure or field combination: invalid character {shown} {context}"
    )
}

/// What comes next.
#[derive(Clone, Copy)]
enum Expect {
    Value,
    /// A value, or the end of an array that has just begun.
    ValueOrEnd,
    /// A key, or the end of an object that has just begun.
    KeyOrEnd,
    Key,
    Colon,
    /// A comma or the end of what is open.
    Next,
}

/// The first fault of `text`, which is one value by its brackets. `None` if there is none.
pub(super) fn fault(text: &[u8]) -> Option<String> {
    let mut open: Vec<u8> = Vec::new();
    let mut expect = Expect::Value;
    let mut place = 0;
    while let Some(&byte) = text.get(place) {
        if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
            place += 1;
            continue;
        }
        match (expect, byte) {
            (Expect::Value | Expect::ValueOrEnd, b'{' | b'[') => {
                if open.len() >= 10_000 {
                    return Some("jsonrpc: invalid message structure or field combination: exceeded max depth".to_owned());
                }
                open.push(byte);
                expect = if byte == b'{' { Expect::KeyOrEnd } else { Expect::ValueOrEnd };
                place += 1;
                continue;
            }
            (Expect::ValueOrEnd, b']') | (Expect::KeyOrEnd, b'}') => {
                open.pop();
                expect = Expect::Next;
                place += 1;
            }
            (Expect::Value | Expect::ValueOrEnd, _) => {
                match value(text, place) {
                    Ok(end) => place = end,
                    Err(fault) => return Some(fault),
                }
                expect = Expect::Next;
            }
            (Expect::KeyOrEnd | Expect::Key, b'"') => {
                match string(text, place) {
                    Ok(end) => place = end,
                    Err(fault) => return Some(fault),
                }
                expect = Expect::Colon;
                continue;
            }
            (Expect::KeyOrEnd | Expect::Key, _) => {
                return Some(unexpected(byte, "looking for beginning of object key string"));
            }
            (Expect::Colon, b':') => {
                expect = Expect::Value;
                place += 1;
                continue;
            }
            (Expect::Colon, _) => return Some(unexpected(byte, "after object key")),
            (Expect::Next, _) => {
                let object = open.last() == Some(&b'{');
                match byte {
                    b',' => expect = if object { Expect::Key } else { Expect::Value },
                    b'}' if object => drop(open.pop()),
                    b']' if !object => drop(open.pop()),
                    _ if object => return Some(unexpected(byte, "after object key:value pair")),
                    _ => return Some(unexpected(byte, "after array element")),
                }
                place += 1;
            }
        }
        if open.is_empty() {
            return None;
        }
    }
    None
}

/// Reads a string, number or literal at `place` and gives its end.
fn value(text: &[u8], place: usize) -> Result<usize, String> {
    match text.get(place) {
        Some(b'"') => string(text, place),
        Some(b'-' | b'0'..=b'9') => number(text, place),
        Some(b't') => literal(text, place, b"true"),
        Some(b'f') => literal(text, place, b"false"),
        Some(b'n') => literal(text, place, b"null"),
        Some(&other) => Err(unexpected(other, "looking for beginning of value")),
        None => Ok(place),
    }
}

fn string(text: &[u8], start: usize) -> Result<usize, String> {
    let mut place = start + 1;
    while let Some(&byte) = text.get(place) {
        match byte {
            b'"' => return Ok(place + 1),
            b'\\' => {
                place += 1;
                match text.get(place) {
                    Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') | None => {}
                    Some(b'u') => {
                        for &digit in text.get(place + 1..).unwrap_or_default().iter().take(4) {
                            if !digit.is_ascii_hexdigit() {
                                return Err(unexpected(
                                    digit,
                                    "in \\u hexadecimal character escape",
                                ));
                            }
                        }
                        place += 4;
                    }
                    Some(&other) => return Err(unexpected(other, "in string escape code")),
                }
            }
            0x00..0x20 => return Err(unexpected(byte, "in string literal")),
            _ => {}
        }
        place += 1;
    }
    Ok(place)
}

fn number(text: &[u8], start: usize) -> Result<usize, String> {
    let mut place = start;
    let digits = |mut place: usize, context: &str| match text.get(place) {
        Some(byte) if byte.is_ascii_digit() => {
            while text.get(place).is_some_and(u8::is_ascii_digit) {
                place += 1;
            }
            Ok(place)
        }
        Some(&other) => Err(unexpected(other, context)),
        None => Ok(place),
    };
    if text.get(place) == Some(&b'-') {
        place += 1;
    }
    place = match text.get(place) {
        Some(b'0') => place + 1,
        _ => digits(place, "in numeric literal")?,
    };
    if text.get(place) == Some(&b'.') {
        place = digits(place + 1, "after decimal point in numeric literal")?;
    }
    if matches!(text.get(place), Some(b'e' | b'E')) {
        place += 1;
        if matches!(text.get(place), Some(b'+' | b'-')) {
            place += 1;
        }
        place = digits(place, "in exponent of numeric literal")?;
    }
    Ok(place)
}

fn literal(text: &[u8], start: usize, word: &[u8]) -> Result<usize, String> {
    let there = text.get(start..).unwrap_or_default();
    for (&byte, &wanted) in there.iter().zip(word) {
        if byte != wanted {
            let word = String::from_utf8_lossy(word);
            let wanted = char::from(wanted);
            return Err(unexpected(byte, &format!("in literal {word} (expecting '{wanted}')")));
        }
    }
    Ok(start + word.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let found = fault(text.as_bytes());
        let found =
            found.as_deref().map(|text| text.rsplit_once("combination: ").map_or(text, |p| p.1));
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn faults_are_worded_as_the_go_decoder_words_them() {
        check(r#"{"a":[1,-2.5e+3,true,null,"x\u00e9\n",{}],"b":{"c":[]}}"#, None);
        check("{}", None);
        check(r#"{"method":}"#, Some("invalid character '}' looking for beginning of value"));
        check(r#"{"method":ping}"#, Some("invalid character 'p' looking for beginning of value"));
        check("{a:1}", Some("invalid character 'a' looking for beginning of object key string"));
        check(
            r#"{"a":1,}"#,
            Some("invalid character '}' looking for beginning of object key string"),
        );
        check(r#"{"a" 1}"#, Some("invalid character '1' after object key"));
        check(r#"{"a":1 "b"}"#, Some("invalid character '\"' after object key:value pair"));
        check(r#"{"a":[1 2]}"#, Some("invalid character '2' after array element"));
        check(r#"{"a":01}"#, Some("invalid character '1' after object key:value pair"));
        check(r#"{"a":-x}"#, Some("invalid character 'x' in numeric literal"));
        check(r#"{"a":1.}"#, Some("invalid character '}' after decimal point in numeric literal"));
        check(r#"{"a":1e}"#, Some("invalid character '}' in exponent of numeric literal"));
        check(r#"{"a":trux}"#, Some("invalid character 'x' in literal true (expecting 'e')"));
        check(r#"{"a":"\x"}"#, Some("invalid character 'x' in string escape code"));
        check(
            r#"{"a":"\u12g4"}"#,
            Some("invalid character 'g' in \\u hexadecimal character escape"),
        );
        check("{\"a\":\"\n\"}", Some("invalid character '\\n' in string literal"));
    }
}
