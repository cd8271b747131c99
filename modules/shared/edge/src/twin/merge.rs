//! Merge patches as twins use them: objects merge, `null` deletes, everything else, arrays too, replaces
//! whole (RFC 7396; edgeHub's `JsonEx`).

use serde_json::{Map, Value};

/// Applies `patch` to `target`. What `target` holds afterwards has no nulls that the patch brought.
pub(crate) fn merge(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.shift_remove(key);
            }
            Value::Object(inner) => {
                let slot = target.entry(key.clone()).or_insert_with(|| Value::Object(Map::new()));
                if !slot.is_object() {
                    *slot = Value::Object(Map::new());
                }
                if let Value::Object(object) = slot {
                    merge(object, inner);
                }
            }
            other => {
                target.insert(key.clone(), other.clone());
            }
        }
    }
}

/// The smallest patch that turns `from` into `to`; empty when they are equal.
///
/// A null in `from` stands for *anything, or nothing*: such a place is always written or deleted.
pub(crate) fn difference(from: &Map<String, Value>, to: &Map<String, Value>) -> Map<String, Value> {
    let mut patch = Map::new();
    for key in from.keys().filter(|key| !to.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, wanted) in to {
        match (from.get(key), wanted) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                let inner = difference(old, new);
                if !inner.is_empty() {
                    patch.insert(key.clone(), Value::Object(inner));
                }
            }
            (Some(old), new) if old == new => {}
            (_, new) => {
                patch.insert(key.clone(), new.clone());
            }
        }
    }
    patch
}

/// What is known when the truth is either `one` or `other`: null wherever they differ, with the structure of
/// both, so that [`difference`] settles every place that either may hold.
pub(crate) fn either(one: &Map<String, Value>, other: &Map<String, Value>) -> Map<String, Value> {
    let mut known = Map::new();
    let keys = one.keys().chain(other.keys().filter(|key| !one.contains_key(*key)));
    for key in keys {
        let value = match (one.get(key), other.get(key)) {
            (Some(Value::Object(one)), Some(Value::Object(other))) => Value::Object(either(one, other)),
            (Some(one), Some(other)) if one == other => one.clone(),
            (one, other) => unknown(one, other),
        };
        known.insert(key.clone(), value);
    }
    known
}

/// A place where the truth is one of two that differ, one of them absent or no object.
fn unknown(one: Option<&Value>, other: Option<&Value>) -> Value {
    let mut structure = Map::new();
    for value in [one, other].into_iter().flatten() {
        if let Value::Object(object) = value {
            for (key, inner) in object {
                structure.insert(key.clone(), unknown(Some(inner), None));
            }
        }
    }
    if structure.is_empty() { Value::Null } else { Value::Object(structure) }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    pub(crate) fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(object) => object,
            _ => panic!("not an object"),
        }
    }

    /// Objects with few keys, so that two of them meet often; no nulls, as in a real document.
    pub(crate) fn any_object() -> impl Strategy<Value = Map<String, Value>> {
        let leaf = prop_oneof![
            (0..3_i64).prop_map(Value::from),
            "[xy]".prop_map(Value::from),
            Just(json!([1, 2])),
            Just(json!({})),
        ];
        let value = leaf.prop_recursive(3, 16, 3, |inner| {
            prop::collection::btree_map("[abc]", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect()))
        });
        prop::collection::btree_map("[abc]", value, 0..4).prop_map(|map| map.into_iter().collect())
    }

    #[test]
    fn arrays_are_replaced_whole_and_nulls_delete() {
        let mut target = object(json!({"a": [1, 2, 3], "b": {"c": 1, "d": 2}, "e": 1}));
        merge(&mut target, &object(json!({"a": [4], "b": {"c": null}, "e": {"f": null, "g": 1}})));
        assert_eq!(Value::Object(target), json!({"a": [4], "b": {"d": 2}, "e": {"g": 1}}));
    }

    proptest! {
        #[test]
        fn a_difference_applied_gives_the_document(from in any_object(), to in any_object()) {
            let patch = difference(&from, &to);
            let mut result = from.clone();
            merge(&mut result, &patch);
            prop_assert_eq!(&result, &to);
            prop_assert_eq!(patch.is_empty(), from == to);
        }

        #[test]
        fn a_difference_from_an_uncertain_state_is_right_for_both(
            one in any_object(), other in any_object(), to in any_object(),
        ) {
            let patch = difference(&either(&one, &other), &to);
            for mut start in [one, other] {
                merge(&mut start, &patch);
                prop_assert_eq!(&start, &to);
            }
        }

        #[test]
        fn doubt_upon_doubt_is_right_for_all(
            a in any_object(), b in any_object(), c in any_object(), to in any_object(),
        ) {
            let patch = difference(&either(&either(&a, &b), &c), &to);
            for mut start in [a, b, c] {
                merge(&mut start, &patch);
                prop_assert_eq!(&start, &to);
            }
        }
    }
}
