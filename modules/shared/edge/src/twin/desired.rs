//! Desired properties: from the answers and patches of a hub to whole documents, in the right order.

use serde_json::{Map, Value};

use super::merge::merge;

/// Patches held while an answer is under way. More than that, and the answer is asked for again.
const MAX_HELD: usize = 32;

/// The desired side of a twin on one connection after the other.
///
/// A get on every connection is the base; patches count only when they follow it without a gap.
#[derive(Debug, Default)]
pub(crate) struct Desired {
    known: Option<Known>,
    /// Whether a get has been asked for and not been answered: nothing is applied before.
    awaiting: bool,
    /// Whether a get is under way that only makes sure: patches are applied meanwhile.
    refreshing: bool,
    /// What came while an answer was under way, which may be older than that.
    held: Vec<(i64, Map<String, Value>)>,
    missed: bool,
}

#[derive(Debug)]
struct Known {
    version: Option<i64>,
    document: Map<String, Value>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// Nothing.
    Nothing,
    /// Ask for the whole twin.
    Get,
    /// The hub does not know the configuration yet: keep what runs, ask for the whole twin later.
    GetLater,
    /// Apply this whole document, free of nulls and of `$` keys.
    Apply { version: Option<i64>, document: Map<String, Value> },
}

impl Desired {
    /// A new connection is up and subscribed. Always asks for the whole twin.
    pub fn connected(&mut self) -> Step {
        self.held.clear();
        self.missed = false;
        self.refreshing = false;
        self.ask()
    }

    /// A get goes out, asked for or not. Its answer may be older than patches that come before it.
    pub fn requested(&mut self) {
        self.refreshing = !self.awaiting;
    }

    /// Asks for the whole twin, unless an answer is under way.
    pub fn ask(&mut self) -> Step {
        self.awaiting = true;
        Step::Get
    }

    /// Whether an answer is under way.
    #[cfg(test)]
    pub fn is_awaiting(&self) -> bool {
        self.awaiting
    }

    /// The `desired` section of a whole twin, with the patches that came since it was requested. It holds whatever its
    /// version: a lower one means that the module's identity was made anew.
    pub fn on_full(&mut self, desired: Option<Value>) -> Step {
        self.awaiting = false;
        self.refreshing = false;
        let Some(Value::Object(document)) = desired else { return Step::GetLater };
        let version = version_of(&document);
        let document = without_metadata(document);
        if version.is_none() && document.is_empty() {
            // edgeHub answers so while it has stored nothing and its cloud is away: not "remove everything".
            self.held.clear();
            return Step::GetLater;
        }
        let mut known = Known { version, document };
        let mut gap = std::mem::take(&mut self.missed);
        self.held.sort_by_key(|(version, _)| *version);
        for (version, patch) in std::mem::take(&mut self.held) {
            match known.take(version, patch) {
                Order::Next | Order::Old => {}
                Order::Gap => gap = true,
            }
        }
        let (version, document) = (known.version, strip(known.document.clone()));
        self.known = Some(known);
        // A gap is settled by the next answer; until then what is known is better than nothing.
        self.missed = gap;
        Step::Apply { version, document }
    }

    /// Whether the last answer left a gap that another get must close.
    pub fn take_gap(&mut self) -> bool {
        std::mem::take(&mut self.missed)
    }

