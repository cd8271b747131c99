use std::collections::BTreeMap;
use std::sync::Mutex;

use av_flow::stream::{Anchor, Gap, GapCause, KnownBy};
use av_media::Track;
use bytes::Bytes;

use super::*;
use crate::live::attic::{Attic, Fate, Record, Slip};
use crate::live::shelf::{Found, Map};
use crate::live::{Asked, Fleeting, Form, Held, Pieces, Restored};
use crate::options::Variant;

const AVCC: &[u8] = &[
    1, 0x64, 0, 0x1e, 0xff, 0xe1, 0, 0x1a, 0x67, 0x64, 0, 0x1e, 0xac, 0xd9, 0x40, 0xa0, 0x2f, 0xf9, 0x70,
    0x11, 0, 0, 3, 0, 1, 0, 0, 3, 0, 0x32, 0x0f, 0x16, 0x2d, 0x96, 1, 0, 4, 0x68, 0xef, 0x8f, 0xcb, 0xfd,
    0xf8, 0xf8, 0,
];
const FRAME: i64 = 40_000_000;

/// What outlives the process, without a file.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Noted>>, Arc<Mutex<Option<Looks>>>, Arc<Mutex<bool>>);

/// The last number, what was promised, and the last discontinuity.
type Noted = (u64, Option<(Numbers, String)>, u64);

impl Memory for Notes {
    fn first_number(&mut self) -> u64 {
        let mut notes = self.0.lock().unwrap();
        notes.0 = notes.0.max(1000) + 100;
        notes.0
    }

    fn first_discontinuity(&mut self) -> u64 {
        self.0.lock().unwrap().2
    }

    fn used(&mut self, number: u64, discontinuities: u64) {
        let mut notes = self.0.lock().unwrap();
        notes.0 = notes.0.max(number);
        notes.2 = notes.2.max(discontinuities);
    }

    fn promised(&self, _: Shaped) -> Option<(Numbers, String)> {
        self.0.lock().unwrap().1.clone()
    }

    fn promise(&mut self, _: Shaped, numbers: Numbers, name: &str) {
        self.0.lock().unwrap().1 = Some((numbers, name.to_owned()));
        *self.2.lock().unwrap() = false;
    }

    fn has_ended(&self, _: Shaped) -> bool {
        *self.2.lock().unwrap()
    }

    fn end(&mut self) {
        *self.2.lock().unwrap() = true;
    }

    fn looked(&self, _: Shaped) -> Option<Looks> {
        self.1.lock().unwrap().clone()
    }

    fn looks(&mut self, looks: &Looks) {
        *self.1.lock().unwrap() = Some(looks.clone());
    }
}

/// A packager, what it has shown, and what players hold against it.
struct Rig {
    packager: Packager<Notes>,
    shelf: Shelf,
    now: Instant,
    /// Time of the next frame.
    at: i64,
    /// Distance of sync frames.
    gop: i64,
    versions: Vec<Version>,
    /// URI, map and discontinuity number of each segment that was ever listed.
    seen: BTreeMap<u64, (String, String, u64)>,
    constants: Option<Vec<String>>,
    /// What is in each frame, where that is to be known again.
    frame: Option<Bytes>,
}

impl Rig {
    fn new(notes: Notes, variant: Variant, gop: i64) -> Self {
        Self::with_window(notes, variant, gop, 30)
    }

    /// `window`: in seconds.
    fn with_window(notes: Notes, variant: Variant, gop: i64, window: u64) -> Self {
        let shaped = Shaped {
            variant,
            segment: Duration::from_secs(2),
            part: Duration::from_millis(200),
            window: Duration::from_secs(window),
        };
        let mut rig = Self {
            packager: Packager::new(shaped, notes),
            shelf: Shelf::default(),
            now: Instant::now(),
            at: 0,
            gop,
            versions: Vec::new(),
            seen: BTreeMap::new(),
            constants: None,
            frame: None,
        };
        rig.tracks(AVCC);
        rig.give(Item::Anchor(rig.anchor()));
        rig
    }

    fn anchor(&self) -> Anchor {
        let utc = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        Anchor { time: Timestamp::from_nanos(self.at), utc, known_by: KnownBy::Arrival, by_source: None }
    }

    fn tracks(&mut self, avcc: &[u8]) {
        let video = Track::h264(Bytes::copy_from_slice(avcc)).unwrap();
        let tracks = Tracks { video: Some(Arc::new(video)), audio: None };
        self.give(Item::Tracks(Arc::new(tracks)));
    }

    fn give(&mut self, item: Item) {
        let starts = matches!(&item, Item::Frame(frame) if frame.is_sync);
        let entry = Entry { item, arrived: self.now.into(), starts };
        self.packager.entry(entry, &mut self.shelf, self.now);
        self.look();
    }

    fn look(&mut self) {
        if let Some(version) = self.packager.version() {
            self.hold(&version);
            self.versions.push(version);
        }
    }

    /// Frames for that many seconds.
    fn play(&mut self, seconds: i64) {
        let end = self.at + seconds * 1_000_000_000;
        let first = self.at;
        while self.at < end {
            let is_sync = (self.at - first) % self.gop == 0;
            let time = Timestamp::from_nanos(self.at);
            let data = self.frame.clone().unwrap_or_else(|| Bytes::from(vec![0; 1000]));
            self.give(Item::Frame(Frame { kind: Kind::Video, dts: time, pts: time, is_sync, data }));
            self.at += FRAME;
            self.now += Duration::from_nanos(FRAME.unsigned_abs());
            if self.at % 1_000_000_000 == 0 {
                self.shelf.sweep(self.now);
            }
        }
    }

