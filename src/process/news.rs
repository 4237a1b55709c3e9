//! What a conversation hears of a task in the background: the events of a
//! monitor as they come, and the end (04 §6.5, §7.20).
//!
//! Invariant: the end is told once, here or to whoever reads the output just
//! then, and nothing is told of what somebody stopped.

use super::monitor::{self, Heard};
use super::notification;
use super::session::Ending;
use super::task::Task;
use crate::events::{ConversationHandle, Injected};

/// Tells `conversation` all there is to tell, on behalf of `acting_user_id`;
/// `heard` is what a monitor's source says.
pub(super) async fn tell(
    task: &Task,
    heard: Option<Heard>,
    conversation: ConversationHandle,
    acting_user_id: Option<String>,
) {
    let tell = |text| {
        conversation.inject(Injected::TaskNotification {
            text,
            acting_user_id: acting_user_id.clone(),
        });
    };
    let tell_event = |event: &str| {
        // Whoever stopped it does not want to hear more of it.
        if !task.end_is_told() {
            tell(notification::monitor_event(task.id(), task.label(), event));
        }
    };
    if let Some(heard) = heard
        && !monitor::follow(heard, |event| tell_event(&event)).await
    {
        task.claim_end();
        task.session().stop();
    }
    let finished = task.session().finished().await;
    // Whoever reads just now sees the end and claims it.
    let turn = task.reader().acquire().await;
    match &finished.ending {
        Ending::TimedOut(_) if task.is_monitor() => {
            tell_event("[Monitor timed out. Start it again if it is still needed.]");
            task.claim_end();
        }
        // Its last words are all there is to tell.
        Ending::Closed { words, .. } => {
            words.iter().for_each(|word| tell_event(word));
            task.claim_end();
        }
        _ => {}
    }
    if task.claim_end() {
        tell(task.announcement(&finished).await);
    }
    drop(turn);
    conversation.inject(Injected::BackgroundChanged);
}
