//! H.264 (RFC 6184 §5) and H.265 (RFC 7798 §4.4).

use av_media::h264::{self, AvcConfig};
use av_media::h265::{self, HevcConfig};
use av_media::nal::AnnexBUnits;
use av_media::{Codec, Track};
use bytes::{BufMut, BytesMut};

use super::{Joined, MAX_FRAME};
use crate::received::Received;

/// Whose NAL units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Units {
    H264,
    H265,
}

impl Units {
    /// Bytes of a NAL unit's header.
    const fn header(self) -> usize {
        match self {
            Self::H264 => 1,
            Self::H265 => 2,
        }
    }

    fn kind(self, nal: &[u8]) -> u8 {
        match self {
            Self::H264 => h264::nal_type(nal),
            Self::H265 => h265::nal_type(nal),
        }
    }

    /// Whether it is a NAL unit's own type, none of the payload format's.
    fn is_unit(self, kind: u8) -> bool {
        match self {
            Self::H264 => (1..=23).contains(&kind),
            Self::H265 => kind < 48,
        }
    }

    fn is_slice(self, kind: u8) -> bool {
        match self {
            Self::H264 => (1..=5).contains(&kind),
            Self::H265 => kind < 32,
        }
    }

    fn is_set(self, kind: u8) -> bool {
        match self {
            Self::H264 => matches!(kind, h264::NAL_SPS | h264::NAL_PPS),
            Self::H265 => matches!(kind, h265::NAL_VPS | h265::NAL_SPS | h265::NAL_PPS),
        }
    }
}

/// Whether a decoder could be set up with a track.
pub(super) fn is_complete(track: &Track) -> bool {
    match track.codec {
        Codec::H264 => AvcConfig::parse(track.config.clone())
            .is_ok_and(|config| !config.sps.is_empty() && !config.pps.is_empty()),
        _ => HevcConfig::parse(track.config.clone()).is_ok_and(|config| {
            [h265::NAL_VPS, h265::NAL_SPS, h265::NAL_PPS]
                .into_iter()
                .all(|kind| config.units(kind).next().is_some())
        }),
    }
}

/// Puts access units together, as NAL units behind 4-byte lengths: the one copy on the way in.
#[derive(Debug)]
pub(super) struct Joiner {
    units: Units,
    data: BytesMut,
    time: Option<u32>,
    /// Where the unit begins whose fragments are coming.
    open: Option<usize>,
    has_slices: bool,
    /// Something of this access unit is missing.
    is_broken: bool,
    /// Packets are missing before it: that it begins in its middle is nobody's fault.
    after_loss: bool,
}

const START: u8 = 0x80;
const END: u8 = 0x40;

impl Joiner {
    pub(super) fn new(units: Units) -> Self {
        Self {
            units,
            data: BytesMut::new(),
            time: None,
            open: None,
            has_slices: false,
            is_broken: false,
            after_loss: false,
        }
    }

    /// Packets are missing here. Whether an access unit went with them.
    pub(super) fn lose(&mut self) -> bool {
        let begun = self.time.is_some();
        self.close();
        self.is_broken = begun;
        self.after_loss = true;
        begun
    }

    /// Appends what is whole. So many payloads were malformed.
    pub(super) fn push(&mut self, packet: Received, joined: &mut Vec<Joined>) -> u64 {
        let mut malformed = 0;
        if self.time.is_some_and(|time| time != packet.time) {
            malformed += self.finish(joined);
        }
        self.time = Some(packet.time);
        malformed += self.payload(&packet.payload);
        if self.data.len() > MAX_FRAME {
            malformed += u64::from(!self.is_broken);
            self.is_broken = true;
            self.data.clear();
            self.open = None;
        }
        // Some senders mark parameter sets: these belong to the picture that follows.
        if packet.marker && (self.has_slices || self.is_broken) {
            malformed += self.finish(joined);
        }
        malformed
    }

    /// The access unit ends here.
    fn finish(&mut self, joined: &mut Vec<Joined>) -> u64 {
        let cut = self.close();
        let data = self.data.split().freeze();
        let is_broken = std::mem::take(&mut self.is_broken) || cut > 0;
        self.has_slices = false;
        self.after_loss = false;
        if let Some(time) = self.time.take()
            && !is_broken
            && !data.is_empty()
        {
            joined.push(Joined { time, later: 0, data, is_sync: false });
        }
        cut
    }

