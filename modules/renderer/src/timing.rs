//! When a picture or a piece of sound is due: stream time against this machine's clock.
//!
//! All times of this machine are nanoseconds since the output started. The frame that took the least time to get here
//! says how the two clocks relate; from there on a line is followed whose slope is corrected by at most 0.5 %, so that
//! neither jitter nor a publisher's clock that runs fast or slow moves picture or sound by a visible step. Only what a
//! slope can't mend (a burst at the start, a network that stalls) moves the line at once.

const SECOND: i64 = 1_000_000_000;
const MILLISECOND: i64 = 1_000_000;

/// The most that pictures and sound are stretched or squeezed.
pub const MAX_RATE: f64 = 0.005;
/// What comes earlier than the line says by more than that moves it at once.
const JUMP: i64 = 300 * MILLISECOND;
/// After a start the line follows every frame that comes earlier, for so long.
const SETTLING: i64 = 2 * SECOND;
/// Until the line has not moved for so long, sound is held back.
const QUIET: i64 = 150 * MILLISECOND;
/// A line that has moved by less has not moved.
const SHIFT: i64 = 60 * MILLISECOND;
/// How often the slope is corrected.
const WINDOW: i64 = 5 * SECOND;
/// In how many seconds an error would be gone.
const PULL: f64 = 15.0;
/// And how fast what stays of it counts as drift: critically damped.
const LEARN: f64 = 1.0 / (4.0 * PULL * PULL);
/// Drift is told when it was measured for so long.
const KNOWN_AFTER: i64 = 60 * SECOND;
/// What a decoder that is too slow may add.
const MOST_EXTRA: i64 = 2 * SECOND;
/// When what it added begins to go again, and how much of it goes in a second.
const RELAX_AFTER: i64 = 30 * SECOND;
const RELAX: i64 = 2 * MILLISECOND;

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Timing {
    latency: i64,
    /// What decoding needs beyond `latency`.
    extra: i64,
    /// When that was last seen to be needed.
    tight: i64,
    line: Option<Line>,
    /// Where the publisher's stream began.
    first: i64,
    /// Publisher's seconds in one of ours, less one, as far as it is known.
    drift: f64,
    measured_since: Option<i64>,
    jumps: u64,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    stream: i64,
    here: i64,
    /// By which stream time is stretched.
    rate: f64,
    began: i64,
    /// When it last was elsewhere by more than `SHIFT`, and by how much it has moved since.
    moved: i64,
    shift: i64,
    window: i64,
    /// How much later than the line the earliest frame of this window came.
    least: Option<i64>,
}

impl Line {
    fn here(&self, stream: i64) -> i64 {
        let past = stream.saturating_sub(self.stream);
        self.here.saturating_add(past).saturating_add((past as f64 * self.rate) as i64)
    }
}

impl Timing {
    /// With so many nanoseconds between arrival and show.
    pub fn new(latency: i64) -> Self {
        Self {
            latency,
            extra: 0,
            tight: 0,
            line: None,
            first: i64::MIN,
            drift: 0.0,
            measured_since: None,
            jumps: 0,
        }
    }

    /// Another publisher, or one that came back: its clock and way are others.
    pub fn restart(&mut self) {
        self.line = None;
        self.drift = 0.0;
        self.measured_since = None;
    }

    /// A frame to be decoded at stream time `dts` came at `at`.
    pub fn arrived(&mut self, dts: i64, at: i64) {
        let Some(line) = &mut self.line else {
            self.first = dts;
            self.line = Some(Line {
                stream: dts,
                here: at,
                rate: 0.0,
                began: at,
                moved: at,
                shift: 0,
                window: at,
                least: None,
            });
            return;
        };
        let late = at.saturating_sub(line.here(dts));
        let settling = at.saturating_sub(line.began) < SETTLING;
        if late < -JUMP || (settling && late < 0) {
            // What is less in all is jitter, which holds back no sound. A burst moves it by a picture each time.
            line.shift = line.shift.saturating_add(late);
            if line.shift < -SHIFT {
                (line.moved, line.shift) = (at, 0);
                self.jumps += 1;
            }
            line.stream = dts;
            line.here = at;
            line.window = at;
            line.least = None;
            return;
        }
        line.least = Some(line.least.map_or(late, |least| least.min(late)));
        if at.saturating_sub(line.window) >= WINDOW {
            self.correct(dts, at);
        }
    }

