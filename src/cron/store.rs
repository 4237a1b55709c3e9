//! `crons.json`, shared with the published program (07 §1.3, §1.4).
//!
//! Invariant: every change is read, made and written under the lock; what is not
//! understood is written back as it was; a file that cannot be read as a store
//! counts as empty and is copied aside before it is replaced. All of it blocks.
//!
//! Where each task stands in the file that was written last is remembered, so that
//! a change of a few tasks reads and serialises these alone.

mod carrier;
mod document;
mod draft;
mod layout;

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

pub use self::document::Document;
use self::draft::Draft;
pub(super) use self::layout::Place;
use self::layout::{Layout, read_task};
use super::task::Task;
use crate::state::Home;
use crate::state::atomic::{self, Access, READ_LIMIT};
use crate::state::directory_lock::{DirectoryLock, DirectoryLockError};
use crate::state::json_file::{self, JsonFileError};
use crate::state::spare;

/// A file that another program wrote less than this ago may be written again
/// without its times telling; see [`Stamp`].
const SETTLED: Duration = Duration::from_secs(2);

/// How often a file that changes under the reader is read.
const READ_TRIES: usize = 3;

/// Where the schedules of one home lie. Cheap to clone; clones share what they
/// know of the file.
#[derive(Clone, Debug)]
pub struct Store {
    file: PathBuf,
    lock: PathBuf,
    pub(super) scheduler_lock: PathBuf,
    pub(super) runs: PathBuf,
    known: Arc<Mutex<Option<Known>>>,
}

/// What tells one content of the file from another: each is a file of its own. The
/// times that a kernel gives move in steps of some milliseconds; a file of ours gets
/// one to the nanosecond, which no later change of it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The layout of one content.
#[derive(Clone, Debug)]
struct Known {
    stamp: Stamp,
    layout: Arc<Layout>,
}

/// The file as it is now.
#[derive(Default)]
struct Content {
    file: Option<File>,
    stamp: Option<Stamp>,
    layout: Arc<Layout>,
    /// All of it, where it had to be read.
    bytes: Option<Vec<u8>>,
    /// There is something else than a store.
    corrupt: bool,
}

/// Ids that every task's is compared with.
pub(super) type Ids<T> = std::collections::HashSet<T, foldhash::fast::RandomState>;

/// Which tasks are read.
type Choice<'a> = Option<&'a dyn Fn(&Place) -> bool>;

/// Why the store was not changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The lock could not be had.
    #[error(transparent)]
    Lock(#[from] DirectoryLockError),
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] JsonFileError),
    /// The change is not allowed.
    #[error("{0}")]
    Refused(String),
}

impl Store {
    /// The store of a home; nothing is touched.
    pub fn new(home: &Home) -> Self {
        Self {
            file: home.crons(),
            lock: home.crons_lock(),
            scheduler_lock: home.crons_scheduler_lock(),
            runs: home.runs(),
            known: Arc::default(),
        }
    }

    /// What the file holds now, without the lock.
    pub fn read(&self) -> Document {
        self.look(None)
    }

    /// The tasks of `choice` as they are now, without the lock.
    pub(super) fn pick(&self, choice: &dyn Fn(&Place) -> bool) -> Vec<Task> {
        self.look(Some(choice)).tasks
    }

    /// The task of an id.
    pub fn get(&self, id: &str) -> Option<Task> {
        let mut tasks = self.pick(&|place| place.id() == id).into_iter();
        tasks.find(|task| task.id() == id)
    }

    fn look(&self, choice: Choice<'_>) -> Document {
        match self.read_whole(choice) {
            Ok(document) => document,
            Err(source) => {
                let error = self.unreadable(source);
                tracing::warn!(%error, "The schedules cannot be read.");
                Document::default()
            }
        }
    }

    /// Without the lock the file may be written over while it is read: by hand, or
    /// after it was replaced long enough ago ([`spare`]).
    fn read_whole(&self, choice: Choice<'_>) -> io::Result<Document> {
        let mut last = None;
        for _ in 0..READ_TRIES {
            let mut content = self.open()?;
            let (_, document) = content.load(choice)?;
            if content.is_unchanged() {
                return Ok(document);
            }
            last = Some(document);
        }
        Ok(last.unwrap_or_default())
    }

    /// Tells whether the file is still the one that was read; `None` without one.
    pub fn stamp(&self) -> Option<Stamp> {
        fs::metadata(&self.file).ok().as_ref().map(Stamp::of)
    }

    /// Changes the store; it is written when `change` returns true. The stamp is
    /// that of the file as it is then.
    ///
    /// # Errors
    /// When the lock or the file cannot be used; nothing is changed then.
    pub fn update(
        &self,
        change: &mut dyn FnMut(&mut Document) -> bool,
    ) -> Result<Option<Stamp>, StoreError> {
        self.amend(None, change)
    }

    /// The same for a change that needs no tasks but those of `choice`: `change`
    /// sees these alone, and all others stay as they are.
    ///
    /// # Errors
    /// As for [`update`](Self::update).
    pub(super) fn update_some(
        &self,
        choice: &dyn Fn(&Place) -> bool,
        change: &mut dyn FnMut(&mut Document) -> bool,
    ) -> Result<Option<Stamp>, StoreError> {
        self.amend(Some(choice), change)
    }

