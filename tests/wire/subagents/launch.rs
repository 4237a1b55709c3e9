//! `launch_subagent`: a client starts a subagent (02 §5.14).

use local_cloud::Fault;
use serde_json::{Value, json};

use super::*;
use crate::direct_harness::Direct;

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

/// The frame of a client that wants a subagent.
fn launch_frame(args: &Value) -> Value {
    json!({"type": "launch_subagent", "request_id": "l9", "runtime": scope().runtime(),
        "args": args})
}

/// A run that ended because nobody wanted it any more, and not because it took
/// the 25 seconds that a start may take.
fn is_called_off(entry: &Value) {
    assert_eq!(entry["error"], "Interrupted by user");
    assert!(entry["duration_ms"].as_u64().unwrap() < 25_000, "{entry}");
}

/// Whether a frame shows a subagent with this status.
fn shows(frame: &Value, status: &str) -> bool {
    let all = frame["subagents"].as_array();
    all.is_some_and(|all| all.iter().any(|one| one["status"] == status))
}

#[tokio::test]
async fn s02_5_14_a_subagent_of_a_client_works_where_the_conversation_does() {
    let lab = lab().await;
    std::fs::create_dir(lab.file("below")).unwrap();
    lab.change(&scope(), json!({"cwd": lab.file("below")}))
        .await;
    lab.sync(&scope()).await;
    let task = format!("{}\nSAY looked", bash("pwd -P > here"));
    let args = json!({"subagent_type": "general-purpose", "prompt": task, "description": "Far"});
    let answer = lab.device().await.request(launch_frame(&args), SOON).await;
    assert_eq!(answer.unwrap()["success"], true);
    let below = lab.file("below").display().to_string();
    assert_eq!(lab.written("below/here").await, below);
}

#[tokio::test]
async fn s02_11_2_a_launch_is_called_off_when_the_client_that_asked_leaves() {
    let direct = Direct::start().await;
    let mut other = direct.client_of(&scope()).await;
    let mut one = direct.client_of(&scope()).await;
    // Who does the task is never known.
    direct
        .cloud
        .fail_next_request("POST /v1/agents/", Fault::Hang);
    let args = json!({"subagent_type": "general-purpose", "prompt": "SAY never",
        "description": "Gone"});
    one.send(launch_frame(&args)).await;
    let is_making = |request: &Recorded| request.is("POST", "/v1/agents/");
    let making = direct.cloud.wait_for_request(is_making, SOON).await;
    assert!(making.is_ok(), "no agent is made");
    other.until(|frame| shows(frame, "pending")).await;
    one.leave().await;
    let ended = other.until(|frame| shows(frame, "error")).await;
    is_called_off(&ended["subagents"][0]);
    // Its conversation hears of it, and nobody works on it.
    other.finished().await;
    let told = direct.cloud.message_bodies("conv-1");
    assert_eq!(told.len(), 1, "{told:?}");
    let told = told[0].to_string();
    assert!(told.contains("Error: Interrupted by user"), "{told}");
    other.sync(&scope()).await;
    let last = |frame: &&Value| frame["type"] == "update_device_status";
    let status = other.seen.iter().rfind(last).unwrap();
    assert_eq!(status["device_status"]["background_processes"], json!([]));
}

#[tokio::test]
async fn s02_11_2_a_copy_that_was_made_for_a_client_that_left_is_deleted() {
    let direct = Direct::start().await;
    let mut other = direct.client_of(&scope()).await;
    let mut one = direct.client_of(&scope()).await;
    other.say(&scope(), "SAY hello").await;
    other.finished().await;
    let late = Fault::Delay { seconds: 1.0 };
    direct.cloud.fail_next_request("/conv-1/fork", late);
    let args = json!({"subagent_type": "fork", "prompt": "SAY never", "description": "Gone"});
    one.send(launch_frame(&args)).await;
    let is_fork = |request: &Recorded| request.path.ends_with("/fork");
    let forked = direct.cloud.wait_for_request(is_fork, SOON).await;
    assert!(forked.is_ok(), "nothing is copied");
    one.leave().await;
    let is_end = |request: &Recorded| {
        request.method == "DELETE" && request.path.starts_with("/v1/conversations/conv-")
    };
    let ended = direct.cloud.wait_for_request(is_end, SOON).await;
    assert!(ended.is_ok(), "the copy stays");
    other.sync(&scope()).await;
    let ever = |frame: &Value| {
        frame["subagents"]
            .as_array()
            .is_some_and(|all| !all.is_empty())
    };
    assert!(!other.seen.iter().any(ever), "{:#?}", other.seen);
}

#[tokio::test]
async fn s02_5_14_a_launch_is_called_off_when_the_connection_that_asked_drops() {
    let lab = lab().await;
    lab.cloud.fail_next_request("POST /v1/agents/", Fault::Hang);
    let args = json!({"subagent_type": "general-purpose", "prompt": "SAY never",
        "description": "Gone"});
    let device = lab.device().await;
    let mark = lab.cloud.mark();
    device.send(launch_frame(&args));
    state(&lab, mark, "pending").await;
    let links = lab.cloud.links_opened();
    device.drop_tcp();
    lab.cloud.wait_for_link(links + 1, SOON).await.unwrap();
    is_called_off(&state(&lab, mark, "error").await.0);
    let note = notified(&lab, "task_1").await;
    assert!(note.contains("Error: Interrupted by user"), "{note}");
}