    fn correct(&mut self, dts: i64, at: i64) {
        let Some(line) = &mut self.line else { return };
        let Some(error) = line.least.take() else { return };
        let seconds = at.saturating_sub(line.window) as f64 / SECOND as f64;
        let here = line.here(dts);
        line.window = at;
        line.stream = dts;
        line.here = here;
        if error > JUMP.max(self.latency / 2) {
            // Everything comes late now: the way has become longer.
            line.here = here.saturating_add(error);
            line.moved = at;
            self.jumps += 1;
            return;
        }
        let error = error as f64 / SECOND as f64;
        self.drift = (self.drift + error * seconds.min(60.0) * LEARN).clamp(-MAX_RATE, MAX_RATE);
        line.rate = (self.drift + error / PULL).clamp(-MAX_RATE, MAX_RATE);
        self.measured_since.get_or_insert(at);
    }

    /// When what has this stream time is due.
    pub fn due(&self, stream: i64) -> Option<i64> {
        let here = self.line.as_ref()?.here(stream);
        Some(here.saturating_add(self.latency).saturating_add(self.extra))
    }

    /// Whether that belongs to a publisher that is gone.
    pub const fn is_of_before(&self, stream: i64) -> bool {
        stream < self.first
    }

    /// Whether the line has come to rest, so that what is due later may be handed out by it.
    pub fn is_settled(&self, now: i64) -> bool {
        self.line.is_some_and(|line| now.saturating_sub(line.moved) >= QUIET)
    }

    /// A picture left the decoder that much too late although the machine keeps up: from now on there is more time.
    pub fn needs(&mut self, nanos: i64, now: i64) {
        self.extra = self.extra.saturating_add(nanos.max(0)).min(MOST_EXTRA);
        self.tight = now;
    }

    /// There is hardly more time than is needed.
    pub const fn is_tight(&mut self, now: i64) {
        self.tight = now;
    }

    /// There was time to spare for a second: what was added goes again, so slowly that nobody sees or hears it.
    pub fn relax(&mut self, now: i64) {
        if now.saturating_sub(self.tight) >= RELAX_AFTER {
            self.extra = self.extra.saturating_sub(RELAX).max(0);
        }
    }

    /// By how much stream time is stretched now.
    pub fn rate(&self) -> f64 {
        self.line.map_or(0.0, |line| line.rate)
    }

    /// How much faster the publisher's clock runs than ours, in millionths, when that was measured for a minute.
    pub fn drift_ppm(&self, now: i64) -> Option<f64> {
        let since = self.measured_since?;
        (now.saturating_sub(since) >= KNOWN_AFTER).then_some(-self.drift * 1e6)
    }

    /// How often the line moved at once.
    pub const fn jumps(&self) -> u64 {
        self.jumps
    }

