//! What all tools that run commands share: where, with which environment and
//! secrets, and where live output goes (04 §4.7, §5.1, §6.2).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::tool::{OutputStream, Progress, ToolCall, ToolContext};
use crate::process::capture::SpillPlace;
use crate::process::monitor::Heard;
use crate::process::scrub::{self, Redactions};
use crate::process::session::Live;
use crate::process::{Keep, Stream, Task, Variables};

/// A place and an environment for one command.
pub(super) struct Setting {
    pub(super) cwd: PathBuf,
    pub(super) env: Variables,
    pub(super) redactions: Redactions,
    /// Where a long result of the tool goes.
    pub(super) spill: Option<SpillPlace>,
}

/// What a call says of itself, for people.
pub(super) fn described(call: &ToolCall) -> Option<String> {
    let text = call.args.get("description")?.as_str()?;
    Some(text.to_owned())
}

/// Prepares to run `command` for `tool` (lower case), in `workdir` if that is
/// a directory, else in the conversation's.
pub(super) async fn prepare(
    context: &ToolContext,
    tool: &'static str,
    command: &str,
    workdir: Option<&str>,
) -> Setting {
    let home = usable_directory(context).await;
    let cwd = match workdir.map(|workdir| home.join(workdir)) {
        Some(workdir)
            if tokio::fs::metadata(&workdir)
                .await
                .is_ok_and(|found| found.is_dir()) =>
        {
            workdir
        }
        _ => home.clone(),
    };
    let secrets = scrub::referenced(command, &context.secrets.0);
    let env = context.processes.base().for_child(
        &context.scope,
        &home,
        context.acting_user_id.as_deref(),
        &context.facts,
        &secrets,
    );
    let spill = context
        .processes
        .spills()
        .then(|| SpillPlace::new(&context.letta_home, &home, tool));
    Setting {
        cwd,
        env,
        redactions: Redactions::new(&secrets),
        spill,
    }
}

async fn usable_directory(context: &ToolContext) -> PathBuf {
    let inherited = context.processes.base().get("USER_CWD").map(PathBuf::from);
    let own = std::env::current_dir().ok();
    let fallbacks: Vec<PathBuf> = inherited
        .into_iter()
        .chain(own)
        .chain([context.home.clone(), std::env::temp_dir()])
        .collect();
    context.cwd.usable(&fallbacks).await
}

/// Lets a command outlive its call; a notification will tell its end.
///
/// # Errors
/// Its transcript cannot be written: the command is stopped. The text is for
/// the model.
pub(super) async fn to_background(
    context: &ToolContext,
    task: &Arc<Task>,
    keep: Keep,
    heard: Option<Heard>,
) -> Result<(), String> {
    if let Err(error) = task.session().detach(keep).await {
        task.session().stop();
        context.processes.remove(task);
        return Err(format!(
            "Error: the output file {} cannot be written ({error}); the command was stopped.",
            task.log().display()
        ));
    }
    let (conversation, user) = (
        context.conversation.clone(),
        context.acting_user_id.as_deref(),
    );
    let user = user.map(str::to_owned);
    context
        .processes
        .announce(Arc::clone(task), heard, conversation, user);
    Ok(())
}

/// The line that tells once that the conversation's directory is gone.
pub(super) fn lost_directory_note(context: &ToolContext, now: &Path) -> String {
    context.cwd.take_lost().map_or_else(String::new, |lost| {
        format!(
            "Note: working directory {} no longer exists; running in {} instead.\n",
            lost.display(),
            now.display()
        )
    })
}

/// Live output of a call.
pub(super) fn live(output: &OutputStream) -> Live {
    let output = output.clone();
    Box::new(move |stream, text| {
        output.send(match stream {
            Stream::Stdout => Progress::Stdout(text),
            Stream::Stderr => Progress::Stderr(text),
        });
    })
}
