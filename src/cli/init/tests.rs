//! The init takes over a whole process, so each test plays it in one of its
//! own: this test binary, started again.

use super::*;
use std::io::{BufRead, BufReader};
use std::process::{Child, Output, Stdio};

/// A shell script that the init starts in the place of the program proper.
const SCRIPT: &str = "LETTA_TEST_INIT_SCRIPT";

/// Leaves five orphans, checks that they came to the init, waits until they are
/// gone. A zombie is not gone: it still has an entry under `/proc`.
const ORPHANS: &str = r#"
    orphans() {
        count=0
        for stat in /proc/[0-9]*/stat; do
            read -r pid name state parent rest < "$stat" 2>/dev/null || continue
            if [ "$parent" = "$PPID" ] && [ "$pid" != "$$" ]; then count=$((count + 1)); fi
        done
    }
    for n in 1 2 3 4 5; do sh -c 'sleep 1 & exit 0'; done
    orphans
    [ "$count" = 5 ] || exit 40
    tries=0
    while [ "$tries" -lt 200 ]; do
        orphans
        [ "$count" = 0 ] && exit 0
        sleep 0.05
        tries=$((tries + 1))
    done
    exit 41
"#;

#[test]
#[ignore = "played by the other tests in a process of its own"]
fn play() {
    let Some(script) = std::env::var_os(SCRIPT) else {
        return;
    };
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(script);
    let code = supervise(command).unwrap();
    std::process::exit(code.into());
}

fn playing(wrapper: &[&str], script: &str) -> Command {
    let exe = std::env::current_exe().unwrap();
    let mut command = match wrapper.split_first() {
        Some((program, args)) => {
            let mut command = Command::new(program);
            command.args(args).arg(exe);
            command
        }
        None => Command::new(exe),
    };
    command
        .args([
            "--exact",
            "cli::init::tests::play",
            "--ignored",
            "--nocapture",
        ])
        .env(SCRIPT, script)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn finished(wrapper: &[&str], script: &str) -> Output {
    playing(wrapper, script).output().unwrap()
}

/// Waits until the script has said `ready`.
fn when_ready(child: &mut Child) -> BufReader<std::process::ChildStdout> {
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("ready") {
        line.clear();
        assert_ne!(
            stdout.read_line(&mut line).unwrap(),
            0,
            "ended before it was ready"
        );
    }
    stdout
}

#[test]
fn the_status_of_the_program_is_passed_on() {
    for (script, code) in [("exit 0", 0), ("exit 75", 75), ("kill -KILL $$", 137)] {
        let output = finished(&[], script);
        assert_eq!(output.status.code(), Some(code), "{script}: {output:?}");
    }
}

#[test]
fn signals_are_forwarded() {
    for (signal, name) in [
        (Signal::TERM, "TERM"),
        (Signal::INT, "INT"),
        (Signal::HUP, "HUP"),
        (Signal::QUIT, "QUIT"),
    ] {
        let script = format!("trap 'exit 9' {name}; echo ready; while :; do sleep 0.02; done");
        let mut child = playing(&[], &script).spawn().unwrap();
        let _stdout = when_ready(&mut child);
        rustix::process::kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(9), "{name}");
    }
}

#[test]
fn orphans_are_reaped() {
    let output = finished(&[], ORPHANS);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn it_serves_as_pid_one() {
    let namespace = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    match Command::new("unshare")
        .args(&namespace[1..])
        .arg("true")
        .output()
    {
        Ok(output) if output.status.success() => {}
        denied => {
            say!("skipped: no PID namespace here: {denied:?}");
            return;
        }
    }
    let script = format!("[ \"$PPID\" = 1 ] || exit 42\n{ORPHANS}");
    let output = finished(&namespace, &script);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn a_program_that_cannot_start_is_an_error() {
    // No child exists, so nothing of this process is waited for.
    let exe = Command::new("/nonexistent/program");
    assert!(matches!(supervise(exe), Err(InitError::Start(_))));
}

#[test]
fn only_pid_one_or_the_flag_makes_an_init() {
    let args = |list: &[&str]| list.iter().map(OsString::from).collect::<Vec<_>>();
    assert!(wanted(&args(&["--init", "server"]), false));
    assert!(!wanted(&args(&["server"]), false));
    assert!(!wanted(&args(&["--init", "server"]), true));
}
