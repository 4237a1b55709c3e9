//! Turns of one conversation: when one begins, what it reports, how it ends
//! (spec 02 §7, §8.3; 03 §9.4).

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::abort::interrupted;
use super::actor::{Conversation, Done, RunningTurn};
use super::asks::{Answered, Ask};
use super::echo::echo;
use super::lifecycle::{Finished, Lease};
use super::queue::Batch;
use super::turn::{self, Opening, Outcome, Question, Report, TurnInput};
use crate::protocol::event::{
    ApprovalRequested, CanUseTool, CanUseToolTag, ControlRequest, Event, Lifecycle, LoopStatus,
    PermissionSuggestion, ToolExecutionFinished, ToolExecutionStarted, TurnFinished,
};

use crate::protocol::time::epoch_millis;

/// Reports that may wait for the actor; a turn that is faster waits for it.
const REPORTS: usize = 64;

impl Conversation {
    /// Starts a turn with an input that found the conversation idle.
    pub(crate) fn begin_direct(&mut self, batch: Batch) {
        self.begin(
            batch.id.clone(),
            Opening::Messages,
            Some(batch),
            LoopStatus::SendingApiRequest,
        );
    }

    /// Starts the next queued turn if nothing stands in its way (02 §8.2–8.3).
    pub(crate) fn pump(&mut self) {
        let blocked = !self.life.is_idle()
            || self.asks.waiting() > 0
            || self.recoveries.is_running()
            || self.draining
            || !self.queue.has_ready()
            || !self.services.link.borrow().open;
        if blocked {
            return;
        }
        let Some(batch) = self.queue.take_batch() else {
            return;
        };
        for message in &batch.messages {
            if let Some(delta) = echo(message) {
                self.frames.message(delta);
            }
        }
        self.emit_queue_snapshot();
        self.emit_loop_status();
        self.begin(
            batch.id.clone(),
            Opening::Messages,
            Some(batch),
            LoopStatus::SendingApiRequest,
        );
        self.emit_queue_changes();
    }

    /// Starts a turn. The lifecycle must be free.
    pub(crate) fn begin(
        &mut self,
        turn_id: String,
        opening: Opening,
        batch: Option<Batch>,
        status: LoopStatus,
    ) {
        let Some(lease) = self.life.begin(status) else {
            return self.notice(&format!(
                "Cannot begin a turn while lifecycle is {}",
                self.life.name()
            ));
        };
        let starts_with_messages = matches!(opening, Opening::Messages);
        let interrupted = if starts_with_messages {
            self.interrupt.take()
        } else {
            None
        };
        let mode = self.services.remote.mode_of(&self.scope).mode;
        let due = if starts_with_messages {
            self.reminders.take(mode)
        } else {
            Default::default()
        };
        let cwd = self.services.remote.cwd_of(&self.scope);
        let cancel = CancellationToken::new();
        let (reports_in, reports) = mpsc::channel(REPORTS);
        let (messages, options, client_message_ids, origin) = match batch {
            Some(batch) => (
                batch.messages,
                batch.options,
                batch.client_message_ids,
                batch.origin,
            ),
            None => Default::default(),
        };
        let input = TurnInput {
            scope: self.scope.clone(),
            opening,
            messages,
            options,
            interrupted,
            due,
            skill_sources: self.skill_sources.clone(),
            execution: self.execution.clone(),
            workspace: self.workspace.clone(),
            session_rules: self.session_rules.clone(),
            recorded: self.assigned.is_none(),
            origin: origin.clone(),
            cancel: cancel.clone(),
            reports: reports_in,
        };
        self.asks.take_recovered();
        self.turn = Some(RunningTurn {
            lease,
            turn_id,
            cancel,
            reports,
            cwd,
            client_message_ids,
            origin,
            forgotten: false,
            asked: Vec::new(),
            started: tokio::time::Instant::now(),
        });
        self.emit_loop_status();
        self.emit_device_status();
        let services = Arc::clone(&self.services);
        self.job(async move { Done::Turn(lease, Box::new(turn::run(services, input).await)) });
    }

