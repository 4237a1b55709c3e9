//! What exec_command and write_stdin share: waiting for a session's output
//! and the report on it (04 §7.12).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::args::{ArgError, Args};
use super::shell_run;
use super::tool::{ToolCall, ToolContext, ToolOutcome};
use crate::process::capture;
use crate::process::{Ending, Task};

/// Characters of a report's output section at most.
const OUTPUT_CHARS: usize = 30_000;

const DEFAULT_OUTPUT_TOKENS: usize = 10_000;
const CHARS_PER_TOKEN: usize = 4;

/// How a wait ended.
pub(super) enum Waited {
    /// The command ended or the time is over.
    Report(ToolOutcome),
    /// The turn was aborted; the session is as it was.
    Aborted,
}

/// Waits for the session's end, `patience` at most, while its output is
/// streamed under `call`; then reports what nobody has read yet. A session
/// that ended is forgotten. The caller holds the turn to read.
pub(super) async fn wait(
    call: &ToolCall,
    context: &ToolContext,
    task: &Arc<Task>,
    begun: Instant,
    patience: Duration,
    chars: usize,
) -> Waited {
    task.session().listen(Some(shell_run::live(&call.output)));
    let ended = tokio::select! {
        finished = task.session().finished() => Some(finished),
        () = tokio::time::sleep(patience) => task.session().ended(),
        () = call.cancel.cancelled() => {
            task.session().listen(None);
            return Waited::Aborted;
        }
    };
    task.session().listen(None);
    let (unread, nothing) = task.session().take().await;
    let mut report = format!(
        "Chunk ID: {:06x}\nWall time: {:.4} seconds\n",
        fastrand::u32(..1 << 24),
        begun.elapsed().as_secs_f64()
    );
    match ended {
        Some(finished) => {
            // The end is told here: no notification.
            task.claim_end();
            context.processes.remove(task);
            if let Ending::Exited(code) = finished.ending {
                report.push_str(&format!("Process exited with code {code}\n"));
            }
        }
        None => report.push_str(&format!(
            "Process running with session ID {}\nYou will be notified once when it ends. Poll only if you cannot go \
             on without its output.\n",
            task.id()
        )),
    }
    let tokens = unread
        .excerpt()
        .total_bytes()
        .div_ceil(CHARS_PER_TOKEN as u64);
    let cut = context.processes.cut(chars, None);
    let output = capture::render(unread, nothing, cut).await.text;
    report.push_str(&format!(
        "Original token count: {tokens}\nOutput:\n{output}"
    ));
    Waited::Report(ToolOutcome::text(report))
}

/// Characters of output that a report may hold, by `max_output_tokens`.
pub(super) fn output_chars(args: &Args<'_>) -> Result<usize, ArgError> {
    let tokens = args.opt_count("max_output_tokens")?;
    let tokens = tokens.filter(|tokens| *tokens > 0);
    let chars = tokens.unwrap_or(DEFAULT_OUTPUT_TOKENS);
    Ok(chars.saturating_mul(CHARS_PER_TOKEN).min(OUTPUT_CHARS))
}
