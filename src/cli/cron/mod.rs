//! `letta cron`: schedules from the command line (07 §1.15).
//!
//! Standard output holds JSON, or on a terminal a table; what people should know
//! besides goes to standard error. Invariant: a command that fails has changed
//! nothing, or says what it has.

mod add;
mod cloud;
mod flags;
mod list;
mod one;
mod words;

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::process::ExitCode;

use serde_json::Value;

use self::cloud::Cloud;
use self::flags::Flags;
use super::help;
use super::server::start::Foundation;
use crate::config::{ServerFlags, USAGE_EXIT};
use crate::cron::store::{Store, StoreError};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The command line is wrong; with the whole usage when its words are unknown.
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Unknown(String),
    /// It could not be done.
    #[error("{0}")]
    Failed(String),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

type Done = Result<(), Failure>;

/// Where a task lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runner {
    Local,
    Cloud,
}

/// What every action works with.
struct Here {
    flags: Flags,
    store: Store,
    cloud: Cloud,
    /// `--agent`, else `LETTA_AGENT_ID`.
    agent_id: Option<String>,
    /// Whether a person reads the output.
    person: bool,
}

/// Runs `letta cron …` with the arguments after that word.
pub(super) fn run(args: Vec<OsString>) -> ExitCode {
    match act(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain!("Error: {failure}");
            match failure {
                Failure::Unknown(_) => {
                    say_part!("{}", help::CRON);
                    ExitCode::from(USAGE_EXIT)
                }
                Failure::Usage(_) => ExitCode::from(USAGE_EXIT),
                Failure::Failed(_) => ExitCode::FAILURE,
            }
        }
    }
}

fn act(args: Vec<OsString>) -> Done {
    let flags = Flags::parse(args)?;
    let action = flags.words.first().map(String::as_str);
    if flags.help || matches!(action, None | Some("help")) {
        say_part!("{}", help::CRON);
        return Ok(());
    }
    let action = action.unwrap_or_default();
    if !["add", "list", "get", "runs", "delete", "remove"].contains(&action) {
        return Err(Failure::Unknown(format!("Unknown action: {action}")));
    }
    let foundation = Foundation::lay(&ServerFlags::default())
        .map_err(|error| Failure::Failed(format!("{error:#}")))?;
    let here = Here {
        agent_id: flags.agent.clone().or_else(|| variable("LETTA_AGENT_ID")),
        person: !flags.json && std::io::stdout().is_terminal(),
        store: Store::new(&foundation.home),
        cloud: Cloud::new(foundation),
        flags,
    };
    match here.flags.words[0].as_str() {
        "add" => add::run(&here),
        "list" => list::run(&here),
        "get" => one::get(&here),
        "runs" => one::runs(&here),
        _ => one::delete(&here),
    }
}

impl Here {
    fn wants(&self, runner: Runner) -> bool {
        self.flags.runner.is_none_or(|wanted| wanted == runner)
    }

    fn need_agent(&self, why: &str) -> Result<&str, Failure> {
        let missing = || Failure::Usage(format!("--agent or LETTA_AGENT_ID is required{why}."));
        self.agent_id.as_deref().ok_or_else(missing)
    }

    /// `self` is the conversation that runs this command.
    fn conversation(&self) -> Result<Option<String>, Failure> {
        match self.flags.conversation.as_deref() {
            Some("self") => variable("LETTA_CONVERSATION_ID").map(Some).ok_or_else(|| {
                Failure::Usage(String::from(
                    "--conversation self works only inside a conversation: LETTA_CONVERSATION_ID is not set.",
                ))
            }),
            other => Ok(other.map(str::to_owned)),
        }
    }
}

fn variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok()?;
    Some(value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// Prints JSON over several lines.
fn print_pretty(value: &Value) {
    say!("{value:#}");
}
