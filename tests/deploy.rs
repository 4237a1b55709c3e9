//! What is shipped, as it is shipped: a static binary of this or another
//! architecture, alone or inside of an image. `scripts/check-deploy` builds
//! these and says how to run them; without it every test here is left out.
//!
//! | variable | meaning |
//! |---|---|
//! | `LETTA_DEPLOY_PROGRAM` | words that run `letta`; arguments are added |
//! | `LETTA_DEPLOY_HOME` | its home as it sees it; without it the volume itself |
//! | `LETTA_DEPLOY_NAMESPACE` | `1`: the program is PID 1 below the first process |
//! | `LETTA_DEPLOY_SHELL` | `0`: there is no shell, so tools that need none are used |
//!
//! The words get `LETTA_DEPLOY_VOLUME`, the directory that must be the home.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed step ends the test"
)]

#[path = "deploy/program.rs"]
mod program;
#[path = "deploy/systemd.rs"]
mod systemd;
#[path = "deploy/tls.rs"]
mod tls;

use std::time::Duration;

use local_cloud::{LocalCloud, Mode, Options, Scope};
use serde_json::json;

use program::{Program, SOON, Volume, has_shell};

fn scope() -> Scope {
    Scope::new("agent-1", "conv-1")
}

async fn cloud() -> LocalCloud {
    // One socket, so that frames come in the order they were sent, however slow.
    let options = Options {
        mode: Mode::Single,
        turn_timeout: SOON,
        ..Options::default()
    };
    LocalCloud::start(options).await.unwrap()
}

/// A script with one tool call that answers `marker-text`.
fn tool_turn(volume: &Volume) -> String {
    if has_shell() {
        let arguments = json!({"command": "echo marker-$((6*7))", "description": "A test"});
        return format!("CALL Bash {arguments}\nTHEN\nSAY done");
    }
    let file = volume.inside("note.txt");
    std::fs::write(volume.outside("note.txt"), "marker-42\n").unwrap();
    format!("CALL Read {}\nTHEN\nSAY done", json!({"file_path": file}))
}

async fn assert_turn(cloud: &LocalCloud, volume: &Volume) {
    let turn = cloud.turn(&scope(), &tool_turn(volume)).await.unwrap();
    let returned = json!(turn.tool_returns()).to_string();
    assert!(returned.contains("marker-42"), "{returned}");
    assert_eq!(turn.text(), "done");
}

#[tokio::test]
#[ignore = "scripts/check-deploy runs it"]
async fn program_says_its_version() {
    let volume = Volume::new();
    let output = Program::once(&volume, &["--version"], &[]).await;
    assert!(output.status.success(), "{output:?}");
    let expected = format!("(letta {})", env!("CARGO_PKG_VERSION"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.trim_end().ends_with(&expected), "{said}");
}

#[tokio::test]
#[ignore = "scripts/check-deploy runs it"]
async fn program_without_a_key_says_where_to_sign_in_and_is_alive_but_not_ready() {
    let (cloud, volume) = (cloud().await, Volume::new());
    let mut program = Program::start(&cloud.base_url(), &volume, None).await;
    let line = program.line_with("Open: ").await;
    assert!(line.contains("/device"), "{line}");
    assert_eq!(program.get("/livez").await.0, 200);
    let (status, body) = program.get("/readyz").await;
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("login_required"), "{body}");
    // What the image's HEALTHCHECK does.
    assert_eq!(program.healthcheck(&volume, &[]).await, Some(0));
    assert_eq!(program.healthcheck(&volume, &["--ready"]).await, Some(1));
    program.signal("TERM").await;
    assert_eq!(program.ended().await, Some(0));
}

#[tokio::test]
#[ignore = "scripts/check-deploy runs it"]
async fn program_serves_a_turn_with_tools_and_finds_itself_well() {
    let (cloud, volume) = (cloud().await, Volume::new());
    let mut program = Program::start(&cloud.base_url(), &volume, Some("key")).await;
    cloud.wait_for_device(SOON).await.unwrap();
    assert_turn(&cloud, &volume).await;
    program.line_with("Connected.").await;
    assert_eq!(program.healthcheck(&volume, &["--ready"]).await, Some(0));
    program.signal("TERM").await;
    assert_eq!(program.ended().await, Some(0));
}

#[tokio::test]
#[ignore = "scripts/check-deploy runs it"]
async fn program_drains_when_it_is_stopped_in_a_turn() {
    let (cloud, volume) = (cloud().await, Volume::new());
    let mut program = Program::start(&cloud.base_url(), &volume, Some("key")).await;
    let device = cloud.wait_for_device(SOON).await.unwrap();
    let begun = volume.outside("begun");
    let script = if has_shell() {
        let command = "touch begun; sleep 2; touch finished";
        format!(
            "CALL Bash {}\nTHEN\nSAY done",
            json!({"command": command, "description": "A test"})
        )
    } else {
        let file = volume.inside("begun");
        let write = json!({"file_path": file, "content": "x"});
        format!("CALL Write {write}\nTHEN\nSLEEP 2\nSAY done")
    };
    device.send(
        json!({"type": "input", "request_id": "r", "runtime": scope().runtime(),
        "payload": {"kind": "create_message", "messages": [
            {"role": "user", "content": script, "client_message_id": "m"}]}}),
    );
    program::wait_for_file(&begun).await;
    program.signal("TERM").await;
    assert_eq!(program.ended().await, Some(0));
    if has_shell() {
        assert!(volume.outside("finished").exists(), "the tool was cut off");
    }
}

