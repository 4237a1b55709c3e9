//! EnterWorktree: make a worktree for the work of a conversation, or go back
//! into one (04 §7.21).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::Value;
use uuid::Uuid;

use super::add::{add, free_directory, slug};
use super::claim::Claim;
use super::git::{Git, GitError};
use super::provision::{Provided, Provision};
use super::{Repository, Trouble, branch_of, on_disk};
use crate::state::atomic::read_bounded;
use crate::tools::args::{ArgError, Args, DRAFT_07, schema};
use crate::tools::text::head;
use crate::tools::tool::{Status, Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome};

/// Characters of AGENTS.md that the result holds.
const INSTRUCTION_CHARS: usize = 30_000;
const LARGEST_INSTRUCTIONS: u64 = 1024 * 1024;

const DESCRIPTION: &str = "\
Gives this conversation a git worktree of its own, so that its changes stay apart from the primary checkout and from other conversations.

- With name: makes .letta/worktrees/<name> in the repository with a new branch and moves the conversation there. The branch is letta/<name>-<random> unless branch_name is given; it starts from base_ref, by default the remote's main branch, fetched first.
- With path: goes back into a worktree made before. Only one conversation may be in a worktree; force: true takes it from another that is gone.
- New worktrees get git hooks, .letta/settings.local.json and the files that .worktreeinclude lists. Dependencies are not installed; symlink_dependencies: true links those of the primary checkout, which must then not be changed.
- The result holds the project's AGENTS.md. Look at git status before editing, and leave with ExitWorktree.
- Use it when the user wants isolated work or several agents share a repository, not for every small change.";

static PARAMETERS: LazyLock<Value> = LazyLock::new(|| {
    schema(
        r#"{
    "name": {"type": "string", "description": "Name of a new worktree"},
    "path": {"type": "string", "description": "An existing worktree to enter instead"},
    "branch_name": {"type": "string", "description": "Branch to make"},
    "base_ref": {"type": "string", "description": "What the branch starts from"},
    "repo_path": {"type": "string", "description": "The repository, if the conversation works elsewhere"},
    "refresh_base": {"type": "boolean", "description": "Fetch a remote base first; true if not given"},
    "switch_cwd": {"type": "boolean", "description": "Move the conversation there; true if not given"},
    "symlink_dependencies": {"type": "boolean", "description": "Link node_modules and the like; false if not given"},
    "force": {"type": "boolean", "description": "Take the worktree from another conversation; false if not given"}
}"#,
        &[],
        DRAFT_07,
    )
});

/// The tool.
#[derive(Debug, Default)]
pub struct EnterWorktree;

impl Tool for EnterWorktree {
    fn name(&self) -> &'static str {
        "EnterWorktree"
    }

    fn description(&self) -> &str {
        DESCRIPTION
    }

    fn parameters(&self) -> &Value {
        &PARAMETERS
    }

    fn run<'a>(&'a self, call: &'a ToolCall, context: &'a ToolContext) -> ToolFuture<'a> {
        Box::pin(async move {
            let entered = match Wish::read(call) {
                Ok(wish) => wish.fulfil(call, context).await,
                Err(error) => Err(Trouble::Refused(error.to_string())),
            };
            match entered {
                Ok(text) => ToolOutcome::part(text, Status::Success),
                Err(trouble) => trouble.outcome(),
            }
        })
    }
}

/// The arguments.
struct Wish<'a> {
    name: Option<&'a str>,
    path: Option<&'a str>,
    branch: Option<&'a str>,
    base: Option<&'a str>,
    repository: Option<&'a str>,
    refresh: bool,
    switch: bool,
    dependencies: bool,
    force: bool,
}

impl<'a> Wish<'a> {
    fn read(call: &'a ToolCall) -> Result<Self, ArgError> {
        let args = Args::new("EnterWorktree", &call.args);
        let text = |name| {
            let text = args.opt_string(name)?.map(str::trim);
            Ok(text.filter(|text| !text.is_empty()))
        };
        Ok(Self {
            name: text("name")?,
            path: text("path")?,
            branch: text("branch_name")?,
            base: text("base_ref")?,
            repository: text("repo_path")?,
            refresh: args.flag("refresh_base", true)?,
            switch: args.flag("switch_cwd", true)?,
            dependencies: args.flag("symlink_dependencies", false)?,
            force: args.flag("force", false)?,
        })
    }

