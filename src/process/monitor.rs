//! What a watched command prints or a watched WebSocket says comes to: events
//! for its conversation, few enough to be read (04 §7.20).
//!
//! Lines that come close together are one event. Invariant: however much the
//! source says, memory holds at most one unfinished line of 1 MiB and one
//! batch, and a conversation gets ten events at once, then one every two
//! seconds; a source that stays above that for half a minute is stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::session::{Live, Stream};

/// How long lines are collected into one event.
const WINDOW: Duration = Duration::from_millis(200);
const LINE_CHARS: usize = 500;
const EVENT_CHARS: usize = 3_000;
/// Bytes of a line that has no end yet; of more, the end is kept.
const OPEN_LINE: usize = 1024 * 1024;
/// Events that may come at once, and how often another one may.
const BURST: u32 = 10;
const REFILL: Duration = Duration::from_secs(2);
/// Suppression for longer than this ends the source.
const PATIENCE: Duration = Duration::from_secs(30);
/// After this long without suppression, patience begins anew.
const CALM: Duration = Duration::from_secs(6);
/// Pieces of output that wait for [`follow`]; each has at most 64 KiB or so. A
/// WebSocket's have up to 1 MiB, and it lets one be taken before it reads the next.
const WAITING: usize = 16;

const CUT: &str = "...(truncated)";

/// A listener for a session, and where [`follow`] takes from what it heard.
pub fn listener() -> (Live, Heard) {
    let (pieces, heard) = mpsc::channel(WAITING);
    let lost = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&lost);
    let live = Box::new(move |stream, text: String| {
        if stream == Stream::Stdout
            && let Err(refused) = pieces.try_send(text)
        {
            let lines = refused.into_inner().matches('\n').count();
            count.fetch_add(lines.max(1) as u64, Ordering::Relaxed);
        }
    });
    let pieces = heard;
    (live, Heard { pieces, lost })
}

/// Standard output of a command, or the messages of a WebSocket, as a
/// [`listener`] hears them.
#[derive(Debug)]
pub struct Heard {
    pieces: mpsc::Receiver<String>,
    /// Lines that came faster than they were taken.
    lost: Arc<AtomicU64>,
}

