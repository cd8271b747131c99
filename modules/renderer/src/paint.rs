//! The thread that shows pictures: it takes them from the decoder, waits until each is due, and hands it to the screen.
//! While there is no signal it shows the card instead.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak, mpsc};
use std::time::{Duration, SystemTime};

use gstreamer as gst;

use crate::card;
use crate::clock::sleep;
use crate::decode::to_stream;
use crate::options::Display;
use crate::screen::{Look, Screen, ScreenError, Shared};
use crate::stage::{NEVER, Signal, Stage, locked};

const MILLISECOND: i64 = 1_000_000;
const SECOND: i64 = 1000 * MILLISECOND;
/// Between two tries to open a screen.
const RETRY: i64 = 2 * SECOND;
/// A picture that is later than that is left out, unless none was shown for a while.
const LATE: i64 = 40 * MILLISECOND;
/// With less time than that to spare, none is taken away again.
const SPARE: i64 = 60 * MILLISECOND;
const SHOWS_AT_LEAST: i64 = 200 * MILLISECOND;
/// Longest wait without a look at what else there is.
const STEP: i64 = 20 * MILLISECOND;
/// The card comes when the signal has been away for so long.
const CARD_AFTER: i64 = SECOND;
/// Each picture waits for its time a little; one that waits longer holds up those behind it, and that is nobody's fault.
const LONG_WAIT: i64 = 3 * SECOND / 2;
/// A picture is shown so much later than it is decoded at most, beyond the latency: as far as B-frames of slow cameras go.
const MOST_AHEAD: i64 = 3 * SECOND;
/// A time of day alone would be taken for one of today.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// A screen that takes so long to end is told of.
const HANGS: i64 = 10 * SECOND;
/// A display that takes nothing for so long is opened anew where that may help.
const STILL: i64 = 3 * SECOND;

/// The thread's own.
pub struct Painter {
    stage: Arc<Stage>,
    screen: Option<Screen>,
    opening: Option<mpsc::Receiver<Result<Screen, ScreenError>>>,
    /// The screen before this one: there are never two.
    before: Weak<Shared>,
    retry_at: i64,
    /// Pictures that this screen took.
    rendered: u64,
    /// So many of the next ones are cards, or have been counted.
    uncounted: u64,
    /// Stream time of the last picture that was handed on or left out.
    newest: i64,
    handed_at: i64,
    rendered_at: i64,
    digest: u64,
    /// What the card shows now, and how large.
    card: Option<(Vec<String>, u64, (u32, u32))>,
    lateness: Lateness,
}

/// Of the pictures of one second.
#[derive(Default)]
struct Lateness {
    since: Option<i64>,
    first: i64,
    least: i64,
    pictures: u32,
}

impl Painter {
    /// For one output.
    pub fn new(stage: Arc<Stage>) -> Self {
        Self {
            stage,
            screen: None,
            opening: None,
            before: Weak::new(),
            retry_at: 0,
            rendered: 0,
            uncounted: 0,
            newest: NEVER,
            handed_at: NEVER,
            rendered_at: NEVER,
            digest: 0,
            card: None,
            lateness: Lateness::default(),
        }
    }

    /// Until the output is over.
    pub fn run(mut self) {
        while !self.stage.is_over() {
            self.look_after_screen();
            let output = locked(&self.stage.decoders).front().cloned();
            let Some(output) = output else {
                self.card();
                sleep(STEP);
                continue;
            };
            match output.try_pull_sample(gst::ClockTime::from_mseconds(20)) {
                Some(sample) => self.picture(sample),
                None => {
                    let mut decoders = locked(&self.stage.decoders);
                    if output.is_eos() && decoders.front() == Some(&output) {
                        decoders.pop_front();
                    }
                    drop(decoders);
                    self.card();
                }
            }
        }
    }

