//! Direct methods of the recorder.

use std::time::{Duration, SystemTime};

use av_edge::MethodReply;
use serde_json::{Map, Value, json};

use crate::recorder::Recorder;
use crate::spool::{Place, Stage};
use crate::stored::{Account, Line};
use crate::{clock, event, forget};

const DEFAULT_LIMIT: usize = 50;
const MOST: usize = 500;
const LIST: &str = "expected {\"flow\": \"NAME\", \"from\"?: \"UTC\", \"to\"?: \"UTC\", \"limit\"?: 1 to 500, \
                    \"next\"?: what the last answer said}";
const CLOSE: &str = "expected {\"flow\": \"NAME\"}";

/// Answers a method; `None`: there is none of that name.
pub async fn call(recorder: &Recorder, name: &str, payload: Value) -> Option<MethodReply> {
    match name {
        "listRecordings" => Some(match List::of(&payload) {
            Some(list) => list_recordings(recorder, list).await,
            None => refused(400, LIST),
        }),
        "closeSegment" => Some(match flow(&payload, &["flow"]) {
            Some(flow) => close_segment(recorder, flow),
            None => refused(400, CLOSE),
        }),
        "recordEvent" => Some(event::record(recorder, &payload).await),
        "deleteRecordings" => Some(match recorder.shared() {
            Some(recorder) => forget::delete_recordings(&recorder, &payload).await,
            None => refused(409, "the module ends"),
        }),
        _ => None,
    }
}

/// A no, with its reason.
pub fn refused(status: u16, why: impl Into<String>) -> MethodReply {
    MethodReply { status, body: json!({ "error": why.into() }) }
}

/// The flow that an object with no other keys than `keys` names.
fn flow<'a>(payload: &'a Value, keys: &[&str]) -> Option<&'a str> {
    let map = payload.as_object()?;
    if map.keys().any(|key| !keys.contains(&key.as_str())) {
        return None;
    }
    map.get("flow")?.as_str()
}

fn close_segment(recorder: &Recorder, flow: &str) -> MethodReply {
    let lanes: Vec<_> = recorder.lanes().into_iter().filter(|lane| lane.place().0 == flow).collect();
    if lanes.is_empty() {
        return refused(404, format!("no flow that records is named {flow:?}"));
    }
    let asked: usize = lanes.iter().map(|lane| lane.end_files()).sum();
    MethodReply { status: 200, body: json!({ "outputs": asked }) }
}

struct List {
    flow: String,
    from: i64,
    to: i64,
    limit: usize,
    /// Start and number of the last one that was told.
    after: Option<(i64, u64)>,
}

impl List {
    fn of(payload: &Value) -> Option<Self> {
        let flow = flow(payload, &["flow", "from", "to", "limit", "next"])?.to_owned();
        let given = |key: &str| payload.get(key).filter(|value| !value.is_null());
        let time = |key: &str, default: i64| match given(key) {
            None => Some(default),
            Some(value) => value.as_str()?.parse::<jiff::Timestamp>().ok().map(|time| time.as_millisecond()),
        };
        let limit = match given("limit") {
            None => DEFAULT_LIMIT,
            Some(value) => {
                usize::try_from(value.as_u64()?).ok().filter(|limit| (1..=MOST).contains(limit))?
            }
        };
        let after = match given("next") {
            None => None,
            Some(value) => {
                let (start, id) = value.as_str()?.split_once('.')?;
                Some((start.parse().ok()?, id.parse().ok()?))
            }
        };
        Some(Self { flow, from: time("from", i64::MIN)?, to: time("to", i64::MAX)?, limit, after })
    }

    fn wants(&self, start: i64, milliseconds: u64, id: u64) -> bool {
        let end = start.saturating_add(i64::try_from(milliseconds).unwrap_or(i64::MAX));
        start < self.to && end >= self.from && self.after.is_none_or(|after| (start, id) > after)
    }
}

struct Found {
    start: i64,
    id: u64,
    value: Value,
}

/// Of a page: hubs take 128 KiB of an answer.
const MOST_BYTES: usize = 100_000;

