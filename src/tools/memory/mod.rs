//! The agent's memory in git, as its two tools change it (04 §7.22, §7.23).
//!
//! A change is worked out whole, then written, then committed. Invariant: a
//! call that fails leaves the files as they were. Nothing is pushed here: that
//! comes after the turn.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{fs, io};

use super::git::{Git, GitError};
use super::offload::Failure;
use super::tool::{Progress, ToolCall, ToolContext, ToolOutcome};
use crate::state::atomic::{self, Access};

mod apply_patch;
mod edit;
mod label;
mod markdown;

pub use apply_patch::MemoryApplyPatch;
pub use edit::Memory;

/// Bytes of one file of memory.
const LARGEST: u64 = 4 * 1024 * 1024;

/// The memory directory of one agent.
#[derive(Clone, Debug)]
struct Store {
    root: PathBuf,
    /// Format v2: the root has an index, `MEMORY.md`.
    indexed: bool,
    /// The tool, for its errors.
    tool: &'static str,
}

/// What becomes of files, by their path below the root.
type Changes = BTreeMap<String, Change>;

/// A file before and after; `None` where it is not there.
#[derive(Clone, Debug, Default)]
struct Change {
    before: Option<Vec<u8>>,
    after: Option<Vec<u8>>,
}

/// Where an agent's memory is, by its id.
pub(super) fn directory(context: &ToolContext) -> Option<PathBuf> {
    if let Some(directory) = &context.facts.memory_dir {
        return Some(directory.clone());
    }
    let agent = context.scope.agent_id.as_deref()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !agent.chars().all(plain) {
        return None;
    }
    Some(
        context
            .home
            .join(".letta/agents")
            .join(agent)
            .join("memory"),
    )
}

impl Store {
    /// The memory that `tool` works on.
    fn open(tool: &'static str, context: &ToolContext) -> Result<Self, Failure> {
        let root = directory(context).ok_or_else(|| {
            Failure::new(format!(
                "{tool}: this conversation has no agent with a memory."
            ))
        })?;
        if !root.join(".git").exists() {
            return Err(Failure::new(format!(
                "{tool}: {} is not a git repository; this agent has no memory in git on this machine.",
                root.display()
            )));
        }
        let indexed = root.join("MEMORY.md").is_file();
        Ok(Self {
            root,
            indexed,
            tool,
        })
    }

    fn error(&self, text: impl std::fmt::Display) -> Failure {
        Failure::new(format!("{}: {text}", self.tool))
    }