    /// Time in which nothing comes.
    fn wait(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while let Some(due) = self.packager.due().filter(|due| *due <= end) {
            self.now = due.max(self.now);
            self.packager.tick(&mut self.shelf, self.now);
            self.look();
        }
        self.at += (seconds * 1_000_000_000).cast_signed();
        self.now = end;
    }

    fn returns(&mut self) {
        let anchor = self.anchor();
        self.give(Item::Gap(Gap { cause: GapCause::Returned, anchor }));
    }

    fn text(&self) -> String {
        let text = self.versions.last().unwrap().text(Form::Full, "");
        String::from_utf8(text.body.to_vec()).unwrap()
    }

    /// The rules of every version, and of a version and those before it.
    fn hold(&mut self, version: &Version) {
        let text = String::from_utf8(version.text(Form::Full, "").body.to_vec()).unwrap();
        let value = |tag: &str| text.lines().find_map(|line| line.strip_prefix(tag)).map(str::to_owned);
        let constants = ["#EXT-X-TARGETDURATION:", "#EXT-X-SERVER-CONTROL:", "#EXT-X-PART-INF:"];
        let constants = constants.iter().filter_map(|tag| value(tag)).collect::<Vec<_>>();
        assert_eq!(self.constants.get_or_insert_with(|| constants.clone()), &constants);
        let target: u64 = value("#EXT-X-TARGETDURATION:").unwrap().parse().unwrap();
        let mut number: u64 = value("#EXT-X-MEDIA-SEQUENCE:").unwrap().parse().unwrap();
        let mut broken: u64 = value("#EXT-X-DISCONTINUITY-SEQUENCE:").unwrap().parse().unwrap();
        assert!(number > 0);
        let (mut map, mut gap, mut seconds) = (String::new(), false, 0.0);
        for line in text.lines() {
            if line == "#EXT-X-DISCONTINUITY" {
                broken += 1;
            } else if let Some(uri) = line.strip_prefix("#EXT-X-MAP:URI=") {
                map = uri.trim_matches('"').to_owned();
                assert!(self.shelf.map(&map).is_some(), "{map}");
            } else if line == "#EXT-X-GAP" {
                gap = true;
            } else if let Some(duration) = line.strip_prefix("#EXTINF:") {
                seconds = duration.trim_end_matches(',').parse::<f64>().unwrap();
                assert!(seconds.round() as u64 <= target, "{line}");
            } else if let Some(part) = line.strip_prefix("#EXT-X-PART:DURATION=") {
                let duration: f64 = part.split(',').next().unwrap().parse().unwrap();
                assert!(duration <= 0.216, "{line}");
                let name = part.split('"').nth(1).unwrap();
                let mut numbers = name.trim_start_matches('p').split('.').map(|number| number.parse::<u64>());
                let mut number = || numbers.next().unwrap().unwrap();
                let (run, index) = (number(), number());
                let is_gap = part.contains("GAP=YES");
                assert_eq!(self.shelf.part(run, index).unwrap().len() == 0, is_gap, "{line}");
            } else if !line.starts_with('#') {
                let known = self.seen.entry(number).or_insert_with(|| (line.to_owned(), map.clone(), broken));
                assert_eq!(known, &(line.to_owned(), map.clone(), broken), "one number, one path, one place");
                let len = match self.shelf.segment(number).unwrap() {
                    Found::Memory(pieces) => pieces.len(),
                    Found::Attic(len) => len,
                };
                assert_eq!(len == 0, gap, "{line}");
                assert!(seconds > 0.0);
                number += 1;
                gap = false;
            }
        }
    }
}

fn count(text: &str, tag: &str) -> usize {
    text.lines().filter(|line| line.starts_with(tag)).count()
}

