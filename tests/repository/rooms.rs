//! Rooms that any protocol can use name none: whoever adds one finds nothing to change in them.

use std::fs;
use std::path::Path;

use super::*;

/// Of av-flow: what a stream is, how flows run, what documents hold, sockets, fan-out, the way in, and what endpoints
/// are to all of these.
const ROOMS: [&str; 9] = [
    "stream",
    "supervisor",
    "config",
    "net",
    "fanout",
    "ingest",
    "registry.rs",
    "extension.rs",
    "endpoint.rs",
];

/// How a word that names a protocol or a container begins.
const PROTOCOLS: [&str; 15] = [
    "rtmp", "rtsp", "rtp", "rtcp", "hls", "m3u8", "flv", "amf", "sdp", "http", "azblob", "srt", "webrtc",
    "mp4", "mpegts",
];

/// The dialect of the schema, which is a URL and no endpoint's.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// What a file of a room says without its tests, which may talk to real peers.
fn production(path: &Path, text: &str) -> String {
    let is_test = path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs");
    let before = text.split("\n#[cfg(test)]\npub(crate) mod tests {").next().unwrap_or_default();
    let before = before.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    if is_test { String::new() } else { before.replace(DIALECT, "") }
}

/// Lines with a word that names a protocol.
fn named(text: &str) -> Vec<&str> {
    let names = |word: &str| {
        let word = word.to_ascii_lowercase();
        PROTOCOLS.iter().any(|protocol| word.starts_with(protocol))
            || word.contains("rtmp")
            || word.contains("rtsp")
    };
    text.lines().filter(|line| line.split(|c: char| !c.is_ascii_alphanumeric()).any(names)).collect()
}

/// Every Rust file below a path.
fn sources(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() || path.extension().is_some_and(|extension| extension == "rs") {
            found.extend(sources(&path));
        }
    }
    found
}

#[test]
fn neutral_rooms_name_no_protocol() {
    let flow = repository().join("modules/shared/flow/src");
    let (mut files, mut faults) = (0, Vec::new());
    for path in ROOMS.iter().flat_map(|room| sources(&flow.join(room))) {
        let text = fs::read_to_string(&path).unwrap();
        files += 1;
        for line in named(&production(&path, &text)) {
            faults.push(format!("{}: {}", path.strip_prefix(&flow).unwrap().display(), line.trim()));
        }
    }
    assert!(files > 60, "{files}");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_crate_of_a_protocol_is_named_in_that_protocols_room_alone() {
    let root = repository().join("modules");
    let mut faults = Vec::new();
    for module in fs::read_dir(&root).unwrap().chain(fs::read_dir(root.join("shared")).unwrap()) {
        let src = module.unwrap().path().join("src");
        if !src.is_dir() || src.starts_with(root.join("shared/rtmp")) {
            continue;
        }
        for path in sources(&src) {
            let room = root.join("shared/flow/src/rtmp");
            if !path.starts_with(room) && fs::read_to_string(&path).unwrap().contains("av_rtmp") {
                faults.push(path);
            }
        }
    }
    assert!(faults.is_empty(), "{faults:?}");
}

#[test]
fn a_protocol_is_seen_in_names_comments_and_texts_and_not_in_other_words() {
    let seen =
        "use crate::rtmp::Ports;\nlet x = RtspPath;\n/// as HLS does\n\"flv\"\nfn to_rtmps() {}\nav_rtmp";
    assert_eq!(named(seen).len(), 6);
    assert_eq!(named("short paths, start points, chunks\nlet inherits = 4;"), Vec::<&str>::new());
    let text = "code\n#[cfg(test)]\nmod tests {\n    use crate::rtmp;\n}\n";
    assert_eq!(production(Path::new("a/b.rs"), text), "code");
    assert_eq!(production(Path::new("a/tests.rs"), text), "");
}
