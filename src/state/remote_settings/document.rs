//! The file itself: patches applied under the lock, repair journals of the
//! published program, what is moved aside (spec 01 §4.7, write path).
//!
//! Blocking, and without memory of its own: what it needs it is given.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use crate::state::atomic::{Access, READ_LIMIT, read_bounded};
use crate::state::home::create_private_dir;
use crate::state::json_file::{self, Found, JsonFileError};
use crate::state::link_lock::{HeldLock, LinkLock, LinkLockError, Writer};
use crate::state::process_age::may_be_alive;

/// The key of working directories.
pub(super) const CWD_MAP: &str = "cwdMap";
/// The key of permission modes.
pub(super) const MODE_MAP: &str = "permissionModeMap";
const JOURNAL_IDS: &str = "cwdRepairJournalIds";

/// What is to happen to one key.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Mutation {
    /// Gets this value.
    Set(Value),
    /// Goes, whatever it is.
    Delete,
    /// Goes if it still has this value: another process may have changed it.
    DeleteIf(Value),
}

/// Changes to both maps. Later ones replace earlier ones of the same key.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Patch {
    pub(super) cwds: BTreeMap<String, Mutation>,
    pub(super) modes: BTreeMap<String, Mutation>,
    /// Write even without changes: to finish a migration or a repair.
    pub(super) force: bool,
}

impl Patch {
    pub(super) fn is_empty(&self) -> bool {
        !self.force && self.cwds.is_empty() && self.modes.is_empty()
    }

    /// Puts `newer` on top.
    pub(super) fn merge(&mut self, newer: Self) {
        self.cwds.extend(newer.cwds);
        self.modes.extend(newer.modes);
        self.force |= newer.force;
    }
}

/// Why a patch is not on disk yet.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    #[error("{path}: {source}")]
    Lock {
        path: PathBuf,
        source: LinkLockError,
    },
    #[error(transparent)]
    File(#[from] JsonFileError),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// A repair journal: deletions that the published program could not finish.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    id: String,
    deletes: Vec<(String, String)>,
}

/// Applies a patch to the file's present content. `snapshot` is everything
/// that memory knows, for when the file has to be begun anew.
pub(super) fn apply(path: &Path, patch: &Patch, snapshot: &Patch) -> Result<(), ApplyError> {
    if let Some(dir) = path.parent() {
        create_private_dir(dir).map_err(|source| ApplyError::Io {
            path: dir.to_owned(),
            source,
        })?;
    }
    let _held = lock(path)?;
    let (mut settings, patches) = match json_file::read(path)? {
        Found::Missing => (Map::new(), [None, Some(patch)]),
        Found::Object(found) => (found, [None, Some(patch)]),
        Found::Corrupt(reason) => {
            let aside = move_aside(path)?;
            tracing::warn!(path = %path.display(), reason, aside = %aside.display(), "moved a corrupt file aside");
            (Map::new(), [Some(snapshot), Some(patch)])
        }
    };
    let before = settings.clone();
    let journals = read_journals(path);
    apply_journals(&mut settings, &journals);
    for patch in patches.into_iter().flatten() {
        mutate(&mut settings, CWD_MAP, &patch.cwds, patch.force);
        mutate(&mut settings, MODE_MAP, &patch.modes, false);
    }
    if settings != before || !path.exists() {
        json_file::write(path, &settings, Access::Private)?;
    }
    for journal in journals {
        // It stays listed as applied, so a leftover does no harm.
        let _ = fs::remove_file(journal.path);
    }
    Ok(())
}

fn mutate(
    settings: &mut Map<String, Value>,
    key: &str,
    mutations: &BTreeMap<String, Mutation>,
    create: bool,
) {
    if mutations.is_empty() && !create {
        return;
    }
    let map = settings.entry(key).or_insert_with(|| json!({}));
    if !map.is_object() {
        *map = json!({});
    }
    let Some(map) = map.as_object_mut() else {
        return;
    };
    for (name, mutation) in mutations {
        match mutation {
            Mutation::Set(value) => drop(map.insert(name.clone(), value.clone())),
            Mutation::Delete => drop(map.shift_remove(name)),
            Mutation::DeleteIf(expected) => {
                if map.get(name) == Some(expected) {
                    map.shift_remove(name);
                }
            }
        }
    }
}

