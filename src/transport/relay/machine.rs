//! The life of the relay connection as a pure state machine (01 §6, §8.5–8.7).
//!
//! It is told what happened and says what to do next; it does no I/O and reads
//! no clock. Invariants: only a stop, a successor, refused credentials, an
//! unusable server or `LETTA_MAX_OFFLINE` end it, never the network (00 §1
//! row 3); only a connection that held for a minute makes waits short again.

use std::time::Duration;

use tokio::time::Instant;

use super::backoff;
use super::contract::{AuthClass, AuthError, RegisterClass, RegisterError};
use super::status::{DisconnectReason, ExitReason, RelayState, RelayStatus, one_line};
use crate::listener::outbox::Lane;
use crate::protocol::ConnectionId;
use crate::transport::socket::{Cause, Close};

/// A connection that held this long was good: the next failure is a first one.
pub(super) const GOOD_AFTER: Duration = Duration::from_secs(60);

/// Failing to open the sockets for this long makes the machine register again.
const RECONNECT_WINDOW: Duration = Duration::from_secs(5 * 60);

/// The reason of a close that says another process took over (01 §8.5).
const REPLACED: &str = "Replaced by new connection";

/// What the driver does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Get credentials without asking anyone.
    Authorize,
    /// Get credentials, asking a person.
    Login,
    /// Register.
    Register,
    /// Open the sockets.
    Open {
        /// 1, 2, … since the registration: the `connectionAttempt` of a pair.
        number: u32,
    },
    /// Serve the open sockets until they are lost.
    Serve,
    /// Wait.
    Wait(Duration),
    /// Stop here.
    End(ExitReason),
}

/// What happened.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// Credentials are there.
    Authorized,
    /// They are not.
    NotAuthorized(AuthError),
    /// The machine is registered.
    Registered(ConnectionId),
    /// It is not.
    NotRegistered(RegisterError),
    /// The sockets are open.
    Opened,
    /// They are not.
    NotOpened(OpenError),
    /// They were open and no longer are.
    Lost(Loss),
    /// The wait is over.
    Waited,
    /// Offline for as long as is allowed.
    OfflineTooLong,
    /// Asked to stop, and everything open is closed.
    Stop,
}

/// Why sockets could not be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OpenError {
    /// The address cannot be used, whatever one tries.
    Unusable(String),
    /// The control socket was closed before the connection was open.
    Closed(Close),
    /// Refused, timed out, out of step.
    Failed(String),
}

/// How an open connection was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// One of its sockets closed.
    Closed(Lane, Close),
    /// The relay answered no pings.
    Unanswered,
}

/// What the machine is trying to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Register,
    Connect,
}

/// The state machine. See the module.
#[derive(Debug)]
pub(super) struct Machine {
    status: RelayStatus,
    goal: Goal,
    /// Failed registrations since the last success.
    unregistered: u32,
    /// Failed or short-lived connections since the last good one.
    failures: u32,
    /// Registrations that expired since the last good connection.
    expirations: u32,
    /// Sockets opened or tried since the registration.
    opens: u32,
    /// Since when connecting has been failing (01 §8.6).
    window_start: Instant,
    /// Since when there has been no good connection.
    offline_since: Instant,
    max_offline: Option<Duration>,
    rng: fastrand::Rng,
}

impl Machine {
    /// A machine at its start.
    pub(super) fn new(now: Instant, max_offline: Option<Duration>, rng: fastrand::Rng) -> Self {
        Self {
            status: RelayStatus::new(now),
            goal: Goal::Register,
            unregistered: 0,
            failures: 0,
            expirations: 0,
            opens: 0,
            window_start: now,
            offline_since: now,
            max_offline,
            rng,
        }
    }

    /// The first step.
    pub(super) fn start(&mut self, now: Instant) -> Step {
        self.pursue(Goal::Register, now)
    }

    /// The snapshot to publish.
    pub(super) fn status(&self) -> &RelayStatus {
        &self.status
    }

    /// When `LETTA_MAX_OFFLINE` will have passed, if nothing opens until then.
    pub(super) fn offline_deadline(&self) -> Option<Instant> {
        match self.status.state {
            RelayState::Connected { .. } => None,
            _ => self.offline_since.checked_add(self.max_offline?),
        }
    }

