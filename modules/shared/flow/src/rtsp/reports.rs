//! RTCP of a sender, framed for the RTSP connection.

use av_rtsp::INTERLEAVED_HEADER;
use av_rtsp::rtcp::{self, Reception, SenderReport};
use bytes::{BufMut, Bytes, BytesMut};

/// Names the sender: the same for all tracks of a stream, which is what players go by.
const CNAME: &str = "av-services";

/// A sender's report and its name, on a channel.
pub(super) fn report(channel: u8, report: &SenderReport) -> BytesMut {
    framed(channel, &rtcp::sender_report(report, CNAME))
}

/// Tells that a source is gone, on a channel.
pub(super) fn bye(channel: u8, ssrc: u32) -> BytesMut {
    framed(channel, &rtcp::bye(ssrc, CNAME))
}

/// What a receiver says of what it got.
pub(super) fn reception(ssrc: u32, reception: &Reception) -> Bytes {
    rtcp::receiver_report(ssrc, Some(reception), CNAME)
}

pub(super) fn framed(channel: u8, compound: &[u8]) -> BytesMut {
    let mut out = BytesMut::with_capacity(INTERLEAVED_HEADER + compound.len());
    out.put_slice(&[b'$', channel]);
    out.put_u16(u16::try_from(compound.len()).unwrap_or(0));
    out.put_slice(compound);
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
