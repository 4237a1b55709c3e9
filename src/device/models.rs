//! Which models a conversation may use: `list_models` (06 §7.2).

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::call::{Answer, Call};
use crate::api::models::{handle, is_foreign_openai, is_openai_proxy, label, provider_type};
use crate::conversation::Services;

/// Providers under the names that model handles use, and whom they stand for.
const ALIASES: [(&str, &str); 13] = [
    ("chatgpt-plus-pro", "openai-codex"),
    ("lc-xai", "xai"),
    ("lc-anthropic", "anthropic"),
    ("lc-openai", "openai"),
    ("lc-openai-compatible", "openai"),
    ("lc-zai", "zai"),
    ("lc-zai-coding", "zai"),
    ("lc-minimax", "minimax"),
    ("lc-gemini", "google"),
    ("lc-moonshot", "moonshotai"),
    ("lc-kimi-code", "kimi-coding"),
    ("lc-openrouter", "openrouter"),
    ("lc-bedrock", "amazon-bedrock"),
];

/// What provider types are called in handles.
const TYPES: [(&str, &str); 13] = [
    ("chatgpt_oauth", "openai-codex"),
    ("xai", "xai"),
    ("anthropic", "anthropic"),
    ("openai", "openai"),
    ("zai", "zai"),
    ("zai_coding", "zai"),
    ("minimax", "minimax"),
    ("google_ai", "google"),
    ("google_vertex", "google"),
    ("moonshot", "moonshotai"),
    ("kimi_code", "kimi-coding"),
    ("openrouter", "openrouter"),
    ("bedrock", "amazon-bedrock"),
];

/// What is known of models at one moment.
pub(super) struct Offer {
    pub(super) catalogue: Arc<Vec<Value>>,
    /// `None` when the server could not be asked.
    pub(super) available: Option<Arc<Vec<Value>>>,
    pub(super) providers: Vec<Value>,
}

impl Offer {
    async fn load(services: &Services, force: bool) -> Self {
        let api = &services.api;
        let known = api.providers();
        let refreshed = async {
            let providers = known.await.unwrap_or_default();
            if force {
                let own = providers.iter().filter(|provider| is_byok(provider));
                let ids = own.filter_map(|provider| provider.get("id")?.as_str());
                for id in ids {
                    if let Err(error) = api.refresh_provider(id).await {
                        tracing::debug!(?error, "A provider could not be refreshed.");
                    }
                }
            }
            providers
        };
        let (providers, available, catalogue) = if force {
            // What was refreshed must be seen.
            let providers = refreshed.await;
            let (available, catalogue) = tokio::join!(
                services.models.available(api, true),
                services.models.catalogue(api, true)
            );
            (providers, available, catalogue)
        } else {
            tokio::join!(
                refreshed,
                services.models.available(api, false),
                services.models.catalogue(api, false)
            )
        };
        Self {
            catalogue,
            available: available.ok(),
            providers,
        }
    }

    /// The rows of the answer.
    fn entries(&self, cloud: bool) -> Vec<Value> {
        let available = self.available.as_deref().map_or(&[][..], Vec::as_slice);
        let mut entries = self.catalogue.to_vec();
        let known: Vec<String> = entries
            .iter()
            .filter_map(handle)
            .map(String::from)
            .collect();
        let further = available.iter().filter(|model| {
            (!cloud || is_byok(model))
                && handle(model).is_some_and(|handle| !known.iter().any(|known| known == handle))
        });
        entries.extend(further.filter_map(|model| self.own_entry(model)));
        for entry in &mut entries {
            if self.is_proxied(entry) {
                let args = entry
                    .as_object_mut()
                    .map(|entry| entry.entry("updateArgs").or_insert_with(|| json!({})));
                if let Some(Value::Object(args)) = args {
                    args.insert("provider_type".into(), "openai".into());
                    args.insert("openai_compatible_proxy".into(), true.into());
                }
            }
        }
        entries
    }

    /// A model of somebody's own: it borrows from the same model of the catalogue.
    fn own_entry(&self, model: &Value) -> Option<Value> {
        let handle_of = handle(model)?;
        let name = model.get("model").or(model.get("name"));
        let name = name
            .and_then(Value::as_str)
            .unwrap_or(after_slash(handle_of));
        let twin = self.catalogue.iter().find(|entry| {
            let other = handle(entry).unwrap_or_default();
            let base = other.split('/').next().unwrap_or_default();
            after_slash(other) == name
                && provider_type(model)
                    .is_some_and(|kind| base == kind || base_of(kind) == Some(base))
        });
        let text = |key: &str| twin.and_then(|twin| twin.get(key)?.as_str());
        let mut entry = json!({
            "id": handle_of, "handle": handle_of,
            "label": text("label").or(label(model)).unwrap_or(handle_of),
            "description": text("description").unwrap_or_default(),
        });
        let mut args = twin
            .and_then(|twin| twin.get("updateArgs")?.as_object().cloned())
            .unwrap_or_default();
        args.extend(provider_args(model));
        if !args.is_empty() {
            entry["updateArgs"] = Value::Object(args);
        }
        Some(entry)
    }

