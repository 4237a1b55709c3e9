//! One running child, or one WebSocket under watch, as others see it.
//!
//! A task of its own (`owner`) reads the child's output, cleans it (UTF-8, escape sequences,
//! secrets), keeps what later readers need, and ends the child on timeout,
//! abort or request: SIGTERM to the group, two seconds, SIGKILL. Others hold a
//! [`Session`] and ask by message.
//!
//! A command is complete when its process has exited and both streams ended,
//! or one second after the exit: what a left-over grandchild prints later is
//! read and thrown away (04 §6.3). Dropping every [`Session`] stops the child.
//!
//! A WebSocket has a task of its own too (`socket`). It is no process: it is
//! stopped, awaited and kept in a transcript like one, and has neither a group
//! nor anything to type into or to take.

use std::io;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::owner::Owner;
pub use self::socket::Subscription;
use self::socket::Watcher;
use super::capture::{Capture, SpillPlace};
use super::group::Group;
use super::output_file::OutputFile;
use super::pty::WindowSize;
use super::scrub::Redactions;
use super::spawn::{Output, Spawned};

mod owner;
mod socket;

/// Which stream a piece of output came from; a terminal has only the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Takes cleaned output as it comes.
pub type Live = Box<dyn Fn(Stream, String) + Send>;

/// What goes on beside the transcript when a command runs in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: output that memory does not keep is in the transcript alone.
    Transcript,
    /// Output that nobody took yet, for a later reader.
    Unread,
    /// Whoever sees output as it comes.
    Listener,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal, ours on request included.
    Signalled,
    /// It took longer than this.
    TimedOut(Duration),
    /// The turn that it belonged to was aborted.
    Aborted,
    /// Its output file could not be written.
    LogFailed,
    /// The system lost it.
    Lost(String),
    /// The WebSocket closed.
    Closed {
        /// The code in the peer's close frame; 1005 for one without, 1006 for
        /// an end without a frame, ours included.
        code: u16,
        /// What there is to tell of it.
        words: Vec<String>,
    },
}

/// How and when a command ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How.
    pub ending: Ending,
    /// How long it ran.
    pub elapsed: Duration,
}

/// How a child is run.
#[derive(Default)]
pub struct Plan {
    /// When it is stopped; `None` is never.
    pub timeout: Option<Duration>,
    /// Stops it when cancelled.
    pub cancel: CancellationToken,
    /// Both streams into one capture, in order of arrival.
    pub interleaved: bool,
    /// What must not be seen.
    pub redactions: Redactions,
    /// Where output goes that memory does not keep.
    pub spill: Option<SpillPlace>,
    /// A transcript of everything.
    pub log: Option<OutputFile>,
    /// Whether the transcript marks standard error and says how it ended.
    pub annotate_log: bool,
    /// Who sees output as it comes.
    pub live: Option<Live>,
}

/// What a session is asked.
enum Request {
    Take(oneshot::Sender<(Capture, Capture)>),
    Type(Vec<u8>, oneshot::Sender<io::Result<()>>),
    Resize(WindowSize),
    Interrupt,
    Stop,
    Detach {
        keep: Keep,
        reply: oneshot::Sender<io::Result<()>>,
    },
    Listen(Option<Live>),
}

/// A handle to a running or completed command.
#[derive(Clone, Debug)]
pub struct Session {
    requests: mpsc::UnboundedSender<Request>,
    state: watch::Receiver<Option<Finished>>,
    group: Option<Group>,
    terminal: bool,
}

impl Session {
    /// The group of its processes; a WebSocket has none.
    pub fn group(&self) -> Option<Group> {
        self.group
    }

    /// Whether it has a terminal to type into.
    pub fn has_terminal(&self) -> bool {
        self.terminal
    }

    /// How it ended, if it did.
    pub fn ended(&self) -> Option<Finished> {
        self.state.borrow().clone()
    }

    /// Waits until it is complete.
    pub async fn finished(&self) -> Finished {
        let mut state = self.state.clone();
        let finished = state.wait_for(Option::is_some).await;
        finished
            .ok()
            .and_then(|finished| finished.clone())
            .unwrap_or(Finished {
                ending: Ending::Lost("its owner is gone".into()),
                elapsed: Duration::ZERO,
            })
    }

    /// Takes the output that nobody took yet: standard output and standard
    /// error, or all in the first if the plan says interleaved.
    pub async fn take(&self) -> (Capture, Capture) {
        let (reply, answer) = oneshot::channel();
        let _ = self.requests.send(Request::Take(reply));
        answer.await.unwrap_or_default()
    }

    /// Types into the terminal.
    ///
    /// # Errors
    /// There is no terminal, it is closed, or too much already waits.
    pub async fn type_in(&self, bytes: Vec<u8>) -> io::Result<()> {
        let (reply, answer) = oneshot::channel();
        let _ = self.requests.send(Request::Type(bytes, reply));
        answer
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
    }

    /// Gives the terminal a new size.
    pub fn resize(&self, size: WindowSize) {
        let _ = self.requests.send(Request::Resize(size));
    }

    /// SIGINT to the group.
    pub fn interrupt(&self) {
        let _ = self.requests.send(Request::Interrupt);
    }

    /// SIGTERM to the group, SIGKILL two seconds later; a WebSocket is closed.
    pub fn stop(&self) {
        let _ = self.requests.send(Request::Stop);
    }

    /// Lets it run on in the background: the transcript goes to disk, and of
    /// the rest goes on what `keep` says. A WebSocket is opened by this.
    ///
    /// # Errors
    /// The transcript cannot be written.
    pub async fn detach(&self, keep: Keep) -> io::Result<()> {
        let (reply, answer) = oneshot::channel();
        let _ = self.requests.send(Request::Detach { keep, reply });
        answer
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
    }

    /// Changes who sees output as it comes.
    pub fn listen(&self, live: Option<Live>) {
        let _ = self.requests.send(Request::Listen(live));
    }
}

/// What the task behind a session hears, and where it tells the end.
type Owned = (
    mpsc::UnboundedReceiver<Request>,
    watch::Sender<Option<Finished>>,
);

impl Session {
    fn new(group: Option<Group>, terminal: bool) -> (Self, Owned) {
        let (requests, inbox) = mpsc::unbounded_channel();
        let (ended, state) = watch::channel(None);
        let session = Self {
            requests,
            state,
            group,
            terminal,
        };
        (session, (inbox, ended))
    }
}

/// A session and the work that must be spawned for it; `shutdown` ends both.
pub(super) fn open(
    spawned: Spawned,
    plan: Plan,
    permit: Option<OwnedSemaphorePermit>,
    shutdown: CancellationToken,
) -> (Session, BoxFuture<'static, ()>) {
    let terminal = matches!(spawned.output, Output::Terminal(_));
    let (session, (inbox, state)) = Session::new(Some(spawned.group), terminal);
    let owner = Owner::new(spawned, plan, permit, shutdown, inbox, state);
    // Boxed: a session's buffers and timers are no part of whoever spawns it.
    (session, Box::pin(owner.run()))
}

/// The same for a WebSocket.
pub(super) fn subscribe(
    subscription: Subscription,
    plan: Plan,
    permit: OwnedSemaphorePermit,
    shutdown: CancellationToken,
) -> (Session, BoxFuture<'static, ()>) {
    let (session, (inbox, state)) = Session::new(None, false);
    let watcher = Watcher::new(subscription, plan, permit, shutdown, inbox, state);
    (session, Box::pin(watcher.run()))
}
