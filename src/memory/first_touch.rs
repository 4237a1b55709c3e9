//! The first sync of an agent's memory in this process (06 §6.4, 07 §4.4).
//!
//! Invariant: one per agent, shared by everyone who waits for it; it goes on
//! when they stop waiting. A failure is forgotten, so the next one tries again.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use serde_json::Value;
use tokio::sync::oneshot;

use super::{Memory, MemoryError, lock};
use crate::api::Client;
use crate::state::UserSettings;

/// The tag of an agent whose memory is a repository.
pub const TAG: &str = "git-memory-enabled";

/// What a first sync found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touched {
    /// The agent's memory is no repository, or is not wanted here.
    Off,
    /// The checkout is there and as new as the server.
    Ready,
}

/// A first sync under way or done.
pub(super) type Flight = Shared<BoxFuture<'static, Result<Touched, MemoryError>>>;

impl Memory {
    /// Syncs the memory of an agent, once per process.
    ///
    /// # Errors
    /// When the server or git fails. Whoever waits may go on without it.
    pub async fn first_touch(
        &self,
        api: &Client,
        settings: &UserSettings,
        agent_id: &str,
    ) -> Result<Touched, MemoryError> {
        let flight = self.flight(api, settings, agent_id);
        let outcome = flight.clone().await;
        if outcome.is_err() {
            let mut touched = lock(&self.0.touched);
            if touched
                .get(agent_id)
                .is_some_and(|known| known.ptr_eq(&flight))
            {
                touched.remove(agent_id);
            }
        }
        outcome
    }

    /// Starts the first sync of an agent without waiting for it.
    pub fn touch_later(&self, api: &Client, settings: &UserSettings, agent_id: &str) {
        drop(self.flight(api, settings, agent_id));
    }

    /// Forgets what was found, so that the next one looks again.
    pub fn forget(&self, agent_id: &str) {
        lock(&self.0.touched).remove(agent_id);
    }

    fn flight(&self, api: &Client, settings: &UserSettings, agent_id: &str) -> Flight {
        let mut touched = lock(&self.0.touched);
        if let Some(known) = touched.get(agent_id) {
            return known.clone();
        }
        let (done, ended) = oneshot::channel();
        let (this, api, settings) = (self.clone(), api.clone(), settings.clone());
        let agent: Arc<str> = agent_id.into();
        self.spawn(async move {
            let outcome = this.touch(&api, &settings, &agent).await;
            if let Err(error) = &outcome {
                tracing::warn!(agent = &*agent, %error, "The memory could not be synced.");
            }
            // Nobody may wait any more.
            let _ = done.send(outcome);
        });
        let stopped = || MemoryError::Api("This computer is shutting down.".into());
        let flight = ended
            .map(move |outcome| outcome.unwrap_or_else(|_| Err(stopped())))
            .boxed()
            .shared();
        touched.insert(agent_id.to_owned(), flight.clone());
        flight
    }

    async fn touch(
        &self,
        api: &Client,
        settings: &UserSettings,
        agent_id: &str,
    ) -> Result<Touched, MemoryError> {
        let checkout = self.checkout(agent_id)?;
        if settings.memfs(agent_id, self.server()) == Some(false) {
            return Ok(Touched::Off);
        }
        let agent = api.agent_with_tags(agent_id).await;
        let agent = agent.map_err(|error| MemoryError::Api(error.to_string()))?;
        if !is_enabled(&agent) {
            return Ok(Touched::Off);
        }
        if let Err(error) = settings.set_memfs(agent_id, self.server(), true) {
            tracing::warn!(%error, "That the memory is in use could not be saved.");
        }
        let name = agent.get("name").and_then(Value::as_str);
        checkout.bring_up_to_date(name).await?;
        self.attach_later(api, agent_id);
        Ok(Touched::Ready)
    }
}

/// Whether an agent's memory is a repository.
pub fn is_enabled(agent: &Value) -> bool {
    let tags = agent.get("tags").and_then(Value::as_array);
    tags.is_some_and(|tags| tags.iter().any(|tag| tag == TAG))
}
