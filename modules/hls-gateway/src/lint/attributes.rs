//! Attributes of a tag (RFC 8216bis §4.2).

use super::rule::{self, Fault};

/// Those that are quoted strings, of all tags: no name is of two kinds.
const QUOTED: [&str; 30] = [
    "ASSOC-LANGUAGE",
    "AUDIO",
    "BYTERANGE",
    "CHANNELS",
    "CHARACTERISTICS",
    "CLASS",
    "CODECS",
    "CUE",
    "END-DATE",
    "GROUP-ID",
    "ID",
    "IMPORT",
    "INSTREAM-ID",
    "KEYFORMAT",
    "KEYFORMATVERSIONS",
    "LANGUAGE",
    "NAME",
    "PATHWAY-ID",
    "QUERYPARAM",
    "RECENTLY-REMOVED-DATERANGES",
    "REQ-VIDEO-LAYOUT",
    "STABLE-RENDITION-ID",
    "STABLE-VARIANT-ID",
    "START-DATE",
    "SUBTITLES",
    "SUPPLEMENTAL-CODECS",
    "URI",
    "ALLOWED-CPC",
    "VALUE",
    "VIDEO",
];

/// Those that are numbers, words, sizes or sequences.
const BARE: [&str; 32] = [
    "AUTOSELECT",
    "AVERAGE-BANDWIDTH",
    "BANDWIDTH",
    "BIT-DEPTH",
    "BYTERANGE-LENGTH",
    "BYTERANGE-START",
    "CAN-BLOCK-RELOAD",
    "CAN-SKIP-DATERANGES",
    "CAN-SKIP-UNTIL",
    "DEFAULT",
    "DURATION",
    "END-ON-NEXT",
    "FORCED",
    "FRAME-RATE",
    "GAP",
    "HDCP-LEVEL",
    "HOLD-BACK",
    "INDEPENDENT",
    "IV",
    "LAST-MSN",
    "LAST-PART",
    "METHOD",
    "PART-HOLD-BACK",
    "PART-TARGET",
    "PLANNED-DURATION",
    "PRECISE",
    "RESOLUTION",
    "SAMPLE-RATE",
    "SKIPPED-SEGMENTS",
    "TIME-OFFSET",
    "TYPE",
    "VIDEO-RANGE",
];

/// Names and values; a value without its quotes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Attributes(Vec<Attribute>);

#[derive(Clone, Debug, PartialEq)]
struct Attribute {
    name: String,
    value: String,
    quoted: bool,
}

impl Attributes {
    /// Reads those of `#EXT` with this name, and says which are written as another kind of value.
    pub(super) fn read(tag: &str, text: &str, faults: &mut Vec<Fault>) -> Option<Self> {
        let all = Self::parse(text)?;
        for Attribute { name, value, quoted } in &all.0 {
            let detail = match quoted {
                true if BARE.contains(&&name[..]) => format!("EXT{tag}: {name}=\"{value}\""),
                false if QUOTED.contains(&&name[..]) => format!("EXT{tag}: {name}={value}"),
                _ => continue,
            };
            faults.push(Fault::new(&rule::QUOTES, detail));
        }
        Some(all)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut all: Vec<Attribute> = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (name, after) = rest.split_once('=')?;
            let is_name = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'-';
            if name.is_empty() || !name.bytes().all(is_name) || all.iter().any(|known| known.name == name) {
                return None;
            }
            let opened = after.strip_prefix('"');
            let (value, after) = match opened {
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_at(after.find(',').unwrap_or(after.len())),
            };
            all.push(Attribute { name: name.to_owned(), value: value.to_owned(), quoted: opened.is_some() });
            rest = match after.strip_prefix(',') {
                Some(more) if !more.is_empty() => more,
                None if after.is_empty() => after,
                _ => return None,
            };
        }
        (!all.is_empty()).then_some(Self(all))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|known| known.name == name).map(|known| &known.value[..])
    }

    pub(super) fn number(&self, name: &str) -> Option<f64> {
        self.get(name)?.parse().ok().filter(|number: &f64| number.is_finite())
    }

    pub(super) fn is(&self, name: &str) -> bool {
        self.get(name) == Some("YES")
    }
}
