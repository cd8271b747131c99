mod served;

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use av_media::{Frame, Kind};
use av_rtsp::depacketize::AfterLoss;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::{ClientTls, Content, Credentials};
use crate::rtmp::peer::{module, plain, retry, state, stream};
use crate::rtsp::camera::{self, Camera, SDP, VIDEO_ONLY, idr, picture};
use crate::rtsp::options::{RTSP, RTSPS};
use crate::stream::{Anchor, Entry, InputStatus, Item, Reader, Settings, Stream};

struct Pulling {
    stream: Stream,
    status: Arc<InputStatus>,
    reader: Reader,
    task: JoinHandle<()>,
}

impl Pulling {
    fn with(config: PullConfig) -> Self {
        Self::into(stream(), config)
    }

    fn into(stream: Stream, config: PullConfig) -> Self {
        let input = InputContext {
            module: module(),
            flow: "cam".into(),
            path: "flows.cam.input".into(),
            status: stream.input().clone(),
            idle_timeout: Duration::from_secs(20),
            instances: None,
            stream: stream.clone(),
            cancel: CancellationToken::new(),
        };
        Self {
            status: stream.input().clone(),
            reader: stream.reader(Content::AudioVideo),
            stream,
            task: tokio::spawn(pull(input, config)),
        }
    }

    async fn frames(&mut self, count: usize) -> Vec<Frame> {
        let status = self.status.clone();
        let in_time = tokio::time::timeout(Duration::from_secs(20), async {
            let (mut frames, mut entries) = (Vec::new(), Vec::<Entry>::new());
            while frames.len() < count {
                self.reader.recv(&mut entries).await;
                frames.extend(entries.drain(..).filter_map(|entry| match entry.item {
                    Item::Frame(frame) => Some(frame),
                    _ => None,
                }));
            }
            frames
        });
        in_time.await.unwrap_or_else(|_| panic!("no {count} frames in time: {:?}", status.status.get()))
    }

    async fn until(&mut self, mut fits: impl FnMut(&Item) -> bool) {
        let status = self.status.clone();
        let in_time = tokio::time::timeout(Duration::from_secs(20), async {
            let mut entries = Vec::<Entry>::new();
            loop {
                self.reader.recv(&mut entries).await;
                if entries.drain(..).any(|entry| fits(&entry.item)) {
                    return;
                }
            }
        });
        in_time.await.unwrap_or_else(|_| panic!("not in time: {:?}", status.status.get()));
    }

    async fn trouble(&self) -> String {
        state(&self.status.status, State::Retrying).await.trouble.unwrap().text
    }
}

