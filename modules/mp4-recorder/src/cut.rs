//! Where one file ends and the next begins: by media time alone.

use std::time::Duration;

use av_media::{Frame, Kind, Timestamp};

/// Silence of all tracks after which a file would show a still picture: a new one begins. Behind it there may be no sync
/// picture; then that waits for the next one.
const LONGEST_GAP: Duration = Duration::from_secs(2);
/// No longer.
const LONGEST_STILL: Duration = Duration::from_secs(60);
/// Sound for so long without a picture may be cut anywhere; longer than pictures are ever muxed behind their sound.
const PICTURELESS: Duration = Duration::from_secs(5);
/// A stream may have a picture in many seconds: silence is longer than so many of its frames.
const FRAMES: u32 = 3;
/// Times that came by RTMP are rounded to a millisecond: a sync frame that is due at the end of a file may look a
/// little early.
const SLACK: Duration = Duration::from_millis(20);

/// Decides for each frame whether a new file begins with it.
#[derive(Debug)]
pub struct Cutter {
    length: Duration,
    /// Where the file began.
    start: Option<Timestamp>,
    /// The latest time in it.
    last: Option<Timestamp>,
    /// The last picture, and the time from the one before to it.
    picture: Option<Timestamp>,
    picture_gap: Duration,
    /// From each of the last two frames to the one behind it.
    gaps: [Duration; 2],
    /// The next frame can't be in the same file.
    broken: bool,
    /// The file ends at the next sync frame, whatever its length.
    asked: bool,
}

impl Cutter {
    /// Files of that length.
    pub fn new(length: Duration) -> Self {
        Self {
            length,
            start: None,
            last: None,
            picture: None,
            picture_gap: Duration::ZERO,
            gaps: [Duration::ZERO; 2],
            broken: false,
            asked: false,
        }
    }

    /// What comes next does not go on where the last frame was, or is coded otherwise.
    pub fn break_here(&mut self) {
        self.broken = true;
    }

    /// Somebody wants the file ended, or it can't take another GOP.
    pub fn end_soon(&mut self) {
        self.asked = true;
    }

    /// Whether a new file begins with this frame. `has_video`: what is recorded has pictures.
    pub fn begins(&mut self, frame: &Frame, has_video: bool) -> bool {
        let since = |earlier: Timestamp| {
            Duration::from_nanos(u64::try_from(frame.dts.nanos_since(earlier)).unwrap_or(0))
        };
        // Announced pictures may not come, or no more: then sound is all there is.
        let patience = PICTURELESS.max(self.length / 2).max(self.picture_gap.saturating_mul(FRAMES));
        let has_no_pictures = self
            .picture
            .max(self.start)
            .is_some_and(|picture| frame.kind == Kind::Audio && since(picture) >= patience);
        let may = !has_video || has_no_pictures || (frame.kind == Kind::Video && frame.is_sync);
        if frame.kind == Kind::Video {
            self.picture_gap = self.picture.map_or(Duration::ZERO, since);
            self.picture = Some(frame.dts);
        }
        let begins = match (self.start, self.last) {
            (Some(start), Some(last)) => {
                let gap = since(last);
                let [before, usual] = self.gaps;
                self.asked |= gap > LONGEST_GAP.max(before.min(usual).saturating_mul(FRAMES));
                self.gaps = [usual, gap];
                self.broken
                    || (gap > LONGEST_STILL && self.asked)
                    || (may && (self.asked || since(start).saturating_add(SLACK) >= self.length))
            }
            _ => true,
        };
        if begins {
            (self.broken, self.asked) = (false, false);
            self.start = Some(frame.dts);
            self.last = Some(frame.dts);
        }
        self.last = self.last.max(Some(frame.dts));
        begins
    }

