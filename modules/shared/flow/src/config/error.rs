//! What is wrong in a document, and where.

use serde_json::Value;

use super::role::Role;
use super::scheme::Scheme;
use super::secret::SecretFault;
use super::supports::Supports;
use super::url::UrlError;
use crate::catalogue;

/// The most bytes that one error takes in the reported properties.
pub const MAX_ERROR_BYTES: usize = 512;

/// A fault and the full path of the property it is in, such as `flows.cam2.input.listen`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {fault}")]
pub struct ConfigError {
    /// From the top of the document.
    pub path: String,
    /// What is wrong there.
    pub fault: Fault,
}

/// What can be wrong with a property. Never repeats a value that may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// Wrong type or impossible value.
    #[error("expected {expected}, got {got}")]
    Expected {
        /// What the property takes.
        expected: String,
        /// What is there.
        got: String,
    },
    /// A key that no table knows.
    #[error("unknown property{}", closest.map(|name| format!("; is `{name}` meant?")).unwrap_or_default())]
    Unknown {
        /// The known key that looks most like it.
        closest: Option<&'static str>,
    },
    /// A known option where it has no meaning.
    #[error("`{option}` belongs to {belongs}")]
    Misplaced {
        /// The option.
        option: &'static str,
        /// The endpoints that have it.
        belongs: &'static str,
    },
    /// None or several of the properties that say what an endpoint is.
    #[error("expected exactly one of {expected}, got {got}")]
    Endpoint {
        /// The choice.
        expected: &'static str,
        /// What is there.
        got: String,
    },
    /// An endpoint that this module lacks.
    #[error("{module} has no `{}` with {scheme}{}{}", role.key(), also(.schemes), elsewhere(.other))]
    Unsupported {
        /// This module.
        module: &'static str,
        /// The kind of endpoint.
        role: Role,
        /// The scheme asked for.
        scheme: Scheme,
        /// The schemes that this module has there.
        schemes: Vec<Scheme>,
        /// A module that has it.
        other: Option<&'static str>,
    },
    /// A name that can't be a key of the reported properties either.
    #[error("a name is 1 to 64 of A-Z a-z 0-9 - _ and does not start with _")]
    Name,
    /// More than is looked at.
    #[error("{count} {what}; at most {most} are allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// A URL.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// A secret.
    #[error(transparent)]
    Secret(#[from] SecretFault),
    /// Login data twice.
    #[error("user info in the URL and `credentials` mean the same; only one of them can be there")]
    CredentialsTwice,
    /// One of two properties that need each other.
    #[error("`{present}` needs `{missing}` beside it")]
    Half {
        /// What is there.
        present: &'static str,
        /// What is not.
        missing: &'static str,
    },
    /// Retrying that starts slower than it ends.
    #[error("initialMilliseconds {initial} is more than maxSeconds {max}")]
    RetryOrder {
        /// In milliseconds.
        initial: u64,
        /// In seconds.
        max: u64,
    },
    /// Filters that leave nothing.
    #[error("`{output}` of an input that is `{input}` leaves nothing")]
    ContentContradiction {
        /// The output's filter.
        output: &'static str,
        /// The input's.
        input: &'static str,
    },
    /// What a service has to say against a flow, or against values that don't go together.
    #[error("{0}")]
    Rule(String),
}

fn also(schemes: &[Scheme]) -> String {
    if schemes.is_empty() {
        return String::new();
    }
    let names = schemes.iter().map(|scheme| scheme.name).collect::<Vec<_>>();
    format!(", only with {}", names.join(", "))
}

fn elsewhere(other: &Option<&'static str>) -> String {
    other.map_or_else(|| "; no module has that".into(), |module| format!("; {module} has"))
}

impl ConfigError {
    pub(super) fn new(path: impl Into<String>, fault: impl Into<Fault>) -> Self {
        Self { path: path.into(), fault: fault.into() }
    }

