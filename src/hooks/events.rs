//! What each event tells its hooks, and what their answers mean (05 §15.3, §15.4).

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Event, Hooks, Ran, Site, Verdict};
use crate::permissions::{RuleList, SessionRules};

/// What hooks decided in the place of a human.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Nothing: the human is asked.
    Ask,
    /// The call may run.
    Allow,
    /// It may not; the reason is for the model.
    Deny(String),
}

/// What hooks decided about a call that is about to run.
#[derive(Clone, Debug, PartialEq)]
pub enum BeforeTool {
    /// It runs, with these arguments laid over its own.
    Run(Map<String, Value>),
    /// It does not run; the text is its result.
    Blocked(String),
}

/// A tool call as hooks see it.
#[derive(Clone, Debug)]
pub struct ToolEvent {
    /// The tool.
    pub tool: Arc<str>,
    /// Its arguments.
    pub input: Map<String, Value>,
    /// `tool_call_id`, if known.
    pub call_id: Option<Arc<str>>,
}

/// How a tool call ended.
#[derive(Clone, Debug)]
pub struct ToolEnd {
    /// Whether it did what it should.
    pub succeeded: bool,
    /// Its result as text.
    pub output: String,
    /// What kind of failure PostToolUseFailure hooks are told; `None` tells them nothing.
    pub failure: Option<&'static str>,
}

impl ToolEvent {
    /// The name that hooks know the tool by: the model's `Agent` is `Task` here.
    fn name(&self) -> &str {
        match &*self.tool {
            "Agent" => "Task",
            name => name,
        }
    }

    fn fields(&self, site: &Site) -> Map<String, Value> {
        let mut fields = Map::new();
        fields.insert("tool_name".into(), self.name().into());
        fields.insert("tool_input".into(), Value::Object(self.input.clone()));
        if let Some(id) = &self.call_id {
            fields.insert("tool_call_id".into(), (**id).into());
        }
        with_agent(&mut fields, site);
        fields
    }
}

fn with_agent(fields: &mut Map<String, Value>, site: &Site) {
    if let Some(agent) = &site.agent_id {
        fields.insert("agent_id".into(), (**agent).into());
    }
}

impl Hooks {
    /// Asks the PermissionRequest hooks about a call that would go to a human.
    /// `tool` is the name that the model used. A block beats an earlier allow.
    pub async fn permission_request(
        &self,
        site: &Site,
        tool: &str,
        input: &Map<String, Value>,
        session: &SessionRules,
    ) -> Permission {
        let fields = || {
            let texts = |list| session.texts(list).collect::<Vec<_>>();
            let mut fields = Map::new();
            fields.insert("tool_name".into(), tool.into());
            fields.insert("tool_input".into(), Value::Object(input.clone()));
            with_agent(&mut fields, site);
            fields.insert("permission".into(), json!({"type": "ask"}));
            let rules = json!({
                "allow": texts(RuleList::Allow), "deny": texts(RuleList::Deny),
                "ask": texts(RuleList::Ask), "alwaysAsk": texts(RuleList::AlwaysAsk),
            });
            fields.insert("session_permissions".into(), rules);
            fields
        };
        let all = self
            .run(Event::PermissionRequest, Some(tool), site, fields)
            .await;
        let said = |verdict| all.iter().any(|ran| ran.run.verdict == verdict);
        if said(Verdict::Block) {
            let reason = self.block_reason(&all, site).await;
            return Permission::Deny(reason.unwrap_or_else(|| "Denied by hook".into()));
        }
        if said(Verdict::Allow) {
            Permission::Allow
        } else {
            Permission::Ask
        }
    }

    /// Asks the PreToolUse hooks about a call that is about to run.
    pub async fn pre_tool_use(&self, site: &Site, event: &ToolEvent) -> BeforeTool {
        let all = self
            .run(Event::PreToolUse, Some(event.name()), site, || {
                event.fields(site)
            })
            .await;
        if all.iter().any(|ran| ran.run.verdict == Verdict::Block) {
            let feedback = self.block_reason(&all, site).await;
            let feedback = feedback.unwrap_or_else(|| "Blocked by hook".into());
            return BeforeTool::Blocked(format!(
                "Error: Tool execution blocked by hook. {feedback}"
            ));
        }
        let updated = all.iter().find_map(|ran| {
            let output = answer(ran)?;
            match output.get("hookSpecificOutput")?.get("updatedInput")? {
                Value::Object(updated) => Some(updated.clone()),
                _ => None,
            }
        });
        BeforeTool::Run(updated.unwrap_or_default())
    }

