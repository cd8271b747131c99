//! Direct methods of the recorder.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use av_edge::{MethodReply, whole_number};
use serde_json::{Map, Value, json};

use crate::lane::Lane;
use crate::recorder::Recorder;
use crate::spool::{Held, Place, Stage};
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
            None => refused(409, "the module is stopping"),
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
    let is_meant = |lane: &Arc<Lane>| lane.place().0 == flow && recorder.has_output(lane);
    let lanes: Vec<_> = recorder.lanes().into_iter().filter(is_meant).collect();
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
                usize::try_from(whole_number(value)?).ok().filter(|limit| (1..=MOST).contains(limit))?
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

/// What a page may show of a recording.
enum Found {
    Held(Box<Held>),
    Stored(usize, Box<Line>),
}

/// The first of what was found, one more than a page has: however much there is, no more is kept.
struct Page {
    list: List,
    found: BTreeMap<(i64, u64), Found>,
}

impl Page {
    fn new(list: List) -> Self {
        Self { list, found: BTreeMap::new() }
    }

    /// Whether something would be on it, or tell that there is more.
    fn takes(&self, start: i64, milliseconds: u64, id: u64) -> bool {
        let is_full = self.found.len() > self.list.limit;
        let is_before = |(last, _): (&(i64, u64), _)| (start, id) <= *last;
        self.list.wants(start, milliseconds, id)
            && (!is_full || self.found.last_key_value().is_some_and(is_before))
    }

    /// What comes later for the same recording takes its place.
    fn add(&mut self, start: i64, id: u64, found: Found) {
        self.found.insert((start, id), found);
        if self.found.len() > self.list.limit + 1 {
            self.found.pop_last();
        }
    }

    fn add_held(&mut self, held: &Held) {
        let record = &held.record;
        let start = record.start.unwrap_or_default();
        // What is being written has no length yet, and goes on.
        let length = if record.stage == Stage::Writing { u64::MAX } else { record.milliseconds };
        if record.flow == self.list.flow && self.takes(start, length, record.id) {
            self.add(start, record.id, Found::Held(Box::new(held.clone())));
        }
    }

    /// `place`: which of the account's it is.
    fn add_line(&mut self, place: usize, line: Line) {
        if self.takes(line.start, line.milliseconds, line.id) {
            self.add(line.start, line.id, Found::Stored(place, Box::new(line)));
        }
    }

    /// Whether files that began on a day, in milliseconds of Unix time, may be on it.
    fn wants_day(&self, begin: i64) -> bool {
        const DAY: i64 = 86_400_000;
        let end = begin.saturating_add(DAY);
        let last = self.found.last_key_value().filter(|_| self.found.len() > self.list.limit);
        // A file that began the day before may reach into what is asked for.
        begin < self.list.to
            && end.saturating_add(DAY) >= self.list.from
            && self.list.after.is_none_or(|(after, _)| end > after)
            && last.is_none_or(|((last, _), _)| begin <= *last)
    }
}

/// Of a page: hubs take 128 KiB of an answer.
const MOST_BYTES: usize = 100_000;

async fn list_recordings(recorder: &Recorder, list: List) -> MethodReply {
    let spool = match recorder.whole_spool() {
        Ok(spool) => spool,
        Err(why) => return refused(409, why),
    };
    let known = recorder.lanes().iter().any(|lane| lane.place().0 == list.flow);
    let found = tokio::task::spawn_blocking(move || {
        let account = Account::new(spool.dir());
        let places: Vec<_> = account.places().into_iter().filter(|(flow, _)| *flow == list.flow).collect();
        let known = known || !places.is_empty();
        let mut page = Page::new(list);
        // What is stored gets its line before it leaves the spool: in this order nothing is missed, and what is seen in
        // both is stored.
        spool.each(|held| page.add_held(held));
        for (number, place) in places.iter().enumerate() {
            for day in account.days(place) {
                if day_of(&day).is_some_and(|begin| page.wants_day(begin)) {
                    // A day that can't be read is told by the log of retention.
                    let _ = Account::each(&day, |line| page.add_line(number, line));
                }
            }
        }
        (known, places, page)
    })
    .await;
    let Ok((known, places, page)) = found else { return refused(500, "the account can't be read") };
    if !known && page.found.is_empty() {
        return refused(404, format!("no flow that records is named {:?}", page.list.flow));
    }
    let (all, mut size) = (page.found.len(), 0);
    let mut told: Vec<((i64, u64), Value)> = Vec::new();
    for (key, found) in page.found.into_iter().take(page.list.limit) {
        let value = match found {
            Found::Held(held) => waiting(&held),
            Found::Stored(place, line) => match places.get(place) {
                Some(place) => stored(place, &line),
                None => continue,
            },
        };
        size += value.to_string().len() + 1;
        // One at least, or nobody gets on.
        if size > MOST_BYTES && !told.is_empty() {
            break;
        }
        told.push((key, value));
    }
    let next = told.last().filter(|_| all > told.len()).map(|((start, id), _)| format!("{start}.{id}"));
    let recordings: Vec<_> = told.into_iter().map(|(_, value)| value).collect();
    let mut body = Map::from_iter([("recordings".to_owned(), recordings.into())]);
    body.extend(next.map(|next| ("next".to_owned(), next.into())));
    MethodReply { status: 200, body: body.into() }
}

