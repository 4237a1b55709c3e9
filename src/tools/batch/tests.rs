use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::sync::Barrier;

use super::*;
use crate::tools::tests::{Bench, Fake, args, text_of};
use crate::tools::toolset::{Preset, Selection};
use crate::tools::{Status, Tool, Toolbox};

fn turn(tools: Vec<Fake>) -> TurnTools {
    let tools = tools
        .into_iter()
        .map(|tool| Arc::new(tool) as Arc<dyn Tool>)
        .collect();
    Toolbox::new([])
        .for_turn(&Selection::preset(Preset::None), tools)
        .unwrap()
}

/// A tool that notes when it begins and ends, and takes `millis`.
fn noting(name: &'static str, lane: Lane, millis: u64, log: &Arc<Mutex<Vec<String>>>) -> Fake {
    let log = Arc::clone(log);
    Fake::acting(name, lane, move |call| {
        let log = Arc::clone(&log);
        Box::pin(async move {
            log.lock().unwrap().push(format!("{}+", call.id));
            tokio::time::sleep(Duration::from_millis(millis)).await;
            log.lock().unwrap().push(format!("{}-", call.id));
            ToolOutcome::text(&*call.id)
        })
    })
}

fn call(bench: &Bench, id: &str, name: &str, arguments: Value) -> ToolCall {
    ToolCall {
        id: id.into(),
        ..bench.call(name, args(arguments))
    }
}

#[tokio::test]
async fn parallel_calls_and_the_global_lane_run_beside_each_other() {
    let bench = Bench::new();
    let barrier = Arc::new(Barrier::new(3));
    let meet = |name, lane| {
        let barrier = Arc::clone(&barrier);
        Fake::acting(name, lane, move |call| {
            let barrier = Arc::clone(&barrier);
            Box::pin(async move {
                barrier.wait().await;
                ToolOutcome::text(&*call.id)
            })
        })
    };
    let turn = turn(vec![
        meet("Read", Lane::Parallel),
        meet("Bash", Lane::Global),
    ]);
    let calls = [("1", "Read"), ("2", "Bash"), ("3", "Read")]
        .map(|(id, name)| call(&bench, id, name, json!({})));
    let outcomes = turn.run_batch(&calls, &bench.context).await;
    assert_eq!(
        outcomes.iter().map(text_of).collect::<Vec<_>>(),
        ["1", "2", "3"]
    );
}

#[tokio::test(start_paused = true)]
async fn one_file_and_the_global_lane_are_serial_in_decision_order() {
    let bench = Bench::new();
    let log = Arc::default();
    let turn = turn(vec![
        noting("Edit", Lane::PerFile, 20, &log),
        noting("Bash", Lane::Global, 15, &log),
    ]);
    let cwd = bench.context.cwd.get();
    let absolute = cwd.join("sub/../a");
    let calls = [
        call(&bench, "e1", "Edit", json!({"file_path": "a"})),
        call(&bench, "b1", "Bash", json!({})),
        call(&bench, "e2", "Edit", json!({"file_path": absolute})),
        call(&bench, "b2", "Edit", json!({})),
        call(&bench, "e3", "Edit", json!({"file_path": "~/a"})),
    ];
    let outcomes = turn.run_batch(&calls, &bench.context).await;
    assert_eq!(
        outcomes.iter().map(text_of).collect::<Vec<_>>(),
        ["e1", "b1", "e2", "b2", "e3"]
    );
    let log: Vec<String> = log.lock().unwrap().clone();
    assert_eq!(
        log,
        [
            "e1+", "b1+", "e3+", "b1-", "b2+", "e1-", "e2+", "e3-", "b2-", "e2-"
        ]
    );
}

#[tokio::test]
async fn an_unknown_name_lists_what_there_is() {
    let bench = Bench::new();
    let turn = turn(vec![Fake::new("a"), Fake::new("b")]);
    let outcomes = turn
        .run_batch(&[bench.call("Nope", args(json!({})))], &bench.context)
        .await;
    assert_eq!(
        outcomes,
        [ToolOutcome::error(
            "Tool not found: Nope. Available tools: a, b"
        )]
    );
}

#[tokio::test]
async fn nothing_starts_after_an_abort() {
    let bench = Bench::new();
    let log = Arc::default();
    let turn = turn(vec![noting("a", Lane::Global, 1, &log)]);
    bench.cancel.cancel();
    let outcomes = turn
        .run_batch(&[bench.call("a", args(json!({})))], &bench.context)
        .await;
    assert_eq!(outcomes, [ToolOutcome::error("Interrupted by user")]);
    assert!(log.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_ignores_an_abort_is_left_behind() {
    let bench = Bench::new();
    let cancel = bench.cancel.clone();
    let deaf = Fake::acting("deaf", Lane::Global, move |_| {
        cancel.cancel();
        Box::pin(std::future::pending())
    });
    let outcomes = turn(vec![deaf])
        .run_batch(&[bench.call("deaf", args(json!({})))], &bench.context)
        .await;
    assert_eq!(outcomes, [ToolOutcome::interrupted()]);
}

#[tokio::test]
async fn long_texts_are_clamped_and_kept_in_a_file() {
    let bench = Bench::new();
    let long = Fake::acting("Long", Lane::Global, |_| {
        Box::pin(async { ToolOutcome::part("é".repeat(40_000), Status::Success) })
    });
    let outcomes = turn(vec![long])
        .run_batch(&[bench.call("Long", args(json!({})))], &bench.context)
        .await;
    let text = text_of(&outcomes[0]);
    assert!(text.starts_with(&"é".repeat(16_000)));
    assert!(text.contains("\n... [8,000 characters omitted] ...\né"));
    let file = text
        .split("[Full output written to: ")
        .nth(1)
        .unwrap()
        .trim_end_matches(']');
    assert!(file.contains("/agent-tools/long-"));
    assert_eq!(std::fs::read_to_string(file).unwrap(), "é".repeat(40_000));
}
