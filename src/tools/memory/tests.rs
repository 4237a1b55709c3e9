//! Both tools on a real repository of either format.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::{Memory, MemoryApplyPatch, MemoryEdit};
use crate::state::Home;
use crate::tools::tests::{Bench, args, text_of};
use crate::tools::tool::Progress;
use crate::tools::{Status, Tool};

struct Agent {
    bench: Bench,
    root: PathBuf,
    edit: MemoryEdit,
    patch: MemoryApplyPatch,
}

fn memory(bench: &Bench) -> Memory {
    crate::memory::trial(&Home::at(&bench.context.home))
}

impl Agent {
    /// An agent whose memory holds `files`, committed.
    fn with(files: &[(&str, &str)]) -> Self {
        let bench = Bench::with_variables(&[
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
        ]);
        let root = bench.context.home.join(".letta/agents/agent-1/memory");
        fs::create_dir_all(&root).unwrap();
        let memory = memory(&bench);
        let agent = Self {
            bench,
            root,
            edit: MemoryEdit(memory.clone()),
            patch: MemoryApplyPatch(memory),
        };
        agent.git(&["init", "-q", "-b", "main"]);
        for (path, text) in files {
            let path = agent.root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        agent.git(&["add", "."]);
        agent.git(&["commit", "-q", "--allow-empty", "-m", "first"]);
        agent
    }

    fn git(&self, arguments: &[&str]) -> String {
        let done = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.com"])
            .args(arguments)
            .current_dir(&self.root)
            .output()
            .unwrap();
        assert!(done.status.success(), "git {arguments:?}: {done:?}");
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    async fn run(&self, tool: &dyn Tool, given: Value) -> (Status, String) {
        let outcome = self.bench.run(tool, args(given)).await;
        (outcome.status, text_of(&outcome))
    }

    async fn ok(&self, tool: &dyn Tool, given: Value) -> String {
        let (status, text) = self.run(tool, given).await;
        assert_eq!(status, Status::Success, "{text}");
        assert_eq!(self.git(&["status", "--porcelain"]), "");
        text
    }

    /// The error of a call that must change nothing.
    async fn err(&self, tool: &dyn Tool, given: Value) -> String {
        let before = self.git(&["rev-parse", "HEAD"]);
        let (status, text) = self.run(tool, given).await;
        assert_eq!(status, Status::Error, "{text}");
        assert_eq!(self.git(&["rev-parse", "HEAD"]), before);
        assert_eq!(self.git(&["status", "--porcelain"]), "", "{text}");
        text
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path)).unwrap()
    }
}

const HUMAN: (&str, &str) = (
    "system/human.md",
    "---\ndescription: The user\n---\nName: Ada\nCity: Turin\n",
);
const LOCKED: (&str, &str) = (
    "system/locked.md",
    "---\ndescription: Fixed\nread_only: true\n---\nx\n",
);

