//! Reported properties: from what the module means to the patches that make the hub hold it.

use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::fit::{LIMIT, fit, size};
use super::merge::{difference, either, merge};
use super::pace::Pace;

/// Between two patches, unless a desired change asks for one: five seconds also for a hub that gets the first late.
const PACE: Duration = Duration::from_millis(5500);
/// An answer that takes longer is lost: the hub takes one request of a connection after the other, and each can take
/// the minute and more that it waits for its cloud.
const ANSWER_TIME: Duration = Duration::from_secs(120);
const FIRST_BACK_OFF: Duration = PACE;
const MAX_BACK_OFF: Duration = Duration::from_secs(60);
/// After a refusal that the same patch would meet again.
const MAX_REFUSED_BACK_OFF: Duration = Duration::from_secs(600);
/// edgeHub refuses patches over 32 KiB.
const MAX_PATCH: usize = 31 * 1024;

/// The reported side of a twin. One patch at a time is under way.
#[derive(Debug)]
pub(crate) struct Reported {
    /// What the hub holds; a null stands for *unknown*.
    held: Map<String, Value>,
    connected: bool,
    under_way: Option<UnderWay>,
    pace: Pace,
    /// A desired change was applied, or the last patch was only a part.
    hurry: bool,
    /// Where hurry does not matter either.
    not_before: Option<Instant>,
    next: Option<Instant>,
    /// When the first of the states that were held back may go.
    held_back: Option<Instant>,
    back_off: Duration,
    /// The patch that was refused last, and until when it is not sent again.
    refused: Option<(Map<String, Value>, Instant)>,
    /// On this connection the hub has answered a report, or none was needed.
    told: bool,
}

#[derive(Debug)]
struct UnderWay {
    id: u64,
    patch: Map<String, Value>,
    sent: Instant,
    is_part: bool,
}

/// What an answer meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Stored,
    /// The same patch would most likely be refused again: much later.
    Refused,
    /// Throttled or failed: tried again later.
    Later,
    /// No patch of this id is under way.
    Stranger,
}

impl Default for Reported {
    fn default() -> Self {
        Self {
            held: Map::new(),
            connected: false,
            under_way: None,
            pace: Pace::default(),
            hurry: false,
            not_before: None,
            next: None,
            held_back: None,
            back_off: FIRST_BACK_OFF,
            refused: None,
            told: false,
        }
    }
}

impl Reported {
    /// The `reported` section of the whole twin, asked for on a new connection.
    ///
    /// While the cloud is connected edgeHub answers a get from there, and may not have synced the last report
    /// yet. So neither this nor the memory is trusted where they differ: such places are written again.
    pub fn connected(&mut self, reported: Option<Value>) {
        if let Some(Value::Object(mut reported)) = reported {
            reported.retain(|key, _| !key.starts_with('$'));
            self.held = either(&self.held, &reported);
        }
        if !self.connected {
            self.refused = None;
        }
        self.connected = true;
    }

    /// What was under way may have arrived or not.
    pub fn disconnected(&mut self) {
        self.connected = false;
        self.told = false;
        self.doubt();
    }

    /// A desired change was applied: its outcome goes out at once.
    pub fn hurry(&mut self) {
        self.hurry = true;
    }

    /// Whether on this connection the hub has answered a report, or none was needed.
    pub fn is_told(&self) -> bool {
        self.told
    }

    /// When [`poll`](Self::poll) has something to do without a change of the document.
    pub fn deadline(&self) -> Option<Instant> {
        if !self.connected {
            return None;
        }
        match &self.under_way {
            Some(under_way) => Some(under_way.sent + ANSWER_TIME),
            None => {
                let gate = self.not_before.max(self.next.filter(|_| !self.hurry));
                let again = self.refused.as_ref().map(|(_, until)| *until);
                gate.or_else(|| self.held_back.into_iter().chain(again).min())
            }
        }
    }

    /// Whether [`poll`](Self::poll) can have a patch at this time.
    pub fn may_send(&self, now: Instant) -> bool {
        let is_awaiting =
            self.under_way.as_ref().is_some_and(|patch| now.duration_since(patch.sent) < ANSWER_TIME);
        let is_late = self.under_way.is_some();
        let waits = self.not_before.is_some_and(|time| now < time);
        let is_paced = !self.hurry && !is_late && self.next.is_some_and(|time| now < time);
        self.connected && !is_awaiting && !waits && !is_paced
    }

