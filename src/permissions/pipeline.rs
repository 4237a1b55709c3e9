//! The stages of a decision, first hit wins (05 §1).

use super::context::Context;
use super::family::{Family, Request, is_edit_tool, is_quiet_tool};
use super::guards::{self, Stopped};
use super::path;
use super::plan;
use super::rules::{Intent, Rule, Rules, Subject};
use super::suggestion::{Suggestion, suggest_for};
use crate::protocol::PermissionMode;

/// What may happen to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It runs.
    Allow,
    /// It does not run; the reason goes to the model.
    Deny,
    /// A hook or a human decides.
    Ask,
    /// A human decides: hooks and modes have no say.
    AlwaysAsk,
}

impl Verdict {
    /// The name in hooks and in `letta permissions`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Ask => "ask",
            Self::AlwaysAsk => "alwaysAsk",
        }
    }

    /// Whether the call goes to the client.
    pub fn asks(self) -> bool {
        matches!(self, Self::Ask | Self::AlwaysAsk)
    }
}

/// The mode of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeState {
    /// The mode itself.
    pub mode: PermissionMode,
    /// In plan mode: the absolute path of the plan file.
    pub plan_file: Option<String>,
    /// In plan mode: where `ExitPlanMode` leads back to.
    pub mode_before_plan: Option<PermissionMode>,
}

impl From<PermissionMode> for ModeState {
    fn from(mode: PermissionMode) -> Self {
        Self {
            mode,
            plan_file: None,
            mode_before_plan: None,
        }
    }
}

/// What was decided and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The verdict, before hooks and before [`super::classify`].
    pub verdict: Verdict,
    /// The rule, guard or mode that decided, if one did.
    pub matched_rule: Option<String>,
    /// Why, in words.
    pub reason: String,
    /// For calls that go to the client: what to offer beside yes and no.
    pub suggestion: Option<Suggestion>,
}

impl Decision {
    pub(super) fn new(
        verdict: Verdict,
        matched_rule: Option<&str>,
        reason: impl Into<String>,
    ) -> Self {
        Self {
            verdict,
            matched_rule: matched_rule.map(str::to_owned),
            reason: reason.into(),
            suggestion: None,
        }
    }

    fn stopped(by: Stopped) -> Self {
        Self::new(Verdict::Deny, Some(by.guard), by.reason)
    }
}

/// Decides one call. Pure but for the questions it puts to `context.disk`; time
/// linear in the size of the call, times the number of rules.
pub fn decide(
    request: &Request<'_>,
    rules: &Rules,
    mode: &ModeState,
    context: &Context<'_>,
) -> Decision {
    let subject = Subject::new(request, context, rules.settings.additional_directories());
    let mut decision = verdict(request, &subject, rules, mode, context);
    let guarded = decision.matched_rule.as_deref() == Some(SETTINGS_GUARD);
    if decision.verdict.asks() && !guarded {
        decision.suggestion = suggest_for(request, subject.shell.as_ref(), context);
    }
    decision
}

/// The matched rule of questions about files that hold rules or hooks.
const SETTINGS_GUARD: &str = "settings guard";

