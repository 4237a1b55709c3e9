//! Reflection settings and experiments (06 §13).
//!
//! This program does not reflect, so the trigger that counts is `off` and is
//! reported as such (00 §8); what a client sets is kept for programs that do.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::call::{Answer, Call, Failure};
use crate::conversation::experiments;
use crate::events::Recipient;
use crate::protocol::Scope;
use crate::protocol::fields::{Fields, ShapeError};
use crate::state::{LocalSettings, UserSettings};

const TRIGGERS: [&str; 3] = ["off", "step-count", "compaction-event"];
const MERGES: [&str; 2] = ["auto", "explicit"];
const NOTE: &str = "This computer does not reflect; the settings are kept for programs that do.";

/// What is stored of reflection for one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reflection {
    trigger: String,
    step_count: u64,
    merge: String,
    instructions: String,
}

impl Default for Reflection {
    fn default() -> Self {
        Self {
            trigger: "off".into(),
            step_count: 25,
            merge: "auto".into(),
            instructions: String::new(),
        }
    }
}

impl Reflection {
    /// What both files say; later wins: global, project, global for the agent,
    /// project for the agent.
    fn stored(global: &Map<String, Value>, project: &Map<String, Value>, agent: &str) -> Self {
        let mut found = Self::default();
        for file in [global, project] {
            found.lay_legacy(file.get("memoryReminderInterval"));
            found.lay_over(|key| file.get(&format!("reflection{key}")));
        }
        for file in [global, project] {
            let own = file.get("reflectionSettingsByAgent");
            if let Some(own) = own.and_then(|own| own.get(agent)) {
                found.lay_over(|key| {
                    let mut letters = key.chars();
                    let first = letters.next()?.to_ascii_lowercase();
                    own.get(format!("{first}{}", letters.as_str()))
                });
            }
        }
        found
    }

    /// Takes what an older program stored: a number of steps, or a word.
    fn lay_legacy(&mut self, interval: Option<&Value>) {
        let trigger = match interval {
            None => return,
            Some(Value::Null) => "off",
            Some(steps) => match steps.as_u64().filter(|steps| *steps > 0) {
                Some(steps) => {
                    self.step_count = steps;
                    "step-count"
                }
                None => "compaction-event",
            },
        };
        self.trigger = trigger.into();
    }

    /// Takes what is valid; `value` finds it under `Trigger`, `StepCount` and so on.
    fn lay_over<'a>(&mut self, value: impl Fn(&str) -> Option<&'a Value>) {
        let text = |key: &str| value(key).and_then(Value::as_str);
        if let Some(trigger) = text("Trigger").filter(|text| TRIGGERS.contains(text)) {
            self.trigger = trigger.into();
        }
        if let Some(count) = value("StepCount")
            .and_then(Value::as_u64)
            .filter(|n| *n > 0)
        {
            self.step_count = count;
        }
        if let Some(merge) = text("Merge").filter(|text| MERGES.contains(text)) {
            self.merge = merge.into();
        }
        if let Some(instructions) = text("MergeInstructions") {
            self.instructions = instructions.into();
        }
    }

    /// Writes it into a settings file, flat and for the agent.
    fn write(&self, file: &mut Map<String, Value>, agent: &str) {
        let legacy = match self.trigger.as_str() {
            "off" => Value::Null,
            "step-count" => self.step_count.into(),
            _ => "auto-compaction".into(),
        };
        file.insert("memoryReminderInterval".into(), legacy);
        file.insert("reflectionTrigger".into(), self.trigger.as_str().into());
        file.insert("reflectionStepCount".into(), self.step_count.into());
        file.insert("reflectionMerge".into(), self.merge.as_str().into());
        let instructions = self.instructions.as_str();
        file.insert("reflectionMergeInstructions".into(), instructions.into());
        let by_agent = file
            .entry("reflectionSettingsByAgent")
            .or_insert_with(|| json!({}));
        if !by_agent.is_object() {
            *by_agent = json!({});
        }
        by_agent[agent] = json!({
            "trigger": self.trigger, "stepCount": self.step_count,
            "merge": self.merge, "mergeInstructions": self.instructions,
        });
    }

    /// As clients see it: what counts here.
    fn shown(&self, agent: &str) -> Value {
        json!({
            "agent_id": agent, "trigger": "off", "step_count": self.step_count,
            "merge": self.merge, "merge_instructions": self.instructions,
        })
    }
}

