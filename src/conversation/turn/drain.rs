//! Reading the stream of one request to its end (spec 03 §5.1–5.5).
//!
//! Invariant: a chunk is shown once. What a resumed stream repeats is dropped
//! by its run and sequence number, whatever else it says.

use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use super::calls::Calls;
use super::chunk::{delta_text, loop_error, normalised_return, relayed_retry};
use super::report::Report;
use super::{End, Turn};
use crate::api::classify;
use crate::api::stream::{Chunk, SseStream, StreamError};
use crate::protocol::event::{Level, Lifecycle, LoopStatus};

/// What one request brought.
#[derive(Debug)]
pub(crate) struct Drained {
    /// The stop reason: seen, or `error` for a stream that ended without one.
    pub(crate) stop: String,
    /// Whether the server gave a stop reason.
    pub(crate) saw_stop: bool,
    /// Calls that wait for an answer.
    pub(crate) calls: Calls,
    /// Where the stream stood: run and sequence number.
    pub(crate) cursor: Cursor,
    /// Why reading ended early.
    pub(crate) failure: Option<String>,
    /// The last error that the server described.
    pub(crate) error_info: Option<Map<String, Value>>,
}

/// A position in the stream of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) run_id: Option<String>,
    pub(crate) seq_id: i64,
}

/// How long silence may last (03 §5.4).
#[derive(Clone, Copy, Debug)]
pub struct Guards {
    /// After a stop reason, until the body is left alone.
    pub terminal_grace: Duration,
    /// Before a stop reason, until the run is looked up.
    pub stall: Duration,
    /// For that look-up.
    pub stall_lookup: Duration,
}

impl Default for Guards {
    fn default() -> Self {
        Self {
            terminal_grace: Duration::from_secs(2),
            stall: Duration::from_secs(60),
            stall_lookup: Duration::from_secs(5),
        }
    }
}

enum Silence {
    GoOn,
    Next(Option<Result<Chunk, StreamError>>),
    GiveUp,
}

impl Turn {
    /// Reads `stream`. `after` is where an earlier part of the same run ended.
    pub(crate) async fn read(
        &mut self,
        mut stream: SseStream,
        after: Option<&Cursor>,
        otid: Option<&str>,
    ) -> Result<Drained, End> {
        let guards = self.services.guards;
        let mut drained = Drained {
            stop: String::from("error"),
            saw_stop: false,
            calls: Calls::default(),
            cursor: after.cloned().unwrap_or_default(),
            failure: None,
            error_info: None,
        };
        let mut announced = false;
        loop {
            let limit = if drained.saw_stop {
                guards.terminal_grace
            } else {
                guards.stall
            };
            let port = self.port.clone();
            let next = port
                .unless_cancelled(timeout_at(Instant::now() + limit, stream.next()))
                .await?;
            let next = match next {
                Ok(next) => next,
                Err(_) if drained.saw_stop => {
                    self.warn("Stream did not close after completing, continued without waiting")
                        .await;
                    break;
                }
                Err(_) => match self.on_silence(&mut stream, &drained, otid).await? {
                    Silence::GoOn => continue,
                    Silence::Next(next) => next,
                    Silence::GiveUp => {
                        self.warn("Stream went silent, reconnecting to recover the missed tail")
                            .await;
                        break;
                    }
                },
            };
            match next {
                None => break,
                Some(Err(error)) => {
                    note_failure(&mut drained, &error);
                    break;
                }
                Some(Ok(chunk)) => {
                    if is_repeat(&chunk, after) {
                        continue;
                    }
                    if let Some(run_id) = chunk.run_id.as_deref() {
                        if !announced || drained.cursor.run_id.as_deref() != Some(run_id) {
                            announced = true;
                            self.on_run(run_id).await;
                        }
                        drained.cursor.run_id = Some(run_id.to_owned());
                    }
                    if let Some(seq_id) = chunk.seq_id {
                        drained.cursor.seq_id = seq_id;
                    }
                    self.on_chunk(&chunk, &mut drained).await;
                }
            }
        }
        if drained.stop == "end_turn" && !drained.calls.is_empty() {
            drained.stop = "requires_approval".into();
        }
        Ok(drained)
    }

    async fn warn(&self, message: &str) {
        let body = Lifecycle::Status {
            message: message.into(),
            level: Level::Warning,
        };
        self.port.lifecycle(self.run_id.as_deref(), body).await;
    }

    /// Nothing came for too long: is the run still alive (03 §5.4)?
    async fn on_silence(
        &self,
        stream: &mut SseStream,
        drained: &Drained,
        otid: Option<&str>,
    ) -> Result<Silence, End> {
        let Some(run_id) = drained.cursor.run_id.as_deref() else {
            return Ok(if otid.is_some() {
                Silence::GiveUp
            } else {
                Silence::GoOn
            });
        };
        let lookup = self.api.run_now(run_id, self.services.guards.stall_lookup);
        self.port
            .unless_cancelled(async {
                tokio::select! {
                    // A chunk that comes meanwhile makes the question pointless.
                    next = stream.next() => Silence::Next(next),
                    run = lookup => match run {
                        Ok(run) if run.is_active() => Silence::GoOn,
                        _ => Silence::GiveUp,
                    },
                }
            })
            .await
    }

