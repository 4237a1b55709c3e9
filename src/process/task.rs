//! One command or watched WebSocket that the registry knows by its id, and how its end is told
//! (04 §6.4–§6.6).

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::notification::{self, Notification};
use super::session::{Ending, Finished, Session};
use crate::protocol::Scope;

/// Which tool a command belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bash: `bash_<n>`.
    Bash,
    /// `exec_command`: `<n>`.
    Exec,
    /// Monitor: `monitor_<uuid>`.
    Monitor {
        /// It has no timeout.
        persistent: bool,
    },
}

/// What is known of a command before it starts.
#[derive(Clone, Debug)]
pub struct About {
    /// Its tool.
    pub kind: Kind,
    /// The command text; of a WebSocket, who it connects to.
    pub command: String,
    /// The model's label for it, if any.
    pub description: Option<String>,
    /// The conversation that started it.
    pub scope: Scope,
}

/// One command that the registry knows.
#[derive(Debug)]
pub struct Task {
    id: String,
    about: About,
    session: Session,
    log: PathBuf,
    started: Instant,
    started_at: SystemTime,
    in_background: AtomicBool,
    end_told: AtomicBool,
    reader: Semaphore,
}

impl Task {
    pub(super) fn new(id: String, about: About, session: Session, log: PathBuf) -> Self {
        Self {
            id,
            about,
            session,
            log,
            started: Instant::now(),
            started_at: SystemTime::now(),
            in_background: AtomicBool::new(false),
            end_told: AtomicBool::new(false),
            reader: Semaphore::new(1),
        }
    }

    /// Its id in the registry.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it is.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Whether it is a monitor.
    pub fn is_monitor(&self) -> bool {
        matches!(self.about.kind, Kind::Monitor { .. })
    }

    /// What runs.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Its transcript: there once it runs in the background.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// When it started.
    pub fn started_at(&self) -> SystemTime {
        self.started_at
    }

    /// The turn to read its output; held while one waits for more, so that the
    /// end is told once: to the reader or by notification.
    pub fn reader(&self) -> &Semaphore {
        &self.reader
    }

    /// Claims the telling of its end: `true` for the first to ask.
    pub fn claim_end(&self) -> bool {
        !self.end_told.swap(true, Ordering::AcqRel)
    }

    /// Whether somebody claimed the telling of its end.
    pub fn end_is_told(&self) -> bool {
        self.end_told.load(Ordering::Acquire)
    }

    pub(super) fn to_background(&self) {
        self.in_background.store(true, Ordering::Release);
    }

    pub(super) fn is_in_background(&self) -> bool {
        self.in_background.load(Ordering::Acquire)
    }

    /// Whether it has not ended yet.
    pub fn is_running(&self) -> bool {
        self.session.ended().is_none()
    }

    /// How long it runs, or ran.
    pub fn runtime(&self) -> Duration {
        self.session
            .ended()
            .map_or_else(|| self.started.elapsed(), |finished| finished.elapsed)
    }

    /// `running`, `completed` or `failed`.
    pub fn status(&self) -> &'static str {
        self.session
            .ended()
            .map_or("running", |finished| notification::status(&finished.ending))
    }

    /// What people call it: its description, else its command.
    pub fn label(&self) -> &str {
        self.about
            .description
            .as_deref()
            .map(str::trim)
            .filter(|label| !label.is_empty())
            .unwrap_or(&self.about.command)
    }

    /// Its entry in `device_status.background_processes` (04 §6.6).
    pub(super) fn listed(&self) -> Value {
        let started_at = crate::protocol::time::epoch_millis(self.started_at);
        match self.about.kind {
            Kind::Bash | Kind::Exec => json!({
                "process_id": self.id, "kind": "bash", "command": self.about.command,
                "started_at_ms": started_at, "status": self.status(), "exit_code": null,
            }),
            Kind::Monitor { persistent } => json!({
                "process_id": self.id, "kind": "monitor", "description": self.label(),
                "source": if self.session.group().is_some() { "command" } else { "websocket" },
                "started_at_ms": started_at, "status": self.status(),
                "persistent": persistent,
            }),
        }
    }

    /// The notification of its end, with the output that nobody took yet.
    pub(super) async fn announcement(&self, finished: &Finished) -> String {
        let (mut out, mut err) = self.session.take().await;
        let ending = &finished.ending;
        let status = notification::status(ending);
        let (command, label) = (&self.about.command, self.label());
        let mut task_id = self.id.clone();
        let (summary, result) = match self.about.kind {
            Kind::Bash => (
                format!("Background command \"{label}\" {status}"),
                notification::bash_result(command, ending, &out, &err),
            ),
            Kind::Exec => {
                task_id = format!("exec_{}", self.id);
                (
                    format!("Exec command \"{label}\" {status}"),
                    notification::exec_result(command, &self.id, ending, &out),
                )
            }
            Kind::Monitor { .. } => {
                let exit = match ending {
                    Ending::Exited(code) => format!(" (exit {code})"),
                    _ => String::new(),
                };
                let summary = if status == "failed" {
                    format!("Monitor \"{label}\" script failed{exit}")
                } else if out.excerpt().total_lines() > 0 {
                    format!("Monitor \"{label}\" stream ended")
                } else {
                    format!("Monitor \"{label}\" ended without producing output{exit}")
                };
                (summary, notification::detail(ending))
            }
        };
        out.discard().await;
        err.discard().await;
        Notification {
            task_id: &task_id,
            status: Some(status),
            summary: &summary,
            result: &result,
            usage: &[("duration_ms", notification::duration_ms(finished.elapsed))],
            transcript: Some(&self.log),
        }
        .text()
    }
}
