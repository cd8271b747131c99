//! What is said of the faults: each once, and a sum at the end.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::time::Instant;

use super::rule::{Fault, Rule, is_advice};

/// Faults that are kept apart; what repeats beyond that is counted twice.
const KEPT: usize = 10_000;

pub(super) struct Report<W> {
    out: W,
    started: Instant,
    /// Advice counts like the rest.
    apple: bool,
    counts: BTreeMap<&'static str, (&'static Rule, u64)>,
    seen: HashSet<(&'static str, String)>,
}

impl<W: Write> Report<W> {
    pub(super) fn new(out: W, apple: bool) -> Self {
        let (counts, seen) = (BTreeMap::new(), HashSet::new());
        Self { out, started: Instant::now(), apple, counts, seen }
    }

    pub(super) fn take(&mut self, place: &str, faults: Vec<Fault>) {
        for fault in faults {
            let rule = fault.rule;
            if self.seen.len() < KEPT && !self.seen.insert((rule.name, format!("{place} {}", fault.detail))) {
                continue;
            }
            let (_, count) = self.counts.entry(rule.name).or_insert((rule, 0));
            *count += 1;
            let seconds = self.started.elapsed().as_secs_f64();
            let kind = if is_advice(rule) && !self.apple { "advice" } else { "fault" };
            // A closed pipe ends nothing: the exit code still tells.
            let _ = writeln!(
                self.out,
                "{seconds:8.3} {kind:6} {}: {} | breaks {}: {} | {place}",
                rule.name, fault.detail, rule.breaks, rule.why
            );
        }
    }

    /// Prints the sum. Whether nothing was wrong.
    pub(super) fn end(mut self, versions: u64, pieces: u64) -> bool {
        let is_fault = |rule: &Rule| self.apple || !is_advice(rule);
        let mut faults = 0;
        for (rule, count) in self.counts.values() {
            faults += if is_fault(rule) { *count } else { 0 };
            let _ = writeln!(self.out, "{count:8} x {} (breaks {})", rule.name, rule.breaks);
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let _ = writeln!(
            self.out,
            "{versions} versions of playlists and {pieces} pieces of media in {seconds:.0} s: {faults} faults"
        );
        faults == 0
    }
}
