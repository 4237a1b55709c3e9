//! Commands that stay inside the agent's own memory directory (05 §9).
//!
//! As for read-only commands, a line passes only in both readings. Beyond the
//! published rules, nothing may touch `.git` but git, links are followed, and
//! options that run programs are refused wherever they stand.

mod git;

use std::borrow::Cow;
use std::collections::HashMap;

use super::super::context::Context;
use super::super::family::Command as CallCommand;
use super::super::path;
use super::heredoc::{self, HeredocWrite};
use super::judge::{self, Arg, Judge};
use super::launcher;
use super::lexer::{self, Direction, Then};
use super::published;
use super::{normal, table};

/// Programs that may work on memory files.
const PROGRAMS: [&str; 15] = [
    "git", "rm", "mv", "mkdir", "cp", "ls", "cat", "head", "tail", "find", "sort", "echo",
    "printf", "wc", "split",
];
/// Longest line that is looked at, without the text of a here-document.
const MAX_LINE: usize = 8 * 1024;
/// Most paths that are held against the roots.
const MAX_PATHS: usize = 512;

/// Whether `command` touches nothing but the agent's own memory.
pub(super) fn stays_inside(
    command: &CallCommand<'_>,
    context: &Context<'_>,
    judge: &Judge<'_>,
) -> bool {
    if context.agents.agent.is_none() {
        return false;
    }
    let script = match command {
        CallCommand::Text(text) => Cow::Borrowed(*text),
        CallCommand::Argv(words) => match words.split_first() {
            Some((&("bash" | "sh"), _)) => match launcher::argv_script(words) {
                Some(script) => Cow::Borrowed(script),
                None => return false,
            },
            _ => command.joined(),
        },
    };
    let text = script.trim();
    let published_text = match command {
        CallCommand::Argv(_) => published::strip_quotes(text),
        CallCommand::Text(_) => text,
    };
    let roots: Vec<String> = context
        .agents
        .iter()
        .flat_map(|id| {
            ["memory", "memory-worktrees"]
                .map(|dir| format!("{}/.letta/agents/{id}/{dir}", context.home))
        })
        .collect();
    let read = |text| str::contains(text, "<<").then(|| heredoc::find(text));
    let write = read(text);
    let published_write = if published_text == text {
        write
    } else {
        read(published_text)
    };
    [true, false].into_iter().all(|shell| {
        let mut walk = Walk {
            context,
            judge,
            roots: &roots,
            cwd: None,
            variables: HashMap::new(),
            paths: MAX_PATHS,
            shell,
        };
        if shell {
            walk.text(text, write)
        } else {
            walk.text(published_text, published_write)
        }
    })
}

struct Walk<'w> {
    context: &'w Context<'w>,
    judge: &'w Judge<'w>,
    roots: &'w [String],
    /// Unknown until the first `cd`.
    cwd: Option<String>,
    variables: HashMap<String, String>,
    paths: usize,
    /// Whose reading: a shell's or the published one.
    shell: bool,
}

