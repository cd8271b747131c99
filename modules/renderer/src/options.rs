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
    .means("Use the whole screen; otherwise a window as large as the picture. KMS/DRM has no windows.");
const AUDIO: OptionSpec =
    OptionSpec::new("audio", RENDERS, Shape::Flag { default: true }).means("Whether to play sound.");
const AUDIO_DEVICE: OptionSpec = OptionSpec::new("audioDevice", RENDERS, Shape::Text).means(
    "Where sound goes: `pulse:SINK` or `alsa:DEVICE`, such as `alsa:hw:0,3`; a name alone is a PulseAudio \
     sink. If it is not set, PulseAudio's default sink, or ALSA's if no PulseAudio answers.",
);
const VOLUME: OptionSpec = OptionSpec::new("volume", RENDERS, whole(0, 100, 100))
    .means("Loudness in percent, like a volume control; 0: silent.");
const ROTATE: OptionSpec = OptionSpec::new("rotate", RENDERS, whole(0, 270, 0))
    .means("How many degrees the picture is rotated clockwise: 0, 90, 180 or 270.");
const LATENCY: OptionSpec = OptionSpec::new("latencyMilliseconds", RENDERS, whole(0, 5000, 200)).means(
    "Time from a frame's arrival until it is shown, for network jitter and decoding. If decoding takes \
     longer, time is added.",
);
const LAYOUT: OptionSpec = OptionSpec::new("layout", RENDERS, Shape::Object { properties: CELL }).means(
    "One cell of a grid on an X server's screen, counted from 1, so that several flows can share a display.",
);
/// Of a grid, in each direction. See [`pieces`] before it is raised.
const MOST_CELLS: u32 = 8;
const ROW: OptionSpec = OptionSpec::property("row", whole(1, MOST_CELLS as u64, 1));
const COLUMN: OptionSpec = OptionSpec::property("column", whole(1, MOST_CELLS as u64, 1));
const ROWS: OptionSpec = OptionSpec::property("rows", whole(1, MOST_CELLS as u64, 1));
const COLUMNS: OptionSpec = OptionSpec::property("columns", whole(1, MOST_CELLS as u64, 1));
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

