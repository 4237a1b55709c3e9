//! What every conversation of this process shares.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::actor::Load;
use super::agent_facts::AgentFacts;
use super::git_context::GitContexts;
use super::status::Catalogs;
use super::turn::Guards;
use crate::api::Client;
use crate::api::models::Models;
use crate::api::response_state::ResponseStates;
use crate::cron::store::Store;
use crate::events::{EventSink, Injected, Recipient};
use crate::hooks::Hooks;
use crate::memory::Memory;
use crate::process::Processes;
use crate::protocol::{ConnectionId, RuntimeKey, Scope};
use crate::skills::Skills;
use crate::state::interrupted::InterruptedTurns;
use crate::state::{Home, RemoteSettings, SettingsFiles, UserSettings};
use crate::subagents::Desk;
use crate::telemetry::metrics::{self, Metrics};
use crate::tools::image::Images;
use crate::tools::{Controllers, Toolbox};

/// The connection to the outside, as conversations see it.
#[derive(Clone, Debug)]
pub struct Link {
    /// The registered connection, once there is one.
    pub connection: Option<ConnectionId>,
    /// Name of this computer.
    pub name: String,
    /// Whether turns may run: some client transport is open, or `local`.
    pub open: bool,
    /// Clients may come at any time through a door of this machine, so turns
    /// never wait for one.
    pub local: bool,
}

/// Handles that all conversations share.
#[derive(Debug)]
pub struct Services {
    /// The Letta API.
    pub api: ApiHandle,
    /// Working directories and modes.
    pub remote: RemoteSettings,
    /// `~/.letta/settings.json`.
    pub settings: UserSettings,
    /// Rules of the settings files.
    pub settings_files: SettingsFiles,
    /// The user's hooks.
    pub hooks: Hooks,
    /// Records of turns under way.
    pub interrupted: InterruptedTurns,
    /// Whether the server counts as Letta Cloud (06 §2).
    pub cloud: bool,
    /// Which models there are.
    pub models: Models,
    /// Skills of this machine.
    pub skills: Skills,
    /// Memory repositories of this machine.
    pub memory: Memory,
    /// All tools of this build.
    pub toolbox: Toolbox,
    /// Tools of connected controllers.
    pub controllers: Controllers,
    /// All children of this process.
    pub background: Processes,
    /// The owner of all subagents' runs.
    pub desk: Desk,
    /// Counters.
    pub metrics: Meter,
    /// Where frames go.
    pub events: EventSink,
    /// Where work for conversations goes that tools produce.
    pub inject: mpsc::UnboundedSender<(Recipient, Injected)>,
    /// The connection to the outside.
    pub link: watch::Receiver<Link>,
    /// Agents and their secrets, cached.
    pub agents: AgentFacts,
    /// Git facts of working directories, cached.
    pub git: GitContexts,
    /// Response ids for provider caches (03 §3.6).
    pub response_states: ResponseStates,
    /// Liveness limits of streams.
    pub guards: Guards,
    /// Prepares the images of messages, one at a time.
    pub images: Images,
    /// Files that hold credentials (05 §13.3).
    pub credential_files: Vec<String>,
    /// An empty list as JSON text.
    pub empty_list: Arc<RawValue>,
    /// The parts of a device status that never change.
    pub catalogs: Catalogs,
    /// The schedules of this home.
    pub schedules: Store,
    /// The user's home and `~/.letta`.
    pub home: Home,
    /// Fires when the process stops taking work.
    pub draining: CancellationToken,
    /// Loads of all conversations.
    pub load: Loads,
}

/// The API client, printable.
#[derive(Clone)]
pub struct ApiHandle(pub Client);

impl std::fmt::Debug for ApiHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiHandle")
    }
}

impl std::ops::Deref for ApiHandle {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.0
    }
}

/// Counts turns and calls.
#[derive(Clone, Debug)]
pub struct Meter(pub Metrics);

impl Meter {
    /// A turn ended.
    pub(crate) fn turn_ended(&self, stop_reason: &str, took: Duration) {
        let outcome = match stop_reason {
            "end_turn" => metrics::TurnOutcome::Completed,
            "cancelled" => metrics::TurnOutcome::Cancelled,
            _ => metrics::TurnOutcome::Failed,
        };
        self.0.turn_ended(outcome, took);
    }

    /// A call ended.
    pub(crate) fn tool_done(&self, tool: &str, status: crate::tools::Status, took: Duration) {
        let outcome = match status {
            crate::tools::Status::Success => metrics::ToolOutcome::Success,
            crate::tools::Status::Error => metrics::ToolOutcome::Error,
        };
        self.0.tool_ended(tool, outcome, Some(took));
    }
}

/// Sums of what all conversations are doing, for health and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TotalLoad {
    /// Turns that run.
    pub turns: usize,
    /// Items that wait.
    pub queued: usize,
    /// Questions that wait.
    pub approvals: usize,
}

/// The load of each live conversation.
#[derive(Debug)]
pub struct Loads {
    by_key: Mutex<HashMap<RuntimeKey, Load>>,
    total: watch::Sender<TotalLoad>,
    last_error: watch::Sender<Option<String>>,
}

impl Default for Loads {
    fn default() -> Self {
        Self {
            by_key: Mutex::default(),
            total: watch::Sender::new(TotalLoad::default()),
            last_error: watch::Sender::new(None),
        }
    }
}

impl Loads {
    /// Notes the load of one conversation.
    pub(crate) fn report(&self, scope: &Scope, load: Load) {
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        if load == Load::default() {
            by_key.remove(&scope.runtime_key());
        } else {
            by_key.insert(scope.runtime_key(), load);
        }
        let total = by_key
            .values()
            .fold(TotalLoad::default(), |sum, load| TotalLoad {
                turns: sum.turns + usize::from(load.in_turn),
                queued: sum.queued + load.queued,
                approvals: sum.approvals + load.approvals,
            });
        drop(by_key);
        self.total
            .send_if_modified(|known| std::mem::replace(known, total) != total);
    }

    /// Follows the sums.
    pub fn total(&self) -> watch::Receiver<TotalLoad> {
        self.total.subscribe()
    }

    /// The last error that a turn ended with.
    pub fn last_error(&self) -> watch::Receiver<Option<String>> {
        self.last_error.subscribe()
    }
}

impl Services {
    /// Remembers an error for the status page, cut short.
    pub(crate) fn note_error(&self, text: &str) {
        let short: String = text.chars().take(200).collect();
        self.load.last_error.send_replace(Some(short));
    }
}
