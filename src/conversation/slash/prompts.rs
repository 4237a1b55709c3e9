//! What the agent reads when a slash command starts a turn: words of our own
//! inside `<system-reminder>`, then what the user wrote.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use super::Work;
use crate::conversation::git_context::git;

const GIT_DEADLINE: Duration = Duration::from_secs(5);

/// `/remember`.
pub(super) fn remember(args: &str) -> Vec<Value> {
    let what = if args.is_empty() {
        "They did not say what: take it from the conversation, or ask if you cannot tell."
    } else {
        "What they want remembered follows."
    };
    let mut parts = vec![reminder(&format!(
        "The user asks you to remember something for later conversations. {what} Store it with your memory tools, or as a file in your memory directory if you have one; correct what it contradicts, and say in one line what you stored."
    ))];
    if !args.is_empty() {
        parts.push(part(args));
    }
    parts
}

/// `/init`.
pub(super) async fn init(work: &Work) -> Vec<Value> {
    let memory = match memory_directory(work) {
        Some(dir) => format!("Your memory directory is {dir}."),
        None => "You have no memory directory on this computer; use your memory tools.".into(),
    };
    let facts = timeout(GIT_DEADLINE, git_facts(work)).await;
    let facts = facts.unwrap_or_else(|_| "(git did not answer in time)".into());
    let skill = work.services.skills.bundled("initializing-memory");
    let text = format!(
        "The user asks you to initialise your memory of this project and of how they work.\n\n{memory}\n\nCall the Skill tool with skill `initializing-memory` and follow it. If there is no such tool, read {}. If neither works: look at what your memory holds, study the project in the working directory, ask the user at most one round of questions, then write short files by topic and commit them.\n\nWorking directory: {}\n{facts}",
        skill.display(),
        work.cwd.display(),
    );
    vec![reminder(&text)]
}

async fn git_facts(work: &Work) -> String {
    let Some(branch) = git(&work.cwd, &["rev-parse", "--abbrev-ref", "HEAD"]).await else {
        return "(not a git repository)".into();
    };
    let (status, log) = tokio::join!(
        git(&work.cwd, &["status", "--short"]),
        git(&work.cwd, &["log", "--oneline", "-10"]),
    );
    let status = status.unwrap_or_default();
    let mut lines: Vec<&str> = status.lines().take(50).collect();
    if lines.is_empty() {
        lines.push("(clean)");
    }
    format!(
        "Git branch: {}\nGit status:\n{}\nRecent commits:\n{}",
        branch.trim(),
        lines.join("\n"),
        log.as_deref().map_or("(none)", str::trim_end),
    )
}

/// `/doctor`.
pub(super) fn doctor(work: &Work) -> Result<Vec<Value>, String> {
    let Some(agent) = work.scope.agent_id.as_deref() else {
        return Err("Doctor requires an active agent.".into());
    };
    let checkout = work.services.memory.checkout(agent).ok();
    let dir = memory_directory(work);
    let format = match (&checkout, &dir) {
        (Some(checkout), Some(_)) => checkout.format().as_str(),
        _ => "none",
    };
    let transcripts = work.services.home.letta.join("transcripts");
    let skill = work.services.skills.bundled("context-doctor");
    let text = format!(
        "The user asks you to find out what is wrong with your memory or context. Call the Skill tool with skill `context-doctor` and investigate here; if there is no such tool, read {}.\n\nAgent: {agent}\nConversation: {}\nBackend: api\nMemory format: {format}\nMemory directory: {}\nTranscripts: {}",
        skill.display(),
        work.scope.conversation_id,
        dir.as_deref().unwrap_or("none"),
        transcripts.display(),
    );
    let request = if work.args.is_empty() {
        "/doctor"
    } else {
        &work.args
    };
    Ok(vec![
        reminder(&text),
        part(&format!("User request: {request}")),
    ])
}

/// The agent's repository, when it has one here.
fn memory_directory(work: &Work) -> Option<String> {
    let agent = work.scope.agent_id.as_deref()?;
    let dir = work.services.memory_dir(agent)?;
    Some(dir.to_string_lossy().into_owned())
}

fn reminder(text: &str) -> Value {
    part(&format!("<system-reminder>\n{text}\n</system-reminder>"))
}

fn part(text: &str) -> Value {
    json!({"type": "text", "text": text})
}
