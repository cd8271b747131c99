//! AAC: the AudioSpecificConfig (ISO/IEC 14496-3 §1.6) and ADTS.

use bytes::Bytes;

use crate::MediaError;
use crate::bits::{BitReader, BitWriter};

mod adts;

pub use adts::AdtsHeader;

/// Audio object type of AAC LC (ISO/IEC 14496-3 table 1.17).
pub const LC: u8 = 2;
/// Audio object type of spectral band replication (HE-AAC).
pub const SBR: u8 = 5;
/// Audio object type of parametric stereo (HE-AAC v2).
pub const PS: u8 = 29;

/// Samples a second by `samplingFrequencyIndex` (table 1.18).
const RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];
/// The index that says: 24 bits of frequency follow.
const EXPLICIT_RATE: u8 = 15;

/// Spectral band replication, as far as the config says so aloud. Without it a decoder may still find
/// SBR in the frames (implicit signalling), which no config can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Samples a second after SBR.
    pub sample_rate: u32,
    /// Parametric stereo is there as well.
    pub ps: bool,
    /// Signalled in front (object type 5 or 29 first), not behind the old config where decoders that
    /// don't know SBR overlook it.
    pub hierarchical: bool,
}

/// An AudioSpecificConfig.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioConfig {
    /// The core coder's object type: 2 for AAC LC.
    pub object_type: u8,
    /// Samples a second of the core coder; 0 where the index is a reserved one.
    pub sample_rate: u32,
    /// `channelConfiguration`: 0 says that a program config element lists the channels.
    pub channel_config: u8,
    /// Channels in the program config element, where `channel_config` is 0 and it could be read.
    pub program_channels: u8,
    /// Frames hold 960 samples, not 1024 (`frameLengthFlag`).
    pub short_frames: bool,
    /// Explicit SBR and PS.
    pub extension: Option<Extension>,
}

impl AudioConfig {
    /// Reads a config. What follows the core coder's rate and channels and can't be understood is left
    /// out.
    ///
    /// # Errors
    ///
    /// It ends before rate and channels are known.
    pub fn parse(config: &[u8]) -> Result<Self, MediaError> {
        let mut bits = BitReader::new("AudioSpecificConfig", config);
        let mut object_type = read_object_type(&mut bits)?;
        let sample_rate = read_rate(&mut bits)?;
        let channel_config = bits.small(4)?;
        let mut extension = None;
        if object_type == SBR || object_type == PS {
            let ps = object_type == PS;
            extension = Some(Extension { sample_rate: read_rate(&mut bits)?, ps, hierarchical: true });
            object_type = read_object_type(&mut bits)?;
        }
        let mut config = Self {
            object_type,
            sample_rate,
            channel_config,
            program_channels: 0,
            short_frames: false,
            extension,
        };
        // What was read before a fault is kept.
        let _: Result<(), MediaError> = config.read_specific(&mut bits);
        Ok(config)
    }

    /// GASpecificConfig (§4.4.1) and the backward compatible extension behind it.
    fn read_specific(&mut self, bits: &mut BitReader<'_>) -> Result<(), MediaError> {
        const SYNC_SBR: u32 = 0x2b7;
        const SYNC_PS: u32 = 0x548;
        if !matches!(self.object_type, 1..=4 | 6 | 7 | 17 | 19..=23) {
            return Ok(());
        }
        self.short_frames = bits.flag()?;
        if bits.flag()? {
            bits.skip(14)?; // coreCoderDelay
        }
        let more = bits.flag()?;
        if self.channel_config == 0 {
            self.program_channels = read_program_channels(bits)?;
        }
        if matches!(self.object_type, 6 | 20) {
            bits.skip(3)?; // layerNr
        }
        if more {
            match self.object_type {
                22 => bits.skip(16)?,
                17 | 19 | 20 | 23 => bits.skip(3)?,
                _ => {}
            }
            bits.skip(1)?; // extensionFlag3
        }
        if self.object_type >= 17 {
            bits.skip(2)?; // epConfig
        }
        if self.extension.is_some() || bits.left() < 16 || bits.bits(11)? != SYNC_SBR {
            return Ok(());
        }
        if read_object_type(bits)? == SBR && bits.flag()? {
            let sample_rate = read_rate(bits)?;
            let ps = bits.left() >= 12 && bits.bits(11)? == SYNC_PS && bits.flag()?;
            self.extension = Some(Extension { sample_rate, ps, hierarchical: false });
        }
        Ok(())
    }