    /// The run of this stream is known.
    async fn on_run(&mut self, run_id: &str) {
        if self.run_id.as_deref() != Some(run_id) || !self.run_is_shown {
            self.run_id = Some(run_id.to_owned());
            self.run_is_shown = true;
            self.port.tell(Report::Run(Some(run_id.to_owned()))).await;
            self.record.run_seen(run_id);
        }
    }

    async fn on_chunk(&mut self, chunk: &Chunk, drained: &mut Drained) {
        match &*chunk.message_type {
            "ping" => return,
            "response_state" => {
                return self
                    .services
                    .response_states
                    .record(&self.scope, &chunk.object());
            }
            "approval_request_message" => drained.calls.collect(&chunk.object()),
            "tool_call_message" => self.server_tool_called(&chunk.object()),
            "tool_return_message" => return self.on_tool_return(chunk.object(), drained).await,
            "stop_reason" => {
                if let Some(stop) = chunk.object().get("stop_reason").and_then(Value::as_str) {
                    stop.clone_into(&mut drained.stop);
                    drained.saw_stop = true;
                }
            }
            "usage_statistics" => self.usage.add(&chunk.object()),
            "error_message" => return self.on_error_message(chunk, drained).await,
            "event_message"
                if chunk.object().get("event_type") == Some(&Value::from("compaction")) =>
            {
                self.compacted_by_server();
            }
            "summary_message" => self.port.tell(Report::Compacted).await,
            "retry_message" => {
                if let Some(delta) = relayed_retry(&chunk.object()) {
                    return self
                        .port
                        .tell(Report::Chunk(Value::Object(delta).to_string()))
                        .await;
                }
            }
            "" => {
                if let Some(info) = bare_error(&chunk.object()) {
                    drained.error_info = Some(info);
                }
            }
            _ => {}
        }
        self.show(chunk).await;
    }

    async fn show(&self, chunk: &Chunk) {
        self.port
            .tell(Report::Chunk(delta_text(chunk.text(), chunk.has_type)))
            .await;
    }

    /// A tool that ran on the server: its call needs no answer from here.
    async fn on_tool_return(&mut self, message: Map<String, Value>, drained: &mut Drained) {
        let Some(shown) = normalised_return(message) else {
            return;
        };
        let returns = shown.get("tool_returns").and_then(Value::as_array);
        for item in returns.into_iter().flatten() {
            if let Some(id) = item.get("tool_call_id").and_then(Value::as_str) {
                drained.calls.remove(id);
            }
            self.server_tool_returned(item);
        }
        self.port
            .tell(Report::Chunk(Value::Object(shown).to_string()))
            .await;
    }

    async fn on_error_message(&self, chunk: &Chunk, drained: &mut Drained) {
        let info = chunk.object();
        let texts = [info.get("message"), info.get("detail")];
        let texts: Vec<&str> = texts
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let nothing_pending = texts.iter().any(|text| classify::is_nothing_pending(text));
        let desync = texts.iter().any(|text| classify::is_approval_desync(text));
        let silent = classify::is_deployment_interruption(&Value::Object(info.clone()));
        if !(silent || desync || nothing_pending) {
            let body = loop_error(&info, drained.cursor.run_id.as_deref());
            self.port
                .lifecycle(drained.cursor.run_id.as_deref(), body)
                .await;
        }
        drained.error_info = Some(info);
        if !(silent || nothing_pending) {
            self.show(chunk).await;
        }
    }

    /// A request was accepted: its stream is open.
    pub(crate) async fn accepted(&self) {
        self.port.status(LoopStatus::ProcessingApiResponse).await;
    }
}

/// Whether a resumed stream repeats what was shown already.
fn is_repeat(chunk: &Chunk, after: Option<&Cursor>) -> bool {
    let (Some(after), Some(run_id), Some(seq_id)) = (after, chunk.run_id.as_deref(), chunk.seq_id)
    else {
        return false;
    };
    after.run_id.as_deref() == Some(run_id) && seq_id <= after.seq_id
}

/// An `event: error` or a broken connection (03 §5.3).
fn note_failure(drained: &mut Drained, error: &StreamError) {
    drained.failure = Some(error.detail());
    if let StreamError::Server { body } = error
        && let Value::Object(body) = &**body
    {
        if body.get("message_type").and_then(Value::as_str) == Some("error_message") {
            drained.error_info = Some(body.clone());
        }
        if let Some(run_id) = body.get("run_id").and_then(Value::as_str) {
            drained.cursor.run_id = Some(run_id.to_owned());
        }
        if let Some(seq_id) = body.get("seq_id").and_then(Value::as_i64) {
            drained.cursor.seq_id = seq_id;
        }
    }
}

/// `{error:{message, detail?}}` without a message type (03 §4.3).
fn bare_error(chunk: &Map<String, Value>) -> Option<Map<String, Value>> {
    let error = chunk.get("error")?.as_object()?;
    let message = error.get("message")?.as_str()?;
    let text = match error.get("detail").and_then(Value::as_str) {
        Some(detail) => format!("{message}: {detail}"),
        None => message.to_owned(),
    };
    let mut info = Map::new();
    info.insert("message".into(), text.into());
    Some(info)
}
