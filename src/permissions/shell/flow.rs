//! `if FILE-TEST; then …; fi` and `for NAME in WORDS; do …; done` over the
//! simple commands of a line (05 §7.3). Everything else that steers a shell is
//! an unknown command to the judge.

use std::borrow::Cow;

use super::judge::{Arg, Judge};
use super::lexer::Word;
use super::normal::is_name;
use super::table;

/// Whose reading a line is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// The published program's.
    Published,
    /// A shell's.
    Shell,
}

/// A word of a line.
#[derive(Clone, Debug)]
pub(super) struct StepWord<'a> {
    text: Cow<'a, str>,
    plain: bool,
    glob: bool,
    parameters: bool,
}

impl<'a> StepWord<'a> {
    /// A word of the published reading: parameters are not told apart.
    pub(super) fn raw(text: Cow<'a, str>, plain: bool) -> Self {
        Self {
            text,
            plain,
            glob: false,
            parameters: false,
        }
    }
}

impl<'a> From<Word<'a>> for StepWord<'a> {
    fn from(word: Word<'a>) -> Self {
        Self {
            text: word.text,
            plain: word.plain,
            glob: word.glob,
            parameters: word.parameters,
        }
    }
}

/// One command of a line: a range of its words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) words: (usize, usize),
}

/// A line in one reading.
#[derive(Debug, Default)]
pub(super) struct Line<'a> {
    pub(super) words: Vec<StepWord<'a>>,
    pub(super) steps: Vec<Step>,
}

/// The loop variable and the word it stands for now.
type Binding<'b> = Option<(&'b str, &'b StepWord<'b>)>;

/// Where a compound command's body is and where the line goes on.
struct Compound {
    body: Vec<Step>,
    next: usize,
}

impl Line<'_> {
    /// Whether every command passes `judge`.
    pub(super) fn passes(&self, judge: &Judge<'_>, reading: Reading, depth: usize) -> bool {
        let run = Run {
            line: self,
            judge,
            reading,
            depth,
        };
        !self.steps.is_empty() && run.block(&self.steps, None)
    }
}

struct Run<'r> {
    line: &'r Line<'r>,
    judge: &'r Judge<'r>,
    reading: Reading,
    depth: usize,
}