    /// A patch with the version of its topic, if that had one.
    pub fn on_patch(&mut self, topic_version: Option<i64>, patch: Option<Value>) -> Step {
        let patch = match patch {
            Some(Value::Object(patch)) => patch,
            _ => return self.doubt(),
        };
        let version = match (topic_version, version_of(&patch)) {
            (Some(topic), Some(body)) if topic != body => return self.doubt(),
            (topic, body) => topic.or(body),
        };
        let Some(version) = version else { return self.doubt() };
        let patch = without_metadata(patch);
        if self.awaiting || self.refreshing || self.known.is_none() {
            if self.held.len() < MAX_HELD {
                self.held.push((version, patch.clone()));
            } else {
                self.missed = true;
            }
        }
        if self.awaiting {
            return Step::Nothing;
        }
        let Some(known) = &mut self.known else { return self.ask() };
        let before = known.version;
        match known.take(version, patch) {
            Order::Next => Step::Apply { version: known.version, document: strip(known.document.clone()) },
            Order::Old if before == Some(version) => Step::Nothing,
            // Held: the answer that is under way tells whether it fills the gap.
            Order::Gap if self.refreshing => Step::Nothing,
            // Older: late, or the first of an identity made anew. The whole twin tells.
            Order::Old | Order::Gap => self.doubt(),
        }
    }

    fn doubt(&mut self) -> Step {
        if self.awaiting || self.refreshing {
            // What came while the answer was under way may not be in it.
            self.missed = true;
            return Step::Nothing;
        }
        self.ask()
    }
}

enum Order {
    Next,
    Old,
    Gap,
}

impl Known {
    fn take(&mut self, version: i64, patch: Map<String, Value>) -> Order {
        let Some(known) = self.version else { return Order::Gap };
        if version <= known {
            return Order::Old;
        }
        if Some(version) != known.checked_add(1) {
            return Order::Gap;
        }
        merge(&mut self.document, &patch);
        self.version = Some(version);
        Order::Next
    }
}

fn version_of(document: &Map<String, Value>) -> Option<i64> {
    document.get("$version").and_then(Value::as_i64)
}

fn without_metadata(mut document: Map<String, Value>) -> Map<String, Value> {
    document.retain(|key, _| !key.starts_with('$'));
    document
}

/// A document as the service gets it: no `$` keys at the top, and null means absent everywhere.
pub(crate) fn without_nulls_and_metadata(document: Map<String, Value>) -> Map<String, Value> {
    strip(without_metadata(document))
}

fn strip(mut document: Map<String, Value>) -> Map<String, Value> {
    strip_object(&mut document);
    document
}

fn strip_object(object: &mut Map<String, Value>) {
    object.retain(|_, value| !value.is_null());
    object.values_mut().for_each(strip_value);
}

