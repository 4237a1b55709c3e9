//! Sending: what a message POST is allowed to do, and the run it begins.
//!
//! Invariants (03 §19.1, §19.3): one active run a conversation; pending calls are
//! answered by exactly their ids or not at all; a request that repeats the
//! otids of an earlier one gets that one's stream.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::response::Response;
use serde_json::{Value, json};

use crate::fault::Fault;
use crate::letta::runs::{NO_REDIS, Run};
use crate::letta::store::{Call, World};
use crate::letta::{tail, text_of};
use crate::model::script::{EXPLANATION, Plan, perform};
use crate::model::{self, Model, Outcome};
use crate::net::Peer;
use crate::reply;
use crate::server::Cloud;

/// What a request makes of the conversation, decided under one lock.
enum Verdict {
    /// Go on: begin the run with this work.
    Work {
        continuation: bool,
        text: Option<String>,
        held: Vec<Value>,
    },
    /// The run exists only to carry this error.
    Refuse { message: String, detail: String },
}

/// `POST …/messages`. `streams` is the default of `streaming`.
pub(crate) async fn post(
    cloud: &Arc<Cloud>,
    peer: &Peer,
    segment: &str,
    body: Value,
    fault: Option<Fault>,
    streams: bool,
) -> Response {
    let key = match cloud.store.resolve(segment, body["agent_id"].as_str()) {
        Ok(key) => key,
        Err(response) => return *response,
    };
    let Some(messages) = body["messages"].as_array().filter(|list| !list.is_empty()) else {
        return reply::detail(422, "Messages must not be empty");
    };
    let background = body["background"] == true;
    if background && !cloud.options.redis {
        return reply::detail(503, NO_REDIS);
    }
    let otids: Vec<String> = messages
        .iter()
        .filter_map(|m| m["otid"].as_str().map(str::to_owned))
        .collect();
    let streaming = body["streaming"].as_bool().unwrap_or(streams);
    if background && let Some(run) = repeated(cloud, &key, &otids) {
        return tail::stream(cloud, &run, 0, fault, false);
    }
    let (run, verdict) = match begin(cloud, &key, messages, background, otids) {
        Ok(begun) => begun,
        Err(response) => return *response,
    };
    if body["include_pings"] != false && streaming {
        run.ping();
    }
    let (owner, work_run, run_fault) = (cloud.clone(), run.clone(), fault.clone());
    cloud.spawn(async move { drive(&owner, &work_run, verdict, &body, run_fault).await });
    if matches!(fault, Some(Fault::AcceptThenReset)) {
        peer.0.reset();
        cloud.stopped().await;
    }
    if streaming {
        return tail::stream(cloud, &run, 0, fault, !background);
    }
    run.done().await;
    let chunks = run.chunks();
    let of = |kind: &str| chunks.iter().find(|c| c["message_type"] == kind).cloned();
    let messages: Vec<&Value> = chunks.iter().filter(|c| c["id"].is_string()).collect();
    reply::ok(
        &json!({"messages": messages, "stop_reason": of("stop_reason"),
        "usage": of("usage_statistics")}),
    )
}

/// The earlier run that had the same otids in the same conversation.
fn repeated(cloud: &Cloud, key: &str, otids: &[String]) -> Option<Arc<Run>> {
    let run = cloud.store.run_by_otid(otids.first()?)?;
    let set = |ids: &[String]| ids.iter().cloned().collect::<BTreeSet<_>>();
    (run.key == key && set(&run.otids) == set(otids)).then_some(run)
}

