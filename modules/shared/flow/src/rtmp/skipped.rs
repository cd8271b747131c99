//! What RTMP's sessions leave out, in the words of the input's counters, state and log.

use std::time::{Duration, Instant};

use av_rtmp::{MediaItem, SkipReason};

use crate::stream::{InputStatus, LeftOut, Skip};
use crate::trouble::chain;

/// What was left out of one connection since its last frame.
#[derive(Debug, Default)]
pub(super) struct Omissions {
    last: Option<(Instant, String)>,
}

impl Omissions {
    /// Notes messages that a session has skipped.
    pub(super) fn skipped(&mut self, input: &InputStatus, reason: &SkipReason, count: u32, now: Instant) {
        let Some(class) = class(reason) else { return };
        input.skipped.add(class, count.into());
        let text = chain(reason);
        let shown = match (reason, reason.kind()) {
            (SkipReason::NoSequenceHeader(codec), Some(kind)) => Some((kind, format!("{codec:?}"))),
            (_, Some(kind)) => reason.codec().map(|codec| (kind, codec)),
            _ => None,
        };
        if let Some((kind, codec)) = shown {
            input.leave_out(kind, Some(LeftOut { codec, dropped: text.clone() }));
        }
        input.said.note(&match class {
            Skip::Malformed => format!("broke RTMP: {text}"),
            _ => format!("sends messages that are left out: {text}"),
        });
        self.last = Some((now, text));
    }

    /// Notes what is passed on.
    pub(super) fn passed(&mut self, item: &MediaItem, now: Instant) {
        match item {
            MediaItem::Frame(_) => self.last = None,
            MediaItem::Data { .. } | MediaItem::Metadata(_) | MediaItem::Extra(_) if self.last.is_none() => {
                self.last = Some((now, "only messages other than video and audio arrived".to_owned()));
            }
            _ => {}
        }
    }

    /// What came instead of frames within the last `time`.
    pub(super) fn within(&self, time: Duration, now: Instant) -> Option<&str> {
        let (at, text) = self.last.as_ref()?;
        (now.saturating_duration_since(*at) < time).then_some(text)
    }
}

/// `None`: nothing is missing for it.
const fn class(reason: &SkipReason) -> Option<Skip> {
    Some(match reason {
        SkipReason::VideoCodec(_) | SkipReason::AudioCodec(_) | SkipReason::FourCc(..) => Skip::Codec,
        SkipReason::NoSequenceHeader(_) => Skip::BeforeSync,
        SkipReason::Malformed { .. } => Skip::Malformed,
        SkipReason::TooLarge { .. } | SkipReason::TooMany { .. } => Skip::TooLarge,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use av_media::Kind;
    use av_rtmp::RtmpError;

    use super::*;
    use crate::rtmp::peer::picture;
    use crate::stream::Changes;

    #[test]
    fn what_a_session_skips_is_counted_shown_and_said_with_the_rule_behind_it() {
        let input = InputStatus::new(Changes::default());
        let (mut omissions, now) = (Omissions::default(), Instant::now());
        let cut = RtmpError::ShortMessage { type_id: 4, length: 3, needed: 6 };
        for (reason, count) in [
            (SkipReason::VideoCodec(4), 7),
            (SkipReason::FourCc(Kind::Audio, *b"spx1"), 1),
            (SkipReason::Malformed { kind: None, error: cut }, 2),
            (SkipReason::TooLarge { what: "onMetaData", length: 9, limit: 8 }, 1),
            (SkipReason::Empty(Kind::Video), 100),
        ] {
            omissions.skipped(&input, &reason, count, now);
        }
        assert_eq!(input.skipped.counts(), [8, 2, 0, 1]);
        assert_eq!(input.skipped.get(Kind::Video).unwrap().codec, "VP6");
        assert_eq!(input.skipped.get(Kind::Audio).unwrap().dropped, "audio codec spx1 is not carried");
        let news = input.said.take_news();
        assert_eq!(news.len(), 4, "{news:?}");
        assert!(news[2].contains("broke RTMP") && news[2].contains("type 4 has 3 bytes"), "{news:?}");
    }

    #[test]
    fn the_reason_of_a_silence_is_what_came_instead_of_frames() {
        let input = InputStatus::new(Changes::default());
        let (mut omissions, now, idle) = (Omissions::default(), Instant::now(), Duration::from_secs(10));
        assert_eq!(omissions.within(idle, now), None);
        omissions.skipped(&input, &SkipReason::AudioCodec(11), 1, now);
        assert_eq!(omissions.within(idle, now), Some("audio codec 11 (Speex) is not carried"));
        assert_eq!(omissions.within(idle, now + idle), None, "that was long ago");
        let data = MediaItem::Data { timestamp_ms: 0, payload: Default::default() };
        omissions.passed(&data, now);
        assert_eq!(omissions.within(idle, now), Some("audio codec 11 (Speex) is not carried"));
        omissions.passed(&MediaItem::Frame(picture(0, true)), now);
        assert_eq!(omissions.within(idle, now), None);
    }
}
