//! Sound: a frame a packet, so that none waits for another.

use bytes::Bytes;

use super::MAX_WHOLE;
use super::sheet::Sheet;

/// AAC-hbr (RFC 3640 §3.3.6): one access unit a packet, a large one in fragments (§3.2.3.1), the marker on its last.
pub(super) fn put_aac(sheet: &mut Sheet<'_>, data: &Bytes) -> bool {
    /// AU-headers-length in bits, then one header: 13 bits of size, 3 of index.
    const HEADERS: usize = 4;
    const MOST: usize = (1 << 13) - 1;
    if data.is_empty() || data.len() > MOST {
        return false;
    }
    // A fragment says the size of the whole.
    let [high, low] = (data.len() as u16).wrapping_shl(3).to_be_bytes();
    put_parts(sheet, data, HEADERS, |_| [0, 16, high, low]);
    sheet.mark();
    true
}

/// Opus (RFC 7587 §4.2): never in parts.
pub(super) fn put_opus(sheet: &mut Sheet<'_>, data: &Bytes) -> bool {
    let fits = !data.is_empty() && data.len() <= MAX_WHOLE;
    if fits {
        sheet.put(&[], data.clone());
    }
    fits
}

/// G.711, G.722, linear PCM (RFC 3551 §4.5): cut wherever a sample of all channels ends, each piece at its own time.
pub(super) fn put_octets(sheet: &mut Sheet<'_>, data: &Bytes, per_tick: usize) -> bool {
    let ticks = (sheet.limit() / per_tick).max(1);
    let whole = data.len() - data.len() % per_tick;
    let mut at = 0;
    while at < whole {
        let end = whole.min(at + ticks * per_tick);
        sheet.put(&[], data.slice(at..end));
        // At most a packet's octets.
        sheet.advance(((end - at) / per_tick) as u32);
        at = end;
    }
    !sheet.is_empty()
}

/// MPEG-1 and MPEG-2 audio (RFC 2250 §3.5): the offset of each part inside its frame.
pub(super) fn put_mpeg(sheet: &mut Sheet<'_>, data: &Bytes) -> bool {
    if data.is_empty() || data.len() > MAX_WHOLE {
        return false;
    }
    put_parts(sheet, data, 4, |at| {
        let [high, low] = (at as u16).to_be_bytes();
        [0, 0, high, low]
    });
    true
}

fn put_parts(sheet: &mut Sheet<'_>, data: &Bytes, header: usize, head: impl Fn(usize) -> [u8; 4]) {
    let each = sheet.limit() - header;
    for at in (0..data.len()).step_by(each) {
        sheet.put(&head(at), data.slice(at..data.len().min(at + each)));
    }
}
