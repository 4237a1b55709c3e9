//! The kinds of subagents: those of this program, then files of the user, then
//! files of the project (07 §3.2).
//!
//! Invariant: reading never fails. A file that cannot be used is logged and
//! left out; the rest holds.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::frontmatter::{Document, Field};
use crate::state::Home;
use crate::state::atomic::read_bounded;

/// A description longer than this is no description.
const FILE_LIMIT: u64 = 256 * 1024;
/// Files that are read of one directory.
const FILES: usize = 64;

/// One kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kind {
    /// What `subagent_type` calls it.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Its tools; `None` is all of them.
    pub tools: Option<Vec<String>>,
    /// A model handle or a short name of one; `None` is that of the parent.
    pub model: Option<String>,
    /// Skills that are loaded before it begins.
    pub skills: Vec<String>,
    /// It goes on in a copy of the parent's conversation.
    pub fork: bool,
    /// Its system prompt; a fork has that of its parent.
    pub prompt: String,
}

const GENERAL_PURPOSE_TOOLS: [&str; 9] = [
    "Bash",
    "TaskCreate",
    "TaskGet",
    "TaskList",
    "TaskUpdate",
    "Edit",
    "KillBash",
    "Read",
    "Write",
];

const GENERAL_PURPOSE: &str = "\
You are a subagent: another agent has handed you one task on its user's machine, and waits for your report.

Work on your own. Nobody can answer questions while you run, so decide what is open by the most sensible reading of the task, and say in the report what you assumed. Look before you change anything: find the files that matter, read them, follow the conventions that you find there. Do what was asked and nothing beside it. Check your work where you can, by running what you wrote or reading what you changed.

If something stands in the way and you cannot get around it, stop and report what it is rather than working around the intent of the task.

Your last message is the report, and the only thing that the other agent sees. Make it complete on its own: what you did or found, with absolute paths and line numbers where they help, what you checked, and what is left. Be brief; leave out how you got there.";

static BUILT_IN: LazyLock<Vec<Kind>> = LazyLock::new(|| {
    vec![
        Kind {
            name: "fork".into(),
            description: "Goes on from this conversation in a copy of it: it knows everything said so far and has the same tools. For a task that needs this context, without filling this conversation with its steps.".into(),
            fork: true,
            ..Kind::default()
        },
        Kind {
            name: "general-purpose".into(),
            description: "Researches, reads, writes code and runs commands on its own for a task of several steps. It knows nothing of this conversation: put all it needs into the prompt.".into(),
            tools: Some(GENERAL_PURPOSE_TOOLS.map(String::from).into()),
            prompt: GENERAL_PURPOSE.into(),
            ..Kind::default()
        },
    ]
});

/// All kinds that a conversation can choose from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kinds(Vec<Kind>);

impl Kinds {
    /// Those of this program.
    pub fn built_in() -> Self {
        Self(BUILT_IN.clone())
    }

    /// Those of a conversation that works in `cwd`, and how many come from
    /// files. Blocking.
    pub fn discover(home: &Home, cwd: &Path) -> (Self, usize) {
        let mut kinds = Self::built_in();
        let mut count = 0;
        let user = home.agents();
        let project = cwd.join(".letta/agents");
        let roots = std::iter::once(&user).chain((project != user).then_some(&project));
        for path in roots.flat_map(|root| files(root)) {
            match kinds.add_file(&path) {
                Ok(()) => count += 1,
                Err(problem) => {
                    tracing::warn!(path = %path.display(), problem, "A description of a subagent is left out.");
                }
            }
        }
        (kinds, count)
    }

    /// The kind called `name`.
    pub fn get(&self, name: &str) -> Option<&Kind> {
        self.0.iter().find(|kind| kind.name == name)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Kind> {
        self.0.iter()
    }

    /// Their names, as an error lists them.
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.iter().map(|kind| kind.name.as_str()).collect();
        names.join(", ")
    }

    fn add_file(&mut self, path: &Path) -> Result<(), &'static str> {
        let bytes = read_bounded(path, FILE_LIMIT).map_err(|_| "it cannot be read")?;
        let text = String::from_utf8(bytes).map_err(|_| "it is no UTF-8 text")?;
        self.add(&Document::parse(&text))
    }

    /// Adds what a file says. Without a body it changes the kind of its name,
    /// and only in what it names.
    fn add(&mut self, file: &Document) -> Result<(), &'static str> {
        let name = file.text("name").ok_or("it has no `name`")?;
        if !is_name(name) {
            return Err("its `name` must be lower-case letters, digits and hyphens");
        }
        if file
            .text("launchProfile")
            .is_some_and(|profile| profile != "default")
        {
            return Err("its `launchProfile` is not part of this program");
        }
        let known = self.0.iter().position(|kind| kind.name == name);
        let body = file.body.trim();
        let mut kind = match known.and_then(|at| self.0.get(at)) {
            Some(kind) if body.is_empty() => kind.clone(),
            _ if body.is_empty() => return Err("it has no text, and no kind of its name is known"),
            _ => Kind {
                name: name.to_owned(),
                prompt: body.to_owned(),
                ..Kind::default()
            },
        };
        if let Some(description) = file.text("description") {
            description.clone_into(&mut kind.description);
        } else if !body.is_empty() {
            return Err("it has no `description`");
        }
        if let Some(tools) = list(file, "tools") {
            let all = tools.is_empty() || tools.iter().any(|tool| tool == "all");
            kind.tools = (!all).then_some(tools);
        }
        if file.fields.iter().any(|(key, _)| key == "model") {
            let model = file.text("model").filter(|model| *model != "inherit");
            kind.model = model.map(String::from);
        }
        if let Some(skills) = list(file, "skills") {
            kind.skills = skills;
        }
        if let Some(fork) = file.text("fork") {
            kind.fork = fork == "true";
        }
        match known.and_then(|at| self.0.get_mut(at)) {
            Some(slot) => *slot = kind,
            None => self.0.push(kind),
        }
        Ok(())
    }
}

