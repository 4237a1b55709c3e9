//! Paths as text: resolving, containment, home anchors.
//!
//! Nothing here touches the disk. Paths are `/`-separated absolute texts
//! without dot segments unless a function says otherwise (05 §4.4, §6, §7.5).

/// Resolves `path` against the absolute `cwd`, removing `.` and `..` lexically.
pub(super) fn resolve(cwd: &str, path: &str) -> String {
    let joined = if path.starts_with('/') { "" } else { cwd };
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    let mut out = String::with_capacity(cwd.len() + path.len() + 1);
    for part in &parts {
        out.push('/');
        out.push_str(part);
    }
    if out.is_empty() {
        out.push('/');
    }
    out
}

/// Whether `path` is `root` or below it.
pub(super) fn inside(path: &str, root: &str) -> bool {
    let root = root.trim_end_matches('/');
    path.strip_prefix(root)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What follows `root` in `path`, without the slash; empty when they are equal.
pub(super) fn below<'a>(path: &'a str, root: &str) -> Option<&'a str> {
    let root = root.trim_end_matches('/');
    let rest = path.strip_prefix(root)?;
    if rest.is_empty() {
        Some("")
    } else {
        rest.strip_prefix('/')
    }
}

/// The directory that holds `path`.
pub(super) fn parent(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) | None => "/",
        Some(at) => &path[..at],
    }
}

/// The last segment of `path`.
pub(super) fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Replaces a leading `~`, `~/`, `$HOME` or `${HOME}` with `home`.
pub(super) fn expand_home(path: &str, home: &str) -> String {
    for anchor in ["~", "${HOME}", "$HOME"] {
        if let Some(rest) = path.strip_prefix(anchor)
            && (rest.is_empty() || rest.starts_with('/'))
        {
            return format!("{home}{rest}");
        }
    }
    path.to_owned()
}

/// `C:\…` or `C:/…`: the drive letter, when `path` starts with one.
pub(super) fn has_drive(path: &str) -> bool {
    matches!(path.as_bytes(), [letter, b':', b'/' | b'\\', ..] if letter.is_ascii_alphabetic())
}

/// Whether some segment of `path` is `..`.
pub(super) fn climbs(path: &str) -> bool {
    path.split(['/', '\\']).any(|part| part == "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_segments_are_removed_and_never_climb_above_the_root() {
        for (cwd, path, out) in [
            ("/srv/app", "a/./b", "/srv/app/a/b"),
            ("/srv/app", "../x", "/srv/x"),
            ("/srv/app", "/a/../../b", "/b"),
            ("/", "", "/"),
            ("/srv/app", ".", "/srv/app"),
        ] {
            assert_eq!(resolve(cwd, path), out, "{cwd} {path}");
        }
    }

    #[test]
    fn containment_respects_segment_boundaries() {
        assert!(inside("/srv/app", "/srv/app"));
        assert!(inside("/srv/app/a", "/srv/app/"));
        assert!(!inside("/srv/app-secret", "/srv/app"));
        assert!(inside("/x", "/"));
        assert_eq!(below("/srv/app/a/b", "/srv/app"), Some("a/b"));
        assert_eq!(below("/srv/apple", "/srv/app"), None);
    }

    #[test]
    fn home_anchors_expand_only_at_a_boundary() {
        assert_eq!(expand_home("~/x", "/h"), "/h/x");
        assert_eq!(expand_home("${HOME}/x", "/h"), "/h/x");
        assert_eq!(expand_home("~user/x", "/h"), "~user/x");
        assert_eq!(expand_home("$HOMER/x", "/h"), "$HOMER/x");
    }
}
