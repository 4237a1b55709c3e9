use std::cell::RefCell;
use std::collections::BTreeSet;

use super::*;

fn read(env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    read_with(&ServerFlags::default(), env)
}

fn read_with(flags: &ServerFlags, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::read(flags, |name| {
        env.iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| OsString::from(value))
    })
}

fn health(env: &[(&str, &str)]) -> Option<String> {
    read(env)
        .expect("valid")
        .health_addr
        .map(|addr| addr.to_string())
}

#[test]
fn an_empty_environment_gives_the_documented_defaults() {
    let config = read(&[]).expect("valid");
    assert_eq!(config.base_url, None);
    assert_eq!(config.oauth_url, "https://app.letta.com");
    assert_eq!(config.request_timeout, Duration::from_secs(600));
    assert_eq!(config.drain, Duration::from_secs(20));
    assert_eq!(config.max_offline, None);
    assert_eq!(config.stream_open_timeout, Duration::from_secs(30));
    assert_eq!(
        config.stream_guards,
        StreamGuards {
            terminal_eof: Duration::from_secs(2),
            stall: Duration::from_secs(60),
            stall_status: Duration::from_secs(5),
        }
    );
    assert_eq!(config.cron, CronScope::All);
    assert_eq!(config.frame_log, FrameLog::Cut);
    assert_eq!(config.log_format, LogFormat::Auto);
    assert!(!config.debug && !config.tool_env_scrub && config.tool_overflow_to_file);
}

#[test]
fn health_is_local_by_default_public_with_port_and_the_own_variable_wins() {
    assert_eq!(health(&[]).as_deref(), Some("127.0.0.1:8080"));
    assert_eq!(health(&[("PORT", "3000")]).as_deref(), Some("0.0.0.0:3000"));
    let both = [("PORT", "3000"), ("LETTA_HEALTH_ADDR", "[::]:9")];
    assert_eq!(health(&both).as_deref(), Some("[::]:9"));
    assert_eq!(
        health(&[("PORT", "3000"), ("LETTA_HEALTH_ADDR", "off")]),
        None
    );
    let local = [("LETTA_HEALTH_ADDR", "localhost:7")];
    assert_eq!(health(&local).as_deref(), Some("127.0.0.1:7"));
}

#[test]
fn wrong_values_are_all_named_with_what_would_be_right() {
    let error = read(&[
        ("LETTA_MAX_OFFLINE", "soon"),
        ("LETTA_DRAIN_SECONDS", "-1"),
        ("LETTA_HEALTH_ADDR", "8080"),
        ("PORT", "99999"),
        ("LETTA_PERMISSION_MODE", "Plan"),
        ("LETTA_LOG_FORMAT", "xml"),
        ("LETTA_LOG_FRAMES", "some"),
        ("LETTA_LISTENER_DEVICE_ID", "-a"),
    ])
    .expect_err("eight mistakes");
    let text = error.to_string();
    assert_eq!(text.lines().count(), 8, "{text}");
    for part in [
        "LETTA_MAX_OFFLINE=soon is not valid; accepted: a whole number with a unit: 90s, 5m, 2h or 3d",
        "LETTA_DRAIN_SECONDS=-1",
        "LETTA_HEALTH_ADDR=8080",
        "PORT=99999",
        "LETTA_PERMISSION_MODE=Plan is not valid; accepted: standard, acceptEdits, plan, strict, unrestricted",
        "LETTA_LOG_FORMAT=xml is not valid; accepted: auto, text or json",
        "LETTA_LOG_FRAMES=some",
        "LETTA_LISTENER_DEVICE_ID=-a",
    ] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
}

#[test]
fn durations_are_read_with_their_units() {
    let config =
        read(&[("LETTA_MAX_OFFLINE", "2h"), ("LETTA_DRAIN_SECONDS", "45")]).expect("valid");
    assert_eq!(config.max_offline, Some(Duration::from_secs(7200)));
    assert_eq!(config.drain, Duration::from_secs(45));
    assert_eq!(
        read(&[("LETTA_DRAIN_SECONDS", "5m")]).expect("valid").drain,
        Duration::from_secs(300)
    );
}