    /// Tells the PostToolUse hooks of a result, and after a failure those of
    /// PostToolUseFailure as well. What they want the model to read.
    pub async fn post_tool_use(
        &self,
        site: &Site,
        event: &ToolEvent,
        end: &ToolEnd,
    ) -> Vec<String> {
        let status = if end.succeeded { "success" } else { "error" };
        let used = self.run(Event::PostToolUse, Some(event.name()), site, || {
            let mut fields = event.fields(site);
            fields.insert(
                "tool_result".into(),
                json!({"status": status, "output": end.output}),
            );
            fields
        });
        let failed = async {
            let Some(kind) = end.failure.filter(|_| !end.succeeded) else {
                return Vec::new();
            };
            self.run(Event::PostToolUseFailure, Some(event.name()), site, || {
                let mut fields = event.fields(site);
                fields.insert("error_message".into(), end.output.as_str().into());
                fields.insert("error_type".into(), kind.into());
                fields
            })
            .await
        };
        let (used, failed) = tokio::join!(used, failed);
        let mut lines = Vec::new();
        for ran in used.iter().chain(&failed) {
            let context = answer(ran).and_then(|output| {
                let nested = output.get("hookSpecificOutput");
                let nested = nested.and_then(|nested| nested.get("additionalContext"));
                let context = nested.or_else(|| output.get("additionalContext"))?;
                Some(context.as_str()?.to_owned())
            });
            match context.filter(|text| !text.is_empty()) {
                Some(context) => lines.push(self.shortened(&context, site).await),
                None => lines.extend(self.feedback(ran, site).await),
            }
        }
        lines
    }

    /// Tells of a call that the server runs itself. Nobody waits for the hooks.
    pub fn server_tool_called(&self, site: Site, event: ToolEvent) {
        if self
            .matching(Event::PreToolUse, Some(event.name()), &site.cwd)
            .is_empty()
        {
            return;
        }
        let hooks = self.clone();
        self.aside(async move {
            hooks.pre_tool_use(&site, &event).await;
        });
    }

    /// Tells of a result from somewhere where nobody reads the feedback: a tool
    /// of the server, or a call that was aborted.
    pub fn tool_returned_aside(&self, site: Site, event: ToolEvent, end: ToolEnd) {
        let wanted = |event_kind| {
            !self
                .matching(event_kind, Some(event.name()), &site.cwd)
                .is_empty()
        };
        if !(wanted(Event::PostToolUse) || wanted(Event::PostToolUseFailure)) {
            return;
        }
        let hooks = self.clone();
        self.aside(async move {
            hooks.post_tool_use(&site, &event, &end).await;
        });
    }

    /// Asks the PreCompact hooks; the text says why the history must stay as it is.
    ///
    /// # Errors
    /// A hook blocked.
    pub async fn pre_compact(&self, site: &Site, conversation_id: &str) -> Result<(), String> {
        let all = self
            .run(Event::PreCompact, None, site, || {
                of_conversation(site, Some(conversation_id))
            })
            .await;
        if all.iter().any(|ran| ran.run.verdict == Verdict::Block) {
            let feedback = self.block_reason(&all, site).await;
            return Err(format!(
                "Compact blocked: {}",
                feedback.unwrap_or_else(|| "Blocked by hook".into())
            ));
        }
        Ok(())
    }

    /// Tells of a compaction that the server made. Nobody waits for the hooks.
    pub fn compacted_by_server(&self, site: Site, conversation_id: Arc<str>) {
        let hooks = self.clone();
        self.aside(async move {
            // It happened already: nothing is left to block.
            let _ = hooks.pre_compact(&site, &conversation_id).await;
        });
    }

    /// Tells of a subagent that ended. Nobody waits for the hooks.
    pub fn subagent_stopped(
        &self,
        site: Site,
        subagent_type: &str,
        subagent_id: &str,
        outcome: Result<(), String>,
        conversation_id: Option<&str>,
    ) {
        let mut fields = of_conversation(&site, conversation_id);
        fields.insert("subagent_type".into(), subagent_type.into());
        fields.insert("subagent_id".into(), subagent_id.into());
        fields.insert("success".into(), outcome.is_ok().into());
        if let Err(error) = outcome {
            fields.insert("error".into(), error.into());
        }
        let hooks = self.clone();
        self.aside(async move {
            hooks.run(Event::SubagentStop, None, &site, || fields).await;
        });
    }

    /// The feedback of all runs of an event that was blocked.
    async fn block_reason(&self, all: &[Ran], site: &Site) -> Option<String> {
        let mut lines = Vec::new();
        for ran in all {
            lines.extend(self.feedback(ran, site).await);
        }
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}

fn of_conversation(site: &Site, conversation_id: Option<&str>) -> Map<String, Value> {
    let mut fields = Map::new();
    with_agent(&mut fields, site);
    if let Some(id) = conversation_id {
        fields.insert("conversation_id".into(), id.into());
    }
    fields
}

/// The JSON object that a hook which let pass printed.
fn answer(ran: &Ran) -> Option<Value> {
    let printed = ran.run.verdict == Verdict::Allow && ran.run.stdout.starts_with('{');
    printed
        .then(|| serde_json::from_str(&ran.run.stdout).ok())
        .flatten()
}
