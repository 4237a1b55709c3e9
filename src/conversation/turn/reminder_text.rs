//! The words of the reminders that precede a user message (spec 03 §15).

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::setup::secrets_changed;
use crate::conversation::git_context::git;
use crate::conversation::reminders::{Due, SessionReason};
use crate::protocol::reply::LETTA_CODE_VERSION;
use crate::protocol::{PermissionMode, Scope};

const GIT_DEADLINE: Duration = Duration::from_secs(2);
const STATUS_LINES: usize = 20;

/// What the texts are made of.
pub(crate) struct Facts<'a> {
    pub(crate) scope: &'a Scope,
    pub(crate) agent: Option<&'a Value>,
    pub(crate) cwd: PathBuf,
    pub(crate) secrets: &'a [String],
    pub(crate) memory_directory: Option<String>,
    /// In plan mode: where the plan goes.
    pub(crate) plan_file: Option<PathBuf>,
}

/// The due reminders, in order; each one is wrapped.
pub(crate) async fn all(due: &Due, facts: &Facts<'_>, session_wanted: bool) -> Vec<String> {
    let mut texts = Vec::new();
    if let Some(reason) = due.session.filter(|_| session_wanted) {
        texts.push(session(reason, facts).await);
    }
    if due.agent && facts.scope.agent_id.is_some() {
        texts.push(agent(facts));
    }
    if secrets_changed(due, facts.secrets) {
        texts.push(secrets(facts.secrets));
    }
    texts.extend(due.memory.iter().cloned());
    if let Some(notice) = due.mode {
        let verb = if notice.before.is_some() {
            "changed to"
        } else {
            "active"
        };
        let over = match notice.before {
            Some(PermissionMode::Plan) => " Plan mode is over.",
            _ => "",
        };
        let mut text = format!(
            "Permission mode {verb}: {}.{over} {}",
            notice.mode,
            meaning(notice.mode)
        );
        if let Some(file) = &facts.plan_file {
            text.push_str(&format!(" Write the plan to {}.", file.display()));
        }
        texts.push(text);
    }
    texts
        .into_iter()
        .map(|text| format!("<system-reminder>\n{text}\n</system-reminder>"))
        .collect()
}

async fn session(reason: SessionReason, facts: &Facts<'_>) -> String {
    let why = match reason {
        SessionReason::Connected => "You are connected to an execution environment.",
        SessionReason::DirectoryChanged => "The working directory of this conversation changed.",
        SessionReason::Compacted => {
            "The history of this conversation was compacted; these facts are current."
        }
    };
    let cwd = facts.cwd.display();
    let now = jiff::ZonedDateTime::now().strftime("%A, %Y-%m-%d %H:%M %:z (%Q)");
    let git = timeout(GIT_DEADLINE, git_facts(&facts.cwd))
        .await
        .unwrap_or_else(|_| String::from("Git did not answer in time."));
    format!(
        "{why}\nLocal time: {now}\nOperating system: Linux\nClient version: {LETTA_CODE_VERSION}\nWorking directory: {cwd}\n{git}"
    )
}

async fn git_facts(cwd: &std::path::Path) -> String {
    // Looking for the directory first spares most conversations three processes.
    let inside = cwd.ancestors().any(|dir| dir.join(".git").exists());
    let branch = if inside {
        git(cwd, &["branch", "--show-current"]).await
    } else {
        None
    };
    let Some(branch) = branch else {
        return String::from("Git: the working directory is not in a repository.");
    };
    let (user, log, status) = tokio::join!(
        git(cwd, &["config", "user.name"]),
        git(cwd, &["log", "-3", "--format=%h %s (%an)"]),
        git(cwd, &["status", "--short"]),
    );
    let status = status.unwrap_or_default();
    let mut changed: Vec<&str> = status.lines().take(STATUS_LINES).collect();
    let more = status.lines().count().saturating_sub(STATUS_LINES);
    let rest = format!("… and {more} more");
    if more > 0 {
        changed.push(&rest);
    }
    let changed = if changed.is_empty() {
        String::from("clean")
    } else {
        format!("\n{}", changed.join("\n"))
    };
    format!(
        "Git branch: {}\nGit user: {}\nRecent commits:\n{}\nGit status: {changed}",
        branch.trim(),
        user.as_deref().map_or("unknown", str::trim),
        log.as_deref().map_or("none", str::trim_end),
    )
}