    /// Writes the config.
    ///
    /// # Errors
    ///
    /// Channels listed by a program config element, which is not written, or a value that its field
    /// can't hold.
    pub fn build(&self) -> Result<Bytes, MediaError> {
        let most = |what, value: u32, most: u32| {
            let error = MediaError::TooLarge { what, value: value as usize, most: most as usize };
            if value > most { Err(error) } else { Ok(()) }
        };
        if self.channel_config == 0 {
            let field = "channelConfiguration";
            return Err(MediaError::Value { what: "AudioSpecificConfig", field, value: 0 });
        }
        most("channelConfiguration", self.channel_config.into(), 15)?;
        most("audioObjectType", self.object_type.into(), 95)?;
        most("samplingFrequency", self.sample_rate, 0xff_ffff)?;
        let mut bits = BitWriter::default();
        let in_front = self.extension.filter(|extension| extension.hierarchical);
        let first = in_front.map_or(self.object_type, |ext| if ext.ps { PS } else { SBR });
        write_object_type(&mut bits, first);
        write_rate(&mut bits, self.sample_rate);
        bits.bits(4, self.channel_config.into());
        if let Some(extension) = in_front {
            most("extensionSamplingFrequency", extension.sample_rate, 0xff_ffff)?;
            write_rate(&mut bits, extension.sample_rate);
            write_object_type(&mut bits, self.object_type);
        }
        bits.bits(1, self.short_frames.into());
        bits.bits(2, 0); // dependsOnCoreCoder, extensionFlag
        if let Some(extension) = self.extension.filter(|extension| !extension.hierarchical) {
            most("extensionSamplingFrequency", extension.sample_rate, 0xff_ffff)?;
            bits.bits(11, 0x2b7);
            write_object_type(&mut bits, SBR);
            bits.bits(1, 1);
            write_rate(&mut bits, extension.sample_rate);
            if extension.ps {
                bits.bits(11, 0x548);
                bits.bits(1, 1);
            }
        }
        Ok(bits.finish().into())
    }

    /// Samples per second that come out of the decoder; 0 when unknown.
    pub fn output_rate(&self) -> u32 {
        self.extension.map_or(self.sample_rate, |extension| extension.sample_rate)
    }

    /// Channels that come out of the decoder; 0 when unknown.
    pub fn output_channels(&self) -> u16 {
        let core = match self.channel_config {
            0 => self.program_channels.into(),
            1..=6 => self.channel_config.into(),
            7 | 12 | 14 => 8,
            11 => 7,
            13 => 24,
            _ => 0,
        };
        if core == 1 && self.extension.is_some_and(|extension| extension.ps) { 2 } else { core }
    }

    /// Samples of the core coder in one frame.
    pub const fn frame_samples(&self) -> u32 {
        if self.short_frames { 960 } else { 1024 }
    }

    /// `mp4a.40.2`; 5 with SBR and 29 with PS, however they are signalled (RFC 6381 §3.3).
    pub fn codec_string(&self) -> String {
        let object_type = match self.extension {
            Some(Extension { ps: true, .. }) => PS,
            Some(_) => SBR,
            None => self.object_type,
        };
        format!("mp4a.40.{object_type}")
    }
}

/// 5 bits, or the escape value 31 and 6 bits more.
fn read_object_type(bits: &mut BitReader<'_>) -> Result<u8, MediaError> {
    match bits.small(5)? {
        31 => Ok(32 + bits.small(6)?),
        object_type => Ok(object_type),
    }
}

fn write_object_type(bits: &mut BitWriter, object_type: u8) {
    match object_type.checked_sub(32) {
        Some(above) => {
            bits.bits(5, 31);
            bits.bits(6, above.into());
        }
        None => bits.bits(5, object_type.into()),
    }
}

fn read_rate(bits: &mut BitReader<'_>) -> Result<u32, MediaError> {
    match bits.small(4)? {
        EXPLICIT_RATE => bits.bits(24),
        index => Ok(RATES.get(usize::from(index)).copied().unwrap_or(0)),
    }
}

fn write_rate(bits: &mut BitWriter, rate: u32) {
    match RATES.iter().zip(0..).find(|(known, _)| **known == rate) {
        Some((_, index)) => bits.bits(4, index),
        None => {
            bits.bits(4, EXPLICIT_RATE.into());
            bits.bits(24, rate);
        }
    }
}

/// Counts the channels of a program_config_element (§4.4.1.1) and steps over it.
fn read_program_channels(bits: &mut BitReader<'_>) -> Result<u8, MediaError> {
    bits.skip(4 + 2 + 4)?; // element_instance_tag, object_type, sampling_frequency_index
    let speakers = bits.small(4)? + bits.small(4)? + bits.small(4)?; // front, side, back
    let lfe = bits.small(2)?;
    let associated = bits.small(3)?;
    let coupling = bits.small(4)?;
    for length in [4, 4, 3] {
        if bits.flag()? {
            bits.skip(length)?; // mono, stereo and matrix mixdown
        }
    }
    let mut channels = lfe;
    for _ in 0..speakers {
        channels += 1 + u8::from(bits.flag()?); // a pair?
        bits.skip(4)?;
    }
    bits.skip(4 * usize::from(lfe + associated) + 5 * usize::from(coupling))?;
    bits.align();
    let comment = bits.small(8)?;
    bits.skip(8 * usize::from(comment))?;
    Ok(channels)
}

#[cfg(test)]
mod tests;