    /// The relay answered a ping.
    pub(super) fn ponged(&mut self, now: Instant) {
        self.status.last_pong = Some(now);
    }

    /// The sockets are being closed because of a stop.
    pub(super) fn draining(&mut self, now: Instant) {
        self.enter(RelayState::Draining, now);
    }

    /// What follows from what happened.
    pub(super) fn on(&mut self, event: Event, now: Instant) -> Step {
        match event {
            Event::Authorized => self.authorized(now),
            Event::NotAuthorized(error) => self.not_authorized(error, now),
            Event::Registered(id) => self.registered(id, now),
            Event::NotRegistered(error) => self.not_registered(error, now),
            Event::Opened => self.opened(now),
            Event::NotOpened(error) => self.not_opened(error, now),
            Event::Lost(loss) => self.lost(&loss, now),
            Event::Waited => self.pursue(self.goal, now),
            Event::OfflineTooLong => self.end(ExitReason::Offline, now),
            Event::Stop => self.end(ExitReason::Stopped, now),
        }
    }

    fn authorized(&mut self, now: Instant) -> Step {
        match self.goal {
            Goal::Register => {
                let attempt = self.unregistered + 1;
                self.enter(RelayState::Registering { attempt }, now);
                Step::Register
            }
            Goal::Connect => {
                self.opens += 1;
                Step::Open { number: self.opens }
            }
        }
    }

    fn not_authorized(&mut self, error: AuthError, now: Instant) -> Step {
        self.failed_with(&error.text);
        match (error.class, self.goal, &self.status.state) {
            (AuthClass::Transient, Goal::Register, _) => self.retry_registration(None, now),
            (AuthClass::Transient, Goal::Connect, _) => self.retry_connection(now),
            // A login that ends with the need for a login was no login: try again.
            (AuthClass::LoginRequired, Goal::Register, RelayState::LoginRequired) => {
                self.retry_registration(None, now)
            }
            (AuthClass::LoginRequired, Goal::Register, _) => {
                self.enter(RelayState::LoginRequired, now);
                Step::Login
            }
            (AuthClass::LoginRequired, Goal::Connect, _) | (AuthClass::Refused, ..) => {
                self.end(ExitReason::Refused(one_line(&error.text)), now)
            }
        }
    }

    fn registered(&mut self, id: ConnectionId, now: Instant) -> Step {
        self.status.connection_id = Some(id);
        self.unregistered = 0;
        self.failures = 0;
        self.opens = 0;
        self.window_start = now;
        self.pursue(Goal::Connect, now)
    }

    fn not_registered(&mut self, error: RegisterError, now: Instant) -> Step {
        self.failed_with(&error.text);
        match error.class {
            RegisterClass::Transient { retry_after } => self.retry_registration(retry_after, now),
            RegisterClass::Fatal => self.end(ExitReason::Unusable(one_line(&error.text)), now),
            RegisterClass::Refused => self.end(ExitReason::Refused(one_line(&error.text)), now),
        }
    }

    fn opened(&mut self, now: Instant) -> Step {
        self.status.connects += 1;
        self.status.last_error = None;
        self.enter(RelayState::Connected { since: now }, now);
        self.status.attempt = 0;
        self.status.last_pong = Some(now);
        Step::Serve
    }

    fn not_opened(&mut self, error: OpenError, now: Instant) -> Step {
        match error {
            OpenError::Unusable(text) => {
                self.failed_with(&text);
                self.end(ExitReason::Unusable(one_line(&text)), now)
            }
            OpenError::Failed(text) => {
                self.failed_with(&text);
                self.retry_connection(now)
            }
            OpenError::Closed(close) => {
                self.failed_with(&close.to_string());
                match verdict(Lane::Control, &close) {
                    Verdict::Expired => self.expired(now),
                    Verdict::Replaced => self.end(ExitReason::Superseded, now),
                    Verdict::Transient => self.retry_connection(now),
                }
            }
        }
    }