/// Checks the request against the conversation and begins its run.
fn begin(
    cloud: &Cloud,
    key: &str,
    messages: &[Value],
    background: bool,
    otids: Vec<String>,
) -> Result<(Arc<Run>, Verdict), Box<Response>> {
    let mut world = cloud.store.world();
    let world = &mut *world;
    let Some(conversation) = world.conversations.get(key) else {
        return Err(Box::new(reply::detail(404, "Conversation not found")));
    };
    if let Some(active) = conversation.active.as_ref().filter(|_| cloud.options.redis) {
        let text = format!(
            "CONFLICT: Cannot send a new message: Another request (run_id={}) is currently being \
             processed for this conversation. Please wait for it to complete.",
            active.id
        );
        let body = json!({"detail": text, "run_id": active.id});
        return Err(Box::new(reply::json(
            axum::http::StatusCode::CONFLICT,
            &body,
        )));
    }
    let approval = messages.first().filter(|m| is_approval(m));
    if cloud.options.pending_as_409 && approval.is_none() && !conversation.pending.is_empty() {
        let body = json!({"detail": {"code": "PENDING_APPROVAL", "message": WAITING}});
        return Err(Box::new(reply::json(
            axum::http::StatusCode::CONFLICT,
            &body,
        )));
    }
    let (id, agent) = (conversation.id.clone(), conversation.agent_id.clone());
    let run = Arc::new(Run::new(key, &agent, &id, background, otids));
    let verdict = judge(world, key, approval, messages);
    cloud.store.begin_run(world, &run);
    Ok((run, verdict))
}

fn is_approval(message: &Value) -> bool {
    message["type"] == "approval" || message["approvals"].is_array()
}

const WAITING: &str = "Cannot send a new message: The agent is waiting for approval on a tool call. \
     Please approve or deny the pending request before continuing.";

fn judge(world: &mut World, key: &str, approval: Option<&Value>, messages: &[Value]) -> Verdict {
    let refuse = |detail: String| Verdict::Refuse {
        message: "An unknown error occurred with the LLM streaming request.".to_owned(),
        detail,
    };
    let Some(conversation) = world.conversations.get_mut(key) else {
        return refuse("Conversation not found".to_owned());
    };
    let continuation = approval.is_some();
    let mut held = Vec::new();
    match approval {
        None if !conversation.pending.is_empty() => return refuse(WAITING.to_owned()),
        None => {}
        Some(approval) => {
            let got: Vec<&str> = decisions(approval)
                .filter_map(|d| d["tool_call_id"].as_str())
                .collect();
            if conversation.pending.is_empty() {
                if !already_returned(world, key, &got) {
                    return refuse(
                        "Cannot process approval response: No tool call is currently awaiting \
                         approval. Please send a regular message to interact with the agent."
                            .to_owned(),
                    );
                }
            } else {
                let expected: BTreeSet<&str> = conversation
                    .pending
                    .iter()
                    .map(|call| call.id.as_str())
                    .collect();
                if expected != got.iter().copied().collect() {
                    let list = |ids: Vec<&str>| format!("['{}']", ids.join("', '"));
                    return refuse(format!(
                        "Invalid tool call IDs. Expected '{}', but received '{}'.",
                        list(conversation.pending.iter().map(|c| c.id.as_str()).collect()),
                        list(got)
                    ));
                }
                held = std::mem::take(&mut conversation.held);
                let pending = std::mem::take(&mut conversation.pending);
                conversation.awaiting = None;
                remember_approval(world, key, approval, &pending);
            }
        }
    }
    let mut text = None;
    for message in messages.iter().filter(|m| m["role"].is_string()) {
        remember_content(world, key, message);
        if message["role"] == "user" {
            let said = text_of(&message["content"]);
            if Plan::parse(&said).is_some() || (text.is_none() && !said.trim().is_empty()) {
                text = Some(said);
            }
        }
    }
    Verdict::Work {
        continuation,
        text,
        held,
    }
}

fn decisions(approval: &Value) -> impl Iterator<Item = &Value> {
    approval["approvals"].as_array().into_iter().flatten()
}

/// Whether these ids are among the tool returns of the last 10 messages.
fn already_returned(world: &World, key: &str, ids: &[&str]) -> bool {
    let Some(conversation) = world.conversations.get(key) else {
        return false;
    };
    let recent: BTreeSet<&str> = conversation
        .in_context()
        .iter()
        .rev()
        .take(10)
        .filter_map(|id| world.messages.get(id))
        .flatten()
        .flat_map(|message| message["tool_returns"].as_array().into_iter().flatten())
        .filter_map(|entry| entry["tool_call_id"].as_str())
        .collect();
    !ids.is_empty() && ids.iter().all(|id| recent.contains(id))
}

