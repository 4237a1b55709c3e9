//! The session log: one file per start with everything that went over the
//! wire, for those who look into a problem afterwards (00 §1 row 13, 01 §9).
//!
//! Callers never wait: a line goes into a bounded queue that one thread writes
//! out in batches. A full queue drops lines, and a later line says how many.
//! Invariants: the lock of the queue is never held over I/O; a frame is cut
//! before it is copied; secrets are masked before a byte reaches the file;
//! nothing that goes wrong here ever stops the listener.

mod file;

use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use jiff::tz::TimeZone;

use self::file::SessionFile;
use super::clock::Clock;
use super::redact::Secrets;

/// Longest part of a frame that is written unless frames are logged whole.
const FRAME_LIMIT: usize = 2 * 1024;

/// Bounds of the queue between callers and the writer.
const QUEUE_RECORDS: usize = 8 * 1024;
const QUEUE_BYTES: usize = 4 * 1024 * 1024;

/// How long the writer lets lines gather once there is one: a turn sends dozens
/// within milliseconds, and waking up for each costs more than the line.
/// A quarter of the queue ends it.
const GATHER: Duration = Duration::from_millis(25);

/// How much of each frame is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameLogging {
    /// No frame lines (`LETTA_LOG_FRAMES=off`).
    Off,
    /// The first 2 KiB.
    Cut,
    /// All of it (`--debug`, `LETTA_LOG_WS_EVENTS=1`).
    Whole,
}

/// Which way a frame went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It came in.
    Received,
    /// It went out.
    Sent,
}

/// What a frame belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// A command of a client; not written out.
    Client,
    /// The connection's own doings: `_ws_open`, `_ws_close`, `pong`, `listener_ready`.
    Lifecycle,
    /// What the listener sends: events, replies, pings.
    Protocol,
}

/// How a session log is made.
pub struct SessionLogOptions {
    /// `~/.letta/logs/remote`; created when missing, with mode 0700.
    pub dir: PathBuf,
    /// When the process started: becomes the name of the file.
    pub started: SystemTime,
    /// How much of each frame is written.
    pub frames: FrameLogging,
    /// What must not be written.
    pub secrets: Secrets,
    /// Receives every line as well: stdout under `--debug`.
    pub echo: Option<Box<dyn Write + Send>>,
    /// The zone of the clock times in front of each line.
    pub zone: TimeZone,
}

impl SessionLogOptions {
    /// Cut frames, no echo, local time.
    pub fn new(dir: impl Into<PathBuf>, started: SystemTime, secrets: Secrets) -> Self {
        Self {
            dir: dir.into(),
            started,
            frames: FrameLogging::Cut,
            secrets,
            echo: None,
            zone: TimeZone::system(),
        }
    }
}

/// The session log of this process. Cheap to clone; every method returns at once
/// except [`SessionLog::flush`].
#[derive(Clone)]
pub struct SessionLog {
    owner: Arc<Owner>,
}

impl std::fmt::Debug for SessionLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SessionLog").field(&self.path()).finish()
    }
}

/// Held by every clone; the last one to go tells the writer to finish.
struct Owner {
    shared: Arc<Shared>,
    path: PathBuf,
    frames: FrameLogging,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_one();
    }
}

struct Shared {
    queue: Mutex<Queue>,
    /// Wakes the writer.
    wake: Condvar,
    /// Wakes whoever waits in `flush`.
    progress: Condvar,
}

#[derive(Default)]
struct Queue {
    records: Vec<Record>,
    bytes: usize,
    /// Lines lost since the last batch.
    dropped: u64,
    /// Lines ever accepted, and of these, written.
    accepted: u64,
    written: u64,
    writer: WriterIs,
    closed: bool,
}

/// What the writer does, and so what wakes it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum WriterIs {
    /// It writes: it looks again when it is done.
    #[default]
    Busy,
    /// It sleeps until there is a line.
    Idle,
    /// It waits a moment for more lines.
    Gathering,
}

struct Record {
    at: SystemTime,
    text: Text,
}

enum Text {
    Line(String),
    Frame {
        direction: Direction,
        label: Label,
        body: Box<str>,
        /// Length of the frame; longer than `body` when that was cut.
        whole: usize,
    },
}

