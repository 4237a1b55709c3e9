//! The task that owns one child: reads, cleans and keeps its output, answers
//! requests, ends it, and closes the books (04 §6.3).
//!
//! Invariant: one event at a time; nothing else touches the child, its
//! captures or its transcript.

use std::future::pending;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStderr, ChildStdout};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Ending, Finished, Keep, Plan, Request, Stream};
use crate::process::ansi::AnsiStripper;
use crate::process::capture::Capture;
use crate::process::decode::Utf8Decoder;
use crate::process::group::Group;
use crate::process::pty::Master;
use crate::process::scrub::{Redactions, Scrubber};
use crate::process::spawn::{Output, Spawned};

/// Between SIGTERM and SIGKILL.
const KILL_DELAY: Duration = Duration::from_secs(2);

/// How long after the exit somebody else may hold the pipes open.
const PIPE_GRACE: Duration = Duration::from_secs(1);

/// Bytes read at once from standard output and from standard error.
const READ_BYTES: [usize; 2] = [64 * 1024, 16 * 1024];

/// Bytes that may wait to be typed into a terminal.
const INPUT_LIMIT: usize = 1024 * 1024;

/// A timeout beyond this is none.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Bytes of one stream become text that may be shown.
struct Cleaner {
    decoder: Utf8Decoder,
    stripper: AnsiStripper,
    scrubber: Scrubber,
}

impl Cleaner {
    fn new(redactions: Redactions) -> Self {
        Self {
            decoder: Utf8Decoder::default(),
            stripper: AnsiStripper::default(),
            scrubber: Scrubber::new(redactions),
        }
    }

    fn push(&mut self, bytes: &[u8]) -> String {
        let text = self.decoder.push(bytes);
        self.scrubber.push(self.stripper.push(text))
    }

    fn finish(&mut self) -> String {
        let text = self.decoder.finish();
        let mut text = self.scrubber.push(self.stripper.push(text));
        text.push_str(&self.scrubber.finish());
        text
    }
}

/// Why a child was told to end, the first cause counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Timeout,
    Abort,
    Asked,
    LogFailed,
}

/// What the owner wakes up for.
enum Event {
    Read(Stream, io::Result<usize>),
    Typed(io::Result<usize>),
    Exited(io::Result<ExitStatus>),
    Asked(Request),
    HandlesGone,
    Deadline,
    Cancelled,
    KillDue,
    GraceOver,
    Shutdown,
}

/// The state of one child.
pub(super) struct Owner {
    child: Child,
    group: Group,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    terminal: Option<Master>,
    input: Vec<u8>,
    cleaners: [Cleaner; 2],
    captures: [Capture; 2],
    plan: Plan,
    /// Given back when the command is complete.
    permit: Option<OwnedSemaphorePermit>,
    started: Instant,
    deadline: Option<Instant>,
    exited: Option<io::Result<ExitStatus>>,
    grace_over: Option<Instant>,
    kill_at: Option<Instant>,
    cause: Option<Cause>,
    /// Whether the transcript stays.
    detached: bool,
    shutdown: CancellationToken,
    inbox: mpsc::UnboundedReceiver<Request>,
    state: watch::Sender<Option<Finished>>,
}

impl Owner {
    pub(super) fn new(
        spawned: Spawned,
        plan: Plan,
        permit: Option<OwnedSemaphorePermit>,
        shutdown: CancellationToken,
        inbox: mpsc::UnboundedReceiver<Request>,
        state: watch::Sender<Option<Finished>>,
    ) -> Self {
        let now = Instant::now();
        let (stdout, stderr, terminal) = match spawned.output {
            Output::Pipes(stdout, stderr) => (Some(stdout), Some(stderr), None),
            Output::Terminal(master) => (None, None, Some(master)),
        };
        Self {
            child: spawned.child,
            group: spawned.group,
            stdout,
            stderr,
            terminal,
            input: Vec::new(),
            cleaners: [(); 2].map(|()| Cleaner::new(plan.redactions.clone())),
            captures: [(); 2].map(|()| Capture::new(plan.spill.clone())),
            started: now,
            deadline: plan
                .timeout
                .filter(|timeout| *timeout < LONGEST_TIMEOUT)
                .map(|timeout| now + timeout),
            exited: None,
            grace_over: None,
            kill_at: None,
            cause: None,
            detached: false,
            plan,
            permit,
            shutdown,
            inbox,
            state,
        }
    }

