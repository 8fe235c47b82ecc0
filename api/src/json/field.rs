//! What a member may be, by the type of the field that takes it.

use bytes::Bytes;

use super::{
    ReadError, base64,
    value::{Members, Value},
};

/// A type that a JSON value can be read into.
pub(crate) trait Field {
    /// Its name in errors.
    const KIND: &'static str;

    /// Takes over a value. `null` and values of a wrong kind change nothing; the latter are a
    /// fault.
    fn read(&mut self, value: Value<'_>, faults: &mut Faults);
}

/// What went wrong while reading. The first fault is told; reading goes on after it, as in Go.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    first: Option<ReadError>,
    path: Vec<&'static str>,
}

impl Faults {
    /// Reads a member of this name.
    pub(crate) fn within(&mut self, name: &'static str, read: impl FnOnce(&mut Self)) {
        self.path.push(name);
        read(self);
        self.path.pop();
    }

    /// The members of a value that must be an object.
    pub(crate) fn members<'a>(&mut self, value: Value<'a>, wanted: &'static str) -> Members<'a> {
        if let Value::Object(members) = value {
            return members;
        }
        self.other_kind(value, wanted);
        Members::NONE
    }

    /// The value is not of the wanted kind. `null` is of every kind.
    fn other_kind(&mut self, value: Value<'_>, wanted: &'static str) {
        if matches!(value, Value::Null) {
            return;
        }
        let path = &self.path;
        self.first.get_or_insert_with(|| ReadError::Kind {
            found: value.kind(),
            field: if path.is_empty() {
                "value".to_owned()
            } else {
                format!("field {}", path.join("."))
            },
            wanted,
        });
    }

    /// The first fault.
    pub(super) fn into_result(self) -> Result<(), ReadError> {
        self.first.map_or(Ok(()), Err)
    }
}

impl Field for String {
    const KIND: &'static str = "string";

    fn read(&mut self, value: Value<'_>, faults: &mut Faults) {
        if let Value::Text(text) = value {
            *self = text.decode();
        } else {
            faults.other_kind(value, Self::KIND);
        }
    }
}

/// Integers: digits with a sign at most, in the range of the type.
macro_rules! integer {
    ($($type:ty: $kind:literal,)*) => {
        $(impl Field for $type {
            const KIND: &'static str = $kind;

            fn read(&mut self, value: Value<'_>, faults: &mut Faults) {
                if let Value::Number(digits) = value
                    && let Ok(number) = digits.parse()
                    && (<$type>::MIN != 0 || !digits.starts_with('-'))
                {
                    *self = number;
                } else {
                    faults.other_kind(value, Self::KIND);
                }
            }
        })*
    };
}

integer! {
    u8: "uint8",
    u32: "uint32",
    u64: "uint64",
    i64: "int",
}

/// Bytes: base64 text, or an array of numbers.
impl Field for Bytes {
    const KIND: &'static str = "[]uint8";

    fn read(&mut self, value: Value<'_>, faults: &mut Faults) {
        if let Value::Text(text) = value {
            match base64::decode(text.decode().as_bytes()) {
                Ok(bytes) => *self = bytes.into(),
                Err(error) => {
                    faults.first.get_or_insert(error);
                }
            }
        } else if let Value::Array(items) = value {
            let mut bytes = Vec::new();
            for item in items {
                let mut byte = 0_u8;
                byte.read(item, faults);
                bytes.push(byte);
            }
            *self = bytes.into();
        } else if matches!(value, Value::Null) {
            *self = Bytes::new();
        } else {
            faults.other_kind(value, Self::KIND);
        }
    }
}

/// Any JSON, kept as text without blanks; empty: `null`, or nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Raw(pub(crate) Bytes);

impl Field for Raw {
    const KIND: &'static str = "json.RawMessage";

    fn read(&mut self, value: Value<'_>, _: &mut Faults) {
        let mut json = Vec::new();
        if !matches!(value, Value::Null) {
            value.write(&mut json);
        }
        // Strings may hold what is no UTF-8.
        self.0 = match String::from_utf8(json) {
            Ok(json) => json.into(),
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned().into(),
        };
    }
}

impl<T: Field + Default> Field for Vec<T> {
    const KIND: &'static str = "array";

    fn read(&mut self, value: Value<'_>, faults: &mut Faults) {
        if let Value::Array(items) = value {
            self.clear();
            for item in items {
                let mut element = T::default();
                element.read(item, faults);
                self.push(element);
            }
        } else if matches!(value, Value::Null) {
            self.clear();
        } else {
            faults.other_kind(value, Self::KIND);
        }
    }
}

/// `None` for `null` and for nothing.
impl<T: Field + Default> Field for Option<T> {
    const KIND: &'static str = T::KIND;

    fn read(&mut self, value: Value<'_>, faults: &mut Faults) {
        if matches!(value, Value::Null) {
            *self = None;
        } else {
            self.get_or_insert_default().read(value, faults);
        }
    }
}
