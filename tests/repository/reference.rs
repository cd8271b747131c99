use av_flow::config::{OptionSpec, Shape};

use super::*;

const TWIN: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/twin.md"));

/// The JSON blocks of the page, each with the module named in the line before it.
fn examples() -> Vec<(Supports, Value)> {
    let mut examples = Vec::new();
    let mut lines = TWIN.lines();
    let mut before = "";
    while let Some(line) = lines.next() {
        if line == "```json" {
            let supports = match before {
                marked if marked.starts_with("<!-- module: ") => marked,
                other => panic!("a JSON block follows {other:?}"),
            };
            let name = supports.trim_start_matches("<!-- module: ").trim_end_matches(" -->");
            let supports = module(name).unwrap_or_else(|| panic!("no module {name:?}"));
            let text = lines.by_ref().take_while(|line| *line != "```").collect::<Vec<_>>().join("\n");
            examples.push((supports, serde_json::from_str(&text).unwrap()));
        }
        before = line;
    }
    examples
}

#[test]
fn every_example_of_the_page_is_a_document_without_errors() {
    let examples = examples();
    assert!(examples.len() >= 9, "{}", examples.len());
    for (supports, document) in examples {
        let desired = read_for(&supports, &document);
        assert!(desired.errors.is_empty() && !desired.flows.is_empty(), "{:?}", desired.errors);
    }
}

#[test]
fn every_option_of_todays_modules_is_on_the_page_with_its_range_and_default() {
    let modules = modules();
    let endpoints = modules.iter().flat_map(|supports| supports.endpoints());
    let mut options: Vec<&OptionSpec> = Vec::new();
    for option in endpoints.flat_map(|spec| spec.all_options()) {
        if !options.contains(&option) {
            options.push(option);
        }
    }
    assert!(options.len() >= 18, "{}", options.len());
    for spec in options {
        let start = format!("| `{}` |", spec.name);
        let row = TWIN.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("no {start}"));
        let cells = row.split('|').map(str::trim).collect::<Vec<_>>();
        let (range, default) = (cells[3], cells[4]);
        match spec.shape {
            Shape::Whole { min, max, default: value } => {
                assert_eq!(
                    (range, default),
                    (&*format!("{min} to {max}"), &*value.to_string()),
                    "{}",
                    spec.name
                );
            }
            Shape::Word { words } => {
                let choice = words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>();
                assert_eq!((range, default), (&*choice.join(", "), &*choice[0]), "{}", spec.name);
            }
            Shape::Flag { default: value } => assert_eq!(default, value.to_string(), "{}", spec.name),
            Shape::Object { properties } => {
                for property in properties {
                    assert!(TWIN.contains(&format!("\"{}\"", property.name)), "{}", property.name);
                }
            }
            _ => {}
        }
    }
}

#[test]
fn the_errors_on_the_page_are_the_errors_there_are() {
    let document = serde_json::json!({ "flows": {
        "cam2": { "input": { "listen": "rtmp://0.0.0.0/a/b" }, "outputs": {} }
    } });
    let mut cases = [document.clone(), document.clone(), document.clone(), document];
    cases[0]["flows"]["cam2"]["input"]["idleTimeoutSeconds"] = "x".into();
    cases[1]["flows"]["cam2"]["outputs"]["viewers"] =
        serde_json::json!({ "serve": "rtmp://0.0.0.0/a/b", "maxClient": 5 });
    cases[2]["flows"]["cam2"]["input"]["maxClients"] = 5.into();
    cases[3]["flows"]["cam2"]["outputs"]["web"] = serde_json::json!({ "serve": "http://0.0.0.0/a" });
    let splitter = module("rtmp-splitter").unwrap();
    let errors =
        cases.iter().map(|case| read_for(&splitter, case).errors["cam2"].clone()).collect::<Vec<_>>();
    assert!(TWIN.contains(&format!("```text\n{}\n```", errors.join("\n"))), "{errors:?}");
}
