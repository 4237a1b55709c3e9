//! The `local-cloud` program: one cloud on this machine until Ctrl-C.

use anyhow::{Context, bail};
use local_cloud::{LocalCloud, Mode, Model, Options};

const USAGE: &str = "\
local-cloud: a stand-in for Letta Cloud on this machine

usage: local-cloud [--port N] [--mode single|split|paired] [--upstream URL] [--no-redis]

  --port N        port to listen on (default 8283, 0 for a free one)
  --mode MODE     how machines connect (default paired)
  --upstream URL  send the API to this real Letta server
  --no-redis      refuse background streams, as a plain self-hosted server does

OPENAI_BASE_URL, OPENAI_API_KEY and OPENAI_MODEL choose a real model in place of the scripted one.
";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = pico_args::Arguments::from_env();
    if arguments.contains(["-h", "--help"]) {
        say(USAGE);
        return Ok(());
    }
    let mode: Option<String> = arguments.opt_value_from_str("--mode")?;
    let mode = match mode.as_deref() {
        None | Some("paired") => Mode::Paired,
        Some("split") => Mode::Split,
        Some("single") => Mode::Single,
        Some(other) => bail!("--mode is single, split or paired, not {other:?}"),
    };
    let options = Options {
        port: arguments.opt_value_from_str("--port")?.unwrap_or(8283),
        mode,
        upstream: arguments.opt_value_from_str("--upstream")?,
        redis: !arguments.contains("--no-redis"),
        model: Model::from_env(),
        ..Options::default()
    };
    let rest = arguments.finish();
    if !rest.is_empty() {
        bail!("unknown arguments {rest:?}; --help shows the known ones");
    }
    let model = match &options.model {
        Model::Scripted { .. } => {
            "scripted by what you write (OPENAI_API_KEY brings a real one)".to_owned()
        }
        Model::OpenAi(model) => format!("{model:?}"),
    };
    let cloud = LocalCloud::start(options)
        .await
        .context("local-cloud could not start")?;
    let url = cloud.base_url();
    say(&format!(
        "Chat page   {url}/\nModel       {model}\nA machine   LETTA_BASE_URL={url} LETTA_API_KEY=local letta server\n"
    ));
    tokio::signal::ctrl_c()
        .await
        .context("cannot wait for Ctrl-C")?;
    cloud.stop().await;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this is the program's whole output")]
fn say(text: &str) {
    print!("{text}");
}
