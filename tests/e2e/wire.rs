//! Corners of RTMP that few encoders use, and those do.

use std::time::{Duration, Instant};

use av_tests::clip::Clip;
use av_tests::flv::Tag;
use av_tests::module::Module;
use av_tests::recording::{End, Kind, Recording, Times};
use av_tests::rtmp::{Connection, Player, Publisher, Value as Amf};
use av_tests::{needs, port};
use serde_json::json;

use crate::{cam, rtmp};

/// An aggregate message (type 22, RTMP 1.0 §7.1.6) of `tags` at the first one's time. The times inside count
/// from anywhere: only their differences mean something.
fn aggregate(tags: &[Tag], anywhere: u32) -> Tag {
    let mut body = Vec::new();
    for tag in tags {
        let time = tag.timestamp.wrapping_sub(tags[0].timestamp).wrapping_add(anywhere).to_be_bytes();
        body.push(tag.kind);
        body.extend(&u32::try_from(tag.body.len()).unwrap().to_be_bytes()[1..]);
        body.extend([time[1], time[2], time[3], time[0], 0, 0, 0]);
        body.extend(&tag.body);
        body.extend(u32::try_from(11 + tag.body.len()).unwrap().to_be_bytes());
    }
    Tag { kind: 22, timestamp: tags[0].timestamp, body }
}

#[test]
fn aggregate_messages_are_taken_apart() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let splitter = Module::start("rtmp-splitter", &cam(&url, json!({}), json!({})));
    let player = Player::start(&url);
    splitter.wait_value("/flows/cam/outputs/viewers/clients", 1);
    let tags: Vec<_> = Clip::Pyramid.tags().into_iter().filter(|tag| tag.kind != 18).collect();
    let mut publisher = Publisher::to(&url);
    for (i, group) in tags.chunks(7).enumerate() {
        let anywhere = if i % 2 == 0 { group[0].timestamp } else { 12_345 };
        publisher.send(&aggregate(group, anywhere)).unwrap();
    }
    let published = Recording::of_tags(&tags);
    player.wait_last_of(&published);
    player.recording().must_be(&published, Times::Exact, End::Complete);
}

#[test]
fn a_broken_aggregate_costs_what_is_cut_and_its_sender_goes_on() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let splitter = Module::start("rtmp-splitter", &cam(&url, json!({}), json!({})));
    let tags: Vec<_> = Clip::Plain.tags().into_iter().filter(|tag| tag.kind != 18).collect();
    let mut publisher = Publisher::to(&url);
    let mut broken = aggregate(&tags[..4], 0);
    broken.body.truncate(broken.body.len() - 10);
    publisher.send(&broken).unwrap();
    let address = publisher.connection().socket().local_addr().unwrap().to_string();
    splitter.wait_log(&[&address, "byte", "aggregate"]);
    let publishing = publisher.run_endlessly(Clip::Plain.tags());
    splitter.wait_receiving("cam");
    publishing.stop();
    assert_eq!(splitter.metrics().sum("av_frames_skipped_total", &[("reason", "malformed")]), Some(1.0));
}

/// An enhanced H.265 message under the classic, unofficial codec number 12.
fn classic_hevc(tag: &Tag) -> Tag {
    let body = match tag.body.as_slice() {
        [first, b'h', b'v', b'c', b'1', rest @ ..] if first & 0x80 != 0 => {
            let head = (first & 0x70) | 12;
            match first & 0x0F {
                0 => [&[head, 0, 0, 0, 0], rest].concat(),
                1 => [&[head, 1], rest].concat(),
                3 => [&[head, 1, 0, 0, 0], rest].concat(),
                other => panic!("packet type {other}"),
            }
        }
        _ => tag.body.clone(),
    };
    Tag { body, ..tag.clone() }
}

