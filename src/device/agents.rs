//! Agents, passed through to the server: `agent_list`, `agent_retrieve`,
//! `agent_create`, `agent_update`, `agent_delete` (06 §10).

use serde_json::{Map, Value, json};

use super::call::{Answer, Call};
use crate::memory;

/// The block that every agent with a repository for its memory starts with.
pub(super) fn memory_block() -> Value {
    json!({
        "label": "MEMORY", "value": "# Memory\n", "description": "Root memory index.",
    })
}

pub(super) async fn list(mut call: Call) -> Answer {
    let query = call.fields.optional_object("query")?.unwrap_or_default();
    Ok(json!({"agents": call.services().api.agents(&query).await?}))
}

pub(super) async fn retrieve(mut call: Call) -> Answer {
    let id = call.fields.string("agent_id")?;
    Ok(json!({"agent": *call.services().api.agent(&id).await?}))
}

pub(super) async fn create(mut call: Call) -> Answer {
    let mut body = call.fields.object("body")?;
    let services = call.services();
    if services.cloud {
        prefer_repository(&mut body);
    }
    let agent = services.api.create_agent(&Value::Object(body)).await?;
    if services.cloud
        && let Some(id) = agent.get("id").and_then(Value::as_str)
    {
        services
            .memory
            .touch_later(&services.api, &services.settings, id);
    }
    Ok(json!({"agent": agent}))
}

/// A new agent of Letta Cloud keeps its memory in a repository.
fn prefer_repository(body: &mut Map<String, Value>) {
    let tags = body.entry("tags").or_insert_with(|| json!([]));
    if let Some(tags) = tags.as_array_mut()
        && !tags.iter().any(|tag| tag == memory::TAG)
    {
        tags.push(memory::TAG.into());
    }
    let blocks = body.entry("memory_blocks").or_insert_with(|| json!([]));
    if let Some(blocks) = blocks.as_array_mut()
        && !blocks.iter().any(|block| block["label"] == "MEMORY")
    {
        blocks.insert(0, memory_block());
    }
}

pub(super) async fn update(mut call: Call) -> Answer {
    let id = call.fields.string("agent_id")?;
    let body = call.fields.object("body")?;
    let agent = call.services().api.update_agent(&id, &body).await?;
    call.services().agents.forget_agent(&id);
    Ok(json!({"agent": agent}))
}

pub(super) async fn delete(mut call: Call) -> Answer {
    let id = call.fields.string("agent_id")?;
    call.echo("agent_id", id.as_str());
    call.services().api.delete_agent(&id).await?;
    call.services().agents.forget_agent(&id);
    Ok(json!({"agent_id": id}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_added_once() {
        for (body, expected) in [
            (
                json!({}),
                json!({"tags":["git-memory-enabled"],"memory_blocks":[memory_block()]}),
            ),
            (
                json!({"tags":["x"],"memory_blocks":[{"label":"persona"}]}),
                json!({"tags":["x","git-memory-enabled"],"memory_blocks":[memory_block(),{"label":"persona"}]}),
            ),
            (
                json!({"tags":["git-memory-enabled"],"memory_blocks":[{"label":"MEMORY"}]}),
                json!({"tags":["git-memory-enabled"],"memory_blocks":[{"label":"MEMORY"}]}),
            ),
        ] {
            let mut body = body.as_object().cloned().unwrap();
            prefer_repository(&mut body);
            assert_eq!(Value::Object(body), expected);
        }
    }
}
