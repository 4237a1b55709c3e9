//! What a batch of calls does with decisions (05 §12).

use super::pipeline::{Decision, Verdict};

/// The verdict that counts: some tools are for humans to answer, in every mode.
pub fn effective(tool: &str, verdict: Verdict) -> Verdict {
    match (tool, verdict) {
        ("AskUserQuestion" | "ExitPlanMode", Verdict::Allow) => Verdict::Ask,
        _ => verdict,
    }
}

/// What the model reads of a denial.
pub fn denial_text(decision: &Decision) -> String {
    let generic = [
        "Matched deny rule",
        "Matched --disallowedTools flag",
        "Matched ask rule",
    ];
    let reason = decision.reason.trim();
    match &decision.matched_rule {
        Some(rule) if generic.contains(&reason) || reason.is_empty() => {
            format!("Permission denied by rule: {rule}")
        }
        _ if reason.to_ascii_lowercase().starts_with("permission denied") => reason.to_owned(),
        _ if reason.is_empty() => String::from("Permission denied: Unknown reason"),
        _ => format!("Permission denied: {reason}"),
    }
}
