//! shell_command and shell, each under two names: run to the end and return
//! the output (04 §7.14).

use std::ffi::OsString;
use std::time::Duration;

use serde_json::{Value, json};

use super::args::Args;
use super::offload::{Failure, settle};
use super::shell_run::{self, Setting};
use super::tool::{Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome};
use crate::process::capture::{self, Capture};
use crate::process::{Ending, Launch, Plan, Session, SpawnError, StartError, notification};

const DEFAULT_TIMEOUT_MS: i64 = 120_000;

/// A timeout beyond a day is a mistake, not a wish.
const LONGEST_TIMEOUT_MS: i64 = 24 * 3600 * 1000;

const OUTPUT_CHARS: usize = 30_000;

/// One of the four tools.
#[derive(Debug)]
pub struct ShellCommand {
    name: &'static str,
    form: Form,
    parameters: Value,
}

/// How the command is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A text for the user's shell.
    Text,
    /// A program and its arguments.
    Vector,
}

impl ShellCommand {
    /// All four.
    pub fn all() -> [Self; 4] {
        [
            Self::new("shell_command", Form::Text),
            Self::new("ShellCommand", Form::Text),
            Self::new("shell", Form::Vector),
            Self::new("Shell", Form::Vector),
        ]
    }

    fn new(name: &'static str, form: Form) -> Self {
        let mut parameters = json!({
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": "object",
            "properties": {
                "command": {"type": "array", "items": {"type": "string"}, "description": "The program and its arguments."},
                "workdir": {
                    "type": "string",
                    "description": "Where to run it, absolute or relative to the conversation's working directory, which is the default."
                },
                "timeout_ms": {"type": "number", "description": "Milliseconds until it is stopped, 120000 if not given."},
                "sandbox_permissions": {"type": "string", "enum": ["use_default", "require_escalated"], "description": "Has no effect here."},
                "justification": {"type": "string", "description": "Has no effect here."},
                "prefix_rule": {"type": "array", "items": {"type": "string"}, "description": "Has no effect here."}
            },
            "required": ["command"],
            "additionalProperties": false
        });
        if form == Form::Text {
            let properties = &mut parameters["properties"];
            properties["command"] = json!({"type": "string", "description": "The command to run."});
            properties["description"] = json!({
                "type": "string",
                "description": "What the command does, in five to ten words. The user sees it as the label of this call."
            });
            properties["login"] = json!({"type": "boolean", "description": "Whether the shell is a login shell (-l); true if not given."});
            parameters["required"] = json!(["command", "description"]);
        }
        Self {
            name,
            form,
            parameters,
        }
    }

    async fn execute(&self, call: &ToolCall, context: &ToolContext) -> ToolOutcome {
        let args = Args::new(self.name, &call.args);
        let read = || {
            let (argv, script) = self.command(&args, context)?;
            let asked = args.opt_integer("timeout_ms")?;
            let asked = asked.filter(|asked| *asked > 0);
            let timeout = asked.unwrap_or(DEFAULT_TIMEOUT_MS).min(LONGEST_TIMEOUT_MS);
            let timeout = Duration::from_millis(timeout.unsigned_abs());
            Ok((argv, script, timeout, args.opt_string("workdir")?))
        };
        let (argv, script, timeout, workdir) = match read() {
            Ok(read) => read,
            Err(failure) => return settle(Err(failure)),
        };
        let tool = match self.form {
            Form::Text => "shell_command",
            Form::Vector => "shell",
        };
        let mut setting = shell_run::prepare(context, tool, &script, workdir).await;
        let note = shell_run::lost_directory_note(context, &setting.cwd);
        if self.form == Form::Text {
            sign_memory_commits(context, &script, &mut setting);
        }
        let session = match start(call, context, argv, setting, timeout) {
            Ok(session) => session,
            Err(error) => return ToolOutcome::error(format!("{note}{error}")),
        };
        let finished = session.finished().await;
        let streams = session.take().await;
        self.report(context, &note, &finished.ending, streams).await
    }

    /// The argument vector and the text that is searched for secrets.
    fn command(
        &self,
        args: &Args<'_>,
        context: &ToolContext,
    ) -> Result<(Vec<OsString>, String), Failure> {
        let command = args.given("command")?;
        match self.form {
            Form::Text => {
                let text = command.as_str().filter(|text| !text.trim().is_empty());
                let text =
                    text.ok_or_else(|| Failure::new("Command must be a non-empty string"))?;
                let login = args.flag("login", true)?;
                Ok((
                    context.processes.shells().command_line(text, login),
                    text.to_owned(),
                ))
            }
            Form::Vector => {
                let words = command
                    .as_array()
                    .filter(|words| !words.is_empty())
                    .and_then(|words| {
                        words
                            .iter()
                            .map(Value::as_str)
                            .collect::<Option<Vec<&str>>>()
                    });
                let words = words
                    .ok_or_else(|| Failure::new("command must be a non-empty array of strings"))?;
                Ok((words.iter().map(OsString::from).collect(), words.join("\n")))
            }
        }
    }

