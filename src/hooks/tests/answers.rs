//! What each event tells its hooks, and what every ending of a hook means for it.

use super::*;

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

/// Every way in which a hook can end. The table below says what each means.
const ENDINGS: [(&str, &str); 9] = [
    ("allows", "exit 0"),
    ("blocks with words", "echo no >&2; exit 2"),
    ("blocks in silence", "echo ignored; exit 2"),
    ("fails with words", "echo odd >&2; exit 1"),
    ("fails in silence", "exit 42"),
    ("is killed", "kill -9 $$"),
    ("is not there", "exec /no/such/program 2>&-"),
    ("prints garbage", "printf '{\\377\\000 not JSON'"),
    ("hangs", "exec sleep 300"),
];

/// What the hooks of `event` bring about, in words.
async fn outcome(bench: &Bench, event: Event) -> String {
    let words = |result: Result<(), String>| result.err().unwrap_or_else(|| "goes on".into());
    match event {
        Event::PermissionRequest => match bench.permission().await {
            Permission::Ask => "asks".into(),
            Permission::Allow => "allows".into(),
            Permission::Deny(reason) => reason,
        },
        Event::PreToolUse => match bench.before().await {
            BeforeTool::Blocked(text) => text,
            run => words((run == unchanged()).then_some(()).ok_or("changed".into())),
        },
        Event::PostToolUse => bench.after(true).await.join("|"),
        Event::PostToolUseFailure => bench.after(false).await.join("|"),
        Event::PreCompact => words(bench.hooks.pre_compact(&bench.site(), "conv-1").await),
        Event::SubagentStop => {
            let site = bench.site();
            bench
                .hooks
                .subagent_stopped(site, "recall", "sub-1", Ok(()), None);
            bench.hooks.0.aside.close();
            timeout(SOON, bench.hooks.0.aside.wait()).await.unwrap();
            bench.file("told").trim().to_owned()
        }
    }
}

#[tokio::test]
async fn every_ending_of_a_hook_has_its_meaning_for_every_event() {
    for event in Event::ALL {
        for (ending, script) in ENDINGS {
            let told = format!("echo told > told; {script}");
            let mut settings = on(event.as_str(), &[&told]);
            settings[event.as_str()][0]["hooks"][0]["timeout"] = match ending {
                "hangs" => 200.into(),
                _ => 15_000.into(),
            };
            let bench = Bench::new(&settings);
            let found = outcome(&bench, event).await;
            let block = match ending {
                "blocks with words" => format!("[{told}]: no"),
                _ => String::new(),
            };
            let error = match ending {
                "fails with words" => "Hook error: odd",
                "fails in silence" => "Hook error: Hook exited with code 42",
                "is killed" => "Hook error: Hook was ended by signal 9",
                "is not there" => "Hook error: Hook exited with code 127",
                "hangs" => "Hook error: Hook timed out after 200ms",
                _ => "",
            };
            let blocks = ending.starts_with("blocks");
            let or = |text: &str| match &*block {
                "" => text.to_owned(),
                words => words.to_owned(),
            };
            let expected = match event {
                Event::PermissionRequest if blocks => or("Denied by hook"),
                Event::PermissionRequest if error.is_empty() => "allows".into(),
                Event::PermissionRequest => "asks".into(),
                Event::PreToolUse if blocks => format!(
                    "Error: Tool execution blocked by hook. {}",
                    or("Blocked by hook")
                ),
                Event::PreCompact if blocks => {
                    format!("Compact blocked: {}", or("Blocked by hook"))
                }
                Event::PreToolUse | Event::PreCompact => "goes on".into(),
                Event::PostToolUse | Event::PostToolUseFailure => {
                    if blocks {
                        block
                    } else {
                        error.to_owned()
                    }
                }
                Event::SubagentStop => "told".into(),
            };
            assert_eq!(found, expected, "{}: a hook that {ending}", event.as_str());
            assert_eq!(bench.file("told"), "told\n", "{}", event.as_str());
        }
    }
}
