//! One turn: from the user's input to the end of the agent's answer
//! (spec 03 §8–§11).
//!
//! A turn runs as a task of its own. It owns the request it is working on and
//! the stream it reads; everything else it does by reporting to its
//! conversation through [`report::Port`]. It ends with one [`Outcome`].

mod after_stop;
mod calls;
mod chunk;
mod drain;
mod failure;
mod gate;
mod hooked;
mod preview;
mod record;
mod reminder_text;
mod report;
mod resume;
mod rows;
mod send;
mod setup;
mod stop;
mod surroundings;

use std::sync::Arc;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::after_stop::Retries;
use self::failure::TurnError;
use self::record::Record;
use self::report::Port;
use self::send::Step;
use self::stop::Progress;
use super::queue::BatchMessage;
use super::reminders::Due;
use super::services::Services;
use crate::api::Client;
use crate::permissions::{SessionRules, Workspace};
use crate::protocol::command::{ExecutionSettings, InputOptions};
use crate::protocol::event::Lifecycle;
use crate::protocol::{ConnectionId, Scope};
use crate::skills::Source;
use crate::tools::TurnTools;
use crate::tools::tool::ToolContext;

pub(crate) use self::calls::{Calls, PendingCall};
pub use self::drain::Guards;
pub(crate) use self::report::{Question, Report, Toolset};
pub(crate) use self::send::STALE;

/// How a turn begins.
#[derive(Debug)]
pub(crate) enum Opening {
    /// With the messages of its input.
    Messages,
    /// With calls that the server waits for and that never started (00 §8).
    Stop {
        calls: Vec<PendingCall>,
        run_id: Option<String>,
    },
    /// With answers for calls of an earlier turn, under their old otid (03 §14.5).
    Continue {
        approvals: Vec<Value>,
        otid: Option<String>,
    },
    /// With calls of an earlier turn that a human has just decided (03 §14.3).
    Decided { calls: Vec<stop::Decided> },
}

pub(crate) use self::stop::{Choice, Decided};

/// Everything a turn starts with.
#[derive(Debug)]
pub(crate) struct TurnInput {
    pub(crate) scope: Scope,
    pub(crate) opening: Opening,
    pub(crate) messages: Vec<BatchMessage>,
    pub(crate) options: InputOptions,
    /// What an abort left for this request; `None` when there was none.
    pub(crate) interrupted: Option<Vec<Map<String, Value>>>,
    pub(crate) due: Due,
    /// Where skills come from; `None` is everywhere.
    pub(crate) skill_sources: Option<Vec<Source>>,
    pub(crate) execution: Option<ExecutionSettings>,
    pub(crate) workspace: Option<Workspace>,
    pub(crate) session_rules: SessionRules,
    /// A later process may take up what is left of it.
    pub(crate) recorded: bool,
    /// The connection whose input began it.
    pub(crate) origin: Option<ConnectionId>,
    pub(crate) cancel: CancellationToken,
    pub(crate) reports: mpsc::Sender<Report>,
}

/// What people read of a failed turn.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shown {
    pub(crate) text: String,
    pub(crate) api_error: Option<Value>,
}

/// How a turn ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) stop_reason: String,
    pub(crate) run_id: Option<String>,
    /// `None` for ends without anything to tell.
    pub(crate) error: Option<Shown>,
    /// Only for headless runtimes.
    pub(crate) usage: Option<Value>,
    /// Answers for every call that the server still waits for after an abort.
    pub(crate) interrupted: Option<Vec<Map<String, Value>>>,
    /// The process goes down; the record lets the next one go on.
    pub(crate) parked: bool,
}

impl Outcome {
    /// An end with an error of ours.
    pub(crate) fn failed(text: &str) -> Self {
        Self {
            stop_reason: "error".into(),
            run_id: None,
            error: Some(Shown {
                text: text.into(),
                api_error: None,
            }),
            usage: None,
            interrupted: None,
            parked: false,
        }
    }
}

