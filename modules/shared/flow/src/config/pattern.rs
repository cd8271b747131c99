//! Pattern flows: one running instance for each published name.

use super::types::{FlowConfig, InputEndpoint, OutputEndpoint};

/// Whether a published name can be an instance of a pattern: 1 to 64 of `A-Z a-z 0-9 - _ .`, not `.` or `..`.
/// Such a name means the same in a URL with or without percent-encoding.
pub fn valid_instance_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && name != "."
        && name != ".."
}

impl FlowConfig {
    /// The flow as it runs for one published name: `*` and `{match}` replaced in input and outputs. `name` has
    /// passed [`valid_instance_name`]. A flow without a pattern is returned as it is.
    pub fn instance(&self, name: &str) -> Self {
        let mut flow = self.clone();
        if !self.is_pattern() {
            return flow;
        }
        if let InputEndpoint::Listen(listen) = &mut flow.input.endpoint {
            listen.url.path = listen.url.path.replace('*', name);
        }
        for output in flow.outputs.values_mut() {
            match &mut output.endpoint {
                OutputEndpoint::Serve(serve) => serve.url.path = serve.url.path.replace('*', name),
                OutputEndpoint::Push(push) => {
                    push.url.path = push.url.path.replace('*', name);
                    push.url.query = push.url.query.as_deref().map(|query| query.replace("{match}", name));
                }
            }
        }
        flow
    }
}
