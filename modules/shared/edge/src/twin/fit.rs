//! Makes a document of reported properties one that edgeHub and IoT Hub accept.

use serde_json::{Map, Value};

/// IoT Hub takes 32 KB for the whole of `reported`; edgeHub acknowledges more and loses it later.
pub(crate) const LIMIT: usize = 30 * 1024;
/// What errors may take of it, so that a document of nothing but faults still shows its flows.
const ERRORS_LIMIT: usize = 10 * 1024;
/// edgeHub's `ReportedPropertiesValidator`: names 1024 bytes, texts 4096, depth 10, integers within 52 bits.
const MAX_NAME: usize = 256;
const MAX_TEXT: usize = 4096;
const MAX_ERROR: usize = 512;
/// Of an error, where it has to be short.
const SHORT_ERROR: usize = 128;
const MAX_DEPTH: usize = 10;
const INTEGERS: std::ops::Range<i64> = -(1 << 52)..(1 << 52);

/// `document` without what the hub refuses, a little less than [`LIMIT`] bytes of compact JSON.
///
/// Dropped in this order until it fits: output URLs, codec details, outputs, the ends of long errors,
/// everything of a flow but its state; and at last flows, the healthy ones first. `config.truncated` says that
/// something is gone.
pub(crate) fn fit(document: &Map<String, Value>) -> Map<String, Value> {
    let mut document = clean_object(document, 1);
    let mut truncated = fit_errors(&mut document);
    let steps: [fn(&mut Map<String, Value>); 5] =
        [drop_urls, drop_codecs, drop_outputs, shorten_error, only_state];
    for step in steps {
        if size(&document) <= budget(truncated) {
            break;
        }
        truncated = true;
        for flow in flows(&mut document) {
            step(flow);
        }
    }
    if size(&document) > budget(truncated) {
        truncated = true;
        drop_flows(&mut document);
    }
    if truncated {
        let config = document.entry("config").or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(config) = config {
            config.insert("truncated".into(), true.into());
        }
    }
    document
}

/// What is left of [`LIMIT`] is for flows whose state is held back, and may have been longer.
const BUDGET: usize = LIMIT - 1024;

/// Room for `"config":{"truncated":true},`.
fn budget(truncated: bool) -> usize {
    if truncated { BUDGET - 32 } else { BUDGET }
}

pub(super) fn size(document: &Map<String, Value>) -> usize {
    serde_json::to_string(document).map(|text| text.len()).unwrap_or(usize::MAX)
}

fn flows(document: &mut Map<String, Value>) -> impl Iterator<Item = &mut Map<String, Value>> {
    let flows = document.get_mut("flows").and_then(Value::as_object_mut);
    flows.into_iter().flat_map(|flows| flows.values_mut()).filter_map(Value::as_object_mut)
}

fn outputs(flow: &mut Map<String, Value>) -> impl Iterator<Item = &mut Map<String, Value>> {
    let outputs = flow.get_mut("outputs").and_then(Value::as_object_mut);
    outputs.into_iter().flat_map(|outputs| outputs.values_mut()).filter_map(Value::as_object_mut)
}

fn drop_urls(flow: &mut Map<String, Value>) {
    for output in outputs(flow) {
        output.shift_remove("url");
    }
}

fn drop_codecs(flow: &mut Map<String, Value>) {
    if let Some(Value::Object(input)) = flow.get_mut("input") {
        input.retain(|key, _| key != "video" && key != "audio");
    }
    for output in outputs(flow) {
        output.retain(|key, _| key != "video" && key != "audio");
    }
}

fn drop_outputs(flow: &mut Map<String, Value>) {
    flow.shift_remove("outputs");
}

/// More than a hundred flows in trouble can still say what it is.
fn shorten_error(flow: &mut Map<String, Value>) {
    if let Some(Value::String(error)) = flow.get_mut("input").and_then(|input| input.get_mut("error")) {
        shorten(error, SHORT_ERROR);
    }
}

fn only_state(flow: &mut Map<String, Value>) {
    flow.retain(|key, _| key == "state");
}

