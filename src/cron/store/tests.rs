use std::collections::HashSet;
use std::io::{Read as _, Seek as _, Write as _};

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

fn fixture(text: Option<&str>) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = Store::new(&Home::at(dir.path()));
    if let Some(text) = text {
        fs::create_dir_all(dir.path().join(".letta")).expect("created");
        fs::write(&store.file, text).expect("written");
    }
    (dir, store)
}

#[test]
fn a_store_of_the_published_program_is_rewritten_byte_for_byte() {
    let text = include_str!("../../../tests/data/cron/published-store.json");
    let (_dir, store) = fixture(Some(text));
    assert_eq!(store.read().tasks.len(), 3);
    store.update(&mut |_| true).expect("written");
    assert_eq!(fs::read_to_string(&store.file).expect("read"), text);
}

#[test]
fn what_another_version_wrote_into_it_survives_a_change() {
    let text =
        r#"{"version":1,"later":[1],"tasks":[{"id":"a","x":{"y":2}}],"scheduler_owners":{"z":1}}"#;
    let (_dir, store) = fixture(Some(text));
    let change = &mut |document: &mut Document| {
        document.task_mut("a").expect("there").set("name", "new");
        true
    };
    store.update(change).expect("written");
    let written: Value =
        serde_json::from_slice(&fs::read(&store.file).expect("read")).expect("JSON");
    assert_eq!(written["later"], json!([1]));
    assert_eq!(written["scheduler_owners"], json!({"z": 1}));
    assert_eq!(written["tasks"][0]["x"], json!({"y": 2}));
    assert_eq!(written["tasks"][0]["name"], "new");
}

#[test]
fn a_file_that_is_no_store_counts_as_empty_and_is_kept_aside() {
    for text in ["{", "[]", r#"{"version":2,"tasks":[{"id":"a"}]}"#, "{}"] {
        let (dir, store) = fixture(Some(text));
        assert!(store.read().tasks.is_empty(), "{text}");
        store.update(&mut |_| false).expect("looked at");
        assert_eq!(fs::read_to_string(&store.file).expect("read"), text);
        store.update(&mut |_| true).expect("written");
        let names = fs::read_dir(dir.path().join(".letta")).expect("listed");
        let copy = names
            .map(|entry| entry.expect("an entry").path())
            .find(|path| path.to_string_lossy().contains("crons.json.corrupt-"))
            .unwrap_or_else(|| panic!("no copy of {text}"));
        assert_eq!(fs::read_to_string(copy).expect("read"), text);
    }
}

#[test]
fn every_write_changes_the_stamp() {
    let (_dir, store) = fixture(None);
    assert_eq!(store.stamp(), None);
    let first = store.update(&mut |_| true).expect("written");
    assert_eq!(store.stamp(), first);
    let second = store.update(&mut |_| true).expect("written");
    assert_ne!(first, second);
    assert_eq!(store.update(&mut |_| false).expect("looked at"), second);
}

#[test]
fn what_cannot_be_read_of_a_task_stays_in_the_file() {
    // JavaScript writes half a character so.
    let odd = r#"{"id":"odd","prompt":"\ud800"}"#;
    let text = format!(r#"{{"version":1,"tasks":[{odd},{{"id":"a"}},null]}}"#);
    let (_dir, store) = fixture(Some(&text));
    assert_eq!(store.read().tasks.len(), 1);
    store.update(&mut |_| true).expect("written");
    let written = fs::read_to_string(&store.file).expect("read");
    assert!(written.contains(odd), "{written}");
    assert!(!written.contains("null,\n    null"), "{written}");
    assert!(!store.delete("nobody").expect("usable"));
    assert!(store.delete("a").expect("deleted"));
    let written = fs::read_to_string(&store.file).expect("read");
    assert!(written.contains(odd), "{written}");
}

#[test]
fn what_others_wrote_meanwhile_is_never_overwritten_from_memory() {
    let (_dir, store) = fixture(Some(
        r#"{"version":1,"tasks":[{"id":"a","n":1},{"id":"b","n":1}]}"#,
    ));
    store.update(&mut |_| true).expect("written");
    let rename = |name: &str| {
        let changed = store.update_some(&|place| place.id() == "a", &mut |document| {
            document.tasks[0].set("name", name);
            true
        });
        changed.expect("written");
        store.known().is_some()
    };
    assert!(rename("first"), "the file of ours is remembered");
    let ours = fs::read_to_string(&store.file).expect("read");
    let theirs = ours.replace("\"n\": 1", "\"n\": 2");
    assert_eq!(ours.len(), theirs.len());
    // Into the same file, then as another one, then with the times of ours.
    let times = fs::metadata(&store.file)
        .expect("there")
        .modified()
        .expect("a time");
    for (round, backdated) in [(1, false), (2, false), (3, true)] {
        if round == 2 {
            fs::remove_file(&store.file).expect("removed");
        }
        fs::write(&store.file, &theirs).expect("written");
        if backdated {
            let file = File::options()
                .write(true)
                .open(&store.file)
                .expect("opened");
            file.set_modified(times).expect("set");
        }
        rename("second");
        for id in ["a", "b"] {
            assert_eq!(store.get(id).expect("there").count("n"), 2, "{round}");
        }
        assert_eq!(store.get("a").expect("there").text("name"), "second");
    }
}

#[test]
fn a_store_that_could_not_be_read_again_is_not_written() {
    let (_dir, store) = fixture(None);
    let large = &mut |document: &mut Document| {
        let prompt = "x".repeat(usize::try_from(READ_LIMIT).expect("small"));
        let task = Task::read(json!({"id": "a", "prompt": prompt}));
        document.tasks.extend(task);
        true
    };
    let error = store.update(large).expect_err("too large").to_string();
    assert!(error.contains("Delete some first"), "{error}");
    assert_eq!(store.stamp(), None);
}

/// What happens to a task of an id.
#[derive(Clone, Copy, Debug)]
enum Step {
    Rename,
    Remove,
    /// It is read and stays as it is.
    Leave,
    /// A task of this id is added.
    Add,
}

fn step() -> impl Strategy<Value = (String, Step)> {
    let known = prop::sample::select(vec![Step::Rename, Step::Remove, Step::Leave]);
    prop_oneof![4 => ("[abc]", known), 1 => ("[xyz]", Just(Step::Add))]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<i32>().prop_map(Value::from),
        "[a-z\\n\"\\\\{}\\[\\], é]{0,12}".prop_map(Value::from),
        prop::collection::vec(any::<bool>(), 0..3).prop_map(Value::from),
        Just(json!({})),
        Just(json!({"deep": [{"tasks": []}, "}"]})),
    ]
}

