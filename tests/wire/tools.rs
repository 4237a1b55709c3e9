//! Tools over the wire: every one in a turn, what runs on in the background,
//! what a request's filters leave of them.

use std::fs;
use std::process::Command;

use futures_util::SinkExt;
use local_cloud::{Decision, Frame, Scope};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::harness::{Lab, SOON, bash, call, scope};

/// A command that runs until the file `go` is there.
const UNTIL_GO: &str = "until [ -e go ]; do sleep 0.05; done; echo end";

/// The names in `client_tools` of the newest request.
fn offered(lab: &Lab) -> Vec<String> {
    let bodies = lab.cloud.message_bodies("conv-1");
    let tools = bodies.last().unwrap()["client_tools"]
        .as_array()
        .unwrap()
        .clone();
    tools
        .iter()
        .map(|tool| tool["name"].as_str().unwrap().to_owned())
        .collect()
}

/// The process of `kind` that a device status lists.
fn listed(frame: &Frame, kind: &str) -> Option<Value> {
    let processes = frame.value["device_status"]["background_processes"].as_array()?;
    processes
        .iter()
        .find(|process| process["kind"] == kind)
        .cloned()
}

/// The text of the first request that holds `part`, as soon as it was sent.
async fn told(lab: &Lab, part: &str) -> String {
    let holds =
        |request: &local_cloud::Recorded| String::from_utf8_lossy(&request.body).contains(part);
    let request = lab.cloud.wait_for_request(holds, SOON).await.unwrap();
    String::from_utf8_lossy(&request.body).into_owned()
}

/// The texts of the last message of the newest request.
fn last_message(lab: &Lab) -> String {
    let bodies = lab.cloud.message_bodies("conv-1");
    let messages = bodies.last().unwrap()["messages"].as_array().unwrap();
    messages.last().unwrap().to_string()
}

#[tokio::test]
async fn s07_2_5_the_model_is_told_once_when_the_skills_have_changed() {
    let lab = Lab::start().await;
    let put = |name: &str, what: &str| {
        let text = format!("---\nname: {name}\ndescription: {what}\n---\nbody\n");
        lab.write_text(&format!(".letta/skills/{name}/SKILL.md"), &text);
    };
    put("old", "goes away");
    let say = async |text: &str| {
        let turn = lab.cloud.turn(&scope(), text).await.unwrap();
        assert_eq!(turn.stop_reason(), "end_turn");
        last_message(&lab)
    };
    // Nothing to compare with, then nothing new.
    for text in ["SAY one", "SAY two"] {
        assert!(!say(text).await.contains("available_skills"), "{text}");
    }
    put("new", "came <later>");
    fs::remove_dir_all(lab.home().join(".letta/skills/old")).unwrap();
    let told = say("SAY three").await;
    assert!(told.contains("<name>new</name>"), "{told}");
    assert!(
        told.contains("came &lt;later&gt;") && told.contains("- old"),
        "{told}"
    );
    let bodies = lab.cloud.message_bodies("conv-1");
    let messages = bodies.last().unwrap()["messages"].as_array().unwrap();
    assert!(
        messages[0].to_string().contains("SAY three"),
        "the user's words come first"
    );
    assert!(!say("SAY four").await.contains("available_skills"));
}

#[tokio::test]
async fn s07_2_6_skills_that_a_runtime_preloads_stand_before_the_message() {
    let lab = Lab::start().await;
    let skill = "---\nname: deploy\ndescription: d\n---\nPush it.\n";
    lab.write_text(".letta/skills/deploy/SKILL.md", skill);
    let start = json!({"type": "runtime_start", "agent_id": "agent-1", "conversation_id": "conv-1",
        "execution_settings": {"allowed_tools": [], "disallowed_tools": [],
            "disable_memory_guard": false, "preload_skills": ["deploy", "none"]}});
    let answer = lab.device().await.request(start, SOON).await.unwrap();
    assert_eq!(answer["success"], true, "{answer}");
    lab.cloud.turn(&scope(), "SAY hello").await.unwrap();
    let bodies = lab.cloud.message_bodies("conv-1");
    let message = &bodies.last().unwrap()["messages"][0];
    let texts: Vec<&str> = message["content"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| part["text"].as_str().unwrap())
        .collect();
    assert!(
        texts[0].starts_with("<loaded_skills>\n<deploy>\n"),
        "{texts:?}"
    );
    assert!(texts[0].contains("Push it.") && !texts[0].contains("none"));
    assert_eq!(*texts.last().unwrap(), "SAY hello");
}

