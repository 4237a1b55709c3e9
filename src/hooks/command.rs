//! One hook command from start to end (05 §15.2).
//!
//! Invariant: it ends with its time limit at the latest, with everything it
//! started; what it prints is kept up to a bound and read on beyond it, so it
//! can neither hang nor fill memory. Dropping the future kills it.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::{Run, Verdict};
use crate::process::group::Group;
use crate::process::spawn::Output;
use crate::process::{Launch, Processes};

/// Kept of each stream, in bytes; the rest is read and dropped.
const KEPT: usize = 1 << 20;
/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(1);
/// How long somebody else may hold the pipes open after the end.
const PIPE_GRACE: Duration = Duration::from_secs(1);

/// Kills the group of a command whose future was dropped.
struct Guard(Option<Group>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            group.signal(Signal::KILL);
        }
    }
}

/// Runs `launch` with `input` on its standard input.
pub(super) async fn run(
    processes: &Processes,
    launch: &Launch,
    input: &[u8],
    limit: Duration,
) -> Run {
    let (mut spawned, mut stdin) = match processes.spawn_fed(launch) {
        Ok(started) => started,
        Err(error) => return Run::failed(error.to_string()),
    };
    let mut guard = Guard(Some(spawned.group));
    let Output::Pipes(stdout, stderr) = spawned.output else {
        return Run::failed("the hook has no pipes".into());
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let ended = {
        let feed = async {
            // A hook that does not want to know the event closes its input.
            let _ = stdin.write_all(input).await;
            drop(stdin);
        };
        let io = async { tokio::join!(feed, keep(stdout, &mut out), keep(stderr, &mut err)) };
        let mut io = std::pin::pin!(io);
        let mut read_all = false;
        let exit = async {
            loop {
                tokio::select! {
                    exit = spawned.child.wait() => return exit,
                    _ = &mut io, if !read_all => read_all = true,
                }
            }
        };
        let ended = timeout(limit, exit).await;
        if ended.is_ok() && !read_all {
            // A grandchild may hold a pipe for ever.
            let _ = timeout(PIPE_GRACE, &mut io).await;
        }
        ended
    };
    let (verdict, error) = match ended {
        Ok(Ok(status)) => {
            guard.0 = None;
            judge(status)
        }
        Ok(Err(error)) => (Verdict::Error, Some(error.to_string())),
        Err(_) => {
            spawned.group.signal(Signal::TERM);
            let _ = timeout(GRACE, spawned.child.wait()).await;
            spawned.group.signal(Signal::KILL);
            let text = format!("Hook timed out after {}ms", limit.as_millis());
            (Verdict::Error, Some(text))
        }
    };
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
    Run {
        verdict,
        stdout: text(out),
        stderr: text(err),
        error,
    }
}

fn judge(status: ExitStatus) -> (Verdict, Option<String>) {
    match (status.code(), status.signal()) {
        (Some(0), _) => (Verdict::Allow, None),
        (Some(2), _) => (Verdict::Block, None),
        (Some(code), _) => (
            Verdict::Error,
            Some(format!("Hook exited with code {code}")),
        ),
        (None, signal) => (
            Verdict::Error,
            Some(format!(
                "Hook was ended by signal {}",
                signal.unwrap_or_default()
            )),
        ),
    }
}

/// Reads to the end and keeps the first [`KEPT`] bytes.
async fn keep(mut from: impl AsyncRead + Unpin, kept: &mut Vec<u8>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let room = KEPT - kept.len();
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
}
