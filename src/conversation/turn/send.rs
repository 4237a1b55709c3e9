//! Sending one request, with everything that can go wrong before its stream
//! opens (spec 03 §11.2–11.3).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use uuid::Uuid;

use super::drain::Drained;
use super::failure::TurnError;
use super::report::Report;
use super::{End, Turn};
use crate::api::ApiError;
use crate::api::classify;
use crate::api::explain;
use crate::api::messages::{MessageRequest, Sent};
use crate::conversation::interrupt::denied_call;
use crate::conversation::pending::pending_calls;
use crate::protocol::event::{Lifecycle, LoopStatus};
use crate::skills::Told;

/// Tries after a transient failure, and after a busy conversation.
const RETRIES: u32 = 3;
/// How often stale approvals are cleared for one request.
const DESYNC_RETRIES: u32 = 2;
/// The pause between looks at the run that is in the way.
const BUSY_POLL: Duration = Duration::from_secs(5);
/// How long that run is waited for.
const BUSY_DEADLINE: Duration = Duration::from_secs(300);
/// The first wait for a busy conversation whose run is not known; it doubles.
const BUSY_WAIT: Duration = Duration::from_secs(10);
/// The first wait after an error of the edge.
const EDGE_WAIT: Duration = Duration::from_secs(5);
/// The longest wait that a server may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Why stale calls are denied: true, and useful to the model (03 §11.3).
pub(crate) const STALE: &str = "This pending tool call was closed by the computer to bring client and server back in step. It was not running and no result of it was recorded. Neither the user nor a policy denied it: issue the call again if it is still needed.";

/// What became of a request.
pub(crate) enum Step {
    /// Its stream is open.
    Stream(Sent),
    /// Clearing stale approvals took its place, and this is how that ended.
    Drained(Drained),
}

impl Turn {
    /// The otid that identifies the current request.
    pub(crate) fn request_otid(&self) -> Option<&str> {
        self.outgoing.first()?.get("otid")?.as_str()
    }

    /// Whether the current request consists of an approval alone.
    pub(crate) fn is_approval_only(&self) -> bool {
        self.outgoing.len() == 1 && is_approval(&self.outgoing[0])
    }

    /// Sends the current request.
    pub(crate) async fn send(&mut self) -> Result<Step, End> {
        let approval_only = self.is_approval_only();
        let (mut desyncs, mut busy, mut transient) = (0, 0, 0);
        let mut waited_for = HashSet::new();
        loop {
            self.port.status(LoopStatus::WaitingForApiResponse).await;
            let error = match self.post().await? {
                Ok(sent) => return Ok(Step::Stream(sent)),
                Err(error) => error,
            };
            let detail = error.detail();
            if classify::is_approval_desync(&detail) {
                desyncs += 1;
                if desyncs > DESYNC_RETRIES {
                    return Err(self.conflict(approval_only, &error).await);
                }
                self.port.status(LoopStatus::RetryingApiRequest).await;
                match self.clear_stale().await? {
                    Some(drained) if approval_only => return end_of_recovery(drained),
                    _ => continue,
                }
            }
            if let Some(in_the_way) = classify::busy(&detail) {
                busy += 1;
                self.port.status(LoopStatus::RetryingApiRequest).await;
                if let Some(sent) = self.accepted_before().await? {
                    return Ok(Step::Stream(sent));
                }
                match in_the_way.run_id {
                    Some(run_id) if waited_for.insert(run_id.clone()) => {
                        self.wait_for_run(&run_id, busy.min(RETRIES)).await?;
                        continue;
                    }
                    _ if busy <= RETRIES => {
                        let wait = BUSY_WAIT * 2u32.saturating_pow(busy - 1);
                        let text = "Conversation is busy, waiting and retrying…";
                        self.retry_after(text, "error", busy, wait).await?;
                        continue;
                    }
                    _ => return Err(self.request_failed(&error)),
                }
            }
            if !classify::retry_before_stream(error.status(), &detail) || transient >= RETRIES {
                return Err(self.request_failed(&error));
            }
            transient += 1;
            self.port.status(LoopStatus::RetryingApiRequest).await;
            let first = if classify::is_cloudflare(&detail) {
                EDGE_WAIT
            } else {
                Duration::from_secs(1)
            };
            let wait = error
                .retry_after(SystemTime::now())
                .unwrap_or(first * 2u32.pow(transient - 1))
                .min(LONGEST_WAIT);
            if classify::is_shutdown_rejection(&error) {
                self.port.unless_cancelled(tokio::time::sleep(wait)).await?;
            } else {
                let text = explain::retry_text(&detail, None);
                self.retry_after(&text, "error", transient, wait).await?;
            }
        }
    }

