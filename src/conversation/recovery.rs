//! Turns of an earlier process, and calls that the server still waits for
//! (spec 02 §10.2–10.4, 03 §14; 00 §8).
//!
//! Invariant: a call that may have started is never run again. One that
//! certainly never started is decided anew.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::actor::{Conversation, Done};
use super::asks::{RecoveredAsk, arguments};
use super::interrupt::denied_call;
use super::pending::pending_calls;
use super::services::Services;
use super::turn::{Decided, Opening, PendingCall, STALE};
use super::turns::{control_request, recovered_turn_id};
use crate::protocol::Scope;
use crate::protocol::command::ApprovalAnswer;
use crate::protocol::event::LoopStatus;
use crate::state::interrupted::InterruptedTurn;

/// The pause before a deferred record is looked at again.
const RETRY: Duration = Duration::from_secs(5);

/// Why a call that had started is closed: nobody knows how far it got, and a
/// command of it may even still run, so the model must look before it repeats it.
const CUT_OFF: &str = "The computer stopped while this tool call was running, so its result is lost. It may have finished, or done part of its work. Neither the user nor a policy denied it: check what it changed before you issue it again.";

/// Tools that only a human can answer.
const INTERACTIVE: [&str; 2] = ["AskUserQuestion", "ExitPlanMode"];

/// Records of this conversation that are not settled yet.
#[derive(Debug, Default)]
pub(crate) struct Recoveries {
    record: Option<InterruptedTurn>,
    running: bool,
    /// Calls that recovered questions stand for, answered together.
    calls: Vec<PendingCall>,
}

impl Recoveries {
    /// Nothing is left to settle.
    pub(crate) fn is_empty(&self) -> bool {
        self.record.is_none() && self.calls.is_empty()
    }

    /// A record is being looked up: no turn may begin before it is settled.
    pub(crate) fn is_running(&self) -> bool {
        self.running
    }
}

/// What a look-up of a record found.
#[derive(Debug)]
pub(crate) enum RecordOutcome {
    /// Not decidable now.
    Deferred,
    /// Nothing to do any more.
    Settled,
    /// Not ours, or for a human: `sync` asks.
    Leave,
    /// The calls never started: decide about them.
    Ask {
        calls: Vec<PendingCall>,
        run_id: Option<String>,
    },
    /// Answer them: with recorded results, else as stale.
    Continue {
        approvals: Vec<Value>,
        otid: Option<String>,
    },
}

/// What a `sync` found on the server.
#[derive(Debug)]
pub(crate) enum SyncFinding {
    /// Calls that wait, and whether to go on at once.
    Pending {
        calls: Vec<PendingCall>,
        resume: bool,
    },
    /// Nothing.
    Nothing,
}

impl Conversation {
    /// A record of an earlier process was found.
    pub(crate) fn recover_record(&mut self, record: InterruptedTurn) {
        if self.recoveries.running || !self.life.is_idle() {
            return;
        }
        self.recoveries.record = Some(record);
        self.look_up_record();
    }

    /// Deferred records are looked at again.
    pub(crate) fn retry_records(&mut self) {
        if self.recoveries.record.is_some() && !self.recoveries.running && self.life.is_idle() {
            self.look_up_record();
        }
    }

    fn look_up_record(&mut self) {
        let Some(record) = self.recoveries.record.clone() else {
            return;
        };
        self.recoveries.running = true;
        let services = Arc::clone(&self.services);
        let scope = self.scope.clone();
        self.job(async move {
            let outcome = look_up(&services, &scope, &record).await;
            Done::Record(Box::new(outcome))
        });
    }

    /// A record was looked up.
    pub(crate) fn on_record(&mut self, outcome: RecordOutcome) {
        self.recoveries.running = false;
        let record = match outcome {
            RecordOutcome::Deferred => {
                self.job(async {
                    tokio::time::sleep(RETRY).await;
                    Done::RecordTimer
                });
                return;
            }
            _ => self.recoveries.record.take(),
        };
        let Some(record) = record else { return };
        match outcome {
            RecordOutcome::Settled => self.forget_record(),
            RecordOutcome::Deferred | RecordOutcome::Leave => {}
            RecordOutcome::Ask { calls, run_id } => {
                let opening = Opening::Stop { calls, run_id };
                self.begin(
                    recovered_turn_id("startup-"),
                    opening,
                    None,
                    LoopStatus::SendingApiRequest,
                );
            }
            RecordOutcome::Continue { approvals, otid } => {
                let _ = record;
                let opening = Opening::Continue { approvals, otid };
                self.begin(
                    recovered_turn_id("startup-"),
                    opening,
                    None,
                    LoopStatus::SendingApiRequest,
                );
            }
        }
    }

