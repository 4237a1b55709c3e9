//! The status frames of a conversation: device, loop, queue, subagents
//! (spec 02 §6.1–§6.3, §6.6).

use std::sync::Arc;

use serde_json::value::{RawValue, to_raw_value};

use super::actor::Conversation;
use super::experiments;
use super::frames::text_of;
use crate::events::{Audience, EventKind};
use crate::protocol::event::{DeviceStatus, Event, LoopState, LoopStatus, ReflectionSettings};
use crate::protocol::reply::LETTA_CODE_VERSION;
use crate::protocol::{ConnectionId, PermissionMode};

/// Slash commands and capability flags that work here (06 §15). What does not
/// work is not listed.
pub const SUPPORTED_COMMANDS: &[&str] = &[
    "clear",
    "clear-messages",
    "doctor",
    "init",
    "remember",
    "compact",
    "reload",
    "context-limit",
    "toolset",
    "secret",
    "monitor_stop",
];

/// A device status with the usual toolset and skills has about this many bytes.
const DEVICE_STATUS_BYTES: usize = 6 * 1024;

/// The parts of a device status that never change, as JSON text made once.
#[derive(Debug)]
pub struct Catalogs {
    pub(crate) toolsets: Box<RawValue>,
    pub(crate) commands: Box<RawValue>,
}

impl Catalogs {
    /// Makes them.
    ///
    /// # Errors
    /// Never in practice; serialisation of plain data.
    pub fn new() -> serde_json::Result<Self> {
        let toolsets = crate::tools::toolset::catalogue();
        Ok(Self {
            toolsets: to_raw_value(&toolsets)?,
            commands: to_raw_value(SUPPORTED_COMMANDS)?,
        })
    }
}

impl Conversation {
    /// The working directory that the status shows: of the running turn, else
    /// of the conversation.
    pub(crate) fn shown_cwd(&self) -> std::path::PathBuf {
        match &self.turn {
            Some(turn) if self.life.is_active() => turn.cwd.clone(),
            _ => self.services.remote.cwd_of(&self.scope),
        }
    }

    /// The JSON text of `update_device_status`.
    fn device_status(&self) -> Option<String> {
        let link = self.services.link.borrow().clone();
        let mode = self.services.remote.mode_of(&self.scope);
        let cwd = self.shown_cwd();
        let cwd_text = cwd.to_string_lossy();
        let agent = self.scope.agent_id.as_deref();
        let memory = agent.map(|agent| {
            self.services
                .home
                .agent_memory(agent)
                .to_string_lossy()
                .into_owned()
        });
        let preference = self
            .services
            .settings
            .toolset_preference(&self.scope, self.services.api.base_url().as_str())
            .unwrap_or_else(|| String::from("auto"));
        let pending = if self.interrupt.is_held() {
            Vec::new()
        } else {
            self.asks.shown()
        };
        let known = self.git.as_ref().filter(|(of, _)| *of == cwd);
        let git = match known {
            Some((_, git)) => git.clone(),
            None => self.services.git.cached(&cwd).flatten(),
        };
        let processes = match agent {
            Some(_) => self.background_processes(),
            None => Vec::new(),
        };
        let experiments = experiments::snapshot(&self.services.settings);
        let catalogs = &self.services.catalogs;
        let status = DeviceStatus {
            current_connection_id: link.connection.as_ref().map(ConnectionId::as_str),
            connection_name: Some(&link.name),
            is_online: link.open,
            is_processing: self.life.is_active(),
            current_permission_mode: mode.mode.as_str(),
            plan_mode_enabled: mode.mode == PermissionMode::Plan,
            current_working_directory: &cwd_text,
            git_context: git.as_ref(),
            letta_code_version: Some(LETTA_CODE_VERSION),
            current_toolset: match &self.toolset {
                Some(toolset) => Some(&toolset.name),
                None => (preference != "auto").then_some(preference.as_str()),
            },
            current_toolset_preference: &preference,
            available_toolsets: &catalogs.toolsets,
            current_loaded_tools: self
                .toolset
                .as_ref()
                .map_or(&*self.services.empty_list, |toolset| &*toolset.tools),
            current_available_skills: &self.skills,
            background_processes: &processes,
            pending_control_requests: &pending,
            experiments: &experiments,
            memory_directory: memory.as_deref(),
            cwd_revision: self.services.remote.cwd_revision(),
            should_doctor: self.should_doctor,
            supported_commands: &catalogs.commands,
            // Reflection is not done by this program, and says so (00 §8).
            reflection_settings: agent.map(|agent_id| ReflectionSettings {
                agent_id,
                trigger: "off",
                step_count: 25,
                merge: "auto",
                merge_instructions: "",
            }),
        };
        let event = Event::UpdateDeviceStatus {
            device_status: &status,
        };
        text_of(&event, DEVICE_STATUS_BYTES)
    }

