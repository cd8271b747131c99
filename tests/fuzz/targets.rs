//! What is fuzzed, one function a target: outside bytes in, and a panic where a promise is broken.
//!
//! The fuzz targets call these, and so does an ordinary test, with each input in `regressions/` and `seeds/`.
#![allow(dead_code)] // each fuzz target uses one of them

#[path = "rtsp.rs"]
pub mod rtsp;

use std::io::Cursor;
use std::num::NonZeroU32;
use std::time::Duration;

use av_media::mp4::{Amount, Mp4, Playback, Recording, Recovered, recover};
use av_media::{Codec, Frame, Kind, Timestamp, Track, aac, av1, h264, h265, nal, opus};
use av_rtmp::chunk::{ChunkReader, Header, RawMessage, write_message};
use av_rtmp::message::{Message, split_aggregate};
use av_rtmp::{Limits, RtmpError, ServerEvent, ServerOutput, ServerSession, amf0, flv};
use av_rtsp::depacketize::{AfterLoss, Depacketizer, Output, Payload, Unit};
use av_rtsp::packetize::{Packetizer, Settings};
use av_rtsp::reorder::{Ordered, Reorder};
use av_rtsp::{Received, rtcp};
use bytes::{Bytes, BytesMut};

/// Takes an input.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const ALL: [(&str, Target); 14] = [
    ("chunk_reader", chunk_reader),
    ("amf0", amf0),
    ("flv_tag", flv_tag),
    ("sps", sps),
    ("avcc_hvcc", avcc_hvcc),
    ("mp4", mp4),
    ("recover", recover_recording),
    ("server_session", server_session),
    ("rtp", rtp),
    ("reorder", reorder),
    ("depacketize", depacketize),
    ("rtsp_server", rtsp::server),
    ("rtsp_client", rtsp::client),
    ("sdp", rtsp::sdp),
];

/// A chunk stream means the same however the network splits it, and what was read can be written and read
/// again.
pub fn chunk_reader(data: &[u8]) {
    let (whole, end) = read_chunks([data]);
    let split = data.first().map_or(1, |first| usize::from(*first) + 1);
    let (pieces, end_of_pieces) = read_chunks(data.chunks(split));
    assert_eq!((&whole, end.is_some()), (&pieces, end_of_pieces.is_some()));
    for message in whole {
        if let Ok(Message::Aggregate(_)) = Message::parse(&message) {
            let _ = split_aggregate(&message, |_| Ok(()));
        }
        // Types 1 and 2 are the reader's own business.
        let header = Header {
            csid: 3,
            timestamp: message.timestamp,
            type_id: message.type_id,
            stream_id: message.stream_id,
        };
        let mut out = BytesMut::new();
        assert!(write_message(&mut out, 128, header, &[&message.payload]));
        assert_eq!(read_chunks([&out[..]]).0, [message]);
    }
}

