//! One segment of a pattern: literals, `*`, `?`, classes and extglobs.
//!
//! A segment becomes a small machine whose states ask about the text from a
//! position on. Answers are filled in from the end of the text to its start, so
//! that negation (`!(a)` looks ahead to the end) needs no search.

use super::TooLarge;

/// Deepest nesting of extglobs.
const MAX_DEPTH: usize = 16;

#[derive(Clone, Debug)]
pub(super) struct Segment {
    machine: Machine,
    first: First,
    /// Written without any wildcard: compared as text.
    literal: Option<String>,
}

/// What a segment begins with.
#[derive(Clone, Copy, Debug)]
enum First {
    Literal,
    Wildcard,
    Ext(Ext),
}

#[derive(Debug)]
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

type CharTest = fn(char) -> bool;

#[derive(Clone, Debug)]
enum Range {
    Chars(char, char),
    Named(CharTest),
}

impl Segment {
    pub(super) fn new(text: &str) -> Result<Self, TooLarge> {
        let chars: Vec<char> = text.chars().collect();
        let nodes = parse(&chars, 0)?;
        let literal = nodes
            .iter()
            .map(|node| match node {
                Node::Char(c) => Some(*c),
                _ => None,
            })
            .collect();
        let first = match nodes.first() {
            Some(Node::Char(_)) | None => First::Literal,
            Some(Node::Ext { kind, .. }) => First::Ext(*kind),
            Some(_) => First::Wildcard,
        };
        Ok(Self {
            machine: Machine::new(&nodes),
            literal,
            first,
        })
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        if let Some(literal) = &self.literal {
            return literal == text;
        }
        // No wildcard takes the place of nothing or of a leading dot, and only
        // an extglob, as published, that of `.` and `..`.
        let possible = match self.first {
            First::Wildcard => !text.is_empty() && !text.starts_with('.'),
            First::Literal => !matches!(text, "" | "." | ".."),
            First::Ext(kind) => !text.is_empty() || matches!(kind, Ext::Optional | Ext::Many),
        };
        if !possible {
            return false;
        }
        let chars: Vec<char> = text.chars().collect();
        self.machine.accepts(&chars)
    }
}

/// States that ask about the text from one position on.
#[derive(Clone, Debug)]
struct Machine {
    states: Vec<State>,
    entry: usize,
}

#[derive(Clone, Debug)]
enum State {
    /// The text is at its end.
    End,
    /// One character, then the next state.
    One(Test, usize),
    /// Any characters, then the next state.
    Run(usize),
    /// One of these states.
    Either(Vec<usize>),
    /// The second state, where the first does not hold.
    Unless(usize, usize),
}

#[derive(Clone, Debug)]
enum Test {
    Char(char),
    Any,
    Class(Vec<Range>, bool),
}

impl Test {
    fn fits(&self, at: usize, c: char) -> bool {
        match self {
            Self::Char(own) => *own == c,
            Self::Any => not_leading_dot(at, c),
            Self::Class(ranges, negated) => {
                let inside = ranges.iter().any(|range| match range {
                    Range::Chars(low, high) => (*low..=*high).contains(&c),
                    Range::Named(test) => test(c),
                });
                inside != *negated && not_leading_dot(at, c)
            }
        }
    }
}

impl Machine {
    fn new(nodes: &[Node]) -> Self {
        let mut machine = Self {
            states: vec![State::End],
            entry: 0,
        };
        machine.entry = machine.add(nodes, 0);
        machine
    }

    fn push(&mut self, state: State) -> usize {
        self.states.push(state);
        self.states.len() - 1
    }

    /// Adds `nodes`, to go on with state `next`; the state to begin with.
    fn add(&mut self, nodes: &[Node], next: usize) -> usize {
        nodes
            .iter()
            .rev()
            .fold(next, |next, node| self.add_node(node, next))
    }

