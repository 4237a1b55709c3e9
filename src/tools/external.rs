//! Tools that a connected controller owns and runs itself (04 §9, 02 §5.11).

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::tool::{Status, Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome, ToolReturn};
use crate::protocol::Scope;

/// How long a controller may take.
const TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// One call on its way to the controller.
#[derive(Clone, Debug)]
pub struct ExternalRequest {
    /// `external-tool-<uuid>`; the answer names it.
    pub request_id: String,
    /// The conversation of the turn.
    pub runtime: Scope,
    /// The scope under which the tool was registered, if any.
    pub scope_id: Option<Arc<str>>,
    /// The call.
    pub tool_call_id: Arc<str>,
    /// The tool.
    pub tool_name: Arc<str>,
    /// The arguments.
    pub input: Map<String, Value>,
}

/// The answer to a call: the `result` object, or what went wrong.
pub type ExternalAnswer<'a> = Pin<Box<dyn Future<Output = Result<Value, String>> + Send + 'a>>;

/// The connection that owns a tool.
pub trait ExternalCaller: Send + Sync {
    /// Asks the controller. Fails with the text for the model when it is not
    /// connected, goes away, or answers with an error. Dropping the future
    /// gives the call up.
    fn call(&self, request: ExternalRequest) -> ExternalAnswer<'_>;
}

/// One registered tool.
pub struct ExternalTool {
    name: Arc<str>,
    description: String,
    parameters: Value,
    scope_id: Option<Arc<str>>,
    caller: Arc<dyn ExternalCaller>,
}

impl fmt::Debug for ExternalTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalTool")
            .field("name", &self.name)
            .field("scope_id", &self.scope_id)
            .finish_non_exhaustive()
    }
}

impl ExternalTool {
    /// A tool as its registration describes it.
    pub fn new(
        name: Arc<str>,
        description: String,
        parameters: Value,
        scope_id: Option<Arc<str>>,
        caller: Arc<dyn ExternalCaller>,
    ) -> Self {
        Self {
            name,
            description,
            parameters,
            scope_id,
            caller,
        }
    }

    async fn ask(&self, call: &ToolCall, context: &ToolContext) -> ToolOutcome {
        let request = ExternalRequest {
            request_id: format!("external-tool-{}", Uuid::new_v4()),
            runtime: context.scope.clone(),
            scope_id: self.scope_id.clone(),
            tool_call_id: Arc::clone(&call.id),
            tool_name: Arc::clone(&self.name),
            input: call.args.clone(),
        };
        let answer = tokio::select! {
            answer = tokio::time::timeout(TIMEOUT, self.caller.call(request)) => answer,
            () = call.cancel.cancelled() => return ToolOutcome::interrupted(),
        };
        match answer {
            Err(_elapsed) => failure(&format!("External tool call timed out: {}", self.name)),
            Ok(Err(error)) => failure(&error),
            Ok(Ok(result)) => outcome(&result),
        }
    }
}

impl Tool for ExternalTool {
    fn name(&self) -> &str {
        &self.name
    }

    fn description(&self) -> &str {
        &self.description
    }

    fn parameters(&self) -> &Value {
        &self.parameters
    }

    fn run<'a>(&'a self, call: &'a ToolCall, context: &'a ToolContext) -> ToolFuture<'a> {
        Box::pin(self.ask(call, context))
    }
}

fn failure(message: &str) -> ToolOutcome {
    ToolOutcome::error(format!("External tool execution error: {message}"))
}

fn outcome(result: &Value) -> ToolOutcome {
    let Some(content) = result.get("content").and_then(Value::as_array) else {
        return failure("External tool response missing result");
    };
    let status = if result["is_error"] == true {
        Status::Error
    } else {
        Status::Success
    };
    ToolOutcome::with(tool_return(content), status)
}

