//! From a frame to whoever handles it (spec 02 §2, §5).

use serde_json::{Value, json};

use super::{Job, Listener, runtime_start};
use crate::conversation::mailbox::{Request, RequestBody};
use crate::conversation::{Message, SUPPORTED_COMMANDS};
use crate::device;
use crate::events::ConversationHandle;
use crate::process::Processes;
use crate::protocol::command::{Command, ExternalToolsUpdate};
use crate::protocol::inbound::payload_scope;
use crate::protocol::reply::{self, Capabilities};
use crate::protocol::{Body, ConnectionId, Inbound, Scope, inbound};
use crate::subagents::desk::is_task_id;
use crate::telemetry::command_summary::command_summary;
use crate::telemetry::session_log::{Direction, Label};

/// What this build can do everywhere.
pub(super) const CAPABILITIES: Capabilities = Capabilities {
    agent_management: true,
    conversation_management: true,
    memory_management: true,
    runtime_start: true,
    launch_subagent: true,
    runtime_workspace_sandbox: false,
    runtime_external_tools_update: true,
    structured_outputs: true,
    split_channels: false,
};

impl Listener {
    /// One frame of a client.
    pub(super) fn on_frame(&mut self, from: &ConnectionId, text: &str) {
        let inbound = match inbound::parse(text) {
            Ok(inbound) => inbound,
            Err(error) => {
                let raw: String = text.chars().take(2048).collect();
                let event = json!({"type": "_ws_unparseable", "raw": raw});
                self.log
                    .frame(Direction::Received, Label::Lifecycle, &event.to_string());
                return tracing::debug!(%error, "A frame was no frame.");
            }
        };
        if let Some(scope) = &inbound.scope
            && self.router.subscribe(from, scope)
        {
            self.runtimes
                .tell_live(scope, Message::Subscribe(from.clone()));
        }
        let Inbound {
            kind,
            scope,
            runtime,
            request_id,
            body,
        } = inbound;
        match body {
            Body::Lifecycle => {}
            Body::Command(command) => {
                let summary = serde_json::from_str(text).map(|frame| command_summary(&frame));
                self.log.line(format!(
                    "[Listen V2] Received {}",
                    summary.unwrap_or_else(|_| format!("{kind} command"))
                ));
                self.on_command(from, scope, runtime, request_id, command, text);
            }
            Body::InvalidInput(message) => {
                if let Some(id) = request_id.filter(|id| !id.is_empty()) {
                    let runtime = runtime.unwrap_or(Value::Null);
                    self.router
                        .reply(from, &reply::input_refused(&id, &runtime, &message));
                }
                if let Some(scope) = scope {
                    self.tell(&scope, Message::Notice(message));
                }
            }
            Body::Malformed { response, error } => {
                self.log.line(format!("Refused {kind}: {error}"));
                if let Some(id) = request_id {
                    let frame = reply::malformed(response, &id, runtime.as_ref(), &error);
                    self.router.reply(from, &frame);
                }
            }
            Body::Unknown => {
                self.log
                    .line(format!("Ignored a frame of unknown type {kind:?}"));
                if let Some(id) = request_id {
                    let error = format!("Unknown command type: {kind}");
                    self.router
                        .reply(from, &reply::malformed(None, &id, None, &error));
                }
            }
        }
    }

    pub(super) fn tell(&mut self, scope: &Scope, message: Message) {
        let subscribers = self.router.subscribers(scope);
        self.runtimes.tell(scope, subscribers, message);
    }

