//! `cat > FILE <<DELIM`: the one here-document that is understood (05 §2.5, §9).

/// A write of literal text to one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct HeredocWrite<'a> {
    /// What stands before it on its line, up to the last operator.
    pub(super) before: &'a str,
    /// The file, as written, outer quotes removed.
    pub(in super::super) path: &'a str,
    /// Whether the path was quoted whole.
    pub(super) path_quoted: bool,
    /// What follows the delimiter line.
    pub(super) after: &'a str,
}

/// The write, when it is the whole command.
pub(super) fn whole(text: &str) -> Option<HeredocWrite<'_>> {
    find(text).filter(|w| w.before.trim().is_empty() && w.after.trim().is_empty())
}

/// The write on the first line of `text`. `None` when there is none, or when a
/// shell could see its end elsewhere or run something in its body.
pub(super) fn find(text: &str) -> Option<HeredocWrite<'_>> {
    let text = text.trim();
    if text.contains('\r') {
        return None;
    }
    let (first, rest) = text.split_once('\n')?;
    let (before, segment) = last_segment(first);
    let head = Head::parse(segment)?;
    let lines = &text[first.len()..];
    let needle = format!("\n{}", head.delimiter);
    let mut from = 0;
    let (body_length, end) = loop {
        let at = from + lines[from..].find(&needle)?;
        let behind = at + needle.len();
        match lines.as_bytes().get(behind) {
            None => break (at, rest.len()),
            Some(b'\n') => break (at, behind),
            _ => from = at + 1,
        }
    };
    // With `<<-` a line with leading tabs ends it too.
    let tabbed = |line: &str| line.trim_start_matches('\t') == head.delimiter;
    if head.strips_tabs && rest[..body_length].split('\n').any(tabbed) {
        return None;
    }
    let body = &rest[..body_length];
    if !head.quoted && body.contains(['`', '$', '\\']) {
        return None;
    }
    Some(HeredocWrite {
        before,
        path: head.path,
        path_quoted: head.path_quoted,
        after: &rest[end..],
    })
}

/// Cuts a line behind its last `&&` or `;` outside quotes.
fn last_segment(line: &str) -> (&str, &str) {
    let mut quote = None;
    let mut cut = (0, 0);
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (Some(open), _) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, ';') => cut = (at, at + 1),
            (None, '&') if line[at + 1..].starts_with('&') => cut = (at, at + 2),
            _ => {}
        }
    }
    (&line[..cut.0], line[cut.1..].trim())
}

struct Head<'a> {
    path: &'a str,
    path_quoted: bool,
    delimiter: &'a str,
    quoted: bool,
    strips_tabs: bool,
}

impl<'a> Head<'a> {
    /// `cat > PATH <<DELIM` or `cat <<DELIM > PATH`, nothing else.
    fn parse(segment: &'a str) -> Option<Self> {
        let mut rest = segment.strip_prefix("cat")?;
        if !rest.starts_with([' ', '\t']) {
            return None;
        }
        let mut path = None;
        let mut delimiter = None;
        let mut strips_tabs = false;
        for _ in 0..2 {
            rest = rest.trim_start();
            if let Some(after) = rest.strip_prefix("<<") {
                strips_tabs = after.starts_with('-');
                let after = after.strip_prefix('-').unwrap_or(after);
                let (word, quoted, tail) = operand(after.trim_start())?;
                delimiter = Some((word, quoted));
                rest = tail;
            } else {
                let after = rest.strip_prefix(">>").or_else(|| rest.strip_prefix('>'))?;
                let (word, quoted, tail) = operand(after.trim_start())?;
                path = Some((word, quoted));
                rest = tail;
            }
            if !(rest.is_empty() || rest.starts_with([' ', '\t'])) {
                return None;
            }
        }
        let (path, path_quoted) = path?;
        let (delimiter, quoted) = delimiter?;
        let plain = delimiter
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_');
        (rest.trim().is_empty() && plain).then_some(Self {
            path,
            path_quoted,
            delimiter,
            quoted,
            strips_tabs,
        })
    }
}

/// A word that is quoted whole or needs no quotes, and what follows it.
fn operand(text: &str) -> Option<(&str, bool, &str)> {
    let first = text.chars().next()?;
    if matches!(first, '"' | '\'') {
        let inner = &text[1..];
        let end = inner.find(first)?;
        let word = &inner[..end];
        // Single quotes keep `$` as it is; callers expand, so leave those alone.
        let literal = if first == '\'' {
            !word.contains('$')
        } else {
            !word.contains(['`', '\\']) && !word.contains("$(")
        };
        return (literal && !word.is_empty()).then_some((word, true, &inner[end + 1..]));
    }
    let end = text.find([' ', '\t']).unwrap_or(text.len());
    let word = &text[..end];
    let plain = !word.contains(|c: char| "`()<>;&|*?[]{}'\"\\!#".contains(c) || c.is_control())
        || word.starts_with("${")
            && !word[2..].contains(|c: char| "`()<>;&|*?[]{'\"\\!#".contains(c));
    (plain && !word.is_empty()).then_some((word, false, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_orders_are_read_and_the_rest_is_kept() {
        let write = find("cd x && cat > a.md << 'EOF'\nb $(c)\nEOF\nls").unwrap();
        assert_eq!(
            (write.before.trim(), write.path, write.after),
            ("cd x", "a.md", "ls")
        );
        assert_eq!(whole("cat <<E > \"a b\"\nx\nE\n").unwrap().path, "a b");
    }

    #[test]
    fn a_body_that_runs_something_or_ends_elsewhere_is_refused() {
        for text in [
            "cat > a << EOF\n$(id)\nEOF",
            "cat > a << EOF\n`id`\nEOF",
            "cat > a << EOF\nx",
            "cat > a <<- EOF\nx\n\tEOF\nid\nEOF",
            "cat > a << E\"O\"F\nx\nEOF",
            "cat > a b << EOF\nx\nEOF",
            "cat > a << EOF | sh\nx\nEOF",
            "cat > $(id) << 'EOF'\nx\nEOF",
            "cat > a << 'EOF'\r\nx\r\nEOF",
            "tee a << 'EOF'\nx\nEOF",
        ] {
            assert!(find(text).is_none(), "{text}");
        }
    }
}