    /// Runs until the command is complete and nobody asks any more.
    pub(super) async fn run(mut self) {
        let mut buffers = READ_BYTES.map(|bytes| vec![0; bytes]);
        let mut handles_gone = false;
        let mut going_down = false;
        loop {
            let complete = self.state.borrow().is_some();
            if complete
                && (going_down || handles_gone && !self.pipes_open() && self.kill_at.is_none())
            {
                break;
            }
            match self
                .next(&mut buffers, handles_gone, going_down, complete)
                .await
            {
                Event::Read(stream, Ok(count)) if count > 0 => {
                    if !complete {
                        let text =
                            self.cleaners[stream as usize].push(&buffers[stream as usize][..count]);
                        self.take_in(stream, text).await;
                    }
                }
                // The end of a stream; an error on it is the same to us.
                Event::Read(Stream::Stdout, _) => (self.stdout, self.terminal) = (None, None),
                Event::Read(Stream::Stderr, _) => self.stderr = None,
                Event::Typed(Ok(count)) => drop(self.input.drain(..count)),
                Event::Typed(Err(_)) => self.input.clear(),
                Event::Exited(status) => {
                    self.exited = Some(status);
                    self.grace_over = Some(Instant::now() + PIPE_GRACE);
                }
                Event::Asked(request) => self.answer(request).await,
                Event::HandlesGone => {
                    handles_gone = true;
                    if !complete {
                        self.end(Cause::Asked);
                    }
                }
                Event::Deadline => self.end(Cause::Timeout),
                Event::Cancelled => self.end(Cause::Abort),
                Event::KillDue => {
                    self.kill_at = None;
                    self.signal(Signal::KILL);
                }
                Event::GraceOver => self.grace_over = Some(self.started),
                Event::Shutdown => {
                    going_down = true;
                    self.end(Cause::Asked);
                }
            }
            if !complete && self.is_complete(going_down) {
                self.complete().await;
            }
        }
        for capture in &mut self.captures {
            capture.discard().await;
        }
        if let Some(log) = self.plan.log.take()
            && !self.detached
        {
            log.remove().await;
        }
    }

    /// Waits for what happens next.
    async fn next(
        &mut self,
        buffers: &mut [Vec<u8>; 2],
        handles_gone: bool,
        going_down: bool,
        complete: bool,
    ) -> Event {
        let Self {
            child,
            stdout,
            stderr,
            terminal,
            input,
            inbox,
            plan,
            shutdown,
            ..
        } = self;
        let [out, err] = buffers;
        let terminal = terminal.as_ref();
        let deadline = self.deadline.filter(|_| !complete && self.cause.is_none());
        let grace_over = self.grace_over.filter(|_| !complete);
        tokio::select! {
            count = read_first(stdout, terminal, out) => Event::Read(Stream::Stdout, count),
            count = read(stderr, err) => Event::Read(Stream::Stderr, count),
            count = type_out(terminal, input) => Event::Typed(count),
            status = child.wait(), if self.exited.is_none() => Event::Exited(status),
            request = inbox.recv(), if !handles_gone => request.map_or(Event::HandlesGone, Event::Asked),
            () = at(deadline) => Event::Deadline,
            () = plan.cancel.cancelled(), if !complete && self.cause.is_none() => Event::Cancelled,
            () = at(self.kill_at) => Event::KillDue,
            () = at(grace_over) => Event::GraceOver,
            () = shutdown.cancelled(), if !going_down => Event::Shutdown,
        }
    }

    fn pipes_open(&self) -> bool {
        self.stdout.is_some() || self.stderr.is_some() || self.terminal.is_some()
    }

    fn is_complete(&self, going_down: bool) -> bool {
        let waited = self.grace_over.is_some_and(|over| over <= Instant::now());
        self.exited.is_some() && (going_down || waited || !self.pipes_open())
    }

    /// Keeps a piece of clean output and shows it.
    async fn take_in(&mut self, stream: Stream, text: String) {
        if text.is_empty() {
            return;
        }
        if let Some(log) = &mut self.plan.log {
            let marked = self.plan.annotate_log && stream == Stream::Stderr;
            let written = if marked {
                log.append(&format!("[stderr] {text}")).await
            } else {
                log.append(&text).await
            };
            if written.is_err() {
                self.plan.log = None;
                self.end(Cause::LogFailed);
                self.cause = Some(Cause::LogFailed);
            }
        }
        self.capture(stream).push(&text).await;
        if let Some(live) = &self.plan.live {
            live(stream, text);
        }
    }

    fn capture(&mut self, stream: Stream) -> &mut Capture {
        let at = if self.plan.interleaved {
            0
        } else {
            stream as usize
        };
        &mut self.captures[at]
    }

