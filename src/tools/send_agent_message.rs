//! SendAgentMessage: a message to another conversation, by way of Letta Cloud
//! (04 §7.19). The cloud queues it; no answer is waited for.
//!
//! Invariant: the result says whether the message was taken, surely was not, or
//! may have been, so that nothing is sent twice by mistake.

use std::sync::LazyLock;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use super::args::{Args, DRAFT_07, schema};
use super::tool::{Lane, Status, Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome, ToolReturn};
use crate::api::{ApiError, Client};
use crate::protocol::Scope;

/// How long finding the destination and sending may take together.
const LIMIT: Duration = Duration::from_secs(30);

const DESCRIPTION: &str = "\
Sends a message to another conversation and does not wait for an answer. Use it to tell something to an agent that is already at work, such as a subagent of yours, or to write to any conversation that you may reach.

- conversation_id writes to an existing conversation. agent_id alone begins a new, hidden conversation with that agent. agent_id with conversation_id \"default\" writes to its default conversation.
- Your agent and conversation IDs go along as the address for answers. The other side answers by sending a message of its own; what it says in its conversation does not come back to you.
- Success means that the message was queued, not that it was read. Go on with your work.
- A status of acceptance_unknown means that it may have arrived: read the other conversation before you send again.
- Leave computer out unless the recipient must work on a particular one.

To hand over a task and get its report, use Agent. This tool makes no task ID and changes nothing about the recipient.";

static PARAMETERS: LazyLock<Value> = LazyLock::new(|| {
    schema(
        json!({
            "message": {"type": "string", "minLength": 1, "description": "What to tell"},
            "agent_id": {"type": "string", "description": "The agent to begin a conversation with; needed with conversation_id `default`"},
            "conversation_id": {"type": "string", "description": "The conversation to write to: `conv-...`, or `default` with agent_id"},
            "computer": {"type": ["string", "null"], "description": "Where the recipient is to run: `cloud`, or the name or device ID of a connected computer. Without it, where it runs now or ran last"}
        }),
        &["message"],
        DRAFT_07,
    )
});

/// The tool; only for a server that is Letta Cloud.
#[derive(Debug)]
pub struct SendAgentMessage {
    api: Client,
}

impl SendAgentMessage {
    /// A tool that sends through `api`.
    pub fn new(api: Client) -> Self {
        Self { api }
    }
}

impl Tool for SendAgentMessage {
    fn name(&self) -> &'static str {
        "SendAgentMessage"
    }

    fn description(&self) -> &str {
        DESCRIPTION
    }

    fn parameters(&self) -> &Value {
        &PARAMETERS
    }

    fn lane(&self) -> Lane {
        Lane::Global
    }

    fn run<'a>(&'a self, call: &'a ToolCall, context: &'a ToolContext) -> ToolFuture<'a> {
        Box::pin(async move {
            let sending = self.send(call, context);
            let outcome = call.cancel.run_until_cancelled(sending).await;
            outcome.unwrap_or_else(ToolOutcome::interrupted)
        })
    }
}

/// One message on its way.
struct Letter<'a> {
    api: Client,
    sender: &'a Scope,
    id: String,
    /// Where it goes, once that is known.
    to: Option<(String, String)>,
    /// The server was asked to take it.
    attempted: bool,
}

/// Why a message did not go out, or may not have.
enum Failure {
    /// Found here, or by a lookup.
    Text(String),
    Api(ApiError),
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

fn refused<T>(text: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Text(text.into()))
}

