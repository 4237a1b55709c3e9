//! Every event and every way in which a hook can end, with real scripts.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, timeout};

use super::*;
use crate::api::tests::{Server, client_of, json as answering};
use crate::permissions::{RuleList, SessionRules};
use crate::process::BaseEnvironment;
use crate::state::Home;

const SOON: Duration = Duration::from_secs(20);

struct Bench {
    dir: tempfile::TempDir,
    hooks: Hooks,
}

impl Bench {
    fn new(settings: &Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("home"));
        std::fs::create_dir_all(dir.path().join("work")).unwrap();
        let mut variables: Variables = std::env::vars_os().collect();
        variables.insert("AGENT_ID".into(), "someone-else".into());
        variables.insert("MEMORY_DIR".into(), "elsewhere".into());
        let base = BaseEnvironment::new(variables, Path::new("/x/letta"), None, None);
        let hooks = Hooks::new(
            SettingsFiles::new(home.clone()),
            Processes::new(base),
            client_of("http://127.0.0.1:9"),
            home.letta.clone(),
        );
        let bench = Self { dir, hooks };
        bench.write(settings);
        bench
    }

    fn write(&self, settings: &Value) {
        let path = self.dir.path().join("home/.letta/settings.json");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, json!({ "hooks": settings }).to_string()).unwrap();
    }

    fn site(&self) -> Site {
        Site {
            cwd: self.dir.path().join("work"),
            agent_id: Some("agent-1".into()),
        }
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join("work").join(name)).unwrap_or_default()
    }

    async fn before(&self) -> BeforeTool {
        let event = call("Bash", json!({"command": "ls", "timeout": 5}));
        let site = self.site();
        let run = self.hooks.pre_tool_use(&site, &event);
        timeout(SOON, run).await.expect("a hook holds up the call")
    }

    async fn permission(&self) -> Permission {
        let input = json!({"command": "ls"});
        let mut session = SessionRules::default();
        session.add(RuleList::Allow, "Bash(make:*)");
        let site = self.site();
        let run =
            self.hooks
                .permission_request(&site, "Agent", input.as_object().unwrap(), &session);
        timeout(SOON, run).await.expect("a hook holds up the call")
    }

    async fn after(&self, succeeded: bool) -> Vec<String> {
        let event = call("Bash", json!({"command": "ls"}));
        let site = self.site();
        let end = ToolEnd {
            succeeded,
            output: "output\n".into(),
            failure: Some("tool_error"),
        };
        let run = self.hooks.post_tool_use(&site, &event, &end);
        timeout(SOON, run).await.expect("a hook holds up the call")
    }
}

fn call(tool: &str, input: Value) -> ToolEvent {
    ToolEvent {
        tool: tool.into(),
        input: input.as_object().unwrap().clone(),
        call_id: Some("call-1".into()),
    }
}

fn on(event: &str, commands: &[&str]) -> Value {
    let hooks: Vec<Value> = commands
        .iter()
        .map(|command| json!({"type": "command", "command": command, "timeout": 15000}))
        .collect();
    json!({event: [{"hooks": hooks}]})
}

fn unchanged() -> BeforeTool {
    BeforeTool::Run(Map::new())
}

#[tokio::test]
async fn a_hook_reads_its_event_as_one_json_object_and_knows_where_it_is() {
    let bench = Bench::new(&on(
        "PreToolUse",
        &["cat > event.json; env > env.txt; pwd > pwd.txt"],
    ));
    assert_eq!(bench.before().await, unchanged());
    let cwd = bench.site().cwd;
    let event: Value = serde_json::from_str(&bench.file("event.json")).unwrap();
    assert_eq!(
        event,
        json!({"event_type": "PreToolUse", "working_directory": cwd, "tool_name": "Bash",
            "tool_input": {"command": "ls", "timeout": 5}, "tool_call_id": "call-1", "agent_id": "agent-1"})
    );
    assert!(!bench.file("event.json").ends_with('\n'));
    let env = bench.file("env.txt");
    let has = |line: &str| env.lines().any(|other| other == line);
    assert!(has("LETTA_HOOK_EVENT=PreToolUse") && has("AGENT_ID=agent-1"));
    assert!(has(&format!("LETTA_WORKING_DIR={}", cwd.display())));
    assert!(!env.contains("someone-else") && !env.contains("MEMORY_DIR"));
    assert_eq!(
        Path::new(bench.file("pwd.txt").trim())
            .canonicalize()
            .unwrap(),
        cwd.canonicalize().unwrap()
    );
}

