//! One rule: its text, its parts and its normal form (05 §4.4, §4.5).

use super::super::family::{Family, canonical_name};
use super::super::shell::normal;
use super::super::shell::published::is_blank;

/// A rule, taken apart once.
#[derive(Clone, Debug)]
pub(in super::super) struct Rule {
    text: String,
    normal: String,
    pub(super) shape: Shape,
}

/// What the text looks like to the matchers, untrimmed.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// No `Name(payload)`: compared as a whole.
    Bare,
    /// `Name(payload)`.
    Call {
        /// Byte length of the name.
        name: usize,
        /// For shell rules.
        shell: Option<ShellPayload>,
    },
}

/// The payload of a shell rule in both spellings that commands are held against.
#[derive(Clone, Debug)]
pub(super) struct ShellPayload {
    /// Without the trailing `:*`.
    forms: [String; 2],
    /// The first word of each form, quotes and backslashes gone.
    firsts: [String; 2],
    /// Whether the payload ended in `:*`.
    pub(super) prefix: bool,
}

impl Rule {
    pub(in super::super) fn new(text: &str) -> Self {
        let shape = match parts(text) {
            None => Shape::Bare,
            Some((name, payload)) => Shape::Call {
                name: name.len(),
                shell: (Family::of(name) == Family::Bash).then(|| ShellPayload::new(payload)),
            },
        };
        Self {
            text: text.to_owned(),
            normal: normal_form(text),
            shape,
        }
    }

    /// As written.
    pub(in super::super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether both say the same.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.normal == other.normal
    }

    /// Name and payload, when the text is `Name(payload)`.
    pub(super) fn call(&self) -> Option<(&str, &str)> {
        match &self.shape {
            Shape::Bare => None,
            Shape::Call { name, .. } => Some((
                &self.text[..*name],
                &self.text[name + 1..self.text.len() - 1],
            )),
        }
    }
}

impl ShellPayload {
    fn new(payload: &str) -> Self {
        let normalised = normal::payload(payload);
        let launched = normal::unwrap_launcher(payload);
        let launched = launched.trim();
        let prefix = normalised.ends_with(":*");
        let cut = |text: &str| text.strip_suffix(":*").unwrap_or(text).to_owned();
        let forms = if prefix {
            // The second spelling counts only while it is a prefix too.
            if launched.ends_with(":*") {
                [cut(&normalised), cut(launched)]
            } else {
                [cut(&normalised), cut(&normalised)]
            }
        } else {
            [normalised, launched.to_owned()]
        };
        let firsts = [&forms[0], &forms[1]].map(|form| {
            let word = form.split(is_blank).next().unwrap_or_default();
            word.replace(['\'', '"', '\\'], "")
        });
        Self {
            forms,
            firsts,
            prefix,
        }
    }

    /// What a command must say somewhere to be spoken of, one or two words.
    pub(super) fn firsts(&self) -> &[String] {
        if self.firsts[0] == self.firsts[1] {
            &self.firsts[..1]
        } else {
            &self.firsts
        }
    }

    /// One or two different spellings.
    pub(super) fn forms(&self) -> &[String] {
        if self.forms[0] == self.forms[1] {
            &self.forms[..1]
        } else {
            &self.forms
        }
    }
}

/// `Name(payload)` with the closing parenthesis as the last character.
fn parts(text: &str) -> Option<(&str, &str)> {
    let open = text.find('(')?;
    let payload = text[open + 1..].strip_suffix(')')?;
    (open > 0).then(|| (&text[..open], payload))
}

/// The form in which rules are saved and compared (05 §4.5).
pub fn normal_form(text: &str) -> String {
    let text = text.trim();
    let (name, payload) = match text.find('(') {
        None => return canonical_name(text).to_owned(),
        Some(_) => match parts(text) {
            Some(found) => found,
            None => return text.to_owned(),
        },
    };
    let name = canonical_name(name.trim());
    let family = Family::of(name);
    if family == Family::Bash {
        format!("Bash({})", normal::payload(payload))
    } else if family.is_file() {
        format!("{name}({})", path_payload(payload))
    } else {
        format!("{name}({})", payload.trim())
    }
}

/// A path payload with `/` only and an upper-case drive letter.
fn path_payload(payload: &str) -> String {
    let text = payload.replace('\\', "/");
    let text = text.trim();
    let drive = text
        .strip_prefix('/')
        .filter(|t| super::super::path::has_drive(t));
    let text = drive.unwrap_or(text);
    if super::super::path::has_drive(text) {
        let (letter, rest) = text.split_at(1);
        return letter.to_uppercase() + rest;
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_forms_are_those_that_saved_files_hold() {
        for (text, expected) in [
            ("shell_command(bash -lc \"make all\")", "Bash(make all)"),
            ("Bash( npm run  test :* )", "Bash(npm run  test:*)"),
            ("Bash(git -C /a status)", "Bash(git status)"),
            ("Bash(git status \"a b\")", "Bash(git status a b)"),
            ("LS(/x)", "ListDir(/x)"),
            ("Agent(x)", "Task(x)"),
            ("WebFetch( https://a/* )", "WebFetch(https://a/*)"),
            ("bash", "bash"),
            ("Read(src/**", "Read(src/**"),
            ("Read(/c:\\x)", "Read(C:/x)"),
        ] {
            assert_eq!(normal_form(text), expected, "{text}");
        }
    }
}
