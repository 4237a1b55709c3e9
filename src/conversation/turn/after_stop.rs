//! What follows a stop that is neither an end, nor a cancel, nor an approval:
//! another try, or the end of the turn (spec 03 §11.4–11.7).

use std::time::Duration;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::drain::Drained;
use super::failure::TurnError;
use super::send::{STALE, Step, approval_message, is_approval};
use super::{End, Turn};
use crate::api::classify::{self, RunFailure};
use crate::api::explain;
use crate::conversation::interrupt::denied_call;
use crate::conversation::pending::pending_calls;
use crate::protocol::event::LoopStatus;

const DESYNC_RETRIES: u32 = 2;
const EMPTY_RETRIES: u32 = 2;
const DEPLOYMENT_RETRIES: u32 = 3;
const TRANSIENT_RETRIES: u32 = 3;
const EMPTY_WAIT: Duration = Duration::from_millis(500);
const EDGE_WAIT: Duration = Duration::from_secs(5);
const TRANSIENT_WAIT: Duration = Duration::from_secs(1);

const NUDGE: &str = "<system-reminder>The last response was empty. Answer with text, or call a tool.</system-reminder>";
const KEEP_GOING: &str = "<system-reminder>The service restarted while you were working. Everything up to here is stored: continue where you stopped.</system-reminder>";

/// How often each case was tried; counted over the whole turn.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Retries {
    desync: u32,
    empty: u32,
    deployment: u32,
    transient: u32,
}

/// Everything known of the failed run.
struct Known {
    detail: Option<String>,
    info: Option<Map<String, Value>>,
    error_type: Option<String>,
    retryable: Option<bool>,
    is_desync: bool,
    is_deployment: bool,
}

impl Turn {
    /// Decides about a failed run: the next step, or the end of the turn.
    pub(crate) async fn after_stop(&mut self, drained: Drained) -> Result<Step, End> {
        let known = self.look_up(&drained).await?;
        let detail = known.detail.as_deref().unwrap_or_default();
        if known.is_deployment {
            if self.retries.deployment < DEPLOYMENT_RETRIES {
                self.retries.deployment += 1;
                self.outgoing = vec![reminder_message(KEEP_GOING)];
                return self.send_again().await;
            }
        } else if known.is_desync && self.retries.desync < DESYNC_RETRIES {
            self.retries.desync += 1;
            tracing::debug!(
                attempt = self.retries.desync,
                "Client and server disagree about approvals."
            );
            self.answer_stale().await?;
            return self.send_again().await;
        } else if drained.stop == "llm_api_error"
            && classify::is_empty_response(detail)
            && self.retries.empty < EMPTY_RETRIES
        {
            self.retries.empty += 1;
            let attempt = self.retries.empty;
            let text =
                format!("Empty LLM response, retrying (attempt {attempt}/{EMPTY_RETRIES})...");
            let wait = EMPTY_WAIT * attempt;
            self.tell_retry(&text, "llm_api_error", attempt, EMPTY_RETRIES, wait)
                .await;
            self.port.unless_cancelled(tokio::time::sleep(wait)).await?;
            if attempt == EMPTY_RETRIES {
                self.outgoing.push(reminder_message(NUDGE));
            }
            self.renew_otids();
            return self.send_again().await;
        } else if self.retries.transient < TRANSIENT_RETRIES
            && classify::retry_after_stop(&RunFailure {
                stop_reason: &drained.stop,
                error_type: known.error_type.as_deref(),
                retryable: known.retryable,
                detail,
            })
        {
            self.retries.transient += 1;
            let attempt = self.retries.transient;
            let first = if classify::is_cloudflare(detail) {
                EDGE_WAIT
            } else {
                TRANSIENT_WAIT
            };
            let wait = first * 2u32.pow(attempt - 1);
            let text = if detail.is_empty() {
                format!(
                    "LLM API error encountered, retrying (attempt {attempt}/{TRANSIENT_RETRIES})..."
                )
            } else {
                explain::retry_text(detail, None)
            };
            self.tell_retry(&text, "llm_api_error", attempt, TRANSIENT_RETRIES, wait)
                .await;
            self.port.unless_cancelled(tokio::time::sleep(wait)).await?;
            self.renew_otids();
            return self.send_again().await;
        }
        Err(End::Failed(TurnError::of_stop(
            &drained.stop,
            known.detail.as_deref(),
            known.info.as_ref(),
            &self.scope,
            self.run_id.as_deref(),
        )))
    }

