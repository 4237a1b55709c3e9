//! Serving one open socket: what comes in goes to the owner, what the outbox
//! holds goes out, until one side ends it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{Sink, SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::{CLOSE_GRACE, Cause, Close, failed, read};
use crate::listener::outbox::{Drain, DrainEnd, Lane};
use crate::websocket::{Meter, WebSocket};

/// A write that takes longer than this marks the lane as stalled: from then on
/// status frames merge and waiting events count.
const STALL_MARK: Duration = Duration::from_millis(50);

/// A stalled socket that takes no byte for this long is dropped.
const STALL_LIMIT: Duration = Duration::from_secs(60);

/// Frames written between two flushes at most, so that a ping is never far behind.
const BATCH: usize = 64;

/// A longer message leaves in frames of this many bytes: a buffer for all of it
/// would be kept as long as the socket.
const PIECE: usize = 256 * 1024;

/// Hears of a frame that is handed to a socket.
pub(crate) type OnSend = dyn Fn(&str) + Send + Sync;

/// Hears that the peer answered a protocol ping.
pub(crate) type OnPong = dyn Fn() + Send + Sync;

/// What connects a socket to its owner.
pub(crate) struct Serving {
    /// Which of the connection's sockets this is; said with each message.
    pub(crate) lane: Lane,
    /// Where messages go. A full channel stops reading.
    pub(crate) inbound: mpsc::Sender<(Lane, String)>,
    /// Messages that go before everything queued: pings.
    pub(crate) urgent: mpsc::Receiver<Message>,
    /// Everything else to be written.
    pub(crate) drain: Drain,
    /// Told of every pong.
    pub(crate) on_pong: Box<OnPong>,
    /// Told of every frame that is handed to the socket.
    pub(crate) on_send: Box<OnSend>,
}

/// Serves the socket until it is closed. Dropping the future drops the socket
/// without a close handshake.
///
/// When the outbox finishes, the rest is written and the socket closed with
/// 1000; a message above the limit is answered with 1009.
pub(crate) async fn serve(socket: WebSocket, serving: Serving) -> Close {
    let Serving {
        lane,
        inbound,
        urgent,
        drain,
        on_pong,
        on_send,
    } = serving;
    let meter = socket.get_ref().meter();
    let (mut sink, mut stream) = socket.split();
    let close = tokio::select! {
        biased;
        close = read_all(&mut stream, &inbound, lane, &*on_pong) => close,
        close = write_all(&mut sink, urgent, &drain, &meter, &*on_send) => close,
    };
    match close.cause {
        Cause::Peer => drop(timeout(CLOSE_GRACE, sink.close()).await),
        Cause::Local => say_goodbye(&mut sink, &mut stream).await,
        Cause::TooLarge => refuse_the_rest(sink, stream).await,
        // Whoever does not answer or does not follow the protocol gets no handshake.
        Cause::Network | Cause::Protocol | Cause::Overflow | Cause::Stalled => {}
    }
    close
}

async fn read_all(
    stream: &mut SplitStream<WebSocket>,
    inbound: &mpsc::Sender<(Lane, String)>,
    lane: Lane,
    on_pong: &OnPong,
) -> Close {
    loop {
        match read(stream, on_pong).await {
            Ok(text) => {
                if inbound.send((lane, text)).await.is_err() {
                    return Close::abnormal(Cause::Local, "nobody reads any more");
                }
            }
            Err(close) => return close,
        }
    }
}

async fn write_all(
    sink: &mut SplitSink<WebSocket, Message>,
    mut urgent: mpsc::Receiver<Message>,
    drain: &Drain,
    meter: &Meter,
    on_send: &OnSend,
) -> Close {
    loop {
        let first = tokio::select! {
            biased;
            Some(frame) = urgent.recv() => frame,
            next = drain.next() => match next {
                Ok(frame) => Message::text(frame),
                Err(end) => return drained(end),
            },
        };
        let batch = write_batch(sink, first, drain, on_send);
        if let Err(close) = watched(batch, drain, meter).await {
            return close;
        }
    }
}

/// Writes a frame and those that wait behind it with one flush.
async fn write_batch<S>(
    sink: &mut S,
    first: Message,
    drain: &Drain,
    on_send: &OnSend,
) -> Result<(), Close>
where
    S: Sink<Message, Error = Error> + Unpin,
{
    let mut next = Some(first);
    let mut room = BATCH;
    while let Some(frame) = next {
        if let Message::Text(text) = &frame {
            on_send(text);
        }
        let fed = match frame {
            Message::Text(text) if text.len() > PIECE => in_pieces(sink, text).await,
            frame => sink.feed(frame).await,
        };
        fed.map_err(|error| failed(&error))?;
        room -= 1;
        next = match room {
            0 => None,
            // An end is seen again by the caller, once this batch is out.
            _ => drain.try_next().unwrap_or(None).map(Message::text),
        };
    }
    sink.flush().await.map_err(|error| failed(&error))
}

