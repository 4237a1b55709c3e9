//! Takes terminal escape sequences out of a text that arrives in pieces
//! (04 §4.4, §4.6).
//!
//! A state machine over characters, so chunk borders cannot matter. A control
//! string (window title, hyperlink) ends at its terminator or at a line end:
//! a stray opener must not swallow the rest of the output.

/// Where the stripper stands between two characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// After ESC and an intermediate such as `(`: one more character belongs to it.
    Intermediate,
    /// Inside a control sequence, until its final byte.
    Control,
    /// Inside a control string, until BEL, ST or a line end.
    String,
    /// The same, after an ESC that may begin ST.
    StringEscape,
}

/// Strips ANSI escape sequences.
#[derive(Debug, Default)]
pub struct AnsiStripper {
    state: State,
}

impl AnsiStripper {
    /// The text of `chunk` without escape sequences.
    pub fn push(&mut self, chunk: String) -> String {
        if self.state == State::Text && !may_hold_sequence(&chunk) {
            return chunk;
        }
        let mut text = String::with_capacity(chunk.len());
        for character in chunk.chars() {
            self.step(character, &mut text);
        }
        text
    }

    fn step(&mut self, character: char, text: &mut String) {
        self.state = match (self.state, character) {
            (State::String, '\u{7}' | '\u{9c}') | (State::StringEscape, '\\') => State::Text,
            (State::String, '\u{1b}') => State::StringEscape,
            (State::String | State::StringEscape, '\n') => {
                text.push('\n');
                State::Text
            }
            (State::String, _) => State::String,
            (_, '\u{1b}') => State::Escape,
            (_, '\u{9b}') => State::Control,
            (State::Escape | State::StringEscape, '[') => State::Control,
            (State::Escape | State::StringEscape, ']' | 'P' | 'X' | '^' | '_') => State::String,
            (State::Escape | State::StringEscape | State::Intermediate, ' '..='/') => {
                State::Intermediate
            }
            (State::Escape | State::StringEscape | State::Intermediate, '0'..='~') => State::Text,
            (State::Control, ' '..='?') => State::Control,
            (State::Control, '@'..='~') => State::Text,
            // A character that no sequence may hold ends it and counts as text.
            (_, other) => {
                text.push(other);
                State::Text
            }
        };
    }
}

/// Whether there is ESC or its one-character form CSI. Most output has neither, and
/// all of it passes here.
fn may_hold_sequence(text: &str) -> bool {
    // In UTF-8 CSI is 0xc2 0x9b.
    memchr::memchr2(0x1b, 0xc2, text.as_bytes()).is_some() && text.contains(['\u{1b}', '\u{9b}'])
}

/// The whole of `text` without escape sequences.
pub fn strip(text: &str) -> String {
    AnsiStripper::default().push(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn colours_titles_links_and_charsets_go_and_text_stays() {
        assert_eq!(strip("\u{1b}[1;31mred\u{1b}[0m"), "red");
        assert_eq!(strip("\u{1b}]0;title\u{7}text"), "text");
        assert_eq!(
            strip("\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\"),
            "link"
        );
        assert_eq!(strip("\u{1b}(Bplain\u{1b}=\u{1b}7!"), "plain!");
        assert_eq!(strip("\u{9b}2Jé"), "é");
        assert_eq!(strip("5 °C\u{9b}2J"), "5 °C");
    }

    #[test]
    fn an_unfinished_sequence_does_not_swallow_the_next_line() {
        assert_eq!(strip("\u{1b}]never closed\nnext"), "\nnext");
        assert_eq!(strip("\u{1b}[12\nnext"), "\nnext");
    }

    proptest! {
        #[test]
        fn any_chunking_equals_the_whole(
            pieces in prop::collection::vec("(\u{1b}|\u{1b}\\[|\u{1b}\\]|\u{7}|[a-z0-9;m\\\\\n(])*", 0..12),
        ) {
            let mut stripper = AnsiStripper::default();
            let parts: String = pieces.iter().map(|piece| stripper.push(piece.clone())).collect();
            prop_assert_eq!(parts, strip(&pieces.concat()));
        }
    }
}
