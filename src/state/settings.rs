//! `~/.letta/settings.json` and `<cwd>/.letta/settings.local.json`
//! (spec 01 §4.1, §4.3–4.5).
//!
//! Invariant: a write re-reads the file and lays over it only the keys that
//! this process changed, under an OS lock, so neither another process of ours
//! nor an editor loses anything. What cannot be written stays in memory and
//! goes along with the next write.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};

use super::Home;
use super::agent_flags;
use super::atomic::Access;
use super::home::create_private_dir;
use super::json_file::{self, Found, JsonFileError};
use super::toolset_preference;
use crate::config::Secret;
use crate::protocol::Scope;

/// Keys of old versions: ignored, and dropped at the next write.
const OBSOLETE: [&str; 5] = [
    "reflectionBehavior",
    "enableSleeptime",
    "pinnedAgents",
    "pinnedAgentsByServer",
    "pinnedConversationsByServer",
];

/// The saved login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredTokens {
    /// `env.LETTA_API_KEY`.
    pub access: Option<Secret>,
    /// `refreshToken`.
    pub refresh: Option<Secret>,
    /// `tokenExpiresAt`: end of the access token, Unix milliseconds.
    pub expires_at_ms: Option<i64>,
}

/// The user's settings. Cheap to clone; clones share one state. Reading is
/// from memory; methods that change something do small blocking file work.
#[derive(Clone, Debug)]
pub struct UserSettings(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    file: PathBuf,
    lock: PathBuf,
    refresh_lock: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The last known content with our changes.
    current: Map<String, Value>,
    /// Changes that are not on disk yet; `None` deletes the key.
    unsaved: Vec<(String, Option<Value>)>,
}

