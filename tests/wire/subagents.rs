//! Subagents over the wire: one agent hands a task to another of the same
//! program (spec 07 §3). The scripted model reads the child's script out of the
//! prompt, as it reads the parent's out of the user's message.

use std::fs;

use local_cloud::{Cursor, Frame, Model, Options, Recorded, Scope};
use serde_json::{Value, json};

use crate::direct_harness::Direct;
use crate::harness::{Lab, SOON, Setup, bash, call, scope, until};

/// A command that runs until the file `go` is there.
const UNTIL_GO: &str = "until [ -e go ]; do sleep 0.05; done";

/// A lab whose parent may do everything.
async fn lab() -> Lab {
    let lab = Lab::start().await;
    lab.mode(&scope(), "unrestricted").await;
    lab
}

/// Has the parent make these calls; the results, in order.
async fn hand_over(lab: &Lab, calls: &[String]) -> Vec<Value> {
    let script = format!("{}\nSAY handed over", calls.join("\n"));
    let turn = lab.cloud.turn(&scope(), &script).await.unwrap();
    turn.tool_returns()
}

/// Starts one subagent; what the call returned.
async fn start(lab: &Lab, call: String) -> String {
    let results = hand_over(lab, &[call]).await;
    results[0]["tool_return"].as_str().unwrap().to_owned()
}

/// Starts a subagent that works until the file `go` is there, and waits until
/// it does.
async fn busy(lab: &Lab) -> Scope {
    let mark = lab.cloud.mark();
    let task = format!("{}\nSAY went on", bash(&format!("touch begun; {UNTIL_GO}")));
    let text = start(lab, agent("Wait", &task)).await;
    state(lab, mark, "running").await;
    until("the child's command", || {
        lab.file("begun").exists().then_some(())
    })
    .await;
    child(&text)
}

/// One line of a script: hands `script` to a general-purpose subagent.
fn agent(description: &str, script: &str) -> String {
    agent_with(description, script, json!({}))
}

fn agent_with(description: &str, script: &str, more: Value) -> String {
    let mut arguments = json!({"description": description, "prompt": script,
        "subagent_type": "general-purpose"});
    let more = more.as_object().unwrap().clone();
    arguments.as_object_mut().unwrap().extend(more);
    call("Agent", &arguments)
}

/// The text of the first tool return of the parent's turn.
fn returned(turn: &local_cloud::TurnTrace) -> String {
    turn.tool_returns()[0]["tool_return"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// The value behind a label at the start of a line.
fn labelled<'a>(text: &'a str, label: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix(label));
    assert!(line.is_some(), "no {label:?} in {text}");
    line.unwrap()
}

/// The child that a tool return names.
fn child(text: &str) -> Scope {
    Scope::new(
        labelled(text, "Agent ID: "),
        labelled(text, "Conversation ID: "),
    )
}

/// The bodies of the requests that a child's model got.
fn asked(lab: &Lab, child: &Scope) -> Vec<Value> {
    let mut bodies = lab.cloud.message_bodies(&child.conversation);
    if child.conversation == "default" {
        bodies.retain(|body| body["agent_id"] == child.agent.as_str());
    }
    bodies
}

/// The notification that the parent's model is sent, once it is.
async fn notified(lab: &Lab, task: &str) -> String {
    let id = format!("<task-id>{task}</task-id>");
    let holds = |request: &Recorded| {
        request.path.contains("conv-1") && String::from_utf8_lossy(&request.body).contains(&id)
    };
    let request = lab.cloud.wait_for_request(holds, SOON).await.unwrap();
    let messages = request.json()["messages"].as_array().unwrap().clone();
    let texts = messages
        .into_iter()
        .flat_map(|message| match message["content"].clone() {
            Value::Array(parts) => parts.iter().map(|part| part["text"].clone()).collect(),
            text => vec![text],
        });
    let texts: Vec<String> = texts
        .filter_map(|text| text.as_str().map(str::to_owned))
        .collect();
    let note = texts.into_iter().find(|text| text.contains(&id)).unwrap();
    // The turn that it begins must not be taken for the next one.
    quiet(lab).await;
    note
}

