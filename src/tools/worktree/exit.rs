//! ExitWorktree: leave the worktree of a conversation, and remove it on
//! request unless that would lose work (04 §7.21).

use std::path::Path;
use std::sync::LazyLock;

use serde_json::Value;

use super::claim::Claim;
use super::git::{Git, GitError};
use super::{Repository, Trouble, branch_of, on_disk};
use crate::tools::args::{Args, DRAFT_07, schema};
use crate::tools::tool::{Status, Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome};

/// Lines of each kind of unsaved work that an error shows.
const SHOWN: usize = 10;

const DESCRIPTION: &str = "\
Leaves the worktree that this conversation is in and moves it to the primary checkout.

- action keep leaves worktree and branch on disk; EnterWorktree with path goes back. action remove deletes both.
- remove is refused while there are uncommitted changes, or commits that the base branch does not have. Only when the user agrees to lose them, give discard_changes: true.
- Outside a worktree made by EnterWorktree it does nothing.";

static PARAMETERS: LazyLock<Value> = LazyLock::new(|| {
    schema(
        r#"{
    "action": {"type": "string", "enum": ["keep", "remove"], "description": "What becomes of the worktree"},
    "discard_changes": {"type": "boolean", "description": "Remove it with the work in it; false if not given"}
}"#,
        &["action"],
        DRAFT_07,
    )
});

/// The tool.
#[derive(Debug, Default)]
pub struct ExitWorktree;

impl Tool for ExitWorktree {
    fn name(&self) -> &'static str {
        "ExitWorktree"
    }

    fn description(&self) -> &str {
        DESCRIPTION
    }

    fn parameters(&self) -> &Value {
        &PARAMETERS
    }

    fn run<'a>(&'a self, call: &'a ToolCall, context: &'a ToolContext) -> ToolFuture<'a> {
        Box::pin(async move {
            match leave(call, context).await {
                Ok(text) => ToolOutcome::part(text, Status::Success),
                Err(trouble) => trouble.outcome(),
            }
        })
    }
}

async fn leave(call: &ToolCall, context: &ToolContext) -> Result<String, Trouble> {
    let args = Args::new("ExitWorktree", &call.args);
    let refused = |error: crate::tools::args::ArgError| Trouble::Refused(error.to_string());
    let remove = match args.string("action").map_err(refused)?.trim() {
        "keep" => false,
        "remove" => true,
        _ => {
            return Err(Trouble::Refused(
                "action must be keep (the worktree stays on disk) or remove (it is deleted with its branch).".into(),
            ));
        }
    };
    let discard = args.flag("discard_changes", false).map_err(refused)?;
    let git = Git::new(call, context);
    let cwd = context.cwd.get();
    let repository = match Repository::around(&git, &cwd).await {
        Ok(repository) => repository,
        Err(GitError::Failed { .. }) => {
            return Ok(format!(
                "{} is not inside a git repository: there is no worktree to leave.",
                cwd.display()
            ));
        }
        Err(other) => return Err(other.into()),
    };
    let worktree = repository.root.clone();
    if !worktree.starts_with(&repository.managed) {
        return Ok(format!(
            "{} is not in a worktree under {}: there is nothing to leave.",
            cwd.display(),
            repository.managed.display()
        ));
    }
    let branch = branch_of(&git, &worktree).await?;
    let links = {
        let list = ["ls-files", "--others", "--exclude-standard", "-z"];
        let others = git.text(&worktree, &list).await?;
        let (worktree, primary) = (worktree.clone(), repository.primary.clone());
        on_disk(move || our_links(&others, &worktree, &primary)).await?
    };
    if remove && !discard {
        let unsaved = unsaved_work(&git, &repository, &links).await?;
        if !unsaved.is_empty() {
            return Err(Trouble::Refused(format!(
                "{} still holds work:\n\n{}\n\nCommit or push it, leave with action keep, or, if it may be lost, call again with discard_changes: true.",
                worktree.display(),
                unsaved.join("\n")
            )));
        }
    }
    let git_dir = git
        .text(&worktree, &["rev-parse", "--absolute-git-dir"])
        .await?;
    let claim = Claim::new(Path::new(&git_dir), &context.scope);
    let primary = &repository.primary;
    context.cwd.set(primary);
    let released = on_disk(move || claim.release()).await?;
    let mut note = branch.clone().unwrap_or_else(|| "(detached)".into());
    if remove {
        let root = worktree.clone();
        on_disk(move || {
            for link in links {
                // What stays makes git refuse, which is told.
                let _ = std::fs::remove_file(root.join(link));
            }
        })
        .await?;
        let path = worktree.to_string_lossy();
        let mut arguments = vec!["worktree", "remove"];
        arguments.extend(discard.then_some("--force"));
        arguments.extend(["--", &path]);
        git.text(primary, &arguments).await?;
        if let Some(branch) = &branch {
            let flag = if discard { "-D" } else { "-d" };
            note = match git.text(primary, &["branch", flag, "--", branch]).await {
                Ok(_) => format!("{branch}, deleted"),
                Err(GitError::Aborted) => return Err(GitError::Aborted.into()),
                Err(error) => format!("{branch}, kept ({error})"),
            };
        }
    }
    let mut lines = vec![
        if remove {
            "Removed worktree."
        } else {
            "Left worktree."
        }
        .to_owned(),
        String::new(),
        format!("Path: {path}", path = worktree.display()),
        format!("Branch: {note}"),
    ];
    lines.extend(released.then(|| "Lock: released".to_owned()));
    lines.push(format!("CWD: {}", primary.display()));
    lines.push(String::new());
    lines.push("The conversation's working directory is now the primary checkout.".into());
    if !remove {
        lines.push("Worktree and branch stay on disk; EnterWorktree with path goes back.".into());
    }
    Ok(lines.join("\n"))
}

/// The untracked links that lead to the same place of the primary checkout:
/// dependencies and hooks that were linked when the worktree was made.
fn our_links(others: &str, worktree: &Path, primary: &Path) -> Vec<String> {
    let ours = |name: &&str| {
        let target = std::fs::read_link(worktree.join(name));
        !name.is_empty() && target.is_ok_and(|target| target == primary.join(name))
    };
    let names = others.split('\0');
    names.filter(ours).map(str::to_owned).collect()
}

/// What a removal would lose.
async fn unsaved_work(
    git: &Git<'_>,
    repository: &Repository,
    links: &[String],
) -> Result<Vec<String>, GitError> {
    let mut unsaved = Vec::new();
    let status = git
        .text(&repository.root, &["status", "--porcelain"])
        .await?;
    let is_link = |line: &&str| {
        let name = line.strip_prefix("?? ");
        name.is_some_and(|name| links.iter().any(|link| link == name))
    };
    let status: Vec<&str> = status.lines().filter(|line| !is_link(line)).collect();
    let status = status.join("\n");
    note(&mut unsaved, &status, "uncommitted change(s)");
    let base = repository.default_base(git).await?;
    let range = format!("{base}..HEAD");
    let commits = git
        .text(&repository.root, &["log", "--oneline", &range, "--"])
        .await?;
    note(&mut unsaved, &commits, &format!("commit(s) not in {base}"));
    Ok(unsaved)
}

fn note(unsaved: &mut Vec<String>, lines: &str, what: &str) {
    let count = lines.lines().count();
    if count > 0 {
        unsaved.push(format!("{count} {what}:"));
        unsaved.extend(lines.lines().take(SHOWN).map(|line| format!("  {line}")));
        unsaved.extend((count > SHOWN).then(|| "  ...".to_owned()));
    }
}
