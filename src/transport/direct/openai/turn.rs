//! One turn for one request: a client inside this process (spec 02 §13).
//!
//! It opens a connection at the door, starts the runtime in `unrestricted` mode,
//! sends one input without interactive tools, and tells what its turn says as
//! [`Note`]s. It leaves when the turn ended, the caller went away, or the time is
//! over; a turn that nobody else follows ends with it (02 §11.2).

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::OpenAi;
use crate::listener::door::{DoorEvent, Role};
use crate::listener::outbox::{Drain, Outbox};
use crate::protocol::ConnectionId;

/// The longest turn.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// Conversations that are known by a key of the caller.
const CHATS: usize = 1024;

/// What the caller hears of a turn.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Note {
    /// The conversation that the turn belongs to; always first.
    Conversation(String),
    /// A piece of the answer.
    Text(String),
    /// A piece of reasoning.
    Reasoning(String),
    /// A tool begins on this machine.
    Call {
        id: String,
        name: String,
        arguments: String,
    },
    /// It ended.
    Returned { id: String, output: String },
    /// Token counts of one step.
    Usage(Map<String, Value>),
    /// The end of a turn that went well.
    Finished,
    /// The end of one that did not, with its text.
    Failed(String),
}

impl Note {
    /// Bytes of text in it.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Conversation(text)
            | Self::Text(text)
            | Self::Reasoning(text)
            | Self::Failed(text) => text.len(),
            Self::Call {
                id,
                name,
                arguments,
            } => id.len() + name.len() + arguments.len(),
            Self::Returned { id, output } => id.len() + output.len(),
            Self::Usage(_) | Self::Finished => 64,
        }
    }
}

/// What to run.
pub(super) struct TurnRequest {
    pub(super) agent: String,
    pub(super) place: Place,
    pub(super) messages: Vec<Value>,
}

/// Where to run it.
pub(super) enum Place {
    /// In a new conversation, which is deleted afterwards unless `keep`.
    New { keep: bool },
    /// In a conversation that was made for this request, the same.
    Made { conversation: String, keep: bool },
    /// In the one of this key.
    Keyed(String),
}

/// The conversations of the callers' keys: one per agent and key.
#[derive(Default)]
pub(super) struct Chats(Mutex<VecDeque<((String, String), String)>>);

impl Chats {
    fn find(&self, agent: &str, key: &str) -> Option<String> {
        let chats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = chats.iter();
        let found = known.find(|((of, known), _)| of == agent && known == key);
        found.map(|(_, conversation)| conversation.clone())
    }

    fn remember(&self, agent: &str, key: &str, conversation: &str) {
        let mut chats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        chats.retain(|((of, known), _)| of != agent || known != key);
        chats.push_back(((agent.into(), key.into()), conversation.into()));
        if chats.len() > CHATS {
            chats.pop_front();
        }
    }
}

/// The caller went away, or the listener did.
struct Gone;

/// The connection of one turn.
struct Inside<'a> {
    openai: &'a OpenAi,
    connection: ConnectionId,
    drain: Drain,
    to: mpsc::Sender<Note>,
    told: Vec<Note>,
}

impl OpenAi {
    /// Runs the turn to its end; what it told, if it went well.
    pub(super) async fn turn(
        &self,
        request: TurnRequest,
        to: mpsc::Sender<Note>,
    ) -> Option<Vec<Note>> {
        let outbox = Outbox::new();
        let (drain, _) = outbox.attach(false);
        let connection = ConnectionId::new(format!("openai-{}", Uuid::new_v4()));
        let opened = DoorEvent::Opened {
            connection: connection.clone(),
            role: Role::Client,
            outbox: outbox.clone(),
        };
        self.door.send(opened).await.ok()?;
        let mut inside = Inside {
            openai: self,
            connection: connection.clone(),
            drain,
            to: to.clone(),
            told: Vec::new(),
        };
        let disposable = match &request.place {
            Place::New { keep: false } => true,
            Place::Made { keep, .. } => !keep,
            _ => false,
        };
        let ended = tokio::select! {
            ended = inside.run(request) => ended,
            () = to.closed() => Err(Gone),
            () = tokio::time::sleep(LIMIT) => {
                inside.tell(Note::Failed("agent turn timed out".into())).await
            }
            () = self.stop.cancelled() => {
                inside.tell(Note::Failed("this computer is shutting down".into())).await
            }
        };
        let told = inside.told;
        outbox.detach();
        // A listener that is gone itself need not hear it.
        let _ = self.door.send(DoorEvent::Gone { connection }).await;
        if disposable
            && let Some(Note::Conversation(conversation)) = told.first()
            && let Err(error) = self.api.delete_conversation(conversation).await
        {
            tracing::debug!(%error, "A conversation of one request could not be deleted.");
        }
        let well = ended.is_ok() && told.last() == Some(&Note::Finished);
        well.then_some(told)
    }
}

