//! Commands whose way depends on what the server says: models that are asked for
//! again, presets on Letta Cloud, a memory that becomes a repository.

use super::managed::memories;
use super::*;
use crate::api::tests::{Seen, Server, json as answer};

/// `METHOD path` of what the server was asked.
fn lines(seen: &[Seen]) -> Vec<String> {
    let line = |seen: &Seen| format!("{} {}", seen.method, seen.uri);
    seen.iter().map(line).collect()
}

async fn on(server: &Server, memory: &str, cloud: bool) -> Bench {
    Bench::at(Some((&server.url, memory)), cloud).await
}

#[tokio::test]
async fn models_that_are_wanted_fresh_make_the_server_look_at_each_own_provider() {
    let providers = json!([
        {"id": "p1", "name": "mine", "provider_category": "byok", "provider_type": "openai"},
        {"id": "p2", "name": "base", "provider_category": "base", "provider_type": "openai"},
        {"id": "p/3", "name": "other", "provider_category": "byok", "provider_type": "zai"},
    ]);
    let models = json!([{"handle": "mine/llama", "display_name": "Llama"}]);
    let server = Server::answering([
        answer(200, &providers),
        answer(500, &json!({})),
        answer(200, &json!({})),
        answer(200, &models),
        answer(200, &models),
        answer(200, &providers),
    ])
    .await;
    let mut bench = on(&server, "http://127.0.0.1:1", false).await;
    let list = json!({"type": "list_models", "force": true});
    let answered = bench.ask(list.clone()).await;
    assert_eq!(
        answered["success"], true,
        "a refusal of one provider is no failure"
    );
    assert_eq!(answered["available_handles"], json!(["mine/llama"]));
    assert_eq!(answered["byok_provider_aliases"]["other"], "zai");
    let asked = lines(&server.seen());
    assert_eq!(
        asked[..4],
        [
            "GET /v1/providers",
            "PATCH /v1/providers/p1/refresh",
            "PATCH /v1/providers/p%2F3/refresh",
            "GET /v1/models/",
        ]
    );
    let before = asked.len();
    // Without the wish what is known serves; the providers are always asked for.
    let again = bench.ask(json!({"type": "list_models"})).await;
    assert_eq!(again["available_handles"], json!(["mine/llama"]));
    let asked = lines(&server.seen());
    assert!(
        asked[before..]
            .iter()
            .all(|line| line == "GET /v1/providers"),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_preset_on_letta_cloud_gets_a_memory_and_goes_without_tools_that_are_missing() {
    let row = |id: &str, handle: &str| {
        json!({"id": id, "handle": handle, "label": "L", "brand": "b", "maxContextWindow": 9,
            "contextWindow": 7})
    };
    let catalog = json!({"models": [row("auto", "letta/auto"), row("big", "x/big")]});
    let lacks = json!({"detail": "Tools not found by name: web_search"});
    let agent = json!({"id": "agent-1", "name": "Letta Code", "model": "x/big",
        "tags": ["origin:letta-code", "git-memory-enabled"]});
    let server = Server::answering([
        answer(200, &catalog),
        answer(400, &lacks),
        answer(200, &json!([])),
        answer(400, &lacks),
        answer(200, &agent),
        answer(200, &agent),
        answer(200, &agent),
        answer(200, &agent),
    ])
    .await;
    let mut bench = on(&server, "http://127.0.0.1:1", true).await;
    let create =
        json!({"type": "create_agent", "personality": "memo", "model": "big", "tags": ["mine"]});
    let answered = bench.ask(create).await;
    assert_eq!(
        answered,
        json!({"type": "create_agent_response", "request_id": "r-1", "success": true,
            "agent_id": "agent-1", "name": "Letta Code", "model": "x/big"})
    );
    // Behind the answer the new agent's memory is fetched.
    timeout(SOON, async {
        while server.seen().len() < 8 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let seen = server.seen();
    assert_eq!(
        lines(&seen),
        [
            "GET /v1/models/catalog",
            "POST /v1/agents/",
            "POST /v1/tools/add-base-tools",
            "POST /v1/agents/",
            "POST /v1/agents/",
            "PATCH /v1/agents/agent-1",
            "GET /v1/agents/agent-1?include=agent.tags",
            "GET /v1/agents/agent-1?include=agent.tags",
        ]
    );
    let made = &seen[4].body;
    assert_eq!(made["tools"], json!([]));
    assert_eq!(
        made["tags"],
        json!(["origin:letta-code", "git-memory-enabled", "mine"])
    );
    assert_eq!(made["memory_blocks"][0]["label"], "MEMORY");
    assert_eq!(seen[5].body["context_window_limit"], 7);
    let settings = fs::read_to_string(bench.dir.path().join("home/.letta/settings.json"));
    let settings: Value = serde_json::from_str(&settings.unwrap()).unwrap();
    let pinned = |entry: &Value| entry["agentId"] == "agent-1" && entry["pinned"] == true;
    let agents = settings["agents"].as_array().unwrap();
    assert!(agents.iter().any(pinned), "{settings}");
}

#[tokio::test]
async fn a_memory_becomes_a_repository_with_its_tag_its_setting_and_its_checkout() {
    let (_dir, url) = memories();
    let agent = |tags: Value| json!({"id": "agent-1", "name": "Ada", "tags": tags});
    let untagged = agent(json!(["mine"]));
    let server = Server::answering([
        answer(200, &untagged),
        answer(200, &json!("")),
        answer(200, &untagged),
        answer(500, &json!({})),
    ])
    .await;
    let mut bench = on(&server, &url, false).await;
    let enable = json!({"type": "enable_memfs", "agent_id": "agent-1"});
    let answered = bench.ask(enable.clone()).await;
    let checkout = bench.dir.path().join("home/.letta/agents/agent-1/memory");
    assert_eq!(
        answered,
        json!({"type": "enable_memfs_response", "request_id": "r-1", "success": true,
            "memory_directory": checkout.to_str().unwrap()})
    );
    let told = bench.next().await;
    assert_eq!(
        (&told["type"], &told["affected_paths"]),
        (&json!("memory_updated"), &json!(["*"]))
    );
    assert!(checkout.join("n00.md").exists());
    let seen = server.seen();
    assert_eq!(
        lines(&seen)[..3],
        [
            "GET /v1/agents/agent-1?include=agent.tags",
            "POST /v1/agents/agent-1/recompile?update_timestamp=false",
            "PATCH /v1/agents/agent-1",
        ]
    );
    assert_eq!(
        seen[2].body,
        json!({"tags": ["mine", "git-memory-enabled"]})
    );
    let settings = fs::read_to_string(bench.dir.path().join("home/.letta/settings.json"));
    let settings: Value = serde_json::from_str(&settings.unwrap()).unwrap();
    assert_eq!(settings["agents"][0]["memfs"], true);
    let refused = bench.ask(enable).await;
    assert_eq!(refused["success"], false, "the server failed");
}
