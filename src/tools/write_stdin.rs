//! write_stdin: types into a session of exec_command, or waits for more of
//! its output (04 §7.13).

use std::sync::LazyLock;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::args::{ArgError, Args};
use super::exec_session::{self, Waited};
use super::tool::{Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome};
use crate::process::Kind;

/// What Ctrl-C types.
const INTERRUPT: &str = "\u{3}";

/// How long a program gets to answer what was typed.
const AFTER_TYPING: Duration = Duration::from_millis(100);

static PARAMETERS: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {
            "session_id": {"type": "number", "description": "The session ID from exec_command."},
            "chars": {"type": "string", "description": "What to type, line ends included. Empty or missing: only wait for output."},
            "yield_time_ms": {
                "type": "number",
                "description": "Milliseconds to wait for output: after typing 250 to 30000, 250 if not given; otherwise 5000 to 300000, 5000 if not given."
            },
            "max_output_tokens": {
                "type": "number",
                "description": "How much output to return, 10000 tokens if not given; more is cut in the middle."
            }
        },
        "required": ["session_id"],
        "additionalProperties": false
    })
});

/// The tool.
#[derive(Debug, Default)]
pub struct WriteStdin;

impl Tool for WriteStdin {
    fn name(&self) -> &'static str {
        "write_stdin"
    }

    fn description(&self) -> &str {
        "Types `chars` into a session that exec_command left running, or waits for more of its output when `chars` is \
         empty. Returns what was printed since the last look, in the format of exec_command, and returns early when \
         the command ends.\n\n\
         - Typing needs a session started with `tty: true`. Line ends are yours to send (`\\n`).\n\
         - `\\u0003` interrupts the command, in every session.\n\
         - You are notified once when a session ends: wait with this tool only if you cannot go on without the output.\n\
         - A session whose end was reported is gone."
    }

    fn parameters(&self) -> &Value {
        &PARAMETERS
    }

    fn run<'a>(&'a self, call: &'a ToolCall, context: &'a ToolContext) -> ToolFuture<'a> {
        Box::pin(execute(call, context))
    }
}

async fn execute(call: &ToolCall, context: &ToolContext) -> ToolOutcome {
    let args = Args::new("write_stdin", &call.args);
    let read = || {
        let chars = args.opt_string("chars")?.unwrap_or_default();
        let waits = if chars.is_empty() {
            (5_000, 300_000)
        } else {
            (250, 30_000)
        };
        let patience = args.millis("yield_time_ms", 0, waits)?;
        let shown = exec_session::output_chars(&args)?;
        Ok::<_, ArgError>((args.id("session_id")?, chars, patience, shown))
    };
    let (id, chars, patience, shown) = match read() {
        Ok(read) => read,
        Err(error) => return ToolOutcome::error(error.to_string()),
    };
    let found = context.processes.find(&context.scope, &id);
    let Some(task) = found.filter(|task| task.about().kind == Kind::Exec) else {
        return ToolOutcome::error(format!("Unknown process id {id}"));
    };
    let session = task.session();
    if !chars.is_empty() && !session.has_terminal() && chars != INTERRUPT {
        return ToolOutcome::error(
            "stdin is closed for this session; rerun exec_command with tty=true to keep stdin open",
        );
    }
    // Two looks at one session take turns; an abort ends the queueing too.
    let _turn = tokio::select! {
        turn = task.reader().acquire() => turn,
        () = call.cancel.cancelled() => return ToolOutcome::interrupted(),
    };
    let begun = Instant::now();
    if !chars.is_empty() && session.ended().is_none() {
        if !session.has_terminal() {
            session.interrupt();
        } else if let Err(error) = session.type_in(chars.into()).await
            && session.ended().is_none()
        {
            return ToolOutcome::error(format!("The session does not take input: {error}"));
        } else {
            tokio::time::sleep(AFTER_TYPING).await;
        }
    }
    match exec_session::wait(call, context, &task, begun, patience, shown).await {
        Waited::Report(outcome) => outcome,
        Waited::Aborted => ToolOutcome::interrupted(),
    }
}
