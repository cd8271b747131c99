//! Sound that fails to come. Players stop where one of two tracks ends, and some count sound by its samples: so silence
//! stands where there is none.

use av_media::{Frame, Kind, Samples, Silence, Timestamp, Track};

/// Pictures run ahead of the sound for so long before that is silent, in nanoseconds.
const PATIENCE: i64 = 500_000_000;
/// Where sound came after all, later than that: for twice as long as it was behind, and so long at most.
const MOST_PATIENCE: i64 = 4_000_000_000;
/// Frames that are made at once; a hole that is longer stays one.
const MOST_FRAMES: usize = 4096;

/// See the module's text. Times are those of decoding.
#[derive(Debug)]
pub(super) struct Quiet {
    /// `None`: there is no sound, or no silence can be made of its codec.
    silence: Option<Silence>,
    /// The sample at which the sound ends that was handed on.
    end: Option<i64>,
    /// And where its samples end when each frame follows the one before it: senders stamp some in bursts.
    due: i64,
    /// That is silence: what comes late has no place any more.
    is_filled: bool,
    /// Each picture brings more of it.
    goes_on: bool,
    began: Timestamp,
    /// The newest picture, and the one that was when the last sound came.
    newest: Timestamp,
    heard: Timestamp,
    /// The sample at which the last frame begins, and the last two distances: frames that always come that far apart leave
    /// no hole.
    last: Option<i64>,
    steps: [i64; 2],
    patience: i64,
    /// Frames that came when silence was in their place.
    late: u64,
}

impl Default for Quiet {
    fn default() -> Self {
        let zero = Timestamp::ZERO;
        Self {
            silence: None,
            end: None,
            due: i64::MIN,
            is_filled: false,
            goes_on: false,
            began: zero,
            newest: zero,
            heard: zero,
            last: None,
            steps: [0; 2],
            patience: PATIENCE,
            late: 0,
        }
    }
}

impl Quiet {
    /// A timeline begins with a picture at `began`, and sound of this track.
    pub(super) fn begin(&mut self, sound: Option<&Track>, began: Timestamp) {
        let silence = sound.and_then(Silence::of);
        let late = self.late;
        *self = Self { silence, began, newest: began, heard: began, late, ..Self::default() };
    }

    /// Frames of sound that were left out since this was asked last.
    pub(super) const fn take_late(&mut self) -> u64 {
        std::mem::replace(&mut self.late, 0)
    }

    /// Sound: `take` gets it behind the silence that is missing before it.
    pub(super) fn sound(&mut self, frame: Frame, mut take: impl FnMut(Frame)) {
        let Some(silence) = &self.silence else { return take(frame) };
        let Samples { count, rate } = silence.samples();
        let (at, half) = (frame.dts.ticks(rate), i64::from(count / 2));
        let length = i64::from(silence.samples_in(&frame.data));
        let had_ended = std::mem::replace(&mut self.goes_on, false);
        self.heard = self.newest;
        if self.is_filled && self.end.is_some_and(|end| at < end.saturating_sub(half)) {
            let behind = self.newest.nanos_since(frame.dts).saturating_mul(2);
            self.patience = self.patience.max(behind).min(MOST_PATIENCE);
            self.late += 1;
            return;
        }
        let usual = length.max(self.steps.into_iter().min().unwrap_or(0));
        let is_hole = match self.last.replace(at) {
            Some(last) => {
                let step = at.saturating_sub(last);
                let [_, before] = self.steps;
                self.steps = [before, step];
                step > usual.saturating_add(half) && at > self.due.saturating_add(half)
            }
            // Sound seldom begins with the very picture.
            None => self.end.is_some_and(|end| at.saturating_sub(end) > 3 * i64::from(count)),
        };
        if had_ended || self.is_filled || is_hole {
            self.fill(frame.dts, &mut take);
        }
        self.is_filled = false;
        self.end = self.end.max(Some(at.saturating_add(length)));
        let most = Timestamp::from_nanos(self.patience).ticks(rate);
        let is_burst = self.due > at && self.due.saturating_sub(at) <= most;
        self.due = if is_burst { self.due } else { at }.saturating_add(length);
        take(frame);
    }

