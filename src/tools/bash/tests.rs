use std::time::Instant;

use serde_json::json;

use super::*;
use crate::events::Injected;
use crate::process::output_file::FILE_LIMIT;
use crate::tools::tests::{Bench, args, text_of};
use crate::tools::tool::Progress;
use crate::tools::{AgentSecrets, ToolReturn};

async fn bash(bench: &Bench, arguments: Value) -> ToolOutcome {
    bench.run(&Bash::default(), args(arguments)).await
}

/// Bash that waits only a moment in the foreground.
fn hasty() -> Bash {
    Bash {
        foreground: Duration::from_millis(200),
    }
}

fn output_file(text: &str) -> &str {
    text.split("Output file: ")
        .nth(1)
        .unwrap()
        .lines()
        .next()
        .unwrap()
}

#[tokio::test]
async fn both_streams_are_one_part() {
    let bench = Bench::new();
    let outcome = bash(&bench, json!({"command": "echo hi; echo err >&2"})).await;
    assert_eq!(outcome.status, Status::Success);
    let part = json!({"type": "text", "text": "hi\n\nerr\n"});
    assert_eq!(outcome.tool_return, ToolReturn::Parts(vec![part]));
    assert!(
        !bench.dir.path().join("scratch").exists(),
        "no file for a short command"
    );
    bench.context.processes.shutdown().await;
}

#[tokio::test]
async fn failures_say_how_the_command_ended() {
    let bench = Bench::new();
    for (command, text) in [
        ("exit 3", "Exit code: 3\n(Command completed with no output)"),
        (
            "kill -9 $$",
            "Terminated by signal before exiting\n(Command completed with no output)",
        ),
        ("echo out; exit 1", "Exit code: 1\nout\n"),
    ] {
        let outcome = bash(&bench, json!({"command": command})).await;
        assert_eq!(
            (text_of(&outcome).as_str(), outcome.status),
            (text, Status::Error)
        );
    }
    let outcome = bash(&bench, json!({"command": "true"})).await;
    assert_eq!(text_of(&outcome), "(Command completed with no output)");
}

#[tokio::test]
async fn a_timeout_ends_the_group_and_shows_what_came() {
    let bench = Bench::new();
    let begun = Instant::now();
    let outcome = bash(
        &bench,
        json!({"command": "echo x; sleep 30 & sleep 30", "timeout": "300"}),
    )
    .await;
    assert_eq!(text_of(&outcome), "Command timed out after 300ms\nx\n");
    assert!(begun.elapsed() < Duration::from_millis(2500));
}

#[tokio::test]
async fn a_child_that_ignores_sigterm_is_killed() {
    let bench = Bench::new();
    let begun = Instant::now();
    let outcome = bash(
        &bench,
        json!({"command": "trap '' TERM; while :; do sleep 0.1; done", "timeout": 100}),
    )
    .await;
    assert!(text_of(&outcome).starts_with("Command timed out after 100ms\n"));
    let elapsed = begun.elapsed();
    assert!(
        elapsed >= Duration::from_millis(2050) && elapsed < Duration::from_millis(3500),
        "{elapsed:?}"
    );
}

#[tokio::test]
async fn an_abort_says_exactly_that() {
    let bench = Bench::new();
    let cancel = bench.cancel.clone();
    let (outcome, ()) = tokio::join!(
        bash(&bench, json!({"command": "echo x; exec sleep 30"})),
        async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            cancel.cancel();
        }
    );
    assert_eq!(outcome, ToolOutcome::error("Interrupted by user"));
}

#[tokio::test]
async fn a_leftover_child_does_not_keep_the_command_running() {
    let bench = Bench::new();
    let begun = Instant::now();
    let outcome = bash(
        &bench,
        json!({"command": "(sleep 3; echo late) & echo now"}),
    )
    .await;
    assert_eq!(text_of(&outcome), "now\n");
    let elapsed = begun.elapsed();
    assert!(
        elapsed >= Duration::from_secs(1) && elapsed < Duration::from_millis(2500),
        "{elapsed:?}"
    );
    bench.context.processes.shutdown().await;
}

#[tokio::test]
async fn long_output_goes_to_a_file() {
    let bench = Bench::new();
    let outcome = bash(&bench, json!({"command": "seq 1 20000"})).await;
    let text = text_of(&outcome);
    assert!(text.contains(
        "\n\n[Output truncated: showing 2,000 of 108,894 characters.]\n[Full output written to: "
    ));
    let file = text
        .split("written to: ")
        .nth(1)
        .unwrap()
        .trim_end_matches(']');
    let whole = std::fs::read_to_string(file).unwrap();
    assert_eq!(whole.lines().count(), 20_000);
    let outcome = bash(&bench, json!({"command": "seq 1 20000; exit 1"})).await;
    let text = text_of(&outcome);
    assert!(text.starts_with(&format!(
        "Exit code: 1\n{}\n... [98,894 characters omitted] ...\n{}\n\n",
        &whole[..5000],
        &whole[whole.len() - 5000..]
    )));
}

