//! SIGKILL at the worst moment, on the same home: nothing that is promised to
//! survive is lost, and nothing runs twice (02 §10–11, 03 §14).

use std::fs;

use local_cloud::{Decision, Recorded};
use serde_json::{Value, json};

use crate::harness::{Lab, SOON, Setup, bash, kill, scope};

#[tokio::test]
async fn s03_22_row20_a_call_cut_off_by_a_kill_is_closed_once_without_being_asked() {
    let (lab, orphan) = killed_in_a_tool(Setup::default()).await;
    let is_closing = |request: &Recorded| {
        request.is("POST", "/v1/conversations/conv-1/messages")
            && request.json()["messages"][0]["type"] == "approval"
    };
    lab.cloud.wait_for_request(is_closing, SOON).await.unwrap();
    lab.cloud.turn(&scope(), "SAY again").await.unwrap();
    assert_closed_once(&lab);
    end(&orphan).await;
}

#[tokio::test]
async fn s03_22_row20_a_call_cut_off_by_a_kill_is_closed_once_when_a_client_is_back_first() {
    let (lab, orphan) = killed_in_a_tool(Setup::default()).await;
    let sync = json!({"type": "sync", "runtime": scope().runtime()});
    lab.device().await.request(sync, SOON).await.unwrap();
    let turn = lab.cloud.turn(&scope(), "SAY again").await.unwrap();
    assert_eq!(turn.stop_reason(), "end_turn");
    lab.cloud.turn(&scope(), "SAY once more").await.unwrap();
    assert_closed_once(&lab);
    end(&orphan).await;
}

#[tokio::test]
async fn s03_22_row20_a_kill_during_a_stream_sends_nothing_twice_and_runs_its_call_once() {
    let mut lab = Lab::start().await;
    lab.mode(&scope(), "unrestricted").await;
    let mark = lab.cloud.mark();
    let line = bash("echo ran >> ran.txt");
    let script = format!("SAY begin\nTHEN\nSLEEP 1\n{line}\nSAY end");
    lab.say(&scope(), "cm-1", &script).await;
    lab.labelled(mark, "stream_delta:assistant_message").await;
    lab.recorded().await;
    lab.restart("KILL").await;
    assert_eq!(lab.written("ran.txt").await, "ran");
    // Queued behind the recovered turn, or a turn of its own after it.
    let mark = lab.cloud.mark();
    lab.say(&scope(), "cm-2", "SAY again").await;
    let is_answered = |request: &Recorded| request.json().to_string().contains("SAY again");
    lab.cloud.wait_for_request(is_answered, SOON).await.unwrap();
    lab.labelled(mark, "turn_finished").await;
    let bodies = lab.cloud.message_bodies("conv-1");
    let first = bodies
        .iter()
        .filter(|body| body.to_string().contains("SAY begin"));
    assert_eq!(first.count(), 1, "the message went out once");
    assert!(lab.cloud.pending(&scope()).is_empty());
    assert_eq!(fs::read_to_string(lab.file("ran.txt")).unwrap(), "ran\n");
}

#[tokio::test]
async fn s03_22_row20_a_question_cut_off_by_a_kill_is_asked_again_and_its_call_runs_once() {
    let lab = killed_at_a_question(Setup::default()).await;
    asked_again(&lab).await;
}

#[tokio::test]
async fn s03_22_row20_a_kill_after_the_work_was_done_asks_nothing_and_runs_nothing() {
    let mut lab = Lab::start().await;
    lab.mode(&scope(), "standard").await;
    let line = bash("touch x && echo ran >> ran.txt");
    let script = format!("{line}\nSAY done");
    let allow = |_: &Value| Decision::Allow;
    let turn = lab.cloud.turn_deciding(&scope(), &script, allow).await;
    assert_eq!(turn.unwrap().text(), "done");
    let mark = lab.cloud.mark();
    let device = lab.restart("KILL").await;
    let sync = json!({"type": "sync", "runtime": scope().runtime()});
    device.request(sync, SOON).await.unwrap();
    lab.cloud.turn(&scope(), "SAY next").await.unwrap();
    let (_, end) = lab.labelled(mark, "turn_finished").await;
    let frames = lab.cloud.frames();
    let questions = frames
        .iter()
        .filter(|frame| frame.kind() == "control_request");
    assert_eq!(questions.count(), 1, "only the first, before {end:?}");
    assert_eq!(fs::read_to_string(lab.file("ran.txt")).unwrap(), "ran\n");
}

/// As the first process of a container: PID 1 on the same home every time.
fn as_pid_one() -> Option<Setup> {
    const UNSHARE: [&str; 5] = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    let mut probe = std::process::Command::new(UNSHARE[0]);
    let probe = probe.args(&UNSHARE[1..]).arg("true").output();
    if probe.is_ok_and(|output| output.status.success()) {
        let through = UNSHARE.to_vec();
        return Some(Setup {
            through,
            ..Setup::default()
        });
    }
    // Root may always make one: there, a failure is a failure.
    assert!(
        !rustix::process::geteuid().is_root() || std::env::var_os("CI_NO_NAMESPACES").is_some(),
        "`unshare --pid` fails for root; set CI_NO_NAMESPACES=1 where namespaces are not to be had"
    );
    skipped("only root can make a PID namespace here");
    None
}

#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}

