//! Asking `permissions` and hooks about one call, with this conversation's
//! rules and mode (05 §1, §15.4).
//!
//! Invariant: everything that decides about a call is looked up when it is
//! asked about, so a rule, a hook or a mode counts from the next call.

use serde_json::{Map, Value};

use super::Turn;
use crate::hooks::Permission;
use crate::permissions::classify::{self, Disposition};
use crate::permissions::rules::LaunchRules;
use crate::permissions::{
    AgentIds, Context, Decision, ModeState, RealDisk, Request, Rules, Suggestion, decide, suggest,
};
use crate::tools::{ToolContext, paths};

impl Turn {
    /// What becomes of a call, by the rules, the mode and the hooks of this moment.
    pub(crate) async fn judge(&self, tool: &str, args: &Map<String, Value>) -> Disposition {
        let (mut decision, suggested) = self.decide(tool, args);
        if classify::hooks_may_decide(&decision) {
            let site = self.hook_site();
            let hooks = &self.services.hooks;
            let asked = hooks.permission_request(&site, tool, args, &self.session_rules);
            // An aborted turn waits for no hook; what it decides does not count any more.
            match self.port.unless_cancelled(asked).await {
                Ok(Permission::Allow) => decision = classify::allowed_by_hook(),
                Ok(Permission::Deny(reason)) => decision = classify::denied_by_hook(reason),
                Ok(Permission::Ask) | Err(_) => {}
            }
        }
        classify::dispose(tool, decision, || suggested)
    }

    /// The decision of the pure core, and the suggestion for a call that goes to
    /// a human although it may run.
    fn decide(&self, tool: &str, args: &Map<String, Value>) -> (Decision, Option<Suggestion>) {
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
            plan_file: entry
                .plan_file
                .map(|file| file.to_string_lossy().into_owned()),
            mode_before_plan: entry.mode_before_plan,
        };
        let home = self.services.home.user.to_string_lossy().into_owned();
        let disk = RealDisk;
        let mut context = Context::new(&cwd.to_string_lossy(), &home, &disk);
        context.agents = AgentIds {
            agent: self.scope.agent_id.as_deref().map(String::from),
            parent: self
                .execution
                .as_ref()
                .and_then(|settings| settings.parent_agent_id.clone()),
        };
        context.memory_guard_off = self
            .execution
            .as_ref()
            .is_some_and(|settings| settings.disable_memory_guard);
        context
            .credentials
            .clone_from(&self.services.credential_files);
        context.workspace.clone_from(&self.workspace);
        let opened = as_opened(tool, args, &self.context);
        let request = Request {
            tool,
            args: opened.as_ref().unwrap_or(args),
        };
        let decision = decide(&request, &rules, &mode, &context);
        let suggestion = classify::always_needs_human(tool)
            .then(|| suggest(&request, &context))
            .flatten();
        (decision, suggestion)
    }
}

/// The arguments with the path that the tool will really open. A variable in it
/// must not lead past a guard that looks at the text.
fn as_opened(
    tool: &str,
    args: &Map<String, Value>,
    context: &ToolContext,
) -> Option<Map<String, Value>> {
    if !["Read", "Write", "Edit", "MultiEdit"].contains(&tool) {
        return None;
    }
    let path = args
        .get("file_path")?
        .as_str()
        .filter(|path| path.contains('$'))?;
    let mut opened = args.clone();
    let real = paths::expanded(path, context)
        .to_string_lossy()
        .into_owned();
    opened.insert("file_path".into(), real.into());
    Some(opened)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_variable_in_a_path_is_judged_by_where_it_leads() {
        let bench = crate::tools::tests::Bench::new();
        let context = bench.context;
        let home = std::env::var("PATH").unwrap();
        let args = json!({"file_path": "/x/$PATH"});
        let opened = as_opened("Read", args.as_object().unwrap(), &context).unwrap();
        let wanted = paths::clean(std::path::Path::new(&format!("/x/{home}")));
        assert_eq!(opened["file_path"], wanted.to_str().unwrap());
        assert!(as_opened("Bash", args.as_object().unwrap(), &context).is_none());
        let plain = json!({"file_path": "/x/y"});
        assert!(as_opened("Read", plain.as_object().unwrap(), &context).is_none());
    }
}
