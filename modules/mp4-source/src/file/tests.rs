use av_flow::config::{Supports, parse};
use serde_json::{Value, json};

use super::*;
use crate::service;

fn read_file(input: Value) -> Result<ReadConfig, String> {
    let document = json!({ "flows": { "f": { "input": input } } });
    let supports: Supports = service().supports().clone();
    let mut desired = parse(document.as_object().unwrap(), &supports);
    match desired.errors.remove("f") {
        Some(error) => Err(error),
        None => Ok(desired.flows["f"].input.endpoint.get::<ReadConfig>().unwrap().clone()),
    }
}

#[test]
fn a_read_input_loops_from_the_start_unless_told() {
    let plain = read_file(json!({ "read": "file:///media/{flow}.mp4" }));
    assert_eq!(plain, Ok(ReadConfig { path: "/media/f.mp4".into(), repeat: true, start: Duration::ZERO }));
    let full = read_file(json!({ "read": "file:///a%20b.mp4", "loop": false, "startSeconds": 1.5 }));
    let start = Duration::from_millis(1500);
    assert_eq!(full, Ok(ReadConfig { path: "/a b.mp4".into(), repeat: false, start }));
}

#[test]
fn what_is_wrong_with_a_file_is_told_with_its_path() {
    assert_eq!(
        read_file(json!({ "read": "file://host/a.mp4" })),
        Err("flows.f.input.read: a file is written file:///directory/name".into())
    );
    assert_eq!(
        read_file(json!({ "read": "file:///a.mp4", "startSeconds": -1 })),
        Err("flows.f.input.startSeconds: expected a number from 0 to 86400, got -1".into())
    );
    assert_eq!(
        read_file(json!({ "listen": "rtmp://0.0.0.0/live/f" })),
        Err("flows.f.input.listen: mp4-source has no `listen` with rtmp; rtmp-splitter has".into())
    );
}
