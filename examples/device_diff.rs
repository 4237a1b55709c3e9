//! Two programs on the same device commands. Every request of
//! tests/data/device/answers.json is sent to both and the answers are compared;
//! of those of compared.json, the shapes of all that is sent until the answer
//! and shortly behind it, once with a server of one's own and once with one
//! that counts as Letta Cloud. A row may say why the two differ (`deviates`).
//! Fails when two differ without such a reason. `scripts/device-diff` starts it.

#![expect(clippy::print_stdout, reason = "a person reads it")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use local_cloud::{Device, LocalCloud, Mode, Options};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// How long a program may think; silence is an answer too.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a program may take for what a row waits for by name.
const LONG: Duration = Duration::from_secs(12);
/// How long something may come behind an answer and still belong to it.
const QUIET: Duration = Duration::from_millis(700);
const START: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<()> {
    let programs: Vec<String> = std::env::args().skip(1).collect();
    let [ours, theirs] = programs.as_slice() else {
        bail!("usage: device_diff OURS THEIRS   (two programs that have a `server` command)");
    };
    let mut tally = Tally::default();
    for (field, reason) in EVERYWHERE {
        println!("not compared: {field} ({reason})");
    }
    let cases = table("answers.json")?;
    let (mine, other) = tokio::join!(answers(ours, &cases), answers(theirs, &cases));
    for ((case, mine), other) in cases.iter().zip(mine?).zip(other?) {
        let same = shapes(&mine) == shapes(&other) && brief(&mine) == brief(&other);
        tally.judge(case, same, &shown(&mine), &shown(&other));
    }
    let cases = table("compared.json")?;
    for (cloud, what) in [(false, "a server of one's own"), (true, "Letta Cloud")] {
        println!("== with {what}");
        let (mine, other) = tokio::join!(
            all_sent(ours, &cases, cloud),
            all_sent(theirs, &cases, cloud)
        );
        for ((case, mine), other) in cases.iter().zip(mine?).zip(other?) {
            let (ours, theirs) = (only(&mine, &other), only(&other, &mine));
            let same = ours.is_empty() && theirs.is_empty();
            tally.judge(case, same, &ours, &theirs);
        }
    }
    let Tally { all, marked, bad } = tally;
    println!("{all} answers, {marked} differ for a reason that is given, {bad} without one");
    ensure!(bad == 0, "the two programs differ");
    Ok(())
}

/// What was found.
#[derive(Default)]
struct Tally {
    all: usize,
    marked: usize,
    bad: usize,
}

impl Tally {
    fn judge(&mut self, case: &Value, same: bool, ours: &[String], theirs: &[String]) {
        self.all += 1;
        if same {
            return;
        }
        let reason = text(&case["deviates"]);
        println!("{}: {}", text(&case["send"]["type"]), text(&case["name"]));
        if !reason.is_empty() {
            self.marked += 1;
            println!("    {reason}");
            return;
        }
        self.bad += 1;
        println!("    ours   {}", ours.join("\n           "));
        println!("    theirs {}", theirs.join("\n           "));
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn table(name: &str) -> Result<Vec<Value>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/device");
    Ok(serde_json::from_slice(&std::fs::read(
        directory.join(name),
    )?)?)
}

/// A program with a cloud and a home of its own.
struct Bench {
    cloud: LocalCloud,
    device: Device,
    root: PathBuf,
    _program: Child,
    _home: TempDir,
}

impl Bench {
    async fn start(program: &str, counts_as_cloud: bool) -> Result<Self> {
        let options = Options {
            mode: Mode::Single,
            ..Options::default()
        };
        let cloud = LocalCloud::start(options).await.context("no cloud")?;
        let home = tempfile::tempdir()?;
        let root = home.path().canonicalize()?.join("root");
        std::fs::create_dir_all(root.join("work"))?;
        let memory = format!("file://{}/memory", root.display());
        let mut command = Command::new(program);
        command
            .args(["server", "--env-name", "diff", "--debug"])
            .current_dir(root.join("work"))
            .env("HOME", home.path())
            .env("SHELL", "/bin/sh")
            .env("LETTA_BASE_URL", cloud.base_url())
            .env("LETTA_MEMFS_BASE_URL", memory)
            .env("LETTA_API_KEY", "diff")
            .env("LETTA_HEALTH_ADDR", "off")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        if counts_as_cloud {
            command.env("LETTA_MEMFS_LOCAL", "1");
        }
        let spawned = command.spawn();
        let program = spawned.with_context(|| format!("{program} does not start"))?;
        let device = cloud.wait_for_device(START).await;
        Ok(Self {
            device: device.context("no connection")?,
            cloud,
            root,
            _program: program,
            _home: home,
        })
    }

