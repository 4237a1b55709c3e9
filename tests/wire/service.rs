//! The program as a service of the machine: what systemd hears, the background,
//! `letta stop` and `letta doctor`.

use std::process::Output;

use local_cloud::{LocalCloud, Options};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::harness::{SOON, command, scope};

/// A cloud and a machine on which nothing runs yet.
struct Machine {
    cloud: LocalCloud,
    home: TempDir,
    work: TempDir,
    health: String,
}

impl Machine {
    async fn new() -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Self {
            cloud: LocalCloud::start(Options::default()).await.unwrap(),
            home: tempfile::tempdir().unwrap(),
            work: tempfile::tempdir().unwrap(),
            health: free.local_addr().unwrap().to_string(),
        }
    }

    fn command(&self, words: &[&str]) -> Command {
        let letta = env!("CARGO_BIN_EXE_letta");
        let mut command = command(letta, &self.cloud, self.home.path(), self.work.path());
        command
            .kill_on_drop(true)
            .args(words)
            .env("LETTA_HEALTH_ADDR", &self.health);
        command
    }

    async fn run(&self, words: &[&str]) -> Output {
        finished(&mut self.command(words)).await
    }

    /// What `letta doctor --json` says, with its exit code.
    async fn doctor(&self, variables: &[(&str, &str)]) -> (Value, Option<i32>) {
        let mut command = self.command(&["doctor", "--json"]);
        let output = finished(command.envs(variables.iter().copied())).await;
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(!said.contains("test-key"), "a secret was shown: {said}");
        (serde_json::from_str(&said).unwrap(), output.status.code())
    }
}

async fn finished(command: &mut Command) -> Output {
    timeout(SOON, command.output()).await.unwrap().unwrap()
}

/// The status of one check.
fn status<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == name);
    &check.unwrap()["status"]
}

/// Systemd's end of the line, with a server below it.
struct Manager {
    socket: UnixDatagram,
    server: Child,
}

impl Manager {
    fn start(machine: &Machine, change: impl FnOnce(&mut Command)) -> Self {
        let path = machine.work.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let mut command = machine.command(&["server", "--env-name", "test"]);
        command.env("NOTIFY_SOCKET", path);
        change(&mut command);
        let server = command.spawn().unwrap();
        Self { socket, server }
    }

    /// The next message that begins like this.
    async fn hears(&self, begin: &str) -> String {
        let heard = async {
            let mut bytes = [0; 1024];
            loop {
                let length = self.socket.recv(&mut bytes).await.unwrap();
                let text = String::from_utf8(bytes[..length].to_vec()).unwrap();
                if text.starts_with(begin) {
                    return text;
                }
            }
        };
        timeout(SOON, heard).await.expect(begin)
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.server.id().unwrap()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal)
            .unwrap();
    }
}

