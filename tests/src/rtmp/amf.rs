//! AMF0 (Adobe AMF 0 specification), as far as commands need it.

/// One AMF0 value.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // each is its own name
pub enum Value {
    Number(f64),
    Bool(bool),
    Text(String),
    Object(Vec<(String, Value)>),
    List(Vec<Value>),
    Null,
}

impl Value {
    /// A string.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// The string, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if it is one.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// A member of an object.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }
}

/// One value after the other.
pub fn encode(values: &[Value]) -> Vec<u8> {
    let mut out = Vec::new();
    values.iter().for_each(|value| put(&mut out, value));
    out
}

fn put(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Number(number) => {
            out.push(0);
            out.extend(number.to_be_bytes());
        }
        Value::Bool(yes) => out.extend([1, u8::from(*yes)]),
        Value::Text(text) => {
            out.push(2);
            put_key(out, text);
        }
        Value::Object(members) => {
            out.push(3);
            for (key, value) in members {
                put_key(out, key);
                put(out, value);
            }
            out.extend([0, 0, 9]);
        }
        Value::List(values) => {
            out.push(10);
            out.extend(u32::try_from(values.len()).unwrap().to_be_bytes());
            values.iter().for_each(|value| put(out, value));
        }
        Value::Null => out.push(5),
    }
}

fn put_key(out: &mut Vec<u8>, text: &str) {
    out.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    out.extend(text.as_bytes());
}

/// All values; panics at a byte that is none, for a module must not send such.
pub fn decode(mut bytes: &[u8]) -> Vec<Value> {
    let mut values = Vec::new();
    while !bytes.is_empty() {
        values.push(take(&mut bytes));
    }
    values
}

fn take(bytes: &mut &[u8]) -> Value {
    match split(bytes, 1)[0] {
        0 => Value::Number(f64::from_be_bytes(split(bytes, 8).try_into().unwrap())),
        1 => Value::Bool(split(bytes, 1)[0] != 0),
        2 => Value::Text(take_key(bytes)),
        3 => Value::Object(take_members(bytes)),
        5 | 6 => Value::Null,
        8 => {
            split(bytes, 4);
            Value::Object(take_members(bytes))
        }
        10 => {
            let count = u32::from_be_bytes(split(bytes, 4).try_into().unwrap());
            Value::List((0..count).map(|_| take(bytes)).collect())
        }
        other => panic!("AMF0 type {other} in a message of the module"),
    }
}

fn take_members(bytes: &mut &[u8]) -> Vec<(String, Value)> {
    let mut members = Vec::new();
    loop {
        let key = take_key(bytes);
        if key.is_empty() && bytes.first() == Some(&9) {
            split(bytes, 1);
            return members;
        }
        members.push((key, take(bytes)));
    }
}

fn take_key(bytes: &mut &[u8]) -> String {
    let length = u16::from_be_bytes(split(bytes, 2).try_into().unwrap());
    String::from_utf8(split(bytes, length.into()).to_vec()).unwrap()
}

fn split<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (head, tail) = bytes.split_at_checked(count).expect("AMF0 value is cut off");
    *bytes = tail;
    head
}
