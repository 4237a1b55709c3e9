//! EnterPlanMode and ExitPlanMode: the model plans before it acts (00 §3).
//!
//! Whether a call may run is decided before it comes here; leaving has then
//! been approved by a human. The mode belongs to [`RemoteSettings`]; the
//! conversation sees the change there and tells its clients.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::Value;

use super::args::{DRAFT_2020_12, schema};
use super::tool::{Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome};
use crate::protocol::PermissionMode;
use crate::state::RemoteSettings;

const ENTER: &str = "\
Asks the user to switch this conversation to plan mode, in which nothing is changed until a plan is approved.

- Use it before work that is large, risky or open in how it should be done: a new feature, a change over many files, a choice between designs. Small and clear tasks need no plan.
- In plan mode you can read, search, run read-only commands and write the plan file, which is named in the result. Everything else is denied.
- When the plan is written, call ExitPlanMode.";

const EXIT: &str = "\
Hands the plan to the user and asks to leave plan mode.

- Call it when the plan file holds the whole plan: what will be changed, where, in which order, and how it will be checked. The user reads that file, so the call takes no arguments.
- Settle open questions with AskUserQuestion before; do not ask in text whether the plan is all right, this call asks.
- After approval the earlier permission mode holds again and you can begin.";

static NOTHING: LazyLock<Value> = LazyLock::new(|| schema(r#"{}"#, &[], DRAFT_2020_12));

/// Enters plan mode.
#[derive(Debug)]
pub struct EnterPlanMode {
    remote: RemoteSettings,
    plans: PathBuf,
}

impl EnterPlanMode {
    /// Modes belong to `remote`; plan files lie in `plans`.
    pub fn new(remote: RemoteSettings, plans: &Path) -> Self {
        Self {
            remote,
            plans: plans.to_owned(),
        }
    }
}

impl Tool for EnterPlanMode {
    fn name(&self) -> &'static str {
        "EnterPlanMode"
    }

    fn description(&self) -> &str {
        ENTER
    }

    fn parameters(&self) -> &Value {
        &NOTHING
    }

    fn run<'a>(&'a self, _: &'a ToolCall, context: &'a ToolContext) -> ToolFuture<'a> {
        Box::pin(async move {
            let entry = self.remote.enter_plan(&context.scope, &self.plans).await;
            let file = entry.plan_file.unwrap_or_default();
            ToolOutcome::text(format!(
                "Plan mode is active: read and search as much as you need, and change nothing but the plan file. Write the plan to {} and call ExitPlanMode when it is complete.",
                file.display()
            ))
        })
    }
}

/// Leaves plan mode.
#[derive(Debug)]
pub struct ExitPlanMode {
    remote: RemoteSettings,
}

impl ExitPlanMode {
    /// Modes belong to `remote`.
    pub fn new(remote: RemoteSettings) -> Self {
        Self { remote }
    }
}

impl Tool for ExitPlanMode {
    fn name(&self) -> &'static str {
        "ExitPlanMode"
    }

    fn description(&self) -> &str {
        EXIT
    }

    fn parameters(&self) -> &Value {
        &NOTHING
    }

    fn run<'a>(&'a self, _: &'a ToolCall, context: &'a ToolContext) -> ToolFuture<'a> {
        Box::pin(async move {
            let file = self.remote.mode_of(&context.scope).plan_file;
            let Some(mode) = self.remote.leave_plan(&context.scope) else {
                return ToolOutcome::text("Plan mode is not active, so nothing changed.");
            };
            let file = file.unwrap_or_default();
            let note = match mode {
                PermissionMode::Strict => " Every tool call asks the user.",
                _ => "",
            };
            ToolOutcome::text(format!(
                "The user approved the plan. The permission mode is {mode} again.{note} Carry out the plan; it stays in {} for reference.",
                file.display()
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::state::Home;
    use crate::state::remote_settings::RemoteDefaults;
    use crate::tools::tests::{Bench, args, text_of};

    #[tokio::test]
    async fn the_way_into_plan_mode_and_back_names_the_file() {
        let bench = Bench::new();
        let home = Home::at(bench.context.home.clone());
        let defaults = RemoteDefaults {
            mode: PermissionMode::Strict,
            user_cwd: None,
            process_cwd: None,
        };
        let remote = RemoteSettings::open(&home, defaults).await;
        let (enter, exit) = (
            EnterPlanMode::new(remote.clone(), &home.plans()),
            ExitPlanMode::new(remote.clone()),
        );
        let call = bench.call("EnterPlanMode", args(json!({})));
        let outside = exit.run(&call, &bench.context).await;
        assert!(text_of(&outside).contains("nothing changed"));
        let text = text_of(&enter.run(&call, &bench.context).await);
        let entry = remote.mode_of(&bench.context.scope);
        let file = entry.plan_file.unwrap();
        assert_eq!(entry.mode, PermissionMode::Plan);
        assert!(text.contains(file.to_str().unwrap()) && text.contains("ExitPlanMode"));
        let text = text_of(&exit.run(&call, &bench.context).await);
        assert!(text.contains("strict") && text.contains(file.to_str().unwrap()));
        assert_eq!(
            remote.mode_of(&bench.context.scope).mode,
            PermissionMode::Strict
        );
    }
}
