use proptest::prelude::*;

use super::*;
use crate::message::{Method, StatusCode};

fn read_all(reader: &mut Reader) -> Result<Vec<Incoming>, RtspError> {
    let mut all = Vec::new();
    while let Some(incoming) = reader.next()? {
        all.push(incoming);
    }
    Ok(all)
}

fn read(bytes: &[u8]) -> Result<Vec<Incoming>, RtspError> {
    let mut reader = Reader::new(Limits::default());
    reader.buffer().extend_from_slice(bytes);
    read_all(&mut reader)
}

const MIXED: &[u8] =
    b"\r\n\r\nOPTIONS rtsp://h/a b RTSP/1.0\r\nCSeq:1\r\nUser-Agent: Caf\xe9\r\nbroken line\r\n\r\n\
    $\x00\x00\x03abc$\x01\x00\x00RTSP/1.0 200 OK\nCSeq: 2\nContent-length: 4\n\nbody\r\n\0\
    ANNOUNCE rtsp://h/x RTSP/1.0\r\nX: a,\r\n b\r\nContent-Length: 3\r\n\r\nv=0\
    GET /x?y HTTP/1.1\r\nContent-Length: 32767\r\n\r\nbase64";

#[test]
fn requests_responses_and_frames_are_told_apart() {
    let mut reader = Reader::new(Limits::default());
    reader.buffer().extend_from_slice(MIXED);
    let mut next = || reader.next().unwrap().unwrap();
    let Incoming::Request(options) = next() else { panic!("no request") };
    assert_eq!((options.method, options.uri.as_str()), (Method::Options, "rtsp://h/a b"));
    assert_eq!(options.headers.get("cseq"), Some("1"));
    assert_eq!(options.headers.iter().count(), 2);
    assert_eq!(next(), Incoming::Interleaved { channel: 0, data: Bytes::from_static(b"abc") });
    assert_eq!(next(), Incoming::Interleaved { channel: 1, data: Bytes::new() });
    let Incoming::Response(response) = next() else { panic!("no response") };
    assert_eq!((response.status, &response.body[..]), (StatusCode::Ok, &b"body"[..]));
    let Incoming::Request(announce) = next() else { panic!("no request") };
    assert_eq!((announce.headers.get("x"), &announce.body[..]), (Some("a, b"), &b"v=0"[..]));
    let Incoming::Http(get) = next() else { panic!("no HTTP") };
    assert_eq!((get.method.as_str(), get.target.as_str()), ("GET", "/x?y"));
    assert_eq!(&reader.take_rest()[..], b"base64");
    assert_eq!(reader.position(), MIXED.len() as u64);
}

#[test]
fn what_is_no_rtsp_at_all_ends_at_once() {
    for bytes in [&b"\x16\x03\x01\x02\x00"[..], b"SSH-2.0-OpenSSH", b"hello\r\n\r\n", b"\x03\x00\x00"] {
        assert_eq!(read(bytes), Err(RtspError::NotRtsp), "{bytes:?}");
    }
    assert_eq!(read(b"OPTI"), Ok(vec![]));
}

#[test]
fn junk_between_messages_is_stepped_over_up_to_a_bound() {
    let request = b"OPTIONS * RTSP/1.0\r\n\r\n";
    let bytes = [&request[..], b"v=0\r\no=- 0 0\r\n\x80\x01\r\n", request].concat();
    assert_eq!(read(&bytes).unwrap().len(), 2);
    let bytes = [&request[..], &b"junk\n".repeat(1000)].concat();
    assert!(matches!(read(&bytes), Err(RtspError::Junk { bytes: 4097.. })));
}

#[test]
fn bounds_hold_before_anything_is_kept() {
    let endless = [&b"OPTIONS * RTSP/1.0\r\n"[..], &b"X: y\r\n".repeat(4000)].concat();
    assert_eq!(read(&endless), Err(RtspError::HeaderTooLong { limit: 16 << 10 }));
    let body =
        |length: &str| read(format!("ANNOUNCE * RTSP/1.0\r\nContent-Length: {length}\r\n\r\n").as_bytes());
    assert_eq!(body("65537"), Err(RtspError::BodyTooLong { length: 65_537, limit: 64 << 10 }));
    assert_eq!(body("-1"), Err(RtspError::ContentLength));
    assert_eq!(body("65536"), Ok(vec![]));
}

#[test]
fn what_we_write_is_read_by_another_parser() {
    let request =
        Request::new(Method::Setup, "rtsp://h/a/trackID=0").with("CSeq", "3").with("X", "a\r\nb: c");
    let (parsed, length) = rtsp_types::Message::<Vec<u8>>::parse(&request.to_bytes()).unwrap();
    assert_eq!(length, request.to_bytes().len());
    let rtsp_types::Message::Request(parsed) = parsed else { panic!("no request") };
    assert_eq!(parsed.method(), Method::Setup);
    assert_eq!(parsed.headers().count(), 2);

    let mut response = Response::new(StatusCode::Unauthorized).with("CSeq", "3");
    response.body = Bytes::from_static(b"v=0\r\n");
    let (parsed, _) = rtsp_types::Message::<Vec<u8>>::parse(&response.to_bytes()).unwrap();
    let rtsp_types::Message::Response(parsed) = parsed else { panic!("no response") };
    assert_eq!((parsed.status(), &parsed.body()[..]), (StatusCode::Unauthorized, &b"v=0\r\n"[..]));
}

proptest! {
    #[test]
    fn where_bytes_are_split_makes_no_difference(cuts in prop::collection::vec(1_usize..40, 1..40)) {
        let whole = read(MIXED).unwrap();
        let mut reader = Reader::new(Limits::default());
        let (mut all, mut rest, mut cuts) = (Vec::new(), MIXED, cuts.iter().cycle());
        // What follows HTTP is no RTSP: nothing is asked for behind it.
        while !rest.is_empty() && !matches!(all.last(), Some(Incoming::Http(_))) {
            let (now, later) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            reader.buffer().extend_from_slice(now);
            while !matches!(all.last(), Some(Incoming::Http(_))) && let Some(one) = reader.next().unwrap() {
                all.push(one);
            }
            rest = later;
        }
        let until_http = whole.len().min(all.len());
        prop_assert_eq!(&all, &whole[..until_http]);
        prop_assert_eq!(all.len(), 6);
    }

    #[test]
    fn no_bytes_make_it_panic_or_stand_still(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let bytes = [b"OPTIONS * RTSP/1.0\r\n\r\n", &bytes[..]].concat();
        let mut reader = Reader::new(Limits::default());
        reader.buffer().extend_from_slice(&bytes);
        let mut messages = 0;
        while let Ok(Some(_)) = reader.next() {
            messages += 1;
            prop_assert!(messages <= bytes.len());
        }
        prop_assert!(reader.position() <= bytes.len() as u64);
    }
}
