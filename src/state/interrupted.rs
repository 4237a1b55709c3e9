//! Interrupted-turn records: what a conversation was doing, so that the next
//! process can finish it (spec 01 §4.8, 03 §14.5).
//!
//! One file for each conversation, replaced whole. What ran and what it gave is
//! on the disk before it counts; which run it was, and that a turn is over, may
//! be lost to a power failure: recovery finds both out from the server. The
//! order of operations on one conversation is kept; writes that a newer one
//! overtakes before their turn are left out, and their waiters learn of the
//! newer one.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Duration, Instant};

use super::Home;
use super::atomic::{self, Access, Lasting, READ_LIMIT, read_bounded};

/// How long a record waits that nobody waits for: a call of its run, or its end,
/// mostly follows within milliseconds.
const SOON: Duration = Duration::from_millis(30);

/// One record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InterruptedTurn {
    /// The agent.
    pub agent_id: String,
    /// The conversation.
    pub conversation_id: String,
    /// The run of the turn, once it is known.
    pub run_id: Option<String>,
    /// Calls that were about to run or have run.
    pub tool_call_ids: Vec<String>,
    /// Results of those that have run, as they go to the server.
    pub results: Vec<Map<String, Value>>,
    /// The `otid` of the request that continues the turn.
    pub request_otid: String,
    /// The human on whose behalf it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acting_user_id: Option<String>,
    /// Where it ran.
    pub working_directory: String,
    /// A hand-over between machines, kept for the published program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teleport_id: Option<String>,
    /// New on every write; what is passed in is replaced.
    #[serde(default)]
    pub revision: String,
}

/// A record could not be written or removed.
#[derive(Debug, thiserror::Error)]
pub enum InterruptedError {
    /// The system refused.
    #[error("interrupted-turn record {path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The writer has ended: the process is going down.
    #[error("interrupted-turn records are closed: the process is going down")]
    Closed,
}

/// The records of one server, on disk. Blocking.
#[derive(Clone, Debug)]
pub struct InterruptedStore {
    dir: PathBuf,
}

impl InterruptedStore {
    /// Those of a server.
    pub fn new(home: &Home, server_url: &str) -> Self {
        Self {
            dir: home.listener_state(server_url),
        }
    }

    /// Writes a record and gives its new revision.
    ///
    /// # Errors
    /// When it is not on disk; the one before is whole then.
    pub fn write(
        &self,
        record: &InterruptedTurn,
        lasting: Lasting,
    ) -> Result<String, InterruptedError> {
        let path = self.path(&record.agent_id, &record.conversation_id);
        let mut record = record.clone();
        record.revision = uuid::Uuid::new_v4().to_string();
        let written = serde_json::to_vec(&record)
            .map_err(io::Error::from)
            .and_then(|bytes| atomic::replace(&path, &bytes, Access::Private, lasting));
        match written {
            Ok(()) => Ok(record.revision),
            Err(source) => Err(InterruptedError::Io { path, source }),
        }
    }

    /// Removes a record; one that is not there is fine.
    ///
    /// # Errors
    /// When it stays.
    pub fn delete(&self, agent_id: &str, conversation_id: &str) -> Result<(), InterruptedError> {
        let path = self.path(agent_id, conversation_id);
        match fs::remove_file(&path) {
            // One that comes back after a power failure finds nothing pending.
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(InterruptedError::Io { path, source }),
        }
    }

    /// The record of a conversation, if it is whole.
    pub fn read(&self, agent_id: &str, conversation_id: &str) -> Option<InterruptedTurn> {
        read_record(&self.path(agent_id, conversation_id))
    }

    /// Every record that is whole and lies under its own name, by name.
    pub fn list(&self) -> Vec<InterruptedTurn> {
        let Ok(entries) = fs::read_dir(&self.dir) else {
            return Vec::new();
        };
        let json = |path: &PathBuf| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        };
        let mut paths: Vec<_> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(json)
            .collect();
        paths.sort();
        let whole = paths.iter().filter_map(|path| {
            let record = read_record(path)?;
            let named = self.path(&record.agent_id, &record.conversation_id) == *path;
            if !named {
                tracing::debug!(path = %path.display(), "a record under a foreign name is ignored");
            }
            named.then_some(record)
        });
        whole.collect()
    }

    fn path(&self, agent_id: &str, conversation_id: &str) -> PathBuf {
        let name = format!(
            "{}_{}.json",
            encode_component(agent_id),
            encode_component(conversation_id)
        );
        self.dir.join(name)
    }
}

