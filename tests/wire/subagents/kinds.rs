//! Kinds of subagents from files (07 §3.2).

use std::fs;

use serde_json::json;

use super::*;

#[tokio::test]
async fn s07_3_2_kinds_of_the_user_and_the_project_are_offered_and_used() {
    let lab = lab().await;
    let write = |path: std::path::PathBuf, text: &str| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let agents = ".letta/agents";
    write(
        lab.home().join(agents).join("a.md"),
        "---\nname: reviewer\ndescription: Of the user\n---\nUser text",
    );
    write(
        lab.file(agents).join("b.md"),
        "---\nname: reviewer\ndescription: Reviews with care\ntools: Read, Grep\nmodel: openai/gpt-5\nskills: house-style\n---\nYou review.",
    );
    write(
        lab.file(".agents/skills/house-style/SKILL.md"),
        "---\nname: house-style\ndescription: d\n---\nWrite short lines.",
    );
    let text = start(
        &lab,
        agent_with("Review", "SAY fine", json!({"subagent_type": "reviewer"})),
    )
    .await;
    let child = child(&text);
    assert!(notified(&lab, "task_1").await.contains("fine</result>"));
    let offered = lab.cloud.message_bodies("conv-1")[0]["client_tools"].clone();
    let tool = offered
        .as_array()
        .unwrap()
        .iter()
        .find(|tool| tool["name"] == "Agent");
    let description = tool.unwrap()["description"].as_str().unwrap().to_owned();
    assert!(
        description.contains("### reviewer\n- **Purpose**: Reviews with care\n- **Recommended model**: openai/gpt-5\n"),
        "{description}"
    );
    let body = &asked(&lab, &child)[0];
    let tools = body["client_tools"].as_array().unwrap();
    let names: Vec<&str> = tools
        .iter()
        .filter_map(|tool| tool["name"].as_str())
        .collect();
    assert_eq!(names, ["Read", "Grep"]);
    let first = body["messages"][0]["content"][0]["text"].as_str().unwrap();
    assert!(
        first.starts_with("<loaded_skills>\n<house-style>\n"),
        "{first}"
    );
    assert!(first.contains("Write short lines."), "{first}");
    let requests = lab.cloud.requests();
    let made = requests
        .iter()
        .find(|one| one.is("POST", "/v1/agents/"))
        .unwrap()
        .json();
    assert_eq!(
        (&made["system"], &made["model"]),
        (&json!("You review."), &json!("openai/gpt-5"))
    );
}
