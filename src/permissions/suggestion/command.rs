//! The offer for a shell command: a prefix, a skill's scripts, or the command
//! itself; none for commands that destroy or are too long to read (05 §10).

use super::super::context::Context;
use super::super::shell::ShellView;
use super::super::shell::normal::{primary, unwrap_launcher};
use super::super::shell::published::{is_blank, split_tolerant, words};
use super::super::shell::table;
use super::Suggestion;

/// Commands for which nothing is offered.
const DESTRUCTIVE: [&str; 10] = [
    "rm", "mv", "chmod", "chown", "sudo", "dd", "mkfs", "fdisk", "kill", "killall",
];
/// Flags for which nothing is offered.
const FORCEFUL: [&str; 3] = ["--force", "--hard", "-f"];
/// Commands whose name alone makes a prefix, when they only look.
const LOOKING: [&str; 26] = [
    "ls", "cat", "pwd", "echo", "which", "type", "whoami", "date", "grep", "find", "head", "tail",
    "wc", "diff", "file", "stat", "curl", "rg", "ag", "ack", "fgrep", "egrep", "jq", "yq", "tree",
    "less",
];
/// Longest command for which something is offered, in bytes: nobody reads a
/// longer one, and its rule would fill a settings file.
const MAX_OFFERED: usize = 8 * 1024;
/// Longest command shown in an offer, in characters.
const SHOWN: usize = 40;

pub(super) fn suggest(shell: &ShellView<'_>, context: &Context<'_>) -> Option<Suggestion> {
    let raw = shell.raw();
    if raw.len() > MAX_OFFERED {
        return None;
    }
    let unwrapped = unwrap_launcher(raw);
    if destroys(raw) || destroys(&unwrapped) || forces(&unwrapped) {
        return None;
    }
    if let Some(script) = skill_script(&unwrapped, context) {
        return Some(script);
    }
    let command = primary(&unwrapped);
    let list = || command.split(is_blank).filter(|w| !w.is_empty());
    let begin: Vec<&str> = list().take(3).collect();
    let word = |at: usize| begin.get(at).copied().unwrap_or("");
    let offered = match word(0) {
        "git" => git_subcommand(list()).map(|sub| {
            let safe = table::GIT_LOOKS.contains(&sub) && shell.looks_anywhere(&command);
            prefix(&format!("git {sub}"), safe)
        }),
        "gh" => Some(github(word(1), word(2))),
        manager @ ("npm" | "bun" | "yarn" | "pnpm") => match (word(1), word(2)) {
            ("", _) => None,
            ("run", script) if !script.is_empty() => {
                Some(prefix(&format!("{manager} run {script}"), true))
            }
            (sub, _) => Some(prefix(&format!("{manager} {sub}"), true)),
        },
        runner @ ("npx" | "bunx") if !word(1).is_empty() => {
            Some(prefix(&format!("{runner} {}", word(1)), false))
        }
        "sed" if word(1) == "-n" => Some(prefix("sed -n", true)),
        "sed" | "more" => Some(prefix(word(0), true)),
        name if LOOKING.contains(&name) => Some(prefix(name, true)),
        _ => None,
    };
    let needs_looking = LOOKING.contains(&word(0)) || matches!(word(0), "sed" | "more");
    let offered =
        offered.filter(|_| !needs_looking || word(0) == "curl" || shell.looks_anywhere(&command));
    Some(offered.unwrap_or_else(|| exact(&command)))
}

fn prefix(text: &str, safe: bool) -> Suggestion {
    Suggestion::project(
        format!("Bash({text}:*)"),
        format!("Yes, and don't ask again for '{text}' commands in this project"),
        safe,
    )
}

fn exact(command: &str) -> Suggestion {
    // Clients count UTF-16 units; so did the program that wrote the rules.
    let units: Vec<u16> = command.encode_utf16().take(SHOWN + 1).collect();
    let shown = if units.len() > SHOWN {
        format!("{}...", String::from_utf16_lossy(&units[..SHOWN]))
    } else {
        command.to_owned()
    };
    Suggestion::project(
        format!("Bash({command})"),
        format!("Yes, and don't ask again for '{shown}' in this project"),
        false,
    )
}

/// Whether some piece between `&&`, `|` and `;` starts with a destructive word.
fn destroys(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    // Whether only blanks were seen since the last operator.
    let mut first = true;
    while let Some(&byte) = bytes.get(at) {
        let length = match byte {
            b'|' | b';' => {
                first = true;
                1
            }
            b'&' if bytes.get(at + 1) == Some(&b'&') => {
                first = true;
                2
            }
            b' ' | b'\t' | b'\n' | b'\r' => 1,
            _ => {
                let rest = &bytes[at..];
                let end = |(i, b): (usize, &u8)| {
                    matches!(b, b'|' | b';' | b' ' | b'\t' | b'\n' | b'\r')
                        || *b == b'&' && rest.get(i + 1) == Some(&b'&')
                };
                let length = rest.iter().enumerate().position(end).unwrap_or(rest.len());
                let word = &rest[..length];
                if first && DESTRUCTIVE.iter().any(|name| name.as_bytes() == word) {
                    return true;
                }
                first = false;
                length
            }
        };
        at += length;
    }
    false
}

