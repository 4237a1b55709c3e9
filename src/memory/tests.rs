//! The memory against a server that is a directory of bare repositories.

mod attached;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::response::IntoResponse as _;
use serde_json::json;

use super::git::Git;
use super::*;
use crate::api::tests::{Server, client};
use crate::api::token::StaticToken;
use crate::config::Secret;
use crate::state::UserSettings;

const AGENT: &str = "agent-1";
const KEY: &str = "sk-let-secret-key-0001";

#[tokio::test]
async fn one_process_changes_a_checkout_at_a_time() {
    let machine = Machine::with_server("http://127.0.0.1:1");
    // As another process would see the same home.
    let other = trial(&Home::at(machine.dir.path()));
    let (here, there) = (machine.checkout(), other.checkout(AGENT).unwrap());
    let turn = here.exclusively().await;
    assert!(there.if_free().await.is_none());
    let waits = tokio::spawn({
        let there = there.clone();
        async move { there.exclusively().await }
    });
    assert!(here.if_free().await.is_none());
    drop(turn);
    drop(waits.await.unwrap());
    assert!(here.if_free().await.is_some());
}

/// A machine with a home of its own.
struct Machine {
    dir: tempfile::TempDir,
    memory: Memory,
}

impl Machine {
    fn with_server(server: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::new(MemorySettings {
            home: Home::at(dir.path()),
            server: server.to_owned(),
            cloud: false,
            hosted: false,
            tokens: Arc::new(StaticToken(Some(Secret::new(KEY)))),
            binary: "/opt/my letta's/letta".into(),
        });
        Self { dir, memory }
    }

    fn checkout(&self) -> Checkout {
        self.memory.checkout(AGENT).unwrap()
    }

    fn put(&self, path: &str, text: &str) -> RelativePath {
        let file = self.checkout().dir().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
        RelativePath::parse(path).unwrap()
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.checkout().dir().join(path)).unwrap()
    }

    async fn commit(&self, path: &str, text: &str) -> Option<String> {
        let path = self.put(path, text);
        let checkout = self.checkout();
        let turn = checkout.exclusively().await;
        let author = author();
        let commit = checkout.commit(&turn, std::slice::from_ref(&path), "because", &author);
        commit.await.unwrap()
    }

    async fn git(&self, args: &[&str]) -> String {
        let checkout = self.checkout();
        Git::in_dir(checkout.dir()).run(args).await.unwrap()
    }
}

fn author() -> Author {
    Author {
        name: "Ada".into(),
        email: "agent-1@letta.com".into(),
    }
}

/// A server with the memory of [`AGENT`], which holds `notes.md`.
async fn server() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let bare = dir.path().join(format!("v1/git/{AGENT}/state.git"));
    fs::create_dir_all(&bare).unwrap();
    let git = Git::in_dir(&bare);
    git.run(&["init", "-q", "--bare", "-b", "main"])
        .await
        .unwrap();
    let url = format!("file://{}", dir.path().display());
    seed(dir.path(), &bare, "notes.md", "first\n").await;
    (dir, url)
}

/// Replaces the server's history by one with a single file.
async fn seed(scratch: &Path, bare: &Path, name: &str, text: &str) {
    let work = scratch.join(format!("work-{}", uuid::Uuid::new_v4()));
    fs::create_dir_all(&work).unwrap();
    let git = Git::in_dir(&work);
    git.run(&["init", "-q", "-b", "main"]).await.unwrap();
    fs::write(work.join(name), text).unwrap();
    git.run(&["add", "-A"]).await.unwrap();
    let commit = [
        "-c",
        "user.name=s",
        "-c",
        "user.email=s@s",
        "commit",
        "-qm",
        "seed",
    ];
    git.run(&commit).await.unwrap();
    let bare = bare.to_string_lossy();
    git.run(&["push", "-qf", &bare, "main"]).await.unwrap();
}

