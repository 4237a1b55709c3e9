//! `letta server --listen` with a cloud that is only its API, and clients that
//! dial it.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use local_cloud::{LocalCloud, Options, Scope};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::harness::SOON;

/// The API, the directories and the running program.
pub(crate) struct Direct {
    pub(crate) cloud: LocalCloud,
    pub(crate) work: TempDir,
    pub(crate) home: TempDir,
    pub(crate) program: Child,
    /// `HOST:PORT` of the door.
    pub(crate) address: String,
    /// What the program prints.
    pub(crate) output: Lines<BufReader<ChildStdout>>,
}

impl Direct {
    /// The program on a free loopback port.
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// The same with more flags.
    pub(crate) async fn with(flags: &[&str]) -> Self {
        let options = Options {
            turn_timeout: SOON,
            ..Options::default()
        };
        let cloud = LocalCloud::start(options).await.unwrap();
        let server = cloud.base_url();
        Self::before(&server, cloud, flags).await
    }

    /// The program before a server that is not `cloud`.
    pub(crate) async fn before(server: &str, cloud: LocalCloud, flags: &[&str]) -> Self {
        let (home, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut program = Command::new(env!("CARGO_BIN_EXE_letta"))
            .args(["server", "--listen"])
            .args(flags)
            .current_dir(work.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home.path())
            .env("LETTA_BASE_URL", server)
            .env("LETTA_HEALTH_ADDR", "off")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut output = BufReader::new(program.stdout.take().unwrap()).lines();
        let line = printed(&mut output, "Listening on ws://").await;
        let address = line.strip_prefix("Listening on ws://").unwrap().to_owned();
        Self {
            cloud,
            work,
            home,
            program,
            address,
            output,
        }
    }

    /// The next line of the output that begins with `start`.
    pub(crate) async fn prints(&mut self, start: &str) -> String {
        printed(&mut self.output, start).await
    }

    /// A client without headers of its own.
    pub(crate) async fn client(&self) -> Peer {
        self.dial("/ws", &[]).await.unwrap()
    }

    /// A client that is subscribed to `scope` and has seen its state.
    pub(crate) async fn client_of(&self, scope: &Scope) -> Peer {
        let mut peer = self.client().await;
        peer.sync(scope).await;
        peer
    }

    /// Opens a WebSocket; the error is the refusal's status and reason.
    pub(crate) async fn dial(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Peer, (u16, String)> {
        match Peer::dial(&self.address, path, headers).await {
            Some(peer) => Ok(peer),
            None => {
                let answer = self.upgrade(path, headers).await;
                let (status, reason) = answer.status();
                Err((status, reason.to_owned()))
            }
        }
    }

    /// The raw answer to a handshake.
    pub(crate) async fn upgrade(&self, path: &str, headers: &[(&'static str, &str)]) -> Answer {
        let handshake = [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        self.http(&format!("GET {path}"), &[&handshake, headers].concat(), "")
            .await
    }

    /// One plain request on a connection of its own.
    pub(crate) async fn http(
        &self,
        line: &str,
        headers: &[(&'static str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = format!("{line} HTTP/1.1\r\nHost: {}\r\n", self.address);
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        timeout(SOON, stream.read_to_end(&mut bytes))
            .await
            .expect("the answer has an end")
            .unwrap();
        Answer(String::from_utf8(bytes).unwrap())
    }

    /// Ends the program and gives its exit code.
    pub(crate) async fn stop(&mut self, signal: &str) -> Option<i32> {
        let pid = self.program.id().unwrap().to_string();
        let kill = Command::new("kill").args([signal, &pid]).status().await;
        assert!(kill.unwrap().success());
        let ended = timeout(SOON, self.program.wait()).await;
        ended.expect("the program has not ended").unwrap().code()
    }

    /// The file of the session log.
    pub(crate) fn session_log(&self) -> std::path::PathBuf {
        let logs = self.home.path().join(".letta/logs/remote");
        let mut files = std::fs::read_dir(logs).unwrap();
        files.next().unwrap().unwrap().path()
    }

    /// How many descriptors the program holds.
    pub(crate) fn descriptors(&self) -> usize {
        self.open_files().count()
    }

    /// Waits for the one file that the program opens in its own time after its start.
    pub(crate) async fn settled(&self) {
        eventually("the scheduler takes no lock", async || {
            self.open_files()
                .any(|file| file.ends_with("crons.scheduler.lock"))
        })
        .await;
    }

    fn open_files(&self) -> impl Iterator<Item = PathBuf> {
        let pid = self.program.id().unwrap();
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        // One that was closed meanwhile has no name any more.
        open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
    }
}

async fn printed(output: &mut Lines<BufReader<ChildStdout>>, start: &str) -> String {
    let line = async {
        loop {
            // The program ends only when something went wrong.
            let line = output.next_line().await.unwrap().expect(start);
            if line.starts_with(start) {
                return line;
            }
        }
    };
    timeout(SOON, line).await.expect(start)
}

/// The answer to a plain request.
pub(crate) struct Answer(pub(crate) String);

impl Answer {
    /// Status and reason.
    pub(crate) fn status(&self) -> (u16, &str) {
        let line = self.0.lines().next().unwrap_or_default();
        let (status, reason) = line["HTTP/1.1 ".len()..].split_at(3);
        (status.parse().unwrap(), reason.trim())
    }

    /// What follows the head.
    pub(crate) fn body(&self) -> &str {
        self.0.split_once("\r\n\r\n").unwrap().1
    }

    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.0.lines().take_while(|line| !line.is_empty());
        let mut pairs = lines.filter_map(|line| line.split_once(':'));
        pairs.find_map(|(known, value)| known.eq_ignore_ascii_case(name).then(|| value.trim()))
    }
}

/// One client.
pub(crate) struct Peer {
    pub(crate) socket: WebSocketStream<TcpStream>,
    /// Every frame so far.
    pub(crate) seen: Vec<Value>,
    asked: u32,
}

impl Peer {
    /// Opens a WebSocket; `None` when it is refused.
    pub(crate) async fn dial(
        address: &str,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Option<Self> {
        let request = format!("ws://{address}{path}").into_client_request();
        let mut request = request.unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let stream = TcpStream::connect(address).await.ok()?;
        let opened = timeout(SOON, tokio_tungstenite::client_async(request, stream)).await;
        let (socket, _) = opened.ok()?.ok()?;
        Some(Self {
            socket,
            seen: Vec::new(),
            asked: 0,
        })
    }

    /// Sends a frame.
    pub(crate) async fn send(&mut self, frame: Value) {
        let message = Message::text(frame.to_string());
        self.socket.send(message).await.unwrap();
    }

    /// The next frame; `None` when the socket ended.
    pub(crate) async fn receive(&mut self) -> Option<Value> {
        loop {
            let message = timeout(SOON, self.socket.next()).await;
            match message.expect("no frame came") {
                Some(Ok(Message::Text(text))) => {
                    let frame: Value = serde_json::from_str(&text).unwrap();
                    self.seen.push(frame.clone());
                    return Some(frame);
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// The next frame that `accept` takes.
    pub(crate) async fn until(&mut self, accept: impl Fn(&Value) -> bool) -> Value {
        loop {
            let frame = self.receive().await.expect("the socket ended");
            if accept(&frame) {
                return frame;
            }
        }
    }

    /// The next frame of this type.
    pub(crate) async fn typed(&mut self, kind: &str) -> Value {
        self.until(|frame| frame["type"] == kind).await
    }

    /// Sends a command and waits for its answer.
    pub(crate) async fn ask(&mut self, mut frame: Value) -> Value {
        self.asked += 1;
        let id = format!("r{}", self.asked);
        frame["request_id"] = json!(id);
        self.send(frame).await;
        self.until(|frame| frame["request_id"] == id && frame["type"] != "control_request")
            .await
    }

    /// Brings this client up to date with `scope`.
    pub(crate) async fn sync(&mut self, scope: &Scope) -> Value {
        let sync = json!({"type": "sync", "runtime": scope.runtime(), "force_device_status": true});
        self.ask(sync).await
    }

    /// Sends one user message; its acceptance.
    pub(crate) async fn say(&mut self, scope: &Scope, text: &str) -> Value {
        self.say_with(scope, text, json!({})).await
    }

    /// The same with more fields of the payload.
    pub(crate) async fn say_with(&mut self, scope: &Scope, text: &str, more: Value) -> Value {
        let mut payload = json!({"kind": "create_message",
            "messages": [{"role": "user", "content": text}]});
        for (key, value) in more.as_object().unwrap() {
            payload[key] = value.clone();
        }
        self.ask(json!({"type": "input", "runtime": scope.runtime(), "payload": payload}))
            .await
    }

    /// Answers a question; whether the answer counted.
    pub(crate) async fn decide(&mut self, scope: &Scope, request_id: &Value, how: Value) -> Value {
        self.ask(
            json!({"type": "input", "runtime": scope.runtime(), "payload": {
            "kind": "approval_response", "request_id": request_id, "decision": how}}),
        )
        .await
    }

    /// Sets the permission mode; it holds when this returns.
    pub(crate) async fn mode(&mut self, scope: &Scope, mode: &str) {
        self.send(
            json!({"type": "change_device_state", "runtime": scope.runtime(),
            "payload": {"mode": mode}}),
        )
        .await;
        self.sync(scope).await;
    }

    /// Waits for the end of a turn.
    pub(crate) async fn finished(&mut self) -> Value {
        self.typed("turn_finished").await
    }

    /// What the agent answered so far.
    pub(crate) fn said(&self) -> String {
        let deltas = self.seen.iter().map(|frame| &frame["delta"]);
        let texts = deltas.filter(|delta| delta["message_type"] == "assistant_message");
        texts
            .map(|delta| match &delta["content"] {
                Value::String(text) => text.clone(),
                parts => parts[0]["text"].as_str().unwrap_or_default().to_owned(),
            })
            .collect()
    }

    /// Asserts that nothing more comes before the answer to a harmless command.
    pub(crate) async fn quiet(&mut self) {
        let before = self.seen.len();
        self.ask(json!({"type": "app_server_info"})).await;
        assert_eq!(self.seen.len(), before + 1, "{:#?}", &self.seen[before..]);
    }

    /// Leaves with a close handshake.
    pub(crate) async fn leave(mut self) {
        self.socket.close(None).await.unwrap();
        while self.receive().await.is_some() {}
    }
}

/// Retries `check` until it holds; for what another process does in its own time.
pub(crate) async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !check().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, wait).await.expect(what);
}