/// The files of one directory, by name; no links.
fn files(root: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "md"))
        .collect();
    files.sort();
    files.truncate(FILES);
    files
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// A field of names: commas, or one on each line.
fn list(file: &Document, key: &str) -> Option<Vec<String>> {
    let (_, value) = file.fields.iter().find(|(name, _)| name == key)?;
    let names: Vec<&str> = match value {
        Field::Text(_) => file.text(key).unwrap_or_default().split(',').collect(),
        Field::List(items) => items.iter().map(String::as_str).collect(),
    };
    let names = names.into_iter().map(str::trim);
    let names = names.filter(|name| !name.is_empty() && *name != "none");
    Some(names.map(String::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(files: &[&str]) -> (Kinds, Vec<&'static str>) {
        let mut kinds = Kinds::built_in();
        let problems = files
            .iter()
            .filter_map(|text| kinds.add(&Document::parse(text)).err())
            .collect();
        (kinds, problems)
    }

    #[test]
    fn a_file_describes_a_kind_and_what_it_leaves_out_has_a_default() {
        let (kinds, problems) = kinds(&[
            "---\nname: reviewer\ndescription: Reviews\ntools: Read, Bash\nmodel: openai/gpt-5\nskills: a, b\n---\nReview it.\n",
            "---\nname: plain\ndescription: 'Quoted'\ntools: all\nmodel: inherit\nfork: true\n---\nDo.",
        ]);
        assert!(problems.is_empty(), "{problems:?}");
        let reviewer = kinds.get("reviewer").unwrap();
        assert_eq!(reviewer.tools.as_deref().unwrap(), ["Read", "Bash"]);
        assert_eq!(reviewer.model.as_deref(), Some("openai/gpt-5"));
        assert_eq!(reviewer.skills, ["a", "b"]);
        assert_eq!(reviewer.prompt, "Review it.");
        let plain = kinds.get("plain").unwrap();
        assert_eq!(
            (plain.tools.as_ref(), plain.model.as_ref(), plain.fork),
            (None, None, true)
        );
        assert_eq!(plain.description, "Quoted");
        assert_eq!(kinds.names(), "fork, general-purpose, reviewer, plain");
    }

    #[test]
    fn a_file_without_a_text_changes_only_what_it_names() {
        let (kinds, problems) = kinds(&[
            "---\nname: general-purpose\nmodel: a/b\n---\n",
            "---\nname: x\ndescription: d\ntools: Read\nmodel: a/b\n---\nText",
            "---\nname: x\nmodel:\n---\n\n",
        ]);
        assert!(problems.is_empty(), "{problems:?}");
        let general = kinds.get("general-purpose").unwrap();
        assert_eq!(general.model.as_deref(), Some("a/b"));
        assert_eq!(general.prompt, GENERAL_PURPOSE);
        let x = kinds.get("x").unwrap();
        assert_eq!((x.model.as_deref(), x.prompt.as_str()), (None, "Text"));
        assert_eq!(x.tools.as_deref().unwrap(), ["Read"]);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_left_out_with_its_reason() {
        let (kinds, problems) = kinds(&[
            "no header",
            "---\nname: Upper\ndescription: d\n---\nx",
            "---\nname: nothing\ndescription: d\n---\n",
            "---\nname: silent\n---\nx",
            "---\nname: worker\ndescription: d\nlaunchProfile: memory-subagent\n---\nx",
        ]);
        assert_eq!(problems.len(), 5, "{problems:?}");
        assert_eq!(kinds, Kinds::built_in());
    }

    #[test]
    fn the_project_wins_over_the_user_and_folders_and_other_files_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("home"));
        let work = dir.path().join("work");
        for root in [&home.user, &work] {
            let agents = root.join(".letta/agents");
            std::fs::create_dir_all(agents.join("agent-1.md")).unwrap();
            std::fs::write(agents.join("x.txt"), "---\nname: x\n---\n").unwrap();
        }
        let write = |root: &Path, file: &str, name: &str, description: &str| {
            let text = format!("---\nname: {name}\ndescription: {description}\n---\nText");
            std::fs::write(root.join(".letta/agents").join(file), text).unwrap();
        };
        write(&home.user, "a.md", "one", "user");
        write(&home.user, "b.md", "two", "user");
        write(&work, "z.md", "one", "project");
        let (kinds, count) = Kinds::discover(&home, &work);
        assert_eq!(count, 3);
        assert_eq!(kinds.get("one").unwrap().description, "project");
        assert_eq!(kinds.get("two").unwrap().description, "user");
        assert_eq!(Kinds::discover(&home, &home.user).1, 2);
    }
}