/// Waits until the parent does nothing.
async fn quiet(lab: &Lab) {
    loop {
        let frames = lab.sync(&scope()).await;
        let last = |kind: &str| frames.iter().rfind(|frame| frame["type"] == kind).unwrap();
        let status = &last("update_loop_status")["loop_status"]["status"];
        if status == "WAITING_ON_INPUT" && last("update_queue")["queue"] == json!([]) {
            return;
        }
    }
}

/// The entry of a subagent in a state frame of the parent.
fn entry(frame: &Frame, status: &str) -> Option<Value> {
    let all = frame.value["subagents"].as_array()?;
    all.iter().find(|one| one["status"] == status).cloned()
}

/// The first state frame behind `mark` that shows a subagent with this status.
async fn state(lab: &Lab, mark: Cursor, status: &str) -> (Value, Cursor) {
    let found = lab
        .frame(mark, |frame| entry(frame, status).is_some())
        .await;
    let all = found.0["subagents"].as_array().unwrap().clone();
    let one = all.into_iter().find(|one| one["status"] == status);
    (one.unwrap(), found.1)
}

#[tokio::test]
async fn s07_3_a_subagent_does_its_task_and_its_report_wakes_the_parent() {
    let lab = lab().await;
    let mark = lab.cloud.mark();
    let task = format!("{}\nSAY child is done", bash("echo from-the-child"));
    let script = format!("{}\nSAY handed over", agent("Look around", &task));
    let turn = lab.cloud.turn(&scope(), &script).await.unwrap();
    let text = returned(&turn);
    assert!(
        text.starts_with("Task running in background with task ID: task_1\nAgent ID: agent-"),
        "{text}"
    );
    let child = child(&text);
    let note = notified(&lab, "task_1").await;
    let output = labelled(&text, "Output file: ");
    let header = format!("agent_id={} conversation_id=default", child.agent);
    for part in [
        "<status>completed</status>\n<summary>Agent \"Look around\" completed</summary>",
        "<result>subagent_type=general-purpose subagent_id=subagent-",
        &format!("subagent_status=success {header}\n\nchild is done</result>"),
        "tool_uses: 1\n",
        "total_tokens: ",
        &format!("Full transcript available at: {output}"),
    ] {
        assert!(note.contains(part), "no {part:?} in {note}");
    }
    let file = std::fs::read_to_string(output).unwrap();
    assert!(
        file.starts_with("[Task started: Look around]\n[subagent_type: general-purpose]\n\n"),
        "{file}"
    );
    assert!(
        file.ends_with("\n\nchild is done\n\n[Task completed]\n"),
        "{file}"
    );

    // The child's agent, as the server was asked to make it.
    let made = lab.cloud.requests();
    let made = made
        .iter()
        .find(|one| one.method == "POST" && one.path.starts_with("/v1/agents"));
    let made: Value = serde_json::from_slice(&made.unwrap().body).unwrap();
    assert_eq!(made["hidden"], true);
    assert_eq!(made["include_base_tools"], false);
    for tag in ["role:subagent", "type:general-purpose", "parent:agent-1"] {
        assert!(
            made["tags"].as_array().unwrap().contains(&json!(tag)),
            "{made}"
        );
    }
    // Its request: its own prompt with a reminder, its own tools.
    let body = asked(&lab, &child)[0].clone();
    let parts = body["messages"][0]["content"].as_array().unwrap().clone();
    let texts: Vec<&str> = parts
        .iter()
        .filter_map(|part| part["text"].as_str())
        .collect();
    assert_eq!(*texts.last().unwrap(), task);
    assert!(
        texts
            .iter()
            .any(|text| text.contains("This task comes from agent agent-1"))
    );
    let tools = body["client_tools"].as_array().unwrap();
    let names: Vec<&str> = tools
        .iter()
        .filter_map(|tool| tool["name"].as_str())
        .collect();
    assert!(
        names.contains(&"Bash") && names.contains(&"KillBash"),
        "{names:?}"
    );
    assert!(
        !names.contains(&"Agent") && !names.contains(&"AskUserQuestion"),
        "{names:?}"
    );

    // What clients of the parent saw of it.
    let (running, _) = state(&lab, mark, "running").await;
    assert_eq!(running["subagent_type"], "General-purpose");
    assert_eq!(running["parent_agent_id"], "agent-1");
    assert_eq!(running["conversation_id"], "default");
    assert_eq!(
        running["agent_url"],
        format!("https://chat.letta.com/chat/{}", child.agent)
    );
    let (done, _) = state(&lab, mark, "completed").await;
    assert_eq!(done["tool_calls"][0]["name"], "Bash");
    assert!(
        done["tool_calls"][0]["args"]
            .as_str()
            .unwrap()
            .contains("from-the-child")
    );
    assert!(done["total_tokens"].as_u64().unwrap() > 0);
    let id = done["subagent_id"].clone();
    let said = |frame: &Frame| {
        frame.value["subagent_id"] == id
            && frame.value["runtime"]["conversation_id"] == "conv-1"
            && frame.value["delta"]["message_type"] == "tool_return_message"
    };
    let (mirrored, _) = lab.frame(mark, said).await;
    assert!(
        mirrored.to_string().contains("from-the-child"),
        "{mirrored}"
    );
}

