//! `crons.json`, shared with the published program (07 §1.3, §1.4).
//!
//! Invariant: every change is read, made and written under the lock; what is not
//! understood is written back as it was; a file that cannot be read as a store
//! counts as empty and is copied aside before it is replaced. All of it blocks.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::task::Task;
use crate::state::Home;
use crate::state::atomic::Access;
use crate::state::directory_lock::{DirectoryLock, DirectoryLockError};
use crate::state::json_file::{self, Found, JsonFileError};

/// The only version there is.
const VERSION: u64 = 1;

/// Where the schedules of one home lie. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    file: PathBuf,
    lock: PathBuf,
    pub(super) scheduler_lock: PathBuf,
    pub(super) runs: PathBuf,
}

/// What tells one content of the file from another: each is a file of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

/// The content of the file.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// Everything but the tasks, whose key keeps its place.
    pub(super) top: Map<String, Value>,
    /// The tasks in their order.
    pub tasks: Vec<Task>,
}

/// Why the store was not changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The lock could not be had.
    #[error(transparent)]
    Lock(#[from] DirectoryLockError),
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] JsonFileError),
    /// The change is not allowed.
    #[error("{0}")]
    Refused(String),
}

impl Store {
    /// The store of a home; nothing is touched.
    pub fn new(home: &Home) -> Self {
        Self {
            file: home.crons(),
            lock: home.crons_lock(),
            scheduler_lock: home.crons_scheduler_lock(),
            runs: home.runs(),
        }
    }

    /// What the file holds now, without the lock.
    pub fn read(&self) -> Document {
        match json_file::read(&self.file) {
            Ok(Found::Object(object)) => Document::new(object).unwrap_or_default(),
            Ok(Found::Missing | Found::Corrupt(_)) => Document::default(),
            Err(error) => {
                tracing::warn!(%error, "The schedules cannot be read.");
                Document::default()
            }
        }
    }

    /// The task of an id.
    pub fn get(&self, id: &str) -> Option<Task> {
        let mut document = self.read();
        let at = document.position(id)?;
        Some(document.tasks.swap_remove(at))
    }

    /// Tells whether the file is still the one that was read; `None` without one.
    pub fn stamp(&self) -> Option<Stamp> {
        let metadata = fs::metadata(&self.file).ok()?;
        Some(Stamp {
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }

    /// Changes the store; it is written when `change` returns true. The stamp is
    /// that of the file as it is then.
    ///
    /// # Errors
    /// When the lock or the file cannot be used; nothing is changed then.
    pub fn update(
        &self,
        change: &mut dyn FnMut(&mut Document) -> bool,
    ) -> Result<Option<Stamp>, StoreError> {
        let _lock = DirectoryLock::acquire(&self.lock)?;
        let found = json_file::read(&self.file)?;
        let (mut document, usable) = match found {
            Found::Missing => (Document::default(), true),
            Found::Corrupt(_) => (Document::default(), false),
            Found::Object(object) => {
                let document = Document::new(object);
                let usable = document.is_some();
                (document.unwrap_or_default(), usable)
            }
        };
        if change(&mut document) {
            if !usable {
                let copy = json_file::set_aside(&self.file)?;
                tracing::warn!(
                    copy = %copy.display(),
                    "The file of the schedules was no valid store; a copy is kept."
                );
            }
            json_file::write(&self.file, &document.into_object(), Access::Private)?;
        }
        Ok(self.stamp())
    }
}

impl Document {
    /// Sorts an object; `None` when it is of another version.
    fn new(mut top: Map<String, Value>) -> Option<Self> {
        if top.get("version").and_then(Value::as_f64) != Some(VERSION as f64) {
            return None;
        }
        let tasks = top.get_mut("tasks").map(Value::take);
        let tasks = match tasks {
            Some(Value::Array(tasks)) => tasks.into_iter().filter_map(Task::read).collect(),
            _ => Vec::new(),
        };
        Some(Self { top, tasks })
    }

    fn into_object(self) -> Map<String, Value> {
        let mut top = self.top;
        for (name, default) in [
            ("version", json!(VERSION)),
            ("scheduler_owner", Value::Null),
            ("scheduler_owners", json!({})),
        ] {
            top.entry(name).or_insert(default);
        }
        let tasks = self.tasks.into_iter().map(|task| Value::Object(task.0));
        top.insert("tasks".into(), tasks.collect());
        top
    }

    /// Where the task of an id stands.
    pub fn position(&self, id: &str) -> Option<usize> {
        self.tasks.iter().position(|task| task.id() == id)
    }

    /// The task of an id.
    pub(super) fn task_mut(&mut self, id: &str) -> Option<&mut Task> {
        self.tasks.iter_mut().find(|task| task.id() == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(text: Option<&str>) -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().expect("temp dir");
        let store = Store::new(&Home::at(dir.path()));
        if let Some(text) = text {
            fs::create_dir_all(dir.path().join(".letta")).expect("created");
            fs::write(&store.file, text).expect("written");
        }
        (dir, store)
    }

    #[test]
    fn a_store_of_the_published_program_is_rewritten_byte_for_byte() {
        let text = include_str!("../../tests/data/cron/published-store.json");
        let (_dir, store) = fixture(Some(text));
        assert_eq!(store.read().tasks.len(), 3);
        store.update(&mut |_| true).expect("written");
        assert_eq!(fs::read_to_string(&store.file).expect("read"), text);
    }

    #[test]
    fn what_another_version_wrote_into_it_survives_a_change() {
        let text = r#"{"version":1,"later":[1],"tasks":[{"id":"a","x":{"y":2}}],"scheduler_owners":{"z":1}}"#;
        let (_dir, store) = fixture(Some(text));
        let change = &mut |document: &mut Document| {
            document.task_mut("a").expect("there").set("name", "new");
            true
        };
        store.update(change).expect("written");
        let written: Value =
            serde_json::from_slice(&fs::read(&store.file).expect("read")).expect("JSON");
        assert_eq!(written["later"], json!([1]));
        assert_eq!(written["scheduler_owners"], json!({"z": 1}));
        assert_eq!(written["tasks"][0]["x"], json!({"y": 2}));
        assert_eq!(written["tasks"][0]["name"], "new");
    }

    #[test]
    fn a_file_that_is_no_store_counts_as_empty_and_is_kept_aside() {
        for text in ["{", "[]", r#"{"version":2,"tasks":[{"id":"a"}]}"#, "{}"] {
            let (dir, store) = fixture(Some(text));
            assert!(store.read().tasks.is_empty(), "{text}");
            store.update(&mut |_| false).expect("looked at");
            assert_eq!(fs::read_to_string(&store.file).expect("read"), text);
            store.update(&mut |_| true).expect("written");
            let names = fs::read_dir(dir.path().join(".letta")).expect("listed");
            let copy = names
                .map(|entry| entry.expect("an entry").path())
                .find(|path| path.to_string_lossy().contains("crons.json.corrupt-"))
                .unwrap_or_else(|| panic!("no copy of {text}"));
            assert_eq!(fs::read_to_string(copy).expect("read"), text);
        }
    }

    #[test]
    fn every_write_changes_the_stamp() {
        let (_dir, store) = fixture(None);
        assert_eq!(store.stamp(), None);
        let first = store.update(&mut |_| true).expect("written");
        assert_eq!(store.stamp(), first);
        let second = store.update(&mut |_| true).expect("written");
        assert_ne!(first, second);
        assert_eq!(store.update(&mut |_| false).expect("looked at"), second);
    }
}
