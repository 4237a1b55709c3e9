//! Asking for subagents: the mailbox of the owner of all runs, and what it is
//! told (07 §3.1).
//!
//! Invariant: whoever asks learns one answer. Dropping the wait for it while a
//! run still starts takes the order back.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::permissions::Workspace;
use crate::protocol::Scope;

/// Runs at once, over all conversations.
pub const MAX_RUNNING: usize = 32;

/// Who wants a subagent, and what it inherits.
#[derive(Clone, Debug)]
pub struct Parent {
    /// The conversation that gets the report.
    pub scope: Scope,
    /// The human on whose behalf it works.
    pub acting_user_id: Option<Arc<str>>,
    /// Where it works.
    pub cwd: PathBuf,
    /// What its tools may not leave.
    pub workspace: Option<Workspace>,
    /// Rules that deny, beside those of the settings files.
    pub disallowed_tools: Vec<String>,
}

/// What one run is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `subagent_type`.
    pub kind: String,
    /// A few words for people.
    pub description: String,
    /// The task.
    pub prompt: String,
    /// A model handle or a short name; `None` leaves the choice to the kind.
    pub model: Option<String>,
    /// An agent that is there already.
    pub agent_id: Option<String>,
    /// A conversation that is there already.
    pub conversation_id: Option<String>,
    /// Identity of the prompt's message.
    pub client_message_id: Option<String>,
    /// Steps after which it is stopped.
    pub max_turns: Option<u64>,
}

/// A run that began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launched {
    /// `task_<n>`.
    pub task_id: String,
    /// Where its report will be.
    pub output_file: PathBuf,
    /// Who works on it.
    pub child: Scope,
}

/// Why a run did not begin.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LaunchError {
    /// A needed argument is missing: the call was wrong.
    #[error("{0}")]
    Malformed(String),
    /// As many run as may.
    #[error(
        "Too many background tasks already running ({MAX_RUNNING}/{MAX_RUNNING}). Wait for one to end, or stop one."
    )]
    Full,
    /// It cannot be done, and the text says why.
    #[error("{0}")]
    Refused(String),
}

impl LaunchError {
    /// Whether the call itself failed. Otherwise the model reads the reason as
    /// the result of a call that went well (07 §3.1).
    pub fn is_failure(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}

impl Wanted {
    /// Reads the arguments of a call; unknown ones are passed over.
    ///
    /// # Errors
    /// Which argument is missing or unusable.
    pub fn read(args: &Map<String, Value>) -> Result<Self, LaunchError> {
        let text = |name: &str| {
            let text = args.get(name).and_then(Value::as_str);
            text.filter(|text| !text.trim().is_empty())
                .map(String::from)
        };
        let max_turns = match args.get("max_turns") {
            None | Some(Value::Null) => None,
            Some(turns) => Some(turns.as_u64().filter(|turns| *turns > 0).ok_or_else(|| {
                LaunchError::Refused("max_turns must be a positive integer".into())
            })?),
        };
        if text("computer").is_some() {
            return Err(LaunchError::Refused(
                "This program runs subagents on its own machine only; leave `computer` out.".into(),
            ));
        }
        let mut wanted = Self {
            model: text("model"),
            agent_id: text("agent_id"),
            conversation_id: text("conversation_id"),
            client_message_id: text("client_message_id"),
            max_turns,
            ..Self::default()
        };
        let deploys = wanted.agent_id.is_some() || wanted.conversation_id.is_some();
        let kind = text("subagent_type").or(deploys.then(|| "general-purpose".into()));
        let needed = [
            ("description", text("description")),
            ("prompt", text("prompt")),
            ("subagent_type", kind),
        ];
        let missing: Vec<&str> = needed
            .iter()
            .filter_map(|(name, value)| value.is_none().then_some(*name))
            .collect();
        if !missing.is_empty() {
            let missing = missing.join(", ");
            return Err(LaunchError::Malformed(format!(
                "Agent tool missing required parameters: {missing}"
            )));
        }
        let [description, prompt, kind] = needed.map(|(_, value)| value.unwrap_or_default());
        (wanted.description, wanted.prompt, wanted.kind) = (description, prompt, kind);
        Ok(wanted)
    }
}

/// What the owner of all runs is told.
#[derive(Debug)]
pub enum Order {
    /// Begin a run.
    Launch {
        /// Who wants it.
        parent: Parent,
        /// What it is to do.
        wanted: Box<Wanted>,
        /// The call that asked, if one did.
        tool_call_id: Option<String>,
        /// Learns when it began.
        reply: oneshot::Sender<Result<Launched, LaunchError>>,
    },
    /// End a run of this conversation.
    Stop {
        /// The parent.
        scope: Scope,
        /// `task_<n>`.
        task_id: String,
        /// Learns when it has ended: `false` when none of that id runs.
        reply: oneshot::Sender<bool>,
    },
    /// Tell of the runs that an earlier process lost.
    ReportLost,
}

/// The mailbox of the owner of all runs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Desk(mpsc::UnboundedSender<Order>);

impl Desk {
    /// A mailbox, and the end that its owner reads.
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Order>) {
        let (orders, inbox) = mpsc::unbounded_channel();
        (Self(orders), inbox)
    }

