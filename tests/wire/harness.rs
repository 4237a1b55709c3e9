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
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// How a lab is to be; the default is a well-behaved cloud in split mode.
pub(crate) struct Setup {
    pub(crate) options: Options,
    /// Variables of the program beside the usual ones; a later one wins.
    pub(crate) env: Vec<(&'static str, String)>,
    /// Arguments behind `letta server`.
    pub(crate) args: Vec<&'static str>,
    /// A command that the program is started through, with its arguments.
    pub(crate) through: Vec<&'static str>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            options: Options {
                turn_timeout: SOON,
                ..Options::default()
            },
            env: Vec::new(),
            args: vec!["--env-name", "test"],
            through: Vec::new(),
        }
    }
}

impl Setup {
    /// Sets a variable of the program.
    pub(crate) fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// The cloud and the directories; the program is not started.
    pub(crate) async fn stopped(self) -> Lab {
        let cloud = LocalCloud::start(self.options).await.unwrap();
        let root = tempfile::tempdir().unwrap();
        for directory in ["home", "work"] {
            fs::create_dir(root.path().join(directory)).unwrap();
        }
        Lab {
            cloud,
            root,
            env: self.env,
            args: self.args,
            through: self.through,
            program: None,
        }
    }

    /// The cloud, and the program connected to it.
    pub(crate) async fn start(self) -> Lab {
        let mut lab = self.stopped().await;
        lab.spawn();
        lab.device().await;
        lab
    }
}

/// The cloud, the directories and the program.
pub(crate) struct Lab {
    pub(crate) cloud: LocalCloud,
    root: TempDir,
    env: Vec<(&'static str, String)>,
    args: Vec<&'static str>,
    through: Vec<&'static str>,
    program: Option<Child>,
}

impl Lab {
    /// A well-behaved cloud, and the program connected to it.
    pub(crate) async fn start() -> Self {
        Setup::default().start().await
    }

    /// Starts the program after `prepare` has queued faults; does not wait for it.
    pub(crate) async fn unconnected(prepare: impl FnOnce(&LocalCloud)) -> Self {
        let mut lab = Setup::default().stopped().await;
        prepare(&lab.cloud);
        lab.spawn();
        lab
    }

    /// Starts the program.
    pub(crate) fn spawn(&mut self) {
        self.program = Some(self.command().spawn().unwrap());
    }

    /// `letta server` on this lab's home, ready to be spawned.
    pub(crate) fn command(&self) -> Command {
        let letta = env!("CARGO_BIN_EXE_letta");
        let mut words = self.through.clone();
        words.extend([letta, "server"]);
        words.extend(&self.args);
        // A file, not a pipe: nobody has to read it while the program runs.
        let output = |name: &str| {
            let mut file = fs::OpenOptions::new();
            let file = file.create(true).append(true);
            Stdio::from(file.open(self.root.path().join(name)).unwrap())
        };
        let mut command = self.bare(words[0]);
        command
            .args(&words[1..])
            .stdout(output("stdout"))
            .stderr(output("stderr"))
            .kill_on_drop(true);
        command
    }

    /// A command with this lab's home, server and directory, and nothing else
    /// around it.
    fn bare(&self, program: &str) -> Command {
        let work = self.root.path().join("work");
        let mut command = command(program, &self.cloud, &self.home(), &work);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Everything that the program has printed, of every run.
    pub(crate) fn printed(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.root.path().join(name)).unwrap_or_default();
        read("stdout") + &read("stderr")
    }

    /// The session logs of every run.
    pub(crate) fn session_log(&self) -> String {
        let logs = fs::read_dir(self.home().join(".letta/logs/remote"));
        let logs = logs.into_iter().flatten().flatten();
        logs.map(|log| fs::read_to_string(log.path()).unwrap_or_default())
            .collect()
    }

    /// The home directory.
    pub(crate) fn home(&self) -> PathBuf {
        self.root.path().join("home")
    }