#[test]
fn h265_under_the_classic_number_12_passes_as_it_came() {
    needs!(Ffmpeg9);
    let (url, copy) = (rtmp(port::free(), "live/cam"), rtmp(port::free(), "live/cam"));
    let target = Module::start("rtmp-splitter", &cam(&copy, json!({}), json!({})));
    let mut document = cam(&url, json!({}), json!({}));
    document["flows"]["cam"]["outputs"]["copy"] = json!({ "push": copy });
    let splitter = Module::start("rtmp-splitter", &document);
    // Sequence start, coded frames with and without composition time; no colour information.
    let enhanced = |tag: &&Tag| tag.kind == 8 || (tag.kind == 9 && [0, 1, 3].contains(&(tag.body[0] & 0x0F)));
    let tags: Vec<_> = Clip::H265.tags().iter().filter(enhanced).map(classic_hevc).collect();
    let published = Recording::of_tags(&tags);
    assert_eq!(published.of(Kind::Video).len(), 150);
    let player = Player::keeping(&url);
    splitter.wait_value("/flows/cam/outputs/viewers/clients", 1);
    let pushed = Player::keeping(&copy);
    target.wait_value("/flows/cam/outputs/viewers/clients", 1);
    let mut publisher = Publisher::to(&url);
    publisher.play_out(&tags).unwrap();
    for player in [&player, &pushed] {
        player.wait_last_of(&published);
        // Not the frames alone: the messages are the same, byte for byte.
        let sent = tags.iter().filter(|tag| tag.kind == 9 && tag.packet().is_some());
        let sent: Vec<_> = sent.map(|tag| &tag.body).collect();
        let played = player.tags();
        let played = played.iter().map(|(tag, _)| tag).filter(|tag| tag.kind == 9);
        let (headers, played): (Vec<_>, Vec<_>) = played.partition(|tag| tag.is_header());
        let from = sent.len() - played.len();
        assert!(played.len() >= 100, "only {} pictures", played.len());
        assert!(played.iter().map(|tag| &tag.body).eq(sent[from..].iter().copied()), "changed on the way");
        let header = tags.iter().find(|tag| tag.kind == 9 && tag.is_header()).unwrap();
        assert!(headers.iter().all(|tag| tag.body == header.body), "{headers:?}");
    }
    player.recording().must_be(&published, Times::Exact, End::Complete);
    for module in [&splitter, &target] {
        module.wait_status("/flows/cam/input/video/codec", |codec| {
            codec.as_str().is_some_and(|codec| codec.starts_with("hvc1."))
        });
        module.wait_value("/flows/cam/input/video/width", 320);
    }
}

#[test]
fn data_messages_are_passed_on() {
    needs!(Ffmpeg);
    let (url, copy) = (rtmp(port::free(), "live/cam"), rtmp(port::free(), "live/cam"));
    let target = Module::start("rtmp-splitter", &cam(&copy, json!({}), json!({})));
    let mut document = cam(&url, json!({}), json!({}));
    document["flows"]["cam"]["outputs"]["copy"] = json!({ "push": copy });
    let splitter = Module::start("rtmp-splitter", &document);
    let players = [Player::keeping(&url), Player::keeping(&copy)];
    splitter.wait_value("/flows/cam/outputs/viewers/clients", 1);
    target.wait_value("/flows/cam/outputs/viewers/clients", 1);
    let tags = Clip::Plain.tags();
    let (first, rest) = tags.split_at(tags.len() / 2);
    let mut publisher = Publisher::to(&url);
    publisher.play_out(first).unwrap();
    players.iter().for_each(|player| player.wait_last_of(&Recording::of_tags(first)));
    let text =
        |text: &str| vec![("text".to_owned(), Amf::text(text)), ("language".to_owned(), Amf::text("eng"))];
    let at = first.last().unwrap().timestamp;
    let sent = [
        vec![Amf::text("onTextData"), Amf::Object(text("Doors open"))],
        vec![Amf::text("onCuePoint"), Amf::Object(text("ad")), Amf::Number(7.0)],
        vec![Amf::text("anything"), Amf::Null, Amf::List(vec![Amf::Bool(true)])],
    ];
    publisher.data(at, &sent[0]);
    // Told to be kept, and by its own name, as an encoder of captions does.
    publisher.data(at, &[vec![Amf::text("@setDataFrame")], sent[1].clone()].concat());
    publisher.data(at, &sent[2]);
    rest.iter().for_each(|tag| publisher.send(tag).unwrap());
    for player in &players {
        player.wait_last_of(&Recording::of_tags(&tags));
        let came: Vec<_> = player
            .metadata()
            .into_iter()
            .filter(|values| sent.iter().any(|sent| sent[0] == values[0]))
            .collect();
        assert_eq!(came, sent);
        // At their place among the frames.
        let all = player.tags();
        let place = all
            .iter()
            .position(|(tag, _)| tag.kind == 18 && tag.body.windows(10).any(|w| w == b"onTextData"));
        let (data, frame) = (&all[place.unwrap()].0, &all[place.unwrap() - 1].0);
        assert!(
            data.timestamp.abs_diff(frame.timestamp) <= 50,
            "{} beside {}",
            data.timestamp,
            frame.timestamp
        );
    }
}

