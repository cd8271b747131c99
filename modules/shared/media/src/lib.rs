//! What flows through av-services: tracks, frames and their time, and how codecs and MP4 files
//! describe them.
//!
//! This crate owns no socket, thread or clock: it takes bytes and gives values.

pub mod aac;
pub mod av1;
mod bits;
mod error;
#[cfg(test)]
mod fixture;
mod frame;
pub mod h264;
pub mod h265;
pub mod mp4;
pub mod mpeg_audio;
pub mod mpegts;
pub mod nal;
mod normalise;
pub mod opus;
mod picture;
mod record;
mod silence;
mod sound_clock;
mod time;
mod track;

pub use error::MediaError;
pub use frame::{Frame, Kind};
pub use normalise::{Normal, Normalised, Normaliser};
pub use picture::Picture;
pub use silence::Silence;
pub use sound_clock::{Samples, SoundClock};
pub use time::Timestamp;
pub use track::{AudioFormat, Codec, RtmpFraming, Track, VideoFormat};
