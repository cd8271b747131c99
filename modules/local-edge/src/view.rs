//! What runs, at one moment: the content of the table and of `ps --json`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::manifest::{Port, Protocol};
use crate::process::{ProcessState, ProcessStatus};
use crate::twin::Object;

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// In the order of the manifest; then those that somebody runs by hand.
    pub modules: Vec<ModuleView>,
    /// Addresses where anybody may publish, `NAME` standing for a name of one's own.
    pub publish: Vec<String>,
    /// Addresses of what is served.
    pub play: Vec<String>,
    /// Ports for UDP, which are at the modules' own addresses alone.
    #[serde(default)]
    pub udp: Vec<String>,
}

/// One module.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModuleView {
    /// On the device.
    pub name: String,
    /// What it runs; empty where the manifest does not say.
    pub service: String,
    /// Its own loopback address.
    pub address: Option<IpAddr>,
    /// Its process.
    pub process: ProcessStatus,
    /// Whether it is connected to the hub.
    pub connected: bool,
    /// `config.status` and `config.errors`, as it reports them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
    /// By name.
    pub flows: Vec<FlowView>,
}

/// One flow, as the module reports it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowView {
    /// Of the desired properties.
    pub name: String,
    /// disabled, failed, retrying, waiting, running.
    pub state: String,
    /// State and what is received.
    pub input: String,
    /// What is received, as people call it: `H.264 1280x720 30 fps, AAC`. Empty where nothing is.
    #[serde(default)]
    pub media: String,
    /// One sentence where something is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// By name.
    pub outputs: Vec<OutputView>,
}

/// One output of a flow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputView {
    /// Of the desired properties.
    pub name: String,
    /// waiting, serving, pushing, ...
    pub state: String,
    /// Of the module's own listener: as it is opened on this machine. Otherwise the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Whether the URL is one to play.
    #[serde(default)]
    pub playable: bool,
    /// How many take it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<u64>,
    /// One sentence where something is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Where a module's ports are reached.
#[derive(Clone, Copy, Debug)]
pub struct Reach<'a> {
    /// What stands for this machine in its URLs: the gateway's name.
    pub gateway: &'a str,
    /// Its own address.
    pub address: Option<IpAddr>,
    /// Those of the manifest; only what `forwarded` names is really there.
    pub ports: &'a [Port],
    /// Ports of 127.0.0.1 that lead to it.
    pub forwarded: &'a [u16],
}

impl Reach<'_> {
    /// The ports for UDP, as a line: nothing forwards them.
    pub fn udp(&self, module: &str) -> Option<String> {
        let ports = self.ports.iter().filter(|port| port.protocol == Protocol::Udp);
        let ports: Vec<_> = ports.map(|port| port.container.to_string()).collect();
        let address = self.address.filter(|_| !ports.is_empty())?;
        Some(format!("{module} at {address}, {}: not at 127.0.0.1", ports.join(" and ")))
    }

    /// A URL on a wildcard or on the gateway's name, as a program on this machine opens it. `None` for any
    /// other: it is not the module's own.
    pub fn url(&self, url: &str) -> Option<String> {
        let (scheme, rest) = url.split_once("://")?;
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let split = authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
        let (host, port) = match split {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (authority, default_port(scheme)?),
        };
        if ![self.gateway, "0.0.0.0", "[::]"].contains(&host) {
            return None;
        }
        let forwarded = self.ports.iter().find(|at| {
            at.container == port && at.protocol == Protocol::Tcp && self.forwarded.contains(&at.host)
        });
        Some(match (forwarded, self.address) {
            (Some(port), _) => format!("{scheme}://127.0.0.1:{}{path}", port.host),
            (None, Some(ip)) => format!("{scheme}://{ip}:{port}{path}"),
            (None, None) => return None,
        })
    }
}

/// What a listener of that scheme takes where its URL names no port.
fn default_port(scheme: &str) -> Option<u16> {
    Some(match scheme {
        "rtmp" => 1935,
        "rtmps" => 1936,
        "rtsp" => 8554,
        "rtsps" => 8322,
        "http" => 8080,
        "https" => 8443,
        _ => return None,
    })
}

impl ModuleView {
    /// Whether it is there: as a process of this instance, or run by hand.
    pub fn runs(&self) -> bool {
        self.connected || matches!(self.process.state, ProcessState::Running { .. })
    }

    /// Takes up what the module reports.
    pub fn set_reported(&mut self, reported: &Object, reach: Reach<'_>) {
        self.config = reported.get("config").cloned();
        let flows = reported.get("flows").and_then(Value::as_object);
        self.flows = flows.into_iter().flatten().map(|(name, flow)| flow_view(name, flow, reach)).collect();
    }
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key).and_then(Value::as_str).map(|text| text.chars().take(512).collect())
}

