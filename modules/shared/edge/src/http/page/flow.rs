//! One flow of the page: its state and why, what comes in, where it goes.

use serde_json::{Map, Value};

use super::html::Html;
use super::{About, MAX_SHOWN, more, words};

/// Told in places of their own; whatever else an input or output says is below `more`.
const TOLD: [&str; 7] = ["state", "error", "url", "clients", "bitrateBps", "framesDropped", "match"];
/// An address with one of these is a link: a browser or a player opens it.
const OPENED: [&str; 6] = ["http://", "https://", "rtmp://", "rtmps://", "rtsp://", "rtsps://"];

pub(super) fn section(page: &mut Html, name: &str, flow: &Value, about: &About<'_>) {
    page.raw("<section id=\"flow-").text(name).raw("\"><h2>").text(name).raw(" ");
    let state = text(flow, "state");
    badge(page, state);
    if let Some(age) = words::since(text(flow, "since"), about.now) {
        page.raw(" <time datetime=\"").text(text(flow, "since")).raw("\">for ").text(&age).raw("</time>");
    }
    page.raw("</h2>");
    if let Some(version) = flow.get("usingVersion") {
        page.raw("<p class=\"error\">The newest configuration of this flow is not usable; version ");
        page.text(&version.to_string()).raw(" keeps running.</p>");
    }
    error(page, flow);
    line(page, flow, about);
    if let Some(instances) = flow.get("instances").and_then(Value::as_object) {
        self::instances(page, instances, about);
    }
    page.raw("</section>");
}

/// The names that are published on a pattern.
fn instances(page: &mut Html, instances: &Map<String, Value>, about: &About<'_>) {
    let count = |key| instances.get(key).and_then(Value::as_u64).unwrap_or(0);
    page.raw("<p>").text(&count("active").to_string()).raw(" published");
    if count("refused") > 0 {
        page.raw(", ").text(&count("refused").to_string()).raw(" refused");
    }
    page.raw("</p>");
    let list = instances.get("list").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for one in list.iter().take(MAX_SHOWN) {
        page.raw("<h3>").text(text(one, "match")).raw("</h3>");
        line(page, one, about);
    }
    let shown = list.len().min(MAX_SHOWN);
    let active = usize::try_from(count("active")).unwrap_or(usize::MAX);
    if active > shown {
        more(page, active - shown, "names");
    }
}

fn line(page: &mut Html, line: &Value, about: &About<'_>) {
    if let Some(input) = line.get("input") {
        self::input(page, input);
    }
    let outputs = line.get("outputs").and_then(Value::as_object);
    for (name, one) in outputs.into_iter().flatten().take(MAX_SHOWN) {
        output(page, name, one, about);
    }
    if outputs.is_some_and(|outputs| outputs.len() > MAX_SHOWN) {
        more(page, outputs.map_or(0, Map::len) - MAX_SHOWN, "outputs");
    }
}

fn input(page: &mut Html, input: &Value) {
    page.raw("<div class=\"end\"><h4>input</h4><div>");
    badge(page, text(input, "state"));
    for kind in ["video", "audio"] {
        if let Some(track) = input.get(kind) {
            page.raw(" <span class=\"track\">").text(&self::track(track)).raw("</span>");
        }
    }
    rates(page, input);
    error(page, input);
    rest(page, input);
    page.raw("</div></div>");
}

/// `avc1.64001f 1280x720 30 fps`, or why it is not passed on.
fn track(track: &Value) -> String {
    let number = |key| track.get(key).filter(|value| value.is_number()).map(Value::to_string);
    let mut words = vec![text(track, "codec").to_owned()];
    if let (Some(width), Some(height)) = (number("width"), number("height")) {
        words.push(format!("{width}x{height}"));
    }
    words.extend(number("fps").map(|fps| format!("{fps} fps")));
    words.extend(number("sampleRate").map(|rate| format!("{rate} Hz")));
    words.extend(number("channels").map(|channels| match channels.as_str() {
        "1" => "mono".to_owned(),
        "2" => "stereo".to_owned(),
        _ => format!("{channels} channels"),
    }));
    if track.get("stalled").and_then(Value::as_bool) == Some(true) {
        words.push("(stalled)".to_owned());
    }
    match text(track, "dropped") {
        "" => {}
        why => words.push(format!("(left out: {why})")),
    }
    words.join(" ")
}

