//! The `hooks` key of the settings files, read without trust (05 §15.1).
//!
//! Invariant: what is malformed disables itself and is named in a warning; it
//! never stops a call. Files merge from the narrowest to the broadest.

use std::time::Duration;

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use super::Event;
use crate::state::settings_files::{SettingsFile, SettingsLevel};

/// A command may run so long unless its entry says otherwise.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// The same for a prompt.
const PROMPT_TIMEOUT: Duration = Duration::from_secs(30);
/// No entry may ask for more.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(3600);
/// Hooks of one event; more are left out.
const MOST: usize = 64;
/// Compiled size of one matcher, in bytes.
const MATCHER_SIZE: usize = 1 << 20;

/// One hook of an event.
#[derive(Clone, Debug)]
pub(super) struct Hook {
    pub(super) event: Event,
    pub(super) matcher: Matcher,
    pub(super) action: Action,
    pub(super) timeout: Duration,
    /// Nothing of it goes to the log.
    pub(super) quiet: bool,
}

/// What a hook does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Command(String),
    Prompt {
        prompt: String,
        model: Option<String>,
    },
}

/// Which tools a hook is for.
#[derive(Clone, Debug)]
pub(super) enum Matcher {
    All,
    Whole(Regex),
    /// The expression is invalid: it is compared as it stands.
    Exactly(String),
}

impl Matcher {
    fn new(text: &str) -> Self {
        if text.is_empty() || text == "*" {
            return Self::All;
        }
        let whole = RegexBuilder::new(&format!("^(?:{text})$"))
            .size_limit(MATCHER_SIZE)
            .build();
        whole.map_or_else(|_| Self::Exactly(text.to_owned()), Self::Whole)
    }

    pub(super) fn takes(&self, tool: &str) -> bool {
        match self {
            Self::All => true,
            Self::Whole(regex) => regex.is_match(tool),
            Self::Exactly(text) => text == tool,
        }
    }
}

/// The hooks of a directory, in the order in which they run, and what is wrong
/// with the files.
#[derive(Debug, Default)]
pub(super) struct Config {
    pub(super) hooks: Vec<Hook>,
    pub(super) warnings: Vec<String>,
}

impl Config {
    pub(super) fn read(files: &[SettingsFile]) -> Self {
        let mut config = Self::default();
        if is_off(files) {
            return config;
        }
        for event in Event::ALL {
            for level in [
                SettingsLevel::Local,
                SettingsLevel::Project,
                SettingsLevel::User,
            ] {
                for file in files.iter().filter(|file| file.level == level) {
                    let Some(Value::Object(hooks)) = file.object.get("hooks") else {
                        continue;
                    };
                    let place = format!("{} in {}", event.as_str(), file.path.display());
                    if let Some(groups) = hooks.get(event.as_str()) {
                        config.add(event, groups, &place);
                    }
                }
            }
        }
        config
    }

    fn warn(&mut self, place: &str, problem: &str) {
        self.warnings.push(format!("hooks.{place}: {problem}"));
    }

    fn add(&mut self, event: Event, groups: &Value, place: &str) {
        let Value::Array(groups) = groups else {
            return self.warn(place, "must be an array; it is ignored");
        };
        for (at, group) in groups.iter().enumerate() {
            let place = format!("{place}, entry {}", at + 1);
            let Some(Value::Array(hooks)) = group.get("hooks") else {
                self.warn(&place, "has no array `hooks`; it is ignored");
                continue;
            };
            let matcher = match group.get("matcher") {
                None | Some(Value::Null) => Matcher::All,
                Some(Value::String(text)) => Matcher::new(text),
                Some(_) => {
                    self.warn(&place, "`matcher` must be a text; the entry is ignored");
                    continue;
                }
            };
            for hook in hooks {
                let known = self.hooks.iter().filter(|hook| hook.event == event).count();
                match read_hook(event, &matcher, hook) {
                    Ok(_) if known >= MOST => {
                        return self.warn(&place, "too many hooks; the rest is ignored");
                    }
                    Ok(hook) => self.hooks.push(hook),
                    Err(problem) => self.warn(&place, &problem),
                }
            }
        }
    }
}

/// The user's word counts before that of a project (05 §15.1).
fn is_off(files: &[SettingsFile]) -> bool {
    let said = |wanted: SettingsLevel| {
        files
            .iter()
            .filter(|file| file.level == wanted)
            .find_map(|file| file.object.get("hooks")?.get("disabled")?.as_bool())
    };
    said(SettingsLevel::User).unwrap_or_else(|| {
        said(SettingsLevel::Project) == Some(true) || said(SettingsLevel::Local) == Some(true)
    })
}

