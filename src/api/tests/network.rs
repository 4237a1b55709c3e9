//! Proxies and private CAs, for ordinary requests and for the upgrade.

use std::ffi::OsString;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::*;

/// A TLS server for `localhost` under a CA of its own. It answers each request
/// with its request line, and `GET … Upgrade` with 101 and an echo.
struct TlsServer {
    port: u16,
    ca_pem: String,
    _task: JoinSet<()>,
}

impl TlsServer {
    async fn start() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = ["localhost".to_owned()];
        let certificate = CertificateParams::new(names)
            .unwrap()
            .signed_by(&key, &ca)
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                open.spawn(async move {
                    // A client that does not trust us goes away here.
                    if let Ok(stream) = acceptor.accept(socket).await {
                        serve_one(stream).await;
                    }
                });
            }
        });
        Self {
            port,
            ca_pem: ca.pem(),
            _task: task,
        }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}/path", self.port)
    }
}

async fn serve_one(stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) {
    let mut stream = BufReader::new(stream);
    let head = read_head(&mut stream).await;
    if head.to_lowercase().contains("upgrade: echo") {
        let switch =
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
        stream.write_all(switch.as_bytes()).await.unwrap();
        let mut word = [0; 4];
        stream.read_exact(&mut word).await.unwrap();
        stream.write_all(&word).await.unwrap();
    } else {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
    stream.shutdown().await.unwrap();
}

async fn read_head(stream: &mut (impl AsyncBufReadExt + Unpin)) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).await.unwrap() > 0 {}
    head
}

/// A proxy that wants `user:pass` and tunnels `CONNECT`.
struct Proxy {
    port: u16,
    tunnels: Arc<AtomicU32>,
    _task: JoinSet<()>,
}

impl Proxy {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let tunnels = Arc::new(AtomicU32::new(0));
        let count = tunnels.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                open.spawn(tunnel(socket, count.clone()));
            }
        });
        Self {
            port,
            tunnels,
            _task: task,
        }
    }

    fn tunnels(&self) -> u32 {
        self.tunnels.load(Ordering::SeqCst)
    }
}

async fn tunnel(socket: TcpStream, count: Arc<AtomicU32>) {
    let mut client = BufReader::new(socket);
    let head = read_head(&mut client).await;
    let target = head
        .strip_prefix("CONNECT ")
        .and_then(|rest| rest.split(' ').next())
        .unwrap()
        .to_owned();
    // base64 of `user:pass`
    if !head
        .to_lowercase()
        .contains("proxy-authorization: basic dxnlcjpwyxnz")
    {
        let refusal = "HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n";
        client.write_all(refusal.as_bytes()).await.unwrap();
        return;
    }
    count.fetch_add(1, Ordering::SeqCst);
    let port = target.rsplit(':').next().unwrap().parse().unwrap();
    let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    // Either side may go away without ceremony.
    let _ = copy_bidirectional(&mut client, &mut server).await;
}

fn net_from(pairs: &[(&str, String)]) -> Net {
    let settings = NetSettings::from_env(|name| {
        let found = pairs.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| OsString::from(value))
    });
    Net::new(&settings).unwrap()
}

/// Does an ordinary request and an upgrade, each with its outcome.
async fn both_ways(net: &Net, url: &str) -> (bool, bool) {
    let plain = net.http().get(url).send().await;
    let upgrade = net
        .upgrade()
        .get(url)
        .header("connection", "upgrade")
        .header("upgrade", "echo")
        .send()
        .await;
    let echoed = async {
        let mut stream = upgrade.ok()?.upgrade().await.ok()?;
        stream.write_all(b"ping").await.ok()?;
        let mut word = [0; 4];
        stream.read_exact(&mut word).await.ok()?;
        Some(&word == b"ping")
    };
    (
        plain.is_ok_and(|answer| answer.status() == 200),
        echoed.await == Some(true),
    )
}

#[tokio::test]
async fn a_private_ca_is_trusted_by_each_of_the_variables_and_else_not() {
    let server = TlsServer::start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, &server.ca_pem).unwrap();
    let file = file.to_str().unwrap().to_owned();
    let directory = dir.path().to_str().unwrap().to_owned();

    assert_eq!(both_ways(&net(), &server.url()).await, (false, false));
    for variable in [
        ("SSL_CERT_FILE", file.clone()),
        ("SSL_CERT_DIR", format!("/nonexistent:{directory}")),
        ("LETTA_EXTRA_CA_FILE", file),
    ] {
        let net = net_from(std::slice::from_ref(&variable));
        let outcome = both_ways(&net, &server.url()).await;
        assert_eq!(outcome, (true, true), "{}", variable.0);
    }
}

#[tokio::test]
async fn requests_and_upgrades_go_through_an_authenticating_proxy() {
    let server = TlsServer::start().await;
    let proxy = Proxy::start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, &server.ca_pem).unwrap();
    let ca = ("SSL_CERT_FILE", file.to_str().unwrap().to_owned());
    let through = |user: &str| format!("http://{user}@127.0.0.1:{}", proxy.port);

    let net = net_from(&[ca.clone(), ("https_proxy", through("user:pass"))]);
    assert_eq!(both_ways(&net, &server.url()).await, (true, true));
    assert_eq!(proxy.tunnels(), 2);

    let net = net_from(&[ca.clone(), ("HTTPS_PROXY", through("user:wrong"))]);
    assert_eq!(both_ways(&net, &server.url()).await, (false, false));

    let net = net_from(&[
        ca,
        ("HTTPS_PROXY", through("user:pass")),
        ("NO_PROXY", "localhost".into()),
    ]);
    assert_eq!(both_ways(&net, &server.url()).await, (true, true));
    assert_eq!(proxy.tunnels(), 2, "NO_PROXY goes around it");
}

#[tokio::test]
async fn plain_http_goes_through_its_proxy_and_redirects_do_not_reach_the_upgrade() {
    let proxy = Server::answering([answer(200, &[], "from the proxy")]).await;
    let net = net_from(&[("http_proxy", proxy.url.clone())]);
    let answered = net.http().get("http://letta.invalid/x").send().await;
    assert_eq!(answered.unwrap().text().await.unwrap(), "from the proxy");
    assert_eq!(proxy.seen()[0].uri, "http://letta.invalid/x");

    let moved = Server::answering([answer(302, &[("location", "/elsewhere")], "")]).await;
    let status = super::net().upgrade().get(&moved.url).send().await;
    assert_eq!(status.unwrap().status(), 302);
    assert_eq!(moved.seen().len(), 1);
}

#[test]
fn building_the_clients_costs_little_of_the_start() {
    let begun = std::time::Instant::now();
    for _ in 0..20 {
        net();
    }
    // Bound for an unoptimised build on a busy machine; an optimised one takes well under 1 ms.
    assert!(begun.elapsed().as_millis() < 20 * 25);
}
