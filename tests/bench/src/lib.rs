//! What loads have in common.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

pub mod stamp;