    fn lost(&mut self, loss: &Loss, now: Instant) -> Step {
        let held = match self.status.state {
            RelayState::Connected { since } => now.duration_since(since),
            _ => Duration::ZERO,
        };
        self.window_start = now;
        if held >= GOOD_AFTER {
            self.failures = 0;
            self.expirations = 0;
            self.offline_since = now;
        }
        let (verdict, reason, text) = match loss {
            Loss::Unanswered => (
                Verdict::Transient,
                DisconnectReason::Heartbeat,
                String::from("the relay answered no pings"),
            ),
            Loss::Closed(lane, close) => {
                let verdict = verdict(*lane, close);
                let reason = match verdict {
                    Verdict::Expired => DisconnectReason::Expired,
                    Verdict::Replaced => DisconnectReason::Replaced,
                    Verdict::Transient => DisconnectReason::of(close),
                };
                (verdict, reason, close.to_string())
            }
        };
        self.failed_with(&text);
        *self.status.disconnects.entry(reason).or_default() += 1;
        self.status.last_pong = None;
        match verdict {
            Verdict::Expired => self.expired(now),
            Verdict::Replaced => self.end(ExitReason::Superseded, now),
            Verdict::Transient if held >= GOOD_AFTER => self.pursue(Goal::Connect, now),
            Verdict::Transient => self.retry_connection(now),
        }
    }

    /// The registration is no longer valid. Once is normal and costs no wait; a
    /// relay that says so again and again is not asked in a tight loop.
    fn expired(&mut self, now: Instant) -> Step {
        self.expirations += 1;
        match self.expirations - 1 {
            0 => self.pursue(Goal::Register, now),
            repeats => {
                self.goal = Goal::Register;
                let wait = backoff::delay(repeats, None, &mut self.rng);
                self.enter(RelayState::Registering { attempt: 1 }, now);
                self.wait(wait, now)
            }
        }
    }

    fn retry_registration(&mut self, retry_after: Option<Duration>, now: Instant) -> Step {
        self.unregistered = self.unregistered.saturating_add(1);
        let wait = backoff::delay(self.unregistered, retry_after, &mut self.rng);
        let attempt = self.unregistered + 1;
        self.enter(RelayState::Registering { attempt }, now);
        self.status.attempt = self.unregistered;
        self.wait(wait, now)
    }

    fn retry_connection(&mut self, now: Instant) -> Step {
        self.failures = self.failures.saturating_add(1);
        if now.duration_since(self.window_start) >= RECONNECT_WINDOW {
            return self.pursue(Goal::Register, now);
        }
        let wait = backoff::delay(self.failures, None, &mut self.rng);
        let (attempt, retry_at) = (self.failures, now + wait);
        self.enter(RelayState::Reconnecting { attempt, retry_at }, now);
        self.status.attempt = attempt;
        self.wait(wait, now)
    }

    fn wait(&mut self, wait: Duration, now: Instant) -> Step {
        self.status.next_retry = Some(now + wait);
        Step::Wait(wait)
    }

    fn pursue(&mut self, goal: Goal, now: Instant) -> Step {
        self.goal = goal;
        let (state, attempt) = match goal {
            Goal::Register => {
                let attempt = self.unregistered + 1;
                (RelayState::Registering { attempt }, self.unregistered)
            }
            Goal::Connect => {
                let attempt = self.failures;
                (RelayState::Connecting { attempt }, attempt)
            }
        };
        self.enter(state, now);
        self.status.attempt = attempt;
        Step::Authorize
    }

    fn end(&mut self, reason: ExitReason, now: Instant) -> Step {
        let state = RelayState::Ended {
            reason: reason.clone(),
        };
        self.enter(state, now);
        Step::End(reason)
    }

    fn enter(&mut self, state: RelayState, now: Instant) {
        self.status.next_retry = None;
        if self.status.state != state {
            self.status.state = state;
            self.status.since = now;
        }
    }

    fn failed_with(&mut self, text: &str) {
        self.status.last_error = Some(one_line(text));
    }
}

/// What a close means (01 §8.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Register again.
    Expired,
    /// Another process took over.
    Replaced,
    /// Connect again.
    Transient,
}

fn verdict(lane: Lane, close: &Close) -> Verdict {
    match (lane, close.cause, close.code) {
        (Lane::Control, Cause::Peer, 1008) => Verdict::Expired,
        (_, Cause::Peer, 1000) if close.reason == REPLACED => Verdict::Replaced,
        _ => Verdict::Transient,
    }
}

#[cfg(test)]
mod tests;
