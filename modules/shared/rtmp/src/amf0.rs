//! Action Message Format 0, read with bounds.
//!
//! The reader never goes deeper than [`MAX_DEPTH`], never makes more than [`MAX_VALUES`] values of one input,
//! and allocates for what is there, not for what a count or length claims.

use bytes::{BufMut, Bytes, BytesMut};

/// Deepest nesting of objects and arrays. Real messages have two or three levels.
pub const MAX_DEPTH: usize = 16;
/// Most values in one input: a message of null markers would otherwise grow forty-fold in memory.
pub const MAX_VALUES: usize = 65_536;

/// Named values in the order they came.
pub type Properties = Vec<(String, Value)>;

/// One AMF0 value (AMF0 §2). Strings that are not UTF-8 come with replacement characters.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Marker 0x00.
    Number(f64),
    /// Marker 0x01.
    Boolean(bool),
    /// Marker 0x02, or 0x0C above 65 535 bytes.
    String(String),
    /// Marker 0x03.
    Object(Properties),
    /// Marker 0x05.
    Null,
    /// Marker 0x06.
    Undefined,
    /// Marker 0x07: the n-th complex value before this one.
    Reference(u16),
    /// Marker 0x08.
    EcmaArray(Properties),
    /// Marker 0x0A.
    StrictArray(Vec<Value>),
    /// Marker 0x0B.
    Date {
        /// Since 1970-01-01 UTC.
        millis: f64,
        /// Minutes; reserved, normally 0.
        zone: i16,
    },
    /// Marker 0x0D.
    Unsupported,
    /// Marker 0x0F.
    Xml(String),
    /// Marker 0x10.
    TypedObject {
        /// Class name.
        class: String,
        /// Its members.
        properties: Properties,
    },
    /// Marker 0x11, outside of objects and arrays: everything from here to the end of the input is AMF3, and is
    /// kept unread.
    Amf3(Bytes),
}

/// Why an input is not AMF0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AmfError {
    /// The input ends inside a value.
    #[error("AMF0 value at byte {at} needs {needed} bytes, {left} are left")]
    Short {
        /// Offset in the input.
        at: usize,
        /// Bytes that are missing for the next step.
        needed: usize,
        /// Bytes that are there.
        left: usize,
    },
    /// A marker that AMF0 §2.1 does not define, or reserves.
    #[error("unknown AMF0 marker {marker:#04x} at byte {at} (AMF0 §2.1)")]
    Marker {
        /// Offset in the input.
        at: usize,
        /// The byte found.
        marker: u8,
    },
    /// AMF3 where AMF0 is needed.
    #[error("AMF3 at byte {at}, which is not read")]
    Amf3 {
        /// Offset in the input.
        at: usize,
    },
    /// More nesting than [`MAX_DEPTH`].
    #[error("AMF0 nested deeper than {MAX_DEPTH} levels at byte {at}")]
    Depth {
        /// Offset in the input.
        at: usize,
    },
    /// More values than [`MAX_VALUES`].
    #[error("more than {MAX_VALUES} AMF0 values at byte {at}")]
    Values {
        /// Offset in the input.
        at: usize,
    },
}

impl Value {
    /// The text of a string of either length.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The number.
    pub const fn as_number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The members of an object, typed object or ECMA array.
    pub fn properties(&self) -> Option<&[(String, Value)]> {
        match self {
            Self::Object(properties) | Self::EcmaArray(properties) | Self::TypedObject { properties, .. } => {
                Some(properties)
            }
            _ => None,
        }
    }

    /// The last member of that name, as ActionScript would see it.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.properties()?.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

/// An object from borrowed names.
pub fn object<const N: usize>(properties: [(&str, Value); N]) -> Value {
    Value::Object(properties.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Reads values one after the other.
#[derive(Debug)]
pub struct Reader<'a> {
    input: &'a [u8],
    at: usize,
    values: usize,
}

impl<'a> Reader<'a> {
    /// From the first byte of `input`.
    pub const fn new(input: &'a [u8]) -> Self {
        Self { input, at: 0, values: 0 }
    }

    /// Offset of the next value.
    pub const fn position(&self) -> usize {
        self.at
    }

    /// The next value, or `None` at the end of the input.
    pub fn value(&mut self) -> Result<Option<Value>, AmfError> {
        if self.left() == 0 { Ok(None) } else { self.nested(0).map(Some) }
    }

    fn left(&self) -> usize {
        self.input.len().saturating_sub(self.at)
    }

    fn take(&mut self, needed: usize) -> Result<&'a [u8], AmfError> {
        let rest = self.input.get(self.at..).unwrap_or_default();
        let taken = rest.get(..needed).ok_or(AmfError::Short { at: self.at, needed, left: rest.len() })?;
        self.at += needed;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], AmfError> {
        let short = AmfError::Short { at: self.at, needed: N, left: self.left() };
        self.take(N)?.try_into().map_err(|_| short)
    }

    fn u16(&mut self) -> Result<u16, AmfError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, AmfError> {
        self.array().map(u32::from_be_bytes)
    }

    fn f64(&mut self) -> Result<f64, AmfError> {
        self.array().map(f64::from_be_bytes)
    }

    fn short_string(&mut self) -> Result<String, AmfError> {
        let len = self.u16()?;
        Ok(String::from_utf8_lossy(self.take(usize::from(len))?).into_owned())
    }

    fn long_string(&mut self) -> Result<String, AmfError> {
        let len = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        Ok(String::from_utf8_lossy(self.take(len)?).into_owned())
    }

    fn nested(&mut self, depth: usize) -> Result<Value, AmfError> {
        let at = self.at;
        if depth > MAX_DEPTH {
            return Err(AmfError::Depth { at });
        }
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(AmfError::Values { at });
        }
        let [marker] = self.array()?;
        Ok(match marker {
            0x00 => Value::Number(self.f64()?),
            0x01 => Value::Boolean(self.array::<1>()? != [0]),
            0x02 => Value::String(self.short_string()?),
            0x03 => Value::Object(self.members(depth, None)?),
            0x05 => Value::Null,
            0x06 => Value::Undefined,
            0x07 => Value::Reference(self.u16()?),
            0x08 => {
                let count = self.u32()?;
                Value::EcmaArray(self.members(depth, Some(count))?)
            }
            0x0A => {
                let count = self.u32()?;
                let mut values = Vec::new();
                for _ in 0..count {
                    values.push(self.nested(depth + 1)?);
                }
                Value::StrictArray(values)
            }
            0x0B => Value::Date { millis: self.f64()?, zone: self.array().map(i16::from_be_bytes)? },
            0x0C => Value::String(self.long_string()?),
            0x0D => Value::Unsupported,
            0x0F => Value::Xml(self.long_string()?),
            0x10 => {
                Value::TypedObject { class: self.short_string()?, properties: self.members(depth, None)? }
            }
            // Inside an object nothing could be read behind it.
            0x11 if depth == 0 => Value::Amf3(Bytes::copy_from_slice(self.take(self.left())?)),
            marker => return Err(AmfError::Marker { at, marker }),
        })
    }