#[tokio::test]
async fn s07_3_subagents_of_one_message_run_beside_each_other() {
    let lab = lab().await;
    // Each waits for a file that the other one makes.
    let task = |own: &str, other: &str| {
        let command = format!("touch {own}; until [ -e {other} ]; do sleep 0.05; done");
        format!("{}\nSAY {own} is done", bash(&command))
    };
    let calls = [
        agent("One", &task("one", "two")),
        agent("Two", &task("two", "one")),
    ];
    let results = hand_over(&lab, &calls).await;
    assert_eq!(results.len(), 2);
    for result in results {
        let task = labelled(
            result["tool_return"].as_str().unwrap(),
            "Task running in background with task ID: ",
        )
        .to_owned();
        let note = notified(&lab, &task).await;
        assert!(note.contains(" is done</result>"), "{note}");
    }
}

#[tokio::test]
async fn s07_3_1_a_task_that_cannot_be_begun_is_answered_with_the_reason() {
    let lab = lab().await;
    let calls = [
        agent_with("d", "p", json!({"subagent_type": "recall"})),
        agent_with(
            "d",
            "p",
            json!({"subagent_type": "fork", "agent_id": "agent-2"}),
        ),
        agent_with("d", "p", json!({"conversation_id": "default"})),
        agent_with("d", "p", json!({"computer": "cloud"})),
        agent_with("d", "p", json!({"max_turns": -1})),
        agent_with(
            "d",
            "p",
            json!({"agent_id": "agent-2", "subagent_type": "custom"}),
        ),
    ];
    let results = hand_over(&lab, &calls).await;
    let expected = [
        "Error: Invalid subagent type \"recall\". Available types: fork, general-purpose",
        "Error: \"fork\" goes on in a copy of this conversation",
        "Error: conversation_id \"default\" needs agent_id",
        "Error: This program runs subagents on its own machine only",
        "Error: max_turns must be a positive integer",
        "Error: custom needs the conversation_id",
    ];
    for (result, expected) in results.iter().zip(expected) {
        assert_eq!(result["status"], "success", "{result}");
        let text = result["tool_return"].as_str().unwrap();
        assert!(text.starts_with(expected), "{text}");
    }
    let blank = hand_over(&lab, &[agent(" ", "p")]).await;
    assert_eq!(blank[0]["status"], "error", "{blank:?}");
}