impl Drop for Pulling {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn config(port: u16) -> PullConfig {
    PullConfig {
        url: ConnectUrl {
            scheme: RTSP,
            host: "server.example".into(),
            port,
            path: "live/cam".into(),
            query: None,
        },
        credentials: None,
        retry: retry(),
        tls: ClientTls::default(),
        udp: false,
        after_loss: AfterLoss::Drop,
    }
}

/// Pictures and sound of a second; the time of each picture in 40 ms.
async fn second(camera: &mut Camera, from: u32) {
    for at in from..from + 25 {
        camera.video(at * 3600, &if at.is_multiple_of(25) { idr(at) } else { picture(at) }).await;
        camera.audio(at * 320, &[at as u8; 320]).await;
    }
}

#[tokio::test]
async fn a_camera_is_pulled_with_its_frames_and_times() {
    let (listener, port) = Camera::listen().await;
    let mut pulling = Pulling::with(config(port));
    let mut camera = Camera::accept(&listener).await;
    camera.establish(SDP, &["RTP-Info: url=track1;seq=1;rtptime=86400,url=track2;seq=1;rtptime=7680"]).await;
    for at in 25..50 {
        camera.video(at * 3600, &if at.is_multiple_of(25) { idr(at) } else { picture(at) }).await;
        camera.audio(at * 320, &[at as u8; 320]).await;
    }
    // The last picture is complete with the packet behind it.
    let frames = pulling.frames(48).await;
    let (pictures, sounds): (Vec<_>, Vec<_>) = frames.iter().partition(|frame| frame.kind == Kind::Video);
    assert!(pictures.len() >= 23 && sounds.len() >= 23, "{} {}", pictures.len(), sounds.len());
    for (index, frame) in pictures.iter().enumerate() {
        let at = 25 + index as u32;
        let nal = if at.is_multiple_of(25) { idr(at) } else { picture(at) };
        assert_eq!(frame.data[4..], nal);
        assert_eq!(frame.is_sync, index == 0);
        assert!(frame.dts <= frame.pts);
        assert_eq!(frame.pts.nanos_since(pictures[0].pts), index as i64 * 40_000_000);
    }
    // Both began at the moment that RTP-Info names.
    assert_eq!(sounds[0].pts, pictures[0].pts);
    assert!(sounds.windows(2).all(|pair| pair[1].pts.nanos_since(pair[0].pts) == 40_000_000));
    state(&pulling.status.status, State::Running).await;
}

#[tokio::test]
async fn parameter_sets_that_the_description_lacks_come_in_the_stream() {
    let (listener, port) = Camera::listen().await;
    let mut pulling = Pulling::with(config(port));
    let mut camera = Camera::accept(&listener).await;
    camera.establish(VIDEO_ONLY, &[]).await;
    // It starts in the middle.
    camera.video(0, &picture(0)).await;
    for nal in camera::parameter_sets() {
        camera.rtp(0, 3600, false, &nal).await;
    }
    camera.video(3600, &idr(1)).await;
    camera.video(7200, &picture(2)).await;
    camera.video(10_800, &picture(3)).await;
    let frames = pulling.frames(2).await;
    assert!(frames[0].is_sync && frames[0].data[4..] == idr(1) && frames[1].data[4..] == picture(2));
    assert!(pulling.status.skipped.counts()[2] >= 1);
}

#[tokio::test]
async fn what_ends_a_session_for_no_fault_is_named_and_the_session_made_anew() {
    let (listener, port) = Camera::listen().await;
    let mut pulling = Pulling::with(config(port));
    let mut camera = Camera::accept(&listener).await;
    camera.establish(VIDEO_ONLY, &[]).await;
    for nal in camera::parameter_sets() {
        camera.rtp(0, 0, false, &nal).await;
    }
    camera.video(0, &idr(0)).await;
    camera.video(3600, &picture(1)).await;
    camera.video(7200, &picture(2)).await;
    pulling.frames(2).await;
    camera.ssrc = 99;
    camera.video(10_800, &picture(3)).await;
    let trouble = pulling.trouble().await;
    assert!(trouble.contains("server.example changed the SSRC of a track"), "{trouble}");
    let mut camera = Camera::accept(&listener).await;
    camera.establish(VIDEO_ONLY, &[]).await;
    for nal in camera::parameter_sets() {
        camera.rtp(0, 0, false, &nal).await;
    }
    camera.video(0, &idr(7)).await;
    camera.video(3600, &picture(8)).await;
    let frames = pulling.frames(1).await;
    assert_eq!(frames[0].data[4..], idr(7));
}

#[tokio::test]
async fn tracks_that_are_not_carried_are_told_and_left_alone() {
    let (listener, port) = Camera::listen().await;
    let mut pulling = Pulling::with(config(port));
    let mut camera = Camera::accept(&listener).await;
    let sdp = "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n\
               m=video 0 RTP/AVP 26\r\na=control:jpeg\r\n\
               m=application 0 RTP/AVP 107\r\na=rtpmap:107 vnd.onvif.metadata/90000\r\na=control:meta\r\n\
               m=audio 0 RTP/AVP 0\r\na=control:speaker\r\na=sendonly\r\n\
               m=audio 0 RTP/AVP 8\r\na=control:microphone\r\na=recvonly\r\n";
    let asked = camera.establish(sdp, &[]).await;
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(asked[0].ends_with("/microphone"), "{asked:?}");
    camera.payload_type = 8;
    for at in 0..5 {
        camera.rtp(0, at * 320, false, &[at as u8; 320]).await;
    }
    let frames = pulling.frames(4).await;
    assert!(frames.iter().all(|frame| frame.kind == Kind::Audio && frame.data.len() == 320));
    let video = pulling.status.skipped.get(Kind::Video).unwrap();
    assert_eq!((video.codec.as_str(), video.dropped.as_str()), ("jpeg", "it is not carried"));
}

#[tokio::test]
async fn user_and_password_are_shown_when_asked_for_and_refusals_say_what_to_check() {
    let (listener, port) = Camera::listen().await;
    let user = |password| Credentials::User { username: "viewer".into(), password: plain(password) };
    let pulling = Pulling::with(PullConfig { credentials: Some(user("secret")), ..config(port) });
    let mut camera = Camera::accept(&listener).await;
    let challenge = "WWW-Authenticate: Digest realm=\"cam\", nonce=\"abc\", algorithm=\"MD5\"";
    let (first, second) = (camera.request().await, {
        camera.answer("401 Unauthorized", &[challenge], "").await;
        camera.request().await
    });
    assert!(!first.contains("Authorization") && second.contains("Authorization: Digest "), "{second}");
    assert!(second.contains("username=\"viewer\"") && !second.contains("secret"), "{second}");
    camera.answer("401 Unauthorized", &[challenge], "").await;
    let trouble = pulling.trouble().await;
    assert!(
        trouble
            .starts_with("flows.cam.input.pull: server.example refused user or password; check credentials")
    );
}

#[tokio::test]
async fn a_nonce_that_goes_stale_in_the_set_up_costs_no_pause_unless_it_does_so_again_and_again() {
    let (listener, port) = Camera::listen().await;
    let credentials = Some(Credentials::User { username: "viewer".into(), password: plain("secret") });
    // With a pause the test would not end.
    let hour = Duration::from_secs(3600);
    let retry = crate::config::Retry { initial: hour, max: hour };
    let pulling = Pulling::with(PullConfig { credentials, retry, ..config(port) });
    let challenge = "WWW-Authenticate: Digest realm=\"cam\", nonce=\"abc\", algorithm=\"MD5\"";
    for _ in 0..2 {
        let mut camera = Camera::accept(&listener).await;
        camera.request().await;
        camera.answer("401 Unauthorized", &[challenge], "").await;
        camera.request().await;
        camera.answer("200 OK", &[], VIDEO_ONLY).await;
        let asked = camera.request().await;
        assert!(asked.starts_with("SETUP "), "{asked}");
        camera.answer("401 Unauthorized", &[challenge], "").await;
    }
    let trouble = pulling.trouble().await;
    assert!(trouble.contains("server.example asks for user and password again"), "{trouble}");
    let anew = PullError::Anew { host: "cam".into(), why: "" };
    let wait = |flowed, hurried| anew.wait(hour, Duration::from_millis(flowed), hurried);
    assert_eq!((wait(0, false), wait(0, true), wait(1000, true)), (Duration::ZERO, hour, Duration::ZERO));
}

#[tokio::test]
async fn a_redirect_is_followed_and_a_full_camera_left_in_peace() {
    let (listener, port) = Camera::listen().await;
    let (other, other_port) = Camera::listen().await;
    let pulling = Pulling::with(config(port));
    let to = format!("Location: rtsp://127.0.0.1:{other_port}/elsewhere");
    // The library asks, and then somebody asks who reads the answer.
    for _ in 0..2 {
        let mut camera = Camera::accept(&listener).await;
        camera.request().await;
        camera.answer("302 Moved Temporarily", &[&to], "").await;
    }
    let mut camera = Camera::accept(&other).await;
    let asked = camera.request().await;
    assert!(
        asked.starts_with(&format!("DESCRIBE rtsp://127.0.0.1:{other_port}/elsewhere RTSP/1.0")),
        "{asked}"
    );
    camera.answer("453 Not Enough Bandwidth", &[], "").await;
    let trouble = pulling.trouble().await;
    assert!(trouble.contains("127.0.0.1 has no room for another session"), "{trouble}");
    let full = PullError::Full { host: "cam".into(), said: String::new() };
    let wait = full.wait(Duration::from_millis(500), Duration::ZERO, false);
    assert!(wait > Duration::from_secs(60), "beyond the time after which sessions are forgotten");
}

#[tokio::test]
async fn rtsps_goes_through_tls_and_the_certificate_is_compared_with_the_pin() {
    let dir = tempfile::tempdir().unwrap();
    let pin = camera::certificate(dir.path());
    let (listener, port) = Camera::listen().await;
    let url = ConnectUrl { scheme: RTSPS, ..config(port).url };
    let tls = ClientTls { pin_sha256: Some(pin), ..ClientTls::default() };
    let mut pulling = Pulling::with(PullConfig { url: url.clone(), tls, ..config(port) });
    let mut camera = Camera::accept_tls(&listener, dir.path()).await;
    camera.establish(VIDEO_ONLY, &[]).await;
    for nal in camera::parameter_sets() {
        camera.rtp(0, 0, false, &nal).await;
    }
    camera.video(0, &idr(0)).await;
    camera.video(3600, &picture(1)).await;
    assert_eq!(pulling.frames(1).await[0].data[4..], idr(0));
    drop(pulling);

    let tls = ClientTls { pin_sha256: Some([7; 32]), ..ClientTls::default() };
    let pulling = Pulling::with(PullConfig { url, tls, ..config(port) });
    let refusing = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            drop(camera::tls(dir.path(), stream).await);
        }
    });
    let trouble = pulling.trouble().await;
    assert!(trouble.contains("pin") || trouble.contains("SHA-256"), "{trouble}");
    refusing.abort();
}

