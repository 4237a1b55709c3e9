//! The relay: this machine's one outbound connection to Letta Cloud.
//!
//! Registers, connects, watches, reconnects and registers again, as one explicit
//! state machine (`machine`) that this module drives: each step is carried out,
//! and what came of it decides the next. Invariants: every change is published
//! as one [`RelayStatus`]; a stop is heard in every step and opens no socket any
//! more; nothing outlives [`Relay::run`] (00 §5, 01 §6, §8).

mod address;
mod backoff;
mod contract;
mod dial;
mod heartbeat;
mod lifecycle;
mod machine;
mod open;
mod session;
mod status;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

pub use self::contract::{
    AuthClass, AuthError, Authorizer, Direction, FrameLog, Label, RegisterClass, RegisterError,
    Registrar, Registration,
};
pub use self::status::{DisconnectReason, ExitReason, RelayState, RelayStatus};

use self::address::masked;
use self::dial::Dial;
use self::machine::{Event, Machine, Step};
use self::open::{Attempt, Sockets};
use self::session::{Ended, Notice, Session};
use crate::listener::door::{DoorEvent, DoorSender};
use crate::listener::outbox::Outbox;
use crate::protocol::ConnectionId;

/// A registration or a token lookup that takes longer counts as failed.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);

/// How long the door may take to hear of the end.
const FAREWELL_LIMIT: Duration = Duration::from_secs(1);

/// Who this machine is, and how long it may try.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// The machine's id.
    pub device_id: String,
    /// The name that people see.
    pub connection_name: String,
    /// `LETTA_MAX_OFFLINE`: how long there may be no good connection. A
    /// connection is good once it has held for a minute.
    pub max_offline: Option<Duration>,
    /// `LETTA_LISTENER_STREAM_OPEN_TIMEOUT_MS`: how long a pair's sockets may
    /// take to be accepted (01 §8.3).
    pub ready_limit: Duration,
}

impl RelayConfig {
    /// The usual limits: for ever, and 30 s.
    pub fn new(device_id: impl Into<String>, connection_name: impl Into<String>) -> Self {
        Self {
            device_id: device_id.into(),
            connection_name: connection_name.into(),
            max_offline: None,
            ready_limit: Duration::from_secs(30),
        }
    }
}

/// What the relay uses of other floors.
#[derive(Clone)]
pub struct RelayParts {
    /// Registers the machine.
    pub registrar: Arc<dyn Registrar>,
    /// Hands out tokens.
    pub authorizer: Arc<dyn Authorizer>,
    /// The session log.
    pub log: Arc<dyn FrameLog>,
    /// The listener.
    pub door: DoorSender,
}

/// How the relay ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayEnd {
    /// Why, and the exit code.
    pub exit: ExitReason,
}

/// The relay connection. [`run`](Self::run) is its whole life.
pub struct Relay {
    config: RelayConfig,
    parts: RelayParts,
    dial: Box<dyn Dial>,
    machine: Machine,
    status: watch::Sender<RelayStatus>,
    bearer: Option<String>,
    registration: Option<Registration>,
    /// Of the current registration.
    outbox: Outbox,
    /// The connection that the listener knows.
    announced: Option<ConnectionId>,
    /// Opened and about to be served.
    sockets: Option<Sockets>,
}

impl Relay {
    /// A relay that connects with `client`, which brings proxies, roots and TCP
    /// keepalive, and must follow no redirects and set no overall timeout.
    pub fn new(config: RelayConfig, parts: RelayParts, client: reqwest::Client) -> Self {
        Self::with_dial(config, parts, Box::new(client))
    }

    fn with_dial(config: RelayConfig, parts: RelayParts, dial: Box<dyn Dial>) -> Self {
        let machine = Machine::new(Instant::now(), config.max_offline, fastrand::Rng::new());
        Self {
            status: watch::Sender::new(machine.status().clone()),
            config,
            parts,
            dial,
            machine,
            bearer: None,
            registration: None,
            outbox: Outbox::new(),
            announced: None,
            sockets: None,
        }
    }

    /// Snapshots of the relay, also after its end.
    pub fn status(&self) -> watch::Receiver<RelayStatus> {
        self.status.subscribe()
    }

    /// Connects and stays connected until there is a reason to end.
    ///
    /// Cancelling closes the sockets with 1000 after sending what waits, within
    /// two seconds: the listener must have said its last word before. A listener
    /// that dropped its end of the door counts as a stop: whoever runs both must
    /// look at how the listener ended.
    pub async fn run(mut self, cancel: CancellationToken) -> RelayEnd {
        let mut step = self.machine.start(Instant::now());
        loop {
            self.publish();
            self.journal(&step);
            let event = match step {
                Step::End(exit) => {
                    self.bid_farewell().await;
                    return RelayEnd { exit };
                }
                Step::Serve => self.serve(&cancel).await,
                step => self.carry_out(step, &cancel).await,
            };
            step = self.machine.on(event, Instant::now());
        }
    }

