//! What a served stream is said to be: the same for every player, until it changes.

use std::sync::Arc;

use av_media::Kind;
use av_rtsp::sdp::{Description, Format};
use tokio::sync::watch;

use crate::stream::Tracks;

/// A stream as DESCRIBE tells it.
#[derive(Debug)]
pub(super) struct Described {
    /// The text.
    pub(super) description: Description,
    /// The kind of each medium, in order.
    pub(super) media: Vec<Kind>,
    /// The synchronisation source of each medium.
    pub(super) ssrcs: Vec<u32>,
    /// How each medium is coded.
    pub(super) formats: Vec<Format>,
    /// What the stream had, whether it is carried or not.
    pub(super) tracks: Arc<Tracks>,
}

impl Described {
    /// Whether it says what there is to be said of these tracks.
    pub(super) fn is_of(&self, tracks: &Tracks) -> bool {
        [Kind::Video, Kind::Audio].into_iter().all(|kind| match (self.tracks.get(kind), tracks.get(kind)) {
            (Some(described), Some(present)) => described.decodes_like(present),
            (None, None) => true,
            _ => false,
        })
    }

    /// Whether a player that was told this can read what is sent as `now` tells it.
    pub(super) fn holds_for(&self, now: &Self) -> bool {
        self.formats.len() == now.formats.len()
            && self.formats.iter().zip(&now.formats).all(|(told, now)| are_read_alike(told, now))
    }
}

/// Whether what is coded in one way can be read by who was told of the other.
pub(super) fn are_read_alike(told: &Format, sent: &Format) -> bool {
    let carried =
        |format: &Format| (format.payload_type, format.encoding, format.clock_rate, format.channels);
    // Parameter sets of pictures travel with them; those of sound stand in the description alone.
    carried(told) == carried(sent)
        && told.kind == sent.kind
        && (told.kind == Kind::Video || told.fmtp == sent.fmtp)
}

/// The newest, `None` before the stream's first tracks.
pub(super) type News = watch::Sender<Option<Arc<Described>>>;
/// The other end of it.
pub(super) type Watching = watch::Receiver<Option<Arc<Described>>>;

/// How a player is sent what it has set up: the channel of each kind's RTP, packed into the number that the fan-out
/// tells players apart by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// `None`: not set up.
    pub(super) channels: [Option<(u8, u8)>; 2],
}

impl Layout {
    /// Sets the channels of a kind.
    pub(super) fn set(&mut self, kind: Kind, rtp: u8, rtcp: u8) {
        let [video, audio] = &mut self.channels;
        *(if kind == Kind::Video { video } else { audio }) = Some((rtp, rtcp));
    }

    /// The channels of a kind: RTP, RTCP.
    pub(super) const fn get(self, kind: Kind) -> Option<(u8, u8)> {
        let [video, audio] = self.channels;
        match kind {
            Kind::Video => video,
            Kind::Audio => audio,
        }
    }

    /// As one number: 0 is nothing.
    pub(super) fn variant(self) -> u32 {
        self.channels.iter().fold(0, |number, channels| {
            let part = channels.map_or(0, |(rtp, rtcp)| u32::from(rtp) << 8 | u32::from(rtcp));
            number << 16 | part
        })
    }

    /// Out of that number: two channels are never the same, so that 0 is free to be none.
    pub(super) const fn of(variant: u32) -> Self {
        const fn half(part: u32) -> Option<(u8, u8)> {
            if part == 0 { None } else { Some(((part >> 8) as u8, part as u8)) }
        }
        Self { channels: [half(variant >> 16), half(variant & 0xffff)] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_comes_out_of_its_number_as_it_went_in() {
        for channels in [[Some((0, 1)), Some((2, 3))], [None, Some((0, 1))], [Some((254, 255)), None]] {
            let layout = Layout { channels };
            assert_eq!(Layout::of(layout.variant()), layout);
        }
    }
}
