//! The real binary against the local cloud: what clients see on the wire.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use local_cloud::{Decision, Device, Fault, LocalCloud, Options, Scope};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

const SOON: Duration = Duration::from_secs(20);

struct Bench {
    cloud: LocalCloud,
    dir: TempDir,
    listener: Child,
}

impl Bench {
    async fn start() -> Self {
        Self::with(Options::default()).await
    }

    async fn with(options: Options) -> Self {
        let cloud = LocalCloud::start(options).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("work")).unwrap();
        let listener = launch(&cloud, dir.path());
        Self {
            cloud,
            dir,
            listener,
        }
    }

    fn work(&self) -> PathBuf {
        self.dir.path().join("work").canonicalize().unwrap()
    }

    async fn device(&self) -> Device {
        self.cloud.wait_for_device(SOON).await.unwrap()
    }

    async fn mode(&self, device: &Device, scope: &Scope, mode: &str) {
        let runtime = json!({"agent_id": scope.agent, "conversation_id": scope.conversation});
        device.send(json!({
            "type": "change_device_state", "runtime": runtime, "payload": {"mode": mode},
        }));
    }

    /// Ends the listener as a kill or a stop would, and starts another on the same home.
    async fn restart(&mut self, kill: bool) {
        if kill {
            self.listener.start_kill().unwrap();
        } else {
            terminate(&self.listener);
        }
        self.listener.wait().await.unwrap();
        self.listener = launch(&self.cloud, self.dir.path());
    }
}

