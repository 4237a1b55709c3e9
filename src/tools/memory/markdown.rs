//! A file of memory: frontmatter and body, in both formats (07 §4.5).
//!
//! Invariant: what a change is not about stays as it stands there, `limit:` and
//! blocks of several lines in a header of format v1 among it.

use serde_json::Value;

use super::Store;
use crate::tools::offload::Failure;

/// A file taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Document {
    /// Only in format v2.
    pub(super) name: String,
    /// What the file is about; empty in an index.
    pub(super) description: String,
    /// Format v1: nobody may change it.
    pub(super) read_only: bool,
    /// The lines of the frontmatter as they stand there; none in a new file.
    pub(super) header: Vec<String>,
    /// Everything below the frontmatter.
    pub(super) body: String,
}

impl Store {
    /// Takes apart the text of `path`, which may be changed.
    pub(super) fn parse(&self, path: &str, text: &str) -> Result<Document, Failure> {
        let document = self.parse_any(path, text)?;
        if document.read_only {
            return Err(self.error(format!("{path} is read_only and cannot be modified")));
        }
        Ok(document)
    }

    fn parse_any(&self, path: &str, text: &str) -> Result<Document, Failure> {
        let wrong = |what: &str| Err(self.error(format!("{path}: {what}")));
        let front = text.strip_prefix("---\n");
        if self.is_index(path) {
            if front.is_some() {
                return wrong("MEMORY.md must not have frontmatter");
            }
            return Ok(Document {
                body: text.to_owned(),
                ..Document::default()
            });
        }
        let parts = front.and_then(|front| {
            front
                .split_once("\n---\n")
                .or_else(|| Some((front.strip_suffix("\n---")?, "")))
        });
        let Some((front, body)) = parts else {
            return wrong("the file must begin with frontmatter between two lines of ---");
        };
        let mut document = Document {
            header: front.lines().map(String::from).collect(),
            body: body.to_owned(),
            ..Document::default()
        };
        let mut keys = Vec::new();
        for line in front.lines() {
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            let (key, value) = (key.trim(), value.trim());
            keys.push(key);
            match key {
                "description" => document.description = self.value(value),
                "name" => document.name = self.value(value),
                "read_only" => document.read_only = value == "true",
                _ => {}
            }
        }
        if document.description.trim().is_empty() {
            return wrong("the frontmatter needs a description");
        }
        if self.indexed {
            keys.sort_unstable();
            if keys != ["description", "name"] || document.name.trim().is_empty() {
                return wrong("the frontmatter must hold exactly name and description");
            }
        }
        Ok(document)
    }

    /// A value of the frontmatter; v2 quotes it.
    fn value(&self, raw: &str) -> String {
        if !self.indexed {
            return raw.to_owned();
        }
        if let Ok(Value::String(text)) = serde_json::from_str(raw) {
            return text;
        }
        let single = raw
            .strip_prefix('\'')
            .and_then(|raw| raw.strip_suffix('\''));
        single.map_or_else(|| raw.to_owned(), |text| text.replace("''", "'"))
    }

    /// The text of a document.
    pub(super) fn render(&self, path: &str, document: &Document) -> Result<String, Failure> {
        let body = &document.body;
        if self.is_index(path) {
            let end = if body.is_empty() || body.ends_with('\n') {
                ""
            } else {
                "\n"
            };
            return Ok(format!("{body}{end}"));
        }
        let line = |text: &str| {
            text.replace("\r\n", " ")
                .replace('\n', " ")
                .trim()
                .to_owned()
        };
        let description = line(&document.description);
        if description.is_empty() {
            return Err(self.error("'description' must not be empty"));
        }
        let description = if self.indexed {
            format!("description: {}", Value::from(description))
        } else {
            format!("description: {description}")
        };
        let header = if !document.header.is_empty() {
            self.described(document, description).join("\n")
        } else if self.indexed {
            format!("name: {}\n{description}", Value::from(line(&document.name)))
        } else {
            description
        };
        Ok(format!("---\n{header}\n---\n{body}"))
    }

    /// The header that stands there; with another line for the description when
    /// that has changed.
    fn described(&self, document: &Document, description: String) -> Vec<String> {
        let header = &document.header;
        let value = |line: &str| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == "description").then(|| self.value(value.trim()))
        };
        // The last one counts, as when it was read.
        let Some(at) = header.iter().rposition(|line| value(line).is_some()) else {
            return header.clone();
        };
        if value(&header[at]).as_deref() == Some(document.description.as_str()) {
            return header.clone();
        }
        // Its block goes with it.
        let after = header[at + 1..]
            .iter()
            .take_while(|line| line.starts_with([' ', '\t']));
        let after = at + 1 + after.count();
        let mut lines = header[..at].to_vec();
        lines.push(description);
        lines.extend_from_slice(&header[after..]);
        lines
    }
}

/// `notes/on-call_rota` → `On Call Rota`.
pub(super) fn default_name(label: &str) -> String {
    let last = label.rsplit('/').next().unwrap_or(label);
    let last = last.strip_suffix(".md").unwrap_or(last);
    let words = last.split(['-', '_']).filter(|word| !word.is_empty());
    let words: Vec<String> = words
        .map(|word| {
            let mut letters = word.chars();
            let first = letters.next().map(char::to_uppercase);
            first.into_iter().flatten().chain(letters).collect()
        })
        .collect();
    if words.is_empty() {
        return "Memory".into();
    }
    words.join(" ")
}