    fn on_command(
        &mut self,
        from: &ConnectionId,
        scope: Option<Scope>,
        runtime: Option<Value>,
        request_id: Option<String>,
        command: Command,
        text: &str,
    ) {
        let body = match command {
            Command::AppServerInfo => {
                return self.on_app_server_info(from, request_id);
            }
            Command::RuntimeStart(start) => {
                return self.on_runtime_start(from, request_id, *start);
            }
            Command::MonitorStop { process_id } => {
                return self.on_monitor_stop(from, scope, runtime, request_id, &process_id);
            }
            Command::ExternalToolsUpdate(updates) => {
                return self.on_external_tools(from, request_id, updates);
            }
            Command::ExternalToolCallResponse {
                call_id,
                result,
                error,
            } => {
                let controllers = &self.services.controllers;
                return controllers.answer(from, &call_id, result, error);
            }
            Command::Device { kind, body } => {
                return self.device.tell(device::Message::Command(device::Request {
                    from: from.clone(),
                    kind,
                    scope,
                    runtime,
                    request_id,
                    body,
                }));
            }
            Command::CreateMessage(input) => RequestBody::Input(input),
            Command::ApprovalResponse(answer) => RequestBody::Answer(answer),
            Command::Sync(sync) => RequestBody::Sync(sync),
            Command::AbortMessage { run_id } => RequestBody::Abort { run_id },
            Command::ResumeQueue => RequestBody::ResumeQueue,
            Command::LaunchSubagent { args, tool_call_id } => {
                RequestBody::LaunchSubagent { args, tool_call_id }
            }
            Command::RemoveQueueItem { item_id } => RequestBody::RemoveQueueItem { item_id },
            Command::ExecuteCommand { command_id, args } => {
                RequestBody::ExecuteCommand { command_id, args }
            }
            Command::ChangeDeviceState(change) => RequestBody::Change(change),
        };
        let Some(mut scope) = scope else { return };
        if matches!(body, RequestBody::Change(_)) {
            // The payload may name another conversation than the frame (02 §5.9).
            let frame: Value = serde_json::from_str(text).unwrap_or_default();
            scope = payload_scope(&frame["payload"], &scope);
        }
        let runtime = runtime.unwrap_or_else(
            || json!({"agent_id": scope.agent_id, "conversation_id": scope.conversation_id}),
        );
        let request = Request {
            from: from.clone(),
            request_id,
            runtime,
            body,
        };
        self.tell(&scope, Message::Request(Box::new(request)));
    }

    fn on_app_server_info(&mut self, from: &ConnectionId, request_id: Option<String>) {
        let Some(id) = request_id else { return };
        let processes = self.services.background.clone();
        let from = from.clone();
        self.jobs
            .spawn(async move { Job::Reply(from, app_server_info(&processes, &id).await) });
    }

    /// `monitor_stop` (04 §6.6): the agent hears that the user stopped it.
    fn on_monitor_stop(
        &mut self,
        from: &ConnectionId,
        scope: Option<Scope>,
        runtime: Option<Value>,
        request_id: Option<String>,
        process_id: &str,
    ) {
        let (Some(id), Some(scope)) = (request_id, scope) else {
            return;
        };
        if is_task_id(process_id) {
            return self.on_subagent_stop(from, scope, runtime, id, process_id.to_owned());
        }
        let acting_user = runtime.as_ref().and_then(|runtime| {
            let id = runtime.get("acting_user_id")?.as_str()?;
            Some(id.to_owned())
        });
        let conversation = ConversationHandle::new(scope, self.services.inject.clone());
        let background = &self.services.background;
        let outcome = background.stop_monitor(&conversation, process_id, acting_user);
        let frame = stopped(&id, runtime.as_ref(), process_id, outcome);
        self.router.reply(from, &frame);
    }

    /// `monitor_stop` of a subagent: its own notification tells the agent.
    fn on_subagent_stop(
        &mut self,
        from: &ConnectionId,
        scope: Scope,
        runtime: Option<Value>,
        request_id: String,
        task_id: String,
    ) {
        let (desk, from) = (self.services.desk.clone(), from.clone());
        self.jobs.spawn(async move {
            let ended = desk.stop(&scope, &task_id).await;
            let outcome = ended.then_some(true).ok_or("Subagent not found");
            let frame = stopped(&request_id, runtime.as_ref(), &task_id, outcome);
            Job::Reply(from, frame)
        });
    }

