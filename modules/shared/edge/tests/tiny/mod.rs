//! A service of a few lines: its flows are numbers.
#![allow(missing_docs, dead_code, clippy::unwrap_used, clippy::panic)]

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use av_edge::{ConfigStatus, Context, Event, EventKind, MethodReply, Outcome, Running, Service, Settings};
use futures_util::future::BoxFuture;
use prometheus::proto::MetricFamily;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

/// Accepts `{"flows": {"a": {"value": 1}}}`.
#[derive(Default)]
pub struct Tiny {
    pub latest: Arc<Mutex<Option<Arc<Numbers>>>>,
}

impl Service for Tiny {
    fn start(self: Box<Self>, context: Context) -> Arc<dyn Running> {
        let numbers = Arc::new(Numbers {
            context,
            flows: Mutex::default(),
            applied: Mutex::default(),
            inputs: Mutex::default(),
            newest: AtomicI64::default(),
            ticks: watch::Sender::new(0),
        });
        *self.latest.lock().unwrap() = Some(numbers.clone());
        numbers
    }
}

pub struct Numbers {
    context: Context,
    pub flows: Mutex<Map<String, Value>>,
    /// Every document, in order.
    pub applied: Mutex<Vec<Value>>,
    pub inputs: Mutex<Vec<(String, Value)>>,
    /// The newest version that it remembers.
    pub newest: AtomicI64,
    ticks: watch::Sender<u64>,
}

impl Numbers {
    pub fn set_state(&self, flow: &str, state: &str) {
        self.flows.lock().unwrap().insert(flow.into(), json!({ "state": state }));
        self.ticks.send_modify(|tick| *tick += 1);
    }

    pub fn emit(&self, kind: EventKind, flow: &str) {
        self.context.events.emit(Event {
            kind,
            flow: Some(flow.into()),
            output: None,
            detail: "told".into(),
        });
    }
}

impl Running for Numbers {
    fn restore(&self) -> BoxFuture<'_, bool> {
        let last = self.context.state.read("last.json", 1 << 20).ok().flatten();
        let flows = last.and_then(|last| serde_json::from_slice(&last).ok());
        let found = flows.is_some();
        *self.flows.lock().unwrap() = flows.unwrap_or_default();
        Box::pin(std::future::ready(found))
    }

    fn newest_version(&self) -> Option<i64> {
        Some(self.newest.load(Ordering::Relaxed))
    }

    fn apply(&self, desired: Map<String, Value>) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            assert!(!desired.contains_key("panic"), "asked to");
            self.applied.lock().unwrap().push(Value::Object(desired.clone()));
            let mut outcome = Outcome {
                settings: Some(Settings {
                    log_level: None,
                    telemetry_interval_seconds: desired
                        .get("telemetryIntervalSeconds")
                        .and_then(Value::as_u64)
                        .unwrap_or(0) as u32,
                }),
                ..Outcome::default()
            };
            let mut flows = Map::new();
            for (name, flow) in desired.get("flows").and_then(Value::as_object).into_iter().flatten() {
                match flow.get("value").and_then(Value::as_i64) {
                    Some(value) => {
                        flows.insert(name.clone(), json!({"state": "running", "value": value}));
                    }
                    None => {
                        outcome.errors.insert(name.clone(), format!("flows.{name}.value: expected a number"));
                    }
                }
            }
            outcome.usable = flows.len();
            outcome.status = match (flows.is_empty(), outcome.errors.is_empty()) {
                (_, true) => ConfigStatus::Applied,
                (false, false) => ConfigStatus::Partial,
                (true, false) => ConfigStatus::Rejected,
            };
            if outcome.status != ConfigStatus::Rejected {
                let text = Value::Object(flows.clone()).to_string();
                self.context.state.write("last.json", text.as_bytes()).unwrap();
                *self.flows.lock().unwrap() = flows;
            }
            outcome
        })
    }

    fn reported(&self) -> Map<String, Value> {
        let flows = self.flows.lock().unwrap().clone();
        Map::from_iter([("summary".into(), json!({"flows": flows.len()})), ("flows".into(), flows.into())])
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.ticks.subscribe()
    }

    fn status(&self) -> Map<String, Value> {
        let mut status = self.reported();
        status.insert("counters".into(), 1.into());
        status
    }

    fn method<'a>(&'a self, name: &'a str, payload: Value) -> BoxFuture<'a, Option<MethodReply>> {
        Box::pin(async move {
            match name {
                "echo" => Some(MethodReply { status: 200, body: payload }),
                "slow" => {
                    let seconds = payload.get("seconds").and_then(Value::as_u64).unwrap_or(0);
                    tokio::time::sleep(std::time::Duration::from_secs(seconds)).await;
                    Some(MethodReply { status: 200, body: payload })
                }
                "boom" => panic!("asked to"),
                "huge" => Some(MethodReply { status: 200, body: "x".repeat(200_000).into() }),
                _ => None,
            }
        })
    }

    fn wants_inputs(&self) -> bool {
        true
    }

    fn input<'a>(&'a self, name: &'a str, payload: Value) -> BoxFuture<'a, ()> {
        self.inputs.lock().unwrap().push((name.to_owned(), payload));
        Box::pin(std::future::ready(()))
    }

    fn metrics(&self) -> Vec<MetricFamily> {
        let gauge =
            prometheus::GaugeVec::new(prometheus::Opts::new("av_flow_state", "State"), &["flow"]).unwrap();
        gauge.with_label_values(&["a"]).set(2.0);
        gauge.with_label_values(&["endless"]).set(f64::INFINITY);
        prometheus::core::Collector::collect(&gauge)
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        self.emit(EventKind::FlowStopped, "a");
        if self.flows.lock().unwrap().contains_key("endless") {
            return Box::pin(std::future::pending());
        }
        Box::pin(std::future::ready(()))
    }
}
