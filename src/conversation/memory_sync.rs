//! The memory repository around a turn: up to date before it, pushed after it
//! (07 §4.4, §4.6).
//!
//! Invariant: a memory that cannot be synced never keeps a turn from running;
//! the agent is told, so that it can mend it.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::actor::{Conversation, Done};
use super::services::Services;
use crate::api::Client;
use crate::memory::{Checkout, Pushed};
use crate::protocol::Scope;
use crate::protocol::event::Event;
use crate::protocol::time::epoch_millis;

/// A turn waits for the first sync, but not longer than this.
const PATIENCE: Duration = Duration::from_secs(15);

/// Syncs the memory of a turn's agent, once per process; where it is, if there is one.
pub(crate) async fn before_turn(
    services: &Services,
    api: &Client,
    scope: &Scope,
) -> Option<PathBuf> {
    let agent = scope.agent_id.as_deref()?;
    if services.agents.is_made(agent) {
        return None;
    }
    let touch = services.memory.first_touch(api, &services.settings, agent);
    // What goes wrong is logged where it happens.
    let _ = tokio::time::timeout(PATIENCE, touch).await;
    services.memory_dir(agent)
}

impl Services {
    /// The checkout of an agent whose memory is a repository on this machine.
    pub fn memory_dir(&self, agent_id: &str) -> Option<PathBuf> {
        let wanted = self.settings.memfs(agent_id, self.memory.server());
        let checkout = self.memory.checkout(agent_id).ok()?;
        let is_here = wanted == Some(true) && checkout.dir().join(".git").exists();
        is_here.then(|| checkout.dir().to_owned())
    }
}

impl Conversation {
    /// Pushes what the turn committed.
    pub(crate) fn push_memory(&mut self) {
        let Some(agent) = self.scope.agent_id.as_deref() else {
            return;
        };
        let memory = &self.services.memory;
        if self.services.settings.memfs(agent, memory.server()) != Some(true) {
            return;
        }
        let Ok(checkout) = memory.checkout(agent) else {
            return;
        };
        let (memory, agent) = (memory.clone(), agent.to_owned());
        self.job(async move {
            let mut pushed = vec![(checkout.clone(), checkout.push_pending().await)];
            for shared in memory.writable(&agent).await {
                let outcome = shared.push_pending().await;
                pushed.push((shared, outcome));
            }
            Done::MemoryPushed(pushed)
        });
    }

    /// How the pushes went: of the agent's own memory, and of shared repositories.
    pub(crate) fn on_memory_pushed(&mut self, pushed: Vec<(Checkout, Pushed)>) {
        for (checkout, outcome) in pushed {
            if outcome == Pushed::Pushed && checkout.shared().is_none() {
                self.frames.event(&Event::MemoryUpdated {
                    affected_paths: &["*"],
                    timestamp: epoch_millis(SystemTime::now()),
                });
            }
            if let Some(text) = trouble(&checkout, outcome) {
                self.reminders.memory(text);
            }
        }
    }
}

/// What the agent has to know of a push, if it has to do something.
fn trouble(checkout: &Checkout, pushed: Pushed) -> Option<String> {
    let (phrase, what, summary) = match pushed {
        Pushed::Skipped | Pushed::Clean | Pushed::Pushed => return None,
        Pushed::Conflict(summary) => (
            "GIT CONFLICT",
            "A merge or rebase in this repository has to be ended by you.",
            summary,
        ),
        Pushed::Dirty(summary) => (
            "COMMIT NEEDED",
            "This repository has changes that are not committed; nothing is pushed until they are.",
            summary,
        ),
        Pushed::Failed(summary) => (
            "SYNC FAILED",
            "Your commits could not be sent to the server; they are safe here.",
            summary,
        ),
    };
    let whose = match checkout.shared() {
        None => "MEMORY",
        Some(_) => "SHARED MEMORY",
    };
    Some(format!(
        "{whose} {phrase}\n{what}\nDirectory: {}\n{summary}\nClean commits are pushed for you after each turn. The skill `syncing-memory-filesystem` says how to mend it.",
        checkout.dir().display()
    ))
}
