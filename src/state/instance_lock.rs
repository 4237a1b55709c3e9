//! One server per Letta server, device and name (spec 01 §7, 00 §5).
//!
//! Two of them would take the cloud lease from each other and kill each
//! other's turns. The lock survives no crash: the OS lock ends with its
//! process, and a record left behind is taken over, after a container restart
//! with the same process ids too. A live published program is never robbed.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::Home;
use super::home::{create_private_dir, sha256_hex};
use super::link_lock::{HeldLock, LinkLock, LinkLockError, Writer};
use super::process_age::may_be_alive;
use crate::protocol::time::iso_millis;

/// What must not run twice.
#[derive(Clone, Copy, Debug)]
pub struct InstanceScope<'a> {
    /// The Letta server, in any spelling.
    pub server_url: &'a str,
    /// This device.
    pub device_id: &'a str,
    /// `server-<hash of the name>` (01 §6).
    pub instance_id: &'a str,
}

/// Why the server must not start.
#[derive(Debug, thiserror::Error)]
pub enum InstanceLockError {
    /// The same server runs already. Exit 69.
    #[error("already running as pid {pid}. Lock: {}", path.display())]
    AlreadyRunning {
        /// The holder.
        pid: i64,
        /// The lock file.
        path: PathBuf,
    },
    /// The lock cannot be used. Exit 78.
    #[error("could not establish listener ownership: {reason}. Lock: {}", path.display())]
    Unavailable {
        /// Why.
        reason: String,
        /// The lock file.
        path: PathBuf,
    },
}

/// The lock in hand. Dropping it releases it; [`InstanceLock::release`] also says
/// when that failed.
#[derive(Debug)]
pub struct InstanceLock {
    held: HeldLock,
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    version: u32,
    pid: i64,
    owner_token: String,
    acquired_at: String,
    scope_hash: String,
}

impl InstanceLock {
    /// Takes the lock. Blocking, for some milliseconds at most.
    ///
    /// # Errors
    /// See [`InstanceLockError`]; an unknown file in the lock's place is left alone.
    pub fn acquire(home: &Home, scope: InstanceScope<'_>) -> Result<Self, InstanceLockError> {
        let scope_hash = scope_hash(scope);
        let path = home.listeners().join(format!("manual-{scope_hash}.lock"));
        Self::acquire_at(&path, &scope_hash).map_err(|error| match error {
            LinkLockError::Held { pid } | LinkLockError::Recovering { pid } => {
                InstanceLockError::AlreadyRunning { pid, path }
            }
            other => InstanceLockError::Unavailable {
                reason: other.to_string(),
                path,
            },
        })
    }

    fn acquire_at(path: &Path, scope_hash: &str) -> Result<Self, LinkLockError> {
        if let Some(dir) = path.parent() {
            create_private_dir(dir)?;
        }
        let record = Record {
            version: 1,
            pid: std::process::id().into(),
            owner_token: uuid::Uuid::new_v4().to_string(),
            acquired_at: iso_millis(SystemTime::now()),
            scope_hash: scope_hash.to_owned(),
        };
        let record = serde_json::to_string(&record).map_err(io::Error::from)?;
        let lock = LinkLock {
            path,
            candidate_prefix: ".manual-listener-lock-",
            record: &record,
            recovery_depth: 64,
            inspect: &|text, written| inspect(text, written, scope_hash),
        };
        Ok(Self {
            held: lock.acquire()?,
            path: path.to_owned(),
        })
    }

    /// The lock file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the lock file if it is still ours.
    ///
    /// # Errors
    /// When it cannot be removed. Not fatal: the next start takes it over.
    pub fn release(self) -> io::Result<()> {
        self.held.release()
    }
}

/// Reads a record of this scope; `None` for anything else.
fn inspect(text: &str, modified: Option<SystemTime>, scope_hash: &str) -> Option<Writer> {
    let record: Record = serde_json::from_str(text).ok()?;
    if record.version != 1
        || record.pid <= 0
        || record.owner_token.is_empty()
        || record.scope_hash != scope_hash
    {
        return None;
    }
    let acquired = record.acquired_at.parse::<jiff::Timestamp>().ok();
    let acquired = acquired.and_then(|at| {
        let millis = u64::try_from(at.as_millisecond()).ok()?;
        Some(SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(millis))
    });
    Some(Writer {
        pid: record.pid,
        may_be_alive: may_be_alive(record.pid, acquired.or(modified)),
    })
}