#[tokio::test]
async fn systemd_hears_of_readiness_life_reload_and_end() {
    let machine = Machine::new().await;
    let mut manager = Manager::start(&machine, |command| {
        command.env("WATCHDOG_USEC", "400000");
    });
    assert_eq!(manager.hears("READY=1").await, "READY=1\nSTATUS=connected");
    for _ in 0..3 {
        assert_eq!(manager.hears("WATCHDOG").await, "WATCHDOG=1");
    }
    manager.signal(rustix::process::Signal::HUP);
    let reloading = manager.hears("RELOADING=1").await;
    assert!(reloading.contains("\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(manager.hears("READY=1").await, "READY=1");
    manager.signal(rustix::process::Signal::TERM);
    assert_eq!(
        manager.hears("STOPPING=1").await,
        "STOPPING=1\nSTATUS=draining"
    );
    let ended = timeout(SOON, manager.server.wait()).await.unwrap();
    assert_eq!(ended.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_service_that_waits_for_a_sign_in_has_started() {
    let machine = Machine::new().await;
    let manager = Manager::start(&machine, |command| {
        command
            .env_remove("LETTA_API_KEY")
            .env("LETTA_OAUTH_URL", machine.cloud.base_url());
    });
    let ready = manager.hears("READY=1").await;
    assert_eq!(ready, "READY=1\nSTATUS=login_required");
}

#[tokio::test]
async fn commands_of_agents_do_not_see_what_concerns_the_service_alone() {
    let machine = Machine::new().await;
    let _manager = Manager::start(&machine, |command| {
        command.env("WATCHDOG_USEC", "400000");
    });
    machine.cloud.wait_for_device(SOON).await.unwrap();
    let call = json!({"command": "env; echo HOME=$HOME", "description": "A test"});
    let script = format!("CALL Bash {call}\nTHEN\nSAY done");
    let turn = machine.cloud.turn(&scope(), &script).await.unwrap();
    let seen = json!(turn.tool_returns()).to_string();
    assert!(seen.contains("HOME="), "{seen}");
    for hidden in ["NOTIFY_SOCKET", "WATCHDOG_USEC"] {
        assert!(!seen.contains(hidden), "{hidden} in {seen}");
    }
}

#[tokio::test]
async fn a_server_in_the_background_outlives_its_starter_until_it_is_stopped() {
    let machine = Machine::new().await;
    let words = ["server", "--detach", "--env-name", "behind"];
    let begun = machine.run(&words).await;
    assert_eq!(begun.status.code(), Some(0), "{begun:?}");
    machine.cloud.wait_for_device(SOON).await.unwrap();

    let again = machine.run(&words).await;
    assert_eq!(again.status.code(), Some(69), "{again:?}");
    let told = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(told.contains("already running"), "{told}");

    let stopped = machine.run(&["stop"]).await;
    assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
    let told = String::from_utf8_lossy(&stopped.stdout).into_owned();
    assert!(told.starts_with("Stopped behind (process "), "{told}");
    let nobody = machine.run(&["stop", "--now"]).await;
    assert_eq!(nobody.status.code(), Some(0));
    let told = String::from_utf8_lossy(&nobody.stdout).into_owned();
    assert!(told.starts_with("No server"), "{told}");
}

#[tokio::test]
async fn stop_finds_a_server_in_the_foreground() {
    let machine = Machine::new().await;
    let mut server = machine
        .command(&["server", "--env-name", "front"])
        .spawn()
        .unwrap();
    machine.cloud.wait_for_device(SOON).await.unwrap();
    let stopped = machine.run(&["stop"]).await;
    assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
    let ended = timeout(SOON, server.wait()).await.unwrap();
    assert_eq!(ended.unwrap().code(), Some(0));
}

#[tokio::test]
async fn the_doctor_is_content_only_while_work_can_reach_the_machine() {
    let machine = Machine::new().await;
    let (report, code) = machine.doctor(&[]).await;
    assert_eq!(code, Some(1));
    assert_eq!(report["ok"], false);
    assert_eq!(status(&report, "credentials"), "ok");
    assert_eq!(status(&report, "server"), "broken");

    let words = ["server", "--detach", "--env-name", "well"];
    assert_eq!(machine.run(&words).await.status.code(), Some(0));
    machine.cloud.wait_for_device(SOON).await.unwrap();
    let (report, code) = machine.doctor(&[]).await;
    assert_eq!(code, Some(0), "{report:#}");
    for name in [
        "state", "shell", "disk", "memory", "dns", "tcp", "tls", "relay",
    ] {
        assert_eq!(status(&report, name), "ok", "{report:#}");
    }
    let text = machine.run(&["doctor"]).await;
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.ends_with("Work can reach this machine.\n"), "{text}");

    machine.cloud.set_api_key(Some("another"));
    let (report, code) = machine.doctor(&[]).await;
    assert_eq!(code, Some(1));
    assert_eq!(status(&report, "credentials"), "broken", "{report:#}");
    assert_eq!(machine.run(&["stop", "--now"]).await.status.code(), Some(0));
}

#[tokio::test]
async fn the_doctor_says_what_is_in_the_way() {
    let machine = Machine::new().await;
    let closed = format!("http://{}", machine.health);
    for (variable, value, name) in [
        ("LETTA_BASE_URL", closed.as_str(), "tcp"),
        ("LETTA_BASE_URL", "https://nowhere.invalid", "dns"),
        ("HTTP_PROXY", closed.as_str(), "tls"),
        ("HOME", "/proc", "state"),
        ("LETTA_API_KEY_FILE", "/nonexistent", "credentials"),
    ] {
        let mut variables = vec![(variable, value)];
        if variable == "LETTA_API_KEY_FILE" {
            variables.push(("LETTA_API_KEY", ""));
        }
        let (report, code) = machine.doctor(&variables).await;
        assert_eq!(code, Some(1), "{variable}={value}");
        assert_eq!(
            status(&report, name),
            "broken",
            "{variable}={value}: {report:#}"
        );
    }
    let output = finished(machine.command(&["doctor"]).env("LETTA_LOG_FORMAT", "xml")).await;
    assert_eq!(output.status.code(), Some(78));
    assert_eq!(
        machine.run(&["doctor", "--all"]).await.status.code(),
        Some(64)
    );
}