#[tokio::test]
async fn s04_7_1_a_background_command_is_listed_and_its_end_wakes_the_conversation() {
    let lab = Lab::start().await;
    lab.mode(&scope(), "unrestricted").await;
    let mark = lab.cloud.mark();
    let arguments = json!({"command": UNTIL_GO, "description": "Wait", "run_in_background": true});
    let script = format!("{}\nSAY started", call("Bash", &arguments));
    let turn = lab.cloud.turn(&scope(), &script).await.unwrap();
    assert_eq!(turn.text(), "started");
    let text = turn.tool_returns()[0]["tool_return"].to_string();
    assert!(
        text.contains("Command running in background with ID: bash_1"),
        "{text}"
    );
    let (status, _) = lab
        .frame(mark, |frame| listed(frame, "bash").is_some())
        .await;
    let process = &status["device_status"]["background_processes"][0];
    assert_eq!(process["process_id"], "bash_1");
    assert_eq!(process["status"], "running");
    fs::write(lab.file("go"), "").unwrap();
    let request = told(&lab, "<task-notification>").await;
    assert!(request.contains("<task-id>bash_1</task-id>"), "{request}");
    assert!(
        request.contains("Background command \\\"Wait\\\" completed"),
        "{request}"
    );
    let (queue, _) = lab
        .frame(mark, |frame| {
            frame.value["queue"][0]["kind"] == "task_notification"
        })
        .await;
    assert!(queue["queue"][0].to_string().contains("bash_1"), "{queue}");
    assert_eq!(request.matches("<task-notification>").count(), 1);
}

#[tokio::test]
async fn s04_14_row03_a_slow_command_goes_to_the_background_after_ten_seconds() {
    let lab = Lab::start().await;
    lab.mode(&scope(), "unrestricted").await;
    let script = format!("{}\nSAY going on", bash(UNTIL_GO));
    let turn = lab.cloud.turn(&scope(), &script).await.unwrap();
    let text = turn.tool_returns()[0]["tool_return"].to_string();
    assert!(
        text.contains("Command is still running with task ID: bash_1"),
        "{text}"
    );
    assert_eq!(turn.text(), "going on");
    fs::write(lab.file("go"), "").unwrap();
    let request = told(&lab, "<task-notification>").await;
    assert!(request.contains("[stdout]\\nend"), "{request}");
}

#[tokio::test]
async fn s04_7_20_a_monitor_tells_its_lines_and_a_person_stops_it() {
    let lab = Lab::start().await;
    lab.mode(&scope(), "unrestricted").await;
    let mark = lab.cloud.mark();
    let arguments = json!({"command": format!("echo ready; {UNTIL_GO}"), "description": "Log", "persistent": true});
    let script = format!("{}\nSAY watching", call("Monitor", &arguments));
    lab.cloud.turn(&scope(), &script).await.unwrap();
    let request = told(&lab, "<event>ready</event>").await;
    assert!(request.contains("Monitor event: \\\"Log\\\""), "{request}");
    let (status, _) = lab
        .frame(mark, |frame| listed(frame, "monitor").is_some())
        .await;
    let process = status["device_status"]["background_processes"][0].clone();
    assert_eq!(process["description"], "Log");
    assert_eq!(process["source"], "command");
    let device = lab.device().await;
    let stop = async |id: &Value, runtime: Value| {
        let frame = json!({"type": "monitor_stop", "runtime": runtime, "process_id": id});
        device.request(frame, SOON).await.unwrap()
    };
    let other = Scope::new("agent-1", "conv-2");
    let answer = stop(&process["process_id"], other.runtime()).await;
    assert_eq!(
        answer["error"],
        "Monitor does not belong to this conversation"
    );
    let answer = stop(&json!("monitor_none"), scope().runtime()).await;
    assert_eq!(answer["error"], "Monitor not found");
    assert_eq!(answer["success"], false);
    let answer = stop(&process["process_id"], scope().runtime()).await;
    assert_eq!(answer["type"], "monitor_stop_response");
    assert_eq!(
        (&answer["success"], &answer["stopped"]),
        (&json!(true), &json!(true))
    );
    told(&lab, "The user stopped this monitor.").await;
    let gone = |frame: &Frame| frame.value["device_status"]["background_processes"] == json!([]);
    let (_, started) = lab
        .frame(mark, |frame| listed(frame, "monitor").is_some())
        .await;
    lab.frame(started, gone).await;
    let answer = stop(&process["process_id"], scope().runtime()).await;
    assert_eq!(
        (&answer["success"], &answer["stopped"]),
        (&json!(true), &json!(false))
    );
}

