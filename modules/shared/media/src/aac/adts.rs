//! ADTS: AAC frames that carry their own configuration (ISO/IEC 14496-3 §1.A.2.2, 13818-7 §6.2).

use super::{AudioConfig, EXPLICIT_RATE, RATES};
use crate::MediaError;
use crate::bits::{BitReader, BitWriter};

/// The header before each frame in an ADTS stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdtsHeader {
    /// Audio object type, 1 to 4.
    pub object_type: u8,
    /// Samples a second.
    pub sample_rate: u32,
    /// `channel_configuration`, 0 to 7.
    pub channel_config: u8,
    /// Bytes of this header: 7, or 9 with a checksum.
    pub header_length: usize,
    /// Bytes of header and payload together.
    pub frame_length: usize,
    /// Raw data blocks in the payload: 1 nearly always.
    pub blocks: u8,
}

impl AdtsHeader {
    const WHAT: &'static str = "ADTS";
    /// `aac_frame_length` has 13 bits.
    const MAX_FRAME: usize = 0x1fff;

    /// Reads the header at the start of `bytes`.
    ///
    /// # Errors
    ///
    /// No sync word, a reserved rate, fewer than 7 bytes, or a frame shorter than its header.
    pub fn parse(bytes: &[u8]) -> Result<Self, MediaError> {
        let mut bits = BitReader::new(Self::WHAT, bytes);
        let bad = |field, value: u32| MediaError::Value { what: Self::WHAT, field, value: value.into() };
        let sync = bits.bits(12)?;
        if sync != 0xfff {
            return Err(bad("syncword", sync));
        }
        bits.skip(1)?; // ID: MPEG-4 or MPEG-2
        let layer = bits.bits(2)?;
        if layer != 0 {
            return Err(bad("layer", layer));
        }
        let header_length = if bits.flag()? { 7 } else { 9 };
        let object_type = 1 + bits.small(2)?;
        let index = bits.small(4)?;
        let sample_rate = RATES.get(usize::from(index)).copied();
        let sample_rate = sample_rate.ok_or(bad("sampling_frequency_index", index.into()))?;
        bits.skip(1)?; // private_bit
        let channel_config = bits.small(3)?;
        bits.skip(4)?; // original, home, two copyright bits
        let frame_length = bits.bits(13)?;
        bits.skip(11)?; // adts_buffer_fullness
        let blocks = 1 + bits.small(2)?;
        if (frame_length as usize) < header_length {
            return Err(bad("aac_frame_length", frame_length));
        }
        Ok(Self {
            object_type,
            sample_rate,
            channel_config,
            header_length,
            frame_length: frame_length as usize,
            blocks,
        })
    }

    /// The header, without checksum, for one raw frame of `payload` bytes. With SBR it describes the
    /// core coder, as ADTS can only signal SBR implicitly.
    ///
    /// # Errors
    ///
    /// What ADTS can't say: object types above 4, a rate outside the table, more than 7 channels, a
    /// payload above 8,184 bytes.
    pub fn for_frame(config: &AudioConfig, payload: usize) -> Result<Self, MediaError> {
        let bad = |field, value: u32| MediaError::Value { what: Self::WHAT, field, value: value.into() };
        if !(1..=4).contains(&config.object_type) {
            return Err(bad("audioObjectType", config.object_type.into()));
        }
        if !RATES.contains(&config.sample_rate) {
            return Err(bad("samplingFrequency", config.sample_rate));
        }
        if config.channel_config > 7 {
            return Err(bad("channelConfiguration", config.channel_config.into()));
        }
        let most = Self::MAX_FRAME - 7;
        if payload > most {
            return Err(MediaError::TooLarge { what: "ADTS payload", value: payload, most });
        }
        Ok(Self {
            object_type: config.object_type,
            sample_rate: config.sample_rate,
            channel_config: config.channel_config,
            header_length: 7,
            frame_length: payload + 7,
            blocks: 1,
        })
    }

    /// The seven bytes of a header without checksum.
    pub fn build(&self) -> [u8; 7] {
        let index = RATES.iter().zip(0..).find(|(rate, _)| **rate == self.sample_rate);
        let mut bits = BitWriter::default();
        bits.bits(12, 0xfff);
        bits.bits(4, 0b0001); // MPEG-4, layer 0, no checksum
        bits.bits(2, u32::from(self.object_type.saturating_sub(1)));
        bits.bits(4, index.map_or(u32::from(EXPLICIT_RATE), |(_, index)| index));
        bits.bits(1, 0);
        bits.bits(3, self.channel_config.into());
        bits.bits(4, 0);
        bits.bits(13, self.frame_length.min(Self::MAX_FRAME) as u32);
        bits.bits(11, 0x7ff); // fullness of a variable rate stream
        bits.bits(2, u32::from(self.blocks.saturating_sub(1)));
        let mut header = [0; 7];
        header.iter_mut().zip(bits.finish()).for_each(|(to, from)| *to = from);
        header
    }

    /// The AudioSpecificConfig of the same stream.
    pub const fn config(&self) -> AudioConfig {
        AudioConfig {
            object_type: self.object_type,
            sample_rate: self.sample_rate,
            channel_config: self.channel_config,
            program_channels: 0,
            short_frames: false,
            extension: None,
        }
    }
}
