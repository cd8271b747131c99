//! What the outputs of the module share: the graphics cards, and what each of them shows, for `snapshot`.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use av_edge::MethodReply;
use av_flow::{Extension, OutputContext};
use futures_util::future::BoxFuture;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGaugeVec, Opts};
use serde_json::{Value, json};

use crate::screen::Cards;
use crate::snapshot;
use crate::stage::{Stage, locked};

type Place = (String, String);

/// The renderer beside its endpoints.
#[derive(Default)]
pub struct Renderer {
    /// Opened once, and kept.
    pub cards: Arc<Cards>,
    stages: Arc<Mutex<BTreeMap<Place, Arc<Stage>>>>,
}

/// An output that runs; it is no longer listed when this goes.
pub struct Entered {
    stages: Arc<Mutex<BTreeMap<Place, Arc<Stage>>>>,
    place: Place,
    stage: Arc<Stage>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut stages = locked(&self.stages);
        if stages.get(&self.place).is_some_and(|stage| Arc::ptr_eq(stage, &self.stage)) {
            stages.remove(&self.place);
        }
    }
}

impl Renderer {
    /// Lists an output.
    pub fn enter(&self, output: &OutputContext, stage: &Arc<Stage>) -> Entered {
        let place = (output.flow.to_string(), output.output.to_string());
        locked(&self.stages).insert(place.clone(), stage.clone());
        Entered { stages: self.stages.clone(), place, stage: stage.clone() }
    }

    async fn snapshot(&self, payload: &Value) -> MethodReply {
        let refused = |status, why: String| MethodReply { status, body: json!({ "error": why }) };
        let known = payload.as_object().filter(|map| map.keys().all(|key| key == "flow" || key == "output"));
        let Some(flow) = known.and_then(|map| map.get("flow")?.as_str()) else {
            return refused(400, "expected {\"flow\": \"NAME\", \"output\"?: \"NAME\"}".into());
        };
        let output = payload.get("output");
        if output.is_some_and(|output| !output.is_string()) {
            return refused(400, "expected {\"flow\": \"NAME\", \"output\"?: \"NAME\"}".into());
        }
        let output = output.and_then(Value::as_str);
        let fits = |place: &Place| place.0 == flow && output.is_none_or(|output| place.1 == output);
        let stage =
            locked(&self.stages).iter().find(|(place, _)| fits(place)).map(|(_, stage)| stage.clone());
        let Some(stage) = stage else {
            let named = |name: &str| name.chars().take(100).collect::<String>();
            return refused(
                404,
                match output {
                    Some(output) => {
                        format!("no output that renders is named {:?} in {:?}", named(output), named(flow))
                    }
                    None => format!("no flow that renders is named {:?}", named(flow)),
                },
            );
        };
        // What would have been shown is not on any screen.
        if let Some(why) = locked(&stage.trouble).clone() {
            return refused(409, format!("nothing is on the screen: {why}"));
        }
        let Some(picture) = locked(&stage.shown).clone() else {
            return refused(409, "no picture has been shown yet".into());
        };
        match tokio::task::spawn_blocking(move || snapshot::take(&picture)).await {
            Ok(Ok(body)) => MethodReply { status: 200, body },
            Ok(Err(error)) => refused(500, error.to_string()),
            Err(error) => refused(500, error.to_string()),
        }
    }

    fn families(&self) -> prometheus::Result<Vec<MetricFamily>> {
        let labels = ["flow", "output"];
        let options = |name: &str, help: &str| Opts::new(name, help);
        let rendered = IntCounterVec::new(
            options("av_pictures_rendered_total", "Pictures that the display took"),
            &labels,
        )?;
        let delay = IntGaugeVec::new(
            options("av_render_delay_milliseconds", "Planned time from a frame's arrival until it is shown"),
            &labels,
        )?;
        let drift = IntGaugeVec::new(
            options("av_render_drift_ppm", "How much faster the publisher's clock runs than this machine's"),
            &labels,
        )?;
        for ((flow, output), stage) in &*locked(&self.stages) {
            let labels = [flow.as_str(), output.as_str()];
            rendered.with_label_values(&labels).inc_by(stage.counts.rendered.load(Ordering::Relaxed));
            let timing = locked(&stage.timing);
            delay.with_label_values(&labels).set(timing.latency() / 1_000_000);
            if let Some(ppm) = timing.drift_ppm(stage.clock.now()) {
                drift.with_label_values(&labels).set(ppm.round() as i64);
            }
        }
        Ok([rendered.collect(), delay.collect(), drift.collect()].concat())
    }
}

