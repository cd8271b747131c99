//! Flows as JSON: reported properties, and the counters beside them.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use av_media::{Kind, VideoFormat};
use serde_json::{Map, Value, json};

use super::counters::KINDS;
use super::flow::{Body, Flow, FlowState};
use super::line::{Line, Output};
use crate::extension::Extension;
use crate::stream::{Current, InputStatus, Latency, LeftOut, State};

/// How much is told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// Reported properties.
    Properties,
    /// Those and counters: `getStatus`, `/status`, the `stats` output.
    Counters,
}

/// For the reports of one module.
pub(super) struct Reporter {
    pub(super) detail: Detail,
    /// Replaces wildcard hosts in URLs.
    pub(super) public_host: Option<String>,
}

/// UTC, to the second.
pub(super) fn timestamp(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string()
}

impl Reporter {
    /// One flow. `instances`: which instances of a pattern are listed (from, how many), with counters only.
    pub(super) fn flow(&self, flow: &mut Flow, instances: (usize, usize)) -> Value {
        let state = flow.state();
        let mut out = Map::new();
        out.insert("state".into(), state.as_str().into());
        out.insert("since".into(), timestamp(flow.since).into());
        if let Some(version) = flow.using_version {
            out.insert("usingVersion".into(), version.into());
        }
        match &flow.body {
            _ if !flow.config.enabled => {}
            Body::Line(line) => self.line(line, &mut out),
            Body::Pattern(pattern) => {
                let (from, limit) = instances;
                let page = from..from.saturating_add(limit);
                let (mut receiving, mut active) = (false, 0);
                let (shown, refused, _) = pattern.shared.look(|name, line| {
                    receiving |= line.stream.has_publisher();
                    active += 1;
                    // Of a thousand instances only those that are asked for.
                    let is_shown = self.detail == Detail::Counters && page.contains(&(active - 1));
                    is_shown.then(|| {
                        let mut one = Map::from_iter([("match".to_owned(), name.into())]);
                        self.line(line, &mut one);
                        Value::Object(one)
                    })
                });
                let mut input = json!({ "state": if receiving { "receiving" } else { "waiting" } });
                let Current { state, trouble, remark, .. } = pattern.status.status.get();
                if matches!(state, State::Retrying | State::Failed) {
                    input =
                        json!({ "state": input_word(state), "error": trouble.map(|trouble| trouble.text) });
                } else if let (Some(remark), Some(input)) = (remark, input.as_object_mut()) {
                    input.insert("error".into(), remark.into());
                }
                out.insert("input".into(), input);
                let mut counts = Map::from_iter([
                    ("active".to_owned(), active.into()),
                    ("refused".to_owned(), refused.into()),
                ]);
                if self.detail == Detail::Counters {
                    counts.insert("list".into(), shown.into_iter().flatten().collect());
                    if active > page.end {
                        counts.insert("next".into(), page.end.into());
                    }
                }
                out.insert("instances".into(), counts.into());
            }
        }
        Value::Object(out)
    }

    fn line(&self, line: &Line, out: &mut Map<String, Value>) {
        out.insert("input".into(), self.input(line));
        let outputs = line.outputs.iter().map(|(name, output)| (name.clone(), self.output(output)));
        let outputs: Map<_, _> = outputs.collect();
        if !outputs.is_empty() {
            out.insert("outputs".into(), outputs.into());
        }
    }

    fn input(&self, line: &Line) -> Value {
        let status = line.stream.input();
        let current = status.status.get();
        let mut out = Map::new();
        out.insert("state".into(), input_word(current.state).into());
        if let Some(error) = current.trouble.map(|trouble| trouble.text).or(current.remark) {
            out.insert("error".into(), error.into());
        }
        if let Some(tracks) = line.stream.tracks() {
            for track in tracks.iter() {
                let kind = track.kind();
                let mut about = Map::from_iter([("codec".to_owned(), track.codec_string.as_str().into())]);
                match kind {
                    Kind::Video => {
                        let VideoFormat { width, height, fps } = track.video;
                        if width > 0 && height > 0 {
                            about.insert("width".into(), width.into());
                            about.insert("height".into(), height.into());
                        }
                        if let Some(fps) = fps.filter(|fps| fps.is_finite() && *fps > 0.0) {
                            about.insert("fps".into(), rate(fps));
                        }
                    }
                    Kind::Audio => {
                        if track.audio.sample_rate > 0 {
                            about.insert("sampleRate".into(), track.audio.sample_rate.into());
                        }
                        if track.audio.channels > 0 {
                            about.insert("channels".into(), track.audio.channels.into());
                        }
                    }
                }
                if is_stalled(status, kind) {
                    about.insert("stalled".into(), true.into());
                }
                out.insert(kind.as_str().into(), about.into());
            }
        }
        if let Some(track) = line.stream.dropped() {
            let why = match track.kind() {
                Kind::Video => "content is audioOnly",
                Kind::Audio => "content is videoOnly",
            };
            let about = json!({ "codec": track.codec_string, "dropped": why });
            out.insert(track.kind().as_str().into(), about);
        }
        for kind in KINDS {
            if let Some(LeftOut { codec, dropped }) = status.skipped.get(kind) {
                out.insert(kind.as_str().into(), json!({ "codec": codec, "dropped": dropped }));
            }
        }
        if self.detail == Detail::Counters {
            out.insert("bytes".into(), status.bytes.sum().into());
            out.insert("frames".into(), status.frames.sum().into());
            out.insert("framesDropped".into(), status.dropped.sum().into());
            out.insert("bitrateBps".into(), status.bitrate.load(Ordering::Relaxed).into());
            out.insert("reconnects".into(), status.reconnects.load(Ordering::Relaxed).into());
            out.insert("soundReanchored".into(), status.reanchored.load(Ordering::Relaxed).into());
        }
        out.into()
    }

