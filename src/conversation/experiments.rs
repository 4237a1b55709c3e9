//! The feature switches that clients show (06 §13). They are kept for other
//! programs that share the settings; none of them changes this one, and their
//! descriptions say so.

use serde_json::{Map, Value, json};

use crate::protocol::event::Experiment;
use crate::state::UserSettings;
use crate::state::json_file::JsonFileError;

/// Identifier, label, and whether clients may set it.
const ALL: [(&str, &str, bool); 6] = [
    ("artifacts", "artifacts", false),
    (TITLES, "conversation titles", true),
    (
        "desktop_conversation_bootstrap",
        "conversation bootstrap",
        true,
    ),
    ("diffs", "diffs", false),
    ("reflection_arena", "reflection arena", false),
    ("tui_cron", "TUI cron scheduler", true),
];

/// The one with a key of its own in the settings.
const TITLES: &str = "conversation_titles";
const TITLES_KEY: &str = "autoConversationTitles";

/// What is said of each.
const DESCRIPTION: &str = "Stored for other programs; without effect on this computer.";

/// All switches as they stand.
pub fn snapshot(settings: &UserSettings) -> Vec<Experiment> {
    let stored = settings.get("experiments");
    ALL.iter()
        .map(|&(id, label, _)| {
            let value = if id == TITLES {
                settings.get(TITLES_KEY)
            } else {
                stored.as_ref().and_then(|stored| stored.get(id)).cloned()
            };
            let value = value.as_ref().and_then(Value::as_bool);
            // Titles have a setting rather than an override.
            let own = value.filter(|_| id != TITLES);
            Experiment {
                id,
                label,
                description: DESCRIPTION,
                enabled: value.unwrap_or(false),
                source: if own.is_some() { "override" } else { "default" },
                r#override: own,
            }
        })
        .collect()
}

/// Whether a client may set the switch `id`.
pub fn is_settable(id: &str) -> bool {
    ALL.iter()
        .any(|(known, _, settable)| *settable && *known == id)
}

/// Stores a switch. Blocking.
///
/// # Errors
/// When the settings cannot be written.
pub fn set(settings: &UserSettings, id: &str, enabled: bool) -> Result<(), JsonFileError> {
    settings.update(|settings| {
        if id == TITLES {
            settings.insert(TITLES_KEY.into(), enabled.into());
            return;
        }
        let experiments = settings
            .entry("experiments")
            .or_insert_with(|| Value::Object(Map::new()));
        if !experiments.is_object() {
            *experiments = json!({});
        }
        experiments[id] = enabled.into();
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Home;

    #[test]
    fn a_switch_is_stored_where_other_programs_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let settings = UserSettings::load(&Home::at(dir.path()));
        set(&settings, "tui_cron", true).unwrap();
        set(&settings, TITLES, true).unwrap();
        assert_eq!(settings.get("experiments"), Some(json!({"tui_cron": true})));
        assert_eq!(settings.get("autoConversationTitles"), Some(json!(true)));
        let shown = snapshot(&settings);
        let ids: Vec<&str> = shown.iter().map(|row| row.id).collect();
        assert_eq!(ids.len(), 6);
        let of = |id: &str| {
            let row = shown.iter().find(|row| row.id == id).unwrap();
            json!([row.enabled, row.source, row.r#override])
        };
        assert_eq!(of("tui_cron"), json!([true, "override", true]));
        assert_eq!(of(TITLES), json!([true, "default", null]));
        assert_eq!(of("diffs"), json!([false, "default", null]));
        assert!(is_settable("tui_cron") && !is_settable("diffs") && !is_settable("x"));
    }
}
