//! The terminal: messages above, the table below them, kept current in place. Where the output is no
//! terminal, the table is printed once when everything runs and again when something changed.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::table;
use crate::view::View;

/// Between two pictures.
const REDRAW: Duration = Duration::from_millis(250);
/// Without a terminal: what changes within this time is printed once.
const GATHER: Duration = Duration::from_secs(2);
/// Without a terminal: the first table is printed by then, settled or not.
const FIRST: Duration = Duration::from_secs(20);

/// What is shown, and on what.
pub struct Screen {
    view: watch::Receiver<View>,
    messages: mpsc::Receiver<String>,
    program: String,
    /// Lines of the table that stand on the terminal.
    drawn: usize,
}

impl Screen {
    /// `program`: how `local-edge` is called in a second terminal.
    pub fn new(view: watch::Receiver<View>, messages: mpsc::Receiver<String>, program: String) -> Self {
        Self { view, messages, program, drawn: 0 }
    }

    /// Shows until cancelled, and every message that was sent before.
    pub async fn show(mut self, stop: CancellationToken) {
        if std::io::stdout().is_terminal() {
            self.show_in_place(&stop).await;
        } else {
            self.print(&stop).await;
        }
        while let Ok(message) = self.messages.try_recv() {
            self.write(&format!("{message}\n"));
        }
    }

    async fn show_in_place(&mut self, stop: &CancellationToken) {
        loop {
            let lines = table::render(&self.view.borrow_and_update(), &self.program);
            self.draw(&lines);
            let message = tokio::select! {
                Some(message) = self.messages.recv() => Some(message),
                Ok(()) = self.view.changed() => None,
                () = stop.cancelled() => return,
            };
            if let Some(message) = message {
                let erase = self.erase();
                self.write(&format!("{erase}{message}\n"));
            } else {
                tokio::select! { () = tokio::time::sleep(REDRAW) => {}, () = stop.cancelled() => return }
            }
        }
    }

    async fn print(&mut self, stop: &CancellationToken) {
        let mut printed = None;
        let mut due = Instant::now() + FIRST;
        loop {
            let view = self.view.borrow_and_update().clone();
            let news = printed.as_ref() != Some(&view.essence());
            let first = printed.is_none();
            if news && ((first && view.settled() && !view.modules.is_empty()) || Instant::now() >= due) {
                let lines = if first { table::render(&view, &self.program) } else { table::rows(&view) };
                self.write(&format!("{}\n\n", lines.join("\n")));
                printed = Some(view.essence());
                continue;
            }
            tokio::select! {
                Some(message) = self.messages.recv() => self.write(&format!("{message}\n")),
                changed = self.view.changed() => {
                    if changed.is_err() { return }
                    if !first && !news { due = Instant::now() + GATHER; }
                }
                () = tokio::time::sleep_until(due), if news => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Replaces the table that stands there.
    fn draw(&mut self, lines: &[String]) {
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
        let (width, height) =
            size.map_or((80, 24), |size| (usize::from(size.ws_col.max(20)), usize::from(size.ws_row.max(4))));
        let mut text = self.erase();
        let room = height.saturating_sub(2);
        // A line that the terminal wraps would be two, and the next picture would not cover it; one that is cut off
        // would be no address.
        let lines: Vec<String> =
            lines.iter().flat_map(|line| folded(line, width.saturating_sub(1))).collect();
        for line in lines.iter().take(room) {
            text.push_str(line);
            text.push('\n');
        }
        self.drawn = lines.len().min(room);
        if lines.len() > room {
            let more = format!("… {} more lines: {} ps", lines.len() - room, self.program);
            text.extend(more.chars().take(width.saturating_sub(1)));
            text.push('\n');
            self.drawn += 1;
        }
        self.write(&text);
    }

    /// Up to where the table begins, and clears from there.
    fn erase(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\r\x1b[J"),
        }
    }

    /// A terminal that is gone is no reason to stop.
    fn write(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

/// A line in pieces of at most `width` characters.
fn folded(line: &str, width: usize) -> Vec<String> {
    let characters: Vec<char> = line.chars().collect();
    if characters.is_empty() {
        return vec![String::new()];
    }
    characters.chunks(width.max(1)).map(|piece| piece.iter().collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_goes_on_in_the_next() {
        assert_eq!(folded("rtmp://host/live", 7), ["rtmp://", "host/li", "ve"]);
        assert_eq!(folded("", 7), [""]);
        assert_eq!(folded("exactly", 7), ["exactly"]);
    }
}