    /// Sends `update_device_status` to all subscribers.
    pub(crate) fn emit_device_status(&self) {
        if let Some(body) = self.device_status() {
            self.frames
                .body_to(Audience::Subscribers, EventKind::DeviceStatus, body.into());
        }
    }

    /// Sends the device status of a replay, unless this connection has just the
    /// same one (02 §6.1).
    pub(crate) fn show_device_status(&mut self, to: &ConnectionId, force: bool) {
        let Some(body) = self.device_status() else {
            return;
        };
        if !force && self.shown.get(to) == Some(&body) {
            return;
        }
        self.shown.insert(to.clone(), body.clone());
        let audience = Audience::Connection(to.clone());
        self.frames
            .body_to(audience, EventKind::DeviceStatus, body.into());
    }

    fn loop_status(&self) -> LoopStatus {
        let status = self.life.status();
        if self.interrupt.is_held() {
            let working = self.life.is_active() && status != LoopStatus::WaitingOnApproval;
            return if working {
                status
            } else {
                LoopStatus::WaitingOnInput
            };
        }
        if self.life.is_idle() && self.asks.has_recovered() {
            return LoopStatus::WaitingOnApproval;
        }
        status
    }

    /// Sends `update_loop_status` to all subscribers.
    pub(crate) fn emit_loop_status(&self) {
        self.loop_status_to(Audience::Subscribers);
    }

    /// Sends `update_loop_status` to `to`.
    pub(crate) fn loop_status_to(&self, to: Audience) {
        let run: Vec<String> = self.life.run_id().map(String::from).into_iter().collect();
        let mode = self.services.remote.mode_of(&self.scope);
        let state = LoopState {
            status: self.loop_status(),
            active_run_ids: &run,
            client_message_ids_by_run_id: self.correlation.text(),
            executing_tool_call_ids: self.life.executing(),
            plan_file_path: mode
                .plan_file
                .as_deref()
                .filter(|_| mode.mode == PermissionMode::Plan)
                .and_then(std::path::Path::to_str),
        };
        self.frames.event_to(
            to,
            &Event::UpdateLoopStatus {
                loop_status: &state,
            },
        );
    }

    /// Sends the queue with what left it, if anything changed in this step.
    pub(crate) fn emit_queue_changes(&mut self) {
        if let Some(removed) = self.queue.take_changes() {
            self.queue.messages(|queue| {
                self.frames.event(&Event::UpdateQueue {
                    queue,
                    removed: &removed,
                });
            });
        }
    }

    /// Sends the queue as it stands.
    pub(crate) fn emit_queue_snapshot(&self) {
        self.queue_snapshot_to(Audience::Subscribers);
    }

    /// Sends the queue as it stands to `to`.
    pub(crate) fn queue_snapshot_to(&self, to: Audience) {
        self.queue.messages(|queue| {
            self.frames.event_to(
                to,
                &Event::UpdateQueue {
                    queue,
                    removed: &[],
                },
            );
        });
    }

    /// What runs in the background, newest first.
    fn background_processes(&self) -> Vec<serde_json::Value> {
        let mut all = self.services.background.listing(&self.scope);
        all.extend(self.board.processes.iter().cloned());
        all.sort_by_key(|process| std::cmp::Reverse(process["started_at_ms"].as_u64()));
        all
    }

    /// Sends the subagents of this conversation to `to`.
    pub(crate) fn subagents_to(&self, to: Audience) {
        if self.board.frame.is_empty() {
            let none = Event::UpdateSubagentState { subagents: &[] };
            return self.frames.event_to(to, &none);
        }
        let frame = Arc::clone(&self.board.frame);
        self.frames.body_to(to, EventKind::SubagentState, frame);
    }
}