#[tokio::test]
#[ignore = "scripts/check-deploy runs it"]
async fn program_comes_back_on_the_same_volume_after_a_kill() {
    let (cloud, volume) = (cloud().await, Volume::new());
    let mut program = Program::start(&cloud.base_url(), &volume, Some("key")).await;
    cloud.wait_for_device(SOON).await.unwrap();
    assert_turn(&cloud, &volume).await;
    program.signal("KILL").await;
    program.ended().await;
    let links = cloud.links_opened();
    let mut program = Program::start(&cloud.base_url(), &volume, Some("key")).await;
    cloud.wait_for_link(links + 1, SOON).await.unwrap();
    assert_turn(&cloud, &volume).await;
    let registered = cloud.registrations();
    let (first, last) = (registered.first().unwrap(), registered.last().unwrap());
    assert_eq!(first.body["deviceId"], last.body["deviceId"]);
    program.signal("TERM").await;
    assert_eq!(program.ended().await, Some(0));
}

#[tokio::test]
#[ignore = "scripts/check-deploy runs it"]
async fn program_leaves_no_zombie_behind_two_hundred_orphans() {
    if !has_shell() || !program::in_namespace() {
        println!("left out: it takes a shell, and a process that is PID 1");
        return;
    }
    let (cloud, volume) = (cloud().await, Volume::new());
    let mut program = Program::start(&cloud.base_url(), &volume, Some("key")).await;
    cloud.wait_for_device(SOON).await.unwrap();
    // Each is handed to PID 1 when its parent ends, and ends later.
    let orphans = "for n in $(seq 200); do sh -c 'setsid sleep 1 >/dev/null 2>&1 &'; done; echo ok";
    let call = json!({"command": orphans, "description": "A test"});
    let turn = cloud
        .turn(&scope(), &format!("CALL Bash {call}\nTHEN\nSAY done"))
        .await
        .unwrap();
    assert_eq!(turn.text(), "done");
    let most = program.processes().len();
    assert!(most > 100, "only {most} processes were left");
    // The init and the server.
    program.wait_until_processes(2).await;
    program.signal("TERM").await;
    assert_eq!(program.ended().await, Some(0));
}

#[tokio::test]
#[ignore = "scripts/check-deploy runs it"]
async fn program_connects_over_tls_with_a_private_authority() {
    let volume = Volume::new();
    let front = tls::Front::bind().await;
    let options = Options {
        mode: Mode::Single,
        relay_origin: Some(format!("wss://localhost:{}", front.port())),
        turn_timeout: SOON,
        ..Options::default()
    };
    let cloud = LocalCloud::start(options).await.unwrap();
    std::fs::write(volume.outside("ca.pem"), front.authority()).unwrap();
    let url = format!("https://localhost:{}", front.port());
    let _tunnel = front.lead_to(cloud.port());
    let authority = volume.inside("ca.pem");
    let mut program = Program::start_with(
        &url,
        &volume,
        Some("key"),
        &[("LETTA_EXTRA_CA_FILE", authority.to_str().unwrap())],
    )
    .await;
    cloud.wait_for_device(SOON).await.unwrap();
    assert_turn(&cloud, &volume).await;
    program.signal("TERM").await;
    assert_eq!(program.ended().await, Some(0));
}

/// Run with a memory limit on the program and everything below it.
#[tokio::test]
#[ignore = "scripts/check-deploy runs it"]
async fn under_a_memory_limit_the_tool_that_eats_it_is_killed_and_not_the_server() {
    let (cloud, volume) = (cloud().await, Volume::new());
    let mut program = Program::start(&cloud.base_url(), &volume, Some("key")).await;
    cloud.wait_for_device(SOON).await.unwrap();
    assert_turn(&cloud, &volume).await;
    // `tail` keeps what has no line end.
    let command = "head -c 300M /dev/zero | tail >/dev/null; echo ended-${PIPESTATUS[1]}";
    let call = json!({"command": command, "description": "A test"});
    let turn = cloud
        .turn(&scope(), &format!("CALL Bash {call}\nTHEN\nSAY done"))
        .await
        .unwrap();
    let returned = json!(turn.tool_returns()).to_string();
    assert!(
        !returned.contains("ended-0"),
        "nothing was killed: {returned}"
    );
    assert_turn(&cloud, &volume).await;
    assert_eq!(cloud.links_opened(), 1, "the server was replaced");
    program.signal("TERM").await;
    assert_eq!(program.ended().await, Some(0));
}

/// `letta server --detach`, `letta stop` and `letta doctor` beside each other.
#[tokio::test]
#[ignore = "scripts/check-deploy runs it"]
async fn program_runs_in_the_background_until_it_is_told_to_stop() {
    if program::in_namespace() {
        println!("left out: what is started as PID 1 cannot go to the background");
        return;
    }
    let (cloud, volume) = (cloud().await, Volume::new());
    let environment = program::environment(&cloud.base_url(), &volume, Some("key"));
    let run = async |words: &[&str]| Program::once(&volume, words, &environment).await;
    let begun = run(&["server", "--detach", "--env-name", "behind"]).await;
    assert!(begun.status.success(), "{begun:?}");
    cloud.wait_for_device(SOON).await.unwrap();
    assert_turn(&cloud, &volume).await;
    let again = run(&["server", "--detach", "--env-name", "behind"]).await;
    assert_eq!(again.status.code(), Some(69), "{again:?}");
    let stopped = tokio::time::timeout(Duration::from_secs(60), run(&["stop"])).await;
    let stopped = stopped.unwrap();
    let said = String::from_utf8_lossy(&stopped.stdout).into_owned();
    assert!(said.starts_with("Stopped behind (process "), "{stopped:?}");
    assert!(stopped.status.success(), "{stopped:?}");
}
