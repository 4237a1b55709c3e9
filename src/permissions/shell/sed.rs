//! `sed` scripts that only print (05 §7.4 item 6, §17).

use super::judge::Arg;

/// Whether `sed` with these arguments reads files and prints.
pub(super) fn only_looks(args: &[Arg<'_>], path_fits: impl Fn(&str) -> bool) -> bool {
    let mut scripts: Vec<&str> = Vec::new();
    let mut operands: Vec<&Arg<'_>> = Vec::new();
    let mut list = args.iter();
    while let Some(arg) = list.next() {
        let text = &*arg.text;
        if arg.glob && text.starts_with(['*', '?', '[']) {
            return false;
        }
        match text {
            "-e" | "--expression" => match list.next() {
                Some(script) if !script.glob => scripts.push(&script.text),
                _ => return false,
            },
            "--quiet" | "--silent" | "--regexp-extended" | "--posix" | "--null-data"
            | "--separate" | "--unbuffered" | "--sandbox" | "--debug" | "--help" | "--version" => {}
            _ if text.starts_with("--expression=") => {
                scripts.push(&text["--expression=".len()..]);
            }
            _ if text.starts_with("--") => return false,
            _ if text.len() > 1 && text.starts_with('-') => {
                if !text[1..].bytes().all(|b| b"nErsuz".contains(&b)) {
                    return false;
                }
            }
            _ => operands.push(arg),
        }
    }
    if scripts.is_empty() {
        match operands.first() {
            Some(script) if !script.glob || is_plain_script(&script.text) => {
                scripts.push(&script.text);
            }
            Some(_) => return false,
            None => {}
        }
    }
    args.iter().all(|arg| path_fits(&arg.text)) && scripts.iter().all(|s| prints_only(s))
}

/// An unquoted script may hold `*` and `?` when no file can have its name.
fn is_plain_script(text: &str) -> bool {
    text.contains('/')
}

/// Whether a script holds only addresses and commands that print, edit the
/// text in passing or steer. `w`, `e`, `r` and unknown letters do not pass.
fn prints_only(script: &str) -> bool {
    let bytes = script.as_bytes();
    let mut at = 0;
    loop {
        while matches!(
            bytes.get(at),
            Some(b' ' | b'\t' | b'\n' | b';' | b'{' | b'}' | b'!')
        ) {
            at += 1;
        }
        let Some(&byte) = bytes.get(at) else {
            return true;
        };
        at += 1;
        match byte {
            // Addresses.
            b'0'..=b'9' | b'$' | b',' | b'~' | b'+' => {}
            b'/' => match past(bytes, at, b'/') {
                Some(end) => at = end + flags(&bytes[end..], b"IM"),
                None => return false,
            },
            b'\\' => {
                let Some(&mark) = bytes.get(at) else {
                    return false;
                };
                match past(bytes, at + 1, mark) {
                    Some(end) => at = end + flags(&bytes[end..], b"IM"),
                    None => return false,
                }
            }
            // Commands.
            b'p' | b'd' | b'=' | b'n' | b'N' | b'D' | b'P' | b'g' | b'G' | b'h' | b'H' | b'x'
            | b'z' | b'q' | b'Q' | b'l' => {
                let number = matches!(byte, b'q' | b'Q' | b'l');
                let rest = &bytes[at..];
                let value = rest
                    .iter()
                    .take_while(|b| number && (b.is_ascii_digit() || **b == b' '))
                    .count();
                at += value;
                if !ends(bytes, at) {
                    return false;
                }
            }
            b's' | b'y' => {
                let Some(&mark) = bytes.get(at).filter(|m| !matches!(m, b'\\' | b'\n')) else {
                    return false;
                };
                let Some(end) =
                    past(bytes, at + 1, mark).and_then(|middle| past(bytes, middle, mark))
                else {
                    return false;
                };
                at = end;
                if byte == b's' {
                    at += flags(&bytes[at..], b"gpIiMm0123456789");
                }
                if !ends(bytes, at) {
                    return false;
                }
            }
            b'#' => {
                let rest = &bytes[at..];
                at += rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
            }
            _ => return false,
        }
    }
}

/// How many bytes at the start are in `known`.
fn flags(bytes: &[u8], known: &[u8]) -> usize {
    bytes.iter().take_while(|b| known.contains(b)).count()
}

/// Whether a command may end here.
fn ends(bytes: &[u8], at: usize) -> bool {
    matches!(
        bytes.get(at),
        None | Some(b' ' | b'\t' | b'\n' | b';' | b'}' | b'#')
    )
}

/// The position after the next unescaped `mark`. Inside `[…]` a mark counts
/// too: ending early can only refuse more.
fn past(bytes: &[u8], from: usize, mark: u8) -> Option<usize> {
    let mut at = from;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 1,
            b'\n' => return None,
            _ if byte == mark => return Some(at + 1),
            _ => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_scripts_that_print_pass() {
        for script in [
            "1,40p",
            "s#^/srv#.#",
            "/x/d",
            "$!N;s/a\\/b/c/gp",
            "10q",
            "/a/,/b/{p;d}",
            "\\,x,p",
            "y/ab/cd/",
        ] {
            assert!(prints_only(script), "{script}");
        }
        for script in [
            "w f",
            "s/a/b/w f",
            "s/a/b/e",
            "1e id",
            "e",
            "r /etc/passwd",
            "W f",
            "s/a/b",
            "1!w f",
            "p;w f",
            "a\\\nx",
            "s/x/y/ge",
            "F",
            "v",
        ] {
            assert!(!prints_only(script), "{script}");
        }
    }
}
