//! Which tools a conversation gets: `update_toolset` (06 §8).

use serde_json::{Value, json};

use super::call::{Answer, Call, Failure};
use super::update_model::carriers;
use crate::conversation::{CarriedModel, Services};
use crate::events::Recipient;
use crate::protocol::Scope;
use crate::protocol::event::Level;
use crate::protocol::fields::ShapeError;
use crate::protocol::inbound::TOOLSET_PREFERENCES;
use crate::tools::toolset::{Preference, Preset};

/// The toolset that a conversation gets with its model and its stored preference.
pub(super) fn resolve(
    services: &Services,
    scope: &Scope,
    agent: Option<&Value>,
    conversation: Option<&Value>,
) -> Preset {
    let stored = stored(services, scope);
    let preference = stored
        .as_deref()
        .map_or(Preference::Auto, Preference::stored);
    let model = CarriedModel::of(agent, conversation);
    preference.resolve(&model.as_model())
}

fn stored(services: &Services, scope: &Scope) -> Option<String> {
    let server = services.api.base_url().as_str();
    services.settings.toolset_preference(scope, server)
}

async fn store(call: &Call, scope: &Scope, preference: String) -> Result<(), Failure> {
    let settings = call.services().settings.clone();
    let server = call.services().api.base_url().as_str().to_owned();
    let scope = scope.clone();
    call.blocking(move || settings.set_toolset_preference(&scope, &server, &preference))
        .await?
        .map_err(|error| Failure::new(error.to_string()))
}

pub(super) async fn update(mut call: Call) -> Answer {
    let runtime = call.request.runtime.clone().unwrap_or_default();
    call.echo("runtime", runtime.clone());
    let Some(scope) = call.request.scope.clone() else {
        return Err(ShapeError::new("runtime", "an agent and a conversation").into());
    };
    let wanted = call.fields.string("toolset_preference")?;
    if !TOOLSET_PREFERENCES.contains(&wanted.as_str()) {
        let expected = "auto, letta, none, default or codex";
        return Err(ShapeError::new("toolset_preference", expected).into());
    }
    let before = stored(call.services(), &scope);
    store(&call, &scope, wanted.clone()).await?;
    let (agent, conversation) = match carriers(call.services(), &scope).await {
        Ok(found) => found,
        Err(error) => {
            store(&call, &scope, before.unwrap_or_else(|| "auto".into())).await?;
            return Err(error);
        }
    };
    let preset = resolve(
        call.services(),
        &scope,
        agent.as_ref(),
        conversation.as_ref(),
    );
    let name = preset.display_name();
    let word = if wanted == "auto" {
        format!("Toolset mode set to auto (currently {name}).")
    } else {
        format!("Switched toolset to {name} (manual override).")
    };
    call.show(
        Recipient::Conversation(scope),
        Some((word, Level::Info)),
        Some(preset.as_str()),
    )
    .await;
    Ok(json!({
        "runtime": runtime, "current_toolset": preset.as_str(),
        "current_toolset_preference": wanted,
    }))
}
