//! Runs the approved calls of one step (04 §4.3, §4.6).
//!
//! Calls run side by side as their lanes allow; results come back in decision
//! order. Invariant: every call gets exactly one outcome, whatever its tool
//! does: an abort and an unknown name included.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;

use super::around::Before;
use super::registry::TurnTools;
use super::tool::{Lane, ToolCall, ToolContext, ToolOutcome, ToolReturn};
use crate::process::capture::{self, Capture, Cut, SpillPlace};

/// The largest text part of a result.
const PART_CHARS: usize = 32_000;

/// How long a tool may take to notice an abort: a command needs two seconds
/// from SIGTERM to SIGKILL and one for its pipes.
const ABORT_GRACE: Duration = Duration::from_secs(4);

impl TurnTools {
    /// Runs `calls`, which are in decision order, and gives their outcomes in
    /// the same order.
    pub async fn run_batch(&self, calls: &[ToolCall], context: &ToolContext) -> Vec<ToolOutcome> {
        let cwd = context.cwd.get();
        let mut queues: Vec<(Queue, Vec<usize>)> = Vec::new();
        for (at, call) in calls.iter().enumerate() {
            let queue = self.queue(call, &cwd, &context.home);
            let known = queues
                .iter_mut()
                .find(|(other, _)| queue != Queue::Own && *other == queue);
            match known {
                Some((_, members)) => members.push(at),
                None => queues.push((queue, vec![at])),
            }
        }
        let runs = queues.into_iter().map(|(_, members)| async move {
            let mut outcomes = Vec::with_capacity(members.len());
            for at in members {
                outcomes.push((at, self.run_one(&calls[at], context).await));
            }
            outcomes
        });
        let mut outcomes: Vec<(usize, ToolOutcome)> =
            join_all(runs).await.into_iter().flatten().collect();
        outcomes.sort_by_key(|(at, _)| *at);
        outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }

    fn queue(&self, call: &ToolCall, cwd: &Path, home: &Path) -> Queue {
        match self.get(&call.name).map(|tool| tool.lane()) {
            Some(Lane::Parallel) => Queue::Own,
            Some(Lane::PerFile) => match call.args.get("file_path").and_then(Value::as_str) {
                Some(path) => Queue::File(normalised(path, cwd, home)),
                None => Queue::Global,
            },
            Some(Lane::Global) | None => Queue::Global,
        }
    }

    /// The whole way of one call: what stands before it, the call, what stands
    /// after it, clamp.
    async fn run_one(&self, call: &ToolCall, context: &ToolContext) -> ToolOutcome {
        let Some(around) = self.around(&call.name) else {
            let mut outcome = self.run_alone(call, context).await;
            clamp(&mut outcome, call, context).await;
            return outcome;
        };
        let before = around.before(call, context);
        let changed;
        let mut outcome = match call.cancel.run_until_cancelled(before).await {
            None => ToolOutcome::interrupted(),
            Some(Before::Refuse(outcome)) => outcome,
            Some(Before::Run(laid_over)) => {
                let call = if laid_over.is_empty() {
                    call
                } else {
                    let mut args = call.args.clone();
                    args.extend(laid_over);
                    changed = ToolCall {
                        args,
                        ..call.clone()
                    };
                    &changed
                };
                let mut outcome = self.run_alone(call, context).await;
                around.after(call, context, &mut outcome).await;
                outcome
            }
        };
        clamp(&mut outcome, call, context).await;
        outcome
    }

    /// Look-up, abort, run.
    async fn run_alone(&self, call: &ToolCall, context: &ToolContext) -> ToolOutcome {
        if call.cancel.is_cancelled() {
            return ToolOutcome::interrupted();
        }
        let Some(tool) = self.get(&call.name) else {
            let names: Vec<&str> = self.names().collect();
            return ToolOutcome::error(format!(
                "Tool not found: {}. Available tools: {}",
                call.name,
                names.join(", ")
            ));
        };
        let ignored = async {
            call.cancel.cancelled().await;
            tokio::time::sleep(ABORT_GRACE).await;
        };
        tokio::select! {
            outcome = tool.run(call, context) => outcome,
            () = ignored => ToolOutcome::interrupted(),
        }
    }
}

/// What a call waits in.
#[derive(Debug, PartialEq, Eq)]
enum Queue {
    Own,
    File(PathBuf),
    Global,
}

/// `path` as one absolute name, without asking the file system.
fn normalised(path: &str, cwd: &Path, home: &Path) -> PathBuf {
    let path = match path.strip_prefix('~') {
        Some("") => home.to_path_buf(),
        Some(rest) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
        _ => cwd.join(path),
    };
    let mut whole = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(whole.pop()),
            other => whole.push(other),
        }
    }
    whole
}

/// Bounds every text that goes to the model.
async fn clamp(outcome: &mut ToolOutcome, call: &ToolCall, context: &ToolContext) {
    match &mut outcome.tool_return {
        ToolReturn::Text(text) => clamp_text(text, call, context).await,
        ToolReturn::Parts(parts) => {
            for part in parts {
                if let Some(Value::String(text)) = part.get_mut("text") {
                    clamp_text(text, call, context).await;
                }
            }
        }
    }
}

async fn clamp_text(text: &mut String, call: &ToolCall, context: &ToolContext) {
    if text.len() <= PART_CHARS || text.chars().count() <= PART_CHARS {
        return;
    }
    let place = context.processes.spills().then(|| {
        // The name is the model's: only letters of it become part of a file name.
        let tool: String = call
            .name
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || *c == '_')
            .take(64)
            .collect();
        SpillPlace::new(
            &context.letta_home,
            &context.cwd.get(),
            &tool.to_ascii_lowercase(),
        )
    });
    let mut whole = Capture::new(place);
    whole.push(text).await;
    let cut: Cut = context.processes.cut(PART_CHARS, None);
    *text = capture::render(whole, Capture::default(), cut).await.text;
}

#[cfg(test)]
mod tests;
