//! Requests about files with their whole answers: tests/data/device/answers.json.

use super::*;

/// Files that a case starts with: text, `null` for a directory, an array of
/// bytes, or an object with the target of a link.
fn lay(bench: &Bench, given: &Value) {
    for (name, content) in given.as_object().into_iter().flatten() {
        match content {
            Value::Null => fs::create_dir_all(bench.path(name)).unwrap(),
            Value::String(text) => drop(bench.file(name, text)),
            Value::Array(bytes) => {
                let byte = |byte: &Value| u8::try_from(byte.as_u64().unwrap()).unwrap();
                drop(bench.file(name, bytes.iter().map(byte).collect::<Vec<_>>()));
            }
            Value::Object(link) => {
                let target = link["link"].as_str().unwrap();
                std::os::unix::fs::symlink(target, bench.path(name)).unwrap();
            }
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn every_request_of_the_table_gets_its_whole_answer() {
    for case in data("answers.json") {
        let mut bench = Bench::new().await;
        let name = &case["name"];
        lay(&bench, &case["given"]);
        let root = bench.dir.path().to_string_lossy().into_owned();
        bench.send(with_root(&case["send"], "<root>", &root));
        for wanted in case["answers"].as_array().unwrap() {
            let answer = with_root(&bench.next().await, &root, "<root>");
            assert_eq!(answer, *wanted, "{name}");
        }
        for (path, content) in case["then"].as_object().into_iter().flatten() {
            let found = fs::read_to_string(bench.path(path)).ok();
            assert_eq!(found.as_deref(), content.as_str(), "{name}: {path}");
        }
    }
}

#[tokio::test]
async fn a_base64_read_gives_the_very_bytes_and_one_byte_too_many_is_refused() {
    let mut bench = Bench::new().await;
    let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    let path = bench.file("b", &bytes);
    let read = json!({"type": "read_file", "path": path, "encoding": "base64"});
    let answer = bench.ask(read.clone()).await;
    use base64::Engine as _;
    let decoded =
        base64::engine::general_purpose::STANDARD.decode(answer["content"].as_str().unwrap());
    assert_eq!(decoded.unwrap(), bytes);
    let file = fs::File::create(&path).unwrap();
    file.set_len(26_214_400).unwrap();
    let answer = bench.ask(read.clone()).await;
    assert_eq!(answer["content"].as_str().unwrap().len(), 34_952_536);
    file.set_len(26_214_401).unwrap();
    let answer = bench.ask(read).await;
    assert_eq!(answer["error"], "File too large for base64 read (max 25MB)");
    let answer = bench.ask(json!({"type": "read_file", "path": path})).await;
    assert_eq!(answer["error"], "File too large to read as text (max 25MB)");
}

#[tokio::test]
async fn a_tree_stops_at_its_largest_size_and_a_search_at_its_own() {
    let mut bench = Bench::new().await;
    for n in 0..5001 {
        bench.file(&format!("f{n}"), "");
    }
    let root = bench.text("");
    let answer = bench
        .ask(json!({"type": "get_tree", "path": root, "depth": 9}))
        .await;
    assert_eq!(answer["entries"].as_array().unwrap().len(), 5000);
    assert_eq!(answer["has_more_depth"], true);
    for (max, found) in [
        (json!(1000), 200),
        (json!(0), 1),
        (json!("9"), 5),
        (json!(7), 7),
    ] {
        let search = json!({"type": "search_files", "cwd": root, "query": "", "max_results": max});
        let answer = bench.ask(search).await;
        assert_eq!(answer["files"].as_array().unwrap().len(), found, "{max}");
    }
}

#[tokio::test]
async fn only_the_top_of_a_home_is_searched_and_nothing_of_its_content() {
    let mut bench = Bench::new().await;
    let home = bench.dir.path().join("home");
    fs::create_dir_all(home.join("a/b")).unwrap();
    fs::create_dir_all(home.join("Pictures")).unwrap();
    fs::write(home.join("a/b/needle"), "needle").unwrap();
    fs::write(home.join("needle"), "needle").unwrap();
    let home = home.to_string_lossy().into_owned();
    let search = json!({"type": "search_files", "cwd": home, "query": "eed"});
    let answer = bench.ask(search).await;
    assert_eq!(answer["files"], json!([{"path": "needle", "type": "file"}]));
    let grep = json!({"type": "grep_in_files", "cwd": home, "query": "needle"});
    assert_eq!(bench.ask(grep).await["total_matches"], 0);
    let list = json!({"type": "list_in_directory", "path": home, "include_files": true});
    assert_eq!(bench.ask(list).await["folders"], json!([".letta", "a"]));
    let list = json!({"type": "list_in_directory", "path": format!("{home}/Pictures")});
    assert_eq!(bench.ask(list).await["success"], true);
    let edit = json!({
        "type": "edit_file", "file_path": "~/needle", "old_string": "needle", "new_string": "pin",
    });
    bench.send({
        let mut edit = edit;
        edit["request_id"] = json!("r");
        edit
    });
    assert_eq!(bench.next().await["document_content"], "pin");
    assert_eq!(bench.next().await["success"], true);
    assert_eq!(fs::read_to_string(format!("{home}/needle")).unwrap(), "pin");
}
