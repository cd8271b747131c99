//! `managedIdentity`: tokens from an identity endpoint as Azure's own SDK asks it, and Azurite, which looks at them. And
//! the way out by `HTTPS_PROXY`.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use av_tests::clip::Clip;
use av_tests::edge::Edge;
use av_tests::program::Program;
use av_tests::rtmp::Publisher;
use av_tests::tool::Tool;
use av_tests::{needs, port, wait};
use serde_json::{Value, json};

use crate::recorder_blobs::{Azurite, KEY};
use crate::recorder_events::{MODULE, recorder_alone};
use crate::rtmp;

/// Claims that Azurite asks for; it does not look at the signature.
const TOKEN: &str = "import base64, json, time\n\
    part = lambda claims: base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b'=').decode()\n\
    now = int(time.time())\n\
    print(part({'alg': 'RS256', 'typ': 'JWT'}) + '.' + part({'aud': 'https://storage.azure.com', \
    'iss': 'https://sts.windows.net/00000000-0000-0000-0000-000000000000/', 'iat': now - 60, 'nbf': now - 60, \
    'exp': now + 86400, 'ver': '1.0'}) + '.' + part({'not': 'signed'}))";

/// An identity endpoint as App Service and containers have it (api-version 2019-08-01). It keeps the requests.
struct Identities {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Identities {
    fn start(token: String) -> Self {
        let port = port::free();
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let keeps = asked.clone();
        let body = json!({
            "access_token": token, "expires_on": "4102444800", "resource": "https://storage.azure.com",
            "token_type": "Bearer", "client_id": "11112222",
        });
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let head: Vec<String> =
                    lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
                keeps.lock().unwrap().push(head.join("\n").to_lowercase());
                let text = body.to_string();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
                     Connection: close\r\n\r\n{text}",
                    text.len()
                );
                let _ = (&stream).write_all(answer.as_bytes());
            }
        });
        Self { port, asked }
    }
}

/// A certificate for 127.0.0.1 that the root of `local-edge` has signed: the trust bundle of its modules has that root.
fn certificate(authority: &Path, folder: &Path) -> (PathBuf, PathBuf) {
    let file = |name: &str| folder.join(name);
    let openssl = |arguments: &[&str]| {
        let ran = Program::run(Command::new("openssl").current_dir(folder).args(arguments), wait::LONG);
        assert!(ran.status.success(), "{arguments:?}: {}", ran.stderr);
    };
    std::fs::write(file("names"), "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n").unwrap();
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "key.pem"];
    openssl(&[&["req", "-new", "-subj", "/CN=azurite", "-out", "request.pem"][..], &key].concat());
    let (root, root_key) = (authority.join("root.pem"), authority.join("root.key.pem"));
    let signed =
        ["x509", "-req", "-in", "request.pem", "-days", "2", "-out", "cert.pem", "-extfile", "names"];
    let by = ["-CA", root.to_str().unwrap(), "-CAkey", root_key.to_str().unwrap(), "-CAcreateserial"];
    let serial = ["-CAserial", "serial"];
    openssl(&[&signed[..], &by, &serial].concat());
    (file("cert.pem"), file("key.pem"))
}

