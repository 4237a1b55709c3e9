//! What a batch does with decisions (05 §12): what goes to a human, and the
//! text that the model gets for a denial.

use super::pipeline::{Decision, Verdict};
use super::suggestion::Suggestion;

/// The reason of a denial by a client that gave none.
pub const DENIED_BY_CLIENT: &str = "Denied via WebSocket";
/// The reason for a call without a tool name.
pub const MISSING_NAME: &str = "Tool call incomplete - missing name";

/// The matched rule of what a hook decided (05 §15.4).
const HOOK_RULE: &str = "PermissionRequest hook";

/// What becomes of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// It runs.
    Run,
    /// It is answered with this reason.
    Deny(String),
    /// A `control_request` goes out.
    Ask {
        /// Offered beside yes and no.
        suggestion: Option<Suggestion>,
    },
}

/// Tools that are themselves a question to a human.
pub fn always_needs_human(tool: &str) -> bool {
    matches!(tool, "AskUserQuestion" | "ExitPlanMode")
}

/// Whether PermissionRequest hooks may answer for the human (05 §1, §15.4).
pub fn hooks_may_decide(decision: &Decision) -> bool {
    decision.verdict == Verdict::Ask
}

/// The decision when a PermissionRequest hook let the call pass.
pub fn allowed_by_hook() -> Decision {
    Decision::new(Verdict::Allow, Some(HOOK_RULE), "Allowed by hook")
}

/// The decision when a PermissionRequest hook blocked the call.
pub fn denied_by_hook(reason: impl Into<String>) -> Decision {
    Decision::new(Verdict::Deny, Some(HOOK_RULE), reason)
}

/// Turns a decision, after hooks, into what happens. Questions about plan mode
/// carry no suggestion (05 §2.5). `suggest` is asked only where a call that
/// would run must go to a human all the same.
pub fn dispose(
    tool: &str,
    decision: Decision,
    suggest: impl FnOnce() -> Option<Suggestion>,
) -> Disposition {
    match decision.verdict {
        Verdict::Deny => Disposition::Deny(denial_text(&decision)),
        Verdict::Allow if always_needs_human(tool) => Disposition::Ask {
            suggestion: suggest(),
        },
        Verdict::Allow => Disposition::Run,
        Verdict::Ask | Verdict::AlwaysAsk => Disposition::Ask {
            suggestion: decision.suggestion,
        },
    }
}

/// What the model is told about a denial (05 §12).
pub fn denial_text(decision: &Decision) -> String {
    let rule = decision.matched_rule.as_deref();
    let reason = decision.reason.as_str();
    let by_rule = |rule: &str| format!("Permission denied by rule: {rule}");
    match (reason, rule) {
        (
            "Matched deny rule" | "Matched --disallowedTools flag" | "Matched ask rule",
            Some(rule),
        ) => by_rule(rule),
        ("", Some(rule)) => by_rule(rule),
        ("", None) => "Permission denied: Unknown reason".to_owned(),
        _ if reason
            .get(..17)
            .is_some_and(|start| start.eq_ignore_ascii_case("permission denied")) =>
        {
            reason.to_owned()
        }
        _ => format!("Permission denied: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denials_name_the_rule_or_the_reason() {
        for (rule, reason, text) in [
            (
                Some("Bash(rm:*)"),
                "Matched deny rule",
                "Permission denied by rule: Bash(rm:*)",
            ),
            (
                Some("Bash(x) (CLI)"),
                "Matched --disallowedTools flag",
                "Permission denied by rule: Bash(x) (CLI)",
            ),
            (Some("r"), "", "Permission denied by rule: r"),
            (None, "", "Permission denied: Unknown reason"),
            (
                Some("cross-agent guard"),
                "permission Denied by x",
                "permission Denied by x",
            ),
            (
                Some("PermissionRequest hook"),
                "no",
                "Permission denied: no",
            ),
        ] {
            let decision = Decision::new(Verdict::Deny, rule, reason);
            assert_eq!(denial_text(&decision), text);
        }
    }

    #[test]
    fn questions_go_to_a_human_in_every_mode() {
        let allow = || Decision::new(Verdict::Allow, Some("unrestricted mode"), "x");
        assert_eq!(dispose("Read", allow(), || None), Disposition::Run);
        for tool in ["AskUserQuestion", "ExitPlanMode"] {
            assert_eq!(
                dispose(tool, allow(), || None),
                Disposition::Ask { suggestion: None }
            );
        }
        let ask = Decision::new(Verdict::AlwaysAsk, None, "x");
        assert!(!hooks_may_decide(&ask));
    }
}