/// A client that sends no more than its window before it has heard of what arrived (RTMP 1.0 §5.4.3, §5.4.4).
#[test]
fn a_client_that_waits_for_acknowledgements_gets_them() {
    needs!(Ffmpeg);
    let url = rtmp(port::free(), "live/cam");
    let splitter = Module::start("rtmp-splitter", &cam(&url, json!({}), json!({})));
    let player = Player::start(&url);
    splitter.wait_value("/flows/cam/outputs/viewers/clients", 1);
    let tags = Clip::Plain.tags();
    // A connection that is closed with something unread takes along what the server has not read yet.
    let mut publishers = Vec::new();
    for window in [2500_u32, 60_000] {
        let mut publisher = Publisher::to(&url);
        assert!(publisher.connection().window() <= 1 << 31, "the server asks for no acknowledgements");
        publisher.connection().send(2, 5, 0, 0, &window.to_be_bytes()).unwrap();
        let (mut sent, mut heard) = (0_u64, 0);
        for tag in &tags {
            publisher.send(tag).unwrap();
            sent += 12 + tag.body.len() as u64;
            let connection = publisher.connection();
            let deadline = Instant::now() + Duration::from_secs(30);
            while sent - heard > u64::from(window) {
                // Whatever was sent before counts too, so what is acknowledged is at least this.
                let _ = connection.read(Instant::now() + Duration::from_millis(20));
                heard = connection.acknowledgements().last().copied().unwrap_or(0).into();
                assert!(Instant::now() < deadline, "{sent} bytes sent, {heard} acknowledged");
                heard = heard.min(sent);
            }
        }
        let acknowledged = publisher.connection().acknowledgements().to_vec();
        assert!(acknowledged.windows(2).all(|pair| pair[0] < pair[1]), "{acknowledged:?}");
        // Handshake, commands and chunk headers are bytes too.
        let most = sent + sent / 50 + 8192;
        assert!(acknowledged.iter().all(|bytes| u64::from(*bytes) <= most), "{acknowledged:?} of {sent}");
        publishers.push(publisher);
    }
    player.wait_last_of(&Recording::of_tags(&tags));
}

/// Where application and name part is the client's own idea: they are joined and compared as a whole.
#[test]
fn clients_may_split_the_path_where_they_like() {
    needs!(Ffmpeg);
    let port = port::free();
    let splitter = Module::start("rtmp-splitter", &cam(&rtmp(port, "live/floor/cam"), json!({}), json!({})));
    let publish = |app: &str, name: &str| {
        let mut connection = Connection::open(port, None).unwrap();
        connection.connect(port, app).unwrap();
        let stream = connection.create_stream().unwrap();
        let words = [Amf::text("publish"), Amf::Number(5.0), Amf::Null, Amf::text(name), Amf::text("live")];
        connection.command(stream, &words).unwrap();
        let answer = connection.answer("onStatus", None).unwrap();
        answer.iter().find_map(|value| value.get("code")?.as_text().map(str::to_owned)).expect("a code")
    };
    for (app, name) in [
        ("live", "floor/cam"),
        ("live/floor", "cam"),
        ("live/floor/cam", ""),
        ("live/floor/", "cam"),
        ("live/floor?site=7", "cam?key=unasked"),
        ("live", "floor/cam/"),
    ] {
        assert_eq!(publish(app, name), "NetStream.Publish.Start", "{app:?} {name:?}");
        splitter.wait_value("/flows/cam/input/state", "waiting");
    }
    for (app, name) in
        [("live", "cam"), ("live/floor/cam", "cam"), ("", "floor/cam"), ("live/floor", "../floor/cam")]
    {
        assert_eq!(publish(app, name), "NetStream.Publish.BadName", "{app:?} {name:?}");
    }
}
