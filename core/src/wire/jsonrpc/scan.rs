//! Where an object begins and ends in a stream of bytes, looked at once each.

use super::{RpcError, syntax};

/// What [`Scanner::scan`] found. Counts are bytes of the given slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scan {
    /// Nothing but what may be dropped: all of it.
    Blank,
    /// An object or array that goes on behind the slice.
    Part {
        /// Bytes to drop in front of it.
        skip: usize,
    },
    /// An object or array ends at `end`; with an earlier part in front it is whole.
    Whole {
        /// Bytes to drop in front of it.
        skip: usize,
        /// Its end.
        end: usize,
    },
    /// No JSON object. All up to the next `{` or `[` will be dropped without further errors.
    Garbage {
        /// Bytes to drop.
        skip: usize,
        /// To be answered once.
        error: RpcError,
    },
}

/// The state between two slices.
///
/// Only the kind of bracket that opened the value is counted: in valid JSON that is enough, and
/// in invalid JSON such as `{"a":]}` it drops the broken object as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scanner {
    /// Open brackets of the kind of the outermost.
    depth: u32,
    array: bool,
    string: bool,
    escape: bool,
    /// Garbage was reported; more of it is dropped silently.
    skipping: bool,
}

impl Scanner {
    /// Looks at bytes that follow those of the last call.
    pub fn scan(&mut self, bytes: &[u8]) -> Scan {
        let mut skip = 0;
        if self.depth == 0 {
            loop {
                match bytes.get(skip) {
                    None => return Scan::Blank,
                    Some(b' ' | b'\t' | b'\r' | b'\n') => {}
                    Some(&first @ (b'{' | b'[')) => {
                        *self = Self { array: first == b'[', ..Self::default() };
                        break;
                    }
                    Some(_) if self.skipping => {}
                    Some(&other) => {
                        self.skipping = true;
                        let message = syntax::unexpected(other, "looking for beginning of value");
                        let error = RpcError { id: None, message };
                        return Scan::Garbage { skip: skip + 1, error };
                    }
                }
                skip += 1;
            }
        }
        let (open, close) = if self.array { (b'[', b']') } else { (b'{', b'}') };
        for (place, &byte) in bytes.iter().enumerate().skip(skip) {
            if self.string {
                match byte {
                    _ if self.escape => self.escape = false,
                    b'\\' => self.escape = true,
                    b'"' => self.string = false,
                    _ => {}
                }
            } else if byte == b'"' {
                self.string = true;
            } else if byte == open {
                self.depth += 1;
            } else if byte == close {
                self.depth -= 1;
                if self.depth == 0 {
                    *self = Self::default();
                    return Scan::Whole { skip, end: place + 1 };
                }
            }
        }
        Scan::Part { skip }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> (usize, usize) {
        let scan = Scanner::default().scan(text.as_bytes());
        let Scan::Whole { skip, end } = scan else {
            panic!("{scan:?}");
        };
        (skip, end)
    }

    #[test]
    fn an_object_ends_where_its_braces_do() {
        assert_eq!(whole(" \r\n{\"a\":{\"}\\\"}\":[{}]}}{"), (3, 22));
        assert_eq!(whole("{\"a\":]}x"), (0, 7));
        assert_eq!(whole("[{\"a\":\"]\"}]}"), (0, 11));
    }

    #[test]
    fn garbage_is_reported_once() {
        let mut scanner = Scanner::default();
        assert!(matches!(scanner.scan(b" hello"), Scan::Garbage { skip: 2, .. }));
        assert_eq!(scanner.scan(b"ello \x10\xff"), Scan::Blank);
        assert_eq!(scanner.scan(b"\"} {"), Scan::Part { skip: 3 });
        assert_eq!(scanner.scan(b"}"), Scan::Whole { skip: 0, end: 1 });
        assert!(matches!(scanner.scan(b"}"), Scan::Garbage { skip: 1, .. }));
    }
}