#[tokio::test]
async fn sixty_four_mebibytes_stay_bounded_on_disk_and_are_counted_in_full() {
    let bench = Bench::new();
    let bytes = 70 * 1024 * 1024;
    // However slow the machine: this is about size, not about time.
    let patient = Bash {
        foreground: Duration::from_secs(110),
    };
    let arguments = json!({"command": format!("head -c {bytes} /dev/zero | tr '\\0' x")});
    let outcome = bench.run(&patient, args(arguments)).await;
    let text = text_of(&outcome);
    assert!(
        text.contains("showing 2,000 of 73,400,320 characters."),
        "{}",
        &text[2000..]
    );
    let file = text
        .split("written to: ")
        .nth(1)
        .unwrap()
        .trim_end_matches(']');
    let length = std::fs::metadata(file).unwrap().len();
    assert!((FILE_LIMIT..FILE_LIMIT + 100).contains(&length));
    bench.context.processes.shutdown().await;
    let scratch = bench.dir.path().join("scratch");
    assert_eq!(
        std::fs::read_dir(scratch).unwrap().count(),
        0,
        "the transcript goes with the command"
    );
}

#[tokio::test]
async fn a_slow_command_goes_on_in_the_background_and_notifies_once() {
    let mut bench = Bench::new();
    let begun = json!({"command": "echo early; sleep 0.5; echo late; sleep 0.1; echo e >&2", "description": "Slow <one>"});
    let outcome = bench.run(&hasty(), args(begun)).await;
    let text = text_of(&outcome);
    assert!(
        text.starts_with("Command is still running with task ID: bash_1\nOutput file: "),
        "{text}"
    );
    assert_eq!(outcome.status, Status::Success);
    let running = bench.context.processes.listing(&bench.context.scope);
    assert_eq!(running.len(), 1);
    assert_eq!(
        (&running[0]["process_id"], &running[0]["status"]),
        (&json!("bash_1"), &json!("running"))
    );
    let list = text_of(&bash(&bench, json!({"command": "/bg"})).await);
    assert!(
        list.starts_with("bash_1: echo early;") && list.ends_with("(running, runtime: 0s)"),
        "{list}"
    );

    let news = bench.notification().await;
    assert!(news.starts_with(
        "<task-notification>\n<task-id>bash_1</task-id>\n<status>completed</status>\n\
         <summary>Background command \"Slow &lt;one&gt;\" completed</summary>\n<result>$ echo early;"
    ));
    assert!(news.contains(
        "\n\nExit code: 0\n\n[stdout]\nearly\nlate\n\n[stderr]\ne</result>\n<usage>duration_ms: "
    ));
    assert!(news.ends_with(&format!(
        "Full transcript available at: {}",
        output_file(&text)
    )));
    assert_eq!(
        std::fs::read_to_string(output_file(&text)).unwrap(),
        "early\nlate\n[stderr] e\n\n[exit code: 0]\n"
    );
    assert_eq!(
        bench.news.recv().await.unwrap().1,
        Injected::BackgroundChanged
    );
    assert!(bench.news.try_recv().is_err());
    assert!(
        bench
            .context
            .processes
            .listing(&bench.context.scope)
            .is_empty()
    );
}

#[tokio::test]
async fn a_background_command_returns_at_once_and_outlives_the_turn() {
    use std::os::unix::fs::PermissionsExt;
    let mut bench = Bench::new();
    let outcome = bash(
        &bench,
        json!({"command": "sleep 0.2; exit 4", "run_in_background": true, "timeout": 0}),
    )
    .await;
    let text = text_of(&outcome);
    assert!(text.starts_with("Command running in background with ID: bash_1\nOutput file: "));
    let file = std::path::PathBuf::from(output_file(&text));
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    bench.cancel.cancel();
    let news = bench.notification().await;
    assert!(
        news.contains("<status>failed</status>") && news.contains("Exit code: 4\n\n(no output)"),
        "{news}"
    );
}

#[tokio::test]
async fn an_aborted_turn_ends_the_command_it_left_running() {
    let mut bench = Bench::new();
    bench
        .run(&hasty(), args(json!({"command": "sleep 30"})))
        .await;
    bench.cancel.cancel();
    let news = bench.notification().await;
    assert!(
        news.contains("<status>failed</status>")
            && news.contains("Error: The operation was aborted")
    );
}