    async fn answer(&mut self, request: Request) {
        match request {
            Request::Take(reply) => {
                let [out, err] = &mut self.captures;
                let _ = reply.send((out.take(), err.take()));
            }
            Request::Type(bytes, reply) => {
                let answer = if self.terminal.is_none() {
                    Err(io::ErrorKind::BrokenPipe.into())
                } else if self.input.len() + bytes.len() > INPUT_LIMIT {
                    Err(io::Error::other("the program does not read its input"))
                } else {
                    self.input.extend(bytes);
                    Ok(())
                };
                let _ = reply.send(answer);
            }
            Request::Resize(size) => {
                if let Some(terminal) = &self.terminal {
                    // A terminal that just closed needs no size.
                    let _ = terminal.resize(size);
                }
            }
            Request::Interrupt => self.signal(Signal::INT),
            Request::Stop => self.end(Cause::Asked),
            Request::Detach { keep, reply } => {
                self.detached = true;
                if keep != Keep::Listener {
                    self.plan.live = None;
                }
                if keep != Keep::Unread {
                    for capture in &mut self.captures {
                        capture.stop_spilling().await;
                    }
                }
                let begun = match &mut self.plan.log {
                    Some(log) => log.begin().await,
                    None => Ok(()),
                };
                let _ = reply.send(begun);
            }
            Request::Listen(live) => self.plan.live = live,
        }
    }

    /// Begins to end the child, once.
    fn end(&mut self, cause: Cause) {
        if self.cause.is_none() {
            self.cause = Some(cause);
            self.kill_at = Some(Instant::now() + KILL_DELAY);
            self.signal(Signal::TERM);
        }
    }

    fn signal(&self, signal: Signal) {
        self.group.signal(signal);
    }

    /// Closes the books: nothing that comes later belongs to the result.
    async fn complete(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = self.cleaners[stream as usize].finish();
            self.take_in(stream, rest).await;
        }
        let status = self.exited.as_ref();
        let ending = match (self.cause, status) {
            (Some(Cause::Timeout), _) => Ending::TimedOut(self.plan.timeout.unwrap_or_default()),
            (Some(Cause::Abort), _) => Ending::Aborted,
            (Some(Cause::LogFailed), _) => Ending::LogFailed,
            (_, Some(Ok(status))) => status.code().map_or(Ending::Signalled, Ending::Exited),
            (_, Some(Err(error))) => Ending::Lost(error.to_string()),
            (_, None) => Ending::Lost("it was not waited for".into()),
        };
        let ending = self.close_log(ending).await;
        if ending == Ending::LogFailed {
            self.capture(Stream::Stderr)
                .push("[output file write failed; output may be incomplete]\n")
                .await;
        }
        self.plan.live = None;
        self.permit = None;
        self.state.send_replace(Some(Finished {
            ending,
            elapsed: self.started.elapsed(),
        }));
    }

    async fn close_log(&mut self, ending: Ending) -> Ending {
        let Some(log) = self.plan.log.as_mut() else {
            return ending;
        };
        if !self.plan.annotate_log {
            return ending;
        }
        let line = match &ending {
            Ending::Exited(code) => format!("\n[exit code: {code}]\n"),
            Ending::Signalled => "\n[terminated by signal]\n".to_owned(),
            Ending::TimedOut(timeout) => format!("\n[timeout after {}ms]\n", timeout.as_millis()),
            Ending::Aborted => "\n[error] The operation was aborted\n".to_owned(),
            Ending::LogFailed | Ending::Closed { .. } => return ending,
            Ending::Lost(error) => format!("\n[error] {error}\n"),
        };
        match log.close_with(&line).await {
            Ok(()) => ending,
            Err(_) => Ending::LogFailed,
        }
    }
}

pub(super) async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}

async fn read<R: AsyncRead + Unpin>(pipe: &mut Option<R>, buffer: &mut [u8]) -> io::Result<usize> {
    match pipe {
        Some(pipe) => pipe.read(buffer).await,
        None => pending().await,
    }
}

async fn read_first(
    pipe: &mut Option<ChildStdout>,
    terminal: Option<&Master>,
    buffer: &mut [u8],
) -> io::Result<usize> {
    match terminal {
        Some(terminal) => terminal.read(buffer).await,
        None => read(pipe, buffer).await,
    }
}

async fn type_out(terminal: Option<&Master>, input: &[u8]) -> io::Result<usize> {
    match terminal {
        Some(terminal) if !input.is_empty() => terminal.write(input).await,
        _ => pending().await,
    }
}
