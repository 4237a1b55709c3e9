//! Runtimes in a workspace sandbox: confined by the kernel, or refused.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Lab, SOON, bash, call, scope};

async fn start(lab: &Lab, more: Value) -> Value {
    let mut frame = json!({"type": "runtime_start", "request_id": "start-1",
        "agent_id": "agent-1", "conversation_id": "conv-1", "mode": "unrestricted"});
    frame
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    lab.device().await.request(frame, SOON).await.unwrap()
}

#[tokio::test]
async fn s05_13_1_a_workspace_confines_its_tools_or_the_runtime_does_not_start() {
    let lab = Lab::start().await;
    lab.cloud.create_scope(&scope());
    for dir in ["iso/own", "iso/peer"] {
        fs::create_dir_all(lab.file(dir)).unwrap();
    }
    fs::write(lab.file("iso/peer/secret"), "hidden-text").unwrap();
    fs::write(lab.file("outside"), "kept").unwrap();
    let (own, iso) = (lab.file("iso/own"), lab.file("iso"));
    let info = json!({"type": "app_server_info", "request_id": "info-1"});
    let info = lab.device().await.request(info, SOON).await.unwrap();
    let able = info["capabilities"]["runtime_workspace_sandbox"]
        .as_bool()
        .unwrap();

    let wrong = json!({"workspace_sandbox": {"root": iso, "isolation_root": iso}});
    let refused = start(&lab, wrong).await;
    assert_eq!(refused["success"], false);
    assert_eq!(
        refused["error"],
        "workspace sandbox root must be inside its isolation root"
    );

    let sandbox = json!({"workspace_sandbox": {"root": own, "isolation_root": iso}});
    let started = start(&lab, sandbox).await;
    assert_eq!(started["success"], able, "{started}");
    if !able {
        let error = started["error"].as_str().unwrap();
        assert!(
            error.starts_with("workspace sandbox requires a kernel sandbox backend ("),
            "{error}"
        );
        return;
    }
    let peer = lab.file("iso/peer/secret");
    let outside = lab.file("outside");
    let commands = format!(
        "pwd; echo $LETTA_SANDBOX; echo made > inside; cat {0}; echo gone > {1}; ls {2}",
        peer.display(),
        outside.display(),
        iso.display()
    );
    let script = format!(
        "{}\n{}\n{}\nSAY done",
        bash(&commands),
        call("Write", &json!({"file_path": outside, "content": "gone"})),
        call("Read", &json!({"file_path": peer})),
    );
    let turn = lab.cloud.turn(&scope(), &script).await.unwrap();
    assert_eq!(turn.stop_reason(), "end_turn");
    let body = lab
        .cloud
        .message_bodies("conv-1")
        .last()
        .unwrap()
        .to_string();
    assert!(
        body.contains("bwrap") && body.contains(own.to_str().unwrap()),
        "{body}"
    );
    assert!(!body.contains("hidden-text"), "{body}");
    assert_eq!(
        body.matches("Permission denied by workspace sandbox")
            .count(),
        2,
        "{body}"
    );
    assert_eq!(fs::read_to_string(own.join("inside")).unwrap(), "made\n");
    assert_eq!(fs::read_to_string(outside).unwrap(), "kept");

    let other = json!({"workspace_sandbox": {"root": lab.file("iso/peer"), "isolation_root": iso}});
    for change in [other, json!({})] {
        let refused = start(&lab, change).await;
        assert_eq!(
            refused["error"],
            "runtime_start cannot change the workspace sandbox for an active runtime"
        );
    }
}
