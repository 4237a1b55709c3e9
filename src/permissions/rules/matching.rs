//! Does a rule speak of a call? (05 §4.4)
//!
//! Rules that let calls run (`Intent::Permit`) and rules that hold them back
//! (`Intent::Restrict`) read a call differently where the published program is
//! weak (05 §17): a permit must cover every part of a command and its payload,
//! a restriction holds as soon as one part or one spelling matches.

use std::cell::OnceCell;

use super::super::context::Context;
use super::super::family::{Family, Request, canonical_name};
use super::super::glob::Glob;
use super::super::path;
use super::super::shell::ShellView;
use super::rule::{Rule, Shape, ShellPayload};

/// What a match leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Intent {
    /// The call runs.
    Permit,
    /// The call is asked about, unless something allows it.
    Question,
    /// The call is denied, or asked about in every mode.
    Restrict,
}

/// A call, prepared once for all rules.
pub(in super::super) struct Subject<'a> {
    request: &'a Request<'a>,
    context: &'a Context<'a>,
    family: Family,
    name: &'a str,
    path: Option<FileQuery>,
    /// The command of a shell call.
    pub(in super::super) shell: Option<ShellView<'a>>,
}

/// Spellings of the path of a file call.
struct FileQuery {
    /// Windows context: drive letters, no letter case.
    windows: bool,
    absolute: String,
    relative: String,
    /// Further spellings that count for restrictions.
    strict: Vec<String>,
}

impl<'a> Subject<'a> {
    pub(in super::super) fn new(
        request: &'a Request<'a>,
        context: &'a Context<'a>,
        additional: &'a [String],
    ) -> Self {
        let family = request.family();
        let name = match family.canonical() {
            Some(name) => name,
            None => request.tool,
        };
        let shell = (family == Family::Bash)
            .then(|| ShellView::new(request.command(), context, additional));
        Self {
            request,
            context,
            family,
            name,
            path: request
                .path()
                .filter(|_| family.is_file())
                .map(|path| FileQuery::new(path, context)),
            shell,
        }
    }

    /// The first rule of `rules` that speaks of the call.
    pub(in super::super) fn find<'r>(&self, rules: &'r [Rule], intent: Intent) -> Option<&'r Rule> {
        let mut hits = rules.iter().filter(|rule| self.matches(rule, intent));
        let (Intent::Permit, Some(shell)) = (intent, &self.shell) else {
            return hits.next();
        };
        // A permit by prefix lets the command run only if every part of it is
        // permitted; which part is not does not depend on the rule.
        let covered = OnceCell::new();
        hits.find(|rule| {
            is_unconditional(rule, shell) || *covered.get_or_init(|| self.covers(rules, shell))
        })
    }

    fn matches(&self, rule: &Rule, intent: Intent) -> bool {
        let restrict = intent != Intent::Permit;
        // `Monitor` with a command obeys restrictions under its own name too.
        if restrict && self.request.is_monitor_command() && tool_rule(rule, "Monitor") {
            return true;
        }
        match self.family {
            Family::Bash => self.matches_shell(rule, intent),
            family if family.is_file() => self.matches_file(rule, intent),
            _ if restrict => tool_rule(rule, self.name),
            _ => tool_rule(rule, self.name) && self.payload_fits(rule),
        }
    }

    fn matches_file(&self, rule: &Rule, intent: Intent) -> bool {
        let restrict = intent != Intent::Permit;
        let bare = || canonical_name(rule.text()) == self.name || (restrict && rule.text() == "*");
        let Some(query) = &self.path else {
            return intent == Intent::Restrict && bare();
        };
        let Some((name, payload)) = rule.call() else {
            return bare();
        };
        if payload.is_empty() || canonical_name(name) != self.name {
            return false;
        }
        query.matches(payload, &self.context.home, restrict)
    }

    fn matches_shell(&self, rule: &Rule, intent: Intent) -> bool {
        let Some(shell) = &self.shell else {
            return false;
        };
        match &rule.shape {
            Shape::Bare => {
                canonical_name(rule.text()) == "Bash"
                    || (intent != Intent::Permit && rule.text() == "*")
            }
            Shape::Call { shell: None, .. } => false,
            Shape::Call {
                shell: Some(payload),
                ..
            } => {
                let test = |candidate: &str| payload_matches(payload, candidate, intent);
                let firsts = payload.firsts();
                firsts.iter().any(|first| shell.says(first))
                    && (shell.candidates().any(test)
                        || intent != Intent::Permit
                            && firsts.iter().any(|first| shell.any_part(first, &test)))
            }
        }
    }

    /// Whether `rules` together permit every part of a command.
    fn covers(&self, rules: &[Rule], shell: &ShellView<'_>) -> bool {
        shell.every_part_covered(&|text| {
            rules.iter().any(|rule| match &rule.shape {
                Shape::Call {
                    shell: Some(payload),
                    ..
                } => payload_matches(payload, text, Intent::Permit),
                _ => false,
            })
        })
    }

    /// Whether the payload of a permit for another tool fits the arguments.
    fn payload_fits(&self, rule: &Rule) -> bool {
        let payload = match rule.call() {
            Some((_, payload)) if !payload.is_empty() => payload,
            _ => return true,
        };
        match (self.name, self.family) {
            ("WebFetch", _) => self
                .request
                .text("url")
                .is_some_and(|url| url_fits(payload, url)),
            (_, Family::Task) => self.request.text("subagent_type") == Some(payload),
            _ => false,
        }
    }
}

