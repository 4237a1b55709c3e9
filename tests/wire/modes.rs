//! Permission modes: changed in the middle of a turn, in two conversations at
//! once, across a restart; plan mode from entry to approved exit.

use std::fs;
use std::path::Path;

use local_cloud::{Decision, Scope};
use serde_json::{Value, json};

use crate::harness::{Lab, SOON, bash, call, scope};

/// The device and loop status that a sync shows for `scope`.
async fn status(lab: &Lab, scope: &Scope) -> (Value, Value) {
    let mark = lab.cloud.mark();
    let device = lab.device().await;
    let sync = json!({"type": "sync", "runtime": scope.runtime(), "force_device_status": true});
    device.request(sync, SOON).await.unwrap();
    let of = |kind: &'static str| {
        let conversation = scope.conversation.clone();
        lab.frame(mark, move |frame| {
            frame.value["type"] == kind
                && frame.value["runtime"]["conversation_id"] == conversation.as_str()
        })
    };
    let (device, _) = of("update_device_status").await;
    let (state, _) = of("update_loop_status").await;
    (
        device["device_status"].clone(),
        state["loop_status"].clone(),
    )
}

/// One turn; how often a human was asked, and the body of its last request.
async fn turn(
    lab: &Lab,
    scope: &Scope,
    script: &str,
    mut answer: impl FnMut(&Value) -> Decision,
) -> (Vec<String>, String) {
    let mut asked = Vec::new();
    let decide = |request: &Value| {
        let tool = request["request"]["tool_name"].as_str().unwrap().to_owned();
        asked.push(tool);
        answer(request)
    };
    let turn = lab
        .cloud
        .turn_deciding(scope, script, decide)
        .await
        .unwrap();
    assert_eq!(turn.stop_reason(), "end_turn");
    let bodies = lab.cloud.message_bodies(&scope.conversation);
    (asked, bodies.last().unwrap().to_string())
}

#[tokio::test]
async fn s05_2_4_a_change_in_the_middle_of_a_turn_counts_from_the_next_calls() {
    let lab = Lab::start().await;
    lab.mode(&scope(), "standard").await;
    let device = lab.device().await;
    let line = |name: &str| bash(&format!("echo x > {name}"));
    let script = format!("{}\nTHEN\n{}\nSAY done", line("one"), line("two"));
    let loosen = |_: &Value| {
        device.send(
            json!({"type": "change_device_state", "runtime": scope().runtime(),
            "payload": {"mode": "yolo"}}),
        );
        Decision::Allow
    };
    let (asked, _) = turn(&lab, &scope(), &script, loosen).await;
    assert_eq!(asked, ["Bash"], "the second call is not asked about");
    assert!(lab.file("one").exists() && lab.file("two").exists());

    let script = format!("{}\nTHEN\n{}\nSAY done", line("three"), line("four"));
    lab.mode(&scope(), "standard").await;
    let tighten = |_: &Value| {
        device.send(
            json!({"type": "change_device_state", "runtime": scope().runtime(),
            "payload": {"mode": "plan"}}),
        );
        Decision::Allow
    };
    let (asked, body) = turn(&lab, &scope(), &script, tighten).await;
    assert_eq!(asked, ["Bash"], "in plan mode nothing is asked");
    assert!(body.contains("plan mode is active"), "{body}");
    assert!(lab.file("three").exists() && !lab.file("four").exists());
}

#[tokio::test]
async fn s05_2_4_two_conversations_at_once_keep_their_own_modes() {
    let lab = Lab::start().await;
    let (one, two) = (
        Scope::new("agent-1", "conv-1"),
        Scope::new("agent-1", "conv-2"),
    );
    lab.mode(&one, "acceptEdits").await;
    lab.mode(&two, "strict").await;
    let write = |name: &str| {
        let args = json!({"file_path": lab.file(name), "content": name});
        format!("{}\nSAY done", call("Write", &args))
    };
    let (script_one, script_two) = (write("one"), write("two"));
    let (first, second) = tokio::join!(
        turn(&lab, &one, &script_one, |_| Decision::Deny("no".into())),
        turn(&lab, &two, &script_two, |_| Decision::Deny("no".into())),
    );
    assert_eq!((first.0, second.0), (vec![], vec!["Write".to_owned()]));
    assert!(lab.file("one").exists() && !lab.file("two").exists());
    assert_eq!(
        status(&lab, &one).await.0["current_permission_mode"],
        "acceptEdits"
    );
    assert_eq!(
        status(&lab, &two).await.0["current_permission_mode"],
        "strict"
    );
}