fn flow_view(name: &str, flow: &Value, reach: Reach<'_>) -> FlowView {
    let none = Value::Null;
    let input = flow.get("input").unwrap_or(&none);
    let mut shown = vec![text(input, "state").unwrap_or_default()];
    if let Some(video) = input.get("video") {
        shown.extend(text(video, "codec"));
        if let (Some(width), Some(height)) = (number(video, "width"), number(video, "height")) {
            shown.push(format!("{width}x{height}"));
        }
        shown.extend(number(video, "fps").map(|fps| format!("{fps} fps")));
    }
    if let Some(audio) = input.get("audio") {
        shown.extend(text(audio, "codec"));
        shown.extend(number(audio, "sampleRate").map(|rate| format!("{rate} Hz")));
    }
    if let Some(instances) = flow.get("instances") {
        shown.extend(number(instances, "active").map(|active| format!("{active} published")));
    }
    let outputs = flow.get("outputs").and_then(Value::as_object);
    let outputs = outputs.into_iter().flatten().map(|(name, output)| {
        let state = text(output, "state").unwrap_or_default();
        let url = text(output, "url");
        let own = url.as_deref().and_then(|url| reach.url(url));
        let playable = own.is_some() || state == "serving";
        let url = own.or(url);
        let clients = output.get("clients").and_then(Value::as_u64);
        OutputView { name: name.clone(), state, url, playable, clients, error: text(output, "error") }
    });
    FlowView {
        name: name.to_owned(),
        state: text(flow, "state").unwrap_or_default(),
        input: shown.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" "),
        media: media(input),
        error: text(flow, "error").or_else(|| text(input, "error")),
        outputs: outputs.collect(),
    }
}

/// The tracks that an input passes on, while it receives.
fn media(input: &Value) -> String {
    if text(input, "state").as_deref() != Some("receiving") {
        return String::new();
    }
    let passed = |kind| input.get(kind).filter(|track| track.get("dropped").is_none());
    let called = |track: &Value| {
        let codec = text(track, "codec").unwrap_or_default();
        let names = [("avc", "H.264"), ("hvc", "H.265"), ("hev", "H.265"), ("av01", "AV1"), ("mp4a", "AAC")];
        let name = names.into_iter().find(|(start, _)| codec.starts_with(start));
        name.map_or(codec, |(_, name)| name.to_owned())
    };
    let video = passed("video").map(|track| {
        let mut words = vec![called(track)];
        if let (Some(width), Some(height)) = (number(track, "width"), number(track, "height")) {
            words.push(format!("{width}x{height}"));
        }
        words.extend(number(track, "fps").map(|fps| format!("{fps} fps")));
        words.join(" ")
    });
    video.into_iter().chain(passed("audio").map(called)).collect::<Vec<_>>().join(", ")
}

fn number(value: &Value, key: &str) -> Option<String> {
    let number = value.get(key)?.as_f64()?;
    Some(if number.fract() == 0.0 { format!("{number:.0}") } else { format!("{number:.2}") })
}

/// The addresses that pattern flows of these desired properties listen on, as publishers reach them.
pub fn publish_urls(desired: &Object, reach: Reach<'_>) -> Vec<String> {
    let flows = desired.get("flows").and_then(Value::as_object).into_iter().flatten();
    let listens = flows.filter_map(|(_, flow)| flow.pointer("/input/listen")?.as_str());
    let patterns = listens.filter_map(|url| url.strip_suffix("/*"));
    patterns.filter_map(|url| reach.url(&format!("{url}/NAME"))).collect()
}

impl View {
    /// Gathers the addresses to play from the modules' outputs.
    pub fn collect_play(&mut self) {
        let outputs = self.modules.iter().flat_map(|module| &module.flows).flat_map(|flow| &flow.outputs);
        let urls = outputs.filter(|output| output.playable).filter_map(|output| output.url.as_deref());
        self.play = urls.filter(|url| !url.contains('*')).map(Into::into).collect();
    }

    /// The pages of modules that serve HTTP, the player before the wall.
    pub fn pages(&self) -> Vec<String> {
        let mut origins = Vec::new();
        for url in self.play.iter().filter(|url| url.starts_with("http://") || url.starts_with("https://")) {
            let start = url.find("://").map_or(0, |at| at + 3);
            let origin =
                url.get(start..).and_then(|rest| rest.find('/')).and_then(|at| url.get(..start + at));
            origins.extend(origin.filter(|origin| !origins.contains(origin)));
        }
        origins.iter().flat_map(|origin| [format!("{origin}/"), format!("{origin}/wall.html")]).collect()
    }

