//! Which model a conversation talks to, read from what the server says of its
//! agent and of itself (04 §2.1).

use serde_json::Value;

use crate::tools::toolset::Model;

/// The facts of a model that choose a toolset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CarriedModel {
    handle: Option<String>,
    provider_type: Option<String>,
    openai_compatible_proxy: bool,
}

impl CarriedModel {
    /// The conversation's own model, else its agent's.
    pub fn of(agent: Option<&Value>, conversation: Option<&Value>) -> Self {
        let carrier = conversation
            .filter(|conversation| conversation.get("model").is_some_and(Value::is_string))
            .or(agent);
        let text = |of: Option<&'_ Value>, path: &str| -> Option<String> {
            of.and_then(|value| value.pointer(path))
                .and_then(Value::as_str)
                .map(String::from)
        };
        let handle = text(carrier, "/model").or_else(|| {
            let kind = text(agent, "/llm_config/model_endpoint_type")?;
            let model = text(agent, "/llm_config/model")?;
            Some(format!("{kind}/{model}"))
        });
        Self {
            handle,
            provider_type: text(carrier, "/model_settings/provider_type"),
            openai_compatible_proxy: carrier
                .and_then(|carrier| carrier.pointer("/model_settings/openai_compatible_proxy"))
                .and_then(Value::as_bool)
                .unwrap_or(false),
        }
    }

    /// The handle, when it is known.
    pub fn handle(&self) -> Option<&str> {
        self.handle.as_deref()
    }

    /// The same for choosing a toolset.
    pub fn as_model(&self) -> Model<'_> {
        Model {
            handle: self.handle.as_deref(),
            provider_type: self.provider_type.as_deref(),
            openai_compatible_proxy: self.openai_compatible_proxy,
        }
    }
}
