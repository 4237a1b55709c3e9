//! Hooks around the calls of a turn (05 §15.3): its own tools, and those that
//! the server runs.

use std::pin::Pin;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Turn;
use super::calls::Calls;
use crate::conversation::asks::arguments;
use crate::hooks::{BeforeTool, Hooks, Site, ToolEnd, ToolEvent};
use crate::tools::around::{Around, Before};
use crate::tools::{Status, ToolCall, ToolContext, ToolOutcome, ToolReturn, result};

/// Asks and tells hooks about each call.
pub(crate) struct Hooked(pub(crate) Hooks);

fn site(context: &ToolContext) -> Site {
    Site {
        cwd: context.cwd.get(),
        agent_id: context.scope.agent_id.clone(),
    }
}

fn event(call: &ToolCall) -> ToolEvent {
    ToolEvent {
        tool: call.name.clone(),
        input: call.args.clone(),
        call_id: Some(call.id.clone()),
    }
}

impl Around for Hooked {
    fn before<'a>(
        &'a self,
        call: &'a ToolCall,
        context: &'a ToolContext,
    ) -> Pin<Box<dyn Future<Output = Before> + Send + 'a>> {
        Box::pin(async move {
            match self.0.pre_tool_use(&site(context), &event(call)).await {
                BeforeTool::Run(laid_over) => Before::Run(laid_over),
                BeforeTool::Blocked(text) => Before::Refuse(ToolOutcome::error(text)),
            }
        })
    }

    fn after<'a>(
        &'a self,
        call: &'a ToolCall,
        context: &'a ToolContext,
        outcome: &'a mut ToolOutcome,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            let (site, event) = (site(context), event(call));
            let aborted = call.cancel.is_cancelled();
            let end = ToolEnd {
                succeeded: outcome.status == Status::Success,
                output: result::text_view(&outcome.tool_return),
                failure: Some(if aborted { "abort" } else { "tool_error" }),
            };
            if aborted {
                // An abort waits for no hook, and nobody reads what it says.
                return self.0.tool_returned_aside(site, event, end);
            }
            let told = self.0.post_tool_use(&site, &event, &end);
            if let Some(lines) = call.cancel.run_until_cancelled(told).await
                && !lines.is_empty()
            {
                append(&mut outcome.tool_return, &lines);
            }
        })
    }
}

/// Adds what hooks said to a result.
fn append(result: &mut ToolReturn, lines: &[String]) {
    let text = format!("\n\n[Hook feedback]:\n{}", lines.join("\n"));
    match result {
        ToolReturn::Text(whole) => whole.push_str(&text),
        ToolReturn::Parts(parts) => parts.push(json!({"type": "text", "text": text})),
    }
}

/// Calls of tools that the server runs itself, as a stream shows them.
#[derive(Debug, Default)]
pub(crate) struct ServerCalls {
    calls: Calls,
    told: Vec<String>,
}

impl Turn {
    /// Where hooks of this turn run.
    pub(crate) fn hook_site(&self) -> Site {
        site(&self.context)
    }

    /// The server runs a tool of its own. Hooks hear of it once, as soon as its
    /// name is known; its arguments are seldom complete by then (05 §15.3).
    pub(crate) fn server_tool_called(&mut self, message: &Map<String, Value>) {
        self.server_calls.calls.collect(message);
        for call in self.server_calls.calls.iter() {
            if call.name.is_empty() || self.server_calls.told.contains(&call.id) {
                continue;
            }
            self.server_calls.told.push(call.id.clone());
            let event = ToolEvent {
                tool: call.name.as_str().into(),
                input: arguments(&call.args),
                call_id: Some(call.id.as_str().into()),
            };
            let site = self.process_site();
            self.services.hooks.server_tool_called(site, event);
        }
    }

    /// A tool of the server has returned: one entry of `tool_returns`.
    pub(crate) fn server_tool_returned(&mut self, returned: &Value) {
        let text = |key: &str| {
            returned
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let id = text("tool_call_id");
        let Some(call) = self.server_calls.calls.iter().find(|call| call.id == id) else {
            return;
        };
        let event = ToolEvent {
            tool: call.name.as_str().into(),
            input: arguments(&call.args),
            call_id: Some(id.into()),
        };
        let end = ToolEnd {
            succeeded: text("status") == "success",
            output: text("tool_return").to_owned(),
            failure: None,
        };
        let site = self.process_site();
        self.services.hooks.tool_returned_aside(site, event, end);
        self.server_calls.calls.remove(id);
    }

    /// The server has compacted the history.
    pub(crate) fn compacted_by_server(&self) {
        let conversation = Arc::clone(&self.scope.conversation_id);
        self.services
            .hooks
            .compacted_by_server(self.process_site(), conversation);
    }

    /// What the server does happens in no directory of the conversation.
    fn process_site(&self) -> Site {
        Site {
            cwd: self.services.remote.boot_cwd(),
            agent_id: self.scope.agent_id.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feedback_stands_behind_the_result_in_its_own_form() {
        let lines = ["one".to_owned(), "two".to_owned()];
        let mut text = ToolReturn::Text("out".into());
        append(&mut text, &lines);
        assert_eq!(
            text,
            ToolReturn::Text("out\n\n[Hook feedback]:\none\ntwo".into())
        );
        let mut parts = ToolReturn::Parts(vec![json!({"type": "image"})]);
        append(&mut parts, &lines);
        let ToolReturn::Parts(parts) = parts else {
            unreachable!()
        };
        assert_eq!(parts[1]["text"], "\n\n[Hook feedback]:\none\ntwo");
    }
}