#[tokio::test]
async fn before_a_tool_only_exit_2_blocks_and_the_first_rewrite_counts() {
    for (commands, outcome) in [
        (&["exit 0"][..], unchanged()),
        (&["exit 1"], unchanged()),
        (&["exit 3"], unchanged()),
        (&["kill -9 $$"], unchanged()),
        (&["echo '{{{ garbage'"], unchanged()),
        (&["no-such-program-anywhere"], unchanged()),
        (
            &["echo '{\"hookSpecificOutput\":{\"updatedInput\":[1]}}'"],
            unchanged(),
        ),
        (
            &["echo no >&2; exit 2"],
            BeforeTool::Blocked(
                "Error: Tool execution blocked by hook. [echo no >&2; exit 2]: no".into(),
            ),
        ),
        (
            &["exit 2", "touch second-ran"],
            BeforeTool::Blocked("Error: Tool execution blocked by hook. Blocked by hook".into()),
        ),
        (
            &[
                "echo '{\"hookSpecificOutput\":{\"updatedInput\":{\"command\":\"pwd\"}}}'",
                "echo '{\"hookSpecificOutput\":{\"updatedInput\":{\"command\":\"id\"}}}'",
            ],
            BeforeTool::Run(json!({"command": "pwd"}).as_object().unwrap().clone()),
        ),
        // What an error says does not count, even when it looks like an answer.
        (
            &["echo '{\"hookSpecificOutput\":{\"updatedInput\":{\"command\":\"pwd\"}}}'; exit 1"],
            unchanged(),
        ),
    ] {
        let bench = Bench::new(&on("PreToolUse", commands));
        assert_eq!(bench.before().await, outcome, "{commands:?}");
        assert!(!bench.dir.path().join("work/second-ran").exists());
    }
}

#[tokio::test]
async fn hooks_answer_for_a_human_and_a_block_beats_an_earlier_allow() {
    for (commands, outcome) in [
        (&["exit 0"][..], Permission::Allow),
        (&["exit 1"], Permission::Ask),
        (&["kill -15 $$"], Permission::Ask),
        (&["exit 1", "exit 0"], Permission::Allow),
        (&["exit 2"], Permission::Deny("Denied by hook".into())),
        (
            &["exit 0", "echo never >&2; exit 2"],
            Permission::Deny("[echo never >&2; exit 2]: never".into()),
        ),
        (
            &["echo odd >&2; exit 1", "exit 2"],
            Permission::Deny("Hook error: odd".into()),
        ),
    ] {
        let bench = Bench::new(&on("PermissionRequest", commands));
        assert_eq!(bench.permission().await, outcome, "{commands:?}");
    }
    let bench = Bench::new(&on("PermissionRequest", &["cat > event.json"]));
    assert_eq!(bench.permission().await, Permission::Allow);
    let event: Value = serde_json::from_str(&bench.file("event.json")).unwrap();
    assert_eq!(event["tool_name"], "Agent", "the name that the model used");
    assert_eq!(event["permission"], json!({"type": "ask"}));
    assert_eq!(
        event["session_permissions"],
        json!({"allow": ["Bash(make:*)"], "deny": [], "ask": [], "alwaysAsk": []})
    );
}

