//! Adds a worktree to a repository: its name, its directory, its checkout
//! (04 §7.21).
//!
//! Invariant: the checkout runs no program that the repository's own settings
//! name; a repository that insists on one gets no worktree.

use std::fs;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::git::Git;
use super::{Repository, Trouble};

/// Characters of a name that become part of a path.
const SLUG_CHARS: usize = 48;

/// Settings of a repository that run programs on a checkout.
const RUNS_PROGRAMS: &str = r"^(includeif\..*|filter\..*\.(clean|smudge|process|required)|lfs\.customtransfer\..*\.path|lfs\.standalonetransferagent)$";

/// `My task!` → `my-task`.
pub(super) fn slug(name: &str) -> String {
    let mut slug = String::new();
    for character in name.to_lowercase().chars() {
        let plain = character.is_ascii_alphanumeric() || matches!(character, '.' | '_');
        if plain {
            slug.push(character);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.truncate(SLUG_CHARS);
    let slug = slug.trim_matches(['-', '.']);
    if slug.is_empty() {
        return format!("worktree-{}", &Uuid::new_v4().simple().to_string()[..8]);
    }
    slug.to_owned()
}

/// A directory of `managed` that is not there yet.
pub(super) fn free_directory(managed: &Path, slug: &str) -> Result<PathBuf, Trouble> {
    fs::create_dir_all(managed).map_err(|error| {
        Trouble::Refused(format!("{} cannot be made: {error}", managed.display()))
    })?;
    let names = std::iter::once(slug.to_owned()).chain((2..100).map(|n| format!("{slug}-{n}")));
    let mut free = names
        .map(|name| managed.join(name))
        .filter(|path| fs::symlink_metadata(path).is_err());
    free.next().ok_or_else(|| {
        Trouble::Refused(format!(
            "There are a hundred worktrees named {slug}; choose another name."
        ))
    })
}

/// `git worktree add`, without running what the repository's own settings name.
pub(super) async fn add(
    git: &Git<'_>,
    repository: &Repository,
    branch: &str,
    worktree: &Path,
    base: &str,
) -> Result<(), Trouble> {
    let mut settings = Vec::new();
    for driver in filter_drivers(git, repository).await? {
        for (key, value) in [
            ("clean", ""),
            ("smudge", ""),
            ("process", ""),
            ("required", "false"),
        ] {
            settings.push(format!("filter.{driver}.{key}={value}"));
        }
    }
    settings.push("core.hooksPath=/dev/null".into());
    settings.push("core.fsmonitor=false".into());
    let path = worktree.to_string_lossy();
    let mut arguments: Vec<&str> = settings
        .iter()
        .flat_map(|setting| ["-c", setting])
        .collect();
    let add = [
        "worktree",
        "add",
        "--no-track",
        "-b",
        branch,
        "--",
        &path,
        base,
    ];
    arguments.extend(add);
    git.text(&repository.root, &arguments).await?;
    Ok(())
}

/// The filters that the repository itself defines.
async fn filter_drivers(git: &Git<'_>, repository: &Repository) -> Result<Vec<String>, Trouble> {
    let mut keys = String::new();
    let per_worktree = [
        "config",
        "--local",
        "--type=bool",
        "--get",
        "extensions.worktreeConfig",
    ];
    let per_worktree = git.run(&repository.root, &per_worktree).await?.stdout == "true";
    for scope in ["--local", "--worktree"] {
        if scope == "--worktree" && !per_worktree {
            continue;
        }
        let query = [
            "config",
            scope,
            "--includes",
            "--null",
            "--name-only",
            "--get-regexp",
            RUNS_PROGRAMS,
        ];
        let found = git.run(&repository.root, &query).await?;
        // 1 says that there is none.
        if found.code == Some(1) && found.stdout.is_empty() {
            continue;
        }
        keys.push_str(&found.text(&query)?);
        keys.push('\0');
    }
    let mut drivers = Vec::new();
    for key in keys.split('\0').filter(|key| !key.is_empty()) {
        let driver = key
            .strip_prefix("filter.")
            .and_then(|rest| rest.rsplit_once('.'))
            .map(|(driver, _)| driver)
            .filter(|driver| !driver.contains(['=', '\n', '\r']));
        let Some(driver) = driver else {
            return Err(Trouble::Refused(format!(
                "The repository's own git settings hold {key}, which could run a program during the checkout. Move it to your global settings, or remove it."
            )));
        };
        drivers.push(driver.to_owned());
    }
    drivers.sort();
    drivers.dedup();
    Ok(drivers)
}