fn waiting(held: &Held) -> Value {
    let record = &held.record;
    let mut value = Map::from_iter([
        ("output".to_owned(), record.output.clone().into()),
        ("state".to_owned(), stage(record.stage).into()),
        ("start".to_owned(), record.start().map(clock::text).into()),
        ("durationSeconds".to_owned(), seconds(record.milliseconds).into()),
        ("bytes".to_owned(), held.bytes.into()),
    ]);
    value.extend(record.event.clone().map(|event| ("event".to_owned(), event.into())));
    value.extend(record.name.clone().map(|name| ("name".to_owned(), name.into())));
    value.into()
}

fn stored((_, output): &Place, line: &Line) -> Value {
    let start = u64::try_from(line.start).unwrap_or_default();
    let mut value = json!({
        "output": output, "state": "stored", "name": line.name, "url": format!("{}/{}", line.target, line.name),
        "start": clock::text(SystemTime::UNIX_EPOCH + Duration::from_millis(start)),
        "durationSeconds": seconds(line.milliseconds), "bytes": line.bytes,
    });
    if let (Some(event), Some(value)) = (&line.event, value.as_object_mut()) {
        value.insert("event".into(), event.clone().into());
    }
    value
}

/// Where the day of a file of the account begins, in milliseconds of Unix time.
fn day_of(day: &std::path::Path) -> Option<i64> {
    let date: jiff::civil::Date = day.file_stem()?.to_str()?.parse().ok()?;
    Some(date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_millisecond())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::Record;

    fn list(more: Value) -> List {
        let mut payload = json!({ "flow": "cam" });
        payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        List::of(&payload).unwrap()
    }

    fn held(id: u64, start: i64, stage: Stage) -> Held {
        let mut record = Record::of_file_name(&format!("{id:012x}.cam.disk.mp4")).unwrap();
        (record.start, record.stage, record.milliseconds) = (Some(start), stage, 1000);
        Held { record, bytes: 1, room: 1, busy: false, broken: false, durable: None }
    }

    fn line(id: u64, start: i64) -> Line {
        Line {
            id,
            target: "file:///rec".into(),
            name: format!("{id}.mp4"),
            start,
            milliseconds: 1000,
            bytes: 1,
            event: None,
            aged: None,
            unsure: None,
            retention_days: 0,
        }
    }

    /// The recordings on a page, and whether there are more.
    fn page(list: List) -> (Vec<u64>, bool) {
        let limit = list.limit;
        let mut page = Page::new(list);
        for id in (0..10_000).rev() {
            page.add_held(&held(
                20_000 + id,
                20_000_000 + i64::try_from(id).unwrap() * 1000,
                Stage::Complete,
            ));
            page.add_line(0, line(id, i64::try_from(id).unwrap() * 1000));
            assert!(page.found.len() <= limit + 1);
        }
        let ids: Vec<_> = page.found.keys().map(|(_, id)| *id).collect();
        (ids.iter().copied().take(limit).collect(), ids.len() > limit)
    }

    #[test]
    fn a_page_holds_the_first_of_however_many_there_are_and_the_next_goes_on_behind_it() {
        assert_eq!(page(list(json!({ "limit": 3 }))), (vec![0, 1, 2], true));
        assert_eq!(page(list(json!({ "limit": 3, "next": "2000.2" }))), (vec![3, 4, 5], true));
        let last = list(json!({ "limit": 3, "next": "29998000.29998" }));
        assert_eq!(page(last), (vec![29_999], false));
        let times = json!({ "limit": 3, "from": "1970-01-01T00:00:10Z", "to": "1970-01-01T00:00:12Z" });
        // One that ends when that begins is among them.
        assert_eq!(page(list(times)), (vec![9, 10, 11], false));
    }

    #[test]
    fn what_is_in_the_spool_and_in_the_account_is_stored() {
        let mut page = Page::new(list(json!({})));
        page.add_held(&held(1, 1000, Stage::Delivering));
        page.add_held(&held(2, 2000, Stage::Writing));
        page.add_line(0, line(1, 1000));
        let found: Vec<_> = page.found.into_values().collect();
        assert!(matches!(&found[..], [Found::Stored(0, _), Found::Held(_)]));
    }

    #[test]
    fn days_that_cannot_be_on_the_page_are_not_read() {
        const DAY: i64 = 86_400_000;
        let wants = |list: List| {
            let page = Page::new(list);
            (0..6).filter(|day| page.wants_day(day * DAY)).collect::<Vec<_>>()
        };
        assert_eq!(wants(list(json!({}))), [0, 1, 2, 3, 4, 5]);
        let times = json!({ "from": "1970-01-04T12:00:00Z", "to": "1970-01-05T00:00:00Z" });
        assert_eq!(wants(list(times)), [2, 3]);
        assert_eq!(wants(list(json!({ "next": format!("{}.7", 4 * DAY + 5) }))), [4, 5]);
        let mut full = Page::new(list(json!({ "limit": 1 })));
        (0..3).for_each(|id| full.add_line(0, line(id, DAY + i64::try_from(id).unwrap())));
        assert!(full.wants_day(DAY) && !full.wants_day(2 * DAY));
    }
}