    /// A unit whose last fragment did not come is given up.
    fn close(&mut self) -> u64 {
        let Some(start) = self.open.take() else { return 0 };
        self.data.truncate(start);
        1
    }

    fn payload(&mut self, payload: &[u8]) -> u64 {
        let kind = self.units.kind(payload);
        match (self.units, kind) {
            _ if self.units.is_unit(kind) => {
                let cut = self.close();
                cut + self.unit(payload)
            }
            (Units::H264, 24) | (Units::H265, 48) => {
                let cut = self.close();
                cut + self.aggregate(payload.get(self.units.header()..).unwrap_or_default())
            }
            (Units::H264, 28) | (Units::H265, 49) => self.fragment(payload),
            _ => 1,
        }
    }

    fn unit(&mut self, nal: &[u8]) -> u64 {
        let kind = self.units.kind(nal);
        if nal.len() < self.units.header() || !self.units.is_unit(kind) {
            return 1;
        }
        self.has_slices |= self.units.is_slice(kind);
        // Some cameras send parameter sets, or all of a picture behind them, with start codes in one unit.
        if self.units.is_set(kind) && nal.windows(3).any(|three| three == [0, 0, 1]) {
            let first = nal.windows(3).position(|three| three == [0, 0, 1]).unwrap_or(nal.len());
            self.put(nal.get(..first).unwrap_or_default());
            let units = self.units;
            for nal in AnnexBUnits::new(nal).filter(|nal| units.is_unit(units.kind(nal))) {
                self.has_slices |= units.is_slice(units.kind(nal));
                self.put(nal);
            }
        } else {
            self.put(nal);
        }
        0
    }

    fn put(&mut self, nal: &[u8]) {
        // A packet is at most 64 KiB.
        self.data.put_u32(u32::try_from(nal.len()).unwrap_or_default());
        self.data.put_slice(nal);
    }

    /// STAP-A and AP: units behind lengths of 16 bits.
    fn aggregate(&mut self, mut rest: &[u8]) -> u64 {
        while let Some((length, after)) = rest.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*length));
            let Some((nal, after)) = after.split_at_checked(length) else { return 1 };
            // Filled up with zeros by some.
            if length > 0 && self.unit(nal) > 0 {
                return 1;
            }
            rest = after;
        }
        u64::from(!rest.is_empty())
    }

    /// FU-A and FU. One that starts and ends in one packet is forbidden, and sent.
    fn fragment(&mut self, payload: &[u8]) -> u64 {
        let size = self.units.header();
        let (Some(head), Some(&edges), Some(rest)) =
            (payload.get(..size), payload.get(size), payload.get(size + 1..))
        else {
            return 1;
        };
        let mut malformed = 0;
        if edges & START != 0 {
            malformed += self.close();
            if malformed > 0 {
                self.is_broken = true;
            }
            self.open = Some(self.data.len());
            self.data.put_u32(0);
            match (self.units, head) {
                (Units::H264, &[first, ..]) => self.data.put_u8(first & 0xe0 | edges & 0x1f),
                (Units::H265, &[first, second, ..]) => {
                    self.data.put_slice(&[first & 0x81 | (edges & 0x3f) << 1, second]);
                }
                _ => return 1,
            }
        }
        let Some(start) = self.open else {
            // Its first fragment is missing: so is the picture.
            self.is_broken = true;
            return malformed + u64::from(!self.after_loss);
        };
        self.data.put_slice(rest);
        if edges & END != 0 {
            self.open = None;
            let length = self.data.len() - start - 4;
            if let (Ok(length), Some(place)) = (u32::try_from(length), self.data.get_mut(start..start + 4)) {
                place.copy_from_slice(&length.to_be_bytes());
            }
            let kind = self.units.kind(self.data.get(start + 4..).unwrap_or_default());
            if !self.units.is_unit(kind) {
                self.data.truncate(start);
                return malformed + 1;
            }
            self.has_slices |= self.units.is_slice(kind);
        }
        malformed
    }
}
