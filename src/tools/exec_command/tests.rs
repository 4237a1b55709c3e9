use std::time::Duration;

use super::*;
use crate::tools::tests::{Bench, args, text_of};
use crate::tools::tool::Progress;
use crate::tools::write_stdin::WriteStdin;
use crate::tools::{AgentSecrets, Status};

async fn exec(bench: &Bench, arguments: Value) -> String {
    let outcome = bench.run(&ExecCommand, args(arguments)).await;
    assert_eq!(outcome.status, Status::Success, "{outcome:?}");
    text_of(&outcome)
}

async fn write(bench: &Bench, arguments: Value) -> String {
    text_of(&bench.run(&WriteStdin, args(arguments)).await)
}

fn output(report: &str) -> &str {
    report.split("\nOutput:\n").nth(1).unwrap()
}

#[tokio::test]
async fn a_short_command_is_reported_in_the_fixed_format_and_forgotten() {
    let bench = Bench::new();
    let report = exec(&bench, json!({"cmd": "echo hi; echo err >&2; exit 4"})).await;
    let lines: Vec<&str> = report.lines().collect();
    let id = lines[0].strip_prefix("Chunk ID: ").unwrap();
    assert!(id.len() == 6 && id.chars().all(|digit| digit.is_ascii_hexdigit()));
    let seconds = lines[1]
        .strip_prefix("Wall time: ")
        .unwrap()
        .strip_suffix(" seconds")
        .unwrap();
    assert_eq!(seconds.split('.').nth(1).unwrap().len(), 4);
    assert_eq!(lines[2], "Process exited with code 4");
    assert_eq!(lines[3], "Original token count: 2");
    let mut printed: Vec<&str> = output(&report).lines().collect();
    printed.sort_unstable();
    assert_eq!(printed, ["err", "hi"]);
    assert_eq!(
        write(&bench, json!({"session_id": 1})).await,
        "Unknown process id 1"
    );
}

#[tokio::test]
async fn a_yielded_session_is_polled_to_its_end_and_then_unknown() {
    let mut bench = Bench::new();
    let report = exec(
        &bench,
        json!({"cmd": "echo one; sleep 0.6; echo two", "yield_time_ms": 250}),
    )
    .await;
    assert!(report.contains("\nProcess running with session ID 1\n") && !report.contains("exited"));
    assert_eq!(output(&report), "one\n");
    let report = write(&bench, json!({"session_id": "1"})).await;
    assert!(
        report.contains("\nProcess exited with code 0\n") && !report.contains("running"),
        "{report}"
    );
    assert_eq!(output(&report), "two\n");
    assert_eq!(
        write(&bench, json!({"session_id": 1})).await,
        "Unknown process id 1"
    );
    // The poll told of the end; changes of what runs are all that is heard.
    bench.context.processes.shutdown().await;
    while let Ok((_, news)) = bench.news.try_recv() {
        assert_eq!(news, crate::events::Injected::BackgroundChanged);
    }
}

#[tokio::test]
async fn a_session_that_nobody_polls_notifies_once() {
    let mut bench = Bench::new();
    exec(&bench, json!({"cmd": "echo one; sleep 0.5; echo two; exit 2", "description": "Wait", "yield_time_ms": 250})).await;
    let news = bench.notification().await;
    assert!(news.starts_with(
        "<task-notification>\n<task-id>exec_1</task-id>\n<status>failed</status>\n\
         <summary>Exec command \"Wait\" failed</summary>\n\
         <result>$ echo one; sleep 0.5; echo two; exit 2\n\nSession ID: 1\n\nExit code: 2\n\ntwo\n</result>\n"
    ), "{news}");
    let transcript = news.split("available at: ").nth(1).unwrap();
    assert!(transcript.ends_with("/exec_1.log"));
    assert_eq!(std::fs::read_to_string(transcript).unwrap(), "one\ntwo\n");
}

#[tokio::test]
async fn a_terminal_echoes_what_is_typed_and_ctrl_c_interrupts() {
    let bench = Bench::new();
    let report = exec(
        &bench,
        json!({"cmd": "stty size; echo $COLORTERM; exec cat", "tty": true, "yield_time_ms": 300}),
    )
    .await;
    assert_eq!(output(&report), "24 80\r\ntruecolor\r\n");
    let report = write(&bench, json!({"session_id": 1, "chars": "hello\n"})).await;
    assert_eq!(output(&report), "hello\r\nhello\r\n");
    let report = write(
        &bench,
        json!({"session_id": 1, "chars": "\u{3}", "yield_time_ms": 5000}),
    )
    .await;
    assert!(!report.contains("running"), "{report}");
    assert_eq!(
        write(&bench, json!({"session_id": 1})).await,
        "Unknown process id 1"
    );
}

#[tokio::test]
async fn input_far_beyond_the_terminals_buffer_does_not_block_the_output() {
    let bench = Bench::new();
    exec(
        &bench,
        json!({"cmd": "stty -echo; exec cat", "tty": true, "yield_time_ms": 250}),
    )
    .await;
    let lines = format!("{}\n", "y".repeat(99)).repeat(1000);
    let report = write(
        &bench,
        json!({"session_id": 1, "chars": lines, "yield_time_ms": 1500}),
    )
    .await;
    assert!(
        report.contains("of 101,000 characters."),
        "{}",
        &report[..200]
    );
    bench.context.processes.shutdown().await;
}