fn forces(text: &str) -> bool {
    // All of them hold one of these.
    if !text.contains("-f") && !text.contains("--hard") {
        return false;
    }
    let any = |segment: &str| words(segment).any(|(word, _)| FORCEFUL.contains(&word));
    match split_tolerant(text) {
        Some(segments) => segments.iter().any(|segment| any(segment)),
        None => any(text),
    }
}

/// The subcommand behind git's own options.
fn git_subcommand<'a>(list: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const VALUED: [&str; 8] = [
        "-C",
        "-c",
        "--config-env",
        "--exec-path",
        "--git-dir",
        "--namespace",
        "--super-prefix",
        "--work-tree",
    ];
    let mut rest = list.skip(1);
    while let Some(word) = rest.next() {
        if VALUED.contains(&word) {
            rest.next();
        } else if !word.starts_with('-') {
            return Some(word);
        }
    }
    None
}

fn github(category: &str, action: &str) -> Suggestion {
    if category.is_empty() {
        return prefix("gh", false);
    }
    let whole = matches!(category, "search" | "api" | "status");
    let looks = matches!(category, "search" | "status")
        || table::GH_LOOKS
            .iter()
            .any(|(name, actions)| *name == category && actions.contains(&action));
    if whole || action.is_empty() {
        prefix(&format!("gh {category}"), looks)
    } else {
        prefix(&format!("gh {category} {action}"), looks)
    }
}

/// A rule for all scripts of the skill that the command runs one of.
fn skill_script(command: &str, context: &Context<'_>) -> Option<Suggestion> {
    if !command.contains("/scripts/") {
        return None;
    }
    let paths = absolute_paths(command);
    let project = format!("{}/.skills/", context.cwd.trim_end_matches('/'));
    let agents = format!("{}/.letta/agents/", context.home);
    let global = format!("{}/.letta/skills/", context.home);
    type Find<'f> = &'f dyn Fn(&str) -> Option<usize>;
    let below = |path: &str, root: &str| path.starts_with(root).then_some(root.len());
    let of_agent = |path: &str| {
        let id = path.strip_prefix(agents.as_str())?.find('/')?;
        let at = agents.len() + id + 1;
        let tail = &path[at..];
        let memory = if tail.starts_with("memory/") { 7 } else { 0 };
        tail[memory..]
            .starts_with("skills/")
            .then_some(at + memory + 7)
    };
    let bundled = |path: &str| Some(path.find("/skills/builtin/")? + 16);
    let sources: [(&str, Find<'_>); 4] = [
        ("project", &|path| below(path, &project)),
        ("agent-scoped", &of_agent),
        ("global", &|path| below(path, &global)),
        ("bundled", &bundled),
    ];
    for (source, start) in sources {
        for path in &paths {
            let Some(at) = start(path) else { continue };
            let Some(length) = path[at..].find("/scripts/") else {
                continue;
            };
            let name = &path[at..at + length];
            if name.is_empty() || source == "bundled" && name.contains('/') {
                continue;
            }
            let from = if source == "bundled" { at - 16 } else { 0 };
            let root = &path[from..at + length];
            let whole = command.replace('\\', "/");
            let whole = whole.trim();
            let rule = match whole.find(root) {
                Some(found) => format!("Bash({}:*)", &whole[..found + root.len()]),
                None => format!("Bash({whole})"),
            };
            return Some(Suggestion::project(
                rule,
                format!("Yes, and don't ask again for scripts in {source} skill '{name}'"),
                false,
            ));
        }
    }
    None
}

/// Absolute paths in a command: quoted ones, then words without the marks that
/// stand around them.
fn absolute_paths(command: &str) -> Vec<String> {
    let text = command.replace("\\\"", "\"").replace("\\'", "'");
    let absolute = |word: &str| word.starts_with('/') || super::path::has_drive(word);
    let quoted = text.split(['"', '\'']).skip(1);
    let bare = text.split(is_blank).map(|word| {
        word.trim_start_matches(['"', '\'', '`', '(', '[', '{'])
            .trim_end_matches(['"', '\'', '`', ')', ',', ';', '|', ']', '}'])
    });
    quoted
        .chain(bare)
        .filter(|word| absolute(word))
        .map(|word| word.replace('\\', "/"))
        .collect()
}
