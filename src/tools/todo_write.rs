//! TodoWrite: a list that clients render from the call's own arguments
//! (04 §7.16).

use std::sync::LazyLock;

use serde_json::Value;

use super::args::{DRAFT_07, schema};
use super::offload::{Failure, Worked, settle};
use super::tool::{Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome};

const DESCRIPTION: &str = "\
Keeps a list of what is to be done in this piece of work, so that you and the user see where it stands. Each call replaces the whole list.

- Use it for work of three or more steps, or when the user gives several things to do. A single simple step needs no list.
- content says what to do (\"Run the tests\"), activeForm the same while it is being done (\"Running the tests\").
- status is pending, in_progress or completed. Have one step in progress at a time, mark it completed as soon as it is done, and never while tests fail or part of it is missing.
- Add steps that turn up on the way, and leave out those that no longer matter.";

static PARAMETERS: LazyLock<Value> = LazyLock::new(|| {
    schema(
        r#"{
    "todos": {"type": "array", "description": "The whole list as it is now", "items": {"type": "object", "properties": {"content": {"type": "string", "minLength": 1}, "status": {"type": "string", "enum": ["pending", "in_progress", "completed"]}, "activeForm": {"type": "string", "minLength": 1}}, "required": ["content", "status", "activeForm"], "additionalProperties": false}}
}"#,
        &["todos"],
        DRAFT_07,
    )
});

/// The tool.
#[derive(Debug, Default)]
pub struct TodoWrite;

impl Tool for TodoWrite {
    fn name(&self) -> &'static str {
        "TodoWrite"
    }

    fn description(&self) -> &str {
        DESCRIPTION
    }

    fn parameters(&self) -> &Value {
        &PARAMETERS
    }

    fn run<'a>(&'a self, call: &'a ToolCall, _: &'a ToolContext) -> ToolFuture<'a> {
        Box::pin(async move { settle(check(call.args.get("todos"))) })
    }
}

fn check(todos: Option<&Value>) -> Worked {
    let Some(Value::Array(todos)) = todos else {
        return Err(Failure::new("todos must be an array"));
    };
    for todo in todos {
        let text = |name| todo.get(name).and_then(Value::as_str).unwrap_or_default();
        if text("content").is_empty() {
            return Err(Failure::new("Each todo must have a content string"));
        }
        if !matches!(text("status"), "pending" | "in_progress" | "completed") {
            return Err(Failure::new(
                "Each todo must have a valid status (pending, in_progress, or completed)",
            ));
        }
        if text("activeForm").is_empty() {
            return Err(Failure::new("Each todo must have an activeForm string"));
        }
    }
    Ok(ToolOutcome::text(
        "The todo list is updated. Keep it current as you go on.",
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tools::trial::Trial;

    #[tokio::test]
    async fn a_list_is_checked_and_acknowledged() {
        let trial = Trial::new();
        let good = json!({"content": "a", "status": "pending", "activeForm": "b"});
        for todos in [json!([]), json!([good])] {
            let text = trial.ok(&TodoWrite, json!({"todos": todos})).await;
            assert!(text.starts_with("The todo list is updated."), "{text}");
        }
        for (todos, expected) in [
            (json!("x"), "todos must be an array"),
            (json!(null), "todos must be an array"),
            (json!([good, 1]), "Each todo must have a content string"),
            (
                json!([{"content": ""}]),
                "Each todo must have a content string",
            ),
            (
                json!([{"content": "a", "status": "done"}]),
                "Each todo must have a valid status (pending, in_progress, or completed)",
            ),
            (
                json!([{"content": "a", "status": "completed", "activeForm": 1}]),
                "Each todo must have an activeForm string",
            ),
        ] {
            assert_eq!(
                trial.err(&TodoWrite, json!({"todos": todos})).await,
                expected
            );
        }
        trial.survives_bad_arguments(&TodoWrite).await;
    }
}
