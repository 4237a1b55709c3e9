//! The program against a real Letta server: `local-cloud` in front of it keeps
//! the control plane and passes the API on. Not part of an ordinary test run:
//! `scripts/e2e-real-letta` installs and starts the server, tells its address in
//! `LETTA_REAL_SERVER` and runs every test of this file. A new step is a new test.
//! Those whose names begin with `directly` have no cloud at all: the program
//! before the server, a client at its own door.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed step ends the test"
)]

#[expect(dead_code, reason = "the tests on the wire use the rest")]
#[path = "wire/direct_harness.rs"]
mod direct_harness;
#[expect(dead_code, reason = "the tests on the wire use the rest")]
#[path = "wire/harness.rs"]
mod harness;
#[path = "real_letta/subagents.rs"]
mod subagents;

use std::fs;

use local_cloud::{Decision, Frame, LocalCloud, Options, Scope, TurnTrace};
use serde_json::{Value, json};

use direct_harness::{Direct, Peer};
use harness::{Lab, SOON, Setup, bash, call};

/// Where the real server is.
fn server() -> String {
    let server = std::env::var("LETTA_REAL_SERVER");
    server.expect("LETTA_REAL_SERVER: run scripts/e2e-real-letta")
}

/// The model of the scripts, as the real server calls it.
const MODEL: &str = "openai-proxy/gpt-4o";

/// The program in front of the real server, and a new agent of it.
async fn lab() -> (Lab, Scope) {
    let setup = Setup {
        options: Options {
            upstream: Some(server()),
            turn_timeout: SOON * 3,
            ..Options::default()
        },
        ..Setup::default()
    };
    let mut lab = setup.start().await;
    let scope = new_agent(&lab).await;
    // The model looks like one that gets other tools than those of the scripts.
    lab.signal("TERM").await;
    lab.ended().await;
    let file = lab.home().join(".letta/settings.json");
    let mut settings: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let server = lab.cloud.base_url();
    settings["agents"] = json!([{"agentId": scope.agent, "toolset": "default",
        "baseUrl": server.trim_start_matches("http://"),
        "toolsetsByConversation": {scope.conversation.clone(): "default"}}]);
    fs::write(&file, settings.to_string()).unwrap();
    lab.come_back().await;
    (lab, scope)
}

/// Makes an agent and a conversation (02 §5.2).
fn start() -> Value {
    json!({"type": "runtime_start", "create_agent": {"body": {
            "name": "e2e", "agent_type": "letta_v1_agent", "model": MODEL,
            "memory_blocks": [], "parallel_tool_calls": true}},
        "create_conversation": {}})
}

/// A new agent and a new conversation, made by the program.
async fn new_agent(lab: &Lab) -> Scope {
    let device = lab.device().await;
    started(&device.request(start(), SOON).await.unwrap())
}

fn started(started: &Value) -> Scope {
    assert_eq!(started["success"], true, "{started}");
    let id = |key: &str| started["runtime"][key].as_str().unwrap().to_owned();
    Scope::new(id("agent_id"), id("conversation_id"))
}

/// Sends a message and does not wait. Its id is new: a server with Redis knows
/// a request again by the ids of its messages, whatever conversation it is for.
async fn say(lab: &Lab, scope: &Scope, text: &str) {
    let id = format!("cm-{}", uuid::Uuid::new_v4());
    lab.say(scope, &id, text).await;
}

/// A turn that ends well.
async fn turn(lab: &Lab, scope: &Scope, text: &str) -> TurnTrace {
    deciding(lab, scope, text, |_| Decision::Ignore).await
}

/// A turn that ends well, with its questions answered.
async fn deciding(
    lab: &Lab,
    scope: &Scope,
    text: &str,
    decide: impl FnMut(&Value) -> Decision,
) -> TurnTrace {
    let turn = lab.cloud.turn_deciding(scope, text, decide).await.unwrap();
    assert_eq!(turn.stop_reason(), "end_turn", "{:#?}", turn.labels());
    turn
}

#[tokio::test]
#[ignore = "needs scripts/e2e-real-letta"]
async fn a_text_is_answered_in_a_conversation_and_in_the_default_one() {
    let (lab, scope) = lab().await;
    assert_eq!(
        turn(&lab, &scope, "SAY hello there").await.text(),
        "hello there"
    );
    let default = Scope::new(scope.agent, "default");
    assert_eq!(
        turn(&lab, &default, "SAY hello again").await.text(),
        "hello again"
    );
}

