//! Which commits a memory takes (06 §6.3, 07 §4.5): headers, places, sizes.
//!
//! Invariant: what is judged is the index, never the working tree, so what
//! passes is what will be committed. The same rules hold for commits of this
//! program and, through the hook, for those of an agent's own git.

use std::collections::HashMap;
use std::path::Path;

use globset::Glob;
use serde_json::Value;

use super::MemoryError;
use super::git::{Git, GitError};
use super::layout::Format;
use crate::frontmatter::Document;

const CONFIG: &str = ".memfs.config.json";
/// Where the arrangement of a repository is written down, below `.git`.
pub(super) const LAYOUT: &str = "letta-memory-layout-policy";
/// What stands there in a shared one: the rules of format 2 hold without an index.
pub(super) const SHARED: &str = "shared-memory\n";

/// Judges what is staged in the repository at `dir`. `in_hook` when git itself
/// asks; `config_may_change` is `LETTA_MEMORY_CONSTRAINTS_UPDATE=1`.
///
/// # Errors
/// [`MemoryError::Rules`] with a line per violation.
pub async fn check_staged(
    dir: &Path,
    in_hook: bool,
    config_may_change: bool,
) -> Result<(), MemoryError> {
    let git = Git::in_dir(dir).in_hook(in_hook);
    let diff = ["diff", "--cached", "--name-only", "--no-renames", "-z"];
    let staged = names(&git.run(&diff).await?);
    let tracked = names(&git.run(&["ls-files", "-z"]).await?);
    let layout = tokio::fs::read(dir.join(".git").join(LAYOUT)).await;
    let is_shared = layout.is_ok_and(|layout| layout == SHARED.as_bytes());
    let format = if is_shared || tracked.iter().any(|path| path == "MEMORY.md") {
        Format::V2
    } else {
        Format::V1
    };
    let mut wanted: Vec<String> = vec![format!(":{CONFIG}")];
    let judged: Vec<&String> = match format {
        Format::V1 => staged.iter().filter(|path| has_header_v1(path)).collect(),
        Format::V2 => tracked.iter().filter(|path| is_projected(path)).collect(),
    };
    for path in &judged {
        wanted.push(format!(":{path}"));
        wanted.push(format!("HEAD:{path}"));
    }
    if format == Format::V1 {
        // Sizes count for every file, where there are limits.
        let sized = tracked.iter().filter(|path| is_projected(path));
        wanted.extend(sized.map(|path| format!(":{path}")));
    }
    let texts = texts(git, &wanted).await?;
    let text = |name: String| texts.get(&name).map(String::as_str);
    let files: Vec<Staged<'_>> = judged
        .iter()
        .map(|path| Staged {
            path,
            now: text(format!(":{path}")),
            before: text(format!("HEAD:{path}")),
        })
        .collect();
    let mut wrong = Vec::new();
    if !config_may_change && staged.iter().any(|path| path == CONFIG) {
        wrong.push(format!("{CONFIG}: only its owner may change it"));
    }
    wrong.extend(staged.iter().filter_map(|path| misplaced_skill(path)));
    match format {
        Format::V1 => wrong.extend(files.iter().filter_map(header_v1)),
        Format::V2 => wrong.extend(files.iter().filter_map(header_v2)),
    }
    match Limits::read(text(format!(":{CONFIG}")), format) {
        Ok(None) => {}
        Ok(Some(limits)) => {
            let sized: Vec<(&str, &str)> = tracked
                .iter()
                .filter(|path| is_projected(path))
                .filter_map(|path| Some((path.as_str(), text(format!(":{path}"))?)))
                .collect();
            wrong.extend(limits.exceeded(&sized, format));
        }
        Err(problem) => wrong.push(format!("{CONFIG}: {problem}")),
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(MemoryError::Rules(wrong.join("\n")))
    }
}

/// One file before and after.
struct Staged<'a> {
    path: &'a str,
    now: Option<&'a str>,
    before: Option<&'a str>,
}

/// A file that needs the header of format 1.
fn has_header_v1(path: &str) -> bool {
    let path = path.strip_prefix("memory/").unwrap_or(path);
    path.ends_with(".md") && (path.starts_with("system/") || path.starts_with("reference/"))
}

