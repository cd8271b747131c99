//! When a SAS ends, told in time: 7 days before and 1 day before.

use std::collections::BTreeMap;
use std::sync::Arc;

use av_edge::EventKind;
use jiff::{SignedDuration, Timestamp};

use crate::azure::Credentials;
use crate::recorder::Recorder;
use crate::spool::Place;

/// What was told: the end of a SAS, and how many days before.
pub type Told = BTreeMap<Place, (Timestamp, i64)>;

/// Looks at the SAS of every output of the document, and tells of those that end soon.
pub async fn look(recorder: Arc<Recorder>, now: Timestamp) {
    for lane in recorder.lanes() {
        if !recorder.has(lane.place()) {
            continue;
        }
        let Some(credentials) = lane.configured().and_then(|now| now.config.credentials) else { continue };
        let (Credentials::ConnectionString(secret) | Credentials::Sas(secret)) = &credentials else {
            continue;
        };
        let Ok(secret) = recorder.secrets.get(secret).await else { continue };
        let Some(end) = end(secret.expose()) else { continue };
        let Some(days) = days_before(end, now) else { continue };
        let place = lane.place();
        {
            let mut told = recorder.expiries();
            if told.get(place).is_some_and(|(known, least)| *known == end && *least <= days) {
                continue;
            }
            told.insert(place.clone(), (end, days));
        }
        let detail = if end <= now {
            format!("the SAS expired at {end}; renew the credentials")
        } else {
            format!("the SAS expires at {end}; renew the credentials")
        };
        tracing::warn!(flow = %place.0, output = %place.1, "{detail}");
        recorder.emit(EventKind::CredentialExpiring, place, detail);
    }
}

/// What a SAS, or a connection string with one, says of its end (`se`).
fn end(text: &str) -> Option<Timestamp> {
    let fields = text.trim().trim_start_matches('?').split(['&', ';', '?']);
    let fields = fields.map(|field| field.strip_prefix("SharedAccessSignature=").unwrap_or(field));
    let end = fields.filter_map(|field| field.strip_prefix("se=")).next()?;
    let end = percent_encoding::percent_decode_str(end).decode_utf8().ok()?;
    match end.parse() {
        Ok(end) => Some(end),
        // A date alone is its first moment; seconds may be left out.
        Err(_) if end.len() == 10 => format!("{end}T00:00:00Z").parse().ok(),
        Err(_) => format!("{}:00Z", end.strip_suffix('Z')?).parse().ok(),
    }
}

/// 7 or 1: so many days before the end it is now; `None`: it is earlier.
fn days_before(end: Timestamp, now: Timestamp) -> Option<i64> {
    let left = end.duration_since(now);
    [1, 7].into_iter().find(|days| left <= SignedDuration::from_hours(24 * days))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_sas_is_read_in_all_its_spellings() {
        let at: Timestamp = "2026-05-01T12:30:00Z".parse().unwrap();
        for text in [
            "?sv=2023&se=2026-05-01T12%3A30%3A00Z&sig=x",
            "se=2026-05-01T12:30Z&sig=x",
            "BlobEndpoint=http://x;SharedAccessSignature=se=2026-05-01T12%3A30%3A00Z&sig=x",
        ] {
            assert_eq!(end(text), Some(at), "{text}");
        }
        assert_eq!(end("se=2026-05-01&sig=x"), "2026-05-01T00:00:00Z".parse().ok());
        for text in ["sv=2023&sig=x", "se=soon&sig=x", ""] {
            assert_eq!(end(text), None, "{text}");
        }
    }

    #[test]
    fn it_is_told_a_week_and_a_day_before() {
        let end: Timestamp = "2026-05-08T00:00:00Z".parse().unwrap();
        let at = |text: &str| days_before(end, text.parse().unwrap());
        assert_eq!(at("2026-04-30T23:59:59Z"), None);
        assert_eq!(at("2026-05-01T00:00:00Z"), Some(7));
        assert_eq!(at("2026-05-07T00:00:00Z"), Some(1));
        assert_eq!(at("2026-06-01T00:00:00Z"), Some(1));
    }
}
