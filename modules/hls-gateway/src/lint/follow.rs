//! Following a stream as a player does, and looking at everything that comes.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::Version;
use url::Url;

use super::attributes::Attributes;
use super::check;
use super::history::History;
use super::http::{self, Answer, Client, FetchError};
use super::media::{Init, Listed, Timeline, transport_stream};
use super::playlist::{Part, Playlist};
use super::report::Report;
use super::rule::{self, Fault, Rule};

/// Media playlists of one stream that are followed.
const MAX_RENDITIONS: usize = 8;
/// Answers in a row that can't be used.
const MAX_FAILURES: u32 = 5;
/// URLs whose content is remembered.
const MAX_KNOWN: usize = 100_000;

/// What was looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Looked {
    pub(super) versions: u64,
    pub(super) pieces: u64,
}

/// One run of the linter.
pub(super) struct Follower<'a, W> {
    pub(super) client: &'a Client,
    pub(super) report: &'a mut Report<W>,
    pub(super) looked: Looked,
    /// Digests of what was at a URL that never changes.
    known: HashMap<String, u64>,
    /// There is more than one media playlist.
    several: bool,
}

/// A playlist, and where it was in the end.
struct Found {
    list: Playlist,
    url: Url,
    version: Version,
}

/// A media playlist that is followed.
struct Rendition {
    url: Url,
    /// Where the playlist was, if it was elsewhere: what its addresses are relative to.
    base: Url,
    /// What is said of it, up to the first discontinuity: what comes then is said by another multivariant playlist.
    variant: Option<Attributes>,
    /// EXT-X-INDEPENDENT-SEGMENTS of the multivariant playlist.
    independent: bool,
    history: History,
    last: Option<Playlist>,
    inits: HashMap<String, Init>,
    parts: Timeline,
    segments: Timeline,
    /// The last part and segment that were fetched.
    part: Option<(u64, usize)>,
    segment: Option<u64>,
    /// Parts of a segment, for when it is whole.
    joined: Option<(u64, usize, Vec<u8>)>,
    failures: u32,
    due: Instant,
}

impl<'a, W: Write> Follower<'a, W> {
    pub(super) fn new(client: &'a Client, report: &'a mut Report<W>) -> Self {
        Self { client, report, looked: Looked::default(), known: HashMap::new(), several: false }
    }

    /// Follows `url` for so long.
    pub(super) async fn run(&mut self, url: Url, time: Duration) -> Result<(), FetchError> {
        let end = Instant::now() + time;
        let Some(Found { list: first, url: base, .. }) = self.playlist(&url, &url).await? else {
            return Err(FetchError::Playlist);
        };
        if url.scheme() != "https" {
            self.report.take(url.as_str(), vec![Fault::new(&rule::NOT_HTTPS, url.as_str())]);
        }
        let mut renditions: Vec<Rendition> = Vec::new();
        if first.is_multivariant() {
            let media = first.renditions.iter().filter_map(|rendition| Some((None, rendition.get("URI")?)));
            let all = first.variants.iter().map(|(variant, uri)| (Some(variant), &uri[..])).chain(media);
            for (variant, uri) in all {
                let Ok(url) = base.join(uri) else { continue };
                if renditions.len() < MAX_RENDITIONS && renditions.iter().all(|known| known.url != url) {
                    renditions.push(Rendition::new(url, variant.cloned(), first.independent));
                }
            }
        } else {
            self.report.take(url.as_str(), vec![Fault::new(&rule::BARE, url.as_str())]);
            renditions.push(Rendition::new(url.clone(), None, false));
        }
        self.several = renditions.len() > 1;
        let started = Instant::now();
        while Instant::now() < end && !renditions.is_empty() {
            for rendition in &mut renditions {
                if rendition.due <= Instant::now() {
                    self.step(rendition, started).await;
                }
            }
            for rendition in renditions.extract_if(.., |rendition| rendition.is_over()) {
                self.sum_up(rendition);
            }
            let Some(due) = renditions.iter().map(|rendition| rendition.due).min() else { break };
            tokio::time::sleep_until(due.min(end).into()).await;
        }
        for rendition in renditions {
            self.sum_up(rendition);
        }
        if first.is_multivariant() {
            self.once_more(&url, &first).await;
        }
        Ok(())
    }