#[tokio::test]
#[ignore = "needs scripts/e2e-real-letta"]
async fn a_call_that_a_client_allows_runs_and_its_result_is_answered() {
    let (lab, scope) = lab().await;
    lab.mode(&scope, "standard").await;
    let write = json!({"file_path": lab.file("asked.txt"), "content": "real\n"});
    let script = format!("{}\nSAY written", call("Write", &write));
    let mut asked = 0;
    let decide = |_: &Value| {
        asked += 1;
        Decision::Allow
    };
    let turn = deciding(&lab, &scope, &script, decide).await;
    assert_eq!(
        (turn.stop_reason(), turn.text().as_str()),
        ("end_turn", "written")
    );
    assert_eq!(asked, 1);
    assert_eq!(turn.tool_returns()[0]["status"], "success");
    assert_eq!(fs::read_to_string(lab.file("asked.txt")).unwrap(), "real\n");
}

#[tokio::test]
#[ignore = "needs scripts/e2e-real-letta"]
async fn a_call_that_a_client_denies_does_not_run_and_the_turn_goes_on() {
    let (lab, scope) = lab().await;
    lab.mode(&scope, "standard").await;
    let write = json!({"file_path": lab.file("never.txt"), "content": "never\n"});
    let script = format!("{}\nSAY understood", call("Write", &write));
    let deny = |_: &Value| Decision::Deny("not today".to_owned());
    let turn = deciding(&lab, &scope, &script, deny).await;
    assert_eq!(
        (turn.stop_reason(), turn.text().as_str()),
        ("end_turn", "understood")
    );
    assert!(!lab.file("never.txt").exists());
}

#[tokio::test]
#[ignore = "needs scripts/e2e-real-letta"]
async fn parallel_calls_of_a_step_are_answered_together() {
    let (lab, scope) = lab().await;
    lab.mode(&scope, "unrestricted").await;
    let script = format!("{}\n{}\nSAY both", bash("echo one"), bash("echo two"));
    let turn = turn(&lab, &scope, &script).await;
    let returns = turn.tool_returns();
    let texts: Vec<_> = returns
        .iter()
        .map(|r| r["tool_return"].as_str().unwrap())
        .collect();
    assert!(
        texts[0].contains("one") && texts[1].contains("two"),
        "{texts:?}"
    );
    assert_eq!(turn.text(), "both");
}

#[tokio::test]
#[ignore = "needs scripts/e2e-real-letta"]
async fn an_aborted_answer_ends_and_the_next_message_is_answered() {
    let (lab, scope) = lab().await;
    let mark = lab.cloud.mark();
    let slowly = format!("SPLIT 300\nPACE 0.1\nSAY {}", "word ".repeat(300));
    say(&lab, &scope, &slowly).await;
    lab.labelled(mark, "stream_delta:assistant_message").await;
    abort(&lab, &scope).await;
    let (finished, _) = lab.labelled(mark, "turn_finished").await;
    assert_eq!(finished["stop_reason"], "cancelled");
    assert_eq!(turn(&lab, &scope, "SAY next").await.text(), "next");
}

#[tokio::test]
#[ignore = "needs scripts/e2e-real-letta"]
async fn an_aborted_call_is_stopped_and_the_next_message_is_answered() {
    let (lab, scope) = lab().await;
    lab.mode(&scope, "unrestricted").await;
    let mark = lab.cloud.mark();
    let script = format!("{}\nSAY late", bash("echo begun > begun; exec sleep 60"));
    say(&lab, &scope, &script).await;
    lab.written("begun").await;
    abort(&lab, &scope).await;
    let (finished, _) = lab.labelled(mark, "turn_finished").await;
    assert_eq!(finished["stop_reason"], "cancelled");
    assert_eq!(turn(&lab, &scope, "SAY next").await.text(), "next");
}

async fn abort(lab: &Lab, scope: &Scope) {
    let abort = json!({"type": "abort_message", "runtime": scope.runtime()});
    let answer = lab.device().await.request(abort, SOON).await.unwrap();
    assert_eq!(answer["aborted"], true);
}