impl Text {
    /// Bytes that are written at most, without the words around a frame.
    fn len(&self) -> usize {
        match self {
            Self::Line(text) => text.len(),
            Self::Frame { body, .. } => body.len(),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SessionLog {
    /// Starts the log: prunes old files and starts the writer thread. The file
    /// appears with the first line. Does blocking I/O; never fails.
    pub fn open(options: SessionLogOptions) -> Self {
        let file = SessionFile::new(&options.dir, options.started);
        let owner = Arc::new(Owner {
            shared: Arc::new(Shared {
                queue: Mutex::default(),
                wake: Condvar::new(),
                progress: Condvar::new(),
            }),
            path: file.path().to_owned(),
            frames: options.frames,
        });
        file.prune();
        let writer = Writer {
            shared: owner.shared.clone(),
            file,
            secrets: options.secrets,
            echo: options.echo,
            clock: Clock::new(options.zone),
            out: Vec::new(),
        };
        // The thread ends when the last handle is dropped; `flush` waits for its
        // work. Without a thread there is no log, and every line counts as dropped.
        let started = std::thread::Builder::new()
            .name(String::from("session-log"))
            .stack_size(256 * 1024)
            .spawn(move || writer.run());
        if started.is_err() {
            owner.shared.lock().closed = true;
        }
        Self { owner }
    }

    /// Where the log is written, for the `Log file:` line.
    pub fn path(&self) -> &Path {
        &self.owner.path
    }

    /// Writes one line. Line breaks inside `text` are written as `\n`.
    pub fn line(&self, text: impl Into<String>) {
        let text = text.into();
        self.push(text.len(), || Text::Line(text));
    }

    /// Writes one line for a frame: `json` as it stood on the wire. Only the
    /// part that will be written is copied.
    pub fn frame(&self, direction: Direction, label: Label, json: &str) {
        let body = match self.owner.frames {
            FrameLogging::Off => return,
            FrameLogging::Cut => &json[..json.floor_char_boundary(FRAME_LIMIT)],
            FrameLogging::Whole => json,
        };
        self.push(body.len(), || Text::Frame {
            direction,
            label,
            body: body.into(),
            whole: json.len(),
        });
    }

    /// Waits until everything handed over so far is written, at most `within`.
    /// Blocks: for the end of the process, after the runtime is gone, or inside
    /// `spawn_blocking`. `false` when time ran out.
    pub fn flush(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let shared = &self.owner.shared;
        let mut queue = shared.lock();
        let target = queue.accepted;
        if queue.writer == WriterIs::Gathering {
            queue.writer = WriterIs::Busy;
            shared.wake.notify_one();
        }
        while queue.written < target {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            queue = shared
                .progress
                .wait_timeout(queue, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }

    fn push(&self, bytes: usize, text: impl FnOnce() -> Text) {
        let at = SystemTime::now();
        let shared = &self.owner.shared;
        let mut queue = shared.lock();
        // One frame longer than the whole queue is taken when nothing else waits.
        let full = queue.records.len() >= QUEUE_RECORDS
            || (queue.bytes > 0 && queue.bytes + bytes > QUEUE_BYTES);
        if full || queue.closed {
            queue.dropped += 1;
            return;
        }
        queue.records.push(Record { at, text: text() });
        queue.bytes += bytes;
        queue.accepted += 1;
        // A wake-up is a system call: only for a writer that needs one.
        let wake = match queue.writer {
            WriterIs::Idle => true,
            WriterIs::Gathering => {
                queue.bytes >= QUEUE_BYTES / 4 || queue.records.len() >= QUEUE_RECORDS / 4
            }
            WriterIs::Busy => false,
        };
        if wake {
            queue.writer = WriterIs::Busy;
            drop(queue);
            shared.wake.notify_one();
        }
    }
}

/// The one thread that touches the disk.
struct Writer {
    shared: Arc<Shared>,
    file: SessionFile,
    secrets: Secrets,
    echo: Option<Box<dyn Write + Send>>,
    clock: Clock,
    out: Vec<u8>,
}

impl Writer {
    fn run(mut self) {
        let mut batch = Vec::new();
        while let Some(dropped) = self.next_batch(&mut batch) {
            let count = batch.len() as u64;
            for record in batch.drain(..) {
                self.render(&record);
                if self.out.len() >= 64 * 1024 {
                    self.write_out();
                }
            }
            if dropped > 0 {
                self.render(&Record {
                    at: SystemTime::now(),
                    text: Text::Line(format!(
                        "[log] {dropped} lines dropped: the log could not keep up"
                    )),
                });
            }
            self.write_out();
            // What a burst needed is given back.
            batch.shrink_to(64);
            self.out.shrink_to(64 * 1024);
            self.shared.lock().written += count;
            self.shared.progress.notify_all();
        }
    }

    /// Waits for lines and takes them all, with the number of lost ones. `None`
    /// when nobody can send any more.
    fn next_batch(&self, batch: &mut Vec<Record>) -> Option<u64> {
        let mut queue = self.shared.lock();
        while queue.records.is_empty() && queue.dropped == 0 {
            if queue.closed {
                return None;
            }
            queue.writer = WriterIs::Idle;
            queue = self
                .shared
                .wake
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        // The first lines make the file, which people look for at once.
        let gather = if queue.written > 0 {
            GATHER
        } else {
            Duration::ZERO
        };
        queue.writer = WriterIs::Gathering;
        let gathered = self.shared.wake.wait_timeout_while(queue, gather, |queue| {
            queue.writer == WriterIs::Gathering && !queue.closed
        });
        queue = gathered.unwrap_or_else(PoisonError::into_inner).0;
        queue.writer = WriterIs::Busy;
        std::mem::swap(&mut queue.records, batch);
        queue.bytes = 0;
        Some(std::mem::take(&mut queue.dropped))
    }

    fn render(&mut self, record: &Record) {
        let mut line = String::with_capacity(64 + record.text.len());
        line.push('[');
        self.clock.push(&mut line, record.at);
        line.push_str("] ");
        match &record.text {
            Text::Line(text) => push_one_line(&mut line, &self.secrets.mask_text(text)),
            Text::Frame {
                direction,
                label,
                body,
                whole,
            } => {
                line.push_str(match direction {
                    Direction::Received => "← recv",
                    Direction::Sent => "→ send",
                });
                line.push_str(match label {
                    Label::Client => "  ",
                    Label::Lifecycle => " (lifecycle)  ",
                    Label::Protocol => " (protocol)  ",
                });
                let cut = body.len() < *whole;
                push_one_line(&mut line, &self.secrets.mask_frame(body, cut));
                if cut {
                    let _ = write!(line, "… ({whole} bytes)");
                }
            }
        }
        line.push('\n');
        self.out.extend_from_slice(line.as_bytes());
    }

    fn write_out(&mut self) {
        self.file.append(&self.out);
        if let Some(echo) = &mut self.echo {
            // A closed terminal must not end the log.
            let _ = echo.write_all(&self.out).and_then(|()| echo.flush());
        }
        self.out.clear();
    }
}

/// Appends `text` so that it cannot begin another line of the log.
fn push_one_line(line: &mut String, text: &str) {
    // Frames have no line breaks, and are most of the log.
    if memchr::memchr2(b'\n', b'\r', text.as_bytes()).is_none() {
        return line.push_str(text);
    }
    for part in text.split_inclusive(['\n', '\r']) {
        match part.strip_suffix(['\n', '\r']) {
            Some(rest) => {
                line.push_str(rest);
                line.push_str(if part.ends_with('\n') { "\\n" } else { "\\r" });
            }
            None => line.push_str(part),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const LONG: Duration = Duration::from_secs(20);

    fn options(dir: &Path) -> SessionLogOptions {
        SessionLogOptions {
            zone: TimeZone::UTC,
            ..SessionLogOptions::new(dir, SystemTime::UNIX_EPOCH, Secrets::default())
        }
    }

    fn written(log: &SessionLog) -> Vec<String> {
        assert!(log.flush(LONG));
        let text = fs::read_to_string(log.path()).unwrap();
        text.lines()
            .map(|line| {
                let (clock, rest) = line.split_at(15);
                assert!(clock.starts_with('[') && clock.ends_with("] "), "{line}");
                assert_eq!(clock.matches(':').count(), 2);
                rest.to_owned()
            })
            .collect()
    }

    #[test]
    fn lines_and_frames_have_the_shape_of_the_spec() {
        let dir = tempfile::tempdir().unwrap();
        let log = SessionLog::open(options(dir.path()));
        log.line("Connected. Awaiting instructions.");
        log.frame(Direction::Received, Label::Lifecycle, r#"{"type":"pong"}"#);
        log.frame(Direction::Received, Label::Client, r#"{"type":"sync"}"#);
        log.frame(Direction::Sent, Label::Protocol, r#"{"type":"ping"}"#);
        log.line("forged\n[00:00:00.000] line");
        assert_eq!(
            written(&log),
            [
                "Connected. Awaiting instructions.",
                r#"← recv (lifecycle)  {"type":"pong"}"#,
                r#"← recv  {"type":"sync"}"#,
                r#"→ send (protocol)  {"type":"ping"}"#,
                r"forged\n[00:00:00.000] line",
            ]
        );
    }

    #[test]
    fn frames_are_cut_at_two_kib_unless_asked_for_whole() {
        let dir = tempfile::tempdir().unwrap();
        let frame = format!(r#"{{"type":"x","t":"{}"}}"#, "ü".repeat(4000));
        let cut = SessionLog::open(options(dir.path()));
        cut.frame(Direction::Sent, Label::Client, &frame);
        let line = written(&cut).remove(0);
        let body = line.strip_prefix("→ send  ").unwrap();
        let (body, note) = body.split_once('…').unwrap();
        assert!(
            frame.starts_with(body) && body.len() > FRAME_LIMIT - 4 && body.len() <= FRAME_LIMIT
        );
        assert_eq!(note, format!(" ({} bytes)", frame.len()));

        let whole = SessionLog::open(SessionLogOptions {
            frames: FrameLogging::Whole,
            ..options(&dir.path().join("whole"))
        });
        whole.frame(Direction::Sent, Label::Client, &frame);
        assert_eq!(written(&whole), [format!("→ send  {frame}")]);
    }

    #[test]
    fn frames_can_be_switched_off() {
        let dir = tempfile::tempdir().unwrap();
        let log = SessionLog::open(SessionLogOptions {
            frames: FrameLogging::Off,
            ..options(dir.path())
        });
        log.frame(Direction::Sent, Label::Client, "{}");
        log.line("only this");
        assert_eq!(written(&log), ["only this"]);
    }

    #[test]
    fn secrets_never_reach_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets::default();
        let log = SessionLog::open(SessionLogOptions {
            secrets: secrets.clone(),
            ..options(dir.path())
        });
        secrets.register("sk-letta-hush");
        log.line("wsUrl: wss://h/ws?token=hush Authorization: Bearer hush sk-letta-hush");
        log.frame(
            Direction::Received,
            Label::Client,
            r#"{"type":"secret_apply","set":{"K":"hush"},"unset":[]}"#,
        );
        log.frame(
            Direction::Sent,
            Label::Client,
            r#"{"type":"x","d":"sk-letta-hush"}"#,
        );
        assert_eq!(written(&log).len(), 3);
        assert!(!fs::read_to_string(log.path()).unwrap().contains("hush"));
    }

    #[test]
    fn a_full_queue_drops_lines_and_says_how_many() {
        /// Keeps the writer busy until the test lets go.
        struct Gate(std::sync::mpsc::Receiver<()>, std::sync::mpsc::Sender<()>);
        impl Write for Gate {
            fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
                let _ = self.1.send(());
                let _ = self.0.recv();
                Ok(buf.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let (open, gate) = std::sync::mpsc::channel();
        let (entered, writer_busy) = std::sync::mpsc::channel();
        let log = SessionLog::open(SessionLogOptions {
            echo: Some(Box::new(Gate(gate, entered))),
            ..options(dir.path())
        });
        log.line("first");
        writer_busy.recv().unwrap();
        for n in 0..QUEUE_RECORDS + 5 {
            log.line(n.to_string());
        }
        assert!(!log.flush(Duration::ZERO));
        drop(open);
        let lines = written(&log);
        assert_eq!(lines.len(), 1 + QUEUE_RECORDS + 1);
        assert_eq!(
            lines.last().unwrap(),
            "[log] 5 lines dropped: the log could not keep up"
        );
    }

    #[test]
    fn an_unusable_directory_is_no_problem() {
        let dir = tempfile::tempdir().unwrap();
        let blocked = dir.path().join("file");
        fs::write(&blocked, "").unwrap();
        let log = SessionLog::open(options(&blocked));
        log.line("lost");
        assert!(log.flush(LONG));
    }

    #[test]
    fn the_writer_finishes_its_work_when_the_last_handle_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (tx, rx) = std::sync::mpsc::channel();
        struct Told(std::sync::mpsc::Sender<Vec<u8>>);
        impl Write for Told {
            fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
                let _ = self.0.send(buf.to_vec());
                Ok(buf.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let log = SessionLog::open(SessionLogOptions {
            echo: Some(Box::new(Told(tx))),
            ..options(dir.path())
        });
        log.line("last words");
        drop(log);
        let echoed: Vec<u8> = rx.iter().flatten().collect();
        assert!(String::from_utf8(echoed).unwrap().ends_with("last words\n"));
    }
}
