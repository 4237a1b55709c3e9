//! `runtime_start` and the external tools of controllers (spec 02 §5.2, §5.11).

use serde_json::{Map, Value};

use super::super::command::{
    Command, ExecutionSettings, ExternalToolGroup, ExternalToolSpec, ExternalToolsUpdate,
    RuntimeStart,
};
use super::super::fields::{Fields, ShapeError};
use super::super::id::Scope;
use super::scope_of;

pub(super) fn runtime_start(mut fields: Fields) -> Result<RuntimeStart, ShapeError> {
    fields.string("request_id")?;
    let cwd = match fields.peek("cwd") {
        None => None,
        Some(Value::Null) => Some(None),
        Some(Value::String(path)) => Some(Some(path.clone())),
        Some(_) => return Err(ShapeError::new("cwd", "a string or null")),
    };
    let execution_settings = fields
        .optional_object("execution_settings")?
        .map(execution_settings)
        .transpose()?;
    let external_tools = fields
        .optional_array("external_tools")?
        .map(external_groups)
        .transpose()?;
    let skill_sources = fields.optional_strings("skill_sources")?;
    if let Some(sources) = &skill_sources
        && let Some(unknown) = sources
            .iter()
            .find(|s| !["bundled", "global", "agent", "project"].contains(&s.as_str()))
    {
        return Err(ShapeError::new(
            format!("skill_sources entry {unknown:?}"),
            "bundled, global, agent or project",
        ));
    }
    Ok(RuntimeStart {
        agent_id: fields.optional_string("agent_id")?,
        create_agent: fields.optional_object("create_agent")?,
        conversation_id: fields.optional_string("conversation_id")?,
        create_conversation: fields.optional_object("create_conversation")?,
        conversation_source_tags: fields
            .optional_strings("conversation_source_tags")?
            .unwrap_or_default(),
        cwd,
        mode: fields.optional_string("mode")?,
        execution_settings,
        workspace_sandbox: fields.optional_object("workspace_sandbox")?,
        recover_approvals: fields.optional_bool("recover_approvals")?.unwrap_or(true),
        force_device_status: fields.optional_bool("force_device_status")?.unwrap_or(true),
        wait_for_replay: fields.optional_bool("wait_for_replay")?.unwrap_or(false),
        skill_sources,
        teleport_id: fields.optional_string("teleport_id")?,
        external_tools,
    })
}

fn execution_settings(raw: Map<String, Value>) -> Result<ExecutionSettings, ShapeError> {
    let mut fields = Fields::new(raw.clone());
    let required = |field: &str, list: Option<Vec<String>>| {
        list.ok_or_else(|| {
            ShapeError::new(format!("execution_settings.{field}"), "an array of strings")
        })
    };
    let allowed_tools = fields.optional_strings("allowed_tools")?;
    let disallowed_tools = fields.optional_strings("disallowed_tools")?;
    let max_turns = match fields.take("max_turns") {
        None => None,
        Some(value) => Some(value.as_u64().filter(|turns| *turns > 0).ok_or_else(|| {
            ShapeError::new("execution_settings.max_turns", "a positive integer")
        })?),
    };
    Ok(ExecutionSettings {
        allowed_tools: required("allowed_tools", allowed_tools)?,
        disallowed_tools: required("disallowed_tools", disallowed_tools)?,
        disable_memory_guard: fields
            .optional_bool("disable_memory_guard")?
            .ok_or_else(|| {
                ShapeError::new("execution_settings.disable_memory_guard", "true or false")
            })?,
        tools: fields.optional_strings("tools")?,
        preload_skills: fields
            .optional_strings("preload_skills")?
            .unwrap_or_default(),
        is_subagent: match fields.optional_string("agent_role")?.as_deref() {
            None => false,
            Some("subagent") => true,
            Some(_) => {
                return Err(ShapeError::new(
                    "execution_settings.agent_role",
                    "\"subagent\"",
                ));
            }
        },
        parent_agent_id: fields.optional_string("parent_agent_id")?,
        transcript_path: fields.optional_string("transcript_path")?,
        memory_directory: fields.optional_string("memory_directory")?,
        max_turns,
        raw,
    })
}

fn external_groups(groups: Vec<Value>) -> Result<Vec<ExternalToolGroup>, ShapeError> {
    let shape = || ShapeError::new("external_tools", "groups of {scope_id?, tools[]}");
    groups
        .into_iter()
        .map(|group| {
            let Value::Object(group) = group else {
                return Err(shape());
            };
            let mut group = Fields::new(group);
            let scope_id = group.optional_string("scope_id")?;
            let tools = group.optional_array("tools")?.ok_or_else(shape)?;
            let tools = tools
                .into_iter()
                .map(external_tool)
                .collect::<Result<_, _>>()?;
            Ok(ExternalToolGroup { scope_id, tools })
        })
        .collect()
}

fn external_tool(tool: Value) -> Result<ExternalToolSpec, ShapeError> {
    let Value::Object(tool) = tool else {
        return Err(ShapeError::new("external_tools.tools", "objects"));
    };
    let mut tool = Fields::new(tool);
    Ok(ExternalToolSpec {
        name: tool.non_empty("name")?,
        description: tool.string("description")?,
        parameters: tool.object("parameters")?,
    })
}

pub(super) fn external_tools_update(mut fields: Fields) -> Result<Command, ShapeError> {
    fields.string("request_id")?;
    let updates = fields
        .optional_array("updates")?
        .ok_or_else(|| ShapeError::new("updates", "an array"))?;
    let mut seen: Vec<Scope> = Vec::new();
    let mut parsed = Vec::with_capacity(updates.len());
    for update in updates {
        let Value::Object(update) = update else {
            return Err(ShapeError::new("updates", "an array of objects"));
        };
        let mut update = Fields::new(update);
        let runtimes: Vec<Scope> = update
            .optional_array("runtimes")?
            .unwrap_or_default()
            .iter()
            .map(|runtime| scope_of(runtime).filter(|scope| scope.agent_id.is_some()))
            .collect::<Option<_>>()
            .filter(|runtimes: &Vec<Scope>| !runtimes.is_empty())
            .ok_or_else(|| ShapeError::new("updates.runtimes", "one or more agent runtimes"))?;
        for runtime in &runtimes {
            if seen.contains(runtime) {
                return Err(ShapeError::new(
                    "updates.runtimes",
                    "each runtime at most once",
                ));
            }
            seen.push(runtime.clone());
        }
        let groups = update
            .optional_array("external_tools")?
            .ok_or_else(|| ShapeError::new("updates.external_tools", "an array"))?;
        parsed.push(ExternalToolsUpdate {
            runtimes,
            groups: external_groups(groups)?,
        });
    }
    Ok(Command::ExternalToolsUpdate(parsed))
}

pub(super) fn external_tool_call_response(mut fields: Fields) -> Result<Command, ShapeError> {
    Ok(Command::ExternalToolCallResponse {
        call_id: fields.non_empty("request_id")?,
        result: fields.optional_object("result")?,
        error: fields.optional_string("error")?,
    })
}
