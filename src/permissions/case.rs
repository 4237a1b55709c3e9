//! A call with everything around it as one JSON object: the lines that
//! `letta permissions check` reads, and `tests/data/permission-cases.json`
//! (05 §18). No path needs to exist.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::rules::RuleList;
use super::{
    Context, Decision, LaunchRules, LexicalDisk, ModeState, Request, Rules, SessionRules,
    Suggestion, Workspace, decide, suggest,
};
use crate::protocol::PermissionMode;

/// The home directory where a case names none.
const HOME: &str = "/home/tester";

/// One case.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    /// Echoed in the answer.
    #[serde(default)]
    pub id: Value,
    mode: String,
    cwd: String,
    tool: String,
    #[serde(default)]
    args: Map<String, Value>,
    #[serde(default)]
    rules: Value,
    agent_id: Option<String>,
    home: Option<String>,
    plan_file: Option<String>,
    #[serde(default)]
    session: Map<String, Value>,
    #[serde(default)]
    cli: CliFlags,
    execution_settings: Option<ExecutionSettings>,
    workspace_sandbox: Option<Sandbox>,
    #[serde(default)]
    credentials: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct CliFlags {
    #[serde(default)]
    allowed: String,
    #[serde(default)]
    disallowed: String,
    #[serde(default)]
    disable_memory_guard: bool,
}

#[derive(Clone, Debug, Deserialize)]
struct ExecutionSettings {
    #[serde(default)]
    allowed_tools: Vec<String>,
    #[serde(default)]
    disallowed_tools: Vec<String>,
    #[serde(default)]
    disable_memory_guard: bool,
}

#[derive(Clone, Debug, Deserialize)]
struct Sandbox {
    root: String,
    isolation_root: String,
}

/// A case that cannot be decided.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// Not an object of the right shape.
    #[error("not a case: {0}")]
    Shape(#[from] serde_json::Error),
    /// A mode that does not exist.
    #[error(
        "unknown permission mode `{0}`; there are standard, acceptEdits, plan, strict and unrestricted"
    )]
    Mode(String),
    /// A working directory that is not absolute.
    #[error("`cwd` must be absolute, not `{0}`")]
    Cwd(String),
}

impl Case {
    /// Reads one case.
    ///
    /// # Errors
    /// When fields are missing or have another shape.
    pub fn from_json(text: &str) -> Result<Self, CaseError> {
        Ok(serde_json::from_str(text)?)
    }

    /// Decides it.
    ///
    /// # Errors
    /// An unknown mode, a relative working directory.
    pub fn decide(&self) -> Result<Decision, CaseError> {
        let mode =
            PermissionMode::parse(&self.mode).ok_or_else(|| CaseError::Mode(self.mode.clone()))?;
        let mode = ModeState {
            plan_file: self.plan_file.clone(),
            ..ModeState::from(mode)
        };
        let absolute = self.cwd.starts_with('/') || super::path::has_drive(&self.cwd);
        if !absolute {
            return Err(CaseError::Cwd(self.cwd.clone()));
        }
        Ok(decide(
            &self.request(),
            &self.rules(),
            &mode,
            &self.context(),
        ))
    }

    /// What a question about it would offer, whatever the decision.
    pub fn suggestion(&self) -> Option<Suggestion> {
        suggest(&self.request(), &self.context())
    }

