//! Metric families of the recorder.

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};

use crate::recorder::Recorder;

/// The families of this moment. `written`: bytes written into the spool.
pub fn families(recorder: &Recorder, written: u64) -> Vec<MetricFamily> {
    families_or(recorder, written).unwrap_or_default()
}

fn families_or(recorder: &Recorder, written: u64) -> prometheus::Result<Vec<MetricFamily>> {
    let counter = |name: &str, help: &str| IntCounterVec::new(Opts::new(name, help), &["flow", "output"]);
    let stored = counter("av_segments_stored_total", "Files delivered to their store")?;
    let dropped = counter(
        "av_spool_dropped_total",
        "Files deleted to make room in the spool before they were stored, and times that frames were lost because \
         nothing could be written",
    )?;
    for (place, totals) in recorder.totals.places() {
        let labels = [place.0.as_str(), place.1.as_str()];
        stored.with_label_values(&labels).inc_by(totals.stored);
        dropped.with_label_values(&labels).inc_by(totals.dropped);
    }
    let written_bytes =
        IntCounter::new("av_spool_written_bytes_total", "Bytes written into the spool, headers included")?;
    written_bytes.inc_by(written);
    let (bytes, files, oldest) = recorder.backlog().unwrap_or_default();
    let gauge = |name: &str, help: &str, value: u64| {
        let gauge = IntGauge::new(name, help)?;
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        Ok::<_, prometheus::Error>(gauge)
    };
    let held = gauge("av_spool_bytes", "Bytes in the spool", bytes)?;
    let waiting =
        gauge("av_spool_files", "Complete files in the spool that wait for their store", files as u64)?;
    let oldest = gauge("av_spool_oldest_seconds", "Age of the oldest file that waits for its store", oldest)?;
    let help = "Age of the oldest frame that was handed to the disk and is not durable yet";
    let lag = GaugeVec::new(Opts::new("av_spool_lag_seconds", help), &["flow", "output"])?;
    let help = "Files older than retentionDays that could not be deleted at the last attempt";
    let overdue = IntGaugeVec::new(Opts::new("av_recordings_overdue", help), &["flow", "output"])?;
    for lane in recorder.lanes() {
        let (flow, output) = lane.place();
        overdue.with_label_values(&[flow, output]).set(i64::try_from(lane.overdue()).unwrap_or(i64::MAX));
        lag.with_label_values(&[flow, output]).set(lane.lag().as_secs_f64());
    }
    let rates = recorder.rates();
    let rate = rates.map(|rates| rates.stored.round() as u64).unwrap_or_default();
    let rate = gauge("av_upload_bytes_per_second", "Bytes per second uploaded to stores recently", rate)?;
    // Without an end there is none.
    let drain = rates.and_then(|rates| rates.drain(bytes));
    let drain = drain.map(|left| {
        let help = "Time until nothing waits, at the present rates";
        gauge("av_spool_drain_seconds", help, left.as_secs())
    });
    let mut families =
        [stored.collect(), dropped.collect(), written_bytes.collect(), lag.collect(), overdue.collect()]
            .concat();
    families.extend([held, waiting, oldest, rate].iter().flat_map(Collector::collect));
    if let Some(drain) = drain.transpose()? {
        families.extend(drain.collect());
    }
    let mut took: Vec<MetricFamily> = recorder.lanes().iter().filter_map(|lane| lane.took_family()).collect();
    // One family with a series for each output.
    if let Some((first, others)) = took.split_first_mut() {
        for other in others {
            first.mut_metric().extend(other.get_metric().iter().cloned());
        }
        families.push(first.clone());
    }
    Ok(families)
}
