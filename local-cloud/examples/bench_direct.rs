//! Figures of the direct door of a `letta` binary: connecting, idle clients,
//! fan-out of a delta.
//!
//! `scripts/bench-direct` builds and runs it, with a server and a cloud beside
//! it that it finds in `DIRECT_ADDRESS` and `DIRECT_PID`.

#![expect(
    clippy::print_stdout,
    reason = "a benchmark reports to the person who started it"
)]

#[expect(dead_code, reason = "the other benches use the rest")]
mod measured;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use self::measured::{pss, spread};

/// Connections that are measured one after the other.
const CONNECTS: usize = 100;
/// Clients that do nothing.
const IDLE: usize = 1000;
/// Clients that follow one conversation.
const FOLLOWERS: usize = 100;
/// Deltas that they are sent, this far apart: what is closer belongs to one delta.
const DELTAS: (usize, Duration) = (60, Duration::from_millis(20));
/// What clients leave behind is given back meanwhile.
const SETTLE: Duration = Duration::from_secs(3);

// One thread: more would take the server's.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let address = std::env::var("DIRECT_ADDRESS").context("run scripts/bench-direct")?;
    let pid = std::env::var("DIRECT_PID").context("DIRECT_PID")?.parse()?;
    let mut first = Client::connect(&address).await?;
    first.start().await?;

    let mut times = Vec::new();
    for _ in 0..CONNECTS {
        let began = Instant::now();
        let mut client = Client::connect(&address).await?;
        client.start().await?;
        times.push(began.elapsed());
    }
    println!("connect and start {}", spread(&mut times));

    let before = pss(pid)?;
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push(Client::connect(&address).await?);
    }
    tokio::time::sleep(SETTLE).await;
    let now = pss(pid)?;
    println!("{IDLE} idle clients {now} KiB in all (PSS), {before} KiB before");
    drop(idle);
    tokio::time::sleep(SETTLE).await;
    println!("after they left   {} KiB (PSS)", pss(pid)?);

    let mut behind = fan_out(&address, &mut first).await?;
    println!(
        "a delta behind the first of {FOLLOWERS} {}",
        spread(&mut behind)
    );
    Ok(())
}

/// How long after the first client each client got each delta.
async fn fan_out(address: &str, first: &mut Client) -> Result<Vec<Duration>> {
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let mut followers = tokio::task::JoinSet::new();
    for _ in 0..FOLLOWERS {
        let mut client = Client::connect(address).await?;
        client.start().await?;
        let arrived = arrived.clone();
        followers.spawn(async move {
            loop {
                let text = client.text().await?;
                let at = Instant::now();
                if text.contains(r#""assistant_message""#) {
                    arrived.send(at)?;
                } else if text.starts_with(r#"{"type":"turn_finished""#) {
                    return anyhow::Ok(());
                }
            }
        });
    }
    drop(arrived);
    let (deltas, pace) = DELTAS;
    let text = "x".repeat(deltas * 5);
    let script = format!("SPLIT {deltas}\nPACE {}\nSAY {text}", pace.as_secs_f64());
    let message = json!({"role": "user", "content": script});
    let payload = json!({"kind": "create_message", "messages": [message]});
    first
        .send(
            &json!({"type": "input", "request_id": "i", "runtime": runtime(), "payload": payload}),
        )
        .await?;
    while let Some(ended) = followers.join_next().await {
        ended??;
    }
    let mut all = Vec::new();
    while let Some(at) = arrivals.recv().await {
        all.push(at);
    }
    ensure!(
        all.len() >= FOLLOWERS * deltas / 2,
        "only {} deltas arrived",
        all.len()
    );
    all.sort_unstable();
    let mut began = all[0];
    let mut last = began;
    let mut behind = Vec::new();
    for at in all {
        if at - last > pace / 2 {
            began = at;
        }
        last = at;
        behind.push(at - began);
    }
    Ok(behind)
}

fn runtime() -> Value {
    json!({"agent_id": "agent-1", "conversation_id": "conv-1"})
}

/// One client at the door.
struct Client(WebSocketStream<TcpStream>);

impl Client {
    async fn connect(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (socket, _) = client_async(format!("ws://{address}/ws"), stream).await?;
        Ok(Self(socket))
    }

    async fn send(&mut self, frame: &Value) -> Result<()> {
        Ok(self.0.send(Message::text(frame.to_string())).await?)
    }

    async fn text(&mut self) -> Result<String> {
        loop {
            match self.0.next().await.context("the socket ended")?? {
                Message::Text(text) => return Ok(text.to_string()),
                Message::Close(_) => anyhow::bail!("the door was closed"),
                _ => {}
            }
        }
    }

    /// Starts the conversation of all clients and waits for the answer.
    async fn start(&mut self) -> Result<()> {
        let mut start = runtime();
        start["type"] = "runtime_start".into();
        start["request_id"] = "r".into();
        self.send(&start).await?;
        loop {
            let frame: Value = serde_json::from_str(&self.text().await?)?;
            if frame["type"] == "runtime_start_response" {
                ensure!(frame["success"] == true, "{frame}");
                return Ok(());
            }
        }
    }
}