/// Kills the namespace through its PID 1, and waits until all of it is gone.
async fn kill_pid_one(lab: &mut Lab) {
    let unshare = lab.pid();
    let children = format!("/proc/{unshare}/task/{unshare}/children");
    let children = fs::read_to_string(children).unwrap();
    let init = children.split_whitespace().next().unwrap().parse().unwrap();
    kill("KILL", init).await;
    lab.ended().await;
}

#[tokio::test]
async fn a_container_killed_in_a_tool_comes_back_on_its_home_and_closes_the_call_once() {
    let Some(setup) = as_pid_one() else { return };
    let mut lab = setup.start().await;
    begin_a_long_call(&lab).await;
    kill_pid_one(&mut lab).await;
    lab.come_back().await;
    lab.cloud.turn(&scope(), "SAY again").await.unwrap();
    lab.cloud.turn(&scope(), "SAY once more").await.unwrap();
    assert_closed_once(&lab);
}

#[tokio::test]
async fn a_container_killed_at_a_question_comes_back_and_asks_again() {
    let Some(setup) = as_pid_one() else { return };
    let mut lab = setup.start().await;
    ask(&lab).await;
    kill_pid_one(&mut lab).await;
    lab.come_back().await;
    asked_again(&lab).await;
}

#[tokio::test]
async fn a_container_that_is_told_to_stop_ends_with_0_and_leaves_no_lock() {
    let Some(setup) = as_pid_one() else { return };
    let mut lab = setup.start().await;
    let unshare = lab.pid();
    let children = format!("/proc/{unshare}/task/{unshare}/children");
    let init = fs::read_to_string(children)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    kill("TERM", init).await;
    assert_eq!(lab.ended().await.code(), Some(0));
    let locks = fs::read_dir(lab.home().join(".letta/listeners")).unwrap();
    assert_eq!(locks.count(), 0);
}

/// A program that was killed in the middle of a command and has connected again,
/// and the process id of that command.
async fn killed_in_a_tool(setup: Setup) -> (Lab, String) {
    let mut lab = setup.start().await;
    let orphan = begin_a_long_call(&lab).await;
    lab.restart("KILL").await;
    (lab, orphan)
}

/// Starts a command that does not end by itself; its process id.
async fn begin_a_long_call(lab: &Lab) -> String {
    lab.mode(&scope(), "unrestricted").await;
    let mark = lab.cloud.mark();
    let command = "echo $$ > pid; echo ran >> ran.txt; exec sleep 30";
    let arguments = json!({"command": command, "description": "Wait"});
    let line = format!("CALLID call-1 Bash {arguments}\nSAY over");
    lab.say(&scope(), "cm-1", &line).await;
    lab.labelled(mark, "stream_delta:client_tool_start").await;
    lab.written("ran.txt").await;
    lab.written("pid").await
}

/// One denial of the call went out, nothing waits, and the command ran once.
fn assert_closed_once(lab: &Lab) {
    let bodies = lab.cloud.message_bodies("conv-1");
    let sent = bodies.iter().skip(1);
    let sent = sent.flat_map(|body| body["messages"].as_array().unwrap());
    let approvals: Vec<_> = sent
        .filter(|message| message["type"] == "approval")
        .map(|message| &message["approvals"])
        .collect();
    assert_eq!(approvals.len(), 1, "{approvals:?}");
    assert_eq!(approvals[0][0]["tool_call_id"], "call-1");
    assert_eq!(approvals[0][0]["approve"], false);
    assert!(lab.cloud.pending(&scope()).is_empty());
    assert_eq!(fs::read_to_string(lab.file("ran.txt")).unwrap(), "ran\n");
}

/// Makes the model want something that a human has to allow.
async fn ask(lab: &Lab) {
    lab.mode(&scope(), "standard").await;
    let mark = lab.cloud.mark();
    let line = bash("touch x && echo ran >> ran.txt");
    lab.say(&scope(), "cm-1", &format!("{line}\nSAY done"))
        .await;
    lab.labelled(mark, "control_request").await;
    lab.recorded().await;
}

/// A program that was killed while a human was asked, and has connected again.
async fn killed_at_a_question(setup: Setup) -> Lab {
    let mut lab = setup.start().await;
    ask(&lab).await;
    lab.restart("KILL").await;
    lab
}

/// The question comes once more, and after it the call runs once.
async fn asked_again(lab: &Lab) {
    let mark = lab.cloud.mark();
    let sync = json!({"type": "sync", "runtime": scope().runtime()});
    lab.device().await.request(sync, SOON).await.unwrap();
    let (request, _) = lab.labelled(mark, "control_request").await;
    assert!(!lab.file("ran.txt").exists());
    lab.cloud
        .answer(&scope(), &request, Decision::Allow)
        .await
        .unwrap();
    let (finished, _) = lab.labelled(mark, "turn_finished").await;
    assert_eq!(finished["stop_reason"], "end_turn");
    assert!(lab.cloud.pending(&scope()).is_empty());
    assert_eq!(fs::read_to_string(lab.file("ran.txt")).unwrap(), "ran\n");
    let bodies = lab.cloud.message_bodies("conv-1");
    assert_eq!(bodies.len(), 2, "the message, and the result");
}

/// A command outlives a killed program; a test does not leave it behind.
async fn end(orphan: &str) {
    let mut kill = tokio::process::Command::new("kill");
    let kill = kill.arg(orphan).stderr(std::process::Stdio::null());
    kill.status().await.unwrap();
}
