use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config::{Diff, FlowDiff};

fn set(names: &[&str]) -> std::collections::BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn document() -> Value {
    json!({ "flows": {
        "a": { "input": { "listen": "rtmp://0.0.0.0/live/a" }, "outputs": {
            "x": { "serve": "rtmp://0.0.0.0/x/a" }, "y": { "push": "rtmp://h/y/a" } } },
        "b": { "input": { "listen": "rtmp://0.0.0.0/live/b" } }
    } })
}

fn diff(change: impl FnOnce(&mut Value)) -> Diff {
    let mut new = document();
    change(&mut new);
    Diff::between(&read(&document()).flows, &read(&new).flows)
}

#[test]
fn nothing_changed_is_nothing_to_do() {
    assert_eq!(diff(|_| ()), Diff::default());
}

#[test]
fn a_flow_added_or_removed_touches_no_other() {
    let flows = diff(|new| {
        new["flows"]["c"] = json!({ "input": { "listen": "rtmp://0.0.0.0/live/c" } });
        new["flows"]["b"] = json!(null);
    });
    assert_eq!(flows, Diff { removed: set(&["b"]), ..Diff::default() });
}

#[test]
fn an_output_added_changed_or_removed_leaves_input_and_other_outputs() {
    let mut flows = diff(|new| {
        new["flows"]["a"]["outputs"] = json!({
            "x": { "serve": "rtmp://0.0.0.0/x/a", "join": "live" }, "z": { "push": "rtmp://h/y/a" }
        });
    });
    let expected = FlowDiff {
        outputs_added: set(&["z"]),
        outputs_removed: set(&["y"]),
        outputs_changed: set(&["x"]),
        ..FlowDiff::default()
    };
    assert_eq!(flows.changed.remove("a"), Some(expected));
    assert_eq!(flows, Diff::default());
}

#[test]
fn an_input_option_changes_the_input_alone() {
    let flows = diff(|new| new["flows"]["a"]["input"]["holdSeconds"] = json!(5));
    assert_eq!(flows.changed["a"], FlowDiff { input: true, ..FlowDiff::default() });
}

#[test]
fn a_narrower_input_changes_the_outputs_that_follow_it() {
    let flows = diff(|new| new["flows"]["a"]["input"]["content"] = json!("videoOnly"));
    let expected = FlowDiff { input: true, outputs_changed: set(&["x", "y"]), ..FlowDiff::default() };
    assert_eq!(flows.changed["a"], expected);
}

#[test]
fn switching_off_is_seen_and_a_description_restarts_nothing() {
    let flows = diff(|new| new["flows"]["a"]["enabled"] = json!(false));
    assert_eq!(flows.changed["a"], FlowDiff { enabled: true, ..FlowDiff::default() });
    let flows = diff(|new| {
        new["flows"]["a"]["description"] = json!("door");
        new["flows"]["b"]["input"]["idleTimeoutSeconds"] = json!(10);
    });
    assert!(flows.changed["a"].is_cosmetic() && flows.changed["b"].is_cosmetic());
}

/// Does to `flows` what `diff` says and no more, taking what is new from `new`.
fn apply(
    flows: &mut std::collections::BTreeMap<String, Arc<FlowConfig>>,
    diff: &Diff,
    new: &std::collections::BTreeMap<String, Arc<FlowConfig>>,
) {
    flows.retain(|name, _| !diff.removed.contains(name));
    for (name, flow) in new {
        flows.entry(name.clone()).or_insert_with(|| flow.clone());
    }
    for (name, change) in &diff.changed {
        let mut flow = (*flows[name]).clone();
        let is = &new[name];
        if change.enabled {
            flow.enabled = is.enabled;
        }
        if change.input {
            flow.input = is.input.clone();
        }
        flow.outputs.retain(|name, _| !change.outputs_removed.contains(name));
        for name in change.outputs_added.iter().chain(&change.outputs_changed) {
            flow.outputs.insert(name.clone(), is.outputs[name].clone());
        }
        flow.description = is.description.clone();
        flow.source = is.source.clone();
        flows.insert(name.clone(), Arc::new(flow));
    }
}

proptest! {
    #[test]
    fn doing_what_the_diff_says_gives_the_new_set(
        old in arbitrary::good_document(), new in arbitrary::good_document()
    ) {
        let (old, new) = (read(&old).flows, read(&new).flows);
        let diff = Diff::between(&old, &new);
        prop_assert_eq!(diff == Diff::default() && old.len() == new.len(), old == new);
        let mut flows = old;
        apply(&mut flows, &diff, &new);
        prop_assert_eq!(flows, new);
    }
}
