//! Models that the server offers (03 §2.3, 06 §7). Objects pass through
//! unchanged. [`Models`] remembers them.
//!
//! Invariant: one look at each source at a time; a source that fails or answers
//! with nonsense leaves what was known before.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use reqwest::Method;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::client::{Client, Path};
use super::error::ApiError;
use super::in_flight::InFlight;
use crate::protocol::time::epoch_millis;
use crate::state::atomic::Access;
use crate::state::json_file::{self, Found};

/// How long a list is good.
const FRESH: Duration = Duration::from_secs(300);
/// How long the curated list may take.
const CATALOGUE_TIMEOUT: Duration = Duration::from_secs(5);

impl Client {
    /// Every model, as the server describes it.
    pub async fn models(&self) -> Result<Vec<Value>, ApiError> {
        let call = self.call(Method::GET, Path::at("/v1/models/"));
        call.parsed().await
    }

    /// The connected providers: a raw call.
    pub async fn providers(&self) -> Result<Vec<Value>, ApiError> {
        let call = self.raw_call(Method::GET, Path::at("/v1/providers"));
        call.parsed().await
    }

    /// Makes the server look again at the models of a provider.
    pub async fn refresh_provider(&self, id: &str) -> Result<(), ApiError> {
        let path = Path::at("/v1/providers/").id(id).then("/refresh");
        self.raw_call(Method::PATCH, path).bytes().await.map(drop)
    }
}

type Listed = Option<(Instant, Arc<Vec<Value>>)>;

/// The lists of models, remembered for five minutes. Cheap to clone.
#[derive(Clone)]
pub struct Models(Arc<Shared>);

struct Shared {
    /// Whether the server has a curated list.
    cloud: bool,
    file: PathBuf,
    available: Mutex<Listed>,
    curated: Mutex<Listed>,
    asking: InFlight<Result<Arc<Vec<Value>>, ApiError>>,
}

impl std::fmt::Debug for Models {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Models")
    }
}

impl Models {
    /// Nothing is asked yet. `file` keeps the curated list over restarts.
    pub fn new(cloud: bool, file: PathBuf) -> Self {
        Self(Arc::new(Shared {
            cloud,
            file,
            available: Mutex::default(),
            curated: Mutex::default(),
            asking: InFlight::default(),
        }))
    }

    /// The models that can be used. `force` asks in any case.
    ///
    /// # Errors
    /// When they are not known and the server cannot be asked.
    pub async fn available(&self, api: &Client, force: bool) -> Result<Arc<Vec<Value>>, ApiError> {
        if let Some(known) = fresh(&self.0.available).filter(|_| !force) {
            return Ok(known);
        }
        let asked = api.clone();
        let request = async move { asked.models().await.map(Arc::new) };
        let models = self.0.asking.join("available", request).await?;
        remember(&self.0.available, &models);
        Ok(models)
    }

    /// The entries of the catalogue: `{id, handle, label, description,
    /// isDefault?, isFeatured?, free?, updateArgs?}`. Off Letta Cloud they are
    /// made from the available models. Empty when nothing is known.
    pub async fn catalogue(&self, api: &Client, force: bool) -> Arc<Vec<Value>> {
        if !self.0.cloud {
            let available = self.available(api, false).await.unwrap_or_default();
            return Arc::new(from_available(&available));
        }
        if let Some(known) = fresh(&self.0.curated).filter(|_| !force) {
            return known;
        }
        let asked = api.clone();
        let request = async move {
            let call = asked.call(Method::GET, Path::at("/v1/models/catalog"));
            let answer = call.retries(0).timeout(CATALOGUE_TIMEOUT).value().await?;
            let rows = entries(&answer);
            rows.map(Arc::new)
                .ok_or_else(|| ApiError::unreadable("the catalogue of models has another shape"))
        };
        match self.0.asking.join("curated", request).await {
            Ok(models) => {
                remember(&self.0.curated, &models);
                self.save(&models).await;
                models
            }
            Err(error) => {
                tracing::debug!(?error, "The catalogue of models could not be read.");
                match self.stale() {
                    Some(known) => known,
                    None => self.saved().await,
                }
            }
        }
    }

    /// The curated list, however old.
    fn stale(&self) -> Option<Arc<Vec<Value>>> {
        let known = lock(&self.0.curated);
        known.as_ref().map(|(_, models)| Arc::clone(models))
    }

    async fn save(&self, models: &Arc<Vec<Value>>) {
        let (file, models) = (self.0.file.clone(), Arc::clone(models));
        let write = move || {
            let mut content = Map::new();
            content.insert("schemaVersion".into(), 1.into());
            content.insert("source".into(), super::client::CLOUD_URL.into());
            content.insert("fetchedAt".into(), epoch_millis(SystemTime::now()).into());
            content.insert("models".into(), Value::Array(models.to_vec()));
            json_file::write(&file, &content, Access::Private)
        };
        if let Ok(Err(error)) = tokio::task::spawn_blocking(write).await {
            tracing::debug!(%error, "The catalogue of models could not be saved.");
        }
    }