    async fn report(
        &self,
        context: &ToolContext,
        note: &str,
        ending: &Ending,
        (mut out, mut err): (Capture, Capture),
    ) -> ToolOutcome {
        if matches!(ending, Ending::Aborted | Ending::TimedOut(_)) {
            out.discard().await;
            err.discard().await;
            return match ending {
                Ending::Aborted => ToolOutcome::interrupted(),
                _ => ToolOutcome::error(format!("{note}Command timed out")),
            };
        }
        let stdout = out.excerpt().last_lines(usize::MAX);
        let stderr = err.excerpt().last_lines(usize::MAX);
        let cut = context.processes.cut(OUTPUT_CHARS, None);
        let rendered = capture::render(out, err, cut).await;
        let mut text = rendered.text.trim().to_owned();
        if text.is_empty() {
            text = match (self.form, ending) {
                (_, Ending::Exited(code)) if *code != 0 => {
                    format!("Command exited with code {code}")
                }
                (Form::Text, Ending::Exited(_)) => "(Command completed with no output)".to_owned(),
                (Form::Vector, Ending::Exited(_)) => String::new(),
                (_, other) => notification::detail(other),
            };
        }
        let mut outcome = ToolOutcome::text(format!("{note}{text}"));
        if !rendered.truncated {
            outcome.stdout = Some(stdout);
            outcome.stderr = Some(stderr);
        }
        outcome
    }
}

impl Tool for ShellCommand {
    fn name(&self) -> &str {
        self.name
    }

    fn description(&self) -> &str {
        match self.form {
            Form::Text => {
                "Runs a command in the user's shell, waits until it ends, and returns its output: standard output, then \
                 standard error, cut in the middle beyond 30,000 characters with the whole in a file. It starts in the \
                 conversation's working directory or in `workdir`; `cd` lasts only for this command. It has no input. \
                 A failing command is no error of the tool. Stopped after `timeout_ms` (two minutes if not given)."
            }
            Form::Vector => {
                "Runs a program with exactly the given arguments, without a shell, waits until it ends, and returns its \
                 output: standard output, then standard error, cut in the middle beyond 30,000 characters with the \
                 whole in a file. For pipes, variables or `&&` run a shell: [\"bash\", \"-lc\", \"…\"]. It starts in \
                 the conversation's working directory or in `workdir`, and has no input. Stopped after `timeout_ms` \
                 (two minutes if not given)."
            }
        }
    }

    fn parameters(&self) -> &Value {
        &self.parameters
    }

    fn run<'a>(&'a self, call: &'a ToolCall, context: &'a ToolContext) -> ToolFuture<'a> {
        Box::pin(self.execute(call, context))
    }
}

/// Starts the command; a shell that is not there gives way to another.
fn start(
    call: &ToolCall,
    context: &ToolContext,
    argv: Vec<OsString>,
    setting: Setting,
    timeout: Duration,
) -> Result<Session, String> {
    let others = context.processes.shells().replacements(&argv);
    let mut tried = Vec::new();
    for argv in std::iter::once(argv).chain(others) {
        let launch = Launch {
            argv,
            cwd: setting.cwd.clone(),
            env: setting.env.clone(),
            terminal: None,
        };
        let plan = Plan {
            timeout: Some(timeout),
            cancel: call.cancel.clone(),
            redactions: setting.redactions.clone(),
            spill: setting.spill.clone(),
            live: Some(shell_run::live(&call.output)),
            ..Plan::default()
        };
        match context.processes.start(launch, plan) {
            Ok(session) => return Ok(session),
            Err(StartError::Spawn(SpawnError::Executable(name))) => tried.push(name),
            Err(error) => return Err(error.to_string()),
        }
    }
    let missing = SpawnError::Executable(tried.first().cloned().unwrap_or_default());
    if tried.len() < 2 {
        return Err(missing.to_string());
    }
    Err(format!("{missing} (tried: {})", tried.join(", ")))
}