    /// A value of the wrong type or out of range; shows it, shortened.
    pub(crate) fn expected(path: &str, expected: impl Into<String>, got: &Value) -> Self {
        Self::new(path, Fault::Expected { expected: expected.into(), got: shown(got) })
    }

    /// As [`expected`](Self::expected), where the value may be a secret or hold one: shows its type alone.
    pub(super) fn expected_hidden(path: &str, expected: impl Into<String>, got: &Value) -> Self {
        Self::new(path, Fault::Expected { expected: expected.into(), got: kind(got).into() })
    }

    /// As [`expected`](Self::expected), where a list has too few or too many entries: says how many, and shows none of
    /// them, as each may be a secret.
    pub(super) fn expected_entries(path: &str, expected: impl Into<String>, got: &Value) -> Self {
        let got = match got.as_array().map(Vec::len) {
            None => shown(got),
            Some(0) => "an empty list".to_owned(),
            Some(entries) => format!("a list of {entries}"),
        };
        Self::new(path, Fault::Expected { expected: expected.into(), got })
    }

    /// A required property that is not there.
    pub(super) fn missing(path: &str, expected: impl Into<String>) -> Self {
        Self::new(path, Fault::Expected { expected: expected.into(), got: "nothing".into() })
    }

    /// An endpoint that `supports` lacks.
    pub(super) fn unsupported(path: &str, supports: &Supports, role: Role, scheme: Scheme) -> Self {
        let other = catalogue::module_with(role, scheme).filter(|module| *module != supports.module);
        let (module, schemes) = (supports.module, supports.schemes(role));
        Self::new(path, Fault::Unsupported { module, role, scheme, schemes, other })
    }

    /// What a service has to say against the property at `path`.
    pub fn rule(path: impl Into<String>, sentence: impl Into<String>) -> Self {
        Self::new(path, Fault::Rule(sentence.into()))
    }

    /// The sentence for people, at most [`MAX_ERROR_BYTES`].
    pub fn sentence(&self) -> String {
        shortened(self.to_string(), MAX_ERROR_BYTES)
    }
}

/// `text` cut at a character, so that it has at most `most` bytes with the three dots at its end.
pub(crate) fn shortened(mut text: String, most: usize) -> String {
    if text.len() > most {
        let mut end = most.saturating_sub(3);
        while !text.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        text.truncate(end);
        text.push_str("...");
    }
    text
}

/// A value in an error: short, without control characters.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) | Value::Object(_) => kind(value).into(),
        // Cut before quoting, which makes a text up to six times longer.
        Value::String(text) if text.len() > 48 => {
            format!("{} (and more)", Value::from(text.chars().take(40).collect::<String>()))
        }
        other => other.to_string(),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A path with one more key, which is quoted and shortened where it is not a plain word.
pub(super) fn join(path: &str, key: &str) -> String {
    let plain = !key.is_empty()
        && key.len() <= 64
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    let key = if plain { key.to_owned() } else { shown(&Value::from(key)) };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// The known name that an unknown one was probably meant to be.
pub(super) fn closest(given: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    if given.len() > 64 {
        return None;
    }
    let given = given.to_lowercase();
    known
        .map(|name| (edits(&given, &name.to_lowercase()), name))
        .filter(|(edits, name)| *edits <= 2 && edits.saturating_mul(2) < name.len())
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b = b.chars().collect::<Vec<_>>();
    let mut row = (0..=b.len()).collect::<Vec<usize>>();
    for (i, ca) in a.chars().enumerate() {
        let mut before = i;
        let mut left = i.saturating_add(1);
        for (cb, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let above = *cell;
            let replaced = before.saturating_add(usize::from(ca != *cb));
            left = replaced.min(above.saturating_add(1)).min(left.saturating_add(1));
            before = above;
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i.saturating_add(1);
        }
    }
    row.last().copied().unwrap_or(0)
}
