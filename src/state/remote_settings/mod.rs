//! `~/.letta/remote-settings.json`: the working directory and permission mode
//! of every conversation, across restarts (spec 01 §4.7, 05 §2.4–2.5).
//!
//! Memory answers at once; one background task writes. It writes patches under
//! a lock, never snapshots, so several servers share the file without erasing
//! each other's entries. What cannot be written is tried again every 250 ms.

mod directory;
mod document;
mod lent;
mod load;
mod memory;
mod mode_entry;
mod plan;
mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use directory::CwdError;
pub use mode_entry::ModeEntry;

use self::document::{Mutation, Patch};
use self::memory::Memory;
use self::writer::{LAST_WRITE, Shared};
use super::Home;
use crate::protocol::{PermissionMode, Scope, id::UNKNOWN_AGENT};

/// What holds for conversations without entries.
#[derive(Clone, Debug)]
pub struct RemoteDefaults {
    /// The mode of the process.
    pub mode: PermissionMode,
    /// `USER_CWD`.
    pub user_cwd: Option<PathBuf>,
    /// The process's own directory.
    pub process_cwd: Option<PathBuf>,
}

/// A working directory that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CwdChange {
    /// The real path.
    pub cwd: PathBuf,
    /// Whether it differs from the one before.
    pub changed: bool,
    /// The revision after the change.
    pub revision: u64,
}

/// The handle. Cheap to clone; clones share one memory and one writer, which
/// ends with [`RemoteSettings::shutdown`] or the last clone.
#[derive(Clone, Debug)]
pub struct RemoteSettings {
    shared: Arc<Shared>,
    _last_one_stops_the_writer: Arc<DropGuard>,
}

