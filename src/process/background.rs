//! The one owner of all children: starts them, knows them by id, tells their
//! conversation when they end, and leaves none behind (04 §6.4–§6.6).
//!
//! Invariant: after [`Processes::shutdown`] no process, task or descriptor of
//! a child is left.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use thiserror::Error;
use tokio::process::ChildStdin;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::capture::Cut;
use super::environment::BaseEnvironment;
use super::excerpt::KEPT_CHARS;
use super::group::Groups;
use super::notification::{self, Notification};
use super::output_file::OutputFile;
use super::sandbox::{self, Confinement, NoSandbox};
use super::session::{self, Finished, Plan, Session};
use super::shell::Shells;
use super::spawn::{self, Launch, SpawnError, Spawned};
use crate::events::{ConversationHandle, Injected};
use crate::protocol::Scope;

/// Commands that may run at once.
pub const MAX_RUNNING: usize = 32;

/// How long a finished command stays known.
const RETENTION: Duration = Duration::from_secs(5 * 60);

/// What children get between SIGTERM and SIGKILL when the process goes down.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// How long the system may take to bury a killed process.
const BURIAL: Duration = Duration::from_secs(2);

/// Which tool a command belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bash: `bash_<n>`.
    Bash,
    /// `exec_command`: `<n>`.
    Exec,
}

/// What is known of a command before it starts.
#[derive(Clone, Debug)]
pub struct About {
    /// Its tool.
    pub kind: Kind,
    /// The command text.
    pub command: String,
    /// The model's label for it, if any.
    pub description: Option<String>,
    /// The conversation that started it.
    pub scope: Scope,
}

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

/// One command that the registry knows.
#[derive(Debug)]
pub struct Task {
    id: String,
    about: About,
    session: Session,
    log: PathBuf,
    started: Instant,
    started_at: SystemTime,
    in_background: AtomicBool,
    end_told: AtomicBool,
    reader: Semaphore,
}

impl Task {
    /// Its id in the registry.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it is.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Its process.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Its transcript: there once it runs in the background.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// When it started.
    pub fn started_at(&self) -> SystemTime {
        self.started_at
    }

    /// The turn to read its output; held while one waits for more, so that the
    /// end is told once: to the reader or by notification.
    pub fn reader(&self) -> &Semaphore {
        &self.reader
    }

    /// Claims the telling of its end: `true` for the first to ask.
    pub fn claim_end(&self) -> bool {
        !self.end_told.swap(true, Ordering::AcqRel)
    }

    /// How long it runs, or ran.
    pub fn runtime(&self) -> Duration {
        self.session
            .ended()
            .map_or_else(|| self.started.elapsed(), |finished| finished.elapsed)
    }

    /// `running`, `completed` or `failed`.
    pub fn status(&self) -> &'static str {
        self.session
            .ended()
            .map_or("running", |finished| notification::status(&finished.ending))
    }

    fn label(&self) -> &str {
        self.about
            .description
            .as_deref()
            .map(str::trim)
            .filter(|label| !label.is_empty())
            .unwrap_or(&self.about.command)
    }
}

/// All children of this process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Processes(Arc<Inner>, Option<Arc<Confinement>>);

#[derive(Debug)]
struct Inner {
    base: BaseEnvironment,
    shells: Shells,
    slice: Option<String>,
    scratch: PathBuf,
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
    pub fn register(
        &self,
        about: About,
        launch: Launch,
        mut plan: Plan,
    ) -> Result<Arc<Task>, StartError> {
        let permit = Arc::clone(&self.0.permits)
            .try_acquire_owned()
            .map_err(|_| StartError::Full)?;
        let (id, log) = {
            let mut table = self.table();
            let (id, file) = match about.kind {
                Kind::Bash => {
                    table.bash += 1;
                    let id = format!("bash_{}", table.bash);
                    (id.clone(), format!("{id}.log"))
                }
                Kind::Exec => {
                    table.exec += 1;
                    (table.exec.to_string(), format!("exec_{}.log", table.exec))
                }
            };
            (id, self.0.scratch.join(file))
        };
        plan.log = Some(OutputFile::new(log.clone()));
        let session = self.launch(launch, plan, Some(permit))?;
        let task = Arc::new(Task {
            id,
            about,
            session,
            log,
            started: Instant::now(),
            started_at: SystemTime::now(),
            in_background: AtomicBool::new(false),
            end_told: AtomicBool::new(false),
            reader: Semaphore::new(1),
        });
        self.table().tasks.push(Arc::clone(&task));
        Ok(task)
    }

