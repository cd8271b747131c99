//! RTCP (RFC 3550 §6): what goes beside the packets of a track.

mod reception;

use std::time::Duration;

use av_media::Timestamp;
use bytes::Bytes;
use rtcp_types::{
    Bye, CompoundBuilder, Packet as Parsed, ReceiverReport, ReportBlock, RtcpPacketParser,
    RtcpPacketWriterExt, Sdes, SdesChunk, SdesItem, SenderReport as Report,
};

pub use reception::{Counter, REPORT_INTERVAL};

#[cfg(test)]
mod tests;

/// Seconds from 1900 to 1970.
const UNIX: u64 = 2_208_988_800;
/// Packets of a compound that are read; what is beyond is left out.
const MAX_PACKETS: usize = 32;
/// Sender reports are that far apart. A publisher may be silent for a while before it is known to be away, and some players
/// wait 5 s for anything at all.
const INTERVAL: Duration = Duration::from_secs(4);
/// And that far while the publisher is away.
const INTERVAL_HOLDING: Duration = Duration::from_secs(2);

/// A wall clock time as RTCP says it (RFC 3550 §4): seconds since 1900 in the upper half, their fraction in the lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ntp(pub u64);

impl Ntp {
    /// From the time since 1970.
    pub fn from_unix(since: Duration) -> Self {
        let fraction = ((u64::from(since.subsec_nanos()) << 32) + 500_000_000) / 1_000_000_000;
        Self((since.as_secs().wrapping_add(UNIX) & 0xffff_ffff) << 32 | fraction)
    }

    /// The time since 1970, in nanoseconds; negative before. What lies before 1968 is read as the era that begins in
    /// 2036 (RFC 4330 §3).
    pub fn unix_nanos(self) -> i64 {
        let seconds = self.0 >> 32;
        let seconds = if seconds < 1 << 31 { seconds + (1 << 32) } else { seconds };
        let nanos = ((self.0 & 0xffff_ffff) * 1_000_000_000 + (1 << 31)) >> 32;
        // Both are below 2^34 and 2^30.
        (seconds as i64 - UNIX as i64) * 1_000_000_000 + nanos as i64
    }

    /// Whether it can be the time of something that is live: not before 2001, not after 2100. Cameras without a clock
    /// count from 1900 or from 1970; a year from 1900 is what such a camera has been running at most, and not 2036.
    pub fn is_plausible(self) -> bool {
        let year = 86_400 * 365;
        (978_307_200..4_102_444_800).contains(&(self.unix_nanos() / 1_000_000_000)) && self.0 >> 32 > year
    }
}

/// Which wall clock time a point of stream time is: one map for all tracks of a stream, so that no player ever shifts one
/// against the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallClock {
    /// This point of stream time,
    pub stream: Timestamp,
    /// in nanoseconds since 1970.
    pub unix_nanos: i64,
}

impl WallClock {
    /// When a point of stream time is.
    pub fn at(&self, stream: Timestamp) -> Ntp {
        let nanos = self.unix_nanos.saturating_add(stream.nanos_since(self.stream)).max(0);
        Ntp::from_unix(Duration::from_nanos(nanos.unsigned_abs()))
    }
}

/// What a sender says of one track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderReport {
    /// Whose.
    pub ssrc: u32,
    /// A moment by the wall clock,
    pub ntp: Ntp,
    /// and by the track's RTP time.
    pub rtp_time: u32,
    /// Packets sent so far, modulo 2³².
    pub packets: u32,
    /// Bytes behind their RTP headers, modulo 2³².
    pub octets: u32,
}

/// What a receiver says of what it got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reception {
    /// From whom.
    pub ssrc: u32,
    /// Of 256 packets so many were lost since the last report.
    pub fraction_lost: u8,
    /// Lost so far, at most 24 bits.
    pub lost: u32,
    /// The highest sequence number, with its wraps in the upper half.
    pub highest: u32,
    /// In ticks of RTP time.
    pub jitter: u32,
    /// The middle 32 bits of the last sender report's time; 0 where there was none.
    pub last_report: u32,
    /// In 65,536ths of a second since that came.
    pub delay: u32,
}

/// One packet of a compound.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// Its reception blocks are left out.
    SenderReport(SenderReport),
    /// At most 31 blocks.
    ReceiverReport(Vec<Reception>),
    /// `CNAME` of a source.
    Name {
        /// Whose.
        ssrc: u32,
        /// At most 255 bytes.
        cname: String,
    },
    /// These sources leave.
    Bye(Vec<u32>),
    /// Anything else that is well-formed, by its packet type: application-defined, feedback.
    Other(u8),
}

