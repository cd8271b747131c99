//! `render` as a document describes it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use av_flow::config::{
    Claim, ClaimedPath, ConfigError, Fault, FlowConfig, OptionSpec, Options, Role, Shape, whole,
};
use av_flow::{EndpointSpec, Output, OutputContext, OutputSpec, catalogue};

use crate::render;

const RENDERS: &str = "`render` outputs";

const FULLSCREEN: OptionSpec = OptionSpec::new("fullscreen", RENDERS, Shape::Flag { default: true })
    .means("The whole screen; otherwise a window as large as the picture. KMS/DRM has no windows.");
const AUDIO: OptionSpec =
    OptionSpec::new("audio", RENDERS, Shape::Flag { default: true }).means("Whether the sound is played.");
const AUDIO_DEVICE: OptionSpec = OptionSpec::new("audioDevice", RENDERS, Shape::Text).means(
    "Where the sound goes: `pulse:SINK` or `alsa:DEVICE`, as `alsa:hw:0,3`; a name alone is a sink of PulseAudio. \
     Unless it is set, PulseAudio's default sink, or ALSA's where no PulseAudio answers.",
);
const VOLUME: OptionSpec = OptionSpec::new("volume", RENDERS, whole(0, 100, 100))
    .means("In percent of loudness, as a volume control has it; 0: silent.");
const ROTATE: OptionSpec = OptionSpec::new("rotate", RENDERS, whole(0, 270, 0))
    .means("By how many degrees the picture is turned clockwise: 0, 90, 180 or 270.");
const LATENCY: OptionSpec = OptionSpec::new("latencyMilliseconds", RENDERS, whole(0, 5000, 200)).means(
    "From a frame's arrival to its show: what jitter of the network and decoding may take. Where decoding takes \
     longer, time is added.",
);
const LAYOUT: OptionSpec = OptionSpec::new("layout", RENDERS, Shape::Object { properties: CELL })
    .means("One cell of a grid on the screen, counted from 1: so several flows share a display.");
const ROW: OptionSpec = OptionSpec::property("row", whole(1, 8, 1));
const COLUMN: OptionSpec = OptionSpec::property("column", whole(1, 8, 1));
const ROWS: OptionSpec = OptionSpec::property("rows", whole(1, 8, 1));
const COLUMNS: OptionSpec = OptionSpec::property("columns", whole(1, 8, 1));
const CELL: &[OptionSpec] = &[ROW, COLUMN, ROWS, COLUMNS];

/// Screen and speaker.
pub const RENDER: OutputSpec = OutputSpec::of::<RenderConfig>();

/// `render`.
#[derive(Clone, Debug, PartialEq)]
pub struct RenderConfig {
    /// Which screen.
    pub display: Display,
    /// `fullscreen`.
    pub fullscreen: bool,
    /// `audio` and `audioDevice`; `None`: no sound.
    pub audio: Option<Device>,
    /// `volume`, 0 to 100.
    pub volume: u64,
    /// `rotate`, in degrees clockwise.
    pub rotate: u64,
    /// `latencyMilliseconds`.
    pub latency: Duration,
    /// `layout`.
    pub cell: Option<Cell>,
}

/// Which screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Display {
    /// The best that works.
    Default,
    /// A connector of a graphics card, without a desktop; `None`: the first that is connected.
    Kms(Option<String>),
    /// A Wayland compositor.
    Wayland,
    /// An X server.
    X11,
    /// None: decode and count.
    None,
}

/// Where sound goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// What the system has.
    Default,
    /// A sink of PulseAudio.
    Pulse(String),
    /// A device of ALSA.
    Alsa(String),
}

/// One cell of a grid; rows and columns count from 0 here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// From the top.
    pub row: u32,
    /// From the left.
    pub column: u32,
    /// Of the grid.
    pub rows: u32,
    /// Of the grid.
    pub columns: u32,
}

impl Cell {
    /// Its place on a screen of this size: left, top, width, height.
    pub fn place(self, width: u32, height: u32) -> (u32, u32, u32, u32) {
        let edge = |at: u32, of: u32, length: u32| {
            let edge = u64::from(length) * u64::from(at) / u64::from(of.max(1));
            u32::try_from(edge).unwrap_or(length)
        };
        let (left, right) =
            (edge(self.column, self.columns, width), edge(self.column + 1, self.columns, width));
        let (top, bottom) = (edge(self.row, self.rows, height), edge(self.row + 1, self.rows, height));
        (left, top, right.saturating_sub(left).max(1), bottom.saturating_sub(top).max(1))
    }
}

