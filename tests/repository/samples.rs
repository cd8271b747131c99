//! The samples of `edge-config`, the manifest and the JSON of every page are what they look like.

use std::collections::BTreeSet;
use std::fs;

use super::*;

/// The files of a folder with this extension, by name.
fn files(folder: &str, extension: &str) -> Vec<(String, String)> {
    let entries = fs::read_dir(repository().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .map(|path| {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap())
        })
        .collect();
    files.sort();
    files
}

fn assert_good(place: &str, supports: &Supports, document: &Value) {
    let desired = read_for(supports, document);
    assert!(desired.errors.is_empty() && desired.rejected.is_none(), "{place}: {:?}", desired.errors);
    assert!(!desired.flows.is_empty(), "{place} has no flow");
    let clashes = av_flow::config::conflicts(&desired.flows);
    assert!(clashes.is_empty(), "{place}: {clashes:?}");
}

#[test]
fn every_sample_is_a_document_without_errors() {
    let mut samples = files("edge-config", "json");
    samples.extend(files("edge-config/standalone/twins", "json"));
    let mut modules = BTreeSet::new();
    for (name, text) in samples.iter().filter(|(name, _)| name != "twin.schema.json") {
        // MODULE.json or MODULE.SCENARIO.json
        let module = name.split('.').next().unwrap();
        let supports = super::module(module).unwrap_or_else(|| panic!("{name}: no module {module:?}"));
        assert_good(name, &supports, &serde_json::from_str(text).unwrap());
        modules.insert(module);
    }
    assert_eq!(
        modules.into_iter().collect::<Vec<_>>(),
        ["hls-gateway", "mp4-recorder", "mp4-source", "renderer", "rtmp-splitter", "rtsp-gateway"]
    );
    assert!(samples.len() >= 11, "{}", samples.len());
}

#[test]
fn the_desired_properties_of_the_manifest_are_good() {
    let text = fs::read_to_string(repository().join("deployment.template.json")).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    for supports in modules() {
        let content = &manifest["modulesContent"][supports.module]["properties.desired"];
        assert_good("deployment.template.json", &supports, content);
    }
}

#[test]
fn a_layer_adds_flows_under_keys_of_their_own() {
    let mut flows = 0;
    for (name, text) in files("edge-config/layers", "json") {
        let layer: Value = serde_json::from_str(&text).unwrap();
        for (module, content) in layer["modulesContent"].as_object().unwrap() {
            for (key, value) in content.as_object().unwrap() {
                assert_ne!(key, "properties.desired", "{name}: this would replace what other layers set");
                let Some(supports) = super::module(module) else { continue };
                let flow = key.strip_prefix("properties.desired.flows.").unwrap();
                assert_good(&name, &supports, &serde_json::json!({ "flows": { flow: value } }));
                flows += 1;
            }
        }
    }
    assert!(flows > 0);
}

#[test]
fn the_json_of_every_page_is_json() {
    let mut blocks = 0;
    for (name, text) in files("docs", "md") {
        for block in text.split("\n```json\n").skip(1) {
            let json = block.split("\n```").next().unwrap();
            serde_json::from_str::<Value>(json).unwrap_or_else(|error| panic!("{name}: {error} in {json}"));
            blocks += 1;
        }
        // What a page gives a module to read is read as that module would.
        for block in text.split("<!-- module: ").skip(1) {
            let (module, rest) =
                block.split_once(" -->\n```json\n").unwrap_or_else(|| panic!("{name}: {block}"));
            let json = rest.split("\n```").next().unwrap();
            assert_good(&name, &super::module(module).unwrap(), &serde_json::from_str(json).unwrap());
        }
    }
    assert!(blocks >= 12, "{blocks}");
}
