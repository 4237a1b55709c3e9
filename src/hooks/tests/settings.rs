//! Which hooks an event has: edits, matchers, the examples of the documentation.

use super::*;

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

/// Every example of `docs/permissions.md` says what really happens.
#[tokio::test]
async fn the_hooks_of_the_documentation_do_what_it_says() {
    let text = include_str!("../../../docs/permissions.md");
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
