use std::fs;

use av_flow::config::schema;

use super::*;

#[test]
fn the_schema_in_the_repository_is_that_of_the_types() {
    let path = repository().join("edge-config/twin.schema.json");
    let made = schema(&modules());
    if std::env::var_os("AV_WRITE_SCHEMA").is_some() {
        fs::write(&path, format!("{}\n", serde_json::to_string_pretty(&made).unwrap())).unwrap();
    }
    let there: Value =
        serde_json::from_str(&fs::read_to_string(&path).unwrap_or_default()).unwrap_or_default();
    assert!(
        there == made,
        "edge-config/twin.schema.json is not up to date; \
         AV_WRITE_SCHEMA=1 cargo test -p av-tests --test repository schema writes it"
    );
}

/// An independent validator tries the schema on the same documents: tests/deployment/check.py.
#[test]
fn the_documents_that_the_schema_is_tried_on_are_accepted_and_refused_by_the_parser_too() {
    let documents: Value = serde_json::from_str(include_str!("documents.json")).unwrap();
    for (outcome, least) in [("accepted", 10), ("refused", 40)] {
        let documents = documents[outcome].as_array().unwrap();
        assert!(documents.len() >= least, "{outcome}: {}", documents.len());
        for document in documents {
            let good = modules().iter().any(|supports| {
                let desired = read_for(supports, document);
                desired.errors.is_empty() && desired.rejected.is_none()
            });
            assert_eq!(good, outcome == "accepted", "{document}");
        }
    }
}
