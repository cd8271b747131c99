//! A service as one is built on av-flow, outside of it: an input that makes frames, an output that counts them, and
//! what else a service may bring.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use av_edge::MethodReply;
use av_flow::config::{
    Claim, ConfigError, Content, ListenUrl, OptionSpec, Options, Role, Scheme, Shape, whole,
};
use av_flow::stream::{Changes, Entry, Item, Kick, Publisher, State};
use av_flow::{
    EndpointSpec, Extension, Flows, Input, InputContext, InputSpec, Output, OutputContext, OutputSpec,
};
use av_media::{Frame, Kind, Timestamp, Track};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, Opts};
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

const EVERY: OptionSpec = OptionSpec::new("everyMilliseconds", "clocks", whole(1, 1000, 20));
const SOLO: OptionSpec = OptionSpec::new("solo", "tallies", Shape::Flag { default: false });
const SLOW: OptionSpec = OptionSpec::new("slow", "tallies", Shape::Flag { default: false });
const DRAWER: OptionSpec = OptionSpec::new(
    "drawer",
    "",
    Shape::Object { properties: &[OptionSpec::property("size", whole(1, 9, 3))] },
);

/// The service.
pub fn service() -> Flows {
    Flows::new("tally-keeper")
        .input(InputSpec::of::<Clock>())
        .output(OutputSpec::of::<Tally>())
        .property(DRAWER)
        .rule(|flow| match flow.input.content {
            Content::VideoOnly => {
                Err(ConfigError::rule(format!("flows.{}", flow.name), "a clock has no picture"))
            }
            _ => Ok(()),
        })
        .extension(|_, changes| Arc::new(Book::new(changes)))
        .finish_within(Duration::from_secs(3))
}

/// What the service knows beside its endpoints.
pub struct Book {
    changes: Changes,
    pages: Mutex<Pages>,
    /// Slow tallies end as long as this is true.
    may_end: watch::Sender<bool>,
}

#[derive(Default)]
struct Pages {
    /// Frames by tally.
    counted: BTreeMap<String, u64>,
    /// Tallies that write now, by name; two at once are a fault.
    writing: BTreeMap<String, u32>,
    begun: u64,
    collisions: u64,
    drawer: u64,
    messages: Vec<Value>,
    is_over: bool,
}

impl Book {
    fn new(changes: Changes) -> Self {
        Self { changes, pages: Mutex::default(), may_end: watch::Sender::new(true) }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn total(&self) -> u64 {
        self.pages().counted.values().sum()
    }
}

impl Extension for Book {
    fn configure(&self, properties: &Map<String, Value>) {
        let size = properties.get("drawer").and_then(|drawer| drawer.get("size")).and_then(Value::as_u64);
        self.pages().drawer = size.unwrap_or(3);
    }

    fn method<'a>(&'a self, name: &'a str, payload: Value) -> BoxFuture<'a, Option<MethodReply>> {
        Box::pin(async move {
            match name {
                "holdEnds" => drop(self.may_end.send_replace(payload == false)),
                "book" => {}
                _ => return None,
            }
            let pages = self.pages();
            let body = json!({
                "counted": pages.counted, "collisions": pages.collisions, "drawer": pages.drawer,
                "messages": pages.messages, "begun": pages.begun, "isOver": pages.is_over,
                "writing": pages.writing.values().sum::<u32>(),
            });
            Some(MethodReply { status: 200, body })
        })
    }

    fn wants_inputs(&self) -> bool {
        true
    }

    fn input<'a>(&'a self, name: &'a str, payload: Value) -> BoxFuture<'a, ()> {
        self.pages().messages.push(json!([name, payload]));
        Box::pin(std::future::ready(()))
    }

    fn summary(&self) -> Map<String, Value> {
        Map::from_iter([("tallied".to_owned(), self.total().into())])
    }

    fn metrics(&self) -> Vec<MetricFamily> {
        let gauge = IntGauge::with_opts(Opts::new("own_tallied", "Frames tallied")).unwrap();
        gauge.set(i64::try_from(self.total()).unwrap());
        gauge.collect()
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let mut pages = self.pages();
            assert_eq!(pages.writing.values().sum::<u32>(), 0, "endpoints have ended before");
            pages.is_over = true;
        })
    }
}

