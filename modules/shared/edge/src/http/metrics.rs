//! Prometheus text for the IoT Edge metrics collector.

use std::sync::atomic::Ordering;

use prometheus::core::Collector;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

use crate::module::Module;

/// Every series of this moment. Each carries the four labels that Microsoft's workbooks group by, since the
/// collector does not add them itself (Azure/iotedge, `doc/BuiltInMetrics.md`); none has a timestamp, which
/// its parser would apply to the lines that follow.
pub(super) fn text(module: &Module) -> String {
    let mut families = module.running().map(|running| running.metrics()).unwrap_or_default();
    families.extend(own(module));
    families.extend(prometheus::process_collector::ProcessCollector::for_self().collect());
    let identity = &module.identity;
    let shared = [
        ("iothub", identity.iothub.as_str()),
        ("edge_device", identity.device.as_str()),
        ("module_name", identity.module.as_str()),
        ("instance_number", identity.instance.as_str()),
    ];
    for family in &mut families {
        let kind = family.get_field_type();
        let mut metrics = family.take_metric();
        metrics.retain(|metric| is_readable(metric, kind));
        for metric in &mut metrics {
            let mut labels = metric.take_label();
            labels.retain(|label| shared.iter().all(|(name, _)| label.name() != *name));
            labels.extend(shared.iter().map(|(name, value)| label(name, value)));
            metric.set_label(labels);
            metric.set_timestamp_ms(0);
        }
        family.set_metric(metrics);
    }
    families.retain(|family| !family.get_metric().is_empty() && !family.name().is_empty());
    families.sort_by(|left, right| left.name().cmp(right.name()));
    let mut body = Vec::new();
    if let Err(error) = TextEncoder::new().encode(&families, &mut body) {
        tracing::warn!("metrics: {error}");
    }
    String::from_utf8(body).unwrap_or_default()
}

/// The collector skips lines whose value is infinite.
fn is_readable(metric: &Metric, kind: MetricType) -> bool {
    match kind {
        MetricType::COUNTER => !metric.get_counter().get_value().is_infinite(),
        MetricType::GAUGE => !metric.get_gauge().get_value().is_infinite(),
        MetricType::HISTOGRAM => !metric.get_histogram().get_sample_sum().is_infinite(),
        _ => true,
    }
}

fn own(module: &Module) -> [MetricFamily; 4] {
    let connected = f64::from(u8::from(module.hub_connected.load(Ordering::Relaxed)));
    [
        gauge("av_hub_connected", "Whether the IoT Edge hub is connected", connected),
        gauge(
            "av_config_desired_version",
            "Version of the desired properties in use",
            module.desired_version() as f64,
        ),
        counter(
            "av_telemetry_dropped_total",
            "Telemetry messages dropped while the hub was away",
            module.telemetry_dropped.load(Ordering::Relaxed) as f64,
        ),
        counter(
            "av_events_dropped_total",
            "Events that came faster than they were taken",
            module.events.dropped() as f64,
        ),
    ]
}

fn gauge(name: &str, help: &str, value: f64) -> MetricFamily {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    family(name, help, MetricType::GAUGE, Metric::from_gauge(gauge))
}

fn counter(name: &str, help: &str, value: f64) -> MetricFamily {
    let mut counter = Counter::default();
    counter.set_value(value);
    let mut metric = Metric::default();
    metric.set_counter(counter);
    family(name, help, MetricType::COUNTER, metric)
}

fn family(name: &str, help: &str, kind: MetricType, metric: Metric) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(vec![metric]);
    family
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    label
}