    /// Whether every process that is meant to run is connected, and no flow is still on its way.
    pub fn settled(&self) -> bool {
        self.modules.iter().all(|module| match module.process.state {
            ProcessState::Running { .. } => {
                let busy = |flow: &FlowView| flow.state == "retrying" || flow.state.is_empty();
                module.connected && module.config.is_some() && !module.flows.iter().any(busy)
            }
            ProcessState::Starting => false,
            _ => true,
        })
    }

    /// Without what changes all the time, to see whether the table is worth printing again.
    pub fn essence(&self) -> Self {
        let mut essence = self.clone();
        for output in essence.modules.iter_mut().flat_map(|m| &mut m.flows).flat_map(|f| &mut f.outputs) {
            output.clients = None;
        }
        essence
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn port(container: u16, host: u16) -> Port {
        Port { container, protocol: Protocol::Tcp, host, variable: None }
    }

    #[test]
    fn a_forwarded_port_is_shown_on_127_0_0_1_and_any_other_on_the_modules_own_address() {
        let ports = [port(1935, 2935), port(8080, 8080)];
        let reach = Reach {
            gateway: "localhost",
            address: Some("127.0.1.2".parse().unwrap()),
            ports: &ports,
            forwarded: &[2935],
        };
        assert_eq!(reach.url("rtmp://localhost:1935/live/a").unwrap(), "rtmp://127.0.0.1:2935/live/a");
        assert_eq!(reach.url("rtmp://0.0.0.0/live/a").unwrap(), "rtmp://127.0.0.1:2935/live/a");
        assert_eq!(reach.url("rtmp://[::]:1935/live/a").unwrap(), "rtmp://127.0.0.1:2935/live/a");
        // Its port on 127.0.0.1 was taken by something else.
        assert_eq!(reach.url("http://localhost:8080/x").unwrap(), "http://127.0.1.2:8080/x");
        assert_eq!(reach.url("rtsp://localhost:8554/x").unwrap(), "rtsp://127.0.1.2:8554/x");
        assert_eq!(reach.url("rtmp://far.example.com:1935/live/a"), None);
    }

    #[test]
    fn what_a_module_reports_becomes_rows() {
        let reported = json!({
            "config": {"status": "applied"},
            "flows": {"cam": {
                "state": "running",
                "input": {"state": "receiving",
                          "video": {"codec": "avc1.64001f", "width": 1280, "height": 720, "fps": 29.97},
                          "audio": {"codec": "mp4a.40.2", "sampleRate": 48000, "channels": 2}},
                "outputs": {"viewers": {"state": "serving", "url": "rtmp://localhost:1935/live/cam", "clients": 3},
                            "cloud": {"state": "retrying", "url": "rtmp://far:1935/app", "error": "refused"}}}}
        });
        let ports = [port(1935, 1935)];
        let reach = Reach { gateway: "localhost", address: None, ports: &ports, forwarded: &[1935] };
        let mut module = ModuleView::default();
        module.set_reported(reported.as_object().unwrap(), reach);
        let [flow] = module.flows.as_slice() else { panic!("{module:?}") };
        assert_eq!(flow.input, "receiving avc1.64001f 1280x720 29.97 fps mp4a.40.2 48000 Hz");
        assert_eq!(flow.media, "H.264 1280x720 29.97 fps, AAC");
        assert_eq!(flow.outputs[0].url.as_deref(), Some("rtmp://127.0.0.1:1935/live/cam"));
        assert_eq!(flow.outputs[1].url.as_deref(), Some("rtmp://far:1935/app"));
        assert_eq!(flow.outputs[1].error.as_deref(), Some("refused"));

        let mut view = View { modules: vec![module], ..View::default() };
        view.collect_play();
        assert_eq!(view.play, ["rtmp://127.0.0.1:1935/live/cam"]);
    }

    #[test]
    fn each_http_address_has_its_pages_once() {
        let play = ["rtmp://h/live/a", "http://h:8080/live/a/index.m3u8", "http://h:8080/b/index.m3u8"];
        let view = View { play: play.map(Into::into).into(), ..View::default() };
        assert_eq!(view.pages(), ["http://h:8080/", "http://h:8080/wall.html"]);
    }

    #[test]
    fn a_pattern_is_where_anybody_may_publish() {
        let desired = json!({"flows": {
            "live": {"input": {"listen": "rtmp://0.0.0.0:1935/live/*"}},
            "fixed": {"input": {"listen": "rtmp://0.0.0.0:1935/live/testcard"}}}});
        let reach = Reach {
            gateway: "localhost",
            address: Some("127.0.1.1".parse().unwrap()),
            ports: &[],
            forwarded: &[],
        };
        let urls = publish_urls(desired.as_object().unwrap(), reach);
        assert_eq!(urls, ["rtmp://127.0.1.1:1935/live/NAME"]);
    }
}
