//! Frames as the bytes of a segment.

use std::fmt::Write;
use std::sync::Arc;

use av_flow::stream::Tracks;
use av_media::mp4::FragmentWriter;
use av_media::{Kind, Timestamp, Track};
use sha2::{Digest, Sha256};

use super::cutter::Part;
use super::pieces::Pieces;
use super::window::Map;

/// A part as it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Muxed {
    /// In nanoseconds: what its times say, to the tick.
    pub duration: i64,
    /// A decoder can start at it.
    pub independent: bool,
    pub pieces: Pieces,
}

/// Makes CMAF of the frames between two breaks of a stream.
pub(crate) struct Muxer {
    writer: FragmentWriter,
    tracks: Vec<Arc<Track>>,
    map: Arc<Map>,
}

/// Whether any of these tracks can be carried.
pub(crate) fn fits(tracks: &Tracks) -> bool {
    tracks.iter().any(carried)
}

fn carried(track: &Arc<Track>) -> bool {
    FragmentWriter::new(std::slice::from_ref(&**track), Timestamp::ZERO).is_ok()
}

impl Muxer {
    /// For those of the tracks that can be carried; `None` where none can.
    pub(crate) fn new(tracks: &Tracks) -> Option<Self> {
        let tracks = tracks.iter().filter(|track| carried(track)).cloned().collect::<Vec<_>>();
        let own = tracks.iter().map(|track| Track::clone(track)).collect::<Vec<_>>();
        let writer = FragmentWriter::new(&own, Timestamp::ZERO).ok()?;
        let bytes = writer.init();
        let mut name = "init-".to_owned();
        for byte in Sha256::digest(&bytes).iter().take(8) {
            let _ = write!(name, "{byte:02x}");
        }
        name.push_str(".mp4");
        Some(Self { writer, tracks, map: Arc::new(Map { name, bytes }) })
    }

    pub(crate) fn tracks(&self) -> &[Arc<Track>] {
        &self.tracks
    }

    pub(crate) fn has(&self, kind: Kind) -> bool {
        self.tracks.iter().any(|track| track.kind() == kind)
    }

    /// The init segment.
    pub(crate) fn map(&self) -> Option<Arc<Map>> {
        Some(self.map.clone())
    }

    /// The bytes of a part. `begins`: it is the first of its segment.
    pub(crate) fn part(&mut self, part: &Part, begins: bool) -> Option<Muxed> {
        let _ = begins;
        let fragment = self.writer.fragment(&part.frames, Some(part.end)).ok()??;
        let span = fragment.leading?;
        let nanos = u128::from(span.duration) * 1_000_000_000 / u128::from(span.timescale.get());
        Some(Muxed {
            duration: i64::try_from(nanos).unwrap_or(i64::MAX),
            independent: fragment.is_independent,
            pieces: Pieces::new(fragment.pieces().cloned().collect()),
        })
    }
}
