//! Hooks that hang, flood, fork, say too much or are dropped.

use super::*;

#[tokio::test]
async fn a_hook_that_hangs_ends_with_its_time_and_takes_its_children_along() {
    let settings = json!({"PreToolUse": [{"hooks": [{"type": "command", "timeout": 300,
        "command": "trap '' TERM; sleep 300 & echo $! > pid; wait; sleep 300"}]}]});
    let bench = Bench::new(&settings);
    let started = Instant::now();
    assert_eq!(bench.before().await, unchanged());
    assert!(started.elapsed() >= Duration::from_millis(300));
    let pid = bench.file("pid").trim().to_owned();
    let gone = async {
        while is_alive(&pid) {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, gone)
        .await
        .expect("a child of the hook lives on");
    let settings = json!({"PostToolUse": [{"hooks": [{"type": "command", "timeout": 100, "command": "sleep 300"}]}]});
    let bench = Bench::new(&settings);
    assert_eq!(
        bench.after(true).await,
        ["Hook error: Hook timed out after 100ms"]
    );
}

fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

#[tokio::test]
async fn a_hook_that_floods_leaves_its_pipes_open_or_ignores_its_input_holds_nothing_up() {
    for command in [
        "head -c 20000000 /dev/zero",
        "head -c 20000000 /dev/zero >&2",
        "exec 0<&-; exit 0",
        "setsid sleep 300 & echo $! > pid; exit 0",
    ] {
        let bench = Bench::new(&on("PreToolUse", &[command]));
        let big = call("Write", json!({"content": "x".repeat(3_000_000)}));
        let site = bench.site();
        let run = bench.hooks.pre_tool_use(&site, &big);
        assert_eq!(
            timeout(SOON, run).await.expect(command),
            unchanged(),
            "{command}"
        );
        let pid = bench.file("pid");
        if !pid.is_empty() {
            let _ = std::process::Command::new("kill").arg(pid.trim()).status();
        }
    }
}

#[tokio::test]
async fn a_long_feedback_is_cut_and_kept_whole_in_a_file() {
    let bench = Bench::new(&on(
        "PostToolUse",
        &["head -c 40000 /dev/zero | tr '\\0' x >&2; exit 2"],
    ));
    let lines = bench.after(true).await;
    assert!(lines[0].len() < 2500, "{}", lines[0].len());
    let file = lines[0]
        .rsplit_once("written to: ")
        .unwrap()
        .1
        .trim_end_matches(']');
    assert!(file.contains("/agent-tools/hook-"), "{file}");
    assert!(std::fs::read_to_string(file).unwrap().matches('x').count() >= 40_000);
}

#[tokio::test]
async fn a_dropped_hook_dies_with_its_children() {
    let bench = Bench::new(&on(
        "PreToolUse",
        &["sleep 300 & echo $! > pid.new; mv pid.new pid; wait"],
    ));
    let event = call("Bash", json!({}));
    let (site, hooks) = (bench.site(), bench.hooks.clone());
    let run = tokio::spawn(async move { hooks.pre_tool_use(&site, &event).await });
    let started = async {
        while bench.file("pid").is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, started).await.unwrap();
    run.abort();
    let pid = bench.file("pid").trim().to_owned();
    let gone = async {
        while is_alive(&pid) {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, gone).await.expect("the hook lives on");
}
