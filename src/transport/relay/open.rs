//! Opening the sockets of one connection: one, two at once, or a checked pair
//! (01 §8.2, §8.3).
//!
//! Invariant: what is returned is open as a whole; on any failure every socket
//! of the attempt is dropped. Every wait has a deadline.

use std::time::Duration;

use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::Role;
use uuid::Uuid;

use super::address::{Generation, socket_url};
use super::contract::{Direction, FrameLog, Label, Registration};
use super::dial::Dial;
use super::lifecycle::{self, Lifecycle};
use super::machine::OpenError;
use crate::listener::outbox::Lane;
use crate::transport::socket::{Close, RELAY_BUFFER_BYTES, read, websocket};
use crate::websocket::WebSocket;

/// The longest wait for name lookup, TCP, TLS and the upgrade of one socket.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(30);

/// Frames that may arrive on a pair's control socket before the pair is open.
const MAX_EARLY_FRAMES: usize = 1000;

/// Their size.
const MAX_EARLY_BYTES: usize = 32 * 1024 * 1024;

/// The open sockets of a connection.
pub(super) struct Sockets {
    pub(super) control: WebSocket,
    pub(super) stream: Option<WebSocket>,
    /// What arrived on control while the pair was made, to be handled first.
    pub(super) early: Vec<String>,
}

/// One attempt.
pub(super) struct Attempt<'a> {
    pub(super) dial: &'a dyn Dial,
    pub(super) log: &'a dyn FrameLog,
    pub(super) registration: &'a Registration,
    pub(super) device_id: &'a str,
    pub(super) connection_name: &'a str,
    pub(super) bearer: Option<&'a str>,
    /// 1, 2, … since the registration.
    pub(super) number: u32,
    /// How long the second socket, or a `listener_ready`, may take.
    pub(super) ready_limit: Duration,
}

impl Attempt<'_> {
    /// Opens what the registration asks for.
    pub(super) async fn open(&self) -> Result<Sockets, OpenError> {
        match (self.registration.split, self.registration.paired) {
            (false, _) => self.single().await,
            (true, false) => self.split().await,
            (true, true) => self.paired().await,
        }
    }

    async fn single(&self) -> Result<Sockets, OpenError> {
        Ok(Sockets {
            control: self.connect(None, None).await?,
            stream: None,
            early: Vec::new(),
        })
    }

    async fn split(&self) -> Result<Sockets, OpenError> {
        let stream = within(self.ready_limit, "the stream socket did not open", async {
            self.connect(Some(Lane::Stream), None).await
        });
        let (control, stream) = tokio::try_join!(self.connect(Some(Lane::Control), None), stream)?;
        Ok(Sockets {
            control,
            stream: Some(stream),
            early: Vec::new(),
        })
    }

    async fn paired(&self) -> Result<Sockets, OpenError> {
        let generation = Generation {
            id: Uuid::new_v4(),
            attempt: self.number,
        };
        let mut early = Early::default();
        let mut control = self.connect(Some(Lane::Control), Some(generation)).await?;
        within(
            self.ready_limit,
            "the relay did not accept the control socket",
            self.control_ready(&mut control, generation, &mut early),
        )
        .await?;
        let stream = within(
            self.ready_limit,
            "the relay did not accept the stream socket",
            self.stream_ready(generation),
        );
        // The control socket is read meanwhile: it may speak, or close.
        let stream = tokio::select! {
            stream = stream => stream?,
            failed = self.collect(&mut control, &mut early) => return Err(failed),
        };
        Ok(Sockets {
            control,
            stream: Some(stream),
            early: early.frames,
        })
    }

    async fn control_ready(
        &self,
        control: &mut WebSocket,
        generation: Generation,
        early: &mut Early,
    ) -> Result<(), OpenError> {
        loop {
            let text = read(control, || {}).await.map_err(OpenError::Closed)?;
            match self.heard(&text) {
                Some(Lifecycle::Ready {
                    generation: id,
                    attempt,
                }) => return same(generation, &id, attempt),
                Some(Lifecycle::Pong) => {}
                None => early.push(text)?,
            }
        }
    }

    async fn stream_ready(&self, generation: Generation) -> Result<WebSocket, OpenError> {
        let mut stream = self.connect(Some(Lane::Stream), Some(generation)).await?;
        loop {
            let text = read(&mut stream, || {}).await.map_err(|close: Close| {
                OpenError::Failed(format!("the stream socket of the pair {close}"))
            })?;
            if let Some(Lifecycle::Ready {
                generation: id,
                attempt,
            }) = self.heard(&text)
            {
                same(generation, &id, attempt)?;
                return Ok(stream);
            }
        }
    }

    /// Reads the control socket until it fails.
    async fn collect(&self, control: &mut WebSocket, early: &mut Early) -> OpenError {
        loop {
            match read(control, || {}).await {
                Err(close) => return OpenError::Closed(close),
                Ok(text) if self.heard(&text).is_some() => {}
                Ok(text) => {
                    if let Err(full) = early.push(text) {
                        return full;
                    }
                }
            }
        }
    }

    /// Logs and reads a lifecycle frame; other frames are logged when delivered.
    fn heard(&self, text: &str) -> Option<Lifecycle> {
        let frame = lifecycle::parse(text)?;
        self.log.frame(Direction::Recv, Label::Lifecycle, text);
        Some(frame)
    }

    async fn connect(
        &self,
        lane: Option<Lane>,
        generation: Option<Generation>,
    ) -> Result<WebSocket, OpenError> {
        let url = socket_url(
            &self.registration.ws_url,
            self.device_id,
            self.connection_name,
            lane,
            generation,
        )
        .map_err(OpenError::Unusable)?;
        within(HANDSHAKE_LIMIT, "the handshake did not end", async {
            let wire = self.dial.dial(&url, self.bearer).await;
            Ok(websocket(
                wire.map_err(OpenError::Failed)?,
                Role::Client,
                RELAY_BUFFER_BYTES,
            )
            .await)
        })
        .await
    }
}

/// Frames that wait for the pair to be complete.
#[derive(Default)]
struct Early {
    frames: Vec<String>,
    bytes: usize,
}

impl Early {
    fn push(&mut self, text: String) -> Result<(), OpenError> {
        self.bytes += text.len();
        if self.frames.len() >= MAX_EARLY_FRAMES || self.bytes > MAX_EARLY_BYTES {
            return Err(OpenError::Failed(
                "too many frames arrived before the pair was open".to_owned(),
            ));
        }
        self.frames.push(text);
        Ok(())
    }
}

fn same(ours: Generation, id: &str, attempt: u64) -> Result<(), OpenError> {
    if id == ours.id.to_string() && attempt == u64::from(ours.attempt) {
        Ok(())
    } else {
        Err(OpenError::Failed(
            "the relay accepted a socket of another attempt".to_owned(),
        ))
    }
}

async fn within<T>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = Result<T, OpenError>>,
) -> Result<T, OpenError> {
    timeout(limit, work).await.unwrap_or_else(|_| {
        let seconds = limit.as_secs_f32();
        Err(OpenError::Failed(format!("{what} within {seconds} s")))
    })
}
