//! The stages of a decision, in order; the first that speaks decides (05 §1).

use std::path::PathBuf;

use super::context::Context;
use super::family::{Family, Request, is_edit_tool, is_quiet_tool};
use super::guards;
use super::plan;
use super::rules::{Intent, Rule, Rules, Subject};
use super::shell;
use crate::protocol::PermissionMode;

/// May the call run?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Allow,
    /// No.
    Deny,
    /// A human decides.
    Ask,
    /// A human decides, whatever else would allow it.
    AlwaysAsk,
}

/// The mode of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeState {
    /// The mode.
    pub mode: PermissionMode,
    /// In plan mode: the file that the plan goes to.
    pub plan_file: Option<PathBuf>,
}

/// A verdict and what led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The verdict.
    pub verdict: Verdict,
    /// The rule or stage that decided.
    pub matched_rule: Option<String>,
    /// Why.
    pub reason: String,
}

impl Decision {
    pub(super) fn new(verdict: Verdict, rule: Option<&str>, reason: impl Into<String>) -> Self {
        Self {
            verdict,
            matched_rule: rule.map(String::from),
            reason: reason.into(),
        }
    }
}

/// Decides about one call.
pub fn decide(
    request: &Request<'_>,
    rules: &Rules,
    mode: &ModeState,
    context: &Context<'_>,
) -> Decision {
    guards::guard(request, mode.mode, context)
        .or_else(|| restrictions(request, rules, context))
        .or_else(|| by_mode(request, mode, context))
        .or_else(|| permissions(request, rules, mode.mode, context))
        .unwrap_or_else(|| default_decision(request, mode.mode))
}

/// Stages 3–6: what forbids or always asks.
fn restrictions(request: &Request<'_>, rules: &Rules, context: &Context<'_>) -> Option<Decision> {
    let subject = Subject::new(request, context);
    let find = |list: &[Rule]| {
        subject
            .find(list, Intent::Restrict)
            .map(|r| r.text().to_owned())
    };
    if let Some(rule) = find(&rules.settings.deny) {
        return Some(Decision::new(
            Verdict::Deny,
            Some(&rule),
            "Matched deny rule",
        ));
    }
    if let Some(rule) = find(&rules.launch.disallowed) {
        let rule = format!("{rule} (CLI)");
        return Some(Decision::new(
            Verdict::Deny,
            Some(&rule),
            "Matched --disallowedTools flag",
        ));
    }
    if let Some(rule) = find(&rules.session.always_ask) {
        let rule = format!("{rule} (session)");
        return Some(Decision::new(
            Verdict::AlwaysAsk,
            Some(&rule),
            "Matched alwaysAsk rule",
        ));
    }
    find(&rules.settings.always_ask)
        .map(|rule| Decision::new(Verdict::AlwaysAsk, Some(&rule), "Matched alwaysAsk rule"))
}

/// Stage 7: what the mode alone decides.
fn by_mode(request: &Request<'_>, mode: &ModeState, context: &Context<'_>) -> Option<Decision> {
    match mode.mode {
        PermissionMode::Unrestricted => Some(mode_allows("unrestricted")),
        PermissionMode::Plan => Some(plan::decide(request, mode, context)),
        _ if guards::writes_settings(request, context) => Some(Decision::new(
            Verdict::Ask,
            Some("settings guard"),
            "A settings file with rules or hooks is changed by people only",
        )),
        PermissionMode::AcceptEdits if is_edit_tool(request.tool) => {
            Some(mode_allows("acceptEdits"))
        }
        _ => None,
    }
}

fn mode_allows(mode: &str) -> Decision {
    let rule = format!("{mode} mode");
    Decision::new(
        Verdict::Allow,
        Some(&rule),
        format!("Permission mode: {mode}"),
    )
}

/// Stages 8–15.
fn permissions(
    request: &Request<'_>,
    rules: &Rules,
    mode: PermissionMode,
    context: &Context<'_>,
) -> Option<Decision> {
    let subject = Subject::new(request, context);
    let permit = |list: &[Rule]| {
        subject
            .find(list, Intent::Permit)
            .map(|r| r.text().to_owned())
    };
    let allow = |rule: Option<&str>, reason: &str| Decision::new(Verdict::Allow, rule, reason);
    if let Some(rule) = permit(&rules.launch.allowed) {
        let rule = format!("{rule} (CLI)");
        return Some(allow(Some(&rule), "Matched --allowedTools flag"));
    }
    if mode != PermissionMode::Strict {
        if request.tool == "Skill" {
            return Some(allow(None, "Skill tool is always allowed (read-only)"));
        }
        let additional = rules.settings.additional_directories();
        if let Some(command) = request.command()
            && request.family() == Family::Bash
            && shell::is_read_only(&command, context, additional)
        {
            return Some(allow(None, "Read-only shell command"));
        }
        if request.family().is_reader()
            && guards::in_working_directory(request, context, additional)
        {
            return Some(allow(None, "Within working directory"));
        }
    }
    if let Some(rule) = permit(&rules.session.allow) {
        let rule = format!("{rule} (session)");
        return Some(allow(Some(&rule), "Matched session allow rule"));
    }
    if let Some(rule) = permit(&rules.settings.allow) {
        return Some(allow(Some(&rule), "Matched allow rule"));
    }
    subject
        .find(&rules.settings.ask, Intent::Restrict)
        .map(|rule| Decision::new(Verdict::Ask, Some(rule.text()), "Matched ask rule"))
}

/// Stage 16.
fn default_decision(request: &Request<'_>, mode: PermissionMode) -> Decision {
    let safe_agent = || {
        request.text("subagent_type").is_some_and(|kind| {
            [
                "recall",
                "Recall",
                "reflection",
                "Reflection",
                "history-analyzer",
            ]
            .contains(&kind)
        })
    };
    let allowed = mode != PermissionMode::Strict
        && !request.is_monitor_command()
        && (is_quiet_tool(request.tool) || (request.family() == Family::Task && safe_agent()));
    let verdict = if allowed {
        Verdict::Allow
    } else {
        Verdict::Ask
    };
    Decision::new(verdict, None, "Default behavior for tool")
}