fn read_hook(event: Event, matcher: &Matcher, hook: &Value) -> Result<Hook, String> {
    let Value::Object(hook) = hook else {
        return Err("a hook must be an object; it is ignored".into());
    };
    let text = |key: &str| hook.get(key).and_then(Value::as_str);
    let (action, usual) = match text("type") {
        Some("command") => {
            let command = text("command").map(str::trim).unwrap_or_default();
            if command.is_empty() {
                return Err("a command hook needs `command`; it is ignored".into());
            }
            (Action::Command(command.to_owned()), COMMAND_TIMEOUT)
        }
        Some("prompt") if event == Event::PreCompact => {
            return Err("prompt hooks do not work for this event; it is ignored".into());
        }
        Some("prompt") => {
            let prompt = text("prompt").unwrap_or_default();
            if prompt.trim().is_empty() {
                return Err("a prompt hook needs `prompt`; it is ignored".into());
            }
            let action = Action::Prompt {
                prompt: prompt.to_owned(),
                model: text("model").map(str::to_owned),
            };
            (action, PROMPT_TIMEOUT)
        }
        Some(other) => return Err(format!("Unknown hook type: {other}; it is ignored")),
        None => return Err("a hook needs `type`; it is ignored".into()),
    };
    Ok(Hook {
        event,
        matcher: matcher.clone(),
        action,
        timeout: timeout(hook).unwrap_or(usual),
        quiet: hook.get("quiet") == Some(&Value::Bool(true)),
    })
}

/// `timeout` in milliseconds; anything but a positive number is as good as none.
fn timeout(hook: &Map<String, Value>) -> Option<Duration> {
    let millis = hook
        .get("timeout")?
        .as_f64()
        .filter(|millis| *millis > 0.0)?;
    let asked = Duration::try_from_secs_f64(millis / 1000.0).ok();
    Some(asked.map_or(LONGEST_TIMEOUT, |asked| asked.min(LONGEST_TIMEOUT)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Arc;

    fn file(level: SettingsLevel, hooks: Value) -> SettingsFile {
        let object = json!({ "hooks": hooks });
        SettingsFile {
            level,
            path: format!("/{level:?}.json").into(),
            object: Arc::new(object.as_object().unwrap().clone()),
        }
    }

    fn command(name: &str) -> Value {
        json!([{"hooks": [{"type": "command", "command": name}]}])
    }

    fn names(config: &Config) -> Vec<&str> {
        config
            .hooks
            .iter()
            .map(|hook| match &hook.action {
                Action::Command(text) => text.as_str(),
                Action::Prompt { prompt, .. } => prompt.as_str(),
            })
            .collect()
    }

    #[test]
    fn local_hooks_run_before_those_of_the_project_and_the_user() {
        let config = Config::read(&[
            file(
                SettingsLevel::Legacy,
                json!({"PreToolUse": command("legacy")}),
            ),
            file(SettingsLevel::User, json!({"PreToolUse": command("user")})),
            file(
                SettingsLevel::Project,
                json!({"PreToolUse": command("project")}),
            ),
            file(
                SettingsLevel::Local,
                json!({"PreToolUse": command("local")}),
            ),
        ]);
        assert_eq!(names(&config), ["local", "project", "user"]);
        assert!(config.warnings.is_empty());
    }

    #[test]
    fn the_user_switches_hooks_on_and_off_before_a_project_does() {
        for (user, local, on) in [
            (json!({}), json!({"disabled": true}), false),
            (json!({"disabled": false}), json!({"disabled": true}), true),
            (json!({"disabled": true}), json!({}), false),
            (json!({}), json!({}), true),
        ] {
            let mut user = user;
            user["Stop"] = json!(1);
            user["PreToolUse"] = command("x");
            let files = [
                file(SettingsLevel::User, user),
                file(SettingsLevel::Local, local),
            ];
            assert_eq!(!Config::read(&files).hooks.is_empty(), on, "{files:?}");
        }
    }

    #[test]
    fn what_is_malformed_is_left_out_with_a_warning_and_the_rest_works() {
        let config = Config::read(&[file(
            SettingsLevel::User,
            json!({
                "PostToolUse": "x",
                "PreCompact": [{"hooks": [{"type": "prompt", "prompt": "p"}]}],
                "PreToolUse": [
                    1, {}, {"hooks": "x"}, {"matcher": 1, "hooks": []},
                    {"hooks": [1, {}, {"type": "odd"}, {"type": "command"}, {"type": "command", "command": " "},
                        {"type": "prompt"}, {"type": "command", "command": " good ", "timeout": "soon"}]},
                ],
            }),
        )]);
        assert_eq!(names(&config), ["good"]);
        assert_eq!(config.hooks[0].timeout, COMMAND_TIMEOUT);
        assert_eq!(config.warnings.len(), 12, "{:#?}", config.warnings);
        assert!(
            config
                .warnings
                .iter()
                .all(|w| w.contains("/User.json") && w.contains("ignored"))
        );
    }

    #[test]
    fn a_matcher_takes_the_whole_name_and_an_invalid_one_is_compared() {
        for (matcher, tool, takes) in [
            ("", "Bash", true),
            ("*", "Bash", true),
            ("Bash|Edit", "Edit", true),
            ("Bash|Edit", "MultiEdit", false),
            ("Ba", "Bash", false),
            ("bash", "Bash", false),
            ("mcp__.*", "mcp__a", true),
            ("(", "(", true),
            ("(", "Bash", false),
        ] {
            assert_eq!(Matcher::new(matcher).takes(tool), takes, "{matcher} {tool}");
        }
    }

    #[test]
    fn timeouts_are_milliseconds_and_bounded() {
        let of = |value: Value| timeout(json!({ "timeout": value }).as_object().unwrap());
        assert_eq!(of(json!(1500)), Some(Duration::from_millis(1500)));
        assert_eq!(of(json!(1e300)), Some(LONGEST_TIMEOUT));
        assert_eq!(of(json!(0)), None);
        assert_eq!(of(json!(-5)), None);
    }
}
