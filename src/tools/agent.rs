//! Agent: hand a task to a subagent (04 §7.18, 07 §3.1). The call returns as
//! soon as the subagent is at work; its report comes as a notification.

use std::fmt::Write as _;
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::args::{DRAFT_07, schema};
use super::tool::{Lane, Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome};
use crate::subagents::{Kinds, LaunchError, Parent, Wanted};

const HEAD: &str = "\
Hands a task to a subagent: another agent that works on this machine on its own, while you go on. It always runs in the background; when it ends, a notification brings its report.";

const USAGE: &str = "\
## Usage

- Use it for work that is wide or long: searching a large code base, an independent change, several investigations at once. For one file or one command, do it yourself.
- Start independent subagents in one message, so that they run beside each other; at most 32 run at once.
- A subagent cannot ask back. Say what to do, what to leave alone, and what the report must hold; unless it is a fork, it knows nothing of this conversation.
- Never poll, sleep or read its output file to wait for it. End your turn if you have nothing else to do.
- What it reports is its own view: check what matters before you rely on it.
- To go on with one that has ended, pass its conversation_id; to give a task to another agent, pass its agent_id. subagent_type is general-purpose then.
- TaskStop with the task ID ends one.";

static PARAMETERS: LazyLock<Value> = LazyLock::new(|| {
    schema(
        json!({
            "description": {"type": "string", "description": "The task in 3 to 5 words, for people"},
            "prompt": {"type": "string", "description": "The task, with all that is needed for it"},
            "subagent_type": {"type": "string", "description": "One of the available agents"},
            "model": {"type": "string", "description": "Another model than that of the agent's kind"},
            "agent_id": {"type": "string", "description": "An existing agent, which gets a new conversation"},
            "conversation_id": {"type": "string", "description": "An existing conversation to go on with; `default` needs agent_id"}
        }),
        &["description", "prompt", "subagent_type"],
        DRAFT_07,
    )
});

/// The tool, with the kinds that one conversation can choose from.
#[derive(Debug)]
pub struct Agent {
    description: String,
    count: (usize, usize),
}

impl Agent {
    /// For a conversation with these kinds, `custom` of them from files.
    pub fn new(kinds: &Kinds, custom: usize) -> Self {
        let mut description = format!("{HEAD}\n\n## Available Agents\n");
        for kind in kinds.iter() {
            let model = kind.model.as_deref().unwrap_or("inherit");
            // Writing into a string does not fail.
            let _ = write!(
                description,
                "\n### {}\n- **Purpose**: {}\n- **Recommended model**: {model}\n",
                kind.name, kind.description
            );
        }
        description.push('\n');
        description.push_str(USAGE);
        Self {
            description,
            count: (kinds.iter().count(), custom),
        }
    }
}

impl Tool for Agent {
    fn name(&self) -> &'static str {
        "Agent"
    }

    fn description(&self) -> &str {
        &self.description
    }

    fn parameters(&self) -> &Value {
        &PARAMETERS
    }

    fn lane(&self) -> Lane {
        Lane::Parallel
    }

    fn run<'a>(&'a self, call: &'a ToolCall, context: &'a ToolContext) -> ToolFuture<'a> {
        Box::pin(async move {
            if call.args.get("command").and_then(Value::as_str) == Some("refresh") {
                let (all, custom) = self.count;
                return ToolOutcome::text(format!(
                    "Files of subagents are read anew with every turn: {all} kinds, {custom} from files."
                ));
            }
            let launch = launch(call, context);
            match call.cancel.run_until_cancelled(launch).await {
                None => ToolOutcome::interrupted(),
                Some(Ok(text)) => ToolOutcome::text(text),
                Some(Err(error)) if error.is_failure() => ToolOutcome::error(error.to_string()),
                Some(Err(error)) => ToolOutcome::text(format!("Error: {error}")),
            }
        })
    }
}

async fn launch(call: &ToolCall, context: &ToolContext) -> Result<String, LaunchError> {
    let wanted = Wanted::read(&call.args)?;
    let delegation = &context.delegation;
    let parent = Parent {
        scope: context.scope.clone(),
        acting_user_id: context.acting_user_id.clone(),
        cwd: context.cwd.get(),
        workspace: delegation.workspace.clone(),
        disallowed_tools: delegation.disallowed_tools.clone(),
    };
    let id = Some(call.id.to_string());
    let launched = delegation.desk.launch(parent, wanted, id).await?;
    let mut text = format!(
        "Task running in background with task ID: {}",
        launched.task_id
    );
    if let Some(agent) = &launched.child.agent_id {
        let _ = write!(text, "\nAgent ID: {agent}");
    }
    let _ = write!(
        text,
        "\nConversation ID: {}\nOutput file: {}\n\nA <task-notification> with its report arrives by itself when it ends. Do not wait for it, poll it or read the file before: go on with other work, or end your turn.",
        launched.child.conversation_id,
        launched.output_file.display()
    );
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subagents::{Launched, Order};
    use crate::tools::tests::{Bench, args, text_of};

    fn tool() -> Agent {
        Agent::new(&Kinds::built_in(), 0)
    }

    #[test]
    fn the_kinds_stand_in_the_description_in_front_of_the_usage() {
        let tool = tool();
        let text = tool.description();
        let kinds = text.find("\n## Available Agents\n").unwrap();
        assert!(text.contains("\n### general-purpose\n- **Purpose**: Researches"));
        assert!(text.contains("\n- **Recommended model**: inherit\n"));
        assert!(kinds < text.find("\n## Usage\n").unwrap());
    }

    #[tokio::test]
    async fn a_call_returns_when_the_subagent_is_at_work_and_labels_stand_at_line_starts() {
        let mut bench = Bench::new();
        let given = args(json!({"description": "d", "prompt": "p", "subagent_type": "fork"}));
        let tool = tool();
        let owner = async {
            let Some(Order::Launch { parent, reply, .. }) = bench.orders.recv().await else {
                panic!("no launch")
            };
            let launched = Launched {
                task_id: "task_3".into(),
                output_file: "/x/task_3.log".into(),
                child: crate::protocol::Scope::new(Some("agent-9"), None),
            };
            reply.send(Ok(launched)).unwrap();
            parent
        };
        let call = bench.context.clone();
        let run = async {
            let tool_call = Bench::new().call("Agent", given);
            tool.run(&tool_call, &call).await
        };
        let (parent, outcome) = tokio::join!(owner, run);
        assert_eq!(parent.scope, bench.context.scope);
        assert!(
            text_of(&outcome).starts_with(
                "Task running in background with task ID: task_3\nAgent ID: agent-9\nConversation ID: default\nOutput file: /x/task_3.log\n\n"
            ),
            "{}",
            text_of(&outcome)
        );
    }

    #[tokio::test]
    async fn a_call_that_is_aborted_takes_its_order_back() {
        let mut bench = Bench::new();
        let given = args(json!({"description": "d", "prompt": "p", "subagent_type": "fork"}));
        let (tool, context, cancel) = (tool(), bench.context.clone(), bench.cancel.clone());
        let call = bench.call("Agent", given);
        let owner = async {
            let Some(Order::Launch { mut reply, .. }) = bench.orders.recv().await else {
                panic!("no launch")
            };
            cancel.cancel();
            reply.closed().await;
        };
        let (outcome, ()) = tokio::join!(tool.run(&call, &context), owner);
        assert_eq!(outcome, ToolOutcome::interrupted());
    }
}
