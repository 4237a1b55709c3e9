//! Plan mode: look at everything, write only the plan (05 §2.5, 00 §3).

use super::context::Context;
use super::family::{Family, Request, is_edit_tool};
use super::path;
use super::pipeline::{Decision, ModeState, Verdict};
use super::shell;

const RULE: Option<&str> = Some("plan mode");

pub(super) fn decide(request: &Request<'_>, mode: &ModeState, context: &Context<'_>) -> Decision {
    let allow = || Decision::new(Verdict::Allow, RULE, "Permission mode: plan");
    if request.tool == "ExitPlanMode" || request.tool == "AskUserQuestion" {
        return Decision::new(Verdict::Ask, RULE, "Permission mode: plan");
    }
    let quiet = [
        "ViewImage",
        "TodoWrite",
        "UpdatePlan",
        "Skill",
        "TaskCreate",
        "TaskGet",
        "TaskList",
        "TaskUpdate",
    ];
    if request.family().is_reader() || quiet.contains(&request.tool) {
        return allow();
    }
    if request.family() == Family::Task
        && request
            .text("subagent_type")
            .is_some_and(|kind| ["recall", "Recall"].contains(&kind))
    {
        return allow();
    }
    if is_edit_tool(request.tool) && only_plans(request, context) {
        return allow();
    }
    if let Some(command) = request.command()
        && (request.family() == Family::Bash || request.is_monitor_command())
        && shell::is_read_only(&command, context, &[])
    {
        return allow();
    }
    let file = mode.plan_file.as_deref().map_or_else(
        || String::from("a .md file under ~/.letta/plans/"),
        |file| file.display().to_string(),
    );
    Decision::new(
        Verdict::Deny,
        RULE,
        format!(
            "Plan mode is active: nothing may be changed yet. Write the plan to {file}, then call ExitPlanMode to hand it over."
        ),
    )
}

/// Whether every target is a Markdown file under the plans directory.
fn only_plans(request: &Request<'_>, context: &Context<'_>) -> bool {
    let mut targets = request.patch_targets();
    targets.extend(request.path());
    let plans = context.plans();
    !targets.is_empty()
        && targets.iter().all(|target| {
            let lexical = context.resolve_expanded(target);
            let real = context.disk.real_path(&lexical);
            [&lexical, &real].iter().all(|path| {
                path.ends_with(".md")
                    && (path::inside(path, &plans)
                        || path::inside(path, &context.disk.real_path(&plans)))
            })
        })
}