    /// There is no file any more: the next frame begins one.
    pub fn ended(&mut self) {
        (self.start, self.last, self.picture) = (None, None, None);
        self.picture_gap = Duration::ZERO;
        (self.broken, self.asked) = (false, false);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn frame(kind: Kind, millis: i64, is_sync: bool) -> Frame {
        let time = Timestamp::from_millis(millis);
        Frame { kind, dts: time, pts: time, is_sync, data: Bytes::new() }
    }

    /// The times of pictures at which files begin, of a stream with a sync frame every two seconds.
    fn cuts(cutter: &mut Cutter, times: impl Iterator<Item = i64>) -> Vec<i64> {
        times.filter(|time| cutter.begins(&frame(Kind::Video, *time, time % 2000 < 40), true)).collect()
    }

    #[test]
    fn a_file_ends_at_the_first_sync_frame_after_its_length() {
        let mut cutter = Cutter::new(Duration::from_secs(5));
        assert_eq!(cuts(&mut cutter, (0..500).map(|i| i * 40)), [0, 6000, 12_000, 18_000]);
        let mut exact = Cutter::new(Duration::from_secs(4));
        // Rounded down by one.
        assert_eq!(cuts(&mut exact, [1, 2000, 3960, 4000, 4040].into_iter()), [1, 4000]);
    }

    #[test]
    fn sound_alone_is_cut_anywhere_and_sound_beside_pictures_nowhere() {
        let mut cutter = Cutter::new(Duration::from_secs(2));
        let alone: Vec<_> = (0..5)
            .map(|i| i * 1000)
            .filter(|t| cutter.begins(&frame(Kind::Audio, *t, true), false))
            .collect();
        assert_eq!(alone, [0, 2000, 4000]);
        let mut cutter = Cutter::new(Duration::from_secs(2));
        assert!(cutter.begins(&frame(Kind::Video, 0, true), true));
        assert!(!cutter.begins(&frame(Kind::Audio, 1500, true), true));
        assert!(!cutter.begins(&frame(Kind::Audio, 3000, true), true));
        assert!(!cutter.begins(&frame(Kind::Video, 3010, false), true));
        assert!(cutter.begins(&frame(Kind::Video, 3040, true), true));
    }

    #[test]
    fn sound_is_cut_where_announced_pictures_do_not_come_or_come_no_more() {
        let sound = |cutter: &mut Cutter, times: std::ops::Range<i64>| -> Vec<i64> {
            let times = times.map(|second| second * 1000);
            times.filter(|time| cutter.begins(&frame(Kind::Audio, *time, true), true)).collect()
        };
        let mut cutter = Cutter::new(Duration::from_secs(20));
        assert_eq!(sound(&mut cutter, 0..45), [0, 20_000, 40_000]);
        // Also a picture at which nothing can begin has come.
        assert!(!cutter.begins(&frame(Kind::Video, 58_000, false), true));
        assert_eq!(sound(&mut cutter, 58..70), [68_000]);
        assert!(!cutter.begins(&frame(Kind::Video, 70_000, true), true));
        // A camera that sends one in ten seconds is no camera that sends none.
        let mut slow = Cutter::new(Duration::from_secs(4));
        for second in 0..60 {
            let picture =
                second % 10 == 0 && slow.begins(&frame(Kind::Video, second * 1000, second == 0), true);
            assert_eq!(picture, second == 0, "{second}");
            let may = second < 15;
            let cut = slow.begins(&frame(Kind::Audio, second * 1000 + 1, true), true);
            assert!(may || !cut, "{second}");
        }
    }

    #[test]
    fn a_gap_of_more_than_two_seconds_a_break_and_a_wish_begin_a_file() {
        let mut cutter = Cutter::new(Duration::from_secs(3600));
        assert_eq!(cuts(&mut cutter, [0, 40, 2040, 6000].into_iter()), [0, 6000]);
        // Within a GOP at the next sync picture, unless that would be late.
        assert_eq!(cuts(&mut cutter, [6040, 9050, 9090, 10_000, 10_040].into_iter()), [10_000]);
        assert_eq!(cuts(&mut cutter, [71_050, 71_090].into_iter()), [71_050]);
        let mut slow = Cutter::new(Duration::from_secs(3600));
        assert_eq!(cuts(&mut slow, (0..20).map(|picture| picture * 10_000)), [0, 10_000, 20_000]);
        let mut cutter = Cutter::new(Duration::from_secs(3600));
        assert_eq!(cuts(&mut cutter, [4000, 4041].into_iter()), [4000]);
        cutter.break_here();
        assert_eq!(cuts(&mut cutter, [4080, 4120].into_iter()), [4080]);
        cutter.end_soon();
        assert_eq!(cuts(&mut cutter, [4160, 6000, 6040].into_iter()), [6000]);
        cutter.ended();
        assert_eq!(cuts(&mut cutter, [6080].into_iter()), [6080]);
    }
}
