//! Uploads to Azurite through a faulty network: every file arrives once, byte for byte.

use av_tests::chance::Chance;
use av_tests::client::PublishWith;
use av_tests::clip::Clip;
use av_tests::module::Setup;
use av_tests::proxy::{Fault, Proxy, Request, ThinLine};
use av_tests::recording::Recording;
use av_tests::{long_only, needs, port, wait};
use serde_json::{Value, json};

use crate::recorder_blobs::{ACCOUNT, Azurite, KEY, document, must_hold};
use crate::rtmp;

/// Which of the recorder's requests it is.
fn kind(request: &Request) -> &'static str {
    match (request.method.as_str(), request.target.as_str()) {
        ("PUT", target) if target.contains("comp=blocklist") => "commit",
        ("PUT", target) if target.contains("comp=block") => "block",
        ("HEAD", _) => "look",
        _ => "other",
    }
}

/// Publishes `rounds` clips to a recorder that uploads through a proxy; gives the faults that the proxy put in.
fn stores_all(rounds: u32, choose: impl FnMut(&Request) -> Option<Fault> + Send + 'static) -> Vec<Fault> {
    let folder = tempfile::tempdir().unwrap();
    let azurite = Azurite::start(folder.path(), port::free());
    azurite.python("box.create_container()");
    let proxy = Proxy::start(azurite.port, choose);
    let url = format!("azblob+http://127.0.0.1:{}/{ACCOUNT}/recordings", proxy.port);
    let listen = rtmp(port::free(), "live/cam");
    let module = Setup::new("mp4-recorder")
        .twin(&document(&listen, &url, &json!({ "accountKey": KEY }), json!({})))
        .start_listening();
    let mut published = Recording::default();
    for _ in 0..rounds {
        published.0.extend(PublishWith::Ffmpeg.start(Clip::Plain, &listen).finish().0);
        module.wait_value("/flows/cam/input/state", "waiting");
    }
    // The longest pause between two tries is a minute.
    wait::until_true("all is stored", 10 * wait::LONG, || module.status()["summary"]["spoolBytes"] == 0);
    let blobs = azurite.blobs(&folder.path().join("read"));
    must_hold(&blobs, &published);
    for blob in &blobs {
        assert_eq!(blob["same"], Value::Bool(true), "{blob}");
        // A lost answer makes no second blob.
        assert!(blob["name"].as_str().unwrap().ends_with("Z.mp4"), "{blob}");
    }
    assert_eq!(module.terminate().status.code(), Some(0));
    proxy.faults()
}

#[test]
fn whatever_the_network_does_each_file_arrives_once() {
    needs!(Ffmpeg, Azurite, BlobSdk);
    let mut plan = vec![
        ("block", Fault::CutRequest),
        ("commit", Fault::LostAnswer),
        ("block", Fault::WrongByte),
        ("block", Fault::LostAnswer),
        ("look", Fault::Unavailable),
        ("block", Fault::Slow),
        ("commit", Fault::CutRequest),
    ];
    let all = plan.len();
    plan.reverse();
    let faults = stores_all(1, move |request| {
        let (_, fault) = plan.pop_if(|(of, _)| *of == kind(request))?;
        Some(fault)
    });
    assert_eq!(faults.len(), all, "{faults:?}");
}

#[test]
fn a_hundred_faults_of_the_network_lose_and_double_nothing() {
    long_only!();
    needs!(Ffmpeg, Azurite, BlobSdk);
    let mut chance = Chance(11);
    let mut left = 100;
    let faults = stores_all(20, move |request| {
        let of_body = [Fault::CutRequest, Fault::WrongByte, Fault::Slow];
        let of_all = [Fault::Unavailable, Fault::LostAnswer, Fault::Silence];
        let kind = kind(request);
        if left == 0 || kind == "other" || chance.of(0..10) < 6 {
            return None;
        }
        left -= 1;
        // Silence costs a minute each.
        match chance.of(0..20) {
            0 => Some(Fault::Silence),
            1..10 if kind != "look" => Some(of_body[chance.of(0..3)]),
            _ => Some(of_all[chance.of(0..2)]),
        }
    });
    assert_eq!(faults.len(), 100, "{faults:?}");
}

/// Publishes to a recorder that uploads one file over a thin line, and gives the blocks that arrived.
fn arrives_over(rate: u64, most: u64, clip: Clip) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let azurite = Azurite::start(folder.path(), port::free());
    azurite.python("box.create_container()");
    // Until the first file has arrived it is a fast one.
    let line = ThinLine::start(azurite.port, 1 << 30, most);
    let url = format!("azblob+http://127.0.0.1:{}/{ACCOUNT}/recordings", line.port);
    let listen = rtmp(port::free(), "live/cam");
    let document = document(&listen, &url, &json!({ "accountKey": KEY }), json!({ "segmentSeconds": 60 }));
    let module = Setup::new("mp4-recorder").twin(&document).start_listening();
    let empty = || module.status()["summary"]["spoolBytes"] == 0;
    let mut published = Recording::default();
    for (rate, clip) in [(1 << 30, Clip::Smaller), (rate, clip)] {
        line.set_rate(rate);
        published.0.extend(PublishWith::Ffmpeg.start(clip, &listen).finish().0);
        module.wait_value("/flows/cam/input/state", "waiting");
        wait::until_true("the file is there", 5 * wait::LONG, empty);
    }
    assert_eq!(line.broke() > 0, most < u64::MAX, "{}", line.broke());
    let blobs = azurite.blobs(&folder.path().join("read"));
    assert_eq!(blobs.len(), 2, "{blobs:?}");
    must_hold(&blobs, &published);
    assert_eq!(module.terminate().status.code(), Some(0));
    azurite.staged()
}

#[test]
fn at_thirty_kilobits_a_second_a_file_arrives() {
    needs!(Ffmpeg, Azurite, BlobSdk);
    arrives_over(30_000 / 8, u64::MAX, Clip::Plain);
}

#[test]
fn on_a_line_that_has_become_slow_and_breaks_blocks_become_smaller_and_none_is_sent_twice() {
    needs!(Ffmpeg, Azurite, BlobSdk);
    let staged = arrives_over(200_000, 400_000, Clip::Heavy);
    let different: std::collections::BTreeSet<_> = staged.iter().collect();
    assert!(staged.len() >= 10, "{staged:?}");
    // One that breaks when its last byte has gone is sent again.
    assert!(staged.len() <= different.len() + 2, "{staged:?}");
}
