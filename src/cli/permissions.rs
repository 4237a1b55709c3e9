//! `letta permissions`: what the permission rules make of a call.
//!
//! `check` decides cases given as JSON lines, for tests and for tools that
//! compare; nothing on this machine takes part. `explain` decides one call with
//! the settings of this machine and says why, in every mode. Neither runs or
//! writes anything. Spec 05 §1, §4.1, §18.

use std::env;
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use crate::permissions::case::{Case, CaseError};
use crate::permissions::{
    Context, Decision, ModeState, RealDisk, Request, RuleScope, Rules, Suggestion, Verdict, decide,
    settings_files,
};
use crate::protocol::PermissionMode;

const HELP: &str = "\
Usage: letta permissions check
       letta permissions explain [--mode MODE] [--cwd DIR] [--agent ID] TOOL [JSON]

  check    reads cases as JSON lines from standard input and prints one decision
           a line: {\"id\",\"decision\",\"matched_rule\",\"reason\",\"suggestion\"}
  explain  says what would happen to a call here, which rule or stage decides,
           and what the other modes would do

Example: letta permissions explain --mode standard Bash '{\"command\":\"git push\"}'
";

/// Wrong use of the command line (00 §5).
const USAGE: u8 = 64;
/// Longest line of `check` and largest settings file, in bytes.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Runs `letta permissions …` with the arguments after that word.
pub fn run(mut args: pico_args::Arguments) -> ExitCode {
    let mut out = io::stdout().lock();
    let result = match args.subcommand() {
        Ok(Some(name)) if name == "check" => check(args, io::stdin().lock(), &mut out),
        Ok(Some(name)) if name == "explain" => explain(args, &Machine::here(), &mut out),
        _ if args.contains(["-h", "--help"]) => {
            out.write_all(HELP.as_bytes()).map_err(Failure::from)
        }
        _ => Err(Failure::Usage(HELP.to_owned())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that has seen enough closes the pipe.
        Err(Failure::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            // Nowhere to report a failure to report.
            let _ = writeln!(io::stderr(), "{failure}");
            ExitCode::from(USAGE)
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error("{0} of the cases could not be read; their lines say why")]
    Cases(usize),
    #[error("letta permissions: {0}")]
    Io(#[from] io::Error),
}

impl From<pico_args::Error> for Failure {
    fn from(error: pico_args::Error) -> Self {
        Self::Usage(format!("{error}\n\n{HELP}"))
    }
}

/// Decides the cases of `input`, one answer a line.
fn check(
    args: pico_args::Arguments,
    mut input: impl BufRead,
    out: &mut impl Write,
) -> Result<(), Failure> {
    no_more(args)?;
    let mut unread = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = input
            .by_ref()
            .take(MAX_BYTES)
            .read_until(b'\n', &mut line)?;
        if length == 0 {
            break;
        }
        let text = String::from_utf8_lossy(&line);
        if text.trim().is_empty() {
            continue;
        }
        let answer = answer(text.trim()).unwrap_or_else(|error| {
            unread += 1;
            json!({"id": id_of(&text), "error": error.to_string()})
        });
        writeln!(out, "{answer}")?;
    }
    out.flush()?;
    if unread > 0 {
        return Err(Failure::Cases(unread));
    }
    Ok(())
}

fn answer(line: &str) -> Result<Value, CaseError> {
    let case = Case::from_json(line)?;
    let decision = case.decide()?;
    // For a call that runs: what the question would offer in a stricter mode.
    let suggestion = match decision.verdict {
        Verdict::Deny => None,
        Verdict::Allow => case.suggestion(),
        Verdict::Ask | Verdict::AlwaysAsk => decision.suggestion.clone(),
    };
    Ok(json!({
        "id": case.id,
        "decision": decision.verdict.as_str(),
        "matched_rule": decision.matched_rule,
        "reason": decision.reason,
        "suggestion": suggestion.as_ref().map(describe),
    }))
}

fn id_of(line: &str) -> Value {
    serde_json::from_str::<Value>(line)
        .ok()
        .and_then(|value| value.get("id").cloned())
        .unwrap_or(Value::Null)
}

fn describe(suggestion: &Suggestion) -> Value {
    json!({
        "id": Suggestion::ID,
        "rule": suggestion.rule,
        "scope": suggestion.scope.as_str(),
        "text": suggestion.text,
        "safety": if suggestion.safe { "safe" } else { "moderate" },
    })
}

/// What `explain` takes from its surroundings.
struct Machine {
    home: PathBuf,
    cwd: PathBuf,
    config_home: PathBuf,
    local_backend: Option<String>,
    mode: Option<String>,
    agent: Option<String>,
    credentials: Vec<String>,
}

impl Machine {
    fn here() -> Self {
        let text = |name| {
            env::var(name)
                .ok()
                .filter(|value: &String| !value.is_empty())
        };
        let home = env::home_dir().unwrap_or_else(|| PathBuf::from("/"));
        let key_file = text("LETTA_API_KEY_FILE");
        let systemd = text("CREDENTIALS_DIRECTORY");
        Self {
            cwd: env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            config_home: text("XDG_CONFIG_HOME").map_or(home.join(".config"), PathBuf::from),
            local_backend: text("LETTA_LOCAL_BACKEND_DIR"),
            mode: text("LETTA_PERMISSION_MODE"),
            agent: text("LETTA_AGENT_ID").or_else(|| text("AGENT_ID")),
            credentials: key_file.into_iter().chain(systemd).collect(),
            home,
        }
    }
}

fn explain(
    mut args: pico_args::Arguments,
    machine: &Machine,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let given_mode: Option<String> = args.opt_value_from_str("--mode")?;
    let cwd: Option<PathBuf> = args.opt_value_from_str("--cwd")?;
    let agent: Option<String> = args.opt_value_from_str("--agent")?;
    let tool: String = args.free_from_str()?;
    let text: Option<String> = args.opt_free_from_str()?;
    no_more(args)?;
    let call = arguments(text.as_deref().unwrap_or("{}"))?;

    let cwd = machine.cwd.join(cwd.unwrap_or_default());
    let home = machine.home.to_string_lossy();
    let mut context = Context::new(&tidy(&cwd), &home, &RealDisk);
    context.agents.agent = agent.or_else(|| machine.agent.clone());
    context.config_home = machine.config_home.to_string_lossy().into_owned();
    if let Some(dir) = &machine.local_backend {
        context.local_backend.clone_from(dir);
    }
    context.credentials = machine.credentials.clone();
    context
        .credentials
        .push(format!("{home}/.letta/settings.json"));

    let mut notes = Vec::new();
    let files = settings_files(&machine.config_home, &machine.home, Path::new(&context.cwd));
    let parsed: Vec<Value> = files
        .iter()
        .filter_map(|file| read_settings(file, &mut notes))
        .collect();
    let rules = Rules::merge(&parsed);

    let (mode, source) = choose_mode(given_mode.as_deref(), machine, &rules)?;
    let request = Request {
        tool: &tool,
        args: &call,
    };
    let decide_in = |mode: PermissionMode| {
        let state = ModeState {
            plan_file: (mode == PermissionMode::Plan)
                .then(|| format!("{home}/.letta/plans/<name>.md")),
            ..ModeState::from(mode)
        };
        decide(&request, &rules, &state, &context)
    };

    let decision = decide_in(mode);
    writeln!(
        out,
        "In {mode} mode ({source}) this call {}.",
        what(&decision)
    )?;
    writeln!(out, "  why: {}", why(&decision))?;
    if let Some(offer) = &decision.suggestion {
        let place = match offer.scope {
            RuleScope::Session => "for the rest of the conversation".to_owned(),
            RuleScope::Project => format!("in {}/.letta/settings.json", context.cwd),
        };
        writeln!(out, "  the question offers: {}", offer.text)?;
        writeln!(out, "    which allows {} {place}", offer.rule)?;
    }
    writeln!(out, "In the other modes it:")?;
    for other in PermissionMode::ALL.into_iter().filter(|m| *m != mode) {
        let decision = decide_in(other);
        writeln!(
            out,
            "  {:<13} {} ({})",
            other.as_str(),
            what(&decision),
            why(&decision)
        )?;
    }
    writeln!(out, "Working directory: {}", context.cwd)?;
    if notes.is_empty() {
        writeln!(out, "Settings files: none")?;
    }
    for note in notes {
        writeln!(out, "Settings file: {note}")?;
    }
    Ok(())
}

fn arguments(text: &str) -> Result<Map<String, Value>, Failure> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Failure::Usage(
            "the arguments must be a JSON object, such as {\"command\":\"ls\"}".to_owned(),
        )),
        Err(error) => Err(Failure::Usage(format!(
            "the arguments are not valid JSON: {error}"
        ))),
    }
}

