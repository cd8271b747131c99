//! What RTMP's sessions leave out, in the words of the input's counters, state and log.

use std::time::{Duration, Instant};

use av_rtmp::{MediaItem, RtmpError, SkipReason};

use crate::stream::{About, InputStatus, LeftOut, Skip};
use crate::trouble::chain;

/// A publisher that was cut off for a message comes back and is fine up to the next one like it.
const FINE: Duration = Duration::from_secs(15);

/// What was left out of one connection since its last frame.
#[derive(Debug, Default)]
pub(super) struct Omissions {
    last: Option<(Instant, String)>,
    /// When the first frame came.
    began: Option<Instant>,
    /// It has sent frames for so long that what was said of those before holds no more.
    is_fine: bool,
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
    pub(super) fn passed(&mut self, input: &InputStatus, item: &MediaItem, now: Instant) {
        match item {
            MediaItem::Frame(_) => {
                self.last = None;
                let began = *self.began.get_or_insert(now);
                if !self.is_fine && now.saturating_duration_since(began) >= FINE {
                    self.is_fine = true;
                    input.status.remark_about(About::Peer, None);
                }
            }
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

/// Counts a message that was too long to be taken, which ends a connection. Whether it was one.
pub(super) fn too_long(input: &InputStatus, error: &RtmpError) -> bool {
    let is_it = matches!(error, RtmpError::MessageTooLong { .. });
    if is_it {
        input.skipped.add(Skip::TooLarge, 1);
    }
    is_it
}

/// The same of a publisher to `path`, which does not know what it did: the state says so until one is fine.
pub(super) fn told_too_long(input: &InputStatus, path: &str, error: &RtmpError) {
    if too_long(input, error) {
        // Without the length, which is another one each time.
        let why = "a publisher was disconnected for a message longer than `maxMessageKilobytes` allows";
        tracing::warn!("{path}: {why}: {error}");
        let remedy = "raise it, or lower the encoder's bit rate";
        input.status.remark_about(About::Peer, Some(format!("{path}: {why}; {remedy}")));
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
        omissions.passed(&input, &data, now);
        assert_eq!(omissions.within(idle, now), Some("audio codec 11 (Speex) is not carried"));
        omissions.passed(&input, &MediaItem::Frame(picture(0, true)), now);
        assert_eq!(omissions.within(idle, now), None);
    }

    #[test]
    fn a_message_that_is_too_long_is_counted_and_told_until_a_publisher_has_been_fine_for_a_while() {
        let (input, now) = (InputStatus::new(Changes::default()), Instant::now());
        let told = || input.status.get().remark;
        told_too_long(&input, "flows.a.input.listen", &RtmpError::MessageTooLong { length: 9, limit: 8 });
        told_too_long(&input, "flows.a.input.listen", &RtmpError::TooManyChunkStreams { limit: 8 });
        assert_eq!(input.skipped.counts(), [0, 0, 0, 1]);
        let said = told().unwrap();
        assert!(said.starts_with("flows.a.input.listen: ") && said.contains("raise it"), "{said}");
        // It comes back, and sends small pictures before the next large one.
        let frame = MediaItem::Frame(picture(0, true));
        let mut again = Omissions::default();
        again.passed(&input, &frame, now);
        again.passed(&input, &frame, now + FINE / 2);
        assert_eq!(told(), Some(said));
        again.passed(&input, &frame, now + FINE);
        assert_eq!(told(), None);
    }
}