fn drop_flows(document: &mut Map<String, Value>) {
    let mut excess = size(document).saturating_sub(budget(true));
    let Some(Value::Object(flows)) = document.get_mut("flows") else { return };
    // A thousand flows all well are what `summary` says; those in trouble are what one looks for.
    let mut last_first: Vec<(bool, String)> = flows
        .iter()
        .rev()
        .map(|(name, flow)| {
            let state = flow.get("state").and_then(Value::as_str).unwrap_or_default();
            (matches!(state, "failed" | "retrying"), name.clone())
        })
        .collect();
    last_first.sort_by_key(|(in_trouble, _)| *in_trouble);
    for (_, name) in last_first {
        if excess == 0 {
            return;
        }
        if let Some(flow) = flows.shift_remove(&name) {
            // Quotes, colon and comma.
            excess = excess.saturating_sub(name.len() + flow.to_string().len() + 3);
        }
    }
}

/// Shortens and at last drops errors until they leave room for the rest. Whether it had to.
fn fit_errors(document: &mut Map<String, Value>) -> bool {
    let Some(Value::Object(config)) = document.get_mut("config") else { return false };
    let Some(Value::Object(errors)) = config.get_mut("errors") else { return false };
    let mut cut = false;
    for length in [MAX_ERROR, 256, SHORT_ERROR] {
        if length != MAX_ERROR {
            if size(errors) <= ERRORS_LIMIT {
                return cut;
            }
            cut = true;
        }
        for error in errors.values_mut() {
            if let Value::String(text) = error {
                shorten(text, length);
            }
        }
    }
    let mut room = ERRORS_LIMIT;
    errors.retain(|name, error| {
        let length = name.len() + error.to_string().len() + 4;
        let fits = room >= length;
        room = room.saturating_sub(length);
        cut |= !fits;
        fits
    });
    cut
}

fn shorten(text: &mut String, length: usize) {
    if text.len() > length {
        text.truncate(text.floor_char_boundary(length - '…'.len_utf8()));
        text.push('…');
    }
}

fn clean_object(object: &Map<String, Value>, depth: usize) -> Map<String, Value> {
    let mut cleaned = Map::new();
    for (name, value) in object {
        let Some(mut value) = clean(value, depth) else { continue };
        if let ("error", Value::String(text)) = (name.as_str(), &mut value) {
            shorten(text, MAX_ERROR);
        }
        let name = free_name(&cleaned, clean_name(name));
        cleaned.insert(name, value);
    }
    cleaned
}

/// Names that differ only in what the hub does not take stay apart, as far as there are few of them.
fn free_name(taken: &Map<String, Value>, name: String) -> String {
    if !taken.contains_key(&name) {
        return name;
    }
    let mut numbered = (2..100).map(|number| format!("{name}-{number}"));
    numbered.find(|name| !taken.contains_key(name)).unwrap_or(name)
}

fn clean_name(name: &str) -> String {
    let allowed = |character: char| match character {
        '.' | '$' | '#' => '_',
        other if other.is_whitespace() || other.is_control() => '_',
        other => other,
    };
    let mut name: String = name.chars().map(allowed).collect();
    name.truncate(name.floor_char_boundary(MAX_NAME));
    if name.is_empty() { "_".to_owned() } else { name }
}

