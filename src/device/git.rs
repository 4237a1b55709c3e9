//! Branches: `search_branches`, `checkout_branch` (06 §4).
//!
//! Invariant: what a client sends is never read by git as an option or as the
//! name of a file, and a git that hangs is ended with all that it started.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use super::call::{Answer, Call, Failure};
use super::files::process_cwd;
use crate::events::{Injected, Recipient};
use crate::process::Launch;
use crate::process::spawn::{Output, Spawned};
use crate::protocol::fields::ShapeError;

const LIST_TIME: Duration = Duration::from_millis(5000);
/// Less than a client waits (06 §1.2); the published program takes 10 s.
const CHECKOUT_TIME: Duration = Duration::from_secs(9);
/// Branches in one answer when the client does not say.
const BRANCHES: usize = 20;
/// More output of git is not read, in bytes.
const MAX_OUTPUT: u64 = 4 * 1024 * 1024;
/// Shown of what git complains about, in characters.
const SHOWN: usize = 2000;

/// Branches whose name holds a text.
pub(super) async fn search_branches(mut call: Call) -> Answer {
    let query = call.fields.string("query")?.to_lowercase();
    let max = call.fields.lenient_count("max_results").unwrap_or(BRANCHES);
    let cwd = cwd(&mut call);
    let format = "--format=%(refname:short)%09%(HEAD)%09%(symref)";
    let listed = git(
        &call,
        &cwd,
        &["branch", "-a", "--no-color", format],
        LIST_TIME,
    )
    .await?;
    let branches: Vec<Value> = listed
        .lines()
        .filter_map(|line| branch(line, &query))
        .take(max)
        .collect();
    Ok(json!({"branches": branches}))
}

/// One line of the listing, if it is a branch that fits.
fn branch(line: &str, query: &str) -> Option<Value> {
    let mut columns = line.split('\t');
    let name = columns.next()?.trim();
    let current = columns.next()?.trim() == "*";
    // A remote's HEAD is another name for one of its branches.
    let symbolic = !columns.next()?.trim().is_empty();
    if symbolic || name.is_empty() || !name.to_lowercase().contains(query) {
        return None;
    }
    Some(json!({
        "name": name, "is_current": current, "is_remote": name.starts_with("origin/"),
    }))
}

/// Switches the working tree of a directory to a branch.
pub(super) async fn checkout_branch(mut call: Call) -> Answer {
    let branch = call.fields.string("branch")?;
    let create = call.fields.lenient_flag("create");
    let cwd = cwd(&mut call);
    let checkout = async {
        if branch.is_empty() || branch.starts_with('-') {
            return Err(ShapeError::new("branch", "the name of a branch").into());
        }
        // The last `--` says that no file is meant.
        let arguments: &[&str] = match create {
            true => &["checkout", "-b", &branch, "--"],
            false => &["checkout", &branch, "--"],
        };
        git(&call, &cwd, arguments, CHECKOUT_TIME).await
    };
    if let Err(failure) = checkout.await {
        return Err(failure.with("branch", branch));
    }
    let now = git(&call, &cwd, &["branch", "--show-current"], LIST_TIME).await;
    let now = now.unwrap_or_default().trim().to_owned();
    call.services().git.forget();
    call.inject(Recipient::Live, Injected::GitChanged);
    Ok(json!({"branch": if now.is_empty() { branch } else { now }}))
}

/// The directory that the command names.
fn cwd(call: &mut Call) -> OsString {
    match call.fields.lenient_string("cwd") {
        Some(cwd) => process_cwd().join(cwd).into(),
        None => call.services().remote.boot_cwd().into(),
    }
}

/// Runs git in a directory; its output, or what it complains about.
async fn git(
    call: &Call,
    cwd: &OsString,
    arguments: &[&str],
    limit: Duration,
) -> Result<String, Failure> {
    let _place = call.shared.child().await?;
    let processes = &call.services().background;
    let mut env = processes.base().variables().clone();
    for (name, value) in [
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_OPTIONAL_LOCKS", "0"),
        ("GCM_INTERACTIVE", "never"),
        ("GIT_ASKPASS", ""),
        ("SSH_ASKPASS", ""),
    ] {
        env.insert(name.into(), value.into());
    }
    let mut argv = vec![OsString::from("git"), "-C".into(), cwd.clone()];
    argv.extend(arguments.iter().map(OsString::from));
    // The directory is git's to enter: it may lie on a dead mount.
    let launch = Launch {
        argv,
        cwd: Path::new("/").into(),
        env,
        terminal: None,
    };
    let processes = processes.clone();
    let spawned = tokio::task::spawn_blocking(move || processes.spawn(&launch));
    let Spawned {
        mut child,
        group,
        output,
    } = match spawned.await {
        Ok(spawned) => spawned.map_err(|error| Failure::new(format!("git: {error}")))?,
        Err(_) => return Err(Failure::new("git could not be started.")),
    };
    let Output::Pipes(out, complaints) = output else {
        return Err(Failure::new("git could not be started."));
    };
    let run = async {
        let (out, complaints) = tokio::join!(text(out), text(complaints));
        (child.wait().await, out, complaints)
    };
    let Ok((status, out, complaints)) = timeout(limit, run).await else {
        group.signal(Signal::KILL);
        let error = format!(
            "git {} did not end within {} s.",
            arguments[0],
            limit.as_secs()
        );
        return Err(Failure::new(error));
    };
    if status.is_ok_and(|status| status.success()) {
        return Ok(out);
    }
    let complaints: String = complaints.trim().chars().take(SHOWN).collect();
    Err(Failure::new(format!(
        "git {} failed: {complaints}",
        arguments[0]
    )))
}

/// All that a stream says, up to the limit; what is beyond is read away.
async fn text(stream: impl AsyncRead + Unpin) -> String {
    let mut bytes = Vec::new();
    let mut stream = stream.take(MAX_OUTPUT);
    // What came before an error is all there is.
    let _ = stream.read_to_end(&mut bytes).await;
    let _ = tokio::io::copy(&mut stream.into_inner(), &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&bytes).into_owned()
}
