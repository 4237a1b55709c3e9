//! Guards come before every rule: the workspace sandbox, other agents' memory,
//! credential files. One more stands before everything that could allow: files
//! that hold rules and hooks (05 §13, 00 §6, §7).

use super::context::{Context, Workspace};
use super::family::{Family, Request, is_patch_tool};
use super::path;

/// Why a guard stopped a call.
#[derive(Debug)]
pub(super) struct Stopped {
    pub(super) guard: &'static str,
    pub(super) reason: String,
}

/// The paths that a call names, as written.
fn targets<'a>(request: &Request<'a>) -> Vec<&'a str> {
    if is_patch_tool(request.tool) {
        return request.patch_targets();
    }
    request.path().into_iter().collect()
}

/// The pattern of a search, where it is a path of its own.
fn pattern<'a>(request: &Request<'a>) -> Option<&'a str> {
    Family::of(request.tool)
        .is_search()
        .then(|| request.text("pattern"))
        .flatten()
        .filter(|pattern| !pattern.is_empty())
}

/// Stage 1: nothing leaves the workspace. Shells are confined by the kernel.
pub(super) fn workspace(request: &Request<'_>, context: &Context<'_>) -> Option<Stopped> {
    let Workspace {
        root,
        isolation_root,
    } = context.workspace.as_ref()?;
    let family = request.family();
    if family == Family::Bash {
        return None;
    }
    let writes = matches!(family, Family::Write | Family::Edit) || is_patch_tool(request.tool);
    let mut all = targets(request);
    all.extend(pattern(request).filter(|pattern| pattern.starts_with('/')));
    for target in all {
        let lexical = context.resolve(target);
        let real = context.disk.real_path(&lexical);
        let stopped = [&lexical, &real].into_iter().any(|path| {
            let peer = path::inside(path, isolation_root)
                || family.is_search() && path != "/" && path::inside(isolation_root, path);
            (writes || peer) && !path::inside(path, root)
        });
        if stopped {
            return Some(Stopped {
                guard: "workspace sandbox",
                reason: format!("Permission denied by workspace sandbox: {real} is outside {root}"),
            });
        }
    }
    None
}

/// The id in reasons for a path that covers several agents.
const UNRESOLVED: &str = "<unresolved>";

/// Stage 2: an agent's memory is its own.
pub(super) fn cross_agent(request: &Request<'_>, context: &Context<'_>) -> Option<Stopped> {
    let family = request.family();
    if context.memory_guard_off || family == Family::Bash {
        return None;
    }
    let trees = [
        format!("{}/.letta/agents", context.home),
        format!("{}/memfs", context.local_backend),
    ];
    let mut all = targets(request);
    all.extend(pattern(request));
    let mut strangers: Vec<String> = Vec::new();
    for target in all {
        let lexical = context.resolve_expanded(target);
        let real = context.disk.real_path(&lexical);
        for tree in &trees {
            let real_tree = context.disk.real_path(tree);
            for (path, tree) in [(&lexical, tree), (&real, &real_tree)] {
                let Some(id) = owner(path, tree, family.is_search()) else {
                    continue;
                };
                let own = context.agents.iter().any(|own| own == id);
                if !own && !strangers.iter().any(|known| known == id) {
                    strangers.push(id.to_owned());
                }
            }
        }
    }
    if strangers.is_empty() {
        return None;
    }
    let allowed: Vec<&str> = context.agents.iter().collect();
    let allowed = if allowed.is_empty() {
        "(none)".to_owned()
    } else {
        allowed.join(", ")
    };
    Some(Stopped {
        guard: "cross-agent guard",
        reason: format!(
            "Permission denied by cross-agent memory guard ({}). Allowed: {allowed}. Pass \
             --disable-memory-guard from the parent agent process to opt in; subagents cannot \
             disable this guard.",
            strangers.join(", ")
        ),
    })
}