    /// Whether an entry goes through a connected endpoint that only speaks OpenAI's language.
    fn is_proxied(&self, entry: &Value) -> bool {
        let Some((prefix, _)) = handle(entry).and_then(|handle| handle.split_once('/')) else {
            return false;
        };
        self.providers.iter().any(|provider| {
            let text = |key: &str| provider.get(key).and_then(Value::as_str);
            text("name") == Some(prefix)
                && is_byok(provider)
                && text("provider_type") == Some("openai")
                && text("base_url").is_some_and(is_foreign_openai)
        })
    }

    fn aliases(&self) -> Map<String, Value> {
        let fixed = ALIASES.iter().chain(&[("openrouter-oauth", "openrouter")]);
        let mut aliases: Map<String, Value> = fixed
            .map(|(name, base)| ((*name).to_owned(), (*base).into()))
            .collect();
        for provider in &self.providers {
            let text = |key: &str| provider.get(key).and_then(Value::as_str);
            if let (Some(name), Some(base)) =
                (text("name"), text("provider_type").and_then(base_of))
            {
                aliases.insert(name.to_owned(), base.into());
            }
        }
        aliases
    }
}

/// What a model of somebody's own brings into `updateArgs`.
pub(super) fn provider_args(model: &Value) -> Map<String, Value> {
    let mut args = Map::new();
    let kind = provider_type(model);
    if is_openai_proxy(model) {
        args.insert("provider_type".into(), "openai".into());
        args.insert("openai_compatible_proxy".into(), true.into());
    } else if let Some(kind) = kind.filter(|kind| is_byok(model) || *kind == "chatgpt_oauth") {
        args.insert("provider_type".into(), kind.into());
    }
    args
}

fn is_byok(of: &Value) -> bool {
    of.get("provider_category").and_then(Value::as_str) == Some("byok")
}

fn base_of(kind: &str) -> Option<&'static str> {
    let found = TYPES.iter().find(|(known, _)| *known == kind);
    found.map(|(_, base)| *base)
}

/// The model's own name.
pub(super) fn after_slash(handle: &str) -> &str {
    handle.split_once('/').map_or(handle, |(_, name)| name)
}

pub(super) async fn list(mut call: Call) -> Answer {
    let force = call.fields.optional_bool("force")?.unwrap_or(false);
    let services = call.services();
    let offer = Offer::load(services, force).await;
    let entries = offer.entries(services.cloud);
    let source = if services.cloud {
        Some(&entries)
    } else {
        offer.available.as_deref()
    };
    let handles = source.map(|models| {
        let mut handles: Vec<&str> = Vec::new();
        for handle in models.iter().filter_map(handle) {
            if !handles.contains(&handle) {
                handles.push(handle);
            }
        }
        json!(handles)
    });
    Ok(json!({
        "available_handles": handles, "byok_provider_aliases": offer.aliases(),
        "entries": entries,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer() -> Offer {
        Offer {
            catalogue: Arc::new(vec![
                json!({"id":"auto","handle":"letta/auto","label":"Auto","description":"d"}),
                json!({"id":"sonnet","handle":"anthropic/claude-x","label":"Claude X","description":"good","updateArgs":{"context_window":200_000}}),
            ]),
            available: Some(Arc::new(vec![
                json!({"handle":"letta/auto","provider_category":"base"}),
                json!({"handle":"openai/gpt","provider_category":"base","provider_type":"openai"}),
                json!({"handle":"lc-anthropic/claude-x","model":"claude-x","provider_category":"byok","provider_type":"anthropic"}),
                json!({"handle":"mine/llama","display_name":"Llama","provider_category":"byok","provider_type":"openai","model_endpoint":"https://llm.example/v1"}),
            ])),
            providers: vec![
                json!({"id":"p1","name":"mine","provider_category":"byok","provider_type":"openai","base_url":"https://llm.example/v1"}),
                json!({"id":"p2","name":"odd","provider_type":"strange"}),
            ],
        }
    }

    #[test]
    fn letta_cloud_lists_its_catalogue_and_own_models() {
        let entries = offer().entries(true);
        let handles: Vec<&str> = entries.iter().filter_map(handle).collect();
        assert_eq!(
            handles,
            [
                "letta/auto",
                "anthropic/claude-x",
                "lc-anthropic/claude-x",
                "mine/llama"
            ]
        );
        assert_eq!(
            entries[2],
            json!({"id":"lc-anthropic/claude-x","handle":"lc-anthropic/claude-x","label":"Claude X","description":"good","updateArgs":{"context_window":200_000,"provider_type":"anthropic"}})
        );
        assert_eq!(
            entries[3],
            json!({"id":"mine/llama","handle":"mine/llama","label":"Llama","description":"","updateArgs":{"provider_type":"openai","openai_compatible_proxy":true}})
        );
    }

    #[test]
    fn another_server_lists_every_model_that_it_has() {
        let entries = offer().entries(false);
        assert_eq!(entries.len(), 5);
        assert_eq!(handle(&entries[2]), Some("openai/gpt"));
    }

    #[test]
    fn aliases_name_fixed_and_connected_providers() {
        let aliases = offer().aliases();
        assert_eq!(aliases["chatgpt-plus-pro"], "openai-codex");
        assert_eq!(aliases["openrouter-oauth"], "openrouter");
        assert_eq!(aliases["mine"], "openai");
        assert!(!aliases.contains_key("odd"));
    }
}
