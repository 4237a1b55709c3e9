//! Agents whose memory becomes a repository: `enable_memfs` in every way that it
//! can fail, and new agents of Letta Cloud.

use super::managed::memories;
use super::*;
use crate::api::tests::{Server, json as answer};

const NOWHERE: &str = "file:///no/such/memory";

/// The settings of the user; an empty object when there is no file.
fn settings(bench: &Bench) -> Value {
    let file = bench.dir.path().join("home/.letta/settings.json");
    let text = fs::read_to_string(file).unwrap_or_else(|_| "{}".into());
    serde_json::from_str(&text).unwrap()
}

/// Whether a flag of the agent is stored.
fn is_set(bench: &Bench, flag: &str) -> bool {
    let settings = settings(bench);
    let agents = settings["agents"].as_array().cloned().unwrap_or_default();
    agents
        .iter()
        .any(|agent| agent["agentId"] == "agent-1" && agent[flag] == true)
}

fn asked(server: &Server) -> Vec<String> {
    let seen = server.seen();
    let lines = seen
        .iter()
        .map(|seen| format!("{} {}", seen.method, seen.uri));
    // What is attached is asked for behind the answer.
    lines
        .filter(|line| !line.ends_with("/repositories"))
        .collect()
}

const LOOK: &str = "GET /v1/agents/agent-1?include=agent.tags";
const RECOMPILE: &str = "POST /v1/agents/agent-1/recompile?update_timestamp=false";
const CHANGE: &str = "PATCH /v1/agents/agent-1";

#[tokio::test]
async fn a_memory_that_cannot_become_a_repository_is_told_why() {
    let agent = |tags: Value| json!({"id": "agent-1", "name": "Ada", "tags": tags});
    let (bare, tagged) = (agent(json!([])), agent(json!(["git-memory-enabled"])));
    let no = json!({"detail": "no"});
    let ok = json!({});
    for (answers, requests, error, stored) in [
        (vec![(404, &no)], vec![LOOK], "404 ", false),
        (
            vec![(200, &bare), (403, &no)],
            vec![LOOK, RECOMPILE],
            "403 ",
            false,
        ),
        (
            vec![(200, &bare), (200, &ok), (403, &no)],
            vec![LOOK, RECOMPILE, CHANGE],
            "403 ",
            false,
        ),
        // The server keeps it as a repository from now on; only the clone is missing.
        (
            vec![(200, &tagged), (200, &ok)],
            vec![LOOK, RECOMPILE],
            "git clone failed",
            true,
        ),
    ] {
        let answers = answers.iter().map(|(status, body)| answer(*status, body));
        let server = Server::answering(answers).await;
        let mut bench = Bench::with(Some((&server.url, NOWHERE))).await;
        let enable = json!({"type": "enable_memfs", "agent_id": "agent-1"});
        let answered = bench.ask(enable).await;
        assert_eq!(
            (&answered["type"], &answered["success"]),
            (&json!("enable_memfs_response"), &json!(false))
        );
        let told = answered["error"].as_str().unwrap();
        assert!(told.starts_with(error), "{told}");
        assert_eq!(asked(&server), requests);
        assert_eq!(is_set(&bench, "memfs"), stored, "{error}");
        // Nobody hears of a change.
        assert!(bench.trial.outbound.try_recv().is_err());
    }
}

#[tokio::test]
async fn a_memory_that_is_a_repository_already_is_fetched_and_not_tagged_again() {
    let (_dir, url) = memories();
    let agent = json!({"id": "agent-1", "name": "Ada", "tags": ["git-memory-enabled"]});
    let answers = [answer(200, &agent), answer(200, &json!({}))];
    let server = Server::answering(answers).await;
    let mut bench = Bench::with(Some((&server.url, &url))).await;
    let enable = json!({"type": "enable_memfs", "agent_id": "agent-1"});
    assert_eq!(bench.ask(enable).await["success"], true);
    assert_eq!(bench.next().await["affected_paths"], json!(["*"]));
    assert_eq!(asked(&server), [LOOK, RECOMPILE]);
    assert!(is_set(&bench, "memfs"));
    let checkout = bench.dir.path().join("home/.letta/agents/agent-1/memory");
    assert!(checkout.join("n00.md").exists());
    assert!(checkout.join(".git/hooks/pre-commit").exists());
}

/// What a new agent of Letta Cloud is made with, when the server leaves out its tags.
async fn made(change: u16, more: Value) -> (Bench, Server, Value) {
    let agent = json!({"id": "agent-1", "name": "Blank", "model": "letta/auto", "tags": ["mine"]});
    let catalogue = json!({"models": [{"id": "auto", "handle": "letta/auto", "label": "L",
        "brand": "b", "maxContextWindow": 9, "contextWindow": 7}]});
    let server = Server::answering([
        answer(200, &catalogue),
        answer(200, &agent),
        answer(200, &agent),
        answer(change, &json!({})),
    ])
    .await;
    let mut bench = Bench::at(Some((&server.url, NOWHERE)), true).await;
    let mut create = json!({"type": "create_agent", "personality": "blank", "tags": ["mine"]});
    let more = more.as_object().unwrap().clone();
    create.as_object_mut().unwrap().extend(more);
    let answered = bench.ask(create).await;
    (bench, server, answered)
}

#[tokio::test]
async fn a_new_agent_of_letta_cloud_is_tagged_when_the_server_left_that_out() {
    let (bench, server, answered) = made(200, json!({})).await;
    assert_eq!(
        answered,
        json!({"type": "create_agent_response", "request_id": "r-1", "success": true,
            "agent_id": "agent-1", "name": "Blank", "model": "letta/auto"})
    );
    let seen = server.seen();
    assert_eq!(
        asked(&server)[..4],
        ["GET /v1/models/catalog", "POST /v1/agents/", LOOK, CHANGE]
    );
    assert_eq!(
        seen[3].body,
        json!({"tags": ["mine", "origin:letta-code", "git-memory-enabled"]})
    );
    assert!(is_set(&bench, "memfs") && is_set(&bench, "pinned"));
}

#[tokio::test]
async fn a_new_agent_is_there_even_when_it_cannot_be_tagged_and_is_pinned_only_if_wanted() {
    let (bench, _server, answered) = made(403, json!({"pin_global": false})).await;
    assert_eq!(
        (&answered["success"], &answered["agent_id"]),
        (&json!(true), &json!("agent-1"))
    );
    assert!(!is_set(&bench, "memfs") && !is_set(&bench, "pinned"));
}

#[tokio::test]
async fn a_refusal_of_the_server_is_the_answer_to_create_agent() {
    for (answers, error) in [
        (
            vec![(403, json!({"message": "no more agents"}))],
            "403 no more agents",
        ),
        (
            vec![
                (200, json!({"id": "agent-1", "tags": []})),
                (404, json!({"detail": "gone"})),
            ],
            "404 {\"detail\":\"gone\"}",
        ),
    ] {
        let answers = answers.iter().map(|(status, body)| answer(*status, body));
        let no_models = [answer(200, &json!([]))];
        let server = Server::answering(no_models.into_iter().chain(answers)).await;
        let mut bench = Bench::with(Some((&server.url, NOWHERE))).await;
        let create = json!({"type": "create_agent", "personality": "memo"});
        let answered = bench.ask(create).await;
        assert_eq!(
            answered,
            json!({"type": "create_agent_response", "request_id": "r-1", "success": false,
                "error": error})
        );
    }
}
