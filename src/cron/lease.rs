//! Which process fires the schedules of a home (07 §1.5).
//!
//! Invariant: whoever fires holds an OS lock, which ends with its process, and
//! stands in the store as the published program expects. A record of a process
//! that cannot be alive binds nobody.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::store::{Document, Store, StoreError};
use super::task::iso;
use crate::config::CronScope;
use crate::state::home::create_private_dir;
use crate::state::os_lock::is_unsupported;
use crate::state::process_identity::ProcessIdentity;

/// Why the lease was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Another process has it.
    #[error("{0}")]
    Held(String),
    /// The OS lock cannot be used.
    #[error("cannot lock {}: {source}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The right to fire the tasks of a scope.
#[derive(Debug)]
pub struct Lease {
    scope: CronScope,
    token: String,
    started: Timestamp,
    _os_locks: Vec<File>,
}

/// Whether an agent's tasks belong to a scope.
pub fn covers(scope: CronScope, agent_id: &str) -> bool {
    let local = agent_id.starts_with("agent-local-");
    match scope {
        CronScope::Off => false,
        CronScope::All => true,
        CronScope::Local => local,
        CronScope::Cloud => !local,
    }
}

/// Whether some live process fires the tasks of an agent (07 §1.8).
pub fn is_somebody_firing(document: &Document, agent_id: &str) -> bool {
    let scope = if covers(CronScope::Local, agent_id) {
        "local"
    } else {
        "cloud"
    };
    is_live(scoped(document, scope))
        || (is_live(document.top.get("scheduler_owner")) && live_scoped(document).next().is_none())
}

fn scoped<'a>(document: &'a Document, scope: &str) -> Option<&'a Value> {
    document.top.get("scheduler_owners")?.get(scope)
}

fn live_scoped(document: &Document) -> impl Iterator<Item = &Value> {
    ["local", "cloud"]
        .into_iter()
        .filter_map(|scope| scoped(document, scope))
        .filter(|owner| is_live(Some(owner)))
}

fn is_live(owner: Option<&Value>) -> bool {
    owner
        .and_then(ProcessIdentity::read)
        .is_some_and(|identity| identity.is_alive())
}

fn is_ours(owner: Option<&Value>) -> bool {
    let pid = owner.and_then(|owner| owner.get("pid")?.as_u64());
    pid == Some(std::process::id().into())
}

fn name(scope: CronScope) -> Option<&'static str> {
    match scope {
        CronScope::Local => Some("local"),
        CronScope::Cloud => Some("cloud"),
        CronScope::All | CronScope::Off => None,
    }
}

impl Lease {
    /// Takes the lease of a scope. Blocking.
    ///
    /// # Errors
    /// When a live process has it, or the store cannot be used.
    pub fn claim(store: &Store, scope: CronScope, now: Timestamp) -> Result<Self, LeaseError> {
        let lease = Self {
            scope,
            token: format!("{:08x}", fastrand::u32(..)),
            started: now,
            _os_locks: os_locks(&store.scheduler_lock, name(scope))?,
        };
        let mut refused = None;
        store.update_some(&|_| false, &mut |document| {
            refused = lease.obstacle(document);
            if refused.is_some() {
                return false;
            }
            lease.enter(document);
            true
        })?;
        match refused {
            Some(holder) => Err(LeaseError::Held(holder)),
            None => Ok(lease),
        }
    }

    /// The live process of another program that the records name.
    fn obstacle(&self, document: &Document) -> Option<String> {
        let told = |what: &str, owner: &Value| {
            format!(
                "the {what} scheduler lease is held by process {}",
                owner["pid"]
            )
        };
        let all = document.top.get("scheduler_owner");
        let live_all = all.filter(|owner| is_live(Some(owner)));
        let other = live_scoped(document).find(|owner| !is_ours(Some(owner)));
        match name(self.scope) {
            None => {
                let scoped = other.map(|owner| told("scoped", owner));
                scoped.or_else(|| {
                    let all = live_all.filter(|owner| !is_ours(Some(owner)));
                    all.map(|owner| told("whole", owner))
                })
            }
            Some(scope) => {
                let all = live_all.filter(|_| live_scoped(document).next().is_none());
                all.filter(|owner| !is_ours(Some(owner)))
                    .map(|owner| told("whole", owner))
                    .or_else(|| {
                        let same = scoped(document, scope)
                            .filter(|owner| is_live(Some(owner)) && !is_ours(Some(owner)));
                        same.map(|owner| told(scope, owner))
                    })
            }
        }
    }

    fn record(&self) -> Value {
        let own = ProcessIdentity::of_self();
        let mut record = Map::new();
        record.insert("pid".into(), own.pid.into());
        record.insert("token".into(), self.token.as_str().into());
        record.insert("started_at".into(), iso(self.started).into());
        own.write(&mut record);
        Value::Object(record)
    }

