//! A walk over text that [`super::scan`] has checked. Where the text is not as it should be (it
//! can't happen), the walk ends early; it never panics.

/// A JSON value in checked text.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number as written.
    Number(&'a str),
    /// A string.
    Text(Text<'a>),
    /// An array.
    Array(Items<'a>),
    /// An object.
    Object(Members<'a>),
}

/// A string as written, without its quotes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text<'a>(&'a [u8]);

/// The elements of an array.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Items<'a> {
    rest: Rest<'a>,
}

/// The members of an object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Members<'a> {
    rest: Rest<'a>,
}

impl<'a> Value<'a> {
    /// The value whose checked text this is.
    pub(crate) fn of(text: &'a [u8]) -> Self {
        Rest(text).value().unwrap_or(Self::Null)
    }

    /// What it is, in Go's words.
    pub(crate) fn kind(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(_) => "bool".to_owned(),
            Self::Number(digits) => format!("number {digits}"),
            Self::Text(_) => "string".to_owned(),
            Self::Array(_) => "array".to_owned(),
            Self::Object(_) => "object".to_owned(),
        }
    }
}

impl Value<'_> {
    /// The value as JSON, without the blanks between its parts.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::Number(digits) => out.extend_from_slice(digits.as_bytes()),
            Self::Text(Text(text)) => {
                out.push(b'"');
                out.extend_from_slice(text);
                out.push(b'"');
            }
            Self::Array(items) => items.rest.write(out, b'[', b']'),
            Self::Object(members) => members.rest.write(out, b'{', b'}'),
        }
    }
}

impl<'a> Members<'a> {
    /// No members.
    pub(crate) const NONE: Members<'static> = Members { rest: Rest(&[]) };
}

impl<'a> Iterator for Items<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        let value = self.rest.value()?;
        self.rest.skip(b',');
        Some(value)
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (Text<'a>, Value<'a>);

    fn next(&mut self) -> Option<(Text<'a>, Value<'a>)> {
        let Value::Text(key) = self.rest.value()? else {
            return None;
        };
        self.rest.skip(b':');
        let value = self.rest.value()?;
        self.rest.skip(b',');
        Some((key, value))
    }
}

/// Text that is not walked yet.
#[derive(Clone, Copy, Debug)]
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn blanks(&mut self) {
        while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] = self.0 {
            self.0 = rest;
        }
    }

    /// Skips blanks and one byte, if it is this one.
    fn skip(&mut self, byte: u8) {
        self.blanks();
        if let [first, rest @ ..] = self.0
            && *first == byte
        {
            self.0 = rest;
        }
    }

    /// Writes what is left without its blanks, in brackets.
    fn write(&self, out: &mut Vec<u8>, open: u8, close: u8) {
        out.push(open);
        let mut rest = self.0;
        while let Some(byte) = rest.first() {
            let size = if *byte == b'"' { string_size(rest) } else { 1 };
            let (head, tail) = rest.split_at_checked(size).unwrap_or((rest, &[]));
            if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                out.extend_from_slice(head);
            }
            rest = tail;
        }
        out.push(close);
    }

    /// Cuts off the first bytes.
    fn take(&mut self, size: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at_checked(size).unwrap_or((self.0, &[]));
        self.0 = tail;
        head
    }

    fn value(&mut self) -> Option<Value<'a>> {
        self.blanks();
        Some(match self.0.first()? {
            b'n' => {
                self.take(4);
                Value::Null
            }
            b't' => {
                self.take(4);
                Value::Bool(true)
            }
            b'f' => {
                self.take(5);
                Value::Bool(false)
            }
            b'"' => Value::Text(Text(self.string())),
            b'[' => Value::Array(Items { rest: Rest(self.nested()) }),
            b'{' => Value::Object(Members { rest: Rest(self.nested()) }),
            _ => {
                let is_part = |b: &u8| matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
                let size = self.0.iter().position(|byte| !is_part(byte)).unwrap_or(self.0.len());
                if size == 0 {
                    return None;
                }
                Value::Number(str::from_utf8(self.take(size)).unwrap_or_default())
            }
        })
    }

    /// Takes a string; its text without the quotes.
    fn string(&mut self) -> &'a [u8] {
        let size = string_size(self.0);
        let whole = self.take(size);
        whole.get(1..size.saturating_sub(1)).unwrap_or_default()
    }

    /// Takes an array or object; its text without the brackets.
    fn nested(&mut self) -> &'a [u8] {
        let mut depth = 0_usize;
        let mut place = 0;
        while let Some(byte) = self.0.get(place) {
            match byte {
                b'"' => {
                    place += string_size(self.0.get(place..).unwrap_or_default());
                    continue;
                }
                b'[' | b'{' => depth += 1,
                b']' | b'}' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        break;
                    }
                }
                _ => {}
            }
            place += 1;
        }
        let whole = self.take(place.saturating_add(1));
        whole.get(1..whole.len().saturating_sub(1)).unwrap_or_default()
    }
}

