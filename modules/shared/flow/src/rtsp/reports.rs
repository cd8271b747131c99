//! RTCP of a sender, framed for the RTSP connection (RFC 3550 §6.4.1, §6.5, §6.6).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, BytesMut};

/// From 1900 to 1970.
const NTP_TO_UNIX: u64 = 2_208_988_800;
/// Names the sender in SDES: the same for all tracks of a stream, which is what players go by.
const CNAME: &[u8] = b"av-services";

/// What a sender has to say of one track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Report {
    /// The track's synchronisation source.
    pub(super) ssrc: u32,
    /// Now.
    pub(super) utc: SystemTime,
    /// The same moment as RTP time.
    pub(super) rtp_time: u32,
    /// Packets so far, modulo 2^32.
    pub(super) packets: u32,
    /// Bytes of payload so far, modulo 2^32.
    pub(super) octets: u32,
}

impl Report {
    /// Sender report and description, on a channel.
    pub(super) fn interleaved(&self, channel: u8) -> BytesMut {
        framed(channel, |out| {
            let since = self.utc.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
            let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
            out.put_slice(&[0x80, 200, 0, 6]);
            out.put_u32(self.ssrc);
            // Modulo 2^32: an era of NTP.
            out.put_u32((since.as_secs() + NTP_TO_UNIX) as u32);
            out.put_u32(fraction as u32);
            out.put_u32(self.rtp_time);
            out.put_u32(self.packets);
            out.put_u32(self.octets);
            describe(out, self.ssrc);
        })
    }
}

/// Tells that a source is gone, on a channel. It stands behind an empty receiver report, as it has to.
pub(super) fn bye(channel: u8, ssrc: u32) -> BytesMut {
    framed(channel, |out| {
        out.put_slice(&[0x80, 201, 0, 1]);
        out.put_u32(ssrc);
        describe(out, ssrc);
        out.put_slice(&[0x81, 203, 0, 1]);
        out.put_u32(ssrc);
    })
}

fn describe(out: &mut BytesMut, ssrc: u32) {
    // One item, an end, and zeros up to a whole word.
    let words = 1 + (2 + CNAME.len() + 1).div_ceil(4);
    let end = out.len() + 4 + words * 4;
    out.put_slice(&[0x81, 202, 0, u8::try_from(words).unwrap_or(0)]);
    out.put_u32(ssrc);
    out.put_slice(&[1, u8::try_from(CNAME.len()).unwrap_or(0)]);
    out.put_slice(CNAME);
    out.resize(end, 0);
}

fn framed(channel: u8, write: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut out = BytesMut::with_capacity(64);
    out.put_slice(&[b'$', channel, 0, 0]);
    write(&mut out);
    let length = u16::try_from(out.len().saturating_sub(4)).unwrap_or(0);
    if let Some(place) = out.get_mut(2..4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_when_and_how_much_and_who_in_whole_words() {
        let utc = UNIX_EPOCH + Duration::new(1, 500_000_000);
        let report = Report { ssrc: 7, utc, rtp_time: 90, packets: 2, octets: 3 };
        let bytes = report.interleaved(3);
        assert_eq!(bytes[..4], [b'$', 3, 0, (bytes.len() - 4) as u8]);
        assert_eq!(bytes[4..8], [0x80, 200, 0, 6]);
        assert_eq!(bytes[12..16], (NTP_TO_UNIX as u32 + 1).to_be_bytes());
        assert_eq!(bytes[16..20], [0x80, 0, 0, 0]);
        assert_eq!(bytes[20..24], 90_u32.to_be_bytes());
        let sdes = &bytes[32..];
        assert_eq!(sdes[..2], [0x81, 202]);
        assert_eq!(sdes.len(), 4 * (usize::from(sdes[3]) + 1));
        assert_eq!(sdes[10..10 + CNAME.len()], *CNAME);
        assert_eq!(*sdes.last().unwrap(), 0);
        let bye = bye(1, 7);
        assert_eq!(bye[bye.len() - 8..], [0x81, 203, 0, 1, 0, 0, 0, 7]);
    }
}
