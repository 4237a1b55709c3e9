//! File watches: `watch_file`, `unwatch_file`, `file_changed` (06 §3.9).
//!
//! [`Watches`] hands what it is told to a task of its own, the [`watcher`],
//! because looking at a path may take as long as its disk. Invariant: a watch
//! belongs to one connection and ends with it.

mod inotify;
mod watcher;

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use self::watcher::{Told, Watcher};
use super::call::Call;
use crate::conversation::Services;
use crate::protocol::ConnectionId;

/// The mailbox of the task, and the task; it starts with the first watch.
#[derive(Debug)]
pub(super) struct Watches {
    services: Arc<Services>,
    watcher: Option<(mpsc::UnboundedSender<Told>, JoinHandle<()>)>,
}

impl Watches {
    pub(super) fn new(services: Arc<Services>) -> Self {
        Self {
            services,
            watcher: None,
        }
    }

    fn tell(&self, told: Told) {
        // Where nothing was ever watched there is nothing to forget.
        if let Some((mailbox, _)) = &self.watcher {
            let _ = mailbox.send(told);
        }
    }

    fn watch(&mut self, owner: ConnectionId, path: String) {
        let services = &self.services;
        let (mailbox, _) = self.watcher.get_or_insert_with(|| {
            let (mailbox, inbox) = mpsc::unbounded_channel();
            let watcher = Watcher::new(Arc::clone(services));
            (mailbox, tokio::spawn(Box::pin(watcher.run(inbox))))
        });
        let _ = mailbox.send(Told::Watch(owner, path));
    }

    /// A connection is gone: nothing of it is watched any more.
    pub(super) fn close(&self, connection: ConnectionId) {
        self.tell(Told::Close(connection));
    }

    /// What a connection watched is another's now.
    pub(super) fn move_to(&self, old: ConnectionId, new: ConnectionId) {
        self.tell(Told::Move(old, new));
    }

    pub(super) async fn shut_down(self) {
        if let Some((mailbox, task)) = self.watcher {
            drop(mailbox);
            let _ = task.await;
        }
    }
}

/// Watches a path once more. Nothing answers but `file_changed`.
pub(super) fn watch_file(watches: &mut Watches, mut call: Call) {
    match path(&mut call) {
        Ok(path) => watches.watch(call.request.from, path),
        Err(error) => call.fail(&error.to_string()),
    }
}

/// Watches a path once less.
pub(super) fn unwatch_file(watches: &mut Watches, mut call: Call) {
    match path(&mut call) {
        Ok(path) => watches.tell(Told::Unwatch(call.request.from, path)),
        Err(error) => call.fail(&error.to_string()),
    }
}

fn path(call: &mut Call) -> Result<String, crate::protocol::fields::ShapeError> {
    call.fields.string("request_id")?;
    call.fields.string("path")
}
