//! Shell commands: what they are to rules, and whether they only look.
//!
//! [`ShellView`] is one call's command with everything derived from it, each
//! derived at most once. Invariant: a text is called read-only, covered or a
//! memory command only when both the published reading and a shell's reading
//! agree. Spec 05 §7–§9, §17.

mod flow;
mod fragments;
mod gh;
mod git;
mod heredoc;
mod judge;
mod launcher;
mod lexer;
mod memory;
pub(super) mod normal;
pub(super) mod published;
mod sed;
pub(super) mod table;

use std::borrow::Cow;
use std::cell::{Cell, OnceCell};

use super::context::Context;
use super::family::Command;
use judge::Judge;
use normal::{payload, primary, unwrap_launcher, without_prefix};

pub(super) use heredoc::HeredocWrite;

/// Deepest nesting of `-c` scripts that is looked into when a permit is checked.
const MAX_SCRIPTS: usize = 5;
/// Most commands, and the longest text in bytes, that a permit is checked for.
const MAX_COMMANDS: usize = 256;
const MAX_PERMITTED: usize = 32 * 1024;

/// The command of one call.
pub(super) struct ShellView<'a> {
    command: Option<Command<'a>>,
    raw: Cow<'a, str>,
    context: &'a Context<'a>,
    additional: &'a [String],
    candidates: OnceCell<Vec<String>>,
    /// The text without quotes and backslashes, if it has any.
    bare: OnceCell<Option<String>>,
    read_only: OnceCell<bool>,
}

impl<'a> ShellView<'a> {
    pub(super) fn new(
        command: Option<Command<'a>>,
        context: &'a Context<'a>,
        additional: &'a [String],
    ) -> Self {
        let raw = command.as_ref().map_or(Cow::Borrowed(""), Command::joined);
        Self {
            command,
            raw,
            context,
            additional,
            candidates: OnceCell::new(),
            bare: OnceCell::new(),
            read_only: OnceCell::new(),
        }
    }

    /// The text of the command; empty when there is none.
    pub(super) fn raw(&self) -> &str {
        &self.raw
    }

    /// The spellings that rules are compared with (05 §4.4).
    pub(super) fn candidates(&self) -> impl Iterator<Item = &str> {
        let made = self.candidates.get_or_init(|| {
            let mut all = Vec::new();
            let mut add = |text: &str| {
                for form in [payload(text), unwrap_launcher(text).into_owned()] {
                    if !all.contains(&form) {
                        all.push(form);
                    }
                }
            };
            let first = primary(&self.raw);
            add(&first);
            if first != self.raw.trim() {
                add(&self.raw);
            }
            all
        });
        made.iter().map(String::as_str)
    }

    /// Whether the text says `word` where a word can start, quotes and
    /// backslashes aside: no spelling or part of it starts with `word` otherwise.
    pub(super) fn says(&self, word: &str) -> bool {
        let bare = self.bare.get_or_init(|| {
            let bytes = self.raw.bytes();
            let kept: Vec<u8> = bytes.filter(|byte| !fragments::is_dress(*byte)).collect();
            let dressed = kept.len() < self.raw.len();
            // Without some of its ASCII bytes a text is still a text.
            dressed.then(|| String::from_utf8(kept).ok()).flatten()
        });
        let bare = bare.as_deref().unwrap_or(&self.raw);
        let starts = |at: usize| {
            let before = at.checked_sub(1).map(|at| bare.as_bytes()[at]);
            before.is_none_or(fragments::starts_word)
        };
        word.is_empty() || bare.match_indices(word).any(|(at, _)| starts(at))
    }

    /// Whether something in it that could run as a command of its own passes
    /// `test`: for restrictions. `first` is the first word that `test` looks for.
    pub(super) fn any_part(&self, first: &str, test: &dyn Fn(&str) -> bool) -> bool {
        if let Some(Command::Argv(words)) = &self.command {
            // A word with blanks may be a script for one of the others.
            let mut scripts = words.iter().filter(|word| word.contains([' ', '\n']));
            if scripts.any(|word| fragments::any(word, first, test)) {
                return true;
            }
        }
        self.command.is_some() && fragments::any(&self.raw, first, test)
    }

