//! Monitor: a command in the background whose lines reach the conversation
//! as they come (04 §7.20). Watching a WebSocket is not offered.

use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;

use super::args::{Args, DRAFT_07, schema};
use super::shell_run;
use super::tool::{Status, Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome};
use crate::process::{About, Keep, Kind, Launch, Plan, monitor};

const DEFAULT_TIMEOUT_MS: i64 = 300_000;
const TIMEOUT_MS: std::ops::RangeInclusive<i64> = 1_000..=3_600_000;

const DESCRIPTION: &str = "\
Starts a command in the background and tells you of every line that it prints, each as a notification, while you go on with other work. Use it for something that happens more than once: errors in a growing log, the steps of a deployment, files that appear. For one notification when a command ends, use a background command instead.

- Each line of standard output is an event; lines within 200 ms are one event. Standard error goes to the output file only; add 2>&1 to hear it.
- Print only lines that call for action: filter in the command, and let the filter flush each line (grep --line-buffered, awk with fflush(), python -u).
- Cover failure as well as success, or a crash looks like silence: grep -E 'ready|error|fatal', and let a loop end when what it watches is gone.
- Long lines and bursts are cut; a command that floods for half a minute is stopped.
- It ends with its command, after timeout_ms (default 300000, 1000 to 3600000), or by TaskStop; persistent: true removes the timeout.
- Never poll or sleep to wait for events. One that comes while you wait for the user is not the user's answer.";

static PARAMETERS: LazyLock<Value> = LazyLock::new(|| {
    schema(
        r#"{
    "command": {"type": "string", "description": "The command to watch"},
    "description": {"type": "string", "description": "What is watched, in a few words. It heads every notification."},
    "timeout_ms": {"type": "number", "description": "Milliseconds until it is stopped, 300000 if not given"},
    "persistent": {"type": "boolean", "description": "No timeout: it runs until TaskStop"}
}"#,
        &["command", "description"],
        DRAFT_07,
    )
});

/// The tool.
#[derive(Debug, Default)]
pub struct Monitor;

impl Tool for Monitor {
    fn name(&self) -> &'static str {
        "Monitor"
    }

    fn description(&self) -> &str {
        DESCRIPTION
    }

    fn parameters(&self) -> &Value {
        &PARAMETERS
    }

    fn run<'a>(&'a self, call: &'a ToolCall, context: &'a ToolContext) -> ToolFuture<'a> {
        Box::pin(async move {
            match start(call, context).await {
                Ok(text) => ToolOutcome::part(text, Status::Success),
                Err(text) => ToolOutcome::error(text),
            }
        })
    }
}