/// Where the pieces begin of which a row or column consists that all grids divide alike. A screen is 840 long, since that
/// is what one to eight all divide.
fn pieces(at: u32, of: u32) -> impl Iterator<Item = u32> {
    let edge = move |at: u32| 840 * at / of.max(1);
    (edge(at)..edge(at + 1)).filter(|place| (1..=MOST_CELLS).any(|parts| place % (840 / parts) == 0))
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

fn cell(options: &Options<'_>, display: &Display) -> Result<Option<Cell>, ConfigError> {
    let Some(layout) = options.object(&LAYOUT) else { return Ok(None) };
    let why = match display {
        Display::Kms(_) => {
            "KMS shows one flow on each connector: use display://kms/CONNECTOR, or display://x11"
        }
        Display::Wayland => "a Wayland client can't choose where its windows are: use display://x11",
        Display::Default | Display::X11 | Display::None => "",
    };
    if !why.is_empty() {
        return Err(ConfigError::rule(layout.path(), why));
    }
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
        let display = Display::read(options)?;
        Ok(Self {
            cell: cell(options, &display)?,
            display,
            fullscreen: options.flag(&FULLSCREEN)?,
            audio: options.flag(&AUDIO)?.then_some(wanted),
            volume: options.whole(&VOLUME)?,
            rotate,
            latency: Duration::from_millis(options.whole(&LATENCY)?),
        })
    }

    /// A screen shows one flow, or one in each cell. Without `fullscreen` they are windows, of which there may be many.
    fn claims(&self) -> Vec<Claim> {
        let windows = matches!(self.display, Display::Default | Display::Wayland | Display::X11);
        if self.display == Display::None || (windows && !self.fullscreen && self.cell.is_none()) {
            return Vec::new();
        }
        let name = self.display.name();
        let claim = |path, shown| Claim {
            address: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
            protocol: "display",
            tls: Default::default(),
            path,
            shown,
        };
        let Some(cell) = self.cell else {
            return vec![claim(ClaimedPath::Below(name), self.url(None))];
        };
        let Cell { row, column, rows, columns } = cell;
        let shown =
            format!("{} row {} of {rows}, column {} of {columns}", self.url(None), row + 1, column + 1);
        // Cells of different grids may overlap, so each claims the pieces that no grid divides.
        let across: Vec<u32> = pieces(column, columns).collect();
        pieces(row, rows)
            .flat_map(|y| across.iter().map(move |x| (y, *x)))
            .map(|(y, x)| claim(ClaimedPath::Exact(format!("{name}/{y}-{x}")), shown.clone()))
            .collect()
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
    fn a_layout_where_no_window_can_be_placed_is_refused_with_what_to_use() {
        for (url, remedy) in [
            ("display://kms", "use display://kms/CONNECTOR, or display://x11"),
            ("display://kms/HDMI-A-1", "use display://kms/CONNECTOR, or display://x11"),
            ("display://wayland", "use display://x11"),
        ] {
            let error = read(json!({ "render": url, "layout": { "columns": 2 } })).unwrap_err();
            assert!(error.starts_with("flows.a.outputs.screen.layout: "), "{error}");
            assert!(error.ends_with(remedy), "{error}");
        }
        for url in ["display://default", "display://x11", "display://none"] {
            assert!(read(json!({ "render": url, "layout": { "columns": 2 } })).is_ok(), "{url}");
        }
    }

    /// Why flow `b` can't have its output beside that of flow `a`.
    fn beside(a: Value, b: Value) -> Option<String> {
        let flow = |name: &str, mut output: Value| {
            output["audio"] = json!(false);
            let listen = format!("rtmp://0.0.0.0/live/{name}");
            json!({ "input": { "listen": listen }, "outputs": { "screen": output } })
        };
        let document = json!({ "flows": { "a": flow("a", a), "b": flow("b", b) } });
        let desired = parse(document.as_object().unwrap(), crate::service().supports());
        assert!(!desired.errors.contains_key("a"), "{:?}", desired.errors);
        desired.errors.get("b").map(ToString::to_string)
    }

    #[test]
    fn two_flows_on_one_screen_are_refused_unless_each_has_its_cell() {
        let on = |url: &str, layout: Value| json!({ "render": url, "layout": layout });
        let cell = |row: u32, column: u32, rows: u32, columns: u32| {
            on("display://x11", json!({ "row": row, "column": column, "rows": rows, "columns": columns }))
        };
        let whole = || json!({ "render": "display://x11" });
        for (a, b, overlap) in [
            (cell(1, 1, 1, 2), cell(1, 2, 1, 2), false),
            (cell(1, 1, 1, 2), cell(1, 1, 1, 2), true),
            (cell(1, 1, 1, 2), cell(1, 2, 2, 2), false),
            (cell(1, 1, 1, 2), cell(2, 1, 2, 2), true),
            (cell(1, 1, 1, 3), cell(1, 1, 1, 2), true),
            (cell(1, 1, 1, 3), cell(1, 2, 1, 2), false),
            (cell(1, 2, 1, 3), cell(1, 2, 1, 2), true),
            (cell(7, 8, 7, 8), cell(6, 7, 7, 8), false),
            (cell(7, 8, 7, 8), cell(8, 7, 8, 7), true),
            (whole(), cell(2, 2, 2, 2), true),
            (cell(1, 1, 1, 1), whole(), true),
            (whole(), on("display://none", json!({ "columns": 2 })), false),
        ] {
            assert_eq!(beside(a.clone(), b.clone()).is_some(), overlap, "{a} {b}");
        }
        assert_eq!(
            beside(cell(1, 1, 1, 2), cell(2, 1, 2, 2)).unwrap(),
            "flows.b.outputs.screen.render: display://x11 row 2 of 2, column 1 of 2 is taken by \
             flows.a.outputs.screen.render"
        );
        let connector = |name: &str| json!({ "render": format!("display://kms/{name}") });
        assert_eq!(beside(connector("HDMI-A-1"), connector("HDMI-A-2")), None);
        assert!(beside(connector("HDMI-A-1"), connector("HDMI-A-1")).is_some());
    }
}