#[tokio::test]
#[ignore = "needs scripts/e2e-real-letta"]
async fn a_program_killed_in_a_tool_closes_the_call_once_and_goes_on() {
    let (mut lab, scope) = lab().await;
    lab.mode(&scope, "unrestricted").await;
    let script = format!(
        "{}\nSAY over",
        bash("echo ran >> ran.txt; echo $$ > pid; exec sleep 60")
    );
    say(&lab, &scope, &script).await;
    lab.written("pid").await;
    lab.restart("KILL").await;
    let path = format!("/v1/conversations/{}/messages", scope.conversation);
    let is_closing = |request: &local_cloud::Recorded| {
        request.is("POST", &path) && request.json()["messages"][0]["type"] == "approval"
    };
    lab.cloud.wait_for_request(is_closing, SOON).await.unwrap();
    let mark = lab.cloud.mark();
    say(&lab, &scope, "SAY again").await;
    let is_own_end = |frame: &Frame| {
        frame.kind() == "turn_finished"
            && !frame.value["turn_id"]
                .as_str()
                .unwrap()
                .contains("recovered")
    };
    let (finished, _) = lab.frame(mark, is_own_end).await;
    assert_eq!(finished["stop_reason"], "end_turn");
    // A server without Redis refuses the first try, which goes out again as it is.
    let mut closings = Vec::new();
    for body in lab.cloud.message_bodies(&scope.conversation) {
        let approval = body["messages"][0].clone();
        if approval["type"] == "approval" && !closings.contains(&approval) {
            closings.push(approval);
        }
    }
    assert_eq!(closings.len(), 1, "{closings:#?}");
    assert_eq!(closings[0]["approvals"][0]["approve"], false);
    assert_eq!(fs::read_to_string(lab.file("ran.txt")).unwrap(), "ran\n");
}

#[tokio::test]
#[ignore = "needs scripts/e2e-real-letta"]
async fn a_program_killed_while_a_human_is_asked_asks_again_and_runs_once() {
    let (mut lab, scope) = lab().await;
    lab.mode(&scope, "standard").await;
    let mark = lab.cloud.mark();
    let line = bash("touch asked && echo ran >> ran.txt");
    say(&lab, &scope, &format!("{line}\nSAY done")).await;
    let (_, asked) = lab.labelled(mark, "control_request").await;
    let device = lab.restart("KILL").await;
    let sync = json!({"type": "sync", "runtime": scope.runtime()});
    device.request(sync, SOON).await.unwrap();
    let (request, _) = lab.labelled(asked, "control_request").await;
    lab.cloud
        .answer(&scope, &request, Decision::Allow)
        .await
        .unwrap();
    let (finished, _) = lab.labelled(asked, "turn_finished").await;
    assert_eq!(finished["stop_reason"], "end_turn");
    assert_eq!(fs::read_to_string(lab.file("ran.txt")).unwrap(), "ran\n");
}

/// One command that must succeed.
async fn ask(lab: &Lab, frame: Value) -> Value {
    let device = lab.device().await;
    let answer = device.request(frame.clone(), SOON).await.unwrap();
    assert_eq!(answer["success"], true, "{frame} {answer}");
    answer
}

#[tokio::test]
#[ignore = "needs scripts/e2e-real-letta"]
async fn models_are_listed_and_a_conversation_gets_another_one() {
    let (lab, scope) = lab().await;
    let models = ask(&lab, json!({"type": "list_models", "force": true})).await;
    let handles = models["available_handles"].as_array().unwrap();
    assert!(handles.contains(&json!(MODEL)), "{handles:?}");
    let other = handles.iter().find(|handle| {
        let name = handle.as_str().unwrap();
        name != MODEL && name.starts_with("openai-proxy/")
    });
    let other = other.expect("the server has a second model");
    let entry = |handle: &Value| {
        let entries = models["entries"].as_array().unwrap();
        entries.iter().any(|entry| entry["handle"] == *handle)
    };
    assert!(entry(other));
    let update = json!({"type": "update_model", "runtime": scope.runtime(),
        "payload": {"model_handle": other}});
    let updated = ask(&lab, update).await;
    assert_eq!(updated["applied_to"], "conversation");
    assert_eq!(updated["model_handle"], *other);
    let read = json!({"type": "conversation_retrieve", "conversation_id": scope.conversation});
    assert_eq!(ask(&lab, read).await["conversation"]["model"], *other);
    assert_eq!(turn(&lab, &scope, "SAY anew").await.text(), "anew");
    // The default conversation is the agent's own.
    let default = Scope::new(scope.agent.clone(), "default");
    let update = json!({"type": "update_model", "runtime": default.runtime(),
        "payload": {"model_id": other}});
    assert_eq!(ask(&lab, update).await["applied_to"], "agent");
    let read = json!({"type": "agent_retrieve", "agent_id": scope.agent});
    assert_eq!(ask(&lab, read).await["agent"]["model"], *other);
}

