//! Frames as the bytes of a segment.

use std::sync::Arc;

use av_flow::stream::Tracks;
use av_media::mp4::{FragmentWriter, MuxError};
use av_media::mpegts::TsMuxer;
use av_media::{Kind, Timestamp, Track};

use super::cutter::Part;
use super::pieces::Pieces;
use super::shelf::Map;
use crate::options::Variant;

/// A part as it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Muxed {
    /// In nanoseconds: what its times say, to the tick.
    pub duration: i64,
    /// A decoder can start at it.
    pub independent: bool,
    pub pieces: Pieces,
}

/// Makes media of the frames between two breaks of a stream.
pub(crate) struct Muxer {
    writer: Writer,
    tracks: Vec<Arc<Track>>,
}

enum Writer {
    /// And its init segment.
    Cmaf(Box<FragmentWriter>, Arc<Map>),
    Ts(Box<TsMuxer>),
}

impl Writer {
    fn new(variant: Variant, tracks: &[Track]) -> Result<Self, MuxError> {
        Ok(match variant {
            Variant::Mpegts => Self::Ts(Box::new(TsMuxer::new(tracks, Timestamp::ZERO)?)),
            Variant::LowLatency | Variant::Fmp4 => {
                let writer = FragmentWriter::new(tracks, Timestamp::ZERO)?;
                let map = Map::of(writer.init());
                Self::Cmaf(Box::new(writer), Arc::new(map))
            }
        })
    }
}

/// Why this track can't be carried, if it can't.
pub(crate) fn refused(variant: Variant, track: &Track) -> Option<MuxError> {
    Writer::new(variant, std::slice::from_ref(track)).err()
}

impl Muxer {
    /// For those of the tracks that can be carried; `None` where none can.
    pub(crate) fn new(variant: Variant, tracks: &Tracks) -> Option<Self> {
        let tracks =
            tracks.iter().filter(|track| refused(variant, track).is_none()).cloned().collect::<Vec<_>>();
        let own = tracks.iter().map(|track| Track::clone(track)).collect::<Vec<_>>();
        let writer = Writer::new(variant, &own).ok()?;
        Some(Self { writer, tracks })
    }

    pub(crate) fn tracks(&self) -> &[Arc<Track>] {
        &self.tracks
    }

    pub(crate) fn track(&self, kind: Kind) -> Option<&Track> {
        self.tracks.iter().find(|track| track.kind() == kind).map(|track| &**track)
    }

    pub(crate) fn has(&self, kind: Kind) -> bool {
        self.track(kind).is_some()
    }

    /// The init segment, where there is one.
    pub(crate) fn map(&self) -> Option<Arc<Map>> {
        match &self.writer {
            Writer::Cmaf(_, map) => Some(map.clone()),
            Writer::Ts(_) => None,
        }
    }

    /// The bytes of a part. `begins`: it is the first of its segment.
    pub(crate) fn part(&mut self, mut part: Part, begins: bool) -> Option<Muxed> {
        match &mut self.writer {
            Writer::Cmaf(writer, _) => {
                let fragment = writer.fragment(&part.frames, Some(part.end)).ok()??;
                let span = fragment.leading?;
                let nanos = u128::from(span.duration) * 1_000_000_000 / u128::from(span.timescale.get());
                Some(Muxed {
                    duration: i64::try_from(nanos).unwrap_or(i64::MAX),
                    independent: fragment.is_independent,
                    pieces: Pieces::new(fragment.pieces().cloned().collect()),
                })
            }
            Writer::Ts(muxer) => {
                let independent = part.frames.first().is_some_and(|frame| frame.is_sync);
                part.frames.sort_by_key(|frame| frame.dts);
                let bytes = muxer.write(&part.frames, begins);
                let duration = part.end.nanos_since(part.start);
                Some(Muxed { duration, independent, pieces: bytes.into() })
            }
        }
    }
}
