//! AskUserQuestion: questions to the human, answered by a client (04 §7.10).
//!
//! A client fills in `answers` when it approves the call; the tool only checks
//! the questions and hands the answers to the model.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::args::{DRAFT_07, schema};
use super::offload::{Failure, Worked, settle};
use super::tool::{Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome};

const DESCRIPTION: &str = "\
Asks the user one to four multiple-choice questions and waits for the answers.

- Use it when the way on depends on something only the user can decide: a preference, a trade-off, an ambiguous request. Do not ask what you can find out.
- Each question has a header of at most about 12 characters and two to four options, each with a short label and a description of what it means.
- The user can always give an answer of their own: the client adds the choice \"Other\", so do not add one.
- Set multiSelect when several options may be chosen together.
- If you recommend an option, put it first and say so in its label.";

static PARAMETERS: LazyLock<Value> = LazyLock::new(|| {
    let option = json!({
        "type": "object",
        "properties": {
            "label": {"type": "string", "description": "What the user sees and chooses, a few words"},
            "description": {"type": "string", "description": "What choosing it means"},
        },
        "required": ["label", "description"],
        "additionalProperties": false,
    });
    let question = json!({
        "type": "object",
        "properties": {
            "question": {"type": "string", "description": "The whole question"},
            "header": {"type": "string", "description": "A label for the question, at most about 12 characters"},
            "options": {"type": "array", "minItems": 2, "maxItems": 4, "items": option, "description": "The choices, without \"Other\""},
            "multiSelect": {"type": "boolean", "default": false, "description": "Whether several options may be chosen"},
        },
        "required": ["question", "header", "options"],
        "additionalProperties": false,
    });
    schema(
        json!({
            "questions": {"type": "array", "minItems": 1, "maxItems": 4, "items": question, "description": "The questions, one to four"},
            "answers": {"type": "object", "additionalProperties": {"type": "string"}, "description": "Filled in by the client, never by you"},
        }),
        &["questions"],
        DRAFT_07,
    )
});

/// The tool.
#[derive(Debug, Default)]
pub struct AskUserQuestion;

impl Tool for AskUserQuestion {
    fn name(&self) -> &'static str {
        "AskUserQuestion"
    }

    fn description(&self) -> &str {
        DESCRIPTION
    }

    fn parameters(&self) -> &Value {
        &PARAMETERS
    }

    fn run<'a>(&'a self, call: &'a ToolCall, _: &'a ToolContext) -> ToolFuture<'a> {
        Box::pin(async move { settle(answer(&call.args)) })
    }
}

fn answer(args: &Map<String, Value>) -> Worked {
    let questions = match args.get("questions") {
        Some(Value::Array(questions)) if !questions.is_empty() => questions,
        _ => return Err(Failure::new("questions must be a non-empty array")),
    };
    if questions.len() > 4 {
        return Err(Failure::new("Maximum of 4 questions allowed"));
    }
    let mut asked = Vec::with_capacity(questions.len());
    for question in questions {
        asked.push(check(question)?);
    }
    let answers = args.get("answers").and_then(Value::as_object);
    let Some(answers) = answers.filter(|answers| !answers.is_empty()) else {
        return Ok(ToolOutcome::text("The user has not answered yet."));
    };
    let list: Vec<String> = asked
        .iter()
        .map(|question| format!("\"{question}\"=\"{}\"", given(answers.get(*question))))
        .collect();
    Ok(ToolOutcome::text(format!(
        "User has answered your questions: {}. Go on with these answers in mind.",
        list.join(", ")
    )))
}

/// An answer as text; a client may send several as a list.
fn given(answer: Option<&Value>) -> String {
    match answer {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(several)) => {
            let several: Vec<String> = several.iter().map(|one| given(Some(one))).collect();
            several.join(", ")
        }
        Some(other) => other.to_string(),
    }
}

/// The text of a question that can be asked.
fn check(question: &Value) -> Result<&str, Failure> {
    let text = |value: &Value, name: &str, refusal: &str| match value.get(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(()),
        _ => Err(Failure::new(refusal)),
    };
    text(
        question,
        "question",
        "Each question must have a question string",
    )?;
    text(
        question,
        "header",
        "Each question must have a header string",
    )?;
    let options = match question.get("options").and_then(Value::as_array) {
        Some(options) if (2..=4).contains(&options.len()) => options,
        _ => return Err(Failure::new("Each question must have 2-4 options")),
    };
    match question.get("multiSelect") {
        None | Some(Value::Null | Value::Bool(_)) => {}
        Some(Value::String(flag)) if matches!(flag.as_str(), "true" | "false") => {}
        Some(_) => {
            return Err(Failure::new(
                "Each question's multiSelect must be a boolean",
            ));
        }
    }
    for option in options {
        text(option, "label", "Each option must have a label string")?;
        text(
            option,
            "description",
            "Each option must have a description string",
        )?;
    }
    Ok(question["question"].as_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::trial::Trial;

    fn question(text: &str) -> Value {
        let option = |label: &str| json!({"label": label, "description": "d"});
        json!({"question": text, "header": "h", "options": [option("a"), option("b")]})
    }

    #[tokio::test]
    async fn answers_reach_the_model_as_a_list() {
        let trial = Trial::new();
        let mut args =
            json!({"questions": [question("One?"), question("Two?"), question("Three?")]});
        let text = trial.ok(&AskUserQuestion, args.clone()).await;
        assert_eq!(text, "The user has not answered yet.");
        args["answers"] = json!({"One?": "a", "Three?": ["x", "y"]});
        let text = trial.ok(&AskUserQuestion, args).await;
        assert!(
            text.starts_with("User has answered your questions: \"One?\"=\"a\", \"Two?\"=\"\", \"Three?\"=\"x, y\""),
            "{text}"
        );
    }

    #[tokio::test]
    async fn questions_that_cannot_be_asked_are_refused() {
        let trial = Trial::new();
        let with = |name: &str, value: Value| {
            let mut question = question("?");
            question[name] = value;
            json!({"questions": [question]})
        };
        for (args, expected) in [
            (json!({}), "questions must be a non-empty array"),
            (
                json!({"questions": []}),
                "questions must be a non-empty array",
            ),
            (
                json!({"questions": "?"}),
                "questions must be a non-empty array",
            ),
            (
                json!({"questions": vec![question("?"); 5]}),
                "Maximum of 4 questions allowed",
            ),
            (
                json!({"questions": [1]}),
                "Each question must have a question string",
            ),
            (
                with("question", json!("")),
                "Each question must have a question string",
            ),
            (
                with("header", json!(1)),
                "Each question must have a header string",
            ),
            (
                with("options", json!([{}])),
                "Each question must have 2-4 options",
            ),
            (
                with("options", json!([{}, {}])),
                "Each option must have a label string",
            ),
            (
                with("options", json!([{"label": "a"}, {}])),
                "Each option must have a description string",
            ),
            (
                with("multiSelect", json!(3)),
                "Each question's multiSelect must be a boolean",
            ),
        ] {
            assert_eq!(trial.err(&AskUserQuestion, args).await, expected);
        }
        trial.survives_bad_arguments(&AskUserQuestion).await;
    }
}
