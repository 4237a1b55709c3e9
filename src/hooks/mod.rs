//! Hooks: the user's own commands and prompts that are asked before tool calls
//! and told after them (spec 05 §15).
//!
//! Invariant: a hook never holds up a turn beyond its time limit, and only a
//! clear answer decides anything: exit 0 lets pass, exit 2 blocks, everything
//! else is an error that is told where somebody reads it. Settings are looked
//! at for every event, so an edit counts from the next one.

mod command;
mod config;
mod events;
mod prompt;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::config::{Action, Config, Hook};
pub use self::events::{BeforeTool, Permission, ToolEnd, ToolEvent};
use crate::api::Client;
use crate::process::capture::{Capture, SpillPlace, render};
use crate::process::{Launch, Processes, Variables};
use crate::state::SettingsFiles;
use crate::state::settings_files::SettingsView;

/// Characters of one feedback line; more goes to a file.
const FEEDBACK_CHARS: usize = 10_000;
/// Characters of a longer one that are shown.
const FEEDBACK_PREVIEW: usize = 2_000;
/// Directories whose hooks are remembered.
const REMEMBERED: usize = 64;
/// Events at once whose hooks nobody waits for; more are not told.
const ASIDE: usize = 64;
/// Characters of a prompt that name its hook.
const NAME_CHARS: usize = 50;

/// Who a parent process worked for is nothing to a hook (05 §15.2).
const FORGOTTEN: [&str; 6] = [
    "LETTA_AGENT_ID",
    "AGENT_ID",
    "LETTA_CONVERSATION_ID",
    "CONVERSATION_ID",
    "LETTA_MEMORY_DIR",
    "MEMORY_DIR",
];

/// What hooks hear of under a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A call is about to be put to a human.
    PermissionRequest,
    /// A call is about to run.
    PreToolUse,
    /// A call ran.
    PostToolUse,
    /// A call ran and failed.
    PostToolUseFailure,
    /// The history is about to be compacted.
    PreCompact,
    /// A subagent ended.
    SubagentStop,
}

impl Event {
    const ALL: [Self; 6] = [
        Self::PermissionRequest,
        Self::PreToolUse,
        Self::PostToolUse,
        Self::PostToolUseFailure,
        Self::PreCompact,
        Self::SubagentStop,
    ];

    /// The key in settings, and `event_type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PermissionRequest => "PermissionRequest",
            Self::PreToolUse => "PreToolUse",
            Self::PostToolUse => "PostToolUse",
            Self::PostToolUseFailure => "PostToolUseFailure",
            Self::PreCompact => "PreCompact",
            Self::SubagentStop => "SubagentStop",
        }
    }

    /// Whether all hooks run at once; otherwise one after the other, up to the
    /// first that blocks.
    fn is_parallel(self) -> bool {
        matches!(
            self,
            Self::PostToolUse | Self::PostToolUseFailure | Self::PreCompact
        )
    }
}

/// Where an event happens, and for whom.
#[derive(Clone, Debug)]
pub struct Site {
    /// The working directory: hooks run in it, and its settings files count.
    pub cwd: PathBuf,
    /// The agent, if there is one.
    pub agent_id: Option<Arc<str>>,
}

/// What a hook said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Allow,
    Block,
    Error,
}

/// One run of one hook.
#[derive(Clone, Debug)]
struct Run {
    verdict: Verdict,
    stdout: String,
    stderr: String,
    error: Option<String>,
}

impl Run {
    fn failed(error: String) -> Self {
        Self {
            verdict: Verdict::Error,
            stdout: String::new(),
            stderr: String::new(),
            error: Some(error),
        }
    }
}

/// A run with the name of its hook.
#[derive(Debug)]
struct Ran {
    id: String,
    run: Run,
}

/// Runs hooks. Cheap to clone.
#[derive(Clone)]
pub struct Hooks(Arc<Inner>);

struct Inner {
    files: SettingsFiles,
    processes: Processes,
    api: Client,
    letta_home: PathBuf,
    known: Mutex<HashMap<PathBuf, Known>>,
    aside: TaskTracker,
    stop: CancellationToken,
}

struct Known {
    view: Arc<SettingsView>,
    config: Arc<Config>,
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooks")
    }
}

impl Hooks {
    /// Hooks of the settings files; `letta_home` is `~/.letta`.
    pub fn new(
        files: SettingsFiles,
        processes: Processes,
        api: Client,
        letta_home: PathBuf,
    ) -> Self {
        Self(Arc::new(Inner {
            files,
            processes,
            api,
            letta_home,
            known: Mutex::default(),
            aside: TaskTracker::new(),
            stop: CancellationToken::new(),
        }))
    }

    /// Ends the hooks whose result nobody waits for.
    pub async fn shutdown(&self) {
        self.0.stop.cancel();
        self.0.aside.close();
        self.0.aside.wait().await;
    }

    /// Runs `work` beside everything else: nobody waits for what comes of it.
    fn aside(&self, work: impl Future<Output = ()> + Send + 'static) {
        if self.0.aside.len() >= ASIDE {
            return tracing::warn!("Too many hooks are still running; one event was not told.");
        }
        let stop = self.0.stop.clone();
        // Ended by `shutdown`; each hook has its time limit.
        self.0.aside.spawn(async move {
            stop.run_until_cancelled(work).await;
        });
    }

