//! The one owner of all children and of the WebSockets that are watched: starts
//! them, knows them by id, tells their conversation when they end, and leaves
//! none behind (04 §6.4–§6.6).
//!
//! Invariant: after [`Processes::shutdown`] no process, task or descriptor of
//! them is left.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::process::ChildStdin;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::capture::Cut;
use super::environment::BaseEnvironment;
use super::excerpt::KEPT_CHARS;
use super::group::Groups;
use super::monitor::Heard;
use super::news;
use super::notification;
use super::output_file::OutputFile;
use super::sandbox::{self, Confinement, NoSandbox};
use super::session::{self, Plan, Session, Subscription};
use super::shell::Shells;
use super::spawn::{self, Launch, SpawnError, Spawned};
use super::task::{About, Kind, Task};
use crate::events::{ConversationHandle, Injected};
use crate::protocol::Scope;

/// Commands and watched WebSockets that may run at once.
pub const MAX_RUNNING: usize = 32;

/// How long a finished command stays known.
const RETENTION: Duration = Duration::from_secs(5 * 60);

/// What children get between SIGTERM and SIGKILL when the process goes down.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// How long the system may take to bury a killed process.
const BURIAL: Duration = Duration::from_secs(2);

/// Why a command did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The limit is reached.
    #[error(
        "Too many background processes already running ({MAX_RUNNING}/{MAX_RUNNING}). Stop one before starting another."
    )]
    Full,
    /// The process is going down.
    #[error("The listener is shutting down; no command can be started.")]
    GoingDown,
    /// The system refused.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

/// All children of this process, and what it watches. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Processes(Arc<Inner>, Option<Arc<Confinement>>);

#[derive(Debug)]
struct Inner {
    base: BaseEnvironment,
    shells: Shells,
    slice: Option<String>,
    scratch: PathBuf,
    /// Whether the scratch directory was made here and goes at the end.
    own_scratch: bool,
    spill: bool,
    middle: bool,
    own_session: bool,
    sandbox: OnceCell<Result<PathBuf, NoSandbox>>,
    permits: Arc<Semaphore>,
    table: Mutex<Table>,
    groups: Groups,
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

#[derive(Debug, Default)]
struct Table {
    bash: u64,
    exec: u64,
    tasks: Vec<Arc<Task>>,
}

impl Processes {
    /// An owner without children. Options come from `base`'s variables:
    /// `SHELL`, `LETTA_BASH_STRICT`, `LETTA_SCRATCHPAD`, `TMPDIR`,
    /// `LETTA_TOOL_OVERFLOW_TO_FILE`, `LETTA_TOOL_MIDDLE_TRUNCATE`,
    /// `LETTA_WORKLOAD_SYSTEMD_SLICE`.
    pub fn new(base: BaseEnvironment) -> Self {
        let set = |name: &str| base.get(name).filter(|value| !value.is_empty());
        let enabled =
            |name: &str| !set(name).is_some_and(|value| value.eq_ignore_ascii_case("false"));
        let scratch = set("LETTA_SCRATCHPAD").map_or_else(
            || {
                let temp = set("TMPDIR").unwrap_or(OsStr::new("/tmp"));
                let unique = uuid::Uuid::new_v4().simple().to_string();
                Path::new(temp).join(format!("letta-background-{}", &unique[..12]))
            },
            PathBuf::from,
        );
        let inner = Inner {
            own_scratch: set("LETTA_SCRATCHPAD").is_none(),
            shells: Shells::from_environment(base.variables()),
            slice: set("LETTA_WORKLOAD_SYSTEMD_SLICE")
                .map(|slice| slice.to_string_lossy().into_owned()),
            scratch,
            spill: enabled("LETTA_TOOL_OVERFLOW_TO_FILE"),
            middle: enabled("LETTA_TOOL_MIDDLE_TRUNCATE"),
            own_session: has_terminal(),
            permits: Arc::new(Semaphore::new(MAX_RUNNING)),
            table: Mutex::default(),
            groups: Groups::default(),
            tracker: TaskTracker::new(),
            shutdown: CancellationToken::new(),
            sandbox: OnceCell::new(),
            base,
        };
        Self(Arc::new(inner), None)
    }

