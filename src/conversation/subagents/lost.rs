//! Records of runs under way, so that the next process can tell a parent of
//! one that was lost, or hand over a report that came too late (07 §3.9).
//!
//! One small file for each run; it goes when its notification is queued.
//! Invariant: only records of a process that is dead, and of the same computer
//! name, are taken up.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::protocol::Scope;
use crate::state::atomic::Access;
use crate::state::json_file::{self, Found};
use crate::state::process_identity::ProcessIdentity;

/// A record with what it tells its parent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) path: PathBuf,
    pub(super) parent: Scope,
    pub(super) text: String,
    pub(super) acting_user_id: Option<String>,
}

/// Writes what a later process tells `parent`: `text`. Blocking.
pub(super) fn write(
    path: &Path,
    computer: &str,
    parent: &Scope,
    acting_user_id: Option<&str>,
    text: &str,
) {
    let process = ProcessIdentity::of_self();
    let mut record = Map::new();
    record.insert("pid".into(), process.pid.into());
    process.write(&mut record);
    let fields = [
        ("computer", Some(computer)),
        ("agent_id", parent.agent_id.as_deref()),
        ("conversation_id", Some(&*parent.conversation_id)),
        ("acting_user_id", acting_user_id),
        ("text", Some(text)),
    ];
    for (name, value) in fields {
        record.insert(name.into(), value.into());
    }
    if let Err(error) = json_file::write(path, &record, Access::Private) {
        tracing::warn!(%error, "A restart would not know of this subagent.");
    }
}

/// Takes a record away; one that is not there is fine. Blocking.
pub(super) fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "A restart would report this subagent again.");
    }
}

/// The records that dead processes of this computer left. Blocking.
pub(super) fn list(dir: &Path, computer: &str) -> Vec<Lost> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "json"));
    paths.sort();
    let lost = paths.into_iter().filter_map(|path| {
        let Ok(Found::Object(record)) = json_file::read(&path) else {
            return None;
        };
        let text = |name: &str| record.get(name).and_then(Value::as_str);
        let lost = Lost {
            parent: Scope::new(text("agent_id"), text("conversation_id")),
            text: text("text")?.to_owned(),
            acting_user_id: text("acting_user_id").map(String::from),
            path,
        };
        let here = text("computer") == Some(computer);
        let process = ProcessIdentity::read(&Value::Object(record))?;
        (here && lost.parent.agent_id.is_some() && !process.is_alive()).then_some(lost)
    });
    lost.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_dead_process_of_this_computer_left_is_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let parent = Scope::new(Some("agent-1"), Some("conv-1"));
        write(&path("alive.json"), "here", &parent, None, "still at work");
        assert!(list(dir.path(), "here").is_empty());
        let record = |computer: &str| {
            format!(
                r#"{{"pid":999999999,"computer":"{computer}","agent_id":"agent-1","conversation_id":"conv-1","acting_user_id":"u","text":"gone"}}"#
            )
        };
        fs::write(path("dead.json"), record("here")).unwrap();
        fs::write(path("other.json"), record("elsewhere")).unwrap();
        fs::write(path("broken.json"), "{").unwrap();
        fs::write(path("note.txt"), record("here")).unwrap();
        let lost = list(dir.path(), "here");
        assert_eq!(
            lost,
            [Lost {
                path: path("dead.json"),
                parent,
                text: "gone".into(),
                acting_user_id: Some("u".into()),
            }]
        );
        remove(&lost[0].path);
        remove(&lost[0].path);
        assert!(list(dir.path(), "here").is_empty());
    }
}
