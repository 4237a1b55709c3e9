//! A WebSocket over any bytes, either role, and how a client opens one.
//!
//! Invariant: there is one type of it for the whole program, whatever carries
//! it, and no message above the limit that it was made with is ever held.

mod metered;
mod upgrade;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

pub(crate) use self::metered::{Meter, Metered};
pub(crate) use self::upgrade::upgrade;

/// The bytes under a WebSocket: TCP, TLS, a proxy's tunnel, or a pipe in tests.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A WebSocket whose HTTP upgrade is done.
pub(crate) type WebSocket = WebSocketStream<Metered<Box<dyn Wire>>>;

/// Makes a WebSocket of an upgraded connection.
/// `buffer`: bytes that are read and written at once; `limit`: those of the
/// largest message.
pub(crate) async fn over(
    wire: Box<dyn Wire>,
    role: Role,
    buffer: usize,
    limit: usize,
) -> WebSocket {
    let config = WebSocketConfig::default()
        .read_buffer_size(buffer)
        .write_buffer_size(buffer)
        .max_message_size(Some(limit))
        .max_frame_size(Some(limit));
    WebSocketStream::from_raw_socket(Metered::new(wire), role, Some(config)).await
}