async fn list_recordings(recorder: &Recorder, list: List) -> MethodReply {
    let Some(spool) = recorder.spool() else { return refused(409, "the spool is not open") };
    let known = recorder.lanes().iter().any(|lane| lane.place().0 == list.flow);
    let found = tokio::task::spawn_blocking(move || {
        // What is stored gets its line before it leaves the spool: in this order nothing is missed, and what is seen in
        // both is stored.
        let held = spool.all();
        let account = Account::new(spool.dir());
        let places: Vec<_> = account.places().into_iter().filter(|(flow, _)| *flow == list.flow).collect();
        let known = known || !places.is_empty();
        let mut found: Vec<Found> = Vec::new();
        for place in &places {
            for day in account.days(place) {
                if is_out_of(&day, &list) {
                    continue;
                }
                let lines = Account::read(&day).unwrap_or_default();
                let lines =
                    lines.into_iter().filter(|line| list.wants(line.start, line.milliseconds, line.id));
                found.extend(lines.map(|line| stored(place, &line)));
            }
        }
        for held in held.into_iter().filter(|held| held.record.flow == list.flow) {
            let record = &held.record;
            let start = record.start.unwrap_or_default();
            // What is being written has no length yet, and goes on.
            let is_open = record.stage == Stage::Writing;
            let length = if is_open { u64::MAX } else { record.milliseconds };
            if list.wants(start, length, record.id) {
                let mut value = Map::from_iter([
                    ("output".to_owned(), record.output.clone().into()),
                    ("state".to_owned(), stage(record.stage).into()),
                    ("start".to_owned(), record.start().map(clock::text).into()),
                    ("durationSeconds".to_owned(), seconds(record.milliseconds).into()),
                    ("bytes".to_owned(), held.bytes.into()),
                ]);
                if let Some(event) = &record.event {
                    value.insert("event".into(), event.clone().into());
                }
                if let Some(name) = &record.name {
                    value.insert("name".into(), name.clone().into());
                }
                found.push(Found { start, id: record.id, value: value.into() });
            }
        }
        // Stable: what is stored comes first.
        found.sort_by_key(|found| (found.start, found.id));
        found.dedup_by_key(|found| (found.start, found.id));
        (known, found, list)
    })
    .await;
    let Ok((known, mut found, list)) = found else { return refused(500, "the account can't be read") };
    if !known && found.is_empty() {
        return refused(404, format!("no flow that records is named {:?}", list.flow));
    }
    let all = found.len();
    found.truncate(list.limit);
    let mut size = 0;
    let fits = found.iter().take_while(|found| {
        size += found.value.to_string().len() + 1;
        size <= MOST_BYTES
    });
    // One at least, or nobody gets on.
    let count = fits.count().max(1);
    found.truncate(count);
    let more = all > found.len();
    let next = found.last().filter(|_| more).map(|last| format!("{}.{}", last.start, last.id));
    let mut body = json!({ "recordings": found.into_iter().map(|found| found.value).collect::<Vec<_>>() });
    if let (Some(next), Some(body)) = (next, body.as_object_mut()) {
        body.insert("next".into(), next.into());
    }
    MethodReply { status: 200, body }
}

fn stored((_, output): &Place, line: &Line) -> Found {
    let start = u64::try_from(line.start).unwrap_or_default();
    let mut value = json!({
        "output": output, "state": "stored", "name": line.name, "url": format!("{}/{}", line.target, line.name),
        "start": clock::text(SystemTime::UNIX_EPOCH + Duration::from_millis(start)),
        "durationSeconds": seconds(line.milliseconds), "bytes": line.bytes,
    });
    if let (Some(event), Some(value)) = (&line.event, value.as_object_mut()) {
        value.insert("event".into(), event.clone().into());
    }
    Found { start: line.start, id: line.id, value }
}

/// A day whose files all began before `from`, by more than a file's length, or after `to`.
fn is_out_of(day: &std::path::Path, list: &List) -> bool {
    let name = day.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    let Ok(date) = name.parse::<jiff::civil::Date>() else { return true };
    let Ok(midnight) = date.to_zoned(jiff::tz::TimeZone::UTC) else { return true };
    const DAY: i64 = 86_400_000;
    let begin = midnight.timestamp().as_millisecond();
    begin >= list.to || begin.saturating_add(2 * DAY) < list.from
}

fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1000.0
}

fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Writing => "recording",
        Stage::Complete | Stage::Delivering => "waiting",
        Stage::Quarantined => "quarantined",
    }
}