#[test]
fn the_first_playlist_has_a_finished_segment_and_then_each_part_makes_a_version() {
    let mut rig = Rig::new(Notes::default(), Variant::LowLatency, 1_000_000_000);
    rig.play(60);
    let first = rig.versions.iter().find(|version| version.playable).unwrap();
    assert_eq!(first.answers(&Asked::default()), Ok(true));
    let text = rig.text();
    assert!(text.starts_with("#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:2\n"), "{text}");
    assert!(
        text.contains("HOLD-BACK=6.0,PART-HOLD-BACK=0.64800\n#EXT-X-PART-INF:PART-TARGET=0.21600\n"),
        "{text}"
    );
    assert_eq!(count(&text, "#EXTINF:2.00000,"), 15);
    assert!(text.lines().last().unwrap().starts_with("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"p"), "{text}");
    assert!(rig.versions.len() >= 280, "{}", rig.versions.len());
    assert_eq!(rig.packager.state(), State::Live);
}

#[test]
fn the_part_that_is_hinted_at_is_the_next_part_also_where_a_segment_ends() {
    let mut rig = Rig::new(Notes::default(), Variant::LowLatency, 1_000_000_000);
    rig.play(20);
    for pair in rig.versions.windows(2) {
        let text = |version: &Version| String::from_utf8(version.text(Form::Full, "").body.to_vec()).unwrap();
        let (before, after) = (text(&pair[0]), text(&pair[1]));
        let hint = before.lines().last().unwrap().rsplit_once("URI=").unwrap().1;
        if pair[0].next_part != pair[1].next_part {
            assert!(after.contains(&format!("#EXT-X-PART:DURATION=0.20000,URI={hint}")), "{hint} {after}");
        }
    }
}

#[test]
fn a_delta_update_leaves_out_what_is_old_and_nothing_else() {
    let mut rig = Rig::new(Notes::default(), Variant::LowLatency, 1_000_000_000);
    rig.play(60);
    let version = rig.versions.last().unwrap();
    let text = |form| String::from_utf8(version.text(form, "").body.to_vec()).unwrap();
    let (full, delta) = (text(Form::Full), text(Form::Delta));
    let skipped: usize = delta
        .lines()
        .find_map(|line| line.strip_prefix("#EXT-X-SKIP:SKIPPED-SEGMENTS="))
        .unwrap()
        .parse()
        .unwrap();
    assert!(skipped >= 8, "{skipped}");
    assert_eq!(count(&delta, "#EXTINF") + skipped, count(&full, "#EXTINF"));
    let (_, rest) = delta.split_once(&format!("SKIPPED-SEGMENTS={skipped}\n")).unwrap();
    assert!(full.ends_with(rest));
}

#[test]
fn a_request_waits_for_what_it_names_and_is_refused_when_that_is_far_ahead() {
    let mut rig = Rig::new(Notes::default(), Variant::LowLatency, 1_000_000_000);
    rig.play(21);
    let version = rig.versions.last().unwrap();
    let last = *rig.seen.keys().last().unwrap();
    let answers = |segment, part| version.answers(&Asked { after: Some((segment, part)), skip: false });
    assert_eq!(answers(last, None), Ok(true));
    assert_eq!(answers(1, None), Ok(true), "what has left the window gets all that there is");
    assert_eq!((answers(last + 1, None), answers(last + 1, Some(0))), (Ok(false), Ok(true)));
    assert_eq!((answers(last + 1, Some(4)), answers(last + 2, Some(0))), (Ok(false), Ok(false)));
    assert_eq!(answers(last, Some(99)), Ok(true), "behind a segment's last part is the next one's first");
    assert!(answers(last + 3, None).is_err());
}

#[test]
fn silence_is_told_in_real_time_and_what_comes_then_is_another_timeline() {
    let mut rig = Rig::new(Notes::default(), Variant::LowLatency, 1_000_000_000);
    rig.play(20);
    let before = rig.versions.len();
    rig.give(Item::Away);
    rig.wait(10);
    let text = rig.text();
    assert_eq!(rig.packager.state(), State::Silent);
    assert!(matches!(count(&text, "#EXT-X-GAP"), 4 | 5), "{text}");
    assert_eq!(count(&text, "#EXT-X-DISCONTINUITY\n"), 0);
    assert!(rig.versions.len() - before >= 45, "{}", rig.versions.len() - before);
    rig.returns();
    rig.play(10);
    let text = rig.text();
    assert_eq!(text.lines().filter(|line| *line == "#EXT-X-DISCONTINUITY").count(), 1, "{text}");
    assert_eq!(count(&text, "#EXT-X-MAP"), 1, "the same init segment: {text}");
    rig.give(Item::Away);
    rig.wait(60);
    assert!(rig.versions.last().unwrap().silent);
    rig.returns();
    rig.play(40);
    assert!(!rig.versions.last().unwrap().silent);
}

#[test]
fn pictures_that_fail_to_come_are_silence_too() {
    let mut rig = Rig::new(Notes::default(), Variant::LowLatency, 1_000_000_000);
    rig.play(10);
    rig.wait(5);
    assert_eq!(rig.packager.state(), State::Silent);
    rig.play(5);
    assert_eq!(rig.packager.state(), State::Live);
}

#[test]
fn another_configuration_has_another_init_segment_behind_a_discontinuity() {
    let mut rig = Rig::new(Notes::default(), Variant::LowLatency, 1_000_000_000);
    rig.play(10);
    let mut other = AVCC.to_vec();
    *other.last_mut().unwrap() = 0;
    other[43] ^= 1;
    rig.tracks(&other);
    rig.play(10);
    let text = rig.text();
    assert_eq!(count(&text, "#EXT-X-MAP"), 2, "{text}");
    assert_eq!(text.lines().filter(|line| *line == "#EXT-X-DISCONTINUITY").count(), 1, "{text}");
}

#[test]
fn after_a_crash_numbers_go_on_above_and_the_url_and_its_promises_are_the_same() {
    let notes = Notes::default();
    let mut rig = Rig::new(notes.clone(), Variant::LowLatency, 2_000_000_000);
    rig.play(30);
    let (name, constants) = (rig.versions.last().unwrap().name.clone(), rig.constants.clone());
    let last = *rig.seen.keys().last().unwrap();
    drop(rig);
    // The camera has another GOP now.
    let mut rig = Rig::new(notes, Variant::LowLatency, 500_000_000);
    assert_eq!(rig.packager.expected_name(), Some(name.clone()));
    rig.constants = constants;
    rig.play(30);
    assert_eq!(rig.versions.last().unwrap().name, name);
    assert!(*rig.seen.keys().next().unwrap() > last);
}

#[test]
fn a_stream_that_ended_is_over_and_one_that_begins_again_has_another_url() {
    let mut rig = Rig::new(Notes::default(), Variant::LowLatency, 1_000_000_000);
    rig.play(10);
    let name = rig.versions.last().unwrap().name.clone();
    rig.give(Item::Ended);
    assert!(rig.text().ends_with("#EXT-X-ENDLIST\n"));
    rig.tracks(AVCC);
    rig.play(10);
    assert_ne!(rig.versions.last().unwrap().name, name);
    assert!(!rig.text().contains("ENDLIST"));
}

#[test]
fn a_playlist_that_ended_is_over_for_the_next_process_as_well() {
    let (notes, shed) = (Notes::default(), Arc::new(Shed::default()));
    let mut rig = Rig::with_window(notes.clone(), Variant::LowLatency, 1_000_000_000, 600);
    rig.shelf.set_attic(shed.clone(), true);
    rig.play(10);
    let name = rig.versions.last().unwrap().name.clone();
    rig.give(Item::Ended);
    let mut rig = Rig::with_window(notes, Variant::LowLatency, 1_000_000_000, 600);
    rig.shelf.set_attic(shed.clone(), true);
    assert_eq!(rig.packager.expected_name(), None);
    rig.packager.restore(shed.restored(), &mut rig.shelf, rig.now);
    assert_eq!(rig.packager.state(), State::Waiting);
    rig.play(10);
    assert_ne!(rig.versions.last().unwrap().name, name);
    assert_eq!(rig.packager.expected_name(), Some(rig.versions.last().unwrap().name.clone()));
}

#[test]
fn without_low_latency_there_are_segments_alone() {
    let mut rig = Rig::new(Notes::default(), Variant::Fmp4, 1_000_000_000);
    rig.play(60);
    let text = rig.text();
    assert!(!text.contains("PART") && !text.contains("PRELOAD") && !text.contains("CAN-BLOCK"), "{text}");
    assert_eq!(count(&text, "#EXTINF:2.00000,"), 15);
    rig.give(Item::Away);
    rig.wait(10);
    assert!(count(&rig.text(), "#EXT-X-GAP") >= 4, "{}", rig.text());
}

#[test]
fn what_is_not_listed_any_more_can_still_be_fetched_for_a_while() {
    let mut rig = Rig::new(Notes::default(), Variant::LowLatency, 1_000_000_000);
    rig.play(120);
    let listed: u64 = rig
        .text()
        .lines()
        .find_map(|line| line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:"))
        .unwrap()
        .parse()
        .unwrap();
    let first = *rig.seen.keys().next().unwrap();
    assert!(rig.shelf.segment(listed - 1).is_some() && rig.shelf.segment(listed - 15).is_some());
    assert!(rig.shelf.segment(first).is_none());
    // 30 s that are listed, 32 s that were, and one that grows: nothing piles up.
    assert!(rig.shelf.size() < 66 * 26 * 1000, "{}", rig.shelf.size());
}

#[test]
fn where_there_is_no_room_the_window_is_shorter_but_never_below_three_targets() {
    let mut rig = Rig::new(Notes::default(), Variant::LowLatency, 1_000_000_000);
    rig.shelf.set_most(400_000);
    rig.play(60);
    assert!(rig.shelf.size() < 500_000, "{}", rig.shelf.size());
    assert!((6..10).contains(&count(&rig.text(), "#EXTINF")), "{}", rig.text());
    rig.shelf.set_most(0);
    rig.play(20);
    assert_eq!(count(&rig.text(), "#EXTINF"), 3);
}

#[test]
fn a_transport_stream_is_whole_packets_with_tables_in_front() {
    let mut rig = Rig::new(Notes::default(), Variant::Mpegts, 1_000_000_000);
    rig.play(20);
    let text = rig.text();
    assert!(!text.contains("PART") && !text.contains("EXT-X-MAP"), "{text}");
    assert!(text.lines().last().unwrap().ends_with(".ts"), "{text}");
    let Some(Found::Memory(pieces)) = rig.shelf.segment(*rig.seen.keys().last().unwrap()) else { panic!() };
    let bytes = pieces.iter().flatten().copied().collect::<Vec<_>>();
    assert!(bytes.len() % 188 == 0 && bytes.chunks(188).all(|packet| packet[0] == 0x47));
    assert_eq!(&bytes[1..3], [0x40, 0], "the program association table");
}

/// An attic in memory.
#[derive(Default)]
struct Shed(Mutex<Shedded>);

#[derive(Default)]
struct Shedded {
    name: String,
    records: BTreeMap<u64, Record>,
    maps: Vec<Arc<Map>>,
    reserved: u64,
    /// Bytes that there is room for.
    room: Option<usize>,
    fleeting: Arc<Fleeting>,
}

impl Attic for Shed {
    fn begin(&self, name: &str) {
        let mut shed = self.0.lock().unwrap();
        (shed.name, shed.records) = (name.to_owned(), BTreeMap::new());
    }

    fn keep(&self, record: Record, pieces: Pieces) -> Arc<Slip> {
        assert_eq!(record.len, pieces.len());
        let slip = Arc::new(Slip::default());
        let mut shed = self.0.lock().unwrap();
        let held: usize = shed.records.values().map(|record| record.len).sum();
        if shed.room.is_some_and(|room| held + record.len > room) {
            slip.settle(Fate::NoRoom);
        } else {
            slip.settle(Fate::Kept);
            shed.records.insert(record.number, record);
        }
        slip
    }

    fn hold(&self, len: usize) -> Option<Held> {
        self.0.lock().unwrap().fleeting.hold(len)
    }

    fn keep_map(&self, map: &Arc<Map>) {
        self.0.lock().unwrap().maps.push(map.clone());
    }

    fn reserve(&self, below: u64) {
        self.0.lock().unwrap().reserved = below;
    }

    fn remove(&self, number: u64) -> bool {
        self.0.lock().unwrap().records.remove(&number);
        true
    }
}

impl Shed {
    fn restored(&self) -> Restored {
        let shed = self.0.lock().unwrap();
        let records = shed.records.values().cloned().collect();
        Restored { name: shed.name.clone(), records, maps: shed.maps.clone(), reserved: shed.reserved }
    }
}

fn in_memory(rig: &Rig, number: u64) -> Option<bool> {
    rig.shelf.segment(number).map(|found| matches!(found, Found::Memory(_)))
}

#[test]
fn what_is_older_than_a_minute_is_in_the_attic_alone_and_still_listed() {
    let shed = Arc::new(Shed::default());
    let mut rig = Rig::with_window(Notes::default(), Variant::Fmp4, 1_000_000_000, 150);
    rig.shelf.set_attic(shed.clone(), true);
    rig.play(140);
    let (first, last) = (*rig.seen.keys().next().unwrap(), *rig.seen.keys().last().unwrap());
    assert_eq!(count(&rig.text(), "#EXTINF"), 69);
    assert_eq!((in_memory(&rig, first), in_memory(&rig, last)), (Some(false), Some(true)));
    assert!(rig.shelf.size() < 35 * 51_000, "{}", rig.shelf.size());
    rig.play(300);
    assert_eq!(in_memory(&rig, first), None);
    // What is listed, and for as long again what was.
    let kept = shed.0.lock().unwrap().records.len();
    assert!((148..155).contains(&kept), "{kept}");
}

#[test]
fn what_is_not_listed_any_more_leaves_memory_for_the_half_minute_that_it_stays() {
    let shed = Arc::new(Shed::default());
    let mut rig = Rig::new(Notes::default(), Variant::LowLatency, 1_000_000_000);
    rig.shelf.set_attic(shed.clone(), false);
    shed.0.lock().unwrap().fleeting.set_most(16 * 51_000);
    rig.play(34);
    assert!(shed.0.lock().unwrap().name.is_empty() && shed.0.lock().unwrap().records.is_empty());
    rig.play(66);
    let last = *rig.seen.keys().last().unwrap();
    assert!((last - 29..=last).all(|number| rig.shelf.segment(number).is_some()));
    let warm = (last - 29..=last).filter(|number| in_memory(&rig, *number) == Some(true)).count();
    assert!((16..=18).contains(&warm), "{warm}");
    assert!(rig.shelf.size() < 19 * 51_000, "{}", rig.shelf.size());
    assert!((13..16).contains(&shed.0.lock().unwrap().records.len()));
    // When nothing comes any more, that goes as well.
    rig.give(Item::Ended);
    for _ in 0..33 {
        rig.now += Duration::from_secs(1);
        rig.shelf.sweep(rig.now);
    }
    assert!(shed.0.lock().unwrap().records.is_empty());
    assert_eq!(in_memory(&rig, last - 16), None);
}

#[test]
fn where_so_much_would_be_written_to_the_disk_memory_keeps_it() {
    let shed = Arc::new(Shed::default());
    let mut rig = Rig::new(Notes::default(), Variant::LowLatency, 1_000_000_000);
    rig.shelf.set_attic(shed.clone(), false);
    shed.0.lock().unwrap().fleeting.set_most(5 * 51_000);
    rig.play(100);
    let last = *rig.seen.keys().last().unwrap();
    assert!((last - 29..=last).all(|number| rig.shelf.segment(number).is_some()));
    let records = shed.0.lock().unwrap().records.len();
    assert!((2..=5).contains(&records), "{records}");
    assert!(rig.shelf.size() > 25 * 51_000, "{}", rig.shelf.size());
}

#[test]
fn a_longer_window_keeps_in_memory_what_would_be_written_to_the_disk() {
    let shed = Arc::new(Shed::default());
    let mut rig = Rig::with_window(Notes::default(), Variant::LowLatency, 1_000_000_000, 100);
    rig.shelf.set_attic(shed.clone(), false);
    shed.0.lock().unwrap().fleeting.set_most(16 * 51_000);
    rig.play(300);
    let records = shed.0.lock().unwrap().records.len();
    assert!((13..16).contains(&records), "{records}");
}

#[test]
fn what_memory_has_no_room_for_goes_to_the_attic() {
    let shed = Arc::new(Shed::default());
    let mut rig = Rig::new(Notes::default(), Variant::LowLatency, 1_000_000_000);
    rig.shelf.set_attic(shed.clone(), false);
    rig.play(34);
    rig.shelf.set_most(850_000);
    rig.play(100);
    // All is there: what is listed, and for as long again what was.
    assert_eq!(count(&rig.text(), "#EXTINF"), 15);
    let last = *rig.seen.keys().last().unwrap();
    assert!((last - 29..=last).all(|number| rig.shelf.segment(number).is_some()));
    assert_eq!((in_memory(&rig, last - 20), in_memory(&rig, last)), (Some(false), Some(true)));
    assert!(rig.shelf.size() <= 960_000, "{}", rig.shelf.size());
    assert!((10..25).contains(&shed.0.lock().unwrap().records.len()));
    // An attic that takes nothing costs what is not listed any more.
    shed.0.lock().unwrap().room = Some(0);
    rig.play(100);
    assert!(rig.shelf.size() <= 960_000, "{}", rig.shelf.size());
    assert_eq!(count(&rig.text(), "#EXTINF"), 15);
    assert!(rig.shelf.segment(*rig.seen.keys().last().unwrap() - 20).is_none());
}

#[test]
fn a_long_window_of_low_latency_keeps_no_more_than_a_minute_in_memory() {
    let shed = Arc::new(Shed::default());
    let mut rig = Rig::with_window(Notes::default(), Variant::LowLatency, 1_000_000_000, 3600);
    rig.shelf.set_attic(shed, true);
    let frame = Bytes::from(vec![0; 1000]);
    rig.frame = Some(frame.clone());
    rig.play(30);
    // Every part and segment that has the frame holds a piece of its memory.
    let held = |rig: &Rig| rig.shelf.held(&frame);
    let before = held(&rig);
    assert!((740..=760).contains(&before), "{before}");
    rig.play(300);
    assert!(held(&rig) < 35 * 50, "{}", held(&rig));
    assert!(rig.shelf.size() < 35 * 51_000 + 26_000, "{}", rig.shelf.size());
    // Parts are there for three target durations after their tags have gone.
    let text = rig.text();
    let name = text.lines().find_map(|line| line.strip_prefix("#EXT-X-PART:")?.split('"').nth(1)).unwrap();
    let mut numbers = name[1..].split('.').map_while(|number| number.parse::<u64>().ok());
    let (run, first) = (numbers.next().unwrap(), numbers.next().unwrap());
    assert!(
        rig.shelf.part(run, first - 20).is_some() && rig.shelf.part(run, first - 31).is_none(),
        "{first}"
    );
    // And where memory is full, no longer than they are listed.
    rig.shelf.set_most(400_000);
    rig.play(4);
    assert!(rig.shelf.size() < 500_000, "{}", rig.shelf.size());
}

#[test]
fn an_hour_of_silence_is_as_short_a_list_of_parts_as_any() {
    let (notes, shed) = (Notes::default(), Arc::new(Shed::default()));
    let mut rig = Rig::with_window(notes.clone(), Variant::LowLatency, 1_000_000_000, 7200);
    rig.shelf.set_attic(shed.clone(), true);
    rig.play(30);
    rig.give(Item::Away);
    let is_short = |rig: &Rig| {
        let version = rig.versions.last().unwrap();
        let delta = String::from_utf8(version.text(Form::Delta, "").body.to_vec()).unwrap();
        assert!(count(&delta, "#EXT-X-PART:") <= 40, "{}", count(&delta, "#EXT-X-PART:"));
        assert!(delta.contains("#EXT-X-SKIP:") && delta.len() < 4000, "{}", delta.len());
    };
    rig.wait(300);
    is_short(&rig);
    rig.returns();
    rig.play(4);
    assert!(rig.text().matches("INDEPENDENT=YES").count() >= 2);
    let constants = rig.constants.clone();
    let mut rig = Rig::with_window(notes, Variant::LowLatency, 1_000_000_000, 7200);
    rig.constants = constants;
    rig.shelf.set_attic(shed.clone(), true);
    rig.packager.restore(shed.restored(), &mut rig.shelf, rig.now);
    rig.look();
    rig.wait(60);
    is_short(&rig);
}

#[test]
fn parts_of_the_playlist_before_can_be_fetched_for_three_targets_more() {
    let mut rig = Rig::new(Notes::default(), Variant::LowLatency, 1_000_000_000);
    rig.play(20);
    let version = rig.versions.last().unwrap();
    let (run, last) = (version.run, version.next_part - 1);
    rig.give(Item::Ended);
    rig.tracks(AVCC);
    rig.constants = None;
    rig.play(4);
    assert_ne!(rig.versions.last().unwrap().run, run);
    assert!(rig.shelf.part(run, last).is_some());
    rig.play(6);
    assert!(rig.shelf.part(run, last).is_none());
}

#[test]
fn parts_of_gaps_can_be_fetched_for_as_long_as_others() {
    let mut rig = Rig::new(Notes::default(), Variant::LowLatency, 1_000_000_000);
    rig.play(10);
    rig.give(Item::Away);
    rig.wait(9);
    let version = rig.versions.last().unwrap();
    let (run, last) = (version.run, version.next_part);
    let listed = |rig: &Rig, part: u64| rig.text().contains(&format!("\"p{run}.{part}.m4s\",GAP=YES"));
    let first = (0..last).find(|part| listed(&rig, *part)).unwrap();
    rig.wait(4);
    assert!(!listed(&rig, first) && rig.shelf.part(run, first).is_some_and(|part| part.len() == 0));
    rig.wait(9);
    assert!(rig.shelf.part(run, first).is_none());
}

#[test]
fn where_the_attic_has_no_room_the_window_is_shorter_and_grows_again_when_it_has() {
    let shed = Arc::new(Shed::default());
    let mut rig = Rig::with_window(Notes::default(), Variant::Fmp4, 1_000_000_000, 600);
    rig.shelf.set_attic(shed.clone(), true);
    shed.0.lock().unwrap().room = Some(60 * 51_000);
    rig.play(320);
    // A minute more is in memory.
    let listed = count(&rig.text(), "#EXTINF");
    assert!((55..=100).contains(&listed) && rig.shelf.size() < 45 * 51_000, "{listed} {}", rig.shelf.size());
    shed.0.lock().unwrap().room = None;
    rig.play(100);
    assert!(count(&rig.text(), "#EXTINF") > listed + 40, "{}", count(&rig.text(), "#EXTINF"));
}

#[test]
fn after_a_crash_old_segments_are_listed_and_numbers_and_discontinuities_go_on() {
    let (notes, shed) = (Notes::default(), Arc::new(Shed::default()));
    let mut rig = Rig::with_window(notes.clone(), Variant::LowLatency, 1_000_000_000, 600);
    rig.shelf.set_attic(shed.clone(), true);
    rig.play(30);
    rig.give(Item::Away);
    rig.wait(10);
    rig.returns();
    rig.play(30);
    let (seen, constants) = (rig.seen.clone(), rig.constants.clone());
    let looks = rig.versions.last().unwrap().stream.looks.clone();
    assert!(looks.size.is_some() && looks.fps.is_some() && !looks.codecs.is_empty(), "{looks:?}");
    let mut rig = Rig::with_window(notes, Variant::LowLatency, 1_000_000_000, 600);
    // What was listed before is what is listed now, and what players hold against it.
    (rig.seen, rig.constants) = (seen.clone(), constants);
    rig.shelf.set_attic(shed.clone(), true);
    rig.packager.restore(shed.restored(), &mut rig.shelf, rig.now);
    rig.look();
    let text = rig.text();
    let lost = count(&text, "#EXTINF") - seen.len();
    assert!((4..=8).contains(&lost), "{lost}");
    assert_eq!(rig.packager.state(), State::Silent);
    assert_eq!(rig.versions.last().unwrap().stream.looks, looks);
    rig.wait(4);
    rig.play(20);
    let text = rig.text();
    assert_eq!(text.lines().filter(|line| *line == "#EXT-X-DISCONTINUITY").count(), 2, "{text}");
    assert_eq!(count(&text, "#EXT-X-MAP"), 1, "{text}");
    assert!(*rig.seen.keys().last().unwrap() > *seen.keys().last().unwrap() + 4);
    assert_eq!(rig.packager.state(), State::Live);
}

#[test]
fn a_stream_that_is_read_anew_goes_on_without_a_break_and_with_another_window() {
    let mut rig = Rig::new(Notes::default(), Variant::LowLatency, 1_000_000_000);
    rig.play(25);
    let before = rig.text();
    let (at, tracks) = (rig.at, rig.packager.tracks.clone());
    let shaped = Shaped { window: Duration::from_secs(60), ..rig.packager.shaped };
    rig.packager.resume(shaped, true, &mut rig.shelf, rig.now);
    rig.look();
    assert_eq!(count(&rig.text(), "#EXTINF"), count(&before, "#EXTINF"));
    // The reader begins at the last sync frame.
    rig.give(Item::Tracks(tracks));
    rig.give(Item::Anchor(rig.anchor()));
    (rig.at, rig.gop) = (at - 1_000_000_000, 1_000_000_000);
    rig.play(41);
    let text = rig.text();
    assert!(!text.contains("#EXT-X-DISCONTINUITY\n"), "{text}");
    assert_eq!(count(&text, "#EXTINF:2.00000,"), 30, "{text}");
}

#[test]
fn a_configuration_that_needs_no_other_numbers_goes_on_in_the_same_playlist() {
    let mut rig = Rig::new(Notes::default(), Variant::LowLatency, 2_000_000_000);
    rig.play(25);
    let before = rig.packager.shaped;
    let with = |segment: u64, part: u64| Shaped {
        segment: Duration::from_secs(segment),
        part: Duration::from_millis(part),
        ..before
    };
    for other in [with(3, 200), with(2, 400), Shaped { variant: Variant::Fmp4, ..before }] {
        assert!(!rig.packager.can_be(other), "{other:?}");
    }
    assert!(rig.packager.can_be(with(1, 210)));
    let (at, tracks) = (rig.at, rig.packager.tracks.clone());
    rig.packager.resume(with(1, 210), true, &mut rig.shelf, rig.now);
    rig.give(Item::Tracks(tracks));
    rig.give(Item::Anchor(rig.anchor()));
    (rig.at, rig.gop) = (at - 2_000_000_000, 2_000_000_000);
    rig.play(41);
    let text = rig.text();
    assert!(!text.contains("#EXT-X-DISCONTINUITY\n"), "{text}");
    // From now on key frames are a second apart, and so are segments.
    rig.gop = 1_000_000_000;
    rig.play(10);
    assert!(rig.text().contains("#EXTINF:1.00000,"), "{}", rig.text());
}

#[test]
fn another_stream_goes_on_in_the_same_playlist_behind_a_discontinuity() {
    let mut rig = Rig::new(Notes::default(), Variant::LowLatency, 1_000_000_000);
    rig.play(20);
    let shaped = rig.packager.shaped;
    rig.packager.resume(shaped, false, &mut rig.shelf, rig.now);
    rig.at = 0;
    rig.tracks(AVCC);
    rig.give(Item::Anchor(rig.anchor()));
    rig.play(6);
    assert_eq!(rig.text().lines().filter(|line| *line == "#EXT-X-DISCONTINUITY").count(), 1);
}

#[test]
fn pictures_that_nothing_can_begin_with_are_silence_until_a_sync_frame_comes() {
    let mut rig = Rig::new(Notes::default(), Variant::LowLatency, 1_000_000_000);
    rig.play(20);
    let anchor = rig.anchor();
    rig.give(Item::Gap(Gap { cause: GapCause::Jump { nanos: 0 }, anchor }));
    let before = rig.versions.len();
    for _ in 0..5_000_000_000 / FRAME {
        let time = Timestamp::from_nanos(rig.at);
        let data = Bytes::from(vec![0; 1000]);
        rig.give(Item::Frame(Frame { kind: Kind::Video, dts: time, pts: time, is_sync: false, data }));
        rig.at += FRAME;
        rig.now += Duration::from_nanos(FRAME.unsigned_abs());
        if rig.packager.due().is_some_and(|due| due <= rig.now) {
            rig.packager.tick(&mut rig.shelf, rig.now);
            rig.look();
        }
    }
    assert_eq!(rig.packager.state(), State::Silent);
    assert!(rig.versions.len() > before + 10 && rig.text().contains("#EXT-X-GAP"));
    rig.play(20);
    assert_eq!(rig.packager.state(), State::Live);
}

#[test]
fn the_codecs_of_a_stream_are_told_while_its_tracks_change() {
    let mut rig = Rig::new(Notes::default(), Variant::LowLatency, 1_000_000_000);
    rig.play(20);
    let codecs = |version: &Version| {
        let text = String::from_utf8(version.multivariant("", "").body.to_vec()).unwrap();
        text.split_once("CODECS=\"").unwrap().1.split('"').next().unwrap().to_owned()
    };
    let told = codecs(rig.versions.last().unwrap());
    let before = rig.versions.len();
    rig.tracks(AVCC);
    rig.wait(3);
    assert!(rig.versions.len() > before && told == "avc1.64001e", "{told}");
    assert_eq!(codecs(rig.versions.last().unwrap()), told);
}

#[test]
fn another_stream_under_the_same_name_is_silent_until_it_comes() {
    let mut rig = Rig::new(Notes::default(), Variant::LowLatency, 1_000_000_000);
    rig.play(20);
    let shaped = rig.packager.shaped;
    rig.packager.resume(shaped, false, &mut rig.shelf, rig.now);
    rig.wait(5);
    assert_eq!(rig.packager.state(), State::Silent);
    assert!(rig.text().contains("#EXT-X-GAP"));
}

#[test]
fn times_that_jump_ahead_have_another_timeline_at_the_next_sync_frame_with_dates_that_are_true() {
    let mut rig = Rig::new(Notes::default(), Variant::LowLatency, 1_000_000_000);
    rig.play(4);
    assert!(rig.text().contains("#EXT-X-PROGRAM-DATE-TIME:2027-01-15T08:00:02.000Z\n"), "{}", rig.text());
    // Five seconds that took none.
    rig.at += 5_000_000_000;
    rig.play(4);
    let text = rig.text();
    assert!(
        text.contains("#EXT-X-DISCONTINUITY\n#EXT-X-PROGRAM-DATE-TIME:2027-01-15T08:00:04.000Z\n"),
        "{text}"
    );
    assert_eq!(text.matches("#EXT-X-DISCONTINUITY\n").count(), 1, "{text}");
    assert!(!text.contains("GAP"), "{text}");
}

#[test]
fn parts_stay_while_segments_of_the_playlist_before_go() {
    let mut rig = Rig::new(Notes::default(), Variant::LowLatency, 1_000_000_000);
    // The playlist before has counted more parts than this one will.
    rig.play(120);
    rig.give(Item::Ended);
    rig.tracks(AVCC);
    rig.constants = None;
    rig.play(60);
}

#[test]
fn segments_of_a_stream_that_ended_go_when_it_has_begun_again() {
    let mut rig = Rig::new(Notes::default(), Variant::LowLatency, 1_000_000_000);
    rig.play(20);
    let old = *rig.seen.keys().next().unwrap();
    rig.give(Item::Ended);
    rig.tracks(AVCC);
    rig.constants = None;
    rig.play(10);
    assert!(rig.shelf.segment(old).is_some());
    rig.play(60);
    assert!(rig.shelf.segment(old).is_none());
}

#[test]
fn a_playlist_that_is_about_to_be_replaced_goes_on_with_gaps() {
    let mut rig = Rig::new(Notes::default(), Variant::LowLatency, 1_000_000_000);
    rig.play(6);
    rig.packager.retire(&mut rig.shelf, rig.now);
    rig.look();
    assert!(!rig.text().contains("GAP"));
    rig.wait(7);
    assert!(count(&rig.text(), "#EXT-X-GAP") >= 3, "{}", rig.text());
}

/// A rig of pictures and sound, AAC of 48 kHz, of which none has come yet.
fn with_sound(variant: Variant) -> Rig {
    let mut rig = Rig::new(Notes::default(), variant, 1_000_000_000);
    let video = Track::h264(Bytes::copy_from_slice(AVCC)).unwrap();
    let audio = Track::aac(Bytes::from_static(b"\x11\x90")).unwrap();
    let tracks = Tracks { video: Some(Arc::new(video)), audio: Some(Arc::new(audio)) };
    rig.give(Item::Tracks(Arc::new(tracks)));
    rig
}

#[test]
fn every_segment_of_a_stream_whose_sound_does_not_come_has_sound() {
    for variant in [Variant::LowLatency, Variant::Fmp4, Variant::Mpegts] {
        let mut rig = with_sound(variant);
        rig.play(20);
        let text = rig.text();
        let segments = rig.seen.keys().copied().collect::<Vec<_>>();
        assert!(segments.len() > 5, "{text}");
        for number in segments {
            let Some(Found::Memory(pieces)) = rig.shelf.segment(number) else { panic!("{number}") };
            let bytes = pieces.iter().flat_map(|piece| piece.to_vec()).collect::<Vec<_>>();
            // An AAC frame of two silent channels, 94 of which are two seconds.
            let silent = bytes.windows(7).filter(|seven| *seven == [0x20, 0, 0, 0, 0, 0, 0x0e]).count();
            // Packets of a transport stream cut some in two.
            let least = if variant == Variant::Mpegts { 80 } else { 93 };
            assert!((least..=94).contains(&silent), "{variant:?} {number}: {silent}");
        }
    }
}

#[test]
fn sound_without_the_pictures_that_were_announced_is_lacking_after_five_seconds() {
    let mut rig = with_sound(Variant::LowLatency);
    for index in 0..300 {
        let time = Timestamp::from_nanos(index * 21_333_333);
        let data = Bytes::from_static(&[0; 100]);
        rig.give(Item::Frame(Frame { kind: Kind::Audio, dts: time, pts: time, is_sync: true, data }));
        let lacks = rig.packager.lacks_pictures(rig.now);
        assert_eq!(lacks, index * 21_333_333 >= 5_000_000_000, "{index}");
        rig.now += Duration::from_nanos(21_333_333);
    }
    rig.at = 7_000_000_000;
    rig.play(1);
    assert!(!rig.packager.lacks_pictures(rig.now));
}

#[test]
fn the_init_segment_of_each_listed_segment_is_there_however_many_there_are() {
    let mut rig = Rig::with_window(Notes::default(), Variant::Fmp4, 1_000_000_000, 400);
    for index in 0..100 {
        let mut avcc = AVCC.to_vec();
        avcc[43] = index;
        rig.tracks(&avcc);
        // Each version is checked for its maps.
        rig.play(3);
    }
    assert!(count(&rig.text(), "#EXT-X-MAP") > 90);
    let mut rig = Rig::with_window(Notes::default(), Variant::Fmp4, 1_000_000_000, 30);
    for index in 0..=255 {
        let mut avcc = AVCC.to_vec();
        avcc[43] = index;
        rig.tracks(&avcc);
        rig.play(3);
    }
    let name = |index: u8| {
        let mut avcc = AVCC.to_vec();
        avcc[43] = index;
        let video = Some(Arc::new(Track::h264(avcc.into()).unwrap()));
        Muxer::new(Variant::Fmp4, &Tracks { video, audio: None }).unwrap().map().unwrap().name.clone()
    };
    assert!(rig.shelf.map(&name(0)).is_none() && rig.shelf.map(&name(255)).is_some());
}