#[tokio::test]
async fn s04_7_20_a_websocket_is_asked_about_and_its_messages_wake_the_agent() {
    let lab = Lab::start().await;
    lab.mode(&scope(), "standard").await;
    let mark = lab.cloud.mark();
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/feed?token=s3cret", server.local_addr().unwrap());
    let arguments = json!({"ws": {"url": url}, "description": "Feed", "persistent": true});
    let script = format!("{}\nSAY watching", call("Monitor", &arguments));
    let mut asked = Vec::new();
    let decide = |request: &Value| {
        asked.push(request["request"].clone());
        Decision::Allow
    };
    let runtime = scope();
    let turn = lab.cloud.turn_deciding(&runtime, &script, decide);
    let opened = async {
        let (stream, _) = server.accept().await.unwrap();
        let mut peer = accept_async(stream).await.unwrap();
        peer.send(Message::text("<first>")).await.unwrap();
        peer
    };
    let (turn, mut peer) = tokio::join!(turn, opened);
    assert_eq!(turn.unwrap().text(), "watching");
    assert_eq!(asked.len(), 1);
    assert_eq!(
        (&asked[0]["tool_name"], &asked[0]["input"]["ws"]["url"]),
        (&json!("Monitor"), &json!(url))
    );
    let request = told(&lab, "<event>&lt;first&gt;</event>").await;
    assert!(request.contains("Monitor event: \\\"Feed\\\""), "{request}");
    let (status, started) = lab
        .frame(mark, |frame| listed(frame, "monitor").is_some())
        .await;
    let process = &status["device_status"]["background_processes"][0];
    assert_eq!(
        (&process["source"], &process["persistent"]),
        (&json!("websocket"), &json!(true))
    );
    let close = CloseFrame {
        code: 1011.into(),
        reason: "gone".into(),
    };
    peer.close(Some(close)).await.unwrap();
    told(&lab, "<event>[WebSocket closed: 1011 gone]</event>").await;
    let gone = |frame: &Frame| frame.value["device_status"]["background_processes"] == json!([]);
    lab.frame(started, gone).await;
}

#[tokio::test]
async fn s04_7_9_what_a_skill_says_follows_the_results_as_a_message_of_its_own() {
    let lab = Lab::start().await;
    let skill = lab.file(".agents/skills/deploy/SKILL.md");
    fs::create_dir_all(skill.parent().unwrap()).unwrap();
    fs::write(
        &skill,
        "---\nname: deploy\ndescription: Ship it\n---\nPush the button.\n",
    )
    .unwrap();
    let script = format!("{}\nSAY done", call("Skill", &json!({"skill": "deploy"})));
    let turn = lab.cloud.turn(&scope(), &script).await.unwrap();
    assert_eq!(
        turn.tool_returns()[0]["tool_return"],
        "Launching skill: deploy"
    );
    let body = lab.cloud.message_bodies("conv-1")[1].clone();
    let messages = body["messages"].as_array().unwrap();
    assert_eq!(messages[0]["type"], "approval");
    assert_eq!(messages[1]["role"], "user");
    let text = messages[1]["content"][0]["text"].as_str().unwrap();
    assert!(
        text.starts_with("<skill_content name=\"deploy\">\n") && text.contains("Push the button."),
        "{text}"
    );
    let shown = turn.deltas("user_message");
    let shown = shown
        .iter()
        .find(|delta| delta["otid"] == messages[1]["otid"]);
    assert_eq!(shown.unwrap()["content"][0]["text"], text);
}

