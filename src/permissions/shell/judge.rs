//! Is a command read-only? (05 §7)
//!
//! A command passes only when it passes in two readings: the published one
//! (never looser than the published program) and a shell's own (what would
//! really run). Both go through the same table of commands. What either does
//! not understand is not read-only.

use std::borrow::Cow;
use std::cell::Cell;

use super::super::context::Context;
use super::super::family::Command as CallCommand;
use super::super::path;
use super::flow::{Line, Reading, Step, StepWord};
use super::launcher::{argument_script, argv_script};
use super::lexer::{self, Direction};
use super::published;
use super::table::{self, Operands};
use super::{gh, git, sed};

/// Deepest nesting of `bash -c` and `env` that is looked into.
const MAX_DEPTH: usize = 8;
/// Longest line that is judged, in bytes. Longer ones are written by programs,
/// and nobody could say at a glance that they only look.
const MAX_LINE: usize = 8 * 1024;
/// Most words whose links are followed to find credentials.
const MAX_LINKS: usize = 1024;

/// One argument, quotes removed.
#[derive(Clone, Debug)]
pub(super) struct Arg<'a> {
    pub(super) text: Cow<'a, str>,
    /// Holds an unquoted `*`, `?` or `[`.
    pub(super) glob: bool,
}

impl Arg<'_> {
    fn is(&self, text: &str) -> bool {
        self.text == text
    }

    /// Could become an option, or another word, when the shell fills it in.
    fn slippery(&self) -> bool {
        self.glob && self.text.starts_with(['*', '?', '['])
    }
}

/// Judges commands against one working directory.
pub(super) struct Judge<'c> {
    context: &'c Context<'c>,
    roots: Vec<String>,
    /// Paths outside the roots are fine: used for suggestions.
    anywhere: bool,
    /// Words that may still be looked at; keeps loops linear.
    budget: Cell<usize>,
    links: Cell<usize>,
}

impl<'c> Judge<'c> {
    pub(super) fn new(context: &'c Context<'c>, additional: &[String], anywhere: bool) -> Self {
        let mut roots = vec![context.cwd.clone()];
        roots.extend(additional.iter().map(|d| context.resolve(d)));
        Self {
            context,
            roots,
            anywhere,
            budget: Cell::new(0),
            links: Cell::new(MAX_LINKS),
        }
    }

    /// Whether a call's command only looks.
    pub(super) fn command(&self, command: &CallCommand<'_>) -> bool {
        match command {
            CallCommand::Text(text) => self.text(text),
            CallCommand::Argv(words) => match words.split_first() {
                None => false,
                Some((&("bash" | "sh"), _)) => {
                    argv_script(words).is_some_and(|script| self.script(script))
                }
                Some(_) if words.iter().map(|w| w.len() + 1).sum::<usize>() > MAX_LINE => false,
                // Words go to the program as they are, but the published
                // program judges the joined text.
                Some(_) => {
                    let args: Vec<Arg<'_>> = words.iter().map(|w| literal(w)).collect();
                    let joined = words.join(" ");
                    self.text(&joined) && self.simple(&args, Reading::Shell, 0)
                }
            },
        }
    }

    /// Whether a text only looks in the published reading: what offers go by.
    pub(super) fn text_as_published(&self, text: &str) -> bool {
        self.budget.set(4 * text.len() + 4096);
        self.read(text, Reading::Published, 0)
    }

    /// As [`Self::text`], for what a launcher gets.
    fn script(&self, script: &str) -> bool {
        self.budget.set(4 * script.len() + 4096);
        self.read(published::strip_quotes(script), Reading::Published, 0)
            && self.read(script, Reading::Shell, 0)
    }

    /// Whether a text only looks, in both readings.
    pub(super) fn text(&self, text: &str) -> bool {
        self.budget.set(4 * text.len() + 4096);
        self.read(text, Reading::Published, 0) && self.read(text, Reading::Shell, 0)
    }