    /// Between arrival and show, in nanoseconds.
    pub const fn latency(&self) -> i64 {
        self.latency.saturating_add(self.extra)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds pictures at 30 a second, of a publisher whose clock is `ppm` fast, for so long; gives the most and the least
    /// time from arrival to show in the last minute.
    fn run(timing: &mut Timing, ppm: f64, seconds: i64, jitter: impl Fn(i64) -> i64) -> (i64, i64) {
        let (mut least, mut most) = (i64::MAX, i64::MIN);
        for index in 0..seconds * 30 {
            let ideal = index * SECOND / 30;
            let dts = (ideal as f64 * (1.0 + ppm / 1e6)) as i64;
            timing.arrived(dts, ideal + jitter(index));
            if index > (seconds - 60) * 30 {
                let delay = timing.due(dts).unwrap() - ideal;
                least = least.min(delay);
                most = most.max(delay);
            }
        }
        (least / MILLISECOND, most / MILLISECOND)
    }

    #[test]
    fn with_equal_clocks_the_delay_is_the_latency() {
        let mut timing = Timing::new(200 * MILLISECOND);
        assert_eq!(run(&mut timing, 0.0, 120, |_| 0), (200, 200));
        assert_eq!(timing.drift_ppm(120 * SECOND), Some(0.0));
    }

    #[test]
    fn a_clock_that_is_half_a_percent_fast_or_slow_leaves_the_delay_flat_and_is_measured() {
        for ppm in [4500.0, -4500.0, 300.0, -50.0] {
            let mut timing = Timing::new(200 * MILLISECOND);
            let (least, most) = run(&mut timing, ppm, 600, |_| 0);
            assert!(least >= 190 && most <= 210, "{ppm}: {least} to {most} ms");
            let told = timing.drift_ppm(600 * SECOND).unwrap();
            assert!((told - ppm).abs() < 40.0, "{ppm}: told as {told}");
            assert_eq!(timing.jumps(), 0);
        }
    }

    #[test]
    fn jitter_is_not_drift() {
        let mut timing = Timing::new(200 * MILLISECOND);
        let (least, most) = run(&mut timing, 0.0, 600, |index| (index * 7919 % 40) * MILLISECOND);
        assert!(least >= 195 && most <= 215, "{least} to {most} ms");
        assert!(timing.drift_ppm(600 * SECOND).unwrap().abs() < 60.0);
    }

    #[test]
    fn a_gop_that_comes_in_a_burst_does_not_stay_as_delay() {
        let mut timing = Timing::new(200 * MILLISECOND);
        for index in 0..300 {
            timing.arrived(index * SECOND / 30, index * MILLISECOND / 10);
        }
        // The burst ends at stream time 10 s, at 0.03 s here.
        let due = timing.due(300 * SECOND / 30).unwrap();
        assert!(due < 300 * MILLISECOND, "{due}");
        assert!(!timing.is_settled(30 * MILLISECOND));
        assert!(timing.is_settled(400 * MILLISECOND));
    }

    #[test]
    fn sound_waits_for_the_end_of_a_burst_that_takes_its_time() {
        let mut timing = Timing::new(200 * MILLISECOND);
        for index in 0..300 {
            let at = index * 4 * MILLISECOND;
            timing.arrived(index * SECOND / 30, at);
            assert!(!timing.is_settled(at), "{index}");
        }
        assert!(timing.is_settled(1400 * MILLISECOND));
    }

    #[test]
    fn what_a_publisher_left_behind_is_known_when_the_next_one_has_come() {
        let mut timing = Timing::new(200 * MILLISECOND);
        timing.arrived(0, 0);
        timing.restart();
        timing.arrived(90 * SECOND, 100 * SECOND);
        assert!(timing.is_of_before(5 * SECOND));
        assert!(!timing.is_of_before(90 * SECOND));
    }

    #[test]
    fn what_was_added_for_a_slow_decoder_goes_again_when_it_is_no_longer_needed() {
        let mut timing = Timing::new(200 * MILLISECOND);
        timing.needs(60 * MILLISECOND, 0);
        let mut at = 0;
        while timing.latency() > 200 * MILLISECOND {
            at += SECOND;
            timing.relax(at);
        }
        assert_eq!(at, 59 * SECOND);
    }

    #[test]
    fn a_way_that_becomes_longer_moves_the_line_and_one_frame_that_is_late_does_not() {
        let mut timing = Timing::new(200 * MILLISECOND);
        run(&mut timing, 0.0, 70, |index| if index == 1000 { SECOND } else { 0 });
        assert_eq!(timing.jumps(), 0);
        for index in 2100..2600 {
            timing.arrived(index * SECOND / 30, index * SECOND / 30 + SECOND);
        }
        assert_eq!(timing.jumps(), 1);
        let delay = timing.due(2600 * SECOND / 30).unwrap() - 2600 * SECOND / 30;
        assert!((1150..=1250).contains(&(delay / MILLISECOND)), "{delay}");
    }

    proptest! {
        #[test]
        fn no_times_overflow_or_stop_it(
            frames in prop::collection::vec((any::<i64>(), any::<i64>()), 0..50), latency in 0_i64..5_000_000_000,
        ) {
            let mut timing = Timing::new(latency);
            for (dts, at) in frames {
                timing.arrived(dts, at);
                timing.needs(at, at);
                timing.relax(dts);
                let _ = (timing.due(dts), timing.drift_ppm(at), timing.is_settled(at));
                prop_assert!(timing.rate().abs() <= MAX_RATE);
            }
        }
    }
}