fn read_chunks<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<RawMessage>, Option<RtmpError>) {
    let mut reader = ChunkReader::new(&Limits::default());
    let mut messages = Vec::new();
    for mut piece in pieces {
        loop {
            match reader.read(&mut piece) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}

/// What was decoded is encoded to what decodes to the same.
pub fn amf0(data: &[u8]) {
    let Ok(values) = amf0::decode(data) else { return };
    let once = amf0::encode_all(&values);
    let again = amf0::decode(&once).expect("what was encoded decodes");
    // By their bytes: a number may be NaN, which equals nothing.
    assert_eq!(amf0::encode_all(&again), once);
}

/// The first byte says whether the rest is a video or an audio message.
pub fn flv_tag(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    let body = Bytes::copy_from_slice(body);
    let parse = if kind % 2 == 0 { flv::parse_video } else { flv::parse_audio };
    let tags = match parse(&body) {
        Ok(flv::Tag::Several(tags)) => tags,
        Ok(tag) => vec![tag],
        Err(_) => return,
    };
    for tag in tags {
        if let flv::Tag::Extra { body, .. } = &tag {
            assert_eq!(parse(body).as_ref(), Ok(&tag), "what leaves by itself says the same");
        }
    }
}

/// Parameter sets, as NAL units.
pub fn sps(data: &[u8]) {
    if let Ok(sps) = h264::Sps::parse(data) {
        let _ = sps.reorder_frames();
    }
    let _ = h265::Sps::parse(data);
    let _ = h265::Vps::parse(data);
    let units: Vec<_> = nal::AnnexBUnits::new(data).collect();
    if let Ok(prefixed) = nal::to_length_prefixed(units.iter().copied()) {
        let back: Result<Vec<_>, _> = nal::NalUnits::new(&prefixed, 4).collect();
        assert_eq!(back.expect("what was written reads"), units);
    }
}

/// Decoder configurations: what was parsed builds to what parses to the same.
pub fn avcc_hvcc(data: &[u8]) {
    let record = || Bytes::copy_from_slice(data);
    if let Ok(config) = h264::AvcConfig::parse(record()) {
        let _ = (config.codec_string(), config.first_sps());
        if let Ok(built) = config.build() {
            assert_eq!(h264::AvcConfig::parse(built).expect("what was built parses"), config);
        }
    }
    if let Ok(config) = h265::HevcConfig::parse(record()) {
        let _ = (config.codec_string(), config.first_sps(), config.first_vps());
        if let Ok(built) = config.build() {
            assert_eq!(h265::HevcConfig::parse(built).expect("what was built parses"), config);
        }
    }
    if let Ok(config) = aac::AudioConfig::parse(data) {
        let _ = (config.codec_string(), config.output_rate(), config.output_channels());
        let _ = config.build();
    }
    let _ = aac::AdtsHeader::parse(data);
    let _ = av1::Av1Config::parse(record()).map(|config| config.codec_string());
    let _ = opus::OpusHead::parse(record());
    let _ = opus::OpusHead::from_dops(record());
}

/// A whole file: its index, then its samples into a second round, from the start and from a later place.
///
/// What is damaged costs itself. A sample that is given has a byte at least, all of them in the file; time goes on.
pub fn mp4(data: &[u8]) {
    for start in [Duration::ZERO, Duration::from_millis(700)] {
        let Ok(file) = Mp4::open(Cursor::new(data)) else { return };
        let samples: usize = file.tracks().iter().map(|track| track.sample_count as usize).sum();
        assert!(samples <= data.len(), "{samples} samples in {} bytes", data.len());
        let _ = (
            file.ignored().iter().map(ToString::to_string).count(),
            file.flaws().iter().map(ToString::to_string).count(),
        );
        let mut playback = Playback::new(file, start);
        assert!(playback.loop_start(1) > playback.loop_start(0));
        let mut last = [None; 2];
        for _ in 0..samples.min(2000) * 3 / 2 {
            let sample = match playback.next_sample(true) {
                Ok(Some(sample)) => sample,
                Ok(None) => panic!("a loop that may begin again does"),
                Err(_) => continue,
            };
            assert!(!sample.data.is_empty() && sample.data.len() <= data.len());
            assert!(playback.track(sample.kind, sample.configuration).is_some());
            let frame = sample.frame(playback.loop_start(sample.loop_index));
            let before = last[sample.kind as usize].replace(frame.dts.millis());
            assert!(before.is_none_or(|before| before <= frame.dts.millis()), "time goes back");
        }
        let _ = playback.mp4_mut().has_only_grown(data.len() as u64 / 2);
    }
}

/// A peer that shakes hands and then sends these bytes, to a server that lets it do all it asks for.
pub fn server_session(data: &[u8]) {
    let mut session = ServerSession::new(Limits::default());
    let mut hello = vec![3];
    hello.resize(1 + 2 * 1536, 0);
    session.handle_input(&hello);
    for piece in data.chunks(data.first().map_or(1, |first| usize::from(*first) + 1)) {
        session.handle_input(piece);
        loop {
            match session.poll() {
                Ok(Some(ServerOutput::Event(ServerEvent::Connect(_)))) => session.accept_connect(),
                Ok(Some(ServerOutput::Event(ServerEvent::Publish { id, .. }))) => session.accept_publish(id),
                Ok(Some(ServerOutput::Event(ServerEvent::Play { id, .. }))) => session.accept_play(id),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

/// A recording of which some bytes are others: recovery ends, and what it gives is finished inside the file's reserve and
/// can be opened. The first byte says up to where the file is trusted; then come three bytes for each change, where and
/// what, and what is left over cuts the file.
pub fn recover_recording(data: &[u8]) {
    let Some((trusted, changes)) = data.split_first() else { return };
    let Some(mut file) = recording() else { panic!("sound can be recorded") };
    let (changes, cut) = changes.as_chunks::<3>();
    for [high, low, value] in changes {
        let at = usize::from(u16::from_be_bytes([*high, *low]));
        // The reserve in the middle is nobody's.
        let at = if at < 64 { at } else { 4096 + at - 64 };
        if let Some(byte) = file.get_mut(at) {
            *byte = *value;
        }
    }
    if let Some(cut) = cut.first() {
        file.truncate(file.len() * usize::from(*cut) / 255);
    }
    let trusted = u64::from(*trusted) * file.len() as u64 / 255;
    let Ok(Recovered::Open { recording, .. }) = recover(&mut Cursor::new(&file[..]), trusted) else { return };
    let (amount, reserve_end) = (recording.amount(), recording.reserve_end());
    assert!(amount.sounds <= file.len() as u64 && recording.size() <= file.len() as u64);
    let finish = recording.finish();
    file.truncate(finish.size as usize);
    for write in finish.index.iter().chain([&finish.flip]) {
        let (start, end) = (write.offset as usize, write.offset as usize + write.bytes.len());
        assert!(end as u64 <= reserve_end);
        file[start..end].copy_from_slice(&write.bytes);
    }
    if amount.sounds > 0 {
        let _ = Mp4::open(Cursor::new(&file[..]));
    }
}

/// An open recording of sound.
fn recording() -> Option<Vec<u8>> {
    let tracks = [Track::aac(Bytes::from_static(&[0x12, 0x10])).ok()?];
    let reserve = Recording::reserve(&tracks, Amount { sounds: 100, ..Amount::default() }).ok()?;
    let mut recording = Recording::start(&tracks, Timestamp::ZERO, reserve).ok()?;
    let [front, moov] = recording.head();
    let mut file = front.bytes.to_vec();
    file.resize(moov.offset as usize, 0);
    file.extend_from_slice(&moov.bytes);
    let rate = NonZeroU32::new(44_100)?;
    for fragment in 0..4 {
        let frame = |index: i64| {
            let at = Timestamp::from_ticks((fragment * 3 + index) * 1024, rate);
            Frame { kind: Kind::Audio, dts: at, pts: at, is_sync: true, data: Bytes::from_static(&[7; 20]) }
        };
        let frames: Vec<Frame> = (0..3).map(frame).collect();
        let fragment = recording.fragment(&frames, None).ok()??;
        fragment.pieces().for_each(|piece| file.extend_from_slice(piece));
    }
    Some(file)
}

/// What came as RTP or RTCP: read or refused; a report that was read is written as what reads the same.
pub fn rtp(data: &[u8]) {
    let _ = Received::parse(&Bytes::copy_from_slice(data));
    for message in rtcp::parse(data) {
        if let rtcp::Message::SenderReport(report) = message {
            let again = rtcp::parse(&rtcp::sender_report(&report, "fuzz"));
            assert_eq!(again.first(), Some(&rtcp::Message::SenderReport(report)));
        }
    }
}

/// However packets come, they leave in order, and what is missing is said. Three bytes a packet: its number, and whether
/// time passes or another source begins.
pub fn reorder(data: &[u8]) {
    let (mut reorder, mut out, mut now) = (Reorder::default(), Vec::new(), Duration::ZERO);
    let mut ssrc = 0;
    for packet in data.chunks_exact(3) {
        now += Duration::from_millis(u64::from(packet[2] & 0x7f));
        ssrc += u32::from(packet[2] == 0xff);
        let sequence = u16::from_be_bytes([packet[0], packet[1]]);
        let payload = Bytes::new();
        let packet = Received { ssrc, payload_type: 96, sequence, time: 0, marker: false, payload };
        reorder.push(packet, now, &mut out);
    }
    let mut next: Option<u16> = None;
    for ordered in out {
        match ordered {
            Ordered::Packet(packet) => {
                assert!(next.is_none_or(|next| next == packet.sequence), "out of order");
                next = Some(packet.sequence.wrapping_add(1));
            }
            Ordered::Lost(count) => {
                assert!(count > 0);
                next = next.map(|next| next.wrapping_add(count as u16));
            }
            Ordered::Restart => next = None,
        }
    }
}

/// Any payloads of any format: what comes out of them is packetized to what comes out the same. The first byte says the
/// format; then each packet: flags, how much later it is, two bytes of length, payload.
pub fn depacketize(data: &[u8]) {
    let Some((&format, mut rest)) = data.split_first() else { return };
    let aac = |size, index, delta| Payload::Aac { size, index, delta };
    let (payload, known) = match format % 8 {
        0 => (Payload::H264, None),
        1 => (Payload::H265, None),
        2 => (Payload::Av1, None),
        3 => (aac(13, 3, 3), Track::aac(Bytes::from_static(&[0x11, 0x90])).ok()),
        4 => (aac(6, 2, 2), Track::aac(Bytes::from_static(&[0x11, 0x90])).ok()),
        5 => (Payload::Latm, Track::aac(Bytes::from_static(&[0x11, 0x90])).ok()),
        6 => (Payload::MpegAudio, None),
        _ => (Payload::Whole(Codec::Opus), Track::opus(None).ok()),
    };
    let clock = NonZeroU32::new(if known.is_some() { 48_000 } else { 90_000 }).expect("not zero");
    let mut depacketizer = Depacketizer::new(payload, clock, known, AfterLoss::Keep);
    let (mut out, mut time) = (Vec::new(), 0_u32);
    while let [flags, later, high, low, after @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        let (bytes, after) = after.split_at(length);
        rest = after;
        time = time.wrapping_add(u32::from(*later) << (flags >> 3));
        if flags & 2 != 0 {
            depacketizer.push(Ordered::Lost(1), &mut out);
        }
        depacketizer.push(packet(time, flags & 1 != 0, Bytes::copy_from_slice(bytes)), &mut out);
    }
    let mut track = depacketizer.track().cloned();
    for output in out {
        match output {
            Output::Track(now) => track = Some(now),
            Output::Unit(unit) => {
                // A second ADTS header would be taken off as the first one was.
                if let Some(track) = &track
                    && aac::AdtsHeader::parse(&unit.data).is_err()
                {
                    comes_back(payload, track, clock, &unit);
                }
            }
        }
    }
}

fn packet(time: u32, marker: bool, payload: Bytes) -> Ordered {
    Ordered::Packet(Received { ssrc: 1, payload_type: 96, sequence: 0, time, marker, payload })
}

fn comes_back(payload: Payload, track: &Track, clock: NonZeroU32, unit: &Unit) {
    let settings =
        Settings { payload_type: 96, ssrc: 1, first_sequence: 0, first_time: 1, mtu: 600, channel: 0 };
    let Ok(mut packetizer) = Packetizer::new(track, settings) else { return };
    let (time, data) = (Timestamp::ZERO, unit.data.clone());
    let frame = Frame { kind: track.kind(), dts: time, pts: time, is_sync: unit.is_sync, data };
    let mut packets = Vec::new();
    if !packetizer.packetize(&frame, &mut packets) {
        return;
    }
    // Whoever keeps what is broken says what he was given.
    let mut depacketizer = match payload {
        Payload::Aac { .. } | Payload::Latm => {
            let payload = Payload::Aac { size: 13, index: 3, delta: 3 };
            Depacketizer::new(payload, clock, Some(track.clone()), AfterLoss::Keep)
        }
        payload => Depacketizer::new(payload, clock, Some(track.clone()), AfterLoss::Keep),
    };
    let mut out = Vec::new();
    for packet in packets {
        let packet = Received::parse(&packet.datagram().concat().into()).expect("it was just written");
        depacketizer.push(Ordered::Packet(packet), &mut out);
    }
    let back: Vec<_> = out
        .into_iter()
        .filter_map(|output| match output {
            Output::Unit(unit) => Some(unit.data),
            Output::Track(_) => None,
        })
        .collect();
    assert_eq!(back.as_slice(), std::slice::from_ref(&unit.data));
}