    async fn fulfil(&self, call: &ToolCall, context: &ToolContext) -> Result<String, Trouble> {
        let git = Git::new(call, context);
        let cwd = context.cwd.get();
        let inside = self
            .repository
            .map_or_else(|| cwd.clone(), |path| cwd.join(path));
        let repository = Repository::around(&git, &inside).await;
        let repository = repository.map_err(|error| match error {
            GitError::Failed { detail, .. } => Trouble::Refused(format!(
                "{} is not inside a git repository. Give repo_path, or work in one. ({detail})",
                inside.display()
            )),
            other => Trouble::Git(other),
        })?;
        match (self.path, self.name) {
            (Some(_), _) if self.name.or(self.branch).or(self.base).is_some() => {
                Err(Trouble::Refused(
                    "path enters a worktree that exists; name, branch_name and base_ref are for a new one.".into(),
                ))
            }
            (Some(path), _) => self.enter(&git, &repository, &cwd.join(path), context).await,
            (None, Some(name)) => self.create(&git, &repository, name, context).await,
            (None, None) => Err(Trouble::Refused(
                "Give name for a new worktree, or path of one that exists.".into(),
            )),
        }
    }

    async fn create(
        &self,
        git: &Git<'_>,
        repository: &Repository,
        name: &str,
        context: &ToolContext,
    ) -> Result<String, Trouble> {
        let slug = slug(name);
        let branch = self.new_branch(git, repository, &slug).await?;
        let base = match self.base {
            Some(base) => base.to_owned(),
            None => repository.default_base(git).await?,
        };
        if self.refresh {
            repository.refresh(git, &base).await?;
        }
        if !repository.has(git, &base).await? {
            return Err(Trouble::Refused(format!(
                "There is no {base} to start from."
            )));
        }
        let managed = repository.managed.clone();
        let worktree = on_disk(move || free_directory(&managed, &slug)).await??;
        add(git, repository, &branch, &worktree, &base).await?;
        let worktree = on_disk(move || fs::canonicalize(&worktree).unwrap_or(worktree)).await?;
        let hooks = git
            .run(&repository.primary, &["config", "--get", "core.hooksPath"])
            .await?;
        let provision = Provision {
            primary: repository.primary.clone(),
            worktree: worktree.clone(),
            hooks: Some(hooks.stdout).filter(|hooks| !hooks.is_empty()),
            dependencies: self.dependencies,
        };
        let provided = on_disk(move || provision.bring()).await?;
        let claim = self
            .claim_and_move(git, repository, &worktree, context)
            .await?;
        let mut lines = vec![
            "Created worktree.".to_owned(),
            String::new(),
            format!("Path: {}", worktree.display()),
            format!("Branch: {branch}"),
            format!("Base: {base}"),
        ];
        lines.extend(claim.map(|claim| format!("Lock: {claim}")));
        tell_provided(&mut lines, &provided);
        self.tell_directory(&mut lines);
        lines.push(
            "Check git status there before editing, and follow the project's own set-up.".into(),
        );
        lines.extend(instructions(worktree).await?);
        Ok(lines.join("\n"))
    }

    async fn enter(
        &self,
        git: &Git<'_>,
        repository: &Repository,
        path: &Path,
        context: &ToolContext,
    ) -> Result<String, Trouble> {
        let shown = path.display();
        let (wanted, managed) = (path.to_path_buf(), repository.managed.clone());
        let real = on_disk(move || (fs::canonicalize(wanted), fs::canonicalize(managed))).await?;
        let (Ok(worktree), managed) = real else {
            return Err(Trouble::Refused(format!(
                "There is no worktree at {shown}."
            )));
        };
        if !managed.is_ok_and(|managed| worktree.starts_with(managed)) {
            return Err(Trouble::Refused(format!(
                "Only worktrees under {} can be entered, and {shown} is not one.",
                repository.managed.display()
            )));
        }
        let list = git
            .text(&repository.root, &["worktree", "list", "--porcelain"])
            .await?;
        let known = on_disk({
            let worktree = worktree.clone();
            move || known_worktree(&list, &worktree)
        });
        if !known.await? {
            return Err(Trouble::Refused(format!(
                "{shown} is not a usable worktree of this repository; see `git worktree list`."
            )));
        }
        let claim = self
            .claim_and_move(git, repository, &worktree, context)
            .await?;
        let branch = branch_of(git, &worktree).await?;
        let mut lines = vec![
            "Entered existing worktree.".to_owned(),
            String::new(),
            format!("Path: {}", worktree.display()),
            format!("Branch: {}", branch.as_deref().unwrap_or("(detached)")),
        ];
        lines.extend(
            claim
                .filter(|c| !c.is_empty())
                .map(|claim| format!("Lock: {claim}")),
        );
        self.tell_directory(&mut lines);
        lines.push("It is as it was left: nothing was copied or linked. Check git status there before editing.".into());
        lines.extend(instructions(worktree).await?);
        Ok(lines.join("\n"))
    }

