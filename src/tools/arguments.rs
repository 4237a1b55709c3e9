//! Are a call's arguments fit to be judged at all? Decided before any
//! approval, from the text the model wrote and the names its schema requires
//! (04 §4.1). Types are not checked here: tools read them leniently.

use serde_json::{Map, Value};

/// A call's arguments, and why it must be denied, if so.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// The arguments; empty when they could not be read.
    pub args: Map<String, Value>,
    /// The reason for the model.
    pub denial: Option<String>,
}

/// Reads `raw`, the arguments of a call of `name` whose schema requires `required`.
pub fn check(name: &str, raw: &str, required: &[String]) -> Checked {
    if name.is_empty() {
        return Checked {
            args: Map::new(),
            denial: Some("Tool call incomplete - missing name".to_owned()),
        };
    }
    let (args, readable) = match raw.trim() {
        "" => (Map::new(), true),
        text => match serde_json::from_str(text) {
            Ok(Value::Object(args)) => (args, true),
            _ => (Map::new(), false),
        },
    };
    let missing: Vec<&str> = required
        .iter()
        .map(String::as_str)
        .filter(|key| args.get(*key).is_none_or(Value::is_null))
        .collect();
    let denial = (!missing.is_empty()).then(|| {
        let mut reason = missing_text(name, &missing, &args);
        if !readable {
            reason.push_str(&format!(
                ". The arguments ({} characters) were not a valid JSON object and were lost. Do not send the same call \
                 again: write it anew, and put long content into a file in several steps.",
                raw.chars().count()
            ));
        } else if args.is_empty() {
            reason.push_str(
                ". The call arrived without arguments; they were probably lost on the way. Send it again with all of \
                 them, and put long content into a file in several steps.",
            );
        }
        reason
    });
    Checked { args, denial }
}

fn missing_text(name: &str, missing: &[&str], args: &Map<String, Value>) -> String {
    let plural = if missing.len() == 1 { "" } else { "s" };
    let received: Vec<&str> = args.keys().map(String::as_str).collect();
    format!(
        "{name} tool missing required parameter{plural}: {}. Received parameters: {}",
        missing.join(", "),
        received.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denial(raw: &str, required: &[&str]) -> Option<String> {
        let required: Vec<String> = required.iter().map(|key| (*key).to_owned()).collect();
        check("Bash", raw, &required).denial
    }

    #[test]
    fn a_missing_or_null_required_argument_is_denied_by_name() {
        assert_eq!(
            denial(
                r#"{"command":"ls","description":null}"#,
                &["command", "description"]
            )
            .unwrap(),
            "Bash tool missing required parameter: description. Received parameters: command, description"
        );
        assert!(
            denial(r#"{"x":1}"#, &["a", "b"])
                .unwrap()
                .starts_with("Bash tool missing required parameters: a, b. Received parameters: x")
        );
        assert_eq!(denial(r#"{"command":7}"#, &["command"]), None);
    }

    #[test]
    fn blank_arguments_are_an_empty_object() {
        assert_eq!(denial(" \n", &[]), None);
        assert!(denial("", &["a"]).unwrap().contains("without arguments"));
    }

    #[test]
    fn unreadable_arguments_name_their_length_and_are_empty() {
        for raw in ["{\"command\":\"ls", "[1]", "\"text\""] {
            let reason = denial(raw, &["command"]).unwrap();
            assert!(
                reason.contains(&format!("({} characters)", raw.chars().count())),
                "{reason}"
            );
            assert!(check("Bash", raw, &[]).args.is_empty());
        }
    }

    #[test]
    fn a_call_without_a_name_is_denied() {
        assert_eq!(
            check("", "{}", &[]).denial.unwrap(),
            "Tool call incomplete - missing name"
        );
    }
}
