//! HLS over https with a certificate file, as curl gets it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use av_tests::clip::Clip;
use av_tests::module::{Module, Setup};
use av_tests::program::Program;
use av_tests::rtmp::Publisher;
use av_tests::tool::{Tool, binary};
use av_tests::{needs, port, wait};
use serde_json::{Value, json};

use crate::access::certificate;
use crate::{rtmp, twin};

/// A gateway that serves `live/cam` over https to who `auth` lets in.
pub(crate) struct Secure {
    pub(crate) module: Module,
    pub(crate) rtmp: String,
    pub(crate) port: u16,
    trusted: PathBuf,
}

/// What curl says of one answer.
#[derive(Debug)]
pub(crate) struct Got {
    /// `2` or `1.1`.
    pub(crate) version: String,
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Secure {
    fn start(auth: &Value) -> Self {
        Self::start_with(&json!({ "auth": auth, "segmentSeconds": 1 }))
    }

    /// With these options of its output.
    pub(crate) fn start_with(options: &Value) -> Self {
        let (rtmp, port) = (rtmp(port::free(), "live/cam"), port::free());
        let setup = Setup::new("hls-gateway");
        let (trusted, key) = certificate(setup.dir());
        let serve = format!("https://127.0.0.1:{port}/live/cam");
        let mut output = options.clone();
        output["serve"] = serve.into();
        output["tls"] = json!({ "certificateFile": trusted, "keyFile": key });
        let document = twin(json!({ "cam": { "input": { "listen": rtmp }, "outputs": { "web": output } } }));
        Self { module: setup.twin(&document).start(), rtmp, port, trusted }
    }

    pub(crate) fn get(&self, path: &str, options: &[&str]) -> Got {
        curl(&self.trusted, &format!("https://127.0.0.1:{}{path}", self.port), options)
    }

    /// The multivariant playlist, once the stream can be played.
    pub(crate) fn playlist(&self, path: &str, options: &[&str]) -> Got {
        wait::until("a playlist", wait::LONG, || {
            Some(self.get(path, options)).filter(|got| got.status == 200)
        })
    }
}

fn curl(trusted: &Path, url: &str, options: &[&str]) -> Got {
    let mut command = Tool::Curl.command();
    command.args([
        "--silent",
        "--show-error",
        "--output",
        "-",
        "--write-out",
        "\n%{http_version} %{http_code}",
    ]);
    let ended = Program::run(command.arg("--cacert").arg(trusted).args(options).arg(url), wait::LONG);
    assert!(ended.status.success(), "{url}: {}", ended.stderr);
    let (body, told) = ended.stdout.rsplit_once('\n').unwrap();
    let (version, status) = told.split_once(' ').unwrap();
    Got { version: version.into(), status: status.parse().unwrap(), body: body.into() }
}

/// The address in a playlist's line.
pub(crate) fn address(line: &str) -> Option<&str> {
    if line.starts_with('#') {
        return line.split_once("URI=\"")?.1.split('"').next();
    }
    Some(line).filter(|line| !line.is_empty())
}

#[test]
fn over_https_http_2_is_spoken_with_who_can_and_the_key_is_in_every_address() {
    needs!(Ffmpeg, Curl);
    let gateway = Secure::start(&json!({ "key": "s p/1" }));
    let _publisher = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Plain.tags());
    gateway.module.wait_receiving("cam");
    let keyed = "/live/cam/index.m3u8?key=s%20p%2F1";
    let multivariant = gateway.playlist(keyed, &["--http2"]);
    assert_eq!(multivariant.version, "2");
    assert_eq!(gateway.get(keyed, &["--http1.1"]).version, "1.1");
    let refused = gateway.get("/live/cam/index.m3u8", &["--http2"]);
    assert_eq!((refused.version.as_str(), refused.status), ("2", 403));
    // A HEAD has no content, whatever the answer: curl ends a connection that sends some.
    for (path, status) in [(keyed, 200), ("/live/cam/index.m3u8", 403), ("/live/none/index.m3u8", 404)] {
        let head = gateway.get(path, &["--http2", "--head"]);
        assert_eq!((head.version.as_str(), head.status), ("2", status), "{}", head.body);
        assert!(
            head.body.contains("content-length: ") && head.body.trim_end().lines().count() > 3,
            "{}",
            head.body
        );
    }
    let options = gateway.get(keyed, &["--http2", "--request", "OPTIONS"]);
    assert_eq!((options.version.as_str(), options.status), ("2", 204));