impl<'r> Run<'r> {
    fn words(&self, step: &Step) -> &'r [StepWord<'r>] {
        &self.line.words[step.words.0..step.words.1]
    }

    /// The first word, if it could be a keyword.
    fn keyword(&self, step: &Step) -> &'r str {
        match self.words(step).first() {
            Some(word) if word.plain => &word.text,
            _ => "",
        }
    }

    fn block(&self, steps: &[Step], binding: Binding<'_>) -> bool {
        let mut at = 0;
        while at < steps.len() {
            let step = &steps[at];
            match self.keyword(step) {
                "if" => {
                    let Some(compound) = self.compound(steps, at, "then", "fi") else {
                        return false;
                    };
                    if !self.condition(step, binding) || !self.block(&compound.body, binding) {
                        return false;
                    }
                    at = compound.next;
                }
                "for" => {
                    let Some(compound) = self.compound(steps, at, "do", "done") else {
                        return false;
                    };
                    if !self.repeat(step, &compound.body, binding) {
                        return false;
                    }
                    at = compound.next;
                }
                "then" | "do" | "else" | "elif" | "fi" | "done" => return false,
                _ => {
                    let Some(args) = self.fill(self.words(step), binding) else {
                        return false;
                    };
                    if !self.judge.simple(&args, self.reading, self.depth) {
                        return false;
                    }
                    at += 1;
                }
            }
        }
        true
    }

    /// The body between `open` and the first `close` after `steps[at]`.
    fn compound(&self, steps: &[Step], at: usize, open: &str, close: &str) -> Option<Compound> {
        let mut body = Vec::new();
        let first = steps.get(at + 1)?;
        if self.keyword(first) != open {
            return None;
        }
        if self.words(first).len() > 1 {
            body.push(Step {
                words: (first.words.0 + 1, first.words.1),
            });
        }
        for (index, step) in steps.iter().enumerate().skip(at + 2) {
            let keyword = self.keyword(step);
            if keyword == close && self.words(step).len() == 1 {
                return (!body.is_empty() && self.judge.spend(body.len())).then_some(Compound {
                    body,
                    next: index + 1,
                });
            }
            if keyword == "else" {
                return None;
            }
            body.push(*step);
        }
        None
    }

    /// `if [!] [ -f PATH ]` and its spellings.
    fn condition(&self, step: &Step, binding: Binding<'_>) -> bool {
        let Some(args) = self.fill(&self.words(step)[1..], binding) else {
            return false;
        };
        let mut words: Vec<&str> = args.iter().map(|a| &*a.text).collect();
        if words.first() == Some(&"!") {
            words.remove(0);
        }
        match words.first() {
            Some(&"[") if words.last() == Some(&"]") && words.len() > 1 => {
                words.pop();
                words.remove(0);
            }
            Some(&"test") => {
                words.remove(0);
            }
            _ => {}
        }
        match words.as_slice() {
            [flag, path] => {
                matches!(*flag, "-e" | "-f" | "-d" | "-s" | "-L") && self.judge.path_fits(path)
            }
            _ => false,
        }
    }

    fn repeat(&self, step: &Step, body: &[Step], binding: Binding<'_>) -> bool {
        let words = self.words(step);
        let [_, name, keyword, items @ ..] = words else {
            return false;
        };
        let fine = is_name(&name.text)
            && name.plain
            && !table::special_loop_variable(&name.text)
            && keyword.plain
            && keyword.text == "in";
        if !fine || items.is_empty() || binding.is_some() {
            return false;
        }
        items.iter().all(|item| {
            // An item goes into other words as it is: it must be one word there.
            let plain = item.plain
                && !item.parameters
                && item.text.bytes().all(|b| {
                    b.is_ascii_alphanumeric() || b"-_./@%+=:,~*?[]".contains(&b) || !b.is_ascii()
                });
            plain && self.block(body, Some((&name.text, item)))
        })
    }

    /// Words with `$HOME` and the loop variable filled in; `None` when another
    /// parameter is left.
    fn fill<'w>(&self, words: &'w [StepWord<'_>], binding: Binding<'_>) -> Option<Vec<Arg<'w>>> {
        words
            .iter()
            .map(|word| {
                let mut arg = Arg {
                    text: Cow::Borrowed(&*word.text),
                    glob: word.glob,
                };
                if !word.text.contains('$') {
                    return Some(arg);
                }
                if let Some((name, item)) = binding {
                    let braced = format!("${{{name}}}");
                    if arg.text.contains(&braced) {
                        arg.glob |= item.glob;
                        arg.text = Cow::Owned(arg.text.replace(&braced, &item.text));
                    }
                    if self.reading == Reading::Published {
                        arg.text = Cow::Owned(replace_bare(&arg.text, name, &item.text));
                    }
                }
                if word.parameters {
                    arg.text = Cow::Owned(arg.text.replace("${HOME}", self.judge.home()));
                    if arg.text.contains("${") {
                        return None;
                    }
                }
                Some(arg)
            })
            .collect()
    }
}

/// `$name`, not followed by another letter of a name, replaced by `value`.
fn replace_bare(text: &str, name: &str, value: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        let tail = after[1..]
            .strip_prefix(name)
            .filter(|tail| !tail.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_'));
        match tail {
            Some(tail) => {
                out.push_str(value);
                rest = tail;
            }
            None => {
                out.push('$');
                rest = &after[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_variable_is_replaced_as_a_whole_name() {
        assert_eq!(replace_bare("$f/$ff-$f.x$", "f", "a"), "a/$ff-a.x$");
    }
}
