//! Counters as metric families, made at each scrape from what endpoints count anyway.

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGaugeVec, Opts};

use super::counters::KINDS;
use super::flow::Flow;
use crate::stream::Skip;

/// Families of all flows.
pub(super) fn families<'a>(
    flows: impl Iterator<Item = &'a mut Flow>,
) -> prometheus::Result<Vec<MetricFamily>> {
    let gauge = |name: &str, help: &str, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels);
    let counter = |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
    let state = gauge(
        "av_flow_state",
        "State of a flow: 0 disabled, 1 waiting, 2 running, 3 retrying, 4 failed",
        &["flow"],
    )?;
    let trouble = gauge(
        "av_flow_trouble",
        "What is wrong with an input (it has no output) or an output now: 0 nothing, 1 address, 2 TLS, 3 secret, \
         4 name, 5 unreachable, 6 refused, 7 silent, 8 lost, 9 protocol, 10 ended, 11 content, 12 file, 13 internal, \
         14 ending, 15 nobody watches, 16 device",
        &["flow", "output"],
    )?;
    let input_bytes = counter("av_input_bytes_total", "Media bytes received", &["flow", "kind"])?;
    let input_frames = counter("av_input_frames_total", "Frames received", &["flow", "kind"])?;
    let reconnects =
        counter("av_input_reconnects_total", "Publishers or sessions after the first", &["flow"])?;
    let given_up = counter(
        "av_stream_given_up_total",
        "How often a stream gave up what it kept for readers because cacheMegabytes was used up",
        &["flow"],
    )?;
    let skipped = counter(
        "av_frames_skipped_total",
        "Frames that were received and not passed on: of a codec that is not carried, malformed, before the first \
         sync frame, too large",
        &["flow", "reason"],
    )?;
    let output_bytes =
        counter("av_output_bytes_total", "Bytes sent to clients or targets", &["flow", "output"])?;
    let dropped = counter(
        "av_output_frames_dropped_total",
        "Frames that clients or targets did not get because they were too slow, or that the protocol cannot carry",
        &["flow", "output", "kind"],
    )?;
    let clients = gauge("av_output_clients", "Clients connected now", &["flow", "output"])?;
    for flow in flows {
        let name = flow.config.name.clone();
        state.with_label_values(&[&name]).set(flow.state().metric());
        for (output, reason) in flow.troubles() {
            trouble.with_label_values(&[&name, &output]).set(reason.map_or(0, |reason| reason as i64));
        }
        let counters = flow.counters();
        reconnects.with_label_values(&[&name]).inc_by(counters.reconnects);
        given_up.with_label_values(&[&name]).inc_by(counters.given_up);
        for (reason, count) in Skip::ALL.into_iter().zip(counters.skipped) {
            skipped.with_label_values(&[name.as_str(), reason.as_str()]).inc_by(count);
        }
        for ((kind, bytes), frames) in KINDS.into_iter().zip(counters.input_bytes).zip(counters.input_frames)
        {
            input_bytes.with_label_values(&[name.as_str(), kind.as_str()]).inc_by(bytes);
            input_frames.with_label_values(&[name.as_str(), kind.as_str()]).inc_by(frames);
        }
        for (output, counters) in counters.outputs {
            output_bytes.with_label_values(&[&name, &output]).inc_by(counters.bytes);
            clients
                .with_label_values(&[&name, &output])
                .set(i64::try_from(counters.clients).unwrap_or(i64::MAX));
            for (kind, count) in KINDS.into_iter().zip(counters.dropped) {
                dropped.with_label_values(&[name.as_str(), &output, kind.as_str()]).inc_by(count);
            }
        }
    }
    let gauges = [state, trouble, clients].into_iter().flat_map(|family| family.collect());
    let counters = [input_bytes, input_frames, reconnects, given_up, skipped, output_bytes, dropped];
    Ok(gauges.chain(counters.into_iter().flat_map(|family| family.collect())).collect())
}
