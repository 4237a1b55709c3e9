//! Commands about the machine against their bounds, through the program itself:
//! how fast it answers, what that costs in processor time, and how much memory
//! it holds meanwhile.
//!
//! `cargo bench --profile tool --bench device`; `LETTA_BIN` names another program
//! to measure. Where other work runs beside it, processor time and memory count;
//! the load is printed first.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark reports to the person who started it"
)]

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use local_cloud::{Device, LocalCloud, Options, Scope};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

const SOON: Duration = Duration::from_secs(60);
/// Files of the large tree.
const FILES: usize = 100_000;
/// How often an ordinary command is asked.
const ASKED: u32 = 200;

#[tokio::main]
async fn main() {
    let load = fs::read_to_string("/proc/loadavg").unwrap();
    say("load average", load.trim());
    let cloud = LocalCloud::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let work = directory.path().canonicalize().unwrap().join("work");
    fs::create_dir(&work).unwrap();
    let program = start(&cloud, directory.path(), &work);
    let device = cloud.wait_for_device(SOON).await.unwrap();
    let bench = Bench {
        pid: program.id().unwrap(),
        device,
    };
    bench.ordinary(&work).await;
    // What others leave behind would count as its own.
    bench.large_tree(&work).await;
    bench.echo(&work).await;
    bench.large_file(&work).await;
    // Last: the searches go on.
    bench.message_behind_searches(&work).await;
}

