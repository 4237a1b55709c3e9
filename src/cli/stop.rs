//! `letta stop [--now]`: ends the servers of this home, as SIGTERM does.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::server::start::Foundation;
use super::{help, usage};
use crate::config::ServerFlags;
use crate::state::pid_file::RunningServer;

/// What a server needs behind its drain: the last steps and some room.
const LAST_STEPS: Duration = Duration::from_secs(15);

/// Exit code when a server does not end.
const STILL_RUNNING: u8 = 75;

/// Runs the command; `args` without `stop`.
pub(super) fn run(args: &[OsString]) -> ExitCode {
    let now = match args {
        [] => false,
        [flag] if flag == "--now" => true,
        [flag] if flag == "--help" || flag == "-h" => {
            say_part!("{}", help::STOP);
            return ExitCode::SUCCESS;
        }
        _ => return usage("stop takes only --now", help::STOP),
    };
    let foundation = match Foundation::lay(&ServerFlags::default()) {
        Ok(foundation) => foundation,
        Err(error) => {
            complain!("Error: {error:#}");
            return ExitCode::from(78);
        }
    };
    let servers = RunningServer::all(&foundation.home);
    if servers.is_empty() {
        say!("No server of {} runs.", foundation.home.letta.display());
    }
    let asked = servers.iter().map(|server| ask(server, now));
    if !asked.fold(true, |all, done| all & done) {
        return ExitCode::from(STILL_RUNNING);
    }
    let deadline = Instant::now() + foundation.config.drain + LAST_STEPS;
    for server in &servers {
        while server.is_running() {
            if Instant::now() > deadline {
                complain!(
                    "Error: {} (process {}) is still at work; `letta stop --now` ends it at once.",
                    server.name,
                    server.pid
                );
                return ExitCode::from(STILL_RUNNING);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        say!("Stopped {} (process {}).", server.name, server.pid);
    }
    ExitCode::SUCCESS
}

/// Asks once, or twice for an end at once. Whether it could be asked.
fn ask(server: &RunningServer, now: bool) -> bool {
    for _ in 0..=u8::from(now) {
        let asked = Pid::from_raw(server.pid).map(|pid| kill_process(pid, Signal::TERM));
        if let Some(Err(error)) = asked
            && server.is_running()
        {
            complain!(
                "Error: {} (process {}) cannot be asked to stop: {error}",
                server.name,
                server.pid
            );
            return false;
        }
    }
    true
}