impl Display {
    fn read(options: &Options<'_>) -> Result<Self, ConfigError> {
        let url = options.url();
        let name = url.get("display://".len()..).unwrap_or_default().trim_end_matches('/');
        let fits = |name: &str| {
            (1..=64).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        match name.split_once('/') {
            None if name == "default" => Ok(Self::Default),
            None if name == "kms" => Ok(Self::Kms(None)),
            None if name == "wayland" => Ok(Self::Wayland),
            None if name == "x11" => Ok(Self::X11),
            None if name == "none" => Ok(Self::None),
            Some(("kms", connector)) if fits(connector) => Ok(Self::Kms(Some(connector.to_owned()))),
            _ => Err(options.url_error(Fault::Expected {
                expected: "display://default, display://kms, display://kms/CONNECTOR, display://wayland, \
                           display://x11 or display://none"
                    .to_owned(),
                got: format!("{url:?}"),
            })),
        }
    }

    /// As in the URL.
    pub fn name(&self) -> String {
        match self {
            Self::Default => "default".into(),
            Self::Kms(None) => "kms".into(),
            Self::Kms(Some(connector)) => format!("kms/{connector}"),
            Self::Wayland => "wayland".into(),
            Self::X11 => "x11".into(),
            Self::None => "none".into(),
        }
    }
}

fn device(text: &str) -> Device {
    match text.split_once(':') {
        Some(("alsa", name)) => Device::Alsa(name.to_owned()),
        Some(("pulse", name)) => Device::Pulse(name.to_owned()),
        _ => Device::Pulse(text.to_owned()),
    }
}

fn cell(options: &Options<'_>) -> Result<Option<Cell>, ConfigError> {
    let Some(layout) = options.object(&LAYOUT) else { return Ok(None) };
    let number = |spec: &OptionSpec| Ok(u32::try_from(layout.whole(spec)?).unwrap_or(1));
    let (row, column, rows, columns) = (number(&ROW)?, number(&COLUMN)?, number(&ROWS)?, number(&COLUMNS)?);
    for (name, at, of) in [("row", row, rows), ("column", column, columns)] {
        if at > of {
            let fault = Fault::Expected { expected: format!("1 to {of}"), got: at.to_string() };
            return Err(ConfigError { path: format!("{}.{name}", layout.path()), fault });
        }
    }
    Ok(Some(Cell { row: row - 1, column: column - 1, rows, columns }))
}

impl Output for RenderConfig {
    const SPEC: EndpointSpec = EndpointSpec {
        role: Role::Render,
        schemes: &[catalogue::DISPLAY],
        options: &[FULLSCREEN, AUDIO, AUDIO_DEVICE, VOLUME, ROTATE, LATENCY, LAYOUT],
    };

    fn read(options: &Options<'_>) -> Result<Self, ConfigError> {
        let rotate = options.whole(&ROTATE)?;
        if rotate % 90 != 0 {
            let fault = Fault::Expected { expected: "0, 90, 180 or 270".to_owned(), got: rotate.to_string() };
            return Err(ConfigError { path: format!("{}.rotate", options.path()), fault });
        }
        let wanted = options.text(&AUDIO_DEVICE)?.map_or(Device::Default, device);
        Ok(Self {
            display: Display::read(options)?,
            fullscreen: options.flag(&FULLSCREEN)?,
            audio: options.flag(&AUDIO)?.then_some(wanted),
            volume: options.whole(&VOLUME)?,
            rotate,
            latency: Duration::from_millis(options.whole(&LATENCY)?),
            cell: cell(options)?,
        })
    }

    /// A screen shows one flow, or one in each cell. Without `fullscreen` they are windows, of which there may be many.
    fn claims(&self) -> Vec<Claim> {
        let windows = matches!(self.display, Display::Default | Display::Wayland | Display::X11);
        if self.display == Display::None || (windows && !self.fullscreen && self.cell.is_none()) {
            return Vec::new();
        }
        let name = self.display.name();
        let path = match self.cell {
            None => ClaimedPath::Below(name),
            Some(Cell { row, column, rows, columns }) => {
                ClaimedPath::Exact(format!("{name}/{rows}x{columns}/{row}-{column}"))
            }
        };
        vec![Claim {
            address: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
            protocol: "display",
            tls: Default::default(),
            path,
            shown: self.url(None),
        }]
    }

