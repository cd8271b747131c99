//! Says in an endpoint's state, as long as it runs, which secrets of its `auth` can't be read: whoever has one of those
//! is refused, and would otherwise be the only one to know.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::Secrets;
use crate::config::{Auth, Secret};
use crate::stream::{About, Status};

/// How often it is looked. Files that could be read are not read more often for that.
const LOOK: Duration = Duration::from_secs(5);

/// The `auth` of one endpoint, and where it is told of.
pub struct Watch<S: AsRef<Status>> {
    /// The module's.
    pub secrets: Secrets,
    /// `flows.NAME.input`, and so on.
    pub path: Arc<str>,
    /// Of the endpoint.
    pub status: Arc<S>,
}

impl<S: AsRef<Status> + Send + Sync + 'static> Watch<S> {
    /// An endpoint that runs with its `auth` watched.
    pub fn over(self, auth: Option<Auth>, running: BoxFuture<'static, ()>) -> BoxFuture<'static, ()> {
        let Some(auth) = auth else { return running };
        Box::pin(async move {
            // Whatever ends it, nothing is said of it any more.
            let own = Silenced(self);
            tokio::select! {
                () = running => {}
                () = own.0.look(&auth) => {}
            }
        })
    }

    /// Never returns.
    async fn look(&self, auth: &Auth) {
        let mut said = None;
        loop {
            let remark = self.remark(auth).await;
            if remark != said {
                match &remark {
                    Some(remark) => tracing::warn!("{remark}"),
                    None => tracing::info!("{}.auth: every secret can be read again", self.path),
                }
                self.status.as_ref().as_ref().remark_about(About::Access, remark.clone());
                said = remark;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The first one that can't be read.
    async fn remark(&self, auth: &Auth) -> Option<String> {
        let (secrets, key) = match auth {
            Auth::Key(keys) => (keys.as_slice(), "key"),
            Auth::User { password, .. } => (std::slice::from_ref(password), "password"),
        };
        for secret in secrets {
            if let Err(error) = self.secrets.get(secret).await {
                let who = if secrets.len() > 1 { "who has this key is refused" } else { "nobody is let in" };
                let remedy = match secret {
                    Secret::Env(_) => "set it and restart the module",
                    Secret::Plain(_) | Secret::File(_) => "put it right, and it is read again by itself",
                };
                return Some(format!("{}.auth.{key}: {error}: {who}; {remedy}", self.path));
            }
        }
        None
    }
}

struct Silenced<S: AsRef<Status>>(Watch<S>);

impl<S: AsRef<Status>> Drop for Silenced<S> {
    fn drop(&mut self) {
        self.0.status.as_ref().as_ref().remark_about(About::Access, None);
    }
}

#[cfg(test)]
mod tests {
    use av_edge::Paths;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::stream::{Changes, InputStatus};

    /// Runs an endpoint with this `auth` until the token fires.
    fn run(auth: Auth) -> (Arc<InputStatus>, CancellationToken, tokio::task::JoinHandle<()>) {
        let (status, cancel) = (InputStatus::new(Changes::default()), CancellationToken::new());
        let secrets = Secrets::new(Paths::default());
        let watch = Watch { secrets, path: "flows.dock.input".into(), status: status.clone() };
        let ending = cancel.clone();
        let running = watch.over(Some(auth), Box::pin(async move { ending.cancelled().await }));
        (status, cancel, tokio::spawn(running))
    }

    async fn told(status: &InputStatus, is_it: impl Fn(Option<&str>) -> bool) -> Option<String> {
        let waiting = async {
            loop {
                let remark = status.status.get().remark;
                if is_it(remark.as_deref()) {
                    return remark;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("told in time")
    }

    #[tokio::test]
    async fn a_secret_that_cannot_be_read_is_in_the_state_with_its_remedy_until_the_endpoint_ends() {
        let unset = Secret::Env("AV_NO_SUCH_SECRET".into());
        let (status, cancel, task) = run(Auth::Key(vec![unset.clone()]));
        let said = told(&status, |remark| remark.is_some()).await.unwrap();
        assert_eq!(
            said,
            "flows.dock.input.auth.key: environment variable AV_NO_SUCH_SECRET is not set: nobody is let in; set it \
             and restart the module"
        );
        cancel.cancel();
        task.await.unwrap();
        assert_eq!(status.status.get().remark, None);

        let (status, ..) = run(Auth::User { username: "staff".into(), password: unset.clone() });
        let said = told(&status, |remark| remark.is_some()).await.unwrap();
        assert!(said.starts_with("flows.dock.input.auth.password: "), "{said}");
        let (status, ..) = run(Auth::Key(vec![Secret::Plain("good".into()), unset]));
        let said = told(&status, |remark| remark.is_some()).await.unwrap();
        assert!(said.contains("is not set: who has this key is refused"), "{said}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_has_come_is_found_and_one_that_has_gone_is_missed_without_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let (status, ..) = run(Auth::Key(vec![Secret::File(path.clone())]));
        let said = told(&status, |remark| remark.is_some()).await.unwrap();
        assert!(said.contains("/key: no such file: nobody is let in"), "{said}");
        std::fs::write(&path, "one").unwrap();
        told(&status, |remark| remark.is_none()).await;
    }
}