#[tokio::test]
async fn commits_of_one_machine_arrive_on_another() {
    let (_dir, url) = server().await;
    let (a, b) = (Machine::with_server(&url), Machine::with_server(&url));
    for machine in [&a, &b] {
        machine
            .checkout()
            .bring_up_to_date(Some("Ada"))
            .await
            .unwrap();
    }
    assert_eq!(a.text("notes.md"), "first\n");
    let sha = a
        .commit("system/new.md", "---\ndescription: d\n---\nx")
        .await
        .unwrap();
    assert_eq!(a.checkout().push_pending().await, Pushed::Pushed);
    assert_eq!(a.checkout().push_pending().await, Pushed::Clean);
    // Both have commits now: the other one's go below.
    b.commit("mine.md", "b").await.unwrap();
    b.checkout().bring_up_to_date(None).await.unwrap();
    assert!(b.text("system/new.md").ends_with('x'));
    assert_eq!(b.checkout().push_pending().await, Pushed::Pushed);
    // A push that comes too late is sent after the other one's commits.
    a.commit("late.md", "a").await.unwrap();
    let pushed = a.checkout().push_within(Duration::from_secs(60)).await;
    assert_eq!(pushed, Some(Pushed::Pushed));
    assert_eq!(a.text("mine.md"), "b");
    let log = a.checkout().history(None, 50).await.unwrap();
    assert_eq!(log.len(), 4);
    assert!(
        log.iter()
            .any(|commit| commit.sha == sha && commit.author == "Ada")
    );
}

#[tokio::test]
async fn a_commit_takes_its_paths_alone_and_a_refused_one_leaves_nothing_staged() {
    let (_dir, url) = server().await;
    let machine = Machine::with_server(&url);
    let checkout = machine.checkout();
    checkout.bring_up_to_date(None).await.unwrap();
    machine.put("other.md", "not mine");
    assert!(machine.commit("a|b.md", "x").await.is_some());
    assert_eq!(checkout.uncommitted().await.unwrap(), "?? other.md\n");
    assert_eq!(machine.commit("a|b.md", "x").await, None, "nothing changed");
    assert!(
        matches!(checkout.push_pending().await, Pushed::Dirty(files) if files.contains("other.md"))
    );
    let change = Change {
        before: None,
        after: Some("no header".into()),
    };
    let bad = RelativePath::parse("system/bad.md").unwrap();
    let turn = checkout.exclusively().await;
    let author = author();
    let refused = checkout.change(&turn, [(bad, change)].into(), "m", &author);
    let error = refused.await.unwrap_err();
    assert!(
        error.to_string().contains("system/bad.md: it must open"),
        "{error}"
    );
    assert_eq!(checkout.uncommitted().await.unwrap(), "?? other.md\n");
    assert!(!checkout.dir().join("system").exists());
}

#[tokio::test]
async fn a_conflict_is_told_and_left_for_the_agent() {
    let (_dir, url) = server().await;
    let (a, b) = (Machine::with_server(&url), Machine::with_server(&url));
    for machine in [&a, &b] {
        machine.checkout().bring_up_to_date(None).await.unwrap();
    }
    a.commit("notes.md", "from a\n").await.unwrap();
    assert_eq!(a.checkout().push_pending().await, Pushed::Pushed);
    b.commit("notes.md", "from b\n").await.unwrap();
    let conflict = b.checkout().push_pending().await;
    assert!(
        matches!(&conflict, Pushed::Conflict(files) if files.contains("notes.md")),
        "{conflict:?}"
    );
    assert!(matches!(
        b.checkout().push_pending().await,
        Pushed::Conflict(_)
    ));
    // A pull of somebody else does not leave a rebase behind.
    b.git(&["rebase", "--abort"]).await;
    let error = b.checkout().bring_up_to_date(None).await.unwrap_err();
    assert!(error.to_string().starts_with("Pull failed: "), "{error}");
    assert_eq!(b.text("notes.md"), "from b\n");
}