    fn amend(
        &self,
        choice: Choice<'_>,
        change: &mut dyn FnMut(&mut Document) -> bool,
    ) -> Result<Option<Stamp>, StoreError> {
        let _lock = DirectoryLock::acquire(&self.lock)?;
        let failed = |source| self.unreadable(source);
        let mut content = self.open().map_err(failed)?;
        let (loaded, mut document) = content.load(choice).map_err(failed)?;
        if !change(&mut document) {
            return Ok(content.stamp);
        }
        if content.corrupt {
            let copy = json_file::set_aside(&self.file)?;
            tracing::warn!(
                copy = %copy.display(),
                "The file of the schedules was no valid store; a copy is kept."
            );
        }
        // Taken, not copied: it is of no use once the file is another one.
        *self.known() = None;
        let layout = Arc::unwrap_or_clone(content.layout);
        let failed = |source| self.unwritable(source);
        let draft = Draft::new(layout, &loaded, document).map_err(failed)?;
        if draft.length() > READ_LIMIT {
            return Err(StoreError::Refused(format!(
                "The schedules would take {} bytes on disk (max {READ_LIMIT}). Delete some first.",
                draft.length()
            )));
        }
        self.replace(draft, content.file.as_ref())
            .map_err(|e| failed(e).into())
    }

    /// Writes the file and remembers where its tasks stand.
    fn replace(&self, draft: Draft, old: Option<&File>) -> io::Result<Option<Stamp>> {
        let now = SystemTime::now();
        let fill = &mut |new: &mut File| {
            draft.write_to(old, new)?;
            // Where a time cannot be set the file is only not remembered.
            let _ = new.set_modified(now);
            Ok(())
        };
        let written = spare::replace(&self.file, Access::Private, draft.length(), fill)?;
        let Some(metadata) = written.and_then(|file| file.metadata().ok()) else {
            return Ok(self.stamp());
        };
        let stamp = Stamp::of(&metadata);
        if metadata.modified().is_ok_and(|modified| modified == now) {
            self.remember(stamp, Arc::new(draft.layout));
        }
        Ok(Some(stamp))
    }

    /// Opens the file and finds its tasks.
    fn open(&self) -> io::Result<Content> {
        let file = match atomic::open(&self.file) {
            Ok(file) => file,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(Content::default());
            }
            Err(error) => return Err(error),
        };
        let stamp = Stamp::of(&file.metadata()?);
        let known = self.known().clone().filter(|known| known.stamp == stamp);
        let mut content = Content {
            stamp: Some(stamp),
            ..Content::default()
        };
        if let Some(known) = known {
            content.layout = known.layout;
        } else {
            let bytes = atomic::read_open(&file, READ_LIMIT)?;
            match Layout::scan(&bytes) {
                Some(layout) => {
                    content.layout = Arc::new(layout);
                    if stamp.is_settled(SystemTime::now()) {
                        self.remember(stamp, Arc::clone(&content.layout));
                    }
                }
                None => content.corrupt = true,
            }
            content.bytes = Some(bytes);
        }
        content.file = Some(file);
        Ok(content)
    }

    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, stamp: Stamp, layout: Arc<Layout>) {
        *self.known() = Some(Known { stamp, layout });
    }

    fn unreadable(&self, source: io::Error) -> JsonFileError {
        let path = self.file.clone();
        JsonFileError::Read { path, source }
    }

    fn unwritable(&self, source: io::Error) -> JsonFileError {
        let path = self.file.clone();
        JsonFileError::Write { path, source }
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the next change will have another time.
    fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH);
        let before = now.unwrap_or_default().saturating_sub(SETTLED);
        let before = i64::try_from(before.as_secs()).unwrap_or_default();
        self.modified.0 < before && self.changed.0 < before
    }
}

impl Content {
    /// Whether the open file is still as it was when it was opened, its name aside.
    fn is_unchanged(&self) -> bool {
        let now = self.file.as_ref().and_then(|file| file.metadata().ok());
        let content = |stamp: Stamp| (stamp.size, stamp.modified);
        now.map(|now| content(Stamp::of(&now))) == self.stamp.map(content)
    }

    /// Reads the tasks of `choice`, by their numbers in the layout too. One that
    /// cannot be read is left out and stays in the file as it is.
    fn load(&mut self, choice: Choice<'_>) -> io::Result<(Vec<usize>, Document)> {
        let mut document = Document {
            top: self.layout.top.clone(),
            tasks: Vec::new(),
            stamp: self.stamp,
        };
        if choice.is_none()
            && self.bytes.is_none()
            && let Some(file) = &self.file
        {
            self.bytes = Some(atomic::read_open(file, READ_LIMIT)?);
        }
        let mut loaded = Vec::new();
        for (at, place) in self.layout.places.iter().enumerate() {
            if !choice.is_none_or(|choice| choice(place)) {
                continue;
            }
            if let Some(task) = self.task(place)? {
                loaded.push(at);
                document.tasks.push(task);
            }
        }
        Ok((loaded, document))
    }

    fn task(&self, place: &Place) -> io::Result<Option<Task>> {
        let range = place.range();
        let [start, end] = [range.start, range.end].map(|at| usize::try_from(at).unwrap_or(0));
        if let Some(bytes) = &self.bytes {
            return Ok(bytes.get(start..end).and_then(read_task));
        }
        let Some(file) = &self.file else {
            return Ok(None);
        };
        let mut text = vec![0; end - start];
        file.read_exact_at(&mut text, range.start)?;
        Ok(read_task(&text))
    }
}

#[cfg(test)]
mod tests;
