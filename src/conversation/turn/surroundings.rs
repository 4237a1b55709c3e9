//! What the disk says at the start of a turn: the agent's memory, the kinds of
//! subagents, the skills (spec 03 §8, 04 §2, 07 §2–3).
//!
//! Invariant: all of it is read at once on a thread that may block, so that a
//! slow disk holds up its own turn only.

use std::path::Path;
use std::sync::Arc;

use crate::conversation::services::Services;
use crate::protocol::Scope;
use crate::skills::{Reader, Skill, Source};
use crate::subagents::Kinds;
use crate::tools::Tool;
use crate::tools::agent::Agent;

/// What was found.
#[derive(Default)]
pub(super) struct Surroundings {
    /// The agent's memory is in git on this machine; its tools work on nothing else.
    pub(super) has_memory: bool,
    /// The Agent tool of a conversation that has kinds of subagents of its own.
    pub(super) agent_tool: Option<Arc<dyn Tool>>,
    /// The skills.
    pub(super) skills: Vec<Skill>,
    /// The text of those that the turn starts with.
    pub(super) preloaded: Option<String>,
}

impl Surroundings {
    /// Reads them for a turn in `cwd` that starts with the skills of `preload`.
    pub(super) async fn read(
        services: &Services,
        scope: &Scope,
        cwd: &Path,
        sources: &Arc<[Source]>,
        preload: Vec<String>,
    ) -> Self {
        let (home, known) = (services.home.clone(), services.skills.clone());
        let (agent_id, cwd, sources) = (scope.agent_id.clone(), cwd.to_owned(), sources.clone());
        let read = move || {
            let memory = agent_id.as_deref().map(|id| home.agent_memory(id));
            let has_memory = memory.is_some_and(|directory| directory.join(".git").exists());
            let (kinds, custom) = Kinds::discover(&home, &cwd);
            let reader = Reader {
                cwd: &cwd,
                agent_id: agent_id.as_deref(),
                sources: &sources,
            };
            Self {
                has_memory,
                agent_tool: (custom > 0).then(|| Arc::new(Agent::new(&kinds, custom)) as _),
                skills: known.discover(&reader),
                preloaded: known.preloaded(&reader, &preload),
            }
        };
        tokio::task::spawn_blocking(read).await.unwrap_or_default()
    }
}
