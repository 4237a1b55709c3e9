//! Bash: one command in the user's shell; long ones go on in the background
//! (04 §7.1).

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::args::{ArgError, Args};
use super::shell_run::{self, Setting};
use super::tool::{Status, Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome};
use crate::process::capture::{self, Capture};
use crate::process::{About, Ending, Keep, Kind, Launch, Plan, StartError, Task, notification};

const DEFAULT_TIMEOUT_MS: i64 = 120_000;
const LONGEST_FOREGROUND_MS: i64 = 600_000;

/// How long a turn waits for a command.
const FOREGROUND: Duration = Duration::from_secs(10);

/// Characters of a result shown whole, on success and on failure.
const SUCCESS_CHARS: usize = 30_000;
const FAILURE_CHARS: usize = 10_000;

/// Characters shown of a longer success, when the rest is in a file.
const PREVIEW_CHARS: usize = 2_000;

const NO_OUTPUT: &str = "(Command completed with no output)";

static PARAMETERS: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {
            "command": {"type": "string", "description": "The command to run."},
            "description": {
                "type": "string",
                "description": "What the command does, in five to ten words. The user sees it as the label of this call."
            },
            "timeout": {
                "type": "number",
                "description": "Milliseconds until the command is stopped: 120000 if not given, 600000 at most in the foreground."
            },
            "run_in_background": {
                "type": "boolean",
                "description": "Return at once and let the command run on; a notification comes when it ends."
            }
        },
        "required": ["command", "description"],
        "additionalProperties": false
    })
});

/// The tool.
#[derive(Debug)]
pub struct Bash {
    foreground: Duration,
}

impl Default for Bash {
    fn default() -> Self {
        Self {
            foreground: FOREGROUND,
        }
    }
}

impl Tool for Bash {
    fn name(&self) -> &'static str {
        "Bash"
    }

    fn description(&self) -> &str {
        include_str!("bash.md")
    }

    fn parameters(&self) -> &Value {
        &PARAMETERS
    }

    fn run<'a>(&'a self, call: &'a ToolCall, context: &'a ToolContext) -> ToolFuture<'a> {
        Box::pin(self.execute(call, context))
    }
}

impl Bash {
    async fn execute(&self, call: &ToolCall, context: &ToolContext) -> ToolOutcome {
        let args = Args::new("Bash", &call.args);
        let read = || {
            let in_background = args.flag("run_in_background", false)?;
            let most = if in_background {
                i64::MAX
            } else {
                LONGEST_FOREGROUND_MS
            };
            let asked_ms = args.opt_integer("timeout")?.unwrap_or(DEFAULT_TIMEOUT_MS);
            let timeout = args.millis("timeout", DEFAULT_TIMEOUT_MS, (1, most))?;
            let for_ever = in_background && asked_ms <= 0;
            let timeout = (!for_ever).then_some(timeout);
            Ok::<_, ArgError>((args.string("command")?, in_background, asked_ms, timeout))
        };
        let (command, in_background, asked_ms, timeout) = match read() {
            Ok(read) => read,
            Err(error) => return ToolOutcome::error(error.to_string()),
        };
        if command == "/bg" {
            return list(context);
        }

        let setting = shell_run::prepare(context, "bash", command, None).await;
        let note = shell_run::lost_directory_note(context, &setting.cwd);
        let task = match start(call, context, command, setting, timeout, in_background) {
            Ok(task) => task,
            Err(error @ (StartError::Full | StartError::GoingDown)) => {
                return ToolOutcome::part(error.to_string(), Status::Error);
            }
            Err(StartError::Spawn(error)) => {
                return ToolOutcome::part(
                    format!("{note}Error: {error}\n{NO_OUTPUT}"),
                    Status::Error,
                );
            }
        };
        if in_background {
            let started = shell_run::to_background(context, &task, Keep::Transcript, None).await;
            return match started {
                Ok(()) => ToolOutcome::part(
                    format!(
                        "{note}Command running in background with ID: {}\nOutput file: {}",
                        task.id(),
                        task.log().display()
                    ),
                    Status::Success,
                ),
                Err(failure) => ToolOutcome::part(failure, Status::Error),
            };
        }
        match tokio::time::timeout(self.foreground, task.session().finished()).await {
            Ok(finished) => {
                let streams = task.session().take().await;
                context.processes.remove(&task);
                finish(context, &note, asked_ms, &finished.ending, streams).await
            }
            Err(_still_running) => {
                match shell_run::to_background(context, &task, Keep::Transcript, None).await {
                    Ok(()) => ToolOutcome::part(
                        format!(
                            "{note}Command is still running with task ID: {}\nOutput file: {}\n\
                         You will be notified once when it ends, so there is no need to poll or wait; \
                         go on with other work, or stop it with TaskStop.",
                            task.id(),
                            task.log().display()
                        ),
                        Status::Success,
                    ),
                    Err(failure) => ToolOutcome::part(failure, Status::Error),
                }
            }
        }
    }
}

