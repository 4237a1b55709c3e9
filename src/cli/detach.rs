//! `letta server --detach`: the server in the background, for platforms that
//! replace the start command of an image.
//!
//! The program starts itself again with its output in `~/.letta/logs/server.log`
//! and returns once that one is up. Invariant: the child leaves the session of
//! its parent before it does anything else, so nothing that ends with a
//! terminal or a remote shell ends it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitCode};

use anyhow::{Context, Result};

use super::init;
use super::server::start::Foundation;
use crate::config::ServerFlags;
use crate::state::home::create_private_dir;

/// Tells the child what it is. Never passed on to commands of agents.
pub(super) const MARKER: &str = "LETTA_DETACHED";

/// The flag that the child does not get.
const FLAG: &str = "--detach";

/// A log larger than this, in bytes, makes room for a new one.
const LARGEST_LOG: u64 = 10 * 1024 * 1024;

/// So much of the log is shown, in bytes, when the server does not come up.
const SHOWN: u64 = 4096;

/// Starts the server in the background; `args` without `server`.
pub(super) fn start(args: &[OsString], flags: &ServerFlags) -> ExitCode {
    match begin(args, flags) {
        Ok(code) => code,
        Err(error) => {
            complain!("Error: {error:#}");
            ExitCode::from(78)
        }
    }
}

fn begin(args: &[OsString], flags: &ServerFlags) -> Result<ExitCode> {
    if std::env::var_os(init::MARKER).is_some() && rustix::process::getppid().is_some_and(is_init) {
        anyhow::bail!(
            "--detach would end the container, whose first process this is; \
             start it without --detach"
        );
    }
    let foundation = Foundation::lay(flags)?;
    let path = foundation.home.letta.join("logs/server.log");
    let mut log =
        open_log(&path).with_context(|| format!("{} cannot be written", path.display()))?;
    let from = log.seek(SeekFrom::End(0))?;
    let (ours, theirs) = UnixStream::pair()?;
    let child = Command::new("/proc/self/exe")
        .arg("server")
        .args(args.iter().filter(|arg| *arg != FLAG))
        .env(MARKER, "1")
        .stdin(OwnedFd::from(theirs))
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?)
        .spawn()
        .context("the program could not be started again")?;
    let pid = child.id();
    Ok(match ended(child, ours)? {
        None => {
            say!("letta server runs in the background as process {pid}.");
            say!("Log:   {}", path.display());
            say!("Stop:  letta stop");
            ExitCode::SUCCESS
        }
        Some(code) => {
            complain!("Error: the server did not come up. The end of its log:");
            complain_part!("{}", tail(&path, from));
            ExitCode::from(code)
        }
    })
}

fn is_init(parent: rustix::process::Pid) -> bool {
    parent.as_raw_nonzero().get() == 1
}

/// Opens the log at its end; one that has grown large is set aside first.
fn open_log(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        create_private_dir(directory)?;
    }
    if fs::metadata(path).is_ok_and(|log| log.len() > LARGEST_LOG) {
        fs::rename(path, path.with_extension("log.old"))?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

/// Waits until the child says that it is up (`None`), or has ended: its code.
fn ended(mut child: Child, mut line: UnixStream) -> io::Result<Option<u8>> {
    if line.read(&mut [0]).is_ok_and(|length| length == 1) {
        return Ok(None);
    }
    let code = child.wait()?.code().unwrap_or(70);
    Ok(Some(u8::try_from(code).unwrap_or(70)))
}

/// What the log has gained since `from`, its end at most.
fn tail(path: &Path, from: u64) -> String {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|mut log| {
        let end = log.seek(SeekFrom::End(0))?;
        log.seek(SeekFrom::Start(from.max(end.saturating_sub(SHOWN))))?;
        log.take(SHOWN).read_to_end(&mut text)
    });
    match read {
        Ok(_) => String::from_utf8_lossy(&text).into_owned(),
        Err(error) => format!("{}: {error}\n", path.display()),
    }
}

/// The child's side: the line on which its parent waits.
pub(super) struct Detached(UnixStream);

impl Detached {
    /// Leaves the parent's session, if this process is the child of a
    /// `--detach`. Call before there are threads.
    pub(super) fn adopt() -> Option<Self> {
        std::env::var_os(MARKER)?;
        let line = io::stdin();
        let line = rustix::io::fcntl_dupfd_cloexec(&line, 3).ok()?;
        let null = File::open("/dev/null").ok()?;
        rustix::stdio::dup2_stdin(&null).ok()?;
        let _ = rustix::process::setsid();
        Some(Self(UnixStream::from(line)))
    }

    /// The server is up; the parent may go.
    pub(super) fn up(mut self) {
        let _ = self.0.write_all(b"1");
        let _ = self.0.shutdown(Shutdown::Both);
    }
}