impl Inside<'_> {
    async fn run(&mut self, request: TurnRequest) -> Result<(), Gone> {
        let TurnRequest {
            agent,
            place,
            messages,
        } = request;
        let key = match &place {
            Place::Keyed(key) => Some(key.clone()),
            _ => None,
        };
        let known = match &place {
            Place::Made { conversation, .. } => Some(conversation.clone()),
            Place::Keyed(key) => self.openai.chats.find(&agent, key),
            Place::New { .. } => None,
        };
        let mut start = json!({
            "type": "runtime_start", "request_id": "start", "agent_id": agent,
            "mode": "unrestricted", "recover_approvals": false,
        });
        match &known {
            Some(conversation) => start["conversation_id"] = conversation.as_str().into(),
            None => start["create_conversation"] = json!({}),
        }
        let started = self.ask(start).await?;
        let Some(conversation) = started["runtime"]["conversation_id"].as_str() else {
            let error = started["error"]
                .as_str()
                .unwrap_or("the agent cannot be started");
            return self.tell(Note::Failed(error.to_owned())).await;
        };
        if let Some(key) = key {
            self.openai.chats.remember(&agent, &key, conversation);
        }
        self.tell(Note::Conversation(conversation.to_owned()))
            .await?;
        let runtime = started["runtime"].clone();
        let id = format!("cm-openai-{}", Uuid::new_v4());
        let mut messages = messages;
        if let Some(last) = messages.last_mut() {
            last["client_message_id"] = id.as_str().into();
        }
        let accepted = self
            .ask(json!({
                "type": "input", "request_id": "input", "runtime": runtime,
                "payload": {
                    "kind": "create_message", "messages": messages,
                    "exclude_interactive_tools": true,
                },
            }))
            .await?;
        if accepted["accepted"] != true {
            let error = accepted["error"]
                .as_str()
                .unwrap_or("the input was refused");
            return self.tell(Note::Failed(error.to_owned())).await;
        }
        self.follow(accepted["disposition"] == "started", &id).await
    }

    /// Tells what the turn with our message says, until it ends.
    async fn follow(&mut self, started: bool, id: &str) -> Result<(), Gone> {
        let mut ours = started;
        let mut open: HashMap<String, ()> = HashMap::new();
        loop {
            let frame = self.next().await?;
            match frame["type"].as_str().unwrap_or_default() {
                "update_queue" if !ours => {
                    let removed = frame["removed"].as_array().into_iter().flatten();
                    for removal in removed.filter(|removal| removal["client_message_id"] == id) {
                        if removal["disposition"] != "dequeued" {
                            let error = "the message was removed from the queue";
                            return self.tell(Note::Failed(error.to_owned())).await;
                        }
                        ours = true;
                    }
                }
                "stream_delta" if ours => {
                    // What subagents say is not the answer.
                    if frame.get("subagent_id").is_none()
                        && let Some(note) = note(&frame["delta"], &mut open)
                    {
                        self.tell(note).await?;
                    }
                }
                "turn_finished" if ours => {
                    let end = match frame["stop_reason"].as_str().unwrap_or_default() {
                        "end_turn" => Note::Finished,
                        reason => {
                            let error = frame["error"].as_str();
                            let plain = || format!("the turn ended with {reason}");
                            Note::Failed(error.map_or_else(plain, String::from))
                        }
                    };
                    return self.tell(end).await;
                }
                _ => {}
            }
        }
    }

    async fn tell(&mut self, note: Note) -> Result<(), Gone> {
        self.told.push(note.clone());
        self.to.send(note).await.map_err(|_| Gone)
    }

    async fn ask(&self, frame: Value) -> Result<Value, Gone> {
        let id = frame["request_id"].clone();
        let event = DoorEvent::Frame {
            connection: self.connection.clone(),
            text: frame.to_string(),
        };
        self.openai.door.send(event).await.map_err(|_| Gone)?;
        loop {
            let answer = self.next().await?;
            if answer["request_id"] == id {
                return Ok(answer);
            }
        }
    }

    async fn next(&self) -> Result<Value, Gone> {
        let text = self.drain.next().await.map_err(|_| Gone)?;
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }
}

/// What a delta is to the caller. `open` holds the calls that have not ended.
fn note(delta: &Value, open: &mut HashMap<String, ()>) -> Option<Note> {
    let text = |key: &str| delta[key].as_str().unwrap_or_default().to_owned();
    match delta["message_type"].as_str()? {
        "assistant_message" => {
            let said = plain(&delta["content"]);
            (!said.is_empty()).then_some(Note::Text(said))
        }
        "reasoning_message" => {
            let thought = text("reasoning");
            (!thought.is_empty()).then_some(Note::Reasoning(thought))
        }
        "client_tool_start" => {
            let id = text("tool_call_id");
            open.insert(id.clone(), ());
            Some(Note::Call {
                id,
                name: text("tool_name"),
                arguments: text("tool_args"),
            })
        }
        "tool_return_message" if !text("id").starts_with("synthetic-tool-return-stream-") => {
            let id = text("tool_call_id");
            open.remove(&id)?;
            let output = plain(&delta["tool_return"]);
            Some(Note::Returned { id, output })
        }
        "usage_statistics" => delta.as_object().cloned().map(Note::Usage),
        _ => None,
    }
}

/// The text of content, whatever its form.
fn plain(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .filter_map(|part| part["text"].as_str())
            .collect(),
        _ => String::new(),
    }
}
