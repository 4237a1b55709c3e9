//! Work of commands that touches the disk: how much of it runs at once and how
//! long anyone waits for it.
//!
//! Invariant: a command is answered within its limit whatever the disk does. A
//! thread that a dead mount holds keeps its place in its lane, so that it can
//! take no others with it; turns and tools have threads of their own.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::Shared;
use super::call::Failure;

/// Clients give up on a command after ten seconds (06 §1.2).
pub(super) const PATIENCE: Duration = Duration::from_secs(9);

/// How long of that a command may wait for its turn.
const TURN: Duration = Duration::from_secs(3);

/// Which work waits for which.
#[derive(Debug)]
pub(super) struct Lanes {
    /// Looking at a file or a directory, writing one.
    quick: Arc<Semaphore>,
    /// Walking trees; each walk has threads of its own.
    walks: Arc<Semaphore>,
    /// Answers of many megabytes: one at a time, until a socket has it.
    large: Arc<Semaphore>,
    /// Programs that a command waits for.
    children: Arc<Semaphore>,
}

impl Default for Lanes {
    fn default() -> Self {
        let lane = |places| Arc::new(Semaphore::new(places));
        Self {
            quick: lane(6),
            walks: lane(2),
            large: lane(1),
            children: lane(4),
        }
    }
}

impl Shared {
    /// Does work that takes milliseconds on a healthy disk.
    pub(super) async fn quick<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        within(&self.lanes.quick, PATIENCE, work)
            .await
            .unwrap_or_else(|| {
                let seconds = PATIENCE.as_secs();
                let error = format!("The disk did not answer within {seconds} s.");
                Err(Failure::new(error))
            })
    }

    /// Does work that goes through many files; `None` when it took longer than
    /// `limit`. The work itself must end then too.
    pub(super) async fn walk<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Option<Result<T, Failure>> {
        within(&self.lanes.walks, limit, work).await
    }

    /// The right to make one answer of many megabytes.
    pub(super) async fn large(&self) -> Result<OwnedSemaphorePermit, Failure> {
        place(&self.lanes.large).await.ok_or_else(|| {
            Failure::new("Another large file is still being sent. Try again when it has arrived.")
        })
    }

    /// The right to run one program.
    pub(super) async fn child(&self) -> Result<OwnedSemaphorePermit, Failure> {
        place(&self.lanes.children).await.ok_or_else(|| {
            Failure::new("Too many commands are running already. Try again in a moment.")
        })
    }
}

/// A place in a lane, if one is free soon.
async fn place(lane: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    let place = Arc::clone(lane).acquire_owned();
    // The lanes are never closed.
    timeout(TURN, place).await.ok()?.ok()
}

async fn within<T: Send + 'static>(
    lane: &Arc<Semaphore>,
    limit: Duration,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Option<Result<T, Failure>> {
    let place = Arc::clone(lane).acquire_owned();
    let done = async {
        let place = place.await;
        let work = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(place);
            done
        });
        work.await
            .unwrap_or_else(|_| Err(Failure::new("The computer is shutting down.")))
    };
    timeout(limit, done).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_hangs_is_given_up_and_keeps_its_place() {
        const LIMIT: Duration = Duration::from_millis(20);
        let lane = Arc::new(Semaphore::new(1));
        let (let_go, held) = std::sync::mpsc::channel::<()>();
        let hang = move || {
            let _ = held.recv();
            Ok(())
        };
        let (first, second) =
            tokio::join!(within(&lane, LIMIT, hang), within(&lane, LIMIT, || Ok(1)),);
        assert!(first.is_none() && second.is_none());
        drop(let_go);
        let third = within(&lane, PATIENCE, || Ok(1)).await;
        assert!(matches!(third, Some(Ok(1))));
    }
}
