//! How a POSIX shell reads a command line, as far as it can be known without
//! running it.
//!
//! The lexer knows simple commands, quotes, parameters by name, operators,
//! redirects to a word and comments. Everything else (substitutions, subshells,
//! here-documents, brace expansion, ANSI-C quotes, odd control characters …) is
//! [`Unclear`]: whoever asks must then assume the worst. One pass, linear.

use std::borrow::Cow;

use super::normal::is_name;

/// The text means something that cannot be known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unclear;

/// A word after quote removal. Parameters stay in the text as `${NAME}`.
#[derive(Clone, Debug)]
pub(super) struct Word<'a> {
    pub(super) text: Cow<'a, str>,
    /// Nothing in it was quoted or escaped.
    pub(super) plain: bool,
    /// Holds `${NAME}` parameters.
    pub(super) parameters: bool,
    /// Holds unquoted `*`, `?` or `[`.
    pub(super) glob: bool,
}

/// What stands between a command and the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    End,
    And,
    Or,
    Pipe,
    Semicolon,
    Background,
}

/// What a redirect does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// `<`
    Read,
    /// `>`, `>>`, `&>`
    Write,
    /// `>&1`, `2>&1`
    Duplicate,
}

/// One simple command: ranges into the words and redirects of its script.
#[derive(Clone, Copy, Debug)]
pub(super) struct Command {
    pub(super) words: (usize, usize),
    pub(super) redirects: (usize, usize),
    /// Byte range of the command in the text.
    pub(super) span: (usize, usize),
    pub(super) then: Then,
}

/// A command line taken apart.
#[derive(Debug, Default)]
pub(super) struct Script<'a> {
    pub(super) words: Vec<Word<'a>>,
    pub(super) redirects: Vec<(Direction, Word<'a>)>,
    pub(super) commands: Vec<Command>,
}

impl<'a> Script<'a> {
    pub(super) fn words_of(&self, command: &Command) -> &[Word<'a>] {
        &self.words[command.words.0..command.words.1]
    }

    pub(super) fn redirects_of(&self, command: &Command) -> &[(Direction, Word<'a>)] {
        &self.redirects[command.redirects.0..command.redirects.1]
    }
}

/// Reads `text`.
pub(super) fn read(text: &str) -> Result<Script<'_>, Unclear> {
    let mut lexer = Lexer {
        text,
        bytes: text.as_bytes(),
        at: 0,
        script: Script::default(),
        word_start: 0,
        redirect_start: 0,
        span_start: 0,
    };
    lexer.run()?;
    Ok(lexer.script)
}

struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    script: Script<'a>,
    word_start: usize,
    redirect_start: usize,
    span_start: usize,
}