#[tokio::test]
async fn sound_of_a_session_without_pictures_flows_on_after_a_break() {
    let (listener, port) = Camera::listen().await;
    let mut pulling = Pulling::with(config(port));
    let mut camera = Camera::accept(&listener).await;
    camera.establish(SDP, &[]).await;
    second(&mut camera, 0).await;
    pulling.frames(40).await;
    drop(camera);
    let trouble = pulling.trouble().await;
    assert!(trouble.contains("closed the connection") || trouble.contains("ended the stream"), "{trouble}");
    let mut camera = Camera::accept(&listener).await;
    camera.establish(SDP, &[]).await;
    second(&mut camera, 25).await;
    pulling.frames(40).await;
}

fn only(content: Content) -> Settings {
    Settings {
        content,
        track_wait: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(10),
        hold: true,
        hold_for: None,
    }
}

#[tokio::test]
async fn a_kind_that_content_drops_is_not_asked_for_until_content_changes() {
    let (listener, port) = Camera::listen().await;
    let stream = stream();
    stream.configure(only(Content::AudioOnly));
    let mut pulling = Pulling::into(stream, config(port));
    let mut camera = Camera::accept(&listener).await;
    let asked = camera.establish(SDP, &[]).await;
    assert!(asked.len() == 1 && asked[0].ends_with("track2"), "{asked:?}");
    camera.payload_type = 8;
    for at in 0..10 {
        camera.rtp(0, at * 320, false, &[at as u8; 320]).await;
    }
    let frames = pulling.frames(5).await;
    assert!(frames.iter().all(|frame| frame.kind == Kind::Audio));
    let left_out = pulling.status.skipped.get(Kind::Video).unwrap();
    assert_eq!((left_out.codec.as_str(), left_out.dropped.as_str()), ("h264", "content is audioOnly"));

    pulling.stream.configure(only(Content::AudioVideo));
    let mut camera = Camera::accept(&listener).await;
    assert_eq!(camera.establish(SDP, &[]).await.len(), 2);
    second(&mut camera, 25).await;
    pulling.until(|item| matches!(item, Item::Frame(frame) if frame.kind == Kind::Video)).await;
}