#[tokio::test]
async fn every_command_is_one_commit_of_the_agent_with_the_reason() {
    let mut agent = Agent::with(&[HUMAN]);
    agent.bench.context.facts.agent_name = Some("Memo".into());
    let call = |more: Value| {
        let mut all = json!({"reason": "Because"});
        all.as_object_mut().unwrap().extend(args(more));
        all
    };
    let text = agent
        .ok(&agent.edit, call(json!({"command": "create", "file_path": "memory/notes/a.md", "description": "A\nnote", "file_text": "one"})))
        .await;
    let head = agent.git(&["rev-parse", "HEAD"]);
    assert_eq!(
        text,
        format!(
            "Memory create committed ({}); it is synced after the turn.",
            &head[..7]
        )
    );
    assert_eq!(
        agent.git(&["log", "-1", "--format=%s|%an|%ae|%ce"]),
        "Because|Memo|agent-1@letta.com|agent-1@letta.com"
    );
    assert_eq!(
        agent.read("notes/a.md"),
        "---\ndescription: A note\n---\none"
    );
    let (_, progress) = agent.bench.progress.try_recv().unwrap();
    assert_eq!(progress, Progress::MemoryChanged(vec!["notes/a.md".into()]));

    agent.ok(&agent.edit, call(json!({"command": "str_replace", "file_path": "system/human", "old_string": "Turin", "new_string": "Rome"}))).await;
    agent.ok(&agent.edit, call(json!({"command": "insert", "file_path": "system/human.md", "insert_line": 2, "insert_text": "Age: 36"}))).await;
    agent.ok(&agent.edit, call(json!({"command": "insert", "file_path": "system/human.md", "insert_line": "99", "insert_text": "End"}))).await;
    assert_eq!(
        agent.read("system/human.md"),
        "---\ndescription: The user\n---\nName: Ada\nAge: 36\nCity: Rome\n\nEnd"
    );
    agent.ok(&agent.edit, call(json!({"command": "update_description", "file_path": "system/human.md", "description": "Who"}))).await;
    assert!(
        agent
            .read("system/human.md")
            .starts_with("---\ndescription: Who\n---\nName")
    );
    let absolute = agent.root.join("notes/a.md");
    agent.ok(&agent.edit, call(json!({"command": "rename", "old_path": absolute.to_str(), "new_path": "deep/er/b"}))).await;
    assert!(agent.root.join("deep/er/b.md").is_file() && !agent.root.join("notes").exists());
    agent
        .ok(
            &agent.edit,
            call(json!({"command": "delete", "file_path": "deep"})),
        )
        .await;
    assert!(!agent.root.join("deep").exists());
    agent
        .ok(
            &agent.edit,
            call(json!({"command": "delete", "file_path": "system/human.md"})),
        )
        .await;
    assert_eq!(agent.git(&["rev-list", "--count", "HEAD"]), "9");
}

#[tokio::test]
async fn a_change_keeps_every_line_of_a_header_that_it_is_not_about() {
    let header = "---\nlimit: 5000\ndescription: >\n  Who they\n  are\nread_only: false\n---\n";
    let text = format!("{header}City: Turin\n");
    let agent = Agent::with(&[("system/a.md", &text)]);
    let call = |mut given: Value| {
        given["reason"] = json!("r");
        given["file_path"] = json!("system/a");
        given
    };
    let replace = json!({"command": "str_replace", "old_string": "Turin", "new_string": "Rome"});
    agent.ok(&agent.edit, call(replace)).await;
    assert_eq!(agent.read("system/a.md"), format!("{header}City: Rome\n"));
    let describe = json!({"command": "update_description", "description": "Who"});
    agent.ok(&agent.edit, call(describe)).await;
    assert_eq!(
        agent.read("system/a.md"),
        "---\nlimit: 5000\ndescription: Who\nread_only: false\n---\nCity: Rome\n"
    );
    let patch =
        "*** Begin Patch\n*** Update File: system/a\n@@\n-City: Rome\n+City: Oslo\n*** End Patch\n";
    agent
        .ok(&agent.patch, json!({"reason": "r", "input": patch}))
        .await;
    assert_eq!(
        agent.read("system/a.md"),
        "---\nlimit: 5000\ndescription: Who\nread_only: false\n---\nCity: Oslo\n"
    );
}

