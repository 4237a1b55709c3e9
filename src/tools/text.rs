//! Text as tools see it: strict UTF-8 in, counted in characters out (04 §5.3).
//!
//! Invariant: a character is a Unicode scalar value and is never split.

use std::path::Path;

/// Bytes that are not text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// A UTF-16 byte order mark.
    #[error(
        "File is not valid UTF-8 text: {path}. Detected {encoding} BOM; convert the file to UTF-8 and retry."
    )]
    Utf16 {
        /// The file.
        path: String,
        /// `UTF-16LE` or `UTF-16BE`.
        encoding: &'static str,
    },
    /// Bytes that no UTF-8 text contains.
    #[error(
        "File is not valid UTF-8 text: {path}. The file contains bytes that cannot be decoded as UTF-8."
    )]
    Invalid {
        /// The file.
        path: String,
    },
}

/// Decodes a whole file strictly; a UTF-8 byte order mark stays as a character.
pub fn decode(bytes: Vec<u8>, path: &Path) -> Result<String, TextError> {
    if let Some(encoding) = utf16_mark(&bytes) {
        return Err(TextError::Utf16 {
            path: path.display().to_string(),
            encoding,
        });
    }
    String::from_utf8(bytes).map_err(|_| TextError::Invalid {
        path: path.display().to_string(),
    })
}

/// The encoding that a UTF-16 byte order mark at the start names.
fn utf16_mark(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xFF, 0xFE, ..] => Some("UTF-16LE"),
        [0xFE, 0xFF, ..] => Some("UTF-16BE"),
        _ => None,
    }
}

/// How much of a file's start is looked at to tell text from binary, in bytes.
const BINARY_PROBE: usize = 8192;

/// Whether a file that starts so is binary: a NUL, or more than 30 % control
/// characters, in the first 8 KiB. UTF-16 is not called binary (04 §7.2).
pub fn looks_binary(bytes: &[u8]) -> bool {
    let probe = &bytes[..bytes.len().min(BINARY_PROBE)];
    if probe.is_empty() || utf16_mark(probe).is_some() {
        return false;
    }
    if probe.contains(&0) {
        return true;
    }
    let text = String::from_utf8_lossy(probe);
    let (mut all, mut control) = (0_usize, 0_usize);
    for character in text.chars() {
        all += 1;
        let code = u32::from(character);
        control += usize::from(code < 9 || (14..32).contains(&code));
    }
    control * 10 > all * 3
}

/// Characters in `text`.
pub fn count(text: &str) -> usize {
    text.chars().count()
}

/// The first `max` characters, and whether that is less than all.
pub fn head(text: &str, max: usize) -> (&str, bool) {
    // A text of so few bytes has no more characters; most lines end here.
    if text.len() <= max {
        return (text, false);
    }
    match text.char_indices().nth(max) {
        Some((at, _)) => (&text[..at], true),
        None => (text, false),
    }
}

/// A number with thousands separators: `30,000`.
pub fn thousands(number: usize) -> String {
    crate::process::capture::thousands(number as u64)
}

/// `s` unless there is exactly one.
pub fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8]) -> Result<String, String> {
        decode(bytes.to_vec(), Path::new("/f")).map_err(|error| error.to_string())
    }

    #[test]
    fn only_utf8_is_text() {
        assert_eq!(decoded(b"\xEF\xBB\xBFa"), Ok("\u{FEFF}a".to_owned()));
        assert_eq!(
            decoded(b"\xFF\xFEa\0"),
            Err("File is not valid UTF-8 text: /f. Detected UTF-16LE BOM; convert the file to UTF-8 and retry.".to_owned())
        );
        assert_eq!(
            decoded(b"\xFE\xFF\0a"),
            Err("File is not valid UTF-8 text: /f. Detected UTF-16BE BOM; convert the file to UTF-8 and retry.".to_owned())
        );
        assert_eq!(
            decoded(b"caf\xE9"),
            Err("File is not valid UTF-8 text: /f. The file contains bytes that cannot be decoded as UTF-8.".to_owned())
        );
    }

    #[test]
    fn binary_is_told_by_nul_and_control_characters() {
        assert!(looks_binary(b"\x7fELF\0"));
        assert!(looks_binary(b"\x01\x02\x03abc"));
        assert!(!looks_binary(b"\x1b[1mbold\x1b[0m and plain text"));
        assert!(!looks_binary(b"\xFF\xFEa\0"));
        assert!(!looks_binary(b""));
        let mut late = vec![b'a'; BINARY_PROBE];
        late.push(0);
        assert!(!looks_binary(&late));
    }

    #[test]
    fn cuts_never_split_a_character() {
        assert_eq!(head("äöü", 2), ("äö", true));
        assert_eq!(head("äöü", 3), ("äöü", false));
        assert_eq!(head("abc", 5), ("abc", false));
    }

    #[test]
    fn numbers_get_separators() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(thousands(number), text);
        }
    }
}