fn scope_hash(scope: InstanceScope<'_>) -> String {
    let server = normal_url(scope.server_url);
    let parts = serde_json::json!([server, scope.device_id, scope.instance_id]);
    sha256_hex(parts.to_string().as_bytes())
}

/// Lower-case scheme and host, no default port, query, fragment, final slash.
fn normal_url(url: &str) -> String {
    let trimmed = url.trim();
    match reqwest::Url::parse(trimmed) {
        Ok(mut url) => {
            url.set_query(None);
            url.set_fragment(None);
            url.as_str().trim_end_matches('/').to_owned()
        }
        Err(_) => trimmed.trim_end_matches('/').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const SCOPE: InstanceScope<'_> = InstanceScope {
        server_url: "https://api.letta.com",
        device_id: "device-test",
        instance_id: "server-7277ce043c1567e2",
    };

    fn fixture() -> (tempfile::TempDir, Home, PathBuf) {
        let dir = tempfile::tempdir().expect("temp dir");
        let home = Home::at(dir.path());
        fs::create_dir_all(home.listeners()).expect("created");
        let path = home
            .listeners()
            .join(format!("manual-{}.lock", scope_hash(SCOPE)));
        (dir, home, path)
    }

    /// A record as a process that holds no OS lock leaves it.
    fn leave_record(path: &Path, pid: u32, acquired_at: SystemTime) {
        let record = serde_json::json!({
            "version": 1, "pid": pid, "ownerToken": "t",
            "acquiredAt": iso_millis(acquired_at), "scopeHash": scope_hash(SCOPE),
        });
        fs::write(path, record.to_string()).expect("written");
    }

    fn names(home: &Home) -> Vec<String> {
        let entries = fs::read_dir(home.listeners()).expect("listed");
        let name = |entry: io::Result<fs::DirEntry>| entry.expect("entry").file_name();
        entries
            .map(|entry| name(entry).to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn the_scope_hash_is_that_of_the_published_program() {
        let expected = "4168a8dfbc0fc57e5076b68b2857d09b1242eef32488f7c7298b02cf4234d458";
        for server_url in [
            "https://api.letta.com",
            " HTTPS://API.letta.com:443//?a=1#b ",
        ] {
            assert_eq!(
                scope_hash(InstanceScope {
                    server_url,
                    ..SCOPE
                }),
                expected,
                "{server_url}"
            );
        }
    }

    #[test]
    fn a_second_server_is_refused_with_the_holder_and_the_lock() {
        let (_dir, home, path) = fixture();
        let first = InstanceLock::acquire(&home, SCOPE).expect("free");
        let slash = InstanceScope {
            server_url: "https://api.letta.com/",
            ..SCOPE
        };
        let error = InstanceLock::acquire(&home, slash).expect_err("held");
        let text = error.to_string();
        assert!(
            text.contains(&format!("pid {}", std::process::id())),
            "{text}"
        );
        assert!(text.contains(&path.display().to_string()), "{text}");
        first.release().expect("released");
        InstanceLock::acquire(&home, SCOPE).expect("free again");
    }

    #[test]
    fn another_name_is_another_lock() {
        let (_dir, home, _) = fixture();
        let _first = InstanceLock::acquire(&home, SCOPE).expect("free");
        let other = InstanceScope {
            instance_id: "server-2",
            ..SCOPE
        };
        InstanceLock::acquire(&home, other).expect("free");
    }

    #[test]
    fn the_record_is_readable_for_the_published_program_and_private() {
        use std::os::unix::fs::MetadataExt;
        let (_dir, home, path) = fixture();
        let lock = InstanceLock::acquire(&home, SCOPE).expect("free");
        let text = fs::read_to_string(lock.path()).expect("readable");
        let shape = r#"{"version":1,"pid":"#;
        assert!(text.starts_with(shape), "{text}");
        assert!(inspect(&text, None, &scope_hash(SCOPE)).is_some());
        assert_eq!(fs::metadata(&path).expect("exists").mode() & 0o777, 0o600);
        assert_eq!(names(&home).len(), 1, "no candidate stays");
        drop(lock);
        assert!(names(&home).is_empty(), "a clean exit leaves nothing");
    }

    #[test]
    fn a_record_with_our_own_pid_and_no_os_lock_is_recovered() {
        let (_dir, home, path) = fixture();
        leave_record(&path, std::process::id(), SystemTime::now());
        InstanceLock::acquire(&home, SCOPE).expect("the holder cannot be alive");
    }

    #[test]
    fn a_record_of_a_dead_process_is_recovered_without_leftovers() {
        let (_dir, home, path) = fixture();
        leave_record(&path, i32::MAX.cast_unsigned(), SystemTime::now());
        let lock = InstanceLock::acquire(&home, SCOPE).expect("recovered");
        assert_eq!(names(&home).len(), 1);
        drop(lock);
    }

    #[test]
    fn a_pid_used_again_by_a_younger_process_does_not_keep_the_lock() {
        let (_dir, home, path) = fixture();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("sleep runs");
        leave_record(
            &path,
            child.id(),
            SystemTime::now() - std::time::Duration::from_secs(3600),
        );
        InstanceLock::acquire(&home, SCOPE).expect("recovered");
        child.kill().expect("killed");
        child.wait().expect("reaped");
    }

    #[test]
    fn a_live_published_program_is_never_robbed() {
        let (_dir, home, path) = fixture();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("sleep runs");
        leave_record(&path, child.id(), SystemTime::now());
        let before = fs::read(&path).expect("readable");
        let error = InstanceLock::acquire(&home, SCOPE).expect_err("held");
        assert!(
            matches!(error, InstanceLockError::AlreadyRunning { pid, .. } if pid == i64::from(child.id()))
        );
        assert_eq!(fs::read(&path).expect("readable"), before);
        child.kill().expect("killed");
        child.wait().expect("reaped");
    }

    #[test]
    fn an_os_lock_counts_even_when_the_pid_looks_dead() {
        let (_dir, home, path) = fixture();
        leave_record(&path, i32::MAX.cast_unsigned(), SystemTime::now());
        let other_container = fs::File::open(&path).expect("open");
        other_container.lock().expect("locked");
        let error = InstanceLock::acquire(&home, SCOPE).expect_err("held");
        assert!(
            matches!(error, InstanceLockError::AlreadyRunning { .. }),
            "{error}"
        );
        drop(other_container);
        InstanceLock::acquire(&home, SCOPE).expect("its end frees it");
    }

    #[test]
    fn a_corrupt_or_foreign_record_is_unavailable_and_untouched() {
        let (_dir, home, path) = fixture();
        for bad in ["", "{}", "{\"version\":2}", "\u{0}"] {
            fs::write(&path, bad).expect("written");
            let error = InstanceLock::acquire(&home, SCOPE).expect_err("not understood");
            assert!(
                matches!(error, InstanceLockError::Unavailable { .. }),
                "{error}"
            );
            assert_eq!(fs::read_to_string(&path).expect("readable"), bad);
        }
    }

    #[test]
    fn an_unfinished_take_over_of_a_dead_process_is_climbed_over() {
        let (_dir, home, path) = fixture();
        leave_record(&path, i32::MAX.cast_unsigned(), SystemTime::now());
        let stale = fs::read(&path).expect("readable");
        let claim = format!("{}.recover.{}.0", path.display(), sha256_hex(&stale));
        leave_record(Path::new(&claim), std::process::id(), SystemTime::now());
        let lock = InstanceLock::acquire(&home, SCOPE).expect("recovered");
        assert_eq!(names(&home).len(), 1, "the dead claim is gone too");
        drop(lock);
    }

    #[test]
    fn releasing_leaves_a_lock_that_is_no_longer_ours() {
        let (_dir, home, path) = fixture();
        let lock = InstanceLock::acquire(&home, SCOPE).expect("free");
        fs::remove_file(&path).expect("removed");
        leave_record(&path, 1, SystemTime::now());
        lock.release().expect("nothing to do");
        assert!(path.exists());
    }

    #[test]
    fn of_many_contenders_for_a_dead_lock_exactly_one_wins() {
        let (_dir, home, path) = fixture();
        leave_record(&path, std::process::id(), SystemTime::now());
        let held: Vec<_> = std::thread::scope(|scope| {
            let contenders: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| InstanceLock::acquire(&home, SCOPE).ok()))
                .collect();
            contenders
                .into_iter()
                .filter_map(|thread| thread.join().expect("no panic"))
                .collect()
        });
        assert_eq!(held.len(), 1);
    }
}
