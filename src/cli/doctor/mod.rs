//! `letta doctor [--json]`: whether work can reach this machine, and what is in
//! its way (00 §5).
//!
//! Each look adds one finding, in the order in which a connection is made.
//! Invariant: nothing is changed but a file that is made and removed at once;
//! nobody is registered, signed in or asked; no secret is shown.

mod machine;
mod network;
mod report;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;

use self::report::Report;
use super::server::start::Foundation;
use super::{help, usage};
use crate::config::ServerFlags;

/// Runs the command; `args` without `doctor`.
pub(super) fn main(args: &[OsString]) -> ExitCode {
    let json = match args {
        [] => false,
        [flag] if flag == "--json" => true,
        [flag] if flag == "--help" || flag == "-h" => {
            say_part!("{}", help::DOCTOR);
            return ExitCode::SUCCESS;
        }
        _ => return usage("doctor takes only --json", help::DOCTOR),
    };
    match examine() {
        Ok(report) => {
            if json {
                say!("{:#}", report.json());
            } else {
                say_part!("{}", report.text());
            }
            ExitCode::from(u8::from(!report.is_good()))
        }
        Err(error) => {
            complain!("Error: {error:#}");
            ExitCode::from(78)
        }
    }
}

fn examine() -> Result<Report> {
    let foundation = Foundation::lay(&ServerFlags::default())?;
    let mut report = Report::default();
    machine::home(&foundation, &mut report);
    machine::directory(&mut report);
    machine::shell(&mut report);
    machine::git(&mut report);
    machine::disk(&foundation, &mut report);
    machine::memory(&mut report);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(network::examine(&foundation, &mut report));
    machine::server(&foundation, &mut report);
    Ok(report)
}
