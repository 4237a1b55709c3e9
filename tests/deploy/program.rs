//! One run of the shipped program and what it lives on.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

/// Longest wait for anything; an emulated program takes its time.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Between two looks at something that nobody announces.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

pub(crate) fn has_shell() -> bool {
    setting("LETTA_DEPLOY_SHELL").as_deref() != Some("0")
}

pub(crate) fn in_namespace() -> bool {
    setting("LETTA_DEPLOY_NAMESPACE").as_deref() == Some("1")
}

/// The directory that is the program's home, run after run.
pub(crate) struct Volume(TempDir);

impl Volume {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A file as this test sees it.
    pub(crate) fn outside(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The same file as the program sees it.
    pub(crate) fn inside(&self, name: &str) -> PathBuf {
        let home = setting("LETTA_DEPLOY_HOME").map(PathBuf::from);
        home.unwrap_or_else(|| self.0.path().to_owned()).join(name)
    }
}

/// The program, killed when the value goes.
pub(crate) struct Program {
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
    environment: Vec<(&'static str, String)>,
    port: u16,
}

/// What the program is told by variables.
pub(crate) fn environment(
    url: &str,
    volume: &Volume,
    key: Option<&str>,
) -> Vec<(&'static str, String)> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|free| free.local_addr())
        .unwrap()
        .port();
    let home = volume.inside("");
    let mut variables = vec![
        ("HOME", home.to_str().unwrap().to_owned()),
        ("LETTA_BASE_URL", url.to_owned()),
        ("LETTA_OAUTH_URL", url.to_owned()),
        ("LETTA_ENV_NAME", "deployed".to_owned()),
        ("LETTA_HEALTH_ADDR", format!("127.0.0.1:{port}")),
        ("LETTA_LOG_FORMAT", "text".to_owned()),
    ];
    if let Some(key) = key {
        variables.push(("LETTA_API_KEY", key.to_owned()));
    }
    variables
}

fn command(volume: &Volume, arguments: &[&str], variables: &[(&'static str, String)]) -> Command {
    let words = setting("LETTA_DEPLOY_PROGRAM").expect("LETTA_DEPLOY_PROGRAM is not set");
    let mut words = words.split_whitespace();
    let mut command = Command::new(words.next().unwrap());
    command
        .args(words)
        .args(arguments)
        .current_dir(volume.0.path())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("LETTA_DEPLOY_VOLUME", volume.0.path())
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

impl Program {
    /// Runs to the end.
    pub(crate) async fn once(
        volume: &Volume,
        arguments: &[&str],
        variables: &[(&'static str, String)],
    ) -> Output {
        let output = command(volume, arguments, variables).output();
        timeout(SOON, output).await.unwrap().unwrap()
    }

    /// `letta server`.
    pub(crate) async fn start(url: &str, volume: &Volume, key: Option<&str>) -> Self {
        Self::start_with(url, volume, key, &[]).await
    }

    /// The same with more variables.
    pub(crate) async fn start_with(
        url: &str,
        volume: &Volume,
        key: Option<&str>,
        more: &[(&'static str, &str)],
    ) -> Self {
        let mut environment = environment(url, volume, key);
        environment.extend(
            more.iter()
                .map(|(name, value)| (*name, (*value).to_owned())),
        );
        let address = environment
            .iter()
            .find(|(name, _)| *name == "LETTA_HEALTH_ADDR");
        let port = address
            .unwrap()
            .1
            .rsplit(':')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        let mut child = command(volume, &["server"], &environment)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut program = Self {
            child,
            output,
            environment,
            port,
        };
        program.line_with("Health: ").await;
        program
    }

    /// The next line of its output that holds `part`.
    pub(crate) async fn line_with(&mut self, part: &str) -> String {
        let found = async {
            let mut said = Vec::new();
            loop {
                let line = self.output.next_line().await.unwrap();
                let line = line
                    .unwrap_or_else(|| unreachable!("it ended without {part:?}, after {said:#?}"));
                if line.contains(part) {
                    return line;
                }
                said.push(line);
            }
        };
        timeout(SOON, found).await.expect(part)
    }

    /// Asks a health endpoint; status and body.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        (answer[9..12].parse().unwrap(), answer)
    }

    /// The exit code of `letta healthcheck` beside it.
    pub(crate) async fn healthcheck(&self, volume: &Volume, arguments: &[&str]) -> Option<i32> {
        let words: Vec<&str> = ["healthcheck"].iter().chain(arguments).copied().collect();
        let output = Self::once(volume, &words, &self.environment).await;
        output.status.code()
    }

    /// The process that stands for the program: PID 1 of its namespace, if it has one.
    fn first(&self) -> u32 {
        let pid = self.child.id().unwrap();
        if !in_namespace() {
            return pid;
        }
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        children.unwrap().trim().parse().unwrap()
    }

    pub(crate) async fn signal(&self, name: &str) {
        let mut kill = Command::new("kill");
        let kill = kill.arg(format!("-{name}")).arg(self.first().to_string());
        assert!(kill.status().await.unwrap().success());
    }

    /// Its exit code.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        let ended = timeout(SOON, self.child.wait()).await;
        ended.expect("the program has not ended").unwrap().code()
    }

    /// Every process in the program's PID namespace, zombies too.
    pub(crate) fn processes(&self) -> Vec<PathBuf> {
        let namespace = |process: &Path| std::fs::read_link(process.join("ns/pid")).ok();
        let own = namespace(&Path::new("/proc").join(self.first().to_string()));
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        processes
            .map(|entry| entry.path())
            .filter(|process| own.is_some() && namespace(process) == own)
            .collect()
    }

    pub(crate) async fn wait_until_processes(&self, number: usize) {
        let deadline = Instant::now() + SOON;
        while self.processes().len() != number {
            let left = self.processes();
            assert!(Instant::now() < deadline, "these are left: {left:?}");
            sleep(LOOK_AGAIN).await;
        }
    }
}

/// Waits until somebody has made the file.
pub(crate) async fn wait_for_file(path: &Path) {
    let deadline = Instant::now() + SOON;
    while !path.exists() {
        assert!(Instant::now() < deadline, "{} was not made", path.display());
        sleep(LOOK_AGAIN).await;
    }
}
