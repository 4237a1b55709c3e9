//! How the listener is: the one value from which every health answer is made.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::protocol::PermissionMode;
use crate::protocol::time::iso_millis;

/// The relay pings and pongs every 30 s and is given up after 120 s of silence;
/// three missed answers make a connection unfit for work.
const PONG_FRESH: Duration = Duration::from_secs(100);

/// Longest text taken over from elsewhere, in characters.
const LONGEST_TEXT: usize = 300;

/// What the listener is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthState {
    /// Reading its configuration.
    Starting,
    /// Waiting for a person to log it in.
    LoginRequired {
        /// Where to log in.
        url: String,
        /// What to enter there.
        code: String,
    },
    /// On its way to its first connection.
    Connecting,
    /// Registered, and the relay connection is open.
    Connected,
    /// The connection was lost.
    Reconnecting,
    /// Going down: finishing what runs.
    Draining,
}

impl HealthState {
    /// The name in answers.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::LoginRequired { .. } => "login_required",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Reconnecting => "reconnecting",
            Self::Draining => "draining",
        }
    }
}

/// Everything the health endpoints tell. Sent through a watch channel by the
/// owner of the connection.
#[derive(Clone, Debug)]
pub struct HealthSnapshot {
    /// What the listener is doing.
    pub state: HealthState,
    /// Since when.
    pub since: SystemTime,
    /// Number of the present attempt to connect; 0 when connected.
    pub attempt: u32,
    /// When the next attempt begins.
    pub next_retry: Option<Instant>,
    /// When the relay last showed that it is there: on open and at each pong.
    pub last_pong: Option<Instant>,
    /// What went wrong last, without secrets.
    pub last_error: Option<String>,
    /// The name of this environment.
    pub environment: String,
    /// The id of this machine.
    pub device: Option<String>,
    /// The version of this program.
    pub version: &'static str,
    /// The default permission mode.
    pub mode: PermissionMode,
    /// Where that mode comes from: a flag, a variable, a file, the default.
    pub mode_source: String,
    /// Turns running now.
    pub active_turns: usize,
    /// Messages waiting for their turn.
    pub queued: usize,
    /// Tool calls waiting for a human.
    pub pending_approvals: usize,
}

impl HealthSnapshot {
    /// The first snapshot of a process.
    pub fn starting(version: &'static str, now: SystemTime) -> Self {
        Self {
            state: HealthState::Starting,
            since: now,
            attempt: 0,
            next_retry: None,
            last_pong: None,
            last_error: None,
            environment: String::new(),
            device: None,
            version,
            mode: PermissionMode::Unrestricted,
            mode_source: String::from("default"),
            active_turns: 0,
            queued: 0,
            pending_approvals: 0,
        }
    }

    /// Moves to a state; `since` changes only when the state does.
    pub fn enter(&mut self, state: HealthState, now: SystemTime) {
        if self.state != state {
            self.state = state;
            self.since = now;
        }
    }

    /// Whether work sent to this environment reaches it now.
    pub fn is_ready(&self) -> bool {
        self.state == HealthState::Connected
            && self.last_pong.is_some_and(|at| at.elapsed() < PONG_FRESH)
    }

    /// Seconds until the next attempt, when one is planned.
    pub fn next_retry_s(&self) -> Option<u64> {
        let at = self.next_retry?;
        Some(
            at.saturating_duration_since(Instant::now())
                .as_secs_f64()
                .ceil() as u64,
        )
    }

    /// What went wrong last, bounded.
    pub(super) fn bounded_error(&self) -> Option<String> {
        self.last_error.as_deref().map(bounded)
    }

    /// The name of this environment, bounded.
    pub(super) fn bounded_environment(&self) -> String {
        bounded(&self.environment)
    }

    /// The body of `/readyz`.
    pub(super) fn readiness_json(&self) -> Value {
        json!({
            "state": self.state.as_str(),
            "since": iso_millis(self.since),
            "attempt": self.attempt,
            "next_retry_s": self.next_retry_s(),
            "last_error": self.bounded_error(),
            "environment": self.bounded_environment(),
            "version": self.version,
        })
    }

    /// The body of `/` for programs.
    pub(super) fn status_json(&self, alive: bool) -> Value {
        let mut status = self.readiness_json();
        let more = json!({
            "live": alive,
            "ready": self.is_ready(),
            "device": self.device,
            "permission_mode": self.mode.as_str(),
            "permission_mode_source": self.mode_source,
            "active_turns": self.active_turns,
            "queued": self.queued,
            "pending_approvals": self.pending_approvals,
        });
        if let (Value::Object(status), Value::Object(more)) = (&mut status, more) {
            status.extend(more);
        }
        status
    }
}

fn bounded(text: &str) -> String {
    match text.char_indices().nth(LONGEST_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected() -> HealthSnapshot {
        let mut snapshot = HealthSnapshot::starting("1", SystemTime::UNIX_EPOCH);
        snapshot.enter(HealthState::Connected, SystemTime::UNIX_EPOCH);
        snapshot.last_pong = Some(Instant::now());
        snapshot
    }

    #[tokio::test(start_paused = true)]
    async fn ready_means_connected_and_answering() {
        let mut snapshot = connected();
        assert!(snapshot.is_ready());
        tokio::time::advance(PONG_FRESH).await;
        assert!(!snapshot.is_ready(), "the last pong is too old");
        snapshot.last_pong = Some(Instant::now());
        snapshot.enter(HealthState::Draining, SystemTime::UNIX_EPOCH);
        assert!(!snapshot.is_ready(), "draining");
    }

    #[tokio::test(start_paused = true)]
    async fn a_planned_retry_counts_down() {
        let mut snapshot = connected();
        snapshot.next_retry = Some(Instant::now() + Duration::from_millis(2500));
        assert_eq!(snapshot.next_retry_s(), Some(3));
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(snapshot.next_retry_s(), Some(0));
    }

    #[test]
    fn since_tells_when_the_state_changed() {
        let mut snapshot = HealthSnapshot::starting("1", SystemTime::UNIX_EPOCH);
        let later = SystemTime::UNIX_EPOCH + Duration::from_secs(5);
        snapshot.enter(HealthState::Starting, later);
        assert_eq!(snapshot.since, SystemTime::UNIX_EPOCH);
        snapshot.enter(HealthState::Connecting, later);
        assert_eq!(snapshot.since, later);
    }

    #[test]
    fn long_errors_are_cut() {
        let mut snapshot = HealthSnapshot::starting("1", SystemTime::UNIX_EPOCH);
        snapshot.last_error = Some("é".repeat(5000));
        let error = snapshot.readiness_json()["last_error"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_eq!(error.chars().count(), LONGEST_TEXT + 1);
    }
}
