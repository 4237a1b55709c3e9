//! Every row of the acceptance lists has a test: `data/must-rows.json` says
//! which, and what it says is true.

#![expect(clippy::unwrap_used, reason = "a failed step ends the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// The lists, how long they are, and the rows whose tests stand elsewhere:
/// external tools and the server that clients dial themselves.
const LISTS: [(&str, usize, &[usize]); 3] = [
    ("01 §15", 35, &[]),
    ("02 §17", 15, &[9, 11, 14]),
    ("03 §22", 25, &[]),
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

#[test]
fn every_row_that_must_hold_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = BTreeSet::new();
    for directory in ["src", "tests"] {
        tests_below(&root.join(directory), &mut tests);
    }
    assert!(tests.len() > 500, "{} tests were found", tests.len());
    let text = fs::read_to_string(root.join("tests/data/must-rows.json")).unwrap();
    let lists: Value = serde_json::from_str(&text).unwrap();
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