    fn picture(&mut self, sample: gst::Sample) {
        let counts = &self.stage.counts;
        counts.decoded.fetch_add(1, Ordering::Relaxed);
        counts.decoded_at.store(self.stage.clock.now(), Ordering::Relaxed);
        let Some(stream) = sample.buffer().and_then(gst::BufferRef::pts).map(to_stream) else { return };
        if self.was_shown(stream) {
            // Nobody stands still meanwhile.
            counts.waited_at.store(self.stage.clock.now(), Ordering::Relaxed);
            return;
        }
        let due = |stage: &Stage| locked(&stage.timing).due(stream);
        if let Some(due) = due(&self.stage) {
            self.note(self.stage.clock.now().saturating_sub(due));
        }
        let began = self.stage.clock.now();
        let late = loop {
            let now = self.stage.clock.now();
            // Asked anew each time: it may move.
            let Some(due) = due(&self.stage) else { break 0 };
            if now >= due {
                break now.saturating_sub(due);
            }
            // No picture waits much longer than all do: its time is wrong.
            if due.saturating_sub(now) > locked(&self.stage.timing).latency().saturating_add(MOST_AHEAD) {
                break 0;
            }
            if now.saturating_sub(began) > LONG_WAIT {
                self.stage.counts.waited_at.store(now, Ordering::Relaxed);
            }
            if self.stage.is_over() {
                return;
            }
            self.look_after_screen();
            sleep(due.saturating_sub(self.stage.clock.now()).min(STEP));
        };
        self.newest = stream;
        let now = self.stage.clock.now();
        let is_of_before = locked(&self.stage.timing).is_of_before(stream);
        if late > LATE && (is_of_before || now.saturating_sub(self.handed_at) < SHOWS_AT_LEAST) {
            self.stage.counts.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.stage.counts.late.store(late, Ordering::Relaxed);
        self.hand(sample, now);
    }

    /// Whether a picture was shown or left out when the decoder before this one put it out.
    fn was_shown(&self, stream: i64) -> bool {
        let one_less = |again: u64| again.checked_sub(1);
        let again = &self.stage.counts.again;
        again.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() && stream <= self.newest
    }

    /// Pictures that all leave the decoder too late, although none waits for it, need more time.
    fn note(&mut self, late: i64) {
        let now = self.stage.clock.now();
        let since = *self.lateness.since.get_or_insert(now);
        if self.lateness.pictures == 0 {
            (self.lateness.first, self.lateness.least) = (late, late);
        }
        self.lateness.least = self.lateness.least.min(late);
        self.lateness.pictures += 1;
        if now.saturating_sub(since) < SECOND {
            return;
        }
        let Lateness { first, least, pictures, .. } = std::mem::take(&mut self.lateness);
        let mut timing = locked(&self.stage.timing);
        // One that catches up needs none.
        let stays = late.saturating_add(LATE) > first;
        if least > 0 && least < SECOND && stays && pictures >= 5 && timing.is_settled(now) {
            timing.needs(least.saturating_add(20 * MILLISECOND), now);
        } else if least.saturating_add(SPARE) > 0 {
            timing.is_tight(now);
        } else {
            timing.relax(now);
        }
    }

    fn hand(&mut self, sample: gst::Sample, now: i64) {
        let digest = digest(&sample);
        if digest != self.digest {
            self.digest = digest;
            self.stage.counts.changed_at.store(now, Ordering::Relaxed);
        }
        self.card = None;
        self.handed_at = now;
        self.stage.counts.handed_at.store(now, Ordering::Relaxed);
        let is_shown = self.screen.as_ref().is_some_and(|screen| screen.show(&sample));
        if !is_shown {
            self.stage.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
        *locked(&self.stage.shown) = Some(sample);
        self.count();
    }

    /// What the display has taken since.
    fn count(&mut self) {
        let Some(screen) = &self.screen else { return };
        let rendered = screen.rendered();
        let more = rendered.saturating_sub(std::mem::replace(&mut self.rendered, rendered));
        if more > 0 {
            self.rendered_at = self.stage.clock.now();
            *locked(&self.stage.trouble) = None;
        }
        let counted = more.saturating_sub(self.uncounted);
        self.uncounted = self.uncounted.saturating_sub(more);
        if counted > 0 {
            let counts = &self.stage.counts;
            counts.rendered_at.store(self.rendered_at, Ordering::Relaxed);
            counts.rendered.fetch_add(counted, Ordering::Relaxed);
        }
    }

    fn look_after_screen(&mut self) {
        self.count();
        let now = self.stage.clock.now();
        if let Some(screen) = &self.screen {
            let still = now.saturating_sub(self.handed_at) < SECOND
                && now.saturating_sub(self.rendered_at.max(self.retry_at)) > STILL;
            let error = match screen.error() {
                None if still && screen.reopens() => {
                    Some(format!("{} no longer accepts pictures", screen.sink()))
                }
                error => error,
            };
            if let Some(error) = error {
                self.fail(error, now);
            }
        } else if let Some(opening) = &self.opening {
            match opening.try_recv() {
                Ok(Ok(screen)) => {
                    self.opening = None;
                    self.open(screen, now);
                }
                Ok(Err(error)) => self.fail(error.to_string(), now),
                Err(mpsc::TryRecvError::Disconnected) => self.fail("opening the display failed".into(), now),
                Err(mpsc::TryRecvError::Empty) if now.saturating_sub(self.retry_at) > STILL => {
                    *locked(&self.stage.trouble) = Some("the display server does not answer".into());
                }
                Err(mpsc::TryRecvError::Empty) => {}
            }
        } else if now >= self.retry_at {
            if self.before.strong_count() == 0 {
                self.begin(now);
            } else if now.saturating_sub(self.retry_at) > HANGS {
                let why = "the previous display hangs while it closes; restart the module if this persists";
                *locked(&self.stage.trouble) = Some(why.into());
            }
        }
    }

    fn begin(&mut self, now: i64) {
        let (send, receive) = mpsc::channel();
        let config = &self.stage.config;
        let look = Look {
            title: self.stage.title.clone(),
            fullscreen: config.fullscreen,
            rotate: config.rotate,
            cell: config.cell,
            size: locked(&self.stage.signal).size.unwrap_or((1280, 720)),
        };
        let (display, cards) = (config.display.clone(), self.stage.cards.clone());
        // A server that does not answer holds up this thread and no other; there is never more than one of them.
        let spawned = std::thread::Builder::new().name("screen-opens".into()).spawn(move || {
            let _ = send.send(Screen::open(&display, &look, &cards));
        });
        self.retry_at = now;
        match spawned {
            Ok(_) => self.opening = Some(receive),
            Err(error) => {
                self.fail(format!("the thread that opens the display can't be started: {error}"), now)
            }
        }
    }

    fn open(&mut self, screen: Screen, now: i64) {
        self.stage.counts.opened.fetch_add(1, Ordering::Relaxed);
        // A card says with the first picture only that another program owns it.
        if !screen.reopens() {
            *locked(&self.stage.trouble) = None;
        }
        self.before = screen.life();
        *locked(&self.stage.sink) = Some(screen.sink());
        self.rendered = 0;
        self.uncounted = 0;
        self.rendered_at = now;
        self.retry_at = now;
        self.card = None;
        // The picture of now, until the next one comes.
        let last = locked(&self.stage.shown).clone();
        if let Some(last) = last {
            self.uncounted = screen.show(&last).into();
        }
        self.screen = Some(screen);
    }

    fn fail(&mut self, why: String, now: i64) {
        self.screen = None;
        self.opening = None;
        self.retry_at = now.saturating_add(RETRY);
        *locked(&self.stage.sink) = None;
        *locked(&self.stage.trouble) = Some(why);
    }

    /// Shows the card where there is nothing else to show.
    fn card(&mut self) {
        let signal = locked(&self.stage.signal).clone();
        let now = self.stage.clock.now();
        let nothing = !signal.there || signal.sound_only;
        if !nothing || now.saturating_sub(signal.since_here.max(self.handed_at)) < CARD_AFTER {
            return;
        }
        let Some(screen) = &self.screen else { return };
        if self.stage.config.display == Display::None {
            return;
        }
        let size = screen.size().or(signal.size).unwrap_or((1280, 720));
        let lines = vec![self.stage.title.clone(), sentence(&signal, SystemTime::now())];
        let minute = u64::try_from(now / (60 * SECOND)).unwrap_or(0);
        let wanted = (lines, minute, size);
        if self.card.as_ref() == Some(&wanted) || !screen.has_room() {
            return;
        }
        let turned = !self.stage.config.rotate.is_multiple_of(180);
        let (width, height) = if turned { (size.1, size.0) } else { size };
        let Some(card) = card::draw(width, height, &wanted.0, minute) else { return };
        if screen.show(&card) {
            self.card = Some(wanted);
            self.uncounted += 1;
            *locked(&self.stage.shown) = Some(card);
        }
    }
}

fn sentence(signal: &Signal, now: SystemTime) -> String {
    if signal.sound_only {
        return "sound only".to_owned();
    }
    let day = now.duration_since(signal.since).unwrap_or(Duration::ZERO) >= DAY;
    let since = jiff::Timestamp::try_from(signal.since).unwrap_or_default();
    let shown = since.strftime(if day { "%Y-%m-%d %H:%M:%S UTC" } else { "%H:%M:%S UTC" });
    format!("no signal since {shown}")
}

/// A number that differs for pictures that differ, by some thousand bytes of each.
fn digest(sample: &gst::Sample) -> u64 {
    let Some(map) = sample.buffer().and_then(|buffer| buffer.map_readable().ok()) else { return 0 };
    let bytes = map.as_slice();
    let step = (bytes.len() / 16_384).max(1) | 1;
    bytes.iter().step_by(step).fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_has_been_lost_for_a_day_is_missed_with_its_date() {
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_255_308);
        let signal = Signal { there: false, since, since_here: 0, size: None, sound_only: false };
        let after = |time| sentence(&signal, since + time);
        assert_eq!(after(DAY - Duration::from_secs(1)), "no signal since 08:15:08 UTC");
        assert_eq!(after(DAY), "no signal since 2026-01-01 08:15:08 UTC");
    }
}
