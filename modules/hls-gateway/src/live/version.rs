//! One version of a media playlist, and the multivariant playlist that leads to it: made once, shared by all who ask.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use av_media::Track;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use super::playlist::{Form, SUFFIX, Texts};
use super::window::Window;

/// To compress a longer text takes more than some milliseconds.
const LONG: usize = 1 << 18;
/// The newest segments say how much a stream takes.
const MOST_MEASURED: usize = 256;
/// Suffixes that one version is kept with: a stream has at most four keys.
const MOST_SUFFIXES: usize = 8;

/// A playlist that is sent.
#[derive(Debug)]
pub(crate) struct Text {
    pub body: Bytes,
    /// Without quotes; compressed, it has another.
    pub tag: String,
    gzip: OnceLock<Option<Bytes>>,
}

impl Text {
    fn new(body: String, tag: String) -> Arc<Self> {
        Arc::new(Self { body: body.into(), tag, gzip: OnceLock::new() })
    }

    /// Whether [`gzip`](Self::gzip) would hold up others on a thread that they share.
    pub(crate) fn is_long(&self) -> bool {
        self.body.len() > LONG && self.gzip.get().is_none()
    }

    /// Compressed, where that is worth it.
    pub(crate) fn gzip(&self) -> Option<Bytes> {
        let made = self.gzip.get_or_init(|| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&self.body).ok()?;
            encoder.finish().ok().map(Bytes::from).filter(|made| made.len() < self.body.len())
        });
        made.clone()
    }
}

/// What a request for a media playlist asks for (§6.2.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// `_HLS_msn` and `_HLS_part`.
    pub after: Option<(u64, Option<u64>)>,
    /// `_HLS_skip`.
    pub skip: bool,
}

/// Nobody can wait for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused;

/// One version.
#[derive(Debug)]
pub(crate) struct Version {
    /// Of the playlist's URL.
    pub name: String,
    /// It can be played: there is a finished segment.
    pub playable: bool,
    /// There is nothing but silence.
    pub silent: bool,
    pub ended: bool,
    /// EXT-X-TARGETDURATION, in seconds.
    pub target: u32,
    /// Tells parts of this playlist from all others.
    pub run: u64,
    /// Part that comes next.
    pub next_part: u64,
    /// The newest finished segment.
    last: Option<u64>,
    /// Its parts.
    last_parts: u64,
    /// Parts of the one after it.
    parts: u64,
    /// It lists parts.
    has_parts: bool,
    /// Distinguishes versions.
    serial: u64,
    texts: Texts,
    full: OnceLock<Arc<Text>>,
    delta: OnceLock<Arc<Text>>,
    keyed: Mutex<Vec<(Form, String, Arc<Text>)>>,
    pub(super) stream: StreamInf,
}

/// What a multivariant playlist says of the stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct StreamInf {
    /// Of the segment that had most, in bits per second.
    pub peak: u64,
    /// Of all of them.
    pub average: u64,
    pub looks: Looks,
}

/// What a stream is made of: it is known of segments as well that an earlier process has made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Looks {
    pub codecs: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<(u32, u32)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fps: Option<f64>,
}

impl Looks {
    pub(crate) fn of(tracks: &[Arc<Track>], fps: Option<f64>) -> Self {
        let codecs = tracks.iter().map(|track| codec(track)).collect::<Vec<_>>().join(",");
        let video = tracks.iter().map(|track| track.video).find(|video| video.width > 0 && video.height > 0);
        Self { codecs, size: video.map(|video| (video.width, video.height)), fps }
    }

    /// The same, but for what is measured of a rate of frames and never stands still.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let same_rate = match (self.fps, other.fps) {
            (Some(one), Some(other)) => (one - other).abs() <= other.abs() / 100.0,
            (one, other) => one == other,
        };
        same_rate && self.codecs == other.codecs && self.size == other.size
    }
}

impl StreamInf {
    pub(crate) fn of(window: &Window, looks: Looks) -> Self {
        let rate = |bytes: usize, nanos: i64| {
            let bits = (bytes as u128).saturating_mul(8_000_000_000);
            u64::try_from(bits / u128::try_from(nanos.max(1)).unwrap_or(1)).unwrap_or(u64::MAX)
        };
        let newest = || window.segments.iter().rev().take(MOST_MEASURED);
        let media = || newest().filter(|segment| !segment.gap && segment.size > 0);
        // A piece of a fraction of a second says nothing of the rate.
        let long = |duration: i64| duration.saturating_mul(2) >= window.numbers.target_nanos();
        let all = media().map(|segment| rate(segment.size, segment.duration)).max();
        let longer = media().filter(|segment| long(segment.duration));
        let peak = longer.map(|segment| rate(segment.size, segment.duration)).max().or(all).unwrap_or(0);
        let (bytes, nanos) = media().fold((0_usize, 0_i64), |(bytes, nanos), segment| {
            (bytes.saturating_add(segment.size), nanos.saturating_add(segment.duration))
        });
        Self { peak: peak.max(1), average: rate(bytes, nanos).clamp(1, peak.max(1)), looks }
    }