/// The two files that hold reflection settings of one agent.
#[derive(Clone)]
struct Files {
    global: UserSettings,
    cwd: PathBuf,
    agent: String,
}

impl Files {
    fn of(call: &Call) -> Result<(Self, Scope), Failure> {
        let scope = call.request.scope.clone();
        let agent = scope.as_ref().and_then(|scope| scope.agent_id.as_deref());
        let (Some(agent), Some(scope)) = (agent, &scope) else {
            let expected = "an object with a non-empty agent_id and conversation_id";
            return Err(ShapeError::new("runtime", expected).into());
        };
        let services = call.services();
        let files = Self {
            global: services.settings.clone(),
            cwd: services.remote.cwd_of(scope),
            agent: agent.to_owned(),
        };
        Ok((files, scope.clone()))
    }

    fn read(&self) -> Reflection {
        let global = self.global.all();
        let project = LocalSettings::of(&self.cwd).all();
        Reflection::stored(&global, &project, &self.agent)
    }

    fn write(&self, next: &Reflection, scope: &str) -> Result<(), String> {
        let say = |error: crate::state::json_file::JsonFileError| error.to_string();
        if scope != "local_project" {
            let store = |file: &mut Map<String, Value>| next.write(file, &self.agent);
            self.global.update(store).map_err(say)?;
        }
        if scope != "global" && self.cwd != Path::new("/") {
            let store = |file: &mut Map<String, Value>| next.write(file, &self.agent);
            LocalSettings::of(&self.cwd).update(store).map_err(say)?;
        }
        Ok(())
    }
}

pub(super) async fn get_reflection(call: Call) -> Answer {
    let (files, _) = Files::of(&call)?;
    let agent = files.agent.clone();
    let found = call.blocking(move || files.read()).await?;
    Ok(json!({"reflection_settings": found.shown(&agent), "note": NOTE}))
}

pub(super) async fn set_reflection(mut call: Call) -> Answer {
    let scope = call.fields.optional_string("scope")?;
    let scope = scope.unwrap_or_else(|| "both".into());
    if !["local_project", "global", "both"].contains(&scope.as_str()) {
        return Err(ShapeError::new("scope", "local_project, global or both").into());
    }
    call.echo("scope", scope.as_str());
    let (files, runtime) = Files::of(&call)?;
    let change = Change::read(Fields::new(call.fields.object("settings")?))?;
    let agent = files.agent.clone();
    let stored = call
        .blocking({
            let scope = scope.clone();
            move || {
                let mut next = files.read();
                change.apply(&mut next);
                files.write(&next, &scope).map(|()| next)
            }
        })
        .await?;
    let stored = stored.map_err(Failure::new)?;
    call.show_after(Recipient::Conversation(runtime));
    Ok(json!({
        "scope": scope, "reflection_settings": stored.shown(&agent), "note": NOTE,
    }))
}

/// What a client wants of reflection.
struct Change {
    trigger: String,
    step_count: u64,
    merge: Option<String>,
    instructions: Option<String>,
}

impl Change {
    fn read(mut fields: Fields) -> Result<Self, ShapeError> {
        let trigger = fields.string("trigger")?;
        if !TRIGGERS.contains(&trigger.as_str()) {
            let expected = "off, step-count or compaction-event";
            return Err(ShapeError::new("settings.trigger", expected));
        }
        let count = fields.take("step_count").and_then(|count| count.as_u64());
        let step_count = count
            .filter(|count| *count > 0)
            .ok_or_else(|| ShapeError::new("settings.step_count", "a positive integer"))?;
        let merge = fields.optional_string("merge")?;
        if merge
            .as_deref()
            .is_some_and(|merge| !MERGES.contains(&merge))
        {
            return Err(ShapeError::new("settings.merge", "auto or explicit"));
        }
        Ok(Self {
            trigger,
            step_count,
            merge,
            instructions: fields.optional_string("merge_instructions")?,
        })
    }

