//! Walking a manifest's JSON with the path at hand.

use serde_json::Value;

use super::ManifestError;
use crate::twin::{Object, merge};
use crate::variables::Variables;

/// A value and where it is.
#[derive(Clone, Debug)]
pub(super) struct At<'a> {
    pub value: &'a Value,
    pub path: String,
}

impl<'a> At<'a> {
    pub fn new(value: &'a Value) -> Self {
        Self { value, path: String::new() }
    }

    pub fn named(value: &'a Value, path: impl Into<String>) -> Self {
        Self { value, path: path.into() }
    }

    fn join(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// A member that may be absent (or null, which is the same).
    pub fn optional(&self, key: &str) -> Result<Option<At<'a>>, ManifestError> {
        let member = self.object()?.get(key).filter(|value| !value.is_null());
        Ok(member.map(|value| At { value, path: self.join(key) }))
    }

    /// A member that must be there.
    pub fn field(&self, key: &str) -> Result<At<'a>, ManifestError> {
        self.optional(key)?.ok_or_else(|| ManifestError::Shape {
            path: self.join(key),
            expected: "a value",
            found: "nothing".into(),
        })
    }

    pub fn object(&self) -> Result<&'a Object, ManifestError> {
        self.value.as_object().ok_or_else(|| self.wrong("an object"))
    }

    pub fn array(&self) -> Result<&'a Vec<Value>, ManifestError> {
        self.value.as_array().ok_or_else(|| self.wrong("a list"))
    }

    pub fn text(&self) -> Result<&'a str, ManifestError> {
        self.value.as_str().ok_or_else(|| self.wrong("a text"))
    }

    /// The error for a value of another kind.
    pub fn wrong(&self, expected: &'static str) -> ManifestError {
        let mut found: String = self.value.to_string().chars().take(61).collect();
        if found.chars().count() > 60 {
            found.push('…');
        }
        let path = if self.path.is_empty() { "the whole document" } else { &self.path };
        ManifestError::Shape { path: path.to_owned(), expected, found }
    }
}

/// Replaces `${NAME}` in every text and key below `value`.
pub(super) fn expand(value: &Value, variables: &Variables, path: &str) -> Result<Value, ManifestError> {
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    let text = |text: &str, path: &str| {
        variables.expand(text).map_err(|source| ManifestError::Variable { path: path.to_owned(), source })
    };
    Ok(match value {
        Value::String(content) => Value::String(text(content, path)?),
        Value::Array(items) => {
            let items = items.iter().enumerate();
            Value::Array(
                items.map(|(i, v)| expand(v, variables, &join(&i.to_string()))).collect::<Result<_, _>>()?,
            )
        }
        Value::Object(object) => {
            let mut out = Object::new();
            for (key, value) in object {
                out.insert(text(key, path)?, expand(value, variables, &join(key))?);
            }
            Value::Object(out)
        }
        other => other.clone(),
    })
}

/// The desired properties of one entry of `modulesContent`: `properties.desired`, and what dotted keys
/// (`properties.desired.modules.extra`, of layered deployments) set within it. Empty where there is none.
pub(super) fn section(content: &At<'_>, name: &str) -> Result<Object, ManifestError> {
    let Some(entry) = content.optional(name)? else { return Ok(Object::new()) };
    let mut desired = Object::new();
    for (key, value) in entry.object()? {
        let below = if key == "properties.desired" {
            Some("")
        } else {
            key.strip_prefix("properties.desired.").filter(|rest| !rest.is_empty())
        };
        let at = At { value, path: format!("{}.{key}", entry.path) };
        match below {
            Some("") => merge(&mut desired, at.object()?),
            Some(path) => {
                let patch = path.rsplit('.').fold(value.clone(), |inner, key| {
                    let mut outer = Object::new();
                    outer.insert(key.to_owned(), inner);
                    Value::Object(outer)
                });
                if let Value::Object(patch) = patch {
                    merge(&mut desired, &patch);
                }
            }
            None => {
                return Err(ManifestError::Shape {
                    path: at.path,
                    expected: "the key \"properties.desired\" or one that begins with \"properties.desired.\"",
                    found: key.clone(),
                });
            }
        }
    }
    Ok(desired)
}
