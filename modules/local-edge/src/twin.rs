//! A module twin: desired and reported properties with their versions.

mod limits;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use limits::{LimitError, MAX_BYTES, check_desired, check_report, document_size};

/// A JSON object.
pub type Object = Map<String, Value>;

/// What is kept of a module from one run to the next.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Twin {
    /// Without `$version`.
    pub desired: Object,
    /// Counts changes of `desired`, from 1.
    pub desired_version: u64,
    /// Without `$version`.
    pub reported: Object,
    /// Counts changes of `reported`, from 1.
    pub reported_version: u64,
    /// The manifest's section that `desired` was last replaced by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployed: Option<Object>,
}

impl Twin {
    /// Applies the manifest's section at start: as a deployment, it replaces the whole desired document,
    /// but only when it differs from the section that was deployed before. What `twin set` made survives
    /// a restart otherwise. Returns whether anything changed.
    pub fn deploy(&mut self, section: &Object) -> bool {
        if self.deployed.as_ref() == Some(section) {
            return false;
        }
        self.deployed = Some(section.clone());
        self.desired = section.clone();
        strip_nulls(&mut self.desired);
        self.desired_version = self.desired_version.saturating_add(1);
        true
    }

    /// Changes the desired document by a merge patch, or replaces it. Returns the patch for the module,
    /// with its `$version`: for a replacement the difference, with nulls for what went.
    pub fn set_desired(&mut self, change: Object, replace: bool) -> Object {
        let mut patch = if replace { difference(&self.desired, &change) } else { change };
        patch.retain(|key, _| !key.starts_with('$'));
        merge(&mut self.desired, &patch);
        self.desired_version = self.desired_version.saturating_add(1);
        patch.insert("$version".into(), self.desired_version.into());
        patch
    }

    /// Merges a report that [`check_report`] let pass.
    pub fn report(&mut self, patch: &Object) {
        merge(&mut self.reported, patch);
        self.reported_version = self.reported_version.saturating_add(1);
    }

    /// The answer to a twin GET.
    pub fn document(&self) -> Value {
        let versioned = |properties: &Object, version: u64| {
            let mut properties = properties.clone();
            properties.insert("$version".into(), version.into());
            Value::Object(properties)
        };
        serde_json::json!({
            "desired": versioned(&self.desired, self.desired_version),
            "reported": versioned(&self.reported, self.reported_version),
        })
    }
}

/// Merges a patch as edgeHub does: objects recursively, null deletes, everything else (arrays too)
/// replaces.
pub fn merge(document: &mut Object, patch: &Object) {
    for (key, value) in patch {
        match value {
            Value::Null => {
                document.shift_remove(key);
            }
            Value::Object(inner) => match document.get_mut(key) {
                Some(Value::Object(existing)) => merge(existing, inner),
                _ => {
                    let mut inner = inner.clone();
                    strip_nulls(&mut inner);
                    document.insert(key.clone(), Value::Object(inner));
                }
            },
            other => {
                document.insert(key.clone(), other.clone());
            }
        }
    }
}

/// The patch that turns `from` into `to`.
pub fn difference(from: &Object, to: &Object) -> Object {
    let mut patch = Object::new();
    for key in from.keys().filter(|key| !to.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in to {
        match (from.get(key), value) {
            (Some(Value::Object(before)), Value::Object(after)) => {
                let inner = difference(before, after);
                if !inner.is_empty() {
                    patch.insert(key.clone(), Value::Object(inner));
                }
            }
            (Some(before), after) if before == after => {}
            _ => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    patch
}

fn strip_nulls(object: &mut Object) {
    object.retain(|_, value| !value.is_null());
    for value in object.values_mut() {
        if let Value::Object(inner) = value {
            strip_nulls(inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Object {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_patch_merges_objects_deletes_by_null_and_replaces_arrays_whole() {
        let mut document = object(json!({"a": {"x": 1, "y": 2}, "list": [1, 2, 3], "gone": true}));
        merge(
            &mut document,
            &object(json!({"a": {"y": null, "z": 3}, "list": [9], "gone": null, "new": {"n": null, "m": 1}})),
        );
        assert_eq!(Value::Object(document), json!({"a": {"x": 1, "z": 3}, "list": [9], "new": {"m": 1}}));
    }

    #[test]
    fn the_difference_of_two_documents_turns_one_into_the_other() {
        let from = object(json!({"flows": {"a": {"u": 1}, "b": {"u": 2}}, "level": "info", "same": [1]}));
        let to =
            object(json!({"flows": {"b": {"u": 3}, "c": {}}, "same": [1], "level": {"now": "an object"}}));
        let patch = difference(&from, &to);
        assert_eq!(patch.get("flows"), Some(&json!({"a": null, "b": {"u": 3}, "c": {}})));
        assert!(!patch.contains_key("same"));
        let mut merged = from;
        merge(&mut merged, &patch);
        assert_eq!(merged, to);
    }

    #[test]
    fn a_changed_manifest_section_replaces_the_desired_document_and_an_unchanged_one_leaves_it() {
        let mut twin = Twin::default();
        let section = object(json!({"flows": {"a": {}}}));
        assert!(twin.deploy(&section));
        twin.set_desired(object(json!({"flows": {"b": {}}})), false);
        assert!(!twin.deploy(&section));
        assert_eq!(Value::Object(twin.desired.clone()), json!({"flows": {"a": {}, "b": {}}}));
        assert!(twin.deploy(&object(json!({"flows": {"c": {}}}))));
        assert_eq!(Value::Object(twin.desired.clone()), json!({"flows": {"c": {}}}));
        assert_eq!(twin.desired_version, 3);
    }

    #[test]
    fn a_replacement_tells_the_module_what_went_and_the_new_version() {
        let mut twin = Twin::default();
        twin.deploy(&object(json!({"a": 1, "b": {"c": 2}})));
        let patch = twin.set_desired(object(json!({"b": {"d": 3}})), true);
        assert_eq!(Value::Object(patch), json!({"a": null, "b": {"c": null, "d": 3}, "$version": 2}));
        assert_eq!(Value::Object(twin.desired), json!({"b": {"d": 3}}));
    }
}
