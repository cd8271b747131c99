//! The table of flows, as text.

use crate::process::ProcessState;
use crate::view::{ModuleView, View};

/// Column heads.
const HEADS: [&str; 5] = ["MODULE", "FLOW", "STATE", "INPUT", "OUTPUTS"];
/// What sentences are broken to: an ordinary window.
const WIDTH: usize = 90;
/// Between columns.
const GAP: &str = "  ";

/// The table, then what to open, how to play and publish. `program` is how to call `local-edge` in a second terminal.
///
/// An address that is there to be opened has a line of its own: it can be clicked or copied whole.
pub fn render(view: &View, program: &str) -> Vec<String> {
    let mut lines = rows(view);
    let mut block = |label: &str, text: Vec<String>| {
        if !text.is_empty() {
            lines.push(String::new());
        }
        for (index, line) in text.into_iter().enumerate() {
            let label = if index == 0 { label } else { "" };
            lines.push(format!("{label:<7}  {line}"));
        }
    };
    block("Watch", view.pages());
    block("Open", view.play.clone());
    block("UDP", view.udp.clone());
    block("Sends", targets(view));
    if let Some(url) = view.play.iter().find(|url| url.starts_with("rtmp")).or(view.play.first()) {
        block(
            "Play",
            vec![
                format!("ffplay -fflags nobuffer {url}"),
                format!("ffmpeg -i {url} -c copy -t 10 out.mp4"),
                "VLC: Media > Open Network Stream, and an address from above".into(),
            ],
        );
    }
    if let Some(url) = view.publish.first() {
        let server = url.strip_suffix("/NAME").unwrap_or(url);
        block(
            "Publish",
            vec![
                format!("ffmpeg -re -i FILE -c:v libx264 -bf 0 -g 60 -c:a aac -f flv {url}"),
                format!("OBS: Settings > Stream > Custom, Server: {server}, Stream Key: NAME"),
                format!("then play {url}; NAME is any name of yours"),
            ],
        );
    }
    block("More", vec![format!("{program} --help, in a second terminal; Ctrl-C here stops everything")]);
    lines
}

/// Where streams go that are not here to be opened.
fn targets(view: &View) -> Vec<String> {
    let flows = view.modules.iter().flat_map(|module| module.flows.iter().map(move |flow| (module, flow)));
    let outputs = flows.flat_map(|(module, flow)| flow.outputs.iter().map(move |output| (module, output)));
    let away = outputs.filter(|(_, output)| !output.playable);
    away.filter_map(|(module, output)| Some(format!("{} to {}", module.name, output.url.as_ref()?))).collect()
}

/// Only the table.
pub fn rows(view: &View) -> Vec<String> {
    let mut rows: Vec<[String; 5]> = vec![HEADS.map(Into::into)];
    for module in &view.modules {
        module_rows(module, &mut rows);
    }
    let mut widths = [0_usize; 5];
    for row in &rows {
        // What stands alone in its line may reach into the columns after it.
        let cells = row.iter().rposition(|cell| !cell.is_empty()).unwrap_or(0);
        for (width, cell) in widths.iter_mut().zip(row).take(cells.max(1)) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut lines = Vec::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        lines.push(cells.join(GAP).trim_end().to_owned());
    }
    for module in &view.modules {
        faults(module, &mut lines);
    }
    lines
}

fn module_rows(module: &ModuleView, rows: &mut Vec<[String; 5]>) {
    let start = rows.len();
    for flow in &module.flows {
        let mut outputs = flow.outputs.iter().map(|output| {
            let mut text = format!("{} {}", output.name, output.state);
            match output.clients {
                Some(1) => text.push_str(" (1 client)"),
                Some(clients) => text.push_str(&format!(" ({clients} clients)")),
                None => {}
            }
            text
        });
        let first = outputs.next().unwrap_or_default();
        let input = if flow.media.is_empty() { flow.input.clone() } else { flow.media.clone() };
        rows.push([String::new(), flow.name.clone(), flow.state.clone(), input, first]);
        for output in outputs {
            rows.push([String::new(), String::new(), String::new(), String::new(), output]);
        }
    }
    if module.flows.is_empty() {
        rows.push([String::new(), "-".into(), state(module), String::new(), String::new()]);
    }
    if let Some([name, ..]) = rows.get_mut(start) {
        *name = module.name.clone();
    }
}