/// A rule for a tool that is neither a file tool nor a shell.
fn tool_rule(rule: &Rule, name: &str) -> bool {
    let text = rule.text();
    if text == "*" || canonical_name(text) == name {
        return !text.is_empty();
    }
    match text.find('(') {
        Some(open) if open > 0 => canonical_name(&text[..open]) == name,
        _ => false,
    }
}

fn payload_matches(payload: &ShellPayload, candidate: &str, intent: Intent) -> bool {
    payload.forms().iter().any(|form| {
        if !payload.prefix {
            return candidate == form;
        }
        let Some(rest) = candidate.strip_prefix(form.as_str()) else {
            return false;
        };
        // A permit for `npm` is none for `npmx`: inside the first word a
        // prefix must end where the word or a path segment ends.
        intent != Intent::Permit
            || form.is_empty()
            || form.contains(char::is_whitespace)
            || rest.is_empty()
            || rest.starts_with(|c: char| c.is_whitespace() || c == '/')
    })
}

/// Whether a permit that matches needs no look at the parts: it is bare, it is
/// `Bash(:*)`, or it was given for this very text.
fn is_unconditional(rule: &Rule, shell: &ShellView<'_>) -> bool {
    match &rule.shape {
        Shape::Call {
            shell: Some(payload),
            ..
        } => {
            if payload.prefix {
                payload.forms()[0].is_empty()
            } else {
                shell.is_exactly(payload.forms())
            }
        }
        _ => true,
    }
}

/// `scheme://host/*`, `domain:host` or a whole address against a URL.
fn url_fits(payload: &str, url: &str) -> bool {
    let host = |text: &str| -> Option<(String, String)> {
        let (scheme, rest) = text.split_once("://")?;
        let authority = rest.split(['/', '?', '#', '\\']).next()?;
        // A user part would let the text before `@` pose as the host.
        if authority.contains('@') {
            return None;
        }
        let name = authority.split(':').next()?.to_ascii_lowercase();
        Some((scheme.to_ascii_lowercase(), name))
    };
    if let Some(domain) = payload.strip_prefix("domain:") {
        return host(url).is_some_and(|(_, name)| name == domain.to_ascii_lowercase());
    }
    if let Some(base) = payload.strip_suffix("/*") {
        return host(base).is_some() && host(base) == host(url);
    }
    payload == url
}

impl FileQuery {
    fn new(text: &str, context: &Context<'_>) -> Self {
        let text = text.replace('\\', "/");
        let cwd = context.cwd.replace('\\', "/");
        if path::has_drive(&cwd) || cwd.starts_with("//") {
            let absolute = if path::has_drive(&text) {
                text.clone()
            } else {
                format!("{cwd}/{text}")
            };
            let absolute = path::resolve("/", &absolute)[1..].to_lowercase();
            let root = cwd.to_lowercase();
            let relative = path::below(&absolute, &root).map_or(text, str::to_owned);
            return Self {
                windows: true,
                absolute,
                relative,
                strict: Vec::new(),
            };
        }
        let absolute = path::resolve(&cwd, &text);
        let below = |absolute: &str| {
            path::below(absolute, &cwd)
                .filter(|rest| !rest.is_empty())
                .map(str::to_owned)
        };
        let relative = if text.starts_with('/') {
            below(&absolute).unwrap_or_else(|| absolute.clone())
        } else {
            text.clone()
        };
        let mut strict = Vec::new();
        for spelling in [
            absolute.clone(),
            context.resolve_expanded(&text),
            context.disk.real_path(&absolute),
        ] {
            strict.extend(below(&spelling));
            strict.push(spelling);
        }
        Self {
            windows: false,
            absolute,
            relative,
            strict,
        }
    }

    fn matches(&self, payload: &str, home: &str, restrict: bool) -> bool {
        let mut pattern = payload.replace('\\', "/");
        if let Some(rest) = pattern.strip_prefix("./") {
            pattern = rest.to_owned();
        }
        if let Some(rest) = pattern.strip_prefix("~/") {
            pattern = format!("{home}/{rest}");
        }
        if pattern.starts_with('/') {
            pattern = format!("/{}", pattern.trim_start_matches('/'));
        }
        if self.windows {
            let bare = pattern.trim_start_matches('/');
            pattern = if path::has_drive(bare) {
                bare
            } else {
                &pattern
            }
            .to_lowercase();
        }
        // A pattern that is too large to look at permits nothing and restricts all.
        let Ok(glob) = Glob::new(&pattern) else {
            return restrict;
        };
        let anchored = pattern.starts_with('/') || path::has_drive(&pattern);
        glob.matches(&self.absolute)
            || (!anchored && glob.matches(&self.relative))
            || (restrict && self.strict.iter().any(|spelling| glob.matches(spelling)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_rule_covers_its_host_alone() {
        assert!(url_fits("https://a.b/*", "https://a.b/x?y"));
        assert!(url_fits("https://a.b/*", "https://A.B:8443/"));
        assert!(!url_fits("https://a.b/*", "http://a.b/x"));
        assert!(!url_fits("https://a.b/*", "https://a.b.evil/x"));
        assert!(!url_fits("https://a.b/*", "https://a.b@evil/x"));
        assert!(url_fits("domain:a.b", "https://a.b/"));
        assert!(!url_fits("nonsense/*", "nonsense"));
    }
}
