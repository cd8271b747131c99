//! RTCP of a sender, framed for the RTSP connection.

use av_rtsp::INTERLEAVED_HEADER;
use av_rtsp::rtcp::{self, SenderReport};
use bytes::{BufMut, BytesMut};

/// Names the sender: the same for all tracks of a stream, which is what players go by.
const CNAME: &str = "av-services";

/// A sender's report and its name, on a channel.
pub(super) fn report(channel: u8, report: &SenderReport) -> BytesMut {
    framed(channel, &[&rtcp::sender_report(report, CNAME)])
}

/// Tells that a source is gone, on a channel (RFC 3550 §6.6). It stands behind an empty receiver report: what the last
/// sender report said was true then, and is not any more.
pub(super) fn bye(channel: u8, ssrc: u32) -> BytesMut {
    let [a, b, c, d] = ssrc.to_be_bytes();
    framed(channel, &[&rtcp::receiver_report(ssrc, None, CNAME), &[0x81, 203, 0, 1, a, b, c, d]])
}

fn framed(channel: u8, parts: &[&[u8]]) -> BytesMut {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = BytesMut::with_capacity(INTERLEAVED_HEADER + length);
    out.put_slice(&[b'$', channel]);
    out.put_u16(u16::try_from(length).unwrap_or(0));
    parts.iter().for_each(|part| out.put_slice(part));
    out
}

#[cfg(test)]
mod tests {
    use av_rtsp::rtcp::Message;

    use super::*;

    #[test]
    fn a_goodbye_is_a_compound_that_others_read() {
        let bytes = bye(3, 7);
        let (head, compound) = bytes.split_at(4);
        assert_eq!(head, [b'$', 3, 0, compound.len() as u8]);
        let found = rtcp::parse(compound);
        assert!(matches!(found[0], Message::ReceiverReport(_)), "{found:?}");
        assert_eq!(found.last(), Some(&Message::Bye(vec![7])));
    }
}
