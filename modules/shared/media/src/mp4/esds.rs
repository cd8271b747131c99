//! `esds` (ISO/IEC 14496-14 §6.7.2): the descriptors of an elementary stream (ISO/IEC 14496-1 §7.2.6).
//!
//! Only what a decoder needs is looked for. Writers leave out the SLConfigDescriptor or put it in front, reserve more
//! bytes than they use, and write a DecoderSpecificInfo twice, of which the first counts.

use bytes::Bytes;

/// Tags (ISO/IEC 14496-1 table 1).
const ES: u8 = 3;
const DECODER_CONFIG: u8 = 4;
const DECODER_SPECIFIC: u8 = 5;
/// Fields of a DecoderConfigDescriptor in front of the descriptors inside.
const DECODER_CONFIG_FIELDS: usize = 13;

/// What is in an `esds`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Esds {
    /// `objectTypeIndication` (table 5).
    pub(super) object_type: u8,
    /// For AAC: the AudioSpecificConfig; empty where there is none.
    pub(super) specific: Bytes,
}

impl Esds {
    /// From the content of the box, behind version and flags. `None`: no DecoderConfigDescriptor.
    pub(super) fn parse(mut body: Bytes) -> Option<Self> {
        if let Some(es) = find(&body, ES) {
            body = es.slice(es_fields(&es)..);
        }
        let config = find(&body, DECODER_CONFIG)?;
        let object_type = *config.first()?;
        let inside = config.slice(DECODER_CONFIG_FIELDS.min(config.len())..);
        let specific = find(&inside, DECODER_SPECIFIC).or_else(|| find(&body, DECODER_SPECIFIC));
        Some(Self { object_type, specific: specific.unwrap_or_default() })
    }
}

/// Bytes of an ES_Descriptor's fields in front of the descriptors inside.
fn es_fields(es: &Bytes) -> usize {
    const DEPENDS: u8 = 0x80;
    const URL: u8 = 0x40;
    const OCR: u8 = 0x20;
    // ES_ID and the flags.
    let mut length = 3_usize;
    let flags = es.get(2).copied().unwrap_or(0);
    if flags & DEPENDS != 0 {
        length += 2;
    }
    if flags & URL != 0 {
        length += 1 + usize::from(es.get(length).copied().unwrap_or(0));
    }
    if flags & OCR != 0 {
        length += 2;
    }
    length.min(es.len())
}

/// The content of the first descriptor of this tag; one that overruns is taken as far as it goes.
fn find(descriptors: &Bytes, tag: u8) -> Option<Bytes> {
    let mut rest = descriptors.clone();
    while let Some(&found) = rest.first() {
        let _tag = rest.split_to(1);
        let mut size = 0_usize;
        // At most four bytes, seven bits each (§8.3.3).
        for _ in 0..4 {
            let byte = *rest.first()?;
            let _length = rest.split_to(1);
            size = size << 7 | usize::from(byte & 0x7f);
            if byte & 0x80 == 0 {
                break;
            }
        }
        let content = rest.split_to(size.min(rest.len()));
        if found == tag {
            return Some(content);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(tag: u8, content: &[u8]) -> Vec<u8> {
        [&[tag, 0x80, 0x80, 0x80, content.len() as u8][..], content].concat()
    }

    fn esds(es_fields: &[u8], inside: &[Vec<u8>]) -> Option<Esds> {
        let content = [es_fields, &inside.concat()].concat();
        Esds::parse(descriptor(ES, &content).into())
    }

    fn config(specific: &[Vec<u8>]) -> Vec<u8> {
        let fields = [0x40, 0x15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        descriptor(DECODER_CONFIG, &[&fields[..], &specific.concat()].concat())
    }

    #[test]
    fn the_first_specific_info_counts_wherever_the_sync_layer_stands() {
        let (one, other) = (descriptor(5, &[0x12, 0x10]), descriptor(5, &[0x11, 0x90]));
        let sync_layer = descriptor(6, &[2]);
        let wanted = Some(Esds { object_type: 0x40, specific: Bytes::from_static(&[0x12, 0x10]) });
        let config = config(&[one, other]);
        assert_eq!(esds(&[0, 1, 0], &[config.clone(), sync_layer.clone()]), wanted);
        assert_eq!(esds(&[0, 1, 0], &[sync_layer, config.clone()]), wanted);
        assert_eq!(esds(&[0, 1, 0], std::slice::from_ref(&config)), wanted);
        // Zeros behind it, and optional fields in front.
        assert_eq!(esds(&[0, 1, 0], &[config.clone(), vec![0; 6]]), wanted);
        assert_eq!(esds(&[0, 1, 0xe0, 9, 9, 2, b'u', b'r', 7, 7], &[config]), wanted);
    }

    #[test]
    fn what_ends_early_is_none_or_as_much_as_there_is() {
        assert_eq!(esds(&[0, 1, 0], &[]), None);
        assert_eq!(Esds::parse(Bytes::from_static(&[3])), None);
        let mut cut = descriptor(5, &[0x12, 0x10, 0x56]);
        cut.truncate(7);
        let found = Esds::parse([&[4, 60, 0x40][..], &[0; 12], &cut].concat().into()).unwrap();
        assert_eq!(found.specific, Bytes::from_static(&[0x12, 0x10]));
    }
}