    /// The list of an earlier process.
    async fn saved(&self) -> Arc<Vec<Value>> {
        let file = self.0.file.clone();
        let read = move || match json_file::read(&file) {
            Ok(Found::Object(content))
                if content.get("schemaVersion") == Some(&json!(1))
                    && content.get("source") == Some(&json!(super::client::CLOUD_URL)) =>
            {
                content.get("models").and_then(Value::as_array).cloned()
            }
            _ => None,
        };
        let read = tokio::task::spawn_blocking(read).await;
        Arc::new(read.ok().flatten().unwrap_or_default())
    }
}

fn lock(listed: &Mutex<Listed>) -> std::sync::MutexGuard<'_, Listed> {
    listed.lock().unwrap_or_else(PoisonError::into_inner)
}

fn fresh(listed: &Mutex<Listed>) -> Option<Arc<Vec<Value>>> {
    let listed = lock(listed);
    let (at, models) = listed.as_ref()?;
    (at.elapsed() < FRESH).then(|| Arc::clone(models))
}

fn remember(listed: &Mutex<Listed>, models: &Arc<Vec<Value>>) {
    *lock(listed) = Some((Instant::now(), Arc::clone(models)));
}

/// The entries of a curated list; `None` when any row is unusable (06 §7.1).
fn entries(answer: &Value) -> Option<Vec<Value>> {
    let rows = answer.get("models")?.as_array()?;
    let mut ids = Vec::with_capacity(rows.len());
    let mut defaults = 0;
    let mut entries = Vec::with_capacity(rows.len());
    for row in rows {
        let text = |name: &str| row.get(name)?.as_str().filter(|text| !text.is_empty());
        let id = text("id")?;
        row.get("maxContextWindow")?.as_u64()?;
        text("brand")?;
        if ids.contains(&id) {
            return None;
        }
        ids.push(id);
        let is_default = optional_bool(row, "isDefault")?;
        defaults += usize::from(is_default == Some(true) || id == "auto");
        let mut entry = json!({
            "id": id, "handle": text("handle")?, "label": text("label")?,
            "description": text("description").unwrap_or_default(),
        });
        for name in ["isDefault", "isFeatured", "free"] {
            if let Some(flag) = optional_bool(row, name)? {
                entry[name] = flag.into();
            }
        }
        let mut args = match row.get("config") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(config)) => config.clone(),
            Some(_) => return None,
        };
        for (from, to) in [
            ("contextWindow", "context_window"),
            ("maxOutputTokens", "max_output_tokens"),
        ] {
            match row.get(from) {
                None | Some(Value::Null) => {}
                Some(value) => {
                    value.as_u64()?;
                    args.insert(to.into(), value.clone());
                }
            }
        }
        if !args.is_empty() {
            entry["updateArgs"] = Value::Object(args);
        }
        entries.push(entry);
    }
    (defaults == 1).then_some(entries)
}

/// The flag of a row; `None` when it is no flag.
#[expect(
    clippy::option_option,
    reason = "absent and unusable are different things"
)]
fn optional_bool(row: &Value, name: &str) -> Option<Option<bool>> {
    match row.get(name) {
        None | Some(Value::Null) => Some(None),
        Some(Value::Bool(flag)) => Some(Some(*flag)),
        Some(_) => None,
    }
}

/// Entries for the models of a server without a curated list.
fn from_available(models: &[Value]) -> Vec<Value> {
    let handles: Vec<&str> = models.iter().filter_map(handle).collect();
    let name = |handle: &str| {
        handle
            .split_once('/')
            .map_or(handle, |(_, name)| name)
            .to_owned()
    };
    models
        .iter()
        .filter_map(|model| {
            let handle = handle(model)?;
            let own = name(handle);
            let alone = handles.iter().filter(|known| name(known) == own).count() == 1;
            let mut entry = json!({
                "id": if alone { own.as_str() } else { handle },
                "handle": handle, "label": label(model).unwrap_or(handle), "description": "",
            });
            let mut args = Map::new();
            if let Some(provider) = provider_type(model) {
                args.insert("provider_type".into(), provider.into());
            }
            for (from, to) in [
                ("max_context_window", "context_window"),
                ("max_tokens", "max_output_tokens"),
            ] {
                if let Some(value) = model.get(from).filter(|value| value.is_u64()) {
                    args.insert(to.into(), value.clone());
                }
            }
            args.insert("parallel_tool_calls".into(), true.into());
            entry["updateArgs"] = Value::Object(args);
            Some(entry)
        })
        .collect()
}