#[tokio::test]
async fn s07_3_2_kinds_of_the_user_and_the_project_are_offered_and_used() {
    let lab = lab().await;
    let write = |path: std::path::PathBuf, text: &str| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let agents = ".letta/agents";
    write(
        lab.home().join(agents).join("a.md"),
        "---\nname: reviewer\ndescription: Of the user\n---\nUser text",
    );
    write(
        lab.file(agents).join("b.md"),
        "---\nname: reviewer\ndescription: Reviews with care\ntools: Read, Grep\nmodel: openai/gpt-5\nskills: house-style\n---\nYou review.",
    );
    write(
        lab.file(".agents/skills/house-style/SKILL.md"),
        "---\nname: house-style\ndescription: d\n---\nWrite short lines.",
    );
    let text = start(
        &lab,
        agent_with("Review", "SAY fine", json!({"subagent_type": "reviewer"})),
    )
    .await;
    let child = child(&text);
    assert!(notified(&lab, "task_1").await.contains("fine</result>"));
    let offered = lab.cloud.message_bodies("conv-1")[0]["client_tools"].clone();
    let tool = offered
        .as_array()
        .unwrap()
        .iter()
        .find(|tool| tool["name"] == "Agent");
    let description = tool.unwrap()["description"].as_str().unwrap().to_owned();
    assert!(
        description.contains("### reviewer\n- **Purpose**: Reviews with care\n- **Recommended model**: openai/gpt-5\n"),
        "{description}"
    );
    let body = &asked(&lab, &child)[0];
    let tools = body["client_tools"].as_array().unwrap();
    let names: Vec<&str> = tools
        .iter()
        .filter_map(|tool| tool["name"].as_str())
        .collect();
    assert_eq!(names, ["Read", "Grep"]);
    let first = body["messages"][0]["content"][0]["text"].as_str().unwrap();
    assert!(
        first.starts_with("<loaded_skills>\n<house-style>\n"),
        "{first}"
    );
    assert!(first.contains("Write short lines."), "{first}");
    let requests = lab.cloud.requests();
    let made = requests
        .iter()
        .find(|one| one.is("POST", "/v1/agents/"))
        .unwrap()
        .json();
    assert_eq!(
        (&made["system"], &made["model"]),
        (&json!("You review."), &json!("openai/gpt-5"))
    );
}

#[tokio::test]
async fn s07_3_3_a_fork_knows_the_conversation_and_waits_for_its_own_subagents() {
    let options = Options {
        model: Model::Scripted {
            canned: Some("all reports are in".into()),
        },
        turn_timeout: SOON,
        ..Options::default()
    };
    let lab = Setup {
        options,
        ..Setup::default()
    };
    let lab = lab.start().await;
    lab.mode(&scope(), "unrestricted").await;
    lab.cloud.turn(&scope(), "SAY known to both").await.unwrap();
    let inner = agent("Inner", "SAY inner report");
    let task = format!("{inner}\nSAY now I wait");
    let call = agent_with("Outer", &task, json!({"subagent_type": "fork"}));
    let text = start(&lab, call).await;
    let fork = child(&text);
    assert_eq!(fork.agent, "agent-1");
    assert_ne!(fork.conversation, "conv-1");
    // The outer report is what it said after the inner one came in.
    let note = notified(&lab, "task_1").await;
    assert!(note.contains("\n\nall reports are in</result>"), "{note}");
    let bodies = asked(&lab, &fork);
    let told = bodies.last().unwrap().to_string();
    assert!(told.contains("<task-id>task_2</task-id>"), "{told}");
    assert!(told.contains("inner report"), "{told}");
    let requests = lab.cloud.requests();
    let forked = requests
        .iter()
        .find(|one| one.path.ends_with("/conv-1/fork"))
        .unwrap();
    assert_eq!(forked.query, "hidden=true");
    let tools = bodies[0]["client_tools"].as_array().unwrap();
    let has = |name: &str| tools.iter().any(|tool| tool["name"] == name);
    assert!(has("Agent") && has("Skill") && !has("AskUserQuestion"));
}

