//! An approval stop: decide about the calls, run the approved ones, continue
//! with the results (spec 03 §10).

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::calls::PendingCall;
use super::failure::TurnError;
use super::report::{Question, Report};
use super::send::{Step, approval_message};
use super::{End, Turn};
use crate::conversation::asks::arguments;
use crate::conversation::echo::user_row;
use crate::conversation::interrupt::{DENIED_BY_INTERRUPT, denied_call, interrupted_call};
use crate::permissions::classify::{self, Disposition};
use crate::permissions::{RuleList, Suggestion};
use crate::protocol::PermissionMode;
use crate::protocol::command::ApprovalAnswer;
use crate::protocol::event::{Lifecycle, LoopStatus};
use crate::tools::image::OnFailure;
use crate::tools::tool::OutputStream;
use crate::tools::{Status, ToolCall, ToolOutcome, arguments as tool_arguments, result};

/// A call and what was decided about it.
#[derive(Clone, Debug)]
pub(crate) struct Decided {
    pub(crate) call: PendingCall,
    pub(crate) decision: Choice,
}

/// What was decided about a call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Choice {
    /// Run it with these arguments.
    Run {
        args: Map<String, Value>,
        comment: Option<String>,
    },
    /// Do not run it; the reason is for the model.
    Deny { reason: String },
}

/// How far an approval stop got, for an abort in the middle of it (03 §13.4).
#[derive(Debug)]
pub(crate) struct Progress {
    calls: Vec<String>,
    decided: Vec<Decided>,
    results: Vec<Value>,
}

impl Progress {
    /// An answer for every call that the server waits for.
    pub(crate) fn interrupted(self) -> Vec<Map<String, Value>> {
        let mut answers: HashMap<String, Map<String, Value>> = HashMap::new();
        for Decided { call, decision } in &self.decided {
            let answer = match decision {
                Choice::Run { .. } => interrupted_call(&call.id),
                Choice::Deny { reason } => denied_call(&call.id, reason),
            };
            answers.insert(call.id.clone(), answer);
        }
        for item in self.results {
            if let (Some(id), Value::Object(object)) = (
                item.get("tool_call_id")
                    .and_then(Value::as_str)
                    .map(String::from),
                &item,
            ) {
                answers.insert(id, object.clone());
            }
        }
        self.calls
            .iter()
            .map(|id| {
                answers
                    .remove(id)
                    .unwrap_or_else(|| denied_call(id, DENIED_BY_INTERRUPT))
            })
            .collect()
    }
}

/// A call that waits for a human.
struct Undecided {
    call: PendingCall,
    args: Map<String, Value>,
    /// The rule that the human may save with an approval.
    suggestion: Option<Suggestion>,
}

impl Turn {
    /// Handles the calls of a stop and sends what came of them.
    pub(crate) async fn on_approval_stop(&mut self, calls: Vec<PendingCall>) -> Result<Step, End> {
        if calls.is_empty() {
            return Err(End::Failed(TurnError::plain(
                "requires_approval stop returned no approvals",
            )));
        }
        self.progress = Some(Progress {
            calls: calls.iter().map(|call| call.id.clone()).collect(),
            decided: Vec::new(),
            results: Vec::new(),
        });
        self.human_decided = false;
        let undecided = self.classify(calls).await;
        self.ask_humans(undecided).await?;
        self.run_decided().await
    }

    /// Continues with calls of an earlier turn that a human has decided.
    pub(crate) async fn on_decided(&mut self, calls: Vec<Decided>) -> Result<Step, End> {
        self.human_decided = true;
        self.progress = Some(Progress {
            calls: calls
                .iter()
                .map(|decided| decided.call.id.clone())
                .collect(),
            decided: calls,
            results: Vec::new(),
        });
        self.run_decided().await
    }

    fn decide_call(&mut self, call: PendingCall, decision: Choice) {
        if let Some(progress) = &mut self.progress {
            progress.decided.push(Decided { call, decision });
        }
    }

