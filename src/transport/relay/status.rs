//! What the relay says about itself: one snapshot, always whole.

use std::collections::BTreeMap;
use std::fmt;

use tokio::time::Instant;

use crate::protocol::ConnectionId;
use crate::transport::socket::{Cause, Close};

/// Longest `last_error`, in characters.
const MAX_ERROR_CHARS: usize = 300;

/// Where the relay stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayState {
    /// Not begun.
    Starting,
    /// A person must log in before the machine can register.
    LoginRequired,
    /// Registering, or waiting to try again.
    Registering {
        /// 1, 2, … since the last success.
        attempt: u32,
    },
    /// Opening the sockets.
    Connecting {
        /// Failed attempts before this one.
        attempt: u32,
    },
    /// Frames flow.
    Connected {
        /// Since when.
        since: Instant,
    },
    /// Waiting before the next attempt to open the sockets.
    Reconnecting {
        /// 1, 2, … since the last connection that held.
        attempt: u32,
        /// When it will be made.
        retry_at: Instant,
    },
    /// Asked to stop: what waits is being sent.
    Draining,
    /// Over.
    Ended {
        /// Why.
        reason: ExitReason,
    },
}

impl RelayState {
    /// The state in one word, for health endpoints and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::LoginRequired => "login_required",
            Self::Registering { .. } => "registering",
            Self::Connecting { .. } => "connecting",
            Self::Connected { .. } => "connected",
            Self::Reconnecting { .. } => "reconnecting",
            Self::Draining => "draining",
            Self::Ended { .. } => "ended",
        }
    }
}

/// Why the relay ended, and with which code the process exits (00 §5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// It was asked to stop: 0.
    Stopped,
    /// Another process took this machine's place: 69.
    Superseded,
    /// Offline for longer than `LETTA_MAX_OFFLINE`: 69.
    Offline,
    /// Credentials were refused, or a new login is needed: 77. The text says which.
    Refused(String),
    /// The server does not register machines or names no usable address: 78.
    Unusable(String),
}

impl ExitReason {
    /// The exit code of the process.
    pub fn code(&self) -> u8 {
        match self {
            Self::Stopped => 0,
            Self::Superseded | Self::Offline => 69,
            Self::Refused(_) => 77,
            Self::Unusable(_) => 78,
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::Superseded => f.write_str(
                "another process connected under this computer's name and took over; \
                 stop one of them or give it another name",
            ),
            Self::Offline => f.write_str("offline for longer than LETTA_MAX_OFFLINE allows"),
            Self::Refused(text) | Self::Unusable(text) => f.write_str(text),
        }
    }
}

/// Why an open connection ended, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DisconnectReason {
    /// The relay closed it and expects a reconnect.
    Closed,
    /// The relay closed it with 1008: the registration expired.
    Expired,
    /// Another process took over.
    Replaced,
    /// The network broke it.
    Network,
    /// The relay answered no pings.
    Heartbeat,
    /// The relay took no bytes, or the outbox overflowed.
    Slow,
    /// A message above 100 MiB, or a breach of the WebSocket protocol.
    Protocol,
}

impl DisconnectReason {
    /// The reason as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Expired => "expired",
            Self::Replaced => "replaced",
            Self::Network => "network",
            Self::Heartbeat => "heartbeat",
            Self::Slow => "slow",
            Self::Protocol => "protocol",
        }
    }

    /// How a transient close is counted.
    pub(super) fn of(close: &Close) -> Self {
        match close.cause {
            Cause::Peer => Self::Closed,
            Cause::Network | Cause::Local => Self::Network,
            Cause::Overflow | Cause::Stalled => Self::Slow,
            Cause::TooLarge | Cause::Protocol => Self::Protocol,
        }
    }
}

/// A snapshot of the relay, published at every change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayStatus {
    /// Where it stands.
    pub state: RelayState,
    /// Since when it has been in this state.
    pub since: Instant,
    /// Failed attempts since the last success, of whatever is being tried.
    pub attempt: u32,
    /// When the next attempt is made, if one is waited for.
    pub next_retry: Option<Instant>,
    /// What failed last: one line, at most 300 characters, no secrets. Kept
    /// until a connection is open.
    pub last_error: Option<String>,
    /// The id of the current registration.
    pub connection_id: Option<ConnectionId>,
    /// Connections opened since the start.
    pub connects: u64,
    /// Open connections that ended, by reason.
    pub disconnects: BTreeMap<DisconnectReason, u64>,
    /// When the relay last answered a ping on the current connection; the
    /// opening counts as an answer.
    pub last_pong: Option<Instant>,
}

impl RelayStatus {
    /// Nothing has happened yet.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            state: RelayState::Starting,
            since: now,
            attempt: 0,
            next_retry: None,
            last_error: None,
            connection_id: None,
            connects: 0,
            disconnects: BTreeMap::new(),
            last_pong: None,
        }
    }
}

/// A text as one bounded line.
pub(super) fn one_line(text: &str) -> String {
    let line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut line: String = line.take(MAX_ERROR_CHARS + 1).collect();
    if let Some((end, _)) = line.char_indices().nth(MAX_ERROR_CHARS - 1)
        && line.chars().count() > MAX_ERROR_CHARS
    {
        line.truncate(end);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_product_decisions() {
        let text = String::from("why");
        for (reason, code) in [
            (ExitReason::Stopped, 0),
            (ExitReason::Superseded, 69),
            (ExitReason::Offline, 69),
            (ExitReason::Refused(text.clone()), 77),
            (ExitReason::Unusable(text), 78),
        ] {
            assert_eq!(reason.code(), code, "{reason}");
        }
    }

    #[test]
    fn errors_are_one_bounded_line() {
        assert_eq!(one_line("a\r\nb\u{1b}"), "a  b ");
        assert_eq!(one_line(&"é".repeat(300)).chars().count(), 300);
        let cut = one_line(&"é".repeat(5000));
        assert_eq!(cut.chars().count(), 300);
        assert!(cut.ends_with('…'));
    }
}
