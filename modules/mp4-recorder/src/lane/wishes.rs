//! What is asked of an output while it records.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::Lane;
use crate::clip::{Asked, MOST_CLIPS};
use crate::name::NameTemplate;
use crate::report::Report;

/// Ids of events that are kept in memory; earlier ones are looked for on the disk.
const KNOWN_EVENTS: usize = 1000;

/// What an output is asked to do while it records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// End the file at the next sync frame.
    EndFile,
    /// Record a clip; it is counted as long as the second one lives.
    Clip(Asked, Arc<()>),
    /// What was recorded until now is deleted: end every file, and keep nothing for clips.
    Forget,
}

/// Something that records for an output.
pub(super) struct Recording {
    wishes: mpsc::Sender<Wish>,
    /// What its files are called.
    template: NameTemplate,
    /// Held once more by each clip.
    clips: Arc<()>,
}

impl Recording {
    fn has_most_clips(&self) -> bool {
        Arc::strong_count(&self.clips) > MOST_CLIPS
    }
}

impl Lane {
    /// Enters an output, or an instance of it, that runs and names its files by `template`. Gives the wishes for it.
    pub fn join(&self, template: NameTemplate, report: &Arc<Report>) -> mpsc::Receiver<Wish> {
        let (sender, wishes) = mpsc::channel(16);
        let mut inner = self.inner();
        inner.reports.retain(|report| report.strong_count() > 0);
        inner.reports.push(Arc::downgrade(report));
        inner.recordings.retain(|recording| !recording.wishes.is_closed());
        inner.recordings.push(Recording { wishes: sender, template, clips: Arc::default() });
        if let Some((reason, why)) = &inner.trouble {
            report.storing(Some((*reason, why)));
        }
        wishes
    }

    /// Whether anything records for this output, or waits for its input.
    pub fn records(&self) -> bool {
        self.inner().recordings.iter().any(|recording| !recording.wishes.is_closed())
    }

    /// Passes a wish to everything that records for this output. Gives how many took it.
    pub fn wish(&self, wish: &Wish) -> usize {
        let inner = self.inner();
        inner.recordings.iter().filter(|recording| recording.wishes.try_send(wish.clone()).is_ok()).count()
    }

    /// Whether so many clips are being recorded that there may be no more.
    pub fn has_most_clips(&self) -> bool {
        self.inner().recordings.iter().any(Recording::has_most_clips)
    }

    /// The names of the clips of an event, where it was asked for lately.
    pub fn clips_of(&self, id: &str) -> Option<Vec<Option<String>>> {
        self.inner().events.iter().find(|(known, _)| known == id).map(|(_, names)| names.clone())
    }

    /// Asks everything that records for this output for a clip, once for each id. Gives the names of the clips, as
    /// far as they have any: no clip where nothing records.
    pub fn ask_for_clip(&self, asked: &Asked) -> Vec<Option<String>> {
        let mut inner = self.inner();
        if let Some((_, names)) = inner.events.iter().find(|(known, _)| *known == asked.id) {
            return names.clone();
        }
        let names: Vec<_> = inner
            .recordings
            .iter()
            .filter(|recording| !recording.has_most_clips())
            .filter(|recording| {
                let wish = Wish::Clip(asked.clone(), recording.clips.clone());
                recording.wishes.try_send(wish).is_ok()
            })
            .map(|recording| asked.name(&recording.template))
            .collect();
        if !names.is_empty() {
            if inner.events.len() >= KNOWN_EVENTS {
                inner.events.pop_front();
            }
            inner.events.push_back((asked.id.clone(), names.clone()));
        }
        names
    }
}
