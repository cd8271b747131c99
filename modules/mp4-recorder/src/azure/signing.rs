//! Requests signed with an account key ("Authorize with Shared Key", Blob service), which the SDK leaves to others.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use azure_core::http::headers::HeaderName;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{Context, Request};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use jiff::tz::TimeZone;
use sha2::Sha256;

/// Differences of clocks below that are the network's.
const MOST_SKEW: i64 = 60;

/// Signs every request.
pub struct SharedKey {
    account: String,
    key: Vec<u8>,
    /// Seconds that the service's clock is ahead of ours.
    ahead: AtomicI64,
}

impl std::fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedKey({})", self.account)
    }
}

impl SharedKey {
    /// For one account.
    pub fn new(account: String, key: Vec<u8>) -> Self {
        Self { account, key, ahead: AtomicI64::new(0) }
    }

    fn sign(&self, request: &mut Request) {
        let now = jiff::Timestamp::now().as_second().saturating_add(self.ahead.load(Ordering::Relaxed));
        let now = jiff::Timestamp::from_second(now).unwrap_or_default().to_zoned(TimeZone::UTC);
        request.insert_header("x-ms-date", now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string());
        let length = request.body().len().unwrap_or_default();
        let text = self.string_to_sign(request, length);
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) else { return };
        mac.update(text.as_bytes());
        let signature = STANDARD.encode(mac.finalize().into_bytes());
        request.insert_header("authorization", format!("SharedKey {}:{signature}", self.account));
    }

    fn string_to_sign(&self, request: &Request, length: u64) -> String {
        let header = |name: &'static str| {
            request.headers().get_optional_str(&HeaderName::from_static(name)).unwrap_or_default().to_owned()
        };
        let mut lines = vec![request.method().as_ref().to_owned()];
        lines.extend(["content-encoding", "content-language"].map(header));
        lines.push(if length == 0 { String::new() } else { length.to_string() });
        lines.extend(["content-md5", "content-type"].map(header));
        // The date is in x-ms-date.
        lines.push(String::new());
        lines.extend(
            ["if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range"].map(header),
        );
        let mut own: Vec<(String, String)> = request
            .headers()
            .iter()
            .filter(|(name, _)| name.as_str().starts_with("x-ms-"))
            .map(|(name, value)| (name.as_str().to_owned(), value.as_str().trim().to_owned()))
            .collect();
        own.sort();
        lines.extend(own.into_iter().map(|(name, value)| format!("{name}:{value}")));
        let url = request.url();
        lines.push(format!("/{}{}", self.account, url.path()));
        let mut query: Vec<(String, String)> =
            url.query_pairs().map(|(name, value)| (name.to_lowercase(), value.into_owned())).collect();
        query.sort();
        lines.extend(query.into_iter().map(|(name, value)| format!("{name}:{value}")));
        lines.join("\n")
    }

    /// A service whose clock is far from ours refuses signatures: the next ones are made by its clock.
    fn follow(&self, date: &str) {
        let Ok(theirs) = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date) else { return };
        let ahead = theirs.as_second().saturating_sub(jiff::Timestamp::now().as_second());
        self.ahead.store(if ahead.abs() > MOST_SKEW { ahead } else { 0 }, Ordering::Relaxed);
    }
}

#[async_trait]
impl Policy for SharedKey {
    async fn send(&self, context: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        self.sign(request);
        let Some((first, rest)) = next.split_first() else {
            return Err(azure_core::Error::with_message(
                azure_core::error::ErrorKind::Other,
                "nothing sends",
            ));
        };
        let answer = first.send(context, request, rest).await;
        if let Ok(answer) = &answer
            && let Some(date) = answer.headers().get_optional_str(&HeaderName::from_static("date"))
        {
            self.follow(date);
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use azure_core::http::{Method, Url};

    use super::*;

    #[test]
    fn the_text_that_is_signed_is_the_one_of_the_reference() {
        let url = "http://127.0.0.1:10000/devstoreaccount1/rec/a%20b.mp4?comp=block&blockid=QUFB%3D";
        let mut request = Request::new(Url::parse(url).unwrap(), Method::Put);
        request.insert_header("x-ms-version", "2023-11-03");
        request.insert_header("x-ms-date", "Fri, 26 Jun 2015 23:39:12 GMT");
        request.insert_header("content-md5", "abc==");
        let key = SharedKey::new("devstoreaccount1".into(), vec![1]);
        assert_eq!(
            key.string_to_sign(&request, 11),
            "PUT\n\n\n11\nabc==\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2023-11-03\n\
             /devstoreaccount1/devstoreaccount1/rec/a%20b.mp4\nblockid:QUFB=\ncomp:block"
        );
    }

    #[test]
    fn signatures_follow_a_clock_that_is_far_from_ours() {
        let key = SharedKey::new("a".into(), vec![1]);
        key.follow("Fri, 01 Jan 2010 00:00:00 GMT");
        assert!(key.ahead.load(Ordering::Relaxed) < -400_000_000);
        let now = jiff::Timestamp::now().to_zoned(TimeZone::UTC);
        key.follow(&now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string());
        assert_eq!(key.ahead.load(Ordering::Relaxed), 0);
    }
}