async fn start(call: &ToolCall, context: &ToolContext) -> Result<String, String> {
    let args = Args::new("Monitor", &call.args);
    let text = |error: super::args::ArgError| error.to_string();
    let description = args.string("description").map_err(text)?.trim();
    if description.is_empty() {
        return Err("Monitor description is required".into());
    }
    let command = args.string("command").map_err(text)?;
    if command.trim().is_empty() {
        return Err("Monitor requires a command".into());
    }
    if command
        .chars()
        .any(|c| c.is_control() && !matches!(c, '\t' | '\n'))
    {
        return Err(
            "Monitor command contains control characters that the user could not see when asked to approve it".into(),
        );
    }
    let persistent = args.flag("persistent", false).map_err(text)?;
    let timeout_ms = args.opt_integer("timeout_ms").map_err(text)?;
    let timeout_ms = timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS);
    let (least, most) = (*TIMEOUT_MS.start(), *TIMEOUT_MS.end());
    if timeout_ms < least || timeout_ms > most && !persistent {
        return Err(format!(
            "Monitor timeout_ms must be between {least} and {most}"
        ));
    }

    let setting = shell_run::prepare(context, "monitor", command, None).await;
    let note = shell_run::lost_directory_note(context, &setting.cwd);
    let (live, heard) = monitor::listener();
    let about = About {
        kind: Kind::Monitor { persistent },
        command: command.to_owned(),
        description: Some(description.to_owned()),
        scope: context.scope.clone(),
    };
    let launch = Launch {
        argv: context.processes.shells().command_line(command, false),
        cwd: setting.cwd,
        env: setting.env,
        terminal: None,
    };
    let timeout = Duration::from_millis(timeout_ms.unsigned_abs());
    let plan = Plan {
        timeout: (!persistent).then_some(timeout),
        redactions: setting.redactions,
        annotate_log: true,
        live: Some(live),
        ..Plan::default()
    };
    let task = context.processes.register(about, launch, plan);
    let task = task.map_err(|error| error.to_string())?;
    shell_run::to_background(context, &task, Keep::Listener, Some(heard)).await?;
    let lifetime = if persistent {
        "persistent: it runs until TaskStop".to_owned()
    } else {
        format!("timeout {timeout_ms}ms")
    };
    Ok(format!(
        "{note}Monitor started (task {}, {lifetime}). Every event will be told to you: go on with other work, and do \
         not poll or sleep. An event that comes while you wait for the user is not the user's answer.\nOutput file: {}",
        task.id(),
        task.log().display()
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::events::Injected;
    use crate::tools::tests::{Bench, args, text_of};

    async fn started(bench: &Bench, more: Value) -> String {
        let mut all = json!({"description": "The <log>"});
        all.as_object_mut().unwrap().extend(args(more));
        let outcome = bench.run(&Monitor, args(all)).await;
        assert_eq!(outcome.status, Status::Success, "{outcome:?}");
        let text = text_of(&outcome);
        text.split(['(', ',']).nth(1).unwrap()["task ".len()..].to_owned()
    }

    #[tokio::test]
    async fn lines_become_events_and_the_end_is_told_once() {
        let mut bench = Bench::new();
        let id = started(
            &bench,
            json!({"command": "echo one; echo '<two>'; echo no >&2"}),
        )
        .await;
        assert!(id.starts_with("monitor_"), "{id}");
        assert_eq!(
            bench.notification().await,
            format!(
                "<task-notification>\n<task-id>{id}</task-id>\n\
                 <summary>Monitor event: \"The &lt;log&gt;\"</summary>\n\
                 <result>\n<event>one\n&lt;two&gt;</event>\n</result>\n</task-notification>"
            )
        );
        let end = bench.notification().await;
        assert!(end.contains("<status>completed</status>\n<summary>Monitor \"The &lt;log&gt;\" stream ended</summary>\n<result>Exit code: 0</result>"), "{end}");
        let log = end.rsplit_once("available at: ").unwrap().1;
        let log = std::fs::read_to_string(log).unwrap();
        assert!(
            log.contains("[stderr] no") && log.ends_with("\n[exit code: 0]\n"),
            "{log}"
        );
    }

    #[tokio::test]
    async fn a_silent_or_failing_end_is_named() {
        let mut bench = Bench::new();
        started(&bench, json!({"command": "true"})).await;
        assert!(
            bench
                .notification()
                .await
                .contains("\" ended without producing output (exit 0)<")
        );
        started(&bench, json!({"command": "exit 3"})).await;
        let end = bench.notification().await;
        assert!(
            end.contains("<status>failed</status>") && end.contains("\" script failed (exit 3)<"),
            "{end}"
        );
    }

    #[tokio::test]
    async fn a_timeout_is_one_event_and_no_end() {
        let mut bench = Bench::new();
        started(
            &bench,
            json!({"command": "exec sleep 600", "timeout_ms": 1000}),
        )
        .await;
        let event = bench.notification().await;
        assert!(
            event.contains("[Monitor timed out.") && !event.contains("<status>"),
            "{event}"
        );
        assert!(matches!(
            bench.news.recv().await.unwrap().1,
            Injected::BackgroundChanged
        ));
        assert!(bench.news.try_recv().is_err());
    }

    #[tokio::test]
    async fn it_is_listed_while_it_runs_and_a_person_stops_it_by_its_id() {
        let mut bench = Bench::new();
        let id = started(&bench, json!({"command": "echo a; exec sleep 600", "persistent": true, "timeout_ms": 9_999_999})).await;
        bench.notification().await;
        let processes = bench.context.processes.clone();
        let listed = processes.listing(&bench.context.scope).remove(0);
        assert_eq!(listed["kind"], "monitor");
        assert_eq!(listed["process_id"], id);
        assert_eq!(listed["source"], "command");
        assert_eq!(listed["persistent"], true);
        let conversation = bench.context.conversation.clone();
        let stop = |id: &str| processes.stop_monitor(&conversation, id, Some("user-1".into()));
        assert_eq!(stop("bash_1"), Err("Monitor not found"));
        let stranger = crate::events::ConversationHandle::new(
            crate::protocol::Scope::new(Some("agent-1"), Some("conv-2")),
            tokio::sync::mpsc::unbounded_channel().0,
        );
        assert_eq!(
            processes.stop_monitor(&stranger, &id, None),
            Err("Monitor does not belong to this conversation")
        );
        assert_eq!(stop(&id), Ok(true));
        let event = bench.notification().await;
        assert!(event.contains("The user stopped this monitor."), "{event}");
        assert!(matches!(
            bench.news.recv().await.unwrap().1,
            Injected::BackgroundChanged
        ));
        assert!(processes.listing(&bench.context.scope).is_empty());
        assert_eq!(stop(&id), Ok(false), "it has ended");
        assert!(bench.news.try_recv().is_err());
    }

    #[tokio::test]
    async fn what_cannot_be_watched_is_an_error_and_starts_nothing() {
        let bench = Bench::new();
        for (given, expected) in [
            (
                json!({"description": " ", "command": "true"}),
                "Monitor description is required",
            ),
            (
                json!({"description": "d", "command": " "}),
                "Monitor requires a command",
            ),
            (
                json!({"description": "d", "command": "a\u{1b}[8m"}),
                "control characters",
            ),
            (
                json!({"description": "d", "command": "true", "timeout_ms": 999}),
                "Monitor timeout_ms must be between 1000 and 3600000",
            ),
            (
                json!({"description": "d", "command": "true", "timeout_ms": 3_600_001}),
                "between 1000 and 3600000",
            ),
            (
                json!({"description": "d", "command": "true", "persistent": 7}),
                "'persistent' must be a boolean",
            ),
            (
                json!({"description": "d", "command": 7}),
                "'command' must be a string",
            ),
            (
                json!({"description": "d", "ws": {"url": "ws://x"}}),
                "missing required parameter: command",
            ),
        ] {
            let outcome = bench.run(&Monitor, args(given)).await;
            assert_eq!(outcome.status, Status::Error);
            assert!(text_of(&outcome).contains(expected), "{outcome:?}");
        }
        assert!(
            bench
                .context
                .processes
                .listing(&bench.context.scope)
                .is_empty()
        );
    }
}