#[tokio::test]
async fn after_a_tool_hooks_speak_to_the_model() {
    let settings = json!({
        "PostToolUse": [{"hooks": [
            {"type": "command", "command": "cat > used.json; echo '{\"additionalContext\":\"one\"}'"},
            {"type": "command", "command": "echo '{\"hookSpecificOutput\":{\"additionalContext\":\"two\"},\"additionalContext\":\"no\"}'"},
            {"type": "command", "command": "echo three >&2; exit 2"},
            {"type": "command", "command": "echo '{\"additionalContext\":4}'"},
            {"type": "command", "command": "exit 7"},
            {"type": "command", "command": "echo silence"},
        ]}],
        "PostToolUseFailure": [{"hooks": [
            {"type": "command", "command": "cat > failed.json; echo '{\"additionalContext\":\"worse\"}'"},
        ]}],
    });
    let bench = Bench::new(&settings);
    let lines = bench.after(true).await;
    assert_eq!(
        lines,
        [
            "one",
            "two",
            "[echo three >&2; exit 2]: three",
            "Hook error: Hook exited with code 7"
        ]
    );
    let used: Value = serde_json::from_str(&bench.file("used.json")).unwrap();
    assert_eq!(
        used["tool_result"],
        json!({"status": "success", "output": "output\n"})
    );
    assert_eq!(bench.file("failed.json"), "");
    let lines = bench.after(false).await;
    assert_eq!(lines.last().unwrap(), "worse");
    let failed: Value = serde_json::from_str(&bench.file("failed.json")).unwrap();
    assert_eq!(failed["event_type"], "PostToolUseFailure");
    assert_eq!(
        (&failed["error_message"], &failed["error_type"]),
        (&json!("output\n"), &json!("tool_error"))
    );
    assert!(failed.get("tool_result").is_none());
}

#[tokio::test]
async fn hooks_after_a_tool_run_at_once() {
    // Each waits for the other, so one after the other they would never end.
    let bench = Bench::new(&on(
        "PostToolUse",
        &[
            "mkfifo a b; echo x > a; read line < b",
            "until [ -p a ] && [ -p b ]; do :; done; read line < a; echo y > b",
        ],
    ));
    assert_eq!(bench.after(true).await, [""; 0]);
}

#[tokio::test]
async fn a_compaction_can_be_blocked_and_is_told() {
    let bench = Bench::new(&on(
        "PreCompact",
        &["cat > event.json", "echo busy >&2; exit 2"],
    ));
    let blocked = bench.hooks.pre_compact(&bench.site(), "conv-1").await;
    assert_eq!(
        blocked,
        Err("Compact blocked: [echo busy >&2; exit 2]: busy".into())
    );
    let event: Value = serde_json::from_str(&bench.file("event.json")).unwrap();
    assert_eq!(
        (&event["conversation_id"], &event["agent_id"]),
        (&json!("conv-1"), &json!("agent-1"))
    );
    for (command, outcome) in [
        ("exit 0", Ok(())),
        ("exit 1", Ok(())),
        ("exit 2", Err("Compact blocked: Blocked by hook".into())),
    ] {
        let bench = Bench::new(&on("PreCompact", &[command]));
        assert_eq!(
            bench.hooks.pre_compact(&bench.site(), "conv-1").await,
            outcome
        );
    }
}

#[tokio::test]
async fn the_end_of_a_subagent_is_told_and_whatever_its_hooks_do_is_ignored() {
    let bench = Bench::new(&on(
        "SubagentStop",
        &["cat > event.json; exit 1", "mkfifo go; cat go > end"],
    ));
    bench.hooks.subagent_stopped(
        bench.site(),
        "recall",
        "sub-1",
        Err("lost".into()),
        Some("conv-1"),
    );
    // The second hook waits for this line, so the first has ended.
    let pipe = bench.site().cwd.join("go");
    let write = async {
        while !pipe.exists() {
            tokio::task::yield_now().await;
        }
        tokio::fs::write(&pipe, "x").await.unwrap();
    };
    timeout(SOON, write).await.unwrap();
    let event: Value = serde_json::from_str(&bench.file("event.json")).unwrap();
    assert_eq!(
        (
            &event["subagent_type"],
            &event["subagent_id"],
            &event["success"],
            &event["error"]
        ),
        (
            &json!("recall"),
            &json!("sub-1"),
            &json!(false),
            &json!("lost")
        )
    );
    timeout(SOON, bench.hooks.shutdown()).await.unwrap();
}