/// Why a turn left its loop.
#[derive(Debug)]
pub(crate) enum End {
    /// The server said `end_turn`.
    Finished,
    /// The turn was aborted here, or cancelled on the server.
    Cancelled,
    /// A limit on steps was reached.
    MaxSteps { taken: u64, limit: u64 },
    /// The process goes down.
    Parked,
    /// Nothing helps.
    Failed(TurnError),
}

/// Token counts over all streams of a turn.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usage {
    sums: Map<String, Value>,
}

impl Usage {
    const SUMMED: [&str; 7] = [
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "step_count",
        "cached_input_tokens",
        "cache_write_tokens",
        "reasoning_tokens",
    ];

    fn add(&mut self, statistics: &Map<String, Value>) {
        for key in Self::SUMMED {
            let more = statistics.get(key).and_then(Value::as_u64).unwrap_or(0);
            let sum = self.get(key).saturating_add(more);
            self.sums.insert(key.into(), sum.into());
        }
        if let Some(context) = statistics
            .get("context_tokens")
            .filter(|tokens| tokens.is_u64())
        {
            self.sums.insert("context_tokens".into(), context.clone());
        }
    }

    fn get(&self, key: &str) -> u64 {
        self.sums.get(key).and_then(Value::as_u64).unwrap_or(0)
    }

    fn into_value(mut self) -> Value {
        for key in Self::SUMMED {
            self.sums.entry(key).or_insert_with(|| json!(0));
        }
        Value::Object(self.sums)
    }
}

/// A running turn.
pub(crate) struct Turn {
    services: Arc<Services>,
    scope: Scope,
    /// Acts for the human of the turn.
    api: Client,
    port: Port,
    /// The messages of the current request, an approval first.
    outgoing: Vec<Value>,
    options: InputOptions,
    execution: Option<ExecutionSettings>,
    workspace: Option<Workspace>,
    session_rules: SessionRules,
    tools: Arc<TurnTools>,
    /// `client_skills` of every request.
    skills: Arc<RawValue>,
    /// Whether a request with them was accepted.
    skills_are_told: bool,
    /// What is new about them; it stands behind the messages of the first request.
    skill_news: Option<Value>,
    context: ToolContext,
    /// The last run.
    run_id: Option<String>,
    /// Whether clients know of it.
    run_is_shown: bool,
    record: Record,
    /// The approval stop under way, until its continuation was accepted.
    progress: Option<Progress>,
    human_decided: bool,
    server_calls: hooked::ServerCalls,
    retries: Retries,
    usage: Usage,
}

/// Runs a turn to its end.
pub(crate) async fn run(services: Arc<Services>, input: TurnInput) -> Outcome {
    let port = Port::new(input.reports.clone(), input.cancel.clone());
    let headless = input.execution.is_some();
    let scope = input.scope.clone();
    // Boxed: what is held over the whole turn should not lie in every conversation.
    let mut turn = match Box::pin(Turn::set_up(services, input, port.clone())).await {
        Ok(ready) => ready,
        Err(end) => {
            return Outcome {
                stop_reason: stop_reason_of(&end),
                error: shown(&end),
                ..Outcome::failed("")
            };
        }
    };
    tracing::debug!(conversation = %scope.conversation_id, "A turn begins.");
    let end = match Box::pin(turn.0.drive(turn.1)).await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    turn.0.end(end, headless).await
}

fn stop_reason_of(end: &End) -> String {
    match end {
        End::Finished => "end_turn".into(),
        End::Cancelled | End::Parked => "cancelled".into(),
        End::MaxSteps { .. } => "max_steps".into(),
        End::Failed(error) => error.stop_reason.clone(),
    }
}

fn shown(end: &End) -> Option<Shown> {
    match end {
        End::Failed(error) => error.text.clone().map(|text| Shown {
            text,
            api_error: error.api_error.clone(),
        }),
        _ => None,
    }
}

