//! `launch_subagent`: a client starts a subagent of a conversation (02 §5.14).

use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::conversation::actor::{Conversation, Done};
use crate::conversation::intake::Asker;
use crate::protocol::ConnectionId;
use crate::protocol::reply;
use crate::subagents::{LaunchError, Launched, Parent, Wanted};

/// How long a start may take.
const START_LIMIT: Duration = Duration::from_secs(25);

impl Conversation {
    /// Answers when the subagent is at work, or will never be.
    pub(crate) fn on_launch_subagent(
        &mut self,
        asker: Asker,
        args: &Map<String, Value>,
        tool_call_id: Option<String>,
    ) {
        let acting_user = asker.runtime.get("acting_user_id").and_then(Value::as_str);
        let parent = Parent {
            scope: self.scope.clone(),
            acting_user_id: acting_user.map(Into::into),
            cwd: self.shown_cwd(),
            workspace: self.workspace.clone(),
            disallowed_tools: self
                .execution
                .as_ref()
                .map(|settings| settings.disallowed_tools.clone())
                .unwrap_or_default(),
        };
        let gone = CancellationToken::new();
        self.launching.retain(|(_, token)| !token.is_cancelled());
        self.launching.push((asker.from.clone(), gone.clone()));
        let wanted = Wanted::read(args);
        let (desk, frames) = (self.services.desk.clone(), self.frames.clone());
        self.job(async move {
            let _ended = gone.clone().drop_guard();
            let launch = async {
                let launch = desk.launch(parent, wanted?, tool_call_id);
                let late = || LaunchError::Refused("Subagent launch timed out".into());
                timeout(START_LIMIT, launch)
                    .await
                    .unwrap_or_else(|_| Err(late()))
            };
            // Whoever asked and left is owed no answer.
            let launched = gone.run_until_cancelled(launch).await;
            if let (Some(launched), Some(id)) = (launched, &asker.request_id) {
                frames.reply(&asker.from, &response(id, launched));
            }
            Done::Nothing
        });
    }

    /// A connection ended, for good or for now: nobody hears of what it was
    /// starting, so that is not wanted any more.
    pub(crate) fn call_off_launches(&mut self, connection: &ConnectionId) {
        for (from, token) in &self.launching {
            if from == connection {
                token.cancel();
            }
        }
    }
}

fn response(request_id: &str, launched: Result<Launched, LaunchError>) -> Value {
    let success = launched.is_ok();
    let more = match launched {
        Ok(launched) => json!({
            "task_id": launched.task_id, "output_file": launched.output_file,
            "agent_id": launched.child.agent_id,
            "conversation_id": launched.child.conversation_id,
        }),
        Err(error) => json!({"error": error.to_string()}),
    };
    reply::reply("launch_subagent_response", request_id, success, more)
}
