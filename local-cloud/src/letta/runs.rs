//! Runs: the replayable event record of one request, and its endpoints.
//!
//! Invariant: a run goes on whether anybody reads it or not (a foreground run
//! ends with its reader); every reader sees the same events in the same order,
//! numbered from 1. Spec 03 §2.1, §5.6, §19.2.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::fault::Fault;
use crate::letta::tail;
use crate::reply;
use crate::server::Cloud;
use crate::sync::lock;

struct State {
    /// Number and bytes of every event.
    events: Vec<(u64, Bytes)>,
    seq: u64,
    status: &'static str,
    stop_reason: Option<String>,
    error: Option<Value>,
    completed_at: Option<String>,
    done: bool,
}

/// One server-side execution of a message request.
pub(crate) struct Run {
    pub(crate) id: String,
    pub(crate) agent_id: String,
    /// `conv-…` or `default`.
    pub(crate) conversation_id: String,
    /// Key of the conversation in the store.
    pub(crate) key: String,
    pub(crate) background: bool,
    pub(crate) otids: Vec<String>,
    created_at: String,
    state: Mutex<State>,
    tick: watch::Sender<u64>,
    cancel: watch::Sender<bool>,
}

impl Run {
    pub(crate) fn new(
        key: &str,
        agent_id: &str,
        conversation_id: &str,
        background: bool,
        otids: Vec<String>,
    ) -> Self {
        Self {
            id: format!("run-{}", crate::short_id()),
            agent_id: agent_id.to_owned(),
            conversation_id: conversation_id.to_owned(),
            key: key.to_owned(),
            background,
            otids,
            created_at: crate::now(),
            state: Mutex::new(State {
                events: Vec::with_capacity(8),
                seq: 0,
                status: "running",
                stop_reason: None,
                error: None,
                completed_at: None,
                done: false,
            }),
            tick: watch::Sender::new(0),
            cancel: watch::Sender::new(false),
        }
    }

    fn append(&self, render: impl FnOnce(u64) -> Bytes) {
        let seq = {
            let mut state = lock(&self.state);
            state.seq += 1;
            let seq = state.seq;
            state.events.push((seq, render(seq)));
            seq
        };
        self.tick.send_replace(seq);
    }

    /// Adds a message chunk; `run_id` and `seq_id` are put in here.
    pub(crate) fn chunk(&self, mut chunk: Value) {
        self.append(|seq| {
            if let Some(fields) = chunk.as_object_mut() {
                fields.insert("run_id".into(), json!(self.id));
                fields.insert("seq_id".into(), json!(seq));
            }
            data(&chunk)
        });
    }

    /// Adds a chunk without run id and number (`stop_reason`, usage).
    pub(crate) fn bare(&self, chunk: &Value) {
        self.append(|_| data(chunk));
    }

    /// Adds the first event of a stream: a ping that names the run.
    pub(crate) fn ping(&self) {
        self.chunk(json!({"message_type": "ping", "id": "ping", "date": crate::now()}));
    }

    /// Ends the run well: stop reason, usage, `[DONE]`.
    pub(crate) fn finish(&self, stop_reason: &str, usage: &Value) {
        let status = if stop_reason == "cancelled" {
            "cancelled"
        } else {
            "completed"
        };
        self.settle(status, stop_reason, None);
        self.bare(&json!({"message_type": "stop_reason", "stop_reason": stop_reason}));
        if stop_reason != "cancelled" {
            self.bare(usage);
        }
        self.close();
    }

    /// Ends the run with an error: stop reason (if any), `event: error`, `[DONE]`.
    pub(crate) fn fail(&self, stop_reason: Option<&str>, mut error: Value) {
        if let Some(fields) = error.as_object_mut() {
            fields.insert("run_id".into(), json!(self.id));
        }
        self.settle(
            "failed",
            stop_reason.unwrap_or("error"),
            Some(error.clone()),
        );
        if let Some(stop_reason) = stop_reason {
            self.bare(&json!({"message_type": "stop_reason", "stop_reason": stop_reason}));
        }
        self.append(|_| Bytes::from(format!("event: error\ndata: {error}\n\n")));
        self.close();
    }

    /// Ends the run with an error told as a data chunk, then the stop reason.
    pub(crate) fn fail_in_band(&self, stop_reason: &str, mut error: Value) {
        if let Some(fields) = error.as_object_mut() {
            fields.insert("message_type".into(), json!("error_message"));
        }
        self.settle("failed", stop_reason, Some(error.clone()));
        self.chunk(error);
        self.bare(&json!({"message_type": "stop_reason", "stop_reason": stop_reason}));
        self.close();
    }

