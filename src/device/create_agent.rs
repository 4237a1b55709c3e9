//! Makes an agent from a preset: `create_agent` (06 §11).

use serde_json::{Value, json};

use super::agents::memory_block;
use super::call::{Answer, Call, Failure};
use super::presets::{self, Preset};
use super::update_model::Choice;
use crate::api::models::handle;
use crate::memory;
use crate::protocol::fields::ShapeError;

/// Short names of models that every server of Letta Cloud knows.
const AUTO: [(&str, &str); 3] = [
    ("auto", "letta/auto"),
    ("auto-chat", "letta/auto-chat"),
    ("auto-fast", "letta/auto-fast"),
];
const ORIGIN: &str = "origin:letta-code";
const SERVER_TOOLS: [&str; 2] = ["web_search", "fetch_webpage"];

pub(super) async fn create(mut call: Call) -> Answer {
    let name = call.fields.string("personality")?;
    let preset = presets::named(&name)
        .ok_or_else(|| ShapeError::new("personality", "memo, tutorial, blank, linus or kawaii"))?;
    let model = call.fields.optional_string("model")?;
    let tags = call.fields.optional_strings("tags")?.unwrap_or_default();
    let pin = call.fields.optional_bool("pin_global")?.unwrap_or(true);
    let services = call.services();
    let catalogue = services.models.catalogue(&services.api, false).await;
    let choice = choose(&catalogue, model.as_deref(), preset)?;
    let body = body(preset, &choice, &tags, services.cloud);
    let agent = services.api.create_agent_anyway(body).await?;
    let id = agent
        .get("id")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    if model.is_some() && !choice.args.is_empty() {
        let window = choice.args.get("context_window").and_then(Value::as_u64);
        services
            .api
            .update_agent(&id, &choice.patch(window))
            .await?;
    }
    let agent = services.api.agent_with_tags(&id).await?;
    if services.cloud {
        keep_in_repository(&call, &id, &agent).await;
        let services = call.services();
        services
            .memory
            .touch_later(&services.api, &services.settings, &id);
    }
    if pin {
        let settings = services.settings.clone();
        let (agent_id, server) = (id.clone(), services.api.base_url().as_str().to_owned());
        call.blocking(move || settings.pin_agent(&agent_id, &server))
            .await?
            .map_err(|error| Failure::new(error.to_string()))?;
    }
    Ok(json!({
        "agent_id": id, "name": agent.get("name"),
        "model": agent.get("model").filter(|model| model.is_string()),
    }))
}

/// Sees to it that the agent's memory is a repository, whatever the server made
/// of the tags that it was sent. The agent is there, so a failure is no answer.
async fn keep_in_repository(call: &Call, id: &str, agent: &Value) {
    let services = call.services();
    let known = agent.get("tags").and_then(Value::as_array);
    let mut tags = known.cloned().unwrap_or_default();
    let before = tags.len();
    for tag in [ORIGIN, memory::TAG] {
        if !tags.iter().any(|known| known == tag) {
            tags.push(tag.into());
        }
    }
    if tags.len() > before
        && let Err(error) = services.api.update_agent(id, &json!({"tags": tags})).await
    {
        tracing::warn!(agent = id, %error, "A new agent could not be tagged.");
        return;
    }
    let (settings, server) = (
        services.settings.clone(),
        services.memory.server().to_owned(),
    );
    let id = id.to_owned();
    let saved = call.blocking(move || settings.set_memfs(&id, &server, true));
    if let Ok(Err(error)) = saved.await {
        tracing::warn!(%error, "That the memory is in use could not be saved.");
    }
}

/// The model that was asked for, or the one of the preset.
fn choose(catalogue: &[Value], model: Option<&str>, preset: &Preset) -> Result<Choice, Failure> {
    let long = |name: &str| {
        AUTO.iter()
            .find(|(short, _)| *short == name)
            .map(|(_, long)| *long)
    };
    if let Some(model) = model {
        let found = Choice::find(catalogue, &[], Some(model), long(model));
        return found.ok_or_else(|| Failure::new(format!("Unknown model \"{model}\"")));
    }
    let own = preset.model.unwrap_or("auto");
    let fallback = catalogue
        .iter()
        .find(|row| row["isDefault"] == true)
        .or(catalogue.first())
        .and_then(handle);
    let known = Choice::find(catalogue, &[], Some(own), None);
    let chosen = known.or_else(|| {
        // The short names are those of Letta Cloud; another server has its own models.
        let handle = if catalogue.is_empty() {
            long(own)
        } else {
            fallback.or(long(own))
        };
        Choice::find(catalogue, &[], None, handle)
    });
    chosen.ok_or_else(|| Failure::new(format!("Unknown model \"{own}\"")))
}

