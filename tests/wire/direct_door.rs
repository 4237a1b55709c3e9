//! The direct door: its command line, its endpoints, whom it lets in (02 §12).

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::direct_harness::{Direct, eventually};
use crate::harness::scope;

async fn refused(line: &[&str]) -> (Option<i32>, String) {
    let home = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_letta"))
        .args(line)
        .env_clear()
        .env("HOME", home.path())
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    assert!(
        !home.path().join(".letta").exists(),
        "{line:?} left a trace"
    );
    let stderr = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), stderr)
}

#[tokio::test]
async fn s02_12_1_cli_errors_go_to_stderr_with_exit_64_and_touch_nothing() {
    for (line, error) in [
        (
            &["server", "--listen", "--listen"][..],
            "--listen may only be specified once",
        ),
        (
            &["server", "--listen", "ws://127.0.0.1:99999"],
            "app-server listen URL must include a valid port",
        ),
        (
            &["server", "--listen", "ws://0.0.0.0:1"],
            "refusing to start non-loopback websocket listener 0.0.0.0:1 without auth; configure `--ws-auth capability-token` or `--ws-auth signed-bearer-token`",
        ),
        (
            &[
                "server",
                "--listen",
                "--ws-auth=capability-token",
                "--ws-token-file=/nowhere/token",
            ],
            "failed to read websocket auth secret /nowhere/token: No such file or directory (os error 2)",
        ),
        (
            &["app-server", "--ws-auth=basic"],
            "unsupported --ws-auth mode \"basic\"; expected \"capability-token\" or \"signed-bearer-token\"",
        ),
    ] {
        let (code, stderr) = refused(line).await;
        assert_eq!(code, Some(64), "{line:?}: {stderr}");
        assert!(stderr.contains(&format!("Error: {error}\n")), "{stderr}");
    }
}

#[tokio::test]
async fn s02_12_1_the_first_screen_names_the_doors_and_the_last_the_signal() {
    let mut direct = Direct::with(&["ws://127.0.0.1:0/own/path", "--openai-api"]).await;
    let address = direct.address.clone();
    let line = direct.prints("WebSocket:").await;
    assert_eq!(line, format!("WebSocket: ws://{address}/own/path"));
    let line = direct.prints("OpenAI:").await;
    assert_eq!(line, format!("OpenAI:  http://{address}/v1"));
    let mut client = direct.dial("/own/path", &[]).await.unwrap();
    assert_eq!(direct.stop("-INT").await, Some(0));
    assert_eq!(
        direct.prints("Stopped").await,
        "Stopped App Server (SIGINT)."
    );
    assert_eq!(client.receive().await, None);
}

#[tokio::test]
async fn s02_12_2_endpoints_answer_any_method_and_refuse_an_origin() {
    let direct = Direct::start().await;
    for line in [
        "GET /readyz",
        "POST /readyz",
        "GET /healthz",
        "DELETE /healthz",
    ] {
        let answer = direct.http(line, &[], "").await;
        assert_eq!((answer.status().0, answer.body()), (200, "ok\n"), "{line}");
        assert_eq!(answer.header("content-type"), Some("text/plain"));
    }
    let answer = direct.http("GET /app-server-info", &[], "").await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let info: Value = serde_json::from_str(answer.body()).unwrap();
    let mut client = direct.client().await;
    let mut same = client.ask(json!({"type": "app_server_info"})).await;
    same["request_id"] = json!("http-info");
    assert_eq!(info, same);
    assert_eq!(info["capabilities"]["split_channels"], false);
    for path in ["/", "/ws", "/nope", "/v1/models", "/ui"] {
        let answer = direct.http(&format!("GET {path}"), &[], "").await;
        assert_eq!((answer.status().0, answer.body()), (404, ""), "{path}");
    }
    for path in ["/readyz", "/app-server-info", "/nope"] {
        let origin = [("Origin", "http://evil.example")];
        let answer = direct.http(&format!("GET {path}"), &origin, "").await;
        assert_eq!((answer.status().0, answer.body()), (403, ""), "{path}");
    }
}

#[tokio::test]
async fn s02_12_3_refusals_carry_their_text_in_the_status_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "s3cret-token\n").unwrap();
    let file = format!("--ws-token-file={}", file.display());
    let direct = Direct::with(&["--ws-auth=capability-token", &file]).await;
    let origin = ("Origin", "http://evil.example");
    let right = ("Authorization", "Bearer s3cret-token");
    for (path, headers, status, reason) in [
        ("/nope", &[right][..], 404, "Not Found"),
        ("/ws?channel=stream", &[right], 426, "Upgrade Required"),
        ("/ws", &[], 401, "missing websocket bearer token"),
        ("/ws", &[origin], 401, "missing websocket bearer token"),
        (
            "/ws",
            &[("Authorization", "Basic x")],
            401,
            "invalid authorization header",
        ),
        (
            "/ws",
            &[("Authorization", "Bearer x")],
            401,
            "invalid websocket bearer token",
        ),
    ] {
        let answer = direct.upgrade(path, headers).await;
        assert_eq!(answer.status(), (status, reason), "{path} {headers:?}");
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(answer.header("content-length"), Some("0"));
    }
    for headers in [&[right][..], &[right, origin]] {
        assert!(direct.dial("/", headers).await.is_ok(), "{headers:?}");
    }
    let answer = direct.http("GET /app-server-info", &[], "").await;
    let error = json!({"error": "missing websocket bearer token"}).to_string();
    assert_eq!((answer.status().0, answer.body()), (401, error.as_str()));
    let answer = direct.http("GET /app-server-info", &[right], "").await;
    assert_eq!(answer.status().0, 200);
    assert_eq!(direct.http("GET /readyz", &[], "").await.status().0, 200);
}

