//! What the module has beside its endpoints: what outlives the process, the list of what is served, and what player pages
//! report.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use av_edge::Context;
use av_flow::Extension;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts};

use crate::channel::Channel;
use crate::store::Store;

/// See the module's text.
pub(crate) struct Hls {
    store: Arc<Store>,
    channels: Mutex<Vec<Arc<Channel>>>,
    latency: HistogramVec,
    stalls: IntCounterVec,
}

impl Hls {
    #[expect(clippy::expect_used, reason = "names and labels are constants that the library accepts")]
    pub(crate) fn new(context: &Context) -> Self {
        let labels = ["flow", "output"];
        let buckets = vec![0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0];
        let latency = HistogramOpts::new("av_player_latency_seconds", "What player pages say how far behind live they are")
            .buckets(buckets);
        let stalls = Opts::new("av_player_stalls_total", "Stalls that player pages report");
        Self {
            store: Store::open(context.state.clone()),
            channels: Mutex::default(),
            latency: HistogramVec::new(latency, &labels).expect("constant options"),
            stalls: IntCounterVec::new(stalls, &labels).expect("constant options"),
        }
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Channel>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists an output while the answer lives.
    pub(crate) fn list(self: &Arc<Self>, channel: Arc<Channel>) -> Listed {
        self.lock().push(channel.clone());
        Listed { hls: self.clone(), channel }
    }

    /// What is served now.
    pub(crate) fn channels(&self) -> Vec<Arc<Channel>> {
        self.lock().clone()
    }

    /// What a player page says of one output.
    pub(crate) fn reported(&self, channel: &Channel, latencies: impl Iterator<Item = f64>, stalls: u64) {
        let labels = [&*channel.flow, &*channel.output];
        let histogram = self.latency.with_label_values(&labels);
        latencies.for_each(|latency| histogram.observe(latency));
        self.stalls.with_label_values(&labels).inc_by(stalls);
    }
}

impl Extension for Hls {
    fn metrics(&self) -> Vec<MetricFamily> {
        self.latency.collect().into_iter().chain(self.stalls.collect()).collect()
    }
}

/// Takes an output off the list when it is dropped.
pub(crate) struct Listed {
    hls: Arc<Hls>,
    channel: Arc<Channel>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut channels = self.hls.lock();
        channels.retain(|other| !Arc::ptr_eq(other, &self.channel));
        let last = !channels.iter().any(|other| other.flow == self.channel.flow && other.output == self.channel.output);
        drop(channels);
        // A name that comes and goes leaves no series behind.
        if last {
            let labels = [&*self.channel.flow, &*self.channel.output];
            let _ = (self.hls.latency.remove_label_values(&labels), self.hls.stalls.remove_label_values(&labels));
        }
    }
}
