//! `git` inside the agent's own memory (05 §9): everything that keeps to the
//! repository and runs nothing.

use super::super::git::refused;
use super::super::judge::Arg;
use super::{Walk, in_git};

/// `git` subcommands that may.
const GIT: [&str; 22] = [
    "add",
    "commit",
    "config",
    "check-ignore",
    "fetch",
    "push",
    "pull",
    "rebase",
    "reset",
    "restore",
    "status",
    "diff",
    "log",
    "show",
    "show-ref",
    "branch",
    "tag",
    "remote",
    "rm",
    "mv",
    "merge",
    "worktree",
];
/// `git config` sections whose keys run nothing.
const CONFIG: [&str; 17] = [
    "user.name",
    "user.email",
    "author.",
    "committer.",
    "color.",
    "advice.",
    "branch.",
    "pull.",
    "push.default",
    "push.autosetupremote",
    "fetch.prune",
    "init.defaultbranch",
    "merge.conflictstyle",
    "rebase.autostash",
    "core.autocrlf",
    "core.quotepath",
    "core.filemode",
];

impl Walk<'_> {
    pub(super) fn git(&mut self, args: &[Arg<'_>]) -> bool {
        let mut rest = args;
        loop {
            rest = match rest {
                [flag, dir, after @ ..] if flag.text == "-C" => {
                    let Some(path) = self.resolve(&dir.text) else {
                        return false;
                    };
                    if dir.glob || in_git(&dir.text) || !self.is_inside_counted(&path) {
                        return false;
                    }
                    self.cwd = Some(path);
                    after
                }
                [flag, setting, after @ ..] if flag.text == "-c" => {
                    if !setting.text.starts_with("http.extraHeader=") {
                        return false;
                    }
                    after
                }
                [empty, after @ ..] if empty.text.is_empty() => after,
                _ => break,
            };
        }
        let [subcommand, rest @ ..] = rest else {
            return false;
        };
        let words: Vec<&str> = rest.iter().map(|a| &*a.text).collect();
        let subcommand = &*subcommand.text;
        if !GIT.contains(&subcommand) && subcommand != "ls-tree" || runs_something(&words) {
            return false;
        }
        let flags = |allowed: &[&str]| {
            words
                .iter()
                .all(|w| !w.starts_with('-') || *w == "--" || allowed.contains(w))
        };
        let paths = || words.iter().filter(|w| !w.starts_with('-'));
        let fine = match subcommand {
            "worktree" => words.is_empty() || matches!(words[0], "add" | "remove" | "list"),
            "rebase" => !words.iter().any(|w| {
                let w = w.to_ascii_lowercase();
                w.starts_with("-x")
                    || w.starts_with("-i")
                    || w.starts_with("--i")
                    || w.starts_with("--ex")
                    || w.starts_with("--ed")
            }),
            "config" => config_is_tame(&words),
            "fetch" => {
                flags(&["--prune", "--tags", "--quiet", "-q"])
                    && !words.contains(&"--")
                    && paths().count() <= 1
                    && paths().all(|name| {
                        name.bytes()
                            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
                    })
            }
            "show-ref" => words.is_empty(),
            "check-ignore" => {
                flags(&["-v", "--verbose", "-q", "--quiet"])
                    && paths().count() > 0
                    && paths().all(|p| self.fits(p))
            }
            "restore" => {
                flags(&["--staged"])
                    && words.contains(&"--staged")
                    && paths().count() > 0
                    && paths().all(|p| self.fits(p))
            }
            _ => true,
        };
        fine && self.inside_now() && self.words_fit(args)
    }
}

/// Options and addresses with which git runs a program or writes elsewhere.
fn runs_something(words: &[&str]) -> bool {
    let denied = [
        "upload-pack",
        "receive-pack",
        "template",
        "separate-git-dir",
    ];
    words.iter().any(|word| {
        let long = word.strip_prefix("--").and_then(|l| l.split('=').next());
        word.contains("ext::")
            || long.is_some_and(|l| l.len() > 2 && denied.iter().any(|d| d.starts_with(l)))
            || (refused(word) && !word.starts_with("-c") && long.is_none_or(|l| l.len() > 1))
    })
}

/// Whether `git config` touches only keys that run nothing, in this repository.
fn config_is_tame(words: &[&str]) -> bool {
    let flags = [
        "--local",
        "--get",
        "--get-all",
        "--list",
        "-l",
        "--unset",
        "--unset-all",
        "--add",
        "--replace-all",
        "--bool",
        "--int",
        "--show-origin",
        "--name-only",
    ];
    if !words
        .iter()
        .all(|w| !w.starts_with('-') || flags.contains(w))
    {
        return false;
    }
    let mut plain = words
        .iter()
        .filter(|w| !w.starts_with('-'))
        .skip_while(|w| matches!(**w, "get" | "set" | "unset" | "list"));
    match plain.next() {
        None => true,
        // Without a section git refuses the key.
        Some(key) => {
            let key = key.to_ascii_lowercase();
            !key.contains('.') || CONFIG.iter().any(|known| key.starts_with(known))
        }
    }
}
