//! The commands that can only look, with what they may not be told: data.
//!
//! A command that is not here is never read-only. Options are refused by name;
//! GNU tools take unambiguous beginnings of long options, so a beginning of a
//! refused one is refused too. Spec 05 §7.4, §17.

/// What a command's operands may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operands {
    /// Anything, paths inside the roots.
    Inside,
    /// Anything, paths anywhere: only names and sizes are shown.
    Anywhere,
    /// At most so many, paths inside the roots: a second one would be written.
    AtMost(usize),
    /// Only words that start with this: others would set something.
    Only(char),
    /// None may start with this.
    Without(char),
}

/// One command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Looker {
    pub(super) name: &'static str,
    pub(super) operands: Operands,
    /// Letters refused in `-abc`.
    pub(super) refused: &'static str,
    /// Letters that take the rest of `-abc`, or the next word, as their value.
    pub(super) valued: &'static str,
    /// Long options refused, without dashes.
    pub(super) refused_long: &'static [&'static str],
    /// Texts refused anywhere in an argument.
    pub(super) refused_text: &'static [&'static str],
}

const fn plain(name: &'static str) -> Looker {
    Looker {
        name,
        operands: Operands::Inside,
        refused: "",
        valued: "",
        refused_long: &[],
        refused_text: &[],
    }
}

const fn metadata(name: &'static str) -> Looker {
    Looker {
        operands: Operands::Anywhere,
        ..plain(name)
    }
}

/// Sorted by name.
pub(super) const LOOKERS: [Looker; 50] = [
    Looker {
        refused_long: &["pager", "output"],
        ..plain("ack")
    },
    Looker {
        refused_long: &["pager"],
        ..plain("ag")
    },
    metadata("basename"),
    plain("cat"),
    plain("cmp"),
    plain("column"),
    plain("comm"),
    plain("cut"),
    // `date 01020304` and `date -s` set the clock.
    Looker {
        operands: Operands::Only('+'),
        refused: "s",
        valued: "dfrI",
        refused_long: &["set"],
        ..plain("date")
    },
    plain("df"),
    plain("diff"),
    metadata("dirname"),
    metadata("du"),
    plain("echo"),
    plain("egrep"),
    plain("fgrep"),
    // `-C` compiles a magic file next to its source.
    Looker {
        refused: "C",
        valued: "efFmP",
        refused_long: &["compile"],
        ..plain("file")
    },
    plain("fold"),
    plain("grep"),
    plain("head"),
    plain("hexdump"),
    // A name as operand becomes the name of the host.
    Looker {
        operands: Operands::AtMost(0),
        refused: "Fb",
        refused_long: &["file", "boot"],
        ..plain("hostname")
    },
    plain("id"),
    plain("jq"),
    // `+` starts commands of the pager, `-o` and `-O` copy what it reads.
    Looker {
        operands: Operands::Without('+'),
        refused: "oOk",
        refused_long: &[
            "log-file",
            "LOG-FILE",
            "lesskey-file",
            "lesskey-src",
            "lesskey-content",
        ],
        ..plain("less")
    },
    metadata("ls"),
    Looker {
        operands: Operands::Without('+'),
        ..plain("more")
    },
    plain("nl"),
    plain("printenv"),
    // `-v` sets a variable of the shell, `PATH` for one.
    Looker {
        refused: "v",
        ..plain("printf")
    },
    plain("pwd"),
    metadata("readlink"),
    metadata("realpath"),
    Looker {
        refused: "z",
        valued: "ABCEMTdefgjmrt",
        refused_long: &["pre", "hostname-bin", "search-zip"],
        ..plain("rg")
    },
    // `--compress-program` runs a program, `-o` writes.
    Looker {
        refused: "o",
        valued: "kSTt",
        refused_long: &["output", "compress-program"],
        ..plain("sort")
    },
    metadata("stat"),
    plain("strings"),
    plain("tail"),
    plain("tr"),
    Looker {
        operands: Operands::Anywhere,
        refused: "oR",
        refused_long: &["output"],
        ..plain("tree")
    },
    plain("true"),
    plain("type"),
    plain("uname"),
    plain("uptime"),
    plain("wc"),
    plain("whereis"),
    plain("which"),
    plain("whoami"),
    // The second operand is written, `-r` writes binary.
    Looker {
        operands: Operands::AtMost(1),
        refused: "r",
        valued: "lscgonR",
        ..plain("xxd")
    },
    // `-i` edits in place, `-s` splits into files, `load` reads any file.
    Looker {
        refused: "is",
        valued: "Iop",
        refused_long: &["inplace", "in-place", "split-exp", "split-exp-file"],
        refused_text: &["load"],
        ..plain("yq")
    },
];