    fn read(&self, text: &str, reading: Reading, depth: usize) -> bool {
        if depth > MAX_DEPTH || text.len() > MAX_LINE {
            return false;
        }
        let line = match reading {
            Reading::Published => self.published_line(text),
            Reading::Shell => self.shell_line(text),
        };
        line.is_some_and(|line| line.passes(self, reading, depth))
    }

    fn published_line<'t>(&self, text: &'t str) -> Option<Line<'t>> {
        let segments = published::split(text.trim())?;
        let mut line = Line::default();
        for segment in segments {
            let start = line.words.len();
            match segment {
                Cow::Borrowed(text) => line.words.extend(
                    published::words(text).map(|(w, plain)| StepWord::raw(Cow::Borrowed(w), plain)),
                ),
                Cow::Owned(text) => line.words.extend(
                    published::words(&text)
                        .map(|(w, plain)| StepWord::raw(Cow::Owned(w.to_owned()), plain)),
                ),
            }
            line.steps.push(Step {
                words: (start, line.words.len()),
            });
        }
        Some(line)
    }

    fn shell_line<'t>(&self, text: &'t str) -> Option<Line<'t>> {
        let script = lexer::read(text).ok()?;
        for (direction, target) in &script.redirects {
            let fine = match direction {
                Direction::Duplicate => true,
                Direction::Write => target.plain && target.text == "/dev/null",
                Direction::Read => {
                    !target.parameters && !target.glob && self.path_fits(&target.text)
                }
            };
            if !fine {
                return None;
            }
        }
        let steps = script
            .commands
            .iter()
            .map(|c| Step { words: c.words })
            .collect();
        let words = script.words.into_iter().map(StepWord::from).collect();
        Some(Line { words, steps })
    }

    /// Takes `count` words from the budget.
    pub(super) fn spend(&self, count: usize) -> bool {
        let left = self.budget.get();
        self.budget.set(left.saturating_sub(count));
        left >= count
    }

    pub(super) fn home(&self) -> &str {
        &self.context.home
    }

    /// One simple command.
    pub(super) fn simple(&self, args: &[Arg<'_>], reading: Reading, depth: usize) -> bool {
        if !self.spend(args.len() + 1) {
            return false;
        }
        let Some((name, rest)) = args.split_first() else {
            return false;
        };
        // An option that the shell fills in, or a secret, is nobody's business.
        if name.glob
            || rest.iter().any(|a| a.glob && a.text.starts_with('-'))
            || rest.iter().any(|a| self.names_credential(a))
        {
            return false;
        }
        // The published reading takes a comment for arguments: their paths count,
        // but they are no operands.
        let (own, comment) = match reading {
            Reading::Shell => (rest, &[][..]),
            Reading::Published => {
                let at = rest.iter().position(|a| a.text.starts_with('#'));
                rest.split_at(at.unwrap_or(rest.len()))
            }
        };
        let harmless = |args: &[Arg<'_>]| {
            !args.iter().any(|a| a.text.starts_with('-')) && self.paths_fit(args)
        };
        match &*name.text {
            "bash" | "sh" => argument_script(rest).is_some_and(|script| {
                let script = match reading {
                    Reading::Published => published::strip_quotes(script),
                    Reading::Shell => script,
                };
                self.read(script, reading, depth + 1)
            }),
            "env" => self.env(rest, reading, depth),
            "cd" => self.cd(own) && harmless(comment),
            "sed" => sed::only_looks(own, |text| self.path_fits(text)) && harmless(comment),
            "git" => git::only_looks(rest, |text| self.path_fits(text)),
            "gh" => gh::only_looks(rest),
            "letta" => letta_looks(rest) && self.paths_fit(rest),
            "find" => find_looks(rest) && self.paths_fit(rest),
            name => table::looker(name).is_some_and(|entry| {
                self.looker(entry, own)
                    && (entry.operands == Operands::Anywhere || harmless(comment))
            }),
        }
    }

    fn looker(&self, entry: &table::Looker, args: &[Arg<'_>]) -> bool {
        let guarded = entry.operands != Operands::Inside && entry.operands != Operands::Anywhere
            || !entry.refused.is_empty()
            || !entry.refused_long.is_empty();
        let mut operands = 0;
        let mut value = false;
        for arg in args {
            if guarded && arg.slippery() {
                return false;
            }
            if entry.refused_text.iter().any(|t| arg.text.contains(t)) {
                return false;
            }
            if std::mem::take(&mut value) {
                continue;
            }
            if let Some(long) = arg.text.strip_prefix("--") {
                let name = long.split('=').next().unwrap_or(long);
                let refused = |denied: &&&str| !name.is_empty() && denied.starts_with(name);
                if entry.refused_long.iter().find(refused).is_some() {
                    return false;
                }
            } else if let Some(letters) = arg.text.strip_prefix('-').filter(|l| !l.is_empty()) {
                for (at, letter) in letters.char_indices() {
                    if entry.refused.contains(letter) {
                        return false;
                    }
                    if entry.valued.contains(letter) {
                        value = at + letter.len_utf8() == letters.len();
                        break;
                    }
                }
            } else {
                operands += 1;
                let fits = match entry.operands {
                    Operands::Inside | Operands::Anywhere => true,
                    Operands::AtMost(most) => operands <= most,
                    Operands::Only(first) => arg.text.starts_with(first),
                    Operands::Without(first) => !arg.text.starts_with(first),
                };
                if !fits {
                    return false;
                }
            }
        }
        entry.operands == Operands::Anywhere || self.paths_fit(args)
    }

    /// `cd DIR`: bare `cd`, `cd -` and `cd ~` leave the roots.
    fn cd(&self, args: &[Arg<'_>]) -> bool {
        if self.anywhere {
            return true;
        }
        let mut targets = args
            .iter()
            .filter(|a| !matches!(&*a.text, "-L" | "-P" | "--"));
        match (targets.next(), targets.next()) {
            (Some(target), None) => {
                !target.text.starts_with('-') && !target.glob && self.path_fits(&target.text)
            }
            _ => false,
        }
    }

    fn env(&self, args: &[Arg<'_>], reading: Reading, depth: usize) -> bool {
        let mut at = 0;
        while let Some(arg) = args.get(at) {
            match &*arg.text {
                "" => {}
                "--help" | "--version" => return args.len() == 1,
                "-i" | "--ignore-environment" | "-0" | "--null" => {}
                "-u" | "--unset" => {
                    at += 1;
                    if args.get(at).is_none() {
                        return false;
                    }
                }
                text => match text.split_once('=') {
                    Some((name, _)) if super::normal::is_name(name) => {
                        if !table::harmless_variable(name) {
                            return false;
                        }
                    }
                    _ => {
                        let rest = &args[at..];
                        if depth >= MAX_DEPTH {
                            return false;
                        }
                        return match reading {
                            Reading::Shell => self.simple(rest, reading, depth + 1),
                            Reading::Published => {
                                let words: Vec<&str> = rest.iter().map(|a| &*a.text).collect();
                                self.read(&words.join(" "), reading, depth + 1)
                            }
                        };
                    }
                },
            }
            at += 1;
        }
        true
    }

    fn paths_fit(&self, args: &[Arg<'_>]) -> bool {
        args.iter()
            .all(|arg| self.path_fits(&arg.text) && !(arg.glob && climbing_glob(&arg.text)))
            || self.anywhere
    }

    /// Whether a word names no path outside the roots, glued to an option or not.
    pub(super) fn path_fits(&self, word: &str) -> bool {
        if self.anywhere {
            return true;
        }
        let glued = if let Some(short) = word.strip_prefix('-').filter(|w| !w.starts_with('-')) {
            let mut chars = short.chars();
            chars.next();
            // `-d/` is a delimiter more often than a root.
            Some(chars.as_str()).filter(|rest| *rest != "/")
        } else {
            None
        };
        let valued = word.split_once('=').map(|(_, value)| value);
        let listed = word.strip_prefix('@');
        [Some(word), glued, valued, listed]
            .into_iter()
            .flatten()
            .all(|text| self.one_path_fits(text))
    }

    fn one_path_fits(&self, text: &str) -> bool {
        if path::has_drive(text) || text.starts_with("\\\\") || text.starts_with("%USERPROFILE%") {
            return false;
        }
        let expanded = path::expand_home(text, &self.context.home);
        if expanded.starts_with('~') {
            return false;
        }
        if expanded.starts_with('/') {
            let absolute = path::resolve("/", expanded.trim());
            return self.roots.iter().any(|root| path::inside(&absolute, root));
        }
        !path::climbs(text)
    }

    /// Whether an argument is, or could expand to, a file with secrets.
    fn names_credential(&self, arg: &Arg<'_>) -> bool {
        let secrets = &self.context.credentials;
        if secrets.is_empty() {
            return false;
        }
        let tail = arg.text.split_once('=').map_or(&*arg.text, |(_, v)| v);
        let absolute = self.context.resolve_expanded(tail);
        if arg.glob {
            return match super::super::glob::Glob::new(&absolute) {
                Ok(glob) => secrets.iter().any(|s| {
                    glob.matches(s)
                        || path::inside(s, absolute.split(['*', '?', '[']).next().unwrap_or("/"))
                }),
                Err(_) => true,
            };
        }
        // A name below a directory that was entered before.
        let named = secrets
            .iter()
            .any(|s| !tail.starts_with('-') && path::file_name(s) == path::file_name(tail));
        let left = self.links.get();
        if left == 0 {
            return true;
        }
        self.links.set(left - 1);
        named || self.context.is_credential(&absolute)
    }
}

fn literal<'a>(text: &'a str) -> Arg<'a> {
    Arg {
        text: Cow::Borrowed(text),
        glob: false,
    }
}

/// A glob segment that starts with a dot may stand for `..`.
fn climbing_glob(text: &str) -> bool {
    text.split('/').any(|part| {
        let mut chars = part.chars();
        chars.next() == Some('.')
            && matches!(chars.next(), Some('*' | '?' | '[' | '.'))
            && part.contains(['*', '?', '['])
    })
}

fn letta_looks(args: &[Arg<'_>]) -> bool {
    let mut kept = Vec::new();
    let mut list = args.iter();
    while let Some(arg) = list.next() {
        let backend = if arg.is("--backend") {
            list.next().map_or("", |a| &*a.text)
        } else if let Some(value) = arg.text.strip_prefix("--backend=") {
            published::strip_quotes(value)
        } else {
            kept.push(&*arg.text);
            continue;
        };
        if !matches!(backend, "local" | "api" | "cloud") {
            return false;
        }
    }
    let [group, action, ..] = kept.as_slice() else {
        return false;
    };
    table::LETTA_LOOKS
        .iter()
        .any(|(name, actions)| name == group && actions.contains(action))
}

/// `find` without actions but `-exec stat … {} … ;`.
pub(super) fn find_looks(args: &[Arg<'_>]) -> bool {
    let mut list = args.iter();
    while let Some(arg) = list.next() {
        if table::FIND_REFUSED.contains(&&*arg.text) || arg.slippery() {
            return false;
        }
        if !arg.is("-exec") {
            continue;
        }
        let mut words = Vec::new();
        let ended = loop {
            match list.next() {
                None => break false,
                Some(word) if word.is(";") || word.is("\\;") => break true,
                Some(word) if word.is("+") => break false,
                Some(word) => words.push(&*word.text),
            }
        };
        if !ended || words.first() != Some(&"stat") || !words.contains(&"{}") {
            return false;
        }
    }
    true
}

/// `sort` that writes nothing and runs nothing.
pub(super) fn sort_looks(args: &[Arg<'_>], judge: &Judge<'_>) -> bool {
    table::looker("sort").is_some_and(|entry| judge.looker(entry, args))
}