/// `handle` of a model or an entry.
pub fn handle(model: &Value) -> Option<&str> {
    model
        .get("handle")?
        .as_str()
        .filter(|handle| !handle.is_empty())
}

/// What people call a model.
pub fn label(model: &Value) -> Option<&str> {
    ["display_name", "name", "model"]
        .iter()
        .find_map(|key| model.get(*key)?.as_str().filter(|text| !text.is_empty()))
}

/// Who serves a model.
pub fn provider_type(model: &Value) -> Option<&str> {
    ["provider_type", "model_endpoint_type"]
        .iter()
        .find_map(|key| model.get(*key)?.as_str())
}

/// Whether a model is served through somebody's own OpenAI-compatible endpoint (06 §7.1).
pub fn is_openai_proxy(model: &Value) -> bool {
    let category = model.get("provider_category").and_then(Value::as_str);
    let endpoint = model.get("model_endpoint").and_then(Value::as_str);
    category == Some("byok")
        && provider_type(model) == Some("openai")
        && endpoint.is_some_and(is_foreign_openai)
}

/// Whether a URL is that of an endpoint other than OpenAI's own.
pub fn is_foreign_openai(url: &str) -> bool {
    reqwest::Url::parse(url)
        .is_ok_and(|url| url.host_str().is_some_and(|host| host != "api.openai.com"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str) -> Value {
        json!({"id": id, "handle": format!("p/{id}"), "label": "L", "brand": "b", "maxContextWindow": 5})
    }

    #[test]
    fn a_curated_row_becomes_an_entry() {
        let mut first = row("auto");
        first["config"] = json!({"effort": "high"});
        first["contextWindow"] = json!(200_000);
        first["isFeatured"] = json!(true);
        let found = entries(&json!({"models": [first, row("b")]})).unwrap();
        assert_eq!(
            found,
            [
                json!({"id":"auto","handle":"p/auto","label":"L","description":"","isFeatured":true,"updateArgs":{"effort":"high","context_window":200_000}}),
                json!({"id":"b","handle":"p/b","label":"L","description":""}),
            ]
        );
    }

    #[test]
    fn a_list_with_one_bad_row_is_refused_whole() {
        let with = |change: &dyn Fn(&mut Value)| {
            let mut bad = row("b");
            change(&mut bad);
            entries(&json!({"models": [row("auto"), bad]}))
        };
        assert!(with(&|_| {}).is_some());
        assert!(with(&|row| row["label"] = json!(1)).is_none());
        assert!(with(&|row| row["id"] = json!("auto")).is_none());
        assert!(
            with(&|row| row["isDefault"] = json!(true)).is_none(),
            "two defaults"
        );
        assert!(with(&|row| row["free"] = json!("yes")).is_none());
        assert!(with(&|row| row["maxContextWindow"] = Value::Null).is_none());
        assert!(
            entries(&json!({"models": [row("b")]})).is_none(),
            "no default"
        );
        assert!(entries(&json!([])).is_none());
    }

    #[test]
    fn without_a_curated_list_available_models_are_entries() {
        let models = [
            json!({"handle":"openai/gpt","display_name":"GPT","max_context_window":9,"provider_type":"openai"}),
            json!({"handle":"a/same"}),
            json!({"handle":"b/same"}),
            json!({"name":"no handle"}),
        ];
        assert_eq!(
            from_available(&models),
            [
                json!({"id":"gpt","handle":"openai/gpt","label":"GPT","description":"","updateArgs":{"provider_type":"openai","context_window":9,"parallel_tool_calls":true}}),
                json!({"id":"a/same","handle":"a/same","label":"a/same","description":"","updateArgs":{"parallel_tool_calls":true}}),
                json!({"id":"b/same","handle":"b/same","label":"b/same","description":"","updateArgs":{"parallel_tool_calls":true}}),
            ]
        );
    }

    #[tokio::test]
    async fn lists_are_asked_for_once_and_survive_a_server_that_fails() {
        use crate::api::tests::{Server, client, json as answer};
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cache/model-catalog.json");
        let good = json!({"models": [row("auto")]});
        let server = Server::answering([answer(200, &good), answer(500, &json!({}))]).await;
        let api = client(&server);
        let models = Models::new(true, file.clone());
        assert_eq!(models.catalogue(&api, false).await.len(), 1);
        assert_eq!(models.catalogue(&api, false).await.len(), 1);
        assert_eq!(server.seen().len(), 1);
        assert_eq!(
            models.catalogue(&api, true).await.len(),
            1,
            "the old one stays"
        );
        // The next process has the file, as long as the server does not answer.
        assert_eq!(
            Models::new(true, file).catalogue(&api, false).await.len(),
            1
        );
    }
}
