//! Figures of a `letta` binary against a cloud in this process: start, memory,
//! turns. A turn is one user message, one `Bash` call and one final answer.
//!
//! `scripts/bench` builds and runs it; alone: `bench BINARY`.

#![expect(
    clippy::print_stdout,
    reason = "a benchmark reports to the person who started it"
)]

mod measured;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use local_cloud::{LocalCloud, Options, Scope};

use self::measured::{pss, spread, start};

/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(60);
/// How often a start is measured.
const STARTS: usize = 11;
/// Turns one after the other.
const SINGLE: usize = 100;
/// Conversations side by side, and the turns of each.
const SIDE_BY_SIDE: (usize, usize) = (8, 50);
/// The allocator gives back what the start needed meanwhile.
const SETTLE: Duration = Duration::from_secs(5);

const SCRIPT: &str =
    "CALL Bash {\"command\":\"echo hello\",\"description\":\"Say hello\"}\nSAY done";

// One thread, as in the program: two would wake each other at the cost of what is measured.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Some(binary) = std::env::args_os().nth(1).map(PathBuf::from) else {
        bail!("usage: bench BINARY");
    };
    let directory = std::env::temp_dir().join(format!("letta-bench-{}", std::process::id()));
    let measured = measure(&binary, &directory).await;
    std::fs::remove_dir_all(&directory).ok();
    measured
}

async fn measure(binary: &Path, directory: &Path) -> Result<()> {
    let cloud = LocalCloud::start(Options::default()).await?;
    println!("load average      {}", load()?);
    // It is started in another directory.
    let binary = &binary.canonicalize().context("the binary")?;
    let size = std::fs::metadata(binary)?.len();
    println!("size              {size} bytes");

    let mut starts = Vec::new();
    let mut last = None;
    for number in 0..STARTS {
        drop(last.take());
        let links = cloud.links_opened();
        let began = Instant::now();
        let listener = start(binary, &cloud, &directory.join(number.to_string()))?;
        cloud.wait_for_link(links + 1, LIMIT).await?;
        starts.push(began.elapsed());
        last = Some(listener);
    }
    println!("start             {}", spread(&mut starts));
    let Some(listener) = last else {
        bail!("nothing was started");
    };
    let pid = listener.0.id();
    tokio::time::sleep(SETTLE).await;
    println!("idle memory       {} KiB (PSS)", pss(pid)?);

    let scope = Scope::new("agent-bench", "conv-bench");
    turn(&cloud, &scope).await?;
    let before = cpu_ticks(pid)?;
    let mut turns = Vec::new();
    for _ in 0..SINGLE {
        turns.push(turn(&cloud, &scope).await?);
    }
    let ticks = cpu_ticks(pid)? - before;
    println!("one-tool turn     {}", spread(&mut turns));
    // A tick is 10 ms.
    #[expect(clippy::cast_precision_loss, reason = "a few hundred ticks")]
    let milliseconds = ticks as f64 * 10.0 / SINGLE as f64;
    println!("processor a turn  {milliseconds:.1} ms, with its command");

    let (conversations, each) = SIDE_BY_SIDE;
    let began = Instant::now();
    let lanes = (0..conversations).map(|lane| {
        let (cloud, scope) = (&cloud, Scope::new("agent-bench", format!("conv-{lane}")));
        async move {
            for _ in 0..each {
                turn(cloud, &scope).await?;
            }
            anyhow::Ok(())
        }
    });
    for lane in futures_util::future::join_all(lanes).await {
        lane?;
    }
    #[expect(clippy::cast_precision_loss, reason = "a few hundred turns")]
    let rate = (conversations * each) as f64 / began.elapsed().as_secs_f64();
    println!("turns a second    {rate:.0}, {conversations} conversations");
    let total = 1 + SINGLE + conversations * each;
    println!(
        "memory            {} KiB (PSS) after {total} turns",
        pss(pid)?
    );
    drop(listener);
    cloud.stop().await;
    Ok(())
}

async fn turn(cloud: &LocalCloud, scope: &Scope) -> Result<Duration> {
    let turn = cloud.turn(scope, SCRIPT).await?;
    ensure!(turn.text() == "done", "a turn said {:?}", turn.text());
    Ok(turn.took)
}

fn load() -> Result<String> {
    Ok(std::fs::read_to_string("/proc/loadavg")?.trim().to_owned())
}

/// Processor time of a process and of the children it has waited for, in ticks.
fn cpu_ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let behind_name = stat.rsplit_once(')').context("stat")?.1;
    // Fields 14 to 17; the third field is the first behind the name.
    let times = behind_name.split_whitespace().skip(11).take(4);
    times
        .map(|ticks| ticks.parse::<u64>().context("stat"))
        .sum()
}
