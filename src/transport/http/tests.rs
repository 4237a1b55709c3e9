use super::*;
use crate::protocol::PermissionMode;
use crate::transport::watchdog::Watchdog;
use serde_json::Value;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

struct Fixture {
    address: SocketAddr,
    snapshot: watch::Sender<HealthSnapshot>,
    secrets: Secrets,
    stop: CancellationToken,
    server: JoinHandle<()>,
    _watchdog: Watchdog,
}

impl Fixture {
    fn start() -> Self {
        let local = HealthAddress::from_settings(Some("127.0.0.1:0"), None).unwrap();
        let (server, warning) = HealthServer::bind(&local);
        assert_eq!(warning, None);
        let server = server.unwrap();
        let (watchdog, _) = Watchdog::start(Duration::from_secs(60), None, |_| {}).unwrap();
        let starting = HealthSnapshot::starting("1.2.3", SystemTime::UNIX_EPOCH);
        let (snapshot, receiver) = watch::channel(starting);
        let secrets = Secrets::default();
        let stop = CancellationToken::new();
        let sources = HealthSources {
            snapshot: receiver,
            metrics: Metrics::new("1.2.3", ["Bash"]),
            liveness: watchdog.probe(),
            secrets: secrets.clone(),
        };
        Self {
            address: server.local_addr(),
            snapshot,
            secrets,
            server: tokio::spawn(server.serve(sources, stop.clone())),
            stop,
            _watchdog: watchdog,
        }
    }

    async fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{request}\r\nHost: 127.0.0.1:1\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.ask(&format!("GET {path} HTTP/1.1")).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    fn connected(&self) {
        self.snapshot.send_modify(|snapshot| {
            snapshot.enter(HealthState::Connected, SystemTime::now());
            snapshot.last_pong = Some(tokio::time::Instant::now());
            snapshot.environment = String::from("garage");
        });
    }
}

