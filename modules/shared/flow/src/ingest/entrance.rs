//! Where a published path leads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::seats::{Identity, Seat, Seats, Taken};
use crate::endpoint::InputContext;
use crate::stream::{Kick, Publisher};

/// Names whose publishers are remembered before those of which nothing has to be known are forgotten.
const MAX_NAMES: usize = 64;

/// One stream, or one for each name.
pub enum Target {
    /// An exact path.
    Stream(InputContext),
    /// A path whose last segment is `*`.
    Pattern(Arc<dyn Instances>),
}

/// Makes the instances of a pattern flow.
pub trait Instances: Send + Sync {
    /// The running instance of that name, made if need be.
    fn open(&self, name: &str) -> Result<InputContext, NoInstance>;
}

/// Why a published name has no stream. The text is a sentence for the publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoInstance {
    /// The flow is no pattern any more, or does not run any more.
    #[error("the flow was changed or stopped at this moment; try again")]
    Over,
    /// The pattern's path alone.
    #[error("a name is missing")]
    NoName,
    /// Names become parts of paths, URLs and files.
    #[error("a stream name here is 1 to 64 of A-Z a-z 0-9 - _ .")]
    BadName,
    /// `maxInstances`.
    #[error("maxInstances ({0}) is reached")]
    Full(usize),
}

/// A `listen` endpoint as its publishers meet it.
pub struct Entrance {
    /// The flow's name.
    pub flow: Arc<str>,
    /// `flows.NAME.input.listen`.
    pub path: String,
    target: Target,
    /// `onSecondPublisher`.
    takeover: bool,
    /// The endpoint is ending: nobody is let in any more.
    cancel: CancellationToken,
    seats: Mutex<HashMap<String, Seats>>,
}

impl Entrance {
    /// The entrance of `input`, whose publishers go to `target`.
    pub fn new(input: &InputContext, takeover: bool, target: Target) -> Self {
        Self {
            flow: input.flow.clone(),
            path: format!("{}.listen", input.path),
            target,
            takeover,
            cancel: input.cancel.clone(),
            seats: Mutex::default(),
        }
    }

    /// The input that a published path leads to; `name` is what stands for the pattern's `*`.
    pub fn input(&self, name: Option<&str>) -> Result<InputContext, NoInstance> {
        match (&self.target, name) {
            (Target::Stream(input), _) => Ok(input.clone()),
            (Target::Pattern(instances), Some(name)) => instances.open(name),
            (Target::Pattern(_), None) => Err(NoInstance::NoName),
        }
    }

    /// Makes `who` the publisher of `path`, whose input is `input`.
    ///
    /// What a publisher was let in by may be gone when its turn comes: who came too late must not write to a
    /// stream that nobody ends any more. Whoever ends it cancels first and kicks then, so looking after the
    /// publisher has begun misses none.
    pub fn seat(
        &self,
        path: &str,
        who: Identity,
        input: &InputContext,
        kick: Kick,
    ) -> Result<(Publisher, Seat), Taken> {
        let is_over = || self.cancel.is_cancelled() || input.cancel.is_cancelled();
        if is_over() {
            return Err(Taken::Over);
        }
        // Held until the publisher has begun, or two could find the stream free.
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let (live, now) = (input.stream.has_publisher(), Instant::now());
        // Names of patterns come and go.
        if seats.len() >= MAX_NAMES && !seats.contains_key(path) {
            seats.retain(|_, seats| seats.are_needed(now));
        }
        let seat = seats.entry(path.to_owned()).or_default().enter(who, live, self.takeover, now)?;
        let publisher = input.stream.publisher(kick);
        if is_over() { Err(Taken::Over) } else { Ok((publisher, seat)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtmp::peer::{module, stream};
    use std::time::Duration;

    fn input() -> InputContext {
        let stream = stream();
        InputContext {
            module: module(),
            flow: "dock".into(),
            path: "flows.dock.input".into(),
            status: stream.input().clone(),
            stream,
            idle_timeout: Duration::from_secs(10),
            instances: None,
            cancel: CancellationToken::new(),
        }
    }

    fn who(program: &str) -> Identity {
        Identity { address: [127, 0, 0, 1].into(), program: program.into() }
    }

    #[tokio::test]
    async fn one_who_publishes_is_not_displaced_where_the_second_is_refused() {
        let input = input();
        let entrance = Entrance::new(&input, false, Target::Stream(input.clone()));
        let seat = |program| entrance.seat("live/a", who(program), &input, Kick::default());
        let first = seat("a").unwrap();
        assert_eq!(seat("b").unwrap_err(), Taken::Reject);
        drop(first);
        seat("b").unwrap();
    }

    #[tokio::test]
    async fn nobody_is_seated_by_an_endpoint_that_is_ending() {
        let input = input();
        let entrance = Entrance::new(&input, true, Target::Stream(input.clone()));
        let seat = |program| entrance.seat("live/a", who(program), &input, Kick::default());
        let present = seat("a").unwrap();
        input.cancel.cancel();
        assert_eq!(seat("b").unwrap_err(), Taken::Over);
        assert!(input.stream.has_publisher());
        drop(present);
    }

    #[tokio::test(start_paused = true)]
    async fn names_that_nobody_uses_any_more_are_forgotten() {
        let input = input();
        let entrance = Entrance::new(&input, true, Target::Stream(input.clone()));
        for name in 0..1000 {
            drop(entrance.seat(&format!("live/{name}"), who("a"), &input, Kick::default()).unwrap());
        }
        assert!(entrance.seats.lock().unwrap().len() <= MAX_NAMES);
    }
}
