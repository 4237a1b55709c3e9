//! What the program finds when it starts and what it leaves behind.

use std::fs;
use std::process::Stdio;

use local_cloud::{Fault, Mode, Options};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::harness::{Lab, SOON, Setup, bash, scope};

#[tokio::test]
async fn s01_15_row01_a_start_registers_once_and_says_who_it_is() {
    let setup = Setup {
        options: Options {
            mode: Mode::Single,
            ..Setup::default().options
        },
        args: vec!["--computer-name", "w1"],
        ..Setup::default()
    };
    let lab = setup.start().await;
    let registrations = lab.cloud.registrations();
    assert_eq!(registrations.len(), 1);
    let body = &registrations[0].body;
    assert_eq!(body["connectionName"], "w1");
    assert_eq!(body["listenerInstanceId"], "server-60c5590f72eef292");
    let metadata = &body["metadata"];
    assert_eq!(metadata["environmentMessageProtocol"], "v2-input");
    assert_eq!(metadata["supportsPairedListenerGenerations"], true);
    assert_eq!(metadata["lettaCodeVersion"], "0.32.18");
    let device_id = body["deviceId"].as_str().unwrap();
    let bearer = Some("Bearer test-key");
    assert_eq!(registrations[0].request.header("authorization"), bearer);

    let device = lab.device().await;
    let handshake = device.handshake(local_cloud::Channel::Single).unwrap();
    assert_eq!(handshake.header("authorization"), bearer);
    let wanted = format!("deviceId={device_id}&connectionName=w1");
    assert_eq!(handshake.query, wanted);
    assert_eq!(lab.json(".letta/settings.json")["deviceId"], device_id);
    assert!(device.frames().is_empty(), "nothing is said unasked");
}

#[tokio::test]
async fn s01_15_row10_answers_that_are_no_registration_end_the_start_with_their_text() {
    for (body, said) in [
        (json!("OK"), "non-JSON"),
        (
            json!({"connectionId": "conn-1"}),
            "missing connectionId or wsUrl",
        ),
    ] {
        let mut lab = Lab::unconnected(|cloud| {
            cloud.fail_next_registration(Fault::status(200).with_body(body));
        })
        .await;
        let code = lab.ended().await.code();
        assert!(code.is_some_and(|code| code != 0), "{code:?}");
        assert!(lab.printed().contains(said), "{}", lab.printed());
        assert_eq!(lab.cloud.registrations().len(), 1);
    }
}

#[tokio::test]
async fn s01_15_row20_a_directory_that_is_gone_leaves_the_file_and_the_status() {
    let mut lab = Setup::default().stopped().await;
    let gone = lab.file("gone");
    lab.write(
        ".letta/remote-settings.json",
        &json!({"cwdMap": {"conversation:conv-1": gone}, "own": 1}),
    );
    lab.spawn();
    let status = lab.device_status(&scope()).await;
    let here = lab.file("x").parent().unwrap().to_owned();
    assert_eq!(status["current_working_directory"], json!(here));
    let stored = lab.json(".letta/remote-settings.json");
    assert_eq!(stored["cwdMap"], json!({}));
    assert_eq!(stored["own"], 1, "unknown keys are kept");
}

#[tokio::test]
async fn s01_15_row23_a_second_process_is_refused_and_the_first_goes_on() {
    let lab = Setup::default().start().await;
    let mut second = lab.command();
    let base = format!("{}/", lab.cloud.base_url());
    let second = second
        .env("LETTA_BASE_URL", base)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ended = timeout(SOON, second.wait_with_output()).await;
    let ended = ended.expect("the second has not ended").unwrap();
    assert_eq!(ended.status.code(), Some(69));
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains(&format!("pid {}", lab.pid())), "{said}");
    assert!(said.contains("listeners/manual-"), "{said}");
    let turn = lab.cloud.turn(&scope(), "SAY still here").await.unwrap();
    assert_eq!(turn.text(), "still here");
    assert_eq!(lab.cloud.registrations().len(), 1);
}

#[tokio::test]
async fn s01_15_row24_a_lock_left_by_a_kill_is_recovered_and_gone_after_a_clean_exit() {
    let mut lab = Lab::start().await;
    let locks = lab.home().join(".letta/listeners");
    let count = || fs::read_dir(&locks).unwrap().count();
    assert_eq!(count(), 1);
    lab.restart("KILL").await;
    assert_eq!(count(), 1);
    lab.signal("TERM").await;
    assert_eq!(lab.ended().await.code(), Some(0));
    assert_eq!(count(), 0);
}

#[tokio::test]
async fn s01_15_row24b_the_nine_newest_old_logs_stay() {
    let mut lab = Setup::default().stopped().await;
    let logs = lab.home().join(".letta/logs/remote");
    fs::create_dir_all(&logs).unwrap();
    let old = |day: usize| format!("2020-01-{day:02}T00-00-00-000Z.log");
    for day in 1..=14 {
        fs::write(logs.join(old(day)), "old\n").unwrap();
    }
    fs::write(logs.join("aaa.txt"), "not a log\n").unwrap();
    lab.spawn();
    lab.device().await;
    let names = fs::read_dir(&logs).unwrap();
    let mut names: Vec<_> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let mut wanted: Vec<_> = (6..=14).map(old).collect();
    let new = names
        .iter()
        .find(|name| name.ends_with(".log") && !name.starts_with("2020-"));
    wanted.push(new.unwrap().clone());
    wanted.push("aaa.txt".to_owned());
    assert_eq!(names, wanted);
}

