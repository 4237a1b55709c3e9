//! Permission rules: where they come from, how lists merge, what a list says
//! about a call.
//!
//! Order between files is only list order; a deny rule anywhere wins over an
//! allow rule anywhere (05 §4.1, §4.2). Lists that forbid or ask match wider
//! than lists that allow: see [`matching`].

mod cli_list;
mod matching;
mod rule;
mod save;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::protocol::PermissionMode;

pub use cli_list::parse_tool_list;
pub(super) use matching::{Intent, Subject};
pub(super) use rule::Rule;
pub use rule::normal_form;
pub use save::{SaveError, add_rule};

/// The four lists of a settings file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleList {
    /// Runs without asking.
    Allow,
    /// Never runs.
    Deny,
    /// Asks, unless something else allows it.
    Ask,
    /// Asks in every mode.
    AlwaysAsk,
}

impl RuleList {
    /// The key under `permissions`.
    pub fn key(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Ask => "ask",
            Self::AlwaysAsk => "alwaysAsk",
        }
    }
}

/// Rules of the settings files, merged.
#[derive(Clone, Debug, Default)]
pub struct SettingsRules {
    pub(super) allow: Vec<Rule>,
    pub(super) deny: Vec<Rule>,
    pub(super) ask: Vec<Rule>,
    pub(super) always_ask: Vec<Rule>,
    pub(super) additional_directories: Vec<String>,
    mode: Option<PermissionMode>,
}

impl SettingsRules {
    /// `permissions.mode` of the most specific file with a valid one.
    pub fn mode(&self) -> Option<PermissionMode> {
        self.mode
    }

    /// `additionalDirectories` of all files, as written.
    pub fn additional_directories(&self) -> &[String] {
        &self.additional_directories
    }

    fn list_mut(&mut self, list: RuleList) -> &mut Vec<Rule> {
        match list {
            RuleList::Allow => &mut self.allow,
            RuleList::Deny => &mut self.deny,
            RuleList::Ask => &mut self.ask,
            RuleList::AlwaysAsk => &mut self.always_ask,
        }
    }

    fn add_file(&mut self, file: &Value) {
        let permissions = &file["permissions"];
        if let Some(mode) = permissions["mode"].as_str().and_then(PermissionMode::parse) {
            self.mode = Some(mode);
        }
        for list in [
            RuleList::Allow,
            RuleList::Deny,
            RuleList::Ask,
            RuleList::AlwaysAsk,
        ] {
            // What is no list, or no text in a list, is skipped (05 §4.1).
            for text in permissions[list.key()].as_array().into_iter().flatten() {
                let Some(text) = text.as_str() else { continue };
                let rule = Rule::new(text);
                let rules = self.list_mut(list);
                if !rules.iter().any(|old| old.same(&rule)) {
                    rules.push(rule);
                }
            }
        }
        let directories = permissions["additionalDirectories"].as_array();
        self.additional_directories.extend(
            directories
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned),
        );
    }
}

/// Rules that a human gave for the rest of one conversation. Only `allow` and
/// `alwaysAsk` take effect (05 §1).
#[derive(Clone, Debug, Default)]
pub struct SessionRules {
    pub(super) allow: Vec<Rule>,
    pub(super) always_ask: Vec<Rule>,
    stored: Vec<(RuleList, String)>,
}

impl SessionRules {
    /// Adds a rule; the same text twice counts once. Returns whether it is new.
    pub fn add(&mut self, list: RuleList, text: &str) -> bool {
        if self.texts(list).any(|old| old == text) {
            return false;
        }
        match list {
            RuleList::Allow => self.allow.push(Rule::new(text)),
            RuleList::AlwaysAsk => self.always_ask.push(Rule::new(text)),
            RuleList::Deny | RuleList::Ask => {}
        }
        self.stored.push((list, text.to_owned()));
        true
    }

    /// The texts of one list, in order: `session_permissions` of hooks (05 §15.4).
    pub fn texts(&self, list: RuleList) -> impl Iterator<Item = &str> {
        self.stored
            .iter()
            .filter(move |(of, _)| *of == list)
            .map(|(_, text)| text.as_str())
    }
}

