mod habits;

use std::net::SocketAddr;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::{Content, ListenUrl, ServerTls};
use crate::endpoint::{InputContext, OutputContext};
use crate::fanout::Join;
use crate::rtmp::guest::Guest;
use crate::rtmp::options::RTMP;
use crate::rtmp::peer::{live, module, soon, stream};
use crate::rtmp::{ListenConfig, ServeConfig};
use crate::rtmp::{listen, serve};
use crate::stream::{Changes, OutputStatus};

/// A flow that listens and serves on one path, without a supervisor.
struct Flow {
    address: SocketAddr,
    input: InputContext,
    output: OutputContext,
    listening: ListenConfig,
}

impl Flow {
    fn start(takeover: bool, max_clients: usize) -> Self {
        Self::begin(takeover, max_clients, true)
    }

    fn begin(takeover: bool, max_clients: usize, listens: bool) -> Self {
        // Nobody else is given this port so soon.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (module, stream, cancel) = (module(), stream(), CancellationToken::new());
        let input = InputContext {
            module: module.clone(),
            flow: "dock".into(),
            path: "flows.dock.input".into(),
            status: stream.input().clone(),
            stream: stream.clone(),
            idle_timeout: Duration::from_secs(10),
            instances: None,
            cancel: cancel.clone(),
        };
        let output = OutputContext {
            module,
            flow: "dock".into(),
            output: "out".into(),
            path: "flows.dock.outputs.out".into(),
            of_instance: false,
            stream,
            content: Content::AudioVideo,
            status: OutputStatus::new(Changes::default()),
            cancel,
        };
        let url = ListenUrl { scheme: RTMP, address, path: "live/stream1".into() };
        let listening = ListenConfig {
            url: url.clone(),
            takeover,
            auth: None,
            allow: Vec::new(),
            max_message_bytes: 1 << 20,
            tls: ServerTls::default(),
        };
        let serving = ServeConfig {
            url,
            auth: None,
            allow: Vec::new(),
            max_clients,
            join: Join::Instant,
            batch: Duration::ZERO,
            tls: ServerTls::default(),
        };
        tokio::spawn(serve(output.clone(), serving));
        let flow = Self { address, input, output, listening };
        if listens {
            flow.listen();
        }
        flow
    }

    fn listen(&self) {
        tokio::spawn(listen(self.input.clone(), self.listening.clone()));
    }

    async fn publisher(&self) -> Guest {
        Guest::publish_soon(self.address, "live/stream1").await
    }

    async fn player(&self) -> Guest {
        Guest::play_soon(self.address, "live/stream1").await
    }
}

#[tokio::test]
async fn what_is_published_is_played() {
    let flow = Flow::start(true, 0);
    let mut player = flow.player().await;
    let mut publisher = flow.publisher().await;
    publisher.send(&live(0..400)).await;
    assert_eq!(player.frames(20).await, live(0..400));
}

#[tokio::test]
async fn a_publisher_that_is_faster_than_its_path_is_let_in() {
    let flow = Flow::begin(true, 0, false);
    // The output has opened the address; the input, started beside it, is not so far.
    while TcpStream::connect(flow.address).await.is_err() {
        tokio::task::yield_now().await;
    }
    let address = flow.address;
    let mut publishing = tokio::spawn(async move { Guest::publish(address, "live/stream1").await });
    let refused = tokio::time::timeout(Duration::from_millis(100), &mut publishing).await;
    assert!(refused.is_err(), "refused before the listener had its paths");
    flow.listen();
    publishing.await.unwrap().unwrap();
}

#[tokio::test]
async fn who_is_refused_is_told_why_and_where_it_is_configured() {
    let flow = Flow::start(false, 1);
    let _publisher = flow.publisher().await;
    let _player = flow.player().await;
    let refused = async |guest: Result<Guest, String>| guest.err().unwrap();
    let second = refused(Guest::publish(flow.address, "live/stream1").await).await;
    assert!(second.contains("flows.dock.input.listen: another publisher is live"), "{second}");
    let lost = refused(Guest::publish(flow.address, "live/stream2").await).await;
    assert!(lost.contains("nothing here takes live/***"), "{lost}");
    let many = refused(Guest::play(flow.address, "live/stream1").await).await;
    assert!(many.contains("flows.dock.outputs.out.serve: maxClients (1) is reached"), "{many}");
    let none = refused(Guest::play(flow.address, "live/stream2").await).await;
    assert!(none.contains("nothing here serves live/stream2"), "{none}");
}

#[tokio::test]
async fn a_publisher_that_is_displaced_while_it_sends_reads_why() {
    let flow = Flow::start(true, 0);
    let mut first = flow.publisher().await;
    first.send(&live(0..400)).await;
    let _second = flow.publisher().await;
    // More than is read before the connection closes.
    first.send(&live(400..40_000)).await;
    let told = first.farewell().await;
    assert!(told.contains("another publisher took over"), "{told}");
}

#[tokio::test]
async fn at_the_end_both_are_told_and_nobody_is_left() {
    let flow = Flow::start(true, 0);
    let (mut publisher, mut player) = (flow.publisher().await, flow.player().await);
    publisher.send(&live(0..400)).await;
    player.frames(20).await;
    flow.input.cancel.cancel();
    let (published, played) = tokio::join!(publisher.farewell(), player.farewell());
    assert!(published.contains("the flow was changed or stopped"), "{published}");
    assert_eq!(played, "Ended");
    drop((publisher, player));
    soon("all have left", async {
        while flow.input.module.listeners.connections() > 0
            || flow.output.status.clients.load(std::sync::atomic::Ordering::Relaxed) > 0
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn who_breaks_rtmp_is_gone_and_the_others_stay() {
    let flow = Flow::start(true, 0);
    let (mut publisher, mut player) = (flow.publisher().await, flow.player().await);
    let mut hostile = TcpStream::connect(flow.address).await.unwrap();
    hostile.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // Ends, however: with an end or with a reset.
    let _ = soon("the end", hostile.read_to_end(&mut answer)).await;
    publisher.send(&live(0..400)).await;
    assert_eq!(player.frames(20).await.len(), 20);
}