    async fn send_again(&mut self) -> Result<Step, End> {
        self.port.status(LoopStatus::SendingApiRequest).await;
        self.send().await
    }

    /// Asks the server about the run, and chooses the text that decides (03 §11.4).
    async fn look_up(&self, drained: &Drained) -> Result<Known, End> {
        let run = match &drained.cursor.run_id {
            Some(run_id) => self.port.unless_cancelled(self.api.run(run_id)).await?.ok(),
            None => None,
        };
        let of_run = run
            .as_ref()
            .and_then(|run| run.error())
            .and_then(Value::as_object)
            .cloned();
        let of_stream = drained.error_info.clone();
        let text = |info: Option<&Map<String, Value>>, key: &str| {
            info.and_then(|info| info.get(key))
                .and_then(Value::as_str)
                .map(String::from)
        };
        let texts = [
            text(of_stream.as_ref(), "detail"),
            text(of_stream.as_ref(), "message"),
            text(of_run.as_ref(), "detail"),
            text(of_run.as_ref(), "message"),
            drained.failure.clone(),
        ];
        let desync = texts
            .iter()
            .flatten()
            .find(|text| classify::is_approval_desync(text) || classify::is_nothing_pending(text))
            .cloned();
        let is_deployment = [&of_stream, &of_run]
            .into_iter()
            .flatten()
            .any(|info| classify::is_deployment_interruption(&Value::Object(info.clone())));
        let info = of_stream.or(of_run);
        let field = |keys: [&str; 2]| {
            info.as_ref()
                .and_then(|info| keys.into_iter().find_map(|key| info.get(key)))
        };
        Ok(Known {
            is_desync: desync.is_some(),
            detail: desync.or_else(|| texts.into_iter().flatten().find(|text| !text.is_empty())),
            error_type: field(["error_type", "type"])
                .and_then(Value::as_str)
                .map(String::from),
            retryable: field(["retryable", "retryable"]).and_then(Value::as_bool),
            is_deployment,
            info,
        })
    }

    /// Puts denials of what the server reports pending in front of the request,
    /// instead of the approval that did not fit.
    async fn answer_stale(&mut self) -> Result<(), End> {
        let lookup = pending_calls(&self.api, &self.scope);
        let pending = self
            .port
            .unless_cancelled(lookup)
            .await?
            .unwrap_or_default();
        self.outgoing.retain(|message| !is_approval(message));
        self.renew_otids();
        if !pending.is_empty() {
            let denials = pending
                .iter()
                .map(|call| Value::Object(denied_call(&call.id, STALE)))
                .collect();
            self.outgoing.insert(0, approval_message(denials, None));
        }
        if self.outgoing.is_empty() {
            self.outgoing.push(reminder_message(KEEP_GOING));
        }
        Ok(())
    }

    /// A new run needs new otids (03 §3.5).
    fn renew_otids(&mut self) {
        for message in &mut self.outgoing {
            if let Value::Object(message) = message {
                message.insert("otid".into(), Uuid::new_v4().to_string().into());
            }
        }
    }
}

/// A user message of the harness.
pub(crate) fn reminder_message(text: &str) -> Value {
    json!({
        "role": "user", "content": [{"type": "text", "text": text}],
        "otid": Uuid::new_v4().to_string(),
    })
}