    /// The script that a shell gets: the text, or what follows `-c`.
    fn script(&self) -> Cow<'_, str> {
        match &self.command {
            Some(Command::Argv(words)) => match launcher::argv_script(words) {
                Some(script) => Cow::Borrowed(script),
                None => Cow::Borrowed(&self.raw),
            },
            _ => Cow::Borrowed(&self.raw),
        }
    }

    /// Whether the whole command is one of these spellings.
    pub(super) fn is_exactly(&self, forms: &[String]) -> bool {
        let script = self.script();
        let normal = payload(&script);
        let launched = unwrap_launcher(&script);
        forms
            .iter()
            .any(|form| *form == normal || *form == launched.trim())
    }

    /// Whether every command in the line is permitted, read-only, or only
    /// prepares (`cd`, `export`, assignments).
    pub(super) fn every_part_covered(&self, permitted: &dyn Fn(&str) -> bool) -> bool {
        let script = self.script();
        let commands = Cell::new(MAX_COMMANDS);
        script.len() <= MAX_PERMITTED && self.covered(&script, permitted, 0, &commands)
    }

    fn covered(
        &self,
        text: &str,
        permitted: &dyn Fn(&str) -> bool,
        depth: usize,
        commands: &Cell<usize>,
    ) -> bool {
        let Ok(script) = lexer::read(text) else {
            return false;
        };
        let Some(left) = commands.get().checked_sub(script.commands.len()) else {
            return false;
        };
        commands.set(left);
        script.commands.iter().all(|command| {
            let span = text[command.span.0..command.span.1].trim();
            let words = script.words_of(command);
            let mut rest = words;
            if rest.first().is_some_and(|w| w.text == "env") {
                rest = &rest[1..];
                while rest.first().is_some_and(|w| w.text.starts_with('-')) {
                    rest = &rest[1..];
                }
            }
            while let Some((word, after)) = rest.split_first() {
                match word.text.split_once('=') {
                    Some((name, _)) if normal::is_name(name) => {
                        if table::hijacking_variable(name) {
                            return false;
                        }
                        rest = after;
                    }
                    _ => break,
                }
            }
            let Some((program, args)) = rest.split_first() else {
                return script.redirects_of(command).is_empty();
            };
            let prepares = match &*program.text {
                "cd" => true,
                "export" => !args
                    .iter()
                    .any(|w| table::hijacking_variable(w.text.split('=').next().unwrap_or(""))),
                _ => false,
            };
            if prepares {
                return script.redirects_of(command).is_empty();
            }
            if normal::runs(&program.text, &normal::LAUNCHERS) {
                return match launcher::lexed_script(args) {
                    Some(inner) if depth < MAX_SCRIPTS => {
                        self.covered(inner, permitted, depth + 1, commands)
                    }
                    _ => permitted(span),
                };
            }
            let own = without_prefix(span).unwrap_or_default();
            permitted(&payload(&own)) || permitted(span) || self.judge(false).text(span)
        })
    }

    fn judge(&self, anywhere: bool) -> Judge<'_> {
        Judge::new(self.context, self.additional, anywhere)
    }

    /// Whether the command only looks (05 §7).
    pub(super) fn is_read_only(&self) -> bool {
        *self.read_only.get_or_init(|| {
            self.command
                .as_ref()
                .is_some_and(|command| self.judge(false).command(command))
        })
    }

    /// Whether a text would only look if all paths were fine.
    pub(super) fn looks_anywhere(&self, text: &str) -> bool {
        self.judge(true).text_as_published(text)
    }

    /// Whether the command stays inside the agent's own memory (05 §9).
    pub(super) fn is_own_memory(&self) -> bool {
        self.command
            .as_ref()
            .is_some_and(|command| memory::stays_inside(command, self.context, &self.judge(true)))
    }

    /// The single file that a pure `cat > FILE <<EOF` writes.
    pub(super) fn heredoc_write(&self) -> Option<HeredocWrite<'_>> {
        heredoc::whole(&self.raw)
    }

    /// Whether the text could write a settings file: it speaks of one, and does
    /// more than look or work on memory. A script that hides the name is not
    /// seen; this is for permits that a person gave in good faith.
    pub(super) fn may_write_settings(&self) -> bool {
        let text = self.raw.to_ascii_lowercase();
        let here = super::path::file_name(&self.context.cwd) == ".letta";
        (here || text.contains(".letta"))
            && [
                "settings",
                ".letta/se",
                ".letta/*",
                ".letta/s*",
                ".letta/?",
                ".letta/[",
            ]
            .iter()
            .any(|name| text.contains(name))
            && !self.is_read_only()
            && !self.is_own_memory()
    }
}

#[cfg(test)]
mod tests;
