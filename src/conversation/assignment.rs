//! A conversation that works for another one: a subagent at its task (07 §3.3,
//! §3.9).
//!
//! It is a conversation like any other, but for the time of its task: nobody is
//! asked, its mode and directory are lent, what it shows is shown to its parent
//! as well. Invariant: the owner of the run hears of exactly one end.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::actor::Conversation;
use super::frames::now;
use super::intake::{direct_batch, stamp};
use crate::permissions::Workspace;
use crate::protocol::command::{CreateMessage, ExecutionSettings};
use crate::protocol::event::Lifecycle;
use crate::protocol::{PermissionMode, Scope};

/// What the owner reads of a run that somebody stopped.
pub(crate) const INTERRUPTED: &str = "Interrupted by user";

/// A report longer than this is cut; bytes.
const LONGEST_REPORT: usize = 1 << 20;

/// A task for a conversation.
#[derive(Debug)]
pub struct Assignment {
    /// The run, as its owner counts it.
    pub run: u64,
    /// Its id on the wire.
    pub subagent_id: Arc<str>,
    /// Who sees what it shows.
    pub parent: Scope,
    /// Launch options of its turns.
    pub execution: ExecutionSettings,
    /// Where it works.
    pub cwd: PathBuf,
    /// What its tools may not leave.
    pub workspace: Option<Workspace>,
    /// The task itself.
    pub input: CreateMessage,
    /// Where its owner listens.
    pub news: mpsc::UnboundedSender<(u64, News)>,
}

/// What the owner of a run hears from its conversation.
#[derive(Debug)]
pub enum News {
    /// It called a tool.
    Called {
        /// `tool_call_id`.
        id: String,
        /// The tool.
        name: String,
        /// Its arguments as the model wrote them.
        args: String,
    },
    /// Tokens used so far.
    Used(u64),
    /// It is over: the report, or why there is none.
    Ended(Result<String, String>),
    /// The process goes down with it.
    Lost,
}

/// The subagents of a conversation, as its clients see them.
#[derive(Clone, Debug, Default)]
pub struct Board {
    /// `update_subagent_state` as JSON text; empty when there never were any.
    pub frame: Arc<str>,
    /// How many the frame lists.
    pub listed: usize,
    /// `agent_task` entries of `device_status.background_processes`: what runs.
    pub processes: Arc<[Value]>,
}

/// The same, changed; with the report of one that ended.
#[derive(Debug)]
pub struct BoardChange {
    /// What holds from now on.
    pub board: Board,
    /// The `<task-notification>` and the human it is for.
    pub report: Option<(String, Option<String>)>,
}

/// A task under way.
#[derive(Debug)]
pub(crate) struct Assigned {
    run: u64,
    news: mpsc::UnboundedSender<(u64, News)>,
    /// What held before, and holds again afterwards.
    before: (Option<ExecutionSettings>, Option<Workspace>),
    /// The message whose text is collected.
    message_id: String,
    text: String,
    error: Option<String>,
    tokens: u64,
    /// Calls whose arguments are still streaming.
    calls: Vec<Call>,
    told: Vec<String>,
}

/// One call of a tool, as far as it is known.
#[derive(Debug)]
struct Call {
    id: String,
    name: String,
    args: String,
    /// The server runs it, and shows it as it is.
    on_server: bool,
}

impl Conversation {
    /// Begins a task, if nothing else goes on here.
    pub(crate) fn on_assign(&mut self, assignment: Assignment) {
        let problem = if self.draining {
            Some("This computer is shutting down.")
        } else if self.assigned.is_some() || !self.is_free() {
            Some("The conversation has active or queued work; a subagent needs it to itself.")
        } else {
            None
        };
        let Assignment {
            run,
            subagent_id,
            parent,
            execution,
            cwd,
            workspace,
            mut input,
            news,
        } = assignment;
        if let Some(problem) = problem {
            // An owner that is gone has no use for it.
            let _ = news.send((run, News::Ended(Err(problem.into()))));
            return;
        }
        self.services
            .remote
            .lend(&self.scope, &cwd, PermissionMode::Unrestricted);
        self.frames.mirror(Some((parent, subagent_id)));
        self.assigned = Some(Assigned {
            run,
            news,
            before: (
                self.execution.replace(execution),
                std::mem::replace(&mut self.workspace, workspace),
            ),
            message_id: String::new(),
            text: String::new(),
            error: None,
            tokens: 0,
            calls: Vec::new(),
            told: Vec::new(),
        });
        self.was_assigned = true;
        let identity = stamp(&mut input.messages);
        self.begin_direct(direct_batch(input, identity, None));
    }