fn start(cloud: &LocalCloud, home: &Path, work: &Path) -> Child {
    let program = std::env::var_os("LETTA_BIN").unwrap_or(env!("CARGO_BIN_EXE_letta").into());
    Command::new(program)
        .args(["server", "--env-name", "bench"])
        .current_dir(work)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .env("LETTA_BASE_URL", cloud.base_url())
        .env("LETTA_API_KEY", "bench")
        .env("LETTA_HEALTH_ADDR", "off")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

struct Bench {
    device: Device,
    pid: u32,
}

impl Bench {
    async fn timed(&self, frame: &Value) -> (Duration, Value) {
        let begin = Instant::now();
        let answer = self.device.request(frame.clone(), SOON).await.unwrap();
        assert_eq!(answer["success"], true, "{answer}");
        (begin.elapsed(), answer)
    }

    async fn ordinary(&self, work: &Path) {
        let source = work.join("source");
        for n in 0..20 {
            fs::create_dir_all(source.join(format!("d{n}"))).unwrap();
            for m in 0..10 {
                fs::write(
                    source.join(format!("d{n}/f{m}.rs")),
                    "fn main() {}\n".repeat(500),
                )
                .unwrap();
            }
            fs::write(source.join(format!("f{n}.txt")), "text\n").unwrap();
        }
        for (name, frame) in [
            (
                "list_in_directory, 40 entries",
                json!({"type": "list_in_directory", "path": source, "include_files": true}),
            ),
            (
                "get_tree, 240 entries",
                json!({"type": "get_tree", "path": source, "depth": 5}),
            ),
            (
                "read_file, 6.5 kB",
                json!({"type": "read_file", "path": source.join("d0/f0.rs")}),
            ),
            (
                "search_files, 240 entries",
                json!({"type": "search_files", "cwd": source, "query": "f9"}),
            ),
        ] {
            let mut times = Vec::new();
            let before = self.processor();
            for _ in 0..ASKED {
                times.push(self.timed(&frame).await.0);
            }
            times.sort();
            let each = (self.processor() - before) / ASKED;
            let (median, most) = (times[times.len() / 2], times[times.len() * 19 / 20]);
            say(
                name,
                &format!("median {median:?}, 95 % {most:?}, processor {each:?} (bound 5 ms)"),
            );
        }
    }

    /// Keys typed in one terminal while another floods.
    async fn echo(&self, work: &Path) {
        for id in ["flood", "typed"] {
            let mark = self.device.mark();
            self.device.send(json!({"type": "terminal_spawn", "terminal_id": id, "cols": 80, "rows": 24, "cwd": work}));
            let spawned =
                |frame: &Value| frame["type"] == "terminal_spawned" && frame["terminal_id"] == id;
            self.device.wait_after(mark, spawned, SOON).await.unwrap();
        }
        let type_in = |id: &str, data: &str| {
            self.device
                .send(json!({"type": "terminal_input", "terminal_id": id, "data": data}));
        };
        type_in("typed", "cat\r");
        type_in("flood", "while :; do seq 1 1000; done\r");
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut times = Vec::new();
        for n in 0..100 {
            let mark = self.device.mark();
            let begin = Instant::now();
            type_in("typed", if n % 2 == 0 { "x" } else { "y" });
            let echo = |frame: &Value| {
                frame["type"] == "terminal_output" && frame["terminal_id"] == "typed"
            };
            self.device.wait_after(mark, echo, SOON).await.unwrap();
            times.push(begin.elapsed());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        times.sort();
        say(
            "echo while another terminal floods",
            &format!(
                "median {:?}, 95 % {:?}, worst {:?} (bound 20 ms)",
                times[50], times[95], times[99]
            ),
        );
        for id in ["flood", "typed"] {
            self.device
                .send(json!({"type": "terminal_kill", "terminal_id": id}));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    async fn large_file(&self, work: &Path) {
        let path = work.join("large");
        fs::File::create(&path)
            .unwrap()
            .set_len(25 * 1024 * 1024)
            .unwrap();
        let before = self.reset_peak();
        let frame = json!({"type": "read_file", "path": path, "encoding": "base64"});
        let (took, _) = self.timed(&frame).await;
        let peak = self.memory("VmHWM:");
        // What is given back is given back in its own time.
        tokio::time::sleep(Duration::from_secs(20)).await;
        say(
            "read_file, 25 MiB as base64",
            &format!(
                "{took:?}, peak {peak} KiB, before {before} KiB, 20 s later {} KiB (bound 80 MiB)",
                self.memory("VmRSS:")
            ),
        );
    }

    async fn large_tree(&self, work: &Path) {
        let tree = work.join("tree");
        for n in 0..FILES {
            let directory = tree.join((n / 1000).to_string());
            if n % 1000 == 0 {
                fs::create_dir_all(&directory).unwrap();
            }
            fs::write(
                directory.join(format!("{n}.txt")),
                format!("one\nneedle {n}\nthree\n"),
            )
            .unwrap();
        }
        let before = self.reset_peak();
        let processor = self.processor();
        let frame = json!({"type": "grep_in_files", "cwd": tree, "query": "needle"});
        let (took, answer) = self.timed(&frame).await;
        assert_eq!(answer["total_matches"], FILES);
        let cost = self.processor() - processor;
        say(
            "grep_in_files, 100,000 files",
            &format!(
                "{took:?}, processor {cost:?}, peak {} KiB, before {before} KiB (bounds 30 s, 16 MiB)",
                self.memory("VmHWM:")
            ),
        );
    }

    /// A message behind 50 searches of the large tree, and one with nothing beside it.
    async fn message_behind_searches(&self, work: &Path) {
        let alone = self.accepted("cm-1").await;
        let mark = self.device.mark();
        for n in 0..50 {
            self.device.send(json!({"type": "grep_in_files", "request_id": format!("grep-{n}"), "cwd": work.join("tree"), "query": "needle"}));
        }
        let behind = self.accepted("cm-2").await;
        let frames = self.device.frames_since(mark);
        let done = frames
            .iter()
            .filter(|frame| frame.kind() == "grep_in_files_response")
            .count();
        say(
            "input behind 50 searches",
            &format!("accepted after {behind:?}, alone {alone:?}, {done} searches done by then"),
        );
    }

    /// How long a message waits for its `input_accepted`.
    async fn accepted(&self, id: &str) -> Duration {
        let scope = Scope::new("agent-1", id.replace("cm", "conv"));
        let input = json!({"type": "input", "runtime": scope.runtime(), "payload": {"kind": "create_message",
            "messages": [{"role": "user", "content": "SAY here", "client_message_id": id}]}});
        let begin = Instant::now();
        let answer = self.device.request(input, SOON).await.unwrap();
        assert_eq!(answer["accepted"], true, "{answer}");
        begin.elapsed()
    }

    /// The processor time of the program so far, in steps of 10 ms.
    fn processor(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap();
        let (_, after) = stat.rsplit_once(')').unwrap();
        let fields = after.split_whitespace().skip(11).take(2);
        let ticks: u64 = fields.map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Starts a new peak; the memory now, in KiB.
    fn reset_peak(&self) -> u64 {
        fs::write(format!("/proc/{}/clear_refs", self.pid), "5").unwrap();
        self.memory("VmRSS:")
    }

    fn memory(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

fn say(what: &str, found: &str) {
    println!("{what:<36} {found}");
}
