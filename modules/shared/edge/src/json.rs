//! JSON that people write: files, payloads of methods, messages.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Parses a document that a person wrote.
///
/// A byte order mark is skipped: editors of Windows put one in front of UTF-8. A name that occurs twice in one object
/// is an error, since the parser would otherwise keep the last of two flows and drop the other without a word.
///
/// # Errors
///
/// With line and column: what is not JSON (RFC 8259), is nested more than 127 levels deep, or has a name twice.
pub fn from_slice(content: &[u8]) -> serde_json::Result<Value> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    serde_json::from_slice(content).map(|Unique(value)| value)
}

/// A value whose objects have each name once.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor).map(Self)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Unique(item)) = items.next_element()? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(A::Error::custom(format_args!("{name:?} occurs twice in one object")));
            }
            let Unique(value) = members.next_value()?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_that_occurs_twice_is_refused_with_its_place() {
        let error = from_slice(b"{\"flows\": {\n  \"a\": 1,\n  \"b\": 2,\n  \"a\": 3\n}}").unwrap_err();
        assert_eq!(error.to_string(), "\"a\" occurs twice in one object at line 4 column 5");
        // In two objects it is two names.
        assert!(from_slice(br#"[{"a": {"a": 1}}, {"a": 2}]"#).is_ok());
        // However it is written.
        assert!(from_slice(br#"{"a": 1, "\u0061": 2}"#).is_err());
    }

    #[test]
    fn a_byte_order_mark_is_skipped_once() {
        assert_eq!(from_slice("\u{feff}{}".as_bytes()).unwrap(), json!({}));
        assert!(from_slice("\u{feff}\u{feff}{}".as_bytes()).is_err());
    }

    #[test]
    fn what_is_nested_too_deep_is_refused() {
        let deep = "[".repeat(100_000);
        assert!(from_slice(deep.as_bytes()).unwrap_err().to_string().contains("recursion limit"));
    }

    proptest! {
        #[test]
        fn what_has_each_name_once_is_read_as_serde_json_reads_it(text in any_json()) {
            let plain: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(from_slice(text.as_bytes()).unwrap(), plain);
        }
    }

    fn any_json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        let nested = leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(".{0,4}", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        });
        nested.prop_map(|value| value.to_string())
    }
}