    /// The bytes of a file, if there is one. A link on the way is refused: it
    /// may lead anywhere.
    fn bytes(&self, path: &str) -> Result<Option<Vec<u8>>, Failure> {
        let mut whole = self.root.clone();
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

    /// Writes one side of every change.
    fn put(&self, changes: &Changes, side: fn(&Change) -> &Option<Vec<u8>>) -> io::Result<()> {
        // First what goes: a directory may take the place of a file.
        for (path, _) in changes.iter().filter(|(_, change)| side(change).is_none()) {
            let whole = self.root.join(path);
            match fs::remove_file(&whole) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let parents = whole.ancestors().skip(1);
            // Only empty ones can be removed.
            for parent in parents.take_while(|parent| *parent != self.root) {
                if fs::remove_dir(parent).is_err() {
                    break;
                }
            }
        }
        for (path, change) in changes {
            if let Some(bytes) = side(change) {
                atomic::write(&self.root.join(path), bytes, Access::Inherited)?;
            }
        }
        Ok(())
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
) -> ToolOutcome {
    match try_commit(call, context, store, done, reason, plan).await {
        Ok(text) => ToolOutcome::text(text),
        Err(Stop::Said(Failure(text))) => ToolOutcome::error(text),
        Err(Stop::Git(error)) => error.outcome(),
    }
}

/// Why a change was not committed.
enum Stop {
    Said(Failure),
    Git(GitError),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Said(failure)
    }
}

impl From<GitError> for Stop {
    fn from(error: GitError) -> Self {
        Self::Git(error)
    }
}

async fn try_commit(
    call: &ToolCall,
    context: &ToolContext,
    store: Store,
    done: &str,
    reason: &str,
    plan: impl FnOnce(&Store) -> Result<Changes, Failure> + Send + 'static,
) -> Result<String, Stop> {
    let agent = context.scope.agent_id.as_deref().unwrap_or_default();
    let name = context.facts.agent_name.as_deref().map(str::trim);
    let name = name.filter(|name| !name.is_empty()).unwrap_or(agent);
    let email = format!("{agent}@letta.com");
    let git = Git::new(call, context)
        .with("GIT_AUTHOR_NAME", name)
        .with("GIT_AUTHOR_EMAIL", &email)
        .with("GIT_COMMITTER_NAME", name)
        .with("GIT_COMMITTER_EMAIL", &email);
    let root = store.root.clone();
    if !git
        .text(&root, &["status", "--porcelain"])
        .await?
        .is_empty()
    {
        return Err(store.error("Memory repo has uncommitted changes. Commit, discard, or sync them before using memory tools.").into());
    }
    let tool = store.tool;
    let lost = |error: tokio::task::JoinError| {
        Stop::Said(Failure::new(format!(
            "{tool}: the work on files was lost: {error}"
        )))
    };
    let written = tokio::task::spawn_blocking(move || {
        let changes = plan(&store)?;
        if let Err(error) = store.put(&changes, |change| &change.after) {
            let undone = store.put(&changes, |change| &change.before);
            let more = undone
                .err()
                .map(|error| format!("; undoing it failed too: {error}"));
            return Err(store.error(format!(
                "the files could not be written: {error}{}",
                more.unwrap_or_default()
            )));
        }
        Ok((store, changes))
    });
    let (store, changes) = written.await.map_err(lost)??;
    let paths: Vec<&str> = changes.keys().map(String::as_str).collect();
    let committed = record(&git, &store, &paths, reason).await;
    let undo = match &committed {
        Ok(Some(_)) => false,
        Ok(None) | Err(_) => true,
    };
    if undo {
        // The turn's abort must not leave the repository dirty.
        let unstage = Git::new(
            &ToolCall {
                cancel: Default::default(),
                ..call.clone()
            },
            context,
        );
        let mut reset = vec!["reset", "--quiet", "--"];
        reset.extend(&paths);
        let _ = unstage.run(&root, &reset).await;
        let (store, changes) = (store.clone(), changes.clone());
        let undone =
            tokio::task::spawn_blocking(move || store.put(&changes, |change| &change.before));
        if let Err(error) = undone.await.map_err(lost)? {
            tracing::warn!(%error, "A memory change could not be undone.");
        }
    }
    let Some(commit) = committed? else {
        return Err(store
            .error("made no effective changes; nothing was committed. The result is what was there before.")
            .into());
    };
    call.output.send(Progress::MemoryChanged(
        paths.iter().map(|path| (*path).to_owned()).collect(),
    ));
    Ok(format!(
        "{done} committed ({}); it is synced after the turn.",
        &commit[..commit.len().min(7)]
    ))
}

/// Commits `paths`; the commit, or `None` when nothing differs.
async fn record(
    git: &Git<'_>,
    store: &Store,
    paths: &[&str],
    reason: &str,
) -> Result<Option<String>, GitError> {
    let with_paths = |words: &[&'static str]| {
        let mut arguments: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        arguments.extend(paths.iter().map(|path| format!(":(literal){path}")));
        arguments
    };
    let run = async |arguments: Vec<String>| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        git.run(&store.root, &arguments).await?.text(&arguments)
    };
    run(with_paths(&["add", "--all", "--"])).await?;
    let staged = run(with_paths(&["diff", "--cached", "--name-only", "--"])).await?;
    if staged.is_empty() {
        return Ok(None);
    }
    let message = format!("--message={reason}");
    let commit = ["-c", "commit.gpgsign=false", "commit", "--quiet", &message];
    git.text(&store.root, &commit).await?;
    git.text(&store.root, &["rev-parse", "HEAD"])
        .await
        .map(Some)
}

#[cfg(test)]
mod tests;