    /// One report of the running turn. What a turn says after an abort is
    /// heard only where it still matters.
    pub(crate) async fn on_report(&mut self, report: Report) {
        let Some(lease) = self.turn.as_ref().map(|turn| turn.lease) else {
            return;
        };
        let current = self.life.is_current(lease);
        match report {
            Report::SecretsTold(names) => self.reminders.secrets_told(names),
            Report::SkillsTold(skills) => self.reminders.skills_told(skills),
            Report::Compacted => self.reminders.compacted(),
            Report::Toolset(toolset) => self.toolset = Some(toolset),
            Report::Skills(skills) => self.skills = skills,
            Report::ModeSwitched(mode) => {
                self.reminders.mode_told(mode);
                self.emit_loop_status();
                self.emit_device_status();
            }
            Report::CwdChanged(path) => self.on_turn_cwd(&path),
            Report::ToolFinished {
                delta_id,
                tool_call_id,
                run_id,
                status,
                started,
            } => {
                self.frames.lifecycle(
                    delta_id.as_deref(),
                    run_id.as_deref(),
                    &Lifecycle::ClientToolEnd {
                        tool_call_id: tool_call_id.clone(),
                        status,
                    },
                );
                if started {
                    self.frames
                        .event(&Event::ToolExecutionFinished(&ToolExecutionFinished {
                            tool_call_id: &tool_call_id,
                            status,
                            run_id: run_id.as_deref(),
                        }));
                }
            }
            Report::Row(row) => self.frames.message(row),
            Report::MemoryChanged(paths) => {
                let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
                self.frames.event(&Event::MemoryUpdated {
                    affected_paths: &paths,
                    timestamp: epoch_millis(SystemTime::now()),
                });
            }
            Report::FileWritten { path, content } => {
                self.frames.event(&Event::FileOps {
                    path: &path,
                    cg_entries: [],
                    ops: [],
                    source: "agent",
                    document_content: &content,
                });
            }
            // Everything below changes the turn or shows it as going on: only its
            // current lease may do that.
            _ if !current => {}
            Report::Status(status) => {
                if self.life.set_status(lease, status) {
                    self.emit_loop_status();
                }
            }
            Report::Announce { device } => {
                self.emit_loop_status();
                if device {
                    self.emit_device_status();
                }
            }
            Report::Run(run) => self.on_run(lease, run),
            Report::Executing(ids) => self.life.set_executing(lease, ids),
            Report::Chunk(chunk) => self.show_chunk(&chunk),
            Report::Lifecycle { run_id, body } => {
                if let Some(assigned) = &mut self.assigned {
                    assigned.on_lifecycle(&body);
                }
                self.frames.lifecycle(None, run_id.as_deref(), &body);
            }
            Report::Live(row) => self.frames.message(row),
            Report::ToolStarted {
                delta_id,
                run_id,
                tool_call_id,
                tool_name,
                tool_args,
            } => {
                self.frames.lifecycle(
                    delta_id.as_deref(),
                    run_id.as_deref(),
                    &Lifecycle::ClientToolStart {
                        tool_call_id: tool_call_id.clone(),
                        tool_name: Some(tool_name),
                        tool_args: Some(tool_args),
                    },
                );
                self.frames
                    .event(&Event::ToolExecutionStarted(&ToolExecutionStarted {
                        tool_call_id: &tool_call_id,
                        run_id: run_id.as_deref(),
                    }));
            }
            Report::Ask(question, reply) => self.ask(lease, *question, reply),
            Report::TakeQueued(reply) => {
                let batch = self.merge_queued();
                // The turn asked; if it is gone its lease is not current any more.
                let _ = reply.send(batch);
            }
        }
    }

    fn on_run(&mut self, lease: Lease, run: Option<String>) {
        let seen = run.clone();
        if !self.life.set_run(lease, run) {
            return;
        }
        if let (Some(run), Some(turn)) = (seen, &self.turn) {
            self.correlation.note(&run, &turn.client_message_ids);
            self.emit_loop_status();
        }
    }

    /// A tool moved the conversation (04 §5.1).
    fn on_turn_cwd(&mut self, path: &std::path::Path) {
        if let Some(turn) = &mut self.turn {
            turn.cwd = path.to_path_buf();
        }
        let scope = self.scope.clone();
        let remote = self.services.remote.clone();
        let (wanted, current) = (path.to_string_lossy().into_owned(), path.to_path_buf());
        self.job(async move {
            if let Err(error) = remote.set_cwd(&scope, &wanted, &current).await {
                tracing::warn!(%error, "A tool's working directory could not be stored.");
            }
            Done::Nothing
        });
        self.reminders.directory_changed();
        self.refresh_git(false);
        self.emit_device_status();
    }

    /// Puts a question to every subscriber (02 §6.7, §9.2).
    fn ask(&mut self, lease: Lease, question: Question, reply: oneshot::Sender<Answered>) {
        if let Some(turn) = &mut self.turn {
            turn.asked.push(question.tool_call_id.clone());
        }
        if self.life.set_status(lease, LoopStatus::WaitingOnApproval) {
            self.emit_loop_status();
        }
        let suggestions = question
            .savable
            .iter()
            .map(|savable| PermissionSuggestion {
                id: "save-default",
                text: savable.text.clone(),
            })
            .collect();
        let request = control_request(
            &self.scope,
            question.tool_call_id,
            question.tool_name,
            question.input,
            suggestions,
            question.diffs,
        );
        self.frames.event(&Event::ControlRequest(&request));
        self.frames
            .event(&Event::ApprovalRequested(&ApprovalRequested {
                request_id: request.request_id.clone(),
                tool_call_id: request.request.tool_call_id.clone(),
                tool_name: request.request.tool_name.clone(),
                run_id: question.run_id.clone(),
            }));
        self.asks.put(Ask {
            request,
            run_id: question.run_id,
            savable: question.savable,
            reply,
            answerers: self.subscribers.clone(),
        });
        self.emit_loop_status();
        self.emit_device_status();
    }

