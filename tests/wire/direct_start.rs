//! What clients say while the program still starts up (02 §11.2, §12.4).

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::path::Path;

use local_cloud::{LocalCloud, Options, Scope};
use rustix::fs::{OFlags, fcntl_setfl};
use serde_json::{Value, json};

use crate::direct_harness::{Peer, eventually};
use crate::harness::command;

/// A pipe that has room for this many bytes and for no more.
fn nearly_full(room: usize) -> (PipeReader, PipeWriter) {
    const PAGE: usize = 4096;
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    while writer.write(&[b'\n'; PAGE]).is_ok() {}
    fcntl_setfl(&writer, OFlags::empty()).unwrap();
    reader.read_exact(&mut [0; PAGE]).unwrap();
    writer.write_all(&vec![b'\n'; PAGE - room]).unwrap();
    (reader, writer)
}

/// The first line that the program prints: it has to fit.
fn first_line(home: &Path) -> usize {
    let log = home.join(".letta/logs/remote/2026-01-01T00-00-00-000Z.log");
    "Log file: \n".len() + log.as_os_str().len()
}

#[tokio::test]
async fn s02_11_2_what_was_said_before_the_start_was_over_counts_for_clients_that_are_still_there()
{
    let cloud = LocalCloud::start(Options::default()).await.unwrap();
    let (home, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap().to_string();
    drop(port);
    // The program opens its door before it greets, and cannot greet: nobody
    // reads what it prints.
    let (mut output, writer) = nearly_full(first_line(home.path()) + 8);
    let mut program = {
        let letta = env!("CARGO_BIN_EXE_letta");
        let mut program = command(letta, &cloud, home.path(), work.path());
        program.args(["server", "--listen", &format!("ws://{address}")]);
        program.stdout(writer).kill_on_drop(true).spawn().unwrap()
    };
    let mut stays = None;
    eventually("the door stays shut", async || {
        stays = Peer::dial(&address, "/ws", &[]).await;
        stays.is_some()
    })
    .await;
    let mut stays = stays.unwrap();
    let info = |id: &str| json!({"type": "app_server_info", "request_id": id});
    stays.send(info("early")).await;
    let mut leaves = Peer::dial(&address, "/ws", &[]).await.unwrap();
    let gone = Scope::new("agent-1", "conv-9");
    let change = json!({"type": "change_device_state", "runtime": gone.runtime(),
        "payload": {"mode": "standard"}});
    leaves.send(change).await;
    leaves.leave().await;
    let logs = home.path().join(".letta/logs/remote");
    eventually("the client has not left", async || {
        let logs = std::fs::read_dir(&logs).unwrap().flatten();
        let mut texts = logs.filter_map(|log| std::fs::read_to_string(log.path()).ok());
        texts.any(|text| text.contains("_ws_close"))
    })
    .await;

    // Now it may go on.
    let reading = std::thread::spawn(move || {
        let mut printed = String::new();
        output.read_to_string(&mut printed).map(|_| printed)
    });
    stays.until(|frame| frame["request_id"] == "early").await;
    stays.sync(&gone).await;
    let is_status = |frame: &&Value| frame["type"] == "update_device_status";
    let mode = |peer: &Peer| {
        let status = peer.seen.iter().rfind(is_status).unwrap();
        status["device_status"]["current_permission_mode"].clone()
    };
    assert_eq!(mode(&stays), "unrestricted");
    stays.mode(&gone, "standard").await;
    assert_eq!(mode(&stays), "standard");
    program.kill().await.unwrap();
    let printed = reading.join().unwrap().unwrap();
    assert!(printed.contains("Listening on ws://"), "{printed}");
}
