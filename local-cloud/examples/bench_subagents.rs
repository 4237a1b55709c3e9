//! Figures of subagents of a `letta` binary: from the call to the first
//! request, memory of one that waits for the model, input latency of the parent
//! while 32 run.
//!
//! `scripts/bench-subagents` builds and runs it; alone: `bench_subagents BINARY`.

#![expect(
    clippy::print_stdout,
    reason = "a benchmark reports to the person who started it"
)]

mod measured;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use local_cloud::{LocalCloud, Options, Scope};
use serde_json::json;

use self::measured::{pss, spread, start};

/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(60);
/// Starts that are measured one after the other.
const STARTS: usize = 31;
/// As many as may run.
const AT_ONCE: usize = 32;
/// Inputs while they run.
const INPUTS: usize = 50;
const SETTLE: Duration = Duration::from_secs(5);

// One thread, as in the program: two would wake each other at the cost of what is measured.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Some(binary) = std::env::args_os().nth(1).map(PathBuf::from) else {
        bail!("usage: bench_subagents BINARY");
    };
    let directory = std::env::temp_dir().join(format!("letta-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let measured = measure(&binary.canonicalize().context("the binary")?, &directory).await;
    std::fs::remove_dir_all(&directory).ok();
    measured
}

async fn measure(binary: &Path, home: &Path) -> Result<()> {
    let cloud = LocalCloud::start(Options::default()).await?;
    let listener = start(binary, &cloud, home)?;
    let device = cloud.wait_for_device(LIMIT).await?;
    let scope = Scope::new("agent-bench", "conv-bench");
    let mode = json!({"type": "change_device_state", "runtime": scope.runtime(),
        "payload": {"mode": "unrestricted"}});
    device.send(mode);
    cloud.turn(&scope, "SAY warm").await?;

    let mut first = Vec::new();
    for number in 0..STARTS {
        let mark = cloud.request_mark();
        let launched = launch(&device, &scope, "SAY done").await?;
        let (request, _) = cloud
            .wait_for_request_after(mark, |one| one.is("POST", "/v1/agents/"), LIMIT)
            .await?;
        first.push(request.at.into_std().duration_since(launched));
        let task = format!("<task-id>task_{}</task-id>", number + 1);
        let told = |one: &local_cloud::Recorded| String::from_utf8_lossy(&one.body).contains(&task);
        cloud.wait_for_request(told, LIMIT).await?;
    }
    println!("call to request   {}", spread(&mut first));

    let pid = listener.0.id();
    tokio::time::sleep(SETTLE).await;
    let before = pss(pid)?;
    for _ in 0..AT_ONCE {
        let mark = cloud.request_mark();
        launch(&device, &scope, "SLEEP 600\nSAY late").await?;
        let waits = |one: &local_cloud::Recorded| {
            one.path.ends_with("/default/messages")
                && String::from_utf8_lossy(&one.body).contains("SLEEP 600")
        };
        cloud.wait_for_request_after(mark, waits, LIMIT).await?;
    }
    tokio::time::sleep(SETTLE).await;
    let each = (pss(pid)?.saturating_sub(before)) / AT_ONCE as u64;
    println!(
        "memory            {before} KiB (PSS), {each} KiB more for each of {AT_ONCE} that wait"
    );

    let mut inputs = Vec::new();
    for number in 0..INPUTS {
        let input = json!({"type": "input", "request_id": format!("in-{number}"),
            "runtime": scope.runtime(), "payload": {"kind": "create_message", "messages":
                [{"role": "user", "content": "SAY yes", "client_message_id": format!("cm-{number}")}]}});
        let began = Instant::now();
        let answer = device.request(input, LIMIT).await?;
        ensure!(answer["accepted"] == true, "{answer}");
        inputs.push(began.elapsed());
    }
    println!("input while {AT_ONCE} run {}", spread(&mut inputs));
    drop(listener);
    cloud.stop().await;
    Ok(())
}

/// Asks for a subagent; when that was.
async fn launch(device: &local_cloud::Device, scope: &Scope, script: &str) -> Result<Instant> {
    let launch = json!({"type": "launch_subagent", "request_id": "launch", "runtime": scope.runtime(),
        "args": {"subagent_type": "general-purpose", "description": "Bench", "prompt": script}});
    let began = Instant::now();
    let answer = device.request(launch, LIMIT).await?;
    ensure!(answer["success"] == true, "{answer}");
    Ok(began)
}
