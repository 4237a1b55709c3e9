//! TaskStop and KillBash: end a command that runs in the background (04 §7.17).

use serde_json::{Value, json};

use super::args::Args;
use super::tool::{Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome};
use crate::subagents::desk::is_task_id;

const STOPPED: &str = "Process killed successfully";
const NOT_STOPPED: &str = "Failed to kill process (may have already exited)";

/// One of the two tools: they differ in the name of their argument.
#[derive(Debug)]
pub struct TaskStop {
    name: &'static str,
    argument: &'static str,
    parameters: Value,
}

impl TaskStop {
    /// `TaskStop` with `task_id`.
    pub fn by_task_id() -> Self {
        Self::new("TaskStop", "task_id")
    }

    /// `KillBash` with `shell_id`.
    pub fn by_shell_id() -> Self {
        Self::new("KillBash", "shell_id")
    }

    fn new(name: &'static str, argument: &'static str) -> Self {
        let mut parameters = json!({
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": "object",
            "properties": {},
            "required": [argument],
            "additionalProperties": false
        });
        parameters["properties"][argument] = json!({
            "type": "string",
            "description": "The ID that the result of the command or its notification named."
        });
        Self {
            name,
            argument,
            parameters,
        }
    }

    async fn stop(&self, call: &ToolCall, context: &ToolContext) -> ToolOutcome {
        let id = match Args::new(self.name, &call.args).id(self.argument) {
            Ok(id) => id,
            Err(error) => return ToolOutcome::error(error.to_string()),
        };
        let stopped = if is_task_id(&id) {
            context.delegation.desk.stop(&context.scope, &id).await
        } else {
            context.processes.stop(&context.scope, &id)
        };
        ToolOutcome::text(if stopped { STOPPED } else { NOT_STOPPED })
    }
}

impl Tool for TaskStop {
    fn name(&self) -> &str {
        self.name
    }

    fn description(&self) -> &str {
        "Ends something that runs in the background of this conversation, by its ID: a command (`bash_3`), a command \
         session (`2`, or `exec_2`), a monitor (`monitor_…`) or a subagent (`task_4`). A subagent is aborted, and its notification says so. A command and all it started get SIGTERM, and SIGKILL two seconds later if they are \
         still there; a WebSocket is closed. What you stop this way, but for a subagent, sends no notification."
    }

    fn parameters(&self) -> &Value {
        &self.parameters
    }

    fn run<'a>(&'a self, call: &'a ToolCall, context: &'a ToolContext) -> ToolFuture<'a> {
        Box::pin(async move {
            let outcome = self.stop(call, context).await;
            if outcome == ToolOutcome::text(STOPPED) {
                context
                    .conversation
                    .inject(crate::events::Injected::BackgroundChanged);
            }
            outcome
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Injected;
    use crate::protocol::Scope;
    use crate::tools::bash::Bash;
    use crate::tools::exec_command::ExecCommand;
    use crate::tools::tests::{Bench, args};

    async fn stop(bench: &Bench, tool: TaskStop, id: Value) -> String {
        let arguments = args(json!({ tool.argument: id }));
        crate::tools::tests::text_of(&bench.run(&tool, arguments).await)
    }

    #[tokio::test]
    async fn a_background_command_is_ended_without_a_notification() {
        let mut bench = Bench::new();
        let slow = json!({"command": "trap '' HUP; sleep 60", "run_in_background": true});
        bench.run(&Bash::default(), args(slow)).await;
        let task = bench
            .context
            .processes
            .find(&bench.context.scope, "bash_1")
            .unwrap();
        assert_eq!(
            stop(&bench, TaskStop::by_task_id(), json!("bash_1")).await,
            STOPPED
        );
        task.session().finished().await;
        assert_eq!(
            stop(&bench, TaskStop::by_task_id(), json!("bash_1")).await,
            NOT_STOPPED
        );
        bench.context.processes.shutdown().await;
        while let Ok((_, news)) = bench.news.try_recv() {
            assert_eq!(news, Injected::BackgroundChanged);
        }
    }

    #[tokio::test]
    async fn a_session_is_found_by_either_of_its_ids() {
        let bench = Bench::new();
        for (number, id) in [(1, json!("exec_1")), (2, json!(2)), (3, json!("3"))] {
            bench
                .run(
                    &ExecCommand,
                    args(json!({"cmd": "sleep 60", "yield_time_ms": 250})),
                )
                .await;
            assert!(
                bench
                    .context
                    .processes
                    .find(&bench.context.scope, &number.to_string())
                    .is_some()
            );
            assert_eq!(stop(&bench, TaskStop::by_shell_id(), id).await, STOPPED);
        }
        bench.context.processes.shutdown().await;
    }

    #[tokio::test]
    async fn other_conversations_commands_are_out_of_reach() {
        let mut bench = Bench::new();
        let slow = json!({"command": "sleep 60", "run_in_background": true});
        bench.run(&Bash::default(), args(slow)).await;
        bench.context.scope = Scope::new(Some("agent-1"), Some("conv-2"));
        assert_eq!(
            stop(&bench, TaskStop::by_task_id(), json!("bash_1")).await,
            NOT_STOPPED
        );
        assert!(
            bench
                .context
                .processes
                .listing(&bench.context.scope)
                .is_empty()
        );
        bench.context.processes.shutdown().await;
    }
}