/// A commit in the agent's memory is the agent's.
fn sign_memory_commits(context: &ToolContext, script: &str, setting: &mut Setting) {
    let Some(agent) = context.scope.agent_id.as_deref() else {
        return;
    };
    let in_memory = context.facts.memory_dir.as_deref().is_some_and(|memory| {
        setting.cwd.starts_with(memory) || script.contains(&*memory.to_string_lossy())
    });
    let words: Vec<&str> = script.split_whitespace().collect();
    if !in_memory || !words.contains(&"git") || !words.contains(&"commit") {
        return;
    }
    let name = context.facts.agent_name.as_deref().unwrap_or(agent);
    for role in ["AUTHOR", "COMMITTER"] {
        setting
            .env
            .insert(format!("GIT_{role}_NAME").into(), name.into());
        setting.env.insert(
            format!("GIT_{role}_EMAIL").into(),
            format!("{agent}@letta.com").into(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::Status;
    use crate::tools::tests::{Bench, args, strings, text_of};

    async fn run(bench: &Bench, name: &str, arguments: Value) -> ToolOutcome {
        let tool = ShellCommand::all()
            .into_iter()
            .find(|tool| tool.name == name)
            .unwrap();
        bench.run(&tool, args(arguments)).await
    }

    #[tokio::test]
    async fn text_lines_and_exit_codes_are_returned_as_success() {
        let bench = Bench::new();
        for (name, command) in [
            (
                "shell_command",
                json!("echo a; echo; echo b; echo e >&2; exit 3"),
            ),
            ("ShellCommand", json!("echo a; echo; echo b; echo e >&2")),
            (
                "shell",
                json!(["sh", "-c", "echo a; echo; echo b; echo e >&2"]),
            ),
            (
                "Shell",
                json!(["/bin/sh", "-c", "echo a; echo; echo b; echo e >&2"]),
            ),
        ] {
            let outcome = run(&bench, name, json!({"command": command})).await;
            assert_eq!(
                (text_of(&outcome).as_str(), outcome.status),
                ("a\n\nb\n\ne", Status::Success),
                "{name}"
            );
            assert_eq!(outcome.stdout, Some(strings(&["a", "b"])));
            assert_eq!(outcome.stderr, Some(strings(&["e"])));
        }
    }

    #[tokio::test]
    async fn silence_is_put_into_words() {
        let bench = Bench::new();
        let text =
            async |name, command| text_of(&run(&bench, name, json!({"command": command})).await);
        assert_eq!(
            text("shell_command", json!("exit 3")).await,
            "Command exited with code 3"
        );
        assert_eq!(
            text("shell_command", json!("true")).await,
            "(Command completed with no output)"
        );
        assert_eq!(
            text("shell", json!(["sh", "-c", "exit 3"])).await,
            "Command exited with code 3"
        );
        assert_eq!(text("shell", json!(["true"])).await, "");
    }

    #[tokio::test]
    async fn a_timeout_is_an_error() {
        let bench = Bench::new();
        let outcome = run(
            &bench,
            "shell_command",
            json!({"command": "sleep 30", "timeout_ms": 100}),
        )
        .await;
        assert_eq!(outcome, ToolOutcome::error("Command timed out"));
        bench.cancel.cancel();
        let outcome = run(&bench, "shell", json!({"command": ["sleep", "30"]})).await;
        assert_eq!(outcome, ToolOutcome::interrupted());
    }

    #[tokio::test]
    async fn bad_commands_are_refused() {
        let bench = Bench::new();
        for (name, command, text) in [
            (
                "shell_command",
                json!(" "),
                "Command must be a non-empty string",
            ),
            (
                "shell",
                json!([]),
                "command must be a non-empty array of strings",
            ),
            (
                "shell",
                json!(["a", 1]),
                "command must be a non-empty array of strings",
            ),
            (
                "shell",
                json!(["/nowhere/x"]),
                "Executable not found: /nowhere/x",
            ),
        ] {
            let outcome = run(&bench, name, json!({"command": command})).await;
            assert_eq!(outcome, ToolOutcome::error(text));
        }
    }

    #[tokio::test]
    async fn a_shell_that_is_not_there_gives_way_to_another() {
        let bench = Bench::new();
        let outcome = run(
            &bench,
            "shell",
            json!({"command": ["/nowhere/bash", "-c", "echo ok"]}),
        )
        .await;
        assert_eq!(text_of(&outcome), "ok");
    }

    #[tokio::test]
    async fn commits_in_the_memory_directory_are_the_agents() {
        let mut bench = Bench::new();
        bench.context.facts.memory_dir = Some(bench.context.cwd.get());
        bench.context.facts.agent_name = Some("Ada".into());
        let command = "echo $GIT_AUTHOR_NAME $GIT_COMMITTER_EMAIL # git commit";
        let outcome = run(&bench, "shell_command", json!({"command": command})).await;
        assert_eq!(text_of(&outcome), "Ada agent-1@letta.com");
        bench.context.facts.memory_dir = None;
        let outcome = run(&bench, "shell_command", json!({"command": command})).await;
        assert_eq!(text_of(&outcome), "(Command completed with no output)");
    }
}