    /// Ends the run with a bare stop reason that stands for a failure.
    pub(crate) fn stop(&self, stop_reason: &str, usage: &Value) {
        let failed = matches!(
            stop_reason,
            "error" | "llm_api_error" | "invalid_llm_response"
        );
        self.settle(
            if failed { "failed" } else { "completed" },
            stop_reason,
            None,
        );
        self.bare(&json!({"message_type": "stop_reason", "stop_reason": stop_reason}));
        self.bare(usage);
        self.close();
    }

    fn settle(&self, status: &'static str, stop_reason: &str, error: Option<Value>) {
        let mut state = lock(&self.state);
        state.status = status;
        state.stop_reason = Some(stop_reason.to_owned());
        state.error = error;
        state.completed_at = Some(crate::now());
    }

    fn close(&self) {
        self.append(|_| Bytes::from_static(b"data: [DONE]\n\n"));
        lock(&self.state).done = true;
        self.tick.send_modify(|tick| *tick += 1);
    }

    /// Index of the first event numbered above `seq`.
    pub(crate) fn index_behind(&self, seq: u64) -> usize {
        let state = lock(&self.state);
        state.events.partition_point(|(number, _)| *number <= seq)
    }

    /// Number of the event at `index`, 0 when there is none.
    pub(crate) fn number_at(&self, index: usize) -> u64 {
        let state = lock(&self.state);
        state.events.get(index).map_or(0, |(number, _)| *number)
    }

    /// Shows the events from `index` on, and whether they are the last ones.
    pub(crate) fn read_from<R>(
        &self,
        index: usize,
        read: impl FnOnce(&[(u64, Bytes)], bool) -> R,
    ) -> R {
        let state = lock(&self.state);
        read(state.events.get(index..).unwrap_or_default(), state.done)
    }

    /// Changes whenever there is something new to read.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.tick.subscribe()
    }

    pub(crate) fn is_done(&self) -> bool {
        lock(&self.state).done
    }

    /// Asks the run to end with `cancelled`.
    pub(crate) fn cancel(&self) {
        self.cancel.send_replace(true);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        *self.cancel.borrow()
    }

    /// Resolves when somebody cancels the run.
    pub(crate) async fn cancelled(&self) {
        // The sender lives in `self`, so the wait cannot fail.
        let _ = self
            .cancel
            .subscribe()
            .wait_for(|cancelled| *cancelled)
            .await;
    }

    /// Waits `time`; true when the run was cancelled meanwhile.
    pub(crate) async fn pause(&self, time: Duration) -> bool {
        if time.is_zero() {
            return self.is_cancelled();
        }
        tokio::select! {
            () = self.cancelled() => true,
            () = tokio::time::sleep(time) => self.is_cancelled(),
        }
    }

    /// Resolves when the last event is in.
    pub(crate) async fn done(&self) {
        let mut news = self.tick.subscribe();
        while !self.is_done() {
            if news.changed().await.is_err() {
                return;
            }
        }
    }

    /// The run as the API shows it.
    pub(crate) fn to_json(&self) -> Value {
        let state = lock(&self.state);
        json!({
            "id": self.id, "agent_id": self.agent_id, "conversation_id": self.conversation_id,
            "status": state.status, "stop_reason": state.stop_reason, "background": self.background,
            "created_at": self.created_at, "completed_at": state.completed_at,
            "metadata": state.error.as_ref().map(|error| json!({"error": error})),
        })
    }

    /// The events as JSON chunks, for answers that do not stream.
    pub(crate) fn chunks(&self) -> Vec<Value> {
        let state = lock(&self.state);
        let text = |bytes: &Bytes| serde_json::from_slice(bytes.strip_prefix(b"data: ")?).ok();
        state
            .events
            .iter()
            .filter_map(|(_, bytes)| text(bytes))
            .collect()
    }
}

/// An event with this chunk.
pub(crate) fn data(chunk: &Value) -> Bytes {
    Bytes::from(format!("data: {chunk}\n\n"))
}

/// `GET /v1/runs/{id}`.
pub(crate) fn get(cloud: &Cloud, id: &str) -> Response {
    match cloud.store.run(id) {
        Some(run) => reply::ok(&run.to_json()),
        None => reply::detail(404, &format!("Run {id} not found")),
    }
}

