//! The record that lets another process finish this turn (spec 03 §14.5).
//!
//! Invariant: what is about to run is on disk before it runs, and its results
//! before they are sent. So a process that dies never runs a call twice.

use serde_json::Value;
use uuid::Uuid;

use crate::protocol::Scope;
use crate::state::interrupted::{InterruptedTurn, InterruptedTurns};

/// The record of one turn; nothing is written for connections that own no
/// conversations.
#[derive(Debug)]
pub(crate) struct Record {
    store: Option<InterruptedTurns>,
    turn: InterruptedTurn,
}

impl Record {
    pub(crate) fn new(
        store: Option<InterruptedTurns>,
        scope: &Scope,
        acting_user_id: Option<String>,
        working_directory: String,
    ) -> Self {
        Self {
            // A conversation without agent has no record that another process could claim.
            store: store.filter(|_| scope.agent_id.is_some()),
            turn: InterruptedTurn {
                agent_id: scope.agent_id.as_deref().unwrap_or_default().to_owned(),
                conversation_id: scope.conversation_id.to_string(),
                run_id: None,
                tool_call_ids: Vec::new(),
                results: Vec::new(),
                request_otid: Uuid::new_v4().to_string(),
                acting_user_id,
                working_directory,
                teleport_id: None,
                revision: String::new(),
            },
        }
    }

    /// The otid under which the results of this stop will be sent.
    pub(crate) fn request_otid(&self) -> String {
        self.turn.request_otid.clone()
    }

    /// A run began.
    pub(crate) fn run_seen(&mut self, run_id: &str) {
        self.turn.run_id = Some(run_id.to_owned());
        self.turn.tool_call_ids.clear();
        self.turn.results.clear();
        if let Some(store) = &self.store {
            store.write_soon(self.turn.clone());
        }
    }

    /// These calls are decided; the approved ones start now.
    pub(crate) async fn starting(&mut self, tool_call_ids: Vec<String>) {
        self.turn.tool_call_ids = tool_call_ids;
        self.turn.results.clear();
        self.turn.request_otid = Uuid::new_v4().to_string();
        self.write().await;
    }

    /// The calls ended so.
    pub(crate) async fn finished(&mut self, results: &[Value]) {
        self.turn.results = results
            .iter()
            .filter_map(|item| item.as_object().cloned())
            .collect();
        self.write().await;
    }

    async fn write(&self) {
        let Some(store) = &self.store else { return };
        if let Err(error) = store.write_durable(self.turn.clone()).await {
            tracing::warn!(%error, "The record of a running turn could not be written; a restart would not know of it.");
        }
    }

    /// The turn needs no other process any more.
    pub(crate) async fn delete(&self) {
        let Some(store) = &self.store else { return };
        let deleted = store
            .delete(&self.turn.agent_id, &self.turn.conversation_id)
            .await;
        if let Err(error) = deleted {
            tracing::warn!(%error, "The record of a finished turn could not be removed.");
        }
    }
}