fn output(page: &mut Html, name: &str, output: &Value, about: &About<'_>) {
    page.raw("<div class=\"end\"><h4>").text(name).raw("</h4><div>");
    let state = text(output, "state");
    badge(page, state);
    if let Some(clients) = output.get("clients").and_then(Value::as_u64).filter(|_| state == "serving") {
        page.raw(" <span>").text(&clients.to_string());
        page.raw(if clients == 1 { " client</span>" } else { " clients</span>" });
    }
    rates(page, output);
    if let Some(latency) = output.get("latencyMilliseconds").and_then(Value::as_object) {
        page.raw(" <span>delay inside");
        for (quantile, value) in latency.iter().filter_map(|(name, value)| Some((name, value.as_f64()?))) {
            page.raw(" ").text(quantile).raw(" ").text(&words::milliseconds(value));
        }
        page.raw("</span>");
    }
    let url = text(output, "url");
    if !url.is_empty() {
        let url = reached(url, about.host);
        if state == "serving"
            && url.starts_with("http")
            && let Some(origin) = origin(&url)
        {
            address(page, "player page", &format!("{origin}/"));
        }
        address(page, "", &url);
    }
    error(page, output);
    rest(page, output);
    page.raw("</div></div>");
}

/// A wildcard is no address to open: the reader's own way to this machine stands for it.
fn reached(url: &str, host: Option<&str>) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let wildcard = ["0.0.0.0", "[::]"].into_iter().find_map(|wildcard| rest.strip_prefix(wildcard));
    match (wildcard.filter(|rest| rest.is_empty() || rest.starts_with([':', '/'])), host) {
        (Some(rest), Some(host)) => format!("{scheme}://{host}{rest}"),
        _ => url.to_owned(),
    }
}

/// `http://host:port` of a URL.
fn origin(url: &str) -> Option<&str> {
    let start = url.find("://")? + 3;
    let end = url.get(start..)?.find('/').map_or(url.len(), |at| start + at);
    url.get(..end)
}

fn address(page: &mut Html, label: &'static str, url: &str) {
    page.raw("<p class=\"address\">");
    if !label.is_empty() {
        page.raw("<span>").raw(label).raw("</span> ");
    }
    if OPENED.iter().any(|scheme| url.starts_with(scheme)) {
        page.raw("<a href=\"").text(url).raw("\">").text(url).raw("</a>");
    } else {
        page.raw("<code>").text(url).raw("</code>");
    }
    page.raw(" <button type=\"button\" class=\"copy\" hidden>Copy</button></p>");
}

fn rates(page: &mut Html, end: &Value) {
    if let Some(bits) = end.get("bitrateBps").and_then(Value::as_f64).filter(|bits| *bits > 0.0) {
        page.raw(" <span>").text(&words::with_unit(bits, "bit/s")).raw("</span>");
    }
    if let Some(dropped) = end.get("framesDropped").and_then(Value::as_u64).filter(|count| *count > 0) {
        page.raw(" <span class=\"lost\">").text(&dropped.to_string()).raw(" frames dropped</span>");
    }
}

fn error(page: &mut Html, of: &Value) {
    let error = text(of, "error");
    if !error.is_empty() {
        page.raw("<p class=\"error\">").text(error).raw("</p>");
    }
}

/// Whatever else is said in one value.
fn rest(page: &mut Html, end: &Value) {
    let told = |key: &str| TOLD.contains(&key);
    let others = end.as_object().into_iter().flatten().filter(|(key, _)| !told(key));
    let others: Vec<_> =
        others.filter_map(|(key, value)| Some((key, words::scalar(key, value)?))).take(MAX_SHOWN).collect();
    if others.is_empty() {
        return;
    }
    page.raw("<details><summary>more</summary><dl>");
    for (key, value) in others {
        page.raw("<div><dt>").text(&words::spaced(key)).raw("</dt><dd>").text(&value).raw("</dd></div>");
    }
    page.raw("</dl></details>");
}

/// A state's word; its colour says the same again.
fn badge(page: &mut Html, state: &str) {
    let class = match state {
        "running" | "receiving" | "serving" | "pushing" | "storing" | "rendering" => "good",
        "waiting" => "waits",
        "retrying" => "tries",
        "failed" => "bad",
        _ => "off",
    };
    page.raw("<b class=\"state ").raw(class).raw("\">").text(state).raw("</b>");
}

fn text<'a>(of: &'a Value, key: &str) -> &'a str {
    of.get(key).and_then(Value::as_str).unwrap_or_default()
}