    fn request(&self) -> Request<'_> {
        Request {
            tool: &self.tool,
            args: &self.args,
        }
    }

    fn rules(&self) -> Rules {
        let mut session = SessionRules::default();
        for list in [
            RuleList::Allow,
            RuleList::Deny,
            RuleList::Ask,
            RuleList::AlwaysAsk,
        ] {
            let texts = self.session.get(list.key()).and_then(Value::as_array);
            for text in texts.into_iter().flatten().filter_map(Value::as_str) {
                session.add(list, text);
            }
        }
        let launch = match &self.execution_settings {
            Some(own) => LaunchRules::verbatim(&own.allowed_tools, &own.disallowed_tools),
            None => LaunchRules::from_flags(&self.cli.allowed, &self.cli.disallowed),
        };
        Rules::merge(&[json!({"permissions": self.rules})])
            .with_session(session)
            .with_launch(launch)
    }

    fn context(&self) -> Context<'static> {
        let home = self.home.as_deref().unwrap_or(HOME);
        let mut context = Context::new(&self.cwd, home, &LexicalDisk);
        context.agents.agent = self.agent_id.clone().filter(|id| !id.is_empty());
        context.memory_guard_off = match &self.execution_settings {
            Some(own) => own.disable_memory_guard,
            None => self.cli.disable_memory_guard,
        };
        context.workspace = self.workspace_sandbox.as_ref().map(|sandbox| Workspace {
            root: sandbox.root.clone(),
            isolation_root: sandbox.isolation_root.clone(),
        });
        context.credentials.clone_from(&self.credentials);
        context
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Cases in which the published program is weak and this one is stricter.
    const STRICTER: &str = "
        bash-rule-005 bash-rule-013 bash-rule-028 bash-rule-029 bash-rule-030 bash-rule-046
        bash-rule-047 cwd-005 cwd-006 cwd-016 file-rule-003 file-rule-023 file-rule-031
        file-rule-060 guard-024 memory-cmd-024 memory-cmd-032 memory-cmd-034 memory-cmd-036
        readonly-extra-001 readonly-extra-002 readonly-extra-003 readonly-extra-004
        readonly-extra-010 readonly-extra-011 readonly-extra-012 readonly-git-019
        readonly-git-021 readonly-git-058 readonly-op-014 readonly-path-010 readonly-path-012
        readonly-path-017 readonly-path-018 readonly-path-019 readonly-path-021
        readonly-path-034 readonly-path-035 readonly-path-036 readonly-path-039
        readonly-path-040 readonly-redir-031 readonly-redir-033 readonly-sed-006
        readonly-sed-007 readonly-shellc-011 readonly-tool-021 readonly-tool-025
        readonly-tool-083 readonly-tool-091 readonly-tool-097 readonly-tool-098
        suggestion-062 tool-rule-003 tool-rule-004 tool-rule-009";

    #[derive(Deserialize)]
    struct Expected {
        id: String,
        expected: String,
        matched_rule: Option<String>,
        reason: String,
        suggestion: Option<Value>,
        #[serde(default)]
        weakness: bool,
    }

    #[test]
    fn decisions_agree_with_the_published_program_or_are_stricter_where_it_is_weak() {
        let text = include_str!("../../tests/data/permission-cases.json");
        let cases: Vec<Value> = serde_json::from_str(text).unwrap();
        assert!(cases.len() >= 840);
        let rank = |verdict: &str| match verdict {
            "allow" => 0,
            "ask" => 1,
            "alwaysAsk" => 2,
            _ => 3,
        };
        let mut stricter = BTreeSet::new();
        let mut wrong = Vec::new();
        for value in &cases {
            let expected: Expected = serde_json::from_value(value.clone()).unwrap();
            let case: Case = serde_json::from_value(value.clone()).unwrap();
            let found = case.decide().unwrap();
            let verdict = found.verdict.as_str();
            if expected.weakness && rank(verdict) > rank(&expected.expected) {
                stricter.insert(expected.id);
                continue;
            }
            // The one unverified case has no reason to agree with.
            let reason = expected.id == "readonly-tool-046" || found.reason == expected.reason;
            if verdict != expected.expected
                || found.matched_rule != expected.matched_rule
                || !reason
            {
                wrong.push(format!(
                    "{} {}: {verdict} {:?} {}",
                    expected.id,
                    case.args_text(),
                    found.matched_rule,
                    found.reason
                ));
            }
            if value.get("suggestion").is_some() && expected.id != "readonly-tool-046" {
                let offered = case.suggestion().map(|s| {
                    json!({"id": Suggestion::ID, "rule": s.rule, "scope": s.scope.as_str(),
                        "text": s.text, "safety": if s.safe { "safe" } else { "moderate" }})
                });
                if offered != expected.suggestion {
                    wrong.push(format!("{} offers {offered:?}", expected.id));
                }
            }
        }
        assert!(
            wrong.is_empty(),
            "{}\n{} wrong",
            wrong.join("\n"),
            wrong.len()
        );
        let listed: BTreeSet<String> = STRICTER.split_whitespace().map(str::to_owned).collect();
        assert_eq!(stricter, listed);
    }

    /// Decisions that were seen over the wire: `cargo run --example
    /// permission-diff -- observe` made this file with letta-code 0.32.18.
    #[test]
    fn decisions_agree_with_what_was_observed_over_the_wire() {
        #[derive(Deserialize)]
        struct Seen {
            id: String,
            expected: String,
            denial: Option<String>,
            offer: Option<String>,
            #[serde(default)]
            weakness: bool,
        }
        let text = include_str!("../../tests/data/permission-observed.jsonl");
        assert!(text.lines().count() >= 200);
        let mut wrong = Vec::new();
        for line in text.lines() {
            let seen: Seen = serde_json::from_str(line).unwrap();
            let case = Case::from_json(line).unwrap();
            let found = case.decide().unwrap();
            // A client cannot tell `alwaysAsk` from `ask`.
            let verdict = if found.verdict.asks() {
                "ask"
            } else {
                found.verdict.as_str()
            };
            if seen.weakness {
                assert_eq!((&*seen.expected, verdict), ("allow", "ask"), "{}", seen.id);
                continue;
            }
            let denial = (verdict == "deny").then(|| super::super::classify::denial_text(&found));
            let offer = found.suggestion.map(|offer| offer.text);
            if (verdict, &denial, &offer) != (&*seen.expected, &seen.denial, &seen.offer) {
                wrong.push(format!("{line}\n  is {verdict} {denial:?} {offer:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    impl Case {
        fn args_text(&self) -> String {
            Value::Object(self.args.clone()).to_string()
        }
    }

    #[test]
    fn a_case_that_makes_no_sense_says_what_is_wrong() {
        let text =
            |mode, cwd| json!({"mode": mode, "cwd": cwd, "tool": "Read", "args": {}}).to_string();
        let decide = |text: String| Case::from_json(&text).and_then(|case| case.decide());
        assert!(decide(text("standard", "/x")).is_ok());
        assert!(matches!(
            decide(text("nope", "/x")),
            Err(CaseError::Mode(_))
        ));
        assert!(matches!(decide(text("plan", "x")), Err(CaseError::Cwd(_))));
        assert!(matches!(decide("[]".into()), Err(CaseError::Shape(_))));
    }
}
