//! `model_settings` for each provider (the table of 06 §7.3).

use serde_json::{Map, Value, json};

/// Handles whose effort goes up to `xhigh`; others have `max` in its place.
const XHIGH: [&str; 5] = [
    "claude-fable-5",
    "claude-opus-5",
    "claude-sonnet-5",
    "claude-opus-4-7",
    "claude-opus-4-8",
];

/// Models that have no `minimal` effort.
const NO_MINIMAL: [&str; 8] = [
    "gpt-5.1",
    "gpt-5.2",
    "gpt-5.3",
    "gpt-5.4",
    "gpt-5.5",
    "gpt-5.6",
    "gpt-6-sol",
    "gpt-6-luna",
];

/// What the server must know of a model beside its handle.
pub(crate) fn model_settings(handle: &str, args: &Map<String, Value>) -> Value {
    let provider = provider(handle, args);
    let mut settings = json!({"provider_type": provider, "parallel_tool_calls": true});
    let own = settings.as_object_mut();
    let Some(own) = own else { return settings };
    let mut copy = |names: &[&str]| {
        for name in names {
            if let Some(value) = args.get(*name) {
                own.insert((*name).to_owned(), value.clone());
            }
        }
    };
    copy(&["max_output_tokens", "modalities", "capabilities"]);
    match provider.as_str() {
        "anthropic" | "bedrock" => {
            if provider == "anthropic" {
                copy(&["strict"]);
            }
            if let Some(effort) = anthropic_effort(handle, args) {
                own.insert("effort".into(), effort.into());
            }
            if let Some(thinking) = thinking(args) {
                own.insert("thinking".into(), thinking);
            }
        }
        "moonshot" | "zai" => copy(&["reasoning_effort"]),
        "xai" => {}
        "google_ai" | "google_vertex" => {
            copy(&["temperature"]);
            if let Some(budget) = args.get("thinking_budget") {
                own.insert("thinking_config".into(), json!({"thinking_budget": budget}));
            }
        }
        "openai" | "chatgpt_oauth" | "openrouter" => {
            copy(&[
                "verbosity",
                "strict",
                "service_tier",
                "openai_compatible_proxy",
            ]);
            // Some servers refuse a `null` that nobody asked for.
            if args.contains_key("reasoning_effort") || effort(args).is_some() {
                let effort = openai_effort(handle, args);
                let reasoning = effort.map(|effort| json!({"reasoning_effort": effort}));
                own.insert("reasoning".into(), reasoning.unwrap_or_default());
            }
        }
        _ => {
            copy(&["strict"]);
            if let Some(effort) = openai_effort(handle, args) {
                own.insert("reasoning".into(), json!({"reasoning_effort": effort}));
            }
        }
    }
    settings
}

/// Who serves the model: as the catalogue says, else by the beginning of its handle.
fn provider(handle: &str, args: &Map<String, Value>) -> String {
    if let Some(named) = args.get("provider_type").and_then(Value::as_str) {
        return named.to_owned();
    }
    let prefix = handle.split_once('/').map_or("", |(prefix, _)| prefix);
    match prefix {
        "chatgpt-plus-pro" | "openai-codex" | "chatgpt_oauth" => "chatgpt_oauth",
        "anthropic" | "lc-anthropic" | "claude-pro-max" | "minimax" => "anthropic",
        "moonshot" | "moonshotai" => "moonshot",
        known @ ("bedrock" | "openrouter" | "zai" | "xai" | "google_ai" | "google_vertex") => known,
        _ => "openai",
    }
    .to_owned()
}

fn effort(args: &Map<String, Value>) -> Option<&str> {
    let effort = args.get("reasoning_effort").or(args.get("effort"));
    effort.and_then(Value::as_str)
}

fn openai_effort<'a>(handle: &str, args: &'a Map<String, Value>) -> Option<&'a str> {
    match effort(args)? {
        "minimal" if NO_MINIMAL.iter().any(|model| handle.contains(model)) => Some("none"),
        "max" if handle.contains("gpt-5.5") => Some("xhigh"),
        effort => Some(effort),
    }
}

fn anthropic_effort<'a>(handle: &str, args: &'a Map<String, Value>) -> Option<&'a str> {
    match effort(args)? {
        "xhigh" if XHIGH.iter().any(|model| handle.contains(model)) => Some("xhigh"),
        "xhigh" => Some("max"),
        effort @ ("low" | "medium" | "high" | "max") => Some(effort),
        _ => None,
    }
}

fn thinking(args: &Map<String, Value>) -> Option<Value> {
    let enabled = args.get("enable_reasoner").and_then(Value::as_bool);
    let budget = args.get("max_reasoning_tokens").and_then(Value::as_u64);
    if enabled.is_none() && budget.is_none() {
        return None;
    }
    let kind = if enabled == Some(false) {
        "disabled"
    } else {
        "enabled"
    };
    let mut thinking = json!({"type": kind});
    if let Some(budget) = budget {
        thinking["budget_tokens"] = budget.into();
    }
    Some(thinking)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_provider_gets_the_settings_of_its_row() {
        let cases: Vec<Value> = serde_json::from_str(include_str!(
            "../../../tests/data/device/model-settings.json"
        ))
        .unwrap();
        assert!(cases.len() > 15);
        for case in cases {
            let args = case["args"].as_object().unwrap();
            let mut found = model_settings(case["handle"].as_str().unwrap(), args);
            assert_eq!(found["parallel_tool_calls"], true);
            found.as_object_mut().unwrap().remove("parallel_tool_calls");
            assert_eq!(found, case["settings"], "{case}");
        }
    }
}
