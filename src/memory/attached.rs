//! Shared repositories that are attached to an agent (06 §6.3, 07 §4.8), each
//! with its checkout beside the agent's own memory.
//!
//! Invariant: attached is what the server said last. A mark in the checkout holds
//! that, so that skills and pushes need not ask; a repository that is attached no
//! more stays on disk without it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;
use tokio::task::spawn_blocking;

use super::{Checkout, Memory, MemoryError};
use crate::api::Client;
use crate::state::attached::{attach, detach};

const WRITABLE: &str = "read_write";

/// A name that is a directory of its own.
fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | ".." | "memory")
        && name.len() <= 64
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Names and rights in the server's listing.
fn listed(listing: &Value) -> BTreeMap<String, bool> {
    let rows = listing.get("repositories").and_then(Value::as_array);
    let rows = rows.into_iter().flatten();
    rows.filter(|row| row["is_primary"] != true)
        .filter_map(|row| {
            let name = row["name"].as_str().filter(|name| is_name(name))?;
            Some((name.to_owned(), row["permissions"] == WRITABLE))
        })
        .collect()
}

impl Memory {
    /// Brings the attached repositories of an agent up to date, behind the back
    /// of whoever asks.
    pub fn attach_later(&self, api: &Client, agent_id: &str) {
        let (this, api, agent) = (self.clone(), api.clone(), agent_id.to_owned());
        self.spawn(async move {
            if let Err(error) = this.attach(&api, &agent).await {
                tracing::debug!(agent, %error, "Attached repositories could not be listed.");
            }
        });
    }

    /// Clones or pulls what the server lists, and takes the mark from the rest.
    pub(super) async fn attach(&self, api: &Client, agent_id: &str) -> Result<(), MemoryError> {
        let listing = api.agent_repositories(agent_id).await;
        let listing = listing.map_err(|error| MemoryError::Api(error.to_string()))?;
        let wanted = listed(&listing);
        for directory in self.marked(agent_id).await.into_keys() {
            let name = directory.file_name().and_then(|name| name.to_str());
            if name.is_none_or(|name| !wanted.contains_key(name)) {
                on_disk(directory.clone(), move || detach(&directory)).await?;
            }
        }
        for (name, writable) in wanted {
            let repository = self.attached(agent_id, &name)?;
            let done = async {
                repository.bring_up_to_date(None).await?;
                let dir = repository.dir().to_owned();
                on_disk(dir.clone(), move || attach(&dir, writable)).await
            };
            if let Err(error) = done.await {
                tracing::warn!(agent = agent_id, name, %error, "An attached repository could not be synced.");
            }
        }
        Ok(())
    }

    /// The attached repositories that an agent may change.
    pub async fn writable(&self, agent_id: &str) -> Vec<Checkout> {
        let writable = self.marked(agent_id).await.into_iter();
        let names = writable.filter(|(_, writable)| *writable);
        names
            .filter_map(|(directory, _)| {
                let name = directory.file_name()?.to_str()?;
                self.attached(agent_id, name).ok()
            })
            .collect()
    }

    async fn marked(&self, agent_id: &str) -> BTreeMap<PathBuf, bool> {
        let (home, agent) = (self.0.settings.home.clone(), agent_id.to_owned());
        let found = spawn_blocking(move || home.attached(&agent)).await;
        found.unwrap_or_default()
    }
}

/// Work that blocks, on one place.
async fn on_disk(
    place: PathBuf,
    work: impl FnOnce() -> std::io::Result<()> + Send + 'static,
) -> Result<(), MemoryError> {
    let done = spawn_blocking(work).await;
    let done = done.unwrap_or_else(|error| Err(error.into()));
    done.map_err(|error| MemoryError::file(&place, &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_names_of_a_directory_of_their_own_are_attached() {
        let row = |name: &str| json!({"id": "r", "name": name, "permissions": "read_write"});
        let long = "x".repeat(65);
        let rows: Vec<Value> = [
            "team.v1", "a_b-C", "memory", "..", ".", "", "a/b", "é", &long,
        ]
        .into_iter()
        .map(row)
        .chain([
            json!({"name": "own", "is_primary": true}),
            json!({"name": "read", "permissions": "read_only"}),
            json!({"id": "nameless"}),
        ])
        .collect();
        let found = listed(&json!({"repositories": rows}));
        let found: Vec<(&str, bool)> = found
            .iter()
            .map(|(name, right)| (&**name, *right))
            .collect();
        assert_eq!(found, [("a_b-C", true), ("read", false), ("team.v1", true)]);
        assert_eq!(listed(&json!({"detail": "Not Found"})).len(), 0);
    }
}