impl<'a> Lexer<'a> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn run(&mut self) -> Result<(), Unclear> {
        loop {
            self.skip_blanks();
            if self.at >= self.bytes.len() {
                self.finish(Then::End, 0);
                return Ok(());
            }
            match self.peek(0) {
                b'#' => self.skip_comment(),
                b'\n' | b';' => self.finish(Then::Semicolon, 1),
                b'|' if self.peek(1) == b'|' => self.operator(Then::Or, 2)?,
                b'|' if self.peek(1) == b'&' => return Err(Unclear),
                b'|' => self.operator(Then::Pipe, 1)?,
                b'&' if self.peek(1) == b'&' => self.operator(Then::And, 2)?,
                b'&' if self.peek(1) == b'>' => {
                    self.at += 1;
                    self.redirect()?;
                }
                b'&' => self.background()?,
                b'<' | b'>' => self.redirect()?,
                b'(' | b')' => return Err(Unclear),
                _ => {
                    let word = self.word()?;
                    // Digits right before a redirect name a descriptor.
                    let descriptor = word.plain && word.text.bytes().all(|b| b.is_ascii_digit());
                    if !(descriptor && matches!(self.peek(0), b'<' | b'>')) {
                        self.script.words.push(word);
                    }
                }
            }
        }
    }

    fn skip_blanks(&mut self) {
        loop {
            match self.peek(0) {
                b' ' | b'\t' => self.at += 1,
                b'\\' if self.peek(1) == b'\n' => self.at += 2,
                _ => return,
            }
        }
    }

    fn skip_comment(&mut self) {
        let rest = &self.bytes[self.at..];
        self.at += rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
    }

    fn finish(&mut self, then: Then, length: usize) {
        let command = Command {
            words: (self.word_start, self.script.words.len()),
            redirects: (self.redirect_start, self.script.redirects.len()),
            span: (self.span_start, self.at),
            then,
        };
        self.at += length;
        self.span_start = self.at;
        self.word_start = command.words.1;
        self.redirect_start = command.redirects.1;
        if command.words.0 < command.words.1 || command.redirects.0 < command.redirects.1 {
            self.script.commands.push(command);
        }
    }

    /// `&&`, `||`, `|`: without a command before it a shell refuses the line.
    fn operator(&mut self, then: Then, length: usize) -> Result<(), Unclear> {
        self.finish(then, length);
        Ok(())
    }

    /// A single `&`: understood only where nothing follows on its line.
    fn background(&mut self) -> Result<(), Unclear> {
        if self.word_start == self.script.words.len() {
            return Err(Unclear);
        }
        self.finish(Then::Background, 1);
        self.skip_blanks();
        match self.peek(0) {
            b'\n' | b'#' => Ok(()),
            0 if self.at >= self.bytes.len() => Ok(()),
            _ => Err(Unclear),
        }
    }

    fn redirect(&mut self) -> Result<(), Unclear> {
        let write = self.peek(0) == b'>';
        self.at += 1;
        let mut direction = if write {
            Direction::Write
        } else {
            Direction::Read
        };
        match self.peek(0) {
            b'>' if write => self.at += 1,
            b'&' if write => {
                self.at += 1;
                direction = Direction::Duplicate;
            }
            // `<<`, `<(`, `<&`, `<>`, `>(`, `>|`: not understood.
            b'<' | b'>' | b'(' | b'&' | b'|' | b'!' => return Err(Unclear),
            _ => {}
        }
        self.skip_blanks();
        let target = self.word()?;
        let digits = !target.text.is_empty() && target.text.bytes().all(|b| b.is_ascii_digit());
        if direction == Direction::Duplicate && !(digits && target.plain) {
            return Err(Unclear);
        }
        self.script.redirects.push((direction, target));
        Ok(())
    }

    /// One word; an error when there is none.
    fn word(&mut self) -> Result<Word<'a>, Unclear> {
        let start = self.at;
        let mut word = Builder::default();
        // The common case first: a run that means itself.
        while matches!(self.peek(0), b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9'
            | b'-' | b'_' | b'.' | b'/' | b'+' | b':' | b'@' | b'%')
        {
            self.at += 1;
        }
        let clean = self.at;
        loop {
            let byte = self.peek(0);
            match byte {
                0 if self.at >= self.bytes.len() => break,
                b' ' | b'\t' | b'\n' | b';' | b'&' | b'|' | b'<' | b'>' => break,
                b'(' | b')' | b'`' => return Err(Unclear),
                _ => {}
            }
            if word.untouched {
                word.text.push_str(&self.text[start..clean]);
                word.untouched = false;
            }
            match byte {
                b'\'' => self.single_quoted(&mut word),
                b'"' => self.double_quoted(&mut word)?,
                b'\\' => self.escaped(&mut word)?,
                b'$' => self.parameter(&mut word, false)?,
                _ => {
                    let c = self.next_char().ok_or(Unclear)?;
                    let first = self.at - c.len_utf8() == start;
                    word.unquoted(c, first)?;
                }
            }
        }
        if self.at == start {
            return Err(Unclear);
        }
        if word.untouched {
            let text = &self.text[start..clean];
            return Ok(Word {
                text: Cow::Borrowed(text),
                plain: true,
                parameters: false,
                glob: false,
            });
        }
        word.done()
    }

    fn next_char(&mut self) -> Option<char> {
        let c = self.text.get(self.at..)?.chars().next()?;
        self.at += c.len_utf8();
        Some(c)
    }

    /// An unclosed quote takes the rest: a shell refuses such a line.
    fn single_quoted(&mut self, word: &mut Builder) {
        word.quoted = true;
        let rest = &self.text[self.at + 1..];
        let length = rest.find('\'').unwrap_or(rest.len());
        word.literal(&rest[..length]);
        self.at = (self.at + length + 2).min(self.text.len());
    }

    fn double_quoted(&mut self, word: &mut Builder) -> Result<(), Unclear> {
        word.quoted = true;
        self.at += 1;
        while self.at < self.bytes.len() {
            match self.peek(0) {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'`' => return Err(Unclear),
                b'$' => self.parameter(word, true)?,
                b'\\' => match self.peek(1) {
                    b'\n' => self.at += 2,
                    byte @ (b'$' | b'`' | b'"' | b'\\') => {
                        word.literal(if byte == b'$' {
                            "$"
                        } else if byte == b'`' {
                            "`"
                        } else if byte == b'"' {
                            "\""
                        } else {
                            "\\"
                        });
                        self.at += 2;
                    }
                    _ => {
                        word.literal("\\");
                        self.at += 1;
                    }
                },
                _ => {
                    let rest = &self.bytes[self.at..];
                    let length = rest
                        .iter()
                        .position(|b| matches!(b, b'"' | b'`' | b'$' | b'\\'))
                        .unwrap_or(rest.len());
                    word.literal(&self.text[self.at..self.at + length]);
                    self.at += length;
                }
            }
        }
        Ok(())
    }

    fn escaped(&mut self, word: &mut Builder) -> Result<(), Unclear> {
        word.quoted = true;
        self.at += 1;
        if self.at >= self.bytes.len() {
            word.literal("\\");
            return Ok(());
        }
        if self.peek(0) == b'\n' {
            self.at += 1;
            return Ok(());
        }
        let from = self.at;
        let c = self.next_char().ok_or(Unclear)?;
        if c.is_control() {
            return Err(Unclear);
        }
        word.literal(&self.text[from..self.at]);
        // `\$(name)` is an error to a shell, and never a substitution.
        if c == '$' && self.peek(0) == b'(' {
            let rest = &self.text[self.at + 1..];
            let end = rest.find(')').ok_or(Unclear)?;
            if !rest[..end].bytes().all(|b| b.is_ascii_alphanumeric()) {
                return Err(Unclear);
            }
            word.literal(&self.text[self.at..self.at + end + 2]);
            self.at += end + 2;
        }
        Ok(())
    }

    /// `$NAME` and `${NAME}`; a dollar that starts nothing is itself.
    fn parameter(&mut self, word: &mut Builder, quoted: bool) -> Result<(), Unclear> {
        self.at += 1;
        let rest = &self.text[self.at..];
        let name = if let Some(inner) = rest.strip_prefix('{') {
            let end = inner.find('}').ok_or(Unclear)?;
            self.at += end + 2;
            &inner[..end]
        } else {
            let length = rest
                .bytes()
                .take_while(|b| b.is_ascii_alphanumeric() || *b == b'_')
                .count();
            if length == 0 {
                return match rest.bytes().next() {
                    None | Some(b' ' | b'\t' | b'\n' | b'/' | b'.' | b',' | b':' | b'|' | b';') => {
                        word.literal("$");
                        Ok(())
                    }
                    Some(b'"' | b')' | b'\\') if quoted => {
                        word.literal("$");
                        Ok(())
                    }
                    _ => Err(Unclear),
                };
            }
            self.at += length;
            &rest[..length]
        };
        if !is_name(name) {
            return Err(Unclear);
        }
        word.parameters = true;
        word.text.push_str("${");
        word.text.push_str(name);
        word.text.push('}');
        Ok(())
    }
}