#[test]
fn timeouts_of_the_published_program_ignore_what_is_not_positive() {
    for bad in ["0", "-5", "abc", "NaN", "Infinity", ""] {
        let config = read(&[("LETTA_LISTENER_STREAM_OPEN_TIMEOUT_MS", bad)]).expect("valid");
        assert_eq!(config.stream_open_timeout, Duration::from_secs(30), "{bad}");
    }
    let config = read(&[("LETTA_STREAM_STALL_RECONCILE_MS", "1500.5")]).expect("valid");
    assert_eq!(config.stream_guards.stall, Duration::from_micros(1_500_500));
}

#[test]
fn flags_win_over_the_environment() {
    let flags = ServerFlags {
        name: Some("flag".into()),
        permission_mode: Some(PermissionMode::Strict),
        skills: Some("/flag".into()),
        detach: false,
        debug: true,
        ..ServerFlags::default()
    };
    let env = [
        ("LETTA_ENV_NAME", "long"),
        ("ENV_NAME", "short"),
        ("LETTA_PERMISSION_MODE", "plan"),
        ("LETTA_SKILLS_DIRECTORY", "/env"),
    ];
    let config = read_with(&flags, &env).expect("valid");
    assert_eq!(config.name.map(|name| name.value).as_deref(), Some("flag"));
    assert_eq!(
        config.permission_mode.map(|mode| mode.value),
        Some(PermissionMode::Strict)
    );
    assert_eq!(config.skills_directory, Some("/flag".into()));
    assert!(config.debug && config.debug_output);

    let config = read(&env).expect("valid");
    let name = config.name.expect("from the environment");
    assert_eq!(
        (name.value.as_str(), name.origin.to_string().as_str()),
        ("long", "LETTA_ENV_NAME")
    );
    assert_eq!(
        config.permission_mode.map(|mode| mode.value),
        Some(PermissionMode::Plan)
    );
    let short = read(&env[1..2]).expect("valid").name.map(|name| name.value);
    assert_eq!(short.as_deref(), Some("short"));
}

#[test]
fn a_malformed_instance_id_is_ignored_and_a_good_one_kept_verbatim() {
    let id = |value| {
        read(&[("LETTA_LISTENER_INSTANCE_ID", value)])
            .expect("valid")
            .listener_instance_id
    };
    assert_eq!(
        id("desktop-primary:abc").as_deref(),
        Some("desktop-primary:abc")
    );
    let too_long = "a".repeat(129);
    for bad in [":a", "a b", "ä", &too_long] {
        assert_eq!(id(bad), None, "{bad}");
    }
    assert!(id(&too_long[1..]).is_some());
}

#[test]
fn identities_never_reach_children_and_credentials_only_unscrubbed() {
    let hidden = |env: &[_]| read(env).expect("valid").hidden_from_children();
    assert_eq!(
        hidden(&[]),
        ["LETTA_LISTENER_INSTANCE_ID", "LETTA_LISTENER_DEVICE_ID"]
    );
    let scrubbed = hidden(&[("LETTA_TOOL_ENV_SCRUB", "1")]);
    assert!(scrubbed.contains(&"LETTA_API_KEY") && scrubbed.contains(&"CREDENTIALS_DIRECTORY"));
    let config = read(&[("LETTA_LISTENER_DEVICE_ID", "d1")]).expect("valid");
    assert_eq!(
        config.added_for_children(),
        [("LETTA_RUNTIME_ENVIRONMENT_DEVICE_ID", "d1")]
    );
}

#[test]
fn no_secret_shows_in_debug_output_or_errors() {
    let config = read(&[
        ("LETTA_API_KEY", "sk-hidden"),
        ("HTTPS_PROXY", "http://u:hidden@proxy"),
        ("http_proxy", "http://u:hidden@proxy"),
    ])
    .expect("valid");
    assert!(config.proxies.http.is_some(), "the lower-case name is read");
    assert!(!format!("{config:?}").contains("hidden"));
    let error =
        read(&[("LETTA_BASE_URL", "https://u:hidden@host")]).expect_err("credentials in a URL");
    assert!(!error.to_string().contains("hidden"), "{error}");
}

