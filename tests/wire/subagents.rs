//! Subagents over the wire: one agent hands a task to another of the same
//! program (spec 07 §3). The scripted model reads the child's script out of the
//! prompt, as it reads the parent's out of the user's message. Here is what the
//! tests of all parts have in common.

#[path = "subagents/ends.rs"]
mod ends;
#[path = "subagents/inherits.rs"]
mod inherits;
#[path = "subagents/kinds.rs"]
mod kinds;
#[path = "subagents/launch.rs"]
mod launch;
#[path = "subagents/messages.rs"]
mod messages;
#[path = "subagents/restart.rs"]
mod restart;
#[path = "subagents/tasks.rs"]
mod tasks;

use local_cloud::{Cursor, Frame, Recorded, Scope};
use serde_json::{Value, json};

use crate::harness::{Lab, SOON, bash, call, scope, until};

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
        let last = |kind: &str| {
            let found = frames.iter().rfind(|frame| frame["type"] == kind);
            found.cloned().unwrap_or_default()
        };
        let seq = |kind: &str| last(kind)["event_seq"].as_i64();
        // Only a replay sends these three in a row; what else is said may lie between.
        let first = seq("update_loop_status");
        let is_replay = first.map(|at| at + 1) == seq("update_queue")
            && first.map(|at| at + 2) == seq("update_subagent_state");
        let status = &last("update_loop_status")["loop_status"]["status"];
        let idle = status == "WAITING_ON_INPUT" && last("update_queue")["queue"] == json!([]);
        if is_replay && idle {
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
