//! Subagents over the wire: one agent hands a task to another of the same
//! program (spec 07 §3). The scripted model reads the child's script out of the
//! prompt, as it reads the parent's out of the user's message.

use local_cloud::{Cursor, Frame, Recorded, Scope};
use serde_json::{Value, json};

use crate::harness::{Lab, SOON, bash, call, scope};

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
    line.unwrap_or_else(|| panic!("no {label:?} in {text}"))
}

/// The child that a tool return names.
fn child(text: &str) -> Scope {
    Scope::new(
        labelled(text, "Agent ID: "),
        labelled(text, "Conversation ID: "),
    )
}

/// The notification that the parent's model is sent, once it is.
async fn notified(lab: &Lab, task: &str) -> String {
    let id = format!("<task-id>{task}</task-id>");
    let holds = |request: &Recorded| {
        request.path.contains("conv-1") && String::from_utf8_lossy(&request.body).contains(&id)
    };
    let request = lab.cloud.wait_for_request(holds, SOON).await.unwrap();
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let messages = body["messages"].as_array().unwrap().clone();
    let texts = messages.iter().map(|message| message["content"].as_str());
    texts
        .flatten()
        .find(|text| text.contains(&id))
        .unwrap()
        .to_owned()
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
    let lab = Lab::start().await;
    lab.mode(&scope(), "unrestricted").await;
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
    let body = lab.cloud.message_bodies(&child.agent)[0].clone();
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