    /// Writes our record, beside a tombstone that keeps older versions away.
    fn enter(&self, document: &mut Document) {
        let all_is_live = is_live(document.top.get("scheduler_owner"));
        match name(self.scope) {
            None => {
                document
                    .top
                    .insert("scheduler_owners".into(), Map::new().into());
                document.top.insert("scheduler_owner".into(), self.record());
            }
            Some(scope) => {
                owners(document).insert(scope.into(), self.record());
                if !all_is_live {
                    document.top.insert("scheduler_owner".into(), self.record());
                }
            }
        }
    }

    fn matches(&self, owner: Option<&Value>) -> bool {
        let token = owner.and_then(|owner| owner.get("token")?.as_str());
        is_ours(owner) && token == Some(&self.token)
    }

    /// Whether the records still name this lease.
    pub fn holds(&self, document: &Document) -> bool {
        match name(self.scope) {
            None => self.matches(document.top.get("scheduler_owner")),
            Some(scope) => {
                self.matches(scoped(document, scope))
                    && is_live(document.top.get("scheduler_owner"))
            }
        }
    }

    /// Mends the records of a scoped lease where no live process took its place;
    /// `false` when the lease is lost. Blocking.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub fn renew(&self, store: &Store) -> Result<bool, StoreError> {
        let mut held = false;
        store.update_some(&|_| false, &mut |document| {
            held = self.holds(document);
            let Some(scope) = name(self.scope).filter(|_| !held) else {
                return false;
            };
            let own = self.matches(scoped(document, scope));
            held = own || self.obstacle(document).is_none();
            if held {
                self.enter(document);
            }
            held
        })?;
        Ok(held)
    }

    /// Gives the lease back. Blocking.
    ///
    /// # Errors
    /// When the store cannot be used; the record then ends with the process.
    pub fn release(self, store: &Store) -> Result<(), StoreError> {
        store.update_some(&|_| false, &mut |document| {
            let all = self.matches(document.top.get("scheduler_owner"));
            let Some(scope) = name(self.scope) else {
                if all {
                    document.top.insert("scheduler_owner".into(), Value::Null);
                }
                return all;
            };
            if !self.matches(scoped(document, scope)) {
                return false;
            }
            owners(document).remove(scope);
            if all {
                let heir = live_scoped(document).next().cloned();
                document
                    .top
                    .insert("scheduler_owner".into(), heir.unwrap_or_default());
            }
            true
        })?;
        Ok(())
    }
}

fn owners(document: &mut Document) -> &mut Map<String, Value> {
    let owners = document
        .top
        .entry("scheduler_owners")
        .or_insert(Value::Null);
    if !owners.is_object() {
        *owners = Map::new().into();
    }
    match owners {
        Value::Object(owners) => owners,
        // It was made one above.
        _ => unreachable!("an object"),
    }
}

/// One for the whole home, which the two scopes share, and one for the scope.
fn os_locks(path: &Path, scope: Option<&str>) -> Result<Vec<File>, LeaseError> {
    let whole = os_lock(path, scope.is_some())?;
    let Some(scope) = scope else {
        return Ok(vec![whole]);
    };
    let mut own = path.as_os_str().to_owned();
    own.push(format!(".{scope}"));
    Ok(vec![whole, os_lock(Path::new(&own), false)?])
}