    fn output(&self, output: &Output) -> Value {
        let status = &output.status;
        let current = status.status.get();
        let (endpoint, role) = (&output.config.endpoint, output.config.endpoint.role());
        let url = endpoint.url(self.public_host.as_deref());
        let mut out = Map::new();
        let word = match current.state {
            State::Running => role.at_work(),
            other => input_word(other),
        };
        out.insert("state".into(), word.into());
        if let Some(error) = current.trouble.map(|trouble| trouble.text).or(current.remark) {
            out.insert("error".into(), error.into());
        }
        out.insert("url".into(), url.into());
        let clients = status.clients.load(Ordering::Relaxed);
        if role.has_clients() {
            out.insert("clients".into(), clients.into());
        }
        if self.detail == Detail::Counters {
            out.insert("clients".into(), clients.into());
            out.insert("bytes".into(), status.bytes.load(Ordering::Relaxed).into());
            out.insert("frames".into(), status.frames.sum().into());
            out.insert("framesDropped".into(), status.dropped.sum().into());
            out.insert("bitrateBps".into(), status.bitrate.load(Ordering::Relaxed).into());
            if let Some(latency) = latency(&status.latency) {
                out.insert("latencyMilliseconds".into(), latency);
            }
            let details = status.details.lock().unwrap_or_else(PoisonError::into_inner);
            out.extend(details.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        out.into()
    }
}

/// `summary`, with what the service adds to it.
pub(super) fn summary<'a>(
    flows: impl Iterator<Item = &'a mut Flow>,
    extension: Option<&Arc<dyn Extension>>,
) -> Value {
    let mut counts = [0_u64; 5];
    let (mut total, mut clients) = (0_u64, 0_u64);
    for flow in flows {
        total += 1;
        let [waiting, running, retrying, failed, disabled] = &mut counts;
        *match flow.state() {
            FlowState::Waiting => waiting,
            FlowState::Running => running,
            FlowState::Retrying => retrying,
            FlowState::Failed => failed,
            FlowState::Disabled => disabled,
        } += 1;
        clients += flow.counters().outputs.values().map(|output| output.clients).sum::<u64>();
    }
    let [waiting, running, retrying, failed, _] = counts;
    let mut summary = extension.map(|extension| extension.summary()).unwrap_or_default();
    let counts = [
        ("flows", total),
        ("running", running),
        ("waiting", waiting),
        ("retrying", retrying),
        ("failed", failed),
        ("clients", clients),
    ];
    summary.extend(counts.map(|(name, count)| (name.to_owned(), count.into())));
    summary.into()
}

const fn input_word(state: State) -> &'static str {
    match state {
        State::Waiting => "waiting",
        State::Running => "receiving",
        State::Retrying => "retrying",
        State::Failed => "failed",
    }
}

fn is_stalled(status: &InputStatus, kind: Kind) -> bool {
    let stalled = KINDS.into_iter().zip(&status.stalled).find(|(of, _)| *of == kind);
    stalled.is_some_and(|(_, stalled)| stalled.load(Ordering::Relaxed))
}

/// Whole rates as whole numbers, others to three places.
fn rate(fps: f64) -> Value {
    let rounded = (fps * 1000.0).round() / 1000.0;
    if rounded.fract() == 0.0 { (rounded as u64).into() } else { rounded.into() }
}

fn latency(latency: &Latency) -> Option<Value> {
    let millis = |quantile| Some((latency.quantile(quantile)?.as_secs_f64() * 1e6).round() / 1e3);
    Some(json!({ "p50": millis(0.5)?, "p99": millis(0.99)? }))
}
