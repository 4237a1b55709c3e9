//! One change of a checkout at a time among all processes of this machine
//! (06 §6.3).
//!
//! Invariant: the kernel holds the lock, so it ends with its process. Where a
//! file system has no locks, the order within each process remains.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// Between two looks at a lock that another process has.
const AGAIN: Duration = Duration::from_millis(50);
/// Tries more before a lock counts as another process's, and the time between them.
const TRIES: u32 = 5;
const MOMENT: Duration = Duration::from_millis(10);

/// The lock in hand; dropping it gives it back.
#[derive(Debug)]
pub(super) struct ProcessLock(#[expect(dead_code, reason = "held while open")] Option<File>);

/// The file beside a checkout.
fn file(dir: &Path) -> PathBuf {
    dir.with_extension("lock")
}

/// Waits until no other process changes the checkout in `dir`.
pub(super) async fn wait(dir: &Path) -> ProcessLock {
    if let Some(parent) = dir.parent()
        && let Err(error) = tokio::fs::create_dir_all(parent).await
    {
        tracing::debug!(%error, "No place for the lock of a memory.");
    }
    loop {
        if let Some(lock) = once(dir).await {
            return lock;
        }
        sleep(AGAIN).await;
    }
}

/// The lock, unless another process has it. A child that has not begun its own
/// program yet holds what this one held for a moment more, so it is tried again.
pub(super) async fn now(dir: &Path) -> Option<ProcessLock> {
    for _ in 0..TRIES {
        match once(dir).await {
            Some(lock) => return Some(lock),
            None => sleep(MOMENT).await,
        }
    }
    once(dir).await
}

async fn once(dir: &Path) -> Option<ProcessLock> {
    let path = file(dir);
    let taken = spawn_blocking(move || take(&path)).await;
    match taken.unwrap_or_else(|error| Err(TryLockError::Error(error.into()))) {
        Ok(file) => Some(ProcessLock(Some(file))),
        Err(TryLockError::WouldBlock) => None,
        Err(TryLockError::Error(error)) => {
            tracing::debug!(%error, "A memory is not locked against other processes.");
            Some(ProcessLock(None))
        }
    }
}

fn take(path: &Path) -> Result<File, TryLockError> {
    let file = open(path).map_err(TryLockError::Error)?;
    file.try_lock()?;
    Ok(file)
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).open(path)
}