    /// Carries out a step without open sockets: cancellation drops it.
    async fn carry_out(&mut self, step: Step, cancel: &CancellationToken) -> Event {
        let deadline = self.machine.offline_deadline();
        let offline = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => Event::Stop,
            () = offline => Event::OfflineTooLong,
            event = self.attempt(step) => event,
        }
    }

    async fn attempt(&mut self, step: Step) -> Event {
        match step {
            Step::Authorize => {
                let bearer = self.parts.authorizer.bearer(false);
                let bearer = timeout(REQUEST_LIMIT, bearer).await;
                self.authorized(bearer.unwrap_or_else(|_| Err(credentials_timed_out())))
            }
            Step::Login => {
                let bearer = self.parts.authorizer.bearer(true).await;
                self.authorized(bearer)
            }
            Step::Register => {
                let answer = timeout(REQUEST_LIMIT, self.parts.registrar.register()).await;
                match answer.unwrap_or_else(|_| Err(registration_timed_out())) {
                    Ok(registration) => self.registered(registration),
                    Err(error) => Event::NotRegistered(error),
                }
            }
            Step::Open { number } => self.open(number).await,
            Step::Wait(wait) => {
                sleep(wait).await;
                Event::Waited
            }
            // Taken by `run`, which never sends them here.
            Step::Serve | Step::End(_) => Event::Stop,
        }
    }

    fn authorized(&mut self, bearer: Result<Option<String>, AuthError>) -> Event {
        match bearer {
            Ok(bearer) => {
                self.bearer = bearer;
                Event::Authorized
            }
            Err(error) => Event::NotAuthorized(error),
        }
    }

    fn registered(&mut self, registration: Registration) -> Event {
        let id = registration.connection_id.clone();
        let again = match &self.registration {
            None => "Registered",
            Some(_) => "Re-registered",
        };
        let url = masked(&registration.ws_url);
        self.line(&format!("{again}: connectionId={id}"));
        self.line(&format!("wsUrl: {url}"));
        // Numbers belong to the id: a new one counts from 1.
        let before = self.registration.replace(registration);
        if before.is_some_and(|before| before.connection_id != id) {
            self.outbox = Outbox::new();
        }
        Event::Registered(id)
    }

    async fn open(&mut self, number: u32) -> Event {
        let Some(registration) = &self.registration else {
            // The machine opens only what was registered.
            return Event::Stop;
        };
        let attempt = Attempt {
            dial: &*self.dial,
            log: &*self.parts.log,
            registration,
            device_id: &self.config.device_id,
            connection_name: &self.config.connection_name,
            bearer: self.bearer.as_deref(),
            number,
            ready_limit: self.config.ready_limit,
        };
        match attempt.open().await {
            Ok(sockets) => {
                self.sockets = Some(sockets);
                Event::Opened
            }
            Err(error) => Event::NotOpened(error),
        }
    }

    async fn serve(&mut self, cancel: &CancellationToken) -> Event {
        let (Some(sockets), Some(registration)) = (self.sockets.take(), &self.registration) else {
            // The machine serves only what was opened.
            return Event::Stop;
        };
        let connection = registration.connection_id.clone();
        let replaces = self.announced.replace(connection.clone());
        let session = Session {
            connection: &connection,
            connection_name: &self.config.connection_name,
            replaces: replaces.filter(|old| *old != connection),
            outbox: &self.outbox,
            door: &self.parts.door,
            log: &self.parts.log,
            cancel,
        };
        let (machine, status) = (&mut self.machine, &self.status);
        let ended = session.run(sockets, |notice| {
            match notice {
                Notice::Pong(now) => machine.ponged(now),
                Notice::Draining(now) => machine.draining(now),
            }
            status.send_replace(machine.status().clone());
        });
        match ended.await {
            Ended::Stopped => Event::Stop,
            Ended::Lost(loss) => {
                let closed = DoorEvent::Closed { connection };
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => return Event::Stop,
                    sent = self.parts.door.send(closed) => {
                        if sent.is_err() {
                            return Event::Stop;
                        }
                    }
                }
                Event::Lost(loss)
            }
        }
    }

    /// Tells the listener that its connection will not come back.
    async fn bid_farewell(&mut self) {
        if let Some(connection) = self.announced.take() {
            let gone = self.parts.door.send(DoorEvent::Gone { connection });
            // A listener that is gone itself need not hear it.
            drop(timeout(FAREWELL_LIMIT, gone).await);
        }
    }

    fn publish(&self) {
        self.status.send_replace(self.machine.status().clone());
    }

    /// The lines of the session log that tell of the machine's decisions (01 §9).
    fn journal(&self, step: &Step) {
        let status = self.machine.status();
        let text = status.last_error.as_deref().unwrap_or_default();
        let again = self.registration.is_some();
        match (step, &status.state) {
            (Step::Wait(wait), RelayState::Reconnecting { attempt, .. }) => {
                let seconds = wait.as_secs_f32().round();
                self.line(&format!("Error: {text}"));
                self.line(&format!(
                    "Reconnecting (attempt {attempt}, retry in {seconds}s)"
                ));
            }
            (Step::Wait(wait), _) => {
                let which = if again {
                    "Registration"
                } else {
                    "Initial registration"
                };
                let (attempt, seconds) = (status.attempt, wait.as_secs_f32().round());
                self.line(&format!("{which} retry {attempt} in {seconds}s: {text}"));
            }
            (Step::Register, _) if again && status.attempt == 0 => {
                self.line("Computer connection expired, re-registering...");
            }
            (Step::Login, _) => self.line("Waiting for a login."),
            (Step::End(reason), _) => {
                self.line("Disconnected.");
                if reason.code() != 0 {
                    self.line(&format!("FATAL: {reason}"));
                }
            }
            _ => {}
        }
    }

    fn line(&self, text: &str) {
        self.parts.log.line(text);
    }
}

fn credentials_timed_out() -> AuthError {
    AuthError {
        text: "credentials could not be had in time".to_owned(),
        class: AuthClass::Transient,
    }
}

fn registration_timed_out() -> RegisterError {
    RegisterError {
        text: "the server did not answer the registration in time".to_owned(),
        class: RegisterClass::Transient { retry_after: None },
    }
}

#[cfg(test)]
mod tests;
