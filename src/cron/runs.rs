//! The log of a task's runs, one JSON object a line (07 §1.13).
//!
//! Invariant: a log grows to 2 MB and is then cut to its last 2 000 lines; an id
//! never leads out of the directory. All of it blocks.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::store::Store;
use crate::state::atomic::{self, Access};
use crate::state::home::create_private_dir;

const MAX_BYTES: u64 = 2_000_000;
const KEPT_LINES: usize = 2_000;
/// What is read of a log, newest part last: twice what one may hold.
const READ_LIMIT: u64 = 2 * MAX_BYTES + 1_000_000;
const MAX_ENTRIES: usize = 5_000;
const MAX_PAGE: usize = 200;

/// The entries that one asks for, newest first.
#[derive(Clone, Debug, Default)]
pub struct PageRequest {
    /// 1 to 200; 50 when not given.
    pub limit: Option<f64>,
    /// How many newer entries to leave out.
    pub offset: Option<f64>,
    /// Only the entry of this run.
    pub run_id: Option<String>,
}

/// An id that is no file name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid cron run log job id")]
pub struct InvalidId;

impl Store {
    fn run_log(&self, id: &str) -> Result<PathBuf, InvalidId> {
        let id = id.trim();
        if id.is_empty() || id.len() > 200 || id.contains(['/', '\\', '\0']) {
            return Err(InvalidId);
        }
        Ok(self.runs.join(format!("{id}.jsonl")))
    }

    /// Adds an entry to the log of a task. What goes wrong is logged: a run log
    /// must not keep a task from firing.
    pub(super) fn log_run(&self, id: &str, entry: Map<String, Value>) {
        let appended = self
            .run_log(id)
            .map_err(io::Error::other)
            .and_then(|path| append(&path, &entry));
        if let Err(error) = appended {
            tracing::warn!(task = id, %error, "A run could not be logged.");
        }
    }

    /// One page of the log of a task; empty without a log.
    ///
    /// # Errors
    /// When the id is no file name.
    pub fn runs(&self, id: &str, request: &PageRequest) -> Result<Value, InvalidId> {
        let path = self.run_log(id)?;
        let bytes = atomic::read_bounded(&path, READ_LIMIT).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let mut entries: Vec<Value> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(|entry: &Value| {
                entry["action"] == "finished" && entry["jobId"] == id && entry["ts"].is_number()
            })
            .collect();
        entries.drain(..entries.len().saturating_sub(MAX_ENTRIES));
        if let Some(run_id) = request.run_id.as_deref().filter(|id| !id.is_empty()) {
            entries.retain(|entry| entry["runId"] == run_id);
        }
        entries.sort_by(|a, b| {
            let at = |entry: &Value| entry["ts"].as_f64().unwrap_or_default();
            at(b).total_cmp(&at(a))
        });
        let whole = |value: Option<f64>, default: usize| {
            // Negative numbers become 0, as the bounds below want it.
            value
                .filter(|value| !value.is_nan())
                .map_or(default, |value| value.floor() as usize)
        };
        let limit = whole(request.limit, 50).clamp(1, MAX_PAGE);
        let offset = whole(request.offset, 0);
        let total = entries.len();
        let page: Vec<Value> = entries.into_iter().skip(offset).take(limit).collect();
        let next = offset.saturating_add(page.len());
        Ok(json!({
            "entries": page,
            "total": total,
            "offset": offset,
            "limit": limit,
            "hasMore": next < total,
            "nextOffset": (next < total).then_some(next),
        }))
    }
}

fn append(path: &Path, entry: &Map<String, Value>) -> io::Result<()> {
    let mut line = serde_json::to_vec(entry)?;
    line.push(b'\n');
    let mut file = match OpenOptions::new().append(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => begin(path)?,
        opened => opened?,
    };
    file.write_all(&line)?;
    let meta = file.metadata()?;
    if meta.permissions().mode() & 0o077 != 0 {
        // Best effort: it may be another user's.
        let _ = file.set_permissions(fs::Permissions::from_mode(0o600));
    }
    if meta.len() > MAX_BYTES {
        shorten(path)?;
    }
    Ok(())
}

