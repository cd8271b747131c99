//! What a flow counted, over all its instances.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use av_media::Kind;

use super::line::Line;
use crate::config::OutputConfig;

/// Both kinds, in the order of metrics.
pub(super) const KINDS: [Kind; 2] = [Kind::Video, Kind::Audio];

/// Totals since the module started.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    /// Video, audio.
    pub(super) input_bytes: [u64; 2],
    pub(super) input_frames: [u64; 2],
    pub(super) reconnects: u64,
    pub(super) given_up: u64,
    /// In the order of [`Skip::ALL`](crate::stream::Skip::ALL).
    pub(super) skipped: [u64; 4],
    pub(super) outputs: BTreeMap<String, OutputCounters>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct OutputCounters {
    pub(super) bytes: u64,
    pub(super) dropped: [u64; 2],
    pub(super) clients: u64,
}

impl Counters {
    pub(super) fn of(line: &Line) -> Self {
        let input = line.stream.input();
        let outputs = line.outputs.iter().map(|(name, output)| {
            let status = &output.status;
            let counters = OutputCounters {
                bytes: status.bytes.load(Ordering::Relaxed),
                dropped: KINDS.map(|kind| status.dropped.get(kind)),
                clients: status.clients.load(Ordering::Relaxed) as u64,
            };
            (name.clone(), counters)
        });
        Self {
            input_bytes: KINDS.map(|kind| input.bytes.get(kind)),
            input_frames: KINDS.map(|kind| input.frames.get(kind)),
            reconnects: input.reconnects.load(Ordering::Relaxed),
            given_up: input.given_up.load(Ordering::Relaxed),
            skipped: input.skipped.counts(),
            outputs: outputs.collect(),
        }
    }

    /// What stays when the line is gone.
    pub(super) fn without_clients(mut self) -> Self {
        for output in self.outputs.values_mut() {
            output.clients = 0;
        }
        self
    }

    /// Forgets outputs that a configuration does not have, as running lines do: what is left of a total without them
    /// would be less than was told before.
    pub(super) fn retain_outputs(&mut self, outputs: &BTreeMap<String, OutputConfig>) {
        self.outputs.retain(|name, _| outputs.contains_key(name));
    }

    /// Adds what another line counted.
    pub(super) fn add(&mut self, other: &Self) {
        add(&mut self.input_bytes, other.input_bytes);
        add(&mut self.input_frames, other.input_frames);
        self.reconnects += other.reconnects;
        self.given_up += other.given_up;
        add(&mut self.skipped, other.skipped);
        for (name, output) in &other.outputs {
            let own = self.outputs.entry(name.clone()).or_default();
            own.bytes += output.bytes;
            own.clients += output.clients;
            add(&mut own.dropped, output.dropped);
        }
    }
}

fn add<const N: usize>(to: &mut [u64; N], from: [u64; N]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += from;
    }
}
