//! The tools against their peers: Grep and Glob against `rg`, a gigabyte of
//! output against `cat`, a start of `true` against plain fork and exec, and a
//! patch of 1,000 hunks.
//!
//! `scripts/bench-tools` prints the figures of `docs/performance.md`. Needs
//! Linux, `rg` and about 1 GB in the temporary directory.

#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a benchmark reports to the person who started it"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use letta::events::ConversationHandle;
use letta::process::{BaseEnvironment, Launch, Plan, Processes, TurnFacts};
use letta::protocol::Scope;
use letta::tools::tool::{OutputStream, WorkingDirectory};
use letta::tools::{Status, Tool, ToolCall, ToolContext};
use letta::tools::{apply_patch::ApplyPatch, glob::Glob, grep::Grep, shell_command::ShellCommand};
use serde_json::{Value, json};
use tokio::sync::mpsc;

const DIRECTORIES: usize = 1_000;
const FILES_IN_EACH: usize = 100;
const RUNS: usize = 7;

fn context(root: &Path) -> ToolContext {
    let scope = Scope::new(Some("agent-1"), None);
    let vars = std::env::vars_os().collect();
    let base = BaseEnvironment::new(vars, Path::new("/opt/letta"), None, None);
    ToolContext {
        conversation: ConversationHandle::new(scope.clone(), mpsc::unbounded_channel().0),
        scope,
        acting_user_id: None,
        cwd: WorkingDirectory::new(root.to_path_buf()),
        home: root.to_path_buf(),
        letta_home: root.join(".letta"),
        processes: Processes::new(base),
        facts: TurnFacts::default(),
        closed: Arc::default(),
        skill_sources: letta::skills::Source::ALL.into(),
        delegation: Default::default(),
        secrets: Default::default(),
    }
}

async fn run(tool: &dyn Tool, args: Value, context: &ToolContext) -> Duration {
    let Value::Object(args) = args else {
        return Duration::ZERO;
    };
    let id: Arc<str> = "call-1".into();
    let call = ToolCall {
        id: id.clone(),
        name: tool.name().into(),
        args,
        cancel: Default::default(),
        output: OutputStream::new(id, mpsc::unbounded_channel().0),
    };
    let begun = Instant::now();
    let outcome = tool.run(&call, context).await;
    let took = begun.elapsed();
    assert_eq!(outcome.status, Status::Success, "{outcome:?}");
    took
}