fn start(
    call: &ToolCall,
    context: &ToolContext,
    command: &str,
    setting: Setting,
    timeout: Option<Duration>,
    in_background: bool,
) -> Result<Arc<Task>, StartError> {
    let about = About {
        kind: Kind::Bash,
        command: command.to_owned(),
        description: shell_run::described(call),
        scope: context.scope.clone(),
    };
    let launch = Launch {
        argv: context.processes.shells().command_line(command, false),
        cwd: setting.cwd,
        env: setting.env,
        terminal: None,
    };
    let plan = Plan {
        timeout,
        // A command meant for the background outlives the turn; one that got
        // there by being slow is still the turn's.
        cancel: if in_background {
            CancellationToken::new()
        } else {
            call.cancel.clone()
        },
        redactions: setting.redactions,
        spill: setting.spill.filter(|_| !in_background),
        annotate_log: true,
        live: (!in_background).then(|| shell_run::live(&call.output)),
        ..Plan::default()
    };
    context.processes.register(about, launch, plan)
}

async fn finish(
    context: &ToolContext,
    note: &str,
    asked_ms: i64,
    ending: &Ending,
    (mut out, mut err): (Capture, Capture),
) -> ToolOutcome {
    if *ending == Ending::Aborted {
        out.discard().await;
        err.discard().await;
        return ToolOutcome::interrupted();
    }
    let succeeded = *ending == Ending::Exited(0);
    let head = match ending {
        Ending::Exited(0) => String::new(),
        Ending::TimedOut(_) => format!("Command timed out after {asked_ms}ms\n"),
        other => format!("{}\n", notification::detail(other)),
    };
    let cut = if succeeded {
        context.processes.cut(SUCCESS_CHARS, Some(PREVIEW_CHARS))
    } else {
        context.processes.cut(FAILURE_CHARS, None)
    };
    let mut text = capture::render(out, err, cut).await.text;
    if text.is_empty() {
        text.push_str(NO_OUTPUT);
    }
    let status = if succeeded {
        Status::Success
    } else {
        Status::Error
    };
    ToolOutcome::part(format!("{note}{head}{text}"), status)
}

/// `/bg`: what runs in the background of this conversation.
fn list(context: &ToolContext) -> ToolOutcome {
    let lines: Vec<String> = context
        .processes
        .in_background(&context.scope)
        .iter()
        .map(|task| {
            let runtime = task.runtime().as_secs();
            format!(
                "{}: {} ({}, runtime: {runtime}s)",
                task.id(),
                task.about().command,
                task.status()
            )
        })
        .collect();
    let text = if lines.is_empty() {
        "(no content)".to_owned()
    } else {
        lines.join("\n")
    };
    ToolOutcome::part(text, Status::Success)
}

#[cfg(test)]
mod tests;