    /// One POST of the current request.
    async fn post(&mut self) -> Result<Result<Sent, ApiError>, End> {
        let news = &self.skill_news;
        let continues = self.is_approval_only() && !self.human_decided && news.is_none();
        let response_state = self.services.response_states.take(&self.scope, continues);
        let client_tools = self.tools.client_tools();
        let with_news: Option<Vec<Value>> = news
            .as_ref()
            .map(|news| self.outgoing.iter().chain([news]).cloned().collect());
        let request = MessageRequest {
            scope: &self.scope,
            messages: with_news.as_deref().unwrap_or(&self.outgoing),
            client_tools,
            client_skills: self.skills.clone(),
            response_format: self.options.response_format.as_ref(),
            response_state: response_state.as_deref(),
        };
        let sent = self
            .port
            .unless_cancelled(self.api.send_messages(&request))
            .await?;
        if sent.is_ok() && !self.skills_are_told {
            self.skills_are_told = true;
            self.skill_news = None;
            let told = Told(Arc::clone(&self.skills));
            self.port.tell(Report::SkillsTold(told)).await;
        }
        Ok(sent)
    }

    /// Tells of a retry, and waits for it.
    pub(crate) async fn retry_after(
        &self,
        message: &str,
        reason: &str,
        attempt: u32,
        wait: Duration,
    ) -> Result<(), End> {
        self.tell_retry(message, reason, attempt, RETRIES, wait)
            .await;
        self.port.unless_cancelled(tokio::time::sleep(wait)).await
    }

    /// Tells of a retry.
    pub(crate) async fn tell_retry(
        &self,
        message: &str,
        reason: &str,
        attempt: u32,
        max_attempts: u32,
        wait: Duration,
    ) {
        let body = Lifecycle::Retry {
            message: message.to_owned(),
            reason: reason.to_owned(),
            attempt,
            max_attempts,
            delay_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
        };
        self.port.lifecycle(self.run_id.as_deref(), body).await;
    }

    /// The same request may have been accepted before: then its stream is the answer.
    async fn accepted_before(&self) -> Result<Option<Sent>, End> {
        let Some(otid) = self.request_otid() else {
            return Ok(None);
        };
        let open = self.api.request_stream(
            &self.scope.conversation_id,
            self.scope.agent_id.as_deref(),
            otid,
            0,
        );
        let stream = self.port.unless_cancelled(open).await?.ok();
        Ok(stream.map(|stream| Sent {
            stream,
            resumable: true,
        }))
    }

    /// Waits until the run that is in the way has ended (03 §11.2a).
    async fn wait_for_run(&self, run_id: &str, attempt: u32) -> Result<(), End> {
        let text = format!("Conversation is busy; waiting for run {run_id} to finish…");
        self.tell_retry(&text, "error", attempt, RETRIES, BUSY_POLL)
            .await;
        let deadline = tokio::time::Instant::now() + BUSY_DEADLINE;
        loop {
            self.port
                .unless_cancelled(tokio::time::sleep(BUSY_POLL))
                .await?;
            let run = self.port.unless_cancelled(self.api.run(run_id)).await?;
            match run {
                Ok(run) if matches!(run.status.as_deref(), Some("created" | "running")) => {}
                Ok(_) => return Ok(()),
                Err(_) => {
                    let wait = BUSY_WAIT * 2u32.saturating_pow(attempt.saturating_sub(1));
                    return self.port.unless_cancelled(tokio::time::sleep(wait)).await;
                }
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(End::Failed(TurnError::plain(format!(
                    "Conversation is still busy because run {run_id} remained active after {}ms",
                    BUSY_DEADLINE.as_millis()
                ))));
            }
        }
    }

