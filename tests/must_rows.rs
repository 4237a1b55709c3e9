//! What must hold has a test: `data/must-rows.json` says which for every row of
//! the acceptance lists, `data/device/coverage.json` for every command of the
//! protocol, and what they say is true.

#![expect(clippy::unwrap_used, reason = "a failed step ends the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// The lists, how long they are, and the rows whose tests stand elsewhere:
/// external tools and the server that clients dial themselves.
const LISTS: [(&str, usize, &[usize]); 4] = [
    ("01 §15", 35, &[]),
    ("02 §17", 15, &[9, 11, 14]),
    ("03 §22", 25, &[]),
    ("06 §19", 21, &[]),
];

/// The names of all test functions below a directory.
fn tests_below(directory: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_below(&path, names);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                if line.starts_with("#[") {
                    is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
                    continue;
                }
                let name = line.split_once("fn ").map(|(_, rest)| rest);
                if let Some((name, _)) = name.and_then(|rest| rest.split_once('('))
                    && std::mem::take(&mut is_test)
                {
                    names.insert(name.to_owned());
                }
            }
        }
    }
}

/// The names of all test functions.
fn tests() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = BTreeSet::new();
    for directory in ["src", "tests"] {
        tests_below(&root.join(directory), &mut tests);
    }
    assert!(tests.len() > 500, "{} tests were found", tests.len());
    tests
}

/// A file of `tests/data`.
fn data(name: &str) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let text = fs::read_to_string(root.join(name)).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn every_row_that_must_hold_names_tests_that_exist() {
    let tests = tests();
    let lists = data("must-rows.json");
    for (list, rows, elsewhere) in LISTS {
        for row in (1..=rows).filter(|row| !elsewhere.contains(row)) {
            let named = lists[list][row.to_string()].as_array();
            let named = named.map_or(&[][..], Vec::as_slice);
            assert!(!named.is_empty(), "{list} row {row} names no test");
            for name in named {
                let name = name.as_str().unwrap();
                assert!(
                    tests.contains(name),
                    "{list} row {row}: there is no test {name}"
                );
            }
        }
    }
}

/// Asserts that each name is that of a test, or of a row in a table that a test
/// goes over: `table.json: name`. There is at least one.
fn exist(command: &str, names: &Value, tests: &BTreeSet<String>) {
    let names = names.as_array().map_or(&[][..], Vec::as_slice);
    assert!(!names.is_empty(), "{command} names no test");
    for name in names {
        let name = name.as_str().unwrap();
        let known = match name.split_once(": ") {
            None => tests.contains(name),
            Some((table, row)) => {
                let rows = data(table);
                let mut rows = rows.as_array().unwrap().iter();
                // Of the very command.
                rows.any(|known| known["name"] == row && known["send"]["type"] == command)
            }
        };
        assert!(known, "{command}: there is no test {name}");
    }
}

/// A good answer, every error of the spec and bad fields: each command of the
/// table has tests of them, or is declined and has a test of that.
#[test]
fn every_command_is_tested_or_declined() {
    let tests = tests();
    let covered = data("device/coverage.json");
    let commands = data("commands.json");
    let commands = commands.as_array().unwrap();
    assert_eq!(covered.as_object().unwrap().len(), commands.len());
    for row in commands {
        let command = row["command"].as_str().unwrap();
        let found = &covered[command];
        if row["priority"] == "decline" || row["group"] == "teleport" {
            exist(command, &found["declined"], &tests);
            continue;
        }
        exist(command, &found["good"], &tests);
        exist(command, &found["fields"], &tests);
        match &found["errors"] {
            // Why there are none.
            Value::String(reason) => assert!(!reason.is_empty(), "{command}"),
            Value::Object(errors) if !errors.is_empty() => {
                for names in errors.values() {
                    exist(command, names, &tests);
                }
            }
            _ => panic!("{command}: errors are named, or why there are none"),
        }
    }
}
