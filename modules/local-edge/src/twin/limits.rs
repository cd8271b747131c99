//! What edgeHub and IoT Hub refuse in twin properties.

use serde_json::Value;

use super::Object;

/// The most that a report may be, as compact JSON, and that desired or reported properties may be as a
/// whole, as [`document_size`] counts.
pub const MAX_BYTES: usize = 32 * 1024;
const MAX_NAME_BYTES: usize = 1024;
const MAX_STRING_BYTES: usize = 4096;
const MAX_DEPTH: usize = 10;
const INTEGERS: std::ops::RangeInclusive<i64> = -(1 << 52)..=(1 << 52) - 1;

/// Why edgeHub answers 400 to a report (`ReportedPropertiesValidator` in its source), and IoT Hub refuses desired
/// properties.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// A patch as compact JSON, or a document as IoT Hub counts.
    #[error("{0} bytes are too many, at most {MAX_BYTES} are allowed")]
    TooLarge(usize),
    /// A key.
    #[error("{path}: the name is {bytes} bytes long, at most {MAX_NAME_BYTES} are allowed")]
    NameLength {
        /// Where it is, shortened.
        path: String,
        /// Its length.
        bytes: usize,
    },
    /// A key with a character that IoT Hub keeps for itself.
    #[error("{path}: {character:?} is not allowed in a name")]
    NameCharacter {
        /// Where it is.
        path: String,
        /// The first such character.
        character: char,
    },
    /// A text value.
    #[error("{path}: the text is {bytes} bytes long, at most {MAX_STRING_BYTES} are allowed")]
    StringLength {
        /// Where it is.
        path: String,
        /// Its length.
        bytes: usize,
    },
    /// A whole number outside -2^52 ... 2^52 - 1.
    #[error("{path}: {number} is outside -2^52 ... 2^52-1")]
    Integer {
        /// Where it is.
        path: String,
        /// As it was sent.
        number: String,
    },
    /// Objects within objects.
    #[error("{path}: more than {MAX_DEPTH} objects within one another")]
    Depth {
        /// The object that is too deep.
        path: String,
    },
    /// Null deletes a key; within an array it means nothing.
    #[error("{path}: null in an array")]
    NullInArray {
        /// The array.
        path: String,
    },
}

/// Checks a report as edgeHub does before it stores it.
pub fn check_report(patch: &Object) -> Result<(), LimitError> {
    check_object(patch, "", 1, false)?;
    let bytes = serde_json::to_string(patch).map_or(usize::MAX, |text| text.len());
    if bytes > MAX_BYTES { Err(LimitError::TooLarge(bytes)) } else { Ok(()) }
}

/// Checks desired properties as a whole, as IoT Hub does before it stores them.
pub fn check_desired(document: &Object) -> Result<(), LimitError> {
    check_object(document, "", 1, false)?;
    let bytes = document_size(document);
    if bytes > MAX_BYTES { Err(LimitError::TooLarge(bytes)) } else { Ok(()) }
}

fn check_object(object: &Object, path: &str, depth: usize, in_array: bool) -> Result<(), LimitError> {
    for (name, value) in object {
        let shown: String = name.chars().take(64).collect();
        let path = if path.is_empty() { shown } else { format!("{path}.{shown}") };
        if name.len() > MAX_NAME_BYTES {
            return Err(LimitError::NameLength { path, bytes: name.len() });
        }
        let reserved = |c: &char| c.is_control() || c.is_whitespace() || matches!(c, '.' | '$' | '#');
        if let Some(character) = name.chars().find(reserved) {
            return Err(LimitError::NameCharacter { path, character });
        }
        check_value(value, &path, depth, in_array)?;
    }
    Ok(())
}

fn check_value(value: &Value, path: &str, depth: usize, in_array: bool) -> Result<(), LimitError> {
    let path_text = || path.to_owned();
    match value {
        Value::Null if in_array => Err(LimitError::NullInArray { path: path_text() }),
        Value::Null | Value::Bool(_) => Ok(()),
        Value::Number(number) => match (number.is_f64(), number.as_i64()) {
            (true, _) => Ok(()),
            (false, Some(whole)) if INTEGERS.contains(&whole) => Ok(()),
            _ => Err(LimitError::Integer { path: path_text(), number: number.to_string() }),
        },
        Value::String(text) if text.len() > MAX_STRING_BYTES => {
            Err(LimitError::StringLength { path: path_text(), bytes: text.len() })
        }
        Value::String(_) => Ok(()),
        Value::Array(items) => items.iter().try_for_each(|item| check_value(item, path, depth, true)),
        Value::Object(_) if depth > MAX_DEPTH => Err(LimitError::Depth { path: path_text() }),
        Value::Object(inner) => check_object(inner, path, depth.saturating_add(1), in_array),
    }
}