fn no_more(args: pico_args::Arguments) -> Result<(), Failure> {
    match args.finish().first() {
        None => Ok(()),
        Some(extra) => Err(Failure::Usage(format!(
            "unexpected argument `{}`\n\n{HELP}",
            extra.to_string_lossy()
        ))),
    }
}

/// Without dot segments; links stay as they are.
fn tidy(path: &Path) -> String {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                out.pop();
            }
            std::path::Component::Normal(name) => out.push(name),
            _ => {}
        }
    }
    out.to_string_lossy().into_owned()
}

/// A settings file's JSON; what became of it goes to `notes`.
fn read_settings(path: &Path, notes: &mut Vec<String>) -> Option<Value> {
    let shown = path.display();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            notes.push(format!("{shown} could not be read and is ignored: {error}"));
            return None;
        }
    };
    let mut bytes = Vec::new();
    let read = file.take(MAX_BYTES).read_to_end(&mut bytes);
    let parsed = read
        .map_err(|error| error.to_string())
        .and_then(|_| serde_json::from_slice(&bytes).map_err(|error| error.to_string()));
    match parsed {
        Ok(value) => {
            notes.push(shown.to_string());
            Some(value)
        }
        Err(error) => {
            notes.push(format!("{shown} is not valid JSON and is ignored: {error}"));
            None
        }
    }
}

