//! The header of a Markdown file: lines between `---` and `---` (07 §2.4).
//!
//! Line-based, not YAML. Invariant: reading never fails; what is no header is
//! body, and fields keep their order and their repetitions.

/// A Markdown text taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// Key and value, in order.
    pub fields: Vec<(String, Field)>,
    /// What follows the header; the whole text when there is none. Line ends are `\n`.
    pub body: String,
    /// Whether there is a header.
    pub has_header: bool,
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// A line or a block.
    Text(String),
    /// `- item` lines.
    List(Vec<String>),
}

impl Document {
    /// Takes a text apart.
    pub fn parse(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let mut lines = text.split('\n');
        if lines.next() != Some("---") {
            return Self {
                body: text,
                ..Self::default()
            };
        }
        let header: Vec<&str> = lines.by_ref().take_while(|line| *line != "---").collect();
        if text.split('\n').nth(header.len() + 1) != Some("---") {
            return Self {
                body: text,
                ..Self::default()
            };
        }
        Self {
            fields: fields(&header),
            body: lines.collect::<Vec<_>>().join("\n"),
            has_header: true,
        }
    }

    /// The first text field called `key`, without quotes around it; `None` when
    /// missing, empty or a list.
    pub fn text(&self, key: &str) -> Option<&str> {
        let value = self.fields.iter().find_map(|(name, value)| match value {
            Field::Text(text) if name == key => Some(unquote(text)),
            _ => None,
        })?;
        (!value.is_empty()).then_some(value)
    }
}

fn unquote(text: &str) -> &str {
    ['"', '\'']
        .iter()
        .find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote))
        .unwrap_or(text)
}

fn fields(lines: &[&str]) -> Vec<(String, Field)> {
    let mut fields = Vec::new();
    let mut rest = lines;
    while let Some((line, after)) = rest.split_first() {
        rest = after;
        if line.starts_with([' ', '\t']) {
            continue;
        }
        let Some((key, value)) = line.split_once(':').filter(|(key, _)| !key.is_empty()) else {
            continue;
        };
        let value = value.trim();
        let count = rest
            .iter()
            .take_while(|line| line.is_empty() || line.starts_with([' ', '\t']))
            .count();
        let (block, after) = rest.split_at(count);
        let value = if value.is_empty() {
            rest = after;
            list(block)
        } else if let Some(fold) = block_style(value) {
            rest = after;
            Field::Text(scalar(block, fold))
        } else {
            Field::Text(value.to_owned())
        };
        fields.push((key.trim().to_owned(), value));
    }
    fields
}

fn list(block: &[&str]) -> Field {
    let items: Vec<String> = block
        .iter()
        .filter_map(|line| Some(unquote(line.trim().strip_prefix('-')?.trim()).to_owned()))
        .collect();
    if items.is_empty() {
        Field::Text(String::new())
    } else {
        Field::List(items)
    }
}

/// Whether a block scalar starts here, and whether it folds its lines.
fn block_style(value: &str) -> Option<bool> {
    match value.trim_end_matches(['+', '-']) {
        "|" => Some(false),
        ">" => Some(true),
        _ => None,
    }
}

fn scalar(block: &[&str], fold: bool) -> String {
    let indent = |line: &&str| line.len() - line.trim_start_matches([' ', '\t']).len();
    let least = block
        .iter()
        .filter(|line| !line.trim().is_empty())
        .map(indent)
        .min()
        .unwrap_or(0);
    let lines: Vec<&str> = block
        .iter()
        .map(|line| line.get(least..).unwrap_or(""))
        .collect();
    lines
        .join(if fold { " " } else { "\n" })
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Field {
        Field::Text(value.into())
    }

    #[test]
    fn a_header_is_lines_between_two_rules_at_the_very_start() {
        let document = Document::parse("\u{feff}---\r\nname: a: b \r\n---\r\nbody\r\n");
        assert_eq!(document.fields, [("name".into(), text("a: b"))]);
        assert_eq!(document.body, "body\n");
        for none in ["", "x\n---\na: b\n---\n", "---\na: b\n", " ---\na: b\n---"] {
            let document = Document::parse(none);
            assert!(!document.has_header, "{none:?}");
            assert_eq!(document.body, none);
        }
        assert!(Document::parse("---\n---").has_header);
    }

    #[test]
    fn lists_blocks_and_repetitions_are_kept() {
        let document = Document::parse(
            "---\ntags:\n  - one\n  - \"two\"\nlong: |\n  a\n    b\n\nfolded: >-\n  c\n  d\nempty:\nno colon\n  stray\nx: 1\nx: 2\n---\n",
        );
        assert_eq!(
            document.fields,
            [
                ("tags".into(), Field::List(vec!["one".into(), "two".into()])),
                ("long".into(), text("a\n  b")),
                ("folded".into(), text("c d")),
                ("empty".into(), text("")),
                ("x".into(), text("1")),
                ("x".into(), text("2")),
            ]
        );
    }

    #[test]
    fn quotes_around_a_value_are_dropped() {
        let document = Document::parse("---\na: \"x\"\nb: 'y'\nc: \"z\nd:\n---\n");
        assert_eq!(document.text("a"), Some("x"));
        assert_eq!(document.text("b"), Some("y"));
        assert_eq!(document.text("c"), Some("\"z"));
        assert_eq!(document.text("d"), None);
    }
}