#[tokio::test]
async fn s04_2_3_a_request_says_which_tools_it_wants() {
    let lab = Lab::start().await;
    let turn = async |payload: Value| {
        let ignore = |_: &Value| Decision::Ignore;
        lab.cloud
            .turn_with(&scope(), json!({"content": "SAY x"}), payload, ignore)
            .await
            .unwrap()
    };
    turn(json!({})).await;
    let default = offered(&lab);
    assert!(
        default.starts_with(&["AskUserQuestion", "Bash", "Monitor"].map(String::from)),
        "{default:?}"
    );
    assert!(
        !default
            .iter()
            .any(|name| name == "Grep" || name == "Workflow")
    );
    assert!(
        !default.iter().any(|name| name.starts_with("memory")),
        "there is no memory here"
    );
    turn(json!({"client_toolset": {"base": "codex"}})).await;
    assert!(offered(&lab).contains(&"ApplyPatch".to_owned()));
    turn(json!({"client_toolset": {"base": "none", "include": ["LS"]}})).await;
    assert_eq!(offered(&lab), ["LS"]);
    turn(json!({"client_tool_allowlist": []})).await;
    assert_eq!(offered(&lab), Vec::<String>::new());
    turn(json!({"client_tool_allowlist": ["Read", "Grep", "unknown"]})).await;
    assert_eq!(offered(&lab), ["Read", "Grep"]);
    turn(json!({"exclude_interactive_tools": true})).await;
    assert!(!offered(&lab).contains(&"AskUserQuestion".to_owned()));
    let failed = turn(json!({"client_toolset": {"include": ["Nonsense"]}})).await;
    assert_eq!(failed.stop_reason(), "error");
    let said = failed.labels().join(" ")
        + &failed
            .frames
            .iter()
            .map(|f| f.value.to_string())
            .collect::<String>();
    assert!(
        said.contains("Unknown bundled client tool: Nonsense"),
        "{said}"
    );
}

#[tokio::test]
async fn s04_2_1_a_stored_preference_counts_and_models_of_openai_get_codex() {
    let lab = Lab::start().await;
    lab.cloud
        .set_agent("agent-2", json!({"model": "openai/gpt-5.2"}));
    let of = |agent: &str| Scope::new(agent, "conv-1");
    lab.cloud.turn(&of("agent-2"), "SAY x").await.unwrap();
    assert!(offered(&lab).contains(&"exec_command".to_owned()));
    lab.cloud.turn(&of("agent-1"), "SAY x").await.unwrap();
    assert!(offered(&lab).contains(&"Bash".to_owned()));
}

#[tokio::test]
async fn every_tool_works_in_one_turn() {
    let lab = Lab::start().await;
    lab.mode(&scope(), "unrestricted").await;
    let git = |arguments: &[&str]| {
        let done = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.com"])
            .args(arguments)
            .current_dir(lab.file("."))
            .status();
        assert!(done.unwrap().success());
    };
    git(&["init", "-q", "-b", "main"]);
    fs::write(lab.file("seed"), "seed\n").unwrap();
    git(&["add", "."]);
    git(&["commit", "-q", "-m", "first"]);
    let script = fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/examples/every-tool.txt"
    ))
    .unwrap();
    let calls: Vec<&str> = script
        .lines()
        .filter_map(|line| line.strip_prefix("CALL ")?.split(' ').next())
        .collect();
    let include: Vec<&str> = calls.clone();
    let payload = json!({"client_toolset": {"include": include}});
    let decide = |request: &Value| {
        let mut input = request["request"]["input"].clone();
        input["answers"] = json!({"Which one?": "The first"});
        Decision::AllowEdited(input)
    };
    let turn = lab
        .cloud
        .turn_with(&scope(), json!({"content": script}), payload, decide)
        .await
        .unwrap();
    let results = turn.tool_returns();
    assert_eq!(results.len(), calls.len());
    for (name, result) in calls.iter().zip(&results) {
        assert_eq!(result["status"], "success", "{name}: {result}");
    }
    assert_eq!(turn.text(), "Every tool has been called.");
    // Every tool of the presets that this build offers is in the script. Plan mode
    // has a script of its own in `modes`: the name of the plan's file is drawn.
    let plan_mode = ["EnterPlanMode", "ExitPlanMode"];
    for name in offered(&lab) {
        if plan_mode.contains(&name.as_str()) {
            continue;
        }
        assert!(
            calls.contains(&name.as_str()),
            "{name} is not in the script"
        );
    }
}
