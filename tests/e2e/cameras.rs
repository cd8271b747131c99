//! Pulling from cameras with habits: the stream comes whole where it can, goes on where it breaks, and what happens is said.

use av_tests::camera::{Camera, Habits, Reports, RtpInfo};
use av_tests::clip::Clip;
use av_tests::module::{Module, Setup};
use av_tests::recording::{End, Kind, Recording, Times};
use av_tests::rtmp::{Player, Publisher};
use av_tests::{needs, port, wait};
use serde_json::{Map, Value, json};

use crate::access::certificate;
use crate::{rtmp, twin};

/// A camera, how it is pulled, and who watches.
struct Case {
    name: &'static str,
    camera: Camera,
    url: String,
    options: Value,
}

impl Case {
    fn new(name: &'static str, habits: Habits) -> Self {
        Self::with(name, habits, json!({}))
    }

    /// `options`: of the input.
    fn with(name: &'static str, habits: Habits, options: Value) -> Self {
        let url = rtmp(port::free(), &format!("cameras/{name}"));
        Self { name, camera: Camera::start(habits), url, options }
    }

    fn play(&self) -> Player {
        Player::start(&self.url)
    }
}

/// One gateway that pulls them all.
fn gateway(cases: &[Case]) -> Module {
    let flows = cases.iter().map(|case| {
        let mut input = json!({
            "pull": case.camera.url, "retry": { "initialMilliseconds": 100, "maxSeconds": 1 },
        });
        input.as_object_mut().unwrap().extend(case.options.as_object().unwrap().clone());
        let outputs = json!({ "viewers": { "serve": case.url } });
        (case.name.to_owned(), json!({ "input": input, "outputs": outputs }))
    });
    Module::start("rtsp-gateway", &twin(flows.collect::<Map<_, _>>().into()))
}

fn only(recording: &Recording, kind: Kind) -> Recording {
    Recording(recording.of(kind).into_iter().cloned().collect())
}

