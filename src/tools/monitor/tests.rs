//! Commands that are watched, and what is refused before anything starts.

mod sockets;

use serde_json::json;

use super::*;
use crate::events::Injected;
use crate::tools::tests::{Bench, args, text_of};

fn monitor() -> Monitor {
    Monitor::new(crate::api::tests::net().upgrade())
}

async fn started(bench: &Bench, more: Value) -> String {
    let mut all = json!({"description": "The <log>"});
    all.as_object_mut().unwrap().extend(args(more));
    let outcome = bench.run(&monitor(), args(all)).await;
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
    let id = started(
        &bench,
        json!({"command": "echo a; exec sleep 600", "persistent": true, "timeout_ms": 9_999_999}),
    )
    .await;
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
    let one = "Monitor requires exactly one of command or ws";
    let times = "Monitor timeout_ms must be between 1000 and 3600000";
    let ws = json!({"url": "ws://127.0.0.1:9/?token=s3cret"});
    for (given, expected) in [
        (
            json!({"command": "true"}),
            "Monitor description is required",
        ),
        (
            json!({"description": " ", "command": "true"}),
            "Monitor description is required",
        ),
        (
            json!({"description": 7, "command": "true"}),
            "Monitor description is required",
        ),
        (json!({"description": "d"}), one),
        (json!({"description": "d", "command": "", "ws": null}), one),
        (json!({"description": "d", "command": " "}), one),
        (json!({"description": "d", "command": " ", "ws": ws}), one),
        (
            json!({"description": "d", "command": "true", "ws": ws}),
            one,
        ),
        (
            json!({"description": "d", "command": "", "ws": {"url": ""}}),
            one,
        ),
        (
            json!({"description": "d", "command": "a\u{1b}[8m"}),
            "Monitor command contains control characters that the user could not see when asked to approve it",
        ),
        (
            json!({"description": "d", "command": "true", "timeout_ms": 999}),
            times,
        ),
        (
            json!({"description": "d", "ws": ws, "persistent": true, "timeout_ms": 999}),
            times,
        ),
        (
            json!({"description": "d", "command": "true", "timeout_ms": 3_600_001}),
            times,
        ),
        (
            json!({"description": "d", "ws": ws, "timeout_ms": 3_600_001}),
            times,
        ),
        (
            json!({"description": "d", "ws": ws, "timeout_ms": "soon"}),
            times,
        ),
        (
            json!({"description": "d", "command": "true", "persistent": 7}),
            "Monitor persistent must be a boolean",
        ),
        (
            json!({"description": "d", "command": 7}),
            "Monitor command must be a string",
        ),
        (
            json!({"description": "d", "command": 7, "ws": ws}),
            "Monitor command must be a string",
        ),
        (
            json!({"description": "d", "ws": [ws]}),
            "Monitor ws must be an object",
        ),
        (
            json!({"description": "d", "ws": {"url": "wss://me:s3cret@h"}}),
            "Monitor ws.url must be an ASCII ws:// or wss:// URL with no embedded credentials or whitespace",
        ),
    ] {
        let outcome = bench.run(&monitor(), args(given)).await;
        assert_eq!(outcome.status, Status::Error);
        assert_eq!(text_of(&outcome), expected);
    }
    assert!(
        bench
            .context
            .processes
            .listing(&bench.context.scope)
            .is_empty()
    );
}
