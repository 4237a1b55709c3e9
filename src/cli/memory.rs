//! What git calls in a memory repository: `letta memory-check`, its pre-commit
//! hook, and `letta memory-credential`, its credential helper (06 §6.2–6.3).
//! Not for people, so no help names them.

use std::ffi::OsString;
use std::io::Read as _;
use std::process::ExitCode;

use anyhow::Context;

use super::login::run;
use crate::memory::check_staged;

/// The longest question of git.
const MAX_QUESTION: u64 = 64 * 1024;

/// Judges what is staged in the repository around the working directory.
pub(super) fn check() -> ExitCode {
    let code = run(async |foundation| {
        let dir = std::env::current_dir().context("the working directory is gone")?;
        let owner = foundation.config.memfs.constraints_may_change;
        Ok(check_staged(&dir, true, owner).await?)
    });
    if code == ExitCode::SUCCESS {
        code
    } else {
        ExitCode::FAILURE
    }
}

/// Answers git's question for a user and a password, for the memory server alone.
pub(super) fn credential(args: &[OsString]) -> ExitCode {
    if args.first().is_none_or(|action| action != "get") {
        // This program keeps the key itself: nothing to store or to erase.
        return ExitCode::SUCCESS;
    }
    run(async |foundation| {
        let mut question = String::new();
        std::io::stdin()
            .lock()
            .take(MAX_QUESTION)
            .read_to_string(&mut question)
            .context("git asked nothing")?;
        if !is_for(&question, &foundation.memory_server()) {
            return Ok(());
        }
        let (credentials, _) = foundation.credentials(&foundation.name())?;
        if let Some(token) = credentials.token().await? {
            say!("username=letta\npassword={}", token.expose());
        }
        Ok(())
    })
}

/// Whether git asks for the server of memories.
fn is_for(question: &str, server: &str) -> bool {
    let field = |name: &str| {
        question
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    };
    let (Some(protocol), Some(host)) = (field("protocol"), field("host")) else {
        return false;
    };
    let asked = format!("{protocol}://{host}");
    server == asked || server.starts_with(&format!("{asked}/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_for_the_memory_server_alone() {
        let cloud = "https://api.letta.com";
        for (question, server, expected) in [
            ("protocol=https\nhost=api.letta.com\n\n", cloud, true),
            (
                "protocol=https\nhost=api.letta.com\npath=v1\n",
                "https://api.letta.com/x",
                true,
            ),
            ("protocol=http\nhost=api.letta.com\n", cloud, false),
            ("protocol=https\nhost=api.letta.co\n", cloud, false),
            ("protocol=https\nhost=evil.example\n", cloud, false),
            ("host=api.letta.com\n", cloud, false),
            ("", cloud, false),
        ] {
            assert_eq!(is_for(question, server), expected, "{question:?}");
        }
    }
}
