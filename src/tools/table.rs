//! Every tool against its table of cases: `tests/data/tools/<tool>.json`.
//!
//! A case sets up files with a shell, makes its calls one after the other in
//! one conversation, and says what each comes to: status, text, and what is on
//! the disk afterwards. `<cwd>` stands for the working directory.

use std::collections::BTreeSet;
use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use futures_util::FutureExt;
use serde_json::Value;

use super::tests::{Bench, args, text_of};
use super::{Tool, cloud_tools, command_tools, file_tools};
use crate::skills::Skills;
use crate::state::Home;

fn tools(home: &Path) -> Vec<Arc<dyn Tool>> {
    let home = Home::at(home);
    let skills = Skills::new(home.clone(), None);
    command_tools(crate::api::tests::net().upgrade())
        .into_iter()
        .chain(file_tools(skills, &crate::memory::trial(&home)))
        // Nothing in these tables gets as far as a request.
        .chain(cloud_tools(&crate::api::tests::client_of(
            "http://127.0.0.1:9",
        )))
        .collect()
}

fn tables() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tools");
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn bench() -> Bench {
    let mut bench = Bench::with_variables(&[
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
    ]);
    let cwd = bench.context.cwd.get().canonicalize().unwrap();
    bench.context.cwd.set(&cwd);
    // Nobody runs subagents here, and whoever asks learns that at once.
    bench.orders.close();
    bench
}

async fn run(table: &Path, case: &Value) {
    let bench = bench();
    let cwd = bench.context.cwd.get();
    let default = table.file_stem().unwrap().to_string_lossy();
    let shown = cwd.display().to_string();
    if let Some(script) = case["setup"].as_str() {
        let done = Command::new("sh")
            .args(["-ec", script])
            .current_dir(&cwd)
            .env("HOME", &bench.context.home)
            .status();
        assert!(done.unwrap().success(), "set-up of {case}");
    }
    let tools = tools(&bench.context.home);
    let mut steps: Vec<&Value> = vec![case];
    steps.extend(case["then"].as_array().into_iter().flatten());
    for step in steps {
        let name = step["tool"].as_str().unwrap_or(&default);
        let tool = tools.iter().find(|tool| tool.name() == name).unwrap();
        let given = step["args"].to_string().replace("<cwd>", &shown);
        let given = args(serde_json::from_str(&given).unwrap());
        let outcome = bench.run(&**tool, given).await;
        let text = text_of(&outcome).replace(&shown, "<cwd>");
        let at = format!("{name} {} in {}: {text}", step["args"], table.display());
        assert_eq!(
            outcome.status.as_str(),
            step["status"].as_str().unwrap_or("success"),
            "{at}"
        );
        if let Some(expected) = step["text"].as_str() {
            assert_eq!(text, expected, "{at}");
        }
        let parts = |key: &str| -> Vec<String> {
            let list = step[key].as_array().into_iter().flatten();
            list.map(|part| part.as_str().unwrap().to_owned()).collect()
        };
        for part in parts("has") {
            assert!(text.contains(&part), "no {part:?}: {at}");
        }
        for part in parts("has_not") {
            assert!(!text.contains(&part), "{part:?}: {at}");
        }
        for (path, expected) in step["after"].as_object().into_iter().flatten() {
            let found = fs::read_to_string(cwd.join(path)).ok();
            assert_eq!(found.as_deref(), expected.as_str(), "{path} after {at}");
        }
        if let Some(moved) = step["moved_to"].as_str() {
            let now = bench.context.cwd.get().display().to_string();
            assert_eq!(now.replace(&shown, "<cwd>"), moved, "{at}");
        }
        assert!(
            step["text"].is_string() || step["has"].is_array(),
            "a step that checks no text: {at}"
        );
    }
    bench.context.processes.shutdown().await;
}

#[tokio::test]
async fn every_tool_does_what_its_table_says() {
    let mut failed = Vec::new();
    for table in tables() {
        let cases: Value = serde_json::from_str(&fs::read_to_string(&table).unwrap()).unwrap();
        let cases = cases.as_array().unwrap();
        assert!(!cases.is_empty());
        for case in cases {
            // All that are wrong are worth knowing at once.
            let run = AssertUnwindSafe(run(&table, case)).catch_unwind();
            if run.await.is_err() {
                failed.push(format!("{}: {}", table.display(), case["args"]));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn every_tool_has_a_table() {
    let names: BTreeSet<String> = tables()
        .iter()
        .map(|table| table.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let mut covered = names.clone();
    for table in tables() {
        let cases: Value = serde_json::from_str(&fs::read_to_string(&table).unwrap()).unwrap();
        for case in cases.as_array().unwrap() {
            covered.extend(case["tool"].as_str().map(str::to_owned));
        }
    }
    let home = tempfile::tempdir().unwrap();
    let tools = tools(home.path());
    for tool in &tools {
        assert!(covered.contains(tool.name()), "{} has no case", tool.name());
    }
    for name in names {
        assert!(
            tools.iter().any(|tool| *tool.name() == name),
            "{name} is no tool"
        );
    }
}

#[tokio::test]
async fn every_tool_answers_every_kind_of_bad_argument() {
    let huge = "x".repeat(1 << 18);
    let bad = [
        Value::Null,
        Value::from(true),
        Value::from(-1),
        Value::from(1e308),
        Value::from(""),
        Value::from("\0"),
        Value::from(huge),
        Value::from(vec![Value::Null]),
        Value::from(vec![serde_json::json!({"x": []})]),
        serde_json::json!({}),
    ];
    let bench = bench();
    for tool in tools(&bench.context.home) {
        let schema = tool.parameters();
        let required: Vec<&str> = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        for name in schema["properties"].as_object().unwrap().keys() {
            for value in &bad {
                let mut given = serde_json::Map::new();
                for other in &required {
                    given.insert((*other).to_owned(), "nowhere".into());
                }
                given.insert("unknown".into(), value.clone());
                given.insert(name.clone(), value.clone());
                let outcome = bench.run(&*tool, given).await;
                let text = text_of(&outcome);
                assert!(
                    !text.is_empty() || outcome.status.as_str() == "success",
                    "{} {name}",
                    tool.name()
                );
            }
        }
    }
    bench.context.processes.shutdown().await;
}

#[test]
fn every_tool_is_described_compactly_and_its_schema_is_closed() {
    let home = tempfile::tempdir().unwrap();
    for tool in tools(home.path()) {
        let (name, schema) = (tool.name(), tool.parameters());
        let description = tool.description().trim_end();
        assert!(
            (20..3000).contains(&description.len()),
            "{name}: {}",
            description.len()
        );
        assert_eq!(schema["additionalProperties"], false, "{name}");
        assert_eq!(schema["type"], "object", "{name}");
        let properties = schema["properties"].as_object().unwrap();
        for required in schema["required"].as_array().unwrap() {
            assert!(
                properties.contains_key(required.as_str().unwrap()),
                "{name}: {required}"
            );
        }
    }
}
