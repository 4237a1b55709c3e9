//! Services of a process that is not there, for tests and fuzz targets of the
//! floors above: a home of its own, an API that nobody answers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::services::{ApiHandle, Loads, Meter};
use super::{AgentFacts, Catalogs, GitContexts, Guards, Link, Services};
use crate::api::models::Models;
use crate::api::token::StaticToken;
use crate::api::{BaseUrl, Client, ClientSettings, Net, NetSettings};
use crate::cron::store::Store;
use crate::events::{EventSink, Injected, Outbound, Recipient};
use crate::hooks::Hooks;
use crate::memory::{Memory, MemorySettings};
use crate::process::{BaseEnvironment, Processes};
use crate::protocol::PermissionMode;
use crate::skills::Skills;
use crate::state::interrupted::{InterruptedStore, InterruptedTurns};
use crate::state::remote_settings::{RemoteDefaults, RemoteSettings};
use crate::state::{Home, SettingsFiles, UserSettings};
use crate::subagents::Desk;
use crate::telemetry::metrics::Metrics;
use crate::tools::{Controllers, Toolbox, command_tools, file_tools};

/// The services, and the ends at which others would listen.
#[derive(Debug)]
pub struct Trial {
    /// What conversations and devices share.
    pub services: Arc<Services>,
    /// Frames on their way out.
    pub outbound: mpsc::UnboundedReceiver<Outbound>,
    /// Work for conversations.
    pub injected: mpsc::UnboundedReceiver<(Recipient, Injected)>,
}

impl Trial {
    /// Services of a user whose home is `home`, with conversations that work in
    /// `cwd` and an API at `server`.
    ///
    /// # Errors
    /// When the machine lacks what every process has.
    pub async fn new(
        home: &Path,
        cwd: &Path,
        server: &str,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Self::with_memory(home, cwd, server, server, false).await
    }

    /// The same with another server for the repositories of memories; `cloud`
    /// says whether the first one counts as Letta Cloud.
    ///
    /// # Errors
    /// As [`Trial::new`].
    pub async fn with_memory(
        home: &Path,
        cwd: &Path,
        server: &str,
        memory: &str,
        cloud: bool,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let home = Home::at(home);
        let (events, outbound) = EventSink::channel();
        let (inject, injected) = mpsc::unbounded_channel();
        let link = Link {
            connection: None,
            name: "trial".into(),
            local: false,
            open: false,
        };
        let defaults = RemoteDefaults {
            mode: PermissionMode::Standard,
            user_cwd: None,
            process_cwd: Some(PathBuf::from(cwd)),
        };
        let memory = Memory::new(MemorySettings {
            home: home.clone(),
            server: memory.to_owned(),
            cloud: true,
            hosted: false,
            tokens: Arc::new(StaticToken::default()),
            binary: "/opt/letta".into(),
        });
        let skills = Skills::new(home.clone(), None);
        let net = Net::new(&NetSettings::default())?;
        let tools = command_tools(net.upgrade()).into_iter();
        let tools = tools.chain(file_tools(skills.clone(), &memory));
        let api = ClientSettings::new(BaseUrl::parse(server)?);
        let variables = std::env::vars_os().collect();
        let base = BaseEnvironment::new(variables, Path::new("/opt/letta"), None, None);
        let api = Client::new(net, Arc::new(StaticToken::default()), &api)?;
        let processes = Processes::new(base);
        let files = SettingsFiles::new(home.clone());
        let hooks = Hooks::new(
            files.clone(),
            processes.clone(),
            api.clone(),
            home.letta.clone(),
        );
        let services = Services {
            api: ApiHandle(api),
            hooks,
            controllers: Controllers::new(events.clone()),
            remote: RemoteSettings::open(&home, defaults).await,
            settings: UserSettings::load(&home),
            settings_files: files,
            interrupted: InterruptedTurns::start(InterruptedStore::new(&home, server)).0,
            cloud,
            models: Models::new(cloud, home.letta.join("cache/model-catalog.json")),
            skills,
            memory,
            toolbox: Toolbox::new(tools),
            background: processes,
            desk: Desk::channel().0,
            metrics: Meter(Metrics::new("0", [])),
            events,
            inject,
            link: watch::channel(link).1,
            agents: AgentFacts::default(),
            git: GitContexts::default(),
            response_states: Default::default(),
            images: Default::default(),
            guards: Guards {
                terminal_grace: Duration::from_secs(2),
                stall: Duration::from_secs(60),
                stall_lookup: Duration::from_secs(5),
            },
            credential_files: Vec::new(),
            empty_list: RawValue::from_string("[]".into())?.into(),
            catalogs: Catalogs::new()?,
            schedules: Store::new(&home),
            home,
            draining: CancellationToken::new(),
            load: Loads::default(),
        };
        Ok(Self {
            services: Arc::new(services),
            outbound,
            injected,
        })
    }
}