    fn forget_record(&mut self) {
        let store = self.services.interrupted.clone();
        let Some(agent) = self.scope.agent_id.clone() else {
            return;
        };
        let conversation = Arc::clone(&self.scope.conversation_id);
        self.job(async move {
            if let Err(error) = store.delete(&agent, &conversation).await {
                tracing::warn!(%error, "A settled record could not be removed.");
            }
            Done::Nothing
        });
    }

    /// Whether `sync` may look for pending approvals (02 §10.2).
    pub(crate) fn may_recover(&self) -> bool {
        self.scope.agent_id.is_some()
            && self.life.is_idle()
            && !self.interrupt.is_held()
            && self.asks.waiting() == 0
            && self.recoveries.is_empty()
            && !self.recoveries.running
    }

    /// The look-up of a `sync`.
    pub(crate) fn sync_lookup(
        &self,
        resume: bool,
    ) -> impl Future<Output = Option<SyncFinding>> + Send + 'static {
        let services = Arc::clone(&self.services);
        let scope = self.scope.clone();
        async move {
            if !owns(&services, &scope).await {
                return None;
            }
            match pending_calls(&services.api, &scope).await {
                Ok(calls) if calls.is_empty() => Some(SyncFinding::Nothing),
                Ok(calls) => Some(SyncFinding::Pending { calls, resume }),
                Err(error) => {
                    tracing::warn!(?error, "Pending approvals could not be looked up.");
                    None
                }
            }
        }
    }

    /// Applies what a `sync` found (03 §14.3).
    pub(crate) fn apply_finding(&mut self, finding: SyncFinding) {
        let SyncFinding::Pending { calls, resume } = finding else {
            return;
        };
        if !self.may_recover() {
            return;
        }
        let interactive = calls
            .iter()
            .any(|call| INTERACTIVE.contains(&call.name.as_str()));
        if interactive {
            let asks = calls
                .iter()
                .filter(|call| INTERACTIVE.contains(&call.name.as_str()))
                .map(|call| {
                    RecoveredAsk::new(control_request(
                        &self.scope,
                        call.id.clone(),
                        call.name.clone(),
                        arguments(&call.args),
                        Vec::new(),
                        Vec::new(),
                    ))
                })
                .collect();
            self.asks.put_recovered(asks);
            self.recoveries.calls = calls;
        } else if resume {
            let approvals = stale(&calls);
            let opening = Opening::Continue {
                approvals,
                otid: None,
            };
            self.begin(
                recovered_turn_id(""),
                opening,
                None,
                LoopStatus::SendingApiRequest,
            );
        } else {
            let denials = calls
                .iter()
                .map(|call| denied_call(&call.id, STALE))
                .collect();
            self.interrupt.note(denials);
        }
    }

    /// The last recovered question was answered: run what was approved, close
    /// the rest as stale.
    pub(crate) fn continue_recovered(&mut self) {
        let answers = self.asks.take_recovered();
        let calls = std::mem::take(&mut self.recoveries.calls);
        let turn_id = answers.first().map_or_else(
            || recovered_turn_id(""),
            |ask| format!("batch-recovered-{}", ask.request.request_id),
        );
        let decided: Vec<Decided> = calls
            .into_iter()
            .map(|call| {
                let answer = answers
                    .iter()
                    .find(|ask| ask.request.request.tool_call_id == call.id)
                    .and_then(|ask| ask.answer.clone());
                Decided::new(call, answer, STALE)
            })
            .collect();
        let opening = Opening::Decided { calls: decided };
        self.begin(turn_id, opening, None, LoopStatus::ExecutingClientSideTool);
    }
}

/// Denials of calls that nobody will run.
fn stale(calls: &[PendingCall]) -> Vec<Value> {
    calls
        .iter()
        .map(|call| Value::Object(denied_call(&call.id, STALE)))
        .collect()
}

/// Whether this listener may act for the conversation (03 §14.4).
async fn owns(services: &Services, scope: &Scope) -> bool {
    let link = services.link.borrow().clone();
    let Some(connection) = link.connection.filter(|id| id.is_hosted()) else {
        return true;
    };
    let Some(agent) = scope.agent_id.as_deref() else {
        return false;
    };
    let statuses = services
        .api
        .runtime_status(agent, &[&scope.conversation_id])
        .await;
    match statuses {
        Ok(statuses) => statuses
            .iter()
            .find(|status| status.conversation_id == *scope.conversation_id)
            .is_some_and(|status| status.may_recover(connection.as_str())),
        Err(error) => error.is_no_endpoint() && !services.api.base_url().is_cloud(),
    }
}