/// The agent that `path` belongs to in `tree`, if it touches the tree at all.
fn owner<'p>(path: &'p str, tree: &str, search: bool) -> Option<&'p str> {
    match path::below(path, tree) {
        Some("") => Some(UNRESOLVED),
        Some(rest) => rest.split('/').next(),
        None => (search && path::inside(tree, path)).then_some(UNRESOLVED),
    }
}

/// After stage 2, outside `unrestricted`: no tool but a shell opens credentials.
pub(super) fn credentials(request: &Request<'_>, context: &Context<'_>) -> Option<Stopped> {
    if context.credentials.is_empty() || request.family() == Family::Bash {
        return None;
    }
    let mut all = targets(request);
    // A search pattern can name one too; a directory above stays searchable.
    all.extend(pattern(request).filter(|_| Family::of(request.tool) != Family::Grep));
    all.into_iter().find_map(|target| {
        let path = context.resolve_expanded(target);
        context.is_credential(&path).then(|| Stopped {
            guard: "credential guard",
            reason: format!("Permission denied by credential guard: {path}"),
        })
    })
}

/// Whether the call could write a file that holds rules or hooks.
pub(super) fn writes_settings(request: &Request<'_>, context: &Context<'_>) -> bool {
    let family = request.family();
    if family == Family::Bash || family.is_reader() || request.tool == "ViewImage" {
        return false;
    }
    targets(request).into_iter().any(|target| {
        let lexical = context.resolve_expanded(target);
        let real = context.disk.real_path(&lexical);
        [&lexical, &real]
            .into_iter()
            .any(|path| is_settings(path, context))
    })
}

fn is_settings(path: &str, context: &Context<'_>) -> bool {
    // Letter case is no difference on some file systems.
    let path = path.to_lowercase();
    let dir = path::parent(&path);
    let name = path::file_name(&path);
    let settings = name.starts_with("settings") && name.ends_with(".json");
    let home = format!("{}/letta", context.config_home).to_lowercase();
    settings && (path::file_name(dir) == ".letta" || dir == home)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::permissions::Disk;
    use serde_json::json;

    /// `/link` leads to another place.
    struct Linked(&'static str, &'static str);

    impl Disk for Linked {
        fn real_path(&self, path: &str) -> String {
            match path::below(path, self.0) {
                Some("") => self.1.to_owned(),
                Some(rest) => format!("{}/{rest}", self.1),
                None => path.to_owned(),
            }
        }

        fn exists(&self, _: &str) -> bool {
            true
        }
    }

    #[test]
    fn links_do_not_lead_around_the_guards() {
        let args = json!({"file_path": "link/a.md"});
        let args = args.as_object().unwrap();
        let request = Request { tool: "Read", args };
        let disk = Linked("/srv/app/link", "/home/t/.letta/agents/agent-2");
        let context = Context::new("/srv/app", "/home/t", &disk);
        assert!(cross_agent(&request, &context).is_some());

        let disk = Linked("/srv/app/link/a.md", "/home/t/.letta/settings.json");
        let mut context = Context::new("/srv/app", "/home/t", &disk);
        context.credentials = vec!["/home/t/.letta/settings.json".into()];
        assert!(credentials(&request, &context).is_some());
        assert!(!writes_settings(&request, &context));
        let write = Request {
            tool: "Write",
            args,
        };
        assert!(writes_settings(&write, &context));
    }

    #[test]
    fn files_with_rules_are_known_by_place_and_name() {
        let context = Context::new("/srv/app", "/home/t", &crate::permissions::LexicalDisk);
        for path in [
            "/srv/app/.letta/settings.json",
            "/srv/app/.letta/settings.local.json",
            "/other/.LETTA/Settings.json",
            "/home/t/.config/letta/settings.json",
        ] {
            assert!(is_settings(path, &context), "{path}");
        }
        assert!(!is_settings("/srv/app/settings.json", &context));
        assert!(!is_settings("/srv/app/.letta/notes.json", &context));
    }
}