impl SendAgentMessage {
    async fn send(&self, call: &ToolCall, context: &ToolContext) -> ToolOutcome {
        let mut letter = Letter {
            api: self.api.acting_as(context.acting_user_id.as_deref()),
            sender: &context.scope,
            id: Uuid::new_v4().to_string(),
            to: None,
            attempted: false,
        };
        let sent = timeout(LIMIT, letter.send(&call.args)).await;
        let sent = sent.unwrap_or_else(|_| {
            let limit = LIMIT.as_secs();
            refused(format!("The server did not answer within {limit} seconds."))
        });
        match sent {
            Ok(receipt) => ToolOutcome::text(Value::Object(receipt).to_string()),
            Err(failure) => {
                let text = letter.failed(&failure).to_string();
                ToolOutcome::with(ToolReturn::Text(text), Status::Error)
            }
        }
    }
}

impl Letter<'_> {
    /// Finds the destination and hands the message over; the receipt.
    async fn send(&mut self, args: &Map<String, Value>) -> Result<Map<String, Value>, Failure> {
        let args = Args::new("SendAgentMessage", args);
        let text = |name| {
            let given = args.opt_string(name);
            let given = given.map_err(|error| Failure::Text(error.to_string()))?;
            Ok::<_, Failure>(given.map(str::trim).filter(|text| !text.is_empty()))
        };
        let message = args.string("message");
        let message = message.map_err(|error| Failure::Text(error.to_string()))?;
        if message.trim().is_empty() {
            return refused("Message must not be empty.");
        }
        let computer = text("computer")?.map(computer);
        let Some(from) = self.sender.agent_id.as_deref() else {
            return refused("SendAgentMessage requires the calling agent and conversation.");
        };
        let (agent, conversation) = self
            .destination(text("agent_id")?, text("conversation_id")?)
            .await?;
        let reminder = reminder(from, &self.sender.conversation_id);
        let mut body = json!({
            "agent_id": agent, "client_message_id": self.id,
            "messages": [{"role": "user", "client_message_id": self.id, "content": [
                {"type": "text", "text": reminder}, {"type": "text", "text": message},
            ]}],
        });
        if let Some(computer) = computer {
            body["computer"] = computer.into();
        }
        self.attempted = true;
        let receipt = self.api.enqueue_message(&conversation, &body).await?;
        let named = |name: &str| receipt.get(name).and_then(Value::as_str);
        let is_filled = |name: &str| named(name).is_some_and(|text| !text.is_empty());
        let is_own = named("client_message_id") == Some(self.id.as_str());
        let mut receipt = match receipt {
            Value::Object(ref fields)
                if is_own && is_filled("workflow_id") && is_filled("super_run_id") =>
            {
                fields.clone()
            }
            _ => return refused("The server's receipt is not one for this message."),
        };
        receipt.insert("status".into(), "queued".into());
        receipt.insert("agent_id".into(), agent.into());
        receipt.insert("conversation_id".into(), conversation.into());
        Ok(receipt)
    }

    /// Whom the message goes to: agent and conversation. Makes a conversation
    /// when only an agent is named.
    async fn destination(
        &mut self,
        agent: Option<&str>,
        conversation: Option<&str>,
    ) -> Result<(String, String), Failure> {
        for (id, prefix, what) in [
            (agent, "agent-", "agent"),
            (
                conversation.filter(|id| *id != "default"),
                "conv-",
                "conversation",
            ),
        ] {
            if let Some(id) = id.filter(|id| !is_id(id, prefix)) {
                return refused(format!("Invalid {what} ID: {id:?}"));
            }
        }
        let own = self.sender;
        let (agent, conversation) = match (agent, conversation) {
            (None, None) => {
                return refused("Choose a destination with agent_id or conversation_id.");
            }
            (None, Some("default")) => {
                return refused("The default conversation requires agent_id.");
            }
            (Some(agent), Some("default")) => (agent.to_owned(), "default".to_owned()),
            (agent, Some(id)) => {
                let found = self.api.conversation(id).await?;
                let owner = found.get("agent_id").and_then(Value::as_str);
                let Some(owner) = owner else {
                    return refused("The conversation has no agent that could read the message.");
                };
                if agent.is_some_and(|agent| agent != owner) {
                    return refused("The conversation does not belong to the requested agent.");
                }
                (owner.to_owned(), id.to_owned())
            }
            (Some(agent), None) => {
                let mut body = Map::new();
                body.insert("agent_id".into(), agent.into());
                body.insert("hidden".into(), true.into());
                let made = self.api.create_conversation(Some(agent), &body).await?;
                let Some(id) = made.get("id").and_then(Value::as_str) else {
                    return refused("The server made a conversation without an id.");
                };
                (agent.to_owned(), id.to_owned())
            }
        };
        if own.agent_id.as_deref() == Some(&agent) && *own.conversation_id == *conversation {
            return refused(
                "Cannot message the current conversation. Use a Monitor or a schedule to wake yourself.",
            );
        }
        self.to = Some((agent.clone(), conversation.clone()));
        Ok((agent, conversation))
    }

    /// What the model reads when there is no receipt.
    fn failed(&self, failure: &Failure) -> Value {
        let (text, http) = match failure {
            Failure::Text(text) => (text.clone(), None),
            Failure::Api(error) => (error.to_string(), error.status()),
        };
        let is_refusal = http.is_some_and(|status| (400..500).contains(&status));
        let is_open = self.attempted && !is_refusal;
        let status = match is_open {
            true => "acceptance_unknown",
            false => "submission_failed",
        };
        let mut told = json!({"status": status, "error": text, "client_message_id": self.id});
        if let Some((agent, conversation)) = &self.to {
            told["agent_id"] = agent.as_str().into();
            told["conversation_id"] = conversation.as_str().into();
        }
        if let Some(http) = http {
            told["http_status"] = http.into();
        }
        if is_open {
            told["guidance"] =
                "The message may have arrived. Read that conversation before you send it again."
                    .into();
        }
        told
    }
}