/// The entry of `name`.
pub(super) fn looker(name: &str) -> Option<&'static Looker> {
    LOOKERS.iter().find(|entry| entry.name == name)
}

/// `git` subcommands that look (05 §7.4 item 7).
pub(in crate::permissions) const GIT_LOOKS: [&str; 21] = [
    "status",
    "diff",
    "log",
    "show",
    "grep",
    "branch",
    "tag",
    "remote",
    "rev-parse",
    "ls-files",
    "ls-tree",
    "cat-file",
    "describe",
    "blame",
    "shortlog",
    "name-rev",
    "rev-list",
    "for-each-ref",
    "count-objects",
    "verify-commit",
    "verify-tag",
];

/// `git` options that run programs or write, as flags without a value.
pub(super) const GIT_REFUSED_FLAGS: [&str; 4] = ["ext-diff", "textconv", "paginate", "filters"];
/// The same, with a value in the word or after it.
pub(super) const GIT_REFUSED_VALUES: [&str; 3] = ["output", "exec", "config-env"];

/// `git branch` and `git tag` options that only list.
pub(super) const GIT_LIST_FLAGS: [&str; 10] = [
    "--list",
    "-l",
    "--show-current",
    "-a",
    "--all",
    "-r",
    "--remotes",
    "-v",
    "-vv",
    "--verbose",
];
/// The same, with an optional commit after them.
pub(super) const GIT_LIST_FILTERS: [&str; 5] = [
    "--contains",
    "--no-contains",
    "--merged",
    "--no-merged",
    "--points-at",
];

/// `gh` categories and their actions that look. The published list also has
/// `run download` and `release download`, which write files.
pub(in crate::permissions) const GH_LOOKS: [(&str, &[&str]); 5] = [
    ("pr", &["list", "status", "checks", "diff", "view"]),
    ("issue", &["list", "status", "view"]),
    ("repo", &["list", "view", "gitignore", "license"]),
    ("run", &["list", "view", "watch"]),
    ("release", &["list", "view"]),
];

/// `letta` groups and their actions that look.
pub(super) const LETTA_LOOKS: [(&str, &[&str]); 5] = [
    ("memory", &["status", "help", "backups", "export", "tokens"]),
    ("memfs", &["status", "help", "backups", "export", "tokens"]),
    ("agents", &["list", "help"]),
    ("steps", &["trace", "help"]),
    ("messages", &["search", "list", "help"]),
];

/// `find` actions that do something.
pub(super) const FIND_REFUSED: [&str; 8] = [
    "-execdir", "-ok", "-okdir", "-delete", "-fls", "-fprint", "-fprint0", "-fprintf",
];

/// Variables that `env` may set for a command that looks: locale, time zone and
/// terminal. A single letter names nothing that a program reads.
pub(super) fn harmless_variable(name: &str) -> bool {
    name.len() == 1
        || name.starts_with("LC_")
        || matches!(
            name,
            "LANG" | "LANGUAGE" | "TZ" | "NO_COLOR" | "CLICOLOR" | "COLUMNS" | "LINES" | "TERM"
        )
}

/// Names that a `for` may not take: shells read them.
pub(super) fn special_loop_variable(name: &str) -> bool {
    let lower = name.bytes().any(|b| b.is_ascii_lowercase());
    (!lower && name.len() > 1)
        || matches!(
            name,
            "path"
                | "fpath"
                | "cdpath"
                | "manpath"
                | "module_path"
                | "mailpath"
                | "watch"
                | "prompt"
                | "psvar"
                | "status"
                | "argv"
                | "pipestatus"
                | "signals"
                | "histchars"
        )
}

/// Variables in front of a permitted command that change which program runs.
pub(super) fn hijacking_variable(name: &str) -> bool {
    name.starts_with("LD_")
        || name.starts_with("DYLD_")
        || name.starts_with("GIT_")
        || matches!(
            name,
            "PATH"
                | "IFS"
                | "ENV"
                | "BASH_ENV"
                | "SHELLOPTS"
                | "BASHOPTS"
                | "PS4"
                | "PROMPT_COMMAND"
                | "SHELL"
                | "HOME"
                | "CDPATH"
                | "NODE_OPTIONS"
                | "PYTHONPATH"
                | "PYTHONSTARTUP"
                | "PERL5OPT"
                | "PERL5LIB"
                | "RUBYOPT"
                | "RUBYLIB"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_listed_once() {
        let mut names: Vec<_> = LOOKERS.iter().map(|l| l.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), LOOKERS.len());
        assert!(looker("rm").is_none());
    }
}