/// A new log.
fn begin(path: &Path) -> io::Result<File> {
    if let Some(dir) = path.parent() {
        create_private_dir(dir)?;
        // Best effort as well.
        let _ = fs::set_permissions(dir, fs::Permissions::from_mode(0o700));
    }
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).open(path)
}

fn shorten(path: &Path) -> io::Result<()> {
    let bytes = atomic::read_bounded(path, READ_LIMIT)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let kept = &lines[lines.len().saturating_sub(KEPT_LINES)..];
    atomic::write(
        path,
        format!("{}\n", kept.join("\n")).as_bytes(),
        Access::Private,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Home;

    fn fixture() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().expect("temp dir");
        let store = Store::new(&Home::at(dir.path()));
        (dir, store)
    }

    fn entry(id: &str, ts: u64) -> Map<String, Value> {
        let Value::Object(entry) = json!({"ts": ts, "jobId": id, "action": "finished"}) else {
            unreachable!("an object")
        };
        entry
    }

    fn page(store: &Store, limit: f64, offset: f64) -> Value {
        let request = PageRequest {
            limit: Some(limit),
            offset: Some(offset),
            run_id: None,
        };
        store.runs("a", &request).expect("a page")
    }

    #[test]
    fn pages_come_newest_first_and_bad_lines_are_passed_over() {
        let (_dir, store) = fixture();
        assert_eq!(page(&store, 50.0, 0.0)["entries"], json!([]));
        for ts in [1, 3, 2] {
            store.log_run("a", entry("a", ts));
        }
        store.log_run("a", entry("b", 9));
        let path = store.run_log("a").expect("a name");
        let mut file = OpenOptions::new().append(true).open(&path).expect("opened");
        file.write_all(b"{\n\xff\n{\"action\":\"finished\",\"jobId\":\"a\",\"ts\":\"4\"}\n")
            .expect("written");
        let first = page(&store, 2.0, 0.0);
        assert_eq!(
            (&first["entries"][0]["ts"], &first["entries"][1]["ts"]),
            (&json!(3), &json!(2))
        );
        assert_eq!(
            (&first["total"], &first["hasMore"], &first["nextOffset"]),
            (&json!(3), &json!(true), &json!(2))
        );
        let last = page(&store, 2.0, 2.0);
        assert_eq!(
            (&last["entries"][0]["ts"], &last["nextOffset"]),
            (&json!(1), &Value::Null)
        );
        assert_eq!(page(&store, -3.0, -1.0)["limit"], 1);
        assert_eq!(page(&store, 1e9, f64::MAX)["limit"], 200);
    }

    #[test]
    fn a_log_is_private_and_is_cut_when_it_is_too_long() {
        let (_dir, store) = fixture();
        store.log_run("a", entry("a", 1));
        let path = store.run_log("a").expect("a name");
        assert_eq!(
            fs::metadata(&path).expect("there").permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            fs::metadata(&store.runs)
                .expect("there")
                .permissions()
                .mode()
                & 0o777,
            0o700
        );
        let long = format!("{}\n", "x".repeat(99)).repeat(20_100);
        fs::write(&path, long).expect("written");
        store.log_run("a", entry("a", 2));
        let text = fs::read_to_string(&path).expect("read");
        assert_eq!(text.lines().count(), KEPT_LINES);
        assert_eq!(page(&store, 50.0, 0.0)["entries"][0]["ts"], 2);
    }

    #[test]
    fn an_id_never_leads_out_of_the_directory() {
        let (_dir, store) = fixture();
        for id in ["", "  ", "../x", "a/b", "a\\b", "a\0"] {
            assert_eq!(
                store.runs(id, &PageRequest::default()),
                Err(InvalidId),
                "{id:?}"
            );
        }
    }
}
