//! Real connections of HTTP, in virtual time.

use std::convert::Infallible;
use std::future::pending;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::*;
use crate::http::body::Body;
use crate::http::connection::{Ended, exchange};

const SECOND: Duration = Duration::from_secs(1);

/// A connection on which each answer has so many bytes.
fn serves(bytes: usize, http2: bool) -> (DuplexStream, Pace, JoinHandle<Result<(), Ended>>) {
    let (ours, theirs) = duplex(1024);
    let pace = Pace::default();
    let shared = pace.clone();
    let answers = service_fn(move |_| {
        let body = Body::one(Bytes::from(vec![7; bytes])).at(&shared);
        async move { Ok::<_, Infallible>(Response::new(body)) }
    });
    let known = pace.clone();
    let served = tokio::spawn(async move { exchange(ours, http2, answers, &known, pending()).await });
    (theirs, pace, served)
}

/// A client of HTTP/2 with a window of so many bytes, which answers pings.
async fn client(stream: DuplexStream, window: u32) -> http2::SendRequest<Empty<Bytes>> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).initial_stream_window_size(window);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn get() -> Request<Empty<Bytes>> {
    Request::get("http://module.example/1.m4s").body(Empty::new()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_peer_of_http_2_that_opens_no_window_is_given_up_and_holds_nothing() {
    let (stream, pace, served) = serves(64 * 1024, true);
    let began = Instant::now();
    let mut sender = client(stream, 0).await;
    let mut answers = Vec::new();
    for _ in 0..100 {
        answers.push(sender.send_request(get()).await.unwrap());
    }
    assert_eq!(pace.lock().due.len(), 100);
    let ended = served.await.unwrap();
    assert!(matches!(ended, Err(Ended::TooSlow)), "{ended:?}");
    let lasted = began.elapsed();
    assert!(lasted >= ANY + 4 * SECOND && lasted < ANY + 10 * SECOND, "{lasted:?}");
    // What it was given goes with it.
    for answer in answers {
        assert!(answer.into_body().collect().await.is_err());
    }
    while !pace.lock().due.is_empty() {
        tokio::time::sleep(SECOND).await;
        assert!(began.elapsed() < 10 * ANY, "answers stay");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_of_http_1_that_takes_a_byte_now_and_then_is_given_up() {
    let (mut stream, pace, served) = serves(64 * 1024, false);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let trickling = tokio::spawn(async move {
        let mut byte = [0];
        while stream.read_exact(&mut byte).await.is_ok() {
            tokio::time::sleep(9 * SECOND).await;
        }
    });
    let began = Instant::now();
    let ended = served.await.unwrap();
    assert!(matches!(ended, Err(Ended::TooSlow)), "{ended:?}");
    let lasted = began.elapsed();
    assert!(lasted >= ANY && lasted < ANY + 10 * SECOND, "{lasted:?}");
    assert!(pace.lock().due.is_empty());
    trickling.abort();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_agreed_on_http_2_and_says_nothing_or_half_of_it_is_given_up() {
    for said in [&b""[..], b"PRI * HTTP/2.0\r\n"] {
        let (mut stream, _pace, served) = serves(1, true);
        stream.write_all(said).await.unwrap();
        let began = Instant::now();
        let ended = served.await.unwrap();
        assert!(matches!(ended, Err(Ended::Http(_))), "{ended:?}");
        assert!(began.elapsed() < 15 * SECOND, "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_peer_that_keeps_the_pace_gets_all_and_one_that_asks_for_nothing_stays() {
    let (stream, pace, served) = serves(1024 * 1024, true);
    let mut sender = client(stream, 32 * 1024).await;
    for _ in 0..2 {
        let mut body = sender.send_request(get()).await.unwrap().into_body();
        let mut taken = 0;
        while let Some(frame) = body.frame().await {
            let taken_now = frame.unwrap().into_data().unwrap().len();
            taken += taken_now;
            // 20 KiB a second.
            tokio::time::sleep(SECOND * u32::try_from(taken_now).unwrap() / (20 * 1024)).await;
        }
        assert_eq!(taken, 1024 * 1024);
        tokio::time::sleep(10 * ANY).await;
        assert!(pace.lock().due.is_empty() && !served.is_finished());
    }
}
