//! Shared repositories beside an agent's own memory.

use axum::response::IntoResponse as _;

use super::*;

#[tokio::test]
async fn attached_repositories_lie_beside_the_memory_and_go_with_their_attachment() {
    let (dir, url) = server().await;
    let machine = Machine::with_server(&url);
    for name in ["team", "library"] {
        let bare = dir
            .path()
            .join(format!("v1/git/{AGENT}/repositories/{name}.git"));
        fs::create_dir_all(&bare).unwrap();
        let git = Git::in_dir(&bare);
        git.run(&["init", "-q", "--bare", "-b", "main"])
            .await
            .unwrap();
        seed(dir.path(), &bare, "MEMORY.md", name).await;
    }
    let row = |name: &str, permissions: &str| json!({"id": name, "name": name, "permissions": permissions});
    let both = json!({"repositories": [
        {"id": "own", "name": "memory", "is_primary": true},
        row("team", "read_write"), row("library", "read_only"), row("missing", "read_write"),
    ]});
    let one = json!({"repositories": [row("library", "read_write")]});
    let lists = [both, one].map(|list| axum::Json(list).into_response());
    let server = Server::answering(lists).await;
    let api = client(&server);
    machine.memory.attach(&api, AGENT).await.unwrap();
    let home = Home::at(machine.dir.path());
    let beside = |name: &str| home.agent_memory(AGENT).with_file_name(name);
    assert_eq!(
        home.attached(AGENT),
        [(beside("library"), false), (beside("team"), true)].into()
    );
    assert_eq!(
        fs::read_to_string(beside("team").join("MEMORY.md")).unwrap(),
        "team"
    );
    // What may be changed is pushed, to the repository itself.
    let writable = machine.memory.writable(AGENT).await;
    let [team] = &writable[..] else {
        panic!("{writable:?}")
    };
    assert_eq!(team.shared(), Some("team"));
    let commit = async |name: &str, text: &str| {
        let turn = team.exclusively().await;
        let change = Change {
            before: None,
            after: Some(text.into()),
        };
        let path = RelativePath::parse(name).unwrap();
        team.change(&turn, [(path, change)].into(), "m", &author())
            .await
    };
    let error = commit("bare.md", "no header").await.unwrap_err();
    assert!(
        error.to_string().contains("name and description"),
        "{error}"
    );
    commit("new.md", "---\nname: n\ndescription: d\n---\nx")
        .await
        .unwrap();
    assert_eq!(team.push_pending().await, Pushed::Pushed);
    let bare = dir
        .path()
        .join(format!("v1/git/{AGENT}/repositories/team.git"));
    let sent = Git::in_dir(&bare)
        .run(&["log", "--format=%s", "main"])
        .await;
    assert_eq!(sent.unwrap(), "m\nseed\n");
    // What the server lists no more stays here and is nobody's.
    machine.memory.attach(&api, AGENT).await.unwrap();
    assert_eq!(home.attached(AGENT), [(beside("library"), true)].into());
    assert!(beside("team").join("new.md").exists());
    // A directory that was here first is left alone.
    fs::create_dir_all(beside("plain")).unwrap();
    fs::write(beside("plain").join("x"), "mine").unwrap();
    let plain = machine.memory.attached(AGENT, "plain").unwrap();
    assert!(plain.bring_up_to_date(None).await.is_err());
    assert_eq!(
        fs::read_to_string(beside("plain").join("x")).unwrap(),
        "mine"
    );
}