    /// The patch to send now, if any, that brings the hub nearer to `document`; its answer comes under `id`.
    pub fn poll(
        &mut self,
        document: &Map<String, Value>,
        id: u64,
        now: Instant,
    ) -> Option<Map<String, Value>> {
        if !self.may_send(now) {
            return None;
        }
        if self.under_way.is_some() {
            self.doubt();
        }
        self.not_before = None;
        self.next = self.next.filter(|next| now < *next);
        let wanted = fit(document);
        let paced =
            if self.hurry { None } else { Some(self.pace.hold_back(&self.held, wanted.clone(), now)) };
        // What is held back may be longer than what it became: better told too often than too long.
        let paced = paced.filter(|paced| size(&paced.document) <= LIMIT);
        let patch = difference(&self.held, paced.as_ref().map_or(&wanted, |paced| &paced.document));
        self.held_back = paced.as_ref().and_then(|paced| paced.until);
        let is_refused =
            self.refused.as_ref().is_some_and(|(refused, until)| *refused == patch && now < *until);
        if patch.is_empty() || is_refused {
            self.told = true;
            self.hurry = false;
            self.refused = self.refused.take().filter(|_| is_refused);
            return None;
        }
        if let Some(paced) = &paced {
            self.pace.sent(paced, now);
        }
        let (body, is_part) = part(patch);
        self.refused = None;
        self.hurry = false;
        self.next = Some(now + PACE);
        self.under_way = Some(UnderWay { id, patch: body.clone(), sent: now, is_part });
        Some(body)
    }

    /// An answer of the hub.
    pub fn on_answer(&mut self, id: u64, status: u16, now: Instant) -> Verdict {
        let Some(under_way) = self.under_way.take_if(|under_way| under_way.id == id) else {
            return Verdict::Stranger;
        };
        self.told = true;
        match status {
            200..=299 => {
                merge(&mut self.held, &under_way.patch);
                self.hurry |= under_way.is_part;
                self.back_off = FIRST_BACK_OFF;
                Verdict::Stored
            }
            400..=499 if status != 408 && status != 429 => {
                let until = self.back_off(now, MAX_REFUSED_BACK_OFF);
                // What changes beside the refused place would be refused with it.
                self.next = self.next.max(Some(until.min(now + MAX_BACK_OFF)));
                self.refused = Some((under_way.patch, until));
                Verdict::Refused
            }
            _ => {
                self.under_way = Some(under_way);
                self.doubt();
                self.not_before = Some(self.back_off(now, MAX_BACK_OFF));
                self.hurry = true;
                Verdict::Later
            }
        }
    }

    /// When to try again, ever later.
    fn back_off(&mut self, now: Instant, most: Duration) -> Instant {
        let time = now + self.back_off.min(most);
        self.back_off = (self.back_off * 2).min(most);
        time
    }

    fn doubt(&mut self) {
        if let Some(under_way) = self.under_way.take() {
            let mut arrived = self.held.clone();
            merge(&mut arrived, &under_way.patch);
            self.held = either(&self.held, &arrived);
        }
    }
}

/// What of a patch goes into one message; deletions first, so that the whole never grows over the limit.
fn part(patch: Map<String, Value>) -> (Map<String, Value>, bool) {
    if size(&patch) <= MAX_PATCH {
        return (patch, false);
    }
    let mut room = MAX_PATCH - 1024;
    let deletions = take(&patch, &mut room, true);
    if !deletions.is_empty() {
        return (deletions, true);
    }
    (take(&patch, &mut room, false), true)
}

/// As many places of the patch as fit, deletions or the others.
fn take(patch: &Map<String, Value>, room: &mut usize, deletions: bool) -> Map<String, Value> {
    let mut taken = Map::new();
    for (key, value) in patch {
        let frame = key.len() + 6;
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                let mut inner_room = room.saturating_sub(frame);
                let inner = take(inner, &mut inner_room, deletions);
                if !inner.is_empty() {
                    *room = inner_room;
                    taken.insert(key.clone(), Value::Object(inner));
                }
            }
            other if other.is_null() == deletions => {
                let length = frame + other.to_string().len();
                if length <= *room {
                    *room -= length;
                    taken.insert(key.clone(), other.clone());
                }
            }
            _ => {}
        }
    }
    taken
}

#[cfg(test)]
mod tests;
