//! Several clients at once, and what is left of one that leaves (02 §4, §9.2,
//! §11.2).

use serde_json::{Value, json};

use crate::direct_harness::{Direct, Peer, eventually};
use crate::harness::{bash, call, scope};
use local_cloud::Scope;

/// The removals that a client was told of.
fn removals(client: &Peer) -> Vec<Value> {
    let frames = client
        .seen
        .iter()
        .filter(|frame| frame["type"] == "update_queue");
    let lists = frames.flat_map(|frame| {
        frame["queue_removed"]
            .as_array()
            .or(frame["removed"].as_array())
    });
    lists.flatten().cloned().collect()
}

#[tokio::test]
async fn s02_4_every_client_has_its_own_numbers_and_hears_only_its_scopes() {
    let direct = Direct::start().await;
    let other_scope = Scope::new("agent-1", "conv-2");
    let mut one = direct.client_of(&scope()).await;
    let mut two = direct.client_of(&scope()).await;
    let mut three = direct.client_of(&other_scope).await;
    one.say(&scope(), "SAY hello").await;
    one.finished().await;
    two.finished().await;
    for client in [&one, &two] {
        let numbers: Vec<u64> = client
            .seen
            .iter()
            .filter_map(|frame| frame["event_seq"].as_u64())
            .collect();
        let contiguous: Vec<u64> = (1..=numbers.len() as u64).collect();
        assert_eq!(numbers, contiguous);
    }
    let keys = |client: &Peer| -> Vec<Value> {
        let keys = client.seen.iter().map(|frame| &frame["idempotency_key"]);
        keys.filter(|key| key.is_string()).cloned().collect()
    };
    assert!(keys(&one).iter().all(|key| !keys(&two).contains(key)));
    // The acceptance went to its asker alone; the other scope heard nothing.
    assert!(
        two.seen
            .iter()
            .all(|frame| frame["type"] != "input_accepted")
    );
    three.quiet().await;
}

#[tokio::test]
async fn s02_9_2_the_first_answer_of_two_clients_wins_and_a_late_one_must_sync() {
    let direct = Direct::start().await;
    let (mut one, mut two) = (
        direct.client_of(&scope()).await,
        direct.client_of(&scope()).await,
    );
    one.mode(&scope(), "standard").await;
    let path = direct.work.path().join("file.txt");
    let write = json!({"file_path": path, "content": "x\n"});
    one.say(&scope(), &format!("{}\nSAY done", call("Write", &write)))
        .await;
    let question = one.typed("control_request").await["request_id"].clone();
    assert_eq!(two.typed("control_request").await["request_id"], question);
    let mut late = direct.client().await;
    let allow = json!({"behavior": "allow"});
    let answer = late.decide(&scope(), &question, allow.clone()).await;
    assert_eq!(answer["error"], "Approval request is no longer pending");
    late.sync(&scope()).await;
    let replayed =
        |frame: &Value| frame["request_id"] == question && frame["type"] == "control_request";
    assert!(late.seen.iter().any(replayed));
    let answer = late.decide(&scope(), &question, allow.clone()).await;
    assert_eq!(answer["accepted"], true, "{answer}");
    let answer = two.decide(&scope(), &question, allow).await;
    assert_eq!(answer["accepted"], false, "{answer}");
    assert_eq!(one.finished().await["stop_reason"], "end_turn");
    assert!(path.exists());
}

#[tokio::test]
async fn s02_11_2_a_turn_whose_only_client_leaves_is_cancelled() {
    let direct = Direct::start().await;
    let mut client = direct.client_of(&scope()).await;
    let marker = direct.work.path().join("started");
    let run = bash(&format!("touch {} && sleep 600", marker.display()));
    client.say(&scope(), &run).await;
    eventually("the command does not run", async || marker.exists()).await;
    client.leave().await;
    let mut back = direct.client().await;
    eventually("the turn goes on", async || {
        back.sync(&scope()).await;
        let status = back
            .seen
            .iter()
            .rfind(|frame| frame["type"] == "update_device_status")
            .unwrap();
        status["device_status"]["is_processing"] == false
            && status["device_status"]["background_processes"] == json!([])
    })
    .await;
    // The server is not told: its turn is answered with the next input.
    let told = direct.cloud.requests();
    assert!(told.iter().all(|request| !request.path.contains("/cancel")));
    back.say(&scope(), "SAY again").await;
    assert_eq!(back.finished().await["stop_reason"], "end_turn");
    let bodies = direct.cloud.message_bodies("conv-1");
    let last = bodies.last().unwrap().to_string();
    assert!(last.contains("Interrupted by user"), "{last}");
}

#[tokio::test]
async fn s02_11_2_a_turn_that_others_follow_goes_on() {
    let direct = Direct::start().await;
    let mut one = direct.client_of(&scope()).await;
    let mut two = direct.client_of(&scope()).await;
    let go = direct.work.path().join("go");
    let run = bash(&format!(
        "until [ -e {} ]; do sleep 0.05; done",
        go.display()
    ));
    one.say(&scope(), &format!("{run}\nSAY done")).await;
    let started = |frame: &Value| frame["delta"]["message_type"] == "client_tool_start";
    two.until(started).await;
    one.leave().await;
    std::fs::write(&go, "").unwrap();
    assert_eq!(two.finished().await["stop_reason"], "end_turn");
}

