//! An append-only record that can be waited on: frames, requests, openings.
//!
//! Positions are absolute and never reused. Old entries are dropped once the
//! record weighs more than its limit, so a long benchmark stays in bounds; a
//! position before the oldest kept entry simply starts there.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::sync::lock;

/// A position in a record: everything pushed later lies behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(pub(crate) u64);

impl Cursor {
    /// The position before the first entry.
    pub const START: Cursor = Cursor(0);
}

/// A wait that ran into its time limit; prints what was seen last.
#[derive(Clone, PartialEq, Eq)]
pub struct WaitError {
    what: String,
    after: Duration,
    seen: Vec<String>,
}

impl WaitError {
    pub(crate) fn new(what: impl Into<String>, after: Duration, seen: Vec<String>) -> Self {
        Self {
            what: what.into(),
            after,
            seen,
        }
    }
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} did not come within {:?}", self.what, self.after)?;
        if self.seen.is_empty() {
            return write!(f, "; nothing was seen");
        }
        write!(f, "; last seen:")?;
        for line in &self.seen {
            write!(f, "\n  {line}")?;
        }
        Ok(())
    }
}

/// The same text as `Display`, so that `unwrap` in a test is readable.
impl fmt::Debug for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for WaitError {}

struct Ring<T> {
    items: VecDeque<(T, usize)>,
    first: u64,
    weight: usize,
    limit: usize,
}

impl<T> Ring<T> {
    fn end(&self) -> u64 {
        self.first + self.items.len() as u64
    }

    fn index(&self, position: u64) -> usize {
        usize::try_from(position.saturating_sub(self.first)).unwrap_or(usize::MAX)
    }
}

/// The record. `T` is cheap to clone (an `Arc`).
pub(crate) struct Log<T> {
    ring: Mutex<Ring<T>>,
    tick: watch::Sender<u64>,
}

impl<T: Clone> Log<T> {
    /// An empty record that keeps entries of at most `limit` bytes together.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            ring: Mutex::new(Ring {
                items: VecDeque::new(),
                first: 0,
                weight: 0,
                limit,
            }),
            tick: watch::Sender::new(0),
        }
    }

    /// Appends an entry that weighs `weight` bytes.
    pub(crate) fn push(&self, item: T, weight: usize) {
        let end = {
            let mut ring = lock(&self.ring);
            ring.items.push_back((item, weight));
            ring.weight += weight;
            while ring.weight > ring.limit && ring.items.len() > 1 {
                if let Some((_, gone)) = ring.items.pop_front() {
                    ring.weight -= gone;
                    ring.first += 1;
                }
            }
            ring.end()
        };
        self.tick.send_replace(end);
    }

    /// The position behind the newest entry.
    pub(crate) fn end(&self) -> Cursor {
        Cursor(lock(&self.ring).end())
    }

    /// Every kept entry from `from` on.
    pub(crate) fn since(&self, from: Cursor) -> Vec<T> {
        self.page(from).0
    }

    /// The same, with the position behind the last of them.
    pub(crate) fn page(&self, from: Cursor) -> (Vec<T>, Cursor) {
        let ring = lock(&self.ring);
        let start = ring.index(from.0).min(ring.items.len());
        let items = ring.items.range(start..).map(|(item, _)| item.clone());
        (items.collect(), Cursor(ring.end()))
    }

    /// The last `count` entries, oldest first.
    pub(crate) fn tail(&self, count: usize) -> Vec<T> {
        let ring = lock(&self.ring);
        let start = ring.items.len().saturating_sub(count);
        ring.items
            .range(start..)
            .map(|(item, _)| item.clone())
            .collect()
    }

    /// The first entry from `from` on that `pick` accepts, waiting for it
    /// until `deadline`; with the position behind it. `None` = time over.
    pub(crate) async fn find<R>(
        &self,
        from: Cursor,
        deadline: Instant,
        mut pick: impl FnMut(&T) -> Option<R>,
    ) -> Option<(Cursor, R)> {
        let mut news = self.tick.subscribe();
        let mut at = from.0;
        loop {
            news.borrow_and_update();
            {
                let ring = lock(&self.ring);
                at = at.max(ring.first);
                while let Some((item, _)) = ring.items.get(ring.index(at)) {
                    at += 1;
                    if let Some(found) = pick(item) {
                        return Some((Cursor(at), found));
                    }
                }
            }
            match timeout_at(deadline, news.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn a_waiter_gets_an_entry_that_comes_later() {
        let log = Arc::new(Log::new(1000));
        log.push(1, 1);
        let waiter = {
            let log = log.clone();
            tokio::spawn(async move {
                log.find(
                    Cursor::START,
                    Instant::now() + Duration::from_secs(5),
                    |n| (*n == 2).then_some("two"),
                )
                .await
            })
        };
        tokio::task::yield_now().await;
        log.push(2, 1);
        assert_eq!(waiter.await.unwrap(), Some((Cursor(2), "two")));
    }

    #[tokio::test]
    async fn a_search_from_a_cursor_does_not_see_what_came_before() {
        let log = Log::new(1000);
        log.push(1, 1);
        let mark = log.end();
        log.push(1, 1);
        let deadline = Instant::now() + Duration::from_secs(1);
        let (at, ()) = log.find(mark, deadline, |_| Some(())).await.unwrap();
        assert_eq!(at, Cursor(2));
    }

    #[test]
    fn who_reads_page_by_page_misses_nothing_that_comes_between() {
        const ENTRIES: u32 = 20_000;
        let log = Arc::new(Log::new(usize::MAX));
        let writer = {
            let log = log.clone();
            std::thread::spawn(move || (0..ENTRIES).for_each(|n| log.push(n, 1)))
        };
        let (mut seen, mut at) = (Vec::new(), Cursor::START);
        while seen.last() != Some(&(ENTRIES - 1)) {
            let (page, next) = log.page(at);
            seen.extend(page);
            at = next;
        }
        writer.join().unwrap();
        assert_eq!(seen, (0..ENTRIES).collect::<Vec<_>>());
    }

    #[test]
    fn old_entries_go_when_the_record_is_too_heavy_and_positions_stay() {
        let log = Log::new(10);
        for n in 0..5 {
            log.push(n, 4);
        }
        assert_eq!(log.since(Cursor::START), [3, 4]);
        assert_eq!(log.since(Cursor(4)), [4]);
        assert_eq!(log.end(), Cursor(5));
    }
}