    /// The owner ends the task.
    pub(crate) fn on_dismiss(&mut self) {
        if self.assigned.is_some() && !self.abort() {
            self.end_assignment(News::Ended(Err(INTERRUPTED.into())));
        }
    }

    /// A turn of the task ended.
    pub(crate) fn assigned_turn_ended(&mut self, stop: &str, error: Option<String>) {
        self.show_calls();
        let Some(assigned) = &mut self.assigned else {
            return;
        };
        let error = match stop {
            "end_turn" => return self.end_assignment_if_done(),
            "cancelled" if self.services.draining.is_cancelled() => {
                return self.end_assignment(News::Lost);
            }
            "cancelled" => INTERRUPTED.into(),
            stop => (error.or(assigned.error.take()))
                .unwrap_or_else(|| format!("The subagent stopped with `{stop}`.")),
        };
        self.end_assignment(News::Ended(Err(error)));
    }

    /// Ends the task when nothing is left to wait for: a subagent that started
    /// subagents, or whose queue holds news of them, is not at its end.
    pub(crate) fn end_assignment_if_done(&mut self) {
        let Some(assigned) = &self.assigned else {
            return;
        };
        if !self.life.is_idle() || !self.queue.is_empty() || !self.board.processes.is_empty() {
            return;
        }
        let text = assigned.text.trim();
        let result = if text.is_empty() {
            Err("The subagent ended without a final message.".to_owned())
        } else {
            Ok(text.to_owned())
        };
        self.end_assignment(News::Ended(result));
    }

    fn end_assignment(&mut self, news: News) {
        let Some(assigned) = self.assigned.take() else {
            return;
        };
        (self.execution, self.workspace) = assigned.before;
        self.services.remote.take_back(&self.scope);
        self.frames.mirror(None);
        let _ = assigned.news.send((assigned.run, news));
    }

    /// Shows a chunk of the server. A parent sees calls whole, as calls that were
    /// made: nobody there is to decide about them.
    pub(crate) fn show_chunk(&mut self, chunk: &str) {
        self.frames.chunk(chunk);
        let Some(assigned) = &mut self.assigned else {
            return;
        };
        match assigned.on_chunk(chunk) {
            Seen::PieceOfCall => {}
            Seen::InBetween => self.frames.reflect(chunk),
            Seen::BehindCalls => {
                self.frames.reflect(chunk);
                self.show_calls();
            }
        }
    }

    fn show_calls(&mut self) {
        let Some(assigned) = &mut self.assigned else {
            return;
        };
        for call in std::mem::take(&mut assigned.calls) {
            if !call.on_server {
                let delta = json!({
                    "type": "message", "message_type": "tool_call_message",
                    "id": format!("tool-call-{}", call.id), "date": now(),
                    "tool_call": {"name": call.name, "tool_call_id": call.id, "arguments": call.args},
                });
                self.frames.reflect(&delta.to_string());
            }
            assigned.told.push(call.id.clone());
            let Call { id, name, args, .. } = call;
            assigned.tell(News::Called { id, name, args });
        }
    }

    /// Clients and the model learn what became of this conversation's subagents.
    pub(crate) fn on_board(&mut self, change: BoardChange) {
        let runs_changed = self.board.processes != change.board.processes;
        self.board = change.board;
        self.subagents_to(crate::events::Audience::Subscribers);
        if runs_changed {
            self.emit_device_status();
        }
        if let Some((text, acting_user_id)) = change.report {
            self.on_injected(crate::events::Injected::TaskNotification {
                text,
                acting_user_id,
            });
        }
        self.end_assignment_if_done();
    }
}

impl Assigned {
    fn tell(&self, news: News) {
        // An owner that is gone has no use for it.
        let _ = self.news.send((self.run, news));
    }

    /// A delta of the task: the JSON text that clients get.
    fn on_chunk(&mut self, delta: &str) -> Seen {
        let Ok(Value::Object(delta)) = serde_json::from_str(delta) else {
            return Seen::InBetween;
        };
        let text = |key: &str| delta.get(key).and_then(Value::as_str).unwrap_or_default();
        let kind = text("message_type");
        match kind {
            "approval_request_message" => {
                self.collect_call(&delta, false);
                return Seen::PieceOfCall;
            }
            "tool_call_message" => {
                self.collect_call(&delta, true);
                return Seen::InBetween;
            }
            "stop_reason" => return Seen::InBetween,
            "assistant_message" => {
                if self.message_id != text("id") {
                    text("id").clone_into(&mut self.message_id);
                    self.text.clear();
                }
                let room = LONGEST_REPORT.saturating_sub(self.text.len());
                let more = content_text(delta.get("content"));
                self.text.push_str(&more[..more.floor_char_boundary(room)]);
            }
            "usage_statistics" => {
                let more = delta.get("total_tokens").and_then(Value::as_u64);
                self.tokens = self.tokens.saturating_add(more.unwrap_or(0));
                self.tell(News::Used(self.tokens));
            }
            _ => {}
        }
        Seen::BehindCalls
    }

