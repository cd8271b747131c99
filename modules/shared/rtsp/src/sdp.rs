//! SDP (RFC 8866) as RTSP uses it: what we serve and push is described with [`Description`], what others describe is
//! read with [`Presentation`].

mod coding;
mod fmtp;
mod format;
mod presentation;

pub use coding::{Coding, LeftAside};
pub use format::{Format, NotCarried};
pub use presentation::{Direction, Medium, Presentation, SdpError};

use std::fmt::Write as _;

use av_media::Kind;
use bytes::Bytes;

/// What a stream is called in its description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// `s=`: a name for people.
    pub name: String,
    /// Names the stream's description among all that come from here (`sess-id` of `o=`).
    pub id: u64,
    /// Higher with each change of the description (`sess-version`).
    pub version: u64,
}

/// A description of a stream of ours, for DESCRIBE and ANNOUNCE.
///
/// Medium *n* is the *n*-th format, its control `trackID=n`. Addresses are 0.0.0.0 and ports 0: where media goes is
/// settled by SETUP, and players join a group that stands here without being asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    session: String,
    media: Vec<String>,
}

const CONTROL: &str = "trackID=";

impl Description {
    /// Of these media, in this order.
    pub fn new(about: &About, formats: &[Format]) -> Self {
        let name: String = about.name.chars().filter(|c| !c.is_control()).collect();
        let name = if name.is_empty() { "-" } else { &name };
        let session = format!(
            "v=0\r\no=- {} {} IN IP4 0.0.0.0\r\ns={name}\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\na=range:npt=now-\r\n",
            about.id, about.version,
        );
        Self { session, media: formats.iter().map(medium).collect() }
    }

    /// The control of a medium, relative to the base.
    pub fn control(medium: usize) -> String {
        format!("{CONTROL}{medium}")
    }

    /// Which medium a control names.
    pub fn medium(control: &str) -> Option<usize> {
        control.strip_prefix(CONTROL)?.parse().ok()
    }

    /// How many media there are.
    pub fn media(&self) -> usize {
        self.media.len()
    }

    /// The text, with controls under `base`: absolute where that is a URL with a slash at its end, relative where it is
    /// empty.
    pub fn render(&self, base: &str) -> Bytes {
        let mut text = self.session.clone();
        // Writing to a String does not fail.
        if !base.is_empty() {
            let _ = write!(text, "a=control:{base}\r\n");
        }
        for (index, medium) in self.media.iter().enumerate() {
            let _ = write!(text, "{medium}a=control:{base}{CONTROL}{index}\r\n");
        }
        text.into()
    }
}

/// `m=` and what follows it, but for the control.
fn medium(format: &Format) -> String {
    let Format { kind, payload_type, encoding, clock_rate, channels, fmtp } = format;
    let kind = match kind {
        Kind::Video => "video",
        Kind::Audio => "audio",
    };
    let mut text =
        format!("m={kind} 0 RTP/AVP {payload_type}\r\na=rtpmap:{payload_type} {encoding}/{clock_rate}");
    if let Some(channels) = channels {
        let _ = write!(text, "/{channels}");
    }
    text.push_str("\r\n");
    if let Some(fmtp) = fmtp {
        let _ = write!(text, "a=fmtp:{payload_type} {fmtp}\r\n");
    }
    text
}

#[cfg(test)]
mod tests;