#[tokio::test]
async fn what_cannot_be_done_is_told_and_leaves_the_memory_as_it_was() {
    let agent = Agent::with(&[HUMAN, LOCKED]);
    std::os::unix::fs::symlink("/etc", agent.root.join("out")).unwrap();
    agent.git(&["add", "."]);
    agent.git(&["commit", "-q", "-m", "link"]);
    for (given, expected) in [
        (json!({"command": "explode"}), "\"explode\" is no command"),
        (
            json!({"command": "create", "file_path": "a"}),
            "create needs 'description'",
        ),
        (
            json!({"command": "create", "file_path": "system/human", "description": "d"}),
            "system/human.md exists already",
        ),
        (
            json!({"command": "create", "file_path": "../x", "description": "d"}),
            "must not contain \"..\"",
        ),
        (
            json!({"command": "create", "file_path": "a/.git/x", "description": "d"}),
            "must not contain \".git\"",
        ),
        (
            json!({"command": "create", "file_path": "/etc/x", "description": "d"}),
            "must be a path below ",
        ),
        (
            json!({"command": "create", "file_path": "~/x", "description": "d"}),
            "not to the home directory",
        ),
        (
            json!({"command": "create", "file_path": "out/x", "description": "d"}),
            "leads through a link",
        ),
        (
            json!({"command": "create", "file_path": " / ", "description": "d"}),
            "'file_path' must ",
        ),
        (
            json!({"command": "str_replace", "file_path": "system/human", "old_string": "Paris", "new_string": "x"}),
            "old_string was not found",
        ),
        (
            json!({"command": "str_replace", "file_path": "system/human", "old_string": "Ada", "new_string": "Ada"}),
            "made no effective changes",
        ),
        (
            json!({"command": "str_replace", "file_path": "none", "old_string": "a", "new_string": "b"}),
            "there is no none.md",
        ),
        (
            json!({"command": "insert", "file_path": "system/human", "insert_text": "x"}),
            "insert needs 'insert_line'",
        ),
        (
            json!({"command": "delete", "file_path": "system/locked"}),
            "read_only",
        ),
        (
            json!({"command": "delete", "file_path": "system"}),
            "read_only",
        ),
        (
            json!({"command": "delete", "file_path": "none"}),
            "there is no none.md",
        ),
        (
            json!({"command": "rename", "old_path": "system/human", "new_path": "system/locked"}),
            "system/locked.md exists already",
        ),
    ] {
        let mut all = args(given);
        all.insert("reason".into(), "r".into());
        let text = agent.err(&agent.edit, Value::Object(all)).await;
        assert!(
            text.starts_with("memory: ") && text.contains(expected),
            "{text}"
        );
    }
    let text = agent
        .err(&agent.edit, json!({"command": "create", "reason": " "}))
        .await;
    assert!(
        text.contains("'reason' must be a non-empty string"),
        "{text}"
    );
}

#[tokio::test]
async fn an_indexed_memory_wants_names_and_an_index_in_every_directory() {
    let agent = Agent::with(&[("MEMORY.md", "# Index\n")]);
    let create = |path: &str| json!({"command": "create", "reason": "r", "file_path": path, "description": "It's \"d\"", "file_text": "t\n"});
    for (path, expected) in [
        ("system/a", "not in system/"),
        ("skills/a", "skills are changed with the file tools"),
        (
            "notes/a",
            "notes/MEMORY.md is needed before notes/a.md is written",
        ),
    ] {
        let text = agent.err(&agent.edit, create(path)).await;
        assert!(text.contains(expected), "{text}");
    }
    agent.ok(&agent.edit, json!({"command": "create", "reason": "r", "file_path": "notes/MEMORY.md", "file_text": "- a"})).await;
    assert_eq!(agent.read("notes/MEMORY.md"), "- a\n");
    agent.ok(&agent.edit, create("notes/on-call_rota")).await;
    assert_eq!(
        agent.read("notes/on-call_rota.md"),
        "---\nname: \"On Call Rota\"\ndescription: \"It's \\\"d\\\"\"\n---\nt\n"
    );
    agent.ok(&agent.edit, json!({"command": "str_replace", "reason": "r", "file_path": "notes/on-call_rota", "old_string": "t", "new_string": "u"})).await;
    assert!(
        agent
            .read("notes/on-call_rota.md")
            .ends_with("description: \"It's \\\"d\\\"\"\n---\nu\n")
    );
    for given in [
        json!({"command": "delete", "reason": "r", "file_path": "MEMORY.md"}),
        json!({"command": "rename", "reason": "r", "old_path": "notes/MEMORY.md", "new_path": "x"}),
        json!({"command": "update_description", "reason": "r", "file_path": "MEMORY", "description": "d"}),
    ] {
        let text = agent.err(&agent.edit, given).await;
        assert!(text.contains("MEMORY.md"), "{text}");
    }
}

