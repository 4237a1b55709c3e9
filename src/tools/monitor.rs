//! Monitor: a command in the background, or a WebSocket, whose lines reach the
//! conversation as they come (04 §7.20).

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde_json::Value;

use super::args::{Args, DRAFT_07, schema};
use super::shell_run;
use super::tool::{Status, Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome};
use crate::process::{About, Keep, Kind, Launch, Plan, StartError, Task, monitor};

mod ws;

const DEFAULT_TIMEOUT_MS: i64 = 300_000;
const TIMEOUT_MS: std::ops::RangeInclusive<i64> = 1_000..=3_600_000;

const DESCRIPTION: &str = "\
Starts a command in the background, or opens a WebSocket, and tells you of every line that it prints or says, each as a notification, while you go on with other work. Use it for something that happens more than once: errors in a growing log, the steps of a deployment, files that appear. For one notification when a command ends, use a background command instead.

- command: each line of standard output is an event; lines within 200 ms are one event. Standard error goes to the output file only; add 2>&1 to hear it.
- Print only lines that call for action: filter in the command, and let the filter flush each line (grep --line-buffered, awk with fflush(), python -u).
- Cover failure as well as success, or a crash looks like silence: grep -E 'ready|error|fatal', and let a loop end when what it watches is gone.
- ws: {\"url\": \"wss://host/path\", \"protocols\": [\"v1\"]} instead of a command, for a server that pushes. Each text message is an event, of a binary one you learn the size; an error and the close code end it. A message above 1 MiB closes it. Subscribe to as little as you need; to choose or to reshape what comes, use a command.
- Long lines and bursts are cut; a source that floods for half a minute is stopped.
- It ends with its command or connection, after timeout_ms (default 300000, 1000 to 3600000), or by TaskStop; persistent: true removes the timeout.
- Never poll or sleep to wait for events. One that comes while you wait for the user is not the user's answer.";

static PARAMETERS: LazyLock<Value> = LazyLock::new(|| {
    schema(
        r#"{
    "command": {"type": "string", "description": "The command to watch"},
    "ws": {
        "type": "object",
        "description": "The WebSocket to watch, in place of a command",
        "properties": {
            "url": {"type": "string", "description": "Its ws:// or wss:// address"},
            "protocols": {
                "type": "array",
                "description": "Subprotocols that the server may choose from",
                "items": {"type": "string", "pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"}
            }
        },
        "required": ["url"],
        "additionalProperties": false
    },
    "description": {"type": "string", "description": "What is watched, in a few words. It heads every notification."},
    "timeout_ms": {"type": "number", "description": "Milliseconds until it is stopped, 300000 if not given"},
    "persistent": {"type": "boolean", "description": "No timeout: it runs until TaskStop"}
}"#,
        &["description"],
        DRAFT_07,
    )
});

/// The tool.
#[derive(Debug)]
pub struct Monitor {
    upgrade: reqwest::Client,
}

impl Monitor {
    /// Opens WebSockets by way of `upgrade`.
    pub fn new(upgrade: &reqwest::Client) -> Self {
        Self {
            upgrade: upgrade.clone(),
        }
    }
}

impl Tool for Monitor {
    fn name(&self) -> &'static str {
        "Monitor"
    }

    fn description(&self) -> &str {
        DESCRIPTION
    }

    fn parameters(&self) -> &Value {
        &PARAMETERS
    }

    fn run<'a>(&'a self, call: &'a ToolCall, context: &'a ToolContext) -> ToolFuture<'a> {
        Box::pin(async move {
            match self.start(call, context).await {
                Ok(text) => ToolOutcome::part(text, Status::Success),
                Err(text) => ToolOutcome::error(text),
            }
        })
    }
}

impl Monitor {
    async fn start(&self, call: &ToolCall, context: &ToolContext) -> Result<String, String> {
        let args = Args::new("Monitor", &call.args);
        let description = args.opt_string("description").ok().flatten();
        let description = description.unwrap_or_default().trim();
        if description.is_empty() {
            return Err("Monitor description is required".into());
        }
        let (timeout, lifetime) = lifetime(&args)?;
        let command = args.opt_string("command");
        let command = command.map_err(|_| "Monitor command must be a string")?;
        // An empty source is none: models fill in what they do not need.
        let command = command.filter(|command| !command.is_empty());
        let watch = ws::given(&args);
        let (live, heard) = monitor::listener();
        let plan = Plan {
            timeout,
            annotate_log: true,
            live: Some(live),
            ..Plan::default()
        };
        let about = |source: String| About {
            kind: Kind::Monitor {
                persistent: timeout.is_none(),
            },
            command: source,
            description: Some(description.to_owned()),
            scope: context.scope.clone(),
        };
        let (note, task) = match (command, watch) {
            (Some(command), None) if !command.trim().is_empty() => {
                refuse_hidden(command)?;
                run(context, command, about(command.to_owned()), plan).await
            }
            (None, Some(watch)) => {
                let address = ws::address(watch)?;
                let (about, subscription) = (about(address.host()), address.by(&self.upgrade));
                let task = context.processes.watch(about, subscription, plan);
                (String::new(), task)
            }
            _ => return Err("Monitor requires exactly one of command or ws".into()),
        };
        let task = task.map_err(|error| error.to_string())?;
        shell_run::to_background(context, &task, Keep::Listener, Some(heard)).await?;
        Ok(format!(
            "{note}Monitor started (task {}, {lifetime}). Every event will be told to you: go on with other work, and do \
             not poll or sleep. An event that comes while you wait for the user is not the user's answer.\nOutput file: {}",
            task.id(),
            task.log().display()
        ))
    }
}

/// When it is stopped, and how that is said.
fn lifetime(args: &Args<'_>) -> Result<(Option<Duration>, String), String> {
    let persistent = args.flag("persistent", false);
    let persistent = persistent.map_err(|_| "Monitor persistent must be a boolean")?;
    let (least, most) = (*TIMEOUT_MS.start(), *TIMEOUT_MS.end());
    let timeout_ms = args
        .opt_integer("timeout_ms")
        .map(|given| given.unwrap_or(DEFAULT_TIMEOUT_MS))
        .ok()
        .filter(|timeout_ms| *timeout_ms >= least && (persistent || *timeout_ms <= most))
        .ok_or_else(|| format!("Monitor timeout_ms must be between {least} and {most}"))?;
    if persistent {
        return Ok((None, "persistent: it runs until TaskStop".to_owned()));
    }
    let timeout = Duration::from_millis(timeout_ms.unsigned_abs());
    Ok((Some(timeout), format!("timeout {timeout_ms}ms")))
}

/// What a person is asked to approve must be what runs.
fn refuse_hidden(command: &str) -> Result<(), String> {
    let hidden = |c: char| c.is_control() && !matches!(c, '\t' | '\n');
    if command.contains(hidden) {
        return Err(
            "Monitor command contains control characters that the user could not see when asked to approve it".into(),
        );
    }
    Ok(())
}

/// Starts the command; a note for the model comes with it.
async fn run(
    context: &ToolContext,
    command: &str,
    about: About,
    plan: Plan,
) -> (String, Result<Arc<Task>, StartError>) {
    let setting = shell_run::prepare(context, "monitor", command, None).await;
    let note = shell_run::lost_directory_note(context, &setting.cwd);
    let launch = Launch {
        argv: context.processes.shells().command_line(command, false),
        cwd: setting.cwd,
        env: setting.env,
        terminal: None,
    };
    let plan = Plan {
        redactions: setting.redactions,
        ..plan
    };
    (note, context.processes.register(about, launch, plan))
}

#[cfg(test)]
mod tests;
