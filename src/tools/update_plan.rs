//! UpdatePlan: a plan that clients render from the call's own arguments
//! (04 §7.16). Nothing is kept or checked.

use std::sync::LazyLock;

use serde_json::Value;

use super::args::{DRAFT_07, schema};
use super::tool::{Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome};

const DESCRIPTION: &str = "\
Updates the plan of the work: a list of steps, each pending, in_progress or completed, and optionally an explanation of what changed. Each call replaces the whole plan. At most one step is in progress at a time.";

static PARAMETERS: LazyLock<Value> = LazyLock::new(|| {
    schema(
        r#"{
    "explanation": {"type": "string", "description": "What changed, and why"},
    "plan": {"type": "array", "description": "All steps in order", "items": {"type": "object", "properties": {"step": {"type": "string", "description": "What is to be done"}, "status": {"type": "string", "enum": ["pending", "in_progress", "completed"]}}, "required": ["step", "status"], "additionalProperties": false}}
}"#,
        &["plan"],
        DRAFT_07,
    )
});

/// The tool.
#[derive(Debug, Default)]
pub struct UpdatePlan;

impl Tool for UpdatePlan {
    fn name(&self) -> &'static str {
        "UpdatePlan"
    }

    fn description(&self) -> &str {
        DESCRIPTION
    }

    fn parameters(&self) -> &Value {
        &PARAMETERS
    }

    fn run<'a>(&'a self, _: &'a ToolCall, _: &'a ToolContext) -> ToolFuture<'a> {
        Box::pin(async { ToolOutcome::text("Plan updated") })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tools::trial::Trial;

    #[tokio::test]
    async fn any_plan_is_acknowledged() {
        let trial = Trial::new();
        for plan in [json!([{"step": "a", "status": "pending"}]), json!("odd")] {
            let text = trial.ok(&UpdatePlan, json!({"plan": plan})).await;
            assert_eq!(text, "Plan updated");
        }
    }
}