fn body(preset: &Preset, choice: &Choice, tags: &[String], cloud: bool) -> Value {
    let mut blocks = Vec::new();
    let mut all_tags = vec![ORIGIN];
    if cloud {
        blocks.push(memory_block());
        all_tags.push(memory::TAG);
    }
    blocks.extend(preset.blocks.iter().map(|(label, value, description)| {
        json!({"label": label, "value": value.trim_end(), "description": description})
    }));
    all_tags.extend(preset.tag);
    for tag in tags {
        if !all_tags.contains(&tag.as_str()) {
            all_tags.push(tag);
        }
    }
    let mut body = json!({
        "agent_type": "letta_v1_agent", "name": preset.name, "description": preset.description,
        "model": choice.handle, "system": if cloud { Value::Null } else { presets::SYSTEM.into() },
        "memory_blocks": blocks, "tags": all_tags, "tools": SERVER_TOOLS,
        "include_base_tools": false, "include_base_tool_rules": false,
        "initial_message_sequence": [], "parallel_tool_calls": true,
        "compaction_settings": {"model": choice.handle},
    });
    if let Some(window) = choice.args.get("context_window") {
        body["context_window_limit"] = window.clone();
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue() -> Vec<Value> {
        vec![
            json!({"id":"auto","handle":"letta/auto","label":"Auto","isDefault":true,"updateArgs":{"context_window":200_000}}),
            json!({"id":"auto-chat","handle":"letta/auto-chat","label":"Chat"}),
        ]
    }

    #[test]
    fn the_model_is_the_one_asked_for_or_that_of_the_preset() {
        let of = |catalogue: &[Value], model, preset| {
            let preset = presets::named(preset).unwrap();
            choose(catalogue, model, preset)
                .map(|choice| choice.handle)
                .map_err(|e| e.to_string())
        };
        let ok = |handle: &str| Ok(handle.to_owned());
        let all = catalogue();
        assert_eq!(of(&all, None, "memo"), ok("letta/auto"));
        assert_eq!(of(&all, None, "kawaii"), ok("letta/auto-chat"));
        assert_eq!(of(&[], None, "kawaii"), ok("letta/auto-chat"));
        assert_eq!(of(&all, Some("x/y"), "memo"), ok("x/y"));
        assert_eq!(of(&[], Some("auto-fast"), "memo"), ok("letta/auto-fast"));
        assert_eq!(
            of(&all, Some("nope"), "memo"),
            Err("Unknown model \"nope\"".into())
        );
        let own = [json!({"id":"gpt","handle":"openai/gpt","label":"GPT"})];
        assert_eq!(
            of(&own, None, "memo"),
            ok("openai/gpt"),
            "a server of one's own"
        );
    }

    #[test]
    fn the_body_depends_on_the_server() {
        let preset = presets::named("tutorial").unwrap();
        let choice = choose(&catalogue(), None, preset).unwrap();
        let tags = ["mine".to_owned(), "origin:letta-code".to_owned()];
        let cloud = body(preset, &choice, &tags, true);
        assert_eq!(
            cloud["tags"],
            json!([
                "origin:letta-code",
                "git-memory-enabled",
                "personality:tutorial",
                "mine"
            ])
        );
        assert_eq!(cloud["system"], Value::Null);
        assert_eq!(cloud["context_window_limit"], 200_000);
        let labels = |body: &Value| -> Vec<String> {
            let blocks = body["memory_blocks"].as_array().unwrap();
            blocks
                .iter()
                .map(|block| block["label"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(labels(&cloud), ["MEMORY", "persona", "human", "onboarding"]);
        let own = body(preset, &choice, &[], false);
        assert_eq!(
            own["tags"],
            json!(["origin:letta-code", "personality:tutorial"])
        );
        assert!(own["system"].as_str().unwrap().len() > 200);
        assert_eq!(labels(&own), ["persona", "human", "onboarding"]);
    }
}