    /// What only shows in all that there was of a media playlist.
    fn sum_up(&mut self, mut rendition: Rendition) {
        let faults = rendition.segments.ends(rendition.variant.as_ref());
        self.report.take(rendition.url.as_str(), faults);
    }

    /// What the multivariant playlist says in the end. That it can't be had is no fault: nobody has to ask again.
    async fn once_more(&mut self, url: &Url, first: &Playlist) {
        let Ok((_, answer)) = self.get(url.as_str(), url.path(), url).await else { return };
        if !answer.status.is_success() {
            return;
        }
        let said = |list: &Playlist| {
            let one = |(of, uri): &(Attributes, String)| {
                let said = ["CODECS", "RESOLUTION"].map(|name| of.get(name).unwrap_or("-").to_owned());
                format!("{uri} {}", said.join(" "))
            };
            list.variants.iter().map(one).collect::<Vec<_>>().join(", ")
        };
        let (was, is) = (said(first), said(&Playlist::of(&answer.body)));
        if was != is {
            let fault = Fault::new(&rule::VARIANTS_CHANGED, format!("{was} became {is}"));
            self.report.take(url.as_str(), vec![fault]);
        }
    }

    /// Fetches a playlist and looks at what holds of it by itself. `None` where it is none.
    async fn playlist(&mut self, place: &Url, url: &Url) -> Result<Option<Found>, FetchError> {
        let (url, answer) = self.get(place.as_str(), place.path(), url).await?;
        self.report.take(place.as_str(), http::headers(place.path(), answer.status, &answer.headers, true));
        if !answer.status.is_success() {
            return Ok(None);
        }
        self.looked.versions += 1;
        let list = Playlist::of(&answer.body);
        self.report.take(place.as_str(), check::playlist(&list));
        Ok(Some(Found { list, url, version: answer.version }))
    }

    /// Asks for what is said to be at `url`, and follows to where it is led.
    async fn get(&mut self, place: &str, shown: &str, url: &Url) -> Result<(Url, Answer), FetchError> {
        let mut at = url.clone();
        for _ in 0..=http::MAX_REDIRECTS {
            let answer = self.client.get(&at).await?;
            let Some(next) = answer.next(&at) else { return Ok((at, answer)) };
            let detail = format!("{shown}: {}", answer.status);
            self.report.take(place, vec![Fault::new(&rule::REDIRECT, detail)]);
            at = next;
        }
        Err(FetchError::Redirects)
    }

    /// One version of one media playlist, and what is new in it.
    async fn step(&mut self, rendition: &mut Rendition, started: Instant) {
        let place = rendition.url.clone();
        let (url, wanted) = rendition.request();
        let asked = Instant::now();
        let list = match self.playlist(&place, &url).await {
            Ok(Some(Found { list, url, version })) => {
                if list.has_parts() {
                    self.advise(&place, &url, version, &list);
                }
                rendition.base = url;
                list
            }
            Ok(None) => return rendition.failed(),
            Err(error) => {
                let detail = format!("{}: {}", place.path(), chain(&error));
                self.report.take(place.as_str(), vec![Fault::new(&rule::STATUS, detail)]);
                return rendition.failed();
            }
        };
        rendition.failures = 0;
        let target = list.target.unwrap_or(2.0);
        let mut faults = rendition.history.take(&list, started.elapsed().as_secs_f64());
        if let Some((number, part)) = wanted {
            let held = asked.elapsed().as_secs_f64();
            let newest = (list.next_number(), list.parts.len());
            let came = newest.0 > number || newest.0 == number && part.is_some_and(|part| newest.1 > part);
            if !came && !list.ended {
                faults.push(Fault::new(&rule::BLOCK_EARLY, format!("asked for {number} part {part:?}")));
            }
            if held > 3.0 * target + 0.5 {
                faults.push(Fault::new(&rule::BLOCK_LATE, format!("{held:.1} s, target {target} s")));
            }
        }
        self.report.take(place.as_str(), faults);
        self.removed(rendition, &list).await;
        self.delta(rendition, &list).await;
        self.media(rendition, &list).await;
        let blocks = list.control.as_ref().is_some_and(|control| control.is("CAN-BLOCK-RELOAD"));
        let pause = if blocks { 0.02 } else { list.part_target.unwrap_or(target / 2.0).clamp(0.1, 10.0) };
        rendition.due = Instant::now() + Duration::from_secs_f64(pause);
        rendition.last = Some(list);
    }

