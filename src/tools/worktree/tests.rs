//! Worktrees of a repository made for each test, with the real git.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::enter::EnterWorktree;
use super::exit::ExitWorktree;
use crate::protocol::Scope;
use crate::tools::Status;
use crate::tools::tests::{Bench, args, text_of};

fn git(directory: &Path, arguments: &[&str]) -> String {
    let done = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.com"])
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(done.status.success(), "git {arguments:?}: {done:?}");
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// A bench whose working directory is a repository with one commit on `main`.
fn bench() -> (Bench, PathBuf) {
    let bench = Bench::with_variables(&[
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
    ]);
    let cwd = bench.context.cwd.get().canonicalize().unwrap();
    bench.context.cwd.set(&cwd);
    git(&cwd, &["init", "-q", "-b", "main"]);
    fs::write(cwd.join("AGENTS.md"), "Be kind.\n").unwrap();
    fs::write(cwd.join(".gitignore"), ".letta/\n.env\nnode_modules/\n").unwrap();
    git(&cwd, &["add", "."]);
    git(&cwd, &["commit", "-q", "-m", "first"]);
    (bench, cwd)
}

async fn enter(bench: &Bench, given: Value) -> (Status, String) {
    let outcome = bench.run(&EnterWorktree, args(given)).await;
    (outcome.status, text_of(&outcome))
}

async fn exit(bench: &Bench, given: Value) -> (Status, String) {
    let outcome = bench.run(&ExitWorktree, args(given)).await;
    (outcome.status, text_of(&outcome))
}

#[tokio::test]
async fn a_conversation_gets_a_worktree_with_a_branch_settings_and_instructions_of_its_own() {
    let (bench, primary) = bench();
    fs::write(
        primary.join(".worktreeinclude"),
        "# local\n.env\n../outside\n",
    )
    .unwrap();
    fs::write(primary.join(".env"), "A=1\n").unwrap();
    fs::create_dir_all(primary.join(".letta")).unwrap();
    fs::write(primary.join(".letta/settings.local.json"), "{}").unwrap();
    fs::create_dir_all(primary.join("node_modules/x")).unwrap();
    let (status, text) = enter(
        &bench,
        json!({"name": "My task!", "symlink_dependencies": true}),
    )
    .await;
    assert_eq!(status, Status::Success, "{text}");
    let worktree = primary.join(".letta/worktrees/my-task");
    assert_eq!(bench.context.cwd.get(), worktree);
    let branch = git(&worktree, &["rev-parse", "--abbrev-ref", "HEAD"]);
    assert!(
        branch.starts_with("letta/my-task-") && branch.len() == "letta/my-task-".len() + 8,
        "{branch}"
    );
    for part in [
        &format!("Path: {}", worktree.display()),
        &format!("Branch: {branch}"),
        "Base: main",
        "- 1 file of .worktreeinclude copied",
        "- ../outside was not copied: it is not a path inside the repository",
        "- node_modules is a link to the primary checkout's",
        "working directory is now this worktree",
        "--- BEGIN AGENTS.md ---\nBe kind.\n--- END AGENTS.md ---",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert_eq!(fs::read_to_string(worktree.join(".env")).unwrap(), "A=1\n");
    assert!(worktree.join(".letta/settings.local.json").is_file());
    assert_eq!(
        fs::read_link(worktree.join("node_modules")).unwrap(),
        primary.join("node_modules")
    );
    let lock = git(&worktree, &["rev-parse", "--absolute-git-dir"]);
    let lock = fs::read_to_string(Path::new(&lock).join("letta-enter.lock")).unwrap();
    let lock: Value = serde_json::from_str(&lock).unwrap();
    assert_eq!(lock["conversationId"], "conv-1");
    assert_eq!(lock["pid"], std::process::id());

    let (status, text) = exit(&bench, json!({"action": "remove"})).await;
    assert_eq!(status, Status::Success, "{text}");
    assert!(
        text.contains(&format!("Branch: {branch}, deleted")),
        "{text}"
    );
    assert!(!worktree.exists());
    assert_eq!(bench.context.cwd.get(), primary);
    assert_eq!(git(&primary, &["branch", "--list", "letta/*"]), "");
}

#[tokio::test]
async fn work_that_is_not_saved_keeps_a_worktree_until_it_may_be_lost() {
    let (bench, primary) = bench();
    enter(&bench, json!({"name": "a", "branch_name": "mine"})).await;
    let worktree = bench.context.cwd.get();
    fs::write(worktree.join("new"), "x").unwrap();
    let (status, text) = exit(&bench, json!({"action": "remove"})).await;
    assert_eq!(status, Status::Error);
    assert!(
        text.contains("1 uncommitted change(s):\n  ?? new"),
        "{text}"
    );
    git(&worktree, &["add", "."]);
    git(&worktree, &["commit", "-q", "-m", "second"]);
    let (_, text) = exit(&bench, json!({"action": "remove"})).await;
    assert!(
        text.contains("1 commit(s) not in main:\n") && text.contains("second"),
        "{text}"
    );
    assert_eq!(bench.context.cwd.get(), worktree, "nothing has happened");
    let (status, text) = exit(&bench, json!({"action": "keep"})).await;
    assert_eq!(status, Status::Success, "{text}");
    assert!(worktree.exists());
    assert_eq!(bench.context.cwd.get(), primary);
    let (status, text) = enter(&bench, json!({"path": ".letta/worktrees/a"})).await;
    assert_eq!(status, Status::Success, "{text}");
    assert!(text.contains("Branch: mine"), "{text}");
    let (status, text) = exit(&bench, json!({"action": "remove", "discard_changes": true})).await;
    assert_eq!(status, Status::Success, "{text}");
    assert!(!worktree.exists());
}

#[tokio::test]
async fn a_worktree_of_another_conversation_is_entered_only_by_force() {
    let (mut bench, primary) = bench();
    enter(&bench, json!({"name": "shared"})).await;
    bench.context.cwd.set(&primary);
    bench.context.scope = Scope::new(Some("agent-1"), Some("conv-2"));
    let path = json!({"path": ".letta/worktrees/shared"});
    let (status, text) = enter(&bench, path.clone()).await;
    assert_eq!(status, Status::Error);
    assert!(
        text.contains("in use by conversation conv-1 since "),
        "{text}"
    );
    assert_eq!(bench.context.cwd.get(), primary);
    let (status, text) = enter(
        &bench,
        json!({"path": ".letta/worktrees/shared", "force": true}),
    )
    .await;
    assert_eq!(status, Status::Success, "{text}");
    assert!(
        text.contains("Lock: taken by force from conversation conv-1"),
        "{text}"
    );
    // A holder whose process is gone holds nothing.
    let git_dir = git(
        &bench.context.cwd.get(),
        &["rev-parse", "--absolute-git-dir"],
    );
    let lock = Path::new(&git_dir).join("letta-enter.lock");
    fs::write(
        &lock,
        json!({"conversationId": "conv-3", "pid": 0, "hostname": ""}).to_string(),
    )
    .unwrap();
    bench.context.cwd.set(&primary);
    let (status, text) = enter(&bench, path).await;
    assert_eq!(status, Status::Success, "{text}");
    assert!(
        text.contains("taken over; whoever had it is gone"),
        "{text}"
    );
}

#[tokio::test]
async fn a_checkout_runs_no_program_that_the_repository_names() {
    let (bench, primary) = bench();
    let trap = primary.join("ran");
    let command = format!("touch {}", trap.display());
    fs::write(primary.join(".gitattributes"), "* filter=evil\n").unwrap();
    git(&primary, &["add", "."]);
    git(&primary, &["commit", "-q", "-m", "attributes"]);
    git(
        &primary,
        &["config", "filter.evil.smudge", &format!("{command}; cat")],
    );
    let hook = primary.join(".git/hooks/post-checkout");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    fs::write(&hook, format!("#!/bin/sh\n{command}\n")).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&hook, executable).unwrap();
    let (status, text) = enter(&bench, json!({"name": "safe"})).await;
    assert_eq!(status, Status::Success, "{text}");
    assert!(!trap.exists(), "a filter or hook has run");
    bench.context.cwd.set(&primary);
    git(&primary, &["config", "includeIf.gitdir:/x.path", "/x"]);
    let (status, text) = enter(&bench, json!({"name": "unsafe"})).await;
    assert_eq!(status, Status::Error);
    assert!(text.contains("includeif.gitdir:/x.path"), "{text}");
}

#[tokio::test]
async fn what_cannot_be_entered_or_left_is_told_and_changes_nothing() {
    let (bench, primary) = bench();
    for (given, expected) in [
        (json!({}), "Give name for a new worktree"),
        (
            json!({"name": "a", "path": "b"}),
            "path enters a worktree that exists",
        ),
        (json!({"path": "none"}), "There is no worktree at "),
        (json!({"path": "."}), "Only worktrees under "),
        (
            json!({"name": "a", "branch_name": "main"}),
            "Branch already exists: main",
        ),
        (
            json!({"name": "a", "branch_name": "-x"}),
            "-x is no name for a branch",
        ),
        (
            json!({"name": "a", "branch_name": "a..b"}),
            "a..b is no name for a branch",
        ),
        (
            json!({"name": "a", "base_ref": "nowhere"}),
            "There is no nowhere to start from",
        ),
        (
            json!({"name": "a", "base_ref": "--all"}),
            "There is no --all to start from",
        ),
        (
            json!({"name": "a", "repo_path": "/"}),
            "/ is not inside a git repository",
        ),
        (json!({"name": 7}), "Parameter 'name' must be a string"),
    ] {
        let (status, text) = enter(&bench, given).await;
        assert_eq!(status, Status::Error, "{text}");
        assert!(text.contains(expected), "{text}");
    }
    assert_eq!(bench.context.cwd.get(), primary);
    assert!(!primary.join(".letta/worktrees").exists());
    let (status, text) = exit(&bench, json!({"action": "remove"})).await;
    assert_eq!(status, Status::Success);
    assert!(text.contains("there is nothing to leave"), "{text}");
    let (status, text) = exit(&bench, json!({"action": "burn"})).await;
    assert_eq!(status, Status::Error);
    assert!(text.contains("action must be keep"), "{text}");
}
