//! What a subagent has of its parent, and what it has not (07 §3.3).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::harness::Setup;

#[tokio::test]
async fn s07_3_3_a_subagent_is_denied_what_a_human_would_be_asked_or_rules_forbid() {
    let lab = lab().await;
    let rules = json!({"permissions": {"deny": ["Bash(rm:*)"], "alwaysAsk": ["Bash(touch:*)"]}});
    fs::create_dir_all(lab.file(".letta")).unwrap();
    fs::write(lab.file(".letta/settings.json"), rules.to_string()).unwrap();
    let task = format!(
        "{}\nTHEN\n{}\nTHEN\n{}\nTHEN\n{}\nSAY tried all",
        bash("rm -rf kept"),
        bash("touch asked"),
        call("Monitor", &json!({"command": "true", "description": "d"})),
        bash("echo $LETTA_PARENT_AGENT_ID $LETTA_CODE_AGENT_ROLE $AGENT_ID; pwd"),
    );
    let text = start(&lab, agent("Try", &task)).await;
    let child = child(&text);
    assert!(
        notified(&lab, "task_1")
            .await
            .contains("tried all</result>")
    );
    assert!(!lab.file("asked").exists());
    let bodies = asked(&lab, &child);
    let answer = |at: usize| bodies[at]["messages"][0].to_string();
    assert!(
        answer(1).contains("\"approve\":false") || answer(1).contains("Bash(rm:*)"),
        "{}",
        answer(1)
    );
    assert!(
        answer(2).contains("Tool requires approval (headless mode)"),
        "{}",
        answer(2)
    );
    assert!(
        answer(3).contains("Tool not found: Monitor"),
        "{}",
        answer(3)
    );
    let seen = format!(
        "agent-1 subagent {}\\n{}",
        child.agent,
        lab.file("").display()
    );
    assert!(
        answer(4).contains(seen.trim_end_matches('/')),
        "{}",
        answer(4)
    );
}

/// Runs git in a directory.
fn git(dir: &Path, words: &[&str]) {
    let mut git = std::process::Command::new("git");
    let done = git
        .args(["-c", "user.name=t", "-c", "user.email=t@example.com"])
        .args(words)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
}

#[tokio::test]
async fn s07_3_3_a_subagent_works_in_the_worktree_that_its_parent_has_just_entered() {
    let lab = lab().await;
    let repository = lab.file("");
    git(&repository, &["init", "-q", "-b", "main", "."]);
    git(
        &repository,
        &["commit", "-q", "--allow-empty", "-m", "first"],
    );
    let enter = call("EnterWorktree", &json!({"name": "apart"}));
    let task = format!("{}\nSAY looked", bash("pwd -P > here"));
    let script = format!("{enter}\nTHEN\n{}\nSAY handed over", agent("Look", &task));
    let turn = lab.cloud.turn(&scope(), &script).await.unwrap();
    let launched = turn.tool_returns();
    let text = launched.last().unwrap()["tool_return"].as_str().unwrap();
    let child = child(text);
    assert!(notified(&lab, "task_1").await.contains("looked</result>"));
    let worktree = lab.file(".letta/worktrees/apart");
    let here = fs::read_to_string(worktree.join("here")).unwrap();
    assert_eq!(here.trim(), worktree.to_str().unwrap());
    // It was lent: the child's conversation has a directory of its own again.
    let cwd = |status: serde_json::Value| status["current_working_directory"].clone();
    assert_eq!(cwd(lab.device_status(&scope()).await), json!(worktree));
    let own = lab.file("").display().to_string();
    assert_eq!(
        cwd(lab.device_status(&child).await),
        json!(own.trim_end_matches('/'))
    );
}

