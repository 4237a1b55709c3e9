//! Hooks of the settings files, run by the program around calls.

use std::fs;

use local_cloud::Decision;
use serde_json::{Value, json};

use crate::harness::{Lab, SOON, bash, scope};
use crate::slash;

/// Writes hooks into the settings of the working directory.
fn hooks(lab: &Lab, hooks: &Value) {
    let path = lab.file(".letta/settings.local.json");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, json!({ "hooks": hooks }).to_string()).unwrap();
}

fn command(text: &str) -> Value {
    json!([{"hooks": [{"type": "command", "command": text, "timeout": 15000}]}])
}

/// Runs one command in a turn; how often a human was asked, and what the model read.
async fn run(lab: &Lab, line: &str) -> (usize, String) {
    let mut asked = 0;
    let decide = |_: &Value| {
        asked += 1;
        Decision::Deny("by a human".to_owned())
    };
    let script = format!("{}\nSAY done", bash(line));
    let turn = lab
        .cloud
        .turn_deciding(&scope(), &script, decide)
        .await
        .unwrap();
    assert_eq!(turn.stop_reason(), "end_turn");
    let bodies = lab.cloud.message_bodies("conv-1");
    (asked, bodies.last().unwrap().to_string())
}

#[tokio::test]
async fn s05_15_4_hooks_answer_for_a_human_and_an_edit_counts_from_the_next_call() {
    let lab = Lab::start().await;
    lab.mode(&scope(), "standard").await;
    hooks(&lab, &json!({"PermissionRequest": command("exit 0")}));
    let (asked, _) = run(&lab, "echo x > one").await;
    assert_eq!(asked, 0);
    assert!(lab.file("one").exists());

    hooks(
        &lab,
        &json!({"PermissionRequest": command("echo not on a Friday >&2; exit 2")}),
    );
    let (asked, body) = run(&lab, "echo x > two").await;
    assert_eq!(asked, 0);
    assert!(
        body.contains("Permission denied: [echo not on a Friday >&2; exit 2]: not on a Friday"),
        "{body}"
    );
    assert!(!lab.file("two").exists());

    hooks(&lab, &json!({"PermissionRequest": command("exit 1")}));
    let (asked, body) = run(&lab, "echo x > three").await;
    assert_eq!(asked, 1, "a hook that fails decides nothing");
    assert!(body.contains("by a human"), "{body}");
}

#[tokio::test]
async fn s05_15_4_hooks_around_a_call_block_rewrite_and_comment_on_it() {
    let lab = Lab::start().await;
    lab.mode(&scope(), "unrestricted").await;
    hooks(&lab, &json!({"PreToolUse": command("exit 2")}));
    let (_, body) = run(&lab, "echo x > one").await;
    assert!(
        body.contains("Error: Tool execution blocked by hook. Blocked by hook"),
        "{body}"
    );
    assert!(!lab.file("one").exists());

    let rewrite =
        r#"echo '{"hookSpecificOutput":{"updatedInput":{"command":"echo rewritten-$((40+2))"}}}'"#;
    hooks(
        &lab,
        &json!({"PreToolUse": command(rewrite), "PostToolUse": command("echo mind the gap >&2; exit 2")}),
    );
    let (_, body) = run(&lab, "echo x > two").await;
    assert!(body.contains("rewritten-42"), "{body}");
    assert!(
        body.contains("[Hook feedback]") && body.contains("mind the gap"),
        "{body}"
    );
    assert!(!lab.file("two").exists());
}

