//! `GET /`: the module's state for people who have no portal, made from the document of `/status` alone.
//!
//! The page is whole without its script. With it, the page fetches itself every two seconds and takes over what
//! differs, so there is one place that knows how a state looks.

mod flow;
mod html;
mod words;

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use html::Html;

/// The look of all pages, as CSS: colours of both schemes, cards, states, addresses.
pub const LOOK: &str = include_str!("page/look.css");
/// A script for pages with addresses: its buttons of class `copy` copy what stands beside them.
pub const COPY: &str = include_str!("page/copy.js");
const STYLE: &str = concat!(include_str!("page/look.css"), include_str!("page/page.css"));
const SCRIPT: &str = concat!(include_str!("page/copy.js"), include_str!("page/page.js"));
/// A page of more flows, or of more names of a pattern, is nothing to read.
const MAX_SHOWN: usize = 200;
/// `summary` as the page itself words it; what a service adds to it follows as it is.
const COUNTED: [&str; 6] = ["flows", "running", "waiting", "retrying", "failed", "clients"];

/// Only the style and the script of this page, and requests to where it came from.
pub(super) static SECURITY_POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| STANDARD.encode(Sha256::digest(text));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
});

/// What the page shows that `/status` does not say.
pub(super) struct About<'a> {
    pub(super) module: &'a str,
    pub(super) device: &'a str,
    /// The host that the reader's browser asked: stands for wildcard addresses.
    pub(super) host: Option<&'a str>,
    pub(super) now: jiff::Timestamp,
}

/// The host of a `Host` header, without its port; `None` for anything that is no plain name or address.
pub(super) fn host_of(header: &str) -> Option<&str> {
    let host = match header.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inner, _)) => header.get(..inner.len() + 2)?,
        None => header.split(':').next()?,
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    (!host.is_empty() && host.len() <= 255 && host.chars().all(plain)).then_some(host)
}

/// The page.
pub(super) fn html(status: &Map<String, Value>, about: &About<'_>) -> String {
    let mut page = Html::default();
    page.raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>").text(about.module);
    page.raw(" on ").text(about.device).raw("</title>");
    page.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    page.raw("<meta name=\"color-scheme\" content=\"light dark\"><link rel=\"icon\" href=\"data:,\">");
    page.raw("<noscript><meta http-equiv=\"refresh\" content=\"10\"></noscript>");
    page.raw("<style>").raw(STYLE).raw("</style></head><body>");
    page.raw("<p id=\"lost\" role=\"alert\" hidden></p><main>");
    head(&mut page, status, about);
    summary(&mut page, status.get("summary"));
    errors(&mut page, status.pointer_str("/config/errors"));
    let flows = status.get("flows").and_then(Value::as_object);
    for (name, one) in flows.into_iter().flatten().take(MAX_SHOWN) {
        flow::section(&mut page, name, one, about);
    }
    match flows.map_or(0, Map::len) {
        0 => {
            page.raw("<p class=\"none\">No flow is configured: the desired properties name none.</p>");
        }
        count if count > MAX_SHOWN => more(&mut page, count - MAX_SHOWN, "flows"),
        _ => {}
    }
    page.raw("</main><footer><a href=\"/status\">/status</a> <a href=\"/metrics\">/metrics</a> ");
    page.raw("<a href=\"/healthz\">/healthz</a> <a href=\"/readyz\">/readyz</a></footer>");
    page.raw("<script>").raw(SCRIPT).raw("</script></body></html>\n");
    page.into_string()
}

fn head(page: &mut Html, status: &Map<String, Value>, about: &About<'_>) {
    let module =
        |key| status.pointer_str(&format!("/module/{key}")).and_then(Value::as_str).unwrap_or_default();
    page.raw("<header><h1>").text(about.module).raw("</h1><p>");
    if module("name") != about.module {
        page.text(module("name")).raw(" · ");
    }
    page.raw("on ").text(about.device).raw(" · version ").text(module("version"));
    page.raw(" (").text(module("build")).raw(")");
    if let Some(age) = words::since(module("startedAt"), about.now) {
        page.raw(" · started ").text(&age).raw(" ago");
    }
    if let Some(config) = status.get("config") {
        let word = config.get("status").and_then(Value::as_str).unwrap_or_default();
        page.raw(" · configuration ");
        if let Some(version) = config.get("desiredVersion") {
            page.text(&version.to_string()).raw(" ");
        }
        page.raw("<b>").text(word).raw("</b>");
    } else {
        page.raw(" · no configuration yet");
    }
    page.raw("</p></header>");
}

/// Counts that are not zero, and whatever a service adds.
fn summary(page: &mut Html, summary: Option<&Value>) {
    let Some(summary) = summary.and_then(Value::as_object) else { return };
    page.raw("<ul class=\"summary\">");
    for (index, key) in COUNTED.into_iter().enumerate() {
        let count = summary.get(key).and_then(Value::as_u64).unwrap_or(0);
        if count == 0 && index > 1 {
            continue;
        }
        page.raw("<li><b>").text(&count.to_string()).raw("</b> ");
        page.text(if count == 1 { key.strip_suffix('s').unwrap_or(key) } else { key }).raw("</li>");
    }
    for (key, value) in summary.iter().filter(|(key, _)| !COUNTED.contains(&key.as_str())) {
        if let Some(text) = words::scalar(key, value) {
            page.raw("<li><b>").text(&text).raw("</b> ").text(&words::spaced(key)).raw("</li>");
        }
    }
    page.raw("</ul>");
}

fn errors(page: &mut Html, errors: Option<&Value>) {
    let Some(errors) = errors.and_then(Value::as_object) else { return };
    page.raw("<section class=\"wrong\"><h2>Configuration</h2>");
    for (_, error) in errors.iter().take(MAX_SHOWN) {
        page.raw("<p class=\"error\">").text(error.as_str().unwrap_or_default()).raw("</p>");
    }
    if errors.len() > MAX_SHOWN {
        more(page, errors.len() - MAX_SHOWN, "errors");
    }
    page.raw("</section>");
}

fn more(page: &mut Html, count: usize, what: &'static str) {
    page.raw("<p class=\"none\">").text(&count.to_string()).raw(" more ").raw(what);
    page.raw(": <a href=\"/status\">/status</a> has them all.</p>");
}

/// `Value::pointer` for the map of a document.
trait Pointer {
    fn pointer_str(&self, pointer: &str) -> Option<&Value>;
}

impl Pointer for Map<String, Value> {
    fn pointer_str(&self, pointer: &str) -> Option<&Value> {
        let (key, rest) = pointer.strip_prefix('/')?.split_once('/')?;
        self.get(key)?.pointer(&format!("/{rest}"))
    }
}

#[cfg(test)]
mod tests;