    /// What low latency lacks.
    fn advise(&mut self, place: &Url, url: &Url, version: Version, list: &Playlist) {
        let mut faults = Vec::new();
        if url.scheme() == "https" && version != Version::HTTP_2 {
            faults.push(Fault::new(&rule::NOT_HTTP2, format!("{}: {version:?}", url.path())));
        }
        if self.several && !list.reports && !list.ended {
            faults.push(Fault::new(&rule::NO_REPORT, place.path()));
        }
        self.report.take(place.as_str(), faults);
    }

    /// Every tenth version asks for a delta update as well.
    async fn delta(&mut self, rendition: &mut Rendition, list: &Playlist) {
        let can = list.control("CAN-SKIP-UNTIL").is_some();
        if !can || list.skipped.is_some() || !self.looked.versions.is_multiple_of(10) {
            return;
        }
        let mut url = rendition.url.clone();
        url.query_pairs_mut().append_pair("_HLS_skip", "YES");
        let place = rendition.url.clone();
        if let Ok(Some(delta)) = self.playlist(&place, &url).await {
            self.report.take(place.as_str(), rendition.history.delta(&delta.list).into_iter().collect());
        }
    }

    /// Fetches what was removed from the playlist just now, every fourth segment and one part of each: RFC 8216bis §6.2.2.
    async fn removed(&mut self, rendition: &Rendition, list: &Playlist) {
        let number = list.sequence.saturating_sub(1);
        let before = || rendition.last.iter().flat_map(|last| &last.segments).filter(|s| !s.gap && !s.opaque);
        let left = before().find(|s| s.number == number && number.is_multiple_of(4));
        if let Some(left) = left {
            self.is_there_still(rendition, &left.uri, &rule::REMOVED).await;
        }
        let has_parts = |number| list.segments.iter().any(|s| s.number == number && !s.parts.is_empty());
        let left = before().find(|s| !s.parts.is_empty() && !has_parts(s.number));
        let part = left.and_then(|left| left.parts.iter().find(|part| !part.gap));
        if let Some(part) = part.filter(|_| list.skipped.is_none()) {
            self.is_there_still(rendition, &part.uri, &rule::PART_REMOVED).await;
        }
    }

    async fn is_there_still(&mut self, rendition: &Rendition, uri: &str, rule: &'static Rule) {
        let Ok(url) = rendition.base.join(uri) else { return };
        let Ok((_, answer)) = self.get(rendition.url.as_str(), uri, &url).await else { return };
        if answer.status.is_success() {
            self.same(rendition.url.as_str(), &url, uri, &answer.body);
        } else {
            let fault = Fault::new(rule, format!("{uri}: {}", answer.status));
            self.report.take(rendition.url.as_str(), vec![fault]);
        }
    }

    /// What is at a URL now is what was there before.
    fn same(&mut self, place: &str, url: &Url, uri: &str, body: &Bytes) {
        let mut hasher = DefaultHasher::new();
        body.hash(&mut hasher);
        let digest = hasher.finish();
        if self.known.len() < MAX_KNOWN && *self.known.entry(url.to_string()).or_insert(digest) != digest {
            self.report.take(place, vec![Fault::new(&rule::TWO_CONTENTS, uri)]);
        }
    }

