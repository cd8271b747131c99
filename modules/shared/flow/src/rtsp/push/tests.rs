use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::{ClientTls, ConnectUrl, Content};
use crate::rtmp::peer::{announce, feed, live, module, moved, retry, soon, stream};
use crate::rtsp::camera::Camera;
use crate::rtsp::options::RTSP;
use crate::stream::{Changes, Kick, OutputStatus, Stream};

struct Rig {
    stream: Stream,
    status: Arc<OutputStatus>,
    task: JoinHandle<()>,
}

impl Rig {
    fn to(port: u16) -> Self {
        let output = OutputContext {
            module: module(),
            flow: "dock".into(),
            output: "cloud".into(),
            path: "flows.dock.outputs.cloud".into(),
            of_instance: false,
            stream: stream(),
            content: Content::AudioVideo,
            status: OutputStatus::new(Changes::default()),
            cancel: CancellationToken::new(),
        };
        let config = PushConfig {
            url: ConnectUrl {
                scheme: RTSP,
                host: "127.0.0.1".into(),
                port,
                path: "live/cam".into(),
                query: None,
            },
            credentials: None,
            retry: retry(),
            tls: ClientTls::default(),
            udp: false,
            mtu: 1400,
        };
        Self {
            stream: output.stream.clone(),
            status: output.status.clone(),
            task: tokio::spawn(push(output, config)),
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn a_target_that_sends_the_stream_elsewhere_in_the_middle_is_taken_leave_of_and_followed() {
    let (listener, port) = Camera::listen().await;
    let (other, other_port) = Camera::listen().await;
    let rig = Rig::to(port);
    let mut publisher = rig.stream.publisher(Kick::default());
    announce(&mut publisher);
    feed(&mut publisher, &live(0..400));
    let mut target = Camera::accept(&listener).await;
    target.record().await;
    // A target that has had the stream for a while.
    for at in 1..30 {
        feed(&mut publisher, &moved(&live(0..40), at * 400));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    target.say(&format!(
        "REDIRECT rtsp://127.0.0.1:{port}/live/cam RTSP/1.0\r\nCSeq: 1\r\nLocation: rtsp://127.0.0.1:{other_port}/b\r\n\r\n"
    )).await;
    let farewell = soon("a farewell", async {
        loop {
            // Answers may be among them.
            let head = target.request().await;
            if head.starts_with("TEARDOWN") {
                return head;
            }
        }
    });
    assert!(farewell.await.contains("Session: 1"));
    let mut target = Camera::accept(&other).await;
    assert_eq!(target.record().await, format!("rtsp://127.0.0.1:{other_port}/b"));
    assert_eq!(rig.status.status.get().trouble, None);
    // What is wrong there is asked about at the first address.
    drop(target);
    let mut target = Camera::accept(&listener).await;
    assert_eq!(target.record().await, format!("rtsp://127.0.0.1:{port}/live/cam"));
}
