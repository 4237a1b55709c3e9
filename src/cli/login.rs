//! `letta login` and `letta logout` (spec 01 §5.2–5.3).

use std::process::ExitCode;

use anyhow::{Context, Result};

use super::server::start::{Foundation, Screen};
use crate::config::ServerFlags;
use crate::credentials::SignedOut;

/// Signs in and saves the login.
pub(super) fn log_in() -> ExitCode {
    run(async |foundation: &Foundation| {
        let (credentials, _) = foundation.credentials(&foundation.name())?;
        credentials.log_in(&Screen).await?;
        say!(
            "The login is saved in {}.",
            foundation.home.settings().display()
        );
        Ok(())
    })
}

/// Signs out and forgets the login.
pub(super) fn log_out() -> ExitCode {
    run(async |foundation: &Foundation| {
        let (credentials, _) = foundation.credentials(&foundation.name())?;
        match credentials.log_out().await? {
            SignedOut::Revoked => say!("Signed out."),
            SignedOut::NothingSaved => say!("Nobody was signed in on this machine."),
            SignedOut::OnlyHere(error) => {
                say!("Signed out on this machine. The login server could not be told: {error}");
            }
        }
        Ok(())
    })
}

pub(super) fn run(work: impl AsyncFnOnce(&Foundation) -> Result<()>) -> ExitCode {
    let done = (|| {
        let foundation = Foundation::lay(&ServerFlags::default())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("the runtime could not be started")?;
        runtime.block_on(work(&foundation))
    })();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain!("Error: {error:#}");
            ExitCode::from(77)
        }
    }
}