impl Extension for Renderer {
    fn method<'a>(&'a self, name: &'a str, payload: Value) -> BoxFuture<'a, Option<MethodReply>> {
        Box::pin(async move {
            match name {
                "snapshot" => Some(self.snapshot(&payload).await),
                _ => None,
            }
        })
    }

    fn metrics(&self) -> Vec<MetricFamily> {
        self.families().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::options::{Display, RenderConfig};

    fn renderer() -> (Renderer, Arc<Stage>) {
        gstreamer::init().unwrap();
        let renderer = Renderer::default();
        let config = RenderConfig {
            display: Display::None,
            fullscreen: true,
            audio: None,
            volume: 100,
            rotate: 0,
            latency: std::time::Duration::from_millis(300),
            cell: None,
        };
        let stage = Arc::new(Stage::new("cam".into(), config, renderer.cards.clone()));
        locked(&renderer.stages).insert(("cam".into(), "screen".into()), stage.clone());
        (renderer, stage)
    }

    #[test]
    fn a_snapshot_is_refused_with_what_is_wrong() {
        let (renderer, _stage) = renderer();
        for (payload, status, why) in [
            (json!(null), 400, "expected {\"flow\""),
            (json!({}), 400, "expected {\"flow\""),
            (json!({ "flow": 7 }), 400, "expected {\"flow\""),
            (json!({ "flow": "cam", "output": 7 }), 400, "expected {\"flow\""),
            (json!({ "flow": "cam", "size": 7 }), 400, "expected {\"flow\""),
            (json!({ "flow": "dam" }), 404, "no flow that renders is named \"dam\""),
            (
                json!({ "flow": "cam", "output": "green" }),
                404,
                "no output that renders is named \"green\" in \"cam\"",
            ),
            (json!({ "flow": "cam" }), 409, "no picture has been shown yet"),
            (json!({ "flow": "cam", "output": "screen" }), 409, "no picture has been shown yet"),
        ] {
            let reply = renderer.snapshot(&payload).now_or_never().unwrap();
            assert_eq!(reply.status, status, "{payload}");
            assert!(reply.body["error"].as_str().unwrap().starts_with(why), "{payload}: {}", reply.body);
        }
    }

    #[test]
    fn a_snapshot_of_a_display_that_is_not_there_says_so() {
        let (renderer, stage) = renderer();
        *locked(&stage.shown) = crate::card::draw(320, 180, &["cam".into()], 0);
        assert!(locked(&stage.shown).is_some());
        *locked(&stage.trouble) = Some("KMS: no display is connected to HDMI-A-1".into());
        let reply = renderer.snapshot(&json!({ "flow": "cam" })).now_or_never().unwrap();
        let why = "nothing is on the screen: KMS: no display is connected to HDMI-A-1";
        assert_eq!((reply.status, reply.body), (409, json!({ "error": why })));
    }

    #[test]
    fn metrics_tell_pictures_and_delay_at_once_and_drift_when_it_is_known() {
        let (renderer, stage) = renderer();
        stage.counts.rendered.store(7, Ordering::Relaxed);
        let told = || {
            let families = renderer.families().unwrap();
            let value = |family: &MetricFamily| {
                let metric = family.get_metric().first()?;
                let labels = metric.get_label().iter().map(|label| label.value()).collect::<Vec<_>>();
                assert_eq!(labels, ["cam", "screen"]);
                Some(metric.get_counter().get_value() + metric.get_gauge().get_value())
            };
            families
                .iter()
                .map(|family| (family.name().to_owned(), value(family)))
                .collect::<BTreeMap<_, _>>()
        };
        let metrics = told();
        assert_eq!(metrics["av_pictures_rendered_total"], Some(7.0));
        assert_eq!(metrics["av_render_delay_milliseconds"], Some(300.0));
        assert_eq!(metrics.get("av_render_drift_ppm").copied().flatten(), None);
        // Pictures of a clock that is a thousandth fast, for two minutes that are past.
        let second = 1_000_000_000;
        for tenth in 0..1200 {
            let at = tenth * second / 10 - 121 * second;
            locked(&stage.timing).arrived(tenth * second / 10 + tenth * second / 10_000, at);
        }
        let drift = told()["av_render_drift_ppm"].unwrap();
        assert!((drift - 1000.0).abs() < 300.0, "{drift}");
    }
}
