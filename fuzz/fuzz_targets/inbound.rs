//! Frames of clients, one a line: parsed, and what is for the device carried
//! out in a directory of its own. Nothing may panic, and every command that
//! can be answered is answered.
//!
//! Paths are bent into the directory and terminals run `cat`, so that a frame
//! cannot reach the machine. Run it as a user without rights all the same:
//! `cargo +nightly fuzz run --dev --sanitizer none inbound -- -dict=fuzz/inbound.dict`

#![no_main]

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use letta::conversation::trial::Trial;
use letta::device::{Device, Message, Request};
use letta::events::Outbound;
use letta::protocol::command::Command;
use letta::protocol::{Body, ConnectionId, inbound};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// Commands of one input.
const MAX_COMMANDS: usize = 8;
/// Longest wait for an answer; the device's own limits are shorter.
const SOON: Duration = Duration::from_secs(60);

/// Nothing answers these when all is well.
const SILENT: [&str; 7] = [
    "watch_file",
    "unwatch_file",
    "file_ops",
    "terminal_spawn",
    "terminal_input",
    "terminal_resize",
    "terminal_kill",
];

struct Bench {
    runtime: Runtime,
    device: Device,
    trial: Trial,
    root: PathBuf,
    _directory: tempfile::TempDir,
    asked: u64,
}

thread_local! {
    static BENCH: RefCell<Option<Bench>> = const { RefCell::new(None) };
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().join("work");
        std::fs::create_dir_all(&root).expect("a directory");
        std::fs::create_dir_all(directory.path().join("home")).expect("a directory");
        for (name, content) in [("a.txt", "one\ntwo\r\n"), ("b", "\u{FEFF}ä"), ("c", "")] {
            std::fs::write(root.join(name), content).expect("a file");
        }
        let git = std::process::Command::new("git").args(["init", "-q"]).current_dir(&root).status();
        assert!(git.expect("git").success());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(16)
            .build()
            .expect("a runtime");
        let (device, trial) = runtime.block_on(async {
            let home = directory.path().join("home");
            let trial = Trial::new(&home, &root, "http://127.0.0.1:1").await.expect("services");
            (Device::start(Arc::clone(&trial.services)), trial)
        });
        Self {
            runtime,
            device,
            trial,
            root,
            _directory: directory,
            asked: 0,
        }
    }

    fn run(&mut self, text: &str) {
        let mut waiting = HashSet::new();
        for line in text.lines().take(MAX_COMMANDS) {
            let Ok(frame) = inbound::parse(line) else { continue };
            let Body::Command(Command::Device { kind, mut body }) = frame.body else { continue };
            bend(&mut body, &self.root);
            let request_id = frame.request_id.map(|_| {
                self.asked += 1;
                format!("f-{}", self.asked)
            });
            if let Some(id) = &request_id {
                body.insert("request_id".into(), id.as_str().into());
                if !SILENT.contains(&kind) {
                    waiting.insert(id.clone());
                }
            }
            self.device.tell(Message::Command(Request {
                from: ConnectionId::new("conn-fuzz"),
                kind,
                scope: frame.scope,
                runtime: frame.runtime,
                request_id,
                body,
            }));
        }
        let outbound = &mut self.trial.outbound;
        self.runtime.block_on(async {
            while !waiting.is_empty() {
                let next = timeout(SOON, outbound.recv()).await;
                let next = next.unwrap_or_else(|_| panic!("no answer for {waiting:?}"));
                if let Some(Outbound::Reply { body, .. } | Outbound::Paced { body, .. }) = next {
                    let frame: Value = serde_json::from_str(&body).expect("a frame is JSON");
                    if let Some(id) = frame["request_id"].as_str() {
                        waiting.remove(id);
                    }
                }
            }
            while outbound.try_recv().is_ok() {}
        });
    }
}

/// Makes every path one below `root`.
fn bend(fields: &mut Map<String, Value>, root: &Path) {
    for name in ["path", "file_path", "cwd", "skill_path", "old_path", "new_path"] {
        if let Some(Value::String(path)) = fields.get_mut(name) {
            let parts = path.split('/').filter(|part| !part.is_empty() && *part != "..");
            let inside: PathBuf = parts.collect();
            *path = root.join(inside).to_string_lossy().into_owned();
        }
    }
}

fuzz_target!(
    init: {
        // Before any thread: nothing that a terminal is given runs.
        unsafe { std::env::set_var("SHELL", "/bin/cat") };
    },
    |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let _ = inbound::parse(&text);
        BENCH.with_borrow_mut(|bench| bench.get_or_insert_with(Bench::new).run(&text));
    }
);