/// Runs a manifest until two files are in an Azurite that speaks TLS alone.
fn stores_two_files(manifest: &Value, ports: Vec<(u16, u16)>, folder: &Path, azurite_port: u16) {
    let edge = Edge::start(manifest, ports);
    wait::until_true("the recorder reports its configuration", wait::LONG, || {
        edge.twin(MODULE)["reported"]["config"]["status"] == "applied"
    });
    let (cert, key) = certificate(&edge.state_dir().join("certificates"), folder);
    let secure = Azurite::start_with_tokens(folder, azurite_port, &cert, &key);
    let publishing =
        Publisher::to(&rtmp(edge.host_ports(1935)[0], "live/cam")).run_endlessly(Clip::Plain.tags());
    let stored = || {
        let answer = edge.ask(&["method", MODULE, "listRecordings", r#"{ "flow": "cam" }"#]);
        let answer: Value = serde_json::from_str(&answer.stdout).unwrap_or_default();
        let recordings = answer["payload"]["recordings"].as_array().cloned().unwrap_or_default();
        recordings.iter().filter(|recording| recording["state"] == "stored").count()
    };
    wait::until_true("two files are stored", wait::LONG, || stored() >= 2);
    publishing.stop();
    let ended = edge.interrupt();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    secure.end();
}

fn has_openssl(case: &str) -> bool {
    let is_there = Command::new("openssl").arg("version").output().is_ok();
    if !is_there {
        av_tests::tool::skip(case, "openssl is not installed");
    }
    is_there
}

/// tinyproxy for whoever knows user and password.
fn proxy(folder: &Path, user: &str, password: &str) -> (Program, u16) {
    let port = port::free();
    let config = folder.join("tinyproxy.conf");
    let text = format!("Port {port}\nListen 127.0.0.1\nBasicAuth {user} {password}\nLogLevel Connect\n");
    std::fs::write(&config, text).unwrap();
    let program = Program::start(Tool::Tinyproxy.command().arg("-d").arg("-c").arg(&config));
    wait::until_true("the proxy listens", wait::LONG, || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    (program, port)
}

#[test]
fn files_go_through_the_proxy_that_the_environment_names_with_its_password() {
    needs!(Ffmpeg, Azurite, BlobSdk, Tinyproxy);
    if !has_openssl("recorder_identity::files_go_through_the_proxy") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let azurite_port = port::free();
    let azurite = Azurite::start(folder.path(), azurite_port);
    azurite.python("box.create_container()");
    let sas = azurite.sas("rcw", 1);
    azurite.end();
    let (proxy, port) = proxy(folder.path(), "camera", "over-the-top");
    let cloud = json!({
        "store": format!("azblob+https://127.0.0.1:{azurite_port}/devstoreaccount1/recordings"),
        "credentials": { "sas": sas },
        "segmentSeconds": 2,
    });
    let (mut manifest, ports) = recorder_alone(json!({ "cloud": cloud }));
    let module = &mut manifest["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"][MODULE];
    module["env"]["HTTPS_PROXY"] = json!({ "value": format!("http://camera:over-the-top@127.0.0.1:{port}") });
    stores_two_files(&manifest, ports, folder.path(), azurite_port);
    let said = proxy.end("TERM", wait::LONG);
    let through = format!("CONNECT 127.0.0.1:{azurite_port}");
    assert!(format!("{}{}", said.stdout, said.stderr).contains(&through), "{}{}", said.stdout, said.stderr);
}

#[test]
fn a_managed_identity_opens_the_container_with_tokens_and_asks_for_one_once() {
    needs!(Ffmpeg, Azurite, BlobSdk, Python);
    if !has_openssl("recorder_identity::a_managed_identity") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let azurite_port = port::free();
    let azurite = Azurite::start(folder.path(), azurite_port);
    azurite.python("box.create_container()");
    azurite.end();
    let token = Program::run(Tool::Python.command().args(["-c", TOKEN]), wait::LONG).stdout;
    let identities = Identities::start(token.trim().to_owned());

    let cloud = json!({
        "store": format!("azblob+https://127.0.0.1:{azurite_port}/devstoreaccount1/recordings"),
        "credentials": { "managedIdentity": true, "clientId": "11112222" },
        "segmentSeconds": 2,
    });
    let (mut manifest, ports) = recorder_alone(json!({ "cloud": cloud }));
    let module = &mut manifest["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"][MODULE];
    module["env"]["IDENTITY_ENDPOINT"] =
        json!({ "value": format!("http://127.0.0.1:{}/token", identities.port) });
    module["env"]["IDENTITY_HEADER"] = json!({ "value": "from-the-platform" });
    stores_two_files(&manifest, ports, folder.path(), azurite_port);
    let asked = identities.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 1, "{asked:?}");
    for words in ["resource=https", "client_id=11112222", "x-identity-header: from-the-platform"] {
        assert!(asked[0].contains(words), "{words}: {asked:?}");
    }
    let azurite = Azurite::start(folder.path(), azurite_port);
    let blobs = azurite.blobs(&folder.path().join("read"));
    assert!(blobs.len() >= 2 && blobs.iter().all(|blob| blob["same"] == true), "{blobs:?}");
}

/// Writes each line of the recorder's account as if its file had been stored three days earlier.
const AGE: &str = "import glob, hashlib, json, sys\n\
    for path in glob.glob(sys.argv[1] + '/**/stored/cam.cloud/*.lines', recursive=True):\n    \
        lines = [json.loads(line.split(' ', 1)[1]) for line in open(path)]\n    \
        with open(path, 'w') as file:\n        \
            for line in lines:\n            \
                assert 'unsure' not in line, line\n            \
                line['start'] -= 3 * 86400000\n            \
                line['aged'] = line['start'] + line['milliseconds']\n            \
                text = json.dumps(line, separators=(',', ':'))\n            \
                file.write(hashlib.sha256(text.encode()).hexdigest()[:16] + ' ' + text + '\\n')\n        \
        print(len(lines))";

#[test]
fn blobs_that_are_older_than_retention_days_go_where_the_store_says_what_time_it_is() {
    needs!(Ffmpeg, Azurite, BlobSdk, Python);
    if !has_openssl("recorder_identity::blobs_that_are_older") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let port = port::free();
    let azurite = Azurite::start(folder.path(), port);
    // Nobody recorded this one here, so nobody deletes it.
    azurite.python("box.create_container()\nbox.upload_blob('cam/foreign.mp4', b'x')");
    azurite.end();
    let cloud = json!({
        "store": format!("azblob+https://127.0.0.1:{port}/devstoreaccount1/recordings"),
        "credentials": { "accountKey": KEY },
        "segmentSeconds": 2,
        "retentionDays": 1,
    });
    let (manifest, ports) = recorder_alone(json!({ "cloud": cloud }));
    let edge = Edge::start(&manifest, ports);
    wait::until_true("the recorder reports its configuration", wait::LONG, || {
        edge.twin(MODULE)["reported"]["config"]["status"] == "applied"
    });
    let (cert, key) = certificate(&edge.state_dir().join("certificates"), folder.path());
    let secure = Azurite::start_with_tokens(folder.path(), port, &cert, &key);
    let publishing =
        Publisher::to(&rtmp(edge.host_ports(1935)[0], "live/cam")).run_endlessly(Clip::Plain.tags());
    let listed = |state: &str| {
        let answer = edge.ask(&["method", MODULE, "listRecordings", r#"{ "flow": "cam" }"#]);
        let answer: Value = serde_json::from_str(&answer.stdout).unwrap_or_default();
        let recordings = answer["payload"]["recordings"].as_array().cloned().unwrap_or_default();
        recordings.iter().filter(|recording| recording["state"] == state).count()
    };
    wait::until_true("two files are stored", wait::LONG, || listed("stored") >= 2);
    publishing.stop();
    wait::until_true("all files are stored", wait::LONG, || listed("recording") + listed("waiting") == 0);
    let stored = listed("stored");

    // It is three days later.
    let state = edge.state_dir().display().to_string();
    let aged = Program::run(Tool::Python.command().args(["-c", AGE, &state]), wait::LONG);
    let count: usize = aged.stdout.lines().filter_map(|line| line.parse::<usize>().ok()).sum();
    assert_eq!(count, stored, "{}{}", aged.stdout, aged.stderr);
    // The store is away when they are due: nothing is forgotten.
    secure.end();
    let restart = || {
        let restarted = edge.ask(&["restart", MODULE]);
        assert!(restarted.status.success(), "{}", restarted.stderr);
    };
    let told = || {
        let log = edge.ask(&["logs", MODULE, "--tail", "100000"]).stdout;
        ["retentionDays can't be deleted", "no file is deleted by age until"]
            .map(|words| log.matches(words).count())
    };
    let before = told();
    restart();
    wait::until_true("they are overdue, or nobody says what time it is", wait::LONG, || told() != before);
    assert_eq!(listed("stored"), stored);
    let secure = Azurite::start_with_tokens(folder.path(), port, &cert, &key);
    restart();
    wait::until_true("they are gone", wait::LONG, || {
        let answer = edge.ask(&["method", MODULE, "listRecordings", r#"{ "flow": "cam" }"#]);
        let answer: Value = serde_json::from_str(&answer.stdout).unwrap_or_default();
        answer["payload"]["recordings"].as_array().is_some_and(Vec::is_empty) || answer["status"] == 404
    });
    edge.interrupt();
    secure.end();
    let azurite = Azurite::start(folder.path(), port);
    assert_eq!(azurite.python("print('\\n'.join(box.list_blob_names()))").trim(), "cam/foreign.mp4");
}
