//! Plan mode: look at everything, write the plan, nothing else (00 §3, 05 §2.5).

use super::context::Context;
use super::family::{Family, Request, is_patch_tool};
use super::path;
use super::pipeline::{Decision, ModeState, Verdict};
use super::shell::ShellView;

const RULE: &str = "plan mode";

/// Decides a call in plan mode; every call gets a decision here.
pub(super) fn decide(
    request: &Request<'_>,
    shell: Option<&ShellView<'_>>,
    mode: &ModeState,
    context: &Context<'_>,
) -> Decision {
    if request.tool == "ExitPlanMode" {
        return exit(mode, context);
    }
    if request.tool != "EnterPlanMode" && is_open(request, shell, context) {
        return Decision::new(Verdict::Allow, Some(RULE), "Permission mode: plan");
    }
    let file = mode.plan_file.as_deref().unwrap_or("the plan file");
    Decision::new(
        Verdict::Deny,
        Some(RULE),
        format!(
            "Permission denied: plan mode is active, so only reading and planning are possible. \
             Write the plan to {file}, then call ExitPlanMode to hand it over for approval."
        ),
    )
}

/// Leaving always asks a human, once there is a plan to look at.
fn exit(mode: &ModeState, context: &Context<'_>) -> Decision {
    match mode.plan_file.as_deref() {
        Some(file) if context.disk.exists(&context.resolve_expanded(file)) => Decision::new(
            Verdict::AlwaysAsk,
            None,
            "Leaving plan mode needs the approval of a human",
        ),
        file => Decision::new(
            Verdict::Deny,
            Some(RULE),
            format!(
                "Permission denied: there is no plan yet. Write it to {} first, then call \
                 ExitPlanMode.",
                file.unwrap_or("the plan file")
            ),
        ),
    }
}

fn is_open(request: &Request<'_>, shell: Option<&ShellView<'_>>, context: &Context<'_>) -> bool {
    if let Some(shell) = shell {
        return request.tool != "write_stdin"
            && (shell.is_read_only()
                || shell.heredoc_write().is_some_and(|write| {
                    is_plan(&path::expand_home(write.path, &context.home), context)
                }));
    }
    let family = request.family();
    if family.is_reader() {
        return true;
    }
    if matches!(family, Family::Write | Family::Edit) {
        return request
            .path()
            .is_some_and(|target| is_plan(target, context));
    }
    if is_patch_tool(request.tool) {
        let targets = request.patch_targets();
        return request.tool != "memory_apply_patch"
            && !targets.is_empty()
            && targets.iter().all(|target| is_plan(target, context));
    }
    match request.tool {
        "ViewImage" | "TodoWrite" | "UpdatePlan" | "AskUserQuestion" | "Skill" | "TaskCreate"
        | "TaskGet" | "TaskList" | "TaskUpdate" => true,
        _ => {
            family == Family::Task
                && matches!(request.text("subagent_type"), Some("recall" | "Recall"))
        }
    }
}

/// Whether `target` is a Markdown file below the directory of plans, as written
/// and behind links.
fn is_plan(target: &str, context: &Context<'_>) -> bool {
    if target.contains('$') {
        return false;
    }
    let lexical = context.resolve(target);
    let real = context.disk.real_path(&lexical);
    let plans = context.plans();
    let real_plans = context.disk.real_path(&plans);
    [(&lexical, &plans), (&real, &real_plans)]
        .into_iter()
        .all(|(path, dir)| {
            path::below(path, dir).is_some_and(|rest| !rest.is_empty()) && path.ends_with(".md")
        })
}

#[cfg(test)]
mod tests {
    use super::super::{LexicalDisk, Rules, decide};
    use super::*;
    use crate::permissions::Disk;
    use crate::protocol::PermissionMode;
    use serde_json::{Value, json};

    struct Full;

    impl Disk for Full {
        fn real_path(&self, path: &str) -> String {
            path.to_owned()
        }

        fn exists(&self, _: &str) -> bool {
            true
        }
    }

    fn verdict(tool: &str, args: &Value, disk: &dyn Disk) -> Decision {
        let mode = ModeState {
            mode: PermissionMode::Plan,
            plan_file: Some("/home/t/.letta/plans/calm-red-fox.md".into()),
            mode_before_plan: Some(PermissionMode::Standard),
        };
        let context = Context::new("/srv/app", "/home/t", disk);
        let request = Request {
            tool,
            args: args.as_object().unwrap(),
        };
        decide(&request, &Rules::default(), &mode, &context)
    }

    #[test]
    fn looking_and_planning_run_and_the_rest_is_denied() {
        let plan = "/home/t/.letta/plans/calm-red-fox.md";
        for (tool, args) in [
            ("Read", json!({"file_path": "/etc/hosts"})),
            ("Grep", json!({"pattern": "x"})),
            ("ViewImage", json!({"path": "a.png"})),
            ("Bash", json!({"command": "git status"})),
            ("Monitor", json!({"command": "tail -f a"})),
            ("Agent", json!({"subagent_type": "recall"})),
            ("TaskCreate", json!({})),
            ("Write", json!({"file_path": plan})),
            (
                "ApplyPatch",
                json!({"input": format!("*** Add File: {plan}\n+x")}),
            ),
            (
                "Bash",
                json!({"command": format!("cat > {plan} <<'EOF'\n# plan\nEOF")}),
            ),
            (
                "Bash",
                json!({"command": "cat > ~/.letta/plans/a.md <<EOF\n# plan\nEOF"}),
            ),
        ] {
            let found = verdict(tool, &args, &LexicalDisk);
            assert_eq!(found.verdict, Verdict::Allow, "{tool} {args}");
            assert_eq!(found.matched_rule.as_deref(), Some("plan mode"));
        }
        for (tool, args) in [
            ("Write", json!({"file_path": "a.md"})),
            ("Write", json!({"file_path": "/home/t/.letta/plans/a.sh"})),
            (
                "Write",
                json!({"file_path": "/home/t/.letta/plans/../a.md"}),
            ),
            ("Write", json!({"file_path": "~/.letta/plans/a.md"})),
            (
                "ApplyPatch",
                json!({"input": format!("*** Update File: {plan}\n*** Move to: x.md")}),
            ),
            ("ApplyPatch", json!({"input": ""})),
            (
                "Bash",
                json!({"command": format!("cat > {plan} <<'EOF'\nx\nEOF\nid")}),
            ),
            ("Bash", json!({"command": "make"})),
            ("Agent", json!({"subagent_type": "reflection"})),
            ("EnterPlanMode", json!({})),
            ("memory", json!({})),
            ("write_stdin", json!({"chars": "x"})),
            ("WebFetch", json!({"url": "https://a.b"})),
            ("Monitor", json!({"ws": {"url": "wss://a.b"}})),
            (
                "Monitor",
                json!({"command": "", "ws": {"url": "wss://a.b"}}),
            ),
        ] {
            let found = verdict(tool, &args, &LexicalDisk);
            assert_eq!(found.verdict, Verdict::Deny, "{tool} {args}");
            assert!(found.reason.contains(plan) && found.reason.contains("ExitPlanMode"));
        }
    }

    #[test]
    fn leaving_asks_a_human_once_there_is_a_plan() {
        let none = verdict("ExitPlanMode", &json!({}), &LexicalDisk);
        assert_eq!(none.verdict, Verdict::Deny);
        let some = verdict("ExitPlanMode", &json!({}), &Full);
        assert_eq!(some.verdict, Verdict::AlwaysAsk);
        assert!(some.suggestion.is_none());
    }
}
