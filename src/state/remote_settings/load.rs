//! Reading the file once at start: stale directories, migration, journals
//! (spec 01 §4.7, load). Blocking.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::directory::is_confirmed_unusable;
use super::document::{CWD_MAP, MODE_MAP, Mutation, Patch, apply_journals, read_journals};
use super::mode_entry::ModeEntry;
use crate::state::json_file::{self, Found};

/// What the file holds, and what has to change in it.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) cwds: BTreeMap<String, String>,
    pub(super) modes: BTreeMap<String, ModeEntry>,
    pub(super) patch: Patch,
}

pub(super) fn load(path: &Path, cwd_cache: &Path) -> Loaded {
    let mut loaded = Loaded::default();
    let (mut settings, may_migrate) = match json_file::read(path) {
        Ok(Found::Object(found)) => (found, true),
        Ok(Found::Missing) => (Map::new(), true),
        Ok(Found::Corrupt(reason)) => {
            tracing::warn!(path = %path.display(), reason, "saved directories and modes are lost; the file is moved aside");
            loaded.patch.force = true;
            (Map::new(), false)
        }
        Err(error) => {
            tracing::warn!(%error, "going on without saved directories and modes");
            (Map::new(), false)
        }
    };
    let journals = read_journals(path);
    loaded.patch.force |= !journals.is_empty();
    apply_journals(&mut settings, &journals);

    match settings.get(CWD_MAP).and_then(Value::as_object) {
        Some(stored) => {
            for (key, cwd) in strings(stored) {
                if is_confirmed_unusable(cwd) {
                    loaded
                        .patch
                        .cwds
                        .insert(key.clone(), Mutation::DeleteIf(json!(cwd)));
                } else {
                    loaded.cwds.insert(key.clone(), cwd.to_owned());
                }
            }
        }
        // Written even when empty, so that the old file is never read again.
        None if may_migrate => {
            loaded.patch.force = true;
            if let Ok(Found::Object(old)) = json_file::read(cwd_cache) {
                for (key, cwd) in strings(&old).filter(|(_, cwd)| !is_confirmed_unusable(cwd)) {
                    loaded
                        .patch
                        .cwds
                        .insert(key.clone(), Mutation::Set(json!(cwd)));
                    loaded.cwds.insert(key.clone(), cwd.to_owned());
                }
            }
        }
        None => {}
    }
    if let Some(stored) = settings.get(MODE_MAP).and_then(Value::as_object) {
        let entries = stored
            .iter()
            .filter_map(|(key, entry)| Some((key.clone(), ModeEntry::from_json(entry)?)));
        loaded.modes = entries.collect();
    }
    loaded
}

fn strings(map: &Map<String, Value>) -> impl Iterator<Item = (&String, &str)> {
    map.iter()
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
}
