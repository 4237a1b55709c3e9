//! Skill: load the instructions of a skill into the conversation (04 §7.9).
//!
//! The result only says that it is loaded; what the skill says follows the
//! results as a message of its own ([`ToolOutcome::follow_up`]).

use std::sync::LazyLock;

use serde_json::Value;

use super::args::{Args, DRAFT_2020_12, schema};
use super::offload::{self, Failure};
use super::tool::{Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome};
use crate::skills::{Reader, Skills};

const DESCRIPTION: &str = "\
Loads a skill: instructions for one kind of task, with files beside them.

- Give the name of a skill from the list of available skills, to the letter; others do not exist.
- Load a skill that fits the task before you begin with it. What it says arrives as the next message; follow it, and read the files it names from the directory it gives.
- A skill that is already loaded in this conversation need not be loaded again.";

static PARAMETERS: LazyLock<Value> = LazyLock::new(|| {
    schema(
        r#"{
    "skill": {"type": "string", "description": "Name of the skill"}
}"#,
        &["skill"],
        DRAFT_2020_12,
    )
});

/// The tool.
#[derive(Debug)]
pub struct Skill(Skills);

impl Skill {
    /// The tool over the skills of this machine.
    pub fn new(skills: Skills) -> Self {
        Self(skills)
    }
}

impl Tool for Skill {
    fn name(&self) -> &'static str {
        "Skill"
    }

    fn description(&self) -> &str {
        DESCRIPTION
    }

    fn parameters(&self) -> &Value {
        &PARAMETERS
    }

    fn run<'a>(&'a self, call: &'a ToolCall, context: &'a ToolContext) -> ToolFuture<'a> {
        Box::pin(async move {
            let id = match Args::new("Skill", &call.args).string("skill") {
                Ok(id) => id.trim().to_owned(),
                Err(error) => return ToolOutcome::error(error.to_string()),
            };
            if id.is_empty() {
                return ToolOutcome::error("Skill: 'skill' must be the name of a skill.");
            }
            let (skills, cwd) = (self.0.clone(), context.cwd.get());
            let (agent, sources) = (
                context.scope.agent_id.clone(),
                context.skill_sources.clone(),
            );
            offload::look(call, move || {
                let reader = Reader {
                    cwd: &cwd,
                    agent_id: agent.as_deref(),
                    sources: &sources,
                };
                load(&skills, &reader, &id)
            })
            .await
        })
    }
}

fn load(skills: &Skills, reader: &Reader<'_>, id: &str) -> Result<ToolOutcome, Failure> {
    let skill = skills.find(reader, id).ok_or_else(|| {
        Failure::new(format!(
            "Skill \"{id}\" not found. Use a name from the list of available skills, to the letter."
        ))
    })?;
    if !skill.for_model {
        return Err(Failure::new(format!(
            "Skill \"{id}\" is only for people to start: its disable-model-invocation is true."
        )));
    }
    let content = skills.content(&skill).map_err(|error| {
        Failure::new(format!(
            "Skill \"{id}\" cannot be read from {}: {error}",
            skill.path.display()
        ))
    })?;
    Ok(ToolOutcome {
        follow_up: Some(content),
        ..ToolOutcome::text(format!("Launching skill: {id}"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::state::Home;
    use crate::tools::trial::Trial;

    #[tokio::test]
    async fn a_skill_is_loaded_by_its_name_and_its_text_follows_the_result() {
        let mut trial = Trial::new();
        let tool = Skill::new(Skills::new(Home::at(&trial.context.home), None));
        trial.file(
            ".agents/skills/deploy/SKILL.md",
            "---\nname: deploy\ndescription: d\n---\nRead <SKILL_DIR>/steps.md\n",
        );
        trial.file(".agents/skills/deploy/steps.md", "x");
        trial.file(
            ".skills/hidden/SKILL.md",
            "---\nname: hidden\ndescription: d\ndisable-model-invocation: true\n---\n",
        );
        let outcome = trial.run(&tool, json!({"skill": " deploy "})).await;
        assert_eq!(
            outcome.tool_return,
            ToolOutcome::text("Launching skill: deploy").tool_return
        );
        let text = outcome.follow_up.unwrap();
        let steps = trial.path(".agents/skills/deploy/steps.md");
        assert!(
            text.starts_with("<skill_content name=\"deploy\">\n---\nname: deploy"),
            "{text}"
        );
        assert!(
            text.contains(&format!("Read {}\n", steps.display())),
            "{text}"
        );
        assert!(text.contains("  <file>steps.md</file>"), "{text}");

        for (name, expected) in [
            ("none", "Skill \"none\" not found."),
            ("../deploy", "Skill \"../deploy\" not found."),
            (" ", "'skill' must be the name of a skill"),
            ("hidden", "is only for people to start"),
        ] {
            let text = trial.err(&tool, json!({"skill": name})).await;
            assert!(text.contains(expected), "{text}");
        }
        trial.context.skill_sources = [].into();
        trial.err(&tool, json!({"skill": "deploy"})).await;
        trial.survives_bad_arguments(&tool).await;
    }
}
