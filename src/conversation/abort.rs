//! Stopping a turn (spec 02 §5.8, 03 §13).

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::actor::{Conversation, Done};
use super::intake::Asker;
use super::interrupt::{DENIED_BY_INTERRUPT, denied_call, interrupted_call};
use super::lifecycle::CancelledTurn;
use crate::protocol::event::{Level, Lifecycle};
use crate::protocol::reply;

/// A new turn waits for the server's word on a cancel, but not longer than this.
const CANCEL_DEADLINE: Duration = Duration::from_secs(15);

impl Conversation {
    /// `abort_message`.
    pub(crate) fn on_abort(&mut self, asker: &Asker, run_id: Option<&str>) {
        let other_run = run_id.is_some_and(|wanted| Some(wanted) != self.life.run_id());
        let aborted = !other_run && self.abort();
        if let Some(id) = &asker.request_id {
            let more = json!({"runtime": asker.runtime, "aborted": aborted});
            self.frames.reply(
                &asker.from,
                &reply::reply("abort_message_response", id, true, more),
            );
        }
    }

    /// Aborts what runs or waits for a human; `false` when nothing does.
    pub(crate) fn abort(&mut self) -> bool {
        self.stop(self.scope.agent_id.is_some())
    }

    /// Ends the turn of a client that left and that nobody else follows: as an
    /// abort, but the server is not told (02 §11.2).
    pub(crate) fn abandon(&mut self) {
        if self.life.is_active() {
            self.stop(false);
        }
    }

    fn stop(&mut self, tell_server: bool) -> bool {
        if self.life.is_cancelling() || !(self.life.is_active() || self.asks.has_recovered()) {
            return false;
        }
        let cancelled = self.life.cancel(tell_server);
        if let (Some(_), Some(turn)) = (&cancelled, &self.turn) {
            turn.cancel.cancel();
        }
        self.queue.pause();
        self.emit_queue_changes();
        self.note_interruption(cancelled.as_ref());
        let asked = self.asks.waiting() > 0;
        // Dropping the question tells the turn; it was cancelled above.
        drop(self.asks.take_live());
        self.asks.take_recovered();
        if asked {
            self.emit_loop_status();
            self.emit_device_status();
        }
        if let Some(turn) = cancelled {
            self.emit_loop_status();
            self.emit_device_status();
            self.frames
                .lifecycle(None, turn.run_id.as_deref(), &interrupted());
            if tell_server {
                self.cancel_on_server(turn);
            }
        }
        true
    }

    /// Results for the next request (03 §13.2 step 3); the turn replaces them
    /// with a complete set when it knows better (03 §13.4).
    fn note_interruption(&mut self, cancelled: Option<&CancelledTurn>) {
        let results: Vec<Map<String, Value>> = match cancelled {
            Some(turn) => turn
                .executing
                .iter()
                .map(|id| interrupted_call(id))
                .collect(),
            None => self
                .asks
                .shown()
                .iter()
                .map(|ask| denied_call(&ask.request.tool_call_id, DENIED_BY_INTERRUPT))
                .collect(),
        };
        self.interrupt.note(results);
    }

    /// Tells the server, without waiting: first the run, else the conversation.
    fn cancel_on_server(&mut self, turn: CancelledTurn) {
        let services = std::sync::Arc::clone(&self.services);
        let scope = self.scope.clone();
        let lease = turn.lease;
        self.job(async move {
            let Some(agent) = scope.agent_id.as_deref() else {
                return Done::CancelSettled(lease);
            };
            let cancel = async {
                let by_run = match &turn.run_id {
                    Some(run) => services
                        .api
                        .cancel_runs(agent, &[run])
                        .await
                        .is_ok_and(|ended| {
                            ended.get(run.as_str()).and_then(Value::as_str) == Some("cancelled")
                        }),
                    None => false,
                };
                if !by_run {
                    let id = if scope.is_default() {
                        agent
                    } else {
                        &scope.conversation_id
                    };
                    if let Err(error) = services.api.cancel_conversation(id).await {
                        tracing::debug!(%error, "The server had nothing to cancel.");
                    }
                }
            };
            if tokio::time::timeout(CANCEL_DEADLINE, cancel).await.is_err() {
                tracing::warn!("The server did not answer a cancel in time; going on.");
            }
            Done::CancelSettled(lease)
        });
    }
}

/// The word that people see.
pub(crate) fn interrupted() -> Lifecycle {
    Lifecycle::Status {
        message: "Interrupted".into(),
        level: Level::Warning,
    }
}