fn read_record(path: &Path) -> Option<InterruptedTurn> {
    let record: InterruptedTurn =
        serde_json::from_slice(&read_bounded(path, READ_LIMIT).ok()?).ok()?;
    let named =
        |result: &Map<String, Value>| result.get("tool_call_id").is_some_and(Value::is_string);
    (!record.revision.is_empty() && record.results.iter().all(named)).then_some(record)
}

/// JavaScript's `encodeURIComponent`: no slash and no control character is left.
fn encode_component(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}

/// Does the work of an [`InterruptedStore`] on a task of its own. Cheap to
/// clone; the task ends when [`InterruptedWriter::close`] and every clone are gone.
#[derive(Clone, Debug)]
pub struct InterruptedTurns {
    orders: mpsc::UnboundedSender<Order>,
}

/// The owner of the task behind [`InterruptedTurns`].
#[derive(Debug)]
pub struct InterruptedWriter {
    orders: mpsc::UnboundedSender<Order>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
enum Order {
    Do {
        key: (String, String),
        work: Work,
        done: Option<Done>,
    },
    Close,
}

#[derive(Debug)]
enum Work {
    Write(Box<InterruptedTurn>, Lasting),
    Delete,
}

type Done = oneshot::Sender<Result<(), InterruptedError>>;

impl InterruptedTurns {
    /// Starts the task on the current runtime.
    pub fn start(store: InterruptedStore) -> (Self, InterruptedWriter) {
        let (orders, inbox) = mpsc::unbounded_channel();
        let task = tokio::spawn(work_off(store, inbox));
        (
            Self {
                orders: orders.clone(),
            },
            InterruptedWriter { orders, task },
        )
    }

    /// Writes a record, and returns when its content, or a newer state of the
    /// same conversation, is on the disk.
    ///
    /// # Errors
    /// When that failed.
    pub async fn write_durable(&self, record: InterruptedTurn) -> Result<(), InterruptedError> {
        let key = key_of(&record);
        let write = Work::Write(Box::new(record), Lasting::Content);
        self.wait(key, write).await
    }

    /// Writes a record within [`SOON`]; a newer one may take its place.
    pub fn write_soon(&self, record: InterruptedTurn) {
        let key = key_of(&record);
        let write = Work::Write(Box::new(record), Lasting::Process);
        self.order(key, write, None);
    }

    /// Removes a record, and returns when it is gone from the disk.
    ///
    /// # Errors
    /// When that failed.
    pub async fn delete(
        &self,
        agent_id: &str,
        conversation_id: &str,
    ) -> Result<(), InterruptedError> {
        self.wait(
            (agent_id.to_owned(), conversation_id.to_owned()),
            Work::Delete,
        )
        .await
    }

    async fn wait(&self, key: (String, String), work: Work) -> Result<(), InterruptedError> {
        let (done, answer) = oneshot::channel();
        self.order(key, work, Some(done));
        answer.await.unwrap_or(Err(InterruptedError::Closed))
    }