#[tokio::test]
async fn a_hook_that_hangs_ends_with_its_time_and_takes_its_children_along() {
    let settings = json!({"PreToolUse": [{"hooks": [{"type": "command", "timeout": 300,
        "command": "trap '' TERM; sleep 300 & echo $! > pid; wait; sleep 300"}]}]});
    let bench = Bench::new(&settings);
    let started = Instant::now();
    assert_eq!(bench.before().await, unchanged());
    assert!(started.elapsed() >= Duration::from_millis(300));
    let pid = bench.file("pid").trim().to_owned();
    let gone = async {
        while is_alive(&pid) {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, gone)
        .await
        .expect("a child of the hook lives on");
    let settings = json!({"PostToolUse": [{"hooks": [{"type": "command", "timeout": 100, "command": "sleep 300"}]}]});
    let bench = Bench::new(&settings);
    assert_eq!(
        bench.after(true).await,
        ["Hook error: Hook timed out after 100ms"]
    );
}

fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

#[tokio::test]
async fn a_hook_that_floods_leaves_its_pipes_open_or_ignores_its_input_holds_nothing_up() {
    for command in [
        "head -c 20000000 /dev/zero",
        "head -c 20000000 /dev/zero >&2",
        "exec 0<&-; exit 0",
        "setsid sleep 300 & echo $! > pid; exit 0",
    ] {
        let bench = Bench::new(&on("PreToolUse", &[command]));
        let big = call("Write", json!({"content": "x".repeat(3_000_000)}));
        let site = bench.site();
        let run = bench.hooks.pre_tool_use(&site, &big);
        assert_eq!(
            timeout(SOON, run).await.expect(command),
            unchanged(),
            "{command}"
        );
        let pid = bench.file("pid");
        if !pid.is_empty() {
            let _ = std::process::Command::new("kill").arg(pid.trim()).status();
        }
    }
}

#[tokio::test]
async fn a_long_feedback_is_cut_and_kept_whole_in_a_file() {
    let bench = Bench::new(&on(
        "PostToolUse",
        &["head -c 40000 /dev/zero | tr '\\0' x >&2; exit 2"],
    ));
    let lines = bench.after(true).await;
    assert!(lines[0].len() < 2500, "{}", lines[0].len());
    let file = lines[0]
        .rsplit_once("written to: ")
        .unwrap()
        .1
        .trim_end_matches(']');
    assert!(file.contains("/agent-tools/hook-"), "{file}");
    assert!(std::fs::read_to_string(file).unwrap().matches('x').count() >= 40_000);
}

#[tokio::test]
async fn a_dropped_hook_dies_with_its_children() {
    let bench = Bench::new(&on(
        "PreToolUse",
        &["sleep 300 & echo $! > pid.new; mv pid.new pid; wait"],
    ));
    let event = call("Bash", json!({}));
    let (site, hooks) = (bench.site(), bench.hooks.clone());
    let run = tokio::spawn(async move { hooks.pre_tool_use(&site, &event).await });
    let started = async {
        while bench.file("pid").is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, started).await.unwrap();
    run.abort();
    let pid = bench.file("pid").trim().to_owned();
    let gone = async {
        while is_alive(&pid) {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, gone).await.expect("the hook lives on");
}

#[tokio::test]
async fn an_edit_of_the_settings_counts_from_the_next_event() {
    let bench = Bench::new(&on("PreToolUse", &["exit 2"]));
    assert_ne!(bench.before().await, unchanged());
    bench.write(&on("PreToolUse", &["exit 0"]));
    assert_eq!(bench.before().await, unchanged());
    bench.write(&json!({"PreToolUse": [{"matcher": "Read", "hooks": [{"type": "command", "command": "exit 2"}]}]}));
    assert_eq!(bench.before().await, unchanged());
    bench.write(&json!({"PreToolUse": [{"hooks": 1}, {"hooks": [{"type": "command", "command": "exit 2"}]}]}));
    assert_ne!(
        bench.before().await,
        unchanged(),
        "a malformed entry stops no other"
    );
}

#[tokio::test]
async fn the_internal_name_of_the_agent_tool_is_matched_before_and_after_it() {
    let bench = Bench::new(
        &json!({"PreToolUse": [{"matcher": "Task", "hooks": [{"type": "command", "command": "exit 2"}]}]}),
    );
    let event = call("Agent", json!({}));
    let outcome = bench.hooks.pre_tool_use(&bench.site(), &event).await;
    assert_ne!(outcome, unchanged());
}

#[tokio::test]
async fn a_prompt_hook_is_answered_by_the_model_of_the_agent() {
    for (content, outcome) in [
        ("{\"ok\": true}", Permission::Allow),
        (
            "{\"ok\": false, \"reason\": \"only tests\"}",
            Permission::Deny("[prompt:Allow only tests. $ARGUMENTS]: only tests".into()),
        ),
        ("perhaps", Permission::Ask),
    ] {
        let server = Server::answering([answering(200, &json!({"content": content}))]).await;
        let mut bench = Bench::new(&json!({"PermissionRequest": [{"hooks": [
            {"type": "prompt", "prompt": "Allow only tests. $ARGUMENTS", "model": "openai/gpt-5"}]}]}));
        let home = Home::at(bench.dir.path().join("home"));
        bench.hooks = Hooks::new(
            SettingsFiles::new(home.clone()),
            bench.hooks.0.processes.clone(),
            client_of(&server.url),
            home.letta,
        );
        assert_eq!(bench.permission().await, outcome, "{content}");
        let asked = &server.seen()[0];
        assert_eq!(asked.uri, "/v1/agents/agent-1/generate");
        assert_eq!(asked.body["override_model"], "openai/gpt-5");
        let prompt = asked.body["prompt"].as_str().unwrap();
        assert!(prompt.starts_with("Allow only tests. {\n"), "{prompt}");
    }
}

/// Every example of `docs/permissions.md` says what really happens.
#[tokio::test]
async fn the_hooks_of_the_documentation_do_what_it_says() {
    let text = include_str!("../../docs/permissions.md");
    let mut lines = text.lines().skip_while(|line| *line != "```hooks").skip(1);
    let settings = lines.next().unwrap().strip_prefix("settings ").unwrap();
    let bench = Bench::new(&serde_json::from_str(settings).unwrap());
    let mut checked = 0;
    for line in lines.take_while(|line| *line != "```") {
        let (event, rest) = line.split_once(' ').unwrap();
        let (call_text, outcome) = rest.rsplit_once(' ').unwrap();
        let (tool, input) = call_text.trim().split_once(' ').unwrap();
        let event_of_tool = call(tool, serde_json::from_str(input).unwrap());
        let site = bench.site();
        let found = if event == "PreToolUse" {
            match bench.hooks.pre_tool_use(&site, &event_of_tool).await {
                BeforeTool::Run(_) => "runs",
                BeforeTool::Blocked(_) => "blocked",
            }
        } else {
            let input = &event_of_tool.input;
            let session = SessionRules::default();
            let hooks = &bench.hooks;
            match hooks.permission_request(&site, tool, input, &session).await {
                Permission::Allow => "allow",
                Permission::Ask => "ask",
                Permission::Deny(_) => "deny",
            }
        };
        assert_eq!(found, outcome, "{line}");
        checked += 1;
    }
    assert_eq!(checked, 4);
}