impl RemoteSettings {
    /// Loads the file, repairs it, and starts the writer on the current runtime.
    pub async fn open(home: &Home, defaults: RemoteDefaults) -> Self {
        let (path, cache, user) = (home.remote_settings(), home.cwd_cache(), home.user.clone());
        let given = defaults.clone();
        let file = path.clone();
        let work = spawn_blocking(move || {
            let mut loaded = load::load(&file, &cache);
            let memory = |loaded: load::Loaded| Memory {
                cwds: loaded.cwds,
                modes: loaded.modes,
                boot: directory::first_usable(
                    given.user_cwd.as_deref(),
                    given.process_cwd.as_deref(),
                    &user,
                ),
                lent: BTreeMap::new(),
                revision: 0,
                pending: loaded.patch,
                in_flight: Patch::default(),
            };
            let patch = std::mem::take(&mut loaded.patch);
            let mut memory = memory(loaded);
            // At once: a directory made again later must not revive its entry.
            if !patch.is_empty()
                && document::apply(&file, &patch, &memory.snapshot(given.mode)).is_err()
            {
                memory.pending = patch;
            }
            memory
        });
        let memory = work.await.unwrap_or_else(|_| Memory::empty());
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            path,
            home: home.user.clone(),
            defaults,
            memory: Mutex::new(memory),
            wake: Notify::new(),
            settled: Notify::new(),
            stop: stop.clone(),
            writer: Mutex::new(None),
        });
        let writer = tokio::spawn(Arc::clone(&shared).write_for_ever());
        *shared.writer.lock().unwrap_or_else(PoisonError::into_inner) = Some(writer);
        Self {
            shared,
            _last_one_stops_the_writer: Arc::new(stop.drop_guard()),
        }
    }

    /// The mode of conversations without an entry.
    pub fn default_mode(&self) -> PermissionMode {
        self.shared.defaults.mode
    }

    /// The working directory of a conversation as remembered; no file is touched.
    pub fn cwd_of(&self, scope: &Scope) -> PathBuf {
        let memory = self.shared.memory();
        let key = scope.settings_key();
        if let Some(lent) = memory.lent.get(&key) {
            return lent.cwd.clone();
        }
        let entry = memory.cwds.get(&key);
        entry.map_or_else(|| memory.boot.clone(), PathBuf::from)
    }

    /// The same after looking whether it is still there: an entry that is gone
    /// is deleted, and the boot directory holds. For the start of a turn.
    pub async fn verified_cwd_of(&self, scope: &Scope) -> PathBuf {
        let key = scope.settings_key();
        let known = self.shared.memory().cwds.get(&key).cloned();
        if let Some(cwd) = known {
            self.drop_unusable(vec![(key, cwd)]).await;
        }
        self.verify_boot().await;
        self.cwd_of(scope)
    }

    /// Takes a requested directory for a conversation whose present one is
    /// `current`. Taking the boot directory removes the entry.
    ///
    /// # Errors
    /// See [`CwdError`]. A missing directory raises the revision as well, so
    /// that clients are sent the old one.
    pub async fn set_cwd(
        &self,
        scope: &Scope,
        requested: &str,
        current: &Path,
    ) -> Result<CwdChange, CwdError> {
        let resolved = resolve(requested, current).await;
        let mut memory = self.shared.memory();
        let cwd = match resolved {
            Ok(cwd) => cwd,
            Err(error) => {
                if matches!(error, CwdError::Missing(_)) {
                    memory.revision += 1;
                }
                return Err(error);
            }
        };
        let key = scope.settings_key();
        if let Some(lent) = memory.lent.get_mut(&key) {
            let changed = lent.cwd != cwd;
            lent.cwd.clone_from(&cwd);
            memory.revision += 1;
            return Ok(CwdChange {
                cwd,
                changed,
                revision: memory.revision,
            });
        }
        let before = memory
            .cwds
            .get(&key)
            .map_or_else(|| memory.boot.clone(), PathBuf::from);
        let mutation = if cwd == memory.boot {
            memory.cwds.remove(&key);
            Mutation::Delete
        } else {
            let text = cwd.to_string_lossy().into_owned();
            memory.cwds.insert(key.clone(), text.clone());
            Mutation::Set(json!(text))
        };
        memory.pending.cwds.insert(key, mutation);
        memory.revision += 1;
        let revision = memory.revision;
        drop(memory);
        self.shared.wake.notify_one();
        Ok(CwdChange {
            changed: cwd != before,
            cwd,
            revision,
        })
    }

    /// Deletes the entries of every directory that is gone; `true` if there were any.
    pub async fn prune_cwds(&self) -> bool {
        let known: Vec<_> = self.shared.memory().cwds.clone().into_iter().collect();
        let pruned = self.drop_unusable(known).await;
        self.verify_boot().await;
        pruned
    }

    /// Every entry: settings key to directory.
    pub fn cwd_map(&self) -> BTreeMap<String, String> {
        self.shared.memory().cwds.clone()
    }

    /// The directory of conversations without an entry.
    pub fn boot_cwd(&self) -> PathBuf {
        self.shared.memory().boot.clone()
    }

    /// Changes the boot directory for this run; a relative one starts at the
    /// present boot directory.
    ///
    /// # Errors
    /// See [`CwdError`]; nothing changes then.
    pub async fn set_boot_cwd(&self, requested: &str) -> Result<CwdChange, CwdError> {
        let cwd = resolve(requested, &self.boot_cwd()).await?;
        let mut memory = self.shared.memory();
        let changed = memory.boot != cwd;
        if changed {
            memory.boot.clone_from(&cwd);
            memory.revision += 1;
        }
        Ok(CwdChange {
            cwd,
            changed,
            revision: memory.revision,
        })
    }

    /// Counts changes of working directories; for this run.
    pub fn cwd_revision(&self) -> u64 {
        self.shared.memory().revision
    }

    /// The mode of a conversation. An entry of an agent's default conversation
    /// that was made before the agent was known moves to its real key.
    pub fn mode_of(&self, scope: &Scope) -> ModeEntry {
        let mut memory = self.shared.memory();
        let key = scope.settings_key();
        if let Some(lent) = memory.lent.get(&key) {
            return lent.mode.clone();
        }
        if let Some(entry) = memory.modes.get(&key) {
            return entry.clone();
        }
        let legacy = Scope::new(Some(UNKNOWN_AGENT), None).settings_key();
        if scope.is_default()
            && scope.agent_id.is_some()
            && let Some(entry) = memory.modes.remove(&legacy)
        {
            let gone = memory.deletion_of_mode(&legacy, entry.to_json());
            memory.pending.modes.insert(legacy, gone);
            memory.store_mode(key, entry.clone(), self.shared.defaults.mode);
            drop(memory);
            self.shared.wake.notify_one();
            return entry;
        }
        ModeEntry::plain(self.shared.defaults.mode)
    }

    /// Sets the mode of a conversation. What equals the default is not stored.
    pub fn set_mode(&self, scope: &Scope, entry: ModeEntry) {
        let default = self.shared.defaults.mode;
        self.shared
            .memory()
            .store_mode(scope.settings_key(), entry, default);
        self.shared.wake.notify_one();
    }

    /// Forgets an entry that equals the default, at the end of a turn; `true`
    /// if there was one.
    pub fn prune_mode(&self, scope: &Scope) -> bool {
        let key = scope.settings_key();
        let default = ModeEntry::plain(self.shared.defaults.mode);
        let mut memory = self.shared.memory();
        if memory.lent.contains_key(&key) || memory.modes.get(&key) != Some(&default) {
            return false;
        }
        memory.modes.remove(&key);
        let gone = memory.deletion_of_mode(&key, default.to_json());
        memory.pending.modes.insert(key, gone);
        drop(memory);
        self.shared.wake.notify_one();
        true
    }

    /// Waits until everything known so far is on disk: for ever while it
    /// cannot be written, unless the handle is shut down.
    pub async fn flush(&self) {
        loop {
            let mut settled = pin!(self.shared.settled.notified());
            settled.as_mut().enable();
            if self.shared.memory().is_settled() {
                return;
            }
            tokio::select! {
                () = settled => {}
                () = self.shared.stop.cancelled() => return,
            }
        }
    }

    /// Writes what is left, for one second at most, and ends the writer.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        let writer = self
            .shared
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(mut writer) = writer
            && timeout(LAST_WRITE, &mut writer).await.is_err()
        {
            tracing::warn!(path = %self.shared.path.display(), "directories and modes could not be saved in time");
            writer.abort();
        }
    }

    async fn drop_unusable(&self, entries: Vec<(String, String)>) -> bool {
        let gone = move || -> Vec<_> {
            entries
                .into_iter()
                .filter(|(_, cwd)| directory::is_confirmed_unusable(cwd))
                .collect()
        };
        let gone = spawn_blocking(gone).await.unwrap_or_default();
        let mut memory = self.shared.memory();
        let mut dropped = false;
        for (key, cwd) in gone {
            // It may have been set anew in the meantime.
            if memory.cwds.get(&key) == Some(&cwd) {
                memory.cwds.remove(&key);
                let gone = memory.deletion_of_cwd(&key, json!(cwd));
                memory.pending.cwds.insert(key, gone);
                memory.revision += 1;
                dropped = true;
            }
        }
        drop(memory);
        if dropped {
            self.shared.wake.notify_one();
        }
        dropped
    }

    /// Looks for another boot directory when the present one is gone.
    async fn verify_boot(&self) {
        let boot = self.boot_cwd();
        let shared = Arc::clone(&self.shared);
        let seen = boot.clone();
        let look = move || {
            let defaults = &shared.defaults;
            directory::is_confirmed_unusable(&seen.to_string_lossy()).then(|| {
                directory::first_usable(
                    defaults.user_cwd.as_deref(),
                    defaults.process_cwd.as_deref(),
                    &shared.home,
                )
            })
        };
        if let Ok(Some(next)) = spawn_blocking(look).await {
            let mut memory = self.shared.memory();
            if memory.boot == boot {
                memory.boot = next;
                memory.revision += 1;
            }
        }
    }
}

async fn resolve(requested: &str, current: &Path) -> Result<PathBuf, CwdError> {
    let (requested, current) = (requested.to_owned(), current.to_owned());
    let path = current.clone();
    match spawn_blocking(move || directory::resolve(&requested, &current)).await {
        Ok(resolved) => resolved,
        Err(error) => Err(CwdError::Io {
            path,
            source: error.into(),
        }),
    }
}

#[cfg(test)]
mod tests;
