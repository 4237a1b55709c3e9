//! The secrets of an agent: `secret_list`, `secret_apply` (06 §14).
//!
//! Invariant: the server replaces the whole map, so it is read right before it
//! is written, and two changes of one agent never overlap. No value reaches a
//! log or an error.

use serde_json::{Value, json};

use super::call::{Answer, Call, Failure};
use crate::config::Secret;
use crate::protocol::fields::ShapeError;

pub(super) async fn list(mut call: Call) -> Answer {
    let agent = call.fields.non_empty("agent_id")?;
    let secrets = call.services().api.agent_secrets(&agent).await?;
    call.services().agents.forget_secrets(&agent);
    let rows: Vec<Value> = secrets
        .iter()
        .map(|(key, value)| json!({"key": key, "value": value.expose()}))
        .collect();
    Ok(json!({"secrets": rows}))
}

pub(super) async fn apply(mut call: Call) -> Answer {
    let agent = call.fields.non_empty("agent_id")?;
    let set = call.fields.object("set")?;
    let unset = call.fields.optional_strings("unset")?;
    let unset = unset.ok_or_else(|| ShapeError::new("unset", "an array of strings"))?;
    let mut changes = Vec::with_capacity(set.len() + unset.len());
    for (key, value) in set {
        let Value::String(value) = value else {
            return Err(ShapeError::new("set", "an object of strings").into());
        };
        changes.push((name(&key)?, Some(Secret::new(value))));
    }
    for key in unset {
        changes.push((name(&key)?, None));
    }
    let turn = call.shared.turn_of(&agent);
    // The semaphore is never closed.
    let _turn = turn.acquire().await.ok();
    let services = call.services();
    let mut secrets = services.api.agent_secrets(&agent).await?;
    for (key, value) in changes {
        match value {
            Some(value) => drop(secrets.insert(key, value)),
            None => drop(secrets.remove(&key)),
        }
    }
    services.api.replace_agent_secrets(&agent, &secrets).await?;
    services.agents.forget_secrets(&agent);
    let names: Vec<&String> = secrets.keys().collect();
    Ok(json!({"names": names}))
}

/// A name in the form that shells know.
fn name(key: &str) -> Result<String, Failure> {
    let name = key.to_ascii_uppercase();
    let letter = |byte: u8| byte.is_ascii_uppercase() || byte == b'_';
    let fits = name.bytes().next().is_some_and(letter)
        && name
            .bytes()
            .all(|byte| letter(byte) || byte.is_ascii_digit());
    if fits {
        return Ok(name);
    }
    // A value pasted into the wrong box must not come back whole.
    let shown: String = key.chars().take(40).collect();
    Err(Failure::new(format!(
        "Invalid secret name '{shown}'. Use uppercase letters, numbers, and underscores only."
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_raised_and_checked() {
        assert_eq!(name("api_key_2").unwrap(), "API_KEY_2");
        assert_eq!(name("_X").unwrap(), "_X");
        for bad in ["", "2X", "A-B", "A B", "É"] {
            let text = name(bad).unwrap_err().to_string();
            assert!(
                text.starts_with(&format!("Invalid secret name '{bad}'.")),
                "{text}"
            );
        }
    }
}