#[tokio::test]
async fn s01_15_row25_each_signal_ends_it_with_0_both_sockets_closed_and_the_lock_gone() {
    for (signal, args) in [
        ("TERM", vec!["--env-name", "test"]),
        ("INT", vec!["--env-name", "test", "--debug"]),
        ("TERM", vec!["--env-name", "test", "--debug"]),
        ("INT", vec!["--env-name", "test"]),
    ] {
        let setup = Setup {
            args,
            ..Setup::default()
        };
        let mut lab = setup.start().await;
        let device = lab.device().await;
        lab.signal(signal).await;
        assert_eq!(lab.ended().await.code(), Some(0), "{signal}");
        for channel in [local_cloud::Channel::Control, local_cloud::Channel::Stream] {
            let closed = device.wait_closed(channel, SOON).await.unwrap();
            assert_eq!(closed.code, Some(1000), "{signal} {channel:?}");
        }
        let locks = fs::read_dir(lab.home().join(".letta/listeners")).unwrap();
        assert_eq!(locks.count(), 0, "{signal}");
    }
}

#[tokio::test]
async fn s01_15_row26_corrupt_settings_are_set_aside_and_the_start_goes_on() {
    let mut lab = Setup::default().stopped().await;
    lab.write_text(".letta/settings.json", "{ no json");
    fs::create_dir(lab.file(".letta")).unwrap();
    fs::write(lab.file(".letta/settings.local.json"), "[1,").unwrap();
    lab.spawn();
    let turn = lab.cloud.turn(&scope(), "SAY up").await.unwrap();
    assert_eq!(turn.text(), "up");
    assert!(lab.json(".letta/settings.json")["deviceId"].is_string());
    let kept = fs::read_dir(lab.home().join(".letta")).unwrap();
    let kept = kept.map(|entry| entry.unwrap().path()).find(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("settings.json.corrupt")
    });
    assert_eq!(fs::read_to_string(kept.unwrap()).unwrap(), "{ no json");
}

#[tokio::test]
async fn s01_15_row27_keys_that_are_not_ours_are_kept() {
    let mut lab = Setup::default().stopped().await;
    lab.write(
        ".letta/settings.json",
        &json!({"theirs": {"a": [1, 2]}, "env": {"X": "y"}}),
    );
    lab.spawn();
    lab.device().await;
    let stored = lab.json(".letta/settings.json");
    assert!(stored["deviceId"].is_string());
    assert_eq!(stored["theirs"], json!({"a": [1, 2]}));
    assert_eq!(stored["env"]["X"], "y");
}

#[tokio::test]
async fn s01_15_row28_29_another_server_is_registered_with_even_without_a_key() {
    let lab = Setup::default().env("LETTA_API_KEY", "").start().await;
    let registrations = lab.cloud.registrations();
    assert_eq!(registrations.len(), 1);
    assert_eq!(registrations[0].request.header("authorization"), None);
}

#[tokio::test]
async fn s01_15_row30_an_instance_id_is_sent_verbatim_without_a_lock_or_a_trace_in_children() {
    let id = "desktop-primary:abc";
    let setup = Setup::default().env("LETTA_LISTENER_INSTANCE_ID", id);
    let lab = setup.start().await;
    assert_eq!(lab.cloud.registrations()[0].body["listenerInstanceId"], id);
    let locks = fs::read_dir(lab.home().join(".letta/listeners"));
    assert_eq!(locks.map_or(0, Iterator::count), 0);
    lab.mode(&scope(), "unrestricted").await;
    let script = format!("{}\nSAY done", bash("env"));
    let turn = lab.cloud.turn(&scope(), &script).await.unwrap();
    let returned = turn.tool_returns()[0]["tool_return"].to_string();
    assert!(returned.contains("AGENT_ID="), "{returned}");
    assert!(!returned.contains(id), "{returned}");
}

#[tokio::test]
async fn a_start_without_a_name_takes_the_one_of_the_variable_and_keeps_it_out_of_the_file() {
    let setup = Setup {
        args: Vec::new(),
        ..Setup::default()
    };
    let lab = setup.env("ENV_NAME", "from-env").start().await;
    let name: Value = lab.cloud.registrations()[0].body["connectionName"].clone();
    assert_eq!(name, "from-env");
}

#[tokio::test]
async fn a_reader_that_has_gone_ends_no_server() {
    let lab = Setup::default().stopped().await;
    let (output, printed) = std::io::pipe().unwrap();
    drop(output);
    let mut program = lab
        .command()
        .stdout(printed.try_clone().unwrap())
        .stderr(printed)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let turn = async {
        lab.cloud.wait_for_device(SOON).await.unwrap();
        lab.cloud.turn(&scope(), "SAY unheard").await.unwrap()
    };
    assert_eq!(turn.await.text(), "unheard");
    let pid = program.id().unwrap().to_string();
    let sent = std::process::Command::new("kill").arg(pid).status();
    assert!(sent.unwrap().success());
    let ended = timeout(SOON, program.wait()).await.expect("it goes on");
    assert_eq!(ended.unwrap().code(), Some(0));
}

#[tokio::test]
async fn output_that_cannot_be_written_is_complained_of() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full");
    let mut version = std::process::Command::new(env!("CARGO_BIN_EXE_letta"));
    let said = version.arg("version").stdout(full.unwrap()).output();
    let said = String::from_utf8(said.unwrap().stderr).unwrap();
    assert!(
        said.starts_with("Error: the output cannot be written: "),
        "{said}"
    );
}
