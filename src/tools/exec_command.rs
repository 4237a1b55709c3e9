//! exec_command: starts a command as a session and reports what it printed
//! within a moment (04 §7.12).

use std::ffi::OsStr;
use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::args::Args;
use super::exec_session::{self, Waited};
use super::offload::{Failure, settle};
use super::shell_run;
use super::tool::{Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome};
use crate::process::pty::WindowSize;
use crate::process::{About, Keep, Kind, Launch, Plan, Task};

const DEFAULT_YIELD_MS: i64 = 10_000;
const YIELD_MS: (i64, i64) = (250, 30_000);

static PARAMETERS: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {
            "cmd": {"type": "string", "description": "The command to run."},
            "description": {
                "type": "string",
                "description": "What the command does, in five to ten words. The user sees it as the label of this call."
            },
            "workdir": {
                "type": "string",
                "description": "Where to run it, absolute or relative to the conversation's working directory, which is the default."
            },
            "shell": {"type": "string", "description": "Another shell than the user's."},
            "login": {"type": "boolean", "description": "Whether the shell is a login shell (-l); true if not given."},
            "tty": {
                "type": "boolean",
                "description": "Give the command a terminal and keep its input open for write_stdin; false if not given."
            },
            "yield_time_ms": {
                "type": "number",
                "description": "Milliseconds to wait for output before the call returns: 250 to 30000, 10000 if not given."
            },
            "max_output_tokens": {
                "type": "number",
                "description": "How much output to return, 10000 tokens if not given; more is cut in the middle."
            }
        },
        "required": ["cmd", "description"],
        "additionalProperties": false
    })
});

/// The tool.
#[derive(Debug, Default)]
pub struct ExecCommand;

impl Tool for ExecCommand {
    fn name(&self) -> &'static str {
        "exec_command"
    }

    fn description(&self) -> &str {
        include_str!("exec_command.md")
    }

    fn parameters(&self) -> &Value {
        &PARAMETERS
    }

    fn run<'a>(&'a self, call: &'a ToolCall, context: &'a ToolContext) -> ToolFuture<'a> {
        Box::pin(execute(call, context))
    }
}

async fn execute(call: &ToolCall, context: &ToolContext) -> ToolOutcome {
    let args = Args::new("exec_command", &call.args);
    let begun = Instant::now();
    let started = async {
        let command = args.string("cmd")?;
        if command.trim().is_empty() {
            return Err(Failure::new("cmd must be a non-empty string"));
        }
        let patience = args.millis("yield_time_ms", DEFAULT_YIELD_MS, YIELD_MS)?;
        let chars = exec_session::output_chars(&args)?;
        let task = start(call, context, &args, command).await?;
        Ok((task, patience, chars))
    };
    let (task, patience, chars) = match started.await {
        Ok(started) => started,
        Err(failure) => return settle(Err(failure)),
    };
    // Never closed; held until it is clear who tells of the end.
    let _turn = task.reader().acquire().await;
    let Waited::Report(mut outcome) =
        exec_session::wait(call, context, &task, begun, patience, chars).await
    else {
        task.session().stop();
        context.processes.remove(&task);
        let (mut out, _) = task.session().take().await;
        out.discard().await;
        return ToolOutcome::interrupted();
    };
    if context.processes.find(&context.scope, task.id()).is_some()
        && let Err(failure) = shell_run::to_background(context, &task, Keep::Unread, None).await
    {
        outcome = ToolOutcome::error(failure);
    }
    outcome
}

async fn start(
    call: &ToolCall,
    context: &ToolContext,
    args: &Args<'_>,
    command: &str,
) -> Result<Arc<Task>, Failure> {
    let workdir = args.opt_string("workdir")?;
    let mut setting = shell_run::prepare(context, "exec_command", command, workdir).await;
    let login = args.flag("login", true)?;
    let shells = context.processes.shells();
    let shell = args.opt_string("shell")?;
    let argv = match shell.filter(|shell| !shell.trim().is_empty()) {
        Some(shell) => shells.in_shell(OsStr::new(shell.trim()), command, login),
        None => shells.command_line(command, login),
    };
    let terminal = args.flag("tty", false)?.then(WindowSize::default);
    if terminal.is_some() {
        setting
            .env
            .entry("COLORTERM".into())
            .or_insert_with(|| "truecolor".into());
    }
    let about = About {
        kind: Kind::Exec,
        command: command.to_owned(),
        description: shell_run::described(call),
        scope: context.scope.clone(),
    };
    let launch = Launch {
        argv,
        cwd: setting.cwd,
        env: setting.env,
        terminal,
    };
    let plan = Plan {
        interleaved: true,
        redactions: setting.redactions,
        spill: setting.spill,
        ..Plan::default()
    };
    Ok(context.processes.register(about, launch, plan)?)
}

#[cfg(test)]
mod tests;