fn strip_value(value: &mut Value) {
    match value {
        Value::Object(object) => strip_object(object),
        Value::Array(items) => {
            items.retain(|item| !item.is_null());
            items.iter_mut().for_each(strip_value);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::merge::tests::{any_object, object};
    use super::*;

    fn applied(step: Step) -> (Option<i64>, Value) {
        match step {
            Step::Apply { version, document } => (version, Value::Object(document)),
            other => panic!("{other:?}"),
        }
    }

    fn connected(document: Value) -> Desired {
        let mut desired = Desired::default();
        assert_eq!(desired.connected(), Step::Get);
        applied(desired.on_full(Some(document)));
        desired
    }

    #[test]
    fn a_patch_that_follows_is_merged() {
        let mut desired = connected(json!({"a": 1, "b": {"c": 2}, "$version": 7}));
        let step = desired.on_patch(Some(8), Some(json!({"a": null, "b": {"d": 3}, "$version": 8})));
        assert_eq!(applied(step), (Some(8), json!({"b": {"c": 2, "d": 3}})));
    }

    #[test]
    fn a_duplicate_changes_nothing_and_an_older_one_asks() {
        let mut desired = connected(json!({"a": 1, "$version": 7}));
        assert_eq!(desired.on_patch(Some(7), Some(json!({"a": 9}))), Step::Nothing);
        assert_eq!(desired.on_patch(Some(3), Some(json!({"a": 9}))), Step::Get);
        assert_eq!(applied(desired.on_full(Some(json!({"a": 1, "$version": 7})))).1, json!({"a": 1}));
    }

    #[test]
    fn a_gap_a_missing_version_and_nonsense_ask_for_the_whole_twin() {
        for (version, patch) in [
            (Some(9), Some(json!({"a": 2}))),
            (None, Some(json!({"a": 2}))),
            (Some(8), Some(json!([1]))),
            (Some(8), None),
            (Some(8), Some(json!({"$version": 9}))),
        ] {
            let mut desired = connected(json!({"a": 1, "$version": 7}));
            assert_eq!(desired.on_patch(version, patch), Step::Get);
        }
    }

    #[test]
    fn patches_before_the_answer_are_held_and_sorted_in() {
        let mut desired = Desired::default();
        desired.connected();
        for version in [9, 6, 8] {
            assert_eq!(desired.on_patch(Some(version), Some(json!({"v": version}))), Step::Nothing);
        }
        assert_eq!(
            applied(desired.on_full(Some(json!({"v": 7, "$version": 7})))),
            (Some(9), json!({"v": 9}))
        );
        assert!(!desired.take_gap());
    }

    #[test]
    fn a_held_patch_beyond_a_gap_leaves_another_get_to_do() {
        let mut desired = Desired::default();
        desired.connected();
        desired.on_patch(Some(9), Some(json!({"v": 9})));
        assert_eq!(applied(desired.on_full(Some(json!({"v": 7, "$version": 7})))).0, Some(7));
        assert!(desired.take_gap());
    }

    /// A twin that is in order and looked at again, as it is every few minutes.
    fn looked_at_again(document: Value) -> Desired {
        let mut desired = connected(document);
        desired.requested();
        desired
    }

    #[test]
    fn an_answer_that_is_older_than_a_patch_before_it_takes_nothing_back() {
        let mut desired = looked_at_again(json!({"v": 7, "$version": 7}));
        let step = desired.on_patch(Some(8), Some(json!({"v": 8})));
        assert_eq!(applied(step), (Some(8), json!({"v": 8})), "applied at once");
        let old = json!({"v": 7, "$version": 7});
        assert_eq!(applied(desired.on_full(Some(old))), (Some(8), json!({"v": 8})));
        assert!(!desired.take_gap());

        // What came before a request is in its answer; a lower one is of an identity made anew.
        desired.requested();
        assert_eq!(applied(desired.on_full(Some(json!({"v": 1, "$version": 1})))).0, Some(1));
    }

    #[test]
    fn an_answer_that_holds_the_patches_before_it_is_taken_as_it_is() {
        let mut desired = looked_at_again(json!({"v": 7, "$version": 7}));
        desired.on_patch(Some(8), Some(json!({"v": 8})));
        let new = json!({"v": 9, "w": 9, "$version": 9});
        assert_eq!(applied(desired.on_full(Some(new))), (Some(9), json!({"v": 9, "w": 9})));
        assert!(!desired.take_gap());
    }

    #[test]
    fn a_gap_while_an_answer_is_under_way_is_filled_by_it_or_asked_about_after_it() {
        for (answer, is_filled) in [(7, false), (8, true), (9, true)] {
            let mut desired = looked_at_again(json!({"v": 7, "$version": 7}));
            assert_eq!(desired.on_patch(Some(9), Some(json!({"v": 9}))), Step::Nothing);
            let step = desired.on_full(Some(json!({"v": answer, "$version": answer})));
            let expected = if is_filled { 9 } else { 7 };
            assert_eq!(applied(step), (Some(expected), json!({"v": expected})));
            assert_eq!(desired.take_gap(), !is_filled);
        }
    }

    #[test]
    fn what_can_not_be_held_or_read_while_an_answer_is_under_way_is_asked_about_after_it() {
        let document = json!({"v": 0, "$version": 0});
        let mut desired = looked_at_again(document.clone());
        for version in 1..=MAX_HELD as i64 + 1 {
            let step = desired.on_patch(Some(version), Some(json!({"v": version})));
            assert_eq!(applied(step).0, Some(version));
        }
        assert_eq!(desired.held.len(), MAX_HELD);
        desired.on_full(Some(document.clone()));
        assert!(desired.take_gap());

        for (version, patch) in [(None, Some(json!({"v": 1}))), (Some(1), None), (Some(-1), Some(json!({})))]
        {
            let mut desired = looked_at_again(document.clone());
            assert_eq!(desired.on_patch(version, patch), Step::Nothing);
            desired.on_full(Some(document.clone()));
            assert!(desired.take_gap());
        }
    }

    #[test]
    fn a_lower_version_after_a_reconnect_is_an_identity_made_anew() {
        let mut desired = connected(json!({"a": 1, "$version": 7}));
        desired.connected();
        assert_eq!(
            applied(desired.on_full(Some(json!({"b": 1, "$version": 1})))),
            (Some(1), json!({"b": 1}))
        );
        assert_eq!(applied(desired.on_patch(Some(2), Some(json!({"c": 1})))).1, json!({"b": 1, "c": 1}));
    }

    #[test]
    fn an_empty_document_without_version_removes_nothing() {
        let mut desired = connected(json!({"a": 1, "$version": 7}));
        desired.connected();
        assert_eq!(desired.on_full(Some(json!({}))), Step::GetLater);
        assert_eq!(desired.on_full(None), Step::GetLater);
        assert_eq!(applied(desired.on_full(Some(json!({"$version": 8})))), (Some(8), json!({})));
    }

    #[test]
    fn a_patch_of_nothing_but_a_version_moves_the_version() {
        let mut desired = connected(json!({"a": 1, "$version": 7}));
        assert_eq!(
            applied(desired.on_patch(Some(8), Some(json!({"$version": 8})))),
            (Some(8), json!({"a": 1}))
        );
    }

    #[test]
    fn nulls_are_absent_and_dollar_keys_are_not_ours() {
        let document = object(json!({"$x": 1, "a": null, "b": {"c": null, "d": [null, {"e": null}]}}));
        assert_eq!(Value::Object(without_nulls_and_metadata(document)), json!({"b": {"d": [{}]}}));
    }

    proptest! {
        /// A hub that loses, repeats and delays patches: once the questions are answered, the module has the
        /// hub's document.
        #[test]
        fn whatever_gets_lost_the_last_answer_settles(
            start in any_object(),
            changes in prop::collection::vec((any_object(), 0..4_u8), 0..12),
        ) {
            let mut hub = start;
            let mut version = 1;
            let mut desired = Desired::default();
            let mut module = Value::Null;
            let full = |hub: &Map<String, Value>, version: i64| {
                let mut document = hub.clone();
                document.insert("$version".into(), version.into());
                Some(Value::Object(document))
            };
            let mut step = desired.connected();
            let mut late = None;
            for (target, fate) in changes {
                let patch = super::super::merge::difference(&hub, &target);
                hub = target;
                version += 1;
                let mut deliver = vec![];
                match fate {
                    0 => {}
                    1 => deliver.extend([(version, patch.clone()), (version, patch)]),
                    2 => late = Some((version, patch)),
                    _ => {
                        deliver.push((version, patch));
                        deliver.extend(late.take());
                    }
                }
                let answer = full(&hub, version);
                for (version, patch) in deliver {
                    if let Step::Apply { document, .. } = desired.on_patch(Some(version), Some(Value::Object(patch))) {
                        module = Value::Object(document);
                    }
                    prop_assert!(desired.held.len() <= MAX_HELD);
                }
                if desired.is_awaiting() && fate != 0
                    && let Step::Apply { document, .. } = desired.on_full(answer)
                {
                    module = Value::Object(document);
                }
            }
            // The slow periodic get.
            if !desired.is_awaiting() {
                step = desired.ask();
            }
            prop_assert_eq!(step, Step::Get);
            if let Step::Apply { document, .. } = desired.on_full(full(&hub, version)) {
                module = Value::Object(document);
            }
            prop_assert_eq!(module, Value::Object(strip(hub.clone())));
        }
    }
}