/// Tells `tell` of every event until the output ends. `false` when the source
/// prints too much and must be stopped; that was told too.
pub async fn follow(mut heard: Heard, tell: impl Fn(String)) -> bool {
    let mut events = Events::new(Instant::now());
    loop {
        let due = events.due;
        let piece = tokio::select! {
            piece = heard.pieces.recv() => Some(piece),
            () = at(due) => None,
        };
        events.suppressed += heard.lost.swap(0, Ordering::Relaxed);
        let now = Instant::now();
        let ended = matches!(piece, Some(None));
        match piece {
            Some(Some(text)) => {
                events.push(&text, now);
                continue;
            }
            Some(None) => events.finish_line(),
            None => {}
        }
        match events.flush(now) {
            Told::Events(texts) => texts.into_iter().for_each(&tell),
            Told::TooMuch(text) => {
                tell(text);
                return false;
            }
        }
        if ended {
            return true;
        }
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// What a batch came to.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Events(Vec<String>),
    TooMuch(String),
}

/// Lines on their way to becoming events.
#[derive(Debug)]
struct Events {
    open: String,
    batch: String,
    /// Something of this batch was dropped.
    overfull: bool,
    /// When the batch is to be told.
    due: Option<Instant>,
    tokens: u32,
    refilled: Instant,
    suppressed: u64,
    suppressed_since: Option<Instant>,
    last_suppressed: Instant,
}

impl Events {
    fn new(now: Instant) -> Self {
        Self {
            open: String::new(),
            batch: String::new(),
            overfull: false,
            due: None,
            tokens: BURST,
            refilled: now,
            suppressed: 0,
            suppressed_since: None,
            last_suppressed: now,
        }
    }

    fn push(&mut self, text: &str, now: Instant) {
        let mut pieces = text.split('\n');
        // `split` gives at least one piece.
        self.open.push_str(pieces.next().unwrap_or_default());
        for piece in pieces {
            self.finish_line();
            self.open.push_str(piece);
        }
        if self.open.len() > OPEN_LINE {
            let cut = self.open.ceil_char_boundary(self.open.len() - OPEN_LINE);
            self.open.drain(..cut);
        }
        if !self.batch.is_empty() {
            self.due.get_or_insert(now + WINDOW);
        }
    }

    fn finish_line(&mut self) {
        let line = std::mem::take(&mut self.open);
        let line = line.trim();
        if line.is_empty() {
            return;
        }
        if self.batch.chars().count() >= EVENT_CHARS {
            self.overfull = true;
            return;
        }
        if !self.batch.is_empty() {
            self.batch.push('\n');
        }
        let kept = clip(line, LINE_CHARS);
        self.batch.push_str(kept);
        if kept.len() < line.len() {
            self.batch.push_str(CUT);
        }
    }

    /// Ends the batch: it is told, or counted as suppressed.
    fn flush(&mut self, now: Instant) -> Told {
        self.due = None;
        let mut batch = std::mem::take(&mut self.batch);
        let overfull = std::mem::take(&mut self.overfull);
        if batch.is_empty() {
            return Told::Events(Vec::new());
        }
        let kept = clip(&batch, EVENT_CHARS).len();
        if kept < batch.len() || overfull {
            batch.truncate(kept);
            batch.push('\n');
            batch.push_str(CUT);
        }
        if self.take_token(now) {
            let mut texts = Vec::new();
            let count = std::mem::take(&mut self.suppressed);
            if count > 0 {
                texts.push(format!(
                    "[{count} events suppressed: the output comes too fast. Stop this monitor with TaskStop and start one with a stricter filter.]"
                ));
                if now - self.last_suppressed > CALM {
                    self.suppressed_since = None;
                }
            }
            texts.push(batch);
            return Told::Events(texts);
        }
        self.suppressed += 1;
        self.last_suppressed = now;
        let lasting = now - *self.suppressed_since.get_or_insert(now);
        if lasting <= PATIENCE {
            return Told::Events(Vec::new());
        }
        Told::TooMuch(format!(
            "[Monitor stopped: too much output ({} events suppressed within {} s). Start one with a stricter filter.]",
            self.suppressed,
            lasting.as_secs()
        ))
    }

    fn take_token(&mut self, now: Instant) -> bool {
        let periods = (now - self.refilled).as_millis() / REFILL.as_millis();
        let periods = u32::try_from(periods).unwrap_or(u32::MAX);
        self.tokens = self.tokens.saturating_add(periods).min(BURST);
        self.refilled += REFILL.saturating_mul(periods);
        let given = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        given
    }
}

fn clip(text: &str, chars: usize) -> &str {
    text.char_indices()
        .nth(chars)
        .map_or(text, |(at, _)| &text[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(told: Told) -> Vec<String> {
        match told {
            Told::Events(texts) => texts,
            Told::TooMuch(text) => panic!("{text}"),
        }
    }

    #[test]
    fn lines_are_trimmed_and_told_together_and_an_open_one_waits() {
        let now = Instant::now();
        let mut events = Events::new(now);
        events.push("  one\r\n\n tw", now);
        assert_eq!(events.due, Some(now + WINDOW));
        events.push("o \nthr", now + WINDOW / 2);
        assert_eq!(
            events.due,
            Some(now + WINDOW),
            "the first line sets the time"
        );
        assert_eq!(texts(events.flush(now + WINDOW)), ["one\ntwo"]);
        assert_eq!(events.due, None);
        events.push("ee", now);
        assert_eq!(events.due, None, "a line without an end is none yet");
        events.finish_line();
        assert_eq!(texts(events.flush(now)), ["three"]);
    }

    #[test]
    fn long_lines_and_long_batches_are_cut_and_memory_stays_bounded() {
        let now = Instant::now();
        let mut events = Events::new(now);
        events.push(&format!("{}\n", "é".repeat(501)), now);
        assert_eq!(
            texts(events.flush(now)),
            [format!("{}...(truncated)", "é".repeat(500))]
        );
        for _ in 0..1000 {
            events.push(&format!("{}\n", "x".repeat(499)), now);
        }
        assert!(events.batch.len() < 4000);
        let told = texts(events.flush(now)).remove(0);
        assert!(told.ends_with("\n...(truncated)"), "{told}");
        assert_eq!(told.chars().count(), 3000 + 15);
        for _ in 0..5 {
            events.push(&"é".repeat(400_000), now);
        }
        assert!(events.open.len() <= OPEN_LINE);
    }

    #[test]
    fn after_a_burst_one_event_comes_every_two_seconds_with_a_count_of_the_others() {
        let mut now = Instant::now();
        let mut events = Events::new(now);
        let mut told = 0;
        for n in 0..15 {
            events.push(&format!("{n}\n"), now);
            told += texts(events.flush(now)).len();
        }
        assert_eq!((told, events.suppressed), (10, 5));
        now += REFILL;
        events.push("later\n", now);
        let texts = texts(events.flush(now));
        assert!(texts[0].starts_with("[5 events suppressed"), "{}", texts[0]);
        assert_eq!(texts[1], "later");
    }

    #[test]
    fn a_source_that_never_gets_calm_is_stopped_after_half_a_minute() {
        let start = Instant::now();
        let mut events = Events::new(start);
        let stopped = (0..1000).find_map(|n| {
            let now = start + WINDOW * n;
            events.push("x\n", now);
            match events.flush(now) {
                Told::TooMuch(text) => Some((now - start, text)),
                Told::Events(_) => None,
            }
        });
        let (after, text) = stopped.unwrap();
        assert!(
            after > PATIENCE && after < PATIENCE + Duration::from_secs(4),
            "{after:?}"
        );
        assert!(
            text.starts_with("[Monitor stopped: too much output ("),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_flood_that_nobody_takes_is_counted_and_not_kept() {
        let (live, mut heard) = listener();
        for _ in 0..WAITING + 7 {
            live(Stream::Stdout, "a\nb\n".into());
        }
        live(Stream::Stderr, "not an event\n".into());
        assert_eq!(heard.lost.load(Ordering::Relaxed), 14);
        drop(live);
        let mut pieces = 0;
        while heard.pieces.recv().await.is_some() {
            pieces += 1;
        }
        assert_eq!(pieces, WAITING);
    }

    #[tokio::test(start_paused = true)]
    async fn output_is_told_when_its_window_ends_and_when_the_stream_does() {
        let (live, heard) = listener();
        let (tell, mut told) = mpsc::unbounded_channel();
        let following = tokio::spawn(follow(heard, move |text| drop(tell.send(text))));
        live(Stream::Stdout, "one\ntwo\n".into());
        assert_eq!(told.recv().await.as_deref(), Some("one\ntwo"));
        live(Stream::Stdout, "last".into());
        drop(live);
        assert_eq!(told.recv().await.as_deref(), Some("last"));
        assert!(following.await.unwrap());
        assert_eq!(told.recv().await, None);
    }
}
