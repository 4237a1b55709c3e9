//! The direct door as `letta server --listen` opens it: its secrets, its port,
//! and what the person at the terminal is told of it (spec 02 §12.1).

use anyhow::{Context, Result};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::{AuthSecrets, DirectError, DirectFlags};
use crate::telemetry::redact::Secrets;
use crate::transport::direct::{DirectDoor, DirectParts};

/// Descriptors that the door may want: one for each client, and the rest.
const DESCRIPTORS: u64 = 8192;

/// The flags of the door with their secrets, read once.
pub(super) struct Direct {
    flags: DirectFlags,
    secrets: Option<AuthSecrets>,
}

/// The door with its port bound.
pub(super) struct Opened {
    door: DirectDoor,
    openai: bool,
}

/// The door at work.
pub(super) struct Serving {
    lines: Vec<String>,
    task: JoinHandle<()>,
    links: Option<JoinHandle<()>>,
}

impl Direct {
    /// Reads the secrets.
    ///
    /// # Errors
    /// A secret that cannot be used.
    pub(super) fn load(flags: &DirectFlags) -> Result<Self, DirectError> {
        let secrets = flags.auth.as_ref().map(|auth| auth.load()).transpose()?;
        Ok(Self {
            flags: flags.clone(),
            secrets,
        })
    }

    /// Binds the port.
    pub(super) async fn open(self, masked: &Secrets) -> Result<Opened> {
        if let Some(AuthSecrets::Token(secret) | AuthSecrets::Key { key: secret, .. }) =
            &self.secrets
        {
            masked.register(secret.expose());
        }
        more_descriptors();
        let url = &self.flags.listen;
        let door = DirectDoor::bind(&self.flags, self.secrets)
            .await
            .with_context(|| format!("cannot listen on {}:{}", url.host, url.port))?;
        Ok(Opened {
            door,
            openai: self.flags.openai_api,
        })
    }
}

impl Opened {
    /// Serves until `stop` is cancelled.
    pub(super) fn serve(self, parts: DirectParts, stop: CancellationToken) -> Serving {
        let authority = self.door.authority();
        let mut lines = vec![
            format!("Listening on ws://{authority}"),
            format!("WebSocket: ws://{authority}{}", self.door.path()),
        ];
        if self.openai {
            lines.push(format!("OpenAI:  http://{authority}/v1"));
        }
        let links = self.door.page_links().map(|links| {
            let page = format!("http://{authority}/ui");
            let stop = stop.clone();
            tokio::spawn(async move {
                stop.run_until_cancelled(tell_links(page, links)).await;
            })
        });
        let task = tokio::spawn(self.door.serve(parts, stop));
        Serving { lines, task, links }
    }
}

impl Serving {
    /// Says where the door is.
    pub(super) fn greet(&self) {
        for line in &self.lines {
            say!("{line}");
        }
    }

    /// Waits until the last client is gone; its `stop` has fired.
    pub(super) async fn ended(&mut self) {
        let _ = (&mut self.task).await;
        if let Some(links) = &mut self.links {
            let _ = links.await;
        }
    }
}

/// Prints the address of the page: with a token that is good once, anew each
/// time one was used.
async fn tell_links(page: String, mut links: watch::Receiver<Option<String>>) {
    loop {
        let token = links.borrow_and_update().clone();
        match token {
            Some(token) => say!("Page:      {page}#token={token}  (good for one browser tab)"),
            None => say!("Page:      {page}  (asks for the token of --ws-auth)"),
        }
        if links.changed().await.is_err() {
            return;
        }
    }
}

/// Clients need a descriptor each; the usual limit of 1024 is a default for
/// programs that use `select`, not a wish of whoever runs this machine.
fn more_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(DESCRIPTORS, |most| most.min(DESCRIPTORS));
    if current.is_some_and(|current| current < wanted) {
        let limit = Rlimit {
            current: Some(wanted),
            maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            complain!("Warning: the limit of open files stays at {current:?}: {error}");
        }
    }
}