/// A module's state where no flow says more.
pub fn state(module: &ModuleView) -> String {
    match &module.process.state {
        ProcessState::Starting => "starting".into(),
        ProcessState::Stopped => "stopped".into(),
        ProcessState::Running { .. } if !module.connected => "connecting".into(),
        ProcessState::Running { .. } if module.config.is_none() => "starting".into(),
        ProcessState::Running { .. } => "no flows".into(),
        ProcessState::BackOff { ended, delay } => {
            let (seconds, tenths) = (delay / 1000, delay % 1000 / 100);
            format!("ended ({ended}), starts again after {seconds}.{tenths} s")
        }
        ProcessState::Ended { ended } => format!("ended ({ended})"),
        ProcessState::Failed { .. } => "can't start".into(),
        ProcessState::NotRunHere { .. } if module.connected => "connected, run by hand".into(),
        ProcessState::NotRunHere { .. } => "not run here".into(),
    }
}

/// A sentence for each thing that is wrong.
fn faults(module: &ModuleView, lines: &mut Vec<String>) {
    let name = &module.name;
    if let ProcessState::Failed { error } = &module.process.state {
        wrap(&format!("! {name}: {error}"), lines);
    }
    let errors = module.config.as_ref().and_then(|config| config.get("errors")?.as_object());
    for (_, text) in errors.into_iter().flatten() {
        wrap(&format!("! {name}: {}", text.as_str().unwrap_or_default()), lines);
    }
    for flow in &module.flows {
        if let Some(error) = &flow.error {
            wrap(&format!("! {name}, {}: {error}", flow.name), lines);
        }
        for output in &flow.outputs {
            if let Some(error) = &output.error {
                wrap(&format!("! {name}, {}, {}: {error}", flow.name, output.name), lines);
            }
        }
    }
}

