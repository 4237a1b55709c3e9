//! The beginning of a run: an order becomes a task, the task finds who does it
//! (07 §3.9 steps 1 to 3).

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::run::{Run, State};
use super::target::{self, Prepared};
use super::{Done, Owner, Reply};
use crate::conversation::assignment::{Assignment, INTERRUPTED};
use crate::conversation::mailbox::Message;
use crate::process::output_file::OutputFile;
use crate::protocol::Scope;
use crate::protocol::time::epoch_millis;
use crate::subagents::{LaunchError, Launched, Parent, Wanted};

const GOING_DOWN: &str = "This computer is shutting down.";

impl Owner {
    /// Takes a place among those that may run, and has the task checked.
    pub(super) fn on_launch(
        &mut self,
        parent: Parent,
        wanted: Wanted,
        tool_call_id: Option<String>,
        reply: Reply,
    ) {
        let refusal = if self.going_down() {
            Some(LaunchError::Refused(GOING_DOWN.into()))
        } else if parent.scope.agent_id.is_none() {
            let text = "Only the conversation of an agent can have subagents.";
            Some(LaunchError::Refused(text.into()))
        } else {
            None
        };
        let slot = Arc::clone(&self.slots).try_acquire_owned();
        let slot = match (refusal, slot) {
            (None, Ok(slot)) => slot,
            (refusal, _) => {
                // Whoever asked may have stopped waiting.
                let _ = reply.send(Err(refusal.unwrap_or(LaunchError::Full)));
                return;
            }
        };
        let services = Arc::clone(&self.services);
        self.jobs.spawn(async move {
            Done::Prepared {
                prepared: target::prepare(&services, parent, wanted)
                    .await
                    .map(Box::new),
                tool_call_id,
                slot,
                reply,
            }
        });
    }

    /// A copy was made for nobody.
    pub(super) fn drop_fork(&mut self, task: Prepared) {
        let services = Arc::clone(&self.services);
        self.jobs.spawn(async move {
            target::discard(&services, &task).await;
            Done::Nothing
        });
    }

    /// Gives a task its id, its file and its record, and looks for who does it.
    pub(super) fn begin(
        &mut self,
        task: Prepared,
        tool_call_id: Option<String>,
        slot: OwnedSemaphorePermit,
        mut reply: Reply,
    ) {
        self.count += 1;
        let now = epoch_millis(SystemTime::now());
        let task_id = format!("task_{}", self.count);
        let subagent_id = format!("subagent-{now}-{}", self.count);
        let task = Arc::new(task);
        let run = Run {
            number: self.count,
            log: self
                .services
                .background
                .scratch()
                .join(format!("{task_id}.log")),
            record: self.records.join(format!("{subagent_id}.json")),
            task: Arc::clone(&task),
            task_id,
            subagent_id: subagent_id.into(),
            tool_call_id,
            state: State::Pending,
            child: None,
            model: None,
            started: Instant::now(),
            started_at: now,
            tool_calls: Vec::new(),
            tool_uses: 0,
            tokens: None,
            duration_ms: 0,
            error: None,
            cancel: CancellationToken::new(),
            stops: Vec::new(),
            expires: None,
            file: None,
            slot: Some(slot),
        };
        self.services.metrics.0.subagent_started();
        let (number, cancel) = (run.number, run.cancel.clone());
        let write = self.record(&run, run.lost_text());
        let (path, title) = (run.log.clone(), run.title());
        let services = Arc::clone(&self.services);
        self.jobs.spawn(async move {
            let mut file = OutputFile::new(path);
            let begin = async {
                let begun = file.begin().await;
                if let Err(error) = begun.and(file.append(&title).await) {
                    tracing::warn!(%error, "The output file of a subagent cannot be written.");
                }
            };
            let resolve = async {
                tokio::select! {
                    resolved = target::resolve(&services, &task) => resolved,
                    () = reply.closed() => Err(INTERRUPTED.into()),
                    () = cancel.cancelled() => Err(INTERRUPTED.into()),
                }
            };
            // The record is on disk before anything can end.
            let (resolved, (), ()) = tokio::join!(resolve, begin, write);
            Done::Resolved {
                run: number,
                resolved,
                file,
                reply,
            }
        });
        let parent = run.task.parent.scope.clone();
        self.runs.push(run);
        self.publish(&parent, None);
    }

    /// It is known who does the task, or that nobody can.
    pub(super) fn on_resolved(
        &mut self,
        number: u64,
        resolved: Result<(Scope, Option<String>), String>,
        file: OutputFile,
        reply: Reply,
    ) {
        let news = self.news.clone();
        let services = Arc::clone(&self.services);
        let Some(run) = self.find(number) else { return };
        run.file = Some(file);
        let resolved = resolved.and_then(|found| {
            let wanted = !run.cancel.is_cancelled();
            wanted.then_some(found).ok_or_else(|| INTERRUPTED.into())
        });
        match resolved {
            Ok((child, model)) => {
                run.state = State::Running;
                run.model = model;
                run.child = Some(child.clone());
                let task = &run.task;
                let assignment = Assignment {
                    run: number,
                    subagent_id: Arc::clone(&run.subagent_id),
                    parent: task.parent.scope.clone(),
                    execution: task.execution(),
                    cwd: task.parent.cwd.clone(),
                    workspace: task.parent.workspace.clone(),
                    input: task.input(&services, &child),
                    news,
                };
                let launched = Launched {
                    task_id: run.task_id.clone(),
                    output_file: run.log.clone(),
                    child: child.clone(),
                };
                let parent = task.parent.scope.clone();
                self.publish(&parent, None);
                self.send(&child, Message::Assign(Box::new(assignment)));
                // Whoever asked may have stopped waiting by now; it runs all the same.
                let _ = reply.send(Ok(launched));
            }
            Err(error) => {
                let _ = reply.send(Err(LaunchError::Refused(error.clone())));
                self.finish(number, Err(error));
            }
        }
    }
}