/// The steps of 03 §14.5 for one record.
async fn look_up(services: &Services, scope: &Scope, record: &InterruptedTurn) -> RecordOutcome {
    if !owns(services, scope).await {
        return RecordOutcome::Deferred;
    }
    let Ok(calls) = pending_calls(&services.api, scope).await else {
        return RecordOutcome::Deferred;
    };
    if calls.is_empty() {
        return match &record.run_id {
            Some(run_id) => match services.api.run(run_id).await {
                Ok(run) if run.is_active() => RecordOutcome::Deferred,
                Ok(_) => RecordOutcome::Settled,
                Err(error) if error.is_missing() => RecordOutcome::Settled,
                Err(_) => RecordOutcome::Deferred,
            },
            None => RecordOutcome::Settled,
        };
    }
    judge(calls, record)
}

/// What to do with pending calls, given what the record says of them.
fn judge(calls: Vec<PendingCall>, record: &InterruptedTurn) -> RecordOutcome {
    let started = |call: &PendingCall| record.tool_call_ids.contains(&call.id);
    if calls.iter().all(started) {
        let result_of = |id: &str| {
            record
                .results
                .iter()
                .find(|item| item.get("tool_call_id").and_then(Value::as_str) == Some(id))
                .cloned()
        };
        let approvals: Vec<Value> = calls
            .iter()
            .map(|call| {
                Value::Object(result_of(&call.id).unwrap_or_else(|| denied_call(&call.id, CUT_OFF)))
            })
            .collect();
        let same = calls.len() == record.tool_call_ids.len();
        return RecordOutcome::Continue {
            approvals,
            otid: same.then(|| record.request_otid.clone()),
        };
    }
    if calls.iter().any(started) || record.run_id.is_none() || !record.tool_call_ids.is_empty() {
        return RecordOutcome::Leave;
    }
    // The record was written when the run began and names no call: none has started.
    RecordOutcome::Ask {
        calls,
        run_id: record.run_id.clone(),
    }
}

impl Decided {
    /// A call of an earlier turn: answered by a human, or stale.
    fn new(call: PendingCall, answer: Option<ApprovalAnswer>, stale: &str) -> Self {
        use super::turn::Choice;
        let decision = match answer {
            Some(ApprovalAnswer::Allow {
                message,
                updated_input,
                ..
            }) => Choice::Run {
                args: updated_input.unwrap_or_else(|| arguments(&call.args)),
                comment: message,
            },
            Some(ApprovalAnswer::Deny { message } | ApprovalAnswer::Error(message)) => {
                Choice::Deny { reason: message }
            }
            None => Choice::Deny {
                reason: stale.to_owned(),
            },
        };
        Self { call, decision }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(ids: &[&str], results: Value) -> InterruptedTurn {
        serde_json::from_value(json!({
            "agentId":"a","conversationId":"c","runId":"run-1","toolCallIds":ids,"results":results,
            "requestOtid":"otid-1","workingDirectory":"/","revision":"r",
        }))
        .unwrap()
    }

    fn call(id: &str) -> PendingCall {
        PendingCall {
            id: id.into(),
            name: "Bash".into(),
            args: "{}".into(),
            message_id: None,
        }
    }

    #[test]
    fn recorded_results_are_sent_and_started_calls_without_one_are_closed() {
        let results =
            json!([{"type":"tool","tool_call_id":"a","tool_return":"x","status":"success"}]);
        match judge(vec![call("a"), call("b")], &record(&["a", "b"], results)) {
            RecordOutcome::Continue { approvals, otid } => {
                assert_eq!(otid.as_deref(), Some("otid-1"));
                assert_eq!(approvals[0]["tool_return"], "x");
                assert_eq!(approvals[1]["approve"], false);
                assert_eq!(
                    approvals[1]["reason"], CUT_OFF,
                    "it must not be called harmless"
                );
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn calls_that_never_started_are_decided_again() {
        match judge(vec![call("a")], &record(&[], json!([]))) {
            RecordOutcome::Ask { calls, run_id } => {
                assert_eq!((calls.len(), run_id.as_deref()), (1, Some("run-1")));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_mixture_is_left_alone() {
        let outcome = judge(vec![call("a"), call("b")], &record(&["a"], json!([])));
        assert!(matches!(outcome, RecordOutcome::Leave));
        let outcome = judge(vec![call("b")], &record(&["a"], json!([])));
        assert!(matches!(outcome, RecordOutcome::Leave));
    }
}
