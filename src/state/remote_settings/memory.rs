//! What the handle knows, and which changes are on their way to the file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::document::{Mutation, Patch};
use super::lent::Lent;
use super::mode_entry::ModeEntry;
use crate::protocol::PermissionMode;

#[derive(Debug)]
pub(super) struct Memory {
    pub(super) cwds: BTreeMap<String, String>,
    pub(super) modes: BTreeMap<String, ModeEntry>,
    pub(super) boot: PathBuf,
    /// What subagents were lent, by key.
    pub(super) lent: BTreeMap<String, Lent>,
    pub(super) revision: u64,
    /// Not written yet.
    pub(super) pending: Patch,
    /// Being written.
    pub(super) in_flight: Patch,
}

impl Memory {
    pub(super) fn empty() -> Self {
        Self {
            cwds: BTreeMap::new(),
            modes: BTreeMap::new(),
            boot: PathBuf::from("/"),
            lent: BTreeMap::new(),
            revision: 0,
            pending: Patch::default(),
            in_flight: Patch::default(),
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        self.pending.is_empty() && self.in_flight.is_empty()
    }

    pub(super) fn store_mode(&mut self, key: String, entry: ModeEntry, default: PermissionMode) {
        if let Some(lent) = self.lent.get_mut(&key) {
            lent.mode = entry;
            return;
        }
        let mutation = if entry == ModeEntry::plain(default) {
            Mutation::Delete
        } else {
            Mutation::Set(entry.to_json())
        };
        self.pending.modes.insert(key.clone(), mutation);
        self.modes.insert(key, entry);
    }

    /// A key with a write of ours under way goes whatever the file says, since
    /// the file may not hold our value yet.
    pub(super) fn deletion_of_cwd(&self, key: &str, expected: Value) -> Mutation {
        let ours = self.pending.cwds.contains_key(key) || self.in_flight.cwds.contains_key(key);
        if ours {
            Mutation::Delete
        } else {
            Mutation::DeleteIf(expected)
        }
    }

    pub(super) fn deletion_of_mode(&self, key: &str, expected: Value) -> Mutation {
        let ours = self.pending.modes.contains_key(key) || self.in_flight.modes.contains_key(key);
        if ours {
            Mutation::Delete
        } else {
            Mutation::DeleteIf(expected)
        }
    }

    /// Everything, for a file that has to be begun anew.
    pub(super) fn snapshot(&self, default: PermissionMode) -> Patch {
        let cwds = self
            .cwds
            .iter()
            .map(|(key, cwd)| (key.clone(), Mutation::Set(json!(cwd))));
        let stored = self
            .modes
            .iter()
            .filter(|(_, entry)| **entry != ModeEntry::plain(default));
        Patch {
            cwds: cwds.collect(),
            modes: stored
                .map(|(key, entry)| (key.clone(), Mutation::Set(entry.to_json())))
                .collect(),
            force: true,
        }
    }
}