/// Puts the decisions and the returns they carry into the history.
fn remember_approval(world: &mut World, key: &str, approval: &Value, pending: &[Call]) {
    let now = crate::now();
    let id = format!("message-{}", uuid::Uuid::new_v4());
    let response = json!({"id": id, "date": now, "message_type": "approval_response_message",
        "approvals": approval["approvals"], "otid": approval["otid"]});
    world.add_message(key, id, vec![response]);
    let returns: Vec<Value> = decisions(approval)
        .map(|decision| {
            let (status, text) = if decision["type"] == "tool" {
                (decision["status"].clone(), decision["tool_return"].clone())
            } else if decision["approve"] == true {
                (json!("success"), json!(""))
            } else {
                let reason = decision["reason"].as_str().unwrap_or("denied");
                (
                    json!("error"),
                    json!(format!("Error: request denied. {reason}")),
                )
            };
            json!({"tool_call_id": decision["tool_call_id"], "status": status, "tool_return": text,
                "stdout": decision["stdout"], "stderr": decision["stderr"]})
        })
        .collect();
    let id = format!("message-{}", uuid::Uuid::new_v4());
    let first = returns.first().cloned().unwrap_or_default();
    let name = pending
        .iter()
        .find(|c| first["tool_call_id"] == c.id.as_str())
        .map(|c| &c.name);
    let message = json!({"id": id, "date": now, "message_type": "tool_return_message",
        "name": name, "tool_call_id": first["tool_call_id"], "status": first["status"],
        "tool_return": first["tool_return"], "tool_returns": returns});
    world.add_message(key, id, vec![message]);
}

fn remember_content(world: &mut World, key: &str, message: &Value) {
    let id = format!("message-{}", uuid::Uuid::new_v4());
    let kind = format!("{}_message", message["role"].as_str().unwrap_or("user"));
    let variant = json!({"id": id, "date": crate::now(), "message_type": kind,
        "content": message["content"], "otid": message["otid"],
        "client_message_id": message["client_message_id"]});
    world.add_message(key, id, vec![variant]);
}

/// Does the work of a run and ends it.
async fn drive(
    cloud: &Arc<Cloud>,
    run: &Arc<Run>,
    verdict: Verdict,
    body: &Value,
    fault: Option<Fault>,
) {
    let outcome = match (fault, verdict) {
        (Some(Fault::ErrorEvent { stop_reason, error }), _) => Outcome::Failed(stop_reason, error),
        (Some(Fault::Stop { stop_reason }), _) => Outcome::Bare(stop_reason),
        (Some(Fault::ErrorMessage { stop_reason, error }), _) => {
            cloud.store.end_run(run);
            return run.fail_in_band(&stop_reason, error);
        }
        (_, Verdict::Refuse { message, detail }) => {
            let error = json!({"message_type": "error_message", "error_type": "internal_error",
                "message": message, "detail": detail});
            Outcome::Failed(Some("error".to_owned()), error)
        }
        (
            _,
            Verdict::Work {
                continuation,
                text,
                held,
            },
        ) => {
            model::returned(cloud, run, held);
            work(cloud, run, continuation, text, body).await
        }
    };
    // The conversation is free before the client can read that it is.
    cloud.store.end_run(run);
    match outcome {
        Outcome::Stop(reason) => run.finish(&reason, &model::usage()),
        Outcome::Bare(reason) => run.stop(&reason, &model::usage()),
        Outcome::Failed(reason, error) => run.fail(reason.as_deref(), error),
    }
}

async fn work(
    cloud: &Arc<Cloud>,
    run: &Arc<Run>,
    continuation: bool,
    text: Option<String>,
    body: &Value,
) -> Outcome {
    let canned = match &cloud.options.model {
        Model::OpenAi(model) => return Box::pin(model.perform(cloud, run, body)).await,
        Model::Scripted { canned } => canned.as_deref().unwrap_or(EXPLANATION),
    };
    let stream_tokens = body["stream_tokens"] == true;
    let left = {
        let mut world = cloud.store.world();
        world
            .conversations
            .get_mut(&run.key)
            .map(|c| std::mem::take(&mut c.plan))
    };
    let mut plan = match (text.as_deref().and_then(Plan::parse), left) {
        (Some(plan), _) => plan,
        (None, Some(left)) if continuation => left,
        (None, _) => Plan::saying(canned),
    };
    let outcome = perform(cloud, run, &mut plan, stream_tokens).await;
    if let Some(conversation) = cloud.store.world().conversations.get_mut(&run.key) {
        conversation.plan = plan;
    }
    outcome
}
