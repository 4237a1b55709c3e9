//! What a question offers beside yes and no: one rule that would have allowed
//! the call (05 §10). Texts are shown to people by every client; rules end up
//! in settings files. Both are pinned by `tests/data/permission-cases.json`.

mod command;

use super::context::Context;
use super::family::{Family, Request};
use super::path;
use super::shell::ShellView;

/// Where the rule goes when the offer is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The conversation, until it ends.
    Session,
    /// `<cwd>/.letta/settings.json`.
    Project,
}

impl Scope {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Project => "project",
        }
    }
}

/// One offer. On the wire only [`Suggestion::ID`] and `text` appear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// The rule that would be added to the allow list.
    pub rule: String,
    /// Where to.
    pub scope: Scope,
    /// What the human reads.
    pub text: String,
    /// Whether the rule opens little enough to be called safe.
    pub safe: bool,
}

impl Suggestion {
    /// The only id there is; clients answer with it.
    pub const ID: &'static str = "save-default";

    fn session(rule: impl Into<String>, text: impl Into<String>, safe: bool) -> Self {
        Self {
            rule: rule.into(),
            scope: Scope::Session,
            text: text.into(),
            safe,
        }
    }

    fn project(rule: impl Into<String>, text: impl Into<String>, safe: bool) -> Self {
        Self {
            scope: Scope::Project,
            ..Self::session(rule, text, safe)
        }
    }
}

/// What a question about `request` would offer, whatever is decided about it.
pub fn suggest(request: &Request<'_>, context: &Context<'_>) -> Option<Suggestion> {
    let shell =
        (request.family() == Family::Bash).then(|| ShellView::new(request.command(), context, &[]));
    suggest_for(request, shell.as_ref(), context)
}

pub(super) fn suggest_for(
    request: &Request<'_>,
    shell: Option<&ShellView<'_>>,
    context: &Context<'_>,
) -> Option<Suggestion> {
    if matches!(request.tool, "EnterPlanMode" | "ExitPlanMode") {
        return None;
    }
    if let Some(shell) = shell {
        return command::suggest(shell, context);
    }
    let made = match request.family() {
        Family::Read => read(request, context),
        Family::Write => Suggestion::session(
            "Write(**)",
            "Yes, allow all writes during this session",
            false,
        ),
        Family::Edit => edit(request, context),
        family @ (Family::Glob | Family::Grep) => search(family, request, context),
        Family::ListDir => list(request, context),
        Family::Task => Suggestion::session(
            "Task",
            "Yes, allow subagent operations during this session",
            false,
        ),
        _ if request.tool == "WebFetch" => fetch(request),
        _ => Suggestion::session(
            request.tool,
            format!("Yes, allow {} operations during this session", request.tool),
            false,
        ),
    };
    (!made.rule.trim().is_empty()).then_some(made)
}

/// The path argument as texts use it: `dir_path` is not part of rules yet.
fn named_path<'a>(request: &Request<'a>) -> &'a str {
    ["file_path", "path", "notebook_path"]
        .iter()
        .find_map(|key| request.text(key))
        .unwrap_or("")
}

fn show(path: &str, context: &Context<'_>) -> String {
    match path::below(path, &context.home) {
        Some("") => "~".to_owned(),
        Some(rest) => format!("~/{rest}"),
        None => path.to_owned(),
    }
}

/// `Name(<dir>/**)`, or `Name(**)` for the working directory itself.
fn below_rule(name: &str, relative: &str) -> String {
    if relative.is_empty() {
        format!("{name}(**)")
    } else {
        format!("{name}({relative}/**)")
    }
}

fn outside_rule(name: &str, dir: &str) -> String {
    format!("{name}(/{}/**)", dir.trim_end_matches('/'))
}

fn read(request: &Request<'_>, context: &Context<'_>) -> Suggestion {
    let absolute = context.resolve(named_path(request));
    match path::below(&absolute, &context.cwd) {
        Some(relative) => {
            let dir = relative.rfind('/').map_or("", |at| &relative[..at]);
            Suggestion::session(
                below_rule("Read", dir),
                "Yes, allow reading project files during this session",
                true,
            )
        }
        None => {
            let dir = path::parent(&absolute);
            Suggestion::project(
                outside_rule("Read", dir),
                format!(
                    "Yes, allow reading from {}/ in this project",
                    show(dir, context)
                ),
                true,
            )
        }
    }
}

fn edit(request: &Request<'_>, context: &Context<'_>) -> Suggestion {
    let absolute = context.resolve(named_path(request));
    let dir = path::parent(&absolute);
    let (rule, place) = match path::below(dir, &context.cwd) {
        Some("") => {
            return Suggestion::session(
                "Edit(**)",
                "Yes, switch to accept edits mode for this session",
                true,
            );
        }
        Some(relative) => (below_rule("Edit", relative), relative.to_owned()),
        None => (outside_rule("Edit", dir), show(dir, context)),
    };
    Suggestion::project(
        rule,
        format!("Yes, allow editing files in {place}/ in this project"),
        true,
    )
}

fn search(family: Family, request: &Request<'_>, context: &Context<'_>) -> Suggestion {
    let name = family.canonical().unwrap_or_default();
    let path = named_path(request);
    let absolute = context.resolve(path);
    if !path.is_empty() && !path::inside(&absolute, &context.cwd) {
        return Suggestion::project(
            outside_rule(name, &absolute),
            format!(
                "Yes, allow searching in {}/ in this project",
                show(&absolute, context)
            ),
            true,
        );
    }
    Suggestion::session(
        format!("{name}(**)"),
        "Yes, allow searching project files during this session",
        true,
    )
}

fn list(request: &Request<'_>, context: &Context<'_>) -> Suggestion {
    let path = named_path(request);
    let absolute = context.resolve(path);
    if !path.is_empty() && !path::inside(&absolute, &context.cwd) {
        let dir = path::parent(&absolute);
        return Suggestion::project(
            outside_rule("ListDir", dir),
            format!(
                "Yes, allow ListDir in {}/ in this project",
                show(dir, context)
            ),
            false,
        );
    }
    Suggestion::session(
        "ListDir(**)",
        "Yes, allow ListDir operations during this session",
        false,
    )
}

fn fetch(request: &Request<'_>) -> Suggestion {
    let address = request.text("url").and_then(scheme_and_host);
    match address {
        Some((scheme, host)) => Suggestion::project(
            format!("WebFetch({scheme}://{host}/*)"),
            format!("Yes, allow requests to {host} in this project"),
            true,
        ),
        None => Suggestion::project("WebFetch", "Yes, allow web requests in this project", false),
    }
}

/// Scheme and host of an absolute address, without user and port.
fn scheme_and_host(url: &str) -> Option<(String, String)> {
    let parsed = reqwest::Url::parse(url.trim()).ok()?;
    let host = parsed.host_str().filter(|host| !host.is_empty())?;
    Some((parsed.scheme().to_owned(), host.to_owned()))
}
