//! The client at the other end, for tests of listeners and of the supervisor: a real session on a real socket.

use std::net::SocketAddr;

use av_media::Frame;
use av_rtmp::{ClientEvent, ClientOutput, Limits, MediaItem, Mode};
use bytes::BytesMut;

use super::client::peer::{audio, module, no_tls, soon, url, video};
use super::client::{self, Client};

/// A publisher or player that was let in.
pub(crate) struct Guest {
    client: Client,
    announced: bool,
}

impl Guest {
    pub(crate) async fn publish(address: SocketAddr, path: &str) -> Result<Self, String> {
        Self::open(address, path, Mode::Publish).await
    }

    pub(crate) async fn play(address: SocketAddr, path: &str) -> Result<Self, String> {
        Self::open(address, path, Mode::Play).await
    }

    /// As [`publish`](Self::publish), again and again until the server lets it in.
    pub(crate) async fn publish_soon(address: SocketAddr, path: &str) -> Self {
        soon("publishing", async {
            loop {
                match Self::publish(address, path).await {
                    Ok(guest) => return guest,
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                }
            }
        })
        .await
    }

    /// As [`play`](Self::play), again and again until the server lets it in.
    pub(crate) async fn play_soon(address: SocketAddr, path: &str) -> Self {
        soon("playing", async {
            loop {
                match Self::play(address, path).await {
                    Ok(guest) => return guest,
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                }
            }
        })
        .await
    }

    async fn open(address: SocketAddr, path: &str, mode: Mode) -> Result<Self, String> {
        let (module, url, tls) = (module(), url(address, path), no_tls());
        let opening = client::open(&module.net, &url, None, &tls, mode, Limits::default());
        let client = soon("a connection", opening).await.map_err(|error| error.to_string())?;
        Ok(Self { client, announced: false })
    }

    /// Publishes headers, once, and frames.
    pub(crate) async fn send(&mut self, frames: &[Frame]) {
        let (egress, mut out) = (self.client.session.egress(), BytesMut::new());
        let (video, audio) = (video(), audio());
        if !std::mem::replace(&mut self.announced, true) {
            egress.metadata(&mut out, None, &[&video, &audio], 0);
            egress.sequence_header(&mut out, &video, 0);
            egress.sequence_header(&mut out, &audio, 0);
        }
        for frame in frames {
            let track = if frame.kind == av_media::Kind::Video { &video } else { &audio };
            egress.frame(&mut out, track, frame, frame.dts.millis() as u32);
        }
        self.client.write(&out).await.unwrap();
    }

    /// The next frames that a player gets.
    pub(crate) async fn frames(&mut self, count: usize) -> Vec<Frame> {
        let mut frames = Vec::new();
        soon("frames", async {
            while frames.len() < count {
                match self.client.session.poll().unwrap() {
                    Some(ClientOutput::Send(bytes)) => self.client.write(&bytes).await.unwrap(),
                    Some(ClientOutput::Event(ClientEvent::Media(MediaItem::Frame(frame)))) => {
                        frames.push(frame)
                    }
                    Some(ClientOutput::Event(ClientEvent::Media(_))) => {}
                    Some(ClientOutput::Event(event)) => panic!("after {} frames: {event:?}", frames.len()),
                    None => self.client.read().await.unwrap(),
                }
            }
        })
        .await;
        frames
    }

    /// How the server says goodbye, as it puts it; what else it says is left aside.
    pub(crate) async fn farewell(&mut self) -> String {
        soon("a farewell", async {
            loop {
                match self.client.session.poll().unwrap() {
                    Some(ClientOutput::Send(bytes)) => drop(self.client.write(&bytes).await),
                    Some(ClientOutput::Event(ClientEvent::Refused { code, description })) => {
                        return format!("{code}: {description}");
                    }
                    Some(ClientOutput::Event(event @ (ClientEvent::Ended | ClientEvent::Unpublished))) => {
                        return format!("{event:?}");
                    }
                    Some(ClientOutput::Event(_)) => {}
                    None => {
                        if let Err(error) = self.client.read().await {
                            return error.to_string();
                        }
                    }
                }
            }
        })
        .await
    }
}
