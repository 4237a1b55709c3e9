//! Frames of the tables, broken at random: nothing panics, and every command
//! that can be answered is answered. `LETTA_FUZZ_SECONDS` makes it go on.

use std::collections::HashSet;
use std::time::Instant;

use fastrand::Rng;

use super::*;
use crate::device::route;
use crate::protocol::catalog;

/// Rounds when nobody asks for more.
const ROUNDS: usize = 150;
/// Commands of one round.
const COMMANDS: usize = 6;

/// Some JSON value, rarely a large one.
fn any(rng: &mut Rng, root: &str) -> Value {
    match rng.u8(..14) {
        0 => Value::Null,
        1 => rng.bool().into(),
        2 => rng.i64(..).into(),
        3 => (rng.f64() * 1e300).into(),
        4 => (-1).into(),
        5 => rng.u8(..9).into(),
        6 => json!([]),
        7 => json!([any(rng, root), {"a": null}]),
        8 => json!({"agent_id": any(rng, root), "type": "x"}),
        9 => (0..rng.usize(..40))
            .map(|_| rng.char(..))
            .collect::<String>()
            .into(),
        10 => "x".repeat(rng.usize(..5000)).into(),
        11 => [
            "", "-", "--", "..", "\0", "~/", "*", "[", "(", "\\", "{a,b}", "utf8",
        ][rng.usize(..12)]
        .into(),
        _ => format!(
            "{root}/{}",
            ["a.txt", "b", "dir/c", "dir", "none", ".git/HEAD"][rng.usize(..6)]
        )
        .into(),
    }
}

fn broken(rng: &mut Rng, seeds: &[Value], root: &str) -> Value {
    let mut frame = with_root(&seeds[rng.usize(..seeds.len())], "<root>", root);
    let fields = frame.as_object_mut().unwrap();
    if rng.u8(..8) == 0 {
        let kind = catalog::COMMANDS[rng.usize(..catalog::COMMANDS.len())].name;
        fields.insert("type".into(), kind.into());
    }
    for _ in 0..rng.usize(..3) {
        let name = fields
            .keys()
            .nth(rng.usize(..fields.len()))
            .unwrap()
            .clone();
        match rng.u8(..5) {
            0 => drop(fields.remove(&name)),
            1 => drop(fields.insert("cwd".into(), any(rng, root))),
            _ => drop(fields.insert(name, any(rng, root))),
        }
        if fields.is_empty() {
            break;
        }
    }
    frame
}

/// Whether a text stays in `root` and names nothing that runs.
fn is_tame(frame: &Value, root: &str) -> bool {
    ["path", "file_path", "cwd", "skill_path"]
        .iter()
        .all(|name| {
            frame[*name]
                .as_str()
                .is_none_or(|path| path.starts_with(root) && !path.contains(".."))
        })
        && frame["type"] != "terminal_input"
}

#[tokio::test]
async fn broken_frames_do_no_harm_and_are_answered() {
    let mut bench = Bench::new().await;
    let seeds: Vec<Value> = data("answers.json")
        .iter()
        .map(|case| case["send"].clone())
        .chain(data("shapes.json").iter().map(|row| {
            let mut frame = row["good"].clone();
            frame["request_id"] = "r".into();
            frame
        }))
        // What needs a server would spend its time on one that is not there.
        .filter(|frame| {
            frame.to_string().contains("<root>") && frame["type"] != "set_boot_working_directory"
        })
        .collect();
    let root = bench.dir.path().to_string_lossy().into_owned();
    let work = bench.text("").trim_end_matches('/').to_owned();
    for name in ["a.txt", "b", "dir/c"] {
        bench.file(name, "one\ntwo\r\n");
    }
    bench.run("git", &["init", "-q"]);
    let seconds = env::var("LETTA_FUZZ_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let seed = if until.is_some() {
        fastrand::u64(..)
    } else {
        7
    };
    let mut rng = Rng::with_seed(seed);
    let mut round = 0;
    while until.map_or(round < ROUNDS, |until| Instant::now() < until) {
        round += 1;
        let mut waiting = HashSet::new();
        for n in 0..COMMANDS {
            let mut frame = broken(&mut rng, &seeds, &work);
            if !is_tame(&frame, &root) {
                continue;
            }
            let id = format!("{seed}-{round}-{n}");
            if frame["request_id"].is_string() {
                frame["request_id"] = id.clone().into();
            }
            let parsed = inbound::parse(&frame.to_string());
            let Ok(Body::Command(Command::Device { kind, .. })) = parsed.map(|it| it.body) else {
                continue;
            };
            let silent = route::find(kind).handler.is_silent() || kind == "file_ops";
            if frame["request_id"].is_string() && !silent {
                waiting.insert(id);
            }
            bench.send(frame);
        }
        while !waiting.is_empty() {
            let (outbound, injected) = (&mut bench.trial.outbound, &mut bench.trial.injected);
            let next = timeout(SOON * 3, async {
                loop {
                    tokio::select! {
                        frame = outbound.recv() => break frame,
                        // What conversations are told is taken, as they would.
                        Some(_news) = injected.recv() => {}
                    }
                }
            });
            let next = next.await;
            let next = next.unwrap_or_else(|_| panic!("no answer for {waiting:?}"));
            if let Some(Outbound::Reply { body, .. } | Outbound::Paced { body, .. }) = next {
                let frame: Value = serde_json::from_str(&body).unwrap();
                assert!(
                    !body.contains("in an unexpected way"),
                    "a panic: {seed} {round}"
                );
                waiting.remove(frame["request_id"].as_str().unwrap_or_default());
            }
        }
    }
    if until.is_some() {
        eprintln!("{round} rounds of up to {COMMANDS} commands, seed {seed}");
    }
}