/// Waits until a player has two seconds of pictures.
fn wait_pictures(player: &Player, gateway: &Module, name: &str, count: usize) {
    let start = std::time::Instant::now();
    while player.frames(Kind::Video) < count {
        let frames = player.frames(Kind::Video);
        assert!(start.elapsed() < wait::LONG, "{name}: {frames} pictures\n{}", gateway.log());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// By how many milliseconds each track was moved; every frame is there, in order, at its distance from the others.
fn shifts(played: &Recording, recorded: &Recording, name: &str) -> [Option<i64>; 2] {
    [Kind::Video, Kind::Audio].map(|kind| {
        let of_kind = only(played, kind);
        if of_kind.0.is_empty() {
            return None;
        }
        let times = Times::AudioWithinOneMillisecond;
        let found = of_kind.compare(&only(recorded, kind), times, End::Anywhere);
        Some(found.unwrap_or_else(|wrong| panic!("{name}: {wrong}")).shift)
    })
}

const METADATA: &str =
    "m=application 0 RTP/AVP 107\r\na=rtpmap:107 vnd.onvif.metadata/90000\r\na=control:trackID=7\r\n";
const BACK_CHANNEL: &str = "m=audio 0 RTP/AVP 0\r\na=control:trackID=8\r\na=sendonly\r\n";
const MJPEG: &str = "m=video 0 RTP/AVP 26\r\na=control:trackID=9\r\n";

#[test]
fn habits_that_break_nothing_cost_no_frame() {
    needs!(Ffmpeg);
    let elsewhere = Camera::start(Habits::default());
    let habits = Habits::default;
    let login = json!({ "credentials": { "username": "viewer", "password": "s3cret" } });
    let cases = [
        Case::new("plain", habits()),
        Case::new("noSprop", Habits { no_sprop: true, ..habits() }),
        Case::new("noRtpInfo", Habits { rtp_info: RtpInfo::Absent, ..habits() }),
        Case::new("zeroRtpInfo", Habits { rtp_info: RtpInfo::Zero, ..habits() }),
        Case::new("foreignBase", Habits { content_base: Some("rtsp://10.255.0.9:8554/other/"), ..habits() }),
        Case::with("digest", Habits { login: Some(["viewer", "s3cret"]), ..habits() }, login.clone()),
        Case::with("stale", Habits { login: Some(["viewer", "s3cret"]), stale: 1, ..habits() }, login),
        Case::new("otherTracks", Habits { more_media: [METADATA, BACK_CHANNEL], ..habits() }),
        Case::new("motionJpeg", Habits { more_media: [MJPEG, ""], ..habits() }),
        Case::new("inTheMiddle", Habits { starts_in_the_middle: true, ..habits() }),
        Case::new("reports", Habits { reports: Reports::Right, ..habits() }),
        Case::new("noClock", Habits { reports: Reports::Implausible, ..habits() }),
        Case::new("redirect", Habits { redirects: Some(elsewhere.url.clone()), ..habits() }),
        Case::new("lateSound", Habits { sound_is_off: 700, reports: Reports::Right, ..habits() }),
        Case::with("byUdp", habits(), json!({ "transport": "udp" })),
        Case::with("noSound", habits(), json!({ "content": "videoOnly" })),
        Case::new("typed", Habits { content_type: "; charset=utf-8", ..habits() }),
        Case::with(
            "typedByUdp",
            Habits { content_type: ";charset=utf-8", ..habits() },
            json!({ "transport": "udp" }),
        ),
        Case::new("moreOfSession", Habits { session_parameter: ";x=y", timeout: 20, ..habits() }),
        Case::new("otherSsrc", Habits { other_ssrc: true, ..habits() }),
        Case::new("timeOut", Habits { timeout: 2, breaks_on_set_parameter: true, ..habits() }),
    ];
    let gateway = gateway(&cases);
    let players = cases.iter().map(|case| {
        gateway.wait_receiving(case.name);
        case.play()
    });
    let players: Vec<_> = players.collect();
    for (case, player) in cases.iter().zip(&players) {
        let is_longer = ["timeOut", "lateSound"].contains(&case.name);
        wait_pictures(player, &gateway, case.name, if is_longer { 100 } else { 50 });
        let camera = if case.name == "redirect" { &elsewhere } else { &case.camera };
        let (mut played, recorded) = (player.recording(), camera.recorded());
        if case.name == "lateSound" {
            // Put right by the reports of the first two seconds.
            played.0.drain(..played.0.len() / 2);
        }
        let [video, audio] = shifts(&played, &recorded, case.name);
        assert_eq!(audio.is_none(), case.name == "noSound", "{}", case.name);
        let apart = audio.map_or(0, |audio| (audio - video.unwrap()).abs());
        // Where nobody says what belongs together, arrival does.
        let is_said = !["noRtpInfo", "zeroRtpInfo"].contains(&case.name);
        let most = if is_said { 2 } else { 1000 };
        assert!(apart <= most, "{}: sound is {apart} ms off the pictures\n{}", case.name, gateway.log());
    }
    let camera = |name: &str| &cases.iter().find(|case| case.name == name).unwrap().camera;
    assert_eq!(camera("otherTracks").count("SETUP"), 2, "{:?}", camera("otherTracks").heard());
    assert_eq!(camera("noSound").count("SETUP"), 1);
    assert_eq!(camera("redirect").count("SETUP"), 0);
    // One session lived on, by requests that the camera takes.
    assert_eq!((camera("timeOut").count("PLAY"), camera("timeOut").count("SET_PARAMETER")), (1, 0));
    camera("timeOut").wait_heard("GET_PARAMETER", 1);
    // The one whose nonce was stale was asked again.
    assert_eq!(camera("stale").count("PLAY"), 1);
    // What the library does not read is put right on the next connection.
    for name in ["typed", "typedByUdp", "moreOfSession", "otherSsrc"] {
        assert_eq!(camera(name).count("DESCRIBE"), 2, "{name}: {:?}", camera(name).heard());
        gateway.wait_log(&[name, "its answers are put right"]);
    }
    gateway.wait_log(&["stale", "asks for user and password again"]);
    gateway.wait_log(&["otherTracks", "vnd.onvif.metadata"]);
    gateway.wait_log(&["otherTracks", "it is a back channel"]);
    drop(players);
    assert_eq!(gateway.terminate().status.code(), Some(0));
    // Everyone is told that it is over, so that the camera has room again.
    for case in &cases {
        assert!(case.name == "redirect" || case.camera.count("TEARDOWN") > 0, "{}", case.name);
    }
}

/// The pictures that were played: in order, none twice, each one of those that were recorded.
fn must_be_in_order(played: &Recording, recorded: &Recording, name: &str) {
    let recorded = recorded.of(Kind::Video);
    let mut after = 0;
    for picture in played.of(Kind::Video) {
        let found = recorded[after..].iter().position(|sent| sent.hash == picture.hash);
        after += 1 + found.unwrap_or_else(|| panic!("{name}: {picture:?} is none that follows"));
    }
    let times: Vec<_> = played.of(Kind::Video).iter().map(|picture| picture.pts).collect();
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{name}: {times:?}");
}

#[test]
fn what_breaks_a_session_is_named_and_the_stream_goes_on() {
    needs!(Ffmpeg);
    let habits = Habits::default;
    let cases = [
        Case::new("newSsrc", Habits { new_ssrc: Some(40), ..habits() }),
        Case::new("oldNumbers", Habits { old_numbers: Some(40), ..habits() }),
        Case::with("hangs", Habits { hangs: 1, ..habits() }, json!({ "idleTimeoutSeconds": 1 })),
        Case::new("stray", Habits { stray: Some(40), ..habits() }),
        Case::new("jump", Habits { jump: Some(40), ..habits() }),
        Case::with("lossy", Habits { loses_every: Some(97), ..habits() }, json!({ "transport": "udp" })),
    ];
    let gateway = gateway(&cases);
    let players: Vec<_> = cases.iter().map(Case::play).collect();
    for (case, player) in cases.iter().zip(&players) {
        // Past what happens to it.
        wait_pictures(player, &gateway, case.name, 60);
        must_be_in_order(&player.recording(), &case.camera.recorded(), case.name);
    }
    for (name, said) in [
        ("newSsrc", "changed the SSRC of a track"),
        ("oldNumbers", "sent a sequence number from the past"),
        ("hangs", "sent no frame for 1 s"),
    ] {
        gateway.wait_log(&[name, said, "127.0.0.1"]);
        gateway.wait_receiving(name);
        let camera = &cases.iter().find(|case| case.name == name).unwrap().camera;
        assert_eq!(camera.count("PLAY"), 2, "{name}: {:?}", camera.heard());
    }
    // One stray picture is left out, and what goes on an hour later is the same stream: the session goes on.
    for name in ["stray", "jump", "lossy"] {
        let camera = &cases.iter().find(|case| case.name == name).unwrap().camera;
        assert_eq!(camera.count("PLAY"), 1, "{name}: {:?}", camera.heard());
    }
    gateway.wait_log(&["stray", "timestamps do not fit the others"]);
    gateway.wait_log(&["lossy", "lost packets on the way"]);
}

#[test]
fn a_camera_that_has_no_room_or_nothing_of_use_is_left_in_peace_and_the_state_says_why() {
    needs!(Ffmpeg);
    let habits = Habits::default;
    let cases = [
        Case::new("full", Habits { refuses: Some("453 Not Enough Bandwidth"), ..habits() }),
        Case::new("busy", Habits { refuses: Some("503 Service Unavailable"), ..habits() }),
        Case::with("noUser", Habits { login: Some(["viewer", "s3cret"]), ..habits() }, json!({})),
        Case::with(
            "wrongUser",
            Habits { login: Some(["viewer", "s3cret"]), ..habits() },
            json!({ "credentials": { "username": "viewer", "password": "guess" } }),
        ),
    ];
    let gateway = gateway(&cases);
    for (name, said) in [
        ("full", "has no room for another session"),
        ("busy", "has no room for another session"),
        ("noUser", "asks for user and password; set credentials"),
        ("wrongUser", "refused user or password; check credentials"),
    ] {
        let error = gateway.wait_status(&format!("/flows/{name}/input/error"), |error| {
            error.as_str().is_some_and(|error| error.contains(said))
        });
        let error = error.as_str().unwrap();
        assert!(
            error.starts_with(&format!("flows.{name}.input.pull: ")) && !error.contains("guess"),
            "{error}"
        );
    }
    // Others are asked again soon, the full ones not before they have forgotten a dead session.
    cases[2].camera.wait_heard("DESCRIBE", 3);
    for case in &cases[..2] {
        assert_eq!(case.camera.count("DESCRIBE"), 1, "{}", case.name);
    }
}

#[test]
fn rtsps_is_pulled_where_the_certificate_is_trusted_and_nowhere_else() {
    needs!(Ffmpeg);
    let from = rtmp(port::free(), "live/cam");
    let secure = format!("rtsps://127.0.0.1:{}/live/cam", port::free());
    let setup = Setup::new("rtsp-gateway");
    let (certificate, key) = certificate(setup.dir());
    let server = json!({ "certificateFile": certificate, "keyFile": key });
    let camera = setup
        .twin(&twin(json!({ "cam": {
            "input": { "listen": from },
            "outputs": { "viewers": { "serve": secure, "transports": ["tcp"], "tls": server } },
        } })))
        .start();
    let _publishing = Publisher::to(&from).run_endlessly(Clip::Plain.tags());
    camera.wait_receiving("cam");
    let (trusted, strange) = (rtmp(port::free(), "live/trusted"), rtmp(port::free(), "live/strange"));
    let retry = json!({ "initialMilliseconds": 100, "maxSeconds": 1 });
    let puller = Module::start(
        "rtsp-gateway",
        &twin(json!({
            "trusted": {
                "input": {
                    "pull": secure, "retry": retry, "tls": { "caFile": certificate, "hostName": "localhost" },
                },
                "outputs": { "viewers": { "serve": trusted } },
            },
            "strange": {
                "input": { "pull": secure, "retry": retry }, "outputs": { "viewers": { "serve": strange } },
            },
        })),
    );
    puller.wait_receiving("trusted");
    Player::start(&trusted).wait_frames(Kind::Video, 25);
    puller.wait_status("/flows/strange/input/error", |error| {
        error.as_str().is_some_and(|text| text.to_lowercase().contains("certificate"))
    });
    puller.wait_value("/flows/strange/input/state", "retrying");
}

#[test]
fn av1_and_opus_are_pulled_with_every_frame() {
    needs!(Ffmpeg9);
    let (from, to) = (rtmp(port::free(), "live/cam"), rtmp(port::free(), "live/back"));
    let between = format!("rtsp://127.0.0.1:{}/live/cam", port::free());
    let camera = Module::start(
        "rtsp-gateway",
        &twin(json!({ "cam": {
            "input": { "listen": from },
            "outputs": { "viewers": { "serve": between, "transports": ["tcp"] } },
        } })),
    );
    let tags = Clip::Av1Opus.tags();
    let mut publisher = Publisher::to(&from);
    let puller = Module::start(
        "rtsp-gateway",
        &twin(json!({ "cam": {
            "input": { "pull": between, "retry": { "initialMilliseconds": 100, "maxSeconds": 1 } },
            "outputs": { "viewers": { "serve": to } },
        } })),
    );
    let player = Player::start(&to);
    publisher.play_out(&tags).unwrap();
    wait_pictures(&player, &puller, "AV1", 50);
    let codec = |kind: &str| {
        puller
            .wait_status(&format!("/flows/cam/input/{kind}/codec"), Value::is_string)
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert!(codec("video").starts_with("av01"), "{}", codec("video"));
    assert_eq!(codec("audio"), "opus");
    must_be_in_order(&player.recording(), &Recording::of_tags(&tags), "AV1");
    // Pictures that were past when the puller came are squeezed together, sound comes as it was.
    let sound = |recording: &Recording| only(recording, Kind::Audio);
    let [_, audio] = shifts(&sound(&player.recording()), &sound(&Recording::of_tags(&tags)), "Opus");
    assert!(audio.is_some());
    drop(camera);
}
