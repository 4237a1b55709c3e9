//! From a path as a model wrote it to a path below the memory root, without
//! its `.md` (04 §7.22).

use std::path::Path;

use super::Store;
use crate::tools::offload::Failure;

impl Store {
    /// The label of `path`, which the argument `name` gave.
    pub(super) fn label(&self, path: &str, name: &str) -> Result<String, Failure> {
        let path = path.trim();
        if path.starts_with("~/") || path.starts_with("$HOME/") {
            return Err(self.error(format!(
                "'{name}' must be relative to the memory directory, not to the home directory"
            )));
        }
        let relative = if Path::new(path).is_absolute() {
            let below = Path::new(path).strip_prefix(self.checkout.dir()).ok();
            let below = below.and_then(Path::to_str);
            below.ok_or_else(|| {
                self.error(format!(
                    "'{name}' must be a path below {}, or relative to it",
                    self.checkout.dir().display()
                ))
            })?
        } else {
            path
        };
        let relative = relative.replace('\\', "/");
        let relative = relative.strip_prefix("memory/").unwrap_or(&relative);
        let relative = relative.strip_suffix(".md").unwrap_or(relative);
        let parts: Vec<&str> = relative
            .split('/')
            .filter(|part| !part.is_empty())
            .collect();
        if parts.is_empty() {
            return Err(self.error(format!("'{name}' must name a file")));
        }
        for part in &parts {
            if matches!(*part, "." | "..")
                || part.contains('\0')
                || part.eq_ignore_ascii_case(".git")
            {
                return Err(self.error(format!("'{name}' must not contain {part:?}")));
            }
        }
        if self.indexed && parts[0] == "system" {
            return Err(
                self.error("core memory is in the Markdown files at the root, not in system/")
            );
        }
        if self.indexed && parts[0] == "skills" {
            return Err(self.error("skills are changed with the file tools, not with this one"));
        }
        Ok(parts.join("/"))
    }

    /// The file of `path`.
    pub(super) fn file(&self, path: &str, name: &str) -> Result<String, Failure> {
        Ok(format!("{}.md", self.label(path, name)?))
    }
}