#[tokio::test]
async fn secrets_reach_the_command_and_show_nowhere() {
    let mut bench = Bench::new();
    bench.context.secrets = AgentSecrets(Arc::new(
        [("TOKEN", "hunter2"), ("OTHER", "unseen")]
            .map(|(name, value)| (name.into(), value.into()))
            .into(),
    ));
    let outcome = bash(
        &bench,
        json!({"command": "printf hun; printf ter2; echo; echo $TOKEN >&2; env | grep -c ^OTHER"}),
    )
    .await;
    assert_eq!(
        text_of(&outcome),
        "Exit code: 1\nTOKEN=<REDACTED>\n0\n\nTOKEN=<REDACTED>\n"
    );
    let mut seen = String::new();
    while let Ok((_, progress)) = bench.progress.try_recv() {
        if let Progress::Stdout(text) | Progress::Stderr(text) = progress {
            seen.push_str(&text);
        }
    }
    assert!(
        seen.contains("TOKEN=<REDACTED>") && !seen.contains("hunter2"),
        "{seen}"
    );
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_kernel_takes_children_before_the_listener() {
    let bench = Bench::new();
    let own: i32 = std::fs::read_to_string("/proc/self/oom_score_adj")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let outcome = bash(
        &bench,
        json!({"command": "sleep 0.1; cat /proc/$$/oom_score_adj"}),
    )
    .await;
    let child: i32 = text_of(&outcome).trim().parse().unwrap();
    assert_eq!(child, own.max(500));
}

#[tokio::test]
async fn escape_sequences_are_taken_out() {
    let bench = Bench::new();
    let outcome = bash(&bench, json!({"command": "printf '\\033[31mred\\033[0m'"})).await;
    assert_eq!(text_of(&outcome), "red");
}

#[tokio::test]
async fn a_lost_directory_is_told_once() {
    let bench = Bench::with_variables(&[("USER_CWD", "/")]);
    let lost = bench.context.cwd.get();
    std::fs::remove_dir(&lost).unwrap();
    let outcome = bash(&bench, json!({"command": "pwd"})).await;
    let note = format!(
        "Note: working directory {} no longer exists; running in / instead.\n",
        lost.display()
    );
    assert_eq!(text_of(&outcome), note + "/\n");
    assert_eq!(
        text_of(&bash(&bench, json!({"command": "pwd"})).await),
        "/\n"
    );
}

#[tokio::test]
async fn the_thirty_third_command_is_refused_and_shutdown_leaves_nothing() {
    let bench = Bench::new();
    let mut groups = Vec::new();
    for _ in 0..32 {
        let outcome = bash(
            &bench,
            json!({"command": "trap '' TERM; sleep 60 & sleep 60", "run_in_background": true}),
        )
        .await;
        assert_eq!(outcome.status, Status::Success);
    }
    for task in bench.context.processes.in_background(&bench.context.scope) {
        groups.push(task.session().group().unwrap());
    }
    let refused = bash(&bench, json!({"command": "true"})).await;
    assert_eq!(
        text_of(&refused),
        "Too many background processes already running (32/32). Stop one before starting another."
    );
    bench.context.processes.shutdown().await;
    assert_eq!(groups.len(), 32);
    for group in groups {
        assert!(
            !has_living_member(group.id()),
            "group {} lives on",
            group.id()
        );
    }
    let late = bash(&bench, json!({"command": "true"})).await;
    assert_eq!(late.status, Status::Error);
}

/// Whether a process that is no zombie belongs to the group.
fn has_living_member(group: i32) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else {
            return false;
        };
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        fields.len() > 2 && fields[0] != "Z" && fields[2] == group.to_string()
    })
}

#[tokio::test]
async fn a_missing_command_is_named() {
    let bench = Bench::new();
    let outcome = bash(&bench, json!({"description": "x"})).await;
    assert_eq!(
        outcome,
        ToolOutcome::error(
            "Bash tool missing required parameter: command. Received parameters: description"
        )
    );
    for (given, error) in [
        (
            json!({"command": 5}),
            "Bash: Parameter 'command' must be a string, received integer",
        ),
        (
            json!({"command": "true", "timeout": "soon"}),
            "Bash: Parameter 'timeout' must be a number, received string",
        ),
    ] {
        assert_eq!(bash(&bench, given).await, ToolOutcome::error(error));
    }
}

#[tokio::test]
async fn a_shell_that_cannot_start_is_an_error_for_the_model() {
    let bench = Bench::new();
    let outcome = bash(&bench, json!({"command": "echo \u{0}"})).await;
    let text = text_of(&outcome);
    assert!(
        text.starts_with("Error: Failed to execute command: ")
            && text.ends_with("\n(Command completed with no output)"),
        "{text}"
    );
}
