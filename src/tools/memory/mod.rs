//! The agent's memory in git, as its two tools change it (04 §7.22, §7.23).
//!
//! A change is worked out whole and handed to the checkout, whose owner writes
//! and commits it or leaves the files as they were. Nothing is pushed here:
//! that comes after the turn.

use std::{fs, io};

use super::offload::Failure;
use super::tool::{Progress, ToolCall, ToolContext, ToolOutcome};
use crate::memory::{Author, Change, Changes, Checkout, Format, Memory, RelativePath};
use crate::state::atomic;

mod apply_patch;
mod edit;
mod label;
mod markdown;

pub use apply_patch::MemoryApplyPatch;
pub use edit::MemoryEdit;

/// Bytes of one file of memory.
const LARGEST: u64 = 4 * 1024 * 1024;

/// The memory directory of one agent.
#[derive(Clone, Debug)]
struct Store {
    checkout: Checkout,
    /// Format v2: the root has an index, `MEMORY.md`.
    indexed: bool,
    /// The tool, for its errors.
    tool: &'static str,
}

/// One side of a file's change.
fn side(bytes: &Option<Vec<u8>>) -> Option<String> {
    let text = bytes.as_ref().map(|bytes| String::from_utf8_lossy(bytes));
    text.map(std::borrow::Cow::into_owned)
}

impl Store {
    /// The memory that `tool` works on.
    fn open(memory: &Memory, tool: &'static str, context: &ToolContext) -> Result<Self, Failure> {
        let said = |text: &dyn std::fmt::Display| Failure::new(format!("{tool}: {text}"));
        let Some(agent) = context.scope.agent_id.as_deref() else {
            return Err(said(&"this conversation has no agent with a memory."));
        };
        let checkout = memory.checkout(agent).map_err(|error| said(&error))?;
        if !checkout.dir().join(".git").exists() {
            return Err(said(&crate::memory::MemoryError::NoCheckout(
                checkout.dir().to_owned(),
            )));
        }
        Ok(Self {
            indexed: checkout.format() == Format::V2,
            checkout,
            tool,
        })
    }

    /// Whether something lies at a path below the root.
    fn exists(&self, path: &str) -> bool {
        self.checkout.dir().join(path).exists()
    }

    fn error(&self, text: impl std::fmt::Display) -> Failure {
        Failure::new(format!("{}: {text}", self.tool))
    }

    /// The bytes of a file, if there is one. A link on the way is refused: it
    /// may lead anywhere.
    fn bytes(&self, path: &str) -> Result<Option<Vec<u8>>, Failure> {
        let mut whole = self.checkout.dir().to_owned();
        for part in path.split('/') {
            whole.push(part);
            match fs::symlink_metadata(&whole) {
                Ok(found) if found.is_symlink() => {
                    return Err(self.error(format!(
                        "{path} leads through a link, which is not followed"
                    )));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(self.error(format!("failed to read {path}: {error}"))),
            }
        }
        let bytes = atomic::read_bounded(&whole, LARGEST);
        bytes
            .map(Some)
            .map_err(|error| self.error(format!("failed to read {path}: {error}")))
    }

    /// The text of a file that must be there, with plain line feeds.
    fn text(&self, path: &str) -> Result<String, Failure> {
        let bytes = self.bytes(path)?;
        let bytes = bytes.ok_or_else(|| self.error(format!("there is no {path}")))?;
        let text = String::from_utf8(bytes)
            .map_err(|_| self.error(format!("{path} is not UTF-8 text")))?;
        Ok(text.replace("\r\n", "\n"))
    }

    /// Checks that every directory on the way to `path` has its index (v2);
    /// `exists` knows what the call itself brings.
    fn check_index(&self, path: &str, exists: &dyn Fn(&str) -> bool) -> Result<(), Failure> {
        if !self.indexed {
            return Ok(());
        }
        for (at, _) in path.match_indices('/') {
            let index = format!("{}/MEMORY.md", &path[..at]);
            if index != path && !exists(&index) {
                return Err(self.error(format!("{index} is needed before {path} is written")));
            }
        }
        Ok(())
    }

    fn is_index(&self, path: &str) -> bool {
        self.indexed && (path == "MEMORY.md" || path.ends_with("/MEMORY.md"))
    }

    /// A label's file as the checkout names it.
    fn key(&self, path: &str) -> Result<RelativePath, Failure> {
        RelativePath::parse(path).map_err(|problem| self.error(format!("{path}: {problem}")))
    }
}

/// Runs one change from its planning to its commit; the words of the result
/// name `done`, such as `Memory create`.
async fn commit(
    call: &ToolCall,
    context: &ToolContext,
    store: Store,
    done: &str,
    reason: &str,
    plan: impl FnOnce(&Store) -> Result<Changes, Failure> + Send + 'static,
) -> Result<ToolOutcome, Failure> {
    let checkout = store.checkout.clone();
    let waited = call.cancel.run_until_cancelled(checkout.exclusively());
    let Some(turn) = waited.await else {
        return Ok(ToolOutcome::interrupted());
    };
    if !checkout.uncommitted().await?.is_empty() {
        return Err(store.error("Memory repo has uncommitted changes. Commit, discard, or sync them before using memory tools."));
    }
    let planned = tokio::task::spawn_blocking(move || (plan(&store), store));
    let (changes, store) = planned.await?;
    let changes = changes?;
    let paths: Vec<String> = changes.keys().map(|path| path.as_str().into()).collect();
    let agent = checkout.agent_id();
    let name = context.facts.agent_name.as_deref().map(str::trim);
    let author = Author {
        name: name
            .filter(|name| !name.is_empty())
            .unwrap_or(agent)
            .to_owned(),
        email: format!("{agent}@letta.com"),
    };
    let commit = checkout.change(&turn, changes, reason, &author).await;
    let Some(commit) = commit.map_err(|error| store.error(error))? else {
        return Err(store.error(
            "made no effective changes; nothing was committed. The result is what was there before.",
        ));
    };
    call.output.send(Progress::MemoryChanged(paths));
    Ok(ToolOutcome::text(format!(
        "{done} committed ({}); it is synced after the turn.",
        &commit[..commit.len().min(7)]
    )))
}

#[cfg(test)]
mod tests;