    /// Decides what needs no human: first what is allowed, then what is denied (03 §10.2).
    async fn classify(&mut self, calls: Vec<PendingCall>) -> Vec<Undecided> {
        let (mut allowed, mut denied, mut undecided) = (Vec::new(), Vec::new(), Vec::new());
        for call in calls {
            match self.first_look(&call).await {
                Look::Allow(args) => allowed.push((
                    call,
                    Choice::Run {
                        args,
                        comment: None,
                    },
                )),
                Look::Deny(reason) => denied.push((call, Choice::Deny { reason })),
                Look::Ask(args, suggestion) => undecided.push(Undecided {
                    call,
                    args,
                    suggestion,
                }),
            }
        }
        let ids = |calls: &[(PendingCall, Choice)]| -> Vec<String> {
            calls.iter().map(|(call, _)| call.id.clone()).collect()
        };
        let body = Lifecycle::ApprovalClassificationEnd {
            auto_allowed_tool_call_ids: ids(&allowed),
            auto_denied_tool_call_ids: ids(&denied),
            user_input_tool_call_ids: undecided.iter().map(|u| u.call.id.clone()).collect(),
        };
        self.port.lifecycle(self.run_id.as_deref(), body).await;
        for (call, decision) in allowed.into_iter().chain(denied) {
            self.decide_call(call, decision);
        }
        undecided
    }

    async fn first_look(&self, call: &PendingCall) -> Look {
        if call.name.is_empty() {
            return Look::Deny(String::from(classify::MISSING_NAME));
        }
        let required = self.tools.required(&call.name);
        let checked = tool_arguments::check(&call.name, &call.args, required);
        if let Some(reason) = checked.denial {
            return Look::Deny(reason);
        }
        match self.judge(&call.name, &checked.args).await {
            Disposition::Run => Look::Allow(checked.args),
            Disposition::Deny(reason) => Look::Deny(reason),
            Disposition::Ask { suggestion } => Look::Ask(checked.args, suggestion),
        }
    }

    /// Asks about the rest, one at a time. A saved rule decides about those
    /// that follow (02 §9.1).
    async fn ask_humans(&mut self, undecided: Vec<Undecided>) -> Result<(), End> {
        let mut rules_changed = false;
        for Undecided {
            call,
            args,
            mut suggestion,
        } in undecided
        {
            if rules_changed {
                match self.judge(&call.name, &args).await {
                    Disposition::Ask { suggestion: other } => suggestion = other,
                    Disposition::Run => {
                        let comment = None;
                        self.decide_call(call, Choice::Run { args, comment });
                        continue;
                    }
                    Disposition::Deny(reason) => {
                        self.decide_call(call, Choice::Deny { reason });
                        continue;
                    }
                }
            }
            if self.execution.is_some() {
                let reason = String::from("Tool requires approval (headless mode)");
                self.decide_call(call, Choice::Deny { reason });
                continue;
            }
            self.human_decided = true;
            let answered = self.wait_for_human(&call, &args, suggestion).await?;
            if answered.rules_changed {
                rules_changed = true;
                if let Some(suggestion) = answered.saved_for_session {
                    self.session_rules.add(RuleList::Allow, &suggestion);
                }
            }
            let decision = match answered.answer {
                ApprovalAnswer::Allow {
                    message,
                    updated_input,
                    ..
                } => Choice::Run {
                    args: updated_input.unwrap_or(args),
                    comment: message.filter(|comment| !comment.trim().is_empty()),
                },
                ApprovalAnswer::Deny { message } if message.is_empty() => Choice::Deny {
                    reason: String::from(classify::DENIED_BY_CLIENT),
                },
                ApprovalAnswer::Deny { message } | ApprovalAnswer::Error(message) => {
                    Choice::Deny { reason: message }
                }
            };
            self.decide_call(call, decision);
        }
        Ok(())
    }

    async fn wait_for_human(
        &self,
        call: &PendingCall,
        args: &Map<String, Value>,
        savable: Option<Suggestion>,
    ) -> Result<crate::conversation::asks::Answered, End> {
        let question = Question {
            tool_call_id: call.id.clone(),
            tool_name: call.name.clone(),
            input: args.clone(),
            savable,
            diffs: super::preview::diffs(&call.name, args, &self.context.cwd.get()).await,
            run_id: self.run_id.clone(),
        };
        let draining = self.services.draining.clone();
        tokio::select! {
            answer = self.port.ask(question) => answer,
            // The question is asked again by the next process: nothing has run (00 §8).
            () = draining.cancelled() => Err(End::Parked),
        }
    }