    fn root(&self) -> String {
        self.root.to_string_lossy().into_owned()
    }

    /// The request of `case`, with an id of its own.
    fn frame(&self, case: &Value, id: &str) -> Value {
        let mut frame = replaced(&case["send"], "<root>", &self.root());
        if frame["request_id"].is_string() {
            frame["request_id"] = json!(id);
        }
        frame
    }
}

/// What a program answers to each case, envelopes aside.
async fn answers(program: &str, cases: &[Value]) -> Result<Vec<Vec<Value>>> {
    let bench = Bench::start(program, false).await?;
    let work = bench.root.join("work");
    let mut all = Vec::new();
    for (at, case) in cases.iter().enumerate() {
        std::fs::remove_dir_all(&work)?;
        std::fs::create_dir_all(&work)?;
        lay(&work, &case["given"])?;
        let mut cursor = bench.device.mark();
        bench.device.send(bench.frame(case, &format!("case-{at}")));
        let expected = case["answers"].as_array().map_or(1, Vec::len).max(1);
        let mut found = Vec::new();
        while found.len() < expected {
            let bare = |frame: &Value| frame["event_seq"].is_null() && frame["type"] != "ping";
            match bench.device.wait_after(cursor, bare, PATIENCE).await {
                Ok((frame, at)) => {
                    found.push(replaced(&frame, &bench.root(), "<root>"));
                    cursor = at;
                }
                Err(_) => break,
            }
        }
        all.push(found);
    }
    bench.cloud.stop().await;
    Ok(all)
}

/// Everything that a program sends for each case; one case stands on the other.
async fn all_sent(program: &str, cases: &[Value], cloud: bool) -> Result<Vec<Vec<Value>>> {
    let bench = Bench::start(program, cloud).await?;
    let work = bench.root.join("work");
    let mut all = Vec::new();
    for (at, case) in cases.iter().enumerate() {
        lay(&work, &case["given"])?;
        for line in case["run"].as_array().into_iter().flatten() {
            let line = text(line).replace("<root>", &bench.root());
            let mut shell = Command::new("sh");
            let status = shell.args(["-c", &line]).current_dir(&work).status();
            ensure!(status.await?.success(), "{line}");
        }
        let id = format!("case-{at}");
        let mark = bench.device.mark();
        bench.device.send(bench.frame(case, &id));
        let until = text(&case["until"]);
        let last = |frame: &Value| match until {
            "" => frame["request_id"] == json!(id) && frame["event_seq"].is_null(),
            until => frame["type"] == until,
        };
        let within = if until == "nothing" { QUIET } else { LONG };
        // Silence is compared as well.
        let _ = bench.device.wait_after(mark, last, within).await;
        tokio::time::sleep(QUIET).await;
        let frames = bench.device.frames_since(mark);
        let frames = frames.iter().map(|frame| frame.value.clone());
        all.push(frames.filter(|frame| frame["type"] != "ping").collect());
    }
    bench.cloud.stop().await;
    Ok(all)
}
fn lay(work: &Path, given: &Value) -> Result<()> {
    for (name, content) in given.as_object().into_iter().flatten() {
        let path = work.join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(work))?;
        match content {
            Value::String(text) => std::fs::write(path, text)?,
            Value::Array(bytes) => {
                let bytes = bytes
                    .iter()
                    .filter_map(|byte| u8::try_from(byte.as_u64()?).ok());
                std::fs::write(path, bytes.collect::<Vec<u8>>())?;
            }
            Value::Object(link) => std::os::unix::fs::symlink(text(&link["link"]), path)?,
            _ => std::fs::create_dir_all(path)?,
        }
    }
    Ok(())
}

