//! What differs between two sets of flows, so that exactly that is restarted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::types::FlowConfig;

/// The way from one set of flows to another, by flow name. What is only in the new set is new.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Flows that are gone.
    pub removed: BTreeSet<String>,
    /// Flows that are in both and not equal.
    pub changed: BTreeMap<String, FlowDiff>,
}

/// What differs within one flow. Nothing at all: only `description` or the way it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowDiff {
    /// `enabled` was switched.
    pub enabled: bool,
    /// The input, in anything.
    pub input: bool,
    /// Outputs that are new.
    pub outputs_added: BTreeSet<String>,
    /// Outputs that are gone.
    pub outputs_removed: BTreeSet<String>,
    /// Outputs that are in both and not equal.
    pub outputs_changed: BTreeSet<String>,
}

impl Diff {
    /// What leads from `old` to `new`.
    pub fn between(old: &BTreeMap<String, Arc<FlowConfig>>, new: &BTreeMap<String, Arc<FlowConfig>>) -> Self {
        let mut diff = Self::default();
        for (name, was) in old {
            match new.get(name) {
                None => {
                    diff.removed.insert(name.clone());
                }
                Some(is) if Arc::ptr_eq(was, is) || was == is => {}
                Some(is) => {
                    diff.changed.insert(name.clone(), FlowDiff::between(was, is));
                }
            }
        }
        diff
    }
}

impl FlowDiff {
    /// What leads from `old` to `new`.
    pub fn between(old: &FlowConfig, new: &FlowConfig) -> Self {
        let mut diff =
            Self { enabled: old.enabled != new.enabled, input: old.input != new.input, ..Self::default() };
        for (name, was) in &old.outputs {
            match new.outputs.get(name) {
                None => diff.outputs_removed.insert(name.clone()),
                Some(is) if was != is => diff.outputs_changed.insert(name.clone()),
                Some(_) => false,
            };
        }
        diff.outputs_added
            .extend(new.outputs.keys().filter(|name| !old.outputs.contains_key(*name)).cloned());
        diff
    }

    /// Whether nothing has to be started, stopped or restarted.
    pub fn is_cosmetic(&self) -> bool {
        *self == Self::default()
    }
}