/// `GET /v1/runs/`: newest first unless `order=asc`.
pub(crate) fn list(cloud: &Cloud, query: &[(String, String)]) -> Response {
    let statuses: Vec<&str> = query
        .iter()
        .filter(|(k, _)| k == "statuses")
        .map(|(_, v)| v.as_str())
        .collect();
    let limit = reply::get(query, "limit")
        .and_then(|n| n.parse().ok())
        .unwrap_or(100);
    let mut runs: Vec<Value> = cloud
        .store
        .runs(|run| {
            reply::get(query, "conversation_id").is_none_or(|id| id == run.conversation_id)
                && reply::get(query, "agent_id").is_none_or(|id| id == run.agent_id)
        })
        .iter()
        .map(|run| run.to_json())
        .filter(|run| statuses.is_empty() || statuses.iter().any(|status| run["status"] == *status))
        .collect();
    if reply::get(query, "order") != Some("asc") {
        runs.reverse();
    }
    runs.truncate(limit);
    reply::ok(&Value::Array(runs))
}

/// `POST /v1/runs/{id}/stream`: resume by run.
pub(crate) fn resume(cloud: &Arc<Cloud>, id: &str, body: &Value, fault: Option<Fault>) -> Response {
    let Some(run) = cloud.store.run(id) else {
        return reply::detail(404, &format!("Run {id} not found"));
    };
    if !run.background {
        return reply::detail(400, &format!("Run {id} is not a background run"));
    }
    resume_run(cloud, &run, body, fault)
}

/// `POST /v1/conversations/{conv}/stream`: resume by run id, otid, or whatever is active.
pub(crate) fn resume_in(
    cloud: &Arc<Cloud>,
    key: &str,
    body: &Value,
    fault: Option<Fault>,
) -> Response {
    let run = if let Some(id) = body["run_id"].as_str() {
        cloud
            .store
            .run(id)
            .ok_or((404, "No such run in this conversation"))
    } else if let Some(otid) = body["otid"].as_str() {
        cloud
            .store
            .run_by_otid(otid)
            .filter(|run| run.key == key)
            .ok_or((404, "No run was found for this otid"))
    } else {
        cloud
            .store
            .active_run(key)
            .ok_or((400, "No active runs found for this conversation"))
    };
    match run {
        Ok(run) => resume_run(cloud, &run, body, fault),
        Err((status, text)) => reply::detail(status, text),
    }
}

fn resume_run(cloud: &Arc<Cloud>, run: &Arc<Run>, body: &Value, fault: Option<Fault>) -> Response {
    if !cloud.options.redis {
        return reply::detail(503, NO_REDIS);
    }
    let after = body["starting_after"].as_u64().unwrap_or(0);
    tail::stream(cloud, run, after, fault, false)
}

/// What a server without Redis says to background streams.
pub(crate) const NO_REDIS: &str = "Background streaming requires Redis to be running. \
     Please ensure Redis is properly configured.";

/// `POST /v1/agents/{agent}/messages/cancel` with `{run_ids}`, or without: whatever is active.
pub(crate) async fn cancel_of_agent(cloud: &Arc<Cloud>, agent: &str, body: &Value) -> Response {
    let Some(ids) = body["run_ids"].as_array() else {
        return cancel_in(cloud, &crate::letta::default_key(agent)).await;
    };
    let mut result = serde_json::Map::new();
    for id in ids.iter().filter_map(Value::as_str) {
        let outcome = match cloud.store.run(id) {
            Some(run) => {
                end(&run).await;
                cloud.store.deny_pending_of_cancelled(&run);
                "cancelled"
            }
            None => "failed",
        };
        result.insert(id.to_owned(), json!(outcome));
    }
    reply::ok(&Value::Object(result))
}

/// `POST /v1/conversations/{id}/cancel`.
pub(crate) async fn cancel_in(cloud: &Arc<Cloud>, key: &str) -> Response {
    let Some(run) = cloud
        .store
        .active_run(key)
        .or_else(|| cloud.store.run_awaiting(key))
    else {
        return reply::json(
            StatusCode::CONFLICT,
            &json!({"detail": "No active runs to cancel"}),
        );
    };
    end(&run).await;
    cloud.store.deny_pending_of_cancelled(&run);
    reply::ok(&json!({run.id.clone(): "cancelled"}))
}

/// Cancels and waits for the end, which is close: a run looks at every event.
async fn end(run: &Run) {
    run.cancel();
    // A run stuck in a model call ends later; the answer does not wait for it.
    let _ = tokio::time::timeout(Duration::from_secs(1), run.done()).await;
}