/// What is in an RTCP packet or datagram. What can't be understood ends it: who sends nonsense still shows that it lives.
pub fn parse(mut compound: &[u8]) -> Vec<Message> {
    let mut found = Vec::new();
    for _ in 0..MAX_PACKETS {
        let &[first, _, high, low, ..] = compound else { break };
        let length = 4 * (usize::from(u16::from_be_bytes([high, low])) + 1);
        let Some((packet, rest)) = compound.split_at_checked(length).filter(|_| first >> 6 == 2) else {
            break;
        };
        compound = rest;
        if let Ok(parsed) = Parsed::parse(packet) {
            read(&parsed, packet, &mut found);
        }
    }
    found
}

fn read(parsed: &Parsed<'_>, packet: &[u8], found: &mut Vec<Message>) {
    match parsed {
        Parsed::Sr(report) => found.push(Message::SenderReport(SenderReport {
            ssrc: report.ssrc(),
            ntp: Ntp(report.ntp_timestamp()),
            rtp_time: report.rtp_timestamp(),
            packets: report.packet_count(),
            octets: report.octet_count(),
        })),
        Parsed::Rr(report) => {
            let reception = |block: ReportBlock<'_>| Reception {
                ssrc: block.ssrc(),
                fraction_lost: block.fraction_lost(),
                lost: block.cumulative_lost(),
                highest: block.extended_sequence_number(),
                jitter: block.interarrival_jitter(),
                last_report: block.last_sender_report_timestamp(),
                delay: block.delay_since_last_sender_report_timestamp(),
            };
            found.push(Message::ReceiverReport(report.report_blocks().map(reception).collect()));
        }
        Parsed::Sdes(names) => {
            for chunk in names.chunks() {
                let cname = chunk.items().find(|item| item.type_() == SdesItem::CNAME);
                let cname = cname.map(|item| String::from_utf8_lossy(item.value()).into_owned());
                found.extend(cname.map(|cname| Message::Name { ssrc: chunk.ssrc(), cname }));
            }
        }
        Parsed::Bye(bye) => found.push(Message::Bye(bye.ssrcs().collect())),
        _ => found.push(Message::Other(packet.get(1).copied().unwrap_or_default())),
    }
}

/// A sender report and the source's name, as they have to come together (RFC 3550 §6.1).
pub fn sender_report(report: &SenderReport, cname: &str) -> Bytes {
    let builder = Report::builder(report.ssrc)
        .ntp_timestamp(report.ntp.0)
        .rtp_timestamp(report.rtp_time)
        .packet_count(report.packets)
        .octet_count(report.octets);
    written(CompoundBuilder::default().add_packet(builder).add_packet(name(report.ssrc, cname)))
}

/// A receiver report; without `reception` it only says that somebody is there.
pub fn receiver_report(ssrc: u32, reception: Option<&Reception>, cname: &str) -> Bytes {
    let mut builder = ReceiverReport::builder(ssrc);
    if let Some(reception) = reception {
        builder = builder.add_report_block(
            ReportBlock::builder(reception.ssrc)
                .fraction_lost(reception.fraction_lost)
                .cumulative_lost(reception.lost & 0x00ff_ffff)
                .extended_sequence_number(reception.highest)
                .interarrival_jitter(reception.jitter)
                .last_sender_report_timestamp(reception.last_report)
                .delay_since_last_sender_report_timestamp(reception.delay),
        );
    }
    written(CompoundBuilder::default().add_packet(builder).add_packet(name(ssrc, cname)))
}

/// The source leaves (RFC 3550 §6.6). It stands behind an empty receiver report: what the last sender report said was true
/// then, and is not any more.
pub fn bye(ssrc: u32, cname: &str) -> Bytes {
    let report = receiver_report(ssrc, None, cname);
    let bye = written(CompoundBuilder::default().add_packet(Bye::builder().add_source(ssrc)));
    [report, bye].concat().into()
}

fn name(ssrc: u32, cname: &str) -> rtcp_types::SdesBuilder<'_> {
    // A length has 8 bits.
    let end = cname.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|&end| end <= 255).last();
    let cname = cname.get(..end.unwrap_or_default()).unwrap_or_default();
    let item = SdesItem::builder(SdesItem::CNAME, cname);
    Sdes::builder().add_chunk(SdesChunk::builder(ssrc).add_item(item))
}

/// Nothing where the parts don't fit each other, which they do.
fn written(compound: CompoundBuilder<'_>) -> Bytes {
    let mut out = vec![0; 1024];
    let length = compound.write_into(&mut out).unwrap_or_default();
    out.truncate(length);
    out.into()
}

/// When sender reports of a stream go out. `now` is the time since any moment, always the same.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReportSchedule {
    last: Option<Duration>,
}

impl ReportSchedule {
    /// When the next is due: at once for the first. `holding`: the publisher is away.
    pub fn due(&self, holding: bool) -> Option<Duration> {
        Some(self.last? + if holding { INTERVAL_HOLDING } else { INTERVAL })
    }

    /// Whether one is due.
    pub fn is_due(&self, now: Duration, holding: bool) -> bool {
        self.due(holding).is_none_or(|due| due <= now)
    }

    /// One was sent.
    pub const fn sent(&mut self, now: Duration) {
        self.last = Some(now);
    }
}
