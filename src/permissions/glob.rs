//! The path patterns of file rules: the minimatch dialect (05 §4.4).
//!
//! Matching fills tables from right to left, so there is nothing to backtrack
//! over: the work is bounded by pattern size times path size, nested extglobs
//! included. A pattern that would be too large is refused when it is
//! compiled; the caller then takes the careful side.

mod brace;
mod segment;

use segment::Segment;

/// Longest pattern and path that are looked at, in bytes.
const MAX_LEN: usize = 4096;

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(super) struct Glob {
    /// One entry per brace alternative.
    alternatives: Vec<Vec<Part>>,
    negated: bool,
    never: bool,
}

#[derive(Clone, Debug)]
enum Part {
    /// `**` as a whole segment.
    Deep,
    One(Segment),
}

/// The pattern is longer or has more alternatives than is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

impl Glob {
    /// Compiles `pattern`, in which `/` separates and nothing escapes.
    pub(super) fn new(pattern: &str) -> Result<Self, TooLarge> {
        if pattern.len() > MAX_LEN {
            return Err(TooLarge);
        }
        let bare = pattern.trim_start_matches('!');
        let never = pattern.starts_with('#');
        let negated = (pattern.len() - bare.len()) % 2 == 1;
        let alternatives = brace::expand(bare)?
            .iter()
            .map(|text| parts(text))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            alternatives,
            negated,
            never,
        })
    }

    /// Whether `path` matches. Repeated slashes count as one.
    pub(super) fn matches(&self, path: &str) -> bool {
        if self.never || path.len() > MAX_LEN {
            return false;
        }
        let segments = split(path);
        let hit = self
            .alternatives
            .iter()
            .any(|parts| matches_parts(parts, &segments));
        hit != self.negated
    }
}

/// Splits at slashes; repeated ones collapse, a leading one gives an empty first.
fn split(path: &str) -> Vec<&str> {
    path.split('/')
        .enumerate()
        .filter(|(at, part)| *at == 0 || !part.is_empty())
        .map(|(_, part)| part)
        .collect()
}

fn parts(pattern: &str) -> Result<Vec<Part>, TooLarge> {
    let mut texts: Vec<&str> = Vec::new();
    for text in split(pattern) {
        let before = texts.last().copied().unwrap_or("");
        match text {
            ".." if !matches!(before, "" | "." | ".." | "**") => {
                texts.pop();
            }
            "**" if before == "**" => {}
            _ => texts.push(text),
        }
    }
    texts
        .into_iter()
        .map(|text| match text {
            "**" => Ok(Part::Deep),
            _ => Segment::new(text).map(Part::One),
        })
        .collect()
}

/// `reach[i]` says whether the parts seen so far (from the right) match
/// `segments[i..]`.
fn matches_parts(parts: &[Part], segments: &[&str]) -> bool {
    let count = segments.len();
    let mut reach = vec![false; count + 1];
    reach[count] = true;
    let last = parts.len().saturating_sub(1);
    for (index, part) in parts.iter().enumerate().rev() {
        let mut next = vec![false; count + 1];
        match part {
            Part::Deep => {
                // At the end of a pattern `**` wants at least one segment.
                next[count] = reach[count] && (index < last || index == 0);
                for at in (0..count).rev() {
                    let here = reach[at];
                    let further = !segments[at].starts_with('.')
                        && (next[at + 1] || (index == last && at + 1 == count));
                    next[at] = here || further;
                }
            }
            Part::One(segment) => {
                for at in 0..count {
                    next[at] = reach[at + 1] && segment.matches(segments[at]);
                }
            }
        }
        reach = next;
    }
    reach[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn hit(pattern: &str, path: &str) -> bool {
        Glob::new(pattern).unwrap().matches(path)
    }

    #[test]
    fn stars_stay_in_a_segment_and_skip_dot_files() {
        for (pattern, path, expected) in [
            ("*", "a", true),
            ("*", ".a", false),
            ("*.env", ".env", false),
            ("[.]env", ".env", true),
            ("src/*", "src/a", true),
            ("src/*", "src/a/b", false),
            ("src/?a", "src/.a", false),
            (".env*", ".env.local", true),
            ("src/.*/b", "src/.a/b", true),
            (".*", "..", false),
            ("*/x", "../x", false),
            ("[ab].ts", "a.ts", true),
            ("[!ab].ts", "c.ts", true),
            ("[[:digit:]]x", "1x", true),
            ("[a-c]x", "bx", true),
            ("A.TS", "a.ts", false),
            ("a[", "a[", true),
        ] {
            assert_eq!(hit(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn double_stars_cross_segments_but_no_dot_segment() {
        for (pattern, path, expected) in [
            ("**", "a/b", true),
            ("**", "/etc/hosts", true),
            ("**", ".env", false),
            ("**", "a/.b/c", false),
            ("src/**", "src", false),
            ("src/**", "src/a/b", true),
            ("**/x", "x", true),
            ("**/.env", "sub/.env", true),
            ("**/app/**", "/srv/app/a", true),
            ("/etc/**", "/etc", false),
            ("src/**b", "src/x/ab", false),
            ("src/a**b", "src/a**b", true),
            ("a//b", "a/b", true),
            ("a/../b", "b", true),
            ("a/./b", "a/b", false),
            ("**/.git/**", "x/.git/config", true),
        ] {
            assert_eq!(hit(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn braces_extglobs_and_negation_work_as_in_minimatch() {
        for (pattern, path, expected) in [
            ("*.{env,key}", "a.key", true),
            ("*.{env,key}", "a.txt", false),
            ("a{1..3}", "a2", true),
            ("a{3..1}", "a2", true),
            ("a{b,c{d,e}}", "ace", true),
            ("{a}", "{a}", true),
            ("src/!(a).ts", "src/b.ts", true),
            ("src/!(a).ts", "src/a.ts", false),
            ("!(a).ts", "b.ts", true),
            ("!a.ts", "b.ts", true),
            ("!!a.ts", "a.ts", true),
            ("+(a|b).ts", "ab.ts", true),
            ("?(a)b", "b", true),
            ("*(ab)c", "ababc", true),
            ("@(a|b)", "c", false),
            ("#a", "#a", false),
            ("dir(1)/x", "dir(1)/x", true),
        ] {
            assert_eq!(hit(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn hostile_patterns_end_quickly() {
        let started = Instant::now();
        let stars = "*a".repeat(400);
        assert!(!hit(&stars, &"a".repeat(255)));
        let deep = "**/a/".repeat(200) + "b";
        assert!(!hit(&deep, &"a/".repeat(1000)));
        let nested = format!("{}a{}b", "+(".repeat(15), ")".repeat(15));
        assert!(!hit(&nested, &"a".repeat(255)));
        let choices = "+(a|+(b|+(c|+(d|*(e)))))x";
        assert!(!hit(choices, &"abcde".repeat(50)));
        assert!(hit(choices, &format!("{}x", "abcde".repeat(50))));
        assert!(Glob::new(&"+(".repeat(1000)).is_ok());
        assert!(Glob::new(&format!("{}a{}", "+(".repeat(60), ")".repeat(60))).is_err());
        assert!(Glob::new(&"{a,b}".repeat(40)).is_err());
        assert!(Glob::new("{1..999999999}").is_err());
        assert!(started.elapsed() < Duration::from_secs(2));
    }
}
