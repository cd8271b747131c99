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
    /// The last one that left the decoder.
    pub decoded: Option<i64>,
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
            Self::Decoder => "decoder",
            Self::Display => "display",
            Self::Publisher => "publisher",
        }
    }
}

impl fmt::Display for Frozen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Input => "no pictures come from the publisher, which is connected",
            Self::Decoder => "pictures come, and the decoder puts none out",
            Self::Display => "pictures are decoded, and none reaches the display",
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
    } else if still(seen.decoded) {
        Some(Frozen::Decoder)
    } else if still(seen.rendered) {
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
        Seen { now: 20 * SECOND, expected: true, since: 0, received, decoded, handed, rendered, changed }
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
    fn a_start_gets_its_time_and_a_publisher_that_is_away_is_no_frozen_picture() {
        let started = Seen { now: 20 * SECOND, expected: true, since: 17 * SECOND, ..Seen::default() };
        assert_eq!(frozen(&started, 5 * SECOND), None);
        assert_eq!(frozen(&started, 3 * SECOND), Some(Frozen::Input));
        assert_eq!(frozen(&Seen { expected: false, ..started }, 3 * SECOND), None);
    }
}
