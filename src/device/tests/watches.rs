//! File watches on a real file system.

use super::*;

fn watch(bench: &Bench, kind: &str, path: &str) {
    bench.send(json!({"type": kind, "request_id": "w", "path": path}));
}

/// Returns once the watcher has done everything it was told so far: a watch of
/// another file tells of changes from then on.
async fn settled(bench: &mut Bench) {
    let mark = bench.file("mark", "0");
    watch(bench, "watch_file", &mark);
    for n in 1.. {
        fs::write(&mark, n.to_string()).unwrap();
        let next = timeout(Duration::from_millis(400), bench.trial.outbound.recv()).await;
        if let Ok(Some(Outbound::Reply { body, .. })) = next {
            assert!(body.contains("mark"), "{body}");
            break;
        }
        assert!(n < 50, "the watcher does not answer");
    }
    watch(bench, "unwatch_file", &mark);
}

async fn changed(bench: &mut Bench, path: &str) {
    let frame = bench.next().await;
    assert_eq!(frame["type"], "file_changed");
    assert_eq!(frame["path"], path);
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    let modified = modified
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis();
    assert_eq!(
        u128::from(frame["lastModified"].as_u64().unwrap()),
        modified
    );
    assert_eq!(frame.as_object().unwrap().len(), 3);
}

#[tokio::test]
async fn a_change_is_told_until_the_last_watch_ends() {
    let mut bench = Bench::new().await;
    let path = bench.file("f", "1");
    // Never watched: this must not count against the next watch.
    watch(&bench, "unwatch_file", &path);
    watch(&bench, "watch_file", &path);
    watch(&bench, "watch_file", &path);
    watch(&bench, "unwatch_file", &path);
    settled(&mut bench).await;
    fs::write(&path, "2").unwrap();
    changed(&mut bench, &path).await;
    watch(&bench, "unwatch_file", &path);
    settled(&mut bench).await;
    fs::write(&path, "3").unwrap();
    settled(&mut bench).await;
}

#[tokio::test]
async fn a_file_that_is_replaced_is_still_watched_and_one_that_is_gone_is_not() {
    let mut bench = Bench::new().await;
    let path = bench.file("dir/f", "1");
    watch(&bench, "watch_file", &path);
    settled(&mut bench).await;
    for content in ["2", "3"] {
        let fresh = bench.file("dir/fresh", content);
        fs::rename(fresh, &path).unwrap();
        changed(&mut bench, &path).await;
    }
    fs::remove_file(&path).unwrap();
    // Longer than a change takes to be told; then the watch is dropped.
    settled(&mut bench).await;
    settled(&mut bench).await;
    fs::write(&path, "4").unwrap();
    settled(&mut bench).await;
    watch(&bench, "watch_file", &bench.text("missing"));
    settled(&mut bench).await;
}

#[tokio::test]
async fn watches_end_with_their_connection_and_move_with_it() {
    let mut bench = Bench::new().await;
    let path = bench.file("f", "1");
    let other = ConnectionId::new("conn-2");
    watch(&bench, "watch_file", &path);
    bench.device.tell(Message::Replaced {
        old: bench.me.clone(),
        new: other.clone(),
    });
    settled(&mut bench).await;
    fs::write(&path, "2").unwrap();
    let (to, frame) = bench.next_for().await;
    assert_eq!((&to, &frame["type"]), (&other, &json!("file_changed")));
    bench.device.tell(Message::Closed(other));
    settled(&mut bench).await;
    fs::write(&path, "3").unwrap();
    settled(&mut bench).await;
}
