//! The other listener: started against a cloud of our own, asked about batches.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use local_cloud::{Decision, LocalCloud, Options, Scope};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{CWD, HOME};

/// Whose conversations they are.
pub(crate) const AGENT: &str = "agent-1";
/// Longest wait for anything.
const SOON: Duration = Duration::from_secs(120);

/// What was seen of one decision.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    /// `allow`, `deny` or `ask`.
    pub(crate) decision: &'static str,
    /// What the model is told of a denial.
    pub(crate) denial: Option<String>,
    /// The text of the offered suggestion.
    pub(crate) offer: Option<String>,
}

/// The running program.
pub(crate) struct Subject {
    cloud: LocalCloud,
    home: TempDir,
    work: TempDir,
    _program: Child,
}

impl Subject {
    pub(crate) async fn start(program: &str) -> Result<Self> {
        let options = Options {
            turn_timeout: SOON,
            ..Options::default()
        };
        let cloud = LocalCloud::start(options).await?;
        let (home, work) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let block = json!([{"matcher": "*", "hooks": [{"type": "command", "command": "exit 2", "quiet": true}]}]);
        let hooks = json!({"hooks": {"PreToolUse": block}});
        write(&home.path().join(".letta/settings.json"), &hooks)?;
        let log = std::fs::File::create(home.path().join("out.log"))?;
        let program = Command::new(program)
            .args(["server", "--env-name", "diff"])
            .current_dir(work.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home.path())
            .env("LETTA_BASE_URL", cloud.base_url())
            .env("LETTA_API_KEY", "test-key")
            .env("LETTA_HEALTH_ADDR", "off")
            .env("IGNORE_SELF_HOSTED_LISTENER_ERROR", "1")
            .env("DISABLE_AUTOUPDATER", "1")
            .env("LETTA_CODE_TELEM", "0")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| program.to_owned())?;
        cloud.wait_for_device(SOON).await?;
        Ok(Self {
            cloud,
            home,
            work,
            _program: program,
        })
    }

    fn work(&self) -> Result<PathBuf> {
        Ok(self.work.path().canonicalize()?)
    }

    /// The text with the real directories in the place of those of cases.
    fn real(&self, text: &str) -> Result<String> {
        let text = text.replace(CWD, &self.work()?.to_string_lossy());
        Ok(text.replace(HOME, &self.home.path().to_string_lossy()))
    }

    fn as_in_cases(&self, text: &str) -> Result<String> {
        let text = text.replace(&*self.work()?.to_string_lossy(), CWD);
        Ok(text.replace(&*self.home.path().to_string_lossy(), HOME))
    }

    /// What becomes of each case, all of them in one batch of calls.
    pub(crate) async fn decide(
        &self,
        mode: &str,
        rules: &Value,
        cases: &[Value],
    ) -> Result<Vec<Observed>> {
        let settings = self.real(&json!({"permissions": rules}).to_string())?;
        let path = self.work()?.join(".letta/settings.local.json");
        write(&path, &serde_json::from_str(&settings)?)?;
        let scope = Scope::new(AGENT, format!("conv-{}", uuid::Uuid::new_v4()));
        let device = self.cloud.wait_for_device(SOON).await?;
        device.send(
            json!({"type": "change_device_state", "runtime": scope.runtime(),
            "payload": {"mode": mode}}),
        );
        device
            .request(json!({"type": "sync", "runtime": scope.runtime()}), SOON)
            .await?;
        let mut script = String::new();
        for (at, case) in cases.iter().enumerate() {
            let tool = case["tool"].as_str().context("a case without tool")?;
            let args = self.real(&case["args"].to_string())?;
            script.push_str(&format!("CALLID call-{at} {tool} {args}\n"));
        }
        script.push_str("SAY done");
        let mut offers = vec![None; cases.len()];
        let decide = |request: &Value| {
            let request = &request["request"];
            let offer = request["permission_suggestions"][0]["text"].as_str();
            if let Some(at) = number(&request["tool_call_id"])
                && let Some(place) = offers.get_mut(at)
            {
                *place = offer.map(str::to_owned);
            }
            Decision::Deny("by the lab".to_owned())
        };
        let turn = self.cloud.turn_deciding(&scope, &script, decide).await?;
        let sorted = turn.deltas("approval_classification_end");
        ensure!(
            sorted.len() == 1,
            "one batch is sorted once, not {} times",
            sorted.len()
        );
        let bodies = self.cloud.message_bodies(&scope.conversation);
        let answers = &bodies.last().context("no answer was sent")?["messages"][0]["approvals"];
        let mut all = vec![Observed::default(); cases.len()];
        for (list, decision) in [
            ("auto_allowed_tool_call_ids", "allow"),
            ("auto_denied_tool_call_ids", "deny"),
            ("user_input_tool_call_ids", "ask"),
        ] {
            for at in sorted[0][list]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(number)
            {
                all[at].decision = decision;
            }
        }
        for answer in answers.as_array().into_iter().flatten() {
            if let Some(at) = number(&answer["tool_call_id"])
                && all[at].decision == "deny"
            {
                let reason = answer["reason"].as_str().unwrap_or_default();
                all[at].denial = Some(self.as_in_cases(reason)?);
            }
        }
        for (observed, offer) in all.iter_mut().zip(offers) {
            ensure!(!observed.decision.is_empty(), "a call was not sorted");
            observed.offer = offer.map(|text| self.as_in_cases(&text)).transpose()?;
        }
        Ok(all)
    }
}

fn number(id: &Value) -> Option<usize> {
    id.as_str()?.strip_prefix("call-")?.parse().ok()
}

fn write(path: &Path, value: &Value) -> Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    Ok(std::fs::write(path, value.to_string())?)
}
