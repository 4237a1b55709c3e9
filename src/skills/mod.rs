//! Skills: which exist for a conversation, and what one says (07 §2).
//!
//! A skill is a directory with a `SKILL.md`. [`Skills`] holds what is the same
//! for the whole process; [`Skills::discover`] and [`Skills::find`] read the
//! disk anew each time, so nothing has to be watched. Both block: call them on
//! a blocking thread. Invariant: what cannot be read is logged and left out; it
//! never hides the rest.

mod bundled;
mod content;
mod news;
mod scan;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

pub use self::news::Told;
use crate::state::Home;

/// Where a skill comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Part of this program.
    Bundled,
    /// Of the user, for all agents.
    Global,
    /// Of one agent.
    Agent,
    /// Of the working directory, or of `--skills`.
    Project,
}

impl Source {
    /// All of them, as `runtime_start.skill_sources` names them.
    pub const ALL: [Self; 4] = [Self::Bundled, Self::Global, Self::Agent, Self::Project];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bundled => "bundled",
            Self::Global => "global",
            Self::Agent => "agent",
            Self::Project => "project",
        }
    }

    /// The source of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.as_str() == name)
    }
}

/// One skill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skill {
    /// What the model calls it.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Its `SKILL.md`, absolute.
    pub path: PathBuf,
    /// Where it comes from.
    pub source: Source,
    /// Whether the model may load it by itself.
    pub for_model: bool,
}

/// Whose skills are asked for.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    /// Working directory of the conversation.
    pub cwd: &'a Path,
    /// The agent, when there is one.
    pub agent_id: Option<&'a str>,
    /// The sources of this conversation; none means no skills.
    pub sources: &'a [Source],
}

/// The skills of this machine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Skills(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    home: Home,
    /// `--skills`, else `LETTA_SKILLS_DIRECTORY`.
    configured: Option<PathBuf>,
    /// The memory directory of agents that have none on this machine.
    memory: Option<PathBuf>,
}

impl Skills {
    /// Nothing is read yet.
    pub fn new(home: Home, configured: Option<PathBuf>) -> Self {
        Self::with_memory(home, configured, None)
    }

    /// The same, with `LETTA_MEMORY_DIR` for agents without a memory of their own here.
    pub fn with_memory(home: Home, configured: Option<PathBuf>, memory: Option<PathBuf>) -> Self {
        Self(Arc::new(Shared {
            home,
            configured,
            memory,
        }))
    }

    /// All skills for `reader`, by id. Of two with one id the nearer one counts:
    /// project before agent before global before bundled.
    pub fn discover(&self, reader: &Reader<'_>) -> Vec<Skill> {
        let mut found: Vec<Skill> = Vec::new();
        for (root, source) in self.roots(reader, self.project_roots(reader.cwd)) {
            for skill in self.scan(&root, source) {
                found.retain(|known| known.id != skill.id);
                found.push(skill);
            }
        }
        found.sort_by_cached_key(|skill| (skill.id.to_lowercase(), skill.id.clone()));
        found
    }

    /// The skill that the `Skill` tool loads under `id` (07 §2.6): a configured
    /// directory takes the place of `.skills`.
    pub fn find(&self, reader: &Reader<'_>, id: &str) -> Option<Skill> {
        let legacy = self.0.configured.clone();
        let project = vec![
            legacy.unwrap_or_else(|| reader.cwd.join(".skills")),
            reader.cwd.join(".agents/skills"),
        ];
        let roots = self.roots(reader, project);
        roots.into_iter().rev().find_map(|(root, source)| {
            self.scan(&root, source)
                .into_iter()
                .find(|skill| skill.id == id)
        })
    }

    /// The `SKILL.md` of a skill that is part of this program.
    pub fn bundled(&self, id: &str) -> PathBuf {
        bundled::root(&self.0.home).join(id).join("SKILL.md")
    }

    /// What the model reads of a skill: its text and the files beside it (07 §2.6).
    ///
    /// # Errors
    /// When `SKILL.md` cannot be read.
    pub fn content(&self, skill: &Skill) -> std::io::Result<String> {
        content::wrapped(skill)
    }

