//! The part after `?`, and percent-encoding.

/// The query parameters of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
}

/// A path holds a `%` that is not followed by two hexadecimal digits.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadEscape;

impl Query {
    /// Reads pairs joined by `&`. Pairs with a `;` or a bad escape are left out, as in v2.
    pub(crate) fn parse(text: &str) -> Self {
        let mut pairs = Vec::new();
        for pair in text.split('&') {
            if pair.is_empty() || pair.contains(';') {
                continue;
            }
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if let (Ok(key), Ok(value)) = (decode(key, true), decode(value, true)) {
                pairs.push((key, value));
            }
        }
        Self { pairs }
    }

    /// The first value of a key; empty when there is none.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.pairs.iter().find(|(k, _)| k == key).map_or("", |(_, value)| value)
    }

    /// A signed number: 0 when absent or not a number, the nearest one when out of range.
    pub(crate) fn signed(&self, key: &str) -> i64 {
        signed(self.text(key))
    }

    /// An unsigned number: 0 when absent or not a number, the nearest one when out of range.
    pub(crate) fn unsigned(&self, key: &str) -> u64 {
        unsigned(self.text(key))
    }

    /// A channel type: 255 for everything above.
    pub(crate) fn kind(&self, key: &str) -> u8 {
        u8::try_from(self.unsigned(key)).unwrap_or(u8::MAX)
    }
}

/// A number as v2 reads it from text.
pub(crate) fn unsigned(text: &str) -> u64 {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return 0;
    }
    text.parse().unwrap_or(u64::MAX)
}

/// A number with an optional sign as v2 reads it from text.
pub(crate) fn signed(text: &str) -> i64 {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    match (is_negative, i64::try_from(unsigned(digits))) {
        (false, Ok(value)) => value,
        (true, Ok(value)) => -value,
        (false, Err(_)) => i64::MAX,
        (true, Err(_)) => i64::MIN,
    }
}

/// The path that the encoded one stands for. Bytes that are no UTF-8 become U+FFFD, which no route
/// holds.
pub(crate) fn decode_path(path: &str) -> Result<String, BadEscape> {
    decode(path, false)
}

fn decode(text: &str, plus_is_blank: bool) -> Result<String, BadEscape> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let (high, low) = (rest.next().and_then(digit), rest.next().and_then(digit));
                let (Some(high), Some(low)) = (high, low) else {
                    return Err(BadEscape);
                };
                bytes.push(high << 4 | low);
            }
            b'+' if plus_is_blank => bytes.push(b' '),
            other => bytes.push(other),
        }
    }
    Ok(match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_value_of_a_key_counts() {
        let query = Query::parse("a=1&b=%E7%BE%A4+x&a=2&c&=d&e=%zz&f=1;g=2&h=a=b");
        assert_eq!(query.text("a"), "1");
        assert_eq!(query.text("b"), "群 x");
        assert_eq!(query.text("c"), "");
        assert_eq!(query.text("e"), "");
        assert_eq!(query.text("f"), "");
        assert_eq!(query.text("h"), "a=b");
        assert_eq!(query.text("nothing"), "");
    }

    #[test]
    fn numbers_are_read_leniently() {
        let query = Query::parse(
            "a=12&b=x&c=-3&d=999999999999999999999&e=300&f=%2B7&g=-99999999999999999999&h=1.5",
        );
        assert_eq!((query.signed("a"), query.unsigned("a")), (12, 12));
        assert_eq!((query.signed("b"), query.unsigned("b")), (0, 0));
        assert_eq!((query.signed("c"), query.unsigned("c")), (-3, 0));
        assert_eq!((query.signed("d"), query.unsigned("d")), (i64::MAX, u64::MAX));
        assert_eq!((query.kind("e"), query.kind("a"), query.kind("b")), (255, 12, 0));
        assert_eq!((query.signed("f"), query.unsigned("f")), (7, 0));
        assert_eq!((query.signed("g"), query.signed("h")), (i64::MIN, 0));
    }

    #[test]
    fn a_bad_escape_in_a_path_is_told() {
        assert_eq!(decode_path("/a%2Fb+c"), Ok("/a/b+c".to_owned()));
        for bad in ["/%", "/%4", "/%4g", "/%%30"] {
            assert_eq!(decode_path(bad), Err(BadEscape), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in any::<String>()) {
            let query = Query::parse(&text);
            let _ = (query.signed("a"), decode_path(&text));
        }
    }
}
