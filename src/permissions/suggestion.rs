//! The one rule that an approval may save (05 §10).

use super::context::Context;
use super::family::{Family, Request};
use super::path;
use super::shell::normal;

/// Where a saved rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// This conversation, until the process ends.
    Session,
    /// The project: `.letta/settings.json` of the working directory.
    Project,
}

/// A rule that `save-default` saves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// The rule.
    pub rule: String,
    /// Where it holds.
    pub scope: Scope,
    /// What a human reads.
    pub text: String,
}

impl Suggestion {
    fn session(rule: impl Into<String>, text: impl Into<String>) -> Option<Self> {
        Some(Self {
            rule: rule.into(),
            scope: Scope::Session,
            text: text.into(),
        })
    }

    fn project(rule: impl Into<String>, text: impl Into<String>) -> Option<Self> {
        Some(Self {
            rule: rule.into(),
            scope: Scope::Project,
            text: text.into(),
        })
    }
}

/// The suggestion for a call that goes to a human.
pub fn suggest(request: &Request<'_>, context: &Context<'_>) -> Option<Suggestion> {
    let absolute = context.resolve(request.path().unwrap_or_default());
    let dir = path::parent(&absolute);
    let inside = path::inside(&absolute, &context.cwd);
    match request.family() {
        Family::Bash => shell_suggestion(request),
        Family::Read if inside => Suggestion::session(
            relative_rule("Read", dir, &context.cwd),
            "Yes, allow reading project files during this session",
        ),
        Family::Read => Suggestion::project(
            format!("Read(/{dir}/**)"),
            format!(
                "Yes, allow reading from {}/ in this project",
                shown(dir, &context.home)
            ),
        ),
        Family::Write => {
            Suggestion::session("Write(**)", "Yes, allow all writes during this session")
        }
        Family::Edit if inside && dir == context.cwd => Suggestion::session(
            "Edit(**)",
            "Yes, switch to accept edits mode for this session",
        ),
        Family::Edit if inside => {
            let below = path::below(dir, &context.cwd).unwrap_or_default();
            Suggestion::project(
                format!("Edit({below}/**)"),
                format!("Yes, allow editing files in {below}/ in this project"),
            )
        }
        Family::Edit => Suggestion::project(
            format!("Edit(/{dir}/**)"),
            format!(
                "Yes, allow editing files in {}/ in this project",
                shown(dir, &context.home)
            ),
        ),
        Family::Task => {
            Suggestion::session("Task", "Yes, allow subagent operations during this session")
        }
        _ => Suggestion::session(
            request.tool,
            format!("Yes, allow {} operations during this session", request.tool),
        ),
    }
}

fn relative_rule(name: &str, dir: &str, cwd: &str) -> String {
    match path::below(dir, cwd) {
        Some(below) if !below.is_empty() => format!("{name}({below}/**)"),
        _ => format!("{name}(**)"),
    }
}

fn shown(dir: &str, home: &str) -> String {
    match path::below(dir, home) {
        Some(below) => format!("~/{below}"),
        None => dir.to_owned(),
    }
}

/// Words that a rule should never wave through.
const DANGEROUS: [&str; 10] = [
    "rm", "mv", "chmod", "chown", "sudo", "dd", "mkfs", "fdisk", "kill", "killall",
];
const DANGEROUS_FLAGS: [&str; 3] = ["--force", "--hard", "-f"];

fn shell_suggestion(request: &Request<'_>) -> Option<Suggestion> {
    let command = request.command()?;
    let text = command.joined();
    let unwrapped = normal::unwrap_launcher(&text);
    for whole in [&*text, &*unwrapped] {
        let pieces = whole.split("&&").flat_map(|piece| piece.split(['|', ';']));
        for piece in pieces {
            if piece
                .split_whitespace()
                .next()
                .is_some_and(|word| DANGEROUS.contains(&word))
            {
                return None;
            }
        }
    }
    if unwrapped
        .split_whitespace()
        .any(|word| DANGEROUS_FLAGS.contains(&word))
    {
        return None;
    }
    let primary = normal::primary(&text);
    if let Some(prefix) = known_prefix(&primary) {
        return Suggestion::project(
            format!("Bash({prefix}:*)"),
            format!("Yes, and don't ask again for '{prefix}' commands in this project"),
        );
    }
    if primary.is_empty() {
        return None;
    }
    let cut: String = primary.chars().take(40).collect();
    let dots = if cut.len() < primary.len() { "..." } else { "" };
    Suggestion::project(
        format!("Bash({primary})"),
        format!("Yes, and don't ask again for '{cut}{dots}' in this project"),
    )
}

/// The words that name what a tool is about to do, for tools that have such words.
fn known_prefix(primary: &str) -> Option<String> {
    let words: Vec<&str> = primary.split_whitespace().collect();
    let first = *words.first()?;
    let second = words.get(1).copied();
    match first {
        "git" => second
            .filter(|word| !word.starts_with('-'))
            .map(|sub| format!("git {sub}")),
        "gh" => Some(match (second, words.get(2)) {
            (None, _) => String::from("gh"),
            (Some(category @ ("search" | "api" | "status")), _) => format!("gh {category}"),
            (Some(category), None) => format!("gh {category}"),
            (Some(category), Some(action)) => format!("gh {category} {action}"),
        }),
        "npm" | "bun" | "yarn" | "pnpm" => match (second?, words.get(2)) {
            ("run", Some(script)) => Some(format!("{first} run {script}")),
            (word, _) => Some(format!("{first} {word}")),
        },
        "npx" | "bunx" => second.map(|word| format!("{first} {word}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::LexicalDisk;
    use super::*;
    use serde_json::{Value, json};

    fn of(tool: &str, args: Value) -> Option<(String, Scope)> {
        let args = args.as_object().unwrap();
        let context = Context::new("/srv/app", "/home/u", &LexicalDisk);
        suggest(&Request { tool, args }, &context).map(|s| (s.rule, s.scope))
    }

    #[test]
    fn suggestions_name_the_narrowest_useful_rule() {
        assert_eq!(
            of("Bash", json!({"command":"git push origin"})),
            Some(("Bash(git push:*)".into(), Scope::Project))
        );
        assert_eq!(
            of("Bash", json!({"command":"npm run build -- --x"})),
            Some(("Bash(npm run build:*)".into(), Scope::Project))
        );
        assert_eq!(
            of("Bash", json!({"command":"mkdir -p zz && ls"})),
            Some(("Bash(mkdir -p zz)".into(), Scope::Project))
        );
        assert_eq!(of("Bash", json!({"command":"ls; rm x"})), None);
        assert_eq!(of("Bash", json!({"command":"git push --force"})), None);
        assert_eq!(
            of("Edit", json!({"file_path":"a.txt"})),
            Some(("Edit(**)".into(), Scope::Session))
        );
        assert_eq!(
            of("Edit", json!({"file_path":"src/a.txt"})),
            Some(("Edit(src/**)".into(), Scope::Project))
        );
        assert_eq!(
            of("Read", json!({"file_path":"/etc/hosts"})),
            Some(("Read(//etc/**)".into(), Scope::Project))
        );
        assert_eq!(
            of("Write", json!({"file_path":"a"})),
            Some(("Write(**)".into(), Scope::Session))
        );
    }
}