    /// A lifecycle delta: one that ends the turn says why.
    pub(crate) fn on_lifecycle(&mut self, body: &Lifecycle) {
        if let Lifecycle::LoopError {
            message,
            is_terminal: true,
            ..
        } = body
        {
            self.error = Some(message.clone());
        }
    }

    /// Calls come in pieces: the name first, then the arguments.
    fn collect_call(&mut self, delta: &Map<String, Value>, on_server: bool) {
        let several = match delta.get("tool_calls") {
            Some(Value::Array(calls)) => calls.as_slice(),
            Some(call) => std::slice::from_ref(call),
            None => delta
                .get("tool_call")
                .map(std::slice::from_ref)
                .unwrap_or_default(),
        };
        for call in several {
            let text = |key: &str| call.get(key).and_then(Value::as_str).unwrap_or_default();
            let (id, args) = (text("tool_call_id"), text("arguments"));
            if id.is_empty() || self.told.iter().any(|told| told == id) {
                continue;
            }
            match self.calls.iter_mut().find(|known| known.id == id) {
                Some(known) => {
                    known.args.push_str(args);
                    if known.name.is_empty() {
                        text("name").clone_into(&mut known.name);
                    }
                }
                None => self.calls.push(Call {
                    id: id.into(),
                    name: text("name").into(),
                    args: args.into(),
                    on_server,
                }),
            }
        }
    }
}

/// What a chunk is for those who see only whole calls.
enum Seen {
    PieceOfCall,
    /// Calls may go on behind it.
    InBetween,
    /// The calls before it are whole.
    BehindCalls,
}

/// The text of a message's content: a string, or text parts.
fn content_text(content: Option<&Value>) -> String {
    match content {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let texts = parts.iter().filter_map(|part| part.get("text")?.as_str());
            texts.collect()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observer() -> (Assigned, mpsc::UnboundedReceiver<(u64, News)>) {
        let (news, inbox) = mpsc::unbounded_channel();
        let assigned = Assigned {
            run: 7,
            news,
            before: (None, None),
            message_id: String::new(),
            text: String::new(),
            error: None,
            tokens: 0,
            calls: Vec::new(),
            told: Vec::new(),
        };
        (assigned, inbox)
    }

    #[test]
    fn the_report_is_the_text_of_the_last_message_however_it_is_cut() {
        let (mut assigned, _inbox) = observer();
        for (id, content) in [
            ("m1", json!("first")),
            ("m2", json!("sec")),
            ("m2", json!([{"type": "text", "text": "ond"}])),
        ] {
            let delta = json!({"message_type": "assistant_message", "id": id, "content": content});
            assigned.on_chunk(&delta.to_string());
        }
        assert_eq!(assigned.text, "second");
    }

    #[test]
    fn a_call_is_collected_from_its_pieces_and_known_when_the_step_is_over() {
        let (mut assigned, mut inbox) = observer();
        let piece = |name: Value, args: &str| {
            json!({"message_type": "approval_request_message",
                "tool_calls": {"tool_call_id": "c1", "name": name, "arguments": args}})
        };
        for delta in [
            piece(json!("Bash"), ""),
            piece(Value::Null, "{\"a\":"),
            piece(Value::Null, "1}"),
        ] {
            assert!(matches!(
                assigned.on_chunk(&delta.to_string()),
                Seen::PieceOfCall
            ));
        }
        let call = &assigned.calls[0];
        assert_eq!((&*call.name, &*call.args), ("Bash", "{\"a\":1}"));
        let stop = json!({"message_type": "stop_reason", "stop_reason": "requires_approval"});
        assert!(matches!(
            assigned.on_chunk(&stop.to_string()),
            Seen::InBetween
        ));
        for (more, sum) in [(5, 5), (6, 11)] {
            let usage = json!({"message_type": "usage_statistics", "total_tokens": more});
            assert!(matches!(
                assigned.on_chunk(&usage.to_string()),
                Seen::BehindCalls
            ));
            assert!(matches!(inbox.try_recv(), Ok((7, News::Used(known))) if known == sum));
        }
    }
}
