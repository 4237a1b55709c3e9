//! One run: what is known of it, how clients see it, how its end is told
//! (07 §3.4–§3.6).

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::target::{Prepared, agent_url};
use crate::conversation::services::Services;
use crate::process::notification::{Notification, duration_ms};
use crate::process::output_file::OutputFile;
use crate::protocol::Scope;
use crate::tools::overflow::Overflow;

/// Characters of a report in a notification.
const RESULT_CHARS: usize = 30_000;
/// Calls that clients see of a run: the last ones.
const CALLS: usize = 100;
/// Bytes that clients see of a call's arguments.
const ARGS_BYTES: usize = 2_000;

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Who does it is not known yet.
    Pending,
    Running,
    Completed,
    Error,
}

/// One run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) number: u64,
    /// `task_<n>`: its name for the model.
    pub(super) task_id: String,
    /// `subagent-<ms>-<n>`: its name for clients.
    pub(super) subagent_id: Arc<str>,
    pub(super) task: Arc<Prepared>,
    pub(super) tool_call_id: Option<String>,
    pub(super) state: State,
    pub(super) child: Option<Scope>,
    pub(super) model: Option<String>,
    pub(super) started: Instant,
    /// Milliseconds since the epoch.
    pub(super) started_at: i64,
    pub(super) tool_calls: Vec<Value>,
    pub(super) tool_uses: u64,
    pub(super) tokens: Option<u64>,
    pub(super) duration_ms: u64,
    pub(super) error: Option<String>,
    pub(super) log: PathBuf,
    pub(super) record: PathBuf,
    pub(super) cancel: CancellationToken,
    /// Who waits for its end.
    pub(super) stops: Vec<oneshot::Sender<bool>>,
    /// Its parent was told of its end; clients see it until then.
    pub(super) expires: Option<Instant>,
    pub(super) file: Option<OutputFile>,
    /// Its place among those that may run at once.
    pub(super) slot: Option<OwnedSemaphorePermit>,
}

impl Run {
    pub(super) fn is_under_way(&self) -> bool {
        matches!(self.state, State::Pending | State::Running)
    }

    pub(super) fn is_of(&self, parent: &Scope) -> bool {
        self.task.parent.scope == *parent
    }

    pub(super) fn elapsed_ms(&self) -> u64 {
        duration_ms(self.started.elapsed())
    }

