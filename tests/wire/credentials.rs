//! What tools do not hand out: files and variables that hold credentials
//! (00 §5–6, 05 §13.3).

use std::fs;

use local_cloud::Decision;
use serde_json::{Value, json};

use crate::harness::{Lab, Setup, bash, call, scope};

const MARK: &str = "letter-of-credit";

/// A program with a key in every place that a key may come from. Its own key
/// comes from the variable.
async fn lab(more: &[(&'static str, &str)]) -> (Lab, tempfile::TempDir) {
    let vault = tempfile::tempdir().unwrap();
    let root = vault.path().canonicalize().unwrap();
    fs::create_dir(root.join("systemd")).unwrap();
    for name in ["key", "systemd/letta-api-key", "plain"] {
        fs::write(root.join(name), format!("{MARK}\n")).unwrap();
    }
    let place = |name: &str| root.join(name).to_str().unwrap().to_owned();
    let mut setup = Setup::default()
        .env("LETTA_API_KEY_FILE", place("key"))
        .env("CREDENTIALS_DIRECTORY", place("systemd"));
    for (name, value) in more {
        setup = setup.env(name, *value);
    }
    (setup.start().await, vault)
}

/// Status and text of every call of one turn; a person says no to what is asked.
async fn results(lab: &Lab, calls: &[String]) -> Vec<(bool, String)> {
    let script = format!("{}\nSAY done", calls.join("\n"));
    let include = json!({"client_toolset": {"include": ["Grep", "Glob", "LS", "MultiEdit",
        "list_dir", "read_file", "exec_command", "shell_command", "ApplyPatch", "ViewImage"]}});
    let no = |_: &Value| Decision::Deny("asked".to_owned());
    let turn = lab
        .cloud
        .turn_with(&scope(), json!({"content": script}), include, no)
        .await
        .unwrap();
    let results = turn.tool_returns();
    assert_eq!(results.len(), calls.len(), "{results:?}");
    results
        .iter()
        .map(|result| {
            let text = result["tool_return"].to_string();
            (result["status"] == "success", text)
        })
        .collect()
}

#[tokio::test]
async fn s05_13_3_credential_files_are_closed_to_file_tools_unless_everything_is_allowed() {
    let (lab, vault) = lab(&[]).await;
    let root = vault.path().canonicalize().unwrap();
    let allow = json!({"permissions": {"allow": ["Read(//**)", "Write(//**)", "Edit(//**)", "Glob", "Grep", "LS", "ListDir"]}});
    let rules = lab.file(".letta/settings.local.json");
    fs::create_dir_all(rules.parent().unwrap()).unwrap();
    fs::write(rules, allow.to_string()).unwrap();
    let settings = lab
        .home()
        .canonicalize()
        .unwrap()
        .join(".letta/settings.json");
    let files = [
        settings,
        root.join("key"),
        root.join("systemd/letta-api-key"),
    ];
    let mut calls = Vec::new();
    for file in &files {
        calls.extend([
            call("Read", &json!({"file_path": file})),
            call("read_file", &json!({"file_path": file})),
            call("Write", &json!({"file_path": file, "content": "x"})),
            call(
                "Edit",
                &json!({"file_path": file, "old_string": "letter", "new_string": "x"}),
            ),
            call(
                "Grep",
                &json!({"pattern": ".", "path": file, "output_mode": "content"}),
            ),
        ]);
    }
    lab.mode(&scope(), "acceptEdits").await;
    for (at, (success, text)) in results(&lab, &calls).await.into_iter().enumerate() {
        assert!(
            !success && text.contains("credential guard") && !text.contains(MARK),
            "{}: {text}",
            calls[at]
        );
    }
    assert_eq!(fs::read_to_string(&files[1]).unwrap(), format!("{MARK}\n"));
    // The directories above stay searchable, without them.
    let above = [
        call("Grep", &json!({"pattern": MARK, "path": root})),
        call("Glob", &json!({"pattern": "*key*", "path": root})),
        call("LS", &json!({"path": root})),
        call("list_dir", &json!({"dir_path": root})),
    ];
    let found = results(&lab, &above).await;
    for (success, text) in &found {
        assert!(success, "{text}");
        assert!(!text.contains("key"), "{text}");
    }
    assert!(found[0].1.contains("plain"), "{found:?}");
    // Reading one by a command is not merely looking.
    let cat = bash(&format!("cat {}", files[1].display()));
    let found = results(&lab, std::slice::from_ref(&cat)).await;
    assert!(!found[0].0 && found[0].1.contains("asked"), "{found:?}");

    lab.mode(&scope(), "unrestricted").await;
    let found = results(&lab, &[calls[5].clone(), above[0].clone()]).await;
    assert!(found[0].0 && found[0].1.contains(MARK), "{found:?}");
    assert!(found[1].1.contains("key"), "{found:?}");
}

#[tokio::test]
async fn s00_6_the_key_is_kept_from_commands_that_need_none_when_it_is_asked_for() {
    let env = [
        bash("env; cat /proc/self/environ | tr '\\0' '\\n'"),
        call("exec_command", &json!({"cmd": "env", "description": "d"})),
        call(
            "shell_command",
            &json!({"command": "env", "description": "d"}),
        ),
    ];
    for (scrub, holds) in [("1", false), ("0", true)] {
        let (lab, vault) = lab(&[("LETTA_TOOL_ENV_SCRUB", scrub)]).await;
        lab.mode(&scope(), "unrestricted").await;
        for (success, text) in results(&lab, &env).await {
            assert!(success, "{text}");
            assert!(text.contains("LETTA_BASE_URL="), "{text}");
            assert_eq!(text.contains("LETTA_API_KEY=test-key"), holds, "{text}");
            let directory = vault.path().canonicalize().unwrap();
            let directory = format!("CREDENTIALS_DIRECTORY={}", directory.display());
            assert_eq!(text.contains(&directory), holds, "{text}");
        }
    }
}