    /// Members up to the end marker. An ECMA array's count is only a hint, but some encoders leave the end
    /// marker out after the last of `count` members at the end of a message: that is let pass.
    fn members(&mut self, depth: usize, count: Option<u32>) -> Result<Properties, AmfError> {
        let mut members = Properties::new();
        loop {
            if self.left() == 0 && count.is_some_and(|count| usize::try_from(count) == Ok(members.len())) {
                return Ok(members);
            }
            let name = self.short_string()?;
            if name.is_empty() && self.input.get(self.at) == Some(&0x09) {
                self.at += 1;
                return Ok(members);
            }
            members.push((name, self.nested(depth + 1)?));
        }
    }
}

/// All values of an input.
pub fn decode(input: &[u8]) -> Result<Vec<Value>, AmfError> {
    let mut reader = Reader::new(input);
    let mut values = Vec::new();
    while let Some(value) = reader.value()? {
        values.push(value);
    }
    Ok(values)
}

/// Appends one value. Names above 65 535 bytes are cut, which no message of ours comes near.
pub fn encode(out: &mut BytesMut, value: &Value) {
    match value {
        Value::Number(number) => {
            out.put_u8(0x00);
            out.put_f64(*number);
        }
        Value::Boolean(yes) => out.put_slice(&[0x01, u8::from(*yes)]),
        Value::String(text) if text.len() <= usize::from(u16::MAX) => {
            out.put_u8(0x02);
            put_short(out, text);
        }
        Value::String(text) => put_long(out, 0x0C, text),
        Value::Object(members) => {
            out.put_u8(0x03);
            put_members(out, members);
        }
        Value::Null => out.put_u8(0x05),
        Value::Undefined => out.put_u8(0x06),
        Value::Reference(index) => {
            out.put_u8(0x07);
            out.put_u16(*index);
        }
        Value::EcmaArray(members) => {
            out.put_u8(0x08);
            out.put_u32(u32::try_from(members.len()).unwrap_or(u32::MAX));
            put_members(out, members);
        }
        Value::StrictArray(values) => {
            out.put_u8(0x0A);
            out.put_u32(u32::try_from(values.len()).unwrap_or(u32::MAX));
            values.iter().for_each(|value| encode(out, value));
        }
        Value::Date { millis, zone } => {
            out.put_u8(0x0B);
            out.put_f64(*millis);
            out.put_i16(*zone);
        }
        Value::Unsupported => out.put_u8(0x0D),
        Value::Xml(text) => put_long(out, 0x0F, text),
        Value::TypedObject { class, properties } => {
            out.put_u8(0x10);
            put_short(out, class);
            put_members(out, properties);
        }
        Value::Amf3(rest) => {
            out.put_u8(0x11);
            out.put_slice(rest);
        }
    }
}

/// Several values as one message payload.
pub fn encode_all<'a>(values: impl IntoIterator<Item = &'a Value>) -> Bytes {
    let mut out = BytesMut::new();
    values.into_iter().for_each(|value| encode(&mut out, value));
    out.freeze()
}

fn put_members(out: &mut BytesMut, members: &[(String, Value)]) {
    for (name, value) in members {
        put_short(out, name);
        encode(out, value);
    }
    out.put_slice(&[0, 0, 0x09]);
}

fn put_short(out: &mut BytesMut, text: &str) {
    let end = text.floor_char_boundary(usize::from(u16::MAX));
    let text = text.get(..end).unwrap_or_default();
    out.put_u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
    out.put_slice(text.as_bytes());
}

fn put_long(out: &mut BytesMut, marker: u8, text: &str) {
    out.put_u8(marker);
    out.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
    out.put_slice(text.as_bytes());
}

#[cfg(test)]
mod tests;