#[tokio::test]
#[ignore = "needs scripts/e2e-real-letta"]
async fn agents_are_made_found_changed_and_removed() {
    let (lab, scope) = lab().await;
    let name = format!("e2e-{}", uuid::Uuid::new_v4());
    let body = json!({"name": name, "agent_type": "letta_v1_agent", "model": MODEL,
        "memory_blocks": []});
    let made = ask(&lab, json!({"type": "agent_create", "body": body})).await;
    let id = made["agent"]["id"].clone();
    let find = json!({"type": "agent_list", "query": {"name": name}});
    let found = ask(&lab, find.clone()).await;
    assert_eq!(found["agents"].as_array().unwrap().len(), 1);
    assert_eq!(found["agents"][0]["id"], id);
    let change = json!({"type": "agent_update", "agent_id": id, "body": {"description": "new"}});
    assert_eq!(ask(&lab, change).await["agent"]["description"], "new");
    ask(&lab, json!({"type": "agent_delete", "agent_id": id})).await;
    assert_eq!(ask(&lab, find).await["agents"], json!([]));
    let gone = json!({"type": "agent_retrieve", "agent_id": id});
    let answer = lab.device().await.request(gone, SOON).await.unwrap();
    assert_eq!(
        (&answer["success"], &answer["agent"]),
        (&json!(false), &json!(null))
    );
    assert!(
        answer["error"].as_str().unwrap().starts_with("404"),
        "{answer}"
    );
    // A preset of ours, with the tools that this server has.
    let preset = json!({"type": "create_agent", "personality": "blank", "model": MODEL});
    let preset = ask(&lab, preset).await;
    let scope = Scope::new(preset["agent_id"].as_str().unwrap(), scope.conversation);
    let read = json!({"type": "agent_retrieve", "agent_id": scope.agent});
    let agent = ask(&lab, read).await["agent"].clone();
    assert_eq!(
        (&agent["name"], &agent["model"]),
        (&preset["name"], &json!(MODEL))
    );
}