#[tokio::test]
async fn s05_15_a_hook_that_hangs_holds_a_turn_up_no_longer_than_its_limit_and_an_abort_not_at_all()
{
    let lab = Lab::start().await;
    lab.mode(&scope(), "unrestricted").await;
    let slow = json!([{"hooks": [{"type": "command", "command": "sleep 300", "timeout": 200}]}]);
    hooks(&lab, &json!({"PreToolUse": slow, "PostToolUse": slow}));
    let (_, body) = run(&lab, "echo x > one").await;
    assert!(lab.file("one").exists());
    assert!(
        body.contains("Hook error: Hook timed out after 200ms"),
        "{body}"
    );

    hooks(
        &lab,
        &json!({"PreToolUse": [{"hooks": [{"type": "command", "command": "echo $$ > pid.new; mv pid.new pid; sleep 300"}]}]}),
    );
    let mark = lab.cloud.mark();
    lab.say(&scope(), "cm-1", &bash("echo x > two")).await;
    lab.written("pid").await;
    let abort = json!({"type": "abort_message", "runtime": scope().runtime()});
    lab.device().await.request(abort, SOON).await.unwrap();
    let (finished, _) = lab.labelled(mark, "turn_finished").await;
    assert_eq!(finished["stop_reason"], "cancelled");
    assert!(!lab.file("two").exists());
}

#[tokio::test]
async fn s05_15_3_hooks_hear_of_tools_that_the_server_runs() {
    let lab = Lab::start().await;
    hooks(
        &lab,
        &json!({
            "PreToolUse": command("cat > pre.new; mv pre.new pre.json; exit 2"),
            "PostToolUse": command("cat > post.new; mv post.new post.json"),
        }),
    );
    let script = "SERVERCALL web_search {\"query\":\"x\"} => found\nSAY done";
    let turn = lab.cloud.turn(&scope(), script).await.unwrap();
    assert_eq!(
        turn.stop_reason(),
        "end_turn",
        "the hook's answer does not count"
    );
    let before: Value = serde_json::from_str(&lab.written("pre.json").await).unwrap();
    let after: Value = serde_json::from_str(&lab.written("post.json").await).unwrap();
    assert_eq!(before["tool_name"], "web_search");
    assert_eq!(
        after["tool_result"],
        json!({"status": "success", "output": "found"})
    );
}

#[tokio::test]
async fn s05_15_3_a_hook_decides_whether_compact_runs() {
    let lab = Lab::start().await;
    let compacts = |mark| {
        let requests = lab.cloud.requests_since(mark);
        let compacts =
            |request: &&std::sync::Arc<local_cloud::Recorded>| request.line().contains("/compact");
        requests.iter().filter(compacts).count()
    };
    let blocking = "cat > event.new; mv event.new event.json; echo not now >&2; exit 2";
    for (hook, output, sent) in [
        (
            blocking,
            format!("Failed: Compact blocked: [{blocking}]: not now"),
            0,
        ),
        (
            "exit 2",
            "Failed: Compact blocked: Blocked by hook".to_owned(),
            0,
        ),
        ("exit 1", "Compaction completed".to_owned(), 1),
        ("exit 0", "Compaction completed".to_owned(), 1),
    ] {
        hooks(&lab, &json!({"PreCompact": command(hook)}));
        let mark = lab.cloud.request_mark();
        let answer = slash::run(&lab, &scope(), "compact", "").await;
        let (success, said) = slash::output(&answer);
        assert_eq!(success, sent == 1, "{answer}");
        assert!(said.starts_with(&output), "{said}");
        assert_eq!(compacts(mark), sent, "{hook}");
    }
    let event: Value = serde_json::from_str(&lab.written("event.json").await).unwrap();
    assert_eq!(
        event,
        json!({"event_type": "PreCompact", "working_directory": lab.file("").to_str().unwrap().trim_end_matches('/'),
            "agent_id": "agent-1", "conversation_id": "conv-1"})
    );
}

#[tokio::test]
async fn s00_5_a_hangup_without_a_terminal_reads_settings_again_and_ends_nothing() {
    let lab = Lab::start().await;
    lab.signal("HUP").await;
    let turn = lab.cloud.turn(&scope(), "SAY still here").await.unwrap();
    assert_eq!(turn.stop_reason(), "end_turn");
}