/// Writes a message in several frames.
async fn in_pieces<S>(sink: &mut S, text: Utf8Bytes) -> Result<(), Error>
where
    S: Sink<Message, Error = Error> + Unpin,
{
    let (mut at, length) = (0, text.len());
    let mut part = Data::Text;
    while at < length {
        let end = match length - at > PIECE {
            true => text.as_str().floor_char_boundary(at + PIECE),
            false => length,
        };
        let piece = Bytes::from(text.clone()).slice(at..end);
        let frame = Frame::message(piece, OpCode::Data(part), end == length);
        sink.send(Message::Frame(frame)).await?;
        (at, part) = (end, Data::Continue);
    }
    Ok(())
}

/// Runs a write, tells the outbox when it stalls, and gives up when the peer
/// takes no byte for [`STALL_LIMIT`] or the outbox overflows meanwhile.
async fn watched(
    write: impl Future<Output = Result<(), Close>>,
    drain: &Drain,
    meter: &Meter,
) -> Result<(), Close> {
    let mut write = std::pin::pin!(write);
    tokio::select! {
        biased;
        done = &mut write => return done,
        end = drain.ended() => return Err(drained(end)),
        () = sleep(STALL_MARK) => drain.set_stalled(true),
    }
    let mut taken = meter.written();
    loop {
        tokio::select! {
            biased;
            done = &mut write => {
                drain.set_stalled(false);
                return done;
            }
            end = drain.ended() => return Err(drained(end)),
            () = sleep(STALL_LIMIT) => {
                if taken == meter.written() {
                    let seconds = STALL_LIMIT.as_secs();
                    let reason = format!("the peer took no byte for {seconds} s");
                    return Err(Close::abnormal(Cause::Stalled, reason));
                }
                taken = meter.written();
            }
        }
    }
}

fn drained(end: DrainEnd) -> Close {
    match end {
        DrainEnd::Overflow { frames, bytes } => Close::abnormal(
            Cause::Overflow,
            format!("outbound queue full: {frames} frames, {bytes} bytes"),
        ),
        DrainEnd::Detached => Close::abnormal(Cause::Local, "detached"),
        DrainEnd::Finished => Close {
            code: 1000,
            reason: String::new(),
            cause: Cause::Local,
        },
    }
}

fn close_frame(code: CloseCode, reason: &'static str) -> Message {
    Message::Close(Some(CloseFrame {
        code,
        reason: reason.into(),
    }))
}

/// Closes with 1000 and waits a moment for the peer's answer.
async fn say_goodbye(
    sink: &mut SplitSink<WebSocket, Message>,
    stream: &mut SplitStream<WebSocket>,
) {
    let goodbye = async {
        sink.send(close_frame(CloseCode::Normal, "")).await?;
        while let Some(message) = stream.next().await {
            message?;
        }
        Ok::<(), Error>(())
    };
    // Gone is gone: a peer that does not answer is not waited for.
    drop(timeout(CLOSE_GRACE, goodbye).await);
}

/// Closes with 1009. The peer is still sending, so its bytes are read away for a
/// moment: a reset for unread data could overtake the close frame.
async fn refuse_the_rest(mut sink: SplitSink<WebSocket, Message>, stream: SplitStream<WebSocket>) {
    let refusal = async {
        let frame = close_frame(CloseCode::Size, "message above 100 MiB");
        if sink.send(frame).await.is_err() {
            return;
        }
        let Ok(socket) = sink.reunite(stream) else {
            return;
        };
        let mut wire = socket.into_inner();
        let mut scrap = [0; 4096];
        // The frame is out; ending our half tells the peer that no more follows.
        drop(wire.shutdown().await);
        while matches!(wire.read(&mut scrap).await, Ok(len) if len > 0) {}
    };
    drop(timeout(CLOSE_GRACE, refusal).await);
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;
    use crate::transport::socket::websocket;

    /// First bytes and lengths of the frames in `bytes`, none of them masked.
    fn frames(mut bytes: &[u8]) -> Vec<(u8, usize)> {
        let mut found = Vec::new();
        while let [first, short, rest @ ..] = bytes {
            let (length, rest) = match short {
                126 => (
                    u64::from(u16::from_be_bytes(rest[..2].try_into().unwrap())),
                    &rest[2..],
                ),
                127 => (
                    u64::from_be_bytes(rest[..8].try_into().unwrap()),
                    &rest[8..],
                ),
                short => (u64::from(*short), rest),
            };
            let length = usize::try_from(length).unwrap();
            found.push((*first, length));
            bytes = &rest[length..];
        }
        found
    }

    #[tokio::test]
    async fn a_long_message_leaves_in_pieces_and_a_short_one_whole() {
        let (ours, mut theirs) = tokio::io::duplex(8 * PIECE);
        let mut socket = websocket(Box::new(ours), Role::Server, 4096).await;
        let short = "s".repeat(PIECE);
        // The end of the first piece would stand inside a letter.
        let long = format!("{}{}", "x".repeat(PIECE - 1), "ü".repeat(PIECE));
        socket.feed(Message::text(short)).await.unwrap();
        in_pieces(&mut socket, long.clone().into()).await.unwrap();
        drop(socket);
        let mut bytes = Vec::new();
        theirs.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(
            frames(&bytes),
            [
                (0x81, PIECE),
                (0x01, PIECE - 1),
                (0x00, PIECE),
                (0x80, PIECE)
            ]
        );
    }
}