    /// Runs what was approved and sends all results (03 §10.1 steps 6–14).
    async fn run_decided(&mut self) -> Result<Step, End> {
        let Some(progress) = &self.progress else {
            return Err(End::Failed(TurnError::plain("No calls were decided.")));
        };
        let decided = progress.decided.clone();
        let approved: Vec<String> = decided
            .iter()
            .filter(|decided| matches!(decided.decision, Choice::Run { .. }))
            .map(|decided| decided.call.id.clone())
            .collect();
        if !approved.is_empty() {
            self.wait_for_transport().await?;
        }
        self.record
            .starting(decided.iter().map(|d| d.call.id.clone()).collect())
            .await;
        self.port.tell(Report::Executing(approved)).await;
        self.port.status(LoopStatus::ExecutingClientSideTool).await;
        self.port.tell(Report::Announce { device: true }).await;
        let (results, follow_ups) = self.run_calls(&decided).await;
        if let Some(progress) = &mut self.progress {
            progress.results.clone_from(&results);
        }
        self.record.finished(&results).await;
        if self.port.is_cancelled() {
            return Err(End::Cancelled);
        }
        if self.services.draining.is_cancelled() {
            return Err(End::Parked);
        }
        let answer = vec![approval_message(results, Some(self.record.request_otid()))];
        // Tools of ours return images that fit; others may return any.
        let prepare = self.services.images.prepare(answer, OnFailure::Fail);
        self.outgoing = prepare
            .await
            .map_err(|error| End::Failed(TurnError::plain(error.to_string())))?;
        self.follow_up(follow_ups).await;
        self.append_queued().await?;
        self.port.tell(Report::Executing(Vec::new())).await;
        self.port.status(LoopStatus::SendingApiRequest).await;
        self.send().await
    }

    /// Nothing runs while no client transport is open (02 §9.1 step 6).
    async fn wait_for_transport(&self) -> Result<(), End> {
        let mut link = self.services.link.clone();
        let draining = self.services.draining.clone();
        tokio::select! {
            open = self.port.unless_cancelled(link.wait_for(|link| link.open)) => {
                // The sender lives as long as the process.
                open.map(|_| ())
            }
            () = draining.cancelled() => Err(End::Parked),
        }
    }

    /// Runs the approved calls; the items of all calls, in decision order.
    async fn run_calls(&mut self, decided: &[Decided]) -> (Vec<Value>, Vec<String>) {
        self.context.secrets = self.services.agents.secrets(&self.api, &self.scope).await;
        let mode = self.services.remote.mode_of(&self.scope).mode;
        self.context.closed = if mode == PermissionMode::Unrestricted {
            Arc::default()
        } else {
            let files = self.services.credential_files.iter();
            files.map(std::path::PathBuf::from).collect()
        };
        let (progress_in, progress) = mpsc::unbounded_channel();
        let mut calls = Vec::new();
        for Decided { call, decision } in decided {
            let Choice::Run { args, .. } = decision else {
                continue;
            };
            self.port
                .tell(Report::ToolStarted {
                    delta_id: call.message_id.clone(),
                    run_id: self.run_id.clone(),
                    tool_call_id: call.id.clone(),
                    tool_name: call.name.clone(),
                    tool_args: args_text(call, args),
                })
                .await;
            let id: Arc<str> = call.id.as_str().into();
            calls.push(ToolCall {
                output: OutputStream::new(id.clone(), progress_in.clone()),
                id,
                name: call.name.as_str().into(),
                args: args.clone(),
                cancel: self.port.cancel_token().clone(),
            });
        }
        drop(progress_in);
        let before = self.context.cwd.get();
        let mode_before = self.services.remote.mode_of(&self.scope).mode;
        let tools = Arc::clone(&self.tools);
        let started = tokio::time::Instant::now();
        let mut outcomes = {
            let run = tools.run_batch(&calls, &self.context);
            let stop_showing = tokio_util::sync::CancellationToken::new();
            let finished = async {
                let outcomes = run.await;
                stop_showing.cancel();
                outcomes
            };
            tokio::join!(finished, self.show_progress(progress, &stop_showing)).0
        };
        let elapsed = started.elapsed();
        let after = self.context.cwd.get();
        if after != before {
            self.port.tell(Report::CwdChanged(after)).await;
        }
        let mode = self.services.remote.mode_of(&self.scope).mode;
        let switches = |call: &ToolCall| matches!(&*call.name, "EnterPlanMode" | "ExitPlanMode");
        if mode != mode_before && calls.iter().any(switches) {
            self.port.tell(Report::ModeSwitched(mode)).await;
        }
        for (call, outcome) in calls.iter().zip(&outcomes) {
            self.services
                .metrics
                .tool_done(&call.name, outcome.status, elapsed);
        }
        let texts = outcomes
            .iter_mut()
            .filter_map(|outcome| outcome.follow_up.take());
        let follow_ups = texts.collect();
        (self.tell_results(decided, outcomes).await, follow_ups)
    }

