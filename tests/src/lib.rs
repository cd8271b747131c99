//! What the end-to-end tests stand on: modules as processes, clients as processes, an RTMP peer that
//! shares no code with the modules, and the comparison of what was played with what was published.
//!
//! Everything here is for tests: a surprise is a panic that says what was expected, and dropping a value
//! ends the process behind it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod camera;
pub mod chance;
pub mod client;
pub mod clip;
pub mod disk;
pub mod edge;
pub mod fake_clock;
pub mod fast_clock;
pub mod flv;
pub mod http;
pub mod machine;
pub mod metrics;
pub mod module;
pub mod nginx;
pub mod port;
pub mod preload;
pub mod program;
pub mod proxy;
pub mod recording;
pub mod rtmp;
pub mod rtsp;
pub mod screen;
pub mod sound_card;
pub mod tool;
pub mod wait;