    /// Fetches the segments and parts that are new, and looks into them.
    async fn media(&mut self, rendition: &mut Rendition, list: &Playlist) {
        let newest = list.segments.last().map(|segment| segment.number);
        for segment in list.segments.iter().filter(|segment| !segment.gap && !segment.opaque) {
            let number = segment.number;
            if list.has_parts() {
                for index in 0..segment.parts.len() {
                    let begins = segment.begins && index == 0;
                    let key = (number, index);
                    self.part(rendition, key, &segment.parts, begins, segment.map.as_deref()).await;
                }
            }
            let is_new = rendition.segment.map_or(list.ended || Some(number) == newest, |last| number > last);
            if !is_new {
                continue;
            }
            let follows = rendition.segment == Some(number.wrapping_sub(1)) && !segment.begins;
            if rendition.segment.is_some() && segment.begins {
                let faults = rendition.segments.ends(rendition.variant.take().as_ref());
                self.report.take(rendition.url.as_str(), faults);
            }
            rendition.segment = Some(number);
            let Some(bytes) = self.fetch(rendition, &segment.uri).await else {
                rendition.segments.breaks();
                continue;
            };
            let place = rendition.url.to_string();
            if let Some(most) = rendition.variant.as_ref().and_then(|variant| variant.number("BANDWIDTH"))
                && let bits = bytes.len() as f64 * 8.0 / segment.duration
                && segment.duration >= list.target.unwrap_or_default() / 2.0
                && bits > 2.0 * most
            {
                let detail = format!("{}: {bits:.0} bit/s, BANDWIDTH is {most:.0}", segment.uri);
                self.report.take(&place, vec![Fault::new(&rule::LOW_BANDWIDTH, detail)]);
            }
            if bytes.first() == Some(&0x47) && segment.map.is_none() {
                self.report.take(&place, transport_stream(&segment.uri, &bytes));
                continue;
            }
            if let Some((of, count, joined)) = rendition.joined.take_if(|(of, ..)| *of == number)
                && count == segment.parts.len()
                && joined[..] != bytes[..]
            {
                let detail = format!("{}: {count} parts of segment {of}", segment.uri);
                self.report.take(&place, vec![Fault::new(&rule::PARTS_DIFFER, detail)]);
            }
            let anew = segment.begins || number.is_multiple_of(4);
            let Some(init) = self.init(rendition, segment.map.as_deref(), anew).await else {
                continue;
            };
            if let Some(variant) = &rendition.variant {
                self.report.take(&place, init.differs(variant));
            }
            let (uri, duration) = (&segment.uri[..], segment.duration);
            let independent = list.independent || rendition.independent;
            let listed = Listed { uri, duration, part: None, independent, follows };
            self.report.take(&place, rendition.segments.take(&init, listed, &bytes));
        }
        for index in (0..list.parts.len()).filter(|_| !list.open_opaque) {
            let key = (list.next_number(), index);
            let begins = list.open_begins && index == 0;
            self.part(rendition, key, &list.parts, begins, list.map.as_deref()).await;
        }
    }

