//! The main job without an account: a stand-in for Letta Cloud and a listener
//! on this machine, with a chat page to look at.
//!
//! `cargo run --release --example demo`

#![expect(clippy::print_stdout, reason = "a person reads it")]

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, Result};
use local_cloud::{LocalCloud, Mode, Model, Options};
use tokio::process::Command;

/// Set for the listener, which is this same program.
const LISTENER: &str = "LETTA_DEMO_LISTENER";

fn main() -> ExitCode {
    if std::env::var_os(LISTENER).is_some() {
        let args = [
            "server",
            "--env-name",
            "demo",
            "--permission-mode",
            "standard",
        ];
        return letta::cli::main(args.map(OsString::from).to_vec());
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            println!("The runtime could not be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(demo()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn demo() -> Result<()> {
    let options = Options {
        mode: Mode::Paired,
        model: Model::from_env(),
        ..Options::default()
    };
    let cloud = LocalCloud::start(options)
        .await
        .context("the local cloud could not start")?;
    // A home of its own: the demo touches nothing of yours.
    let home = tempfile::tempdir()?;
    let work = home.path().join("work");
    std::fs::create_dir(&work)?;
    let mut listener = Command::new(std::env::current_exe()?)
        .env(LISTENER, "1")
        .env("HOME", home.path())
        .env("LETTA_BASE_URL", cloud.base_url())
        .env("LETTA_API_KEY", "demo")
        .env("LETTA_HEALTH_ADDR", "127.0.0.1:0")
        .current_dir(&work)
        .kill_on_drop(true)
        .spawn()
        .context("the listener could not be started")?;
    println!();
    println!(
        "Open {}/ in a browser. Try a message of these lines:",
        cloud.base_url()
    );
    println!("  CALL Bash {{\"command\":\"date > now.txt\",\"description\":\"Note the time\"}}");
    println!("  SAY It is noted.");
    println!("Ctrl-C ends the demo. Its files are in {}", work.display());
    println!();
    tokio::select! {
        ended = listener.wait() => println!("The listener ended: {}", ended?),
        _ = tokio::signal::ctrl_c() => {
            // It got the signal, too: give it a moment to say goodbye.
            let _ = tokio::time::timeout(std::time::Duration::from_secs(5), listener.wait()).await;
        }
    }
    cloud.stop().await;
    Ok(())
}