/// The time of a command whose output goes nowhere.
fn command(program: &str, arguments: &[&str], cwd: &Path) -> Duration {
    let begun = Instant::now();
    let status = Command::new(program)
        .args(arguments)
        .current_dir(cwd)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    assert!(status.expect("the peer is installed").success());
    begun.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn report(what: &str, ours: Duration, peer: &str, theirs: Duration) {
    println!(
        "{what:<28} {:>9.2} ms   {peer} {:>9.2} ms   {:.2}x",
        ours.as_secs_f64() * 1e3,
        theirs.as_secs_f64() * 1e3,
        ours.as_secs_f64() / theirs.as_secs_f64()
    );
}

/// Empties the page cache; needs root.
fn forget_files() -> bool {
    Command::new("sync").status().is_ok() && fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}

fn plant(root: &Path) -> std::io::Result<PathBuf> {
    let tree = root.join("tree");
    for directory in 0..DIRECTORIES {
        let path = tree.join(format!("d{}/e{directory}", directory % 30));
        fs::create_dir_all(&path)?;
        for file in 0..FILES_IN_EACH {
            let mut text = format!("fn item_{directory}_{file}() {{}}\n").repeat(20);
            if file == 7 {
                text.push_str("the needle\n");
            }
            let extension = if file % 10 == 0 { "rs" } else { "txt" };
            fs::write(path.join(format!("f{file}.{extension}")), text)?;
        }
    }
    Ok(tree)
}

async fn search(context: &ToolContext, tree: &Path) {
    let grep = || json!({"pattern": "the n[e]+dle", "path": tree.to_str(), "head_limit": 0});
    let glob = || json!({"pattern": "*.rs", "path": tree.to_str()});
    let rg_grep = || command("rg", &["-l", "the n[e]+dle", "."], tree);
    let rg_glob = || {
        command(
            "rg",
            &["--files", "--hidden", "--follow", "-g", "*.rs"],
            tree,
        )
    };
    if forget_files() {
        let ours = run(&Grep, grep(), context).await;
        forget_files();
        report("Grep, cold", ours, "rg", rg_grep());
        forget_files();
        let ours = run(&Glob, glob(), context).await;
        forget_files();
        report("Glob, cold", ours, "rg", rg_glob());
    } else {
        println!("(cold runs need root)");
    }
    warm("Grep, warm", &Grep, &grep, context, &rg_grep).await;
    warm("Glob, warm", &Glob, &glob, context, &rg_glob).await;
}

/// Both in turn on a warm cache: the median of the time, and the processor time,
/// which says more on a machine that others use too.
async fn warm(
    what: &str,
    tool: &dyn Tool,
    args: &dyn Fn() -> Value,
    context: &ToolContext,
    peer: &dyn Fn() -> Duration,
) {
    run(tool, args(), context).await;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let before = processor_time();
    for _ in 0..RUNS {
        ours.push(run(tool, args(), context).await);
        theirs.push(peer());
    }
    let after = processor_time();
    report(what, median(ours), "rg", median(theirs));
    let runs = u32::try_from(RUNS).unwrap_or(1);
    let [own, rg] = [0, 1].map(|at| (after[at] - before[at]) / runs);
    report("  processor time", own, "rg", rg);
}

/// Of this process, and of the children it has waited for.
fn processor_time() -> [Duration; 2] {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<i64> = fields
        .split_whitespace()
        .filter_map(|field| field.parse().ok())
        .collect();
    // utime, stime, cutime, cstime; the state before them is a letter.
    let ticks = |at: usize| fields[at] + fields[at + 1];
    [10, 12].map(|at| Duration::from_millis(10 * ticks(at).unsigned_abs()))
}

/// A field of `/proc/self/status` in KiB.
fn memory(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let digits = line
        .unwrap_or_default()
        .trim_matches([':', ' ', '\t', 'k', 'B']);
    digits.parse().unwrap_or_default()
}

async fn gigabyte(context: &ToolContext) {
    let script = "yes 0123456789012345678901234567890123456789 | head -c 1000000000";
    let shell = ShellCommand::all()
        .into_iter()
        .find(|tool| tool.name() == "shell_command");
    let shell = shell.expect("there is a shell_command");
    let small = json!({"command": "true", "description": "d", "login": false});
    run(&shell, small, context).await;
    // Resets the high-water mark.
    let _ = fs::write("/proc/self/clear_refs", "5");
    let before = memory("VmRSS");
    let args =
        json!({"command": script, "description": "d", "login": false, "timeout_ms": 600_000});
    let ours = run(&shell, args, context).await;
    let peak = memory("VmHWM");
    let piped = format!("{script} | cat >/dev/null");
    let theirs = command("sh", &["-c", &piped], Path::new("/"));
    report("1 GB of output", ours, "cat", theirs);
    println!(
        "{:<28} {:>9.2} MiB",
        "  peak memory growth",
        peak.saturating_sub(before) as f64 / 1024.0
    );
}

async fn spawn_true(context: &ToolContext) {
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        let launch = Launch {
            argv: vec!["/bin/true".into()],
            cwd: "/".into(),
            env: context.processes.base().variables().clone(),
            terminal: None,
        };
        let begun = Instant::now();
        let session = context.processes.start(launch, Plan::default());
        session.expect("true starts").finished().await;
        ours.push(begun.elapsed());
        plain.push(command("/bin/true", &[], Path::new("/")));
    }
    let (ours, plain) = (median(ours), median(plain));
    report("spawn and finish true", ours, "fork+exec", plain);
}

async fn patch(context: &ToolContext) {
    let cwd = context.cwd.get();
    let text: String = (0..10_000).map(|n| format!("line {n}\n")).collect();
    let mut hunks = String::from("*** Begin Patch\n*** Update File: big.txt\n");
    for n in (5..10_000).step_by(10) {
        hunks.push_str(&format!(
            "@@\n line {}\n-line {n}\n+changed {n}\n line {}\n",
            n - 1,
            n + 1
        ));
    }
    hunks.push_str("*** End Patch\n");
    let mut times = Vec::new();
    for _ in 0..RUNS {
        fs::write(cwd.join("big.txt"), &text).expect("the file is written");
        times.push(run(&ApplyPatch, json!({"input": hunks}), context).await);
    }
    println!(
        "{:<28} {:>9.2} ms",
        "ApplyPatch of 1,000 hunks",
        median(times).as_secs_f64() * 1e3
    );
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("the runtime starts");
    let root = tempfile::tempdir().expect("there is a temporary directory");
    let tree = plant(root.path()).expect("the tree is written");
    let context = context(root.path());
    runtime.block_on(async {
        gigabyte(&context).await;
        spawn_true(&context).await;
        patch(&context).await;
        search(&context, &tree).await;
        context.processes.shutdown().await;
    });
}
