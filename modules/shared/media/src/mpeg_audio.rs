//! The header of an MPEG audio frame (ISO/IEC 11172-3 §2.4.2.3, ISO/IEC 13818-3 §2.4.2.3): layers I to III.

use std::num::NonZeroU32;

/// What a frame says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Samples of each channel.
    pub samples: u32,
    /// Samples a second.
    pub sample_rate: NonZeroU32,
    /// 1 or 2.
    pub channels: u16,
    /// Bytes of the whole frame; `None` for the free format, and for a bit rate that is forbidden.
    pub length: Option<usize>,
}

/// Kilobits a second by `bitrate_index`, from 1 on.
const MPEG1_LAYER1: [u32; 14] = [32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448];
const MPEG1_LAYER2: [u32; 14] = [32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384];
const MPEG1_LAYER3: [u32; 14] = [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320];
const MPEG2_LAYER1: [u32; 14] = [32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256];
const MPEG2_LAYER23: [u32; 14] = [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];

impl Header {
    /// Reads the header at the start of a frame; `None` where there is none.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let [0xff, second, third, rest @ ..] = frame else { return None };
        if second & 0xe0 != 0xe0 {
            return None;
        }
        let base: u32 = *[44_100, 48_000, 32_000].get(usize::from(third >> 2 & 3))?;
        // 3: MPEG-1, 2: MPEG-2, 0: MPEG-2.5.
        let (is_mpeg1, rate) = match second >> 3 & 3 {
            3 => (true, base),
            2 => (false, base / 2),
            0 => (false, base / 4),
            _ => return None,
        };
        let (samples, rates, slot) = match (second >> 1 & 3, is_mpeg1) {
            (3, true) => (384, &MPEG1_LAYER1, 4),
            (3, false) => (384, &MPEG2_LAYER1, 4),
            (2, true) => (1152, &MPEG1_LAYER2, 1),
            (2, false) => (1152, &MPEG2_LAYER23, 1),
            (1, true) => (1152, &MPEG1_LAYER3, 1),
            (1, false) => (576, &MPEG2_LAYER23, 1),
            _ => return None,
        };
        let kilobits = usize::from(third >> 4).checked_sub(1).and_then(|index| rates.get(index));
        let padding = u32::from(third >> 1 & 1);
        // Whole slots of so many bytes; below 2^32.
        let length = kilobits.map(|kilobits| slot * (samples / 8 / slot * kilobits * 1000 / rate + padding));
        Some(Self {
            samples,
            sample_rate: NonZeroU32::new(rate)?,
            channels: if rest.first().is_some_and(|fourth| fourth >> 6 == 3) { 1 } else { 2 },
            length: length.and_then(|length| usize::try_from(length).ok()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(frame: &[u8]) -> (u32, u32, u16, Option<usize>) {
        let header = Header::parse(frame).unwrap();
        (header.samples, header.sample_rate.get(), header.channels, header.length)
    }

    #[test]
    fn headers_of_each_layer_say_their_length() {
        // 128 kbit/s at 44.1 kHz: 417 bytes, 418 with padding; one channel.
        assert_eq!(read(&[0xff, 0xfb, 0x90, 0x00]), (1152, 44_100, 2, Some(417)));
        assert_eq!(read(&[0xff, 0xfb, 0x92, 0xc0]), (1152, 44_100, 1, Some(418)));
        // MPEG-2 layer III, 64 kbit/s at 24 kHz.
        assert_eq!(read(&[0xff, 0xf3, 0x84, 0x00]), (576, 24_000, 2, Some(192)));
        // MPEG-1 layer II, 192 kbit/s at 48 kHz; layer I, 128 kbit/s at 32 kHz.
        assert_eq!(read(&[0xff, 0xfd, 0xa4, 0x00]), (1152, 48_000, 2, Some(576)));
        assert_eq!(read(&[0xff, 0xff, 0x48, 0x00]), (384, 32_000, 2, Some(192)));
    }

    #[test]
    fn the_free_format_has_no_length_and_what_is_no_header_none_at_all() {
        assert_eq!(read(&[0xff, 0xfb, 0x00, 0x00]).3, None);
        assert_eq!(read(&[0xff, 0xfb, 0xf0, 0x00]).3, None);
        for bytes in [&[][..], &[0xff, 0xfb], &[0xff, 0x1b, 0x90], &[0xff, 0xfb, 0x9c], &[0xff, 0xf9, 0x90]] {
            assert_eq!(Header::parse(bytes), None, "{bytes:?}");
        }
    }
}
