//! A task from its call to its report.

use local_cloud::{Frame, Model, Options, Scope};
use serde_json::{Value, json};

use super::*;
use crate::harness::Setup;

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
