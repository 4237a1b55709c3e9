//! Changes the model of an agent or conversation: `update_model` (06 §7.3).
//!
//! What is sent to the server is decided by [`Choice`] and [`settings`], which
//! are pure; the command reads, patches and shows.

mod settings;

use serde_json::{Map, Value, json};

use super::call::{Answer, Call, Failure};
use super::models::{after_slash, provider_args};
use super::toolsets;
use crate::api::models::{handle, is_openai_proxy};
use crate::conversation::Services;
use crate::events::Recipient;
use crate::protocol::Scope;
use crate::protocol::event::Level;
use crate::protocol::fields::ShapeError;

pub(super) use self::settings::model_settings;

const EFFORTS: [&str; 7] = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];
const NOT_FOUND: &str =
    "Model not found. Provide a valid model_id from list_models or a model_handle.";

/// The model that was chosen.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Choice {
    pub(super) id: String,
    pub(super) handle: String,
    pub(super) label: String,
    pub(super) args: Map<String, Value>,
}

impl Choice {
    /// Finds it among the catalogue and the available models.
    pub(super) fn find(
        catalogue: &[Value],
        available: &[Value],
        id: Option<&str>,
        wanted: Option<&str>,
    ) -> Option<Self> {
        let of_handle = |wanted: &str| catalogue.iter().find(|row| handle(row) == Some(wanted));
        let model = |wanted: &str| available.iter().find(|row| handle(row) == Some(wanted));
        if let Some(id) = id {
            let by_name = || {
                let mut same = catalogue
                    .iter()
                    .filter(|row| handle(row).is_some_and(|handle| after_slash(handle) == id));
                same.next().filter(|_| same.next().is_none())
            };
            let by_id = catalogue.iter().find(|row| row["id"] == id);
            if let Some(row) = by_id.or_else(|| of_handle(id)).or_else(by_name) {
                let mut choice = Self::of_entry(row)?;
                if let Some(wanted) = wanted.filter(|wanted| *wanted != choice.handle) {
                    wanted.clone_into(&mut choice.handle);
                    choice
                        .args
                        .extend(model(wanted).map(provider_args).unwrap_or_default());
                }
                return Some(choice);
            }
            if model(id).is_some() || id.contains('/') {
                return Some(Self::plain(id, model(id)));
            }
        }
        let wanted = wanted?;
        match of_handle(wanted) {
            Some(row) => Self::of_entry(row),
            None => Some(Self::plain(wanted, model(wanted))),
        }
    }

    fn of_entry(row: &Value) -> Option<Self> {
        let text = |key: &str| row.get(key).and_then(Value::as_str);
        let handle = text("handle")?;
        Some(Self {
            id: text("id").unwrap_or(handle).to_owned(),
            handle: handle.to_owned(),
            label: text("label").unwrap_or(handle).to_owned(),
            args: row
                .get("updateArgs")
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default(),
        })
    }

    fn plain(handle: &str, model: Option<&Value>) -> Self {
        Self {
            id: handle.to_owned(),
            handle: handle.to_owned(),
            label: handle.to_owned(),
            args: model.map(provider_args).unwrap_or_default(),
        }
    }

    /// The changes for the server, with a context window of `window`.
    pub(super) fn patch(&self, window: Option<u64>) -> Value {
        let mut patch = json!({
            "model": self.handle, "model_settings": model_settings(&self.handle, &self.args),
        });
        if let Some(window) = window {
            patch["context_window_limit"] = window.into();
        }
        match self.args.get("max_output_tokens") {
            Some(tokens) if tokens.is_number() || tokens.is_null() => {
                patch["max_tokens"] = tokens.clone();
            }
            _ => {}
        }
        patch
    }
}

/// What the agent or conversation has now.
struct Current {
    handle: Option<String>,
    window: Option<u64>,
}

