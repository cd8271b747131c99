//! Commands: a name, a transaction, arguments (RTMP 1.0 §7.2).

use crate::RtmpError;
use crate::amf0::{self, Value};
use crate::chunk::RawMessage;
use crate::message::Message;

/// A command as it came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Command {
    pub(crate) name: String,
    /// 0 where the sender wants no answer or gave none.
    pub(crate) transaction: f64,
    /// What follows: by convention a command object (or null) and then the arguments.
    pub(crate) values: Vec<Value>,
}

impl Command {
    /// `None` for messages that are no commands.
    pub(crate) fn parse(raw: &RawMessage) -> Result<Option<Self>, RtmpError> {
        let Message::Command(payload) = Message::parse(raw)? else { return Ok(None) };
        let values =
            amf0::decode(&payload).map_err(|source| RtmpError::Amf { type_id: raw.type_id, source })?;
        let mut values = values.into_iter();
        let Some(Value::String(name)) = values.next() else {
            return Err(RtmpError::Argument { command: "", argument: "a name" });
        };
        let transaction = values.next().and_then(|value| value.as_number()).unwrap_or_default();
        Ok(Some(Self { name, transaction, values: values.collect() }))
    }

    /// The command object.
    pub(crate) fn object(&self) -> Option<&Value> {
        self.values.first()
    }

    /// The n-th argument after the command object.
    pub(crate) fn argument(&self, n: usize) -> Option<&Value> {
        self.values.get(n + 1)
    }
}

/// Splits `name?query` at the first question mark. An empty query is none.
pub(crate) fn split_query(text: &str) -> (&str, Option<&str>) {
    match text.split_once('?') {
        Some((name, query)) => (name, Some(query).filter(|query| !query.is_empty())),
        None => (text, None),
    }
}