#[tokio::test]
async fn a_starting_listener_is_live_but_not_ready() {
    let fixture = Fixture::start();
    assert_eq!(fixture.get("/livez").await, (200, String::from("ok\n")));
    assert_eq!(fixture.get("/healthz").await.0, 200);
    let (code, body) = fixture.get("/readyz").await;
    assert_eq!(code, 503);
    let body: Value = serde_json::from_str(&body).unwrap();
    let expected = serde_json::json!({
        "state": "starting", "since": "1970-01-01T00:00:00.000Z", "attempt": 0, "next_retry_s": null,
        "last_error": null, "environment": "", "version": "1.2.3",
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn a_connected_listener_is_ready_until_it_drains() {
    let fixture = Fixture::start();
    fixture.connected();
    assert_eq!(fixture.get("/readyz").await.0, 200);
    fixture
        .snapshot
        .send_modify(|snapshot| snapshot.enter(HealthState::Draining, SystemTime::now()));
    assert_eq!(fixture.get("/readyz").await.0, 503);
}

#[tokio::test]
async fn metrics_are_in_the_text_format() {
    let fixture = Fixture::start();
    let answer = fixture.ask("GET /metrics HTTP/1.1").await;
    assert!(
        answer.contains("content-type: application/openmetrics-text"),
        "{answer}"
    );
    assert!(
        answer.contains("\nletta_build_info{version=\"1.2.3\""),
        "{answer}"
    );
}

#[tokio::test]
async fn the_front_page_speaks_html_or_json() {
    let fixture = Fixture::start();
    fixture.connected();
    fixture.snapshot.send_modify(|snapshot| {
        snapshot.mode = PermissionMode::AcceptEdits;
        snapshot.mode_source = String::from("LETTA_PERMISSION_MODE");
    });
    let (code, page) = fixture.get("/").await;
    assert_eq!(code, 200);
    assert!(page.contains("garage: connected"), "{page}");
    assert!(
        page.contains("acceptEdits (from LETTA_PERMISSION_MODE)"),
        "{page}"
    );

    let answer = fixture
        .ask("GET / HTTP/1.1\r\nAccept: application/json")
        .await;
    let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(body["ready"], true);
    assert_eq!(body["permission_mode"], "acceptEdits");
}

#[tokio::test]
async fn web_pages_are_refused_everywhere() {
    let fixture = Fixture::start();
    for path in ["/", "/livez", "/readyz", "/metrics", "/none"] {
        let answer = fixture
            .ask(&format!(
                "GET {path} HTTP/1.1\r\nOrigin: http://evil.example"
            ))
            .await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{path}: {answer}");
        assert!(!answer.contains("access-control"), "{answer}");
    }
}

#[tokio::test]
async fn head_works_and_the_rest_is_refused() {
    let fixture = Fixture::start();
    let head = fixture.ask("HEAD /livez HTTP/1.1").await;
    assert!(
        head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    assert_eq!(fixture.get("/livez/x").await.0, 404);
    assert!(
        fixture
            .ask("POST /livez HTTP/1.1")
            .await
            .starts_with("HTTP/1.1 405 ")
    );
}

#[tokio::test]
async fn any_host_is_answered_but_the_login_code_stays_at_home() {
    let fixture = Fixture::start();
    fixture.snapshot.send_modify(|snapshot| {
        let state = HealthState::LoginRequired {
            url: String::from("https://login.example/device"),
            code: String::from("WXYZ-1234"),
        };
        snapshot.enter(state, SystemTime::now());
    });
    assert!(fixture.get("/").await.1.contains("WXYZ-1234"));
    for request in [
        "GET / HTTP/1.1\r\nX-Forwarded-For: 203.0.113.9",
        "GET / HTTP/1.1\r\nAccept: application/json",
        "GET /readyz HTTP/1.1",
    ] {
        let answer = fixture.ask(request).await;
        assert!(!answer.contains("WXYZ-1234"), "{answer}");
        assert!(answer.contains("login"), "{answer}");
    }
    let mut stream = TcpStream::connect(fixture.address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: rebound.example\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && !answer.contains("WXYZ-1234"),
        "{answer}"
    );
}

#[tokio::test]
async fn secrets_are_masked_in_every_answer() {
    let fixture = Fixture::start();
    fixture.secrets.register("sk-letta-hush");
    fixture.snapshot.send_modify(|snapshot| {
        snapshot.last_error = Some(String::from("wss://h?token=hush refused sk-letta-hush"));
    });
    for path in ["/", "/readyz"] {
        let (_, body) = fixture.get(path).await;
        assert!(body.contains("refused") && !body.contains("hush"), "{body}");
    }
}

#[tokio::test]
async fn a_client_that_dawdles_loses_its_place() {
    let fixture = Fixture::start();
    let mut slow = TcpStream::connect(fixture.address).await.unwrap();
    slow.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-")
        .await
        .unwrap();
    // Answered meanwhile: one dawdler blocks nobody.
    assert_eq!(fixture.get("/livez").await.0, 200);
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(4 * LIMITS.lifetime, slow.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "still open");
}

#[tokio::test]
async fn a_taken_port_is_a_warning() {
    let fixture = Fixture::start();
    let (server, warning) = HealthServer::bind(&HealthAddress::At(fixture.address));
    assert!(server.is_none());
    let warning = warning.unwrap();
    assert!(
        warning.contains(&fixture.address.to_string()) && warning.contains("LETTA_HEALTH_ADDR"),
        "{warning}"
    );
    let (server, warning) = HealthServer::bind(&HealthAddress::Off);
    assert!(server.is_none() && warning.is_none());
}

#[tokio::test]
async fn stopping_frees_the_port() {
    let fixture = Fixture::start();
    assert_eq!(fixture.get("/livez").await.0, 200);
    fixture.stop.cancel();
    fixture.server.await.unwrap();
    let (again, warning) = HealthServer::bind(&HealthAddress::At(fixture.address));
    assert!(again.is_some(), "{warning:?}");
}
