//! The syntax of a JSON value: where it ends, and what is wrong with it.

use super::ReadError;

/// How deep arrays and objects may stand in each other (Go's bound).
const DEPTH_MAX: usize = 10_000;

/// What is open around the current place.
#[derive(Clone, Copy)]
enum Open {
    Object,
    Array,
}

/// The first JSON value of the bytes, without the blanks around it. What follows isn't looked at.
pub(crate) fn first_value(bytes: &[u8]) -> Result<&[u8], ReadError> {
    let mut scanner = Scanner { bytes, place: 0 };
    scanner.blanks();
    let start = scanner.place;
    if start == bytes.len() {
        return Err(ReadError::Empty);
    }
    scanner.value()?;
    bytes.get(start..scanner.place).ok_or(ReadError::Truncated)
}

/// A byte as Go shows it in its errors.
pub(crate) fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b'\\' => r"'\\'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        0x00..=0x1f | 0x7f => format!(r"'\x{byte:02x}'"),
        0x80..=0xa0 | 0xad => format!(r"'\u00{byte:02x}'"),
        _ => format!("'{}'", char::from(byte)),
    }
}

struct Scanner<'a> {
    bytes: &'a [u8],
    place: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Result<u8, ReadError> {
        self.bytes.get(self.place).copied().ok_or(ReadError::Truncated)
    }

    fn next(&mut self) -> Result<u8, ReadError> {
        let byte = self.peek()?;
        self.place += 1;
        Ok(byte)
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Ok(b' ' | b'\t' | b'\r' | b'\n')) {
            self.place += 1;
        }
    }

    /// The next byte that is no blank.
    fn next_word(&mut self) -> Result<u8, ReadError> {
        self.blanks();
        self.next()
    }

    /// One value with everything in it.
    fn value(&mut self) -> Result<(), ReadError> {
        let mut open = Vec::new();
        loop {
            let ended = match self.next_word()? {
                b'{' => {
                    enter(&mut open, Open::Object, b'{')?;
                    self.blanks();
                    if self.peek()? == b'}' {
                        self.place += 1;
                        open.pop();
                        true
                    } else {
                        self.key()?;
                        false
                    }
                }
                b'[' => {
                    enter(&mut open, Open::Array, b'[')?;
                    self.blanks();
                    if self.peek()? == b']' {
                        self.place += 1;
                        open.pop();
                        true
                    } else {
                        false
                    }
                }
                b'"' => self.string().map(|()| true)?,
                b't' => self.literal(LITERAL_TRUE).map(|()| true)?,
                b'f' => self.literal(LITERAL_FALSE).map(|()| true)?,
                b'n' => self.literal(LITERAL_NULL).map(|()| true)?,
                byte @ (b'-' | b'0'..=b'9') => self.number(byte).map(|()| true)?,
                byte => return Err(character(byte, "looking for beginning of value")),
            };
            if ended && self.after_value(&mut open)? {
                return Ok(());
            }
        }
    }

    /// What may follow a value. True when the outermost one has ended.
    fn after_value(&mut self, open: &mut Vec<Open>) -> Result<bool, ReadError> {
        loop {
            match open.last() {
                None => return Ok(true),
                Some(Open::Object) => match self.next_word()? {
                    b',' => {
                        self.key()?;
                        return Ok(false);
                    }
                    b'}' => {}
                    byte => return Err(character(byte, "after object key:value pair")),
                },
                Some(Open::Array) => match self.next_word()? {
                    b',' => return Ok(false),
                    b']' => {}
                    byte => return Err(character(byte, "after array element")),
                },
            }
            open.pop();
        }
    }

    /// A member's name and the colon.
    fn key(&mut self) -> Result<(), ReadError> {
        match self.next_word()? {
            b'"' => self.string()?,
            byte => {
                return Err(character(byte, "looking for beginning of object key string"));
            }
        }
        match self.next_word()? {
            b':' => Ok(()),
            byte => Err(character(byte, "after object key")),
        }
    }

    /// The rest of a string whose quote was read.
    fn string(&mut self) -> Result<(), ReadError> {
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => match self.next()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        for _ in 0..4 {
                            let byte = self.next()?;
                            if !byte.is_ascii_hexdigit() {
                                return Err(character(byte, r"in \u hexadecimal character escape"));
                            }
                        }
                    }
                    byte => return Err(character(byte, "in string escape code")),
                },
                byte @ 0..=0x1f => return Err(character(byte, "in string literal")),
                _ => {}
            }
        }
    }

    /// The rest of `true`, `false` or `null` whose first letter was read.
    fn literal(&mut self, rest: &[(u8, &'static str)]) -> Result<(), ReadError> {
        for (wanted, place) in rest {
            let byte = self.next()?;
            if byte != *wanted {
                return Err(character(byte, place));
            }
        }
        Ok(())
    }

    /// The rest of a number whose first byte was read.
    fn number(&mut self, first: u8) -> Result<(), ReadError> {
        let mut first = first;
        if first == b'-' {
            first = self.next()?;
            if !first.is_ascii_digit() {
                return Err(character(first, "in numeric literal"));
            }
        }
        if first != b'0' {
            self.digits();
        }
        if self.peek() == Ok(b'.') {
            self.place += 1;
            self.at_least_one_digit("after decimal point in numeric literal")?;
        }
        if matches!(self.peek(), Ok(b'e' | b'E')) {
            self.place += 1;
            if matches!(self.peek(), Ok(b'+' | b'-')) {
                self.place += 1;
            }
            self.at_least_one_digit("in exponent of numeric literal")?;
        }
        Ok(())
    }

    fn at_least_one_digit(&mut self, place: &'static str) -> Result<(), ReadError> {
        let byte = self.next()?;
        if !byte.is_ascii_digit() {
            return Err(character(byte, place));
        }
        self.digits();
        Ok(())
    }

    fn digits(&mut self) {
        while matches!(self.peek(), Ok(b'0'..=b'9')) {
            self.place += 1;
        }
    }
}

const LITERAL_TRUE: &[(u8, &str)] = &[
    (b'r', "in literal true (expecting 'r')"),
    (b'u', "in literal true (expecting 'u')"),
    (b'e', "in literal true (expecting 'e')"),
];
const LITERAL_FALSE: &[(u8, &str)] = &[
    (b'a', "in literal false (expecting 'a')"),
    (b'l', "in literal false (expecting 'l')"),
    (b's', "in literal false (expecting 's')"),
    (b'e', "in literal false (expecting 'e')"),
];
const LITERAL_NULL: &[(u8, &str)] = &[
    (b'u', "in literal null (expecting 'u')"),
    (b'l', "in literal null (expecting 'l')"),
    (b'l', "in literal null (expecting 'l')"),
];

fn character(byte: u8, place: &'static str) -> ReadError {
    ReadError::Character { byte, place }
}

fn enter(open: &mut Vec<Open>, what: Open, byte: u8) -> Result<(), ReadError> {
    if open.len() >= DEPTH_MAX {
        return Err(character(byte, "exceeded max depth"));
    }
    open.push(what);
    Ok(())
}