fn verdict(
    request: &Request<'_>,
    subject: &Subject<'_>,
    rules: &Rules,
    mode: &ModeState,
    context: &Context<'_>,
) -> Decision {
    let settings = &*rules.settings;
    let restricted = |list: &[Rule]| {
        subject
            .find(list, Intent::Restrict)
            .map(|rule| rule.text().to_owned())
    };
    let permitted = |list: &[Rule]| {
        subject
            .find(list, Intent::Permit)
            .map(|rule| rule.text().to_owned())
    };
    let named = |verdict, rule: String, suffix: &str, reason: &str| {
        Decision::new(verdict, Some(&format!("{rule}{suffix}")), reason)
    };
    let unrestricted = mode.mode == PermissionMode::Unrestricted;

    // 1, 2: guards.
    if let Some(stopped) = guards::workspace(request, context)
        .or_else(|| guards::cross_agent(request, context))
        .or_else(|| {
            (!unrestricted)
                .then(|| guards::credentials(request, context))
                .flatten()
        })
    {
        return Decision::stopped(stopped);
    }
    // 3–6: what holds back.
    if let Some(rule) = restricted(&settings.deny) {
        return named(Verdict::Deny, rule, "", "Matched deny rule");
    }
    if let Some(rule) = restricted(&rules.launch.disallowed) {
        return named(
            Verdict::Deny,
            rule,
            " (CLI)",
            "Matched --disallowedTools flag",
        );
    }
    if let Some(rule) = restricted(&rules.session.always_ask) {
        return named(
            Verdict::AlwaysAsk,
            rule,
            " (session)",
            "Matched alwaysAsk rule",
        );
    }
    if let Some(rule) = restricted(&settings.always_ask) {
        return named(Verdict::AlwaysAsk, rule, "", "Matched alwaysAsk rule");
    }
    // 7: the mode.
    match mode.mode {
        PermissionMode::Plan => {
            return plan::decide(request, subject.shell.as_ref(), mode, context);
        }
        PermissionMode::Unrestricted => {
            return Decision::new(
                Verdict::Allow,
                Some("unrestricted mode"),
                "Permission mode: unrestricted",
            );
        }
        _ => {}
    }
    // A model must not grant itself rights: nothing below lets this pass.
    let shell_writes = subject
        .shell
        .as_ref()
        .is_some_and(|s| s.may_write_settings());
    if shell_writes || guards::writes_settings(request, context) {
        return Decision::new(
            Verdict::AlwaysAsk,
            Some(SETTINGS_GUARD),
            "Files that hold permission rules or hooks are changed only with approval",
        );
    }
    if mode.mode == PermissionMode::AcceptEdits && is_edit_tool(request.tool) {
        return Decision::new(
            Verdict::Allow,
            Some("acceptEdits mode"),
            "Permission mode: acceptEdits",
        );
    }
    // 8: allowed at the start.
    if let Some(rule) = permitted(&rules.launch.allowed) {
        return named(
            Verdict::Allow,
            rule,
            " (CLI)",
            "Matched --allowedTools flag",
        );
    }
    // 9–12: harmless by nature.
    let strict = mode.mode == PermissionMode::Strict;
    if !strict && let Some(reason) = harmless(request, subject, rules, context) {
        return Decision::new(Verdict::Allow, None, reason);
    }
    // 13–15: the other rules.
    if let Some(rule) = permitted(&rules.session.allow) {
        return named(
            Verdict::Allow,
            rule,
            " (session)",
            "Matched session allow rule",
        );
    }
    if let Some(rule) = permitted(&settings.allow) {
        return named(Verdict::Allow, rule, "", "Matched allow rule");
    }
    if let Some(rule) = subject.find(&settings.ask, Intent::Question) {
        return Decision::new(Verdict::Ask, Some(rule.text()), "Matched ask rule");
    }
    // 16: the default.
    let quiet = match request.family() {
        _ if strict => false,
        Family::Task => matches!(
            request.text("subagent_type"),
            Some("recall" | "Recall" | "reflection" | "Reflection" | "history-analyzer")
        ),
        _ => is_quiet_tool(request.tool),
    };
    let verdict = if quiet { Verdict::Allow } else { Verdict::Ask };
    Decision::new(verdict, None, "Default behavior for tool")
}

/// Stages 9 to 12.
fn harmless(
    request: &Request<'_>,
    subject: &Subject<'_>,
    rules: &Rules,
    context: &Context<'_>,
) -> Option<&'static str> {
    if request.tool == "Skill" {
        return Some("Skill tool is always allowed (read-only)");
    }
    if let Some(shell) = &subject.shell {
        if shell.is_read_only() {
            return Some("Read-only shell command");
        }
        if shell.is_own_memory() {
            return Some("Agent memory directory operation");
        }
    }
    if request.family().is_reader()
        && let Some(path) = request.path()
    {
        let absolute = context.resolve(&path.replace('\\', "/"));
        let roots = rules.settings.additional_directories();
        let inside = path::inside(&absolute, &context.cwd)
            || roots
                .iter()
                .any(|dir| path::inside(&absolute, &context.resolve(dir)));
        if inside {
            return Some("Within working directory");
        }
    }
    None
}