    fn status(&self) -> &'static str {
        match self.state {
            State::Pending => "pending",
            State::Running => "running",
            State::Completed => "completed",
            State::Error => "error",
        }
    }

    /// A call of a tool, once for each.
    pub(super) fn called(&mut self, id: String, name: String, args: &str) {
        self.tool_uses += 1;
        if self.tool_calls.len() >= CALLS {
            self.tool_calls.remove(0);
        }
        let args = &args[..args.floor_char_boundary(ARGS_BYTES)];
        self.tool_calls
            .push(json!({"id": id, "name": name, "args": args}));
    }

    /// Its item in `update_subagent_state` (02 §6.6).
    pub(super) fn shown(&self) -> Value {
        let (parent, wanted) = (&self.task.parent.scope, &self.task.wanted);
        let mut kind = self.task.kind.name.clone();
        if let Some(first) = kind.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        let url = self.child.as_ref().and_then(agent_url);
        let mut item = json!({
            "subagent_id": self.subagent_id, "subagent_type": kind,
            "description": wanted.description, "prompt": wanted.prompt,
            "status": self.status(), "agent_url": url,
            "conversation_id": self.child.as_ref().map(|child| &child.conversation_id),
        });
        let mut set = |name: &str, value: Value| {
            if !value.is_null() {
                item[name] = value;
            }
        };
        set("model", json!(self.model));
        set("is_background", true.into());
        set("tool_call_id", json!(self.tool_call_id));
        set("parent_agent_id", json!(parent.agent_id));
        set("parent_conversation_id", json!(parent.conversation_id));
        set("start_time", self.started_at.into());
        set("tool_calls", Value::Array(self.tool_calls.clone()));
        set("total_tokens", self.tokens.unwrap_or(0).into());
        set("duration_ms", self.duration_ms.into());
        set("error", json!(self.error));
        item
    }

    /// Its item in `device_status.background_processes` (04 §6.6).
    pub(super) fn listed(&self) -> Value {
        json!({
            "process_id": self.task_id, "kind": "agent_task", "task_type": self.task.kind.name,
            "description": self.task.wanted.description, "started_at_ms": self.started_at,
            "status": "running", "subagent_id": self.subagent_id,
        })
    }

    /// The head of its output file.
    pub(super) fn title(&self) -> String {
        format!(
            "[Task started: {}]\n[subagent_type: {}]\n\n",
            self.task.wanted.description, self.task.kind.name
        )
    }

    fn header(&self, status: &str) -> String {
        let mut header = format!(
            "subagent_type={} subagent_id={} subagent_status={status}",
            self.task.kind.name, self.subagent_id
        );
        if let Some(child) = &self.child {
            if let Some(agent) = &child.agent_id {
                header.push_str(&format!(" agent_id={agent}"));
            }
            header.push_str(&format!(" conversation_id={}", child.conversation_id));
        }
        header
    }

    /// What a later process tells if this one is killed.
    pub(super) fn lost_text(&self) -> String {
        let result = format!(
            "{}\n\nError: The program on this computer ended while the subagent was at work, so there is no report. What it changed until then is still there: look before you start it again.",
            self.header("error")
        );
        self.told(false).text(&result, &[])
    }

    fn told(&self, success: bool) -> Told {
        Told {
            task_id: self.task_id.clone(),
            description: self.task.wanted.description.clone(),
            log: self.log.clone(),
            status: if success { "completed" } else { "failed" },
        }
    }

    /// Writes the end of its output file; the text of its notification. The cut
    /// of a long report is not made on the runtime's threads.
    pub(super) fn closing(
        &mut self,
        services: &Services,
        result: Result<String, String>,
    ) -> impl Future<Output = String> + Send + use<> {
        let success = result.is_ok();
        let header = self.header(if success { "success" } else { "error" });
        let (filed, told) = match result {
            Ok(report) => (
                format!("{header}\n\n{report}\n\n[Task completed]\n"),
                format!("{header}\n\n{report}"),
            ),
            Err(error) => (
                format!("{header}\n\n[error] {error}\n\n[Task failed]\n"),
                format!("{header}\n\nError: {error}"),
            ),
        };
        let mut usage = vec![
            ("tool_uses", self.tool_uses),
            ("duration_ms", self.duration_ms),
        ];
        if let Some(tokens) = self.tokens {
            usage.insert(0, ("total_tokens", tokens));
        }
        let overflow = Overflow::at(
            &services.background,
            &services.home.letta,
            self.task.parent.cwd.clone(),
            "Task",
        );
        let file = self.file.take();
        let end = self.told(success);
        async move {
            if let Some(mut file) = file
                && let Err(error) = file.append(&filed).await
            {
                tracing::warn!(%error, "The report of a subagent cannot be written.");
            }
            let cut = move || overflow.cut(told, RESULT_CHARS).text;
            let cut = tokio::task::spawn_blocking(cut).await.unwrap_or_default();
            end.text(&cut, &usage)
        }
    }
}

/// What a notification says of a run besides its report.
struct Told {
    task_id: String,
    description: String,
    log: PathBuf,
    status: &'static str,
}

impl Told {
    fn text(&self, result: &str, usage: &[(&str, u64)]) -> String {
        Notification {
            task_id: &self.task_id,
            status: Some(self.status),
            summary: &format!("Agent \"{}\" {}", self.description, self.status),
            result,
            usage,
            transcript: Some(&self.log),
        }
        .text()
    }
}