fn launch(cloud: &LocalCloud, dir: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_letta"))
        .args(["server", "--env-name", "test"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", dir)
        .env("LETTA_BASE_URL", cloud.base_url())
        .env("LETTA_API_KEY", "test-key")
        .env("LETTA_HEALTH_ADDR", "off")
        .env("LETTA_DRAIN_SECONDS", "1s")
        .current_dir(dir.join("work"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

fn terminate(child: &Child) {
    let pid = rustix::process::Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
}

fn scope() -> Scope {
    Scope::new("agent-1", "conv-1")
}

fn bash(command: &str) -> String {
    format!(
        "CALL Bash {}",
        json!({"command": command, "description": "d"})
    )
}

#[tokio::test]
async fn s03_22_row01_a_text_turn_ends_once_in_default_and_explicit_conversations() {
    let bench = Bench::start().await;
    bench.device().await;
    for conversation in ["conv-1", "default"] {
        let scope = Scope::new("agent-1", conversation);
        let turn = bench.cloud.turn(&scope, "SAY hello").await.unwrap();
        assert_eq!(turn.stop_reason(), "end_turn");
        assert_eq!(turn.text(), "hello");
        assert_eq!(turn.of_type("turn_finished").len(), 1);
    }
}

#[tokio::test]
async fn s02_7_3_a_tool_step_shows_start_end_and_result_in_order() {
    let bench = Bench::start().await;
    bench.device().await;
    let script = format!("{}\nSAY done", bash("echo hi > made.txt; cat made.txt"));
    let turn = bench.cloud.turn(&scope(), &script).await.unwrap();
    assert_eq!(turn.stop_reason(), "end_turn");
    let labels = turn.labels();
    let at = |part: &str| labels.iter().position(|l| l.contains(part)).expect(part);
    assert!(at("approval_classification_end") < at("client_tool_start"));
    assert!(at("client_tool_start") < at("client_tool_end"));
    assert!(at("client_tool_end") < at("turn_finished"));
    assert_eq!(
        std::fs::read_to_string(bench.work().join("made.txt")).unwrap(),
        "hi\n"
    );
    let bodies = bench.cloud.message_bodies("conv-1");
    assert_eq!(
        bodies.last().unwrap()["messages"][0]["approvals"][0]["status"],
        "success"
    );
}

#[tokio::test]
async fn s02_17_row06_edited_arguments_run_and_denied_calls_do_not() {
    let bench = Bench::start().await;
    let device = bench.device().await;
    bench.mode(&device, &scope(), "standard").await;
    let write = |name: &str| {
        format!(
            "CALL Write {}",
            json!({"file_path": name, "content": "model"})
        )
    };
    let edited = bench
        .cloud
        .turn_deciding(
            &scope(),
            &format!("{}\nSAY ok", write("a.txt")),
            |request| {
                assert_eq!(request["request"]["tool_name"], "Write");
                assert_eq!(request["request"]["diffs"][0]["fileName"], "a.txt");
                let input = json!({"file_path": "a.txt", "content": "human"});
                Decision::AllowEdited(input)
            },
        )
        .await
        .unwrap();
    assert_eq!(edited.stop_reason(), "end_turn");
    assert_eq!(
        std::fs::read_to_string(bench.work().join("a.txt")).unwrap(),
        "human"
    );
    let denied = bench
        .cloud
        .turn_deciding(&scope(), &format!("{}\nSAY ok", write("b.txt")), |_| {
            Decision::Deny("not now".into())
        })
        .await
        .unwrap();
    assert_eq!(denied.stop_reason(), "end_turn");
    assert!(denied.deltas("client_tool_start").is_empty());
    assert_eq!(denied.deltas("client_tool_end")[0]["status"], "error");
    assert!(!bench.work().join("b.txt").exists());
}

#[tokio::test]
async fn s02_17_row03_a_repeated_message_does_not_run_twice() {
    let bench = Bench::start().await;
    let device = bench.device().await;
    let input = |id: &str| {
        json!({
            "type": "input", "request_id": id,
            "runtime": {"agent_id": "agent-1", "conversation_id": "conv-1"},
            "payload": {"kind": "create_message", "messages": [
                {"role": "user", "content": "SAY once", "client_message_id": "cm-1"}]},
        })
    };
    let first = device.request(input("r1"), SOON).await.unwrap();
    assert_eq!(
        (&first["accepted"], &first["disposition"]),
        (&json!(true), &json!("started"))
    );
    device.wait_for_type("turn_finished", SOON).await.unwrap();
    let second = device.request(input("r2"), SOON).await.unwrap();
    assert_eq!(
        second["disposition"], "started",
        "the first disposition again"
    );
    assert_eq!(bench.cloud.message_bodies("conv-1").len(), 1);
}

#[tokio::test]
async fn s02_17_row05_an_abort_stops_the_command_and_says_so_once() {
    let bench = Bench::start().await;
    let device = bench.device().await;
    let runtime = json!({"agent_id": "agent-1", "conversation_id": "conv-1"});
    device.send(json!({
        "type": "input", "request_id": "r1", "runtime": runtime,
        "payload": {"kind": "create_message", "messages": [
            {"role": "user", "content": bash("echo $$ > pid; sleep 60"), "client_message_id": "cm"}]},
    }));
    let started = |frame: &Value| frame["delta"]["message_type"] == "client_tool_start";
    device.wait_for(started, SOON).await.unwrap();
    let abort = json!({"type": "abort_message", "request_id": "r2", "runtime": runtime});
    assert_eq!(device.request(abort, SOON).await.unwrap()["aborted"], true);
    let finished = device.wait_for_type("turn_finished", SOON).await.unwrap();
    assert_eq!(finished["stop_reason"], "cancelled");
    let again = json!({"type": "abort_message", "request_id": "r3", "runtime": runtime});
    assert_eq!(device.request(again, SOON).await.unwrap()["aborted"], false);
    let frames = device.frames();
    let said = frames
        .iter()
        .filter(|frame| frame.value["delta"]["message"] == "Interrupted");
    assert_eq!(said.count(), 1);
}

#[tokio::test]
async fn s01_15_row19_mode_and_directory_survive_a_restart() {
    let mut bench = Bench::start().await;
    let device = bench.device().await;
    let runtime = json!({"agent_id": "agent-1", "conversation_id": "conv-1"});
    let sub = bench.work().join("sub");
    std::fs::create_dir(&sub).unwrap();
    device.send(json!({"type": "change_device_state", "runtime": runtime,
        "payload": {"mode": "acceptEdits", "cwd": "sub"}}));
    let sync = |id: &str| json!({"type": "sync", "request_id": id, "runtime": runtime});
    device.request(sync("s1"), SOON).await.unwrap();
    bench.restart(false).await;
    let device = bench.cloud.wait_for_link(2, SOON).await.unwrap();
    device.send(sync("s2"));
    let status = device
        .wait_for_type("update_device_status", SOON)
        .await
        .unwrap();
    let status = &status["device_status"];
    assert_eq!(status["current_permission_mode"], "acceptEdits");
    assert_eq!(status["current_working_directory"], sub.to_str().unwrap());
}

#[tokio::test]
async fn s01_15_row09_refused_credentials_end_the_process_with_77() {
    let options = Options {
        api_key: Some("another-key".into()),
        ..Options::default()
    };
    let mut bench = Bench::with(options).await;
    let status = tokio::time::timeout(SOON, bench.listener.wait())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(status.code(), Some(77));
}

#[tokio::test]
async fn s01_15_row25_sigterm_ends_the_process_with_0() {
    let mut bench = Bench::start().await;
    bench.device().await;
    terminate(&bench.listener);
    let status = tokio::time::timeout(SOON, bench.listener.wait())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn s03_22_row20_a_call_that_was_running_at_a_kill_is_closed_and_never_run_again() {
    let mut bench = Bench::start().await;
    let device = bench.device().await;
    device.send(json!({
        "type": "input", "request_id": "r1",
        "runtime": {"agent_id": "agent-1", "conversation_id": "conv-1"},
        "payload": {"kind": "create_message", "messages": [{
            "role": "user", "client_message_id": "cm",
            "content": format!("{}\nSAY recovered", bash("echo ran >> ran.txt; sleep 5"))}]},
    }));
    let started = |frame: &Value| {
        frame["delta"]["message_type"] == "tool_return_message"
            || frame["delta"]["message_type"] == "client_tool_start"
    };
    device.wait_for(started, SOON).await.unwrap();
    bench.restart(true).await;
    let body = bench
        .cloud
        .wait_for_request(
            |request| {
                request.line().contains("/messages")
                    && request.json()["messages"][0]["approvals"][0]["approve"] == false
            },
            SOON,
        )
        .await
        .unwrap();
    assert_eq!(body.json()["messages"][0]["type"], "approval");
    let ran = std::fs::read_to_string(bench.work().join("ran.txt")).unwrap_or_default();
    assert!(ran.lines().count() <= 1, "{ran}");
}

#[tokio::test]
async fn s03_22_row12_transient_failures_are_told_and_retried() {
    let bench = Bench::start().await;
    bench.device().await;
    bench.cloud.fail_next_message(Fault::status(503));
    let turn = bench.cloud.turn(&scope(), "SAY there").await.unwrap();
    assert_eq!(turn.stop_reason(), "end_turn");
    let retries = turn.deltas("retry");
    assert_eq!(retries.len(), 1);
    assert_eq!(
        (&retries[0]["attempt"], &retries[0]["reason"]),
        (&json!(1), &json!("error"))
    );
    let bodies = bench.cloud.message_bodies("conv-1");
    assert_eq!(
        bodies[0]["messages"][0]["otid"],
        bodies[1]["messages"][0]["otid"]
    );
}

#[tokio::test]
async fn s03_22_row08_a_cut_stream_is_resumed_without_repeating_a_delta() {
    let bench = Bench::start().await;
    bench.device().await;
    bench
        .cloud
        .fail_next_message(Fault::CutAfterEvents { events: 3 });
    let script = format!("{}\nSAY whole", bash("true"));
    let turn = bench.cloud.turn(&scope(), &script).await.unwrap();
    assert_eq!(turn.stop_reason(), "end_turn");
    assert_eq!(turn.text(), "whole");
    let mut seen: Vec<(String, i64)> = Vec::new();
    for frame in turn.of_type("stream_delta") {
        let delta = &frame["delta"];
        if let (Some(run), Some(seq)) = (delta["run_id"].as_str(), delta["seq_id"].as_i64()) {
            assert!(!seen.contains(&(run.to_owned(), seq)), "{delta}");
            seen.push((run.to_owned(), seq));
        }
    }
}

#[tokio::test]
async fn s02_2_1_wrong_shapes_are_answered_and_garbage_is_survived() {
    let bench = Bench::start().await;
    let device = bench.device().await;
    device.send_text("{");
    device.send_text("[1]");
    device.send_binary(vec![0, 255]);
    let wrong = json!({"type": "sync", "request_id": "x", "runtime": {"agent_id": "a", "conversation_id": ""}});
    let answer = device.request(wrong, SOON).await.unwrap();
    assert_eq!(
        (&answer["type"], &answer["success"]),
        (&json!("sync_response"), &json!(false))
    );
    let unknown = device
        .request(json!({"type": "no_such", "request_id": "y"}), SOON)
        .await
        .unwrap();
    assert_eq!(unknown["type"], "error");
    let turn = bench.cloud.turn(&scope(), "SAY alive").await.unwrap();
    assert_eq!(turn.text(), "alive");
}