    /// `key`: number of the segment whose parts these are, and which of them.
    async fn part(
        &mut self,
        rendition: &mut Rendition,
        key: (u64, usize),
        parts: &[Part],
        begins: bool,
        map: Option<&str>,
    ) {
        let Some((part, behind)) = parts.get(key.1..).and_then(<[Part]>::split_first) else { return };
        if part.gap || rendition.part.is_some_and(|last| last >= key) {
            return;
        }
        let follows = !begins
            && rendition.part.is_some_and(|(number, index)| {
                (number, index + 1) == key
                    || (number.saturating_add(1), 0) == key && rendition.was_last(number, index)
            });
        rendition.part = Some(key);
        let Some(bytes) = self.fetch(rendition, &part.uri).await else {
            rendition.parts.breaks();
            return;
        };
        match &mut rendition.joined {
            Some((number, count, joined)) if *number == key.0 && *count == key.1 => {
                joined.extend_from_slice(&bytes);
                *count += 1;
            }
            joined if key.1 == 0 => *joined = Some((key.0, 1, bytes.to_vec())),
            joined => *joined = None,
        }
        let Some(init) = self.init(rendition, map, begins).await else { return };
        let (uri, duration, independent) = (&part.uri[..], part.duration, part.independent);
        let gap = behind.iter().take_while(|part| part.gap).map(|part| part.duration).sum();
        let listed = Listed { uri, duration, part: Some((key.1, gap)), independent, follows };
        self.report.take(rendition.url.as_str(), rendition.parts.take(&init, listed, &bytes));
    }

    /// The init segment at `map`; fetched `anew` at a discontinuity, and now and then.
    async fn init(&mut self, rendition: &mut Rendition, map: Option<&str>, anew: bool) -> Option<Init> {
        let map = map?;
        if let Some(init) = rendition.inits.get(map).filter(|_| !anew) {
            return Some(init.clone());
        }
        let bytes = self.fetch(rendition, map).await?;
        let (init, faults) = Init::parse(&bytes);
        self.report.take(rendition.url.as_str(), faults);
        let init = init?;
        rendition.inits.insert(map.to_owned(), init.clone());
        Some(init)
    }

    /// What is at a URL that is listed, if it can be had.
    async fn fetch(&mut self, rendition: &Rendition, uri: &str) -> Option<Bytes> {
        let place = rendition.url.as_str();
        let url = rendition.base.join(uri).ok()?;
        let answer = match self.get(place, uri, &url).await {
            Ok((_, answer)) => answer,
            Err(error) => {
                let detail = format!("{uri}: {}", chain(&error));
                self.report.take(place, vec![Fault::new(&rule::STATUS, detail)]);
                return None;
            }
        };
        self.looked.pieces += 1;
        self.report.take(place, http::headers(uri, answer.status, &answer.headers, false));
        self.same(place, &url, uri, &answer.body);
        answer.status.is_success().then_some(answer.body)
    }
}

impl Rendition {
    fn new(url: Url, variant: Option<Attributes>, independent: bool) -> Self {
        Self {
            base: url.clone(),
            url,
            variant,
            independent,
            history: History::default(),
            last: None,
            inits: HashMap::new(),
            parts: Timeline::default(),
            segments: Timeline::default(),
            part: None,
            segment: None,
            joined: None,
            failures: 0,
            due: Instant::now(),
        }
    }

    /// There is no more to come, or nothing that can be used.
    fn is_over(&self) -> bool {
        self.failures >= MAX_FAILURES || self.last.as_ref().is_some_and(|last| last.ended)
    }

    fn failed(&mut self) {
        self.failures += 1;
        self.due = Instant::now() + Duration::from_secs(1);
    }

    /// What is asked for next: where the server can, what is not there yet.
    fn request(&self) -> (Url, Option<(u64, Option<usize>)>) {
        let mut url = self.url.clone();
        let Some(last) = &self.last else { return (url, None) };
        if !last.control.as_ref().is_some_and(|control| control.is("CAN-BLOCK-RELOAD")) {
            return (url, None);
        }
        let number = last.next_number();
        let part = last.has_parts().then_some(last.parts.len());
        url.query_pairs_mut().append_pair("_HLS_msn", &number.to_string());
        if let Some(part) = part {
            url.query_pairs_mut().append_pair("_HLS_part", &part.to_string());
        }
        (url, Some((number, part)))
    }

    /// Whether this was the last part of its segment.
    fn was_last(&self, number: u64, index: usize) -> bool {
        self.history.parts_of(number) == Some(index + 1)
    }
}

/// The error with all that is behind it.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