impl Current {
    fn of(carrier: &Value, agent: Option<&Value>) -> Self {
        let agent = agent.unwrap_or(&Value::Null);
        let text = |path: &str| {
            let own = carrier.pointer(path).and_then(Value::as_str);
            own.or_else(|| agent.pointer(path).and_then(Value::as_str))
                .map(String::from)
        };
        let number = |path: &str| {
            let own = carrier.pointer(path).and_then(Value::as_u64);
            own.or_else(|| agent.pointer(path).and_then(Value::as_u64))
        };
        Self {
            handle: text("/model").or_else(|| text("/llm_config/handle")),
            window: number("/context_window_limit")
                .or_else(|| number("/llm_config/context_window")),
        }
    }

    /// The window that the chosen model gets (06 §7.3 step 2).
    fn window_for(&self, choice: &Choice, catalogue: &[Value], available: &[Value]) -> Option<u64> {
        let selected = choice.args.get("context_window").and_then(Value::as_u64);
        let presets = || {
            let same = |row: &&Value| {
                let row = handle(row).map(normal);
                row.is_some() && row == self.handle.as_deref().map(normal)
            };
            catalogue
                .iter()
                .filter(same)
                .filter_map(|row| row.pointer("/updateArgs/context_window")?.as_u64())
        };
        let same_model = self.handle.as_deref().map(normal) == Some(normal(&choice.handle));
        let usable = |window: &u64| *window != 128_000 || presets().any(|preset| preset == 128_000);
        let keeps = match (selected, presets().next()) {
            (None, _) => true,
            (Some(selected), Some(preset)) => selected == preset,
            (selected, None) => selected == self.window,
        };
        if same_model
            && keeps
            && let Some(window) = self.window.filter(usable)
        {
            return Some(window);
        }
        let model = available
            .iter()
            .find(|row| handle(row) == Some(&choice.handle))
            .and_then(|row| row.get("max_context_window")?.as_u64());
        let row = catalogue
            .iter()
            .find(|row| handle(row) == Some(&choice.handle))
            .and_then(|row| row.pointer("/updateArgs/context_window")?.as_u64());
        selected.or(model).or(row).or(self.window)
    }
}

/// A handle without the other names of its provider.
fn normal(handle: &str) -> String {
    for (alias, name) in [
        ("chatgpt_oauth/", "chatgpt-plus-pro/"),
        ("openai-codex/", "chatgpt-plus-pro/"),
        ("lc-anthropic/", "anthropic/"),
        ("moonshotai/", "moonshot/"),
    ] {
        if let Some(rest) = handle.strip_prefix(alias) {
            return format!("{name}{rest}");
        }
    }
    handle.to_owned()
}