fn replaced(value: &Value, from: &str, to: &str) -> Value {
    match value {
        Value::String(text) => text.replace(from, to).into(),
        Value::Array(items) => items.iter().map(|item| replaced(item, from, to)).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), replaced(value, from, to)))
            .collect(),
        other => other.clone(),
    }
}

/// What a frame is called, with what tells frames of one type apart.
fn label(frame: &Value) -> String {
    let kind = text(&frame["type"]);
    match text(&frame["delta"]["message_type"]) {
        "" => kind.to_owned(),
        delta => format!("{kind}/{delta}"),
    }
}

/// The order of the frames, and every field of them with its type; of
/// `success`, the value.
fn shapes(frames: &[Value]) -> (Vec<String>, BTreeSet<String>) {
    let mut fields = BTreeSet::new();
    for frame in frames {
        walk(&label(frame), frame, &mut fields);
    }
    let mut order: Vec<String> = frames.iter().map(label).collect();
    // How a terminal's output is cut into frames is chance.
    order.dedup_by(|next, last| next == last && last == "terminal_output");
    (order, fields)
}

/// What differs wherever it stands, with the reason why.
const EVERYWHERE: [(&str, &str); 2] = [
    (
        ".letta_code_version",
        "named here, unknown to the published program outside of npm",
    ),
    (
        "experiments[].envVar",
        "no variable switches an experiment of this program",
    ),
];

fn walk(path: &str, value: &Value, fields: &mut BTreeSet<String>) {
    if EVERYWHERE.iter().any(|(field, _)| path.ends_with(field)) {
        return;
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(yes) if path.ends_with(".success") => {
            if *yes {
                "true"
            } else {
                "false"
            }
        }
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(items) => {
            for item in items {
                walk(&format!("{path}[]"), item, fields);
            }
            "array"
        }
        Value::Object(inner) => {
            for (name, value) in inner {
                // Ids are keys of some maps.
                let name = if name.starts_with("run-") {
                    "<run>"
                } else {
                    name
                };
                walk(&format!("{path}.{name}"), value, fields);
            }
            "object"
        }
    };
    fields.insert(format!("{path}: {kind}"));
}

/// What of the shapes is not in the other ones; of frames that the other ones
/// lack, the order says enough.
fn only(ours: &[Value], theirs: &[Value]) -> Vec<String> {
    let ((order, fields), (other_order, other_fields)) = (shapes(ours), shapes(theirs));
    let is_shared = |field: &&String| {
        let known = |label: &String| {
            let rest = field.strip_prefix(label.as_str());
            rest.is_some_and(|rest| rest.starts_with(['.', ':']))
        };
        other_order.iter().any(known)
    };
    let differing = fields.difference(&other_fields).filter(is_shared);
    let mut found: Vec<String> = differing.cloned().collect();
    if order != other_order {
        found.insert(0, format!("{order:?}"));
    }
    found
}

/// Everything of good answers, and of failures all but the words.
fn brief(frames: &[Value]) -> Vec<Value> {
    let mut frames = frames.to_vec();
    for frame in &mut frames {
        if let Some(fields) = frame.as_object_mut() {
            fields.remove("error");
            fields.remove("request_id");
            fields.sort_keys();
        }
    }
    frames
}

fn shown(frames: &[Value]) -> Vec<String> {
    if frames.is_empty() {
        return vec!["(silence)".to_owned()];
    }
    let short = |frame: &Value| frame.to_string().chars().take(600).collect();
    frames.iter().map(short).collect()
}
