//! What people see of running calls: their output so far, and their results
//! (spec 03 §6.5, 04 §4.4).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::Turn;
use super::report::Report;
use crate::conversation::frames::now;
use crate::tools::live::LiveOutput;
use crate::tools::tool::Progress as ToolProgress;

/// Live output of a call is shown at most this often (04 §4.4).
const LIVE_INTERVAL: Duration = Duration::from_millis(100);

impl Turn {
    /// A synthetic tool row (03 §6.5).
    pub(super) fn row(
        &self,
        prefix: &str,
        lines: Option<(Vec<String>, Vec<String>)>,
        tool_call_id: &str,
        status: &str,
        text: String,
    ) -> Map<String, Value> {
        let mut entry = json!({
            "tool_call_id": tool_call_id, "status": status, "tool_return": text,
        });
        let live = lines.is_some();
        if let Some((stdout, stderr)) = lines {
            for (key, lines) in [("stdout", stdout), ("stderr", stderr)] {
                if !lines.is_empty() {
                    entry[key] = json!(lines);
                }
            }
        }
        let id = if live {
            format!("{prefix}{tool_call_id}")
        } else {
            format!("{prefix}{}", uuid::Uuid::new_v4())
        };
        let mut row = Map::new();
        row.insert("type".into(), "message".into());
        row.insert("message_type".into(), "tool_return_message".into());
        row.insert("id".into(), id.into());
        row.insert("date".into(), now().into());
        if let Some(run_id) = &self.run_id {
            row.insert("run_id".into(), run_id.as_str().into());
        }
        row.insert("status".into(), status.into());
        row.insert("tool_call_id".into(), tool_call_id.into());
        row.insert("tool_return".into(), text.into());
        row.insert("tool_returns".into(), json!([entry]));
        row
    }

    /// Shows live output until the last call has ended (04 §4.4).
    pub(super) async fn show_progress(
        &self,
        mut progress: mpsc::UnboundedReceiver<(Arc<str>, ToolProgress)>,
        finished: &tokio_util::sync::CancellationToken,
    ) {
        let mut live: HashMap<Arc<str>, LiveOutput> = HashMap::new();
        let mut dirty: Vec<Arc<str>> = Vec::new();
        let mut due = tokio::time::Instant::now();
        loop {
            let next = tokio::select! {
                biased;
                next = progress.recv() => next,
                // A command that went on in the background keeps its sender.
                () = finished.cancelled() => None,
                () = tokio::time::sleep_until(due), if !dirty.is_empty() => {
                    self.show_live(&live, &mut dirty).await;
                    due = tokio::time::Instant::now() + LIVE_INTERVAL;
                    continue;
                }
            };
            match next {
                None => break,
                Some((_, ToolProgress::MemoryChanged(paths))) => {
                    self.port.tell(Report::MemoryChanged(paths)).await;
                }
                Some((_, ToolProgress::FileWritten { path, content })) => {
                    let path = path.to_string_lossy().into_owned();
                    self.port.tell(Report::FileWritten { path, content }).await;
                }
                Some((id, chunk)) => {
                    if live.entry(id.clone()).or_default().push(&chunk) && !dirty.contains(&id) {
                        dirty.push(id);
                    }
                }
            }
        }
        self.show_live(&live, &mut dirty).await;
    }

    async fn show_live(&self, live: &HashMap<Arc<str>, LiveOutput>, dirty: &mut Vec<Arc<str>>) {
        for id in dirty.drain(..) {
            let Some(output) = live.get(&id) else {
                continue;
            };
            let view = output.view();
            let row = self.row(
                "synthetic-tool-return-stream-",
                Some((view.stdout, view.stderr)),
                &id,
                "success",
                view.tool_return,
            );
            self.port.tell(Report::Live(row)).await;
        }
    }
}
