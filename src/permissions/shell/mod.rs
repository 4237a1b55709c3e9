//! What can be known of a shell command without running it (05 §7, §8).

mod flow;
mod gh;
mod git;
mod judge;
mod lexer;
pub(super) mod normal;
mod published;
mod sed;
mod table;

use std::borrow::Cow;

use super::context::Context;
use super::family::Command;

/// A command as rules look at it; prepared once for all rules.
pub(super) struct ShellView<'a> {
    context: &'a Context<'a>,
    candidates: Vec<String>,
    whole: Vec<String>,
    /// The parts of the line; `None` when it cannot be split with certainty.
    parts: Option<Vec<String>>,
}

impl<'a> ShellView<'a> {
    /// The view of `command`; a call without one has the empty command.
    pub(super) fn new(command: Option<Command<'_>>, context: &'a Context<'a>) -> Self {
        let text = command.as_ref().map_or(Cow::Borrowed(""), Command::joined);
        let unwrapped = normal::unwrap_launcher(&text);
        let whole = distinct([normal::payload(&text), unwrapped.trim().to_owned()]);
        let primary = normal::primary(&text);
        let mut candidates = distinct([normal::payload(&primary), primary]);
        candidates.extend(whole.iter().cloned());
        let parts = published::split(unwrapped.trim()).map(|parts| {
            parts
                .iter()
                .map(|part| normal::without_prefix(part).unwrap_or_else(|| part.to_string()))
                .collect()
        });
        Self {
            context,
            candidates,
            whole,
            parts,
        }
    }

    /// What the published program compares rules with.
    pub(super) fn candidates(&self) -> impl Iterator<Item = &str> {
        self.candidates.iter().map(String::as_str)
    }

    /// Every part of the line, for rules that restrict.
    pub(super) fn parts(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().flatten().map(String::as_str)
    }

    /// The whole text in its normal forms.
    pub(super) fn whole(&self) -> &[String] {
        &self.whole
    }

    /// Whether each part is permitted or only looks. A line that cannot be
    /// split with certainty is covered by nothing but its own text.
    pub(super) fn every_part_covered(&self, permitted: &dyn Fn(&str) -> bool) -> bool {
        self.parts.as_ref().is_some_and(|parts| {
            parts.iter().all(|part| {
                permitted(part)
                    || permitted(&normal::payload(part))
                    || judge::Judge::new(self.context, &[], false).text(part)
            })
        })
    }
}

fn distinct(texts: [String; 2]) -> Vec<String> {
    let [first, second] = texts;
    if first == second {
        vec![first]
    } else {
        vec![first, second]
    }
}

/// Whether a call's command only looks, inside the working directory and
/// `additional` ones.
pub(super) fn is_read_only(
    command: &Command<'_>,
    context: &Context<'_>,
    additional: &[String],
) -> bool {
    judge::Judge::new(context, additional, false).command(command)
}