    /// What tools have to say beside their results goes with them as one user
    /// message, and is shown as such (04 §7.9).
    async fn follow_up(&mut self, texts: Vec<String>) {
        if texts.is_empty() {
            return;
        }
        let parts: Vec<Value> = texts
            .into_iter()
            .map(|text| json!({"type": "text", "text": text}))
            .collect();
        let otid = uuid::Uuid::new_v4().to_string();
        self.outgoing
            .push(json!({"role": "user", "content": parts, "otid": otid}));
        let shown = user_row(Value::Array(parts), otid.into());
        self.port.tell(Report::Row(shown)).await;
    }

    /// `client_tool_end` for every call, then a row for every call (03 §10.1 step 11).
    async fn tell_results(&self, decided: &[Decided], outcomes: Vec<ToolOutcome>) -> Vec<Value> {
        let mut outcomes = outcomes.into_iter();
        let mut items = Vec::with_capacity(decided.len());
        let mut rows = Vec::with_capacity(decided.len());
        for Decided { call, decision } in decided {
            let (item, status, text, started) = match decision {
                Choice::Run { comment, .. } => {
                    let outcome = outcomes.next().unwrap_or_else(ToolOutcome::interrupted);
                    let item = result::executed(&call.id, &outcome, comment.as_deref());
                    (
                        item,
                        outcome.status.as_str(),
                        result::text_view(&outcome.tool_return),
                        true,
                    )
                }
                Choice::Deny { reason } => (
                    result::denied(&call.id, reason),
                    Status::Error.as_str(),
                    reason.clone(),
                    false,
                ),
            };
            self.port
                .tell(Report::ToolFinished {
                    delta_id: call.message_id.clone(),
                    run_id: self.run_id.clone(),
                    tool_call_id: call.id.clone(),
                    status,
                    started,
                })
                .await;
            rows.push(self.row("synthetic-tool-return-", None, &call.id, status, text));
            items.push(item);
        }
        for row in rows {
            self.port.tell(Report::Row(row)).await;
        }
        items
    }
}

enum Look {
    Allow(Map<String, Value>),
    Deny(String),
    Ask(Map<String, Value>, Option<Suggestion>),
}

/// The arguments as shown: the model's own text, unless a human changed them.
fn args_text(call: &PendingCall, args: &Map<String, Value>) -> String {
    if !call.args.is_empty() && arguments(&call.args) == *args {
        call.args.clone()
    } else {
        Value::Object(args.clone()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &str) -> PendingCall {
        PendingCall {
            id: id.into(),
            name: "Bash".into(),
            args: "{}".into(),
            message_id: None,
        }
    }

    #[test]
    fn an_abort_leaves_an_answer_for_every_call() {
        let run = Choice::Run {
            args: Map::new(),
            comment: None,
        };
        let progress = Progress {
            calls: ["done", "ran", "denied", "open"].map(String::from).to_vec(),
            decided: vec![
                Decided {
                    call: call("done"),
                    decision: run.clone(),
                },
                Decided {
                    call: call("ran"),
                    decision: run,
                },
                Decided {
                    call: call("denied"),
                    decision: Choice::Deny {
                        reason: "no".into(),
                    },
                },
            ],
            results: vec![json!({"type":"tool","tool_call_id":"done","status":"success"})],
        };
        let answers = progress.interrupted();
        let of = |id: &str| answers.iter().find(|a| a["tool_call_id"] == id).unwrap();
        assert_eq!(answers.len(), 4);
        assert_eq!(of("done")["status"], "success");
        assert_eq!(of("ran")["tool_return"], "Interrupted by user");
        assert_eq!(of("denied")["reason"], "no");
        assert_eq!(of("open")["reason"], DENIED_BY_INTERRUPT);
    }

    #[test]
    fn edited_arguments_are_shown_and_untouched_ones_stay_as_written() {
        let mut call = call("a");
        call.args = "{ \"x\": 1 }".into();
        assert_eq!(args_text(&call, &arguments("{\"x\":1}")), "{ \"x\": 1 }");
        assert_eq!(args_text(&call, &arguments("{\"x\":2}")), "{\"x\":2}");
    }
}
