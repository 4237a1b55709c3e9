//! `--allowedTools` and `--disallowedTools`: a list of rules in one text.

use super::super::family::{Family, canonical_name};
use super::rule::normal_form;

/// Splits `text` at commas outside parentheses and completes bare names: a
/// shell becomes `Bash(:*)`, a file tool `<Name>(**)` (05 §4.2).
pub fn parse_tool_list(text: &str) -> Vec<String> {
    let mut depth = 0usize;
    let mut from = 0;
    let mut entries = Vec::new();
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                entries.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    entries.push(&text[from..]);
    entries
        .into_iter()
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .map(complete)
        .collect()
}

fn complete(entry: &str) -> String {
    if entry.contains('(') {
        return normal_form(entry);
    }
    let family = Family::of(entry);
    let name = canonical_name(entry);
    if family == Family::Bash {
        "Bash(:*)".to_owned()
    } else if family.is_file() {
        format!("{name}(**)")
    } else {
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_names_are_completed_and_commas_in_parentheses_kept() {
        assert_eq!(parse_tool_list("Bash,Read"), ["Bash(:*)", "Read(**)"]);
        assert_eq!(parse_tool_list("LS"), ["ListDir(**)"]);
        assert_eq!(
            parse_tool_list("Edit, Write ,Task"),
            ["Edit(**)", "Write(**)", "Task"]
        );
        assert_eq!(parse_tool_list("Bash(echo a,b)"), ["Bash(echo a,b)"]);
        assert_eq!(parse_tool_list("Agent,read,,"), ["Task", "read"]);
    }
}
