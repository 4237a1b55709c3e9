//! Adding a rule to a settings file: JSON text in, JSON text out (05 §11).

use serde_json::{Map, Value};

use super::RuleList;
use super::rule::normal_form;

/// Why a settings file was left as it is.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The file holds no JSON.
    #[error(
        "the settings file is not valid JSON ({0}); the rule was not saved, correct the file and allow again"
    )]
    NotJson(#[from] serde_json::Error),
    /// The file holds JSON, but no place for rules.
    #[error(
        "`{0}` in the settings file is not {1}; the rule was not saved, correct the file and allow again"
    )]
    WrongShape(&'static str, &'static str),
}

/// The settings with `rule` added to `list`, in normal form, or `None` when an
/// equal rule is there already. `current` is the file's text, `None` when there
/// is no file. Other keys and their order stay. The result has an indent of two
/// blanks and no final newline.
///
/// # Errors
/// A file that does not parse, or whose `permissions` have another shape, is
/// never overwritten (00 §7).
pub fn add_rule(
    current: Option<&str>,
    list: RuleList,
    rule: &str,
) -> Result<Option<String>, SaveError> {
    let mut settings = match current {
        None => Value::Object(Map::new()),
        Some(text) => serde_json::from_str(text)?,
    };
    let top = settings
        .as_object_mut()
        .ok_or(SaveError::WrongShape("the top level", "an object"))?;
    let permissions = top
        .entry("permissions")
        .or_insert_with(|| Value::Object(Map::new()))
        .as_object_mut()
        .ok_or(SaveError::WrongShape("permissions", "an object"))?;
    let slot = permissions.entry(list.key()).or_insert(Value::Null);
    if slot.is_null() {
        *slot = Value::Array(Vec::new());
    }
    let rules = slot
        .as_array_mut()
        .ok_or(SaveError::WrongShape(list.key(), "a list"))?;
    let normal = normal_form(rule);
    let known = rules
        .iter()
        .filter_map(Value::as_str)
        .any(|old| normal_form(old) == normal);
    if known {
        return Ok(None);
    }
    rules.push(Value::String(normal));
    Ok(Some(serde_json::to_string_pretty(&settings)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_starts_empty_and_other_keys_stay_in_order() {
        let made = add_rule(None, RuleList::Allow, "Bash( npm test )").unwrap();
        assert_eq!(
            made.as_deref(),
            Some(
                "{\n  \"permissions\": {\n    \"allow\": [\n      \"Bash(npm test)\"\n    ]\n  }\n}"
            )
        );
        let text = r#"{"z":1,"permissions":{"deny":["x"]},"a":2}"#;
        let made = add_rule(Some(text), RuleList::Allow, "Task")
            .unwrap()
            .unwrap();
        let keys: Vec<_> = ["\"z\"", "\"deny\"", "\"allow\"", "\"a\""]
            .map(|key| made.find(key).unwrap())
            .into();
        assert!(keys.is_sorted(), "{made}");
    }

    #[test]
    fn an_equal_rule_is_not_added_again() {
        let text = r#"{"permissions":{"allow":["shell_command(npm test)"]}}"#;
        assert!(
            add_rule(Some(text), RuleList::Allow, "Bash(npm test)")
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn a_file_that_does_not_parse_is_never_overwritten() {
        for text in [
            "",
            "{",
            "[]",
            r#"{"permissions":[]}"#,
            r#"{"permissions":{"allow":"x"}}"#,
        ] {
            assert!(
                add_rule(Some(text), RuleList::Allow, "Task").is_err(),
                "{text}"
            );
        }
    }
}