impl Turn {
    /// The main loop (03 §9.1): it is left only by an [`End`].
    async fn drive(&mut self, opening: Opening) -> Result<std::convert::Infallible, End> {
        let mut step = match opening {
            Opening::Messages => self.send().await?,
            Opening::Continue { approvals, otid } => {
                self.outgoing = vec![send::approval_message(approvals, otid)];
                self.append_queued().await?;
                self.send().await?
            }
            Opening::Stop { calls, run_id } => {
                self.run_id = run_id;
                self.on_approval_stop(calls).await?
            }
            Opening::Decided { calls } => self.on_decided(calls).await?,
        };
        loop {
            let drained = match step {
                Step::Drained(drained) => drained,
                Step::Stream(sent) => {
                    self.continuation_accepted().await;
                    self.drain(sent).await?
                }
            };
            self.check_steps(&drained.stop, drained.failure.is_some())?;
            step = match drained.stop.as_str() {
                "end_turn" => return Err(End::Finished),
                "cancelled" => return Err(End::Cancelled),
                "requires_approval" => self.on_approval_stop(drained.calls.into_vec()).await?,
                _ => self.after_stop(drained).await?,
            };
        }
    }

    /// `max_turns` of a headless runtime (03 §9.2).
    fn check_steps(&self, stop: &str, failed: bool) -> Result<(), End> {
        let Some(limit) = self
            .execution
            .as_ref()
            .and_then(|settings| settings.max_turns)
        else {
            return Ok(());
        };
        let taken = self.usage.get("step_count");
        let exempt = stop == "requires_approval" || (stop == "error" && failed);
        if taken >= limit && !exempt {
            Err(End::MaxSteps { taken, limit })
        } else {
            Ok(())
        }
    }

    /// The stream of a request is open (03 §9.1, §10.1 step 14).
    async fn continuation_accepted(&mut self) {
        let continued = self.progress.take().is_some();
        if continued && self.is_approval_only() {
            self.run_is_shown = false;
            self.port.tell(Report::Run(None)).await;
        }
        self.accepted().await;
        if continued {
            self.port.tell(Report::Executing(Vec::new())).await;
            self.port.tell(Report::Announce { device: true }).await;
        }
    }

    /// Closes the books.
    async fn end(mut self, end: End, headless: bool) -> Outcome {
        let cancelled = matches!(end, End::Cancelled) || self.port.is_cancelled();
        // A turn that the end of the process cut off keeps its record as well.
        let going_down = cancelled && self.services.draining.is_cancelled();
        let parked = matches!(end, End::Parked) || going_down;
        let interrupted = match (cancelled, self.progress.take()) {
            (true, Some(progress)) => Some(progress.interrupted()),
            _ => None,
        };
        if let End::MaxSteps { taken, limit } = &end {
            let body = Lifecycle::LoopError {
                message: format!("Maximum turns limit reached ({taken}/{limit} steps)"),
                stop_reason: "max_steps".into(),
                is_terminal: true,
                api_error: None,
            };
            self.port.lifecycle(self.run_id.as_deref(), body).await;
        }
        if !parked && (cancelled || matches!(end, End::Finished | End::Cancelled)) {
            self.record.delete().await;
        }
        Outcome {
            stop_reason: if cancelled {
                "cancelled".into()
            } else {
                stop_reason_of(&end)
            },
            run_id: self.run_id,
            error: if cancelled { None } else { shown(&end) },
            usage: headless.then(|| self.usage.into_value()),
            interrupted,
            parked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_summed_and_the_context_is_the_last_snapshot() {
        let mut usage = Usage::default();
        let add = |usage: &mut Usage, value: Value| usage.add(value.as_object().unwrap());
        add(
            &mut usage,
            json!({"prompt_tokens": 10, "step_count": 1, "context_tokens": 5}),
        );
        add(
            &mut usage,
            json!({"prompt_tokens": 7, "step_count": 1, "context_tokens": 9}),
        );
        let total = usage.into_value();
        assert_eq!(total["prompt_tokens"], 17);
        assert_eq!(total["step_count"], 2);
        assert_eq!(total["context_tokens"], 9);
        assert_eq!(total["reasoning_tokens"], 0);
    }
}
