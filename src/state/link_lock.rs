//! A lock file that two programs understand (spec 01 §4.7, §7; 00 §5).
//!
//! The published program publishes a complete record by hard link, and trusts
//! process ids. This one follows the same steps and holds an OS lock on the
//! record's inode as well, taken before the link makes it visible. So among
//! processes of this program the kernel decides, whatever ids say; towards the
//! published program [`process_age`](super::process_age) does.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::atomic::read_open;
use super::home::sha256_hex;
use super::os_lock::{is_at, is_unsupported, lock_if_supported};

/// A record is some hundred bytes.
const RECORD_LIMIT: u64 = 64 * 1024;

/// How often a lock that changes under our eyes is looked at again.
const ATTEMPTS: u32 = 64;

/// What a record says of its writer.
pub(super) struct Writer {
    /// Its process id.
    pub(super) pid: i64,
    /// Whether it can be the process that has this id now.
    pub(super) may_be_alive: bool,
}

/// One lock, before it is taken.
pub(super) struct LinkLock<'a> {
    /// The lock file.
    pub(super) path: &'a Path,
    /// Prefix of the unique sibling that becomes the lock.
    pub(super) candidate_prefix: &'a str,
    /// Our record.
    pub(super) record: &'a str,
    /// How many unfinished take-overs may lie on top of each other.
    pub(super) recovery_depth: u32,
    /// Reads a record written at a time; `None` when it is not understood.
    pub(super) inspect: &'a dyn Fn(&str, Option<SystemTime>) -> Option<Writer>,
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkLockError {
    /// A live process has it.
    #[error("held by process {pid}")]
    Held { pid: i64 },
    /// Another process is taking it over from a dead one.
    #[error("another process is taking it over")]
    Recovering { pid: i64 },
    /// The record, or that of a take-over, is not understood.
    #[error("{path} is corrupt or belongs to an incompatible version")]
    Incompatible { path: PathBuf },
    /// The system refused.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The lock in hand. Dropping it releases it.
#[derive(Debug)]
pub(super) struct HeldLock {
    path: PathBuf,
    file: File,
}

impl HeldLock {
    /// Removes the file, if it is still ours.
    pub(super) fn release(&self) -> io::Result<()> {
        if is_at(&self.file, &self.path)? {
            fs::remove_file(&self.path)?;
        }
        Ok(())
    }
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        // Closing the file ends the OS lock in any case; a record that stays
        // behind is taken over by the next process.
        let _ = self.release();
    }
}

impl LinkLock<'_> {
    /// Takes the lock or says who has it. Blocking, never waits for the holder.
    pub(super) fn acquire(&self) -> Result<HeldLock, LinkLockError> {
        let mut last = LinkLockError::Recovering { pid: 0 };
        for _ in 0..ATTEMPTS {
            if let Some(file) = self.publish(self.path)? {
                let held = HeldLock {
                    path: self.path.to_owned(),
                    file,
                };
                // Someone who knows no OS locks may have removed it already.
                if is_at(&held.file, self.path)? {
                    return Ok(held);
                }
                continue;
            }
            match self.take_over() {
                Ok(()) => {}
                // A contender of ours that looks at a dead record holds its OS
                // lock for a moment: look again before giving up.
                Err(LinkLockError::Recovering { pid }) => {
                    last = LinkLockError::Recovering { pid };
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Makes our record appear at `target`, complete and locked; `None` when
    /// something is there already.
    fn publish(&self, target: &Path) -> Result<Option<File>, LinkLockError> {
        let dir = target.parent().unwrap_or(Path::new("."));
        let name = format!(
            "{}{}.candidate",
            self.candidate_prefix,
            uuid::Uuid::new_v4()
        );
        let candidate = dir.join(name);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&candidate)?;
        let published = file
            .write_all(self.record.as_bytes())
            .and_then(|()| lock_if_supported(&file))
            .and_then(|()| link_new(&candidate, target));
        let _ = fs::remove_file(&candidate);
        match published {
            Ok(()) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the record of a dead holder. `Ok` means: try again.
    fn take_over(&self) -> Result<(), LinkLockError> {
        let Some((file, stale)) = open_record(self.path)? else {
            return Ok(());
        };
        let writer = self.understand(self.path, &file, &stale)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) if writer.may_be_alive => {
                return Err(LinkLockError::Held { pid: writer.pid });
            }
            Err(TryLockError::WouldBlock) => {
                return Err(LinkLockError::Recovering { pid: writer.pid });
            }
            Err(TryLockError::Error(error)) if !is_unsupported(&error) => return Err(error.into()),
            Err(TryLockError::Error(_)) => {}
        }
        // We may have locked an inode that is no longer the lock.
        if !is_at(&file, self.path)? {
            return Ok(());
        }
        if writer.may_be_alive {
            return Err(LinkLockError::Held { pid: writer.pid });
        }
        self.remove_stale(&stale)
    }

    /// The published program's way to agree on who removes a dead record: a
    /// chain of claims, each on top of one whose owner died as well.
    fn remove_stale(&self, stale: &str) -> Result<(), LinkLockError> {
        let hash = sha256_hex(stale.as_bytes());
        let claim = |depth: u32| {
            let mut path = self.path.as_os_str().to_owned();
            path.push(format!(".recover.{hash}.{depth}"));
            PathBuf::from(path)
        };
        for depth in 0..self.recovery_depth {
            let path = claim(depth);
            if self.publish(&path)?.is_some() {
                let removed = match open_record(self.path)? {
                    Some((_, now)) if now == stale => fs::remove_file(self.path),
                    _ => Ok(()),
                };
                for depth in (0..=depth).rev() {
                    let _ = fs::remove_file(claim(depth));
                }
                return Ok(removed?);
            }
            if let Some((file, record)) = open_record(&path)? {
                let claimant = self.understand(&path, &file, &record)?;
                if claimant.may_be_alive {
                    return Err(LinkLockError::Recovering { pid: claimant.pid });
                }
            }
        }
        Err(LinkLockError::Incompatible {
            path: claim(self.recovery_depth),
        })
    }

    fn understand(&self, path: &Path, file: &File, record: &str) -> Result<Writer, LinkLockError> {
        let written = file.metadata()?.modified().ok();
        (self.inspect)(record, written).ok_or_else(|| LinkLockError::Incompatible {
            path: path.to_owned(),
        })
    }
}

/// Gives `candidate` a second name that must be free. Where the file system
/// has no hard links it is renamed instead.
fn link_new(candidate: &Path, target: &Path) -> io::Result<()> {
    match fs::hard_link(candidate, target) {
        Err(error) if is_without_links(&error) => {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            Ok(renameat_with(
                CWD,
                candidate,
                CWD,
                target,
                RenameFlags::NOREPLACE,
            )?)
        }
        other => other,
    }
}

fn is_without_links(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied
    )
}

fn open_record(path: &Path) -> Result<Option<(File, String)>, LinkLockError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let bytes = read_open(&file, RECORD_LIMIT)?;
    match String::from_utf8(bytes) {
        Ok(record) => Ok(Some((file, record))),
        Err(_) => Err(LinkLockError::Incompatible {
            path: path.to_owned(),
        }),
    }
}
