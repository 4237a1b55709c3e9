//! What has changed in the skills since the model last heard of them (07 §2.5),
//! and the skills that a turn starts with (07 §2.6).

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;

use super::content::attribute;
use super::scan::MAX_SKILL;
use super::{Reader, Skills};
use crate::state::atomic::read_bounded;

/// The `client_skills` of the last request that the server took.
#[derive(Clone, Debug)]
pub struct Told(pub Arc<RawValue>);

impl PartialEq for Told {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Eq for Told {}

impl Told {
    /// A reminder of what is different in `now`; `None` when nothing is.
    pub fn news(&self, now: &RawValue) -> Option<String> {
        if self.0.get() == now.get() {
            return None;
        }
        let (before, now) = (rows(&self.0), rows(now));
        let changed = now.iter().filter(|row| !before.contains(row));
        let still = |name: &Value| now.iter().any(|row| row["name"] == *name);
        let gone = before.iter().filter(|row| !still(&row["name"]));
        let mut text = String::new();
        for row in changed {
            // Writing into a String cannot fail.
            let _ = writeln!(
                text,
                "<skill><name>{}</name><description>{}</description></skill>",
                escaped(&row["name"]),
                escaped(&row["description"])
            );
        }
        if !text.is_empty() {
            text = format!("New or changed:\n<available_skills>\n{text}</available_skills>\n");
        }
        let mut gone = gone.peekable();
        if gone.peek().is_some() {
            text.push_str("Not available any more:\n");
        }
        for row in gone {
            let _ = writeln!(text, "- {}", escaped(&row["name"]));
        }
        (!text.is_empty()).then(|| {
            format!("<system-reminder>\nThe skills of this computer are not those of before.\n{text}</system-reminder>")
        })
    }
}

fn rows(list: &RawValue) -> Vec<Value> {
    serde_json::from_str(list.get()).unwrap_or_default()
}

fn escaped(text: &Value) -> String {
    attribute(text.as_str().unwrap_or_default()).replace('\'', "&#x27;")
}

impl Skills {
    /// The texts of these skills in one block, in front of a turn's message.
    /// What is unknown or cannot be read is left out; `None` when nothing is left.
    pub fn preloaded(&self, reader: &Reader<'_>, ids: &[String]) -> Option<String> {
        let mut text = String::new();
        for id in ids {
            let Some(skill) = self.find(reader, id) else {
                continue;
            };
            if let Ok(bytes) = read_bounded(&skill.path, MAX_SKILL) {
                let said = String::from_utf8_lossy(&bytes);
                let _ = writeln!(text, "\n<{id}>\n{}\n</{id}>", said.trim_end());
            }
        }
        (!text.is_empty()).then(|| format!("<loaded_skills>{text}</loaded_skills>"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skills::Source;
    use crate::state::Home;

    fn list(rows: &str) -> Arc<RawValue> {
        RawValue::from_string(rows.to_owned()).unwrap().into()
    }

    #[test]
    fn what_is_new_changed_or_gone_is_told_and_nothing_else() {
        let told = Told(list(
            r#"[{"name":"a","description":"A","location":"/a"},{"name":"b","description":"B","location":"/b"},{"name":"c'","description":"C","location":"/c"}]"#,
        ));
        assert_eq!(told.news(&told.0), None);
        let now = list(
            r#"[{"name":"a","description":"A","location":"/a"},{"name":"b","description":"x < y","location":"/b"},{"name":"d","description":"D","location":"/d"}]"#,
        );
        assert_eq!(
            told.news(&now).unwrap(),
            "<system-reminder>\nThe skills of this computer are not those of before.\nNew or changed:\n<available_skills>\n<skill><name>b</name><description>x &lt; y</description></skill>\n<skill><name>d</name><description>D</description></skill>\n</available_skills>\nNot available any more:\n- c&#x27;\n</system-reminder>"
        );
        let moved = list(r#"[{"name":"a","description":"A","location":"/elsewhere"}]"#);
        assert!(told.news(&moved).unwrap().contains("<name>a</name>"));
        let other_order = list(
            r#"[{"name":"c'","description":"C","location":"/c"},{"name":"b","description":"B","location":"/b"},{"name":"a","description":"A","location":"/a"}]"#,
        );
        assert_eq!(told.news(&other_order), None);
    }

    #[test]
    fn skills_to_start_with_are_put_into_one_block_and_unknown_ones_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let skill = dir.path().join(".agents/skills/deploy");
        std::fs::create_dir_all(&skill).unwrap();
        std::fs::write(skill.join("SKILL.md"), "---\nname: deploy\n---\nPush it.\n").unwrap();
        let skills = Skills::new(Home::at(dir.path().join("home")), None);
        let reader = Reader {
            cwd: dir.path(),
            agent_id: None,
            sources: &Source::ALL,
        };
        let of = |ids: &[&str]| {
            let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
            skills.preloaded(&reader, &ids)
        };
        assert_eq!(
            of(&["nothing", "deploy"]).unwrap(),
            "<loaded_skills>\n<deploy>\n---\nname: deploy\n---\nPush it.\n</deploy>\n</loaded_skills>"
        );
        assert_eq!(of(&["nothing"]), None);
    }
}
