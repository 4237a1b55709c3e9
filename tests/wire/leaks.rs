//! Nothing is left of work that ended: the program's own descriptors and
//! threads, its children and its files are counted (04 §6).

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::direct_harness::Direct;
use crate::harness::{SOON, Setup, bash, call, kill, scope, until};

/// Background tasks; one place is left for commands in the foreground.
const TASKS: usize = 31;

/// Descriptors that are no sockets (which a pool of connections keeps for a
/// while), and threads besides those that the runtime lends to work on files.
fn held(pid: u32) -> (usize, usize) {
    let entries = |name: &str| fs::read_dir(format!("/proc/{pid}/{name}")).unwrap();
    let is_socket = |path: &Path| {
        fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
    };
    let descriptors = entries("fd").flatten();
    let threads = entries("task").flatten().filter(|task| {
        let name = fs::read_to_string(task.path().join("comm"));
        !name.unwrap_or_default().starts_with("tokio")
    });
    (
        descriptors.filter(|fd| !is_socket(&fd.path())).count(),
        threads.count(),
    )
}

fn sockets(pid: u32) -> usize {
    let all = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    all - held(pid).0
}

/// One line per task: itself and a child of it. Every other ignores the
/// polite request to end.
fn tasks() -> String {
    let task = |number: usize| {
        let trap = if number.is_multiple_of(2) {
            "trap '' TERM; "
        } else {
            ""
        };
        let line = format!("{trap}sleep 600 & echo $$ $! >> pids; wait; sleep 600");
        call(
            "Bash",
            &json!({"command": line, "description": "d", "run_in_background": true}),
        )
    };
    let calls: Vec<String> = (0..TASKS).map(task).collect();
    format!("{}\nSAY started", calls.join("\n"))
}

/// The processes that the tasks wrote down, as soon as all have.
async fn written(pids: &Path) -> Vec<String> {
    until("the tasks", || {
        let text = fs::read_to_string(pids).unwrap_or_default();
        let pids: Vec<String> = text.split_whitespace().map(String::from).collect();
        (pids.len() == 2 * TASKS).then_some(pids)
    })
    .await
}

fn living(pids: &[String]) -> usize {
    let lives = |pid: &&String| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
        !state.is_empty() && !state.starts_with('Z')
    };
    pids.iter().filter(lives).count()
}

fn files(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}

#[tokio::test]
async fn nothing_is_left_after_timeout_abort_disconnect_and_shutdown_beside_thirty_one_tasks() {
    let temporary = tempfile::tempdir().unwrap();
    let setup = Setup::default().env("TMPDIR", temporary.path().to_str().unwrap());
    let mut lab = setup.start().await;
    lab.mode(&scope(), "unrestricted").await;
    lab.cloud.turn(&scope(), &tasks()).await.unwrap();
    let pids = written(&lab.file("pids")).await;
    assert_eq!(living(&pids), 2 * TASKS);
    let before = held(lab.pid());
    let transcripts = files(
        &fs::read_dir(temporary.path())
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path(),
    );

    let line = "sleep 600 & echo $! > timed; wait";
    let arguments = json!({"command": line, "description": "d", "timeout": 300});
    let script = format!("{}\nSAY late", call("Bash", &arguments));
    lab.cloud.turn(&scope(), &script).await.unwrap();
    let mark = lab.cloud.mark();
    let line = bash("sleep 600 & echo $! > aborted.new; mv aborted.new aborted; wait");
    lab.say(&scope(), "cm-1", &line).await;
    let cut = [lab.written("timed").await, lab.written("aborted").await];
    let abort = json!({"type": "abort_message", "runtime": scope().runtime()});
    lab.device().await.request(abort, SOON).await.unwrap();
    lab.labelled(mark, "turn_finished").await;
    for _ in 0..3 {
        let links = lab.cloud.links_opened();
        lab.device().await.drop_tcp();
        lab.cloud.wait_for_link(links + 1, SOON).await.unwrap();
    }
    until("the end of what was cut off", || {
        (living(&cut) == 0).then_some(())
    })
    .await;
    until("what was held before", || {
        (held(lab.pid()) == before).then_some(())
    })
    .await;
    assert_eq!(living(&pids), 2 * TASKS, "the tasks go on");
    let open = fs::read_dir(temporary.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    assert_eq!(files(&open.path()), transcripts);

    lab.signal("TERM").await;
    assert_eq!(lab.ended().await.code(), Some(0));
    assert_eq!(living(&pids), 0);
    assert_eq!(files(temporary.path()), 0);
}

#[tokio::test]
async fn a_controller_that_leaves_its_tasks_behind_leaves_nothing_else() {
    let mut direct = Direct::start().await;
    let pid = direct.program.id().unwrap();
    let mut stays = direct.client_of(&scope()).await;
    stays.mode(&scope(), "unrestricted").await;
    stays.say(&scope(), &tasks()).await;
    stays.finished().await;
    let pids = written(&direct.work.path().join("pids")).await;
    let before = (held(pid), sockets(pid));
    for _ in 0..3 {
        let mut client = direct.client_of(&scope()).await;
        // One ends with a farewell, the next is gone in the middle of a call.
        client.say(&scope(), &bash("true")).await;
        client.leave().await;
        let gone = direct.client_of(&scope()).await;
        drop(gone);
    }
    until("what was held before", || {
        (held(pid) == before.0 && sockets(pid) <= before.1).then_some(())
    })
    .await;
    assert_eq!(living(&pids), 2 * TASKS, "the tasks go on");
    drop(stays);
    kill("TERM", pid).await;
    assert_eq!(direct.program.wait().await.unwrap().code(), Some(0));
    assert_eq!(living(&pids), 0);
}
