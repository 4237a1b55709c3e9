//! `SendAgentMessage`: one agent writes to another by way of the cloud
//! (04 §7.19).

use local_cloud::Fault;
use serde_json::{Value, json};

use super::*;
use crate::harness::Setup;

/// A lab whose server counts as Letta Cloud.
async fn cloud_lab() -> Lab {
    let lab = Setup::default().env("LETTA_MEMFS_LOCAL", "1");
    let lab = lab.start().await;
    lab.mode(&scope(), "unrestricted").await;
    lab
}

fn send(arguments: Value) -> String {
    call("SendAgentMessage", &arguments)
}

/// What one call came to: its status, and the JSON that the model reads.
async fn sent(lab: &Lab, arguments: Value) -> (String, Value) {
    let results = hand_over(lab, &[send(arguments)]).await;
    let text = results[0]["tool_return"].as_str().unwrap();
    let status = results[0]["status"].as_str().unwrap().to_owned();
    (status, serde_json::from_str(text).unwrap())
}

/// Whether the model was offered the tool.
fn offered(lab: &Lab, conversation: &str) -> bool {
    let bodies = lab.cloud.message_bodies(conversation);
    let tools = bodies[0]["client_tools"].as_array().unwrap();
    tools.iter().any(|tool| tool["name"] == "SendAgentMessage")
}

#[tokio::test]
async fn s04_7_19_a_message_is_queued_for_another_conversation_and_says_who_wrote() {
    let lab = cloud_lab().await;
    let there = Scope::new("agent-2", "conv-2");
    lab.cloud.create_scope(&there);
    let mark = lab.cloud.mark();
    let message = json!({"message": "SAY heard you", "conversation_id": "conv-2",
        "computer": " Cloud-Sandbox "});
    let (status, receipt) = sent(&lab, message).await;
    assert!(offered(&lab, "conv-1"));
    assert_eq!(status, "success");
    assert_eq!(receipt["status"], "queued");
    assert_eq!(receipt["agent_id"], "agent-2");
    assert_eq!(receipt["conversation_id"], "conv-2");
    for name in ["client_message_id", "workflow_id", "super_run_id"] {
        assert!(receipt[name].is_string(), "{receipt}");
    }
    let is_it = |request: &Recorded| request.path.ends_with("/conv-2/messages/enqueue");
    let request = lab.cloud.wait_for_request(is_it, SOON).await.unwrap();
    let body = request.json();
    assert_eq!(body["client_message_id"], receipt["client_message_id"]);
    assert_eq!(
        (&body["agent_id"], &body["computer"]),
        (&json!("agent-2"), &json!("cloud"))
    );
    let parts = &body["messages"][0]["content"];
    let reminder = parts[0]["text"].as_str().unwrap();
    assert!(
        reminder.starts_with(
            "<system-reminder>\nThis message comes from agent agent-1, conversation conv-1,"
        ),
        "{reminder}"
    );
    assert_eq!(parts[1], json!({"type": "text", "text": "SAY heard you"}));
    // It arrives as what anybody says there, and nothing comes back by itself.
    let heard = |frame: &Frame| {
        frame.value["runtime"]["conversation_id"] == "conv-2" && frame.kind() == "turn_finished"
    };
    lab.frame(mark, heard).await;
    quiet(&lab).await;
    let told = lab.cloud.message_bodies("conv-1");
    assert!(
        !told
            .iter()
            .any(|body| body.to_string().contains("heard you\""))
    );
}

#[tokio::test]
async fn s04_7_19_an_agent_alone_gets_a_new_hidden_conversation() {
    let lab = cloud_lab().await;
    lab.cloud.set_agent("agent-2", json!({"name": "Two"}));
    let (status, receipt) = sent(&lab, json!({"message": "m", "agent_id": "agent-2"})).await;
    assert_eq!(status, "success", "{receipt}");
    let made = lab.cloud.requests();
    let made = made.iter().find(|one| one.is("POST", "/v1/conversations/"));
    let made = made.unwrap().json();
    assert_eq!(made["hidden"], true);
    let id = receipt["conversation_id"].as_str().unwrap();
    assert!(id.starts_with("conv-"), "{receipt}");
    let own = json!({"message": "m", "agent_id": "agent-2", "conversation_id": "default"});
    let (status, receipt) = sent(&lab, own).await;
    assert_eq!(
        (status.as_str(), &receipt["conversation_id"]),
        ("success", &json!("default"))
    );
}

#[tokio::test]
async fn s04_7_19_a_failure_says_whether_the_message_may_have_arrived() {
    let lab = cloud_lab().await;
    lab.cloud.create_scope(&Scope::new("agent-2", "conv-2"));
    let to = |conversation: &str| json!({"message": "m", "conversation_id": conversation});
    for (fault, expected, http) in [
        (Fault::status(403), "submission_failed", json!(403)),
        (Fault::status(500), "acceptance_unknown", json!(500)),
        (Fault::Reset, "acceptance_unknown", Value::Null),
    ] {
        lab.cloud.fail_next_request("/messages/enqueue", fault);
        let (status, told) = sent(&lab, to("conv-2")).await;
        assert_eq!(
            (status.as_str(), told["status"].as_str()),
            ("error", Some(expected))
        );
        assert_eq!(told["http_status"], http, "{told}");
        assert_eq!(told["conversation_id"], "conv-2");
        assert_eq!(
            told["guidance"].is_string(),
            expected == "acceptance_unknown"
        );
    }
    let tried = lab.cloud.requests();
    let tried = tried.iter().filter(|one| one.path.ends_with("/enqueue"));
    assert_eq!(tried.count(), 3, "nothing is sent twice by itself");
    let mut other = to("conv-2");
    other["agent_id"] = "agent-3".into();
    for (arguments, error) in [
        (to("conv-1"), "Cannot message the current conversation."),
        (
            other,
            "The conversation does not belong to the requested agent.",
        ),
        (to("conv-missing-1"), "404 "),
    ] {
        let (status, told) = sent(&lab, arguments).await;
        assert_eq!(
            (status.as_str(), &told["status"]),
            ("error", &json!("submission_failed"))
        );
        assert!(told["error"].as_str().unwrap().starts_with(error), "{told}");
    }
}

#[tokio::test]
async fn s04_7_19_a_server_that_is_not_the_cloud_gets_no_such_tool() {
    let lab = lab().await;
    let results = hand_over(
        &lab,
        &[send(json!({"message": "m", "agent_id": "agent-2"}))],
    )
    .await;
    assert!(!offered(&lab, "conv-1"));
    assert_eq!(results[0]["status"], "error");
    let text = results[0]["tool_return"].as_str().unwrap();
    assert!(text.contains("Tool not found: SendAgentMessage"), "{text}");
}