fn agent(facts: &Facts<'_>) -> String {
    let text = |key: &str| {
        facts
            .agent
            .and_then(|agent| agent.get(key))
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    let mut lines = vec![
        format!(
            "Your agent id: {} (AGENT_ID)",
            facts.scope.agent_id.as_deref().unwrap_or("none")
        ),
        format!(
            "This conversation: {} (CONVERSATION_ID)",
            facts.scope.conversation_id
        ),
    ];
    if let Some(memory) = &facts.memory_directory {
        lines.push(format!("Memory directory: {memory} (MEMORY_DIR)"));
    }
    lines.extend(text("name").map(|name| format!("Name: {name}")));
    lines.extend(text("description").map(|description| format!("Description: {description}")));
    lines.extend(text("last_run_completion").map(|at| format!("Last message: {at}")));
    lines.push(String::from(
        "Commands find the ids in the environment variables named here.",
    ));
    lines.join("\n")
}

fn secrets(names: &[String]) -> String {
    if names.is_empty() {
        return String::from("No secrets are set for you any more.");
    }
    let names: Vec<String> = names.iter().map(|name| format!("${name}")).collect();
    format!(
        "Secrets available to your shell commands: {}. Write the name in a command and the value is in that command's environment. Values are replaced in all output you see.",
        names.join(", ")
    )
}

fn meaning(mode: PermissionMode) -> &'static str {
    match mode {
        PermissionMode::Standard => {
            "Reading runs at once; changing files and most commands ask the user first."
        }
        PermissionMode::AcceptEdits => "File edits run at once; most commands ask the user first.",
        PermissionMode::Plan => {
            "Nothing may be changed but the plan file; hand the plan over with ExitPlanMode."
        }
        PermissionMode::Strict => "Every tool call asks the user first.",
        PermissionMode::Unrestricted => "Tool calls run without asking.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::reminders::{ModeNotice, SecretsDue};

    #[tokio::test]
    async fn only_what_is_due_is_told_and_values_of_secrets_never() {
        let scope = Scope::new(Some("agent-1"), None);
        let names = vec![String::from("TOKEN")];
        let facts = Facts {
            scope: &scope,
            agent: None,
            cwd: std::env::temp_dir(),
            secrets: &names,
            memory_directory: None,
            plan_file: None,
        };
        let due = Due {
            session: Some(SessionReason::Connected),
            agent: true,
            secrets: SecretsDue::Never,
            mode: Some(ModeNotice {
                mode: PermissionMode::Strict,
                before: None,
            }),
            ..Due::default()
        };
        let texts = all(&due, &facts, true).await;
        assert_eq!(texts.len(), 4);
        assert!(
            texts
                .iter()
                .all(|t| t.starts_with("<system-reminder>") && t.ends_with("</system-reminder>"))
        );
        assert!(texts[2].contains("$TOKEN"));
        let told = Due {
            secrets: SecretsDue::Known(names.clone()),
            ..Due::default()
        };
        assert!(all(&told, &facts, true).await.is_empty());
    }

    #[tokio::test]
    async fn plan_mode_is_told_with_its_file_and_its_end_by_name() {
        let scope = Scope::new(Some("agent-1"), None);
        let mut facts = Facts {
            scope: &scope,
            agent: None,
            cwd: std::env::temp_dir(),
            secrets: &[],
            memory_directory: None,
            plan_file: Some("/h/.letta/plans/a.md".into()),
        };
        let due = |mode, before| Due {
            mode: Some(ModeNotice { mode, before }),
            ..Due::default()
        };
        let entered = due(PermissionMode::Plan, Some(PermissionMode::Standard));
        let texts = all(&entered, &facts, true).await;
        assert!(texts[0].contains("/h/.letta/plans/a.md"), "{texts:?}");
        assert!(texts[0].contains("ExitPlanMode"), "{texts:?}");
        facts.plan_file = None;
        let left = due(PermissionMode::Standard, Some(PermissionMode::Plan));
        let texts = all(&left, &facts, true).await;
        assert!(texts[0].contains("Plan mode is over."), "{texts:?}");
    }
}
