//! A conversation's permission mode, in memory and in the file (05 §2.4, §2.5).

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::protocol::PermissionMode;

/// The permission mode of one conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeEntry {
    /// The mode.
    pub mode: PermissionMode,
    /// In plan mode: what to go back to.
    pub mode_before_plan: Option<PermissionMode>,
    /// In plan mode: where the plan goes.
    pub plan_file: Option<PathBuf>,
}

impl ModeEntry {
    /// A mode other than `plan`, which needs [`ModeEntry::plan`].
    pub fn plain(mode: PermissionMode) -> Self {
        Self {
            mode,
            mode_before_plan: None,
            plan_file: None,
        }
    }

    /// Plan mode.
    pub fn plan(before: PermissionMode, plan_file: PathBuf) -> Self {
        Self {
            mode: PermissionMode::Plan,
            mode_before_plan: Some(before),
            plan_file: Some(plan_file),
        }
    }

    /// Reads a stored entry; `None` when it is malformed. A mode that nobody
    /// knows becomes `standard`; whatever names a plan file is plan mode.
    pub(super) fn from_json(value: &Value) -> Option<Self> {
        let name = value.get("mode")?.as_str()?;
        let named = |key: &str| value.get(key).and_then(Value::as_str);
        let before = named("modeBeforePlan").and_then(PermissionMode::parse);
        if let Some(file) = named("planFilePath").filter(|file| !file.is_empty()) {
            return Some(Self::plan(
                before.unwrap_or(PermissionMode::Standard),
                file.into(),
            ));
        }
        let mode = match PermissionMode::parse(name) {
            // Without its file plan mode could never be left.
            None | Some(PermissionMode::Plan) => PermissionMode::Standard,
            Some(mode) => mode,
        };
        Some(Self::plain(mode))
    }

    /// The stored form. Plan mode is written as `strict`, because the published
    /// program reads a stored `plan` as `unrestricted`.
    pub(super) fn to_json(&self) -> Value {
        let Some(file) = self
            .plan_file
            .as_ref()
            .filter(|_| self.mode == PermissionMode::Plan)
        else {
            let mode = match self.mode {
                PermissionMode::Plan => PermissionMode::Strict,
                other => other,
            };
            return json!({"mode": mode.as_str()});
        };
        json!({
            "mode": PermissionMode::Strict.as_str(),
            "modeBeforePlan": self.mode_before_plan.unwrap_or(PermissionMode::Standard).as_str(),
            "planFilePath": file.to_string_lossy(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plan_mode_is_stored_as_strict_and_read_back_as_plan() {
        let entry = ModeEntry::plan(PermissionMode::AcceptEdits, "/h/.letta/plans/a.md".into());
        let stored = entry.to_json();
        assert_eq!(
            stored,
            json!({"mode":"strict","modeBeforePlan":"acceptEdits","planFilePath":"/h/.letta/plans/a.md"})
        );
        assert_eq!(ModeEntry::from_json(&stored), Some(entry));
    }

    #[test]
    fn unknown_modes_become_standard_aliases_are_read_and_malformed_entries_refused() {
        for (stored, mode) in [
            ("memory", PermissionMode::Standard),
            ("plan", PermissionMode::Standard),
            ("bypassPermissions", PermissionMode::Unrestricted),
            ("default", PermissionMode::Standard),
            ("strict", PermissionMode::Strict),
        ] {
            let entry = ModeEntry::from_json(&json!({"mode": stored}));
            assert_eq!(entry, Some(ModeEntry::plain(mode)), "{stored}");
        }
        for malformed in [json!(null), json!({}), json!({"mode": 1}), json!("strict")] {
            assert_eq!(ModeEntry::from_json(&malformed), None);
        }
    }
}