/// The size of the string at the start of the text, quotes included.
fn string_size(text: &[u8]) -> usize {
    let mut place = 1;
    while let Some(byte) = text.get(place) {
        match byte {
            b'"' => return place + 1,
            b'\\' => place += 2,
            _ => place += 1,
        }
    }
    text.len()
}

impl Text<'_> {
    /// The characters meant: escapes resolved; what is no UTF-8 and half a surrogate pair become
    /// U+FFFD.
    pub(crate) fn decode(&self) -> String {
        if !self.0.contains(&b'\\') {
            return String::from_utf8_lossy(self.0).into_owned();
        }
        let mut text = String::with_capacity(self.0.len());
        let mut rest = self.0;
        while let Some(place) = rest.iter().position(|byte| *byte == b'\\') {
            let (plain, escape) = rest.split_at_checked(place).unwrap_or((rest, &[]));
            text.push_str(&String::from_utf8_lossy(plain));
            rest = push_escape(&mut text, escape);
        }
        text.push_str(&String::from_utf8_lossy(rest));
        text
    }

    /// Whether it is a member's name: ASCII letters match in any case, and so do the two letters
    /// that Unicode folds to `s` and `k`, as in Go.
    pub(crate) fn is(&self, name: &str) -> bool {
        if self.0 == name.as_bytes() {
            return true;
        }
        if !self.0.contains(&b'\\') && self.0.is_ascii() {
            return self.0.eq_ignore_ascii_case(name.as_bytes());
        }
        self.decode().chars().map(fold).eq(name.chars().map(fold))
    }
}

fn fold(letter: char) -> char {
    match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    }
}

/// Resolves the escape at the start of the text; what follows it.
fn push_escape<'a>(text: &mut String, escape: &'a [u8]) -> &'a [u8] {
    let [_, letter, rest @ ..] = escape else {
        return &[];
    };
    let plain = match letter {
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let (unit, rest) = code_unit(rest);
            let paired = match rest {
                [b'\\', b'u', low @ ..] if (0xd800..0xdc00).contains(&unit) => Some(code_unit(low)),
                _ => None,
            };
            if let Some((low, after)) = paired
                && (0xdc00..0xe000).contains(&low)
            {
                let both = 0x1_0000 + ((unit - 0xd800) << 10 | (low - 0xdc00));
                text.push(char::from_u32(both).unwrap_or(char::REPLACEMENT_CHARACTER));
                return after;
            }
            text.push(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER));
            return rest;
        }
        other => char::from(*other),
    };
    text.push(plain);
    rest
}

/// Four hexadecimal digits, and what follows them.
fn code_unit(text: &[u8]) -> (u32, &[u8]) {
    let (digits, rest) = text.split_at_checked(4).unwrap_or((text, &[]));
    let digits = str::from_utf8(digits).unwrap_or_default();
    (u32::from_str_radix(digits, 16).unwrap_or(0xfffd), rest)
}