#[tokio::test]
async fn a_history_that_has_nothing_in_common_is_kept_aside() {
    let (dir, url) = server().await;
    let machine = Machine::with_server(&url);
    let checkout = machine.checkout();
    checkout.bring_up_to_date(None).await.unwrap();
    let sha = machine.commit("mine.md", "m").await.unwrap();
    let bare = dir.path().join(format!("v1/git/{AGENT}/state.git"));
    seed(dir.path(), &bare, "other.md", "new world\n").await;
    let open = machine.put("open.md", "uncommitted");
    assert!(matches!(
        checkout.bring_up_to_date(None).await,
        Err(MemoryError::Pull(_))
    ));
    assert_eq!(machine.text("mine.md"), "m");
    fs::remove_file(open.below(checkout.dir()).unwrap()).unwrap();
    checkout.bring_up_to_date(None).await.unwrap();
    assert_eq!(machine.text("other.md"), "new world\n");
    let backups = machine
        .git(&[
            "for-each-ref",
            "--format=%(objectname)",
            "refs/letta-backup/",
        ])
        .await;
    assert_eq!(backups.trim(), sha);
}

#[tokio::test]
async fn files_that_were_here_before_the_clone_stay() {
    let (_dir, url) = server().await;
    let machine = Machine::with_server(&url);
    machine.put("mine.md", "here first");
    machine.checkout().clone_if_missing(None).await.unwrap();
    assert_eq!(machine.text("mine.md"), "here first");
    assert_eq!(machine.text("notes.md"), "first\n");
    machine.checkout().clone_if_missing(None).await.unwrap();
    let siblings = fs::read_dir(machine.checkout().dir().parent().unwrap()).unwrap();
    let directories = siblings.filter(|entry| entry.as_ref().unwrap().path().is_dir());
    assert_eq!(directories.count(), 1, "no staging directory is left");
}

#[tokio::test]
async fn hooks_and_configuration_name_this_program_and_no_key() {
    let (_dir, url) = server().await;
    let machine = Machine::with_server(&url);
    let checkout = machine.checkout();
    checkout.bring_up_to_date(Some("Ada")).await.unwrap();
    // What another program left: a key in clear, its own hook, another address.
    let helper = format!("credential.{url}.helper");
    let clear = format!("!echo password={KEY}");
    machine
        .git(&["config", "--replace-all", &helper, &clear])
        .await;
    let old = "https://api.letta.com/v1/git";
    machine.git(&["remote", "set-url", "origin", old]).await;
    let hook = checkout.dir().join(".git/hooks/pre-commit");
    fs::write(&hook, "node").unwrap();
    checkout.bring_up_to_date(None).await.unwrap();
    let config = fs::read_to_string(checkout.dir().join(".git/config")).unwrap();
    assert!(!config.contains("sk-let"), "{config}");
    let value = |key: &'static str| {
        let machine = &machine;
        async move { machine.git(&["config", "--local", "--get-all", key]).await }
    };
    assert_eq!(value("user.name").await, "Ada\n");
    assert_eq!(value("letta.agentId").await, "agent-1\n");
    assert_eq!(
        value("remote.origin.url").await,
        format!("{url}/v1/git/{AGENT}/state.git\n")
    );
    let helpers = machine.git(&["config", "--get-all", &helper]).await;
    assert_eq!(
        helpers,
        "\n!'/opt/my letta'\\''s/letta' memory-credential\n"
    );
    let hook = fs::read_to_string(&hook).unwrap();
    assert!(
        hook.contains("letta='/opt/my letta'\\''s/letta'\n"),
        "{hook}"
    );
    // The program is not there, so the hook lets the commit pass.
    machine.put("x.md", "x");
    machine.git(&["add", "-A"]).await;
    machine.git(&["commit", "-qm", "by hand"]).await;
}

