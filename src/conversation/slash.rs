//! Slash commands of clients: `execute_command` (06 §15).
//!
//! Invariant: a command shows its start, does its work, shows its end, and
//! only then is answered, once, with the same words; all three belong to the
//! scope in which it began. One that starts a turn ends with that turn.

mod context_limit;
mod prompts;

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::actor::{Conversation, Done};
use super::intake::Asker;
use super::lifecycle::Lease;
use super::model::CarriedModel;
use super::queue::{Batch, BatchMessage};
use super::services::Services;
use crate::api::Client;
use crate::hooks::Site;
use crate::protocol::Scope;
use crate::protocol::event::Lifecycle;
use crate::protocol::reply;

/// A prompt of this size is worth a look (07 §8).
const DOCTOR_TOKENS: u64 = 30_000;
const COMPACT_MODES: [&str; 4] = [
    "all",
    "sliding_window",
    "self_compact_all",
    "self_compact_sliding_window",
];
const COMPACT_HELP: &str = "/compact [mode] summarises the conversation to make room. Modes: all, sliding_window, self_compact_all, self_compact_sliding_window.";
const UNCHANGED: &str = "Summarization failed to reduce the number of messages";

/// A command on its way.
#[derive(Debug)]
pub(crate) struct Slash {
    asker: Asker,
    command_id: String,
    input: String,
}

/// What a command's work brings back.
#[derive(Debug)]
pub(crate) struct SlashDone {
    slash: Slash,
    outcome: Result<Effect, String>,
}

