use std::fs;
use std::time::Duration;

use serde_json::Value;

use super::*;

struct Fixture {
    dir: tempfile::TempDir,
    home: Home,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().expect("temp dir");
    let home = Home::at(dir.path().canonicalize().expect("real path"));
    fs::create_dir_all(&home.letta).expect("created");
    Fixture { dir, home }
}

impl Fixture {
    async fn open(&self) -> RemoteSettings {
        self.open_with(PermissionMode::Unrestricted).await
    }

    async fn open_with(&self, mode: PermissionMode) -> RemoteSettings {
        let defaults = RemoteDefaults {
            mode,
            user_cwd: None,
            process_cwd: Some(self.home.user.clone()),
        };
        RemoteSettings::open(&self.home, defaults).await
    }

    fn write(&self, value: &Value) {
        fs::write(self.home.remote_settings(), value.to_string()).expect("written");
    }

    fn stored(&self) -> Value {
        serde_json::from_slice(&fs::read(self.home.remote_settings()).expect("readable"))
            .expect("JSON")
    }

    fn make_dir(&self, name: &str) -> String {
        let path = self.home.user.join(name);
        fs::create_dir_all(&path).expect("created");
        path.display().to_string()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.home.letta).expect("listed");
        let mut names: Vec<_> = entries
            .map(|entry| {
                entry
                    .expect("entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        names
    }
}

fn conversation(id: &str) -> Scope {
    Scope::new(Some("agent-1"), Some(id))
}

#[tokio::test]
async fn directory_and_mode_survive_a_restart_in_the_published_form() {
    let f = fixture();
    let work = f.make_dir("work");
    let settings = f.open().await;
    let scope = conversation("conv-1");
    let change = settings
        .set_cwd(&scope, " work ", &f.home.user)
        .await
        .expect("usable");
    assert_eq!(
        (
            change.cwd.display().to_string(),
            change.changed,
            change.revision
        ),
        (work.clone(), true, 1)
    );
    settings.set_mode(&scope, ModeEntry::plain(PermissionMode::AcceptEdits));
    settings.shutdown().await;
    let text = fs::read_to_string(f.home.remote_settings()).expect("readable");
    let expected = format!(
        "{{\n  \"cwdMap\": {{\n    \"conversation:conv-1\": \"{work}\"\n  }},\n  \"permissionModeMap\": {{\n    \"conversation:conv-1\": {{\n      \"mode\": \"acceptEdits\"\n    }}\n  }}\n}}"
    );
    assert_eq!(text, expected);
    let settings = f.open().await;
    assert_eq!(settings.cwd_of(&scope).display().to_string(), work);
    assert_eq!(settings.mode_of(&scope).mode, PermissionMode::AcceptEdits);
    assert_eq!(
        f.names(),
        ["remote-settings.json"],
        "no lock and no temporary file stays"
    );
}

#[tokio::test]
async fn a_first_run_writes_an_empty_map_so_that_nothing_old_comes_back() {
    let f = fixture();
    f.open().await.shutdown().await;
    assert_eq!(f.stored(), json!({"cwdMap": {}}));
    let work = f.make_dir("work");
    fs::write(
        f.home.cwd_cache(),
        json!({"conversation:c": work}).to_string(),
    )
    .expect("written");
    assert!(f.open().await.cwd_map().is_empty());
}

#[tokio::test]
async fn the_old_cache_is_migrated_once_without_what_is_gone() {
    let f = fixture();
    let work = f.make_dir("work");
    let cache =
        json!({"conversation:a": work, "conversation:b": "/nonexistent/x", "conversation:c": 7});
    fs::write(f.home.cwd_cache(), cache.to_string()).expect("written");
    f.open().await.shutdown().await;
    assert_eq!(f.stored(), json!({"cwdMap": {"conversation:a": work}}));
}

#[tokio::test]
async fn a_directory_that_is_gone_at_start_leaves_the_file_and_does_not_come_back() {
    let f = fixture();
    let gone = f.home.user.join("gone").display().to_string();
    f.write(&json!({"cwdMap": {"conversation:conv-1": gone}, "other": [1]}));
    let settings = f.open().await;
    assert_eq!(settings.cwd_of(&conversation("conv-1")), f.home.user);
    assert_eq!(
        f.stored(),
        json!({"cwdMap": {}, "other": [1]}),
        "before open returns"
    );
    f.make_dir("gone");
    assert_eq!(f.open().await.cwd_of(&conversation("conv-1")), f.home.user);
}

#[tokio::test]
async fn a_directory_that_goes_later_is_dropped_when_it_is_used() {
    let f = fixture();
    let work = f.make_dir("work");
    f.write(&json!({"cwdMap": {"conversation:conv-1": work}}));
    let settings = f.open().await;
    let scope = conversation("conv-1");
    assert_eq!(
        settings.verified_cwd_of(&scope).await.display().to_string(),
        work
    );
    fs::remove_dir(&work).expect("removed");
    assert_eq!(settings.verified_cwd_of(&scope).await, f.home.user);
    assert_eq!(settings.cwd_revision(), 1);
    settings.flush().await;
    assert_eq!(f.stored(), json!({"cwdMap": {}}));
}

#[tokio::test]
async fn taking_the_boot_directory_removes_the_entry() {
    let f = fixture();
    let work = f.make_dir("work");
    f.write(&json!({"cwdMap": {"conversation:conv-1": work}}));
    let settings = f.open().await;
    settings
        .set_cwd(&conversation("conv-1"), "..", Path::new(&work))
        .await
        .expect("usable");
    settings.flush().await;
    assert_eq!(f.stored(), json!({"cwdMap": {}}));
}

#[tokio::test]
async fn directories_that_cannot_be_taken_are_told_apart() {
    let f = fixture();
    fs::write(f.home.user.join("file"), "").expect("written");
    let settings = f.open().await;
    let scope = conversation("conv-1");
    let refusal = async |requested: &str| {
        let refused = settings.set_cwd(&scope, requested, &f.home.user).await;
        (
            refused.expect_err("refused").to_string(),
            settings.cwd_revision(),
        )
    };
    assert_eq!(
        refusal("  ").await,
        ("Working directory cannot be empty".into(), 0)
    );
    let file = format!("Not a directory: {}", f.home.user.join("file").display());
    assert_eq!(refusal("file").await, (file, 0));
    assert_eq!(
        refusal("missing").await.1,
        1,
        "clients are sent the old one again"
    );
    assert_eq!(refusal("file/below").await.1, 2);
    assert!(settings.cwd_map().is_empty());
}

#[tokio::test]
async fn links_are_stored_as_what_they_lead_to() {
    let f = fixture();
    let work = f.make_dir("work");
    std::os::unix::fs::symlink(&work, f.home.user.join("link")).expect("link");
    let settings = f.open().await;
    let change = settings
        .set_cwd(&conversation("c"), "link", &f.home.user)
        .await
        .expect("usable");
    assert_eq!(change.cwd.display().to_string(), work);
}

#[tokio::test]
async fn the_boot_directory_can_change_for_this_run_and_is_replaced_when_it_goes() {
    let f = fixture();
    let work = f.make_dir("work");
    let settings = f.open().await;
    let change = settings.set_boot_cwd("work").await.expect("usable");
    assert!(change.changed && change.revision == 1);
    assert!(!settings.set_boot_cwd(&work).await.expect("usable").changed);
    assert!(settings.set_boot_cwd("missing").await.is_err());
    fs::remove_dir(&work).expect("removed");
    assert_eq!(
        settings.verified_cwd_of(&conversation("c")).await,
        f.home.user
    );
    assert_eq!(f.open().await.boot_cwd(), f.home.user, "not persisted");
}

#[tokio::test]
async fn an_explicit_unrestricted_survives_when_the_default_is_another() {
    let f = fixture();
    let settings = f.open_with(PermissionMode::Standard).await;
    let scope = conversation("conv-1");
    settings.set_mode(&scope, ModeEntry::plain(PermissionMode::Unrestricted));
    settings.shutdown().await;
    let settings = f.open_with(PermissionMode::Standard).await;
    assert_eq!(settings.mode_of(&scope).mode, PermissionMode::Unrestricted);
    settings.set_mode(&scope, ModeEntry::plain(PermissionMode::Standard));
    settings.flush().await;
    assert_eq!(
        f.stored()["permissionModeMap"],
        json!({}),
        "the default is not stored"
    );
    assert!(settings.prune_mode(&scope) && !settings.prune_mode(&scope));
}

#[tokio::test]
async fn plan_mode_survives_a_restart_with_its_file_and_the_mode_before() {
    let f = fixture();
    let scope = conversation("conv-1");
    let plan = ModeEntry::plan(PermissionMode::AcceptEdits, f.home.plans().join("a.md"));
    let settings = f.open().await;
    settings.set_mode(&scope, plan.clone());
    settings.shutdown().await;
    assert_eq!(
        f.stored()["permissionModeMap"]["conversation:conv-1"]["mode"],
        "strict"
    );
    assert_eq!(f.open().await.mode_of(&scope), plan);
}

#[tokio::test]
async fn one_malformed_mode_does_not_take_the_others_along() {
    let f = fixture();
    f.write(&json!({"cwdMap": {}, "permissionModeMap": {
        "conversation:a": null, "conversation:b": {"mode": "strict"}, "conversation:c": {"mode": "memory"},
    }}));
    let settings = f.open().await;
    let mode = |id| settings.mode_of(&conversation(id)).mode;
    assert_eq!(mode("a"), PermissionMode::Unrestricted);
    assert_eq!(mode("b"), PermissionMode::Strict);
    assert_eq!(mode("c"), PermissionMode::Standard, "never the loosest");
}

#[tokio::test]
async fn a_mode_stored_before_the_agent_was_known_moves_to_its_agent() {
    let f = fixture();
    let legacy = "agent:__unknown__::conversation:default";
    f.write(&json!({"cwdMap": {}, "permissionModeMap": {legacy: {"mode": "strict"}}}));
    let settings = f.open().await;
    let unknown = Scope::new(None, None);
    assert_eq!(settings.mode_of(&unknown).mode, PermissionMode::Strict);
    assert_eq!(
        settings.mode_of(&Scope::new(Some("a"), None)).mode,
        PermissionMode::Strict
    );
    assert_eq!(
        settings.mode_of(&Scope::new(Some("b"), None)).mode,
        PermissionMode::Unrestricted
    );
    settings.flush().await;
    let expected = json!({"agent:a::conversation:default": {"mode": "strict"}});
    assert_eq!(f.stored()["permissionModeMap"], expected);
}

#[tokio::test]
async fn journals_of_the_published_program_are_finished_once() {
    let f = fixture();
    let work = f.make_dir("work");
    f.write(&json!({"cwdMap": {"conversation:a": work, "conversation:b": work}, "cwdRepairJournalIds": ["old"]}));
    let journal = |name: &str, id: &str, key: &str| {
        let path = f
            .home
            .letta
            .join(format!("remote-settings.json.cwd-repair.{name}"));
        fs::write(
            path,
            json!({"cwdDeletes": {key: work}, "id": id}).to_string(),
        )
        .expect("written");
    };
    journal("one.json", "new", "conversation:a");
    journal("two.json.7.tmp", "old", "conversation:b");
    fs::write(
        f.home
            .letta
            .join("remote-settings.json.cwd-repair.bad.json"),
        "{",
    )
    .expect("written");
    let settings = f.open().await;
    assert_eq!(
        settings.cwd_map().into_keys().collect::<Vec<_>>(),
        ["conversation:b"]
    );
    assert_eq!(
        f.stored(),
        json!({"cwdMap": {"conversation:b": work}, "cwdRepairJournalIds": ["old", "new"]})
    );
    assert_eq!(
        f.names(),
        [
            "remote-settings.json",
            "remote-settings.json.cwd-repair.bad.json"
        ]
    );
}

#[tokio::test]
async fn a_corrupt_file_is_moved_aside_and_memory_goes_on() {
    let f = fixture();
    let settings = f.open().await;
    settings.set_mode(&conversation("a"), ModeEntry::plain(PermissionMode::Strict));
    settings.flush().await;
    for bad in ["null", "{\"cwdMap\":"] {
        fs::write(f.home.remote_settings(), bad).expect("written");
        settings.set_mode(
            &conversation("b"),
            ModeEntry::plain(PermissionMode::Standard),
        );
        settings.flush().await;
        assert_eq!(
            f.stored()["permissionModeMap"]["conversation:a"]["mode"],
            "strict"
        );
        assert!(f.names().iter().any(|name| name.contains(".corrupt-")));
    }
}

#[tokio::test]
async fn a_live_published_writer_is_waited_for() {
    let f = fixture();
    let settings = f.open().await;
    settings.flush().await;
    let mut child = std::process::Command::new("sleep")
        .arg("60")
        .spawn()
        .expect("sleep runs");
    let lock = f.home.letta.join("remote-settings.json.lock");
    fs::write(&lock, format!("{}-token", child.id())).expect("written");
    let before = f.stored();
    settings.set_mode(&conversation("a"), ModeEntry::plain(PermissionMode::Strict));
    let early = timeout(Duration::from_millis(50), settings.flush()).await;
    assert!(early.is_err() && f.stored() == before);
    fs::remove_file(&lock).expect("released");
    settings.flush().await;
    assert_eq!(
        f.stored()["permissionModeMap"]["conversation:a"]["mode"],
        "strict"
    );
    child.kill().expect("killed");
    child.wait().expect("reaped");
}

#[tokio::test]
async fn the_end_does_not_wait_longer_than_a_second_for_a_lock() {
    let f = fixture();
    let settings = f.open().await;
    settings.flush().await;
    let mut child = std::process::Command::new("sleep")
        .arg("60")
        .spawn()
        .expect("sleep runs");
    let lock = f.home.letta.join("remote-settings.json.lock");
    fs::write(&lock, format!("{}-token", child.id())).expect("written");
    settings.set_mode(&conversation("a"), ModeEntry::plain(PermissionMode::Strict));
    let end = timeout(Duration::from_secs(5), settings.shutdown()).await;
    assert!(end.is_ok());
    child.kill().expect("killed");
    child.wait().expect("reaped");
}

#[tokio::test]
async fn a_lock_left_by_an_earlier_life_with_our_pid_is_taken_over() {
    let f = fixture();
    let lock = f.home.letta.join("remote-settings.json.lock");
    fs::write(&lock, format!("{}-token", std::process::id())).expect("written");
    f.open().await.shutdown().await;
    assert_eq!(f.names(), ["remote-settings.json"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_handles_on_one_home_never_lose_each_other_s_entries() {
    let f = fixture();
    for n in 0..10 {
        f.make_dir(&format!("d{n}"));
    }
    let (one, two) = (f.open().await, f.open().await);
    let fill = async |settings: &RemoteSettings, who: &str| {
        for n in 0..10 {
            let scope = conversation(&format!("{who}-{n}"));
            settings
                .set_cwd(&scope, &format!("d{n}"), &f.home.user)
                .await
                .expect("usable");
            settings.set_mode(&scope, ModeEntry::plain(PermissionMode::Strict));
        }
        settings.flush().await;
    };
    tokio::join!(fill(&one, "one"), fill(&two, "two"));
    let stored = f.stored();
    let count = |key: &str| stored[key].as_object().map_or(0, serde_json::Map::len);
    assert_eq!((count("cwdMap"), count("permissionModeMap")), (20, 20));
    assert!(f.dir.path().exists());
}
