//! The task that watches: from the kernel's news to `file_changed`.
//!
//! A file is watched through its directory, so that it is still seen after an
//! editor put another in its place.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::inotify::{Inotify, News, Watched};
use crate::conversation::Services;
use crate::device::call::push;
use crate::protocol::ConnectionId;

/// A change is told when so long no other came (06 §3.9)…
const SETTLED: Duration = Duration::from_millis(150);
/// …but a file that changes all the time is told of that often.
const LONGEST: Duration = Duration::from_secs(2);
/// Watched paths of one connection.
const MAX_PATHS: usize = 1000;
/// How long looking at a path may take; a dead mount is not watched.
const LOOK: Duration = Duration::from_secs(2);

/// What the task is told.
#[derive(Debug)]
pub(super) enum Told {
    Watch(ConnectionId, String),
    Unwatch(ConnectionId, String),
    Close(ConnectionId),
    Move(ConnectionId, ConnectionId),
}

pub(super) struct Watcher {
    services: Arc<Services>,
    /// There while something is watched.
    inotify: Option<Inotify>,
    watches: HashMap<(ConnectionId, String), Watch>,
}

struct Watch {
    count: usize,
    directory: Watched,
    /// The entry of the directory; `None` for any.
    name: Option<OsString>,
    /// When the change is told, and when at the latest.
    due: Option<(Instant, Instant)>,
}

impl Watcher {
    /// A watcher of nothing.
    pub(super) fn new(services: Arc<Services>) -> Self {
        Self {
            services,
            inotify: None,
            watches: HashMap::new(),
        }
    }

    /// Runs until its owner is gone.
    pub(super) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Told>) {
        loop {
            let due = self.watches.values().filter_map(|watch| watch.due);
            let next = due.map(|(due, latest)| due.min(latest)).min();
            tokio::select! {
                told = inbox.recv() => match told {
                    Some(told) => self.on(told).await,
                    None => return,
                },
                news = news(self.inotify.as_ref()) => match news {
                    Ok(news) => news.iter().for_each(|news| self.on_news(news)),
                    Err(error) => {
                        tracing::warn!(%error, "Files are no longer watched.");
                        self.watches.clear();
                    }
                },
                () = until(next) => self.tell_due().await,
            }
            if self.watches.is_empty() {
                self.inotify = None;
            }
        }
    }

    async fn on(&mut self, told: Told) {
        match told {
            Told::Watch(owner, path) => self.watch(owner, path).await,
            Told::Unwatch(owner, path) => {
                let key = (owner, path);
                if let Some(watch) = self.watches.get_mut(&key) {
                    watch.count -= 1;
                    if watch.count == 0 {
                        self.forget(&key);
                    }
                }
            }
            Told::Close(owner) => {
                let of_owner = self.watches.keys().filter(|(other, _)| *other == owner);
                let gone: Vec<_> = of_owner.cloned().collect();
                gone.iter().for_each(|key| self.forget(key));
            }
            Told::Move(old, new) => {
                let watches = std::mem::take(&mut self.watches);
                let moved = watches.into_iter().map(|((owner, path), watch)| {
                    let owner = if owner == old { new.clone() } else { owner };
                    ((owner, path), watch)
                });
                self.watches = moved.collect();
            }
        }
    }

    async fn watch(&mut self, owner: ConnectionId, path: String) {
        let owned = self.watches.keys().filter(|(other, _)| *other == owner);
        let full = owned.count() >= MAX_PATHS;
        let key = (owner, path);
        if let Some(watch) = self.watches.get_mut(&key) {
            watch.count += 1;
            return;
        }
        if full {
            return tracing::warn!("A client watches {MAX_PATHS} paths already.");
        }
        let inotify = match &self.inotify {
            Some(inotify) => inotify.clone(),
            None => match Inotify::new() {
                Ok(inotify) => self.inotify.insert(inotify).clone(),
                Err(error) => return tracing::warn!(%error, "Files cannot be watched."),
            },
        };
        let place = PathBuf::from(&key.1);
        let found = look(move || watched(&inotify, &place)).await;
        // What is not there is not watched (06 §3.9).
        if let Some((directory, name)) = found {
            let watch = Watch {
                count: 1,
                directory,
                name,
                due: None,
            };
            self.watches.insert(key, watch);
        }
    }

    /// Drops a watch, and that of the kernel with the last one that needs it.
    fn forget(&mut self, key: &(ConnectionId, String)) {
        let Some(watch) = self.watches.remove(key) else {
            return;
        };
        let others = &mut self.watches.values();
        if !others.any(|other| other.directory == watch.directory)
            && let Some(inotify) = &self.inotify
        {
            inotify.remove(watch.directory);
        }
    }

    fn on_news(&mut self, news: &News) {
        let now = Instant::now();
        for watch in self.watches.values_mut() {
            let concerned = match news {
                News::Lost => true,
                News::Changed(directory, name) => {
                    *directory == watch.directory
                        && (name.is_none() || watch.name.is_none() || *name == watch.name)
                }
            };
            if concerned {
                let latest = watch.due.map_or(now + LONGEST, |(_, latest)| latest);
                watch.due = Some((now + SETTLED, latest));
            }
        }
    }

    /// Tells of every change whose time has come; what is gone is dropped.
    async fn tell_due(&mut self) {
        let now = Instant::now();
        let mut due = Vec::new();
        for (key, watch) in &mut self.watches {
            if watch
                .due
                .is_some_and(|(due, latest)| due.min(latest) <= now)
            {
                watch.due = None;
                due.push(key.clone());
            }
        }
        for key in due {
            let place = PathBuf::from(&key.1);
            match look(move || modified(&place)).await {
                Some(modified) => {
                    let (owner, path) = &key;
                    let frame =
                        json!({"type": "file_changed", "path": path, "lastModified": modified});
                    push(&self.services, owner, &frame);
                }
                None => self.forget(&key),
            }
        }
    }
}

async fn news(inotify: Option<&Inotify>) -> io::Result<Vec<News>> {
    match inotify {
        Some(inotify) => inotify.next().await,
        None => std::future::pending().await,
    }
}

async fn until(next: Option<Instant>) {
    match next {
        Some(next) => sleep_until(next).await,
        None => std::future::pending().await,
    }
}

/// Looks at the disk off the runtime, for a bounded time.
async fn look<T: Send + 'static>(work: impl FnOnce() -> Option<T> + Send + 'static) -> Option<T> {
    let work = tokio::task::spawn_blocking(work);
    timeout(LOOK, work).await.ok()?.ok()?
}

/// Starts to watch what a path leads to.
fn watched(inotify: &Inotify, path: &Path) -> Option<(Watched, Option<OsString>)> {
    let path = path.canonicalize().ok()?;
    let (directory, name) = match (path.is_dir(), path.parent(), path.file_name()) {
        (false, Some(parent), Some(name)) => (parent, Some(name.to_owned())),
        _ => (path.as_path(), None),
    };
    match inotify.add(directory) {
        Ok(watched) => Some((watched, name)),
        Err(error) => {
            tracing::warn!(%error, "A directory cannot be watched.");
            None
        }
    }
}

/// When a file was changed, in milliseconds since 1970.
fn modified(path: &Path) -> Option<u64> {
    let modified = std::fs::metadata(path).ok()?.modified().ok()?;
    let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).ok()
}
