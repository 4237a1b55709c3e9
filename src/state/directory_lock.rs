//! A lock directory with `owner.json`, as the published program makes it, under
//! an OS lock besides (spec 07 §1.4, 00 §4).
//!
//! Invariant: among processes of this program the kernel decides, since the OS
//! lock on the record is held from before the record is visible; towards the
//! published program its own protocol does. The lock is held for one change of
//! one file, never over a wait.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Map, Value};

use super::atomic::read_open;
use super::home::create_private_dir;
use super::os_lock::{is_at, is_unsupported, lock_if_supported};
use super::process_identity::ProcessIdentity;
use crate::protocol::time::epoch_millis;

/// How long the lock is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// A record without a readable owner is left behind after this time.
const STALE: Duration = Duration::from_secs(30);
/// A record is some hundred bytes.
const RECORD_LIMIT: u64 = 64 * 1024;

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryLockError {
    /// Someone has it for too long.
    #[error(
        "{} has been held for 5 s by {holder}; if no process of that id works there, remove the directory",
        path.display()
    )]
    Busy {
        /// The lock directory.
        path: PathBuf,
        /// Who holds it.
        holder: String,
    },
    /// The system refused.
    #[error("cannot lock {}: {source}", path.display())]
    Io {
        /// The lock directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// The lock in hand. Dropping it releases it.
#[derive(Debug)]
pub struct DirectoryLock {
    path: PathBuf,
    record: File,
}

/// What stands in the way.
enum Obstacle {
    Gone,
    Held(String),
}

impl DirectoryLock {
    /// Takes the lock, waiting up to 5 s for it. Blocking.
    ///
    /// # Errors
    /// See [`DirectoryLockError`].
    pub fn acquire(path: &Path) -> Result<Self, DirectoryLockError> {
        Self::acquire_within(path, PATIENCE)
    }

    fn acquire_within(path: &Path, patience: Duration) -> Result<Self, DirectoryLockError> {
        let failed = |source| DirectoryLockError::Io {
            path: path.to_owned(),
            source,
        };
        if let Some(dir) = path.parent() {
            create_private_dir(dir).map_err(failed)?;
        }
        let deadline = Instant::now() + patience;
        loop {
            if let Some(lock) = Self::publish(path).map_err(failed)? {
                return Ok(lock);
            }
            match inspect(path).map_err(failed)? {
                Obstacle::Gone => {}
                Obstacle::Held(holder) if Instant::now() >= deadline => {
                    return Err(DirectoryLockError::Busy {
                        path: path.to_owned(),
                        holder,
                    });
                }
                Obstacle::Held(_) => {
                    // The pace of the published program: neither starves the other.
                    std::thread::sleep(Duration::from_millis(fastrand::u64(50..=100)));
                }
            }
        }
    }

    /// Makes the directory and moves our locked record into it; `None` when the
    /// directory exists already.
    fn publish(path: &Path) -> io::Result<Option<Self>> {
        match fs::create_dir(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            Err(error) => return Err(error),
        }
        let candidate = sibling(path, "candidate");
        let record = (|| {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&candidate)?;
            file.write_all(own_record().as_bytes())?;
            lock_if_supported(&file)?;
            fs::rename(&candidate, owner_file(path))?;
            Ok(file)
        })();
        match record {
            Ok(record) => Ok(Some(Self {
                path: path.to_owned(),
                record,
            })),
            Err(error) => {
                let _ = fs::remove_file(&candidate);
                let _ = fs::remove_dir(path);
                Err(error)
            }
        }
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Closing the file ends the OS lock in any case; a directory that stays
        // behind is then taken over by the next process.
        if is_at(&self.record, &owner_file(&self.path)).unwrap_or(false) {
            let _ = remove_whole(&self.path);
        }
    }
}

fn own_record() -> String {
    let own = ProcessIdentity::of_self();
    let mut record = Map::new();
    record.insert("pid".into(), own.pid.into());
    record.insert("token".into(), format!("{:08x}", fastrand::u32(..)).into());
    record.insert("acquired_at".into(), epoch_millis(SystemTime::now()).into());
    own.write(&mut record);
    Value::Object(record).to_string()
}

fn owner_file(path: &Path) -> PathBuf {
    path.join("owner.json")
}

/// Looks at the lock of another and removes it when its holder is gone.
fn inspect(path: &Path) -> io::Result<Obstacle> {
    let owner = owner_file(path);
    let file = match File::open(&owner) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return without_record(path),
        Err(error) => return Err(error),
    };
    let record = read_open(&file, RECORD_LIMIT).unwrap_or_default();
    let record: Value = serde_json::from_slice(&record).unwrap_or_default();
    let holder = ProcessIdentity::read(&record);
    let shown = holder.as_ref().map_or_else(
        || String::from("an unknown process"),
        |holder| format!("process {}", holder.pid),
    );
    let os_locks = match file.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock) => return Ok(Obstacle::Held(shown)),
        Err(TryLockError::Error(error)) if is_unsupported(&error) => false,
        Err(TryLockError::Error(error)) => return Err(error),
    };
    // Our own record without its OS lock is that of an earlier life.
    let own = i64::from(std::process::id());
    let alive = match &holder {
        Some(holder) if holder.pid == own && os_locks => false,
        Some(holder) => holder.is_alive(),
        None => !is_old(path),
    };
    if alive {
        return Ok(Obstacle::Held(shown));
    }
    // Whoever holds the OS lock on a dead record is the one who removes it.
    if is_at(&file, &owner)? {
        remove_whole(path)?;
    }
    Ok(Obstacle::Gone)
}