    /// `runtime_external_tools_update`: neither creates a conversation nor
    /// subscribes to one.
    fn on_external_tools(
        &mut self,
        from: &ConnectionId,
        request_id: Option<String>,
        updates: Vec<ExternalToolsUpdate>,
    ) {
        let controllers = &self.services.controllers;
        let registered = updates.into_iter().try_for_each(|update| {
            let mut runtimes = update.runtimes.iter();
            runtimes
                .try_for_each(|runtime| controllers.register(from, runtime, update.groups.clone()))
        });
        let Some(id) = request_id else { return };
        let more = match &registered {
            Ok(()) => Value::Null,
            Err(error) => json!({"error": error.to_string()}),
        };
        let kind = "runtime_external_tools_update_response";
        let frame = reply::reply(kind, &id, registered.is_ok(), more);
        self.router.reply(from, &frame);
    }

    fn on_runtime_start(
        &mut self,
        from: &ConnectionId,
        request_id: Option<String>,
        start: crate::protocol::command::RuntimeStart,
    ) {
        let services = std::sync::Arc::clone(&self.services);
        let from = from.clone();
        let id = request_id.unwrap_or_default();
        self.jobs.spawn(async move {
            match runtime_start::resolve(&services, from.clone(), id.clone(), start).await {
                Ok(resolved) => Job::Adopt(Box::new(resolved)),
                Err(refused) => {
                    let frame =
                        reply::reply("runtime_start_response", &id, false, Value::Object(refused));
                    Job::Reply(from, frame)
                }
            }
        });
    }

    /// A resolved `runtime_start`: subscribe, then let the conversation do the rest.
    pub(super) fn adopt(&mut self, resolved: runtime_start::Resolved) {
        let runtime_start::Resolved {
            from,
            request_id,
            scope,
            external_tools,
            mut adopt,
        } = resolved;
        adopt.in_use = !self.router.subscribers(&scope).is_empty();
        if !self.router.knows(&from) {
            // It left meanwhile: nobody is there to be answered or subscribed.
            return self
                .log
                .line("App-server connection closed during runtime start");
        }
        let controllers = &self.services.controllers;
        if let Err(error) = controllers.register(&from, &scope, external_tools) {
            let mut refused = adopt.response;
            refused.insert("error".into(), error.to_string().into());
            let kind = "runtime_start_response";
            let frame = reply::reply(kind, &request_id, false, Value::Object(refused));
            return self.router.reply(&from, &frame);
        }
        if self.router.subscribe(&from, &scope) {
            self.runtimes
                .tell_live(&scope, Message::Subscribe(from.clone()));
        }
        let runtime = json!({
            "agent_id": scope.agent_id, "conversation_id": scope.conversation_id,
        });
        let request = Request {
            from,
            request_id: Some(request_id),
            runtime,
            body: RequestBody::Adopt(Box::new(adopt)),
        };
        self.tell(&scope, Message::Request(Box::new(request)));
    }
}

/// `monitor_stop_response`.
fn stopped(
    request_id: &str,
    runtime: Option<&Value>,
    process_id: &str,
    outcome: Result<bool, &str>,
) -> Value {
    let mut more = json!({
        "runtime": runtime, "process_id": process_id, "stopped": outcome == Ok(true),
    });
    if let Err(error) = outcome {
        more["error"] = error.into();
    }
    reply::reply("monitor_stop_response", request_id, outcome.is_ok(), more)
}

/// `app_server_info_response`, which the direct door also gives over HTTP (02 §12.2).
///
/// What works here depends on the machine: a sandbox needs a bubblewrap that runs.
pub async fn app_server_info(processes: &Processes, request_id: &str) -> Value {
    let capabilities = Capabilities {
        runtime_workspace_sandbox: processes.sandbox().await.is_ok(),
        ..CAPABILITIES
    };
    reply::app_server_info(request_id, capabilities)
}

/// The slash commands and flags that registration announces.
pub fn supported_commands() -> &'static [&'static str] {
    SUPPORTED_COMMANDS
}