#[tokio::test]
async fn s02_11_2_what_a_client_queued_is_cancelled_when_it_leaves() {
    let direct = Direct::start().await;
    let mut one = direct.client_of(&scope()).await;
    let mut two = direct.client_of(&scope()).await;
    let go = direct.work.path().join("go");
    let run = bash(&format!(
        "until [ -e {} ]; do sleep 0.05; done",
        go.display()
    ));
    two.say(&scope(), &format!("{run}\nSAY done")).await;
    assert_eq!(one.say(&scope(), "SAY mine").await["disposition"], "queued");
    assert_eq!(
        two.say(&scope(), "SAY theirs").await["disposition"],
        "queued"
    );
    one.leave().await;
    let emptier = |frame: &Value| {
        frame["type"] == "update_queue"
            && frame["queue"].as_array().is_some_and(|q| q.len() == 1)
            && frame["removed"]
                .as_array()
                .is_some_and(|removed| !removed.is_empty())
    };
    two.until(emptier).await;
    let removed = removals(&two);
    assert_eq!(removed.len(), 1, "{removed:?}");
    assert_eq!(removed[0]["disposition"], "cancelled");
    std::fs::write(&go, "").unwrap();
    two.finished().await;
    let bodies = direct.cloud.message_bodies("conv-1");
    let all = Value::from(bodies).to_string();
    assert!(
        !all.contains("SAY mine") && all.contains("SAY theirs"),
        "{all}"
    );
}

#[tokio::test]
async fn s02_11_2_a_question_stays_open_for_others_when_its_asker_leaves() {
    let direct = Direct::start().await;
    let mut one = direct.client_of(&scope()).await;
    one.mode(&scope(), "standard").await;
    let mut two = direct.client_of(&scope()).await;
    let path = direct.work.path().join("file.txt");
    let write = json!({"file_path": path, "content": "x\n"});
    one.say(&scope(), &format!("{}\nSAY done", call("Write", &write)))
        .await;
    let question = two.typed("control_request").await["request_id"].clone();
    one.leave().await;
    let answer = two
        .decide(&scope(), &question, json!({"behavior": "allow"}))
        .await;
    assert_eq!(answer["accepted"], true);
    assert_eq!(two.finished().await["stop_reason"], "end_turn");
    assert!(path.exists());
}

/// The directories that the program watches.
fn watched(direct: &Direct) -> usize {
    let pid = direct.program.id().unwrap();
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
    let told = descriptors.flatten().filter_map(|entry| {
        // A descriptor may be closed meanwhile.
        std::fs::read_to_string(entry.path()).ok()
    });
    told.map(|told| told.matches("inotify wd:").count()).sum()
}

/// A client with a terminal and a watched file in `name`; the shell's process.
async fn at_work(direct: &Direct, name: &str) -> (Peer, u64) {
    let mut client = direct.client().await;
    let spawn = json!({"type": "terminal_spawn", "terminal_id": "t", "cols": 80, "rows": 24});
    client.send(spawn).await;
    let pid = client.typed("terminal_spawned").await["pid"].as_u64();
    let file = direct.work.path().join(name).join("file");
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "1").unwrap();
    let before = watched(direct);
    let watch = json!({"type": "watch_file", "path": file, "request_id": "w"});
    client.send(watch).await;
    eventually("nothing is watched", async || watched(direct) > before).await;
    (client, pid.unwrap())
}

#[tokio::test]
async fn s02_11_2_terminals_and_watches_of_a_client_end_with_it_and_no_others() {
    let direct = Direct::start().await;
    let (one, gone) = at_work(&direct, "one").await;
    let (mut two, stays) = at_work(&direct, "two").await;
    assert_ne!(gone, stays, "the same name, another terminal");
    let both = watched(&direct);
    one.leave().await;
    let runs = |pid: u64| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z"))
    };
    eventually("the shell lives on", async || !runs(gone)).await;
    eventually("the watch lives on", async || watched(&direct) < both).await;
    assert!(runs(stays));
    let file = direct.work.path().join("two/file");
    std::fs::write(&file, "2").unwrap();
    assert_eq!(two.typed("file_changed").await["path"], json!(file));
    let echo = json!({"type": "terminal_input", "terminal_id": "t", "data": "echo d''one\r"});
    two.send(echo).await;
    two.until(|frame| {
        let data = frame["data"].as_str().unwrap_or_default();
        frame["type"] == "terminal_output" && data.contains("done")
    })
    .await;
}

#[tokio::test]
async fn s02_11_2_a_client_that_comes_back_is_a_new_one() {
    let direct = Direct::start().await;
    let one = direct.client_of(&scope()).await;
    let last = one.seen.iter().rfind(|frame| frame["event_seq"].is_u64());
    assert!(last.unwrap()["event_seq"].as_u64() > Some(1));
    one.leave().await;
    let mut again = direct.client().await;
    again.quiet().await;
    again.sync(&scope()).await;
    let first = again.seen.iter().find(|frame| frame["event_seq"].is_u64());
    assert_eq!(first.unwrap()["event_seq"], 1);
}

#[tokio::test]
async fn s02_17_row13_a_client_that_does_not_read_is_dropped_and_blocks_nobody() {
    let direct = Direct::start().await;
    let mut reader = direct.client_of(&scope()).await;
    let mut sleeper = direct.client_of(&scope()).await;
    let log = direct.session_log();
    let dropped = || {
        std::fs::read_to_string(&log)
            .unwrap()
            .contains("outbound queue full")
    };
    // Each call is shown several times: as asked, as started, as written.
    let path = direct.work.path().join("large.txt");
    let content = "0123456789abcdef".repeat(64 * 1024);
    let write = call("Write", &json!({"file_path": path, "content": content}));
    let script = format!("{write}\nSAY done");
    let mut rounds = 0;
    while !dropped() && rounds < 60 {
        rounds += 1;
        reader.say(&scope(), &script).await;
        assert_eq!(reader.finished().await["stop_reason"], "end_turn");
    }
    assert!(dropped(), "the sleeper was never dropped");
    while sleeper.receive().await.is_some() {}
    assert_eq!(reader.sync(&scope()).await["success"], true);
}