/// What remains to be done in the conversation itself.
#[derive(Debug)]
enum Effect {
    /// Nothing but to say this.
    Said(String),
    /// The history is gone from the context.
    Cleared(&'static str),
    /// The history is shorter.
    Compacted(String),
    /// Everything was read again.
    Reloaded,
    /// A turn with these parts of a message; its end is this output.
    Turn(Vec<Value>, &'static str),
}

/// A command that ends with the turn of a lease.
#[derive(Debug)]
pub(crate) struct SlashTurn {
    lease: Lease,
    slash: Slash,
    output: &'static str,
}

impl Conversation {
    /// `execute_command`.
    pub(crate) fn on_execute_command(
        &mut self,
        asker: &Asker,
        command_id: &str,
        args: Option<&str>,
    ) {
        if command_id == "refresh_doctor_state" {
            return self.measure_memory();
        }
        let args = args.map(str::trim).filter(|args| !args.is_empty());
        let input = match args {
            Some(args) => format!("/{command_id} {args}"),
            None => format!("/{command_id}"),
        };
        let slash = Slash {
            asker: asker.clone(),
            command_id: command_id.to_owned(),
            input: input.clone(),
        };
        self.frames.lifecycle(
            None,
            None,
            &Lifecycle::SlashCommandStart {
                command_id: command_id.to_owned(),
                input,
            },
        );
        let starts_turn = matches!(command_id, "init" | "doctor" | "remember");
        if starts_turn && let Err(error) = self.may_begin() {
            return self.end_slash(slash, Err(error));
        }
        if matches!(command_id, "clear" | "clear-messages") {
            self.abort();
        }
        let work = Work {
            services: Arc::clone(&self.services),
            api: self.services.api.acting_as(acting_user(asker)),
            scope: self.scope.clone(),
            cwd: self.shown_cwd(),
            args: args.unwrap_or_default().to_owned(),
        };
        self.job(async move {
            let outcome = work.run(&slash.command_id).await;
            Done::Slash(Box::new(SlashDone { slash, outcome }))
        });
    }

    /// A command that starts a turn is not queued.
    fn may_begin(&self) -> Result<(), String> {
        if self.draining {
            return Err("This computer is shutting down".into());
        }
        if self.life.is_active() || self.life.is_cancelling() {
            let state = self.life.name();
            return Err(format!("Cannot begin a turn while lifecycle is {state}"));
        }
        if self.asks.waiting() > 0 {
            return Err("Cannot begin a turn while an approval waits for an answer".into());
        }
        Ok(())
    }

    /// The work of a command is done.
    pub(crate) fn on_slash(&mut self, done: SlashDone) {
        let SlashDone { slash, outcome } = done;
        let output = match outcome {
            Err(error) => Err(error),
            Ok(Effect::Said(output)) => Ok(output),
            Ok(Effect::Compacted(output)) => {
                self.reminders.compacted();
                Ok(output)
            }
            Ok(Effect::Reloaded) => {
                self.emit_device_status();
                Ok("Reloaded settings, local mods, and agent secrets".into())
            }
            Ok(Effect::Cleared(output)) => {
                self.forget_history();
                Ok(output.into())
            }
            Ok(Effect::Turn(parts, output)) => match self.may_begin() {
                Ok(()) => return self.begin_slash(slash, parts, output),
                Err(error) => Err(error),
            },
        };
        self.end_slash(slash, output);
    }

    /// The history left the context: nothing of it is owed any more.
    fn forget_history(&mut self) {
        if self.scope.is_default() {
            self.interrupt = super::interrupt::Interrupt::default();
            if let Some(turn) = &mut self.turn {
                turn.forgotten = true;
            }
        }
        self.reminders = super::reminders::Reminders::default();
        self.emit_loop_status();
        self.emit_device_status();
    }

    fn begin_slash(&mut self, slash: Slash, parts: Vec<Value>, output: &'static str) {
        let acting = acting_user(&slash.asker).map(String::from);
        let otid = uuid::Uuid::new_v4().to_string();
        let message = json!({"role": "user", "content": parts, "otid": otid});
        let Value::Object(message) = message else {
            return;
        };
        let mut batch = Batch {
            id: format!("batch-slash-{}", uuid::Uuid::new_v4()),
            messages: vec![BatchMessage {
                message,
                acting_user_id: acting.clone(),
                is_cron: false,
            }],
            options: Default::default(),
            client_message_ids: Vec::new(),
            origin: Some(slash.asker.from.clone()),
        };
        batch.options.acting_user_id = acting;
        self.begin_direct(batch);
        match self.turn.as_ref().map(|turn| turn.lease) {
            Some(lease) => {
                self.slash_turn = Some(SlashTurn {
                    lease,
                    slash,
                    output,
                });
            }
            None => self.end_slash(slash, Err("The turn could not be started".into())),
        }
    }

    /// The turn of `lease` is over; `failure` says how, if not well.
    pub(crate) fn end_slash_turn(&mut self, lease: Lease, failure: Option<String>) {
        if let Some(turn) = self.slash_turn.take_if(|turn| turn.lease == lease) {
            let output = match failure {
                None => Ok(turn.output.to_owned()),
                Some(failure) => Err(failure),
            };
            self.end_slash(turn.slash, output);
        }
    }

    fn end_slash(&self, slash: Slash, output: Result<String, String>) {
        let success = output.is_ok();
        let output = output.unwrap_or_else(|error| {
            if error.starts_with("Unknown command: ") {
                error
            } else {
                format!("Failed: {error}")
            }
        });
        self.frames.lifecycle(
            None,
            None,
            &Lifecycle::SlashCommandEnd {
                command_id: slash.command_id,
                input: slash.input,
                output: output.clone(),
                success,
            },
        );
        if let Some(id) = &slash.asker.request_id {
            let more = json!({"output": output});
            let frame = reply::reply("execute_command_response", id, success, more);
            self.frames.reply(&slash.asker.from, &frame);
        }
    }

    /// `refresh_doctor_state`: looks how large the memory is and shows it.
    fn measure_memory(&mut self) {
        let checkout = self
            .scope
            .agent_id
            .as_deref()
            .and_then(|agent| self.services.memory.checkout(agent).ok());
        let Some(checkout) = checkout else {
            return self.emit_device_status();
        };
        self.job(async move {
            let tokens = tokio::task::spawn_blocking(move || checkout.prompt_tokens()).await;
            Done::MemoryMeasured(tokens.unwrap_or(0) >= DOCTOR_TOKENS)
        });
    }
}

fn acting_user(asker: &Asker) -> Option<&str> {
    asker.runtime.get("acting_user_id").and_then(Value::as_str)
}

/// What a command works with outside the conversation.
struct Work {
    services: Arc<Services>,
    /// Acts for the human who sent the command.
    api: Client,
    scope: Scope,
    cwd: std::path::PathBuf,
    args: String,
}

impl Work {
    async fn run(&self, command_id: &str) -> Result<Effect, String> {
        match command_id {
            "clear" => self.clear(self.scope.is_default()).await.map(|()| {
                Effect::Cleared(
                    "Agent's in-context messages cleared & moved to conversation history",
                )
            }),
            "clear-messages" => {
                let done = self.clear(true).await;
                done.map(|()| Effect::Cleared("All agent messages reset"))
            }
            "compact" => self.compact().await,
            "reload" => Ok(self.reload().await),
            "context-limit" | "set-max-context" => self.context_limit().await.map(Effect::Said),
            "remember" => Ok(Effect::Turn(
                prompts::remember(&self.args),
                "Memory request submitted",
            )),
            "init" => Ok(Effect::Turn(
                prompts::init(self).await,
                "Memory initialization completed",
            )),
            "doctor" => prompts::doctor(self).map(|parts| Effect::Turn(parts, "")),
            other => Err(format!("Unknown command: {other}")),
        }
    }

    fn agent_id(&self) -> Result<&str, String> {
        let none = "This command needs an agent.";
        self.scope
            .agent_id
            .as_deref()
            .ok_or_else(|| none.to_owned())
    }

    /// Makes a new conversation; the messages of the default one leave the context.
    async fn clear(&self, reset: bool) -> Result<(), String> {
        let agent = self.agent_id()?;
        if reset {
            self.api.reset_messages(agent).await.map_err(text)?;
        }
        let body = Map::new();
        let created = self.api.create_conversation(Some(agent), &body).await;
        created.map_err(text).map(drop)
    }

    async fn compact(&self) -> Result<Effect, String> {
        let mode = self.args.split_whitespace().next();
        let mut body = Map::new();
        match mode {
            None => {}
            Some("help") => return Ok(Effect::Said(COMPACT_HELP.into())),
            Some(mode) if COMPACT_MODES.contains(&mode) => {
                let agent = self.api.agent(self.agent_id()?).await.map_err(text)?;
                let model = agent.pointer("/compaction_settings/model");
                let model = model.and_then(Value::as_str).unwrap_or("letta/auto");
                body.insert(
                    "compaction_settings".into(),
                    json!({"mode": mode, "model": model}),
                );
            }
            Some(mode) => {
                return Err(format!(
                    "Invalid mode \"{mode}\". Run /compact help for usage."
                ));
            }
        }
        if self.scope.is_default() {
            body.insert("agent_id".into(), self.agent_id()?.into());
        }
        let site = Site {
            // Like every compaction, it belongs to the process and to no directory.
            cwd: self.services.remote.boot_cwd(),
            agent_id: self.scope.agent_id.clone(),
        };
        let asked = self
            .services
            .hooks
            .pre_compact(&site, &self.scope.conversation_id);
        asked.await?;
        let compacted = self
            .api
            .compact_conversation(&self.scope.conversation_id, &body);
        let compacted = match compacted.await {
            Ok(compacted) => compacted,
            Err(error) if error.status() == Some(400) && error.detail().contains(UNCHANGED) => {
                return Ok(Effect::Said(
                    "Compaction run, but the number of messages is the same".into(),
                ));
            }
            Err(error) => return Err(text(error)),
        };
        let count = |name: &str| compacted.get(name).and_then(Value::as_u64).unwrap_or(0);
        let note = mode
            .map(|mode| format!(" (mode: {mode})"))
            .unwrap_or_default();
        let summary = compacted.get("summary").and_then(Value::as_str);
        Ok(Effect::Compacted(format!(
            "Compaction completed{note}. Message buffer length reduced from {} to {}.\n\nSummary: {}",
            count("num_messages_before"),
            count("num_messages_after"),
            summary.unwrap_or_default(),
        )))
    }

    async fn reload(&self) -> Effect {
        let settings = self.services.settings.clone();
        // What cannot be read is logged there; the old settings stay.
        let _ = tokio::task::spawn_blocking(move || settings.reload()).await;
        self.services.agents.forget();
        self.services.agents.secrets(&self.api, &self.scope).await;
        Effect::Reloaded
    }

    async fn context_limit(&self) -> Result<String, String> {
        let wanted = context_limit::parse(&self.args)?;
        let agent = match &self.scope.agent_id {
            Some(id) => Some((*self.api.agent(id).await.map_err(text)?).clone()),
            None => None,
        };
        let conversation = if self.scope.is_default() {
            None
        } else {
            let conversation = self.api.conversation(&self.scope.conversation_id);
            Some(conversation.await.map_err(text)?)
        };
        let model = CarriedModel::of(agent.as_ref(), conversation.as_ref());
        let catalogue = self.services.models.catalogue(&self.api, false).await;
        let (limit, words) = wanted.against(model.handle(), &catalogue)?;
        let change = json!({"context_window_limit": limit});
        let whom = if self.scope.is_default() {
            let agent = self.agent_id()?;
            self.api.update_agent(agent, &change).await.map_err(text)?;
            self.services.agents.forget_agent(agent);
            "Agent"
        } else {
            let id = &self.scope.conversation_id;
            let changed = self.api.update_conversation(id, &change);
            changed.await.map_err(text)?;
            "Current conversation"
        };
        Ok(format!("{whom} max context {words}"))
    }
}

fn text(error: crate::api::ApiError) -> String {
    error.to_string()
}
