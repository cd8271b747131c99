use std::fs;

use av_flow::config::{Role, Shape, reference};

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

/// A page with each generated part, between two comments, as the tables of options are now.
fn generated(page: &str) -> String {
    let mut rest = page;
    let mut made = String::new();
    for (side, roles) in [("inputs", Role::INPUTS.as_slice()), ("outputs", Role::OUTPUTS.as_slice())] {
        let (start, end) = (format!("<!-- made: options of {side} -->\n"), "\n<!-- made: end -->");
        let (before, behind) = rest.split_once(&start).unwrap_or_else(|| panic!("no {start}"));
        let (_, behind) = behind.split_once(end).unwrap_or_else(|| panic!("no {end}"));
        made.extend([before, &start, reference(&modules(), roles).trim_end(), end]);
        rest = behind;
    }
    made + rest
}

#[test]
fn every_option_of_every_module_is_on_the_page_with_its_range_default_and_modules() {
    let path = repository().join("docs/twin.md");
    let page = fs::read_to_string(&path).unwrap();
    let made = generated(&page);
    if std::env::var_os("AV_WRITE_SCHEMA").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let page = fs::read_to_string(&path).unwrap();
    assert!(
        page == made,
        "docs/twin.md is not up to date; AV_WRITE_SCHEMA=1 cargo test -p av-tests --test repository reference writes it"
    );
    for option in modules().iter().flat_map(|module| module.endpoints()).flat_map(|spec| spec.all_options()) {
        assert!(!option.meaning.is_empty(), "{} says nothing", option.name);
        if let Shape::Object { properties } = option.shape {
            for property in properties {
                assert!(page.contains(&format!("\"{}\"", property.name)), "{}", property.name);
            }
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
