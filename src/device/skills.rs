//! Links to skills for every agent: `skill_enable`, `skill_disable` (06 §12).
//!
//! Invariant: only links are made and removed, only in the directory of global
//! skills; what is not a link is left alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::json;

use super::call::{Answer, Call, Failure};
use crate::protocol::time::epoch_millis;

pub(super) async fn enable(mut call: Call) -> Answer {
    let path = call.fields.string("skill_path")?;
    let skills = call.services().home.skills();
    let link = call
        .blocking({
            let path = path.clone();
            move || link(Path::new(&path), &skills)
        })
        .await??;
    let name = link.file_name().map(|name| name.to_string_lossy());
    let answer = json!({
        "name": name, "skill_name": name, "skill_path": path, "link_path": link.to_string_lossy(),
    });
    updated_after(&call);
    Ok(answer)
}

pub(super) async fn disable(mut call: Call) -> Answer {
    let name = call.fields.string("name")?;
    let skills = call.services().home.skills();
    call.blocking({
        let name = name.clone();
        move || unlink(&name, &skills)
    })
    .await??;
    updated_after(&call);
    Ok(json!({"name": name, "skill_name": name}))
}

/// The client is told after the answer that the skills changed.
fn updated_after(call: &Call) {
    let now = epoch_millis(SystemTime::now());
    call.push_after(json!({"type": "skills_updated", "timestamp": now}));
}

fn link(skill: &Path, skills: &Path) -> Result<PathBuf, Failure> {
    let fail = |error: io::Error| Failure::new(format!("{}: {error}", skills.display()));
    if !skill.exists() {
        return Err(Failure::new(format!(
            "Path does not exist: {}",
            skill.display()
        )));
    }
    let has_file = fs::read_dir(skill).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().eq_ignore_ascii_case("SKILL.md"))
    });
    if !has_file {
        return Err(Failure::new(format!(
            "No SKILL.md found in {}",
            skill.display()
        )));
    }
    // A link to a relative path would start at the directory of the links.
    let skill = std::path::absolute(skill).map_err(fail)?;
    let Some(name) = skill.file_name() else {
        return Err(Failure::new("The root directory is not a skill."));
    };
    let link = skills.join(name);
    match fs::symlink_metadata(&link) {
        Ok(meta) if meta.is_symlink() => fs::remove_file(&link).map_err(fail)?,
        Ok(_) => {
            return Err(Failure::new(format!(
                "{} already exists and is not a symlink — refusing to overwrite",
                link.display()
            )));
        }
        Err(_) => fs::create_dir_all(skills).map_err(fail)?,
    }
    std::os::unix::fs::symlink(&skill, &link).map_err(fail)?;
    Ok(link)
}

fn unlink(name: &str, skills: &Path) -> Result<(), Failure> {
    if name.contains(['/', '\\', '\0']) || matches!(name, "" | "." | "..") {
        return Err(Failure::new(format!("{name:?} is not the name of a skill")));
    }
    let link = skills.join(name);
    match fs::symlink_metadata(&link) {
        Err(_) => Err(Failure::new(format!("Skill not found: {name}"))),
        Ok(meta) if !meta.is_symlink() => Err(Failure::new(format!(
            "{name} is not a symlink — refusing to delete. Remove it manually if intended."
        ))),
        Ok(_) => fs::remove_file(&link).map_err(|error| Failure::new(format!("{name}: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_made_replaced_and_removed_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let skills = dir.path().join("home/skills");
        let skill = dir.path().join("mine");
        let error = |done: Result<PathBuf, Failure>| done.unwrap_err().to_string();
        assert!(error(link(&skill, &skills)).starts_with("Path does not exist: "));
        fs::create_dir(&skill).unwrap();
        assert!(error(link(&skill, &skills)).starts_with("No SKILL.md found in "));
        fs::write(skill.join("skill.md"), "").unwrap();
        let made = link(&skill, &skills).unwrap();
        assert_eq!(fs::read_link(&made).unwrap(), skill);
        // One that leads nowhere is replaced and removed like any other.
        fs::remove_file(&made).unwrap();
        symlink("/nowhere", &made).unwrap();
        link(&skill, &skills).unwrap();
        assert_eq!(fs::read_link(&made).unwrap(), skill);
        fs::remove_file(&made).unwrap();
        symlink("/nowhere", &made).unwrap();
        unlink("mine", &skills).unwrap();
        assert!(fs::symlink_metadata(&made).is_err());

        fs::create_dir_all(skills.join("mine")).unwrap();
        assert!(error(link(&skill, &skills)).ends_with("refusing to overwrite"));
        for (name, expected) in [
            ("gone", "Skill not found: gone"),
            (
                "mine",
                "mine is not a symlink — refusing to delete. Remove it manually if intended.",
            ),
            ("../mine", "\"../mine\" is not the name of a skill"),
            ("..", "\"..\" is not the name of a skill"),
            ("", "\"\" is not the name of a skill"),
            ("a\0b", "\"a\\0b\" is not the name of a skill"),
        ] {
            assert_eq!(unlink(name, &skills).unwrap_err().to_string(), expected);
        }
        assert!(skills.join("mine").is_dir());
    }
}