#[tokio::test]
async fn the_camera_s_own_time_comes_with_its_reports() {
    let (listener, port) = Camera::listen().await;
    let mut pulling = Pulling::with(config(port));
    let mut camera = Camera::accept(&listener).await;
    camera.establish(SDP, &["RTP-Info: url=track1;seq=1;rtptime=3600,url=track2;seq=1;rtptime=320"]).await;
    second(&mut camera, 25).await;
    let unix = 1_700_000_000_u64;
    camera.report(1, (unix + 2_208_988_800) << 32, 25 * 3600).await;
    second(&mut camera, 50).await;
    pulling
        .until(|item| {
            let Item::Anchor(Anchor { time, by_source: Some(utc), .. }) = item else { return false };
            // By the report it was that time at the picture of the 25th step, 24 after what RTP-Info names.
            let unix_nanos = i64::try_from(utc.duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
            let at_zero = unix_nanos - time.nanos();
            assert!((at_zero - (unix as i64 * 1_000_000_000 - 960_000_000)).abs() < 1_000_000, "{at_zero}");
            true
        })
        .await;
}

#[tokio::test]
async fn opus_is_pulled_and_of_two_tracks_the_first_that_is_carried_is_taken() {
    let (listener, port) = Camera::listen().await;
    let mut pulling = Pulling::with(config(port));
    let mut camera = Camera::accept(&listener).await;
    let sdp = "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n\
               m=audio 0 RTP/AVP 98\r\na=rtpmap:98 SPEEX/16000\r\na=control:one\r\n\
               m=audio 0 RTP/AVP 97\r\na=rtpmap:97 opus/48000/2\r\na=control:two\r\n";
    let asked = camera.establish(sdp, &[]).await;
    assert!(asked.len() == 1 && asked[0].ends_with("/two"), "{asked:?}");
    camera.payload_type = 97;
    for at in 0..10_u32 {
        // 20 ms of silence.
        camera.rtp(0, at * 960, true, &[0xfc, 0xff, 0xfe, at as u8]).await;
    }
    let frames = pulling.frames(8).await;
    let steps = frames.windows(2).map(|pair| pair[1].pts.nanos_since(pair[0].pts));
    assert!(steps.clone().all(|step| step == 20_000_000), "{:?}", steps.collect::<Vec<_>>());
    assert_eq!(frames[1].data[..], [0xfc, 0xff, 0xfe, 1]);
    assert_eq!(pulling.stream.tracks().unwrap().audio.as_ref().unwrap().codec, av_media::Codec::Opus);
}

#[tokio::test]
async fn a_microphone_that_is_described_and_off_is_no_track() {
    let (listener, port) = Camera::listen().await;
    let mut pulling = Pulling::with(config(port));
    let mut camera = Camera::accept(&listener).await;
    camera.establish(SDP, &[]).await;
    camera.video(0, &idr(0)).await;
    for at in 1..10 {
        camera.video(at * 3600, &picture(at)).await;
    }
    assert!(pulling.frames(5).await.iter().all(|frame| frame.kind == Kind::Video));
    let tracks = pulling.stream.tracks().unwrap();
    assert!(tracks.video.is_some() && tracks.audio.is_none(), "{tracks:?}");
}

#[tokio::test]
async fn what_rtp_info_says_holds_also_where_the_first_packet_is_the_one_that_it_names() {
    let (listener, port) = Camera::listen().await;
    let mut pulling = Pulling::with(config(port));
    let mut camera = Camera::accept(&listener).await;
    camera.establish(SDP, &["RTP-Info: url=track1;seq=1;rtptime=90000,url=track2;seq=1;rtptime=8000"]).await;
    camera.video(90_000, &idr(25)).await;
    // A fifth of a second later, and here at once.
    for at in 30..35 {
        camera.audio(at * 320, &[at as u8; 320]).await;
        camera.video((at - 4) * 3600, &picture(at)).await;
    }
    let frames = pulling.frames(6).await;
    let first = |kind| frames.iter().find(|frame| frame.kind == kind).unwrap().pts;
    // Sound lies on the grid of its samples.
    let apart = first(Kind::Audio).nanos_since(first(Kind::Video));
    assert!((apart - 200_000_000).abs() < 1_000_000, "{apart}");
}

#[tokio::test]
async fn answers_that_the_library_refuses_are_put_right_on_another_connection() {
    for odd in [["; charset=utf-8", "", ""], ["", "; x=y", ""], ["", "", ";ssrc=DEADBEEF"]] {
        let (listener, port) = Camera::listen().await;
        let mut pulling = Pulling::with(config(port));
        let mut camera = Camera::accept(&listener).await;
        camera.odd = odd;
        // Up to what the library refuses.
        match odd {
            ["", "", _] => {
                camera.establish(SDP, &[]).await;
                camera.video(0, &idr(0)).await;
            }
            ["", of_session, _] => {
                camera.request().await;
                camera.answer("200 OK", &[], SDP).await;
                camera.request().await;
                let transport = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1";
                camera
                    .answer("200 OK", &[&format!("Session: 1;timeout=60{of_session}"), transport], "")
                    .await;
            }
            _ => {
                camera.request().await;
                camera.answer("200 OK", &[], SDP).await;
            }
        }
        let mut camera = Camera::accept(&listener).await;
        camera.odd = odd;
        camera.establish(SDP, &[]).await;
        second(&mut camera, 0).await;
        pulling.frames(40).await;
        assert_eq!(state(&pulling.status.status, State::Running).await.trouble, None);
    }
}

#[tokio::test]
async fn a_report_of_another_source_and_a_number_that_is_far_away_end_no_session() {
    let (listener, port) = Camera::listen().await;
    let mut pulling = Pulling::with(config(port));
    let mut camera = Camera::accept(&listener).await;
    camera
        .establish(SDP, &["RTP-Info: url=track1;seq=40000;rtptime=3600,url=track2;seq=40000;rtptime=320"])
        .await;
    let own = std::mem::replace(&mut camera.ssrc, 99);
    camera.report(1, 3_900_000_000 << 32, 1 << 30).await;
    camera.ssrc = own;
    second(&mut camera, 0).await;
    camera.ssrc = 99;
    camera.report(1, 3_900_000_000 << 32, 1 << 30).await;
    camera.ssrc = own;
    second(&mut camera, 25).await;
    let frames = pulling.frames(95).await;
    let sounds: Vec<_> = frames.iter().filter(|frame| frame.kind == Kind::Audio).collect();
    assert!(sounds.windows(2).all(|pair| pair[1].pts.nanos_since(pair[0].pts) == 40_000_000));
    assert_eq!(pulling.status.status.get().trouble, None);
}
