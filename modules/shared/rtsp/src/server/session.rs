//! What was set up on a connection.

use crate::transport::{Carried, Pair};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    Playing,
    Recording,
}

/// One RTSP session: one stream, some or all of its media.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: String,
    pub(super) path: String,
    /// What control URLs begin with.
    pub(super) base: String,
    pub(super) state: State,
    media: Vec<(usize, Carried)>,
}

impl Session {
    pub(super) fn new(id: String, path: &str, base: String) -> Self {
        Self { id, path: path.to_owned(), base, state: State::Ready, media: Vec::new() }
    }

    pub(super) fn carried(&self, medium: usize) -> Option<Carried> {
        self.media.iter().find(|(own, _)| *own == medium).map(|(_, carried)| *carried)
    }

    /// The second time replaces the first.
    pub(super) fn set_up(&mut self, medium: usize, carried: Carried) {
        self.media.retain(|(own, _)| *own != medium);
        self.media.push((medium, carried));
    }

    pub(super) fn channel(&self, channel: u8) -> Option<(usize, bool)> {
        self.media.iter().find_map(|(medium, carried)| match carried {
            Carried::Tcp { channels } if channels.rtp == channel => Some((*medium, false)),
            Carried::Tcp { channels } if channels.rtcp == channel => Some((*medium, true)),
            _ => None,
        })
    }

    /// The channels that are wished for, if no other medium has them; otherwise the first free pair.
    pub(super) fn free_channels(&self, medium: usize, wish: Option<Pair<u8>>) -> Option<Pair<u8>> {
        let is_free = |channels: &Pair<u8>| {
            channels.rtp != channels.rtcp
                && [channels.rtp, channels.rtcp]
                    .iter()
                    .all(|channel| self.channel(*channel).is_none_or(|(other, _)| other == medium))
        };
        let pairs = (0..=254).step_by(2).map(|rtp| Pair { rtp, rtcp: rtp + 1 });
        wish.into_iter().chain(pairs).find(is_free)
    }
}