    /// The directories in rising order of precedence (07 §2.2).
    fn roots(&self, reader: &Reader<'_>, project: Vec<PathBuf>) -> Vec<(PathBuf, Source)> {
        let home = &self.0.home;
        let wants = |source| reader.sources.contains(&source);
        let mut roots = Vec::new();
        if wants(Source::Bundled) {
            roots.push((bundled::root(home), Source::Bundled));
        }
        if wants(Source::Global) {
            // `skill_enable` links into the second, which LETTA_HOME moves.
            roots.push((home.letta.join("skills"), Source::Global));
            if home.skills() != home.letta.join("skills") {
                roots.push((home.skills(), Source::Global));
            }
        }
        if !reader.sources.is_empty() {
            // The memory directory of an agent counts with any source.
            let own = reader.agent_id.map(|agent| home.agent_memory(agent));
            // Of shared repositories the first by name counts, and the agent's own before them.
            let shared = reader.agent_id.map(|agent| home.attached(agent));
            let shared = shared.into_iter().flat_map(|all| all.into_keys().rev());
            roots.extend(shared.map(|dir| (dir.join("skills"), Source::Agent)));
            let own = own.filter(|dir| dir.is_dir()).or(self.0.memory.clone());
            roots.extend(own.map(|dir| (dir.join("skills"), Source::Agent)));
        }
        if wants(Source::Project) {
            roots.extend(project.into_iter().map(|root| (root, Source::Project)));
        }
        roots
    }

    fn project_roots(&self, cwd: &Path) -> Vec<PathBuf> {
        let own = [cwd.join(".skills"), cwd.join(".agents/skills")];
        let configured = self.0.configured.clone();
        configured
            .filter(|dir| !own.contains(dir))
            .into_iter()
            .chain(own)
            .collect()
    }

    fn scan(&self, root: &Path, source: Source) -> Vec<Skill> {
        match source {
            Source::Bundled => bundled::unpacked(root),
            _ => scan::scan(root, source),
        }
    }
}

/// `client_skills` of a request (07 §2.5).
///
/// # Errors
/// Never in practice; serialisation of plain data.
pub fn client_skills(skills: &[Skill]) -> serde_json::Result<Arc<RawValue>> {
    #[derive(Serialize)]
    struct Offered<'a> {
        name: &'a str,
        description: &'a str,
        location: Cow<'a, str>,
    }
    let offered: Vec<Offered<'_>> = offered(skills)
        .map(|skill| Offered {
            name: &skill.id,
            description: &skill.description,
            location: skill.path.to_string_lossy(),
        })
        .collect();
    serde_json::value::to_raw_value(&offered).map(Arc::from)
}

/// `current_available_skills` of a device status (07 §2.5).
///
/// # Errors
/// Never in practice; serialisation of plain data.
pub fn listing(skills: &[Skill]) -> serde_json::Result<Arc<RawValue>> {
    #[derive(Serialize)]
    struct Listed<'a> {
        id: &'a str,
        name: &'a str,
        description: &'a str,
        path: Cow<'a, str>,
        source: &'a str,
    }
    let listed: Vec<Listed<'_>> = offered(skills)
        .map(|skill| Listed {
            id: &skill.id,
            name: &skill.name,
            description: &skill.description,
            path: skill.path.to_string_lossy(),
            source: skill.source.as_str(),
        })
        .collect();
    serde_json::value::to_raw_value(&listed).map(Arc::from)
}