    /// The error of a request that is not repeated any more.
    fn request_failed(&self, error: &ApiError) -> End {
        End::Failed(TurnError::of_request(
            error,
            &self.scope,
            self.run_id.as_deref(),
        ))
    }

    /// Stale approvals could not be cleared: what the active run says about it,
    /// else that it was tried.
    async fn conflict(&self, approval_only: bool, error: &ApiError) -> End {
        let run = match &self.run_id {
            Some(run_id) => self.api.run(run_id).await.ok(),
            None => None,
        };
        let told = run.as_ref().and_then(|run| run.error()).and_then(|error| {
            error
                .get("detail")
                .or_else(|| error.get("message"))
                .and_then(Value::as_str)
        });
        let what = if approval_only {
            "Approval continuation conflict"
        } else {
            "Pre-stream approval conflict"
        };
        let text = told.map_or_else(
            || format!("{what} after {DESYNC_RETRIES} recovery attempts"),
            String::from,
        );
        tracing::warn!(%error, "Stale approvals could not be cleared.");
        End::Failed(TurnError::plain(text))
    }

    /// Denies what the server still waits for and reads what it says to that,
    /// until it waits for nothing (03 §11.3). `None` when nothing was pending.
    async fn clear_stale(&mut self) -> Result<Option<Drained>, End> {
        let lookup = pending_calls(&self.api, &self.scope);
        let mut calls = match self.port.unless_cancelled(lookup).await? {
            Ok(calls) => calls,
            Err(error) => return Err(self.request_failed(&error)),
        };
        if calls.is_empty() {
            return Ok(None);
        }
        let original = std::mem::take(&mut self.outgoing);
        let drained = loop {
            let denials: Vec<Value> = calls
                .iter()
                .map(|call| Value::Object(denied_call(&call.id, STALE)))
                .collect();
            self.outgoing = vec![approval_message(denials, None)];
            self.append_queued().await?;
            self.port.status(LoopStatus::WaitingForApiResponse).await;
            let sent = match self.post().await? {
                Ok(sent) => sent,
                Err(error) => return Err(self.request_failed(&error)),
            };
            self.accepted().await;
            let drained = self.drain(sent).await?;
            match drained.stop.as_str() {
                "requires_approval" => calls = drained.calls.into_vec(),
                "error" => {
                    let text = drained
                        .failure
                        .unwrap_or_else(|| "Unexpected stop reason: error".into());
                    return Err(End::Failed(TurnError::plain(text)));
                }
                _ => break drained,
            }
        };
        self.outgoing = original;
        Ok(Some(drained))
    }

    /// Lets what waits in the queue join the current request (03 §10.5).
    pub(crate) async fn append_queued(&mut self) -> Result<(), End> {
        if let Some(batch) = self.port.take_queued().await {
            let messages =
                super::setup::prepared(&self.services, &self.port, batch.messages, &batch.options);
            let messages = messages.await?;
            self.outgoing.extend(messages);
        }
        Ok(())
    }
}

/// An approval continuation that was replaced by recovery ends with it.
fn end_of_recovery(drained: Drained) -> Result<Step, End> {
    match drained.stop.as_str() {
        "end_turn" | "cancelled" => Ok(Step::Drained(drained)),
        stop => Err(End::Failed(TurnError::plain(format!(
            "Recovery continuation ended unexpectedly: {stop}"
        )))),
    }
}

/// Whether a message is an approval.
pub(crate) fn is_approval(message: &Value) -> bool {
    message.get("type").and_then(Value::as_str) == Some("approval")
}

/// `{type:"approval", approvals, otid}` (03 §3.4).
pub(crate) fn approval_message(approvals: Vec<Value>, otid: Option<String>) -> Value {
    let otid = otid.unwrap_or_else(|| Uuid::new_v4().to_string());
    json!({"type": "approval", "approvals": approvals, "otid": otid})
}