/// A directory with a `bwrap` that confines nothing but leaves its words in
/// `words`: what is asked of the kernel is what counts here.
fn pretended_bwrap(dir: &Path, words: &Path) {
    fs::create_dir_all(dir).unwrap();
    let file = dir.join("bwrap");
    let script = format!(
        "#!/bin/sh\ncase $1 in --version) exit 0;; esac\n\
         case $* in *--unshare-user*) exit 0;; esac\n\
         echo \"$*\" >> {}\nwhile [ \"$1\" != -- ]; do shift; done\nshift\nexec \"$@\"\n",
        words.display()
    );
    fs::write(&file, script).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn s07_3_3_the_workspace_of_the_parent_confines_its_subagent() {
    let tools = tempfile::tempdir().unwrap();
    let words = tools.path().join("words");
    pretended_bwrap(tools.path(), &words);
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", tools.path().display());
    let lab = Setup::default().env("PATH", path).start().await;
    lab.cloud.create_scope(&scope());
    let (own, iso) = (lab.file("iso/own"), lab.file("iso"));
    fs::create_dir_all(&own).unwrap();
    fs::create_dir_all(lab.file("iso/peer")).unwrap();
    fs::write(lab.file("iso/peer/secret"), "hidden-text").unwrap();
    let start = json!({"type": "runtime_start", "agent_id": "agent-1",
        "conversation_id": "conv-1", "mode": "unrestricted",
        "workspace_sandbox": {"root": own, "isolation_root": iso}});
    let started = lab.device().await.request(start, SOON).await.unwrap();
    assert_eq!(started["success"], true, "{started}");
    let outside = lab.file("outside");
    let task = format!(
        "{}\n{}\n{}\nSAY tried",
        bash("echo made > inside"),
        call("Write", &json!({"file_path": outside, "content": "gone"})),
        call("Read", &json!({"file_path": lab.file("iso/peer/secret")})),
    );
    let results = hand_over(&lab, &[agent("Try", &task)]).await;
    let child = child(results[0]["tool_return"].as_str().unwrap());
    assert!(notified(&lab, "task_1").await.contains("tried</result>"));
    let answer = asked(&lab, &child).last().unwrap().to_string();
    let denied = "Permission denied by workspace sandbox";
    assert_eq!(answer.matches(denied).count(), 2, "{answer}");
    assert!(!outside.exists() && !answer.contains("hidden-text"));
    assert_eq!(fs::read_to_string(own.join("inside")).unwrap(), "made\n");
    let words = fs::read_to_string(words).unwrap();
    let bound = format!("--bind {0} {0} ", own.display());
    let asked_for = words.lines().find(|line| line.contains("made > inside"));
    assert!(
        asked_for.is_some_and(|line| line.contains(&bound)),
        "{words}"
    );
    // It was lent, too.
    let free = json!({"type": "runtime_start", "agent_id": child.agent,
        "conversation_id": child.conversation});
    let free = lab.device().await.request(free, SOON).await.unwrap();
    assert_eq!(free["success"], true, "{free}");
}

#[tokio::test]
async fn s07_3_3_a_subagent_has_the_memory_of_its_own_agent_and_a_new_one_has_none() {
    // Nobody listens there: what is on this machine is what counts.
    let nowhere = "http://127.0.0.1:9";
    let lab = Setup::default().env("LETTA_MEMFS_BASE_URL", nowhere);
    let lab = lab.start().await;
    lab.mode(&scope(), "unrestricted").await;
    let home = lab.home().canonicalize().unwrap();
    let memory = |agent: &str| home.join(format!(".letta/agents/{agent}/memory"));
    for agent in ["agent-1", "agent-2"] {
        let tagged = json!({"name": agent, "tags": ["git-memory-enabled"]});
        lab.cloud.set_agent(agent, tagged);
        fs::create_dir_all(memory(agent)).unwrap();
        git(&memory(agent), &["init", "-q", "-b", "main", "."]);
    }
    let look = |name: &str| bash(&format!("echo \"$MEMORY_DIR,$LETTA_MEMORY_DIR\" > {name}"));
    let task = |name: &str| format!("{}\nSAY looked", look(name));
    let calls = [
        look("parent"),
        agent("New", &task("new")),
        agent_with("Fork", &task("fork"), json!({"subagent_type": "fork"})),
        agent_with("Other", &task("other"), json!({"agent_id": "agent-2"})),
    ];
    hand_over(&lab, &calls).await;
    for (name, owner) in [
        ("parent", Some("agent-1")),
        ("new", None),
        ("fork", Some("agent-1")),
        ("other", Some("agent-2")),
    ] {
        let dir = owner.map(|owner| memory(owner).display().to_string());
        let dir = dir.unwrap_or_default();
        assert_eq!(lab.written(name).await, format!("{dir},{dir}"), "{name}");
    }
}