fn os_lock(path: &Path, shared: bool) -> Result<File, LeaseError> {
    let failed = |source| LeaseError::Lock {
        path: path.to_owned(),
        source,
    };
    if let Some(dir) = path.parent() {
        create_private_dir(dir).map_err(failed)?;
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let file = options.mode(0o600).open(path).map_err(failed)?;
    let locked = if shared {
        file.try_lock_shared()
    } else {
        file.try_lock()
    };
    match locked {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LeaseError::Held(format!(
            "another process holds the scheduler lock {}",
            path.display()
        ))),
        // The records alone decide then, as for the published program.
        Err(TryLockError::Error(error)) if is_unsupported(&error) => Ok(file),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Home;
    use serde_json::json;

    fn fixture() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().expect("temp dir");
        let store = Store::new(&Home::at(dir.path()));
        (dir, store)
    }

    fn claim(store: &Store, scope: CronScope) -> Result<Lease, LeaseError> {
        Lease::claim(
            store,
            scope,
            "2026-03-26T10:00:00Z".parse().expect("a time"),
        )
    }

    fn leave(store: &Store, owner: &Value, owners: &Value) {
        let change = &mut |document: &mut Document| {
            document.top.insert("scheduler_owner".into(), owner.clone());
            document
                .top
                .insert("scheduler_owners".into(), owners.clone());
            true
        };
        store.update(change).expect("written");
    }

    /// A process that is alive and not ours, as the published program records it.
    struct Other(std::process::Child);

    impl Other {
        fn start() -> Self {
            let child = std::process::Command::new("sleep").arg("60").spawn();
            Self(child.expect("sleep runs"))
        }

        fn record(&self) -> Value {
            json!({"pid": self.0.id(), "token": "theirs", "started_at": "2026-03-26T10:00:00.000Z",
                "process_start_ticks": null, "boot_id": null})
        }
    }

    impl Drop for Other {
        fn drop(&mut self) {
            self.0.kill().expect("killed");
            self.0.wait().expect("reaped");
        }
    }

    #[test]
    fn a_claim_writes_the_published_record_and_a_release_takes_it_back() {
        let (_dir, store) = fixture();
        let lease = claim(&store, CronScope::All).expect("free");
        let document = store.read();
        assert!(lease.holds(&document));
        let owner = document.top["scheduler_owner"]
            .as_object()
            .expect("a record");
        let keys: Vec<&String> = owner.keys().collect();
        let expected = [
            "pid",
            "token",
            "started_at",
            "process_start_ticks",
            "boot_id",
        ];
        assert_eq!(keys, expected);
        assert_eq!(document.top["scheduler_owners"], json!({}));
        assert!(is_somebody_firing(&document, "agent-1"));
        assert!(is_somebody_firing(&document, "agent-local-1"));
        lease.release(&store).expect("released");
        assert_eq!(store.read().top["scheduler_owner"], Value::Null);
        assert!(!is_somebody_firing(&store.read(), "agent-1"));
    }

    #[test]
    fn the_os_lock_decides_among_processes_of_this_program() {
        let (_dir, store) = fixture();
        let lease = claim(&store, CronScope::All).expect("free");
        // Even when nothing in the store names the holder any more.
        leave(&store, &Value::Null, &json!({}));
        for scope in [CronScope::All, CronScope::Local, CronScope::Cloud] {
            let error = claim(&store, scope).expect_err("locked").to_string();
            assert!(error.contains("crons.scheduler.lock"), "{error}");
        }
        drop(lease);
        claim(&store, CronScope::All).expect("free again");
    }

    #[test]
    fn a_live_published_program_keeps_its_lease_and_a_dead_one_loses_it() {
        let (_dir, store) = fixture();
        let other = Other::start();
        for (owner, owners) in [
            (other.record(), json!({})),
            (Value::Null, json!({"cloud": other.record()})),
            (other.record(), json!({"local": other.record()})),
        ] {
            leave(&store, &owner, &owners);
            let error = claim(&store, CronScope::All).expect_err("held").to_string();
            assert!(
                error.contains(&format!("process {}", other.0.id())),
                "{error}"
            );
        }
        let (owner, owners) = (other.record(), json!({"local": other.record()}));
        drop(other);
        leave(&store, &owner, &owners);
        claim(&store, CronScope::All).expect("nobody lives");
    }

    #[test]
    fn our_process_id_of_an_earlier_life_binds_nobody() {
        let (_dir, store) = fixture();
        let own = json!({"pid": std::process::id(), "token": "t", "process_start_ticks": "1", "boot_id": null});
        leave(&store, &own, &json!({}));
        assert!(!is_somebody_firing(&store.read(), "agent-1"));
        claim(&store, CronScope::All).expect("taken over");
    }

    #[test]
    fn the_two_scopes_live_side_by_side_and_keep_older_versions_away() {
        let (_dir, store) = fixture();
        let local = claim(&store, CronScope::Local).expect("free");
        let cloud = claim(&store, CronScope::Cloud).expect("free");
        let document = store.read();
        assert!(local.holds(&document) && cloud.holds(&document));
        assert!(claim(&store, CronScope::Local).is_err());
        assert!(
            local.matches(document.top.get("scheduler_owner")),
            "the tombstone"
        );
        local.release(&store).expect("released");
        let document = store.read();
        assert!(
            cloud.matches(document.top.get("scheduler_owner")),
            "its heir"
        );
        assert!(!is_somebody_firing(&document, "agent-local-1"));
        assert!(is_somebody_firing(&document, "agent-1"));
    }

    #[test]
    fn a_lost_whole_lease_is_not_mended_and_a_scoped_one_is() {
        let (_dir, store) = fixture();
        let lease = claim(&store, CronScope::All).expect("free");
        leave(&store, &Value::Null, &json!({}));
        assert!(!lease.renew(&store).expect("usable"));
        drop(lease);
        let lease = claim(&store, CronScope::Cloud).expect("free");
        leave(&store, &Value::Null, &json!({}));
        assert!(lease.renew(&store).expect("usable"));
        assert!(lease.holds(&store.read()));
        let other = Other::start();
        leave(&store, &other.record(), &json!({"cloud": other.record()}));
        assert!(!lease.renew(&store).expect("usable"));
    }
}
