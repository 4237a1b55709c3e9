//! Every command of the protocol with every field missing, empty or of another
//! type, over the wire: who asks is told which field it is, nothing else
//! happens, and what may be left out is not asked for (00 §8, 06 §1.1).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use local_cloud::Device;
use serde_json::{Value, json};

use crate::harness::{Lab, SOON};

/// Rows of a table below `tests/data`.
fn rows(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name);
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The rows of the shapes, with the lab's directories in them.
fn shapes(lab: &Lab) -> Vec<Value> {
    let work = lab.file("");
    let root = work.parent().unwrap().to_str().unwrap();
    let text = json!(rows("device/shapes.json")).to_string();
    serde_json::from_str(&text.replace("<root>", root)).unwrap()
}

/// Values that a field of this kind does not take, `null` apart.
fn wrong(kind: &Value) -> Vec<Value> {
    let Some(kind) = kind.as_str() else {
        let mut all = wrong(&json!("string"));
        all.push(json!("no-such"));
        return all;
    };
    let scope = |agent: Value, conversation: Value| json!({"agent_id": agent, "conversation_id": conversation});
    let (own, more): (fn(&Value) -> bool, Vec<Value>) = match kind {
        "string" => (Value::is_string, vec![]),
        "text" => (Value::is_string, vec![json!("")]),
        "number" => (Value::is_number, vec![]),
        "count" => (Value::is_number, vec![json!(0), json!(-1), json!(1.5)]),
        "bool" => (Value::is_boolean, vec![]),
        "array" => (Value::is_array, vec![]),
        "strings" => (Value::is_array, vec![json!([1]), json!(["x", null])]),
        "objects" => (Value::is_array, vec![json!([1]), json!([null])]),
        "object" => (Value::is_object, vec![]),
        "texts" => (Value::is_object, vec![json!({"A": 1})]),
        "scope" | "agent scope" => {
            let mut more = vec![
                json!({}),
                json!({"agent_id": "a"}),
                scope(json!(""), json!("c")),
                scope(json!("a"), json!("")),
                scope(json!("a"), json!(7)),
                scope(json!(7), json!("c")),
            ];
            if kind == "agent scope" {
                more.push(scope(Value::Null, json!("c")));
            }
            (Value::is_object, more)
        }
        other => {
            assert_eq!(other, "a kind of value");
            (Value::is_null, vec![])
        }
    };
    let all = [
        json!(1),
        json!(true),
        json!("x"),
        json!([1]),
        json!({"a": 1}),
    ];
    all.into_iter()
        .filter(|value| !own(value))
        .chain(more)
        .collect()
}

/// The frame with another value of a field, or without it; `a.b` is `b` within `a`.
fn with(good: &Value, field: &str, value: Option<Value>) -> Value {
    let mut frame = good.clone();
    let (path, last) = field.rsplit_once('.').unwrap_or(("", field));
    let mut at = &mut frame;
    for part in path.split('.').filter(|part| !part.is_empty()) {
        at = &mut at[part];
    }
    let object = at.as_object_mut().unwrap();
    match value {
        Some(value) => drop(object.insert(last.into(), value)),
        None => drop(object.remove(last)),
    }
    frame
}

fn fields<'a>(row: &'a Value, group: &str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    let fields = row[group].as_object().into_iter().flatten();
    fields.map(|(name, kind)| (name.as_str(), kind))
}

/// Whether an error speaks of a field, by its last name.
fn names(error: &str, field: &str) -> bool {
    let last = field.rsplit('.').next().unwrap();
    error
        .split(|letter: char| !letter.is_alphanumeric() && letter != '_')
        .any(|word| word == last)
}

/// Sends a frame that is to be refused for this field, and looks at the answer.
async fn refused(device: &Device, row: &Value, field: &str, frame: Value) {
    let failed = &row["failed"];
    let answer = if row["id"] == "none" {
        let mark = device.mark();
        device.send(frame.clone());
        let answers = |found: &Value| found["type"] == failed["type"];
        device.wait_after(mark, answers, SOON).await.unwrap().0
    } else {
        let answer = device.request(frame.clone(), SOON).await;
        assert!(answer.is_ok(), "{frame}: {answer:?}");
        answer.unwrap()
    };
    let error = &answer["error"];
    // The usage of a plan has an object there, with its code and message.
    let error = error["message"].as_str().or(error.as_str());
    assert!(error.is_some(), "{frame}: {answer}");
    let error = error.unwrap();
    assert!(names(error, field), "{frame}: {error}");
    for (name, wanted) in failed.as_object().unwrap() {
        let own = field == name || field.starts_with(&format!("{name}."));
        if !own {
            assert_eq!(answer[name], *wanted, "{frame}: {name} in {answer}");
        }
    }
}

/// Waits until everything sent so far is done with: what answers at all has
/// answered.
async fn settled(device: &Device) {
    let settle = json!({"type": "get_experiments"});
    device.request(settle, SOON).await.unwrap();
}

