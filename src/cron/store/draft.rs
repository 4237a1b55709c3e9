//! The next content of the file: what changed as new text, everything else as
//! stretches of the old file.
//!
//! Invariant: for a file in the form that both programs write, the next content
//! is byte for byte what serialising every task anew would give. A file in another
//! form keeps its form for the tasks that were not changed.

use std::fs::File;
use std::io::{self, Write as _};
use std::ops::Range;

use serde_json::{Value, json};

use super::carrier::Carrier;
use super::document::{Document, VERSION};
use super::layout::{BETWEEN, Layout, Place};
use crate::cron::task::Task;

/// The next content of the file.
#[derive(Debug)]
pub(super) struct Draft {
    pieces: Vec<Piece>,
    length: u64,
    /// There is a task.
    begun: bool,
    pub(super) layout: Layout,
}

#[derive(Debug)]
enum Piece {
    /// A stretch of the old file.
    Kept(Range<u64>),
    New(Vec<u8>),
}

impl Draft {
    /// What `document` makes of a layout of which the tasks at `loaded` were read.
    pub(super) fn new(layout: Layout, loaded: &[usize], document: Document) -> io::Result<Self> {
        let Document { mut top, tasks, .. } = document;
        for (name, default) in [
            ("version", json!(VERSION)),
            ("scheduler_owner", Value::Null),
            ("scheduler_owners", json!({})),
        ] {
            top.entry(name).or_insert(default);
        }
        top.insert("tasks".into(), json!([]));
        let frame = serde_json::to_string_pretty(&top)?;
        top.insert("tasks".into(), Value::Null);
        // At this depth, and in no string, for strings hold no line ends.
        let (before, after) = frame
            .split_once("\n  \"tasks\": []")
            .ok_or_else(|| io::Error::other("the schedules cannot be written as JSON"))?;
        let mut draft = Self {
            pieces: Vec::new(),
            length: 0,
            begun: false,
            layout: Layout {
                top,
                places: Vec::new(),
            },
        };
        draft.write(before.as_bytes());
        draft.write(b"\n  \"tasks\": [");
        let (mut loaded, mut tasks) = (loaded.iter().peekable(), tasks.into_iter().peekable());
        let mut places = layout.places;
        let (mut at, mut last, mut failed) = (0, None, None);
        places.retain_mut(|place| {
            let is_loaded = loaded.next_if(|loaded| **loaded == at).is_some();
            at += 1;
            if !is_loaded {
                last = Some(draft.keep(place, last));
                return true;
            }
            last = None;
            // Read, and gone unless it comes next.
            let task = tasks.next_if(|task| task.id() == place.id());
            let added = task.map(|task| draft.add(&task).map(|new| *place = new));
            match added {
                Some(Err(error)) => {
                    failed.get_or_insert(error);
                    false
                }
                added => added.is_some(),
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        for task in tasks {
            places.push(draft.add(&task)?);
        }
        draft.layout.places = places;
        let end = if draft.layout.places.is_empty() {
            "]"
        } else {
            "\n  ]"
        };
        draft.write(end.as_bytes());
        draft.write(after.as_bytes());
        Ok(draft)
    }

    /// Bytes of the content.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    fn write(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        match self.pieces.last_mut() {
            Some(Piece::New(text)) => text.extend_from_slice(bytes),
            _ => self.pieces.push(Piece::New(bytes.to_vec())),
        }
    }

    /// Before each task; whether it is not the first one.
    fn separate(&mut self) -> bool {
        let follows = std::mem::replace(&mut self.begun, true);
        self.write(if follows { BETWEEN } else { &BETWEEN[1..] }.as_bytes());
        follows
    }

    /// A task that stays as it is; `last` is where the one before ends, if that
    /// stays as well. Gives where this one ends in the old file.
    fn keep(&mut self, place: &mut Place, last: Option<u64>) -> u64 {
        let range = place.range();
        let joined = last.filter(|_| place.adjoins);
        match (joined, self.pieces.last_mut()) {
            (Some(end), Some(Piece::Kept(kept))) if kept.end == end => {
                kept.end = range.end;
                self.length += range.end - end;
                place.adjoins = true;
            }
            _ => {
                place.adjoins = self.separate();
                self.length += range.end - range.start;
                self.pieces.push(Piece::Kept(range.clone()));
            }
        }
        place.start = offset(self.length).saturating_sub(place.length);
        range.end
    }

    fn add(&mut self, task: &Task) -> io::Result<Place> {
        let text = serde_json::to_string_pretty(task.fields())?;
        let text = text.replace('\n', "\n    ");
        let adjoins = self.separate();
        let place = Place {
            id: task.id().into(),
            start: offset(self.length),
            length: offset(text.len() as u64),
            over: task.status().is_terminal(),
            adjoins,
        };
        self.write(text.as_bytes());
        Ok(place)
    }

    /// Writes the content; `old` is the file of the layout it was made of.
    pub(super) fn write_to(&self, old: Option<&File>, new: &mut File) -> io::Result<()> {
        let mut carrier = Carrier::default();
        for piece in &self.pieces {
            match (piece, old) {
                (Piece::New(bytes), _) => new.write_all(bytes)?,
                (Piece::Kept(range), Some(old)) => carrier.append(old, range.clone(), new)?,
                // Nothing is kept of a file that is not there.
                (Piece::Kept(_), None) => return Err(io::ErrorKind::NotFound.into()),
            }
        }
        Ok(())
    }
}

/// The store refuses what is larger than a file it reads, long before 4 GiB.
fn offset(at: u64) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
