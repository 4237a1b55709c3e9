//! Finding the lines of a hunk in a file, first exactly, then ever more
//! forgivingly.

use std::cell::OnceCell;

/// The lines of a file, without their ends, to search in.
pub(super) struct Lines<'a> {
    lines: Vec<&'a str>,
    /// Lines with typographic characters made plain; worked out when needed.
    plain: OnceCell<Vec<String>>,
}

/// How alike two lines must be.
#[derive(Clone, Copy)]
enum Pass {
    Exact,
    TrailingSpace,
    OuterSpace,
    Typography,
}

impl<'a> Lines<'a> {
    pub(super) fn new(lines: Vec<&'a str>) -> Self {
        Self {
            lines,
            plain: OnceCell::new(),
        }
    }

    /// Where `wanted` stands as a block at or after `from`; with `at_end`,
    /// only at the very end.
    pub(super) fn seek(&self, wanted: &[&str], from: usize, at_end: bool) -> Option<usize> {
        let last = self.lines.len().checked_sub(wanted.len())?;
        let from = if at_end { last } else { from };
        let mut plain = Vec::new();
        for pass in [
            Pass::Exact,
            Pass::TrailingSpace,
            Pass::OuterSpace,
            Pass::Typography,
        ] {
            if matches!(pass, Pass::Typography) {
                plain = wanted.iter().map(|line| plainly(line)).collect();
            }
            let found = (from..=last).find(|start| {
                (0..wanted.len()).all(|offset| {
                    let (line, wanted) = (self.lines[start + offset], wanted[offset]);
                    match pass {
                        Pass::Exact => line == wanted,
                        Pass::TrailingSpace => line.trim_end() == wanted.trim_end(),
                        Pass::OuterSpace => line.trim() == wanted.trim(),
                        Pass::Typography => self.plain()[start + offset] == plain[offset],
                    }
                })
            });
            if found.is_some() {
                return found;
            }
        }
        None
    }

    fn plain(&self) -> &[String] {
        self.plain
            .get_or_init(|| self.lines.iter().map(|line| plainly(line)).collect())
    }
}

/// Trimmed, with dashes, quotes and spaces as a keyboard types them.
fn plainly(line: &str) -> String {
    line.trim()
        .chars()
        .map(|character| match character {
            '\u{2010}'..='\u{2015}' | '\u{2212}' => '-',
            '\u{2018}'..='\u{201B}' => '\'',
            '\u{201C}'..='\u{201F}' => '"',
            '\u{00A0}' | '\u{2002}'..='\u{200A}' | '\u{202F}' | '\u{205F}' | '\u{3000}' => ' ',
            other => other,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_likeness_wins_over_the_nearest_place() {
        let lines = Lines::new(vec![
            "\tx ",
            " x",
            "x  ",
            "x",
            "say \u{201C}a\u{2013}b\u{201D}",
        ]);
        for (wanted, from, expected) in [
            ("x", 0, Some(3)),
            (" x", 0, Some(1)),
            ("x ", 0, Some(2)),
            ("  x", 0, Some(0)),
            ("say \"a-b\"", 0, Some(4)),
            ("x", 4, None),
            ("x", 99, None),
            ("y", 0, None),
        ] {
            assert_eq!(lines.seek(&[wanted], from, false), expected, "{wanted:?}");
        }
        assert_eq!(lines.seek(&["x"; 6], 0, false), None);
    }

    #[test]
    fn the_end_anchors_whatever_the_cursor_says() {
        let lines = Lines::new(vec!["a", "b", "a", "b"]);
        assert_eq!(lines.seek(&["a", "b"], 0, false), Some(0));
        assert_eq!(lines.seek(&["a", "b"], 0, true), Some(2));
        assert_eq!(lines.seek(&["a"], 0, true), None);
    }
}