    /// Claims `worktree` and moves the conversation, if it is to move; what is
    /// to be told of the claim.
    async fn claim_and_move(
        &self,
        git: &Git<'_>,
        repository: &Repository,
        worktree: &Path,
        context: &ToolContext,
    ) -> Result<Option<String>, Trouble> {
        if !self.switch {
            return Ok(None);
        }
        let git_dir = ["rev-parse", "--absolute-git-dir"];
        let claim = |directory: &str| Claim::new(Path::new(directory), &context.scope);
        let new = claim(&git.text(worktree, &git_dir).await?);
        let cwd = context.cwd.get();
        let old = if cwd.starts_with(&repository.managed) {
            let old = git.run(&cwd, &git_dir).await?;
            (old.code == Some(0)).then(|| claim(&old.stdout))
        } else {
            None
        };
        let (force, stays) = (self.force, cwd.starts_with(worktree));
        let note = on_disk(move || {
            let note = new.take(force)?;
            if let Some(old) = old.filter(|_| !stays) {
                old.release();
            }
            Ok::<_, String>(note)
        });
        let note = note.await??;
        context.cwd.set(worktree);
        Ok(Some(note))
    }

    async fn new_branch(
        &self,
        git: &Git<'_>,
        repository: &Repository,
        slug: &str,
    ) -> Result<String, Trouble> {
        let branch = self.branch.map_or_else(
            || format!("letta/{slug}-{}", &Uuid::new_v4().simple().to_string()[..8]),
            str::to_owned,
        );
        let valid = ["check-ref-format", "--branch", &branch];
        if branch.starts_with('-') || !git.succeeds(&repository.root, &valid).await? {
            return Err(Trouble::Refused(format!(
                "{branch} is no name for a branch."
            )));
        }
        let there = [
            "show-ref",
            "--verify",
            "--quiet",
            &format!("refs/heads/{branch}"),
        ];
        if git.succeeds(&repository.root, &there).await? {
            return Err(Trouble::Refused(format!("Branch already exists: {branch}")));
        }
        Ok(branch)
    }

    fn tell_directory(&self, lines: &mut Vec<String>) {
        lines.push(String::new());
        lines.push(if self.switch {
            "The conversation's working directory is now this worktree.".into()
        } else {
            "The conversation's working directory was left as it is.".into()
        });
    }
}

/// Whether `git worktree list --porcelain` names `worktree` as a linked one
/// that is whole.
fn known_worktree(list: &str, worktree: &Path) -> bool {
    list.split("\n\n").skip(1).any(|entry| {
        let mut lines = entry.lines();
        let path = lines.next().and_then(|line| line.strip_prefix("worktree "));
        let is_it =
            path.is_some_and(|path| fs::canonicalize(path).is_ok_and(|real| real == worktree));
        is_it && !lines.any(|line| line.starts_with("prunable"))
    })
}

fn tell_provided(lines: &mut Vec<String>, provided: &Provided) {
    if !provided.notes.is_empty() {
        lines.push("Provisioned:".into());
        lines.extend(provided.notes.iter().map(|note| format!("- {note}")));
    }
    lines.push(if provided.linked_dependencies {
        "Dependencies are links into the primary checkout: do not install packages here, that would change them there.".into()
    } else {
        "Dependencies were not linked: install them as the project says.".into()
    });
}

/// The project's own instructions, between markers.
async fn instructions(worktree: PathBuf) -> Result<Vec<String>, Trouble> {
    let read = move || read_bounded(&worktree.join("AGENTS.md"), LARGEST_INSTRUCTIONS);
    let Ok(bytes) = on_disk(read).await? else {
        return Ok(Vec::new());
    };
    let text = String::from_utf8_lossy(&bytes);
    let (shown, cut) = head(text.trim(), INSTRUCTION_CHARS);
    if shown.is_empty() {
        return Ok(Vec::new());
    }
    let mut lines = vec![
        String::new(),
        "Instructions of the project, from its AGENTS.md:".into(),
        "--- BEGIN AGENTS.md ---".into(),
        shown.to_owned(),
        "--- END AGENTS.md ---".into(),
    ];
    if cut {
        lines.push("AGENTS.md is longer: read the file for the rest.".into());
    }
    Ok(lines)
}
