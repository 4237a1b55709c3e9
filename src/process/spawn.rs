//! Starts one child as the leader of its own process group.
//!
//! Without a terminal the child starts through `posix_spawn`: nothing of this
//! process is copied, so a start costs the same however big it is. With one,
//! and where this process itself has a terminal that a child could fall upon,
//! the child needs a session of its own, which takes a real fork (04 §6.3).

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;

use thiserror::Error;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use super::environment::Variables;
use super::group::{self, Group};
use super::pty::{self, Master, WindowSize};

/// Room for output that was not read yet: with more than the usual 64 KiB, a command
/// that prints much waits for this process less often.
const PIPE_BYTES: usize = 256 * 1024;

/// What to start.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program and its arguments; not empty.
    pub argv: Vec<OsString>,
    /// Where it runs.
    pub cwd: PathBuf,
    /// All of its environment.
    pub env: Variables,
    /// A terminal of this size instead of pipes.
    pub terminal: Option<WindowSize>,
}

/// Why a child did not start. The texts go to the model (04 §5.1).
#[derive(Debug, Error)]
pub enum SpawnError {
    /// The directory is gone.
    #[error("Working directory not found: {}", .0.display())]
    WorkingDirectory(PathBuf),
    /// There is no such program.
    #[error("Executable not found: {0}")]
    Executable(String),
    /// Anything else the system says.
    #[error("Failed to execute command: {0}")]
    Other(#[from] io::Error),
}

/// Where a child's output comes from.
#[derive(Debug)]
pub enum Output {
    /// Two pipes.
    Pipes(ChildStdout, ChildStderr),
    /// One terminal.
    Terminal(Master),
}

/// A child that runs.
#[derive(Debug)]
pub struct Spawned {
    /// The process; dropping it kills the leader.
    pub child: Child,
    /// Its group.
    pub group: Group,
    /// Its output.
    pub output: Output,
}

/// Starts `launch`. `own_session` takes the child away from this process's terminal.
///
/// # Errors
/// See [`SpawnError`].
pub fn spawn(launch: &Launch, own_session: bool) -> Result<Spawned, SpawnError> {
    start(launch, own_session, Stdio::null())
}

/// Starts `launch`, which has no terminal, and gives its standard input as well.
///
/// # Errors
/// See [`SpawnError`].
pub fn spawn_fed(launch: &Launch, own_session: bool) -> Result<(Spawned, ChildStdin), SpawnError> {
    let mut spawned = start(launch, own_session, Stdio::piped())?;
    let stdin = spawned.child.stdin.take();
    let stdin = stdin.ok_or_else(|| io::Error::other("the process has no standard input"))?;
    Ok((spawned, stdin))
}

fn start(launch: &Launch, own_session: bool, stdin: Stdio) -> Result<Spawned, SpawnError> {
    let Some((program, arguments)) = launch.argv.split_first() else {
        return Err(SpawnError::Executable(String::new()));
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(&launch.cwd)
        .env_clear()
        .envs(&launch.env)
        .kill_on_drop(true);
    let master = match launch.terminal {
        Some(size) => {
            let (master, slave) = pty::open(size)?;
            attach(&mut command, slave)?;
            Some(master)
        }
        None => {
            command
                .stdin(stdin)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            if own_session {
                lead_session(&mut command, false);
            } else {
                command.process_group(0);
            }
            None
        }
    };
    let mut child = command.spawn().map_err(|error| explain(error, launch))?;
    // Our copies of the terminal's other side: while they are open it never ends.
    drop(command);
    let group = child
        .id()
        .and_then(|pid| Group::of(pid, own_session || launch.terminal.is_some()))
        .ok_or_else(|| io::Error::other("the process ended before it had an id"))?;
    group::prefer_to_kill(group);
    let output = match (master, child.stdout.take(), child.stderr.take()) {
        (Some(master), ..) => Output::Terminal(master),
        (None, Some(stdout), Some(stderr)) => {
            let _ = rustix::pipe::fcntl_setpipe_size(&stdout, PIPE_BYTES);
            Output::Pipes(stdout, stderr)
        }
        _ => return Err(io::Error::other("the process has no pipes").into()),
    };
    Ok(Spawned {
        child,
        group,
        output,
    })
}

/// Gives the command the terminal as its three streams and its controlling terminal.
fn attach(command: &mut Command, slave: OwnedFd) -> io::Result<()> {
    command
        .stdin(slave.try_clone()?)
        .stdout(slave.try_clone()?)
        .stderr(slave);
    lead_session(command, true);
    Ok(())
}

/// Makes the child leader of a new session and, with `terminal`, its standard
/// input the terminal that controls it.
fn lead_session(command: &mut Command, terminal: bool) {
    let prepare = move || {
        rustix::process::setsid()?;
        if terminal {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        }
        Ok(())
    };
    // SAFETY: `prepare` runs between fork and exec, where other threads' locks
    // may be held for ever. It makes at most two system calls, allocates
    // nothing, takes no lock, and captures one bool; an error becomes a number.
    #[expect(
        unsafe_code,
        reason = "the standard library has no safe way to call setsid in a child"
    )]
    unsafe {
        command.pre_exec(prepare);
    }
}

/// The system names neither the program nor the directory that it missed.
fn explain(error: io::Error, launch: &Launch) -> SpawnError {
    let program = || {
        launch
            .argv
            .first()
            .map(|name| name.to_string_lossy().into_owned())
    };
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory if !launch.cwd.is_dir() => {
            SpawnError::WorkingDirectory(launch.cwd.clone())
        }
        io::ErrorKind::NotFound => SpawnError::Executable(program().unwrap_or_default()),
        _ => SpawnError::Other(error),
    }
}
