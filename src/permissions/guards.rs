//! Guards that come before every rule (05 §13): other agents' memory, the
//! files with credentials, the settings that hold rules.

use super::context::Context;
use super::family::{Family, Request};
use super::path;
use super::pipeline::{Decision, Verdict};
use crate::protocol::PermissionMode;

/// Stage 2 and the credential guard.
pub(super) fn guard(
    request: &Request<'_>,
    mode: PermissionMode,
    context: &Context<'_>,
) -> Option<Decision> {
    if request.family() == Family::Bash || request.is_monitor_command() {
        return None;
    }
    let targets = targets(request, context);
    if !context.memory_guard_off
        && let Some(denied) = foreign_memory(request, &targets, context)
    {
        return Some(denied);
    }
    if mode == PermissionMode::Unrestricted {
        return None;
    }
    if let Some(target) = targets.iter().find(|target| context.is_credential(target)) {
        return Some(Decision::new(
            Verdict::Deny,
            Some("credential guard"),
            format!("Permission denied by credential guard: {target}"),
        ));
    }
    // Where another variable leads is known only when the tool runs: a human looks first.
    let opaque = matches!(
        request.family(),
        Family::Read | Family::Write | Family::Edit
    ) && targets.iter().any(|target| target.contains('$'));
    (opaque && !context.credentials.is_empty()).then(|| {
        Decision::new(
            Verdict::Ask,
            Some("credential guard"),
            "The path holds a variable, so where it leads is not known yet",
        )
    })
}

/// The absolute paths that a call is about.
fn targets(request: &Request<'_>, context: &Context<'_>) -> Vec<String> {
    let mut paths: Vec<&str> = request.patch_targets();
    paths.extend(request.path());
    if request.family().is_search() || request.family() == Family::ListDir {
        paths.extend(request.text("pattern"));
    }
    let mut targets: Vec<String> = Vec::new();
    for path in paths {
        // File tools expand variables; of those only this one is known here.
        let path = expand_home_anywhere(path, &context.home);
        let lexical = context.resolve_expanded(&path);
        let real = context.disk.real_path(&lexical);
        if real != lexical {
            targets.push(real);
        }
        targets.push(lexical);
    }
    targets
}

/// Replaces `${HOME}`, and `$HOME` where no longer name begins, in any place.
fn expand_home_anywhere(path: &str, home: &str) -> String {
    let mut pieces = path.split("$HOME");
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let longer = piece.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        out.push_str(if longer { "$HOME" } else { home });
        out.push_str(piece);
    }
    out.replace("${HOME}", home)
}

/// A path in another agent's memory (05 §13.2).
fn foreign_memory(
    request: &Request<'_>,
    targets: &[String],
    context: &Context<'_>,
) -> Option<Decision> {
    let trees = [
        format!("{}/.letta/agents", context.home),
        format!("{}/memfs", context.local_backend),
    ];
    let searches = request.family().is_search() || request.family() == Family::ListDir;
    let mut foreign: Vec<String> = Vec::new();
    for target in targets {
        for tree in &trees {
            let id = if target == tree || (searches && path::inside(tree, target)) {
                String::from("<unresolved>")
            } else if let Some(below) = path::below(target, tree) {
                below.split('/').next().unwrap_or_default().to_owned()
            } else {
                continue;
            };
            if !context.agents.iter().any(|own| own == id) && !foreign.contains(&id) {
                foreign.push(id);
            }
        }
    }
    if foreign.is_empty() {
        return None;
    }
    let own: Vec<&str> = context.agents.iter().collect();
    let own = if own.is_empty() {
        String::from("(none)")
    } else {
        own.join(", ")
    };
    Some(Decision::new(
        Verdict::Deny,
        Some("cross-agent guard"),
        format!(
            "Permission denied by cross-agent memory guard ({}). Allowed: {own}. Pass --disable-memory-guard from the parent agent process to opt in; subagents cannot disable this guard.",
            foreign.join(", ")
        ),
    ))
}

/// Whether a file tool would change a settings file that holds rules or hooks (00 §7).
pub(super) fn writes_settings(request: &Request<'_>, context: &Context<'_>) -> bool {
    let writes = matches!(request.family(), Family::Write | Family::Edit)
        || !request.patch_targets().is_empty();
    writes
        && targets(request, context).iter().any(|target| {
            let in_letta = path::file_name(path::parent(target)) == ".letta";
            let name = path::file_name(target);
            (in_letta && name.starts_with("settings") && name.ends_with(".json"))
                || *target == format!("{}/letta/settings.json", context.config_home)
        })
}

/// Stage 12: the published test, a plain prefix of text (05 §6), made separator aware.
pub(super) fn in_working_directory(
    request: &Request<'_>,
    context: &Context<'_>,
    additional: &[String],
) -> bool {
    let Some(path) = request.path() else {
        return false;
    };
    let absolute = context.resolve(path);
    path::inside(&absolute, &context.cwd)
        || additional
            .iter()
            .any(|root| path::inside(&absolute, &context.resolve(root)))
}

#[cfg(test)]
mod tests {
    use super::super::{Context, LexicalDisk};
    use super::*;
    use serde_json::json;

    fn judge(tool: &str, path: &str, mode: PermissionMode) -> Option<Verdict> {
        let disk = LexicalDisk;
        let mut context = Context::new("/srv/app", "/home/u", &disk);
        context.agents.agent = Some("agent-1".into());
        context.credentials = vec!["/home/u/.letta/settings.json".into()];
        let args = json!({ "file_path": path });
        let request = Request {
            tool,
            args: args.as_object().unwrap(),
        };
        guard(&request, mode, &context).map(|decision| decision.verdict)
    }

    #[test]
    fn credential_files_are_closed_however_they_are_spelled() {
        for path in [
            "/home/u/.letta/settings.json",
            "~/.letta/settings.json",
            "$HOME/.letta/settings.json",
            "${HOME}/.letta/./settings.json",
            "../../home/u/.letta/settings.json",
        ] {
            assert_eq!(
                judge("Read", path, PermissionMode::Standard),
                Some(Verdict::Deny),
                "{path}"
            );
            assert_eq!(
                judge("Read", path, PermissionMode::Unrestricted),
                None,
                "{path}"
            );
        }
        assert_eq!(
            judge("Read", "$X/settings.json", PermissionMode::Standard),
            Some(Verdict::Ask)
        );
        assert_eq!(
            judge("Read", "$HOMES/x", PermissionMode::Standard),
            Some(Verdict::Ask),
            "another variable"
        );
        assert_eq!(judge("Read", "/srv/app/a", PermissionMode::Standard), None);
    }

    #[test]
    fn the_memory_of_another_agent_is_closed_in_every_mode() {
        let other = "$HOME/.letta/agents/agent-2/memory/x.md";
        assert_eq!(
            judge("Read", other, PermissionMode::Unrestricted),
            Some(Verdict::Deny)
        );
        let own = "~/.letta/agents/agent-1/memory/x.md";
        assert_eq!(judge("Write", own, PermissionMode::Unrestricted), None);
    }
}
