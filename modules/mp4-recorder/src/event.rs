//! `recordEvent`, as a direct method and as a message that a route carries here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use av_edge::{MethodReply, whole_number};
use rand::Rng;
use serde_json::{Map, Value};

use crate::clip::{Asked, LONGEST_PRE_ROLL, MOST_CLIPS};
use crate::lane::Lane;
use crate::methods::refused;
use crate::name::NameTemplate;
use crate::recorder::Recorder;
use crate::spool::Record;
use crate::stored::Account;

const EXPECTED: &str = "expected {\"flow\": \"NAME\", \"output\"?: \"NAME\", \"id\"?: 1 to 64 of A-Z a-z 0-9 - _ ., \
                        \"preRollSeconds\"?: 0 to 60, \"seconds\": 1 to 3600}";
const MOST_SECONDS: u64 = 3600;
const MOST_ID: usize = 64;
/// An id is looked for among the files of so many days.
const DAYS: usize = 8;

/// A checked payload.
#[derive(Debug, PartialEq)]
struct Payload {
    flow: String,
    output: Option<String>,
    id: Option<String>,
    pre_roll: Duration,
    length: Duration,
}

impl Payload {
    fn of(payload: &Value) -> Option<Self> {
        const KEYS: [&str; 5] = ["flow", "output", "id", "preRollSeconds", "seconds"];
        let map = payload.as_object()?;
        if map.keys().any(|key| !KEYS.contains(&key.as_str())) {
            return None;
        }
        let given = |key: &str| map.get(key).filter(|value| !value.is_null());
        let text = |key: &str| match given(key) {
            None => Some(None),
            Some(value) => Some(Some(value.as_str()?.to_owned())),
        };
        let seconds = |key: &str, least: u64, most: u64| {
            let number = whole_number(given(key)?)?;
            (least..=most).contains(&number).then(|| Duration::from_secs(number))
        };
        let pre_roll = match given("preRollSeconds") {
            None => Duration::ZERO,
            Some(_) => seconds("preRollSeconds", 0, LONGEST_PRE_ROLL.as_secs())?,
        };
        let id = text("id")?;
        let fits = |id: &String| {
            (1..=MOST_ID).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        if !id.as_ref().is_none_or(fits) {
            return None;
        }
        let length = seconds("seconds", 1, MOST_SECONDS)?;
        Some(Self { flow: text("flow")??, output: text("output")?, id, pre_roll, length })
    }
}

/// Begins a clip, or says again which one it was.
pub async fn record(recorder: &Recorder, payload: &Value) -> MethodReply {
    let Some(payload) = Payload::of(payload) else { return refused(400, EXPECTED) };
    let lane = match lane(recorder, &payload) {
        Ok(lane) => lane,
        Err(reply) => return reply,
    };
    let asked = Asked {
        id: payload.id.clone().unwrap_or_else(|| format!("{:016x}", rand::rng().random::<u64>())),
        at: Some(recorder.belief.now()).filter(|told| told.names).map(|told| told.now.utc),
        pre_roll: payload.pre_roll,
        length: payload.length,
    };
    let mut names = lane.clips_of(&asked.id).unwrap_or_default();
    if names.is_empty() && payload.id.is_some() {
        names = recorded(recorder, &lane, &asked.id).await;
    }
    if names.is_empty() {
        names = lane.ask_for_clip(&asked);
    }
    if names.is_empty() {
        if lane.has_most_clips() {
            return refused(
                409,
                format!("{MOST_CLIPS} clips are already being recorded; try again when one has ended"),
            );
        }
        let why = "this output is not recording at the moment: it is starting, or none of its instances is \
                   running";
        return refused(409, why);
    }
    let mut body = Map::from_iter([("id".to_owned(), asked.id.into())]);
    // What has none gets it when the clock is set.
    if let Some(names) = names.into_iter().collect::<Option<Vec<_>>>() {
        body.extend(names.first().map(|name| ("name".to_owned(), name.clone().into())));
        if names.len() > 1 {
            body.insert("names".into(), names.into());
        }
    }
    MethodReply { status: 202, body: body.into() }
}

/// The output that is meant.
fn lane(recorder: &Recorder, payload: &Payload) -> Result<Arc<Lane>, MethodReply> {
    // A lane outlives its output: it stores what there is of it.
    let is_there = |lane: &Arc<Lane>| lane.configured().is_some() && recorder.has_output(lane);
    let of_flow = |lane: &Arc<Lane>| lane.place().0 == payload.flow && is_there(lane);
    let mut lanes: Vec<_> = recorder.lanes().into_iter().filter(of_flow).collect();
    // One that is not configured any more still stores what it has.
    if lanes.iter().any(|lane| lane.records()) {
        lanes.retain(|lane| lane.records());
    }
    if lanes.is_empty() {
        return Err(refused(404, format!("no flow that records is named {:?}", payload.flow)));
    }
    let names: Vec<_> = lanes.iter().map(|lane| lane.place().1.clone()).collect();
    match &payload.output {
        Some(output) => lanes.retain(|lane| lane.place().1 == *output),
        None if lanes.len() > 1 => {
            return Err(refused(
                400,
                format!("the flow has several outputs, name one: {}", names.join(", ")),
            ));
        }
        None => {}
    }
    let missing = || refused(404, format!("the flow has no such output; it has {}", names.join(", ")));
    lanes.pop().ok_or_else(missing)
}

/// The names of clips of an event that an earlier process recorded; `None`: one that has none yet.
async fn recorded(recorder: &Recorder, lane: &Lane, id: &str) -> Vec<Option<String>> {
    let Some(spool) = recorder.spool() else { return Vec::new() };
    let (place, id) = (lane.place().clone(), id.to_owned());
    let looked = tokio::task::spawn_blocking(move || {
        // In the order of recording, wherever each of them is now.
        let mut names = BTreeMap::new();
        spool.each(|held| {
            let record = &held.record;
            let is_of_place = (&record.flow, &record.output) == (&place.0, &place.1);
            if is_of_place && record.event.as_ref() == Some(&id) {
                names.insert(record.id, record.name.clone().or_else(|| named_already(record)));
            }
        });
        let account = Account::new(spool.dir());
        for day in account.days(&place).iter().rev().take(DAYS) {
            let lines = Account::read(day).unwrap_or_default();
            let of_it = lines.into_iter().filter(|line| line.event.as_ref() == Some(&id));
            names.extend(of_it.map(|line| (line.id, Some(line.name))));
        }
        names.into_values().collect()
    });
    looked.await.unwrap_or_default()
}

/// The name that a clip had from the beginning.
fn named_already(record: &Record) -> Option<String> {
    let template = NameTemplate::parse(&record.template).ok().filter(|template| !template.has_times())?;
    Some(template.at(SystemTime::UNIX_EPOCH))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_payload_is_taken_whole_or_not_at_all() {
        let full =
            json!({ "flow": "cam", "output": "disk", "id": "a.1", "preRollSeconds": 60, "seconds": 1 });
        let read = Payload::of(&full).unwrap();
        assert_eq!((read.pre_roll, read.length), (Duration::from_secs(60), Duration::from_secs(1)));
        assert!(Payload::of(&json!({ "flow": "cam", "seconds": 3600 })).is_some());
        for wrong in [
            json!({ "flow": "cam" }),
            json!({ "seconds": 5 }),
            json!({ "flow": "cam", "seconds": 0 }),
            json!({ "flow": "cam", "seconds": 3601 }),
            json!({ "flow": "cam", "seconds": 5, "preRollSeconds": 61 }),
            json!({ "flow": "cam", "seconds": 5, "id": "a/b" }),
            json!({ "flow": "cam", "seconds": 5, "id": "" }),
            json!({ "flow": "cam", "seconds": 5, "more": 1 }),
            json!("cam"),
        ] {
            assert_eq!(Payload::of(&wrong), None, "{wrong}");
        }
    }
}