/// The size of properties as IoT Hub counts it: UTF-8 bytes of keys and texts, 8 a number, 4 a boolean.
pub fn document_size(document: &Object) -> usize {
    document.iter().map(|(key, value)| key.len() + value_size(value)).sum()
}

fn value_size(value: &Value) -> usize {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 4,
        Value::Number(_) => 8,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(value_size).sum(),
        Value::Object(object) => document_size(object),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(value: Value) -> Result<(), LimitError> {
        check_report(value.as_object().unwrap())
    }

    fn nested(levels: usize) -> Value {
        (0..levels).fold(json!(1), |inner, _| json!({ "a": inner }))
    }

    #[test]
    fn an_ordinary_report_passes() {
        let report =
            json!({"a": {"b": null, "c": 1.5, "d": true, "é-_/": "x"}, "list": [1, "two", {"three": 3}]});
        assert_eq!(check(report), Ok(()));
        assert_eq!(check(json!({})), Ok(()));
    }

    #[test]
    fn names_with_reserved_characters_are_refused_at_any_depth() {
        for name in ["a.b", "$version", "a#b", "a b", "a\tb", "a\u{7}b"] {
            let refused = check(json!({"x": {"y": {(name): 1}}}));
            assert!(matches!(refused, Err(LimitError::NameCharacter { .. })), "{name:?}: {refused:?}");
        }
        let refused = check(json!({"a": {"b.c": 1}})).unwrap_err();
        assert_eq!(refused.to_string(), "a.b.c: '.' is not allowed in a name");
    }

    #[test]
    fn each_limit_holds_to_the_byte() {
        assert_eq!(check(json!({ ("n".repeat(1024)): 1 })), Ok(()));
        assert!(matches!(
            check(json!({ ("n".repeat(1025)): 1 })),
            Err(LimitError::NameLength { bytes: 1025, .. })
        ));
        assert_eq!(check(json!({"s": "x".repeat(4096)})), Ok(()));
        assert!(matches!(check(json!({"s": "x".repeat(4097)})), Err(LimitError::StringLength { .. })));
        assert_eq!(check(json!({"n": (1_i64 << 52) - 1, "m": -(1_i64 << 52)})), Ok(()));
        assert!(matches!(check(json!({"n": 1_i64 << 52})), Err(LimitError::Integer { .. })));
        assert!(matches!(check(json!({"n": -(1_i64 << 52) - 1})), Err(LimitError::Integer { .. })));
        assert!(matches!(check(json!({"n": u64::MAX})), Err(LimitError::Integer { .. })));
    }

    #[test]
    fn eleven_levels_pass_and_twelve_do_not() {
        assert_eq!(check(nested(11)), Ok(()));
        assert!(matches!(check(nested(12)), Err(LimitError::Depth { .. })));
    }

    #[test]
    fn a_null_within_an_array_is_refused() {
        assert!(matches!(check(json!({"a": [1, null]})), Err(LimitError::NullInArray { .. })));
        assert!(matches!(check(json!({"a": [{"b": null}]})), Err(LimitError::NullInArray { .. })));
    }

    #[test]
    fn a_patch_of_32_kib_passes_and_one_byte_more_does_not() {
        let fill = |last: usize| {
            let mut report = Object::new();
            for index in 0..7 {
                report.insert(format!("k{index}"), "x".repeat(4096).into());
            }
            report.insert("last".into(), "x".repeat(last).into());
            report
        };
        let empty = serde_json::to_string(&fill(0)).unwrap().len();
        assert_eq!(check_report(&fill(MAX_BYTES - empty)), Ok(()));
        assert_eq!(check_report(&fill(MAX_BYTES - empty + 1)), Err(LimitError::TooLarge(MAX_BYTES + 1)));
    }

    #[test]
    fn desired_properties_are_checked_as_a_whole() {
        let desired =
            |value: Value| check_desired(value.as_object().unwrap()).map_err(|error| error.to_string());
        assert_eq!(desired(json!({"a": {"b": [1, 2.5, true]}})), Ok(()));
        assert_eq!(desired(json!({"a": {"b.c": 1}})).unwrap_err(), "a.b.c: '.' is not allowed in a name");
        let flows: Object = (0..10).map(|index| (index.to_string(), "x".repeat(4000).into())).collect();
        assert_eq!(check_desired(&flows), Err(LimitError::TooLarge(40_010)));
    }

    #[test]
    fn iot_hub_counts_keys_texts_numbers_and_booleans() {
        let document = json!({"ab": "cde", "n": 1, "t": true, "l": [1, "x"], "o": {"k": 2}});
        assert_eq!(document_size(document.as_object().unwrap()), 5 + 9 + 5 + 1 + 9 + 1 + 9);
    }
}
