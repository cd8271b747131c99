//! Pattern flows: one running instance for each published name.

use std::collections::BTreeMap;

use super::types::{FlowConfig, OutputConfig};

/// Whether a published name can be an instance of a pattern: 1 to 64 of `A-Z a-z 0-9 - _ .`, not `.` or `..`.
/// Such a name means the same in a URL with or without percent-encoding.
pub fn valid_instance_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && name != "."
        && name != ".."
}

impl FlowConfig {
    /// The outputs as they run for one published name, which has passed [`valid_instance_name`].
    pub fn instance_outputs(&self, name: &str) -> BTreeMap<String, OutputConfig> {
        let instance = |(key, output): (&String, &OutputConfig)| {
            (key.clone(), OutputConfig { endpoint: output.endpoint.instance(name), ..output.clone() })
        };
        self.outputs.iter().map(instance).collect()
    }
}
