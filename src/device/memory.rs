//! Reading the memory of an agent: `list_memory`, `memory_history`,
//! `memory_file_at_ref`, `memory_commit_diff`, `read_memory_file`, and turning
//! it into a repository: `enable_memfs` (06 §6.5).

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::call::{Answer, Call, Failure, push};
use crate::conversation::Services;
use crate::memory::{self, Checkout, Entry, RelativePath, Revision};
use crate::protocol::fields::ShapeError;
use crate::protocol::reply;
use crate::protocol::time::epoch_millis;
use crate::state::atomic::read_bounded;

/// Clients give up after ten seconds.
const PATIENCE: Duration = Duration::from_secs(9);
/// Entries of one frame.
const CHUNK: usize = 5;
/// The largest file that is sent.
const MAX_FILE: u64 = 25 * 1024 * 1024;
const HISTORY: u64 = 50;
const MAX_HISTORY: u64 = 1000;

pub(super) const NOT_ENABLED: &str = "memfs is not enabled for this agent";
pub(super) const NOT_READY: &str = "failed to initialize local memory checkout";
const LATE: &str = "The memory is still being fetched from the server; try again in a moment.";

/// The checkout of the agent that a command names, after its first sync. A sync
/// that fails is no obstacle: what is here can be read.
pub(super) async fn touched(services: &Services, agent: &str) -> Result<Checkout, Failure> {
    let checkout = services.memory.checkout(agent)?;
    let touch = services
        .memory
        .first_touch(&services.api, &services.settings, agent);
    match timeout(PATIENCE, touch).await {
        Ok(_) => Ok(checkout),
        Err(_) => Err(Failure::new(LATE)),
    }
}

/// Whether the memory is a repository: it is here, or the server says so.
pub(super) async fn is_enabled(services: &Services, checkout: &Checkout) -> Result<bool, Failure> {
    if checkout.exists().await {
        return Ok(true);
    }
    let agent = services.api.agent_with_tags(checkout.agent_id()).await?;
    Ok(memory::is_enabled(&agent))
}

pub(super) async fn list(mut call: Call) -> Answer {
    let agent = call.fields.string("agent_id")?;
    let with_references = call.fields.optional_bool("include_references")?;
    let services = call.services();
    let checkout = touched(services, &agent).await?;
    if !is_enabled(services, &checkout).await? {
        return Ok(json!({
            "entries": [], "done": true, "total": 0,
            "memfs_enabled": false, "memfs_initialized": false,
        }));
    }
    match timeout(PATIENCE, checkout.bring_up_to_date(None)).await {
        Ok(done) => done?,
        Err(_) => return Err(Failure::new(LATE)),
    }
    if !checkout.exists().await {
        return Err(Failure::new(
            "MemFS is enabled, but the local memory checkout could not be initialized.",
        ));
    }
    let entries = call
        .blocking(move || checkout.list(with_references.unwrap_or(false)))
        .await??;
    let total = entries.len();
    let mut rows: Vec<Value> = entries.into_iter().map(row).collect();
    let frame = |rows: Vec<Value>, done: bool| {
        json!({
            "entries": rows, "done": done, "total": total,
            "memfs_enabled": true, "memfs_initialized": true,
        })
    };
    while rows.len() > CHUNK {
        let rest = rows.split_off(CHUNK);
        if let Some(id) = &call.request.request_id {
            let part = frame(rows, false);
            let part = reply::reply("list_memory_response", id, true, part);
            push(call.services(), &call.request.from, &part);
        }
        rows = rest;
    }
    Ok(frame(rows, true))
}

fn row(entry: Entry) -> Value {
    let kind = if entry.is_image() {
        "image"
    } else {
        "markdown"
    };
    let mut row = json!({
        "relative_path": entry.path, "is_system": entry.path.starts_with("system/"),
        "description": entry.description, "content": entry.content, "size": entry.size,
        "kind": kind, "mime_type": entry.mime_type,
    });
    if let Some(references) = entry.references {
        row["references"] = references.into();
    }
    row
}

pub(super) async fn history(mut call: Call) -> Answer {
    let agent = call.fields.string("agent_id")?;
    let path = call
        .fields
        .optional_string("file_path")?
        .unwrap_or_default();
    call.echo("file_path", path.as_str());
    let limit = call.fields.take("limit").and_then(|limit| limit.as_u64());
    let limit = limit.unwrap_or(HISTORY).clamp(1, MAX_HISTORY);
    let file = if path.is_empty() {
        None
    } else {
        Some(RelativePath::parse(&path).map_err(Failure::new)?)
    };
    let checkout = touched(call.services(), &agent).await?;
    let commits: Vec<Value> = checkout
        .history(file.as_ref(), limit)
        .await?
        .into_iter()
        .map(|commit| {
            json!({
                "sha": commit.sha, "message": commit.subject,
                "timestamp": commit.timestamp, "author_name": commit.author,
            })
        })
        .collect();
    Ok(json!({"file_path": path, "commits": commits}))
}

fn revision(field: &'static str, name: &str) -> Result<Revision, Failure> {
    Revision::parse(name).map_err(|problem| Failure::new(format!("{field} {problem}")))
}