#[tokio::test]
#[ignore = "needs scripts/e2e-real-letta"]
async fn conversations_are_made_found_changed_forked_and_paged() {
    let (lab, scope) = lab().await;
    let body = json!({"agent_id": scope.agent, "summary": "first"});
    let made = ask(&lab, json!({"type": "conversation_create", "body": body})).await;
    let id = made["conversation"]["id"].as_str().unwrap().to_owned();
    let list = json!({"type": "conversation_list", "query": {"agent_id": scope.agent}});
    let list = ask(&lab, list).await;
    let ids: Vec<_> = list["conversations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["id"])
        .collect();
    assert!(
        ids.contains(&&json!(id)) && ids.contains(&&json!(scope.conversation)),
        "{ids:?}"
    );
    let change = json!({"type": "conversation_update", "conversation_id": id,
        "body": {"summary": "second"}});
    ask(&lab, change).await;
    let read = json!({"type": "conversation_retrieve", "conversation_id": id});
    assert_eq!(ask(&lab, read).await["conversation"]["summary"], "second");
    for text in ["SAY one", "SAY two"] {
        turn(&lab, &scope, text).await;
    }
    let page = |query: Value| {
        json!({"type": "conversation_messages_list", "conversation_id": scope.conversation,
            "query": query})
    };
    let newest = ask(&lab, page(json!({"limit": 1}))).await;
    assert_eq!(newest["messages"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&newest["has_more"], &newest["next_before"]),
        (&json!(true), &newest["messages"][0]["id"])
    );
    let older = ask(
        &lab,
        page(json!({"limit": 50, "before": newest["next_before"]})),
    )
    .await;
    let rows = older["messages"].as_array().unwrap();
    assert!(!rows.is_empty() && !rows.contains(&newest["messages"][0]));
    assert_eq!(older["has_more"], false);
    let fork = json!({"type": "conversation_fork", "conversation_id": scope.conversation});
    let fork = ask(&lab, fork).await["conversation"]["id"].clone();
    assert_ne!(fork, json!(scope.conversation));
    let forked = Scope::new(scope.agent.clone(), fork.as_str().unwrap());
    assert_eq!(turn(&lab, &forked, "SAY apart").await.text(), "apart");
    let again = json!({"type": "conversation_recompile", "conversation_id": scope.conversation});
    assert!(ask(&lab, again).await["result"].is_string());
}

#[tokio::test]
#[ignore = "needs scripts/e2e-real-letta"]
async fn clear_leaves_the_messages_behind_in_a_conversation_and_in_the_default_one() {
    let (lab, scope) = lab().await;
    let default = Scope::new(scope.agent.clone(), "default");
    for scope in [&scope, &default] {
        turn(&lab, scope, "SAY before").await;
        let clear = json!({"type": "execute_command", "command_id": "clear",
            "runtime": scope.runtime()});
        let answer = ask(&lab, clear).await;
        let output = answer["output"].as_str().unwrap();
        assert!(output.contains("cleared"), "{output}");
        assert_eq!(turn(&lab, scope, "SAY after").await.text(), "after");
    }
    let list = json!({"type": "conversation_list", "query": {"agent_id": scope.agent}});
    let list = ask(&lab, list).await;
    // The one that the lab began with, and one new one for each `/clear`.
    assert_eq!(list["conversations"].as_array().unwrap().len(), 3);
    let read = json!({"type": "agent_retrieve", "agent_id": scope.agent});
    let agent = ask(&lab, read).await["agent"].clone();
    let ids = agent["message_ids"].as_array().map_or(0, Vec::len);
    assert!(ids < 6, "the messages before stay in the context: {ids}");
}

/// The program before the real server, with a client at its door.
async fn directly() -> (Direct, Peer, Scope) {
    let unused = LocalCloud::start(Options::default()).await.unwrap();
    let direct = Direct::before(&server(), unused, &[]).await;
    let mut client = direct.client().await;
    let scope = started(&client.ask(start()).await);
    let tools = json!({"type": "update_toolset", "runtime": scope.runtime(),
        "toolset_preference": "default"});
    let answer = client.ask(tools).await;
    assert_eq!(answer["current_toolset"], "default", "{answer}");
    (direct, client, scope)
}

#[tokio::test]
#[ignore = "needs scripts/e2e-real-letta"]
async fn directly_tools_run_one_after_a_question_and_one_without() {
    let (direct, mut client, scope) = directly().await;
    client.mode(&scope, "standard").await;
    let file = direct.work.path().join("asked.txt");
    let write = json!({"file_path": file, "content": "real\n"});
    let script = format!(
        "{}\n{}\nSAY both done",
        call("Write", &write),
        call("Read", &json!({"file_path": file}))
    );
    client.say(&scope, &script).await;
    let question = client.typed("control_request").await;
    let allow = json!({"behavior": "allow"});
    client.decide(&scope, &question["request_id"], allow).await;
    assert_eq!(client.finished().await["stop_reason"], "end_turn");
    assert_eq!(client.said(), "both done");
    assert_eq!(fs::read_to_string(&file).unwrap(), "real\n");
    assert!(direct.cloud.requests().is_empty(), "there is no cloud");
}

#[tokio::test]
#[ignore = "needs scripts/e2e-real-letta"]
async fn directly_a_denied_call_does_not_run_and_an_aborted_one_is_stopped() {
    let (direct, mut client, scope) = directly().await;
    client.mode(&scope, "standard").await;
    let file = direct.work.path().join("never.txt");
    let write = json!({"file_path": file, "content": "never\n"});
    client
        .say(
            &scope,
            &format!("{}\nSAY understood", call("Write", &write)),
        )
        .await;
    let question = client.typed("control_request").await;
    let deny = json!({"behavior": "deny", "message": "not today"});
    client.decide(&scope, &question["request_id"], deny).await;
    assert_eq!(client.finished().await["stop_reason"], "end_turn");
    assert!(!file.exists());
    client.mode(&scope, "unrestricted").await;
    client
        .say(&scope, &format!("{}\nSAY late", bash("exec sleep 60")))
        .await;
    client.typed("tool_execution_started").await;
    let abort = json!({"type": "abort_message", "runtime": scope.runtime()});
    assert_eq!(client.ask(abort).await["aborted"], true);
    assert_eq!(client.finished().await["stop_reason"], "cancelled");
    client.say(&scope, "SAY next").await;
    assert_eq!(client.finished().await["stop_reason"], "end_turn");
    assert_eq!(client.said(), "understoodnext");
}
