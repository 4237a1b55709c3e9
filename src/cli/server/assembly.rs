//! Puts together what every conversation shares, and the ends that belong to
//! whoever serves it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::children::processes;
use super::identity::Identity;
use super::observed::Observed;
use super::start::Foundation;
use crate::api::models::Models;
use crate::api::net::Net;
use crate::conversation::services::{ApiHandle, Loads, Meter};
use crate::conversation::{AgentFacts, Catalogs, GitContexts, Guards, Link, Services};
use crate::credentials::Credentials;
use crate::cron::store::Store;
use crate::events::{EventSink, Injected, Outbound, Recipient};
use crate::hooks::Hooks;
use crate::protocol::ConnectionId;
use crate::skills::Skills;
use crate::state::SettingsFiles;
use crate::state::interrupted::{InterruptedStore, InterruptedTurns, InterruptedWriter};
use crate::state::remote_settings::{RemoteDefaults, RemoteSettings};
use crate::subagents::{Desk, Order};
use crate::tools::image::Images;
use crate::tools::{Controllers, Toolbox, cloud_tools, command_tools, file_tools, plan_tools};

/// The parts of a server that is not connected yet.
pub(super) struct Assembly {
    pub(super) services: Arc<Services>,
    pub(super) credentials: Credentials,
    pub(super) net: Net,
    /// Where `services.link` is told of the connection.
    pub(super) link: watch::Sender<Link>,
    /// Frames of conversations on their way to the router.
    pub(super) outbound: mpsc::UnboundedReceiver<Outbound>,
    /// Work that tools and schedules produced.
    pub(super) injected: mpsc::UnboundedReceiver<(Recipient, Injected)>,
    /// What is asked of the owner of subagents.
    pub(super) orders: mpsc::UnboundedReceiver<Order>,
    /// Records that an earlier process left.
    pub(super) records: InterruptedStore,
    /// Writes new ones.
    pub(super) record_writer: InterruptedWriter,
}

/// Where the process was started, and what its settings files are.
pub(super) struct Place {
    pub(super) cwd: Option<PathBuf>,
    pub(super) files: SettingsFiles,
}

impl Assembly {
    /// `local`: clients come through the direct door, without a relay.
    ///
    /// # Errors
    /// An address or a certificate that cannot be used.
    pub(super) async fn build(
        foundation: &Foundation,
        identity: &Identity,
        observed: &Observed,
        place: Place,
        local: bool,
        draining: CancellationToken,
    ) -> Result<Self> {
        let Foundation {
            config,
            home,
            settings,
        } = foundation;
        let Place { cwd, files } = place;
        let (credentials, net) = foundation.credentials(&identity.name)?;
        let remote = RemoteSettings::open(
            home,
            RemoteDefaults {
                mode: identity.mode.value,
                user_cwd: config.user_cwd.clone(),
                process_cwd: cwd,
            },
        )
        .await;
        let records = InterruptedStore::new(home, &identity.base_url);
        let (interrupted, record_writer) = InterruptedTurns::start(records.clone());
        let (events, outbound) = EventSink::channel();
        let (inject, injected) = mpsc::unbounded_channel();
        let (desk, orders) = Desk::channel();
        let (link, link_reader) = watch::channel(Link {
            connection: local.then(|| ConnectionId::new("app-server")),
            name: identity.name.clone(),
            open: local,
            local,
        });
        let background = processes(foundation, &identity.device_id);
        let api = foundation.api(&identity.base_url, &credentials, &net, &identity.device_id)?;
        let cloud = api.base_url().is_cloud() || config.memfs.local;
        let of_cloud = if cloud { cloud_tools(&api) } else { Vec::new() };
        let memory = foundation.memory(&credentials);
        let skills = Skills::with_memory(
            home.clone(),
            config.skills_directory.clone(),
            config.memory_directory.clone(),
        );
        let toolbox = Toolbox::new(
            command_tools(net.upgrade())
                .into_iter()
                .chain(file_tools(skills.clone(), &memory))
                .chain(plan_tools(&remote, &home.plans()))
                .chain(of_cloud),
        );
        let services = Arc::new(Services {
            hooks: Hooks::new(
                files.clone(),
                background.clone(),
                api.clone(),
                home.letta.clone(),
            ),
            api: ApiHandle(api),
            remote,
            settings: settings.clone(),
            settings_files: files,
            interrupted,
            cloud,
            models: Models::new(cloud, home.letta.join("cache/model-catalog.json")),
            skills,
            memory,
            toolbox,
            controllers: Controllers::new(events.clone()),
            background,
            desk,
            metrics: Meter(observed.metrics.clone()),
            events,
            inject,
            link: link_reader,
            agents: AgentFacts::default(),
            git: GitContexts::default(),
            response_states: Default::default(),
            guards: Guards {
                terminal_grace: config.stream_guards.terminal_eof,
                stall: config.stream_guards.stall,
                stall_lookup: config.stream_guards.stall_status,
            },
            images: Images::default(),
            credential_files: foundation.credential_files(),
            empty_list: serde_json::value::to_raw_value(&[(); 0])?.into(),
            catalogs: Catalogs::new()?,
            schedules: Store::new(home),
            home: home.clone(),
            draining,
            load: Loads::default(),
        });
        Ok(Self {
            services,
            credentials,
            net,
            link,
            outbound,
            injected,
            orders,
            records,
            record_writer,
        })
    }
}
