//! What flows through av-services: tracks, frames and their time, and how codecs and MP4 files
//! describe them.
//!
//! This crate owns no socket, thread or clock: it takes bytes and gives values.

mod frame;
mod time;
mod track;

pub use frame::{Frame, Kind};
pub use time::Timestamp;
pub use track::{AudioFormat, Codec, RtmpFraming, Track, VideoFormat};