/// Texts alone become one text; with an image all become parts (04 §9).
fn tool_return(content: &[Value]) -> ToolReturn {
    let parts: Vec<Value> = content.iter().filter_map(part).collect();
    if parts.iter().any(|part| part["type"] == "image") {
        return ToolReturn::Parts(parts);
    }
    if parts.is_empty() {
        return ToolReturn::Text(Value::from(content).to_string());
    }
    let texts: Vec<&str> = parts
        .iter()
        .filter_map(|part| part["text"].as_str())
        .collect();
    ToolReturn::Text(texts.join("\n"))
}

fn part(item: &Value) -> Option<Value> {
    match item["type"].as_str()? {
        "text" => Some(json!({"type": "text", "text": item["text"].as_str()?})),
        "image" => Some(json!({
            "type": "image",
            "source": {"type": "base64", "media_type": item["mimeType"].as_str()?, "data": item["data"].as_str()?},
        })),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::tests::{Bench, args};

    struct Controller(Result<Value, String>);

    impl ExternalCaller for Controller {
        fn call(&self, request: ExternalRequest) -> ExternalAnswer<'_> {
            assert!(request.request_id.starts_with("external-tool-"));
            assert_eq!(&*request.tool_name, "lookup");
            assert_eq!(request.scope_id.as_deref(), Some("sc"));
            assert_eq!(request.input["id"], "LET-1");
            Box::pin(async { self.0.clone() })
        }
    }

    struct Silent;

    impl ExternalCaller for Silent {
        fn call(&self, _request: ExternalRequest) -> ExternalAnswer<'_> {
            Box::pin(std::future::pending())
        }
    }

    fn lookup(caller: impl ExternalCaller + 'static) -> ExternalTool {
        ExternalTool::new(
            "lookup".into(),
            "d".into(),
            json!({}),
            Some("sc".into()),
            Arc::new(caller),
        )
    }

    async fn answer(result: Result<Value, String>) -> ToolOutcome {
        let bench = Bench::new();
        bench
            .run(&lookup(Controller(result)), args(json!({"id": "LET-1"})))
            .await
    }

    #[tokio::test]
    async fn texts_are_joined_and_images_keep_their_parts() {
        let texts = json!({"content": [{"type":"text","text":"a"},{"type":"text","text":"b"},{"type":"odd"}]});
        assert_eq!(answer(Ok(texts)).await, ToolOutcome::text("a\nb"));
        let image = json!({"content": [
            {"type":"text","text":"a"},
            {"type":"image","data":"AA==","mimeType":"image/png"},
        ]});
        assert_eq!(
            answer(Ok(image)).await.tool_return,
            ToolReturn::Parts(vec![
                json!({"type":"text","text":"a"}),
                json!({"type":"image","source":{"type":"base64","media_type":"image/png","data":"AA=="}}),
            ])
        );
        let odd = json!({"content": [{"type":"odd"}], "is_error": true});
        assert_eq!(
            answer(Ok(odd)).await,
            ToolOutcome::error("[{\"type\":\"odd\"}]")
        );
    }

    #[tokio::test]
    async fn failures_become_errors_for_the_model() {
        let gone = answer(Err("External tool controller is not connected".into())).await;
        assert_eq!(
            gone,
            ToolOutcome::error(
                "External tool execution error: External tool controller is not connected"
            )
        );
        assert_eq!(
            answer(Ok(json!({}))).await,
            ToolOutcome::error(
                "External tool execution error: External tool response missing result"
            )
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_controller_is_given_up_after_five_minutes() {
        let bench = Bench::new();
        let begun = tokio::time::Instant::now();
        let outcome = bench.run(&lookup(Silent), args(json!({}))).await;
        assert_eq!(
            outcome,
            ToolOutcome::error(
                "External tool execution error: External tool call timed out: lookup"
            )
        );
        assert_eq!(begun.elapsed().as_secs(), 300);
    }

    #[tokio::test]
    async fn an_abort_ends_the_wait() {
        let bench = Bench::new();
        bench.cancel.cancel();
        assert_eq!(
            bench.run(&lookup(Silent), args(json!({}))).await,
            ToolOutcome::interrupted()
        );
    }
}