#[tokio::test]
async fn s07_3_3_an_agent_or_a_conversation_that_is_there_can_be_given_a_task() {
    let lab = lab().await;
    lab.cloud.set_agent("agent-2", json!({"name": "Two"}));
    let text = start(
        &lab,
        agent_with("First", "SAY one", json!({"agent_id": "agent-2"})),
    )
    .await;
    let first = child(&text);
    assert_eq!(first.agent, "agent-2");
    assert!(first.conversation.starts_with("conv-"), "{text}");
    assert!(notified(&lab, "task_1").await.contains("one</result>"));
    let first_request = asked(&lab, &first)[0].to_string();
    assert!(
        first_request.contains("which has put you to work as a subagent"),
        "{first_request}"
    );
    let again = json!({"conversation_id": first.conversation});
    let text = start(&lab, agent_with("Again", "SAY two", again)).await;
    assert_eq!(child(&text), first);
    assert!(notified(&lab, "task_2").await.contains("two</result>"));
    // Neither its own conversation nor one that is at work takes a task.
    let own = json!({"conversation_id": "conv-1", "agent_id": "agent-1"});
    let text = start(&lab, agent_with("Own", "SAY three", own)).await;
    assert_eq!(
        text,
        "Error: A subagent cannot run in its parent conversation"
    );
    notified(&lab, "task_3").await;
    let other = Scope::new("agent-1", "conv-2");
    let mark = lab.cloud.mark();
    lab.say(&other, "cm-other", "SAY begin\nTHEN\nSLEEP 60\nSAY never")
        .await;
    lab.labelled(mark, "stream_delta:assistant_message").await;
    let at_work = json!({"conversation_id": "conv-2"});
    start(&lab, agent_with("Other", "SAY four", at_work)).await;
    let note = notified(&lab, "task_4").await;
    assert!(
        note.contains("Error: The conversation has active or queued work"),
        "{note}"
    );
    let missing = json!({"conversation_id": "conv-missing-1"});
    let text = start(&lab, agent_with("Missing", "SAY four", missing)).await;
    assert!(text.starts_with("Error: "), "{text}");
    assert!(
        notified(&lab, "task_5")
            .await
            .contains("<status>failed</status>")
    );
}

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

#[tokio::test]
async fn s07_3_6_a_subagent_that_fails_says_why() {
    let lab = lab().await;
    let hook = json!({"hooks": {"SubagentStop": [{"hooks": [
        {"type": "command", "command": "cat >> stopped"}]}]}});
    fs::create_dir_all(lab.file(".letta")).unwrap();
    fs::write(lab.file(".letta/settings.json"), hook.to_string()).unwrap();
    let step = bash("true");
    let calls = [
        (agent("Stop", "STOP max_tokens_exceeded"), ""),
        (
            agent("Silent", "STOP end_turn"),
            "ended without a final message",
        ),
        (
            agent_with(
                "Long",
                &format!("{step}\nTHEN\nSTOP no_tool_call"),
                json!({"max_turns": 1}),
            ),
            "Maximum turns limit reached (",
        ),
    ];
    for (number, (call, reason)) in calls.into_iter().enumerate() {
        let text = start(&lab, call).await;
        let note = notified(&lab, &format!("task_{}", number + 1)).await;
        assert!(note.contains("<status>failed</status>"), "{note}");
        assert!(note.contains("subagent_status=error"), "{note}");
        assert!(
            note.contains("\n\nError: ") && note.contains(reason),
            "{note}"
        );
        let file = fs::read_to_string(labelled(&text, "Output file: ")).unwrap();
        assert!(
            file.contains("\n\n[error] ") && file.ends_with("\n\n[Task failed]\n"),
            "{file}"
        );
    }
    let told = until("the hook", || {
        let told = fs::read_to_string(lab.file("stopped")).unwrap_or_default();
        (told.matches("\"SubagentStop\"").count() == 3).then_some(told)
    });
    let told = told.await;
    assert!(
        told.contains("\"subagent_type\":\"general-purpose\""),
        "{told}"
    );
    assert!(told.contains("\"success\":false"), "{told}");
}

#[tokio::test]
async fn s07_3_7_an_abort_of_the_parent_leaves_its_subagents_at_work() {
    let lab = lab().await;
    busy(&lab).await;
    let mark = lab.cloud.mark();
    lab.say(&scope(), "cm-9", "SAY begin\nTHEN\nSLEEP 60\nSAY never")
        .await;
    lab.labelled(mark, "stream_delta:assistant_message").await;
    let abort = json!({"type": "abort_message", "runtime": scope().runtime()});
    lab.device().await.request(abort, SOON).await.unwrap();
    lab.labelled(mark, "turn_finished").await;
    let status = lab.device_status(&scope()).await;
    assert_eq!(status["background_processes"][0]["process_id"], "task_1");
    assert_eq!(status["background_processes"][0]["kind"], "agent_task");
    fs::write(lab.file("go"), "").unwrap();
    assert!(notified(&lab, "task_1").await.contains("went on</result>"));
}

