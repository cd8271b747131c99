//! What fuzzing has found stays found: every input in `fuzz/regressions/TARGET/` goes through its target.

use std::path::{Path, PathBuf};

use av_tests::tool;

#[path = "../fuzz/targets.rs"]
mod targets;

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn inputs_that_fuzzing_found_do_no_harm_any_more() {
    let all = tool::tests_dir().join("fuzz/regressions");
    for folder in files(&all).iter().filter(|path| path.is_dir()) {
        let name = folder.file_name().unwrap().to_str().unwrap();
        let (_, target) =
            *targets::ALL.iter().find(|(target, _)| *target == name).expect("a folder is a target");
        for file in files(folder) {
            println!("{}", file.display());
            target(&std::fs::read(&file).unwrap());
        }
    }
}

#[test]
fn the_test_card_cut_off_anywhere_does_no_harm() {
    let card = std::fs::read(tool::test_card()).unwrap();
    let index = card.windows(4).position(|name| name == b"mdat").expect("mdat");
    for end in (0..index).step_by(17).chain([card.len()]) {
        targets::mp4(&card[..end]);
    }
}

#[test]
fn the_test_card_with_any_byte_of_its_index_changed_does_no_harm() {
    let card = std::fs::read(tool::test_card()).unwrap();
    let index = card.windows(4).position(|name| name == b"mdat").expect("mdat");
    let mut copy = card[..index].to_vec();
    for at in (0..index).step_by(7) {
        let was = copy[at];
        for value in [0, 0xFF, was ^ 1] {
            copy[at] = value;
            targets::mp4(&copy);
        }
        copy[at] = was;
    }
}

/// Every place of `whole` with another byte, and everything that it begins with.
fn mutants(whole: &[u8], target: fn(&[u8])) {
    for end in 0..=whole.len() {
        target(&whole[..end]);
    }
    let mut copy = whole.to_vec();
    for at in 0..whole.len() {
        let was = copy[at];
        for value in [0, 0xFF, b'\n', b'9', was ^ 1] {
            copy[at] = value;
            target(&copy);
        }
        copy[at] = was;
    }
}

#[test]
fn conversations_of_rtsp_cut_off_anywhere_or_with_any_byte_changed_do_no_harm() {
    const SDP: &str = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=cam\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n\
        a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1;sprop-parameter-sets=Z0LAHtkDxWhAAA==,aMuMsg==\r\n\
        a=control:trackID=0\r\nm=audio 0 RTP/AVP 97\r\na=rtpmap:97 MPEG4-GENERIC/48000/2\r\n\
        a=fmtp:97 mode=AAC-hbr;config=1190;SizeLength=13;IndexLength=3;IndexDeltaLength=3\r\n";
    let request = |line: &str, more: &str| format!("{line} RTSP/1.0\r\nCSeq: 1\r\n{more}\r\n");
    let url = "rtsp://a/live/cam";
    let tcp = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n";
    let play = [
        request(
            &format!("DESCRIBE {url}"),
            "Authorization: Digest username=\"a\", nonce=\"n\", uri=\"*\"\r\n",
        ),
        request(&format!("SETUP {url}/trackID=0"), tcp),
        request(&format!("PLAY {url}"), "Range: npt=0-\r\n"),
        "$\u{1}\0\u{4}abcd".to_owned(),
        request(&format!("TEARDOWN {url}"), ""),
    ];
    mutants(play.concat().as_bytes(), targets::rtsp::server);
    let announce = format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n", SDP.len());
    let record = [
        request(&format!("ANNOUNCE {url}"), &announce) + SDP,
        request(
            &format!("SETUP {url}/trackID=0"),
            "Transport: RTP/AVP;unicast;client_port=5000-5001;mode=record\r\n",
        ),
        request(&format!("RECORD {url}"), ""),
    ];
    mutants(record.concat().as_bytes(), targets::rtsp::server);
    mutants(SDP.as_bytes(), targets::rtsp::sdp);
    let answer = |cseq: u8, more: &str| format!("RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\n{more}\r\n");
    let answers = [
        answer(1, "Public: ANNOUNCE, SETUP, RECORD, GET_PARAMETER\r\n"),
        answer(2, ""),
        answer(3, "Session: 1;timeout=60\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"),
        answer(4, ""),
    ];
    mutants(answers.concat().as_bytes(), targets::rtsp::client);
}