pub(super) async fn file_at_ref(mut call: Call) -> Answer {
    let agent = call.fields.string("agent_id")?;
    let path = call.fields.string("file_path")?;
    let name = call.fields.string("ref")?;
    call.echo("file_path", path.as_str());
    call.echo("ref", name.as_str());
    let of = revision("ref", &name)?;
    let file = RelativePath::parse(&path).map_err(Failure::new)?;
    let checkout = touched(call.services(), &agent).await?;
    let content = checkout.file_at(&of, &file).await?;
    Ok(json!({"file_path": path, "ref": name, "content": content}))
}

pub(super) async fn commit_diff(mut call: Call) -> Answer {
    let agent = call.fields.string("agent_id")?;
    let name = call.fields.string("sha")?;
    call.echo("sha", name.as_str());
    let of = revision("sha", &name)?;
    let checkout = touched(call.services(), &agent).await?;
    Ok(json!({"sha": name, "diff": checkout.diff_of(&of).await?}))
}

/// How content travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Utf8,
    Base64,
}

impl Encoding {
    pub(super) fn of(call: &mut Call) -> Result<Self, ShapeError> {
        match call.fields.optional_string("encoding")?.as_deref() {
            None | Some("utf8") => Ok(Self::Utf8),
            Some("base64") => Ok(Self::Base64),
            Some(_) => Err(ShapeError::new("encoding", "utf8 or base64")),
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Utf8 => "utf8",
            Self::Base64 => "base64",
        }
    }
}

pub(super) async fn read_file(mut call: Call) -> Answer {
    let agent = call.fields.string("agent_id")?;
    let path = call.fields.string("path")?;
    call.echo("agent_id", agent.as_str());
    call.echo("path", path.as_str());
    let encoding = Encoding::of(&mut call)?;
    call.echo("encoding", encoding.as_str());
    let file = RelativePath::parse(&path).map_err(Failure::new)?;
    let services = call.services();
    let checkout = touched(services, &agent).await?;
    ready(services, &checkout).await?;
    let shown = file.as_str().to_owned();
    let content = call
        .blocking(move || -> Result<String, Failure> {
            let at = file.below(checkout.dir()).map_err(Failure::new)?;
            let bytes = read_bounded(&at, MAX_FILE)
                .map_err(|error| Failure::new(format!("{}: {error}", file.as_str())))?;
            Ok(match encoding {
                Encoding::Utf8 => String::from_utf8_lossy(&bytes).into_owned(),
                Encoding::Base64 => STANDARD.encode(bytes),
            })
        })
        .await??;
    Ok(json!({
        "agent_id": agent, "path": shown, "content": content, "encoding": encoding.as_str(),
    }))
}

/// Sees to it that there is a checkout to work in.
pub(super) async fn ready(services: &Services, checkout: &Checkout) -> Result<(), Failure> {
    if checkout.exists().await {
        return Ok(());
    }
    if !is_enabled(services, checkout).await? {
        return Err(Failure::new(NOT_ENABLED));
    }
    let cloned = timeout(PATIENCE, checkout.clone_if_missing(None)).await;
    match cloned {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failure::new(format!("{NOT_READY}: {error}"))),
        Err(_) => Err(Failure::new(LATE)),
    }
}

pub(super) async fn enable(mut call: Call) -> Answer {
    let agent_id = call.fields.string("agent_id")?;
    let services = call.services();
    let checkout = services.memory.checkout(&agent_id)?;
    if !services.memory.is_cloud() {
        let host = services.memory.server();
        let host = host.split_once("://").map_or(host, |(_, host)| host);
        let host = host.split('/').next().unwrap_or(host);
        return Err(Failure::new(format!(
            "MemFS sync failed (expected api.letta.com, got {host})"
        )));
    }
    let api = &services.api;
    let agent = api.agent_with_tags(&agent_id).await?;
    api.recompile_agent(&agent_id).await?;
    if !memory::is_enabled(&agent) {
        let tags = agent.get("tags").and_then(Value::as_array);
        let mut tags = tags.cloned().unwrap_or_default();
        tags.push(memory::TAG.into());
        api.update_agent(&agent_id, &json!({"tags": tags})).await?;
    }
    let (settings, server) = (
        services.settings.clone(),
        services.memory.server().to_owned(),
    );
    call.blocking({
        let agent_id = agent_id.clone();
        move || settings.set_memfs(&agent_id, &server, true)
    })
    .await?
    .map_err(|error| Failure::new(error.to_string()))?;
    let services = call.services();
    services.memory.forget(&agent_id);
    services.agents.forget_agent(&agent_id);
    services.agents.forget_secrets(&agent_id);
    let name = agent.get("name").and_then(Value::as_str);
    match timeout(PATIENCE, checkout.clone_if_missing(name)).await {
        Ok(done) => done?,
        Err(_) => return Err(Failure::new(LATE)),
    }
    services.memory.attach_later(&services.api, &agent_id);
    call.push_after(updated(&["*"]));
    Ok(json!({"memory_directory": checkout.dir().to_string_lossy()}))
}

/// `memory_updated` for some paths.
pub(super) fn updated(paths: &[&str]) -> Value {
    let now = epoch_millis(SystemTime::now());
    json!({"type": "memory_updated", "affected_paths": paths, "timestamp": now})
}
