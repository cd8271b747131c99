//! The answering side.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use super::{Answer, Ask, MAX_LINE};
use crate::accept::accept;
use crate::instance::{AGENT, Instance};
use crate::logs::Log;

/// How long `twin set` waits for the module's word.
const REPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// A method may take as long as IoT Hub allows.
const METHOD_TIMEOUT: std::ops::RangeInclusive<u64> = 1..=300;
const MAX_CONNECTIONS: usize = 64;

/// Why a question is not answered, as the asker reads it.
type Refused = String;

/// Answers until cancelled.
pub async fn serve(instance: Arc<Instance>, listener: UnixListener, stop: CancellationToken) {
    let serve = move |stream| {
        let instance = Arc::clone(&instance);
        async move { drop(answer(&instance, stream).await) }
    };
    accept(listener, MAX_CONNECTIONS, stop, serve).await;
}

async fn answer(instance: &Instance, stream: UnixStream) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    (&mut read).take(MAX_LINE as u64).read_until(b'\n', &mut line).await?;
    let done = match serde_json::from_slice(&line) {
        Ok(ask) => {
            // An asker that goes away ends what it follows; it has nothing more to say otherwise.
            let mut more = [0];
            tokio::select! {
                done = respond(instance, ask, &mut write) => done?,
                _ = read.read(&mut more) => return Ok(()),
            }
        }
        Err(error) => Err(format!("not a request that this version of local-edge knows: {error}")),
    };
    let last = done.map_or_else(Answer::Error, |()| Answer::Done);
    send(&mut write, &last).await
}

async fn send(write: &mut OwnedWriteHalf, answer: &Answer) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    write.write_all(&line).await
}

async fn item(write: &mut OwnedWriteHalf, item: impl Into<Value>) -> std::io::Result<()> {
    send(write, &Answer::Item(item.into())).await
}

/// The outer result is the connection's, the inner one the answer's.
async fn respond(
    instance: &Instance,
    ask: Ask,
    write: &mut OwnedWriteHalf,
) -> std::io::Result<Result<(), Refused>> {
    let hub = &instance.hub;
    let answer = match ask {
        Ask::Ps => Ok(serde_json::to_value(instance.view())?),
        Ask::TwinShow { module } => {
            hub.twin(&module).map(|twin| twin.document()).map_err(|error| error.to_string())
        }
        Ask::TwinSet { module, desired, replace } => {
            return twin_set(instance, &module, desired, replace, write).await;
        }
        Ask::Method { module, name, payload, timeout_seconds } => {
            if !METHOD_TIMEOUT.contains(&timeout_seconds) {
                return Ok(Err("a method may take from 1 to 300 s".into()));
            }
            if module.eq_ignore_ascii_case(AGENT) {
                let answer = instance.agent_method(&name, payload);
                let answer = json!({ "status": answer.status, "payload": answer.payload });
                return item(write, answer).await.map(Ok);
            }
            let timeout = Duration::from_secs(timeout_seconds);
            let answer = hub.invoke(&module, &name, &payload, timeout).await;
            answer
                .map(|answer| json!({ "status": answer.status, "payload": answer.payload }))
                .map_err(|error| error.to_string())
        }
        Ask::Logs { module, tail, follow } => {
            let logs = match instance.logs(module.as_deref()) {
                Ok(logs) => logs,
                Err(text) => return Ok(Err(text)),
            };
            return logs_of(logs, tail, follow, write).await.map(Ok);
        }
        Ask::Events { follow } => {
            let (events, mut live) = hub.events.since_start();
            for event in events {
                item(write, serde_json::to_value(&*event)?).await?;
            }
            if follow {
                loop {
                    match live.recv().await {
                        Ok(event) => item(write, serde_json::to_value(&*event)?).await?,
                        Err(broadcast::error::RecvError::Lagged(_)) => {}
                        Err(broadcast::error::RecvError::Closed) => break,
                    }
                }
            }
            return Ok(Ok(()));
        }
        Ask::Restart { module } => return Ok(instance.restart(&module)),
        Ask::Fault { fault } => return Ok(instance.fault(fault).await),
        Ask::Env { module, connection_string } => match instance.environment(&module, connection_string) {
            Ok(pairs) => {
                for (name, value) in pairs {
                    item(write, format!("{name}={value}")).await?;
                }
                return Ok(Ok(()));
            }
            Err(text) => Err(text),
        },
    };
    match answer {
        Ok(value) => item(write, value).await.map(Ok),
        Err(text) => Ok(Err(text)),
    }
}

async fn twin_set(
    instance: &Instance,
    module: &str,
    desired: serde_json::Map<String, Value>,
    replace: bool,
    write: &mut OwnedWriteHalf,
) -> std::io::Result<Result<(), Refused>> {
    // Before the change, so that no report is missed.
    let mut changes = instance.hub.changes();
    let change = instance.hub.with_desired(module, &desired, replace).map_err(|error| error.to_string());
    let change = change.and_then(|wanted| {
        instance.look_at_device_rules(module, &wanted)?;
        instance.hub.set_desired(module, desired, replace).map_err(|error| error.to_string())
    });
    let change = match change {
        Ok(change) => change,
        Err(why) => return Ok(Err(why)),
    };
    item(write, json!({ "version": change.version, "connected": change.connected })).await?;
    if !change.connected {
        return Ok(Ok(()));
    }
    let reported = async {
        loop {
            changes.borrow_and_update();
            let reported = instance.hub.reported_now(module);
            let config = reported.as_ref().and_then(|reported| reported.get("config"));
            if let Some(config) = config
                && config.get("desiredVersion").and_then(Value::as_u64) >= Some(change.version)
            {
                return config.clone();
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    if let Ok(config) = tokio::time::timeout(REPORT_TIMEOUT, reported).await {
        item(write, config).await?;
    }
    Ok(Ok(()))
}

async fn logs_of(
    logs: Vec<(String, Arc<Log>)>,
    tail: usize,
    follow: bool,
    write: &mut OwnedWriteHalf,
) -> std::io::Result<()> {
    let several = logs.len() > 1;
    let line =
        move |name: &str, line: &str| if several { format!("{name} | {line}") } else { line.to_owned() };
    let (sender, mut live) = mpsc::channel(64);
    for (name, log) in logs {
        let (lines, mut coming) = log.tail(tail);
        for text in lines {
            item(write, line(&name, &text)).await?;
        }
        if follow {
            let sender = sender.clone();
            // Ends with its receiver, at the next line at the latest.
            tokio::spawn(async move {
                loop {
                    match coming.recv().await {
                        Ok(text) if sender.send(line(&name, &text)).await.is_ok() => {}
                        Err(broadcast::error::RecvError::Lagged(_)) => {}
                        _ => break,
                    }
                }
            });
        }
    }
    drop(sender);
    while let Some(text) = live.recv().await {
        item(write, text).await?;
    }
    Ok(())
}