    /// The hooks for `event` (and `tool`, where there is one) in a directory.
    fn matching(&self, event: Event, tool: Option<&str>, cwd: &Path) -> Vec<Hook> {
        let config = self.config(cwd);
        let takes =
            |hook: &&Hook| hook.event == event && tool.is_none_or(|tool| hook.matcher.takes(tool));
        config.hooks.iter().filter(takes).cloned().collect()
    }

    /// What the files say now; problems are told once per change.
    fn config(&self, cwd: &Path) -> Arc<Config> {
        let view = self.0.files.view(cwd);
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known
            .get(cwd)
            .filter(|known| Arc::ptr_eq(&known.view, &view))
        {
            return Arc::clone(&known.config);
        }
        let config = Arc::new(Config::read(&view.files));
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        if known.len() >= REMEMBERED {
            known.clear();
        }
        let config_again = Arc::clone(&config);
        known.insert(cwd.to_owned(), Known { view, config });
        config_again
    }

    /// Runs the hooks of an event; `fields` are what the event adds to the
    /// common fields of its input.
    async fn run(
        &self,
        event: Event,
        tool: Option<&str>,
        site: &Site,
        fields: impl FnOnce() -> Map<String, Value>,
    ) -> Vec<Ran> {
        let hooks = self.matching(event, tool, &site.cwd);
        if hooks.is_empty() {
            return Vec::new();
        }
        let mut input = Map::new();
        input.insert("event_type".into(), event.as_str().into());
        let cwd = site.cwd.to_string_lossy();
        input.insert("working_directory".into(), (&*cwd).into());
        input.extend(fields());
        if event.is_parallel() {
            return join_all(hooks.iter().map(|hook| self.run_one(hook, site, &input))).await;
        }
        let mut all = Vec::new();
        for hook in &hooks {
            let ran = self.run_one(hook, site, &input).await;
            let blocked = ran.run.verdict == Verdict::Block;
            all.push(ran);
            if blocked {
                break;
            }
        }
        all
    }

    async fn run_one(&self, hook: &Hook, site: &Site, input: &Map<String, Value>) -> Ran {
        let (id, run) = match &hook.action {
            Action::Command(text) => {
                let launch = Launch {
                    argv: self.0.processes.shells().command_line(text, false),
                    cwd: site.cwd.clone(),
                    env: self.environment(hook.event, site),
                    terminal: None,
                };
                let bytes = serde_json::to_vec(input).unwrap_or_default();
                let run = command::run(&self.0.processes, &launch, &bytes, hook.timeout);
                (text.clone(), run.await)
            }
            Action::Prompt { prompt, model } => {
                let short: String = prompt.chars().take(NAME_CHARS).collect();
                let dots = if short.len() < prompt.len() {
                    "..."
                } else {
                    ""
                };
                let agent = site.agent_id.as_deref();
                let run = prompt::run(
                    &self.0.api,
                    agent,
                    prompt,
                    model.as_deref(),
                    input,
                    hook.timeout,
                );
                (format!("prompt:{short}{dots}"), run.await)
            }
        };
        if !hook.quiet {
            tracing::info!(event = hook.event.as_str(), hook = %id, verdict = ?run.verdict, error = ?run.error, "A hook ran.");
            tracing::debug!(hook = %id, stdout = %run.stdout, stderr = %run.stderr, "What it said.");
        }
        Ran { id, run }
    }

    fn environment(&self, event: Event, site: &Site) -> Variables {
        let mut vars = self.0.processes.base().variables().clone();
        for name in FORGOTTEN {
            vars.remove(OsStr::new(name));
        }
        let mut set = |name: &str, value: &OsStr| vars.insert(name.into(), value.to_owned());
        set("LETTA_HOOK_EVENT", OsStr::new(event.as_str()));
        for name in ["LETTA_WORKING_DIR", "USER_CWD"] {
            set(name, site.cwd.as_os_str());
        }
        for name in ["LETTA_AGENT_ID", "AGENT_ID"] {
            if let Some(agent) = &site.agent_id {
                set(name, OsStr::new(&**agent));
            }
        }
        vars
    }

    /// What one run has to say to the model, if anything.
    async fn feedback(&self, ran: &Ran, site: &Site) -> Option<String> {
        let text = match ran.run.verdict {
            Verdict::Allow => return None,
            Verdict::Block if ran.run.stderr.is_empty() => return None,
            Verdict::Block => format!("[{}]: {}", ran.id, ran.run.stderr),
            Verdict::Error => {
                let error = ran.run.error.as_deref().unwrap_or("unknown");
                let stderr = Some(ran.run.stderr.as_str()).filter(|text| !text.is_empty());
                format!("Hook error: {}", stderr.unwrap_or(error))
            }
        };
        Some(self.shortened(&text, site).await)
    }

    /// A long text becomes its beginning and the name of a file with all of it.
    async fn shortened(&self, text: &str, site: &Site) -> String {
        let processes = &self.0.processes;
        let place = SpillPlace::new(&self.0.letta_home, &site.cwd, "hook");
        let mut whole = Capture::new(processes.spills().then_some(place));
        whole.push(text).await;
        let cut = processes.cut(FEEDBACK_CHARS, Some(FEEDBACK_PREVIEW));
        render(whole, Capture::default(), cut).await.text
    }
}

#[cfg(test)]
mod tests;
