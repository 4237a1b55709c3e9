//! Two programs on the same device commands: every request of
//! tests/data/device/answers*.json is sent to both, and the shapes of what
//! comes back are compared. `scripts/device-diff` starts it.

#![expect(clippy::print_stdout, reason = "a person reads it")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use local_cloud::{LocalCloud, Mode, Options};
use serde_json::{Value, json};
use tokio::process::Command;

/// How long a program may think; silence is an answer too.
const PATIENCE: Duration = Duration::from_secs(3);
const START: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<()> {
    let programs: Vec<String> = std::env::args().skip(1).collect();
    let [ours, theirs] = programs.as_slice() else {
        bail!("usage: device_diff OURS THEIRS   (two programs that have a `server` command)");
    };
    let cases = cases()?;
    let (ours, theirs) = (answers(ours, &cases).await?, answers(theirs, &cases).await?);
    let mut different = 0;
    for (at, case) in cases.iter().enumerate() {
        let (ours, theirs) = (&ours[at], &theirs[at]);
        if shapes(ours) == shapes(theirs) && brief(ours) == brief(theirs) {
            continue;
        }
        different += 1;
        println!("{}: {}", text(&case["send"]["type"]), text(&case["name"]));
        println!("    ours   {}", shown(ours));
        println!("    theirs {}", shown(theirs));
    }
    println!("{} requests, {different} answered differently", cases.len());
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn cases() -> Result<Vec<Value>> {
    let mut cases = Vec::new();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/device");
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.starts_with("answers") {
            let found: Vec<Value> = serde_json::from_slice(&std::fs::read(&path)?)?;
            cases.extend(found);
        }
    }
    Ok(cases)
}

/// What a program sends for each case, envelopes aside.
async fn answers(program: &str, cases: &[Value]) -> Result<Vec<Vec<Value>>> {
    let options = Options {
        mode: Mode::Split,
        ..Options::default()
    };
    let cloud = LocalCloud::start(options).await.context("no cloud")?;
    let home = tempfile::tempdir()?;
    let root = home.path().canonicalize()?.join("root");
    std::fs::create_dir_all(root.join("work"))?;
    let _running = Command::new(program)
        .args(["server", "--env-name", "diff", "--debug"])
        .current_dir(root.join("work"))
        .env("HOME", home.path())
        .env("LETTA_BASE_URL", cloud.base_url())
        .env("LETTA_API_KEY", "diff")
        .env("LETTA_HEALTH_ADDR", "off")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{program} does not start"))?;
    let device = cloud
        .wait_for_device(START)
        .await
        .context("no connection")?;
    let mut all = Vec::new();
    for (at, case) in cases.iter().enumerate() {
        let name = root.to_string_lossy().into_owned();
        std::fs::remove_dir_all(root.join("work"))?;
        std::fs::create_dir_all(root.join("work"))?;
        lay(&root.join("work"), &case["given"])?;
        let mut frame = replaced(&case["send"], "<root>", &name);
        let id = format!("case-{at}");
        if frame["request_id"].is_string() {
            frame["request_id"] = json!(id);
        }
        let mark = device.mark();
        device.send(frame);
        let expected = case["answers"].as_array().map_or(1, Vec::len).max(1);
        let mut found = Vec::new();
        let mut cursor = mark;
        while found.len() < expected {
            let bare = |frame: &Value| frame["event_seq"].is_null() && frame["type"] != "ping";
            match device.wait_after(cursor, bare, PATIENCE).await {
                Ok((frame, at)) => {
                    found.push(replaced(&frame, &name, "<root>"));
                    cursor = at;
                }
                Err(_) => break,
            }
        }
        all.push(found);
    }
    cloud.stop().await;
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

/// Types in the place of values; `success` and `type` stay.
fn shape(value: &Value) -> Value {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "bool".into(),
        Value::Number(_) => "number".into(),
        Value::String(_) => "string".into(),
        Value::Array(items) => {
            let kinds: BTreeSet<String> =
                items.iter().map(|item| shape(item).to_string()).collect();
            kinds.into_iter().collect()
        }
        Value::Object(fields) => {
            let sorted: BTreeMap<&String, Value> = fields
                .iter()
                .map(|(name, value)| match name.as_str() {
                    "type" | "success" => (name, value.clone()),
                    _ => (name, shape(value)),
                })
                .collect();
            json!(sorted)
        }
    }
}

fn shapes(frames: &[Value]) -> Vec<Value> {
    frames.iter().map(shape).collect()
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

fn shown(frames: &[Value]) -> String {
    let frames = frames.iter().map(|frame| {
        let text = frame.to_string();
        let short: String = text.chars().take(600).collect();
        short
    });
    let frames: Vec<String> = frames.collect();
    match frames.as_slice() {
        [] => "(silence)".to_owned(),
        frames => frames.join("\n           "),
    }
}
