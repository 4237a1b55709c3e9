//! After a shutdown nothing of any child is left: no process, no thread, no
//! descriptor, no file.
//! A binary of its own, so that descriptors of other tests do not count.

use std::path::Path;

use futures_util::{SinkExt, StreamExt};
use letta::api::{Net, NetSettings};
use letta::process::pty::WindowSize;
use letta::process::{About, BaseEnvironment, Keep, Kind, Launch, Plan, Processes, Subscription};
use letta::protocol::Scope;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

fn open_descriptors() -> std::io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count())
}

/// Threads besides those that the runtime lends to work on files, which end
/// by themselves.
fn threads() -> std::io::Result<usize> {
    let tasks = std::fs::read_dir("/proc/self/task")?.flatten();
    let lent = |task: &std::fs::DirEntry| {
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        name.starts_with("tokio")
    };
    Ok(tasks.filter(|task| !lent(task)).count())
}

fn living_in_group(group: i32) -> std::io::Result<bool> {
    let living = std::fs::read_dir("/proc")?.flatten().any(|entry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        fields.len() > 2 && fields[0] != "Z" && fields[2] == group.to_string()
    });
    Ok(living)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn thirty_two_tasks_and_their_children_are_gone_after_shutdown() {
    let dir = tempfile::tempdir().unwrap();
    let vars = [("TMPDIR".into(), dir.path().into())].into();
    let processes = Processes::new(BaseEnvironment::new(
        vars,
        Path::new("/opt/letta"),
        None,
        None,
    ));
    let scope = Scope::new(Some("agent-1"), None);
    // The first child opens what the runtime keeps for all of them.
    let launch = |script: &str, terminal| Launch {
        argv: ["/bin/sh", "-c", script].map(Into::into).to_vec(),
        cwd: dir.path().to_path_buf(),
        env: processes.base().variables().clone(),
        terminal,
    };
    let first = processes
        .start(launch("exit 0", None), Plan::default())
        .unwrap();
    first.finished().await;
    drop(first);
    let net = Net::new(&NetSettings::default()).unwrap();
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", server.local_addr().unwrap());
    let before = open_descriptors().unwrap();
    let threads_before = threads().unwrap();

    let mut groups = Vec::new();
    for number in 0..28 {
        let about = About {
            kind: Kind::Exec,
            command: "test".into(),
            description: None,
            scope: scope.clone(),
        };
        // Half on terminals; every other ignores the polite request.
        let terminal = (number % 4 < 2).then(WindowSize::default);
        let script = if number % 2 == 0 {
            "trap '' TERM; sleep 60 & sleep 60"
        } else {
            "sleep 60 & sleep 60"
        };
        let task = processes
            .register(about, launch(script, terminal), Plan::default())
            .unwrap();
        task.session().detach(Keep::Unread).await.unwrap();
        groups.push(task.session().group().unwrap().id());
    }
    // The others are watched WebSockets: half of them are open, the others wait for
    // the answer to their upgrade.
    let mut peers = Vec::new();
    for number in 0..4 {
        let about = About {
            kind: Kind::Monitor { persistent: true },
            command: String::new(),
            description: Some("test".into()),
            scope: scope.clone(),
        };
        let url = url.parse().unwrap();
        let subscription = Subscription::new(net.upgrade().clone(), url, Vec::new());
        let task = processes.watch(about, subscription, Plan::default());
        let task = task.unwrap();
        task.session().detach(Keep::Listener).await.unwrap();
        assert_eq!(task.session().group(), None);
        let (mut peer, _) = server.accept().await.unwrap();
        if number % 2 == 0 {
            let mut peer = tokio_tungstenite::accept_async(peer).await.unwrap();
            peer.send(Message::Ping("".into())).await.unwrap();
            assert!(peer.next().await.unwrap().unwrap().is_pong());
            peers.push(peer.into_inner());
        } else {
            peer.read_u8().await.unwrap();
            peers.push(peer);
        }
    }
    assert!(open_descriptors().unwrap() > before);
    let files = || std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(files(), 1, "the transcripts are in one directory");
    processes.shutdown().await;
    for mut peer in peers {
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).await.unwrap();
    }
    assert_eq!(files(), 0, "and gone with it");
    assert_eq!(threads().unwrap(), threads_before);
    for group in groups {
        assert!(!living_in_group(group).unwrap(), "group {group} lives on");
    }
    assert_eq!(open_descriptors().unwrap(), before);
}
