//! The unit under a systemd that `scripts/check-systemd` has booted.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use local_cloud::{LocalCloud, Options, Scope};
use serde_json::json;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::program::SOON;

/// The machine: the number of its first process, seen from here.
struct Machine(String);

impl Machine {
    async fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.0, "--mount", "--uts", "--ipc", "--pid"]);
        command.args(["--cgroup", "--"]).args(words);
        command.output().await.unwrap()
    }

    /// Runs a shell text that must succeed; what it says.
    async fn sh(&self, text: &str) -> String {
        let output = self.run(&["sh", "-ec", text]).await;
        assert!(output.status.success(), "{text}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// `systemctl`, which must succeed.
    async fn ctl(&self, words: &str) {
        self.sh(&format!("systemctl {words} letta-server")).await;
    }

    /// One property of the unit.
    async fn show(&self, property: &str) -> String {
        let show = format!("systemctl show --value -p {property} letta-server");
        self.sh(&show).await.trim().to_owned()
    }

    /// Waits until a property has this value.
    async fn until(&self, property: &str, value: &str) {
        let deadline = Instant::now() + SOON;
        while self.show(property).await != value {
            assert!(Instant::now() < deadline, "{property} is not {value}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Puts this and no other drop-in in force.
    async fn drop_in(&self, name: &str, text: &str) {
        let directory = "/etc/systemd/system/letta-server.service.d";
        let file = Path::new(directory).join(name);
        self.sh(&format!(
            "rm -rf {directory}; mkdir {directory}; cat >{} <<'END'\n{text}\nEND\nsystemctl daemon-reload",
            file.display()
        ))
        .await;
    }
}

async fn bash(cloud: &LocalCloud, command: &str) -> String {
    let scope = Scope::new("agent-1", "conv-1");
    let call = json!({"command": command, "description": "A test"});
    let script = format!("CALL Bash {call}\nTHEN\nSAY done");
    let turn = cloud.turn(&scope, &script).await.unwrap();
    json!(turn.tool_returns()).to_string()
}

#[tokio::test]
#[ignore = "scripts/check-systemd runs it"]
async fn the_unit_lives_through_everything() {
    let machine = Machine(std::env::var("LETTA_DEPLOY_MACHINE").unwrap());
    let options = Options {
        turn_timeout: SOON,
        ..Options::default()
    };
    let cloud = LocalCloud::start(options).await.unwrap();
    let url = cloud.base_url();
    machine
        .sh(&format!(
            "printf 'LETTA_BASE_URL={url}\\nLETTA_OAUTH_URL={url}\\nLETTA_HEALTH_ADDR=off\\n' >/etc/letta/server.env"
        ))
        .await;

    // Nobody is signed in: it is up, and says so.
    machine.ctl("start").await;
    machine.until("StatusText", "login_required").await;
    let journal = machine.sh("journalctl -u letta-server --no-pager").await;
    assert!(journal.contains("Open: "), "{journal}");
    machine.ctl("stop").await;
    assert_eq!(machine.show("Result").await, "success");

    // The key is a credential; `start` returns once the server is connected.
    machine
        .sh("umask 077; mkdir -p /etc/credstore; echo key >/etc/credstore/letta-api-key")
        .await;
    machine.ctl("start").await;
    cloud.wait_for_device(SOON).await.unwrap();
    assert_eq!(machine.show("StatusText").await, "connected");
    let seen = bash(&cloud, "id -un; pwd; touch /usr/x; echo to-$((40+2))").await;
    for part in [
        "letta",
        "/var/lib/letta/workspace",
        "Read-only file system",
        "to-42",
    ] {
        assert!(seen.contains(part), "{part} is not in {seen}");
    }

    // Settings are read again by the same process.
    let pid = machine.show("MainPID").await;
    machine.ctl("reload").await;
    machine.until("SubState", "running").await;
    assert_eq!(machine.show("MainPID").await, pid);

    // Killed, it comes back.
    machine.ctl("kill --signal=KILL --kill-who=main").await;
    cloud.wait_for_link(2, SOON).await.unwrap();
    assert_eq!(machine.show("NRestarts").await, "1");

    // Hung, it is ended by the watchdog and comes back.
    machine
        .drop_in("test.conf", "[Service]\nWatchdogSec=2\nTimeoutAbortSec=1")
        .await;
    machine.ctl("restart").await;
    cloud.wait_for_link(3, SOON).await.unwrap();
    machine.ctl("kill --signal=STOP --kill-who=main").await;
    cloud.wait_for_link(4, SOON).await.unwrap();
    let journal = machine.sh("journalctl -u letta-server --no-pager").await;
    assert!(journal.contains("Watchdog timeout"), "{journal}");

    // Stopped in a turn, it lets the tool finish.
    machine.drop_in("test.conf", "").await;
    machine.ctl("restart").await;
    let device = cloud.wait_for_link(5, SOON).await.unwrap();
    let call = json!({"command": "touch begun; sleep 3; touch finished", "description": "A test"});
    device.send(json!({"type": "input", "request_id": "r",
        "runtime": Scope::new("agent-1", "conv-2").runtime(),
        "payload": {"kind": "create_message", "messages": [{"role": "user",
            "content": format!("CALL Bash {call}\nTHEN\nSAY done"), "client_message_id": "m"}]}}));
    machine
        .sh("cd /var/lib/letta/workspace; until [ -e begun ]; do sleep 0.05; done")
        .await;
    machine.ctl("stop").await;
    machine.sh("[ -e /var/lib/letta/workspace/finished ]").await;
    assert_eq!(machine.show("ExecMainStatus").await, "0");
    assert_eq!(machine.show("Result").await, "success");

    // With less and with everything.
    for (drop_in, user, proof) in [
        ("strict.conf", "letta", "/proc/meminfo: No such file"),
        ("full-access.conf", "root", "to-42"),
    ] {
        let text = std::fs::read_to_string(Path::new("systemd").join(drop_in)).unwrap();
        machine.drop_in(drop_in, &text).await;
        let links = cloud.links_opened();
        machine.ctl("start").await;
        cloud.wait_for_link(links + 1, SOON).await.unwrap();
        let seen = bash(
            &cloud,
            "id -un; cat /proc/meminfo; git --version; echo to-$((40+2))",
        )
        .await;
        for part in [user, proof, "git version", "to-42"] {
            assert!(seen.contains(part), "{drop_in}: {part} is not in {seen}");
        }
        machine.ctl("stop").await;
        assert_eq!(machine.show("Result").await, "success");
    }
}