fn offered(skills: &[Skill]) -> impl Iterator<Item = &Skill> {
    skills.iter().filter(|skill| skill.for_model)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn put(dir: &Path, name: &str, description: &str) {
        let dir = dir.join(name);
        fs::create_dir_all(&dir).unwrap();
        let text = format!("---\nname: {name}\ndescription: {description}\n---\nbody of {name}\n");
        fs::write(dir.join("SKILL.md"), text).unwrap();
    }

    fn described(skills: &[Skill], id: &str) -> Option<String> {
        let skill = skills.iter().find(|skill| skill.id == id)?;
        Some(format!("{} {}", skill.source.as_str(), skill.description))
    }

    #[test]
    fn the_nearer_skill_of_two_with_one_id_counts() {
        let dir = tempfile::tempdir().unwrap();
        let mut home = Home::at(dir.path().join("home"));
        home.schedules = dir.path().join("moved");
        let cwd = dir.path().join("work");
        let configured = dir.path().join("given");
        let agent = home.agent_memory("agent-1").join("skills");
        // Each place has all skills of the places before it and one of its own.
        let places = [
            (home.letta.join("skills"), "global"),
            (home.skills(), "moved"),
            (agent, "agent"),
            (configured.clone(), "given"),
            (cwd.join(".skills"), "legacy"),
            (cwd.join(".agents/skills"), "primary"),
        ];
        for (at, (_, name)) in places.iter().enumerate() {
            for (root, from) in &places[..=at] {
                put(root, name, from);
            }
        }
        let skills = Skills::new(home, Some(configured));
        let reader = Reader {
            cwd: &cwd,
            agent_id: Some("agent-1"),
            sources: &Source::ALL,
        };
        let found = skills.discover(&reader);
        for (name, expected) in [
            ("global", "global global"),
            ("moved", "global moved"),
            ("agent", "agent agent"),
            ("given", "project given"),
            ("legacy", "project legacy"),
            ("primary", "project primary"),
        ] {
            assert_eq!(described(&found, name).as_deref(), Some(expected), "{name}");
        }
        // The tool reads the configured directory in the place of `.skills`.
        let loaded = skills.find(&reader, "legacy").unwrap();
        assert_eq!(loaded.description, "given");
        assert!(skills.find(&reader, "nothing").is_none());
    }

    #[test]
    fn a_conversation_sees_the_sources_that_it_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        put(&home.letta.join("skills"), "g", "global");
        put(&dir.path().join(".skills"), "p", "project");
        put(&home.agent_memory("a").join("skills"), "m", "agent");
        let skills = Skills::new(home, None);
        let of = |sources: &[Source]| {
            let reader = Reader {
                cwd: dir.path(),
                agent_id: Some("a"),
                sources,
            };
            let found = skills.discover(&reader);
            let ids = found.into_iter().map(|skill| skill.id);
            ids.collect::<Vec<_>>()
        };
        assert_eq!(of(&[]), Vec::<String>::new());
        assert_eq!(of(&[Source::Global]), ["g", "m"]);
        assert_eq!(of(&[Source::Project]), ["m", "p"]);
        assert!(of(&[Source::Bundled]).len() > 1);
    }

    #[test]
    fn the_memory_directory_of_the_environment_serves_agents_without_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        put(&home.letta.join("skills"), "both", "global");
        put(&dir.path().join("shared/skills"), "both", "shared");
        put(&home.agent_memory("a").join("skills"), "own", "agent");
        let shared = Some(dir.path().join("shared"));
        let skills = Skills::with_memory(home, None, shared);
        let of = |agent_id| {
            let reader = Reader {
                cwd: dir.path(),
                agent_id,
                sources: &[Source::Global],
            };
            skills.discover(&reader)
        };
        for without in [None, Some("b")] {
            let shown = described(&of(without), "both");
            assert_eq!(shown.as_deref(), Some("agent shared"));
        }
        let found = of(Some("a"));
        assert_eq!(described(&found, "both").as_deref(), Some("global global"));
        assert_eq!(described(&found, "own").as_deref(), Some("agent agent"));
    }

    #[test]
    fn shared_repositories_give_skills_that_nothing_nearer_has() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("home"));
        let cwd = dir.path().join("work");
        let own = home.agent_memory("a");
        let beside = |name: &str| own.with_file_name(name);
        put(&home.letta.join("skills"), "global", "global");
        for (name, attached) in [("b-team", true), ("a-team", true), ("left", false)] {
            fs::create_dir_all(beside(name).join(".git")).unwrap();
            if attached {
                crate::state::attached::attach(&beside(name), false).unwrap();
            }
            for skill in ["global", "own", "project", "shared", name] {
                put(&beside(name).join("skills"), skill, name);
            }
        }
        put(&own.join("skills"), "own", "own");
        put(&cwd.join(".skills"), "project", "project");
        let skills = Skills::new(home, None);
        let of = |sources| Reader {
            cwd: &cwd,
            agent_id: Some("a"),
            sources,
        };
        let reader = of(&Source::ALL);
        let found = skills.discover(&reader);
        for (id, expected) in [
            ("global", "agent a-team"),
            ("own", "agent own"),
            ("project", "project project"),
            ("shared", "agent a-team"),
            ("b-team", "agent b-team"),
        ] {
            assert_eq!(described(&found, id).as_deref(), Some(expected), "{id}");
            let loaded = skills.find(&reader, id).unwrap();
            assert_eq!(
                format!("{} {}", loaded.source.as_str(), loaded.description),
                expected
            );
        }
        assert_eq!(described(&found, "left"), None);
        assert!(skills.discover(&of(&[])).is_empty());
    }

    #[test]
    fn a_skill_that_is_not_for_the_model_is_not_sent() {
        let skill = |id: &str, for_model| Skill {
            id: id.into(),
            name: id.into(),
            description: "d".into(),
            path: format!("/s/{id}/SKILL.md").into(),
            source: Source::Global,
            for_model,
        };
        let skills = [skill("a", true), skill("b", false)];
        assert_eq!(
            client_skills(&skills).unwrap().get(),
            r#"[{"name":"a","description":"d","location":"/s/a/SKILL.md"}]"#
        );
        assert_eq!(
            listing(&skills).unwrap().get(),
            r#"[{"id":"a","name":"a","description":"d","path":"/s/a/SKILL.md","source":"global"}]"#
        );
    }
}