/// Journals beside the file, unfinished ones included; unreadable ones stay.
pub(super) fn read_journals(path: &Path) -> Vec<Journal> {
    let (Some(dir), Some(name)) = (
        path.parent(),
        path.file_name().and_then(|name| name.to_str()),
    ) else {
        return Vec::new();
    };
    let prefix = format!("{name}.cwd-repair.");
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let paths = entries.filter_map(|entry| {
        let name = entry.ok()?.file_name();
        let name = name.to_str()?;
        let ours = name.starts_with(&prefix) && (name.ends_with(".json") || name.ends_with(".tmp"));
        ours.then(|| dir.join(name))
    });
    paths.filter_map(read_journal).collect()
}

fn read_journal(path: PathBuf) -> Option<Journal> {
    let record: Value = serde_json::from_slice(&read_bounded(&path, READ_LIMIT).ok()?).ok()?;
    let id = record.get("id")?.as_str()?.to_owned();
    let deletes: Vec<_> = record
        .get("cwdDeletes")?
        .as_object()?
        .iter()
        .filter_map(|(key, cwd)| Some((key.clone(), cwd.as_str()?.to_owned())))
        .collect();
    (!deletes.is_empty()).then_some(Journal { path, id, deletes })
}

/// Does what the journals ask, once for each id.
pub(super) fn apply_journals(settings: &mut Map<String, Value>, journals: &[Journal]) {
    if journals.is_empty() {
        return;
    }
    let listed = settings
        .get(JOURNAL_IDS)
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let mut ids: Vec<String> = listed
        .iter()
        .filter_map(|id| id.as_str().map(str::to_owned))
        .collect();
    let mut known: HashSet<String> = ids.iter().cloned().collect();
    for journal in journals {
        if !known.insert(journal.id.clone()) {
            continue;
        }
        if let Some(cwds) = settings.get_mut(CWD_MAP).and_then(Value::as_object_mut) {
            for (key, expected) in &journal.deletes {
                if cwds.get(key).and_then(Value::as_str) == Some(expected) {
                    cwds.shift_remove(key);
                }
            }
        }
        ids.push(journal.id.clone());
    }
    settings.insert(JOURNAL_IDS.into(), json!(ids));
}

fn move_aside(path: &Path) -> Result<PathBuf, ApplyError> {
    let stamp = crate::protocol::time::iso_millis(SystemTime::now()).replace([':', '.'], "-");
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".corrupt-{stamp}"));
    let aside = PathBuf::from(aside);
    fs::rename(path, &aside).map_err(|source| ApplyError::Io {
        path: path.to_owned(),
        source,
    })?;
    Ok(aside)
}

fn lock(path: &Path) -> Result<HeldLock, ApplyError> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock_path = PathBuf::from(lock_path);
    let token = format!("{}-{}", std::process::id(), uuid::Uuid::new_v4());
    let lock = LinkLock {
        path: &lock_path,
        candidate_prefix: ".remote-settings-lock-",
        record: &token,
        recovery_depth: 256,
        inspect: &inspect,
    };
    lock.acquire().map_err(|source| ApplyError::Lock {
        path: lock_path.clone(),
        source,
    })
}

/// `<pid>-<uuid>`; a record without a process id has no living writer.
fn inspect(token: &str, written: Option<SystemTime>) -> Option<Writer> {
    let pid = token
        .split('-')
        .next()
        .and_then(|pid| pid.parse().ok())
        .unwrap_or(0);
    Some(Writer {
        pid,
        may_be_alive: may_be_alive(pid, written),
    })
}
