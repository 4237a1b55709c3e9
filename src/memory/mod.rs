//! The memory of an agent as a git repository on this machine (06 §6, 07 §4).
//!
//! [`Memory`] knows the server and hands out a [`Checkout`] per agent;
//! [`first_touch`](Memory::first_touch) brings it up to date once per process.
//! Invariant: the key never stands in a URL, in a process argument or in
//! `.git/config`; no path leaves the checkout or enters its `.git`.

mod attached;
mod change;
mod checkout;
mod files;
mod first_touch;
mod git;
mod layout;
mod process_lock;
mod push;
mod rules;
mod setup;
mod sync;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use thiserror::Error;
use tokio::task::JoinSet;

pub use change::{Change, Changes};
pub use checkout::{Author, Checkout, Commit, Revision, Turn};
pub use files::{Entry, RelativePath};
pub use first_touch::{TAG, Touched, is_enabled};
pub use git::GitError;
pub use layout::Format;
pub use push::Pushed;
pub use rules::check_staged;

use self::first_touch::Flight;
use crate::api::token::TokenSource;
use crate::state::Home;

/// What a [`Memory`] is made from.
#[derive(Clone)]
pub struct MemorySettings {
    /// The user's directories.
    pub home: Home,
    /// `LETTA_MEMFS_BASE_URL`, else Letta Cloud; without trailing slash.
    pub server: String,
    /// `LETTA_MEMFS_LOCAL=1`: the server counts as Letta Cloud.
    pub cloud: bool,
    /// `LETTA_MEMFS_BACKEND=hosted`.
    pub hosted: bool,
    /// Where the key comes from.
    pub tokens: Arc<dyn TokenSource>,
    /// This program, for hooks and for the credential helper of the agent's own git.
    pub binary: PathBuf,
}

/// The memory repositories of this machine. Cheap to clone.
#[derive(Clone)]
pub struct Memory(Arc<Shared>);

struct Shared {
    settings: MemorySettings,
    /// First touches by agent, under way or done.
    touched: Mutex<HashMap<String, Flight>>,
    /// Who may change a checkout: one at a time.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    tasks: Mutex<JoinSet<()>>,
}

/// Why the memory of an agent could not be used.
#[derive(Clone, Debug, Error)]
pub enum MemoryError {
    /// The id cannot name a directory.
    #[error("{0:?} is not an agent id")]
    AgentId(String),
    /// There is no repository on this machine.
    #[error("There is no memory repository of this agent on this computer: {} is missing.", .0.display())]
    NoCheckout(PathBuf),
    /// Git failed.
    #[error("{0}")]
    Git(#[from] GitError),
    /// A commit breaks the rules of the memory; each line names a file and a rule.
    #[error("The change breaks the rules of the memory:\n{0}")]
    Rules(String),
    /// The repositories here and on the server could not be brought together.
    #[error(
        "Pull failed: {0}\nLook at the repository with git status; commit or discard what is not committed, then try again."
    )]
    Pull(String),
    /// A file could not be read or written.
    #[error("{path}: {reason}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The server could not be asked.
    #[error("{0}")]
    Api(String),
}

impl MemoryError {
    fn file(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::File {
            path: path.to_owned(),
            reason: error.to_string(),
        }
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory")
            .field("server", &self.0.settings.server)
            .finish_non_exhaustive()
    }
}

impl Memory {
    /// Nothing is read or started yet.
    pub fn new(settings: MemorySettings) -> Self {
        Self(Arc::new(Shared {
            settings,
            touched: Mutex::default(),
            turns: Mutex::default(),
            tasks: Mutex::default(),
        }))
    }

    /// The server of the repositories.
    pub fn server(&self) -> &str {
        &self.0.settings.server
    }

    /// Whether that is Letta Cloud (06 §2).
    pub fn is_cloud(&self) -> bool {
        self.0.settings.cloud || self.0.settings.server.contains("api.letta.com")
    }

    /// The checkout of an agent, whether it exists or not.
    ///
    /// # Errors
    /// When the id cannot name a directory.
    pub fn checkout(&self, agent_id: &str) -> Result<Checkout, MemoryError> {
        let fits = !matches!(agent_id, "" | "." | "..")
            && agent_id.len() <= 200
            && agent_id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !fits {
            return Err(MemoryError::AgentId(agent_id.to_owned()));
        }
        let turn = self.turn(agent_id.to_owned());
        Ok(Checkout::new(self.clone(), agent_id, None, turn))
    }

    /// The checkout of a shared repository that is attached to an agent.
    fn attached(&self, agent_id: &str, name: &str) -> Result<Checkout, MemoryError> {
        let own = self.checkout(agent_id)?;
        let turn = self.turn(format!("{agent_id}/{name}"));
        Ok(Checkout::new(
            self.clone(),
            own.agent_id(),
            Some(name),
            turn,
        ))
    }

    /// Who may change what is called `key`.
    fn turn(&self, key: String) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(lock(&self.0.turns).entry(key).or_default())
    }

    /// Lets a task go on when nobody waits for it any more; it ends with [`Memory::shut_down`].
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.0.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Ends everything that still runs.
    pub async fn shut_down(&self) {
        let mut tasks = std::mem::take(&mut *lock(&self.0.tasks));
        tasks.shutdown().await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memories of tests: below `home`, of a server that does not exist.
#[cfg(test)]
pub(crate) fn trial(home: &Home) -> Memory {
    Memory::new(MemorySettings {
        home: home.clone(),
        server: "http://127.0.0.1:9".into(),
        cloud: false,
        hosted: false,
        tokens: Arc::new(crate::api::token::StaticToken::default()),
        binary: "/opt/letta".into(),
    })
}

#[cfg(test)]
mod tests;