#[tokio::test]
async fn s07_3_7_a_subagent_is_stopped_by_its_parent_a_client_or_in_its_own_conversation() {
    let lab = lab().await;
    busy(&lab).await;
    let stopped = hand_over(&lab, &[call("TaskStop", &json!({"task_id": "task_1"}))]).await;
    assert_eq!(stopped[0]["tool_return"], "Process killed successfully");
    let note = notified(&lab, "task_1").await;
    assert!(
        note.contains("\n\nError: Interrupted by user</result>"),
        "{note}"
    );
    let again = hand_over(&lab, &[call("TaskStop", &json!({"task_id": "task_1"}))]).await;
    assert!(
        again[0]["tool_return"]
            .as_str()
            .unwrap()
            .starts_with("Failed to kill")
    );

    fs::remove_file(lab.file("begun")).unwrap();
    busy(&lab).await;
    let stop = json!({"type": "monitor_stop", "request_id": "s1", "process_id": "task_2",
        "runtime": scope().runtime()});
    let answer = lab
        .device()
        .await
        .request(stop.clone(), SOON)
        .await
        .unwrap();
    assert_eq!(
        (&answer["success"], &answer["stopped"]),
        (&json!(true), &json!(true))
    );
    assert!(
        notified(&lab, "task_2")
            .await
            .contains("Interrupted by user")
    );
    let answer = lab.device().await.request(stop, SOON).await.unwrap();
    assert_eq!(answer["success"], false, "{answer}");

    fs::remove_file(lab.file("begun")).unwrap();
    let child = busy(&lab).await;
    let abort = json!({"type": "abort_message", "runtime": child.runtime()});
    let answer = lab.device().await.request(abort, SOON).await.unwrap();
    assert_eq!(answer["aborted"], true, "{answer}");
    assert!(
        notified(&lab, "task_3")
            .await
            .contains("Interrupted by user")
    );
}

#[tokio::test]
async fn s07_3_7_a_lost_connection_leaves_subagents_at_work_and_its_return_shows_them() {
    let lab = lab().await;
    busy(&lab).await;
    let links = lab.cloud.links_opened();
    lab.device().await.drop_tcp();
    lab.cloud.wait_for_link(links + 1, SOON).await.unwrap();
    let frames = lab.sync(&scope()).await;
    let shown = frames
        .iter()
        .rfind(|frame| frame["type"] == "update_subagent_state");
    assert_eq!(shown.unwrap()["subagents"][0]["status"], "running");
    fs::write(lab.file("go"), "").unwrap();
    assert!(notified(&lab, "task_1").await.contains("went on</result>"));
}

#[tokio::test]
async fn s07_3_9_a_restart_reports_the_subagents_that_the_process_lost() {
    for signal in ["KILL", "TERM"] {
        let mut lab = Setup::default()
            .env("LETTA_DRAIN_SECONDS", "1")
            .start()
            .await;
        lab.mode(&scope(), "unrestricted").await;
        busy(&lab).await;
        lab.restart(signal).await;
        let note = notified(&lab, "task_1").await;
        assert!(note.contains("<status>failed</status>"), "{note}");
        assert!(
            note.contains("Error: The program on this computer ended"),
            "{note}"
        );
        let state = lab.home().join(".letta/listener-state");
        until("the end of the record", || {
            let servers = fs::read_dir(&state).ok()?.flatten();
            let records = servers.filter_map(|one| fs::read_dir(one.path().join("subagents")).ok());
            records.flatten().next().is_none().then_some(())
        })
        .await;
        fs::write(lab.file("go"), "").unwrap();
    }
}