#[tokio::test]
async fn s02_12_3_without_auth_a_page_may_not_open_a_socket() {
    let direct = Direct::start().await;
    let origin = ("Origin", "http://127.0.0.1");
    let answer = direct.upgrade("/ws", &[origin]).await;
    assert_eq!(answer.status(), (403, "Forbidden"));
    assert!(direct.dial("/ws", &[]).await.is_ok());
}

/// Good until the year 2100; signed with `openssl dgst -sha256 -hmac`.
const SIGNED: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDB9";
const GENUINE_SIGNATURE: &str = "sWsXA_2jSLVj898-a4GCxtzBXdodHLuy769ojE2Ifl4";

#[tokio::test]
async fn s02_12_3_a_signed_token_lets_in_and_a_forged_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    std::fs::write(&file, "0123456789abcdef0123456789abcdef").unwrap();
    let file = format!("--ws-shared-secret-file={}", file.display());
    let direct = Direct::with(&["--ws-auth=signed-bearer-token", &file]).await;
    let bearer = |token: String| format!("Bearer {token}");
    let genuine = bearer(format!("{SIGNED}.{GENUINE_SIGNATURE}"));
    assert!(
        direct
            .dial("/ws", &[("Authorization", &genuine)])
            .await
            .is_ok()
    );
    let forged = bearer(format!("{SIGNED}.{}", GENUINE_SIGNATURE.to_lowercase()));
    let answer = direct.upgrade("/ws", &[("Authorization", &forged)]).await;
    assert_eq!(answer.status(), (401, "invalid websocket jwt"));
}

#[tokio::test]
async fn s02_12_4_a_client_hears_nothing_until_it_asks() {
    let direct = Direct::start().await;
    let mut client = direct.client().await;
    client.quiet().await;
    let start = client
        .ask(json!({"type": "runtime_start", "agent_id": "agent-1", "conversation_id": "conv-1"}))
        .await;
    assert_eq!(start["success"], true, "{start}");
    let status = client.typed("update_device_status").await;
    assert_eq!(status["event_seq"], 1);
    let status = &status["device_status"];
    assert_eq!(status["current_connection_id"], "app-server");
    assert_eq!(status["is_online"], true);
    assert!(!status["connection_name"].as_str().unwrap().is_empty());
}

#[tokio::test]
async fn with_register_both_doors_lead_to_the_same_conversation() {
    let direct = Direct::with(&["--register", "--env-name", "both"]).await;
    let device = direct
        .cloud
        .wait_for_device(crate::harness::SOON)
        .await
        .unwrap();
    let mut client = direct.client_of(&scope()).await;
    device.send(json!({"type": "input", "runtime": scope().runtime(), "payload": {
        "kind": "create_message", "messages": [{"role": "user", "content": "SAY from the relay"}]}}));
    client.finished().await;
    assert_eq!(client.said(), "from the relay");
    let status = client.sync(&scope()).await;
    assert_eq!(status["success"], true);
    let registered = direct.cloud.registrations().len();
    assert_eq!(registered, 1);
}

#[tokio::test]
async fn a_direct_server_alone_registers_nowhere_and_takes_no_name() {
    let direct = Direct::start().await;
    let mut client = direct.client_of(&scope()).await;
    client.say(&scope(), "SAY hello").await;
    client.finished().await;
    assert!(direct.cloud.registrations().is_empty());
    let saved = direct.work.path().join(".letta/settings.local.json");
    assert!(!saved.exists());
}

#[tokio::test]
async fn a_message_above_the_limit_ends_its_socket_only() {
    let direct = Direct::start().await;
    let (mut large, mut other) = (direct.client().await, direct.client().await);
    // Only the head of a frame of 101 MiB: no need to send the rest.
    let length = (101_u64 << 20).to_be_bytes();
    let head = [&[0x81, 0xff][..], &length, &[0; 4]].concat();
    tokio::io::AsyncWriteExt::write_all(large.socket.get_mut(), &head)
        .await
        .unwrap();
    let mut code = None;
    while let Some(Ok(message)) = futures_util::StreamExt::next(&mut large.socket).await {
        if let tokio_tungstenite::tungstenite::Message::Close(Some(close)) = message {
            code = Some(u16::from(close.code));
        }
    }
    assert_eq!(code, Some(1009));
    other.quiet().await;
}

#[tokio::test]
async fn descriptors_return_to_where_they_were_after_many_short_visits() {
    let direct = Direct::start().await;
    let mut steady = direct.client().await;
    direct.settled().await;
    let before = direct.descriptors();
    for round in 0..40 {
        let mut visits = Vec::new();
        for _ in 0..10 {
            match round % 4 {
                0 => drop(direct.client().await),
                1 => visits.push(
                    tokio::net::TcpStream::connect(&direct.address)
                        .await
                        .unwrap(),
                ),
                2 => {
                    // A frame that never ends.
                    let mut half = direct.client().await;
                    tokio::io::AsyncWriteExt::write_all(half.socket.get_mut(), &[0x81, 0xff, 0])
                        .await
                        .unwrap();
                }
                _ => {
                    direct.upgrade("/nope", &[]).await;
                }
            }
        }
    }
    eventually("descriptors stay open", async || {
        direct.descriptors() <= before
    })
    .await;
    steady.quiet().await;
}