pub(super) async fn update(mut call: Call) -> Answer {
    let runtime = call.request.runtime.clone().unwrap_or_default();
    call.echo("runtime", runtime.clone());
    let Some(scope) = call.request.scope.clone() else {
        return Err(ShapeError::new("runtime", "an agent and a conversation").into());
    };
    let mut payload = crate::protocol::fields::Fields::new(call.fields.object("payload")?);
    let id = payload.optional_string("model_id")?;
    let wanted = payload.optional_string("model_handle")?;
    let effort = payload.optional_string("reasoning_effort")?;
    if id.is_none() && wanted.is_none() {
        return Err(ShapeError::new("payload", "an object with model_id or model_handle").into());
    }
    if let Some(effort) = &effort
        && !EFFORTS.contains(&effort.as_str())
    {
        let expected = "none, minimal, low, medium, high, xhigh or max";
        return Err(ShapeError::new("payload.reasoning_effort", expected).into());
    }
    for (name, value) in [("model_id", &id), ("model_handle", &wanted)] {
        if let Some(value) = value {
            call.echo(name, value.as_str());
        }
    }
    if scope.agent_id.is_none() && scope.is_default() {
        return Err(Failure::new(
            "Agent-free runtimes require a persisted conversation",
        ));
    }
    let services = call.services();
    let (catalogue, available) = tokio::join!(
        services.models.catalogue(&services.api, false),
        services.models.available(&services.api, false)
    );
    let available = available.unwrap_or_default();
    let mut choice = Choice::find(&catalogue, &available, id.as_deref(), wanted.as_deref())
        .ok_or_else(|| Failure::new(NOT_FOUND))?;
    let model = available
        .iter()
        .find(|row| handle(row) == Some(&choice.handle));
    let takes_effort = model.is_some_and(is_openai_proxy) || is_chatgpt(&choice);
    if let Some(effort) = effort.filter(|_| takes_effort) {
        choice.args.insert("reasoning_effort".into(), effort.into());
    }
    let (agent, conversation) = carriers(services, &scope).await?;
    let carrier = conversation.as_ref().or(agent.as_ref());
    let current = Current::of(carrier.unwrap_or(&Value::Null), agent.as_ref());
    let window = current.window_for(&choice, &catalogue, &available);
    let patch = choice.patch(window);
    let changed = apply(services, &scope, &patch).await?;
    let word = format!(
        "Model updated to {}{}.",
        choice.label,
        effort_note(&choice, &catalogue)
    );
    let (agent, conversation) = if scope.is_default() {
        (Some(&changed), None)
    } else {
        (agent.as_ref(), Some(&changed))
    };
    let toolset = toolsets::resolve(services, &scope, agent, conversation).as_str();
    let to = Recipient::Conversation(scope.clone());
    call.show(to, Some((word, Level::Info)), Some(toolset))
        .await;
    let settings = changed
        .get("model_settings")
        .filter(|value| value.is_object());
    Ok(json!({
        "runtime": runtime,
        "applied_to": if scope.is_default() { "agent" } else { "conversation" },
        "model_id": choice.id, "model_handle": choice.handle, "model_settings": settings,
    }))
}

/// The agent and the conversation of a scope as the server has them.
pub(super) async fn carriers(
    services: &Services,
    scope: &Scope,
) -> Result<(Option<Value>, Option<Value>), Failure> {
    let api = &services.api;
    let agent = match &scope.agent_id {
        Some(id) => Some((*api.agent(id).await?).clone()),
        None => None,
    };
    let conversation = if scope.is_default() {
        None
    } else {
        Some(api.conversation(&scope.conversation_id).await?)
    };
    Ok((agent, conversation))
}

/// Sends the changes to whom they are for; what the server says of it now.
async fn apply(services: &Services, scope: &Scope, patch: &Value) -> Result<Value, Failure> {
    let api = &services.api;
    match &scope.agent_id {
        Some(id) if scope.is_default() => {
            let agent = api.update_agent(id, patch).await?;
            services.agents.forget_agent(id);
            Ok(agent)
        }
        _ => Ok(api
            .update_conversation(&scope.conversation_id, patch)
            .await?),
    }
}

fn is_chatgpt(choice: &Choice) -> bool {
    choice.args.get("provider_type").and_then(Value::as_str) == Some("chatgpt_oauth")
        || normal(&choice.handle).starts_with("chatgpt-plus-pro/")
}