#[tokio::test]
async fn s05_2_5_plan_mode_goes_from_entry_over_a_restart_to_the_approved_exit() {
    let mut lab = Lab::start().await;
    lab.mode(&scope(), "acceptEdits").await;
    let script = "CALL EnterPlanMode {}\nSAY planning";
    let (asked, body) = turn(&lab, &scope(), script, |request| {
        assert_eq!(request["request"]["permission_suggestions"], json!([]));
        Decision::Allow
    })
    .await;
    assert_eq!(asked, ["EnterPlanMode"]);
    let (device, state) = status(&lab, &scope()).await;
    assert_eq!(device["current_permission_mode"], "plan");
    assert_eq!(device["plan_mode_enabled"], true);
    let plan = state["plan_file_path"].as_str().unwrap().to_owned();
    assert!(body.contains(&plan), "the model knows the file: {body}");

    // No plan yet: nothing to hand over, and nothing else may be changed.
    let edit = json!({"file_path": lab.file("a.txt"), "content": "x"});
    let script = format!(
        "{}\n{}\nCALL ExitPlanMode {{}}\nSAY blocked",
        call("Write", &edit),
        bash("echo x > b.txt")
    );
    let (asked, body) = turn(&lab, &scope(), &script, |_| Decision::Allow).await;
    assert_eq!(asked, [""; 0]);
    assert!(body.contains("there is no plan yet"), "{body}");
    assert!(!lab.file("a.txt").exists() && !lab.file("b.txt").exists());
    assert!(
        !body.contains("Permission mode changed"),
        "the tool told it"
    );

    // The plan may be written; a human sends it back.
    let write = json!({"file_path": plan, "content": "# The plan\n"});
    let script = format!(
        "{}\nTHEN\nCALL ExitPlanMode {{}}\nSAY once more",
        call("Write", &write)
    );
    let (asked, body) = turn(&lab, &scope(), &script, |_| {
        Decision::Deny("too short".into())
    })
    .await;
    assert_eq!(asked, ["ExitPlanMode"]);
    assert!(body.contains("too short"), "{body}");
    assert_eq!(fs::read_to_string(&plan).unwrap(), "# The plan\n");

    lab.restart("TERM").await;
    let (device, state) = status(&lab, &scope()).await;
    assert_eq!(device["current_permission_mode"], "plan");
    assert_eq!(state["plan_file_path"], plan.as_str());

    let (asked, body) = turn(&lab, &scope(), "CALL ExitPlanMode {}\nSAY go", |_| {
        Decision::Allow
    })
    .await;
    assert_eq!(asked, ["ExitPlanMode"]);
    assert!(
        body.contains("approved the plan") && body.contains("acceptEdits"),
        "{body}"
    );
    let (device, state) = status(&lab, &scope()).await;
    assert_eq!(device["current_permission_mode"], "acceptEdits");
    assert_ne!(device["plan_mode_enabled"], true);
    assert_eq!(state["plan_file_path"], Value::Null);
    let script = format!("{}\nSAY done", call("Write", &edit));
    let (asked, _) = turn(&lab, &scope(), &script, |_| Decision::Allow).await;
    assert_eq!(asked, [""; 0]);
    assert!(lab.file("a.txt").exists());
}

#[tokio::test]
async fn s05_2_5_a_client_enters_and_leaves_plan_mode_and_the_model_is_told_once() {
    let lab = Lab::start().await;
    lab.mode(&scope(), "plan").await;
    let plan = status(&lab, &scope()).await.1["plan_file_path"].clone();
    let plan = plan.as_str().unwrap();
    let stem = Path::new(plan).file_stem().unwrap().to_str().unwrap();
    assert_eq!(stem.split('-').count(), 3, "{stem}");
    lab.mode(&scope(), "plan").await;
    assert_eq!(
        status(&lab, &scope()).await.1["plan_file_path"],
        plan,
        "the file stays"
    );

    let say = |text: &str| format!("SAY {text}");
    let (_, body) = turn(&lab, &scope(), &say("one"), |_| Decision::Allow).await;
    assert!(
        body.contains(plan) && body.contains("<system-reminder>"),
        "{body}"
    );
    let (_, body) = turn(&lab, &scope(), &say("two"), |_| Decision::Allow).await;
    assert!(!body.contains(plan), "told once: {body}");
    lab.mode(&scope(), "default").await;
    assert_eq!(
        status(&lab, &scope()).await.1["plan_file_path"],
        Value::Null
    );
    let (_, body) = turn(&lab, &scope(), &say("three"), |_| Decision::Allow).await;
    assert!(body.contains("Plan mode is over"), "{body}");
    let (_, body) = turn(&lab, &scope(), &say("four"), |_| Decision::Allow).await;
    assert!(!body.contains("Plan mode is over"), "{body}");
}

#[tokio::test]
async fn s05_2_4_modes_survive_a_restart_and_an_unknown_one_changes_nothing() {
    let mut lab = Lab::start().await;
    let other = Scope::new("agent-1", "default");
    lab.mode(&scope(), "strict").await;
    lab.mode(&other, "fullAccess").await;
    let mark = lab.cloud.mark();
    lab.change(&scope(), json!({"mode": "Strict"})).await;
    let (notice, _) = lab.labelled(mark, "stream_delta:loop_error").await;
    assert!(
        notice
            .to_string()
            .contains("Unsupported permission mode: Strict")
    );
    lab.restart("TERM").await;
    assert_eq!(
        status(&lab, &scope()).await.0["current_permission_mode"],
        "strict"
    );
    assert_eq!(
        status(&lab, &other).await.0["current_permission_mode"],
        "unrestricted"
    );
}