fn is_id(id: &str, prefix: &str) -> bool {
    let rest = id.strip_prefix(prefix).unwrap_or_default();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !rest.is_empty() && rest.bytes().all(is_plain)
}

/// The name under which the server knows a place to run.
fn computer(name: &str) -> &str {
    let is_cloud = name.eq_ignore_ascii_case("cloud") || name.eq_ignore_ascii_case("cloud-sandbox");
    if is_cloud { "cloud" } else { name }
}

/// Who writes, and how to answer.
fn reminder(agent: &str, conversation: &str) -> String {
    format!(
        "<system-reminder>\nThis message comes from agent {agent}, conversation {conversation}, which does not wait for an answer. To answer, call SendAgentMessage with that agent_id and conversation_id, if you have that tool. Nothing else that you say reaches the sender.\n</system-reminder>\n\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_only_open_when_the_server_may_have_taken_the_message() {
        let sender = Scope::new(Some("agent-1"), Some("conv-1"));
        let client = crate::api::tests::client_of("http://127.0.0.1:9");
        let mut letter = Letter {
            api: client,
            sender: &sender,
            id: "m".into(),
            to: None,
            attempted: false,
        };
        let silent = || Failure::Api(ApiError::Timeout);
        assert_eq!(letter.failed(&silent())["status"], "submission_failed");
        letter.attempted = true;
        letter.to = Some(("agent-2".into(), "default".into()));
        let told = letter.failed(&silent());
        assert_eq!(told["status"], "acceptance_unknown");
        assert_eq!(told["conversation_id"], "default");
        assert!(told["guidance"].is_string());
    }

    #[test]
    fn ids_and_computers_are_read_as_the_server_knows_them() {
        assert!(is_id("conv-1a-B", "conv-") && is_id("agent-local-1", "agent-"));
        for wrong in ["conv-", "agent-1", "conv-1/x", "conv-ü"] {
            assert!(!is_id(wrong, "conv-"), "{wrong}");
        }
        assert_eq!(computer("Cloud-Sandbox"), "cloud");
        assert_eq!(computer("my-box"), "my-box");
    }
}
