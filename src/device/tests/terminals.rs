//! Real shells on real terminals.

use super::*;

impl Bench {
    fn spawn(&self, id: &str) {
        let cwd = self.text("");
        self.send(json!({"type": "terminal_spawn", "terminal_id": id, "cols": 90, "rows": 30, "cwd": cwd}));
    }

    fn type_in(&self, id: &str, data: &str) {
        self.send(json!({"type": "terminal_input", "terminal_id": id, "data": data}));
    }

    /// What terminal `id` shows, until `wanted` is in it.
    async fn shown(&mut self, id: &str, wanted: &str) -> String {
        let mut shown = String::new();
        while !shown.contains(wanted) {
            let frame = self.next().await;
            if frame["type"] == "terminal_output" && frame["terminal_id"] == id {
                assert_eq!(frame.as_object().unwrap().len(), 3);
                shown.push_str(frame["data"].as_str().unwrap());
            } else {
                assert_ne!(frame["type"], "terminal_exited", "{frame} after {shown:?}");
            }
        }
        shown
    }

    /// The next frame of a type.
    async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.next().await;
            if frame["type"] == kind {
                return frame;
            }
        }
    }
}

fn is_alive(pid: u64) -> bool {
    // A zombie is dead.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

async fn dead(pid: u64) {
    let gone = async {
        while is_alive(pid) {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, gone).await.expect("the process lives on");
}

#[tokio::test]
async fn a_terminal_says_who_it_is_runs_what_is_typed_and_tells_its_exit_code() {
    let mut bench = Bench::new().await;
    bench.spawn("t");
    let spawned = bench.next().await;
    assert_eq!(spawned["type"], "terminal_spawned");
    assert_eq!(spawned["terminal_id"], "t");
    let pid = spawned["pid"].as_u64().unwrap();
    assert_eq!(spawned.as_object().unwrap().len(), 3);
    bench.type_in(
        "t",
        "echo pid=$$ $TERM $COLORTERM; pwd; stty size; echo en\\\nd\n",
    );
    let shown = bench.shown("t", "\nend").await;
    for wanted in [
        format!("pid={pid} xterm-256color truecolor"),
        bench.text("").trim_end_matches('/').to_owned(),
        "30 90".to_owned(),
    ] {
        assert!(shown.contains(&wanted), "{wanted} in {shown}");
    }
    bench.send(json!({"type": "terminal_resize", "terminal_id": "t", "cols": 0, "rows": 1e9}));
    bench.type_in("t", "stty size; echo -n 'la'; echo 'st'; exit 7\n");
    bench.shown("t", "65535 80").await;
    let exited = bench.next_of("terminal_exited").await;
    assert_eq!(
        exited,
        json!({"type": "terminal_exited", "terminal_id": "t", "exitCode": 7})
    );
    dead(pid).await;
    // The id is free again.
    bench.spawn("t");
    assert_ne!(bench.next_of("terminal_spawned").await["pid"], pid);
}

#[tokio::test]
async fn a_signalled_shell_ends_with_128_and_its_number() {
    let mut bench = Bench::new().await;
    bench.spawn("t");
    bench.type_in("t", "kill -9 $$\n");
    let exited = bench.next_of("terminal_exited").await;
    assert_eq!(exited["exitCode"], 137);
}

#[tokio::test]
async fn a_flood_comes_complete_in_order_and_in_large_pieces_before_the_exit() {
    let mut bench = Bench::new().await;
    bench.spawn("t");
    bench.type_in(
        "t",
        "stty -echo; PS1=; seq 1 150000 | sed 's/$/ é/'; exit\n",
    );
    let (mut shown, mut frames) = (String::new(), 0);
    loop {
        let frame = bench.next().await;
        match frame["type"].as_str().unwrap() {
            "terminal_output" => {
                shown.push_str(frame["data"].as_str().unwrap());
                frames += 1;
            }
            "terminal_exited" => break,
            _ => {}
        }
    }
    // The shell's own mode for pasting goes off before the first line.
    let shown = shown.replace("\u{1b}[?2004l\r", "");
    let numbers = shown
        .lines()
        .filter_map(|line| line.trim().strip_suffix(" é"));
    let wrong = numbers
        .clone()
        .zip(1..)
        .find(|(line, n)| *line != n.to_string());
    assert_eq!((wrong, numbers.count()), (None, 150_000));
    assert!(!shown.contains('\u{FFFD}'));
    assert!(frames < 400, "{frames} frames");
}

#[tokio::test]
async fn a_second_spawn_soon_after_finds_the_same_terminal_and_a_kill_does_not() {
    let mut bench = Bench::new().await;
    bench.spawn("t");
    let pid = bench.next_of("terminal_spawned").await["pid"].clone();
    bench.spawn("t");
    bench.send(json!({"type": "terminal_kill", "terminal_id": "t"}));
    assert_eq!(bench.next_of("terminal_spawned").await["pid"], pid);
    bench.type_in("t", "echo al''ive\n");
    bench.shown("t", "alive").await;
}

#[tokio::test]
async fn a_kill_later_ends_the_shell_and_its_jobs_without_a_word() {
    let mut bench = Bench::new().await;
    bench.spawn("t");
    let pid = bench.next_of("terminal_spawned").await["pid"]
        .as_u64()
        .unwrap();
    bench.type_in(
        "t",
        "trap '' HUP; (trap '' HUP; echo job=$BASHPID; sleep 600) &\n",
    );
    bench.type_in("t", "echo rea''dy\n");
    let shown = bench.shown("t", "ready").await;
    let job = shown.rsplit("job=").next().unwrap();
    let job: String = job.chars().take_while(char::is_ascii_digit).collect();
    let job: u64 = job.parse().unwrap_or(pid);
    tokio::time::pause();
    tokio::time::advance(super::super::terminals::YOUNG).await;
    tokio::time::resume();
    bench.send(json!({"type": "terminal_kill", "terminal_id": "t"}));
    dead(pid).await;
    dead(job).await;
    bench.type_in("t", "x");
    bench.send(json!({"type": "get_cwd_map", "request_id": "next"}));
    let next = loop {
        let frame = bench.next().await;
        if frame["type"] != "terminal_output" {
            break frame;
        }
    };
    assert_eq!(next["request_id"], "next");
}

#[tokio::test]
async fn terminals_belong_to_their_connection_and_end_with_it() {
    let mut bench = Bench::new().await;
    let other = ConnectionId::new("app-server-2");
    bench.spawn("t");
    let pid = bench.next_of("terminal_spawned").await["pid"]
        .as_u64()
        .unwrap();
    let foreign = json!({"type": "terminal_input", "terminal_id": "t", "data": "echo fo''reign\n"});
    bench.send_from(&other, &foreign);
    bench.device.tell(Message::Closed(other.clone()));
    bench.type_in("t", "echo ow''n\n");
    let shown = bench.shown("t", "own").await;
    assert!(!shown.contains("foreign"), "{shown}");
    bench.device.tell(Message::Replaced {
        old: bench.me.clone(),
        new: other.clone(),
    });
    bench.send_from(&other, &foreign);
    loop {
        let (to, frame) = bench.next_for().await;
        if to == other
            && frame["data"]
                .as_str()
                .is_some_and(|data| data.contains("foreign"))
        {
            break;
        }
    }
    bench.device.tell(Message::Gone(other));
    dead(pid).await;
}

#[tokio::test]
async fn a_terminal_that_cannot_be_had_is_told_as_exited() {
    let mut bench = Bench::new().await;
    let spawn = |cols: Value, cwd: &str| json!({"type": "terminal_spawn", "terminal_id": "t", "cols": cols, "rows": 24, "cwd": cwd});
    let missing = bench.text("missing");
    bench.send(spawn(json!(80), &missing));
    let error = format!("Working directory not found: {missing}");
    assert_eq!(
        bench.next().await,
        json!({"type": "terminal_exited", "terminal_id": "t", "exitCode": 1, "error": error})
    );
    bench.send(spawn(json!("80"), "/"));
    let exited = bench.next().await;
    assert_eq!(exited["error"], "cols must be a number");
    assert_eq!(exited["exitCode"], 1);
    for frame in [
        json!({"type": "terminal_spawn", "cols": 80, "rows": 24}),
        json!({"type": "terminal_input", "terminal_id": "t"}),
        json!({"type": "terminal_resize", "terminal_id": "t", "cols": 1}),
        json!({"type": "terminal_kill", "terminal_id": 7}),
    ] {
        let answer = bench.ask(frame).await;
        assert_eq!(answer["type"], "error");
    }
    // Orders for a terminal that is not there are nothing.
    bench.type_in("none", "x");
    for n in 0..33 {
        bench.spawn(&n.to_string());
    }
    let exited = bench.next_of("terminal_exited").await;
    assert_eq!(exited["terminal_id"], "32");
    assert!(exited["error"].as_str().unwrap().contains("32 terminals"));
}
