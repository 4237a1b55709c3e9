//! One conversation at a time in a worktree: `letta-enter.lock` in its git
//! directory, as the published program reads and writes it (04 §7.21).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::protocol::{Scope, time};
use crate::state::atomic::{self, Access};
use crate::state::process_age;

const FILE: &str = "letta-enter.lock";
/// A record is a few hundred bytes.
const LARGEST: u64 = 64 * 1024;

/// The claim of a conversation on a worktree.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    file: PathBuf,
    scope: Scope,
    host: String,
}

impl Claim {
    /// A claim of `scope` on the worktree whose git directory is `git_dir`.
    pub(super) fn new(git_dir: &Path, scope: &Scope) -> Self {
        let name = rustix::system::uname();
        Self {
            file: git_dir.join(FILE),
            scope: scope.clone(),
            host: name.nodename().to_string_lossy().into_owned(),
        }
    }

    /// Takes the worktree; what is worth telling of it.
    ///
    /// # Errors
    /// Somebody else has it and may be alive, and `force` is off.
    pub(super) fn take(&self, force: bool) -> Result<String, String> {
        let note = match self.record() {
            None => "taken by this conversation".to_owned(),
            Some(record) if self.is_ours(&record) => String::new(),
            Some(record) if self.is_stale(&record) => {
                "taken over; whoever had it is gone".to_owned()
            }
            Some(record) if force => format!("taken by force from {}", holder(&record)),
            Some(record) => {
                return Err(format!(
                    "The worktree is in use by {}. Two conversations must not edit it at once. If that one does not work there any more, call again with force: true.",
                    holder(&record)
                ));
            }
        };
        let record = json!({
            "conversationId": self.scope.conversation_id,
            "agentId": self.scope.agent_id,
            "pid": std::process::id(),
            "hostname": self.host,
            "acquiredAt": time::iso_millis(SystemTime::now()),
        });
        let text = format!("{record:#}\n");
        atomic::write(&self.file, text.as_bytes(), Access::Private)
            .map_err(|error| format!("{} cannot be written: {error}", self.file.display()))?;
        Ok(note)
    }

    /// Gives the worktree back, if it is ours: whether it was.
    pub(super) fn release(&self) -> bool {
        self.record().is_some_and(|record| self.is_ours(&record))
            && fs::remove_file(&self.file).is_ok()
    }

    fn record(&self) -> Option<Value> {
        let bytes = atomic::read_bounded(&self.file, LARGEST).ok()?;
        let record: Value = serde_json::from_slice(&bytes).ok()?;
        record["pid"].is_i64().then_some(record)
    }

    fn is_ours(&self, record: &Value) -> bool {
        let same = |key: &str, ours: Option<&str>| record[key].as_str() == ours;
        same("conversationId", Some(&self.scope.conversation_id))
            && same("agentId", self.scope.agent_id.as_deref())
    }

    fn is_stale(&self, record: &Value) -> bool {
        let host = record["hostname"].as_str().unwrap_or_default();
        if !host.is_empty() && host != self.host {
            return false;
        }
        let written = fs::metadata(&self.file).and_then(|file| file.modified());
        let pid = record["pid"].as_i64().unwrap_or_default();
        // Our own id is another conversation of this process, or belonged to an
        // earlier process of a container, where every life begins with the same ids.
        !process_age::may_be_alive_or_us(pid, written.ok())
    }
}

fn holder(record: &Value) -> String {
    let since = record["acquiredAt"]
        .as_str()
        .map(|since| format!(" since {since}"))
        .unwrap_or_default();
    match record["conversationId"].as_str() {
        Some(conversation) => format!("conversation {conversation}{since}"),
        None => format!("process {}{since}", record["pid"]),
    }
}
