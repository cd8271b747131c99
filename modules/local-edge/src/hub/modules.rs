//! What the hub knows of each module at this moment.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rumqttc::mqttbytes::QoS;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::MethodAnswer;
use super::store::{Identity, Kept};
use super::topic::Subscription;
use crate::route::{self, Route, Sink};
use crate::twin::{Object, Twin};

/// Messages that wait for a module that is away or slow, and their bytes; the oldest goes first.
const MAX_INPUTS: usize = 1000;
const MAX_INPUT_BYTES: usize = 16 << 20;
/// Commands that wait for one connection.
const MAX_COMMANDS: usize = 256;

/// What a connection is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Publish a desired patch.
    Desired(Object),
    /// Publish a method call, and keep who waits for the answer.
    Method { name: String, payload: String, answer: oneshot::Sender<MethodAnswer> },
    /// Messages wait for the module's inputs.
    Inputs,
    /// Break off.
    Cut,
    /// Find the token expired.
    ExpireToken,
}

/// A message for a module's input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub input: String,
    pub bag: String,
    pub body: bytes::Bytes,
}

impl Message {
    fn bytes(&self) -> usize {
        self.bag.len().saturating_add(self.body.len())
    }
}

/// Granted QoS of each subscription that means something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Subscriptions {
    pub twin_answers: Option<QoS>,
    pub desired: Option<QoS>,
    pub methods: Option<QoS>,
    pub inputs: Option<QoS>,
}

impl Subscriptions {
    pub fn set(&mut self, subscription: Subscription, qos: Option<QoS>) {
        match subscription {
            Subscription::TwinAnswers => self.twin_answers = qos,
            Subscription::Desired => self.desired = qos,
            Subscription::Methods => self.methods = qos,
            Subscription::Inputs => self.inputs = qos,
        }
    }
}

/// The connection that counts for a module.
#[derive(Debug)]
pub(super) struct SessionHandle {
    id: u64,
    commands: mpsc::Sender<Command>,
    close: CancellationToken,
}

/// A new connection's end of it.
pub(super) struct Attached {
    pub id: u64,
    pub commands: mpsc::Receiver<Command>,
    /// Cancelled when another connection with this identity came.
    pub close: CancellationToken,
    /// Subscriptions of an earlier connection are in force.
    pub session_present: bool,
}

pub(super) struct ModuleState {
    pub identity: Identity,
    pub twin: Twin,
    pub session: Option<SessionHandle>,
    pub subscriptions: Subscriptions,
    pub inputs: VecDeque<Message>,
    pub reported_now: bool,
    /// Tokens that end then or before count as expired; seconds since 1970.
    pub expired: u64,
}

impl ModuleState {
    fn new(identity: Identity, twin: Twin) -> Self {
        let subscriptions = Subscriptions::default();
        Self {
            identity,
            twin,
            session: None,
            subscriptions,
            inputs: VecDeque::new(),
            reported_now: false,
            expired: 0,
        }
    }

    /// Hands a command to the connection. One that does not keep up is closed: it will ask for everything
    /// when it is back.
    pub fn send(&mut self, command: Command) -> bool {
        let Some(session) = &self.session else { return false };
        match session.commands.try_send(command) {
            Ok(()) => true,
            Err(_) => {
                session.close.cancel();
                false
            }
        }
    }

    /// Drops the oldest messages until one more of that size may wait; `false` where that was necessary.
    fn make_room(&mut self, bytes: usize) -> bool {
        let mut waiting: usize = self.inputs.iter().map(Message::bytes).sum();
        let mut free = true;
        while self.inputs.len() >= MAX_INPUTS || waiting.saturating_add(bytes) > MAX_INPUT_BYTES {
            let Some(dropped) = self.inputs.pop_front() else { break };
            waiting = waiting.saturating_sub(dropped.bytes());
            free = false;
        }
        free
    }

    pub fn kept(&self, module: &str) -> Kept {
        Kept { module: module.to_owned(), identity: self.identity.clone(), twin: self.twin.clone() }
    }
}

/// All modules, behind one lock that is never held across an await.
pub(super) struct Modules {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    modules: BTreeMap<String, ModuleState>,
    routes: Vec<Route>,
    last_session: u64,
}

/// Where a message went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Routed {
    pub upstream: bool,
    /// A route's condition was not met.
    pub filtered: bool,
    /// Modules whose input got it.
    pub inputs: usize,
    /// Modules that a route names and that do not exist, or whose queue was full.
    pub lost: Vec<String>,
}