    fn url(&self, _public_host: Option<&str>) -> String {
        format!("display://{}", self.display.name())
    }

    fn instance(&self, _name: &str) -> Self {
        self.clone()
    }

    async fn run(self, context: OutputContext) {
        render::run(context, self).await;
    }
}

/// A screen has no room for a flow that runs an instance for any name.
pub fn no_patterns(flow: &FlowConfig) -> Result<(), ConfigError> {
    let renders = flow.outputs.iter().find(|(_, output)| output.endpoint.role() == Role::Render);
    match renders {
        Some((name, _)) if flow.is_pattern() => Err(ConfigError::rule(
            format!("flows.{}.outputs.{name}", flow.name),
            "a display shows one stream: `listen` on a path without `*`",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use av_flow::config::parse;
    use serde_json::{Value, json};

    use super::*;

    /// The output `screen` of flow `a` whose `render` has these properties, or the error.
    fn read(output: Value) -> Result<RenderConfig, String> {
        let flow = json!({ "input": { "listen": "rtmp://0.0.0.0/live/a" }, "outputs": { "screen": output } });
        let document = json!({ "flows": { "a": flow } });
        let desired = parse(document.as_object().unwrap(), crate::service().supports());
        match desired.errors.get("a") {
            Some(error) => Err(error.to_string()),
            None => Ok(desired.flows["a"].outputs["screen"].endpoint.get::<RenderConfig>().unwrap().clone()),
        }
    }

    #[test]
    fn displays_are_read_by_name() {
        for (url, display) in [
            ("display://default", Display::Default),
            ("display://kms", Display::Kms(None)),
            ("display://kms/HDMI-A-1", Display::Kms(Some("HDMI-A-1".into()))),
            ("display://wayland", Display::Wayland),
            ("display://x11/", Display::X11),
            ("display://none", Display::None),
        ] {
            let config = read(json!({ "render": url })).unwrap();
            assert_eq!((config.display, config.volume, config.fullscreen), (display, 100, true));
        }
        let error = read(json!({ "render": "display://x12" })).unwrap_err();
        assert!(error.starts_with("flows.a.outputs.screen.render: expected display://default"), "{error}");
    }

    #[test]
    fn what_no_display_can_do_is_refused_with_its_path() {
        for (option, value, error) in [
            ("rotate", json!(45), "flows.a.outputs.screen.rotate: expected 0, 90, 180 or 270, got 45"),
            (
                "volume",
                json!(101),
                "flows.a.outputs.screen.volume: expected a whole number from 0 to 100, got 101",
            ),
            (
                "layout",
                json!({ "row": 3, "rows": 2 }),
                "flows.a.outputs.screen.layout.row: expected 1 to 2, got 3",
            ),
        ] {
            assert_eq!(read(json!({ "render": "display://x11", option: value })).unwrap_err(), error);
        }
    }

    #[test]
    fn devices_of_sound_are_told_apart() {
        for (text, wanted) in [
            ("alsa:hw:0,3", Device::Alsa("hw:0,3".into())),
            ("pulse:hdmi", Device::Pulse("hdmi".into())),
            ("hdmi", Device::Pulse("hdmi".into())),
        ] {
            let config = read(json!({ "render": "display://none", "audioDevice": text })).unwrap();
            assert_eq!(config.audio, Some(wanted));
        }
        assert_eq!(read(json!({ "render": "display://none", "audio": false })).unwrap().audio, None);
    }

    #[test]
    fn cells_cover_a_screen_without_gaps() {
        let cell = |row, column| Cell { row, column, rows: 3, columns: 2 }.place(1279, 721);
        assert_eq!((cell(0, 0), cell(0, 1)), ((0, 0, 639, 240), (639, 0, 640, 240)));
        assert_eq!((cell(1, 0), cell(2, 1)), ((0, 240, 639, 240), (639, 480, 640, 241)));
    }

    #[test]
    fn two_flows_on_one_screen_are_refused_unless_each_has_its_cell() {
        let config = |layout: Option<Value>| {
            let mut output = json!({ "render": "display://kms/HDMI-A-1" });
            if let Some(layout) = layout {
                output["layout"] = layout;
            }
            read(output).unwrap().claims().remove(0).path
        };
        let whole = config(None);
        let left = config(Some(json!({ "columns": 2 })));
        let right = config(Some(json!({ "columns": 2, "column": 2 })));
        assert_eq!(whole, ClaimedPath::Below("kms/HDMI-A-1".into()));
        assert_ne!(left, right);
    }
}
