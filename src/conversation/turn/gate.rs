//! Asking `permissions` about one call, with this conversation's rules and mode.

use serde_json::{Map, Value};

use super::Turn;
use crate::permissions::rules::LaunchRules;
use crate::permissions::{AgentIds, Verdict};
use crate::permissions::{
    Context, Decision, ModeState, RealDisk, Request, Rules, Suggestion, classify, decide, suggest,
};

/// What is known of a call before anyone is asked.
pub(crate) struct Judged {
    pub(crate) verdict: Verdict,
    pub(crate) decision: Decision,
    pub(crate) suggestion: Option<Suggestion>,
}

impl Turn {
    /// Judges a call with the rules and the mode of this moment.
    pub(crate) fn judge(&self, tool: &str, args: &Map<String, Value>) -> Judged {
        let cwd = self.context.cwd.get();
        let view = self.services.settings_files.view(&cwd);
        let files: Vec<Value> = view
            .files
            .iter()
            .map(|file| Value::Object((*file.object).clone()))
            .collect();
        let mut rules = Rules::merge(&files).with_session(self.session_rules.clone());
        if let Some(settings) = &self.execution {
            rules = rules.with_launch(LaunchRules::verbatim(
                &settings.allowed_tools,
                &settings.disallowed_tools,
            ));
        }
        let entry = self.services.remote.mode_of(&self.scope);
        let mode = ModeState {
            mode: entry.mode,
            plan_file: entry.plan_file,
        };
        let home = self.services.home.user.to_string_lossy().into_owned();
        let disk = RealDisk;
        let mut context = Context::new(&cwd.to_string_lossy(), &home, &disk);
        context.agents = AgentIds {
            agent: self.scope.agent_id.as_deref().map(String::from),
            parent: None,
        };
        context.memory_guard_off = self
            .execution
            .as_ref()
            .is_some_and(|settings| settings.disable_memory_guard);
        context
            .credentials
            .clone_from(&self.services.credential_files);
        let request = Request { tool, args };
        let decision = decide(&request, &rules, &mode, &context);
        Judged {
            verdict: classify::effective(tool, decision.verdict),
            suggestion: suggest(&request, &context),
            decision,
        }
    }
}
