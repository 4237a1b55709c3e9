//! What a terminal shows, on its way to a client: decoded, gathered, paced.
//!
//! Invariant: nothing is lost or reordered, no character is torn, and at most
//! [`IN_FLIGHT`] frames of a terminal wait for a socket, so that one that
//! floods holds up neither others nor the process.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use crate::process::decode::Utf8Decoder;

/// Output is gathered for so long (06 §5).
const GATHER: Duration = Duration::from_millis(16);
/// After a quiet time it is shorter: an echo must not wait, a redraw comes whole.
const ECHO: Duration = Duration::from_millis(2);
/// So many bytes go out at once; then reading stops until they are sent.
const FULL: usize = 64 * 1024;
/// Frames on their way to the socket.
const IN_FLIGHT: usize = 2;

#[derive(Debug)]
pub(super) struct Gathered {
    text: String,
    decoder: Utf8Decoder,
    /// When the text is to go out; `None` when there is none.
    due: Option<Instant>,
    sent: Instant,
    permits: Arc<Semaphore>,
}

impl Gathered {
    pub(super) fn new() -> Self {
        Self {
            text: String::new(),
            decoder: Utf8Decoder::default(),
            due: None,
            sent: Instant::now() - GATHER,
            permits: Arc::new(Semaphore::new(IN_FLIGHT)),
        }
    }

    /// Whether there is room for another read.
    pub(super) fn has_room(&self) -> bool {
        self.text.len() < FULL
    }

    /// Takes what was read.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        let text = self.decoder.push(bytes);
        self.push(&text);
    }

    /// The terminal is at its end: so is a character that never became whole.
    pub(super) fn finish(&mut self) {
        let text = self.decoder.finish();
        self.push(&text);
    }

    fn push(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        self.text.push_str(text);
        let now = Instant::now();
        if !self.has_room() {
            self.due = Some(now);
        } else if self.due.is_none() {
            let quiet = now.duration_since(self.sent) >= GATHER;
            self.due = Some(now + if quiet { ECHO } else { GATHER });
        }
    }

    /// Waits until text is due and a frame may go; never completes without
    /// text. Cancel-safe.
    pub(super) async fn due(&self) -> OwnedSemaphorePermit {
        match self.due {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
        match Arc::clone(&self.permits).acquire_owned().await {
            Ok(permit) => permit,
            // The semaphore is never closed.
            Err(_) => std::future::pending().await,
        }
    }

    /// Whether everything was taken.
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The frame with all that was gathered.
    pub(super) fn take(&mut self, id: &str) -> String {
        self.due = None;
        self.sent = Instant::now();
        let text = std::mem::take(&mut self.text);
        json!({"type": "terminal_output", "terminal_id": id, "data": text}).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_echo_goes_out_at_once_and_a_flood_in_pieces() {
        let mut output = Gathered::new();
        let start = Instant::now();
        output.add(b"x");
        let echo = output.due().await;
        assert_eq!(start.elapsed(), ECHO);
        assert!(output.take("t").contains(r#""data":"x""#));
        output.add("é".as_bytes().split_at(1).0);
        assert!(output.is_empty());
        output.add("é".as_bytes().split_at(1).1);
        let second = output.due().await;
        assert_eq!(start.elapsed(), ECHO + GATHER);
        assert!(output.take("t").contains("é"));

        // Two frames are under way: a third waits until a socket took one.
        output.add(&[b'y'; FULL]);
        assert!(!output.has_room());
        tokio::select! {
            biased;
            _ = output.due() => panic!("a third frame went out"),
            () = tokio::time::sleep(GATHER * 10) => {}
        }
        drop((echo, second));
        let _third = output.due().await;
        assert_eq!(
            output.take("t").len(),
            FULL + r#"{"type":"terminal_output","terminal_id":"t","data":""}"#.len()
        );
    }
}