/// A Markdown file that is memory rather than a skill or hidden.
fn is_projected(path: &str) -> bool {
    path.ends_with(".md")
        && !path.starts_with("skills/")
        && !path.split('/').any(|part| part.starts_with('.'))
}

fn misplaced_skill(path: &str) -> Option<String> {
    let flat = path.strip_prefix("skills/")?;
    let wrong = flat.ends_with(".md") && !flat.contains('/');
    let name = flat.trim_end_matches(".md");
    wrong.then(|| format!("{path}: a skill is a directory; move it to skills/{name}/SKILL.md"))
}

fn header_v1(file: &Staged<'_>) -> Option<String> {
    let wrong = |problem: &str| Some(format!("{}: {problem}", file.path));
    let before = file.before.map(Document::parse);
    let read_only = before.as_ref().and_then(|before| before.text("read_only"));
    if read_only == Some("true") && file.now != file.before {
        return wrong("it is read-only");
    }
    let document = Document::parse(file.now?);
    if !document.has_header {
        return wrong("it must open with a header between two lines of ---");
    }
    let unknown = document
        .fields
        .iter()
        .find(|(key, _)| !["description", "read_only", "limit"].contains(&key.as_str()));
    if let Some((key, _)) = unknown {
        return wrong(&format!(
            "the header may hold description, read_only and limit, not {key}"
        ));
    }
    if document.text("description").is_none() {
        return wrong("the header needs a description");
    }
    if document.text("read_only") != read_only {
        return wrong("read_only cannot be added, changed or removed");
    }
    None
}

fn header_v2(file: &Staged<'_>) -> Option<String> {
    let wrong = |problem: &str| Some(format!("{}: {problem}", file.path));
    let document = Document::parse(file.now?);
    if file.path == "MEMORY.md" || file.path.ends_with("/MEMORY.md") {
        return if document.has_header {
            wrong("MEMORY.md has no header")
        } else {
            None
        };
    }
    if !document.has_header {
        return wrong("it must open with a header of name and description");
    }
    let mut keys: Vec<&str> = document
        .fields
        .iter()
        .map(|(key, _)| key.as_str())
        .collect();
    keys.sort_unstable();
    if keys != ["description", "name"] {
        return wrong("the header holds name and description, each once, and nothing else");
    }
    if document.text("name").is_none() || document.text("description").is_none() {
        return wrong("name and description must not be empty");
    }
    None
}

/// How large a memory may be.
struct Limits {
    depth: u64,
    file: u64,
    core: u64,
    /// Patterns with a limit of their own; the first that fits counts.
    own: Vec<(globset::GlobMatcher, u64)>,
}

impl Limits {
    /// From `.memfs.config.json`; format 2 has limits without it.
    fn read(config: Option<&str>, format: Format) -> Result<Option<Self>, String> {
        let Some(config) = config else {
            return Ok((format == Format::V2).then(|| Self::from(&Value::Null)));
        };
        let config: Value =
            serde_json::from_str(config).map_err(|_| String::from("it is not valid JSON"))?;
        if config.get("version") != Some(&Value::from(1)) {
            return Err(String::from("its version must be 1"));
        }
        Ok(Some(Self::from(&config)))
    }

    fn from(config: &Value) -> Self {
        let number = |name: &str, default| {
            let value = config.get(name).and_then(Value::as_u64);
            value.unwrap_or(default)
        };
        let rows = config.get("fileCharacterLimits").and_then(Value::as_array);
        let own = rows
            .into_iter()
            .flatten()
            .filter_map(|row| {
                let glob = Glob::new(row.get("pattern")?.as_str()?).ok()?;
                Some((glob.compile_matcher(), row.get("maxCharacters")?.as_u64()?))
            })
            .collect();
        Self {
            depth: number("maxDepth", 2),
            file: number("maxFileCharacters", 20_000),
            core: number("maxCoreMemoryCharacters", 65_536),
            own,
        }
    }