/// Keeps every other process of this program from refreshing the login.
#[derive(Debug)]
pub struct RefreshGuard(#[expect(dead_code, reason = "closing the file ends the lock")] File);

impl UserSettings {
    /// Reads the file. What is wrong with it is logged; defaults hold then.
    pub fn load(home: &Home) -> Self {
        let settings = Self(Arc::new(Shared {
            file: home.settings(),
            lock: home.letta.join(".settings.lock"),
            refresh_lock: home.letta.join(".token-refresh.lock"),
            state: Mutex::default(),
        }));
        settings.reload();
        settings
    }

    /// Reads the file again: SIGHUP, and before a token refresh. Changes that
    /// could not be written yet stay.
    pub fn reload(&self) {
        let mut state = self.0.state();
        match json_file::read(&self.0.file) {
            Ok(Found::Missing) => state.current = Map::new(),
            Ok(Found::Object(found)) => state.current = found,
            Ok(Found::Corrupt(reason)) => tracing::warn!(
                path = %self.0.file.display(), reason,
                "settings cannot be read; going on with what is known, the file is copied aside before it is replaced"
            ),
            Err(error) => tracing::warn!(%error, "going on without the saved settings"),
        }
        let unsaved = state.unsaved.clone();
        overlay(&mut state.current, &unsaved);
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<Value> {
        self.0.state().current.get(key).cloned()
    }

    /// Everything that is known.
    pub fn all(&self) -> Map<String, Value> {
        self.0.state().current.clone()
    }

    /// Changes keys. `change` sees the file as it is now.
    ///
    /// # Errors
    /// When the file cannot be read or written. The change holds in memory.
    pub fn update(
        &self,
        change: impl FnOnce(&mut Map<String, Value>),
    ) -> Result<(), JsonFileError> {
        let mut state = self.0.state();
        let _between_processes = lock_file(&self.0.lock).ok();
        let (found, readable) = match json_file::read(&self.0.file) {
            Ok(Found::Missing) => (Map::new(), Ok(false)),
            Ok(Found::Object(found)) => (found, Ok(false)),
            Ok(Found::Corrupt(_)) => (state.current.clone(), Ok(true)),
            Err(error) => (state.current.clone(), Err(error)),
        };
        let mut before = found.clone();
        overlay(&mut before, &state.unsaved);
        let mut next = before.clone();
        change(&mut next);
        for key in OBSOLETE {
            next.shift_remove(key);
        }
        for (key, value) in difference(&before, &next) {
            state.unsaved.retain(|(known, _)| *known != key);
            state.unsaved.push((key, value));
        }
        state.current = next;
        let corrupt = readable?;
        if state.current == found && !corrupt {
            state.unsaved.clear();
            return Ok(());
        }
        if corrupt {
            let copy = json_file::set_aside(&self.0.file)?;
            tracing::warn!(copy = %copy.display(), "the corrupt settings file was copied aside");
        }
        json_file::write(&self.0.file, &state.current, Access::Private)?;
        state.unsaved.clear();
        Ok(())
    }

    /// The saved device id.
    pub fn device_id(&self) -> Option<String> {
        self.text("deviceId")
    }

    /// The saved device id, or a new one that is on disk when this returns. Of
    /// two processes that start together both get the same.
    ///
    /// # Errors
    /// When it cannot be saved; [`UserSettings::device_id`] has it for this run.
    pub fn get_or_create_device_id(&self) -> Result<String, JsonFileError> {
        if let Some(id) = self.device_id() {
            return Ok(id);
        }
        let mut chosen = String::new();
        let outcome = self.update(|settings| {
            let saved = settings.get("deviceId").and_then(Value::as_str);
            chosen = match saved.filter(|id| !id.is_empty()) {
                Some(id) => id.to_owned(),
                None => uuid::Uuid::new_v4().to_string(),
            };
            settings.insert("deviceId".into(), json!(chosen));
        });
        outcome.map(|()| chosen)
    }

    /// The saved login.
    pub fn tokens(&self) -> StoredTokens {
        StoredTokens {
            access: self.env_value("LETTA_API_KEY").map(Secret::new),
            refresh: self.text("refreshToken").map(Secret::new),
            expires_at_ms: self.get("tokenExpiresAt").as_ref().and_then(whole_millis),
        }
    }

    /// Replaces the saved login; what is `None` is removed.
    ///
    /// # Errors
    /// As [`UserSettings::update`].
    pub fn set_tokens(&self, tokens: &StoredTokens) -> Result<(), JsonFileError> {
        let text = |secret: &Option<Secret>| secret.as_ref().map(|secret| json!(secret.expose()));
        self.update(|settings| {
            if tokens.access.is_some() || settings.contains_key("env") {
                let env = settings.entry("env").or_insert_with(|| json!({}));
                if !env.is_object() {
                    *env = json!({});
                }
                if let Some(env) = env.as_object_mut() {
                    put(env, "LETTA_API_KEY", text(&tokens.access));
                }
            }
            put(settings, "refreshToken", text(&tokens.refresh));
            put(
                settings,
                "tokenExpiresAt",
                tokens.expires_at_ms.map(|at| json!(at)),
            );
        })
    }

    /// Forgets the saved login.
    ///
    /// # Errors
    /// As [`UserSettings::update`].
    pub fn clear_tokens(&self) -> Result<(), JsonFileError> {
        self.set_tokens(&StoredTokens::default())
    }

    /// A non-empty value of the `env` map.
    pub fn env_value(&self, name: &str) -> Option<String> {
        let state = self.0.state();
        let value = state.current.get("env")?.get(name)?.as_str()?;
        (!value.is_empty()).then(|| value.to_owned())
    }

    /// The stored toolset of a conversation on a server, as written.
    pub fn toolset_preference(&self, scope: &Scope, server: &str) -> Option<String> {
        toolset_preference::get(&self.0.state().current, scope, server)
    }

    /// Stores it.
    ///
    /// # Errors
    /// As [`UserSettings::update`].
    pub fn set_toolset_preference(
        &self,
        scope: &Scope,
        server: &str,
        toolset: &str,
    ) -> Result<(), JsonFileError> {
        self.update(|settings| toolset_preference::set(settings, scope, server, toolset))
    }

    /// Whether the agent's memory is a repository on the memory server `server`.
    pub fn memfs(&self, agent_id: &str, server: &str) -> Option<bool> {
        agent_flags::get(&self.0.state().current, agent_id, server, "memfs")
    }

    /// Stores it.
    ///
    /// # Errors
    /// As [`UserSettings::update`].
    pub fn set_memfs(
        &self,
        agent_id: &str,
        server: &str,
        enabled: bool,
    ) -> Result<(), JsonFileError> {
        if self.memfs(agent_id, server) == Some(enabled) {
            return Ok(());
        }
        self.update(|settings| agent_flags::set(settings, agent_id, server, "memfs", enabled))
    }

    /// Marks an agent of a server as one that clients show first.
    ///
    /// # Errors
    /// As [`UserSettings::update`].
    pub fn pin_agent(&self, agent_id: &str, server: &str) -> Result<(), JsonFileError> {
        self.update(|settings| agent_flags::set(settings, agent_id, server, "pinned", true))
    }

    /// Waits until no other process refreshes the login: refresh tokens rotate,
    /// so two refreshes at once would end the login. Call
    /// [`UserSettings::reload`] then, since the other one may have done the
    /// work. May block for seconds: for `spawn_blocking`.
    ///
    /// # Errors
    /// When the lock file cannot be used.
    pub fn refresh_lock(&self) -> io::Result<RefreshGuard> {
        lock_file(&self.0.refresh_lock).map(RefreshGuard)
    }

    fn text(&self, key: &str) -> Option<String> {
        let state = self.0.state();
        let value = state.current.get(key)?.as_str()?;
        (!value.is_empty()).then(|| value.to_owned())
    }
}

impl Shared {
    /// A panic under the lock leaves whole values, so the state stays usable.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The settings of this machine for one directory.
#[derive(Clone, Debug)]
pub struct LocalSettings(PathBuf);

impl LocalSettings {
    /// Those of a directory; nothing is read yet.
    pub fn of(cwd: &Path) -> Self {
        Self(Home::local_settings(cwd))
    }

    /// The saved name of this machine, non-empty. Blocking.
    pub fn listener_env_name(&self) -> Option<String> {
        match json_file::read(&self.0) {
            Ok(Found::Object(found)) => {
                let name = found.get("listenerEnvName")?.as_str()?;
                (!name.is_empty()).then(|| name.to_owned())
            }
            Ok(Found::Missing) => None,
            Ok(Found::Corrupt(reason)) => {
                tracing::warn!(path = %self.0.display(), reason, "local settings are ignored");
                None
            }
            Err(error) => {
                tracing::warn!(%error, "local settings are ignored");
                None
            }
        }
    }

    /// Everything in the file; nothing when it cannot be read. Blocking.
    pub fn all(&self) -> Map<String, Value> {
        match json_file::read(&self.0) {
            Ok(Found::Object(found)) => found,
            _ => Map::new(),
        }
    }

    /// Saves the name; every other key stays. Blocking.
    ///
    /// # Errors
    /// When the file cannot be read or written; the name holds for this run.
    pub fn set_listener_env_name(&self, name: &str) -> Result<(), JsonFileError> {
        self.update(|settings| {
            settings.insert("listenerEnvName".into(), json!(name));
        })
    }

    /// Changes keys; every other one stays. Blocking.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn update(
        &self,
        change: impl FnOnce(&mut Map<String, Value>),
    ) -> Result<(), JsonFileError> {
        let (before, corrupt) = match json_file::read(&self.0)? {
            Found::Missing => (Map::new(), false),
            Found::Object(found) => (found, false),
            Found::Corrupt(_) => (Map::new(), true),
        };
        let mut settings = before.clone();
        change(&mut settings);
        if settings == before {
            return Ok(());
        }
        if corrupt {
            json_file::set_aside(&self.0)?;
        }
        json_file::write(&self.0, &settings, Access::Inherited)
    }
}

fn put(map: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    match value {
        Some(value) => drop(map.insert(key.to_owned(), value)),
        None => drop(map.shift_remove(key)),
    }
}

fn overlay(map: &mut Map<String, Value>, changes: &[(String, Option<Value>)]) {
    for (key, value) in changes {
        put(map, key, value.clone());
    }
}

fn difference(
    before: &Map<String, Value>,
    after: &Map<String, Value>,
) -> Vec<(String, Option<Value>)> {
    let changed = after
        .iter()
        .filter(|(key, value)| before.get(*key) != Some(*value));
    let removed = before.keys().filter(|key| !after.contains_key(*key));
    changed
        .map(|(key, value)| (key.clone(), Some(value.clone())))
        .chain(removed.map(|key| (key.clone(), None)))
        .collect()
}

/// JSON numbers of the published program may have a fraction.
fn whole_millis(value: &Value) -> Option<i64> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "saturates, and a date that far away never ends"
    )]
    value
        .as_i64()
        .or_else(|| value.as_f64().map(|millis| millis as i64))
}

