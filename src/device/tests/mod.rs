//! A device in the test's own process: frames in, frames out.

mod cases;
mod failing;
mod git;
mod managed;
mod managed_by_server;
mod mutations;
mod repositories;
mod terminals;
mod watches;

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::conversation::trial::Trial;
use crate::events::Outbound;
use crate::protocol::command::Command;
use crate::protocol::{Body, inbound};

/// Longest wait for anything; only a failing test uses it up.
const SOON: Duration = Duration::from_secs(20);

/// A device with a home and a working directory of its own.
struct Bench {
    device: Device,
    trial: Trial,
    dir: TempDir,
    me: ConnectionId,
}

impl Bench {
    async fn new() -> Self {
        Self::with(None).await
    }

    /// With an API and a server of memories.
    async fn with(servers: Option<(&str, &str)>) -> Self {
        Self::at(servers, false).await
    }

    /// The same, where the API may count as Letta Cloud.
    async fn at(servers: Option<(&str, &str)>, cloud: bool) -> Self {
        let temp = fs::canonicalize(env::temp_dir()).unwrap();
        let dir = tempfile::tempdir_in(temp).unwrap();
        for name in ["home", "work"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let (home, work) = (dir.path().join("home"), dir.path().join("work"));
        let nobody = "http://127.0.0.1:1";
        let (server, memory) = servers.unwrap_or((nobody, nobody));
        let trial = Trial::with_memory(&home, &work, server, memory, cloud)
            .await
            .unwrap();
        Self {
            device: Device::start(Arc::clone(&trial.services)),
            trial,
            dir,
            me: ConnectionId::new("conn-1"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("work").join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    /// Writes a file and the directories that it needs.
    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        self.text(name)
    }

    /// Sends a frame as the listener would.
    fn send_from(&self, from: &ConnectionId, frame: &Value) {
        let parsed = inbound::parse(&frame.to_string()).unwrap();
        let Body::Command(Command::Device { kind, body }) = parsed.body else {
            panic!("not a command of the device: {frame}");
        };
        self.device.tell(Message::Command(Request {
            from: from.clone(),
            kind,
            scope: parsed.scope,
            runtime: parsed.runtime,
            request_id: parsed.request_id,
            body,
        }));
    }

    fn send(&self, frame: Value) {
        self.send_from(&self.me, &frame);
    }

    /// The next frame for anyone, with its addressee.
    async fn next_for(&mut self) -> (ConnectionId, Value) {
        let next = timeout(SOON, self.trial.outbound.recv()).await;
        match next.expect("no frame came").unwrap() {
            Outbound::Reply { to, body } | Outbound::Paced { to, body, .. } => {
                (to, serde_json::from_str(&body).unwrap())
            }
            Outbound::Event { .. } => panic!("a device sends no events"),
        }
    }

    async fn next(&mut self) -> Value {
        let (to, frame) = self.next_for().await;
        assert_eq!(to, self.me);
        frame
    }

    /// Sends a command and gives its answer; a request id is added.
    async fn ask(&mut self, mut frame: Value) -> Value {
        frame["request_id"] = json!("r-1");
        self.send(frame);
        let answer = self.next().await;
        assert_eq!(answer["request_id"], "r-1", "{answer}");
        answer
    }

    /// Runs a program in the working directory.
    fn run(&self, program: &str, args: &[&str]) -> String {
        let output = std::process::Command::new(program)
            .args(args)
            .current_dir(self.path(""))
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// `value` with every `<root>` in its texts replaced.
fn with_root(value: &Value, from: &str, to: &str) -> Value {
    match value {
        Value::String(text) => text.replace(from, to).into(),
        Value::Array(items) => items.iter().map(|item| with_root(item, from, to)).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), with_root(value, from, to)))
            .collect(),
        other => other.clone(),
    }
}

fn data(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/device");
    serde_json::from_slice(&fs::read(path.join(name)).unwrap()).unwrap()
}