    fn exceeded(&self, files: &[(&str, &str)], format: Format) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut core = 0;
        for (path, text) in files {
            let characters = text.chars().count() as u64;
            if format.in_prompt(path) {
                core += characters;
            }
            let own = self.own.iter().find(|(glob, _)| glob.is_match(path));
            let most = own.map_or(self.file, |(_, most)| *most);
            if characters > most {
                wrong.push(format!(
                    "{path}: {characters} characters; at most {most} fit, split it"
                ));
            }
            if path.matches('/').count() as u64 > self.depth {
                wrong.push(format!(
                    "{path}: it lies more than {} directories deep",
                    self.depth
                ));
            }
        }
        if core > self.core {
            wrong.push(format!(
                "The files in the prompt have {core} characters; at most {} fit.",
                self.core
            ));
        }
        if format == Format::V2 {
            let has = |path: &str| files.iter().any(|(known, _)| *known == path);
            let mut dirs: Vec<&str> = files
                .iter()
                .filter_map(|(path, _)| Some(path.rsplit_once('/')?.0))
                .collect();
            dirs.sort_unstable();
            dirs.dedup();
            let lost = dirs
                .into_iter()
                .filter(|dir| !has(&format!("{dir}/MEMORY.md")));
            wrong.extend(lost.map(|dir| {
                format!("{dir}/: a directory needs a MEMORY.md that says what lies in it")
            }));
        }
        wrong
    }
}

fn names(list: &str) -> Vec<String> {
    list.split('\0')
        // One that cannot be asked for line by line.
        .filter(|name| !name.is_empty() && !name.contains('\n'))
        .map(String::from)
        .collect()
}

/// The texts of objects, by the name asked for; those that do not exist are left out.
async fn texts(git: Git<'_>, names: &[String]) -> Result<HashMap<String, String>, GitError> {
    let request = names.join("\n") + "\n";
    let answer = git
        .stdin(request.as_bytes())
        .raw(&["cat-file", "--batch"])
        .await?;
    let mut texts = HashMap::new();
    let mut rest = &answer[..];
    for name in names {
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            break;
        };
        let (line, after) = rest.split_at(end);
        rest = &after[1..];
        let line = String::from_utf8_lossy(line);
        let mut words = line.rsplit(' ');
        let (Some(size), Some("blob")) = (words.next(), words.next()) else {
            continue;
        };
        let Ok(size) = size.parse::<usize>() else {
            continue;
        };
        let Some(text) = rest.get(..size) else { break };
        texts.insert(name.clone(), String::from_utf8_lossy(text).into_owned());
        rest = rest.get(size + 1..).unwrap_or_default();
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A repository with `before` committed and `after` staged; what is wrong with that.
    async fn judge(before: &Value, after: &Value, owner: bool) -> String {
        let dir = tempfile::tempdir().unwrap();
        let git = Git::in_dir(dir.path());
        git.run(&["init", "-q", "-b", "main"]).await.unwrap();
        let put = |files: &Value| {
            for (path, text) in files.as_object().unwrap() {
                let path = dir.path().join(path);
                match text.as_str() {
                    Some(text) => {
                        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                        std::fs::write(path, text).unwrap();
                    }
                    None => std::fs::remove_file(path).unwrap(),
                }
            }
        };
        put(before);
        git.run(&["add", "-A"]).await.unwrap();
        let commit = [
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@t",
            "commit",
            "-qm",
            "x",
            "--allow-empty",
        ];
        git.run(&commit).await.unwrap();
        put(after);
        git.run(&["add", "-A"]).await.unwrap();
        match check_staged(dir.path(), false, owner).await {
            Ok(()) => String::new(),
            Err(MemoryError::Rules(text)) => text,
            Err(error) => panic!("{error}"),
        }
    }

    #[tokio::test]
    async fn commits_are_judged_by_the_rules_of_their_format() {
        let cases: Vec<Value> =
            serde_json::from_str(include_str!("../../tests/data/device/memory-rules.json"))
                .unwrap();
        assert!(cases.len() > 20);
        for case in cases {
            let owner = case["owner"] == json!(true);
            let found = judge(&case["before"], &case["after"], owner).await;
            let expected = case["wrong"].as_str().unwrap();
            if expected.is_empty() {
                assert_eq!(found, "", "{case}");
            } else {
                assert!(found.contains(expected), "{found:?} for {case}");
            }
        }
    }
}