    fn text(&self, uri: &str, version: u8) -> String {
        let Self { peak, average, looks: Looks { codecs, size, fps } } = self;
        // What an older release has listed tells none until the publisher is back.
        let codecs = if codecs.is_empty() { String::new() } else { format!(",CODECS=\"{codecs}\"") };
        let size = size.map(|(width, height)| format!(",RESOLUTION={width}x{height}")).unwrap_or_default();
        let fps = fps.map(|fps| format!(",FRAME-RATE={fps:.3}")).unwrap_or_default();
        format!(
            "#EXTM3U\n#EXT-X-VERSION:{version}\n#EXT-X-STREAM-INF:BANDWIDTH={peak},AVERAGE-BANDWIDTH={average}\
             {codecs}{size}{fps}\n{uri}{SUFFIX}\n"
        )
    }
}

/// As HLS players want to read it: Safari knows `Opus` alone.
fn codec(track: &Track) -> &str {
    if track.codec == av_media::Codec::Opus { "Opus" } else { &track.codec_string }
}

impl Version {
    pub(crate) fn of(window: &mut Window, serial: u64, stream: StreamInf) -> Self {
        let texts = Texts::of(window);
        Self {
            name: window.name.clone(),
            playable: !window.segments.is_empty(),
            silent: window.segments.iter().chain(&window.open).all(|segment| segment.gap),
            ended: window.ended,
            target: window.numbers.target,
            run: window.run,
            next_part: window.next_part,
            last: window.segments.back().map(|segment| segment.number),
            last_parts: window.segments.back().map_or(0, |segment| segment.parts.len() as u64),
            parts: window.open.as_ref().map_or(0, |open| open.parts.len() as u64),
            has_parts: window.lists_parts(),
            serial,
            texts,
            full: OnceLock::new(),
            delta: OnceLock::new(),
            keyed: Mutex::default(),
            stream,
        }
    }

    /// Whether it holds what is asked for; an error where that is too far ahead to wait for it.
    pub(crate) fn answers(&self, asked: &Asked) -> Result<bool, Refused> {
        let Some(last) = self.last.filter(|_| self.playable) else { return Ok(false) };
        let Some((segment, part)) = asked.after else { return Ok(true) };
        if self.ended || segment <= last.saturating_sub(1) {
            return Ok(true);
        }
        if segment > last.saturating_add(2) {
            return Err(Refused);
        }
        let growing = last.saturating_add(1);
        Ok(match part {
            None => segment <= last,
            Some(part) if segment == growing => part < self.parts,
            // A part behind its segment's last is the first one of the next (§6.2.5.2).
            Some(part) if segment == last => self.parts > 0 || part < self.last_parts,
            Some(_) => false,
        })
    }

    /// The playlist. `suffix`: what each URI ends with.
    pub(crate) fn text(&self, form: Form, suffix: &str) -> Arc<Text> {
        let form = if self.texts.skipped == 0 { Form::Full } else { form };
        if suffix.is_empty() {
            let made = match form {
                Form::Full => &self.full,
                Form::Delta => &self.delta,
            };
            return made.get_or_init(|| self.make(form, "")).clone();
        }
        let mut keyed = self.keyed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((.., text)) = keyed.iter().find(|(made, with, _)| *made == form && with == suffix) {
            return text.clone();
        }
        let text = self.make(form, suffix);
        if keyed.len() < MOST_SUFFIXES {
            keyed.push((form, suffix.to_owned(), text.clone()));
        }
        text
    }

    fn make(&self, form: Form, suffix: &str) -> Arc<Text> {
        let Texts { head, map, older, skipped, newer } = &self.texts;
        let (text, tag) = match form {
            Form::Full => (format!("{head}{map}{}{newer}", older.concat()), "f"),
            Form::Delta => (format!("{head}#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}\n{newer}"), "d"),
        };
        Text::new(text.replace(SUFFIX, suffix), format!("{}-{}{tag}", self.run, self.serial))
    }

    /// The multivariant playlist. `directory`: where the media playlist lies from there.
    pub(crate) fn multivariant(&self, directory: &str, suffix: &str) -> Arc<Text> {
        let uri = format!("{directory}{}.m3u8", self.name);
        let text = self.stream.text(&uri, if self.has_parts { 9 } else { 8 }).replace(SUFFIX, suffix);
        let tag = tag_of(&text);
        Text::new(text, tag)
    }
}

/// Tells texts apart.
fn tag_of(text: &str) -> String {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