#[tokio::test]
async fn s00_8_a_bad_field_of_any_command_is_named_and_nothing_else_happens() {
    let lab = Lab::start().await;
    let device = lab.device().await;
    settled(&device).await;
    let before = state(&lab);
    let requests = lab.cloud.request_mark();
    for row in shapes(&lab) {
        let good = &row["good"];
        for (field, kind) in fields(&row, "required") {
            let all = wrong(kind).into_iter().map(Some);
            for value in all.chain([None, Some(Value::Null)]) {
                refused(&device, &row, field, with(good, field, value)).await;
            }
        }
        for group in ["optional", "typed"] {
            for (field, kind) in fields(&row, group) {
                for value in wrong(kind) {
                    refused(&device, &row, field, with(good, field, Some(value))).await;
                }
            }
        }
        if row["id"].is_null() {
            // Nobody can be answered, so nothing is done.
            let mark = device.mark();
            for id in [None, Some(Value::Null), Some(json!(7)), Some(json!({}))] {
                device.send(with(good, "request_id", id));
            }
            settled(&device).await;
            let frames = device.frames_since(mark);
            let answers = |frame: &Value| {
                frame["type"] == row["failed"]["type"] && !frame["request_id"].is_string()
            };
            let found = frames.iter().find(|frame| answers(&frame.value));
            assert!(found.is_none(), "{good}: {found:?}");
        }
    }
    let changes = lab.cloud.requests_since(requests);
    let changes: Vec<String> = changes
        .iter()
        .filter(|request| request.method != "GET")
        .map(|request| request.line())
        .collect();
    assert_eq!(changes, Vec::<String>::new());
    assert_eq!(state(&lab), before);
}

/// What a command could have changed on the machine.
fn state(lab: &Lab) -> Vec<(String, Option<String>)> {
    let home = lab.home().join(".letta");
    let read = |path: std::path::PathBuf| fs::read_to_string(path).ok();
    let work: Vec<_> = fs::read_dir(lab.file("")).unwrap().flatten().collect();
    let mut found: Vec<_> = ["settings.json", "remote-settings.json"]
        .into_iter()
        .map(|name| (name.to_owned(), read(home.join(name))))
        .collect();
    // The rest of that file is the scheduler's, which writes it when it starts.
    let schedules = read(home.join("crons.json")).unwrap_or_default();
    let schedules: Value = serde_json::from_str(&schedules).unwrap_or_default();
    let tasks = schedules["tasks"].as_array().map_or(0, Vec::len);
    found.push((format!("{tasks} schedules"), None));
    found.extend(work.iter().map(|entry| (format!("{entry:?}"), None)));
    found
}

#[tokio::test]
async fn s00_8_a_field_that_may_be_left_out_may_be_null_and_an_unchecked_one_anything() {
    let lab = Lab::start().await;
    let device = lab.device().await;
    for row in shapes(&lab) {
        let good = &row["good"];
        let null = fields(&row, "optional").map(|(field, _)| (field, Value::Null));
        let unchecked = fields(&row, "lenient")
            .flat_map(|(field, kind)| wrong(kind).into_iter().map(move |value| (field, value)));
        for (field, value) in null.chain(unchecked) {
            let frame = with(good, field, Some(value));
            let mark = device.mark();
            let error = if ["error", "terminal_exited"]
                .contains(&row["failed"]["type"].as_str().unwrap())
            {
                // All is well when nothing answers.
                let frame = with(&frame, "request_id", Some(json!("quiet")));
                device.send(frame);
                settled(&device).await;
                let frames = device.frames_since(mark);
                let found = frames
                    .iter()
                    .find(|frame| frame.value["request_id"] == "quiet");
                found.map_or(Value::Null, |frame| frame.value["error"].clone())
            } else {
                let answer = device.request(frame.clone(), SOON).await;
                answer.unwrap_or_else(|error| panic!("{frame}: {error}"))["error"].clone()
            };
            let error = error.as_str().unwrap_or_default();
            let last = field.rsplit('.').next().unwrap();
            assert!(
                !error.contains(&format!("{last} must be")),
                "{frame}: {error}"
            );
        }
    }
}

#[test]
fn every_command_that_has_fields_stands_in_the_table_of_shapes() {
    let shapes = rows("device/shapes.json");
    let known: BTreeSet<&str> = shapes
        .iter()
        .map(|row| row["good"]["type"].as_str().unwrap())
        .collect();
    let commands = rows("commands.json");
    let missing: Vec<&str> = commands
        .iter()
        // Those of the connection itself; and what channels get is one answer.
        .filter(|row| row["group"] != "channels")
        .map(|row| row["command"].as_str().unwrap())
        .filter(|name| !["pong", "listener_ready"].contains(name) && !known.contains(name))
        .collect();
    assert_eq!(missing, Vec::<&str>::new());
}
