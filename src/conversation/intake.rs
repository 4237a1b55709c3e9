//! Input of clients and of this process: accept, refuse, start or queue
//! (spec 02 §5.3–§5.4, §5.9–§5.10, §5.15).

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::actor::Conversation;
use super::asks::{Answered, Claimed};
use super::frames::now;
use super::queue::{Batch, BatchMessage, Enqueued, Work};
use super::turn::Toolset;
use crate::events::Injected;
use crate::permissions::{RuleList, RuleScope, Suggestion, rules};
use crate::protocol::ConnectionId;
use crate::protocol::PermissionMode;
use crate::protocol::command::{
    ApprovalAnswer, ApprovalResponse, ChangeDeviceState, CreateMessage,
};
use crate::protocol::event::{ApprovalReceived, Event, Level, Lifecycle};
use crate::protocol::reply::{self, Started};
use crate::state::remote_settings::{CwdError, ModeEntry};
use crate::state::{Home, atomic};
use crate::tools::toolset::{Preference, Selection};

/// The connection that asked, and how it wants to be answered.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    pub(crate) from: ConnectionId,
    pub(crate) request_id: Option<String>,
    pub(crate) runtime: Value,
}

impl Conversation {
    /// Sends `frame(request_id, runtime)` if the asker wants an answer.
    pub(crate) fn answer(&self, asker: &Asker, frame: impl FnOnce(&str, &Value) -> Value) {
        if let Some(id) = &asker.request_id {
            self.frames.reply(&asker.from, &frame(id, &asker.runtime));
        }
    }

    fn refuse(&self, asker: &Asker, error: &str) {
        self.answer(asker, |id, runtime| {
            reply::input_refused(id, runtime, error)
        });
    }

    /// A non-terminal error for the clients of this conversation.
    pub(crate) fn notice(&self, message: &str) {
        self.frames.lifecycle(
            None,
            None,
            &Lifecycle::LoopError {
                message: message.to_owned(),
                stop_reason: "error".into(),
                is_terminal: false,
                api_error: None,
            },
        );
    }

    /// `input` / `create_message`, in the order of decisions of 02 §5.3.
    pub(crate) fn on_input(&mut self, asker: &Asker, mut input: CreateMessage) {
        if let Some(problem) = input
            .options
            .response_format
            .as_ref()
            .and_then(format_problem)
        {
            return self.refuse(asker, problem);
        }
        if input
            .messages
            .iter()
            .any(|message| message.get("type") == Some(&json!("approval")))
        {
            self.notice(
                "Protocol violation: approval payloads are not allowed in input.kind=create_message. Use input.kind=approval_response.",
            );
            return self.refuse(asker, "Approval payloads require approval_response");
        }
        // Whoever writes to a former subagent makes it a conversation of people.
        self.was_assigned = false;
        let identity = stamp(&mut input.messages);
        if let Some(id) = &identity
            && let Some(disposition) = self.accepted.seen(id)
        {
            return self.answer(asker, |id, runtime| {
                reply::input_accepted(id, runtime, Some(disposition), None)
            });
        }
        if !input
            .messages
            .iter()
            .any(|message| message.contains_key("content"))
        {
            return self.refuse(asker, "No message content");
        }
        if self.draining {
            return self.refuse(asker, "This computer is shutting down");
        }
        let disposition = if self.is_free() {
            Started::Started
        } else {
            Started::Queued
        };
        if disposition == Started::Queued {
            let origin = Some(asker.from.clone());
            let work = Work::Message(Box::new(input));
            if self.queue.push(work, identity.clone(), origin, now()) == Enqueued::Refused {
                return self.refuse(asker, "Input was rejected by the queue");
            }
            self.accept(asker, identity, disposition);
        } else {
            self.accept(asker, identity.clone(), disposition);
            let origin = Some(asker.from.clone());
            self.begin_direct(direct_batch(input, identity, origin));
        }
    }

    fn accept(&mut self, asker: &Asker, identity: Option<String>, disposition: Started) {
        if let Some(id) = identity {
            self.accepted.remember(id, disposition);
        }
        self.answer(asker, |id, runtime| {
            reply::input_accepted(id, runtime, Some(disposition), None)
        });
    }

    /// Completely idle: a turn can begin at once (02 §5.3 step 6).
    pub(crate) fn is_free(&self) -> bool {
        self.life.is_idle()
            && self.queue.is_empty()
            && self.asks.waiting() == 0
            && !self.interrupt.is_held()
            && !self.recoveries.is_running()
    }