    /// Takes what waits into the running turn (02 §8.4, 03 §10.5).
    fn merge_queued(&mut self) -> Option<Batch> {
        if self.draining {
            return None;
        }
        let batch = self.queue.take_batch()?;
        for message in &batch.messages {
            if let Some(delta) = echo(message) {
                self.frames.message(delta);
            }
        }
        if let Some(turn) = &mut self.turn {
            turn.turn_id.clone_from(&batch.id);
            turn.client_message_ids
                .extend(batch.client_message_ids.iter().cloned());
        }
        Some(batch)
    }

    /// The turn task ended (03 §9.4).
    pub(crate) fn finish_turn(&mut self, lease: Lease, mut outcome: Box<Outcome>) {
        let Some(turn) = self.turn.take_if(|turn| turn.lease == lease) else {
            return;
        };
        let cancelling = self.life.is_cancelling();
        if cancelling {
            outcome.stop_reason = "cancelled".into();
            outcome.error = None;
        }
        drop(self.asks.take_live());
        if let Some(results) = outcome.interrupted.take().filter(|_| !turn.forgotten) {
            self.interrupt.replace(results);
        }
        let Some(finished) = self.life.finish(lease) else {
            return;
        };
        if finished == Finished::WasActive {
            if outcome.stop_reason == "cancelled" && !outcome.parked {
                self.frames
                    .lifecycle(None, outcome.run_id.as_deref(), &interrupted());
            }
            self.emit_loop_status();
            self.emit_device_status();
        }
        self.services
            .metrics
            .turn_ended(&outcome.stop_reason, turn.started.elapsed());
        let error = outcome.error.as_ref().map(|error| error.text.clone());
        let failure = match outcome.stop_reason.as_str() {
            "cancelled" => Some("The turn was interrupted.".to_owned()),
            _ => error.clone(),
        };
        let stop_reason = outcome.stop_reason.clone();
        self.frames.event(&Event::TurnFinished(&TurnFinished {
            turn_id: turn.turn_id,
            stop_reason: outcome.stop_reason.clone(),
            run_id: outcome.run_id.clone(),
            error: error.clone(),
            usage: outcome.usage.take(),
        }));
        if let Some(error) = outcome.error {
            self.services.note_error(&error.text);
            self.frames.lifecycle(
                None,
                outcome.run_id.as_deref(),
                &Lifecycle::LoopError {
                    message: error.text,
                    stop_reason: outcome.stop_reason,
                    is_terminal: true,
                    api_error: error.api_error,
                },
            );
        }
        self.services.remote.prune_mode(&self.scope);
        // The turn's commands may have switched branches.
        self.refresh_git(false);
        self.emit_device_status();
        self.push_memory();
        self.end_slash_turn(lease, failure);
        self.assigned_turn_ended(&stop_reason, error);
        if self.queue.is_empty() {
            return;
        }
        self.emit_queue_snapshot();
        self.emit_loop_status();
    }

    /// Stops taking input; the running turn parks where nothing is lost.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
    }

    /// The process goes down now: tell clients, then end everything.
    pub(crate) async fn shut_down(mut self) {
        if let Some(turn) = &self.turn {
            turn.cancel.cancel();
        }
        self.queue.clear();
        let held = self.is_held();
        // The turn gets a moment to close its tools; the deadline of the drain is the owner's.
        while let Some(done) = self.jobs.join_next().await {
            if let Ok(Done::Turn(lease, outcome)) = done {
                self.finish_turn(lease, outcome);
                break;
            }
            if self.turn.is_none() {
                break;
            }
        }
        self.jobs.shutdown().await;
        if held {
            self.emit_loop_status();
            self.emit_device_status();
        }
    }
}

/// A `control_request` for one call (02 §6.7).
pub(crate) fn control_request(
    scope: &crate::protocol::Scope,
    tool_call_id: String,
    tool_name: String,
    input: Map<String, Value>,
    permission_suggestions: Vec<PermissionSuggestion>,
    diffs: Vec<Value>,
) -> ControlRequest {
    ControlRequest {
        request_id: format!("perm-{tool_call_id}"),
        request: CanUseTool {
            subtype: CanUseToolTag,
            tool_name,
            input,
            tool_call_id,
            permission_suggestions,
            blocked_path: (),
            diffs,
        },
        agent_id: scope.agent_id.as_deref().map(String::from),
        conversation_id: scope.conversation_id.to_string(),
    }
}

/// `batch-recovered-<uuid>` and its kin (03 §7).
pub(crate) fn recovered_turn_id(infix: &str) -> String {
    format!("batch-recovered-{infix}{}", Uuid::new_v4())
}