#[test]
fn server_urls_lose_blanks_and_trailing_slashes() {
    let config = read(&[("LETTA_BASE_URL", " https://api.letta.com// ")]).expect("valid");
    assert_eq!(config.base_url.as_deref(), Some("https://api.letta.com"));
    assert!(read(&[("LETTA_BASE_URL", "api.letta.com")]).is_err());
}

#[test]
fn frames_are_logged_cut_whole_or_not_at_all() {
    let frames = |env: &[_]| read(env).expect("valid").frame_log;
    assert_eq!(frames(&[("LETTA_LOG_WS_EVENTS", "1")]), FrameLog::Whole);
    let both = [("LETTA_LOG_WS_EVENTS", "1"), ("LETTA_LOG_FRAMES", "off")];
    assert_eq!(frames(&both), FrameLog::Off);
}

#[test]
fn schedules_follow_their_two_variables() {
    let cron = |env: &[_]| read(env).expect("valid").cron;
    assert_eq!(
        cron(&[("LETTA_CRON_SCHEDULER_SCOPE", "cloud")]),
        CronScope::Cloud
    );
    assert_eq!(
        cron(&[("LETTA_CRON_SCHEDULER_SCOPE", "everything")]),
        CronScope::All
    );
    let off = [
        ("LETTA_CRON_SCHEDULER_SCOPE", "local"),
        ("LETTA_DISABLE_CRON_SCHEDULER", "1"),
    ];
    assert_eq!(cron(&off), CronScope::Off);
}

#[test]
fn debug_patterns_of_other_programs_are_not_ours() {
    assert!(read(&[("DEBUG", "1")]).expect("valid").debug);
    assert!(!read(&[("DEBUG", "express:*")]).expect("valid").debug);
    assert!(
        !read(&[("LETTA_DEBUG", "true")])
            .expect("valid")
            .debug_output
    );
}

#[test]
fn the_table_of_variables_is_what_is_read() {
    let asked = RefCell::new(BTreeSet::new());
    let config = Config::read(&ServerFlags::default(), |name| {
        if name.chars().all(|c| !c.is_ascii_lowercase()) {
            asked.borrow_mut().insert(name.to_owned());
        }
        None
    });
    assert!(config.is_ok());
    let table: BTreeSet<String> = VARIABLES
        .iter()
        .map(|variable| variable.name.to_owned())
        .collect();
    assert_eq!(asked.into_inner(), table);
    assert_eq!(table.len(), VARIABLES.len(), "no variable stands twice");
}

#[test]
fn the_document_has_one_row_for_each_flag_and_variable() {
    let document = include_str!("../../docs/configuration.md");
    let rows: BTreeSet<&str> = document
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    let mut expected = BTreeSet::new();
    for flag in FLAGS {
        let shown = flag.value.map_or_else(
            || flag.name.to_owned(),
            |value| format!("{} {value}", flag.name),
        );
        expected.insert(format!("| `{shown}` | {} |", flag.meaning));
    }
    for variable in VARIABLES {
        expected.insert(format!(
            "| `{}` | {} | {} |",
            variable.name, variable.default, variable.meaning
        ));
    }
    for row in &expected {
        assert!(
            rows.contains(row.as_str()),
            "docs/configuration.md lacks this row:\n{row}"
        );
    }
    let known = |row: &&&str| {
        row.starts_with("| `--") || row.split('`').nth(1).is_some_and(is_variable_name)
    };
    for row in rows.iter().filter(known) {
        assert!(
            expected.contains(*row),
            "docs/configuration.md has a row of nothing that exists:\n{row}"
        );
    }
}

fn is_variable_name(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

#[test]
fn the_volume_of_a_platform_takes_the_place_of_home() {
    let home = |env: &[_]| read(env).expect("valid").home;
    let volume = ("RAILWAY_VOLUME_MOUNT_PATH", "/volume");
    let user = ("HOME", "/root");
    assert_eq!(home(&[user, volume]), Some("/volume".into()));
    let relative = ("RAILWAY_VOLUME_MOUNT_PATH", "volume");
    assert_eq!(home(&[user, relative]), Some("/root".into()));
}