struct Builder {
    text: String,
    untouched: bool,
    quoted: bool,
    parameters: bool,
    dollar: bool,
    glob: bool,
    brace: bool,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            text: String::new(),
            untouched: true,
            quoted: false,
            parameters: false,
            dollar: false,
            glob: false,
            brace: false,
        }
    }
}

impl Builder {
    fn literal(&mut self, text: &str) {
        self.dollar |= text.contains('$');
        self.text.push_str(text);
    }

    fn unquoted(&mut self, c: char, first: bool) -> Result<(), Unclear> {
        match c {
            '*' | '?' | '[' => self.glob = true,
            '{' => self.brace = true,
            // `{a,b}` and `{1..3}` become several words.
            ',' if self.brace => return Err(Unclear),
            '.' if self.brace && self.text.ends_with('.') => return Err(Unclear),
            // `=cmd` is a path in zsh, `!x` history in interactive shells.
            '=' if first => return Err(Unclear),
            '!' if !first => {}
            // After `=` it means home to some shells; who asks checks the value.
            '~' if !first && self.text.ends_with(':') => return Err(Unclear),
            '^' if first => return Err(Unclear),
            c if c.is_control() || is_invisible(c) => return Err(Unclear),
            _ => {}
        }
        self.text.push(c);
        Ok(())
    }

