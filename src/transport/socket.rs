//! One open WebSocket and the task that serves it, either role.
//!
//! Reading and writing run side by side: a peer that takes no bytes blocks the
//! writer only. Invariants: every message is at most 100 MiB, every write makes
//! progress within a minute or the socket ends, and [`serve`] returns exactly
//! one [`Close`] that says why (01 §8.1, §8.5, §8.9; 02 §1.3).

mod serve;

use std::fmt;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error, Message};

pub(crate) use self::serve::{Serving, serve};
use crate::websocket::{self, WebSocket, Wire};

/// The largest message that is read: more ends the socket with 1009.
pub(crate) const MAX_MESSAGE_BYTES: usize = 100 * 1024 * 1024;

/// Socket buffers of the relay are small, because an idle machine keeps two of them.
pub(crate) const RELAY_BUFFER_BYTES: usize = 16 * 1024;

/// Those of direct clients are smaller, because there may be thousands.
pub(crate) const CLIENT_BUFFER_BYTES: usize = 4 * 1024;

/// How long a closing handshake may take before the socket is dropped.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// Makes a WebSocket of an upgraded connection.
/// `buffer`: bytes that are read and written at once.
pub(crate) async fn websocket(wire: Box<dyn Wire>, role: Role, buffer: usize) -> WebSocket {
    websocket::over(wire, role, buffer, MAX_MESSAGE_BYTES).await
}

/// Why a socket is no longer open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Close {
    /// The close code seen on this side: the peer's, 1005 for a close frame
    /// without one, 1006 for everything that was no clean close.
    pub(crate) code: u16,
    /// The peer's reason, or what went wrong in our words.
    pub(crate) reason: String,
    /// Who ended it.
    pub(crate) cause: Cause,
}

/// Who or what ended a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Cause {
    /// The peer sent a close frame.
    Peer,
    /// The connection broke.
    Network,
    /// The peer broke the WebSocket protocol.
    Protocol,
    /// A message above [`MAX_MESSAGE_BYTES`].
    TooLarge,
    /// Too much waited in the outbox.
    Overflow,
    /// The peer took no byte for too long.
    Stalled,
    /// This side closed it on purpose.
    Local,
}

impl Close {
    /// A close that this side saw without a close frame: code 1006.
    pub(crate) fn abnormal(cause: Cause, reason: impl Into<String>) -> Self {
        Self {
            code: 1006,
            reason: reason.into(),
            cause,
        }
    }
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "closed with {}", self.code)?;
        if !self.reason.is_empty() {
            write!(f, " ({})", self.reason)?;
        }
        Ok(())
    }
}

/// The next message as text; protocol pings are answered on the way, and
/// `ponged` hears of pongs. Cancel-safe.
pub(crate) async fn read<S>(stream: &mut S, ponged: impl Fn()) -> Result<String, Close>
where
    S: Stream<Item = Result<Message, Error>> + Unpin,
{
    loop {
        match stream.next().await {
            Some(Ok(Message::Text(text))) => return Ok(lossy(text.into())),
            Some(Ok(Message::Binary(bytes))) => return Ok(lossy(bytes)),
            Some(Ok(Message::Close(frame))) => {
                let (code, reason) = frame.map_or((1005, String::new()), |frame| {
                    (frame.code.into(), frame.reason.as_str().to_owned())
                });
                return Err(Close {
                    code,
                    reason,
                    cause: Cause::Peer,
                });
            }
            Some(Ok(Message::Pong(_))) => ponged(),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(failed(&error)),
            None => return Err(Close::abnormal(Cause::Network, "connection ended")),
        }
    }
}

/// Text without a copy when it is valid, as it always is in a text message.
fn lossy(bytes: bytes::Bytes) -> String {
    String::from_utf8(bytes.into())
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn failed(error: &Error) -> Close {
    let cause = match error {
        Error::Capacity(_) => Cause::TooLarge,
        Error::Protocol(
            tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        ) => Cause::Network,
        Error::Protocol(_) | Error::Utf8(_) => Cause::Protocol,
        _ => Cause::Network,
    };
    Close::abnormal(cause, error.to_string())
}
