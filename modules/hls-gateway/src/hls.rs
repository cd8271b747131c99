//! What the module has beside its endpoints: what outlives the process, and what player pages report.

use std::sync::Arc;

use av_edge::Context;
use av_flow::Extension;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts};

use crate::channel::Channel;
use crate::disk::Disk;
use crate::handover::Handover;
use crate::store::Store;

/// See the module's text.
pub(crate) struct Hls {
    store: Arc<Store>,
    disk: Arc<Disk>,
    handover: Arc<Handover>,
    latency: HistogramVec,
    stalls: IntCounterVec,
}

impl Hls {
    #[expect(clippy::expect_used, reason = "names and labels are constants that the library accepts")]
    pub(crate) fn new(context: &Context) -> Self {
        let labels = ["flow", "output"];
        let buckets = vec![0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0];
        let latency = HistogramOpts::new(
            "av_player_latency_seconds",
            "How far behind live player pages are, as they report it",
        )
        .buckets(buckets);
        let stalls = Opts::new("av_player_stalls_total", "Stalls that player pages reported");
        Self {
            store: Store::open(context.state.clone()),
            disk: Disk::new(&context.state),
            handover: Arc::default(),
            latency: HistogramVec::new(latency, &labels).expect("constant options"),
            stalls: IntCounterVec::new(stalls, &labels).expect("constant options"),
        }
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    pub(crate) fn handover(&self) -> &Arc<Handover> {
        &self.handover
    }

    /// What a player page says of one output.
    pub(crate) fn reported(&self, channel: &Channel, latency: Option<f64>, stalls: u64) {
        let labels = [&*channel.flow, &*channel.output];
        if let Some(latency) = latency {
            self.latency.with_label_values(&labels).observe(latency);
        }
        self.stalls.with_label_values(&labels).inc_by(stalls);
    }
}

impl Extension for Hls {
    fn metrics(&self) -> Vec<MetricFamily> {
        self.latency.collect().into_iter().chain(self.stalls.collect()).collect()
    }
}