    /// Work from elsewhere in this process.
    pub(crate) fn on_injected(&mut self, work: Injected) {
        let mut waiter = None;
        let unread = self.was_assigned && self.assigned.is_none() && self.subscribers.is_empty();
        let work = match work {
            // A subagent at its end began something that outlived it: a turn to
            // hear of it would have neither a reader nor a task.
            Injected::TaskNotification { .. } if unread => {
                return tracing::debug!("News for a subagent that has ended were dropped.");
            }
            Injected::TaskNotification {
                text,
                acting_user_id,
            } => Work::TaskNotification {
                text,
                acting_user_id,
            },
            Injected::CronPrompt { text, receipt } => {
                waiter = Some(receipt);
                self.was_assigned = false;
                Work::CronPrompt { text }
            }
            Injected::BackgroundChanged => return self.emit_device_status(),
            Injected::BootDirectoryChanged(done) => {
                self.on_boot_directory_changed();
                return drop(done);
            }
            Injected::Show {
                status,
                toolset,
                done,
            } => {
                self.show(status, toolset);
                return drop(done);
            }
            Injected::GitChanged => return self.refresh_git(true),
        };
        let queued = self.queue.push(work, None, None, now()) == Enqueued::Accepted;
        if !queued {
            tracing::warn!("A full queue refused work of this computer.");
        }
        if let Some(waiter) = waiter {
            waiter.answer(self.queue.newest().filter(|_| queued).map(str::to_owned));
        }
    }

    /// Something that the status shows changed elsewhere (06 §1.3).
    fn show(&mut self, status: Option<(String, Level)>, toolset: Option<&'static str>) {
        if let Some(Preference::Preset(preset)) = toolset.and_then(Preference::parse) {
            let selection = Selection::preset(preset);
            let tools = self.services.toolbox.for_turn(&selection, Vec::new());
            let tools = tools.ok();
            self.toolset = tools.and_then(|tools| Toolset::new(preset.as_str(), &tools).ok());
        }
        if let Some((message, level)) = status {
            let body = Lifecycle::Status { message, level };
            self.frames.lifecycle(None, None, &body);
            self.emit_loop_status();
        }
        if self.git.is_none() {
            self.refresh_git(false);
        }
        self.emit_device_status();
    }

    /// `input` / `approval_response` (02 §9.2).
    pub(crate) async fn on_answer(&mut self, asker: &Asker, response: ApprovalResponse) {
        if self.life.is_cancelling() {
            return self.refuse(asker, "Approval request is no longer pending");
        }
        match self.asks.claim(&asker.from, response) {
            Claimed::Nothing => self.refuse(asker, "Approval request is no longer pending"),
            Claimed::Live(ask, answer) => {
                let saved = match &answer {
                    ApprovalAnswer::Allow { suggestions, .. }
                        if suggestions.iter().any(|id| id == "save-default") =>
                    {
                        self.save_rule(ask.savable.as_ref()).await
                    }
                    _ => Ok(Saved::Nothing),
                };
                self.emit_loop_status();
                self.emit_device_status();
                self.frames.event(&Event::ApprovalReceived(&received(
                    &ask.request.request_id,
                    &ask.request.request.tool_call_id,
                    &answer,
                    ask.run_id.clone(),
                )));
                let rules_changed = matches!(saved, Ok(Saved::Session(_) | Saved::Project));
                let (saved_for_session, error) = match saved {
                    Ok(Saved::Session(rule)) => (Some(rule), None),
                    Ok(_) => (None, None),
                    Err(error) => (None, Some(error)),
                };
                self.answer(asker, |id, runtime| {
                    reply::input_accepted(id, runtime, None, error.as_deref())
                });
                // A turn that was just aborted no longer waits for it.
                let _ = ask.reply.send(Answered {
                    answer,
                    rules_changed,
                    saved_for_session,
                });
            }
            Claimed::Recovered { last } => {
                self.emit_loop_status();
                self.emit_device_status();
                self.answer(asker, |id, runtime| {
                    reply::input_accepted(id, runtime, None, None)
                });
                if last {
                    self.continue_recovered();
                }
            }
        }
    }