fn clean(value: &Value, depth: usize) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Object(_) | Value::Array(_) if depth >= MAX_DEPTH => None,
        Value::Object(object) => Some(Value::Object(clean_object(object, depth + 1))),
        Value::Array(items) => {
            Some(Value::Array(items.iter().filter_map(|item| clean(item, depth + 1)).collect()))
        }
        Value::String(text) => {
            let mut text = text.clone();
            shorten(&mut text, MAX_TEXT);
            Some(Value::String(text))
        }
        Value::Number(number) => Some(match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => whole.clamp(INTEGERS.start, INTEGERS.end - 1).into(),
            (None, Some(_)) => (INTEGERS.end - 1).into(),
            _ => Value::Number(number.clone()),
        }),
        Value::Bool(_) => Some(value.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::merge::tests::object;
    use super::*;

    fn document(flows: usize) -> Map<String, Value> {
        let flow = |index: usize| {
            json!({
                "state": if index.is_multiple_of(97) { "failed" } else { "running" }, "since": "2026-01-01T00:00:00Z",
                "input": {"state": "receiving", "video": {"codec": "avc1.64001f", "width": 1280, "height": 720}},
                "outputs": {"viewers": {"state": "serving", "url": "rtsp://gw:8554/rtsp/stream", "clients": 3}},
            })
        };
        let flows: Map<String, Value> =
            (0..flows).map(|index| (format!("camera-number-{index:04}"), flow(index))).collect();
        object(
            json!({"schemaVersion": "1.0", "config": {"status": "applied"}, "summary": {"flows": 1}, "flows": flows}),
        )
    }

    #[test]
    fn a_small_document_is_left_as_it_is() {
        assert_eq!(fit(&document(20)), document(20));
    }

    #[test]
    fn details_go_one_after_the_other() {
        let at = |flows: usize| {
            let fitted = Value::Object(fit(&document(flows)));
            let flow = &fitted["flows"]["camera-number-0001"];
            (
                flow["outputs"]["viewers"].get("url").is_some(),
                flow["input"].get("video").is_some(),
                flow.get("outputs").is_some(),
                flow.get("since").is_some(),
                fitted["config"].get("truncated").is_some(),
            )
        };
        assert_eq!(at(100), (true, true, true, true, false));
        assert_eq!(at(130), (false, true, true, true, true));
        assert_eq!(at(170), (false, false, true, true, true));
        assert_eq!(at(230), (false, false, false, true, true));
        assert_eq!(at(500), (false, false, false, false, true));
    }

    #[test]
    fn flows_that_all_fail_at_length_still_say_why() {
        let failing = |flows: usize| {
            let mut document = document(flows);
            for flow in super::flows(&mut document) {
                flow.insert("input".into(), json!({"state": "retrying", "error": "x".repeat(512)}));
            }
            Value::Object(fit(&document))
        };
        let length = |document: &Value| {
            document["flows"]["camera-number-0001"]["input"]["error"].as_str().map(str::len)
        };
        assert_eq!(length(&failing(40)), Some(512));
        assert_eq!(length(&failing(100)), Some(128));
        assert_eq!(length(&failing(200)), None);
    }

    #[test]
    fn of_a_thousand_flows_those_in_trouble_stay_and_the_summary_too() {
        let fitted = fit(&document(1000));
        assert!(size(&fitted) <= LIMIT);
        let flows = fitted["flows"].as_object().unwrap();
        assert_eq!(flows.values().filter(|flow| flow["state"] == "failed").count(), 11);
        assert!(flows.len() > 400);
        assert_eq!(fitted["summary"]["flows"], 1);
    }

    #[test]
    fn errors_of_a_thousand_flows_leave_room_for_the_flows() {
        let errors: Map<String, Value> =
            (0..1000).map(|index| (format!("f{index}"), "x".repeat(400).into())).collect();
        let mut bad = document(20);
        bad["config"]["errors"] = errors.into();
        let fitted = fit(&bad);
        assert!(size(&fitted) <= LIMIT);
        assert_eq!(fitted["config"]["truncated"], true);
        assert!(fitted["config"]["errors"].as_object().unwrap().len() > 50);
        assert_eq!(fitted["flows"]["camera-number-0001"]["outputs"]["viewers"]["clients"], 3);
    }

    #[test]
    fn what_the_hub_refuses_does_not_reach_it() {
        let mut deep = json!(1);
        for _ in 0..20 {
            deep = json!({"a": deep});
        }
        let cleaned = Value::Object(fit(&object(json!({
            "a.b $c#": 1, "a b $c.": 2, "null": null, "array": [1, null], "big": u64::MAX, "small": i64::MIN,
            "text": "ä".repeat(5000), "error": "ä".repeat(5000), "deep": deep, "float": 0.5,
        }))));
        assert_eq!((&cleaned["a_b__c_"], &cleaned["a_b__c_-2"]), (&json!(1), &json!(2)));
        assert!(cleaned.get("null").is_none());
        assert_eq!(cleaned["array"], json!([1]));
        assert_eq!(cleaned["big"], (1_i64 << 52) - 1);
        assert_eq!(cleaned["small"], -(1_i64 << 52));
        assert!(cleaned["text"].as_str().unwrap().len() <= 4096);
        assert!(cleaned["error"].as_str().unwrap().len() <= 512);
        assert!(cleaned["deep"].to_string().matches('{').count() < 10);
    }
}