fn object(ids: bool) -> impl Strategy<Value = Value> {
    let fields = prop::collection::vec(("[a-z_]{1,8}", value()), 0..6);
    let status = prop::sample::select(vec!["active", "fired", "odd"]);
    ("[abc]", status, fields).prop_map(move |(id, status, fields)| {
        let mut object: Map<String, Value> = fields.into_iter().collect();
        if ids {
            object.insert("id".into(), id.into());
            object.insert("status".into(), status.into());
        }
        Value::Object(object)
    })
}

fn store_value() -> impl Strategy<Value = Value> {
    let task = prop_oneof![8 => object(true), 1 => object(false), 1 => value()];
    let tasks = prop::collection::vec(task, 0..8);
    (object(false), tasks, any::<bool>()).prop_map(|(mut top, tasks, first)| {
        if first {
            top["tasks"] = Value::Null;
        }
        top["version"] = json!(1);
        top["tasks"] = tasks.into();
        top
    })
}

/// The text that a change makes of a text, and where its tasks stand then.
fn changed(text: &str, choice: Choice<'_>, steps: &[(String, Step)]) -> (String, Layout) {
    let mut old = tempfile::tempfile().expect("a file");
    old.write_all(text.as_bytes()).expect("written");
    let mut content = Content {
        layout: Arc::new(Layout::scan(text.as_bytes()).expect("a store")),
        file: Some(old.try_clone().expect("cloned")),
        ..Content::default()
    };
    old.rewind().expect("rewound");
    let (loaded, mut document) = content.load(choice).expect("read");
    for (id, step) in steps {
        match step {
            Step::Leave => {}
            Step::Add => document
                .tasks
                .extend(Task::read(json!({"id": id, "new": [1]}))),
            Step::Remove => document.tasks.retain(|task| task.id() != id),
            Step::Rename => {
                if let Some(task) = document.task_mut(id) {
                    task.set("name", format!("new name of {id}"));
                }
            }
        }
    }
    let layout = Arc::unwrap_or_clone(content.layout);
    let draft = Draft::new(layout, &loaded, document).expect("a draft");
    let mut new = tempfile::tempfile().expect("a file");
    draft.write_to(Some(&old), &mut new).expect("written");
    let mut text = String::new();
    new.rewind().expect("rewound");
    new.read_to_string(&mut text).expect("read");
    assert_eq!(draft.length(), text.len() as u64);
    (text, draft.layout)
}

proptest! {
    /// A change of some tasks gives what serialising all of them gives: byte for
    /// byte where the file has the form of both programs, else in what it says. And
    /// where the tasks stand is what reading the file again would find.
    #[test]
    fn a_change_of_some_tasks_is_the_same_as_writing_all_anew(
        store in store_value(),
        form in 0..3,
        steps in prop::collection::vec(step(), 0..4),
    ) {
        let pretty = serde_json::to_string_pretty(&store).expect("JSON");
        let text = match form {
            // As a change of nothing leaves it.
            0 => changed(&pretty, None, &[]).0,
            1 => serde_json::to_string(&store).expect("JSON"),
            // Blanks of another kind.
            _ => format!("\u{feff}{}", pretty.replace('\n', "\n \t")),
        };
        let ids: HashSet<&str> = steps.iter().map(|(id, _)| id.as_str()).collect();
        let some: &dyn Fn(&Place) -> bool = &|place| ids.contains(place.id());
        let (spliced, layout) = changed(&text, Some(some), &steps);
        let (plain, _) = changed(&text, None, &steps);
        if form == 0 {
            prop_assert_eq!(&spliced, &plain);
        }
        let found = Layout::scan(spliced.as_bytes()).expect("a store");
        prop_assert_eq!(format!("{layout:?}"), format!("{found:?}"));
        let read = |text: &str| {
            let mut content = Content {
                layout: Arc::new(Layout::scan(text.as_bytes()).expect("a store")),
                bytes: Some(text.as_bytes().to_vec()),
                ..Content::default()
            };
            content.load(None).expect("read").1
        };
        let (spliced, plain) = (read(&spliced), read(&plain));
        prop_assert_eq!(spliced.top, plain.top);
        prop_assert_eq!(spliced.tasks, plain.tasks);
    }
}