    /// `change_device_state` (02 §5.9).
    pub(crate) async fn on_change(&mut self, change: &ChangeDeviceState) {
        let tracked = self.asks.waiting() == 0 && self.life.start_command();
        if tracked {
            self.emit_loop_status();
        }
        let mut changed = false;
        match change.parsed_mode() {
            Err(name) => {
                self.notice(&format!("Unsupported permission mode: {name}"));
                changed = true;
            }
            Ok(Some(mode)) => {
                self.change_mode(mode).await;
                self.emit_loop_status();
                self.emit_device_status();
                changed = true;
            }
            Ok(None) => {}
        }
        if let Some(cwd) = change.cwd.as_deref().filter(|cwd| !cwd.is_empty()) {
            changed = true;
            self.change_cwd(cwd).await;
        }
        if !changed {
            self.emit_device_status();
        }
        if tracked {
            self.life.finish_command();
            self.emit_loop_status();
        }
    }

    /// Enters a mode; plan mode brings its file and remembers the mode before (05 §2.5).
    pub(crate) async fn change_mode(&mut self, mode: PermissionMode) {
        let remote = &self.services.remote;
        if mode == PermissionMode::Plan {
            let plans = self.services.home.plans();
            remote.enter_plan(&self.scope, &plans).await;
        } else {
            remote.set_mode(&self.scope, ModeEntry::plain(mode));
        }
    }

    /// Saves the rule of a suggestion (05 §11): for this conversation, or in the
    /// project's settings file. The error text is for the client.
    async fn save_rule(&mut self, suggestion: Option<&Suggestion>) -> Result<Saved, String> {
        let Some(suggestion) = suggestion else {
            return Ok(Saved::Nothing);
        };
        match suggestion.scope {
            RuleScope::Session => {
                self.session_rules.add(RuleList::Allow, &suggestion.rule);
                Ok(Saved::Session(suggestion.rule.clone()))
            }
            RuleScope::Project => {
                let path = Home::project_settings(&self.shown_cwd());
                let rule = suggestion.rule.clone();
                let work = move || save_project_rule(&path, &rule);
                match tokio::task::spawn_blocking(work).await {
                    Ok(Ok(())) => Ok(Saved::Project),
                    Ok(Err(error)) => Err(format!("The rule was not saved: {error}")),
                    Err(_) => Err(String::from("The rule was not saved.")),
                }
            }
        }
    }

    /// Moves the conversation to `cwd`, or tells why not.
    pub(crate) async fn change_cwd(&mut self, cwd: &str) {
        let current = self.services.remote.cwd_of(&self.scope);
        match self
            .services
            .remote
            .set_cwd(&self.scope, cwd, &current)
            .await
        {
            // A missing directory is no error: the client sees the old one again.
            Ok(_) | Err(CwdError::Missing(_)) => {
                self.reminders.directory_changed();
                self.refresh_git(false);
                self.emit_device_status();
            }
            Err(error) => self.notice(&error.to_string()),
        }
    }

    /// The boot directory changed; matters only without an own one.
    pub(crate) fn on_boot_directory_changed(&mut self) {
        let own = self
            .services
            .remote
            .cwd_map()
            .contains_key(&self.scope.settings_key());
        if own || self.life.is_active() {
            return;
        }
        self.reminders.directory_changed();
        self.refresh_git(false);
        self.emit_device_status();
    }

    /// `resume_queue` (02 §5.10).
    pub(crate) fn on_resume_queue(&mut self, asker: &Asker) {
        let resumed = self.queue.resume();
        self.answer(asker, |id, runtime| {
            reply::reply(
                "resume_queue_response",
                id,
                true,
                json!({"runtime": runtime, "resumed": resumed}),
            )
        });
    }

    /// `remove_queue_item`: the response, a snapshot, then the transition.
    pub(crate) fn on_remove_item(&mut self, asker: &Asker, item_id: &str) {
        let found = self.queue.remove(item_id);
        self.answer(asker, |id, _| {
            reply::reply(
                "remove_queue_item_response",
                id,
                found,
                json!({"item_id": item_id}),
            )
        });
        self.emit_queue_snapshot();
    }
}

/// Where a rule went.
enum Saved {
    Nothing,
    Session(String),
    Project,
}

/// Adds a rule to a settings file; one that does not parse is left as it is.
fn save_project_rule(path: &std::path::Path, rule: &str) -> Result<(), String> {
    let current = match std::fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let added = rules::add_rule(current.as_deref(), RuleList::Allow, rule)
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let Some(text) = added else { return Ok(()) };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    }
    atomic::write(path, text.as_bytes(), atomic::Access::Inherited)
        .map_err(|error| format!("{}: {error}", path.display()))
}