/// Rules that came with the start of the process or of the runtime.
#[derive(Clone, Debug, Default)]
pub struct LaunchRules {
    pub(super) allowed: Vec<Rule>,
    pub(super) disallowed: Vec<Rule>,
}

impl LaunchRules {
    /// `execution_settings`: texts are taken as they are (05 §4.2).
    pub fn verbatim(allowed: &[String], disallowed: &[String]) -> Self {
        let read = |texts: &[String]| texts.iter().map(|t| Rule::new(t)).collect();
        Self {
            allowed: read(allowed),
            disallowed: read(disallowed),
        }
    }

    /// `--allowedTools` and `--disallowedTools`: lists of [`parse_tool_list`].
    pub fn from_flags(allowed: &str, disallowed: &str) -> Self {
        Self::verbatim(&parse_tool_list(allowed), &parse_tool_list(disallowed))
    }
}

/// The settings files whose rules count in `cwd`, from the least to the most
/// specific: what [`Rules::merge`] expects (05 §4.1). `config_home` is
/// `$XDG_CONFIG_HOME` or `~/.config`.
pub fn settings_files(config_home: &Path, home: &Path, cwd: &Path) -> [PathBuf; 4] {
    [
        config_home.join("letta/settings.json"),
        home.join(".letta/settings.json"),
        cwd.join(".letta/settings.json"),
        cwd.join(".letta/settings.local.json"),
    ]
}

/// Every rule that bears on a conversation's calls.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// From settings files; shared between conversations of one directory.
    pub settings: Arc<SettingsRules>,
    /// Of this conversation.
    pub session: SessionRules,
    /// From flags or execution settings.
    pub launch: LaunchRules,
}

impl Rules {
    /// Merges parsed settings files, given from the least to the most specific
    /// (05 §4.1). Anything malformed inside is ignored, never an error.
    pub fn merge(files: &[Value]) -> Self {
        let mut settings = SettingsRules::default();
        for file in files {
            settings.add_file(file);
        }
        Self {
            settings: Arc::new(settings),
            ..Self::default()
        }
    }

    /// With the rules of one conversation.
    #[must_use]
    pub fn with_session(mut self, session: SessionRules) -> Self {
        self.session = session;
        self
    }

    /// With the rules of the start.
    #[must_use]
    pub fn with_launch(mut self, launch: LaunchRules) -> Self {
        self.launch = launch;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn files_append_and_equal_rules_count_once() {
        let rules = Rules::merge(&[
            json!({"permissions": {"allow": ["Bash(npm test)"], "mode": "standard"}}),
            json!({"permissions": {"allow": ["Bash( npm test )", "LS(/x)"], "mode": "nonsense",
                "additionalDirectories": ["../docs", "../docs"]}}),
        ]);
        let texts: Vec<_> = rules.settings.allow.iter().map(Rule::text).collect();
        assert_eq!(texts, ["Bash(npm test)", "LS(/x)"]);
        assert_eq!(rules.settings.mode(), Some(PermissionMode::Standard));
        assert_eq!(rules.settings.additional_directories().len(), 2);
    }

    #[test]
    fn malformed_parts_are_skipped_and_the_rest_counts() {
        let rules = Rules::merge(&[
            json!("nonsense"),
            json!({"permissions": {"allow": "Bash", "deny": null, "ask": [1, "Skill", {}]}}),
        ]);
        assert!(rules.settings.allow.is_empty() && rules.settings.deny.is_empty());
        assert_eq!(rules.settings.ask.len(), 1);
    }

    #[test]
    fn session_rules_keep_order_and_drop_exact_repeats() {
        let mut session = SessionRules::default();
        assert!(session.add(RuleList::Allow, "Bash(a)"));
        assert!(!session.add(RuleList::Allow, "Bash(a)"));
        assert!(session.add(RuleList::Deny, "Bash(a)"));
        assert_eq!(session.texts(RuleList::Allow).count(), 1);
    }
}