    /// A picture is about to be handed on: `take` gets the silence that belongs before it.
    pub(super) fn picture(&mut self, at: Timestamp, mut take: impl FnMut(Frame)) {
        self.newest = at;
        let Some(silence) = &self.silence else { return };
        let rate = silence.samples().rate;
        // The first sample that is not before the first picture.
        let began = self.began.ticks(rate);
        let began = began.saturating_add(i64::from(Timestamp::from_ticks(began, rate) < self.began));
        let end = *self.end.get_or_insert(began);
        let since = Timestamp::from_ticks(end, rate).max(self.heard);
        if self.goes_on || at.nanos_since(since) >= self.patience {
            (self.goes_on, self.is_filled) = (true, true);
            self.fill(at, &mut take);
        }
    }

    /// Silence up to `until`, to half a frame.
    fn fill(&mut self, until: Timestamp, take: &mut impl FnMut(Frame)) {
        let (Some(silence), Some(end)) = (&self.silence, &mut self.end) else { return };
        let Samples { count, rate } = silence.samples();
        let count = i64::from(count);
        let until = until.ticks(rate).saturating_sub(count / 2);
        for _ in 0..MOST_FRAMES {
            if *end >= until {
                return;
            }
            let at = Timestamp::from_ticks(*end, rate);
            take(Frame { kind: Kind::Audio, pts: at, dts: at, is_sync: true, data: silence.frame().clone() });
            *end = end.saturating_add(count);
        }
        *end = until;
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use bytes::Bytes;

    use super::*;

    const RATE: NonZeroU32 = NonZeroU32::new(48_000).unwrap();
    const PICTURE: i64 = 40_000_000;

    /// Sound of 1024 samples a frame, and pictures of 40 ms; `came` is what was handed on.
    struct Stream {
        quiet: Quiet,
        came: Vec<Frame>,
    }

    impl Stream {
        fn new() -> Self {
            let mut quiet = Quiet::default();
            let track = Track::aac(Bytes::from_static(b"\x11\x90")).unwrap();
            quiet.begin(Some(&track), Timestamp::ZERO);
            Self { quiet, came: Vec::new() }
        }

        fn sound(&mut self, index: i64) {
            let at = Timestamp::from_ticks(index * 1024, RATE);
            let data = Bytes::from_static(b"sound");
            let frame = Frame { kind: Kind::Audio, pts: at, dts: at, is_sync: true, data };
            self.quiet.sound(frame, |frame| self.came.push(frame));
        }

        fn picture(&mut self, index: i64) {
            let at = Timestamp::from_nanos(index * PICTURE);
            self.quiet.picture(at, |frame| self.came.push(frame));
        }

        /// Pictures up to that one, and the sound between them that `has` lets come, so many frames behind.
        fn run(&mut self, pictures: std::ops::Range<i64>, behind: i64, has: impl Fn(i64) -> bool) {
            for index in pictures {
                self.picture(index);
                let due = |picture: i64| {
                    Timestamp::from_nanos(picture * PICTURE).ticks(RATE).saturating_add(1023) / 1024
                };
                let frames = due(index) - behind..due(index + 1) - behind;
                frames.filter(|frame| *frame >= 0 && has(*frame)).for_each(|frame| self.sound(frame));
            }
        }

        /// The frames that were heard, of those that follow each other to the sample from 0 on.
        fn heard(&self) -> Vec<bool> {
            let times = self.came.iter().map(|frame| frame.dts.ticks(RATE)).collect::<Vec<_>>();
            let count = i64::try_from(times.len()).unwrap();
            assert_eq!(times, (0..count).map(|index| index * 1024).collect::<Vec<_>>());
            self.came.iter().map(|frame| frame.data == "sound").collect()
        }
    }

    #[test]
    fn sound_that_is_whole_is_left_as_it_is_however_far_it_is_behind() {
        for behind in [0, 10, 100] {
            let mut stream = Stream::new();
            // What is behind at the start shows once how far.
            stream.run(0..500, behind, |_| true);
            let lost = usize::try_from(stream.quiet.take_late()).unwrap();
            assert_eq!(stream.heard().iter().filter(|heard| !**heard).count(), lost, "{behind}");
            assert_eq!(lost > 0, behind == 100, "{behind}: {lost}");
            stream.came.clear();
            stream.run(500..1000, behind, |_| true);
            assert!(stream.came.iter().all(|frame| frame.data == "sound"), "{behind}");
        }
    }

    #[test]
    fn a_hole_is_filled_to_the_sample() {
        for hole in [1, 2, 7, 19] {
            let mut stream = Stream::new();
            stream.run(0..250, 2, |frame| !(100..100 + hole).contains(&frame));
            let heard = stream.heard();
            let silent = (0_i64..).zip(heard).filter(|(_, heard)| !heard).map(|(index, _)| index);
            assert_eq!(silent.collect::<Vec<_>>(), (100..100 + hole).collect::<Vec<_>>());
            assert_eq!(stream.quiet.take_late(), 0);
        }
    }

    #[test]
    fn sound_that_never_comes_is_silent_all_along() {
        let mut stream = Stream::new();
        stream.run(0..251, 0, |_| false);
        assert_eq!(stream.heard(), [false; 469], "ten seconds");
    }

    #[test]
    fn sound_that_ends_is_silent_until_it_comes_again_even_if_it_lags_behind_the_pictures() {
        let mut stream = Stream::new();
        stream.run(0..500, 5, |frame| !(100..500).contains(&frame));
        let heard = stream.heard();
        assert!(heard[..100].iter().all(|heard| *heard) && heard[100..500].iter().all(|heard| !heard));
        // What came before silence was over is missed.
        let late = usize::try_from(stream.quiet.take_late()).unwrap();
        assert!((1..=7).contains(&late), "{late}");
        assert!(heard[500 + late..].iter().all(|heard| *heard));
    }

    #[test]
    fn frames_that_are_shorter_than_their_distance_leave_no_holes() {
        let mut stream = Stream::new();
        stream.run(0..500, 0, |frame| frame % 2 == 0);
        let silent = stream.came.iter().filter(|frame| frame.data != "sound").count();
        assert!(silent <= 2, "{silent}");
    }

    #[test]
    fn sound_that_is_stamped_in_bursts_has_no_holes() {
        for burst in 2..=5 {
            let mut stream = Stream::new();
            for frame in 0..500 {
                stream.picture(frame * 1024 * 1_000_000 / 48 / PICTURE);
                let (round, index) = (frame / burst, frame % burst);
                let at = Timestamp::from_ticks(round * burst * 1024 + index * 48, RATE);
                let data = Bytes::from_static(b"sound");
                let frame = Frame { kind: Kind::Audio, pts: at, dts: at, is_sync: true, data };
                stream.quiet.sound(frame, |frame| stream.came.push(frame));
            }
            assert!(stream.came.iter().all(|frame| frame.data == "sound"), "{burst}");
        }
    }

    #[test]
    fn silence_begins_with_the_first_picture_where_the_first_sound_is_far_behind_it() {
        for began in [0, 5_000_007] {
            let mut quiet = Quiet::default();
            let track = Track::aac(Bytes::from_static(b"\x11\x90")).unwrap();
            let began = Timestamp::from_nanos(began);
            quiet.begin(Some(&track), began);
            let mut came = Vec::new();
            quiet.picture(began, |frame| came.push(frame));
            let at = Timestamp::from_millis(400);
            let data = Bytes::from_static(b"sound");
            let sound = Frame { kind: Kind::Audio, pts: at, dts: at, is_sync: true, data };
            quiet.sound(sound, |frame| came.push(frame));
            assert!(came[0].dts >= began && came[0].dts.nanos_since(began) < 21_000, "{came:?}");
            assert_eq!(came.len(), 20);
        }
    }

    #[test]
    fn a_leap_of_the_sound_is_not_filled_for_ever() {
        let mut stream = Stream::new();
        stream.run(0..50, 0, |_| true);
        stream.sound(1 << 40);
        assert!(stream.came.len() < 2 * MOST_FRAMES);
    }
}