/// Lines of at most `WIDTH`, broken between words; a word that is longer stays whole.
fn wrap(text: &str, lines: &mut Vec<String>) {
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(std::mem::replace(&mut line, "   ".to_owned()));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{FlowView, OutputView};
    use serde_json::json;

    fn output(name: &str, state: &str, url: &str, clients: Option<u64>) -> OutputView {
        let (name, state, url) = (name.into(), state.into(), Some(url.into()));
        OutputView { name, state, url, playable: clients.is_some(), clients, error: None }
    }

    fn module(name: &str, state: ProcessState) -> ModuleView {
        ModuleView {
            name: name.into(),
            process: state.into(),
            connected: true,
            config: Some(json!({})),
            ..Default::default()
        }
    }

    fn flow(name: &str, state: &str, media: &str, outputs: Vec<OutputView>) -> FlowView {
        let (name, state, media) = (name.into(), state.into(), media.into());
        FlowView { name, state, input: "waiting".into(), media, error: None, outputs }
    }

    /// What a whole deployment looks like.
    fn six_services() -> View {
        let card = "H.264 640x360 30 fps, AAC";
        let running = |name, outputs| {
            let mut module = module(name, ProcessState::Running { pid: 1 });
            module.flows = vec![flow("testcard", "running", card, outputs)];
            module
        };
        let rtmp = "rtmp://127.0.0.1:1935/live/testcard";
        let rtsp = "rtsp://127.0.0.1:8554/live/testcard";
        let hls = "http://127.0.0.1:8080/live/testcard/index.m3u8";
        let mut cloud = output("cloud", "retrying", "azblob://account/recordings", None);
        cloud.error =
            Some("account.blob.core.windows.net refused the signature; renew credentials.sas".into());
        let mut recorder =
            running("mp4-recorder", vec![cloud, output("disk", "storing", "file:///recordings", None)]);
        if let Some(flow) = recorder.flows.first_mut() {
            flow.state = "retrying".into();
        }
        let mut splitter = running("rtmp-splitter", vec![output("viewers", "serving", rtmp, Some(3))]);
        splitter.flows.insert(0, flow("live", "waiting", "", Vec::new()));
        let mut renderer = module("renderer", ProcessState::NotRunHere { image: None });
        renderer.connected = false;
        let mut view = View {
            modules: vec![
                splitter,
                running("mp4-source", vec![output("splitter", "pushing", "rtmp://rtmp-splitter/live", None)]),
                running("rtsp-gateway", vec![output("viewers", "serving", rtsp, Some(1))]),
                running("hls-gateway", vec![output("viewers", "serving", hls, Some(1))]),
                recorder,
                renderer,
            ],
            publish: vec!["rtmp://127.0.0.1:1935/live/NAME".into()],
            udp: vec!["rtsp-gateway at 127.0.1.3, 8000 and 8001: not at 127.0.0.1".into()],
            play: Vec::new(),
        };
        view.collect_play();
        view
    }

    #[test]
    fn six_services_are_read_at_a_glance_on_a_hundred_columns() {
        let lines = render(&six_services(), "cargo run --release --");
        let width = lines.iter().map(|line| line.chars().count()).max().unwrap();
        let text = lines.join("\n");
        assert!(width <= 100, "{width} columns:\n{text}");
        let table = "\
MODULE         FLOW      STATE     INPUT                      OUTPUTS
rtmp-splitter  live      waiting   waiting
               testcard  running   H.264 640x360 30 fps, AAC  viewers serving (3 clients)
mp4-source     testcard  running   H.264 640x360 30 fps, AAC  splitter pushing
rtsp-gateway   testcard  running   H.264 640x360 30 fps, AAC  viewers serving (1 client)
hls-gateway    testcard  running   H.264 640x360 30 fps, AAC  viewers serving (1 client)
mp4-recorder   testcard  retrying  H.264 640x360 30 fps, AAC  cloud retrying
                                                              disk storing
renderer       -         not run here
! mp4-recorder, testcard, cloud: account.blob.core.windows.net refused the signature;
    renew credentials.sas

Watch    http://127.0.0.1:8080/
         http://127.0.0.1:8080/wall.html

Open     rtmp://127.0.0.1:1935/live/testcard
         rtsp://127.0.0.1:8554/live/testcard
         http://127.0.0.1:8080/live/testcard/index.m3u8

UDP      rtsp-gateway at 127.0.1.3, 8000 and 8001: not at 127.0.0.1

Sends    mp4-source to rtmp://rtmp-splitter/live
         mp4-recorder to azblob://account/recordings
         mp4-recorder to file:///recordings
";
        assert!(text.starts_with(table), "{text}");
    }

    #[test]
    fn the_table_has_a_line_for_each_output_and_for_each_fault() {
        let mut splitter = module("rtmp-splitter", ProcessState::Running { pid: 1 });
        let url = "rtmp://127.0.0.1:1935/live/testcard";
        let outputs =
            vec![output("viewers", "serving", url, Some(1)), output("up", "pushing", "rtmp://x/y", None)];
        splitter.flows = vec![flow("testcard", "running", "H.264", outputs)];
        let mut source = module("mp4-source", ProcessState::Running { pid: 2 });
        source.config = Some(json!({"errors": {"a": "flows.a.input: wrong"}}));
        let view = View { modules: vec![source, splitter], ..View::default() };
        assert_eq!(
            rows(&view),
            [
                "MODULE         FLOW      STATE    INPUT  OUTPUTS",
                "mp4-source     -         no flows",
                "rtmp-splitter  testcard  running  H.264  viewers serving (1 client)",
                "                                         up pushing",
                "! mp4-source: flows.a.input: wrong",
            ]
        );
    }

    #[test]
    fn an_address_is_never_cut_off() {
        let url = format!("rtmp://127.0.0.1:1935/{}", "x".repeat(200));
        let view = View { play: vec![url.clone()], ..View::default() };
        assert!(render(&view, "local-edge").iter().any(|line| line.ends_with(&url)));
    }

    #[test]
    fn a_process_that_does_not_run_says_why() {
        let ended = ProcessState::BackOff { ended: "exit code 64".into(), delay: 1500 };
        assert_eq!(state(&module("m", ended)), "ended (exit code 64), starts again after 1.5 s");
        let mut starting = module("m", ProcessState::Running { pid: 1 });
        starting.connected = false;
        assert_eq!(state(&starting), "connecting");
        let mut foreign = module("m", ProcessState::NotRunHere { image: Some("reg/x:1".into()) });
        assert_eq!(state(&foreign), "connected, run by hand");
        foreign.connected = false;
        assert_eq!(state(&foreign), "not run here");
    }

    #[test]
    fn below_the_table_is_how_to_play_and_publish() {
        let view = View {
            modules: Vec::new(),
            publish: vec!["rtmp://127.0.0.1:1935/live/NAME".into()],
            udp: Vec::new(),
            play: vec!["rtmp://127.0.0.1:1935/live/testcard".into()],
        };
        let text = render(&view, "local-edge").join("\n");
        for part in [
            "ffplay -fflags nobuffer rtmp://127.0.0.1:1935/live/testcard",
            "-f flv rtmp://127.0.0.1:1935/live/NAME",
            "Server: rtmp://127.0.0.1:1935/live, Stream Key: NAME",
            "VLC",
            "Ctrl-C",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