    fn done<'a>(self) -> Result<Word<'a>, Unclear> {
        // With a literal `$` beside parameters the two could not be told apart.
        let mixed = self.parameters && self.dollar;
        let history = !self.quoted && self.text.len() > 1 && self.text.starts_with('!');
        if mixed || history {
            return Err(Unclear);
        }
        Ok(Word {
            text: Cow::Owned(self.text),
            plain: !self.quoted,
            parameters: self.parameters,
            glob: self.glob,
        })
    }
}

/// Blanks that are none to a shell, and characters that hide or reorder text.
fn is_invisible(c: char) -> bool {
    !c.is_ascii()
        && (c.is_whitespace()
            || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(text: &str) -> Option<Vec<Vec<String>>> {
        let script = read(text).ok()?;
        let words = |c: &Command| {
            script
                .words_of(c)
                .iter()
                .map(|w| w.text.to_string())
                .collect()
        };
        Some(script.commands.iter().map(words).collect())
    }

    #[test]
    fn quotes_and_escapes_are_removed_as_a_shell_does() {
        let found = commands("c\\at 'a b'\"c\\\"d\" $HOME/x \\$y # tail\nls").unwrap();
        assert_eq!(found[0], ["cat", "a bc\"d", "${HOME}/x", "$y"]);
        assert_eq!(found[1], ["ls"]);
        assert_eq!(commands("l\\\ns a").unwrap(), [["ls", "a"]]);
    }

    #[test]
    fn operators_separate_and_redirects_are_kept_apart() {
        let script = read("a 2>&1 >/dev/null <x && b | c &").unwrap();
        assert_eq!(script.commands.len(), 3);
        assert_eq!(script.redirects.len(), 3);
        assert_eq!(script.commands[0].then, Then::And);
        assert_eq!(script.commands[2].then, Then::Background);
    }

    #[test]
    fn what_only_running_would_tell_is_unclear() {
        for text in [
            "a $(b)",
            "a `b`",
            "a \"$(b)\"",
            "a <(b)",
            "a >(b)",
            "a <<E",
            "a <<<x",
            "(a)",
            "a()",
            "a $'b'",
            "a $\"b\"",
            "a $1",
            "a $@",
            "a ${b:-c}",
            "a ${!b}",
            "a $((1))",
            "a $[1]",
            "a {b,c}",
            "a {1..3}",
            "a & b",
            "& a",
            "a |& b",
            "a >| b",
            "a <> b",
            "a >&b",
            "a\u{a0}b",
            "a\r",
            "a\u{200b}",
            "=a",
            "a !b",
            "^a^b",
            "a \\\r",
        ] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }
}
