//! The table of flows, as text.

use crate::process::ProcessState;
use crate::view::{ModuleView, View};

/// Column heads.
const HEADS: [&str; 5] = ["MODULE", "FLOW", "STATE", "INPUT", "OUTPUTS"];
/// Between columns.
const GAP: &str = "  ";

/// The table, then how to play and publish. `program` is how to call `local-edge` in a second terminal.
pub fn render(view: &View, program: &str) -> Vec<String> {
    let mut lines = rows(view);
    let mut block = |label: &str, text: Vec<String>| {
        lines.push(String::new());
        for (index, line) in text.into_iter().enumerate() {
            let label = if index == 0 { label } else { "" };
            lines.push(format!("{label:<8}  {line}"));
        }
    };
    if let Some(url) = view.play.iter().find(|url| url.starts_with("rtmp")).or(view.play.first()) {
        block(
            "Play",
            vec![
                format!("ffplay -fflags nobuffer {url}"),
                format!("ffmpeg -i {url} -c copy -t 10 out.mp4     (10 s into a file)"),
                format!("VLC: Media > Open Network Stream > {url}"),
            ],
        );
    }
    if let Some(url) = view.publish.first() {
        let server = url.strip_suffix("/NAME").unwrap_or(url);
        block(
            "Publish",
            vec![
                format!("ffmpeg -re -i FILE -c:v libx264 -bf 0 -g 60 -c:a aac -f flv {url}"),
                format!("OBS: Settings > Stream > Service: Custom, Server: {server}, Stream Key: NAME"),
                format!("then play {url}; NAME is any name of yours"),
            ],
        );
    }
    block("More", vec![format!("{program} --help, in a second terminal; Ctrl-C here stops everything")]);
    lines
}

/// Only the table.
pub fn rows(view: &View) -> Vec<String> {
    let mut rows: Vec<[String; 5]> = vec![HEADS.map(Into::into)];
    for module in &view.modules {
        module_rows(module, &mut rows);
    }
    let mut widths = [0_usize; 5];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
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
            if let Some(url) = &output.url {
                text.push(' ');
                text.push_str(url);
            }
            match output.clients {
                Some(1) => text.push_str(" (1 client)"),
                Some(clients) => text.push_str(&format!(" ({clients} clients)")),
                None => {}
            }
            text
        });
        let first = outputs.next().unwrap_or_default();
        rows.push([String::new(), flow.name.clone(), flow.state.clone(), flow.input.clone(), first]);
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

/// One line for each thing that is wrong.
fn faults(module: &ModuleView, lines: &mut Vec<String>) {
    let name = &module.name;
    if let ProcessState::Failed { error } = &module.process.state {
        lines.push(format!("! {name}: {error}"));
    }
    let errors = module.config.as_ref().and_then(|config| config.get("errors")?.as_object());
    for (_, text) in errors.into_iter().flatten() {
        lines.push(format!("! {name}: {}", text.as_str().unwrap_or_default()));
    }
    for flow in &module.flows {
        if let Some(error) = &flow.error {
            lines.push(format!("! {name}, {}: {error}", flow.name));
        }
        for output in &flow.outputs {
            if let Some(error) = &output.error {
                lines.push(format!("! {name}, {}, {}: {error}", flow.name, output.name));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{FlowView, OutputView};
    use serde_json::json;

    fn output(name: &str, state: &str, url: &str, clients: Option<u64>) -> OutputView {
        OutputView {
            name: name.into(),
            state: state.into(),
            url: Some(url.into()),
            clients,
            ..Default::default()
        }
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

    #[test]
    fn the_table_has_a_line_for_each_output_and_for_each_fault() {
        let mut splitter = module("rtmp-splitter", ProcessState::Running { pid: 1 });
        let url = "rtmp://127.0.0.1:1935/live/testcard";
        let outputs =
            vec![output("viewers", "serving", url, Some(1)), output("up", "pushing", "rtmp://x/y", None)];
        let (state, input) = ("running".into(), "receiving avc1.64001f".into());
        splitter.flows = vec![FlowView { name: "testcard".into(), state, input, error: None, outputs }];
        let mut source = module("mp4-source", ProcessState::Running { pid: 2 });
        source.config = Some(json!({"errors": {"a": "flows.a.input: wrong"}}));
        let view = View { modules: vec![source, splitter], ..View::default() };
        assert_eq!(
            rows(&view),
            [
                "MODULE         FLOW      STATE     INPUT                  OUTPUTS",
                "mp4-source     -         no flows",
                "rtmp-splitter  testcard  running   receiving avc1.64001f  viewers serving \
                 rtmp://127.0.0.1:1935/live/testcard (1 client)",
                "                                                          up pushing rtmp://x/y",
                "! mp4-source: flows.a.input: wrong",
            ]
        );
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
