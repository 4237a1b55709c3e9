//! The small init of a container (00 §5).
//!
//! As PID 1 the program starts itself a second time and stays behind: it
//! forwards signals, reaps every orphan, and exits with the status of the
//! program proper. That one can then wait for its own children without having
//! anybody else's among them, and has a parent that signals reach.
//!
//! Invariant: runs before any other runtime or thread exists, is single-threaded
//! itself, and holds no state but the pid of its child.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};

/// Asks for the init when the process is not PID 1.
pub const INIT_FLAG: &str = "--init";

/// Set for the program proper, which then never becomes an init itself.
pub const MARKER: &str = "LETTA_UNDER_INIT";

/// What is forwarded.
const FORWARDED: [(SignalKind, Signal); 4] = [
    (SignalKind::terminate(), Signal::TERM),
    (SignalKind::interrupt(), Signal::INT),
    (SignalKind::hangup(), Signal::HUP),
    (SignalKind::quit(), Signal::QUIT),
];

/// What could not be done; the program can still run without an init.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The signals could not be waited for.
    #[error("the init cannot wait for signals: {0}")]
    Signals(#[source] io::Error),
    /// The program could not be started a second time.
    #[error("the init cannot start the program again: {0}")]
    Start(#[source] io::Error),
    /// The child could not be waited for.
    #[error("the init cannot wait for its children: {0}")]
    Wait(#[source] io::Error),
}

/// Whether this process should become the init: it is PID 1 or was asked to,
/// and is not already the program proper.
pub fn wanted(args: &[OsString], marked: bool) -> bool {
    !marked && (std::process::id() == 1 || args.iter().any(|arg| arg == INIT_FLAG))
}

/// Starts this program again with `args` (without the program's name; the
/// [`INIT_FLAG`] is taken out) and serves as its init. Returns the exit code to
/// end with: the child's, or 128 and the number of the signal that ended it.
///
/// # Errors
/// When it cannot even begin, so that the caller may run the program itself.
pub fn run(args: &[OsString]) -> Result<u8, InitError> {
    let mut command = Command::new("/proc/self/exe");
    command.args(args.iter().filter(|arg| *arg != INIT_FLAG));
    if let Some(name) = std::env::args_os().next() {
        command.arg0(name);
    }
    command.env(MARKER, "1");
    supervise(command)
}

fn supervise(mut command: Command) -> Result<u8, InitError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(InitError::Signals)?;
    runtime.block_on(async {
        // Before the child exists, so that nothing that concerns it is missed.
        let mut signals = Inbox::new().map_err(InitError::Signals)?;
        if std::process::id() != 1 {
            // Orphans come to PID 1 by themselves, to us only if we ask for them.
            let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
        }
        // A process group of its own: a Ctrl-C at the terminal then reaches the
        // child once, not once from the kernel and once from here.
        let child = command.process_group(0).spawn().map_err(InitError::Start)?;
        let child = Pid::from_child(&child);
        give_terminal_to(child);
        loop {
            if let Some(code) = reap(child)? {
                return Ok(code);
            }
            if let Some(signal) = signals.next().await {
                // The child may just have ended; its status is fetched next.
                let _ = rustix::process::kill_process(child, signal);
            }
        }
    })
}

/// The signals this process waits for.
struct Inbox {
    forwarded: Vec<(Signals, Signal)>,
    child: Signals,
}

impl Inbox {
    fn new() -> io::Result<Self> {
        let forwarded = FORWARDED
            .iter()
            .map(|(kind, sent)| Ok((signal(*kind)?, *sent)))
            .collect::<io::Result<_>>()?;
        Ok(Self {
            forwarded,
            child: signal(SignalKind::child())?,
        })
    }

    /// Waits for one signal to forward, or `None` when a child changed.
    async fn next(&mut self) -> Option<Signal> {
        std::future::poll_fn(|cx| {
            for (signals, sent) in &mut self.forwarded {
                if signals.poll_recv(cx).is_ready() {
                    return std::task::Poll::Ready(Some(*sent));
                }
            }
            self.child.poll_recv(cx).map(|_| None)
        })
        .await
    }
}

/// Reaps whoever has ended. The exit code once `child` is among them.
fn reap(child: Pid) -> Result<Option<u8>, InitError> {
    let mut code = None;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == child => code = exit_code(status).or(code),
            Ok(Some(_)) => {}
            Ok(None) => return Ok(code),
            Err(rustix::io::Errno::INTR) => {}
            // No child is left, ours included.
            Err(rustix::io::Errno::CHILD) if code.is_some() => return Ok(code),
            Err(error) => return Err(InitError::Wait(error.into())),
        }
    }
}

fn exit_code(status: WaitStatus) -> Option<u8> {
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => return None,
    };
    Some(u8::try_from(code).unwrap_or(u8::MAX))
}

/// With a terminal, the child reads it and gets its Ctrl-C.
fn give_terminal_to(child: Pid) {
    let stdin = io::stdin();
    if stdin.is_terminal() && rustix::termios::tcsetpgrp(&stdin, child).is_ok() {
        // It may have been stopped for reading before the terminal was its own.
        let _ = rustix::process::kill_process(child, Signal::CONT);
    }
}

#[cfg(test)]
mod tests;
