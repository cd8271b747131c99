//! Which level holds: the configuration's, or for a while the one an operator asked for.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::Level;

use super::{LogLevel, default_level};
use crate::service::Settings;

/// Takes the wishes of operators.
#[derive(Clone)]
pub(crate) struct LevelControl {
    wishes: mpsc::Sender<(Level, Duration)>,
}

impl LevelControl {
    /// Sets the level for a while; then the configuration's holds again.
    pub async fn set_for(&self, level: Level, time: Duration) {
        let _ = self.wishes.send((level, time)).await;
    }
}

#[cfg(test)]
impl LevelControl {
    /// Wishes go to the test.
    pub fn to_test() -> (Self, mpsc::Receiver<(Level, Duration)>) {
        let (wishes, received) = mpsc::channel(4);
        (Self { wishes }, received)
    }
}

/// Follows the configuration's level and the operators' wishes from now on.
pub(crate) fn control(level: LogLevel, settings: watch::Receiver<Option<Settings>>) -> LevelControl {
    let (wishes, received) = mpsc::channel(4);
    tokio::spawn(follow(level, settings, received));
    LevelControl { wishes }
}

async fn follow(
    level: LogLevel,
    mut settings: watch::Receiver<Option<Settings>>,
    mut wishes: mpsc::Receiver<(Level, Duration)>,
) {
    let mut until: Option<Instant> = None;
    loop {
        let configured = settings.borrow_and_update().and_then(|settings| settings.log_level);
        let configured = configured.unwrap_or_else(default_level);
        if until.is_none() {
            level.set(configured);
        }
        let over = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = settings.changed() => if changed.is_err() { return },
            Some((wished, time)) = wishes.recv() => {
                level.set(wished);
                until = Instant::now().checked_add(time);
                tracing::info!(seconds = time.as_secs(), "log level {wished} for a while");
            }
            () = over => {
                until = None;
                level.set(configured);
                tracing::info!("log level {configured} again");
            }
        }
    }
}