    /// A JSON file below the home directory.
    pub(crate) fn json(&self, name: &str) -> Value {
        let text = fs::read_to_string(self.home().join(name)).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Writes a file below the home directory.
    pub(crate) fn write_text(&self, name: &str, text: &str) {
        let path = self.home().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// [`Lab::write_text`] with JSON.
    pub(crate) fn write(&self, name: &str, value: &Value) {
        self.write_text(name, &value.to_string());
    }

    /// The process id of the program, or of what it is started through.
    pub(crate) fn pid(&self) -> u32 {
        let program = self.program.as_ref();
        program.and_then(Child::id).expect("the program runs")
    }

    /// The newest open link.
    pub(crate) async fn device(&self) -> Device {
        self.cloud.wait_for_device(SOON).await.unwrap()
    }

    /// A path in the program's working directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.root
            .path()
            .canonicalize()
            .unwrap()
            .join("work")
            .join(name)
    }

    /// The text of a file that a command writes in the working directory,
    /// without the white space around it, as soon as there is any.
    pub(crate) async fn written(&self, name: &str) -> String {
        let path = self.file(name);
        let text = || fs::read_to_string(&path).unwrap_or_default();
        until(name, || {
            Some(text().trim().to_owned()).filter(|text| !text.is_empty())
        })
        .await
    }

    /// Waits until a turn under way has its record on disk.
    pub(crate) async fn recorded(&self) {
        let state = self.home().join(".letta/listener-state");
        until("the record of the turn", || {
            let servers = fs::read_dir(&state).ok()?.flatten();
            let files = servers.filter_map(|server| fs::read_dir(server.path()).ok());
            let mut names = files.flatten().flatten().map(|file| file.file_name());
            names.find(|name| name.to_string_lossy().ends_with(".json"))
        })
        .await;
    }

    /// Sets the permission mode of a scope; it holds when this returns.
    pub(crate) async fn mode(&self, scope: &Scope, mode: &str) {
        self.change(scope, json!({"mode": mode})).await;
        let device = self.device().await;
        let sync = json!({"type": "sync", "runtime": scope.runtime()});
        device.request(sync, SOON).await.unwrap();
    }

    /// Asks for the state of a scope: every frame of the replay up to the answer.
    pub(crate) async fn sync(&self, scope: &Scope) -> Vec<Value> {
        let device = self.device().await;
        let mark = self.cloud.mark();
        let sync = json!({"type": "sync", "runtime": scope.runtime(),
            "force_device_status": true});
        device.request(sync, SOON).await.unwrap();
        // The stream socket may be behind the answer on the control socket.
        self.labelled(mark, "update_subagent_state").await;
        let frames = device.frames_since(mark);
        frames.iter().map(|frame| frame.value.clone()).collect()
    }

    /// The device status of a scope.
    pub(crate) async fn device_status(&self, scope: &Scope) -> Value {
        let frames = self.sync(scope).await;
        let status = frames
            .iter()
            .rfind(|frame| frame["type"] == "update_device_status");
        status.unwrap()["device_status"].clone()
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
        self.say_with(scope, id, text, json!({})).await;
    }

    /// [`Lab::say`] with further fields of the payload.
    pub(crate) async fn say_with(&self, scope: &Scope, id: &str, text: &str, options: Value) {
        let mut payload = json!({"kind": "create_message", "messages": [
            {"role": "user", "content": text, "client_message_id": id}]});
        let fields = options.as_object().unwrap().clone();
        payload.as_object_mut().unwrap().extend(fields);
        self.device().await.send(json!({"type": "input",
            "request_id": format!("req-{id}"), "runtime": scope.runtime(), "payload": payload}));
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
        let mut command = self.bare(env!("CARGO_BIN_EXE_letta"));
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
        kill(name, self.pid()).await;
    }

    /// How the program ended.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let mut program = self.program.take().expect("the program runs");
        let ended = timeout(SOON, program.wait()).await;
        ended.expect("the program has not ended").unwrap()
    }

    /// Ends the program with this signal and starts it again on the same home.
    pub(crate) async fn restart(&mut self, signal: &str) -> Device {
        self.signal(signal).await;
        self.ended().await;
        self.come_back().await
    }

    /// Starts the program again and waits until it is connected.
    pub(crate) async fn come_back(&mut self) -> Device {
        let links = self.cloud.links_opened();
        self.spawn();
        self.cloud.wait_for_link(links + 1, SOON).await.unwrap();
        self.device().await
    }
}

/// Whatever a test checked: no task of the program may have panicked.
impl Drop for Lab {
    fn drop(&mut self) {
        let printed = self.printed();
        if !std::thread::panicking() {
            assert!(!printed.contains("panicked at"), "{printed}");
        } else {
            show(&printed);
            show(&self.session_log());
        }
    }
}

#[expect(clippy::print_stderr, reason = "for the reader of a failed test")]
fn show(printed: &str) {
    eprintln!("the program wrote:\n{printed}");
}

/// Looks again and again until there is something: for what the file system or
/// the kernel tells without an event.
pub(crate) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    let found = timeout(SOON, found).await;
    assert!(found.is_ok(), "{what} did not come");
    found.unwrap()
}

/// Sends a process a signal, by name.
pub(crate) async fn kill(signal: &str, pid: u32) {
    let mut kill = Command::new("kill");
    let status = kill.arg(format!("-{signal}")).arg(pid.to_string());
    assert!(status.status().await.unwrap().success());
}

/// What a command that ended has said.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A program with a home, a directory and a server, and with nothing of this
/// test's own environment.
pub(crate) fn command(program: &str, cloud: &LocalCloud, home: &Path, work: &Path) -> Command {
    let mut command = Command::new(program);
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
