//! A stream as HLS, on paper: frames in, parts, segments and playlists out. No sockets, files or clocks.
//!
//! [`Numbers`] are what a playlist promises, [`Cutter`] cuts frames by them, [`Window`] is what is listed, [`Shelf`] what is
//! kept, and [`Packager`] drives these with what a reader of a stream gets.

mod attic;
mod cutter;
mod dates;
mod fleeting;
mod measuring;
mod memory;
mod muxer;
mod numbers;
mod packager;
mod pieces;
mod playlist;
mod quiet;
mod shelf;
mod silence;
mod version;
mod window;

pub(crate) use attic::{Attic, Fate, Record, Restored, Slip};
pub(crate) use fleeting::{Fleeting, Held, STAYS};
pub(crate) use memory::Memory;
pub(crate) use muxer::refused;
pub(crate) use numbers::Numbers;
pub(crate) use packager::{Packager, State};
pub(crate) use pieces::{Pieces, Ranged};
pub(crate) use playlist::Form;
pub(crate) use shelf::{Found, Map, Shelf};
pub(crate) use version::{Asked, Looks, Text, Version};