    fn apply(self, to: &mut Reflection) {
        to.trigger = self.trigger;
        to.step_count = self.step_count;
        if let Some(merge) = self.merge {
            to.merge = merge;
        }
        if let Some(instructions) = self.instructions {
            instructions.trim().clone_into(&mut to.instructions);
        }
    }
}

pub(super) async fn get_experiments(call: Call) -> Answer {
    Ok(json!({"experiments": experiments::snapshot(&call.services().settings)}))
}

pub(super) async fn set_experiment(mut call: Call) -> Answer {
    let all = experiments::snapshot(&call.services().settings);
    call.echo("experiments", json!(all));
    let id = call.fields.string("experiment_id")?;
    if !experiments::is_settable(&id) {
        let expected = "conversation_titles, desktop_conversation_bootstrap or tui_cron";
        return Err(ShapeError::new("experiment_id", expected).into());
    }
    let enabled = call
        .fields
        .optional_bool("enabled")?
        .ok_or_else(|| ShapeError::new("enabled", "true or false"))?;
    let settings = call.services().settings.clone();
    call.blocking(move || experiments::set(&settings, &id, enabled))
        .await?
        .map_err(|error| Failure::new(error.to_string()))?;
    call.show_after(Recipient::Live);
    Ok(json!({"experiments": experiments::snapshot(&call.services().settings)}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn the_nearer_setting_counts_and_an_invalid_one_does_not() {
        let global = file(json!({
            "reflectionTrigger": "step-count", "reflectionStepCount": 5, "reflectionMerge": "explicit",
            "reflectionSettingsByAgent": {"a": {"stepCount": 7}, "b": {"stepCount": 1}},
        }));
        let project = file(json!({
            "reflectionTrigger": "never", "reflectionStepCount": 6,
            "reflectionSettingsByAgent": {"a": {"mergeInstructions": "x", "trigger": 1}},
        }));
        let found = Reflection::stored(&global, &project, "a");
        assert_eq!(found.trigger, "step-count");
        assert_eq!((found.step_count, found.merge.as_str()), (7, "explicit"));
        assert_eq!(found.instructions, "x");
        assert_eq!(Reflection::stored(&global, &project, "c").step_count, 6);
        assert_eq!(found.shown("a")["trigger"], "off", "what counts here");
    }

    #[test]
    fn what_an_older_program_stored_counts_before_the_keys_of_today() {
        let nothing = Map::new();
        for (stored, trigger, steps) in [
            (json!({"memoryReminderInterval": 9}), "step-count", 9),
            (json!({"memoryReminderInterval": null}), "off", 25),
            (
                json!({"memoryReminderInterval": "compaction"}),
                "compaction-event",
                25,
            ),
            (
                json!({"memoryReminderInterval": "auto-compaction"}),
                "compaction-event",
                25,
            ),
            (
                json!({"memoryReminderInterval": [1]}),
                "compaction-event",
                25,
            ),
            (
                json!({"memoryReminderInterval": 9, "reflectionTrigger": "off", "reflectionStepCount": 4}),
                "off",
                4,
            ),
        ] {
            let found = Reflection::stored(&file(stored.clone()), &nothing, "a");
            assert_eq!(
                (found.trigger.as_str(), found.step_count),
                (trigger, steps),
                "{stored}"
            );
        }
    }

    #[test]
    fn what_is_written_is_what_is_read_and_the_rest_stays() {
        let mut stored =
            file(json!({"own": 1, "reflectionSettingsByAgent": {"b": {"stepCount": 3}}}));
        let wanted = Reflection {
            trigger: "compaction-event".into(),
            step_count: 9,
            merge: "explicit".into(),
            instructions: "i".into(),
        };
        wanted.write(&mut stored, "a");
        assert_eq!(Reflection::stored(&stored, &Map::new(), "a"), wanted);
        assert_eq!(stored["own"], 1);
        assert_eq!(stored["memoryReminderInterval"], "auto-compaction");
        assert_eq!(stored["reflectionSettingsByAgent"]["b"]["stepCount"], 3);
    }
}
