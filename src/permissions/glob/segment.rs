//! One segment of a pattern: literals, `*`, `?`, classes and extglobs.
//!
//! A node maps the set of positions from which the rest matches to the set of
//! positions from which node and rest match. Sets are bit vectors over the
//! characters of one path segment.

/// Deepest nesting of extglobs; deeper ones are literal text.
const MAX_DEPTH: usize = 16;

#[derive(Clone, Debug)]
pub(super) struct Segment {
    nodes: Vec<Node>,
    /// Written without any wildcard: compared as text.
    literal: Option<String>,
}

#[derive(Clone, Debug)]
enum Node {
    Char(char),
    Any,
    Star,
    Class { ranges: Vec<Range>, negated: bool },
    Ext { kind: Ext, choices: Vec<Vec<Node>> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ext {
    Once,
    Optional,
    Many,
    Some,
    Not,
}

#[derive(Clone, Debug)]
enum Range {
    Chars(char, char),
    Named(fn(char) -> bool),
}

impl Segment {
    pub(super) fn new(text: &str) -> Self {
        let chars: Vec<char> = text.chars().collect();
        let nodes = parse(&chars, 0);
        let literal = nodes
            .iter()
            .map(|node| match node {
                Node::Char(c) => Some(*c),
                _ => None,
            })
            .collect();
        Self { nodes, literal }
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        if let Some(literal) = &self.literal {
            return literal == text;
        }
        // No wildcard takes the place of nothing, of `.` or of `..`.
        if matches!(text, "" | "." | "..") {
            return false;
        }
        let chars: Vec<char> = text.chars().collect();
        let mut end = vec![false; chars.len() + 1];
        end[chars.len()] = true;
        before(&self.nodes, &chars, end)[0]
    }
}

/// The positions from which `nodes` lead to a position in `target`.
fn before(nodes: &[Node], text: &[char], mut target: Vec<bool>) -> Vec<bool> {
    for node in nodes.iter().rev() {
        target = before_node(node, text, target);
    }
    target
}

fn before_node(node: &Node, text: &[char], target: Vec<bool>) -> Vec<bool> {
    match node {
        Node::Char(c) => step(text, &target, |_, x| x == *c),
        Node::Any => step(text, &target, not_leading_dot),
        Node::Class { ranges, negated } => step(text, &target, |at, x| {
            let inside = ranges.iter().any(|range| match range {
                Range::Chars(low, high) => (*low..=*high).contains(&x),
                Range::Named(test) => test(x),
            });
            inside != *negated && not_leading_dot(at, x)
        }),
        Node::Star => run(text, &target),
        Node::Ext { kind, choices } => {
            let through = |target: &[bool]| {
                let mut out = vec![false; target.len()];
                for choice in choices {
                    let one = before(choice, text, target.to_vec());
                    merge(&mut out, &one);
                }
                out
            };
            match kind {
                Ext::Once => through(&target),
                Ext::Optional => {
                    let mut out = through(&target);
                    merge(&mut out, &target);
                    out
                }
                Ext::Many => closure(target, through),
                Ext::Some => {
                    let all = closure(target, through);
                    through(&all)
                }
                Ext::Not => {
                    let refused = through(&target);
                    let mut out = run(text, &target);
                    for (at, slot) in out.iter_mut().enumerate() {
                        *slot &= !refused[at];
                    }
                    out
                }
            }
        }
    }
}

/// Repeats `through` until nothing new is reached. Each round adds a position
/// or ends, and a segment has few positions.
fn closure(mut all: Vec<bool>, through: impl Fn(&[bool]) -> Vec<bool>) -> Vec<bool> {
    loop {
        let more = through(&all);
        if !merge(&mut all, &more) {
            return all;
        }
    }
}

/// Adds `from` to `into`; whether that changed anything.
fn merge(into: &mut [bool], from: &[bool]) -> bool {
    let mut changed = false;
    for (slot, more) in into.iter_mut().zip(from) {
        changed |= *more && !*slot;
        *slot |= *more;
    }
    changed
}

fn step(text: &[char], target: &[bool], test: impl Fn(usize, char) -> bool) -> Vec<bool> {
    let mut out = vec![false; target.len()];
    for (at, c) in text.iter().enumerate() {
        out[at] = target[at + 1] && test(at, *c);
    }
    out
}

/// Any run of characters, an empty one included.
fn run(text: &[char], target: &[bool]) -> Vec<bool> {
    let mut out = target.to_vec();
    for at in (0..text.len()).rev() {
        out[at] |= out[at + 1] && not_leading_dot(at, text[at]);
    }
    out
}

fn not_leading_dot(at: usize, c: char) -> bool {
    at > 0 || c != '.'
}

fn parse(text: &[char], depth: usize) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let kind = match text[at] {
            '@' => Some(Ext::Once),
            '?' => Some(Ext::Optional),
            '*' => Some(Ext::Many),
            '+' => Some(Ext::Some),
            '!' => Some(Ext::Not),
            _ => None,
        };
        if let Some(kind) = kind
            && text.get(at + 1) == Some(&'(')
            && depth < MAX_DEPTH
            && let Some((choices, end)) = parse_choices(text, at + 2, depth + 1)
        {
            nodes.push(Node::Ext { kind, choices });
            at = end;
            continue;
        }
        match text[at] {
            '*' => {
                if !matches!(nodes.last(), Some(Node::Star)) {
                    nodes.push(Node::Star);
                }
            }
            '?' => nodes.push(Node::Any),
            '[' => {
                if let Some((node, end)) = parse_class(text, at + 1) {
                    nodes.push(node);
                    at = end;
                    continue;
                }
                nodes.push(Node::Char('['));
            }
            c => nodes.push(Node::Char(c)),
        }
        at += 1;
    }
    nodes
}