#[tokio::test]
async fn stopping_a_terminal_ends_the_jobs_of_its_shell() {
    let bench = Bench::new();
    let cmd = "set -m; sleep 61 & echo $!; wait";
    let report = exec(
        &bench,
        json!({"cmd": cmd, "tty": true, "yield_time_ms": 300}),
    )
    .await;
    let job: u32 = output(&report).trim().parse().unwrap();
    let task = bench
        .context
        .processes
        .find(&bench.context.scope, "1")
        .unwrap();
    let group = std::fs::read_to_string(format!("/proc/{job}/stat")).unwrap();
    assert!(!group.contains(&format!(
        " {} {} ",
        task.session().group().unwrap().id(),
        task.session().group().unwrap().id()
    )));
    bench.context.processes.shutdown().await;
    let state = std::fs::read_to_string(format!("/proc/{job}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
}

#[tokio::test]
async fn pipe_sessions_take_no_input_but_an_interrupt() {
    let bench = Bench::new();
    let cmd = "trap 'echo caught; exit 9' INT; while :; do sleep 0.05; done";
    exec(&bench, json!({"cmd": cmd, "yield_time_ms": 250})).await;
    assert_eq!(
        write(&bench, json!({"session_id": 1, "chars": "x"})).await,
        "stdin is closed for this session; rerun exec_command with tty=true to keep stdin open"
    );
    let report = write(
        &bench,
        json!({"session_id": 1, "chars": "\u{3}", "yield_time_ms": 5000}),
    )
    .await;
    assert!(report.contains("Process exited with code 9"), "{report}");
    assert_eq!(output(&report), "caught\n");
}

#[tokio::test]
async fn an_abort_while_waiting_ends_the_command() {
    let bench = Bench::new();
    let cancel = bench.cancel.clone();
    let (outcome, ()) = tokio::join!(
        bench.run(&ExecCommand, args(json!({"cmd": "sleep 30"}))),
        async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            cancel.cancel();
        }
    );
    assert_eq!(outcome, ToolOutcome::error("Interrupted by user"));
    assert_eq!(
        write(&bench, json!({"session_id": 1})).await,
        "Unknown process id 1"
    );
}

#[tokio::test]
async fn an_aborted_poll_leaves_the_session_alone() {
    let mut bench = Bench::new();
    exec(
        &bench,
        json!({"cmd": "sleep 0.6; echo done", "yield_time_ms": 250}),
    )
    .await;
    bench.cancel.cancel();
    assert_eq!(
        write(&bench, json!({"session_id": 1})).await,
        "Interrupted by user"
    );
    assert!(
        bench
            .notification()
            .await
            .contains("Exit code: 0\n\ndone\n")
    );
}

#[tokio::test]
async fn output_is_cut_to_the_asked_tokens_and_scrubbed_everywhere() {
    let mut bench = Bench::new();
    bench.context.secrets =
        AgentSecrets(Arc::new([("KEY".to_owned(), "s3cr3t".to_owned())].into()));
    let report = exec(
        &bench,
        json!({"cmd": "echo $KEY; seq 1 5000", "max_output_tokens": "100"}),
    )
    .await;
    assert!(output(&report).starts_with("KEY=<REDACTED>\n1\n"));
    assert!(report.contains(
        "\n\n[Output truncated: showing 400 of 23,908 characters.]\n[Full output written to: "
    ));
    let file = report
        .split("written to: ")
        .nth(1)
        .unwrap()
        .trim_end_matches(']');
    assert!(file.contains("/agent-tools/exec_command-"));
    assert!(
        std::fs::read_to_string(file)
            .unwrap()
            .starts_with("KEY=<REDACTED>\n1\n")
    );
    let seen: Vec<Progress> =
        std::iter::from_fn(|| bench.progress.try_recv().ok().map(|(_, seen)| seen)).collect();
    assert!(!seen.is_empty() && !format!("{seen:?}").contains("s3cr3t"));
}

#[tokio::test]
async fn the_directory_and_the_shell_can_be_chosen() {
    let bench = Bench::new();
    std::fs::create_dir(bench.context.cwd.get().join("sub")).unwrap();
    let report = exec(
        &bench,
        json!({"cmd": "pwd; echo $0", "workdir": "sub", "shell": "sh", "login": false}),
    )
    .await;
    assert_eq!(
        output(&report),
        format!("{}/sub\nsh\n", bench.context.cwd.get().display())
    );
    let report = exec(&bench, json!({"cmd": "pwd", "workdir": "nowhere"})).await;
    assert_eq!(
        output(&report),
        format!("{}\n", bench.context.cwd.get().display())
    );
    let outcome = bench
        .run(
            &ExecCommand,
            args(json!({"cmd": "x", "shell": "/nowhere/sh"})),
        )
        .await;
    assert_eq!(
        outcome,
        ToolOutcome::error("Executable not found: /nowhere/sh")
    );
    let outcome = bench.run(&ExecCommand, args(json!({"cmd": "  "}))).await;
    assert_eq!(
        outcome,
        ToolOutcome::error("cmd must be a non-empty string")
    );
}