fn lock_file(path: &Path) -> io::Result<File> {
    if let Some(dir) = path.parent() {
        create_private_dir(dir)?;
    }
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)?;
    file.lock()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    fn fixture(text: &str) -> (tempfile::TempDir, Home, UserSettings) {
        let dir = tempfile::tempdir().expect("temp dir");
        let home = Home::at(dir.path());
        fs::create_dir_all(&home.letta).expect("created");
        fs::write(home.settings(), text).expect("written");
        let settings = UserSettings::load(&home);
        (dir, home, settings)
    }

    fn on_disk(home: &Home) -> String {
        fs::read_to_string(home.settings()).expect("readable")
    }

    #[test]
    fn unknown_keys_order_and_edits_made_meanwhile_are_kept() {
        let (_dir, home, settings) = fixture(r#"{"zeta":1,"alpha":{"x":null},"gone":1}"#);
        fs::write(
            home.settings(),
            r#"{"zeta":2,"alpha":{"x":null},"added":true}"#,
        )
        .expect("edited");
        settings
            .update(|map| drop(map.insert("own".into(), json!("v"))))
            .expect("written");
        let expected = "{\n  \"zeta\": 2,\n  \"alpha\": {\n    \"x\": null\n  },\n  \"added\": true,\n  \"own\": \"v\"\n}";
        assert_eq!(on_disk(&home), expected);
    }

    #[test]
    fn obsolete_keys_go_at_the_next_write() {
        let (_dir, home, settings) = fixture(r#"{"pinnedAgents":[],"a":1}"#);
        settings
            .update(|map| drop(map.insert("b".into(), json!(2))))
            .expect("written");
        assert_eq!(on_disk(&home), "{\n  \"a\": 1,\n  \"b\": 2\n}");
    }

    #[test]
    fn a_corrupt_file_is_copied_aside_before_it_is_replaced() {
        for bad in ["{\"env\": {\"LETTA_API_KEY\": \"k\"}", "[1]", ""] {
            let (_dir, home, settings) = fixture(bad);
            let id = settings.get_or_create_device_id().expect("written");
            assert!(on_disk(&home).contains(&id));
            let names = fs::read_dir(&home.letta).expect("listed");
            let copy = names
                .map(|entry| entry.expect("entry").path())
                .find(|path| {
                    path.display()
                        .to_string()
                        .contains("settings.json.corrupt-")
                })
                .expect("a copy");
            assert_eq!(fs::read_to_string(&copy).expect("readable"), bad);
            assert_eq!(fs::metadata(&copy).expect("exists").mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_device_id_is_made_once_and_is_on_disk_at_once() {
        let (_dir, home, settings) = fixture("{}");
        let id = settings.get_or_create_device_id().expect("written");
        assert_eq!(
            uuid::Uuid::parse_str(&id)
                .expect("a uuid")
                .get_version_num(),
            4
        );
        assert_eq!(UserSettings::load(&home).device_id(), Some(id.clone()));
        assert_eq!(settings.get_or_create_device_id().expect("kept"), id);
    }

    #[test]
    fn two_processes_that_start_together_agree_on_the_device_id() {
        let (_dir, home, _) = fixture("{}");
        let (one, two) = (UserSettings::load(&home), UserSettings::load(&home));
        let id = one.get_or_create_device_id().expect("written");
        assert_eq!(two.get_or_create_device_id().expect("found"), id);
    }

    #[test]
    fn tokens_are_stored_where_the_published_program_reads_them_and_private() {
        let (_dir, home, settings) =
            fixture(r#"{"env":{"LETTA_BASE_URL":"http://x"},"tokenExpiresAt":1.5}"#);
        fs::set_permissions(home.settings(), fs::Permissions::from_mode(0o644)).expect("chmod");
        assert_eq!(settings.tokens().expires_at_ms, Some(1));
        let tokens = StoredTokens {
            access: Some(Secret::new("at")),
            refresh: Some(Secret::new("rt")),
            expires_at_ms: Some(1_795_355_534_358),
        };
        settings.set_tokens(&tokens).expect("written");
        let stored: Value = serde_json::from_str(&on_disk(&home)).expect("JSON");
        let expected = json!({"env":{"LETTA_BASE_URL":"http://x","LETTA_API_KEY":"at"},"tokenExpiresAt":1_795_355_534_358_i64,"refreshToken":"rt"});
        assert_eq!(stored, expected);
        assert_eq!(
            fs::metadata(home.settings()).expect("exists").mode() & 0o777,
            0o600
        );
        assert_eq!(UserSettings::load(&home).tokens(), tokens);
        settings.clear_tokens().expect("written");
        let stored: Value = serde_json::from_str(&on_disk(&home)).expect("JSON");
        assert_eq!(stored, json!({"env":{"LETTA_BASE_URL":"http://x"}}));
    }

    #[test]
    fn an_unwritable_file_is_reported_and_the_change_goes_along_later() {
        let (_dir, home, settings) = fixture("{}");
        fs::remove_file(home.settings()).expect("removed");
        fs::create_dir(home.settings()).expect("in the way");
        let key = |key: &'static str| {
            move |map: &mut Map<String, Value>| drop(map.insert(key.into(), json!(1)))
        };
        settings.update(key("zeroth")).expect_err("not a file");
        settings.update(key("first")).expect_err("not a file");
        assert_eq!(settings.get("first"), Some(json!(1)));
        fs::remove_dir(home.settings()).expect("removed");
        settings.reload();
        settings.update(key("second")).expect("written");
        assert_eq!(
            on_disk(&home),
            "{\n  \"zeroth\": 1,\n  \"first\": 1,\n  \"second\": 1\n}"
        );
    }

    #[test]
    fn handles_that_write_at_once_lose_nothing() {
        let (_dir, home, _) = fixture("{}");
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let settings = UserSettings::load(&home);
                scope.spawn(move || {
                    for n in 0..8 {
                        let insert = |map: &mut Map<String, Value>| {
                            drop(map.insert(format!("{writer}-{n}"), json!(n)))
                        };
                        settings.update(insert).expect("written");
                    }
                });
            }
        });
        let stored: Map<String, Value> = serde_json::from_str(&on_disk(&home)).expect("JSON");
        assert_eq!(stored.len(), 32);
    }

    #[test]
    fn only_one_process_refreshes_at_a_time() {
        let (_dir, home, settings) = fixture("{}");
        let guard = settings.refresh_lock().expect("free");
        let other = File::open(home.letta.join(".token-refresh.lock")).expect("open");
        assert!(other.try_lock().is_err());
        drop(guard);
        assert!(other.try_lock().is_ok());
    }

    #[test]
    fn a_toolset_is_found_by_the_next_process() {
        let (_dir, home, settings) = fixture("{}");
        let scope = Scope::new(Some("a"), None);
        settings
            .set_toolset_preference(&scope, "http://h:1", "codex")
            .expect("written");
        let next = UserSettings::load(&home);
        assert_eq!(
            next.toolset_preference(&scope, "http://h:1").as_deref(),
            Some("codex")
        );
    }

    #[test]
    fn the_name_of_a_directory_is_saved_beside_its_other_keys() {
        let dir = tempfile::tempdir().expect("temp dir");
        let local = LocalSettings::of(dir.path());
        assert_eq!(local.listener_env_name(), None);
        local.set_listener_env_name("w1").expect("written");
        let path = Home::local_settings(dir.path());
        assert_eq!(
            fs::read_to_string(&path).expect("readable"),
            "{\n  \"listenerEnvName\": \"w1\"\n}"
        );
        fs::write(&path, r#"{"permissions":{},"listenerEnvName":"w1"}"#).expect("edited");
        local.set_listener_env_name("w2").expect("written");
        assert_eq!(local.listener_env_name().as_deref(), Some("w2"));
        assert!(
            fs::read_to_string(&path)
                .expect("readable")
                .contains("permissions")
        );
        fs::write(&path, "broken").expect("broken");
        assert_eq!(local.listener_env_name(), None);
        local.set_listener_env_name("w3").expect("replaced");
        assert_eq!(local.listener_env_name().as_deref(), Some("w3"));
    }
}
