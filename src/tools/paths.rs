//! From a path as a model wrote it to an absolute path (04 §5.2).
//!
//! Invariant: the result is absolute and lexically clean (no `.` or `..`), so
//! that what permissions judged is what a tool opens.

use std::env;
use std::path::{Component, Path, PathBuf};

use super::tool::ToolContext;

/// A path of Read, Edit, Write and MultiEdit: `~`, `$VAR` and `${VAR}` are
/// expanded, then it is taken relative to the working directory.
pub fn expanded(path: &str, context: &ToolContext) -> PathBuf {
    let expand = |part: &str| expand_variables(part, |name| env::var(name).ok());
    match below_home(path) {
        Some(rest) => clean(&context.home.join(expand(rest))),
        None => resolve(&expand(path), &context.cwd.get()),
    }
}

/// A path of SetWorkingDirectory: `~` is expanded, variables are not.
pub fn with_home(path: &str, home: &Path, cwd: &Path) -> PathBuf {
    match below_home(path) {
        Some(rest) => clean(&home.join(rest)),
        None => resolve(path, cwd),
    }
}

/// A path taken literally, relative to `cwd`: Glob, Grep, LS, `list_dir`,
/// `read_file`, ViewImage, ApplyPatch.
pub fn resolve(path: &str, cwd: &Path) -> PathBuf {
    clean(&cwd.join(path))
}

/// Removes `.` and resolves `..` without looking at the disk.
pub fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

/// What follows `~/`, if the path starts at home.
fn below_home(path: &str) -> Option<&str> {
    match path.strip_prefix('~')? {
        "" => Some(""),
        rest => rest
            .strip_prefix('/')
            .map(|rest| rest.trim_start_matches('/')),
    }
}

/// Parts of names whose values must not end up in an error text by way of a
/// path that does not exist.
const SECRET_NAMES: [&str; 5] = ["KEY", "TOKEN", "SECRET", "PASSW", "CREDENTIAL"];

/// Replaces `$NAME` and `${NAME}`; a name that `lookup` does not know, or that
/// looks like a secret, stays as it is.
fn expand_variables(path: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let lookup = |name: &str| {
        let upper = name.to_ascii_uppercase();
        let secret = SECRET_NAMES.iter().any(|part| upper.contains(part));
        // The environment panics on nothing, but it cannot hold such names either.
        let possible = !name.is_empty() && !name.contains(['=', '\0']);
        (possible && !secret).then(|| lookup(name)).flatten()
    };
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let (name, length) = match after.strip_prefix('{') {
            Some(braced) => match braced.find('}') {
                Some(end) => (&braced[..end], end + 3),
                None => ("", 1),
            },
            None => {
                let end = after
                    .find(|c: char| c != '_' && !c.is_ascii_alphanumeric())
                    .unwrap_or(after.len());
                let digit_first = after.starts_with(|c: char| c.is_ascii_digit());
                if digit_first {
                    ("", 1)
                } else {
                    (&after[..end], end + 1)
                }
            }
        };
        match lookup(name) {
            Some(value) => out.push_str(&value),
            None => out.push_str(&rest[at..at + length]),
        }
        rest = &rest[at + length..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_start_at_the_working_directory() {
        let cwd = Path::new("/work/dir");
        for (path, expected) in [
            ("a/b", "/work/dir/a/b"),
            ("./a/../b", "/work/dir/b"),
            ("../../../x", "/x"),
            ("/abs//x/./y/", "/abs/x/y"),
            ("~/x", "/work/dir/~/x"),
            ("", "/work/dir"),
        ] {
            assert_eq!(resolve(path, cwd), Path::new(expected), "{path}");
        }
    }

    #[test]
    fn a_leading_tilde_is_home() {
        let (home, cwd) = (Path::new("/home/u"), Path::new("/w"));
        for (path, expected) in [
            ("~", "/home/u"),
            ("~/a", "/home/u/a"),
            ("~other/a", "/w/~other/a"),
            ("a/~", "/w/a/~"),
            ("$HOME", "/w/$HOME"),
        ] {
            assert_eq!(with_home(path, home, cwd), Path::new(expected), "{path}");
        }
    }

    #[test]
    fn known_variables_are_replaced_and_secrets_are_not() {
        let lookup = |name: &str| match name {
            "DIR" => Some("/d".to_owned()),
            "MY_TOKEN" | "LETTA_API_KEY" => Some("secret".to_owned()),
            _ => None,
        };
        for (path, expected) in [
            ("$DIR/a", "/d/a"),
            ("${DIR}x$DIR", "/dx/d"),
            ("$NOPE/a", "$NOPE/a"),
            ("${NOPE}", "${NOPE}"),
            ("$LETTA_API_KEY/x", "$LETTA_API_KEY/x"),
            ("${MY_TOKEN}", "${MY_TOKEN}"),
            ("a$", "a$"),
            ("${", "${"),
            ("${}", "${}"),
            ("$1é$DIR", "$1é/d"),
            ("$$DIR", "$/d"),
        ] {
            assert_eq!(expand_variables(path, lookup), expected, "{path}");
        }
    }
}