    let media = multivariant.body.lines().filter_map(address).next_back().unwrap();
    let playlist = gateway.get(&format!("/live/cam/{media}"), &["--http2"]);
    assert_eq!(playlist.status, 200, "{media}");
    let addresses: Vec<_> = playlist.body.lines().filter_map(address).collect();
    let parts = addresses.iter().filter(|address| address.contains(".m4s")).count();
    assert!(parts >= 2, "{}", playlist.body);
    for address in addresses {
        assert!(address.ends_with("?key=s%20p%2F1"), "{address}");
        // The status alone: curl has each of them over HTTP/2, media too.
        let got = gateway.get(&format!("/live/cam/{address}"), &["--http2", "--output", "/dev/null"]);
        assert_eq!((got.version.as_str(), got.status), ("2", 200), "{address}");
    }
}

#[test]
fn head_options_ranges_and_conditions_are_answered_over_http_2() {
    needs!(Ffmpeg, Curl);
    let gateway = Secure::start(&json!({ "key": "k" }));
    // Headers and status, where curl takes the answer for whole: a HEAD that has a body ends the stream with an error.
    let head = |path: &str| gateway.get(path, &["--http2", "--head"]);
    assert_eq!(head("/live/cam/index.m3u8?key=k").status, 503, "nothing is there yet");
    let _publisher = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Plain.tags());
    let index = gateway.playlist("/live/cam/index.m3u8?key=k", &["--http2"]).body;
    let media = format!("/live/cam/{}", index.lines().filter_map(address).next_back().unwrap());
    for (path, status) in [
        ("/live/cam/index.m3u8?key=k", 200),
        (&media, 200),
        ("/live/cam/index.m3u8", 403),
        ("/live/cam/no.m4s?key=k", 404),
        ("/nothing", 404),
        ("/", 200),
        ("/-/report", 405),
        ("/-/streams.json", 200),
    ] {
        let got = head(path);
        assert_eq!((got.version.as_str(), got.status), ("2", status), "{path}");
        let length = got.body.lines().find_map(|line| line.strip_prefix("content-length: "));
        assert!(length.unwrap().trim().parse::<u32>().unwrap() > 0, "{path}: {}", got.body);
    }
    let options = gateway.get(&media, &["--http2", "--request", "OPTIONS", "--include"]);
    assert_eq!((options.version.as_str(), options.status), ("2", 204));
    assert!(options.body.contains("access-control-allow-methods: GET, HEAD, OPTIONS"), "{}", options.body);
    // Without content: curl 7.88 takes a refusal that is ahead of its content for an error.
    let posted = gateway.get(&media, &["--http2", "--request", "POST"]);
    assert_eq!((posted.version.as_str(), posted.status), ("2", 405));

    let list = gateway.get(&media, &["--http2"]).body;
    let segment = list.lines().filter(|line| !line.starts_with('#')).find_map(address).unwrap();
    let of = |more: &[&str]| {
        let headers = [&["--http2", "--output", "/dev/null", "--dump-header", "-"], more].concat();
        gateway.get(&format!("/live/cam/{segment}"), &headers)
    };
    let whole = of(&[]);
    let field = |got: &Got, name: &str| {
        let line = got.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("{name}: {}", got.body)).trim().to_owned()
    };
    let part = of(&["--range", "10-109"]);
    assert_eq!((part.version.as_str(), part.status), ("2", 206));
    let range = format!("bytes 10-109/{}", field(&whole, "content-length"));
    assert_eq!((field(&part, "content-length"), field(&part, "content-range")), ("100".into(), range));
    assert_eq!(of(&["--range", "99999999-"]).status, 416);
    let known = of(&["--header", &format!("If-None-Match: {}", field(&whole, "etag"))]);
    assert_eq!((known.version.as_str(), known.status), ("2", 304));
}

