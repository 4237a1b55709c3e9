//! How long a decision takes: everyday calls and hostile 64 KiB commands.
//!
//! `cargo bench --bench decide` prints the best, the median and the worst of many
//! runs, in processor time: what else the machine does hardly counts.

#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a benchmark reports to the person who started it"
)]

use std::time::Duration;

use letta::permissions::{Context, LexicalDisk, ModeState, Request, Rules, decide};
use letta::protocol::PermissionMode;
use serde_json::json;

const SIZE: usize = 64 * 1024;

/// What this thread has used so far.
fn processor_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(now).expect("no thread runs for less than no time")
}

fn repeated(piece: &str) -> String {
    piece.repeat(SIZE / piece.len())
}

fn main() {
    let rules = Rules::merge(&[json!({"permissions": {
        "allow": ["Bash(npm run:*)", "Bash(make:*)", "Edit(src/**)"],
        "deny": ["Bash(rm:*)", "Read(.env*)", "Read(~/.ssh/**)"],
        "alwaysAsk": ["Bash(git push:*)"],
        "ask": ["Bash(git commit:*)"],
    }})]);
    let mut context = Context::new("/srv/app", "/home/you", &LexicalDisk);
    context.agents.agent = Some("agent-1".to_owned());
    let mode = ModeState::from(PermissionMode::Standard);

    let commands = [
        ("ls", "ls -la".to_owned()),
        ("chain", "cd sub && git log --oneline | head -5".to_owned()),
        ("64 KiB: one word", repeated("a")),
        ("64 KiB: words", format!("cat {}", repeated("a "))),
        ("64 KiB: commands", repeated("ls;")),
        ("64 KiB: quotes", format!("cat {}", repeated("'a' \"b\" "))),
        ("64 KiB: open quotes", format!("cat {}", repeated("\""))),
        ("64 KiB: substitutions", repeated("$(ls")),
        ("64 KiB: launchers", repeated("bash -c ")),
        ("64 KiB: env", repeated("env ")),
        ("64 KiB: sudo", repeated("sudo ")),
        (
            "64 KiB: loops",
            format!(
                "for f in {}; do {} done",
                repeated("a ").split_at(SIZE / 2).0,
                repeated("cat $f;").split_at(SIZE / 2).0
            ),
        ),
        ("64 KiB: git", format!("git log {}", repeated("a "))),
        ("64 KiB: here-documents", repeated("cat <<E\n")),
        ("64 KiB: backslashes", repeated("\\")),
        ("64 KiB: assignments", repeated("a=1;")),
        ("64 KiB: quoted assignments", repeated("a='x' y;")),
        ("64 KiB: hidden pieces", repeated("a='x' y rm;")),
        (
            "64 KiB: hidden words",
            format!("{}'a; rm'", repeated("sudo ")),
        ),
        ("64 KiB: near misses", repeated("a rm;")),
        ("64 KiB: preparing", repeated("cd;")),
        ("64 KiB: permitted", repeated("make a;")),
        (
            "64 KiB: permitted words",
            format!("make {}", repeated("'a' ")),
        ),
        ("64 KiB: flags", repeated("x-f ")),
        ("64 KiB: real flags", repeated("'a -f' ")),
        (
            "64 KiB: ands and blanks",
            format!(
                "{}{}",
                repeated("a&&").split_at(SIZE / 2).0,
                repeated(" ").split_at(SIZE / 2).0
            ),
        ),
        ("64 KiB: redirects", repeated("a>&1 ")),
        ("64 KiB: paths", repeated("/a ")),
        ("64 KiB: skill paths", repeated("/a/scripts/b ")),
        (
            "64 KiB: memory",
            format!(
                "cd /home/you/.letta/agents/agent-1/memory && cat <<'E' > a\n{}\nE",
                repeated("x\n")
            ),
        ),
        (
            "64 KiB: settings",
            format!(".letta/settings.json {}", repeated("echo a;")),
        ),
        ("64 KiB: parentheses", repeated("(a)")),
        ("64 KiB: exec", repeated("find -exec a ")),
        ("64 KiB: letters", repeated("é ")),
    ];
    // `cargo bench --bench decide -- WORD` runs those whose name holds the word.
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let chosen = commands.iter().filter(|(name, _)| {
        wanted
            .as_ref()
            .is_none_or(|word| name.contains(word.as_str()))
    });
    for (name, command) in chosen {
        let args = json!({ "command": command });
        let request = Request {
            tool: "Bash",
            args: args.as_object().expect("an object"),
        };
        let runs: usize = if command.len() > 1000 { 60 } else { 2000 };
        let mut times: Vec<Duration> = (0..runs)
            .map(|_| {
                let started = processor_time();
                std::hint::black_box(decide(&request, &rules, &mode, &context));
                processor_time() - started
            })
            .collect();
        times.sort_unstable();
        println!(
            "{name:<26} best {:>10.1?}   median {:>10.1?}   worst {:>10.1?}",
            times[0],
            times[runs / 2],
            times[runs - 1]
        );
    }
}
