//! Hooks with real scripts: a bench for them.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, timeout};

use super::*;
use crate::api::tests::{Server, client_of, json as answering};
use crate::permissions::{RuleList, SessionRules};
use crate::process::BaseEnvironment;
use crate::state::Home;

mod answers;
mod limits;
mod settings;

const SOON: Duration = Duration::from_secs(20);

struct Bench {
    dir: tempfile::TempDir,
    hooks: Hooks,
}

impl Bench {
    fn new(settings: &Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("home"));
        std::fs::create_dir_all(dir.path().join("work")).unwrap();
        let mut variables: Variables = std::env::vars_os().collect();
        variables.insert("AGENT_ID".into(), "someone-else".into());
        variables.insert("MEMORY_DIR".into(), "elsewhere".into());
        let base = BaseEnvironment::new(variables, Path::new("/x/letta"), None, None);
        let hooks = Hooks::new(
            SettingsFiles::new(home.clone()),
            Processes::new(base),
            client_of("http://127.0.0.1:9"),
            home.letta.clone(),
        );
        let bench = Self { dir, hooks };
        bench.write(settings);
        bench
    }

    fn write(&self, settings: &Value) {
        let path = self.dir.path().join("home/.letta/settings.json");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, json!({ "hooks": settings }).to_string()).unwrap();
    }

    fn site(&self) -> Site {
        Site {
            cwd: self.dir.path().join("work"),
            agent_id: Some("agent-1".into()),
        }
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join("work").join(name)).unwrap_or_default()
    }

    async fn before(&self) -> BeforeTool {
        let event = call("Bash", json!({"command": "ls", "timeout": 5}));
        let site = self.site();
        let run = self.hooks.pre_tool_use(&site, &event);
        timeout(SOON, run).await.expect("a hook holds up the call")
    }

    async fn permission(&self) -> Permission {
        let input = json!({"command": "ls"});
        let mut session = SessionRules::default();
        session.add(RuleList::Allow, "Bash(make:*)");
        let site = self.site();
        let run =
            self.hooks
                .permission_request(&site, "Agent", input.as_object().unwrap(), &session);
        timeout(SOON, run).await.expect("a hook holds up the call")
    }

    async fn after(&self, succeeded: bool) -> Vec<String> {
        let event = call("Bash", json!({"command": "ls"}));
        let site = self.site();
        let end = ToolEnd {
            succeeded,
            output: "output\n".into(),
            failure: Some("tool_error"),
        };
        let run = self.hooks.post_tool_use(&site, &event, &end);
        timeout(SOON, run).await.expect("a hook holds up the call")
    }
}

fn call(tool: &str, input: Value) -> ToolEvent {
    ToolEvent {
        tool: tool.into(),
        input: input.as_object().unwrap().clone(),
        call_id: Some("call-1".into()),
    }
}

fn on(event: &str, commands: &[&str]) -> Value {
    let hooks: Vec<Value> = commands
        .iter()
        .map(|command| json!({"type": "command", "command": command, "timeout": 15000}))
        .collect();
    json!({event: [{"hooks": hooks}]})
}

fn unchanged() -> BeforeTool {
    BeforeTool::Run(Map::new())
}