/// `listen`: a sound frame every few milliseconds. On a pattern, one stream for each of two names.
#[derive(Clone, Debug, PartialEq)]
struct Clock {
    url: ListenUrl,
    every: Duration,
}

const TICKS: Scheme = Scheme::new("ticks", 7000, 7000);

impl Input for Clock {
    const SPEC: EndpointSpec = EndpointSpec { role: Role::Listen, schemes: &[TICKS], options: &[EVERY] };

    fn read(options: &Options<'_>) -> Result<Self, ConfigError> {
        let every = Duration::from_millis(options.whole(&EVERY)?);
        Ok(Self { url: options.listen_url()?, every })
    }

    fn claims(&self) -> Vec<Claim> {
        vec![self.url.claim(&Default::default())]
    }

    async fn run(self, context: InputContext) {
        let mut contexts = Vec::new();
        match &context.instances {
            None => contexts.push(context.clone()),
            Some(instances) => {
                for name in ["one", "two"] {
                    contexts.push(instances.open(name).unwrap());
                }
                assert!(instances.open("no name").is_err());
            }
        }
        let mut publishers =
            contexts.iter().map(|one| one.stream.publisher(Kick::default())).collect::<Vec<_>>();
        for publisher in &mut publishers {
            let _ = publisher.track(Track::aac(Bytes::from_static(b"\x12\x10")).unwrap(), Instant::now());
        }
        let mut interval = tokio::time::interval(self.every);
        for beat in 0_i64.. {
            tokio::select! {
                () = context.cancel.cancelled() => return,
                _ = interval.tick() => {}
            }
            publishers.iter_mut().for_each(|publisher| tick(publisher, beat, self.every));
        }
    }
}

fn tick(publisher: &mut Publisher, beat: i64, every: Duration) {
    let time = Timestamp::from_nanos(beat * i64::try_from(every.as_nanos()).unwrap());
    let data = Bytes::copy_from_slice(&beat.to_be_bytes());
    let frame = Frame { kind: Kind::Audio, dts: time, pts: time, is_sync: true, data };
    let _ = publisher.frame(frame, Instant::now());
}

/// `store`: counts frames in the service's book.
#[derive(Clone, Debug, PartialEq)]
struct Tally {
    name: String,
    /// Counts every second frame only.
    solo: bool,
    /// Ends when the book lets it.
    slow: bool,
}

const BOOK: Scheme = Scheme::new("book", 1, 1);

impl Output for Tally {
    const SPEC: EndpointSpec = EndpointSpec { role: Role::Store, schemes: &[BOOK], options: &[SOLO, SLOW] };

    fn read(options: &Options<'_>) -> Result<Self, ConfigError> {
        let name = options.url().trim_start_matches("book://").replace("{match}", "*");
        if name.is_empty() {
            return Err(options.url_error(ConfigError::rule("", "a tally needs a name").fault));
        }
        Ok(Self { name, solo: options.flag(&SOLO)?, slow: options.flag(&SLOW)? })
    }

    fn url(&self, _public_host: Option<&str>) -> String {
        format!("book://{}", self.name)
    }

    fn instance(&self, name: &str) -> Self {
        Self { name: self.name.replace('*', name), ..self.clone() }
    }

    async fn run(self, context: OutputContext) {
        let book = context.module.extension::<Book>().unwrap();
        {
            let mut pages = book.pages();
            pages.begun += 1;
            let writing = pages.writing.entry(self.name.clone()).or_default();
            *writing += 1;
            if *writing > 1 {
                pages.collisions += 1;
            }
        }
        let mut reader = context.stream.reader(context.content);
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            tokio::select! {
                () = context.cancel.cancelled() => break,
                () = reader.recv(&mut entries) => {}
            }
            let frames =
                entries.drain(..).filter(|entry| matches!(entry.item, Item::Frame(_))).count() as u64;
            if frames > 0 {
                context.status.status.set(State::Running, None);
                context.status.frames.add(Kind::Audio, frames);
                context.status.bytes.fetch_add(8 * frames, std::sync::atomic::Ordering::Relaxed);
                *book.pages().counted.entry(self.name.clone()).or_default() += frames;
                book.changes.tick();
            }
        }
        if self.slow {
            let _ = book.may_end.subscribe().wait_for(|may| *may).await;
        }
        *book.pages().writing.entry(self.name).or_default() -= 1;
    }
}
