//! Skills over the wire: what travels with a request, what the model hears of a
//! change, and which sources a conversation has (07 §2).

use std::fs;
use std::path::Path;

use local_cloud::{Frame, Scope};
use serde_json::{Value, json};

use crate::harness::{Lab, SOON, scope};

fn put_skill(dir: &Path, name: &str) {
    fs::create_dir_all(dir.join(name)).unwrap();
    let text = format!("---\nname: {name}\ndescription: does {name}\n---\n");
    fs::write(dir.join(name).join("SKILL.md"), text).unwrap();
}

#[tokio::test]
async fn s07_2_skills_travel_with_requests_and_stand_in_the_device_status() {
    let lab = Lab::start().await;
    put_skill(&lab.file(".agents/skills"), "paint");
    let scope = scope();
    let mark = lab.cloud.mark();
    lab.say(&scope, "cm-1", "SAY hi").await;
    lab.labelled(mark, "turn_finished").await;
    let body = &lab.cloud.message_bodies(&scope.conversation)[0];
    let skills = body["client_skills"].as_array().unwrap();
    let paint = skills
        .iter()
        .find(|skill| skill["name"] == "paint")
        .unwrap();
    assert_eq!(paint["description"], "does paint");
    assert_eq!(
        paint["location"],
        lab.file(".agents/skills/paint/SKILL.md").to_str().unwrap()
    );
    assert!(skills.iter().any(|skill| skill["name"] == "context-doctor"));
    let shows = |frame: &Frame| {
        let skills = &frame.value["device_status"]["current_available_skills"];
        skills.as_array().is_some_and(|skills| {
            skills
                .iter()
                .any(|s| s["id"] == "paint" && s["source"] == "project")
        })
    };
    lab.frame(mark, shows).await;

    // A conversation that wants none gets none.
    let start = json!({"type": "runtime_start", "agent_id": "agent-1", "conversation_id": "conv-2", "skill_sources": []});
    let device = lab.device().await;
    assert_eq!(device.request(start, SOON).await.unwrap()["success"], true);
    let mark = lab.cloud.mark();
    let bare = Scope::new("agent-1", "conv-2");
    lab.say(&bare, "cm-2", "SAY hi").await;
    lab.labelled(mark, "turn_finished").await;
    assert_eq!(
        lab.cloud.message_bodies("conv-2")[0]["client_skills"],
        json!([])
    );
}

#[tokio::test]
async fn s07_2_2_a_conversation_loads_skills_from_its_own_sources_alone() {
    let lab = Lab::start().await;
    put_skill(&lab.file(".agents/skills"), "paint");
    put_skill(&lab.home().join(".letta/skills"), "weld");
    let script = format!(
        "{}\n{}\nSAY done",
        crate::harness::call("Skill", &json!({"skill": "paint"})),
        crate::harness::call("Skill", &json!({"skill": "weld"}))
    );
    for (conversation, sources, loaded) in [
        ("conv-1", json!(["project", "global"]), [true, true]),
        ("conv-2", json!(["global"]), [false, true]),
        ("conv-3", json!([]), [false, false]),
    ] {
        let start = json!({"type": "runtime_start", "agent_id": "agent-1",
            "conversation_id": conversation, "skill_sources": sources});
        let device = lab.device().await;
        assert_eq!(device.request(start, SOON).await.unwrap()["success"], true);
        let scope = Scope::new("agent-1", conversation);
        let turn = lab.cloud.turn(&scope, &script).await.unwrap();
        let results = turn.tool_returns();
        let found: Vec<bool> = results
            .iter()
            .map(|result| result["status"] == "success")
            .collect();
        assert_eq!(found, loaded, "{sources}: {results:?}");
    }
}

#[tokio::test]
async fn s07_2_5_the_model_hears_once_that_the_skills_have_changed() {
    let lab = Lab::start().await;
    let skills = lab.file(".agents/skills");
    put_skill(&skills, "paint");
    let last_of = async |nth: usize| -> Value {
        lab.cloud.turn(&scope(), "SAY hi").await.unwrap();
        let bodies = lab.cloud.message_bodies(&scope().conversation);
        let messages = bodies[nth]["messages"].as_array().unwrap();
        messages.last().unwrap().clone()
    };
    let is_news = |message: &Value| {
        let text = message["content"].as_str().unwrap_or_default();
        text.contains("<available_skills>") || text.contains("Not available any more")
    };
    // Nothing to compare with, then nothing new.
    assert!(!is_news(&last_of(0).await));
    assert!(!is_news(&last_of(1).await));
    put_skill(&skills, "weld");
    fs::remove_dir_all(skills.join("paint")).unwrap();
    let told = last_of(2).await;
    assert_eq!(told["role"], "user");
    let text = told["content"].as_str().unwrap();
    assert!(text.starts_with("<system-reminder>"), "{text}");
    for part in [
        "<skill><name>weld</name>",
        "<description>does weld</description>",
        "- paint",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains("context-doctor"), "{text}");
    assert!(!is_news(&last_of(3).await));
}