#[tokio::test]
async fn the_key_goes_to_the_memory_server_alone_and_not_into_arguments() {
    let answers = (0..3).map(|_| (axum::http::StatusCode::FORBIDDEN, "no").into_response());
    let server = Server::answering(answers).await;
    let machine = Machine::with_server(&server.url);
    let error = machine.checkout().bring_up_to_date(None).await.unwrap_err();
    assert!(!error.to_string().contains("sk-let"), "{error}");
    let seen = server.seen();
    assert!(
        seen[0]
            .uri
            .starts_with("/v1/git/agent-1/state.git/info/refs")
    );
    // letta:sk-let-secret-key-0001
    let basic = "Basic bGV0dGE6c2stbGV0LXNlY3JldC1rZXktMDAwMQ==";
    assert_eq!(seen[0].header("authorization"), Some(basic));
    // Another remote gets nothing.
    let other =
        Server::answering([(axum::http::StatusCode::FORBIDDEN, "no").into_response()]).await;
    let git = Git::in_dir(machine.dir.path());
    let settings = &machine.memory.0.settings;
    let url = format!("{}/x.git", other.url);
    git.online(settings, &["ls-remote", &url])
        .await
        .unwrap_err();
    assert_eq!(other.seen()[0].header("authorization"), None);
}

#[tokio::test]
async fn the_first_touch_happens_once_and_a_failed_one_again() {
    let (_dir, url) = server().await;
    let machine = Machine::with_server(&url);
    let agent = |tags: serde_json::Value| {
        axum::Json(json!({"id": AGENT, "name": "Ada", "tags": tags})).into_response()
    };
    let refused = (axum::http::StatusCode::BAD_REQUEST, "no").into_response();
    let server = Server::answering([refused, agent(json!([TAG]))]).await;
    let api = client(&server);
    let settings = UserSettings::load(&Home::at(machine.dir.path()));
    let touch = || machine.memory.first_touch(&api, &settings, AGENT);
    assert!(matches!(touch().await, Err(MemoryError::Api(text)) if text == "400 no"));
    let (first, second) = tokio::join!(touch(), touch());
    assert_eq!(
        (first.unwrap(), second.unwrap()),
        (Touched::Ready, Touched::Ready)
    );
    assert_eq!(touch().await.unwrap(), Touched::Ready);
    // What is attached is asked for behind the back of the touch.
    let seen = server.seen();
    let asked = seen
        .iter()
        .filter(|seen| !seen.uri.ends_with("/repositories"));
    assert_eq!(asked.count(), 2);
    assert_eq!(settings.memfs(AGENT, &url), Some(true));

    let server = Server::answering([agent(json!(["other"]))]).await;
    let api = client(&server);
    let touch = |id: &'static str| machine.memory.first_touch(&api, &settings, id);
    assert_eq!(touch("agent-2").await.unwrap(), Touched::Off);
    settings.set_memfs("agent-3", &url, false).unwrap();
    assert_eq!(
        touch("agent-3").await.unwrap(),
        Touched::Off,
        "nobody is asked"
    );
    assert!(matches!(touch("../x").await, Err(MemoryError::AgentId(_))));
}

#[tokio::test]
async fn history_is_read_by_names_that_are_no_options() {
    let (_dir, url) = server().await;
    let machine = Machine::with_server(&url);
    let checkout = machine.checkout();
    assert!(matches!(
        checkout.history(None, 5).await,
        Err(MemoryError::NoCheckout(_))
    ));
    checkout.bring_up_to_date(None).await.unwrap();
    let sha = machine.commit("notes.md", "second\n").await.unwrap();
    let notes = RelativePath::parse("notes.md").unwrap();
    let of = |name: &str| Revision::parse(name).unwrap();
    assert_eq!(
        checkout.file_at(&of(&sha), &notes).await.unwrap(),
        "second\n"
    );
    assert_eq!(
        checkout.file_at(&of("HEAD~1"), &notes).await.unwrap(),
        "first\n"
    );
    assert!(checkout.file_at(&of("nothing"), &notes).await.is_err());
    let diff = checkout.diff_of(&of(&sha)).await.unwrap();
    assert!(diff.contains("-first\n+second\n"), "{diff}");
    let log = checkout.history(Some(&notes), 1).await.unwrap();
    assert_eq!(
        (log[0].sha.as_str(), log[0].subject.as_str()),
        (sha.as_str(), "because")
    );
    for bad in [
        "",
        "--output=/tmp/x",
        "-p",
        "HEAD:notes.md",
        "a b",
        "HEAD;id",
        "a\nb",
    ] {
        assert!(Revision::parse(bad).is_err(), "{bad:?}");
    }
}
