//! Why the picture stands still, told apart.

use std::fmt;

/// A moment's view of one output; times in nanoseconds since it started, `None`: never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Of now.
    pub now: i64,
    /// Pictures ought to come: there is a publisher, and it has pictures.
    pub expected: bool,
    /// When that began.
    pub since: i64,
    /// The last picture that came.
    pub received: Option<i64>,
    /// The last one that was handed to the decoder.
    pub fed: Option<i64>,
    /// Since when it has been getting pictures without a pause.
    pub fed_since: Option<i64>,
    /// The last one that left the decoder.
    pub decoded: Option<i64>,
    /// When one waited long for its time last: neither decoder nor display can be told to stand still meanwhile.
    pub waited: Option<i64>,
    /// The last one that was handed to the display.
    pub handed: Option<i64>,
    /// The last one that the display took.
    pub rendered: Option<i64>,
    /// The last one that differed from the one before it.
    pub changed: Option<i64>,
}

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frozen {
    /// No pictures come.
    Input,
    /// Pictures come, and the decoder can't begin with them.
    KeyFrame,
    /// Pictures come, and the decoder puts none out.
    Decoder,
    /// Pictures are decoded, and the display takes none.
    Display,
    /// The publisher repeats one picture.
    Publisher,
}

impl Frozen {
    /// One word for reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::KeyFrame => "keyFrame",
            Self::Decoder => "decoder",
            Self::Display => "display",
            Self::Publisher => "publisher",
        }
    }
}

impl fmt::Display for Frozen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Input => "the publisher is connected, but no pictures arrive",
            Self::KeyFrame => "pictures arrive, but the decoder waits for a key frame",
            Self::Decoder => "pictures arrive, but the decoder outputs none",
            Self::Display => "pictures are decoded, but none reaches the display",
            Self::Publisher => "the publisher repeats one picture",
        })
    }
}

/// Where the picture has been standing for `limit` nanoseconds.
pub fn frozen(seen: &Seen, limit: i64) -> Option<Frozen> {
    let still =
        |last: Option<i64>| seen.now.saturating_sub(last.unwrap_or(seen.since).max(seen.since)) >= limit;
    if !seen.expected {
        None
    } else if still(seen.received) {
        Some(Frozen::Input)
    } else if still(seen.fed) {
        Some(Frozen::KeyFrame)
    } else if still(seen.decoded.max(seen.fed_since).max(seen.waited)) {
        Some(Frozen::Decoder)
    } else if still(seen.rendered.max(seen.waited)) {
        // Decoded ones that were all too late to be handed on are the decoder's fault.
        Some(if still(seen.handed) { Frozen::Decoder } else { Frozen::Display })
    } else if still(seen.changed) {
        Some(Frozen::Publisher)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn seen(received: i64, decoded: i64, handed: i64, rendered: i64, changed: i64) -> Seen {
        let [received, decoded, handed, rendered, changed] =
            [received, decoded, handed, rendered, changed].map(|seconds| Some(seconds * SECOND));
        let (now, fed, fed_since) = (20 * SECOND, received, Some(0));
        let waited = None;
        Seen {
            now,
            expected: true,
            since: 0,
            received,
            fed,
            fed_since,
            decoded,
            waited,
            handed,
            rendered,
            changed,
        }
    }

    #[test]
    fn a_picture_that_waits_for_its_time_blames_nobody_but_the_publisher() {
        let waits = |seen: Seen| Seen { waited: Some(20 * SECOND), ..seen };
        for (seen, wanted) in [
            (waits(seen(20, 14, 0, 0, 20)), None),
            (waits(seen(14, 14, 0, 0, 14)), Some(Frozen::Input)),
            (waits(seen(20, 20, 20, 20, 14)), Some(Frozen::Publisher)),
        ] {
            assert_eq!(frozen(&seen, 5 * SECOND), wanted, "{seen:?}");
        }
    }

    #[test]
    fn the_first_place_that_stands_still_is_named() {
        for (seen, wanted) in [
            (seen(20, 20, 20, 20, 20), None),
            (seen(14, 14, 14, 14, 14), Some(Frozen::Input)),
            (seen(20, 14, 14, 14, 14), Some(Frozen::Decoder)),
            (seen(20, 20, 20, 14, 14), Some(Frozen::Display)),
            (seen(20, 20, 14, 14, 14), Some(Frozen::Decoder)),
            (seen(20, 20, 20, 20, 14), Some(Frozen::Publisher)),
            (seen(16, 16, 16, 16, 16), None),
        ] {
            assert_eq!(frozen(&seen, 5 * SECOND), wanted, "{seen:?}");
        }
    }

    #[test]
    fn a_decoder_that_is_given_nothing_is_not_blamed() {
        let at = |seconds: i64| Some(seconds * SECOND);
        // It fell behind at 10 s, and there was no key frame since.
        let waits = Seen { fed: at(10), ..seen(20, 10, 10, 10, 10) };
        assert_eq!(frozen(&waits, 5 * SECOND), Some(Frozen::KeyFrame));
        // There is one at 19 s: it has its time from then on.
        let begins = Seen { fed: at(20), fed_since: at(19), ..waits };
        assert_ne!(frozen(&begins, 5 * SECOND), Some(Frozen::KeyFrame));
        let decodes = Seen { decoded: at(20), handed: at(20), rendered: at(20), changed: at(20), ..begins };
        assert_eq!(frozen(&decodes, 5 * SECOND), None);
        let stands = Seen { fed_since: at(14), ..begins };
        assert_eq!(frozen(&stands, 5 * SECOND), Some(Frozen::Decoder));
    }

    #[test]
    fn a_start_gets_its_time_and_a_publisher_that_is_away_is_no_frozen_picture() {
        let started = Seen { now: 20 * SECOND, expected: true, since: 17 * SECOND, ..Seen::default() };
        assert_eq!(frozen(&started, 5 * SECOND), None);
        assert_eq!(frozen(&started, 3 * SECOND), Some(Frozen::Input));
        assert_eq!(frozen(&Seen { expected: false, ..started }, 3 * SECOND), None);
    }
}