    /// The bubblewrap of this machine; looked for once.
    ///
    /// # Errors
    /// Why children cannot be confined here.
    pub async fn sandbox(&self) -> Result<&Path, NoSandbox> {
        let find = || sandbox::find(self.0.base.get("PATH"));
        let found = self.0.sandbox.get_or_init(find).await;
        found.as_deref().map_err(|reason| *reason)
    }

    /// The same owner, for children that may only write below `root` and see
    /// nothing else of `isolation_root` (05 §14).
    ///
    /// # Errors
    /// This machine cannot confine them.
    pub async fn confined(&self, root: &Path, isolation_root: &Path) -> Result<Self, NoSandbox> {
        let bwrap = self.sandbox().await?;
        let confinement = Confinement::workspace(bwrap, root, isolation_root);
        Ok(Self(Arc::clone(&self.0), Some(Arc::new(confinement))))
    }

    fn confine<'a>(&self, launch: &'a Launch) -> Cow<'a, Launch> {
        let Some(confinement) = &self.1 else {
            return Cow::Borrowed(launch);
        };
        let mut launch = launch.clone();
        launch.argv = confinement.wrap(&launch.argv);
        let (name, value) = sandbox::MARK;
        launch.env.insert(name.into(), value.into());
        Cow::Owned(launch)
    }

    /// What every child gets.
    pub fn base(&self) -> &BaseEnvironment {
        &self.0.base
    }

    /// The shells of this machine.
    pub fn shells(&self) -> &Shells {
        &self.0.shells
    }

    /// Where output of background work lies: private, gone with this process
    /// unless `LETTA_SCRATCHPAD` chose it.
    pub fn scratch(&self) -> &Path {
        &self.0.scratch
    }

    /// Whether long results are also written to files (`LETTA_TOOL_OVERFLOW_TO_FILE`).
    pub fn spills(&self) -> bool {
        self.0.spill
    }

    /// A cut at `max` characters, where `LETTA_TOOL_MIDDLE_TRUNCATE` says.
    pub fn cut(&self, max: usize, preview: Option<usize>) -> Cut {
        Cut {
            max: max.min(KEPT_CHARS),
            preview,
            middle: self.0.middle,
        }
    }

    /// Starts a command that only its caller knows.
    pub fn start(&self, launch: Launch, plan: Plan) -> Result<Session, StartError> {
        self.launch(launch, plan, None)
    }

    /// Starts a process whose raw output belongs to the caller, as that of a
    /// terminal does. Here it is only remembered, so that [`Self::shutdown`] ends it.
    pub fn spawn(&self, launch: &Launch) -> Result<Spawned, StartError> {
        self.spawn_as_given(&self.confine(launch))
    }

    fn spawn_as_given(&self, launch: &Launch) -> Result<Spawned, StartError> {
        if self.0.shutdown.is_cancelled() {
            return Err(StartError::GoingDown);
        }
        let spawned = spawn::spawn(launch, self.0.own_session)?;
        self.0.groups.add(spawned.group);
        Ok(spawned)
    }

    /// The same for a process without a terminal that is fed through its
    /// standard input.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn spawn_fed(&self, launch: &Launch) -> Result<(Spawned, ChildStdin), StartError> {
        if self.0.shutdown.is_cancelled() {
            return Err(StartError::GoingDown);
        }
        let (spawned, stdin) = spawn::spawn_fed(&self.confine(launch), self.0.own_session)?;
        self.0.groups.add(spawned.group);
        Ok((spawned, stdin))
    }

    fn launch(
        &self,
        mut launch: Launch,
        plan: Plan,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Session, StartError> {
        launch = self.confine(&launch).into_owned();
        if let Some(slice) = &self.0.slice {
            let prefix = [
                "systemd-run",
                "--scope",
                "--quiet",
                "--collect",
                "--property=TimeoutStopSec=5s",
            ];
            let slice = format!("--slice={slice}");
            let wrapped = prefix
                .into_iter()
                .chain([slice.as_str(), "--"])
                .map(Into::into);
            launch.argv = wrapped.chain(std::mem::take(&mut launch.argv)).collect();
        }
        let spawned = self.spawn_as_given(&launch)?;
        let (session, work) = session::open(spawned, plan, permit, self.0.shutdown.clone());
        self.0.tracker.spawn(work);
        Ok(session)
    }

    /// Starts a command that the registry knows, with a transcript.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn register(
        &self,
        about: About,
        launch: Launch,
        mut plan: Plan,
    ) -> Result<Arc<Task>, StartError> {
        let (permit, id, log) = self.reserve(about.kind, &mut plan)?;
        let session = self.launch(launch, plan, Some(permit))?;
        Ok(self.enter(Task::new(id, about, session, log)))
    }

    /// Watches a WebSocket that the registry knows, with a transcript. It opens
    /// when the session is detached.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn watch(
        &self,
        about: About,
        subscription: Subscription,
        mut plan: Plan,
    ) -> Result<Arc<Task>, StartError> {
        if self.0.shutdown.is_cancelled() {
            return Err(StartError::GoingDown);
        }
        let (permit, id, log) = self.reserve(about.kind, &mut plan)?;
        let shutdown = self.0.shutdown.clone();
        let (session, work) = session::subscribe(subscription, plan, permit, shutdown);
        self.0.tracker.spawn(work);
        Ok(self.enter(Task::new(id, about, session, log)))
    }

    /// A place in the registry: an id, and a transcript for `plan`.
    fn reserve(
        &self,
        kind: Kind,
        plan: &mut Plan,
    ) -> Result<(OwnedSemaphorePermit, String, PathBuf), StartError> {
        let permit = Arc::clone(&self.0.permits)
            .try_acquire_owned()
            .map_err(|_| StartError::Full)?;
        let (id, file) = match kind {
            Kind::Bash => {
                let id = format!("bash_{}", next(&mut self.table().bash));
                (id.clone(), format!("{id}.log"))
            }
            Kind::Exec => {
                let number = next(&mut self.table().exec);
                (number.to_string(), format!("exec_{number}.log"))
            }
            Kind::Monitor { .. } => {
                let id = format!("monitor_{}", uuid::Uuid::new_v4());
                (id.clone(), format!("{id}.log"))
            }
        };
        let log = self.0.scratch.join(file);
        plan.log = Some(match kind {
            Kind::Monitor { .. } => OutputFile::of_monitor(log.clone()),
            Kind::Bash | Kind::Exec => OutputFile::new(log.clone()),
        });
        Ok((permit, id, log))
    }

    fn enter(&self, task: Task) -> Arc<Task> {
        let task = Arc::new(task);
        self.table().tasks.push(Arc::clone(&task));
        task
    }

    /// The command `id` of `scope`; sessions of `exec_command` also as `exec_<n>`.
    pub fn find(&self, scope: &Scope, id: &str) -> Option<Arc<Task>> {
        let id = id.strip_prefix("exec_").unwrap_or(id);
        let table = self.table();
        let mut tasks = table.tasks.iter();
        tasks
            .find(|task| task.id() == id && task.about().scope == *scope)
            .cloned()
    }

    /// Forgets a command. If it still runs, it ends as soon as nobody else holds it.
    pub fn remove(&self, task: &Task) {
        self.table()
            .tasks
            .retain(|known| !std::ptr::eq(&**known, task));
    }

    /// Commands of `scope` that run in the background or did until lately,
    /// oldest first.
    pub fn in_background(&self, scope: &Scope) -> Vec<Arc<Task>> {
        let table = self.table();
        let tasks = table.tasks.iter();
        tasks
            .filter(|task| task.about().scope == *scope && task.is_in_background())
            .cloned()
            .collect()
    }

    /// What `device_status.background_processes` says of `scope`: what runs,
    /// newest first (04 §6.6).
    pub fn listing(&self, scope: &Scope) -> Vec<serde_json::Value> {
        let tasks = self.in_background(scope);
        let running = tasks.iter().rev().filter(|task| task.is_running());
        running.map(|task| task.listed()).collect()
    }

    /// Stops the command `id` of `scope`, silently, and forgets it. `false`
    /// when there is none, or when it is a monitor that has ended.
    pub fn stop(&self, scope: &Scope, id: &str) -> bool {
        let Some(task) = self.find(scope, id) else {
            return false;
        };
        if task.is_monitor() && !task.is_running() {
            return false;
        }
        task.claim_end();
        task.session().stop();
        if !task.is_monitor() {
            self.remove(&task);
        }
        true
    }

    /// Stops the monitor `id` because a person of `scope` asked for it, and
    /// tells `conversation` so (04 §6.6). `Ok(false)` when it had ended.
    ///
    /// # Errors
    /// There is no such monitor, or it is another conversation's.
    pub fn stop_monitor(
        &self,
        conversation: &ConversationHandle,
        id: &str,
        acting_user_id: Option<String>,
    ) -> Result<bool, &'static str> {
        let known = self.table().tasks.iter().find(|t| t.id() == id).cloned();
        let task = known
            .filter(|task| task.is_monitor())
            .ok_or("Monitor not found")?;
        if task.about().scope != *conversation.scope() {
            return Err("Monitor does not belong to this conversation");
        }
        let stopped = task.is_running() && self.stop(conversation.scope(), id);
        if stopped {
            let event =
                "The user stopped this monitor. Do not start it again unless the user asks for it.";
            conversation.inject(Injected::TaskNotification {
                text: notification::monitor_event(id, task.label(), event),
                acting_user_id,
            });
        }
        Ok(stopped)
    }

    /// Lets a command run on in the background: when it ends, `conversation`
    /// gets one notification on behalf of `acting_user`, and before it one for
    /// every event in what was `heard` of a monitor.
    pub fn announce(
        &self,
        task: Arc<Task>,
        heard: Option<Heard>,
        conversation: ConversationHandle,
        acting_user: Option<String>,
    ) {
        task.to_background();
        conversation.inject(Injected::BackgroundChanged);
        let all = self.clone();
        self.0.tracker.spawn(async move {
            let shutdown = all.0.shutdown.clone();
            let told = async {
                news::tell(&task, heard, conversation, acting_user).await;
                tokio::time::sleep(RETENTION).await;
            };
            // A notification after the end of the process has no reader.
            shutdown.run_until_cancelled(told).await;
            all.remove(&task);
        });
    }

    /// Ends every child and everything they started: SIGTERM, one second,
    /// SIGKILL. Nothing can be started afterwards.
    pub async fn shutdown(&self) {
        self.0.shutdown.cancel();
        self.0.tracker.close();
        self.0.groups.end(SHUTDOWN_GRACE).await;
        // A process stuck in the kernel must not keep this one from ending.
        let _ = tokio::time::timeout(BURIAL, self.0.tracker.wait()).await;
        self.table().tasks.clear();
        if self.0.own_scratch {
            // Not there when nothing ran in the background.
            let _ = tokio::fs::remove_dir_all(&self.0.scratch).await;
        }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn next(counter: &mut u64) -> u64 {
    *counter += 1;
    *counter
}

/// Whether this process has a terminal. A child in a background group of it
/// would be stopped, not refused, when it asks for a password.
fn has_terminal() -> bool {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open(
        "/dev/tty",
        OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .is_ok()
}
