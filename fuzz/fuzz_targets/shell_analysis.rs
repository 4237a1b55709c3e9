//! Shell commands against rules: nothing panics, and three laws hold: a deny
//! rule more lets nothing more through, `strict` asks wherever `standard` does,
//! and a command that follows another is judged no milder than alone.
//!
//! The first line of the input is a rule, the rest a command.

#![no_main]

use letta::permissions::{Context, LexicalDisk, ModeState, Request, Rules, Verdict, decide};
use letta::protocol::PermissionMode;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

fn verdict(args: &Value, permissions: Value, mode: PermissionMode) -> u8 {
    let mut context = Context::new("/srv/app", "/home/you", &LexicalDisk);
    context.agents.agent = Some("agent-1".to_owned());
    let request = Request {
        tool: "Bash",
        args: args.as_object().unwrap(),
    };
    let rules = Rules::merge(&[json!({ "permissions": permissions })]);
    match decide(&request, &rules, &ModeState::from(mode), &context).verdict {
        Verdict::Allow => 0,
        Verdict::Ask => 1,
        Verdict::AlwaysAsk => 2,
        Verdict::Deny => 3,
    }
}

fuzz_target!(|input: &str| {
    let (rule, line) = input.split_once('\n').unwrap_or(("", input));
    let rule = format!("Bash({rule})");
    let allow = json!({"allow": ["Bash(make:*)", rule]});
    let text = json!({ "command": line });
    let words: Vec<&str> = line.split('\u{1}').collect();
    for args in [&text, &json!({ "command": words })] {
        let standard = verdict(args, allow.clone(), PermissionMode::Standard);
        assert!(verdict(args, allow.clone(), PermissionMode::Strict) >= standard);
        let both = json!({"allow": allow["allow"], "deny": [rule]});
        for mode in PermissionMode::ALL {
            let held_back = verdict(args, both.clone(), mode);
            assert!(held_back >= verdict(args, allow.clone(), mode));
        }
    }
    let alone = verdict(&text, json!({}), PermissionMode::Standard);
    if alone == 1 && line.starts_with(|c: char| c.is_ascii_alphabetic()) && !line.trim_end().ends_with(['&', '|']) {
        let behind = json!({"command": format!("ls\n{line}")});
        assert!(verdict(&behind, json!({}), PermissionMode::Standard) >= 1);
    }
});
