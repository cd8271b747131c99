use std::fs;
use std::path::Path;

use super::*;
use crate::config::document::KEYS;
use crate::config::schema;

#[test]
fn the_schema_in_the_repository_is_that_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../edge-config/twin.schema.json");
    let made = schema(&[SPLITTER, SOURCE]);
    if std::env::var_os("AV_WRITE_SCHEMA").is_some() {
        fs::write(&path, format!("{}\n", serde_json::to_string_pretty(&made).unwrap())).unwrap();
    }
    let there: Value =
        serde_json::from_str(&fs::read_to_string(&path).unwrap_or_default()).unwrap_or_default();
    assert!(
        there == made,
        "edge-config/twin.schema.json is not up to date; \
         AV_WRITE_SCHEMA=1 cargo test -p av-flow --lib config::tests::schema writes it"
    );
}

#[test]
fn the_schema_has_every_key_that_the_top_of_a_document_may_hold() {
    let schema = schema(&[SPLITTER, SOURCE]);
    let properties = schema["properties"].as_object().unwrap().keys().map(String::as_str);
    // `spool` is known, and refused by every module of today.
    let known = KEYS.into_iter().filter(|key| *key != "spool");
    assert_eq!(properties.collect::<Vec<_>>(), known.collect::<Vec<_>>());
}

/// An independent validator tries the schema on the same documents: tests/deployment/check.py.
#[test]
fn the_documents_that_the_schema_is_tried_on_are_accepted_and_refused_by_the_parser_too() {
    let documents: Value = serde_json::from_str(include_str!("documents.json")).unwrap();
    for (outcome, least) in [("accepted", 10), ("refused", 40)] {
        let documents = documents[outcome].as_array().unwrap();
        assert!(documents.len() >= least, "{outcome}: {}", documents.len());
        for document in documents {
            let good = [SPLITTER, SOURCE].iter().any(|supports| {
                let desired = read_for(supports, document);
                desired.errors.is_empty() && desired.rejected.is_none()
            });
            assert_eq!(good, outcome == "accepted", "{document}");
        }
    }
}
