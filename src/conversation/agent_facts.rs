//! Agents and their secrets, fetched when a turn needs them (spec 03 §8.3, §18).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::api::Client;
use crate::protocol::Scope;
use crate::tools::AgentSecrets;

/// How long loaded secrets are good.
const FRESH: Duration = Duration::from_secs(60);
/// Agents remembered at most; past it everything is fetched anew.
const CAPACITY: usize = 256;

/// What is known of agents.
#[derive(Debug, Default)]
pub struct AgentFacts {
    agents: Mutex<HashMap<Arc<str>, Arc<Value>>>,
    secrets: Mutex<HashMap<Arc<str>, (Instant, AgentSecrets)>>,
    tagged: Mutex<HashSet<String>>,
    /// Agents that were made here for one task.
    made: Mutex<HashSet<Arc<str>>>,
}

impl AgentFacts {
    /// The agent of a scope; `None` without one, and when it cannot be read.
    pub(crate) async fn agent(&self, api: &Client, scope: &Scope) -> Option<Arc<Value>> {
        let id = scope.agent_id.clone()?;
        if let Some(known) = lock(&self.agents).get(&id) {
            return Some(Arc::clone(known));
        }
        match api.agent(&id).await {
            Ok(agent) => {
                let mut agents = lock(&self.agents);
                if agents.len() >= CAPACITY {
                    agents.clear();
                }
                agents.insert(id, Arc::clone(&agent));
                Some(agent)
            }
            Err(error) => {
                tracing::warn!(
                    ?error,
                    "The agent could not be read; its name stays unknown."
                );
                None
            }
        }
    }

    /// The secrets of a scope's agent, at most a minute old. When they cannot be
    /// loaded the older ones stay.
    pub(crate) async fn secrets(&self, api: &Client, scope: &Scope) -> AgentSecrets {
        let Some(id) = scope.agent_id.clone() else {
            return AgentSecrets::default();
        };
        let stale = match lock(&self.secrets).get(&id) {
            Some((at, secrets)) if at.elapsed() < FRESH => return secrets.clone(),
            Some((_, secrets)) => secrets.clone(),
            None => AgentSecrets::default(),
        };
        let loaded = match api.agent_secrets(&id).await {
            Ok(secrets) => {
                let plain: BTreeMap<String, String> = secrets
                    .iter()
                    .map(|(name, value)| (name.clone(), value.expose().to_owned()))
                    .collect();
                AgentSecrets(Arc::new(plain))
            }
            Err(error) => {
                tracing::debug!(?error, "Secrets could not be loaded; known ones stay.");
                stale
            }
        };
        let mut all = lock(&self.secrets);
        if all.len() >= CAPACITY {
            all.clear();
        }
        all.insert(id, (Instant::now(), loaded.clone()));
        loaded
    }

    /// An agent was just made for one task: all that could be asked of it is known.
    pub(crate) fn note_made(&self, scope: &Scope, agent: Value) {
        let Some(id) = scope.agent_id.clone() else {
            return;
        };
        let mut made = lock(&self.made);
        if made.len() >= CAPACITY {
            made.clear();
        }
        made.insert(Arc::clone(&id));
        let none = (Instant::now(), AgentSecrets::default());
        lock(&self.secrets).insert(Arc::clone(&id), none);
        self.note_tagged(&id);
        lock(&self.agents).insert(id, Arc::new(agent));
    }

    /// Whether the agent was made here for one task; it has no memory in git.
    pub(crate) fn is_made(&self, id: &str) -> bool {
        lock(&self.made).contains(id)
    }

    /// Whether the agent is known to carry our tag.
    pub(crate) fn is_tagged(&self, id: &str) -> bool {
        lock(&self.tagged).contains(id)
    }

    /// The agent carries our tag, or does not want it.
    pub(crate) fn note_tagged(&self, id: &str) {
        lock(&self.tagged).insert(id.to_owned());
    }

    /// Forgets an agent: it was changed.
    pub fn forget_agent(&self, id: &str) {
        lock(&self.agents).remove(id);
    }

    /// Forgets the secrets of an agent: they were changed.
    pub fn forget_secrets(&self, id: &str) {
        lock(&self.secrets).remove(id);
    }

    /// Forgets everything: the connection opened anew (01 §8.11).
    pub(crate) fn forget(&self) {
        lock(&self.agents).clear();
        lock(&self.secrets).clear();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
