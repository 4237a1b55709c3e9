//! What a checkout needs beside its files: configuration, hooks, a credential
//! helper for the agent's own git (06 §6.2–6.3, 07 §4.5).
//!
//! Invariant: nothing here holds a key. The helper and the hook call this
//! program, which reads the key when git asks; without the program they do nothing.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;

use super::checkout::Checkout;
use super::git::{Git, GitError};
use super::{MemoryError, MemorySettings};

/// Tries of a change of the configuration that another git holds.
const TRIES: u32 = 5;

const POST_COMMIT: &str = r#"#!/bin/sh
# Written by letta; changes are overwritten.
url=$(git config --local --get letta.memoryRepository.url) || exit 0
[ -n "$url" ] || exit 0
[ "$(git symbolic-ref --short -q HEAD)" = main ] || exit 0
log="$(git rev-parse --git-dir)/memory-repository-push.log"
git push "$url" main </dev/null >>"$log" 2>&1 &
"#;

/// Brings hooks and configuration up to date; `name` is the agent's name.
pub(super) async fn prepare(checkout: &Checkout, name: Option<&str>) -> Result<(), MemoryError> {
    let settings = checkout.settings();
    let git_dir = checkout.dir().join(".git");
    let hooks = git_dir.join("hooks");
    let binary = quoted(&settings.binary);
    let pre_commit = format!(
        "#!/bin/sh\n# Written by letta; changes are overwritten.\nletta={binary}\n[ -x \"$letta\" ] || exit 0\nexec \"$letta\" memory-check\n"
    );
    let layout = match checkout.shared() {
        None => "root-marker\n",
        Some(_) => super::rules::SHARED,
    };
    let written = tokio::task::spawn_blocking(move || {
        put(&hooks.join("pre-commit"), &pre_commit, 0o755)?;
        put(&hooks.join("post-commit"), POST_COMMIT, 0o755)?;
        put(&git_dir.join(super::rules::LAYOUT), layout, 0o644)
    });
    match written.await {
        Ok(done) => done?,
        Err(error) => return Err(MemoryError::Api(error.to_string())),
    }
    configure(checkout, settings, name).await
}

async fn configure(
    checkout: &Checkout,
    settings: &MemorySettings,
    name: Option<&str>,
) -> Result<(), MemoryError> {
    let git = Git::in_dir(checkout.dir());
    let listed = git.run(&["config", "--local", "--list", "-z"]).await?;
    let known: Vec<(&str, &str)> = listed
        .split('\0')
        .filter_map(|row| row.split_once('\n'))
        .collect();
    // Git shows sections and names in lower case.
    let values = |key: &str| -> Vec<&str> {
        known
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(key))
            .map(|(_, value)| *value)
            .collect()
    };
    let agent = checkout.agent_id();
    for (key, value) in [
        ("letta.agentId", agent),
        ("branch.main.remote", "origin"),
        ("branch.main.merge", "refs/heads/main"),
    ] {
        if values(key) != [value] {
            set(git, &["--replace-all", key, value]).await?;
        }
    }
    let email = format!("{agent}@letta.com");
    for (key, value) in [
        ("user.email", email.as_str()),
        ("user.name", name.unwrap_or("Letta Agent")),
        ("commit.gpgsign", "false"),
    ] {
        if values(key).is_empty() {
            set(git, &[key, value]).await?;
        }
    }
    // An older helper of the published program holds the key in clear: it goes.
    let key = format!("credential.{}.helper", settings.server);
    let helper = format!("!{} memory-credential", quoted(&settings.binary));
    if values(&key) != ["", helper.as_str()] {
        set(git, &["--replace-all", &key, ""]).await?;
        set(git, &["--add", &key, &helper]).await?;
    }
    Ok(())
}

/// `git config --local`, again while another git holds the file.
pub(super) async fn set(git: Git<'_>, args: &[&str]) -> Result<(), GitError> {
    let args: Vec<&str> = ["config", "--local"].iter().chain(args).copied().collect();
    let mut attempt = 0;
    loop {
        match git.run(&args).await {
            Ok(_) => return Ok(()),
            Err(error) if attempt + 1 < TRIES && error.says(&["lock config file"]) => {
                sleep(Duration::from_millis(25 << attempt)).await;
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

fn put(path: &Path, text: &str, mode: u32) -> Result<(), MemoryError> {
    let fail = |error| MemoryError::file(path, &error);
    if std::fs::read(path).is_ok_and(|found| found == text.as_bytes()) {
        return Ok(());
    }
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(fail)?;
    }
    // A link in its place would lead the write elsewhere.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    std::fs::write(path, text).map_err(fail)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(fail)
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}