#[tokio::test]
async fn s07_3_6_a_long_report_is_cut_and_whole_in_its_file() {
    let lab = lab().await;
    let report = format!("{}END", "word ".repeat(8_000));
    let text = start(&lab, agent("Talk", &format!("SAY {report}"))).await;
    let note = notified(&lab, "task_1").await;
    assert!(note.len() < 32_000, "{}", note.len());
    assert!(note.contains("truncated"), "{note}");
    let file = fs::read_to_string(labelled(&text, "Output file: ")).unwrap();
    assert!(file.contains("word END\n\n[Task completed]\n"));
}

#[tokio::test]
async fn s07_3_5_no_more_than_32_subagents_run_at_once() {
    let lab = lab().await;
    let calls: Vec<String> = (0..33)
        .map(|_| agent("Sleep", "SLEEP 300\nSAY late"))
        .collect();
    let results = hand_over(&lab, &calls).await;
    let failed: Vec<&Value> = results
        .iter()
        .filter(|one| one["status"] == "error")
        .collect();
    assert_eq!((results.len(), failed.len()), (33, 1));
    let text = failed[0]["tool_return"].as_str().unwrap();
    assert!(text.contains("32/32"), "{text}");
    // One that ends makes room.
    hand_over(&lab, &[call("TaskStop", &json!({"task_id": "task_7"}))]).await;
    let text = start(&lab, agent("More", "SAY done")).await;
    assert!(text.starts_with("Task running"), "{text}");
}

#[tokio::test]
async fn s02_5_14_a_client_starts_a_subagent_of_a_conversation() {
    let lab = lab().await;
    let device = lab.device().await;
    let launch = |id: &str, args: Value| {
        json!({"type": "launch_subagent", "request_id": id, "runtime": scope().runtime(),
            "args": args, "tool_call_id": "call-9"})
    };
    let args = json!({"subagent_type": "general-purpose", "prompt": "SAY from afar",
        "description": "Far"});
    let mark = lab.cloud.mark();
    let answer = device
        .request(launch("l1", args.clone()), SOON)
        .await
        .unwrap();
    assert_eq!(answer["success"], true, "{answer}");
    assert_eq!(answer["task_id"], "task_1");
    assert_eq!(answer["conversation_id"], "default");
    assert!(answer["agent_id"].as_str().unwrap().starts_with("agent-"));
    assert!(
        answer["output_file"]
            .as_str()
            .unwrap()
            .ends_with("/task_1.log")
    );
    let (shown, _) = state(&lab, mark, "running").await;
    assert_eq!(shown["tool_call_id"], "call-9");
    assert!(
        notified(&lab, "task_1")
            .await
            .contains("from afar</result>")
    );
    let mut wrong = args.clone();
    wrong["subagent_type"] = "nobody".into();
    let answer = device.request(launch("l2", wrong), SOON).await.unwrap();
    assert_eq!(answer["success"], false);
    assert!(
        answer["error"]
            .as_str()
            .unwrap()
            .starts_with("Invalid subagent type \"nobody\".")
    );
    let mut unknown = args;
    unknown["colour"] = "red".into();
    let answer = device.request(launch("l3", unknown), SOON).await.unwrap();
    assert_eq!(answer["success"], false, "{answer}");
}

#[tokio::test]
async fn s02_5_14_a_direct_client_starts_a_subagent_and_sees_it_work() {
    let direct = Direct::start().await;
    let mut client = direct.client_of(&scope()).await;
    let info = client.ask(json!({"type": "app_server_info"})).await;
    assert_eq!(info["capabilities"]["launch_subagent"], true);
    let answer = client
        .ask(
            json!({"type": "launch_subagent", "runtime": scope().runtime(),
            "args": {"subagent_type": "general-purpose", "prompt": "SAY close by",
                "description": "Near"}}),
        )
        .await;
    assert_eq!(answer["success"], true, "{answer}");
    let done = |frame: &Value| {
        let all = frame["subagents"].as_array();
        all.is_some_and(|all| all.iter().any(|one| one["status"] == "completed"))
    };
    client.until(done).await;
    let queued = |frame: &Value| frame["queue"].to_string().contains("close by");
    client.until(queued).await;
}