    fn order(&self, key: (String, String), work: Work, done: Option<Done>) {
        // After the end nobody takes it; a waiter sees its answer dropped.
        let _ = self.orders.send(Order::Do { key, work, done });
    }
}

impl InterruptedWriter {
    /// Finishes what was ordered so far and ends the task.
    pub async fn close(self) {
        let _ = self.orders.send(Order::Close);
        // It only fails by a panic, which has been reported by then.
        let _ = self.task.await;
    }
}

fn key_of(record: &InterruptedTurn) -> (String, String) {
    (record.agent_id.clone(), record.conversation_id.clone())
}

/// What is to be done for one conversation.
struct Pending {
    work: Work,
    waiters: Vec<Done>,
    due: Instant,
}

impl Pending {
    /// Takes the place of an older order, and what was promised of it.
    fn overtake(&mut self, older: Self) {
        self.due = self.due.min(older.due);
        self.waiters.extend(older.waiters);
        if let (Work::Write(_, lasting), Work::Write(_, promised)) = (&mut self.work, older.work) {
            *lasting = promised.max(*lasting);
        }
    }
}

async fn work_off(store: InterruptedStore, mut inbox: mpsc::UnboundedReceiver<Order>) {
    // The last order for each conversation counts, for all who wait.
    let mut pending: HashMap<(String, String), Pending> = HashMap::new();
    let mut open = true;
    while open || !pending.is_empty() {
        let mut orders = Vec::new();
        if open {
            let next_due = pending.values().map(|it| it.due).min();
            let received = async { inbox.recv_many(&mut orders, 1024).await };
            let received = match next_due {
                Some(due) => tokio::time::timeout_at(due, received).await.ok(),
                None => Some(received.await),
            };
            open = received != Some(0);
        }
        for order in orders {
            match order {
                Order::Close => open = false,
                Order::Do { key, work, done } => {
                    let soon = done.is_none() && matches!(work, Work::Write(..));
                    let due = Instant::now() + if soon { SOON } else { Duration::ZERO };
                    let mut new = Pending {
                        work,
                        waiters: Vec::from_iter(done),
                        due,
                    };
                    if let Some(overtaken) = pending.remove(&key) {
                        new.overtake(overtaken);
                    }
                    pending.insert(key, new);
                }
            }
        }
        let now = Instant::now();
        // The disk is asked for those of different conversations at the same time.
        let mut all = JoinSet::new();
        for (key, due) in pending.extract_if(|_, it| !open || it.due <= now) {
            let store = store.clone();
            all.spawn_blocking(move || finish(&store, &key, &due.work, due.waiters));
        }
        // At shutdown a waiter is dropped, and sees `Closed`.
        while all.join_next().await.is_some() {}
    }
}

fn finish(store: &InterruptedStore, key: &(String, String), work: &Work, waiters: Vec<Done>) {
    let outcome = match work {
        Work::Write(record, lasting) => store.write(record, *lasting).map(drop),
        Work::Delete => store.delete(&key.0, &key.1),
    };
    if let Err(error) = &outcome {
        tracing::warn!(%error, "a restart may not be able to finish this turn");
    }
    for waiter in waiters {
        let answer = match &outcome {
            Ok(()) => Ok(()),
            Err(InterruptedError::Io { path, source }) => {
                let source = io::Error::new(source.kind(), source.to_string());
                Err(InterruptedError::Io {
                    path: path.clone(),
                    source,
                })
            }
            Err(InterruptedError::Closed) => Err(InterruptedError::Closed),
        };
        // Whoever waited may have been cancelled.
        let _ = waiter.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::os::unix::fs::MetadataExt;

    const SERVER: &str = "https://api.letta.com";

    fn fixture() -> (tempfile::TempDir, InterruptedStore) {
        let dir = tempfile::tempdir().expect("temp dir");
        let store = InterruptedStore::new(&Home::at(dir.path()), SERVER);
        (dir, store)
    }

    fn record(conversation: &str, otid: &str) -> InterruptedTurn {
        let text = json!({
            "agentId": "agent-1", "conversationId": conversation, "runId": null, "toolCallIds": ["call-1"],
            "results": [{"tool_call_id": "call-1", "status": "success"}], "requestOtid": otid, "workingDirectory": "/srv/app",
        });
        serde_json::from_value(text).expect("a record")
    }

    fn otids(store: &InterruptedStore) -> Vec<String> {
        store
            .list()
            .into_iter()
            .map(|record| record.request_otid)
            .collect()
    }

    #[test]
    fn a_record_comes_back_with_a_new_revision_each_time() {
        let (_dir, store) = fixture();
        let first = store
            .write(&record("default", "o1"), Lasting::Content)
            .expect("written");
        let second = store
            .write(&record("default", "o2"), Lasting::Process)
            .expect("written");
        assert_ne!(first, second);
        let mut expected = record("default", "o2");
        expected.revision = second;
        assert_eq!(store.list(), [expected.clone()]);
        assert_eq!(store.read("agent-1", "default"), Some(expected));
        store.delete("agent-1", "default").expect("removed");
        store
            .delete("agent-1", "default")
            .expect("not there is fine");
        assert!(store.list().is_empty());
    }

    #[test]
    fn optional_fields_are_left_out_and_a_missing_run_is_null() {
        let text = serde_json::to_value(record("c", "o")).expect("JSON");
        assert_eq!(text["runId"], Value::Null);
        assert!(text.get("actingUserId").is_none() && text.get("teleportId").is_none());
    }

    #[test]
    fn names_are_encoded_as_in_javascript_and_stay_in_the_directory() {
        let (_dir, store) = fixture();
        let path = store.path("../a b", "c/ö~(x)");
        assert_eq!(path.parent(), Some(store.dir.as_path()));
        let name = path.file_name().and_then(|name| name.to_str());
        assert_eq!(name, Some("..%2Fa%20b_c%2F%C3%B6~(x).json"));
    }

    #[test]
    fn files_are_private() {
        let (_dir, store) = fixture();
        store
            .write(&record("c", "o"), Lasting::Content)
            .expect("written");
        let mode = |path: &Path| fs::metadata(path).expect("exists").mode() & 0o777;
        assert_eq!(
            (mode(&store.dir), mode(&store.path("agent-1", "c"))),
            (0o700, 0o600)
        );
    }

    #[test]
    fn what_is_broken_or_under_a_foreign_name_is_ignored() {
        let (_dir, store) = fixture();
        store
            .write(&record("good", "o"), Lasting::Content)
            .expect("written");
        let good = fs::read(store.path("agent-1", "good")).expect("readable");
        fs::write(store.dir.join("agent-1_other.json"), &good).expect("written");
        fs::write(store.dir.join("agent-1_good.json.tmp"), &good).expect("written");
        for (n, broken) in ["", "null", "{}", r#"{"agentId":"agent-1"}"#]
            .iter()
            .enumerate()
        {
            fs::write(store.dir.join(format!("agent-1_b{n}.json")), broken).expect("written");
        }
        let mut nameless: Value = serde_json::from_slice(&good).expect("JSON");
        nameless["conversationId"] = json!("n");
        nameless["results"] = json!([{"status": "success"}]);
        fs::write(store.path("agent-1", "n"), nameless.to_string()).expect("written");
        assert_eq!(otids(&store), ["o"]);
    }

    #[tokio::test]
    async fn a_durable_write_is_on_disk_when_it_returns() {
        let (_dir, store) = fixture();
        let (turns, writer) = InterruptedTurns::start(store.clone());
        turns
            .write_durable(record("c", "o1"))
            .await
            .expect("written");
        assert_eq!(otids(&store), ["o1"]);
        turns.delete("agent-1", "c").await.expect("removed");
        assert!(store.list().is_empty());
        writer.close().await;
    }

    #[tokio::test]
    async fn the_order_of_one_conversation_is_kept_and_the_end_waits_for_all() {
        let (_dir, store) = fixture();
        let (turns, writer) = InterruptedTurns::start(store.clone());
        for n in 0..50 {
            turns.write_soon(record("a", &format!("a{n}")));
            turns.write_soon(record("b", &format!("b{n}")));
        }
        turns.delete("agent-1", "b").await.expect("removed");
        turns.write_soon(record("a", "last"));
        writer.close().await;
        assert_eq!(otids(&store), ["last"]);
        let late = turns.write_durable(record("a", "late")).await;
        assert!(matches!(late, Err(InterruptedError::Closed)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_waits_for_is_written_soon_and_not_at_all_when_overtaken() {
        let (_dir, store) = fixture();
        let (turns, writer) = InterruptedTurns::start(store.clone());
        let began = Instant::now();
        turns.write_soon(record("a", "o1"));
        tokio::time::sleep(SOON / 2).await;
        turns.write_soon(record("a", "o2"));
        assert!(store.list().is_empty());
        while store.list().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(began.elapsed() <= SOON + Duration::from_millis(2));
        assert_eq!(otids(&store), ["o2"]);
        let written = store.read("agent-1", "a").map(|it| it.revision);
        turns.write_soon(record("a", "o3"));
        turns.write_durable(record("a", "o4")).await.unwrap();
        assert_eq!(otids(&store), ["o4"]);
        assert_ne!(store.read("agent-1", "a").map(|it| it.revision), written);
        writer.close().await;
    }

    #[tokio::test]
    async fn a_failed_write_is_told_to_the_one_who_waits() {
        let (dir, store) = fixture();
        fs::create_dir(dir.path().join(".letta")).expect("created");
        fs::write(dir.path().join(".letta/listener-state"), "in the way").expect("written");
        let (turns, writer) = InterruptedTurns::start(store);
        let error = turns
            .write_durable(record("c", "o"))
            .await
            .expect_err("no directory");
        assert!(matches!(error, InterruptedError::Io { .. }), "{error}");
        writer.close().await;
    }
}
