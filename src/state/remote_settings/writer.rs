//! The background writer: what is pending becomes one write, a failed write is
//! tried again, and the end of the process gets a bounded last attempt.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::RemoteDefaults;
use super::document::{self, Patch};
use super::memory::Memory;

/// Pause after a failed write.
const RETRY: Duration = Duration::from_millis(250);

/// What the last write may take when the process ends.
pub(super) const LAST_WRITE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) path: PathBuf,
    pub(super) home: PathBuf,
    pub(super) defaults: RemoteDefaults,
    pub(super) memory: Mutex<Memory>,
    /// There is something to write.
    pub(super) wake: Notify,
    /// Nothing is left to write.
    pub(super) settled: Notify,
    pub(super) stop: CancellationToken,
    pub(super) writer: Mutex<Option<JoinHandle<()>>>,
}

impl Shared {
    /// A panic under the lock leaves whole values.
    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer: takes everything that is pending, writes it, and begins
    /// again. Owned by the handle, which cancels and awaits it.
    pub(super) async fn write_for_ever(self: Arc<Self>) {
        let mut failing = false;
        let mut deadline = None;
        loop {
            if self.stop.is_cancelled() {
                deadline.get_or_insert_with(|| Instant::now() + LAST_WRITE);
            }
            let Some((patch, snapshot)) = self.take() else {
                self.settled.notify_waiters();
                if deadline.is_some() {
                    return;
                }
                tokio::select! {
                    () = self.wake.notified() => {}
                    () = self.stop.cancelled() => {}
                }
                continue;
            };
            let path = self.path.clone();
            let outcome = spawn_blocking(move || document::apply(&path, &patch, &snapshot)).await;
            let error = match outcome {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(panicked) => Some(panicked.to_string()),
            };
            self.finish(error.is_none());
            let Some(error) = error else {
                failing = false;
                continue;
            };
            if !failing {
                tracing::warn!(
                    error,
                    "directories and modes cannot be saved yet; trying again"
                );
                failing = true;
            }
            let pause = match deadline {
                None => RETRY,
                Some(deadline) if Instant::now() >= deadline => return,
                Some(_) => Duration::from_millis(fastrand::u64(10..40)),
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = self.stop.cancelled(), if deadline.is_none() => {}
            }
        }
    }

    fn take(&self) -> Option<(Patch, Patch)> {
        let mut memory = self.memory();
        if memory.pending.is_empty() {
            return None;
        }
        memory.in_flight = std::mem::take(&mut memory.pending);
        Some((
            memory.in_flight.clone(),
            memory.snapshot(self.defaults.mode),
        ))
    }

    fn finish(&self, written: bool) {
        let mut memory = self.memory();
        let mut unwritten = std::mem::take(&mut memory.in_flight);
        if !written {
            let newer = std::mem::take(&mut memory.pending);
            unwritten.merge(newer);
            memory.pending = unwritten;
        }
    }
}