    /// Begins a run; waits until its conversation is known.
    ///
    /// # Errors
    /// See [`LaunchError`].
    pub async fn launch(
        &self,
        parent: Parent,
        wanted: Wanted,
        tool_call_id: Option<String>,
    ) -> Result<Launched, LaunchError> {
        let (reply, answer) = oneshot::channel();
        self.send(Order::Launch {
            parent,
            wanted: Box::new(wanted),
            tool_call_id,
            reply,
        });
        let gone = || LaunchError::Refused("This computer is shutting down.".into());
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Ends the run `task_id` of `scope` and waits for its end; `false` when
    /// there is none.
    pub async fn stop(&self, scope: &Scope, task_id: &str) -> bool {
        let (reply, answer) = oneshot::channel();
        self.send(Order::Stop {
            scope: scope.clone(),
            task_id: task_id.to_owned(),
            reply,
        });
        answer.await.unwrap_or(false)
    }

    /// Has the runs that an earlier process lost told to their conversations.
    pub fn report_lost(&self) {
        self.send(Order::ReportLost);
    }

    fn send(&self, order: Order) {
        // At the end of the process nobody reads: the answers are dropped with it.
        let _ = self.0.send(order);
    }
}

/// What the calls of a turn need to ask for subagents.
#[derive(Clone, Debug)]
pub struct Delegation {
    /// Where to ask.
    pub desk: Desk,
    /// What the conversation is confined to.
    pub workspace: Option<Workspace>,
    /// Rules that deny, beside those of the settings files.
    pub disallowed_tools: Vec<String>,
}

impl Default for Delegation {
    /// Asks nobody: whatever is asked is refused.
    fn default() -> Self {
        Self {
            desk: Desk::channel().0,
            workspace: None,
            disallowed_tools: Vec::new(),
        }
    }
}

/// Whether `id` is that of a run.
pub fn is_task_id(id: &str) -> bool {
    id.strip_prefix("task_")
        .is_some_and(|number| number.bytes().all(|digit| digit.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(args: Value) -> Result<Wanted, LaunchError> {
        Wanted::read(args.as_object().unwrap())
    }

    #[test]
    fn what_is_missing_is_a_failed_call_and_what_cannot_be_is_a_reason_to_read() {
        let task = json!({"description": "d", "prompt": "p", "subagent_type": "x",
            "run_in_background": false, "model": " "});
        let wanted = read(task.clone()).unwrap();
        assert_eq!((wanted.kind.as_str(), wanted.model), ("x", None));
        let missing = read(json!({"prompt": "p", "description": " "})).unwrap_err();
        assert!(missing.is_failure());
        assert_eq!(
            missing.to_string(),
            "Agent tool missing required parameters: description, subagent_type"
        );
        for (name, value) in [
            ("max_turns", json!(0)),
            ("max_turns", json!("many")),
            ("computer", json!("cloud")),
        ] {
            let mut task = task.clone();
            task[name] = value;
            let error = read(task).unwrap_err();
            assert!(!error.is_failure(), "{error}");
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn an_agent_that_is_there_needs_no_kind() {
        let wanted = read(json!({"description": "d", "prompt": "p", "agent_id": "agent-2"}));
        assert_eq!(wanted.unwrap().kind, "general-purpose");
    }

    #[tokio::test]
    async fn without_an_owner_every_question_gets_an_answer() {
        let (desk, orders) = Desk::channel();
        drop(orders);
        assert!(!desk.stop(&Scope::new(Some("a"), None), "task_1").await);
        assert!(is_task_id("task_12") && !is_task_id("task_x") && !is_task_id("bash_1"));
    }
}