/// The choices of an extglob whose `(` ends before `start`, and where it ends.
fn parse_choices(text: &[char], start: usize, depth: usize) -> Option<(Vec<Vec<Node>>, usize)> {
    let mut choices = Vec::new();
    let mut from = start;
    let mut open = 0usize;
    for at in start..text.len() {
        match text[at] {
            '(' => open += 1,
            ')' if open > 0 => open -= 1,
            ')' => {
                choices.push(parse(&text[from..at], depth));
                return Some((choices, at + 1));
            }
            '|' if open == 0 => {
                choices.push(parse(&text[from..at], depth));
                from = at + 1;
            }
            _ => {}
        }
    }
    None
}

fn parse_class(text: &[char], start: usize) -> Option<(Node, usize)> {
    let mut at = start;
    let negated = matches!(text.get(at), Some('!' | '^'));
    if negated {
        at += 1;
    }
    let first = at;
    let mut ranges = Vec::new();
    loop {
        let c = *text.get(at)?;
        if c == ']' && at > first {
            return Some((Node::Class { ranges, negated }, at + 1));
        }
        if c == '['
            && let Some((test, end)) = parse_named(text, at)
        {
            ranges.push(Range::Named(test));
            at = end;
            continue;
        }
        let high = match (text.get(at + 1), text.get(at + 2)) {
            (Some('-'), Some(high)) if *high != ']' => Some(*high),
            _ => None,
        };
        match high {
            Some(high) => {
                ranges.push(Range::Chars(c, high));
                at += 3;
            }
            None => {
                ranges.push(Range::Chars(c, c));
                at += 1;
            }
        }
    }
}

/// Whether a character belongs to a named class.
type CharTest = fn(char) -> bool;

/// `[:name:]` at `at`, and where it ends.
fn parse_named(text: &[char], at: usize) -> Option<(CharTest, usize)> {
    let rest: String = text.get(at..)?.iter().take(12).collect();
    let name = rest.strip_prefix("[:")?.split(":]").next()?;
    let test: CharTest = match name {
        "alnum" => char::is_alphanumeric,
        "alpha" => char::is_alphabetic,
        "ascii" => |c| c.is_ascii(),
        "blank" => |c| c == ' ' || c == '\t',
        "cntrl" => char::is_control,
        "digit" => |c| c.is_ascii_digit(),
        "graph" => |c| !c.is_whitespace() && !c.is_control(),
        "lower" => char::is_lowercase,
        "print" => |c| !c.is_control(),
        "punct" => |c| c.is_ascii_punctuation(),
        "space" => char::is_whitespace,
        "upper" => char::is_uppercase,
        "word" => |c| c.is_alphanumeric() || c == '_',
        "xdigit" => |c| c.is_ascii_hexdigit(),
        _ => return None,
    };
    Some((test, at + name.len() + 4))
}