    /// The command `id` of `scope`; sessions of `exec_command` also as `exec_<n>`.
    pub fn find(&self, scope: &Scope, id: &str) -> Option<Arc<Task>> {
        let id = id.strip_prefix("exec_").unwrap_or(id);
        let table = self.table();
        let mut tasks = table.tasks.iter();
        tasks
            .find(|task| task.id == id && task.about.scope == *scope)
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
            .filter(|task| task.about.scope == *scope && task.in_background.load(Ordering::Acquire))
            .cloned()
            .collect()
    }

    /// What `device_status.background_processes` says of `scope`: what runs,
    /// newest first (04 §6.6).
    pub fn listing(&self, scope: &Scope) -> Vec<serde_json::Value> {
        let tasks = self.in_background(scope);
        let running = tasks
            .iter()
            .rev()
            .filter(|task| task.session.ended().is_none());
        running
            .map(|task| {
                serde_json::json!({
                    "process_id": task.id,
                    "kind": "bash",
                    "command": task.about.command,
                    "started_at_ms": crate::protocol::time::epoch_millis(task.started_at),
                    "status": task.status(),
                    "exit_code": null,
                })
            })
            .collect()
    }

    /// Stops the command `id` of `scope`, silently, and forgets it. `false`
    /// when there is none.
    pub fn stop(&self, scope: &Scope, id: &str) -> bool {
        let Some(task) = self.find(scope, id) else {
            return false;
        };
        task.claim_end();
        task.session.stop();
        self.remove(&task);
        true
    }

    /// Lets a command run on in the background: when it ends, `conversation`
    /// gets one notification on behalf of `acting_user`.
    pub fn announce(
        &self,
        task: Arc<Task>,
        conversation: ConversationHandle,
        acting_user: Option<String>,
    ) {
        task.in_background.store(true, Ordering::Release);
        conversation.inject(Injected::BackgroundChanged);
        let all = self.clone();
        self.0.tracker.spawn(async move {
            let shutdown = all.0.shutdown.clone();
            let watch = all.watch_over(&task, conversation, acting_user);
            // A notification after the end of the process has no reader.
            shutdown.run_until_cancelled(watch).await;
            all.remove(&task);
        });
    }

    async fn watch_over(
        &self,
        task: &Task,
        conversation: ConversationHandle,
        acting_user_id: Option<String>,
    ) {
        let finished = task.session.finished().await;
        // Whoever reads just now sees the end and claims it.
        let turn = task.reader.acquire().await;
        if task.claim_end() {
            let text = announcement(task, &finished).await;
            conversation.inject(Injected::TaskNotification {
                text,
                acting_user_id,
            });
        }
        drop(turn);
        conversation.inject(Injected::BackgroundChanged);
        tokio::time::sleep(RETENTION).await;
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
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn announcement(task: &Task, finished: &Finished) -> String {
    let (mut out, mut err) = task.session.take().await;
    let status = notification::status(&finished.ending);
    let command = &task.about.command;
    let (task_id, summary, result) = match task.about.kind {
        Kind::Bash => (
            task.id.clone(),
            format!("Background command \"{}\" {status}", task.label()),
            notification::bash_result(command, &finished.ending, &out, &err),
        ),
        Kind::Exec => (
            format!("exec_{}", task.id),
            format!("Exec command \"{}\" {status}", task.label()),
            notification::exec_result(command, &task.id, &finished.ending, &out),
        ),
    };
    out.discard().await;
    err.discard().await;
    Notification {
        task_id: &task_id,
        status: Some(status),
        summary: &summary,
        result: &result,
        usage: &[("duration_ms", notification::duration_ms(finished.elapsed))],
        transcript: Some(&task.log),
    }
    .text()
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
