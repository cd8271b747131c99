//! The one clock of an output: nanoseconds since it started, for timing and for the pipelines that play by it.

use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use tokio::time::Instant;

/// The system's monotonic clock.
#[derive(Clone, Debug)]
pub struct Clock {
    clock: gst::SystemClock,
    base: gst::ClockTime,
}

impl Clock {
    /// Starts now.
    pub fn start() -> Self {
        let clock = gst::SystemClock::obtain()
            .downcast::<gst::SystemClock>()
            .unwrap_or_else(|_| gst::glib::Object::new());
        let base = clock.time();
        Self { clock, base }
    }

    /// Since the start.
    pub fn now(&self) -> i64 {
        self.since_start(self.clock.time())
    }

    /// The same of a time that a clock tells which follows the system's.
    pub fn since_start(&self, time: gst::ClockTime) -> i64 {
        i64::try_from(time.nseconds().saturating_sub(self.base.nseconds())).unwrap_or(i64::MAX)
    }

    /// A moment that has passed.
    pub fn at(&self, moment: Instant) -> i64 {
        let ago = i64::try_from(moment.elapsed().as_nanos()).unwrap_or(i64::MAX);
        self.now().saturating_sub(ago)
    }

    /// Makes the running time of a pipeline this clock's time, and takes no account of what its elements would like to
    /// have in time: that is in the times already.
    pub fn drive(&self, pipeline: &gst::Pipeline) {
        pipeline.use_clock(Some(&self.clock));
        pipeline.set_start_time(gst::ClockTime::NONE);
        pipeline.set_base_time(self.base);
        pipeline.set_latency(gst::ClockTime::ZERO);
    }
}

/// Waits that long, if it is any time.
pub fn sleep(nanos: i64) {
    if let Ok(nanos) = u64::try_from(nanos) {
        std::thread::sleep(Duration::from_nanos(nanos));
    }
}