/// ` (High)`, when the choice names an effort.
fn effort_note(choice: &Choice, catalogue: &[Value]) -> String {
    let effort = choice
        .args
        .get("reasoning_effort")
        .or(choice.args.get("effort"));
    let has_max = catalogue.iter().any(|row| {
        handle(row) == Some(&choice.handle)
            && row.pointer("/updateArgs/reasoning_effort") == Some(&json!("max"))
    });
    let label = match effort.and_then(Value::as_str) {
        Some("none") => "No Reasoning",
        Some("minimal") => "Minimal",
        Some("low") => "Low",
        Some("medium") => "Medium",
        Some("high") => "High",
        Some("xhigh") if has_max => "Extra High",
        Some("xhigh" | "max") => "Max",
        _ => return String::new(),
    };
    format!(" ({label})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue() -> Vec<Value> {
        vec![
            json!({"id":"sonnet","handle":"anthropic/claude-x","label":"Claude X","updateArgs":{"context_window":200_000,"max_output_tokens":9}}),
            json!({"id":"gpt","handle":"openai/gpt-5.2","label":"GPT","updateArgs":{"reasoning_effort":"high"}}),
        ]
    }

    fn available() -> Vec<Value> {
        vec![
            json!({"handle":"lc-anthropic/claude-x","provider_category":"byok","provider_type":"anthropic","max_context_window":100}),
            json!({"handle":"free"}),
        ]
    }

    #[test]
    fn a_model_is_found_by_id_handle_or_name() {
        let find = |id: Option<&str>, handle: Option<&str>| {
            Choice::find(&catalogue(), &available(), id, handle)
                .map(|choice| (choice.id, choice.handle))
        };
        let pair = |id: &str, handle: &str| Some((id.to_owned(), handle.to_owned()));
        for (id, handle, expected) in [
            (Some("sonnet"), None, pair("sonnet", "anthropic/claude-x")),
            (Some("openai/gpt-5.2"), None, pair("gpt", "openai/gpt-5.2")),
            (Some("claude-x"), None, pair("sonnet", "anthropic/claude-x")),
            (
                Some("sonnet"),
                Some("lc-anthropic/claude-x"),
                pair("sonnet", "lc-anthropic/claude-x"),
            ),
            (Some("free"), None, pair("free", "free")),
            (Some("new/model"), None, pair("new/model", "new/model")),
            (Some("nothing"), None, None),
            (
                Some("nothing"),
                Some("openai/gpt-5.2"),
                pair("gpt", "openai/gpt-5.2"),
            ),
            (None, Some("literal"), pair("literal", "literal")),
        ] {
            assert_eq!(find(id, handle), expected, "{id:?} {handle:?}");
        }
        let own = Choice::find(
            &catalogue(),
            &available(),
            Some("sonnet"),
            Some("lc-anthropic/claude-x"),
        );
        assert_eq!(own.unwrap().args["provider_type"], "anthropic");
    }

    #[test]
    fn the_context_window_is_kept_only_where_the_model_stays() {
        let window = |current: Option<&str>, now: Option<u64>, id: &str| {
            let current = Current {
                handle: current.map(String::from),
                window: now,
            };
            let choice = Choice::find(&catalogue(), &available(), Some(id), None).unwrap();
            current.window_for(&choice, &catalogue(), &available())
        };
        for (current, now, id, expected) in [
            (
                Some("anthropic/claude-x"),
                Some(50_000),
                "sonnet",
                Some(50_000),
            ),
            (
                Some("lc-anthropic/claude-x"),
                Some(50_000),
                "sonnet",
                Some(50_000),
            ),
            (
                Some("anthropic/claude-x"),
                Some(128_000),
                "sonnet",
                Some(200_000),
            ),
            (
                Some("openai/gpt-5.2"),
                Some(50_000),
                "sonnet",
                Some(200_000),
            ),
            (
                Some("anthropic/claude-x"),
                Some(50_000),
                "lc-anthropic/claude-x",
                Some(50_000),
            ),
            (
                Some("x/y"),
                Some(50_000),
                "lc-anthropic/claude-x",
                Some(100),
            ),
            (Some("x/y"), Some(50_000), "gpt", Some(50_000)),
            (None, None, "gpt", None),
        ] {
            assert_eq!(
                window(current, now, id),
                expected,
                "{current:?} {now:?} {id}"
            );
        }
    }

    #[test]
    fn the_patch_holds_what_the_choice_brings() {
        let choice = Choice::find(&catalogue(), &[], Some("sonnet"), None).unwrap();
        let patch = choice.patch(Some(200_000));
        assert_eq!(patch["model"], "anthropic/claude-x");
        assert_eq!(patch["context_window_limit"], 200_000);
        assert_eq!(patch["max_tokens"], 9);
        assert_eq!(patch["model_settings"]["provider_type"], "anthropic");
        assert_eq!(effort_note(&choice, &catalogue()), "");
        let choice = Choice::find(&catalogue(), &[], Some("gpt"), None).unwrap();
        assert_eq!(effort_note(&choice, &catalogue()), " (High)");
    }
}