/// Its holder makes a record right after the directory, or died in between.
fn without_record(path: &Path) -> io::Result<Obstacle> {
    if !path.exists() {
        return Ok(Obstacle::Gone);
    }
    if !is_old(path) {
        return Ok(Obstacle::Held(String::from("an unknown process")));
    }
    match fs::remove_dir(path) {
        Ok(()) => Ok(Obstacle::Gone),
        // Somebody filled or removed it meanwhile: look again.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
            ) =>
        {
            Ok(Obstacle::Gone)
        }
        Err(error) => Err(error),
    }
}

fn is_old(path: &Path) -> bool {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    modified.map_or(true, |at| {
        SystemTime::now().duration_since(at).unwrap_or_default() > STALE
    })
}

/// Takes the directory away in one step, then deletes it.
fn remove_whole(path: &Path) -> io::Result<()> {
    let aside = sibling(path, "released");
    match fs::rename(path, &aside) {
        Ok(()) => fs::remove_dir_all(&aside),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn sibling(path: &Path, what: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{what}-{}", uuid::Uuid::new_v4()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const BRIEFLY: Duration = Duration::from_millis(150);

    fn fixture() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("home/crons.lock");
        (dir, path)
    }

    /// A lock as a process that holds no OS lock leaves it.
    fn leave(path: &Path, record: &str) {
        fs::create_dir_all(path).expect("created");
        fs::write(owner_file(path), record).expect("written");
    }

    fn make_old(path: &Path) {
        let an_hour_ago = SystemTime::now() - Duration::from_secs(3600);
        let dir = File::open(path).expect("opened");
        dir.set_modified(an_hour_ago).expect("aged");
    }

    fn busy(path: &Path) -> String {
        match DirectoryLock::acquire_within(path, BRIEFLY) {
            Err(error @ DirectoryLockError::Busy { .. }) => error.to_string(),
            other => panic!("not busy: {other:?}"),
        }
    }

    #[test]
    fn the_lock_has_the_published_form_and_leaves_nothing_behind() {
        let (_dir, path) = fixture();
        let lock = DirectoryLock::acquire(&path).expect("taken");
        let record: Value =
            serde_json::from_slice(&fs::read(owner_file(&path)).expect("read")).expect("a record");
        let keys: Vec<&String> = record.as_object().expect("an object").keys().collect();
        let expected = [
            "pid",
            "token",
            "acquired_at",
            "process_start_ticks",
            "boot_id",
        ];
        assert_eq!(keys, expected);
        assert_eq!(record["pid"], std::process::id());
        assert_eq!(record["token"].as_str().map(str::len), Some(8));
        assert!(record["acquired_at"].is_u64());
        drop(lock);
        let parent = path.parent().expect("a parent");
        assert_eq!(fs::read_dir(parent).expect("listed").count(), 0);
    }

    #[test]
    fn threads_of_one_process_exclude_each_other() {
        let (_dir, path) = fixture();
        let lock = DirectoryLock::acquire(&path).expect("taken");
        assert!(busy(&path).contains(&format!("process {}", std::process::id())));
        drop(lock);
        let counter = path.with_file_name("counter");
        fs::create_dir_all(path.parent().expect("a parent")).expect("created");
        fs::write(&counter, "0").expect("written");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        let _lock = DirectoryLock::acquire(&path).expect("taken");
                        let text = fs::read_to_string(&counter).expect("read");
                        let count: u32 = text.parse().expect("a number");
                        fs::write(&counter, (count + 1).to_string()).expect("written");
                    }
                });
            }
        });
        assert_eq!(fs::read_to_string(&counter).expect("read"), "20");
    }

    #[test]
    fn a_live_published_program_is_never_robbed() {
        let (_dir, path) = fixture();
        let child = std::process::Command::new("sleep").arg("60").spawn();
        let mut child = child.expect("sleep runs");
        leave(
            &path,
            &json!({"pid": child.id(), "token": "t", "acquired_at": 0}).to_string(),
        );
        make_old(&path);
        assert!(busy(&path).contains(&format!("process {}", child.id())));
        child.kill().expect("killed");
        child.wait().expect("reaped");
        DirectoryLock::acquire_within(&path, BRIEFLY).expect("its lock is free now");
    }

    #[test]
    fn a_record_of_an_earlier_life_with_our_process_id_is_taken_over() {
        let (_dir, path) = fixture();
        leave(&path, &own_record());
        DirectoryLock::acquire_within(&path, BRIEFLY).expect("taken over");
    }

    #[test]
    fn a_lock_without_a_readable_owner_is_taken_over_when_it_is_old() {
        for record in [None, Some("{"), Some("null")] {
            let (_dir, path) = fixture();
            match record {
                Some(record) => leave(&path, record),
                None => fs::create_dir_all(&path).expect("created"),
            }
            assert!(busy(&path).contains("an unknown process"), "{record:?}");
            make_old(&path);
            DirectoryLock::acquire_within(&path, BRIEFLY).expect("taken over");
        }
    }

    #[test]
    fn a_stolen_lock_is_not_released_for_its_thief() {
        let (_dir, path) = fixture();
        let lock = DirectoryLock::acquire(&path).expect("taken");
        fs::remove_dir_all(&path).expect("stolen");
        leave(&path, "{}");
        drop(lock);
        assert!(owner_file(&path).exists());
    }
}
