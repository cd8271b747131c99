//! Counters as telemetry, in messages that the hub takes.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// A hub message is at most 256 KiB with its properties.
const MAX_BODY: usize = 200 * 1000;

/// The status of all flows as message bodies, split by flows. Each has `at` and `summary`.
pub(super) fn bodies(status: &Map<String, Value>, at: Timestamp) -> Vec<String> {
    let at = format!("{at:.3}");
    let summary = status.get("summary").cloned().unwrap_or_default();
    let body = |flows: Map<String, Value>| json!({"at": at, "summary": summary, "flows": flows}).to_string();
    let mut bodies = Vec::new();
    let mut flows = Map::new();
    let mut size = 0_usize;
    for (name, flow) in status.get("flows").and_then(Value::as_object).into_iter().flatten() {
        let mut flow = flow.clone();
        let mut length = flow.to_string().len();
        if length > MAX_BODY
            && let Value::Object(members) = &mut flow
        {
            // A pattern with very many instances: its sums remain.
            members.retain(|_, member| member.to_string().len() < MAX_BODY / 20);
            length = flow.to_string().len();
        }
        length += name.len() + 4;
        if size + length > MAX_BODY && !flows.is_empty() {
            bodies.push(body(std::mem::take(&mut flows)));
            size = 0;
        }
        if length <= MAX_BODY {
            size += length;
            flows.insert(name.clone(), flow);
        }
    }
    if !flows.is_empty() || bodies.is_empty() {
        bodies.push(body(flows));
    }
    bodies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_flows_are_split_and_none_is_lost() {
        let flows: Map<String, Value> = (0..1000)
            .map(|index| (format!("f{index}"), json!({"state": "running", "text": "x".repeat(1000)})))
            .collect();
        let status = Map::from_iter([
            ("flows".to_owned(), flows.into()),
            ("summary".to_owned(), json!({"flows": 1000})),
        ]);
        let bodies = bodies(&status, Timestamp::UNIX_EPOCH);
        let parsed: Vec<Value> = bodies.iter().map(|body| serde_json::from_str(body).unwrap()).collect();
        assert!(bodies.len() > 4 && bodies.iter().all(|body| body.len() < 240_000));
        assert_eq!(parsed.iter().map(|body| body["flows"].as_object().unwrap().len()).sum::<usize>(), 1000);
        assert!(parsed.iter().all(|body| body["summary"]["flows"] == 1000 && body["at"].is_string()));
    }
}
