//! One cloud and one `letta server` with a home and a working directory of its own.
//! The program is killed when the value goes, whatever the test did.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use local_cloud::{Cursor, Device, Frame, LocalCloud, Options, Scope, TurnTrace};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Longest wait for anything; only a failing test uses it up.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The cloud, the directories and the running program.
pub(crate) struct Lab {
    pub(crate) cloud: LocalCloud,
    home: TempDir,
    work: TempDir,
    program: Child,
}

impl Lab {
    /// A well-behaved cloud, and the program connected to it.
    pub(crate) async fn start() -> Self {
        let lab = Self::unconnected(|_| {}).await;
        lab.device().await;
        lab
    }

    /// Starts the program after `prepare` has queued faults; does not wait for it.
    pub(crate) async fn unconnected(prepare: impl FnOnce(&LocalCloud)) -> Self {
        let options = Options {
            turn_timeout: SOON,
            ..Options::default()
        };
        let cloud = LocalCloud::start(options).await.unwrap();
        prepare(&cloud);
        let (home, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let program = spawn(&cloud, home.path(), work.path());
        Self {
            cloud,
            home,
            work,
            program,
        }
    }

    /// The newest open link.
    pub(crate) async fn device(&self) -> Device {
        self.cloud.wait_for_device(SOON).await.unwrap()
    }

    /// The program's home.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// A path in the program's working directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.work.path().canonicalize().unwrap().join(name)
    }

    /// The text of a file that a command writes in the working directory,
    /// without the white space around it, as soon as there is any.
    pub(crate) async fn written(&self, name: &str) -> String {
        let path = self.file(name);
        let text = async {
            loop {
                let text = fs::read_to_string(&path).unwrap_or_default();
                if !text.trim().is_empty() {
                    return text.trim().to_owned();
                }
                tokio::task::yield_now().await;
            }
        };
        let text = timeout(SOON, text).await;
        text.expect("the command has not written the file")
    }

    /// Sets the permission mode of a scope; it holds when this returns.
    pub(crate) async fn mode(&self, scope: &Scope, mode: &str) {
        self.change(scope, json!({"mode": mode})).await;
        let device = self.device().await;
        let sync = json!({"type": "sync", "runtime": scope.runtime()});
        device.request(sync, SOON).await.unwrap();
    }

    /// Sends one `change_device_state`.
    pub(crate) async fn change(&self, scope: &Scope, payload: Value) {
        let device = self.device().await;
        device.send(
            json!({"type": "change_device_state", "runtime": scope.runtime(),
            "payload": payload}),
        );
    }

    /// Sends one user message and does not wait.
    pub(crate) async fn say(&self, scope: &Scope, id: &str, text: &str) {
        let device = self.device().await;
        device.send(json!({"type": "input", "request_id": format!("req-{id}"),
            "runtime": scope.runtime(), "payload": {"kind": "create_message", "messages": [
                {"role": "user", "content": text, "client_message_id": id}]}}));
    }

    /// The first frame behind `cursor` that `accept` takes.
    pub(crate) async fn frame(
        &self,
        cursor: Cursor,
        accept: impl Fn(&Frame) -> bool,
    ) -> (Value, Cursor) {
        let (frame, at) = self
            .cloud
            .wait_for_frame(cursor, accept, SOON)
            .await
            .unwrap();
        (frame.value.clone(), at)
    }

    /// The first frame behind `cursor` with this label (see [`Frame::label`]).
    pub(crate) async fn labelled(&self, cursor: Cursor, label: &str) -> (Value, Cursor) {
        self.frame(cursor, |frame| frame.label() == label).await
    }

    /// Runs another command of the program on the same home.
    pub(crate) async fn letta(&self, args: &[&str]) -> Output {
        self.letta_as(args, &[]).await
    }

    /// The same with further variables.
    pub(crate) async fn letta_as(&self, args: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut command = command(&self.cloud, self.home.path(), self.work.path());
        command.envs(variables.iter().copied());
        let done = timeout(SOON, command.args(args).output());
        let done = done.await.expect("the command has not ended").unwrap();
        Output {
            code: done.status.code().unwrap(),
            out: String::from_utf8(done.stdout).unwrap(),
            err: String::from_utf8(done.stderr).unwrap(),
        }
    }

    /// Sends the program a signal, by name.
    pub(crate) async fn signal(&self, name: &str) {
        let pid = self.program.id().unwrap();
        let mut kill = Command::new("kill");
        let status = kill.arg(format!("-{name}")).arg(pid.to_string());
        assert!(status.status().await.unwrap().success());
    }

    /// How the program ended.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let ended = timeout(SOON, self.program.wait()).await;
        ended.expect("the program has not ended").unwrap()
    }

    /// Ends the program with this signal and starts it again on the same home.
    pub(crate) async fn restart(&mut self, signal: &str) -> Device {
        let links = self.cloud.links_opened();
        self.signal(signal).await;
        self.ended().await;
        self.program = spawn(&self.cloud, self.home.path(), self.work.path());
        self.cloud.wait_for_link(links + 1, SOON).await.unwrap();
        self.device().await
    }
}

/// What a command that ended has said.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

fn spawn(cloud: &LocalCloud, home: &Path, work: &Path) -> Child {
    command(cloud, home, work)
        .args(["server", "--env-name", "test"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// The program with a home, a server and nothing else around it.
fn command(cloud: &LocalCloud, home: &Path, work: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_letta"));
    command
        .current_dir(work)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .env("LETTA_BASE_URL", cloud.base_url())
        .env("LETTA_API_KEY", "test-key")
        .env("LETTA_HEALTH_ADDR", "off")
        .stdin(Stdio::null());
    command
}

/// Some agent's conversation.
pub(crate) fn scope() -> Scope {
    Scope::new("agent-1", "conv-1")
}

/// One line of a script: a call of `tool`.
pub(crate) fn call(tool: &str, arguments: &Value) -> String {
    format!("CALL {tool} {arguments}")
}

/// One line of a script: a call of `Bash`.
pub(crate) fn bash(command: &str) -> String {
    call(
        "Bash",
        &json!({"command": command, "description": "A test"}),
    )
}

/// The labels of a turn's frames in the order the program sent them. The two
/// sockets of a link are read side by side, so the order of arrival may differ.
pub(crate) fn labels(turn: &TurnTrace) -> Vec<String> {
    let mut frames = turn.frames.clone();
    frames.sort_by_key(|frame| frame.value["event_seq"].as_i64());
    frames.iter().map(|frame| frame.label()).collect()
}

/// Asserts that `parts` come in this order among `all`, other entries between them.
pub(crate) fn assert_in_order(all: &[String], parts: &[&str]) {
    let mut rest = all.iter();
    for part in parts {
        assert!(rest.any(|label| label == part), "no {part} in {all:#?}");
    }
}