#[tokio::test]
async fn a_patch_changes_several_files_in_one_commit_or_none() {
    let agent = Agent::with(&[HUMAN, LOCKED, ("old.md", "---\ndescription: o\n---\nlast")]);
    let patch = |body: &str| json!({"reason": "Tidy", "input": format!("*** Begin Patch\n{body}*** End Patch\n")});
    let text = agent
        .ok(&agent.patch, patch("*** Add File: notes/a.md\n+one\n+two\n*** Update File: system/human.md\n*** Move to: person\n@@\n-City: Turin\n+City: Rome\n*** Update File: old\n@@\n-last\n+first\n"))
        .await;
    assert!(text.starts_with("memory_apply_patch committed ("), "{text}");
    assert_eq!(
        agent.read("notes/a.md"),
        "---\ndescription: Memory block notes/a\n---\none\ntwo"
    );
    assert_eq!(
        agent.read("person.md"),
        "---\ndescription: The user\n---\nName: Ada\nCity: Rome\n"
    );
    assert_eq!(agent.read("old.md"), "---\ndescription: o\n---\nfirst");
    assert!(!agent.root.join("system/human.md").exists());
    assert_eq!(agent.git(&["log", "-1", "--format=%s"]), "Tidy");
    for (body, expected) in [
        (
            "*** Delete File: old\n*** Add File: person\n+x\n",
            "cannot add person.md: it exists already",
        ),
        (
            "*** Delete File: old\n*** Update File: person\n@@\n-City: Oslo\n+x\n",
            "a hunk does not fit person.md",
        ),
        (
            "*** Update File: person\n@@\n+x\n",
            "has no lines that say where it belongs",
        ),
        (
            "*** Update File: person\n@@\n-description: The user\n+desc: x\n",
            "the frontmatter needs a description",
        ),
        ("*** Update File: system/locked\n@@\n-x\n+y\n", "read_only"),
        ("*** Delete File: none\n", "there is no none.md"),
        (
            "*** Update File: person\n*** Move to: old\n@@\n-Name: Ada\n+Name: B\n",
            "cannot move to old.md: it exists already",
        ),
        ("*** Explode\n", "is not a valid hunk header"),
    ] {
        let text = agent.err(&agent.patch, patch(body)).await;
        assert!(
            text.starts_with("memory_apply_patch: ") && text.contains(expected),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_dirty_or_missing_repository_and_a_refusing_hook_stop_a_change() {
    let agent = Agent::with(&[HUMAN]);
    let call = json!({"command": "delete", "reason": "r", "file_path": "system/human"});
    let hook = agent.root.join(".git/hooks/pre-commit");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    fs::write(&hook, "#!/bin/sh\necho not today >&2\nexit 1\n").unwrap();
    fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let text = agent.err(&agent.edit, call.clone()).await;
    assert!(text.contains("not today"), "{text}");
    assert_eq!(agent.read("system/human.md"), HUMAN.1);
    fs::write(agent.root.join("stray"), "x").unwrap();
    let (status, text) = agent.run(&agent.edit, call.clone()).await;
    assert_eq!(status, Status::Error);
    assert!(
        text.contains("Memory repo has uncommitted changes."),
        "{text}"
    );
    let bench = Bench::new();
    let edit = MemoryEdit(memory(&bench));
    let outcome = bench.run(&edit, args(call)).await;
    assert!(
        text_of(&outcome).contains("There is no memory repository of this agent"),
        "{outcome:?}"
    );
    assert!(!Path::new(&bench.context.home.join(".letta/agents")).exists());
}
