//! The observed decisions of the published program, as a table
//! (`tests/data/permission-cases.json`): ours is never looser.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::rules::LaunchRules;
use super::{
    AgentIds, Context, LexicalDisk, ModeState, Request, RuleList, Rules, SessionRules, Verdict,
    decide,
};
use crate::protocol::PermissionMode;

#[derive(Deserialize)]
struct Case {
    id: String,
    mode: String,
    cwd: String,
    tool: String,
    args: Map<String, Value>,
    rules: Value,
    expected: String,
    #[serde(default)]
    weakness: bool,
    home: Option<String>,
    agent_id: Option<String>,
    session: Option<Value>,
    cli: Option<Value>,
    workspace_sandbox: Option<Value>,
    execution_settings: Option<Value>,
}

fn verdict(case: &Case) -> Verdict {
    let rules = serde_json::json!({ "permissions": case.rules });
    let list = |of: &Option<Value>, key: &str| -> Vec<String> {
        let items = of
            .as_ref()
            .and_then(|value| value[key].as_array())
            .cloned()
            .unwrap_or_default();
        items
            .iter()
            .filter_map(|item| item.as_str().map(String::from))
            .collect()
    };
    let mut session = SessionRules::default();
    for (key, kind) in [
        ("allow", RuleList::Allow),
        ("alwaysAsk", RuleList::AlwaysAsk),
    ] {
        for rule in list(&case.session, key) {
            session.add(kind, &rule);
        }
    }
    let launch = match &case.execution_settings {
        Some(settings) => LaunchRules::verbatim(
            &list(&Some(settings.clone()), "allowed_tools"),
            &list(&Some(settings.clone()), "disallowed_tools"),
        ),
        None => LaunchRules::from_flags(
            case.cli
                .as_ref()
                .and_then(|cli| cli["allowed"].as_str())
                .unwrap_or_default(),
            case.cli
                .as_ref()
                .and_then(|cli| cli["disallowed"].as_str())
                .unwrap_or_default(),
        ),
    };
    let rules = Rules::merge(&[rules])
        .with_session(session)
        .with_launch(launch);
    let disk = LexicalDisk;
    let home = case.home.as_deref().unwrap_or("/home/u");
    let mut context = Context::new(&case.cwd, home, &disk);
    context.agents = AgentIds {
        agent: case.agent_id.clone(),
        parent: None,
    };
    let settings = case.execution_settings.as_ref();
    context.memory_guard_off = settings
        .and_then(|s| s["disable_memory_guard"].as_bool())
        .unwrap_or(false);
    let mode = PermissionMode::parse(&case.mode).unwrap();
    let request = Request {
        tool: &case.tool,
        args: &case.args,
    };
    decide(
        &request,
        &rules,
        &ModeState {
            mode,
            plan_file: None,
        },
        &context,
    )
    .verdict
}

/// How much a verdict lets through; less is stricter.
fn looseness(verdict: &str) -> u8 {
    match verdict {
        "deny" => 0,
        "alwaysAsk" | "ask" => 1,
        _ => 2,
    }
}

#[test]
fn no_case_is_decided_looser_than_by_the_published_program() {
    let cases: Vec<Case> =
        serde_json::from_str(include_str!("../../tests/data/permission-cases.json")).unwrap();
    let mut looser = Vec::new();
    let mut agree = 0;
    let mut stricter = Vec::new();
    let judged = cases.iter().filter(|case| case.workspace_sandbox.is_none());
    for case in judged {
        let ours = match verdict(case) {
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
            Verdict::Ask | Verdict::AlwaysAsk => "ask",
        };
        let (mine, theirs) = (looseness(ours), looseness(&case.expected));
        match mine.cmp(&theirs) {
            std::cmp::Ordering::Greater => looser.push((&case.id, ours, &case.expected)),
            std::cmp::Ordering::Equal => agree += 1,
            std::cmp::Ordering::Less if !case.weakness => stricter.push(&case.id),
            std::cmp::Ordering::Less => {}
        }
    }
    assert!(looser.is_empty(), "{} looser: {looser:?}", looser.len());
    assert!(
        agree >= 640,
        "only {agree} agree; stricter without need: {stricter:?}"
    );
}

#[test]
fn variables_that_change_what_runs_are_never_read_only() {
    for command in [
        "PATH=/tmp/x ls",
        "LD_PRELOAD=/tmp/x.so ls",
        "GIT_PAGER=evil git log",
        "IFS=x ls",
        "BASH_ENV=/tmp/x ls",
        "env PATH=/tmp ls",
        "export PATH=/tmp; ls",
        "ls; rm -rf x",
        "ls & rm x",
        "cat <(rm x)",
        "find . -exec rm {} +",
        "sed -i s/a/b/ x",
        "$(rm x)",
        "`rm x`",
        "git -c core.pager=evil log",
        "tar --to-command=evil -xf a",
        "ls > out",
        "echo x | sh",
    ] {
        let args = serde_json::json!({ "command": command });
        let context = Context::new("/srv/app", "/home/u", &LexicalDisk);
        let mode = ModeState {
            mode: PermissionMode::Standard,
            plan_file: None,
        };
        let request = Request {
            tool: "Bash",
            args: args.as_object().unwrap(),
        };
        let decision = decide(&request, &Rules::default(), &mode, &context);
        assert_ne!(decision.verdict, Verdict::Allow, "{command}");
    }
}