fn received(
    request_id: &str,
    tool_call_id: &str,
    answer: &ApprovalAnswer,
    run_id: Option<String>,
) -> ApprovalReceived {
    let (decision, reason) = match answer {
        ApprovalAnswer::Allow { message, .. } => ("allow", message.clone()),
        ApprovalAnswer::Deny { message } => ("deny", Some(message.clone())),
        ApprovalAnswer::Error(text) => ("deny", Some(text.clone())),
    };
    ApprovalReceived {
        request_id: request_id.to_owned(),
        tool_call_id: tool_call_id.to_owned(),
        decision,
        reason: reason.filter(|reason| !reason.is_empty()),
        run_id,
    }
}

/// What is wrong with a `response_format` (02 §5.3 step 1).
fn format_problem(format: &Value) -> Option<&'static str> {
    let Value::Object(format) = format else {
        return Some("response_format must be an object");
    };
    if format.get("type").and_then(Value::as_str) != Some("json_schema") {
        return Some("response_format.type must be json_schema");
    }
    match format.get("json_schema") {
        Some(Value::Object(schema)) => match schema.get("schema") {
            Some(Value::Object(_)) => None,
            _ => Some("response_format.json_schema.schema must be an object"),
        },
        _ => Some("response_format.json_schema must be an object"),
    }
}

/// Gives every content message an otid; the identity of the request is the
/// first client message id (02 §5.3 step 3).
pub(crate) fn stamp(messages: &mut [Map<String, Value>]) -> Option<String> {
    let mut identity = None;
    for message in messages
        .iter_mut()
        .filter(|message| message.contains_key("content"))
    {
        let client_id = message
            .get("client_message_id")
            .and_then(Value::as_str)
            .filter(|id| !id.is_empty())
            .map(String::from);
        if !message.get("otid").is_some_and(Value::is_string) {
            let otid = client_id
                .clone()
                .unwrap_or_else(|| Uuid::new_v4().to_string());
            message.insert("otid".into(), otid.into());
        }
        identity = identity.or(client_id);
    }
    identity
}

/// The batch of an input that starts a turn at once: no attribution (03 §3.3).
pub(crate) fn direct_batch(
    input: CreateMessage,
    identity: Option<String>,
    origin: Option<ConnectionId>,
) -> Batch {
    let acting = input.options.acting_user_id.clone();
    Batch {
        id: format!("batch-direct-{}", Uuid::new_v4()),
        messages: input
            .messages
            .into_iter()
            .map(|message| BatchMessage {
                message,
                acting_user_id: acting.clone(),
                is_cron: false,
            })
            .collect(),
        options: input.options,
        client_message_ids: identity.into_iter().collect(),
        origin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_format_is_checked_from_outside_in() {
        for (format, problem) in [
            (json!(1), Some("response_format must be an object")),
            (
                json!({"type":"text"}),
                Some("response_format.type must be json_schema"),
            ),
            (
                json!({"type":"json_schema"}),
                Some("response_format.json_schema must be an object"),
            ),
            (
                json!({"type":"json_schema","json_schema":{}}),
                Some("response_format.json_schema.schema must be an object"),
            ),
            (
                json!({"type":"json_schema","json_schema":{"schema":{}}}),
                None,
            ),
        ] {
            assert_eq!(format_problem(&format), problem, "{format}");
        }
    }

    #[test]
    fn otids_are_client_ids_where_there_are_any() {
        let object = |value: Value| value.as_object().unwrap().clone();
        let mut messages = vec![
            object(json!({"role":"user","content":"a"})),
            object(json!({"role":"user","content":"b","client_message_id":"cm-1"})),
            object(json!({"role":"user","content":"c","client_message_id":"cm-2","otid":"mine"})),
            object(json!({"role":"user"})),
        ];
        assert_eq!(stamp(&mut messages).as_deref(), Some("cm-1"));
        assert!(Uuid::parse_str(messages[0]["otid"].as_str().unwrap()).is_ok());
        assert_eq!(messages[1]["otid"], "cm-1");
        assert_eq!(messages[2]["otid"], "mine");
        assert!(!messages[3].contains_key("otid"));
    }
}
