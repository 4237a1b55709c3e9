//! Permission decisions of another listener beside ours.
//!
//! `PROGRAM` is the published program, or anything with its command line; it is
//! started against a cloud of our own with a home, a working directory and a
//! `PreToolUse` hook that blocks every call, so nothing of it ever runs.
//!
//! - `cargo run --example permission-diff -- random PROGRAM [COUNT] [SEED]`
//!   makes COUNT commands (500), and fails if one is allowed by ours and not by
//!   the other.
//! - `cargo run --example permission-diff -- observe PROGRAM < CASES` reads
//!   cases, one JSON object a line (05 §18), and prints them with what PROGRAM
//!   decided: this made `tests/data/permission-observed.jsonl`. Cases speak of
//!   `/srv/app` and `/home/tester`; the real directories are put in for PROGRAM
//!   and taken out of its answers.

#![expect(clippy::print_stdout, reason = "a person reads it")]

mod grammar;
mod subject;

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use letta::permissions::case::Case;
use serde_json::{Value, json};

use self::subject::{Observed, Subject};

/// Calls of one turn.
const BATCH: usize = 50;
/// Where cases play.
const CWD: &str = "/srv/app";
const HOME: &str = "/home/tester";

fn main() -> ExitCode {
    let run = || -> Result<bool> {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let runtime = tokio::runtime::Runtime::new()?;
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["random", program] => runtime.block_on(random(program, 500, fastrand::u64(..))),
            ["random", program, count] => {
                runtime.block_on(random(program, count.parse()?, fastrand::u64(..)))
            }
            ["random", program, count, seed] => {
                runtime.block_on(random(program, count.parse()?, seed.parse()?))
            }
            ["observe", program] => runtime.block_on(observe(program)),
            _ => bail!("usage: permission-diff random PROGRAM [COUNT] [SEED] | observe PROGRAM"),
        }
    };
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Random commands in `standard` mode; `false` when ours lets more pass.
async fn random(program: &str, count: usize, seed: u64) -> Result<bool> {
    let subject = Subject::start(program).await?;
    let mut random = fastrand::Rng::with_seed(seed);
    let commands: Vec<String> = (0..count).map(|_| grammar::command(&mut random)).collect();
    let cases: Vec<Value> = commands
        .iter()
        .map(|command| {
            let args = json!({"command": command, "description": "d"});
            json!({"mode": "standard", "cwd": CWD, "tool": "Bash", "args": args, "agent_id": subject::AGENT})
        })
        .collect();
    let mut theirs = Vec::new();
    for batch in cases.chunks(BATCH) {
        theirs.extend(subject.decide("standard", &Value::Null, batch).await?);
    }
    let (mut same, mut allowed, mut stricter, mut looser) = (0, 0, Vec::new(), Vec::new());
    for ((command, case), theirs) in commands.iter().zip(&cases).zip(&theirs) {
        let ours = Case::from_json(&case.to_string())?.decide()?;
        let pass = (ours.verdict.as_str() == "allow", theirs.decision == "allow");
        match pass {
            (true, false) => looser.push(command),
            (false, true) => stricter.push(command),
            (both, _) => {
                same += 1;
                allowed += usize::from(both);
            }
        }
    }
    println!("seed {seed}: {count} commands, {same} decided alike ({allowed} allowed by both)");
    println!("{} where ours asks and the other allows:", stricter.len());
    for command in &stricter {
        println!("  {command:?}");
    }
    println!("{} where ours allows and the other asks:", looser.len());
    for command in &looser {
        println!("  {command:?}");
    }
    Ok(looser.is_empty())
}

/// Cases of standard input with the decisions of `program`.
async fn observe(program: &str) -> Result<bool> {
    let subject = Subject::start(program).await?;
    let mut groups: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in std::io::read_to_string(std::io::stdin())?.lines() {
        let case: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let key = json!([case["mode"], case["rules"]]).to_string();
        groups.entry(key).or_default().push(case);
    }
    for cases in groups.into_values() {
        let mode = cases[0]["mode"]
            .as_str()
            .context("a case without mode")?
            .to_owned();
        for batch in cases.chunks(BATCH) {
            let observed = subject.decide(&mode, &cases[0]["rules"], batch).await?;
            for (case, observed) in batch.iter().zip(observed) {
                let Observed {
                    decision,
                    denial,
                    offer,
                } = observed;
                let mut case = case.clone();
                case["expected"] = decision.into();
                case["denial"] = json!(denial);
                case["offer"] = json!(offer);
                println!("{case}");
            }
        }
    }
    Ok(true)
}