impl Modules {
    pub fn new(kept: Vec<Kept>) -> Self {
        let modules =
            kept.into_iter().map(|kept| (kept.module, ModuleState::new(kept.identity, kept.twin))).collect();
        Self { state: Mutex::new(State { modules, ..State::default() }), changes: watch::channel(0).0 }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn tick(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub fn names(&self) -> Vec<String> {
        self.lock().modules.keys().cloned().collect()
    }

    pub fn ensure(&self, module: &str) -> Identity {
        let mut state = self.lock();
        let entry = state.modules.entry(module.to_owned());
        entry.or_insert_with(|| ModuleState::new(Identity::generate(), Twin::default())).identity.clone()
    }

    pub fn set_routes(&self, routes: Vec<Route>) {
        self.lock().routes = routes;
    }

    pub fn read<T>(&self, module: &str, f: impl FnOnce(&ModuleState) -> T) -> Option<T> {
        self.lock().modules.get(module).map(f)
    }

    /// Changes a module's state, and lets everyone know.
    pub fn change<T>(&self, module: &str, f: impl FnOnce(&mut ModuleState) -> T) -> Option<T> {
        let changed = self.lock().modules.get_mut(module).map(f);
        self.tick();
        changed
    }

    /// Hands a command to every connection there is.
    pub fn send_all(&self, command: impl Fn() -> Command) {
        for module in self.lock().modules.values_mut() {
            module.send(command());
        }
    }

    /// Forgets the subscriptions of every module.
    pub fn lose_subscriptions(&self) {
        for module in self.lock().modules.values_mut() {
            module.subscriptions = Subscriptions::default();
        }
    }

    /// A connection took the module's identity: it wins, the one before is closed.
    pub fn attach(&self, module: &str, clean: bool) -> Option<Attached> {
        let mut state = self.lock();
        state.last_session = state.last_session.wrapping_add(1);
        let id = state.last_session;
        let entry = state.modules.get_mut(module)?;
        if let Some(old) = entry.session.take() {
            old.close.cancel();
        }
        if clean {
            entry.subscriptions = Subscriptions::default();
        }
        let session_present = entry.subscriptions != Subscriptions::default();
        let (sender, commands) = mpsc::channel(MAX_COMMANDS);
        let close = CancellationToken::new();
        entry.session = Some(SessionHandle { id, commands: sender, close: close.clone() });
        drop(state);
        self.tick();
        Some(Attached { id, commands, close, session_present })
    }

    /// A connection ended. What it had not acknowledged goes back in front of what waits.
    ///
    /// They came from this queue, at most `MAX_IN_FLIGHT` of them and none longer than a packet: by so much it may pass
    /// its limits, until the next message makes room.
    pub fn detach(&self, module: &str, id: u64, unacknowledged: Vec<Message>) {
        self.change(module, |state| {
            for message in unacknowledged.into_iter().rev() {
                state.inputs.push_front(message);
            }
            if state.session.as_ref().is_some_and(|session| session.id == id) {
                state.session = None;
            } else {
                // Its successor may have looked at the queue before these came back.
                state.send(Command::Inputs);
            }
        });
    }

    /// The next message for this connection, if it is still the one that counts.
    pub fn take_input(&self, module: &str, id: u64) -> Option<Message> {
        let mut state = self.lock();
        let state = state.modules.get_mut(module)?;
        let current = state.session.as_ref().is_some_and(|session| session.id == id);
        if current { state.inputs.pop_front() } else { None }
    }

    /// Sends a message along every route that carries it.
    pub fn route(
        &self,
        module: &str,
        output: Option<&str>,
        message: route::Message<'_>,
        bag: &str,
        body: &bytes::Bytes,
    ) -> Routed {
        let mut routed = Routed::default();
        let mut state = self.lock();
        let State { modules, routes, .. } = &mut *state;
        for route in routes.iter().filter(|route| route.carries(module, output)) {
            if !route.lets_pass(message) {
                routed.filtered = true;
                continue;
            }
            let Sink::Input { module, input } = &route.sink else {
                routed.upstream = true;
                continue;
            };
            let Some(receiver) = modules.get_mut(module) else {
                routed.lost.push(format!("{module} (not known)"));
                continue;
            };
            let message = Message { input: input.clone(), bag: bag.to_owned(), body: body.clone() };
            if !receiver.make_room(message.bytes()) {
                let limit = format!("{MAX_INPUTS} messages or {} MiB wait already", MAX_INPUT_BYTES >> 20);
                routed.lost.push(format!("{module} ({limit})"));
            }
            receiver.inputs.push_back(message);
            receiver.send(Command::Inputs);
            routed.inputs = routed.inputs.saturating_add(1);
        }
        routed
    }
}

/// Shared by the session and its tests.
pub(super) type Shared = Arc<super::Hub>;