/// The mode and where it comes from (00 §3).
fn choose_mode(
    flag: Option<&str>,
    machine: &Machine,
    rules: &Rules,
) -> Result<(PermissionMode, &'static str), Failure> {
    let named = [
        (flag, "--mode"),
        (machine.mode.as_deref(), "LETTA_PERMISSION_MODE"),
    ];
    for (name, source) in named {
        let Some(name) = name else { continue };
        return match PermissionMode::parse(name) {
            Some(mode) => Ok((mode, source)),
            None => Err(Failure::Usage(format!(
                "{source}: invalid permission mode `{name}`. Valid modes: {}",
                PermissionMode::ALL.map(PermissionMode::as_str).join(", ")
            ))),
        };
    }
    Ok(match rules.settings.mode() {
        Some(mode) => (mode, "from a settings file"),
        None => (PermissionMode::Unrestricted, "the default"),
    })
}

fn what(decision: &Decision) -> &'static str {
    match decision.verdict {
        Verdict::Allow => "runs without asking",
        Verdict::Deny => "is denied",
        Verdict::Ask => "asks",
        Verdict::AlwaysAsk => "asks a human, always",
    }
}

fn why(decision: &Decision) -> String {
    match (&decision.matched_rule, decision.reason.as_str()) {
        (None, "Default behavior for tool") => {
            "nothing in the rules speaks of it, so the default for the tool decides".to_owned()
        }
        (None, reason) => reason.to_owned(),
        (Some(rule), reason) if reason.starts_with("Matched") => format!("{reason} `{rule}`"),
        (Some(rule), reason) => format!("{rule}: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;
    use std::fs;

    fn args(list: &[&str]) -> pico_args::Arguments {
        pico_args::Arguments::from_vec(list.iter().map(OsString::from).collect())
    }

    #[test]
    fn check_answers_every_line_and_names_the_bad_ones() {
        let input = concat!(
            r#"{"id":"a","mode":"standard","cwd":"/srv","tool":"Bash","args":{"command":"git push"}}"#,
            "\n\nnonsense\n",
            r#"{"id":"b","mode":"what","cwd":"/srv","tool":"Read"}"#,
        );
        let mut out = Vec::new();
        let result = check(args(&[]), input.as_bytes(), &mut out);
        assert!(matches!(result, Err(Failure::Cases(2))));
        let lines: Vec<Value> = String::from_utf8(out)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines[0]["decision"], "ask");
        assert_eq!(lines[0]["suggestion"]["rule"], "Bash(git push:*)");
        assert!(lines[1]["error"].is_string());
        assert_eq!(lines[2]["id"], "b");
    }

    #[test]
    fn explain_names_the_rule_the_source_of_the_mode_and_broken_files() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        let cwd = dir.path().join("work");
        for path in [&home, &cwd] {
            fs::create_dir_all(path.join(".letta")).unwrap();
        }
        fs::write(
            home.join(".letta/settings.json"),
            r#"{"permissions":{"mode":"standard","deny":["Bash(git push:*)"]}}"#,
        )
        .unwrap();
        fs::write(cwd.join(".letta/settings.json"), "{").unwrap();
        let machine = Machine {
            config_home: home.join(".config"),
            home,
            cwd,
            local_backend: None,
            mode: None,
            agent: None,
            credentials: Vec::new(),
        };
        let explained = |list: &[&str]| {
            let mut out = Vec::new();
            explain(args(list), &machine, &mut out).map(|()| String::from_utf8(out).unwrap())
        };
        let text = explained(&["Bash", r#"{"command":"git push"}"#]).unwrap();
        assert!(text.starts_with("In standard mode (from a settings file) this call is denied."));
        assert!(text.contains("Matched deny rule `Bash(git push:*)`"));
        assert!(text.contains("is not valid JSON and is ignored"));
        let text = explained(&["--mode", "strict", "Read", r#"{"file_path":"a"}"#]).unwrap();
        assert!(text.contains("In strict mode (--mode) this call asks."));
        assert!(text.contains("unrestricted  runs without asking"));
        assert!(matches!(
            explained(&["--mode", "x", "Read"]),
            Err(Failure::Usage(_))
        ));
        assert!(matches!(explained(&["Read", "[]"]), Err(Failure::Usage(_))));
    }
}
