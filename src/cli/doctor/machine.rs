//! This machine: files, shell, git, disk, memory, and the server that runs here.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::report::Report;
use crate::cli::healthcheck;
use crate::cli::server::start::Foundation;
use crate::process::shell::Shells;
use crate::state::home::create_private_dir;
use crate::state::pid_file::RunningServer;

const MIB: u64 = 1024 * 1024;
/// Less free disk than this is worth a word.
const LITTLE_DISK: u64 = 200 * MIB;
/// With less than this nothing can be written soon.
const NO_DISK: u64 = 5 * MIB;
/// Less memory than this and agents' commands will be killed.
const LITTLE_MEMORY: u64 = 64 * MIB;

/// The state can be written.
pub(super) fn home(foundation: &Foundation, report: &mut Report) {
    let path = &foundation.home.letta;
    match writable(path) {
        Ok(()) => report.fine("state", path.display().to_string()),
        Err(error) => report.broken(
            "state",
            format!("{} cannot be written: {error}", path.display()),
            "Give the directory to the user that runs the server, or mount a volume there.",
        ),
    }
}

fn writable(directory: &Path) -> std::io::Result<()> {
    create_private_dir(directory)?;
    tempfile::Builder::new()
        .prefix(".doctor-")
        .tempfile_in(directory)
        .map(drop)
}

/// The directory in which commands begin.
pub(super) fn directory(report: &mut Report) {
    match std::env::current_dir() {
        Ok(path) if rustix::fs::access(&path, rustix::fs::Access::WRITE_OK).is_ok() => {
            report.fine("directory", path.display().to_string());
        }
        Ok(path) => report.warn(
            "directory",
            format!("{} cannot be written", path.display()),
            "Agents can read here but change nothing; start the server in another directory.",
        ),
        Err(error) => report.broken(
            "directory",
            format!("there is no working directory: {error}"),
            "Start the server in a directory that exists.",
        ),
    }
}

/// A shell for agents' commands.
pub(super) fn shell(report: &mut Report) {
    let argv =
        Shells::from_environment(&std::env::vars_os().collect()).command_line("echo works", false);
    let shell = argv[0].to_string_lossy().into_owned();
    let run = Command::new(&argv[0])
        .args(&argv[1..])
        .stdin(Stdio::null())
        .output();
    match run {
        Ok(output) if output.stdout == b"works\n" => report.fine("shell", shell),
        Ok(output) => report.broken(
            "shell",
            format!("{shell} ends with {}", output.status),
            "Set SHELL to a shell that works.",
        ),
        Err(error) => report.warn(
            "shell",
            format!("{shell}: {error}"),
            "Agents can work with files here but run no commands; the image with tools has a shell.",
        ),
    }
}

/// Git, for the directory's state and for agents.
pub(super) fn git(report: &mut Report) {
    let run = Command::new("git")
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    match run {
        Ok(output) if output.status.success() => {
            report.fine("git", String::from_utf8_lossy(&output.stdout));
        }
        _ => report.warn(
            "git",
            "not found on PATH",
            "Install git, so that agents can work with repositories.",
        ),
    }
}

/// Room for state, logs and agents' work.
pub(super) fn disk(foundation: &Foundation, report: &mut Report) {
    // The nearest directory that exists stands for the one that will be made.
    let place = foundation.home.letta.ancestors().find(|path| path.exists());
    let place = place.unwrap_or(Path::new("/"));
    let free = match rustix::fs::statvfs(place) {
        Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize),
        Err(error) => return report.warn("disk", error.to_string(), ""),
    };
    let seen = format!("{} MiB free at {}", free / MIB, place.display());
    if free < NO_DISK {
        report.broken("disk", seen, "Make room: nothing can be saved.");
    } else if free < LITTLE_DISK {
        report.warn("disk", seen, "Make room soon.");
    } else {
        report.fine("disk", seen);
    }
}

/// Memory for agents' commands, within the limit of the container.
pub(super) fn memory(report: &mut Report) {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kib * 1024)
    };
    let (Some(available), Some(swap)) = (field("MemAvailable:"), field("SwapFree:")) else {
        return report.skipped("memory", "/proc/meminfo cannot be read");
    };
    let limit = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ]
    .iter()
    .find_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok())
    .filter(|limit| *limit < 1 << 50);
    let mut seen = format!("{} MiB available", available / MIB);
    if let Some(limit) = limit {
        seen += &format!(", limited to {} MiB", limit / MIB);
    }
    seen += &format!(", {} MiB of swap", swap / MIB);
    if available.min(limit.unwrap_or(u64::MAX)) + swap < LITTLE_MEMORY {
        report.warn("memory", seen, "Add swap: larger commands will be killed.");
    } else {
        report.fine("memory", seen);
    }
}

/// The server that runs here, by its lock and by its health endpoint.
pub(super) fn server(foundation: &Foundation, report: &mut Report) {
    let running = RunningServer::all(&foundation.home);
    let shown: Vec<String> = running
        .iter()
        .map(|server| format!("{} (process {})", server.name, server.pid))
        .collect();
    if shown.is_empty() {
        report.broken(
            "server",
            format!("none of {} runs", foundation.home.letta.display()),
            "Start it: letta server",
        );
    } else {
        report.fine("server", shown.join(", "));
    }
    let text = |name: &str| std::env::var(name).ok();
    let address = text("LETTA_HEALTH_ADDR");
    let health = healthcheck::run(true, address.as_deref(), text("PORT").as_deref());
    if health.exit_code == 0 {
        report.fine("relay", "connected");
    } else if shown.is_empty() {
        report.skipped("relay", "no server runs");
    } else {
        report.broken(
            "relay",
            health.line,
            "The log of the server says more; give this command the server's LETTA_HEALTH_ADDR and PORT.",
        );
    }
}