    fn add_node(&mut self, node: &Node, next: usize) -> usize {
        match node {
            Node::Char(c) => self.push(State::One(Test::Char(*c), next)),
            Node::Any => self.push(State::One(Test::Any, next)),
            Node::Class { ranges, negated } => {
                self.push(State::One(Test::Class(ranges.clone(), *negated), next))
            }
            Node::Star => self.push(State::Run(next)),
            Node::Ext { kind, choices } => self.add_ext(*kind, choices, next),
        }
    }

    fn add_ext(&mut self, kind: Ext, choices: &[Vec<Node>], next: usize) -> usize {
        match kind {
            Ext::Once | Ext::Optional => {
                let mut ways = self.add_choices(choices, next);
                if kind == Ext::Optional {
                    ways.push(next);
                }
                self.push(State::Either(ways))
            }
            Ext::Many | Ext::Some => {
                let again = self.push(State::End);
                let ways = self.add_choices(choices, again);
                let mut onward = ways.clone();
                onward.push(next);
                self.states[again] = State::Either(onward);
                match kind {
                    Ext::Many => again,
                    _ => self.push(State::Either(ways)),
                }
            }
            Ext::Not => {
                let ways = self.add_choices(choices, next);
                let refused = self.push(State::Either(ways));
                let run = self.push(State::Run(next));
                self.push(State::Unless(refused, run))
            }
        }
    }

    fn add_choices(&mut self, choices: &[Vec<Node>], next: usize) -> Vec<usize> {
        choices
            .iter()
            .map(|choice| self.add(choice, next))
            .collect()
    }

    /// Fills one row of answers per position, from the last to the first.
    fn accepts(&self, text: &[char]) -> bool {
        let mut after = vec![false; self.states.len()];
        let mut here = after.clone();
        for at in (0..=text.len()).rev() {
            here.fill(false);
            let c = text.get(at).copied();
            // Loops of empty choices need a round more for each nesting.
            for _ in 0..MAX_DEPTH + 2 {
                let mut changed = false;
                for (index, state) in self.states.iter().enumerate() {
                    let holds = match state {
                        State::End => c.is_none(),
                        State::One(test, next) => {
                            c.is_some_and(|c| after[*next] && test.fits(at, c))
                        }
                        State::Run(next) => {
                            here[*next] || c.is_some_and(|c| after[index] && not_leading_dot(at, c))
                        }
                        State::Either(ways) => ways.iter().any(|way| here[*way]),
                        State::Unless(refused, next) => !here[*refused] && here[*next],
                    };
                    changed |= holds != here[index];
                    here[index] = holds;
                }
                if !changed {
                    break;
                }
            }
            std::mem::swap(&mut here, &mut after);
        }
        after[self.entry]
    }
}

fn not_leading_dot(at: usize, c: char) -> bool {
    at > 0 || c != '.'
}

fn parse(text: &[char], depth: usize) -> Result<Vec<Node>, TooLarge> {
    if depth > MAX_DEPTH {
        return Err(TooLarge);
    }
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
            && let Some((choices, end)) = parse_choices(text, at + 2, depth + 1)?
        {
            // What is negated must not depend on itself.
            if depth > 0 && kind == Ext::Not {
                return Err(TooLarge);
            }
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
    Ok(nodes)
}

type Choices = (Vec<Vec<Node>>, usize);

/// The choices of an extglob whose `(` ends before `start`, and where it ends.
fn parse_choices(text: &[char], start: usize, depth: usize) -> Result<Option<Choices>, TooLarge> {
    let mut choices = Vec::new();
    let mut from = start;
    let mut open = 0usize;
    for at in start..text.len() {
        match text[at] {
            '(' => open += 1,
            ')' if open > 0 => open -= 1,
            ')' => {
                choices.push(parse(&text[from..at], depth)?);
                return Ok(Some((choices, at + 1)));
            }
            '|' if open == 0 => {
                choices.push(parse(&text[from..at], depth)?);
                from = at + 1;
            }
            _ => {}
        }
    }
    Ok(None)
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
            // A class of one is that character, a leading dot included.
            let node = match ranges.as_slice() {
                [Range::Chars(low, high)] if low == high && !negated => Node::Char(*low),
                _ => Node::Class { ranges, negated },
            };
            return Some((node, at + 1));
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