impl Walk<'_> {
    /// `write` is the here-document of `text`: `None` without a `<<`, and nothing
    /// inside when it is none that is understood.
    fn text(&mut self, text: &str, write: Option<Option<HeredocWrite<'_>>>) -> bool {
        if let Some(write) = write {
            let Some(write) = write else {
                return false;
            };
            if !write.before.trim().is_empty() && !self.segments(write.before) {
                return false;
            }
            // A quoted tilde is a name, not a home.
            let tilde = write.path_quoted && write.path.starts_with('~');
            return !tilde
                && !in_git(write.path)
                && self.fits(write.path)
                && (write.after.trim().is_empty() || self.segments(write.after.trim()));
        }
        self.segments(text)
    }

    fn segments(&mut self, text: &str) -> bool {
        if text.len() > MAX_LINE {
            return false;
        }
        if self.shell {
            self.shell_segments(text)
        } else {
            self.published_segments(text)
        }
    }

    fn published_segments(&mut self, text: &str) -> bool {
        // Targets are resolved before any `cd`: a relative one never fits.
        let target = |target: &str| {
            let target = published::strip_quotes(target);
            target == "/dev/null"
                || self
                    .resolve_from(None, target)
                    .is_some_and(|path| self.is_inside(&path))
        };
        let Some(segments) = published::split_redirected(text, &target) else {
            return false;
        };
        !segments.is_empty()
            && segments.iter().all(|segment| {
                let args: Vec<Arg<'_>> = published::words(segment)
                    .map(|(word, _)| Arg {
                        text: Cow::Borrowed(word),
                        glob: false,
                    })
                    .collect();
                self.segment(&args)
            })
    }

    fn shell_segments(&mut self, text: &str) -> bool {
        let Ok(script) = lexer::read(text) else {
            return false;
        };
        for (direction, target) in &script.redirects {
            let fine = match direction {
                Direction::Duplicate => false,
                Direction::Read | Direction::Write => {
                    target.text == "/dev/null"
                        || !target.glob
                            && !in_git(&target.text)
                            && self
                                .resolve_from(None, &target.text)
                                .is_some_and(|path| self.is_inside(&path))
                }
            };
            if !fine {
                return false;
            }
        }
        // A `cd` in a pipe or behind `||` does not move what follows.
        let mut loose = false;
        let mut lines = !script.commands.is_empty();
        for command in &script.commands {
            let words = script.words_of(command);
            let unclear = words
                .iter()
                .any(|w| !w.parameters && w.text.contains('$') && looks_like_path(&w.text));
            let args: Vec<Arg<'_>> = words
                .iter()
                .map(|w| Arg {
                    text: Cow::Borrowed(&*w.text),
                    glob: w.glob,
                })
                .collect();
            let moves = args.first().is_some_and(|a| a.text == "cd");
            let next_loose = matches!(command.then, Then::Pipe | Then::Or | Then::Background);
            if unclear || (moves && (loose || next_loose)) || !self.segment(&args) {
                lines = false;
                break;
            }
            loose = next_loose;
        }
        lines
    }

    /// One simple command.
    fn segment(&mut self, args: &[Arg<'_>]) -> bool {
        let Some((program, rest)) = args.split_first() else {
            return false;
        };
        if args.iter().all(|a| assignment(&a.text).is_some()) {
            return args.iter().all(|a| self.assign(&a.text));
        }
        // A glob can stand for a dot directory only where it says the dot.
        if args
            .iter()
            .any(|a| a.glob && a.text.split('/').any(|part| part.starts_with(['.', '-'])))
        {
            return false;
        }
        match &*program.text {
            "cd" => {
                let Some(target) = rest.first().filter(|t| !t.glob && !in_git(&t.text)) else {
                    return false;
                };
                let Some(path) = self.resolve(&target.text) else {
                    return false;
                };
                let inside = rest.len() == 1 && self.is_inside(&path);
                self.cwd = Some(path);
                inside
            }
            "git" => self.git(rest),
            "sleep" => self.inside_now() && rest.iter().all(|a| !looks_like_path(&a.text)),
            name if PROGRAMS.contains(&name) => self.program(name, rest),
            _ => false,
        }
    }

    fn program(&mut self, name: &str, args: &[Arg<'_>]) -> bool {
        if args.iter().any(|a| in_git(&a.text)) {
            return false;
        }
        let long = |denied: &str| {
            args.iter().any(|a| {
                let name = a.text.strip_prefix("--").and_then(|l| l.split('=').next());
                name.is_some_and(|n| !n.is_empty() && denied.starts_with(n))
            })
        };
        let fine = match name {
            "find" => judge::find_looks(args),
            "sort" => judge::sort_looks(args, self.judge),
            "printf" => !args.iter().any(|a| a.text.starts_with("-v")),
            "split" => !long("filter"),
            _ => true,
        };
        if !fine {
            return false;
        }
        if args.iter().any(|a| looks_like_path(&a.text)) {
            return self.words_fit(args);
        }
        self.inside_now() && self.words_fit(args)
    }

    fn inside_now(&mut self) -> bool {
        match self.cwd.clone() {
            Some(cwd) => self.is_inside_counted(&cwd),
            None => false,
        }
    }

    /// Whether every word that names a path, glued to an option or not, fits.
    fn words_fit(&mut self, args: &[Arg<'_>]) -> bool {
        args.iter().enumerate().all(|(at, arg)| {
            let before = at.checked_sub(1).map(|b| &*args[b].text);
            if matches!(before, Some("-m" | "--message" | "--author" | "--format")) {
                return true;
            }
            let text = &*arg.text;
            if looks_like_path(text) && !self.fits(text) {
                return false;
            }
            let glued = text.strip_prefix('-').filter(|t| !t.starts_with('-'));
            let glued = glued.and_then(|t| t.get(1..));
            let valued = text
                .split_once('=')
                .filter(|(name, _)| !matches!(*name, "--message" | "--author" | "--format"))
                .map(|(_, value)| value);
            [glued, valued]
                .into_iter()
                .flatten()
                .all(|t| !looks_like_path(t) || self.fits(t))
        })
    }

    fn assign(&mut self, text: &str) -> bool {
        let Some((name, value)) = assignment(text) else {
            return false;
        };
        // Names that programs read are left alone.
        if table::special_loop_variable(name) && !name.starts_with("MEM") {
            return false;
        }
        let Some(value) = self.expand(published::strip_quotes(value)) else {
            return false;
        };
        self.variables.insert(
            name.to_owned(),
            path::expand_home(&value, &self.context.home),
        );
        true
    }

    /// `$NAME` and `${NAME}` from earlier assignments and the environment.
    fn expand(&self, text: &str) -> Option<String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            let braced = rest.starts_with('{');
            let tail = rest.strip_prefix('{').unwrap_or(rest);
            let length = tail
                .bytes()
                .take_while(|b| b.is_ascii_alphanumeric() || *b == b'_')
                .count();
            let name = &tail[..length];
            if !normal::is_name(name) || braced && !tail[length..].starts_with('}') {
                out.push('$');
                continue;
            }
            let value = if name == "HOME" {
                Some(&self.context.home)
            } else {
                self.variables
                    .get(name)
                    .or_else(|| self.context.variables.get(name))
            };
            out.push_str(value?);
            rest = &tail[length + usize::from(braced)..];
            if out.len() > 1 << 20 {
                return None;
            }
        }
        out.push_str(rest);
        (!out.is_empty()).then_some(out)
    }

    fn resolve(&self, text: &str) -> Option<String> {
        self.resolve_from(self.cwd.as_deref(), text)
    }

    fn resolve_from(&self, cwd: Option<&str>, text: &str) -> Option<String> {
        let expanded = path::expand_home(&self.expand(text)?, &self.context.home);
        if expanded.starts_with('/') {
            return Some(path::resolve("/", &expanded));
        }
        // `~user`, drives and the like are somewhere else.
        if expanded.starts_with('~') || expanded.contains('\\') {
            return None;
        }
        cwd.map(|cwd| path::resolve(cwd, &expanded))
    }

    fn fits(&mut self, text: &str) -> bool {
        match self.resolve(text) {
            Some(path) => self.is_inside_counted(&path),
            None => false,
        }
    }

    fn is_inside_counted(&mut self, path: &str) -> bool {
        self.paths = self.paths.saturating_sub(1);
        self.paths > 0 && self.is_inside(path)
    }

    /// Inside a root as written, and inside it behind links.
    fn is_inside(&self, text: &str) -> bool {
        self.roots.iter().any(|root| {
            path::inside(text, root) && {
                let disk = self.context.disk;
                path::inside(&disk.real_path(text), &disk.real_path(root))
            }
        })
    }
}

fn assignment(text: &str) -> Option<(&str, &str)> {
    text.split_once('=')
        .filter(|(name, _)| normal::is_name(name))
}

fn looks_like_path(text: &str) -> bool {
    text.contains(['/', '\\']) || matches!(text, "." | "..") || text.starts_with(['$', '~'])
}

/// Whether a path leads into a repository's own files: hooks run from there.
fn in_git(text: &str) -> bool {
    text.split(['/', '=', '\\'])
        .any(|part| part.eq_ignore_ascii_case(".git"))
}
