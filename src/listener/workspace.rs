//! `runtime_start.workspace_sandbox`: checked before anything is found or made
//! (05 §13.1).
//!
//! Invariant: a runtime with a sandbox starts only on a machine that can give
//! it, and in a working directory inside it.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::permissions::Workspace;
use crate::process::Processes;
use crate::protocol::command::RuntimeStart;

/// A workspace and the directory in which its runtime works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) workspace: Workspace,
    pub(super) cwd: String,
}

/// The workspace that `start` asks for, if it does.
///
/// # Errors
/// What is wrong with it, for the client.
pub(super) async fn wanted(
    processes: &Processes,
    start: &RuntimeStart,
) -> Result<Option<Wanted>, String> {
    let Some(sandbox) = start.workspace_sandbox.clone() else {
        return Ok(None);
    };
    let cwd = start.cwd.clone().flatten();
    let work = move || resolve(&sandbox, cwd.as_deref());
    let resolved = tokio::task::spawn_blocking(work).await;
    let wanted =
        resolved.unwrap_or_else(|_| Err("the workspace sandbox was not checked".into()))?;
    match processes.sandbox().await {
        Ok(_) => Ok(Some(wanted)),
        Err(reason) => Err(format!(
            "workspace sandbox requires a kernel sandbox backend ({reason})"
        )),
    }
}

fn resolve(sandbox: &Map<String, Value>, cwd: Option<&str>) -> Result<Wanted, String> {
    let fail = |text: &str| Err(text.to_owned());
    let path = |key: &str| sandbox.get(key).and_then(Value::as_str).map(Path::new);
    let (Some(root), Some(isolation_root)) = (path("root"), path("isolation_root")) else {
        return fail("workspace sandbox needs the texts root and isolation_root");
    };
    if !(root.is_absolute() && isolation_root.is_absolute()) {
        return fail("workspace sandbox paths must be absolute");
    }
    let Some(root) = directory(root) else {
        return fail("workspace sandbox root must be an existing directory");
    };
    let Some(isolation_root) = directory(isolation_root) else {
        return fail("workspace sandbox isolation root must be an existing directory");
    };
    if root == isolation_root || !root.starts_with(&isolation_root) {
        return fail("workspace sandbox root must be inside its isolation root");
    }
    let cwd = match cwd {
        None => root.clone(),
        Some(cwd) => match directory(Path::new(cwd)) {
            Some(cwd) if cwd.starts_with(&root) => cwd,
            _ => return fail("runtime_start cwd must be inside the workspace sandbox root"),
        },
    };
    let text = |path: PathBuf| match path.into_os_string().into_string() {
        Ok(text) => Ok(text),
        Err(_) => Err(String::from("workspace sandbox paths must be UTF-8")),
    };
    Ok(Wanted {
        workspace: Workspace {
            root: text(root)?,
            isolation_root: text(isolation_root)?,
        },
        cwd: text(cwd)?,
    })
}

/// The real path of an existing directory.
fn directory(path: &Path) -> Option<PathBuf> {
    let real = path.canonicalize().ok()?;
    (path.is_absolute() && real.is_dir()).then_some(real)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_wrong_workspace_has_its_own_words() {
        let dir = tempfile::tempdir().unwrap();
        let iso = dir.path().canonicalize().unwrap();
        let (root, link) = (iso.join("w"), iso.join("link"));
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(iso.join("file"), "").unwrap();
        std::os::unix::fs::symlink("/", &link).unwrap();
        let place = |path: &Path| path.to_str().unwrap().to_owned();
        let (iso_text, root_text) = (place(&iso), place(&root));
        for (root, isolation, cwd, error) in [
            (
                "w",
                &*iso_text,
                None,
                "workspace sandbox paths must be absolute",
            ),
            (
                &*root_text,
                "iso",
                None,
                "workspace sandbox paths must be absolute",
            ),
            (
                &place(&iso.join("no")),
                &iso_text,
                None,
                "workspace sandbox root must be an existing directory",
            ),
            (
                &place(&iso.join("file")),
                &iso_text,
                None,
                "workspace sandbox root must be an existing directory",
            ),
            (
                &root_text,
                &place(&iso.join("no")),
                None,
                "workspace sandbox isolation root must be an existing directory",
            ),
            (
                &iso_text,
                &iso_text,
                None,
                "workspace sandbox root must be inside its isolation root",
            ),
            (
                &place(&link),
                &iso_text,
                None,
                "workspace sandbox root must be inside its isolation root",
            ),
            (
                &root_text,
                &iso_text,
                Some(&*iso_text),
                "runtime_start cwd must be inside the workspace sandbox root",
            ),
            (
                &root_text,
                &iso_text,
                Some("sub"),
                "runtime_start cwd must be inside the workspace sandbox root",
            ),
        ] {
            let sandbox = json!({"root": root, "isolation_root": isolation});
            let found = resolve(sandbox.as_object().unwrap(), cwd);
            assert_eq!(found.unwrap_err(), error, "{sandbox} {cwd:?}");
        }
        assert!(resolve(&Map::new(), None).is_err());
        let sandbox = json!({"root": root_text, "isolation_root": iso_text});
        let sub = place(&root.join("sub"));
        let found = resolve(sandbox.as_object().unwrap(), Some(&sub)).unwrap();
        assert_eq!((found.cwd, found.workspace.root), (sub, root_text.clone()));
        let found = resolve(sandbox.as_object().unwrap(), None).unwrap();
        assert_eq!(found.cwd, root_text);
    }
}