#[test]
fn a_handshake_that_never_ends_is_cut_off_and_holds_nobody_up() {
    needs!(Curl);
    let gateway = Secure::start(&Value::Null);
    wait::until_true("it listens", wait::LONG, || TcpStream::connect(("127.0.0.1", gateway.port)).is_ok());
    let mut idle = TcpStream::connect(("127.0.0.1", gateway.port)).unwrap();
    idle.set_read_timeout(Some(wait::LONG)).unwrap();
    // The head of a record that says more than ever comes.
    idle.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
    assert_eq!(gateway.get("/", &[]).status, 200);
    let ended = idle.read_to_end(&mut Vec::new());
    assert!(
        ended.as_ref().map_or_else(|error| error.kind() == ErrorKind::ConnectionReset, |_| true),
        "{ended:?}"
    );
}

#[test]
fn a_password_opens_a_stream_over_https_and_is_not_taken_over_http() {
    needs!(Ffmpeg, Curl);
    let auth = json!({ "username": "guard", "password": "pw-5150" });
    let gateway = Secure::start(&auth);
    let _publisher = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Plain.tags());
    gateway.module.wait_receiving("cam");
    let index = "/live/cam/index.m3u8";
    let multivariant = gateway.playlist(index, &["--user", "guard:pw-5150"]);
    for wrong in [&[][..], &["--user", "guard:pw-5151"], &["--user", "other:pw-5150"]] {
        assert_eq!(gateway.get(index, wrong).status, 401, "{wrong:?}");
    }
    let media = format!("/live/cam/{}", multivariant.body.lines().filter_map(address).next_back().unwrap());
    assert_eq!(gateway.get(&media, &[]).status, 401);
    let playlist = gateway.get(&media, &["--user", "guard:pw-5150"]);
    assert_eq!(playlist.status, 200);
    assert!(!format!("{}{}", multivariant.body, playlist.body).contains("5150"));
    // Caches that others share know no passwords.
    let segment = playlist.body.lines().filter(|line| !line.starts_with('#')).find_map(address).unwrap();
    for path in [index, &media, &format!("/live/cam/{segment}")] {
        let user = ["--user", "guard:pw-5150", "--output", "/dev/null", "--dump-header", "-"];
        let head = gateway.get(path, &user).body.to_ascii_lowercase();
        let cache = head.lines().find_map(|line| line.strip_prefix("cache-control: ")).unwrap();
        assert!(cache.starts_with("private, max-age="), "{path}: {cache}");
    }

    let document = twin(json!({ "cam": {
        "input": { "listen": rtmp(port::free(), "live/cam") },
        "outputs": { "web": { "serve": format!("http://127.0.0.1:{}/live/cam", port::free()), "auth": auth } },
    } }));
    let refused = Setup::new("hls-gateway").twin(&document).run(wait::LONG);
    let told = format!("{}{}", refused.stdout, refused.stderr);
    assert_eq!(refused.status.code(), Some(78), "{told}");
    let why = "flows.cam.outputs.web.auth: user and password are accepted over https only";
    assert!(told.contains(why) && !told.contains("5150"), "{told}");
}

#[test]
fn the_linter_follows_a_stream_over_https_whose_authority_it_is_told() {
    needs!(Ffmpeg);
    let gateway = Secure::start(&Value::Null);
    let _publisher = Publisher::to(&gateway.rtmp).run_endlessly(Clip::Plain.tags());
    gateway.module.wait_receiving("cam");
    gateway.playlist("/live/cam/index.m3u8", &[]);
    let lint = |options: &[&str]| {
        let mut command = Command::new(binary("hls-gateway"));
        let url = format!("https://127.0.0.1:{}/live/cam/index.m3u8", gateway.port);
        Program::run(command.args(["lint", "--seconds", "6"]).args(options).arg(url), wait::LONG)
    };
    let trusted = gateway.trusted.to_str().unwrap();
    let known = lint(&["--ca", trusted, "--apple"]);
    assert_eq!(known.status.code(), Some(0), "{}{}", known.stdout, known.stderr);
    assert_eq!(lint(&[]).status.code(), Some(69), "nobody says whom to trust");
    assert_eq!(lint(&["--ca", "/dev/null"]).status.code(), Some(64));
}
